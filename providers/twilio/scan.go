package twilio

import "bytes"

// mediaFields are the parts of a media message that the bridge uses. The slices
// alias the message.
type mediaFields struct {
	streamSid, track []byte
	chunk, timestamp counter
	payload          []byte
}

// scanMedia reads a media message as Twilio writes it, without encoding/json,
// which takes some twenty times as long. It accepts the documented keys in any
// order with plain string values and gives up on everything else (escapes, other
// keys, repeated keys, bytes beyond ASCII): false says "not sure", not "wrong".
func scanMedia(b []byte, f *mediaFields) bool {
	*f = mediaFields{}
	s := scanner{b: b, ok: true}
	var event, sequence, streamSid, inner bool
	s.object(func(key []byte) bool {
		switch string(key) {
		case "event":
			return first(&event) && string(s.text()) == "media"
		case "sequenceNumber":
			_, ok := s.counter()
			return first(&sequence) && ok
		case "streamSid":
			f.streamSid = s.text()
			return first(&streamSid)
		case "media":
			return first(&inner) && s.media(f)
		}
		return false
	})
	s.space()
	return s.ok && event && inner && s.at == len(b)
}

func (s *scanner) media(f *mediaFields) bool {
	var track, payload bool
	s.object(func(key []byte) bool {
		var ok bool
		switch string(key) {
		case "track":
			f.track = s.text()
			return first(&track)
		case "chunk":
			ok = !f.chunk.set
			f.chunk, s.ok = s.counter()
			return ok
		case "timestamp":
			ok = !f.timestamp.set
			f.timestamp, s.ok = s.counter()
			return ok
		case "payload":
			f.payload = s.payload()
			return first(&payload)
		}
		return false
	})
	return payload
}

// first sets seen and tells whether it was not set before.
func first(seen *bool) bool {
	was := *seen
	*seen = true
	return !was
}

// scanner walks over JSON. Once ok is false it stays so.
type scanner struct {
	b  []byte
	at int
	ok bool
}

func (s *scanner) space() {
	for s.at < len(s.b) {
		switch s.b[s.at] {
		case ' ', '\t', '\r', '\n':
			s.at++
		default:
			return
		}
	}
}

// next consumes c after white space.
func (s *scanner) next(c byte) bool {
	s.space()
	if s.at < len(s.b) && s.b[s.at] == c {
		s.at++
		return true
	}
	return false
}

// object calls value for each key, with the scanner at the key's value.
func (s *scanner) object(value func(key []byte) bool) {
	if !s.next('{') {
		s.ok = false
	}
	for s.ok {
		key := s.text()
		s.ok = s.ok && s.next(':') && value(key) && s.ok
		if s.next('}') {
			return
		}
		s.ok = s.ok && s.next(',')
	}
}

// text is a string of printable ASCII without escapes.
func (s *scanner) text() []byte {
	if !s.next('"') {
		s.ok = false
		return nil
	}
	for i := s.at; i < len(s.b); i++ {
		switch c := s.b[i]; {
		case c == '"':
			t := s.b[s.at:i]
			s.at = i + 1
			return t
		case c == '\\' || c < ' ' || c >= 0x7F:
			s.ok = false
			return nil
		}
	}
	s.ok = false
	return nil
}

// payload is a string of base64: a long one, so by the fast searches of package
// bytes. Other bytes that do not belong there make the decoding fail.
func (s *scanner) payload() []byte {
	if s.next('"') {
		if n := bytes.IndexByte(s.b[s.at:], '"'); n >= 0 {
			t := s.b[s.at : s.at+n]
			s.at += n + 1
			// An escape may be legal; a line break, which base64 skips, is not.
			s.ok = s.ok && bytes.IndexByte(t, '\\') < 0 && bytes.IndexByte(t, '\n') < 0 && bytes.IndexByte(t, '\r') < 0
			return t
		}
	}
	s.ok = false
	return nil
}

// counter is a string of at most 18 digits.
func (s *scanner) counter() (counter, bool) {
	t := s.text()
	if len(t) == 0 || len(t) > 18 {
		return counter{}, false
	}
	var n uint64
	for _, c := range t {
		if c < '0' || c > '9' {
			return counter{}, false
		}
		n = n*10 + uint64(c-'0')
	}
	return count(n), s.ok
}
