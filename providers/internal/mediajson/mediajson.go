// Package mediajson reads and writes media messages that carry audio as base64 in
// JSON, as most carriers do, without encoding/json, which takes some twenty times as
// long and allocates.
package mediajson

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// Keys are the names that a carrier gives the parts of a media message: an object
// with Event, Sequence, Stream and the object Media, which has track, chunk,
// timestamp and payload.
type Keys struct {
	Event, Media              string // the value of "event", and the name of the inner object
	Sequence, Stream          string
	Track, Chunk, At, Payload string
	Ignored                   string // a key whose text has no meaning; empty: none
}

// Fields are the parts of a media message that the bridge uses. The slices alias the
// message.
type Fields struct {
	Stream, Track, Payload []byte
	Chunk, At              Counter
}

// Scan reads a media message as the carrier writes it. It takes the keys in any order
// with plain values and gives up on everything else (escapes, other keys, repeated
// keys, bytes beyond ASCII): false says "not sure", not "wrong".
func (k *Keys) Scan(b []byte, f *Fields) bool {
	*f = Fields{}
	s := scanner{b: b, ok: true}
	var event, sequence, stream, inner, ignored bool
	s.object(func(key []byte) bool {
		switch string(key) {
		case "event":
			return first(&event) && string(s.text()) == k.Event
		case k.Sequence:
			_, ok := s.counter()
			return first(&sequence) && ok
		case k.Stream:
			f.Stream = s.text()
			return first(&stream)
		case k.Media:
			return first(&inner) && k.media(&s, f)
		case k.Ignored:
			s.text()
			return first(&ignored)
		}
		return false
	})
	s.space()
	return s.ok && event && inner && s.at == len(b)
}

func (k *Keys) media(s *scanner, f *Fields) bool {
	var track, payload bool
	s.object(func(key []byte) bool {
		var ok bool
		switch string(key) {
		case k.Track:
			f.Track = s.text()
			return first(&track)
		case k.Chunk:
			ok = !f.Chunk.Set
			f.Chunk, s.ok = s.counter()
			return ok
		case k.At:
			ok = !f.At.Set
			f.At, s.ok = s.counter()
			return ok
		case k.Payload:
			f.Payload = s.payload()
			return first(&payload)
		}
		return false
	})
	return payload
}

// first sets seen and reports whether it was not set before.
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

// counter is at most 18 digits, as a string or as a plain number.
func (s *scanner) counter() (Counter, bool) {
	s.space()
	var t []byte
	if s.at < len(s.b) && s.b[s.at] == '"' {
		t = s.text()
	} else {
		from := s.at
		for s.at < len(s.b) && s.b[s.at] >= '0' && s.b[s.at] <= '9' {
			s.at++
		}
		t = s.b[from:s.at]
		if len(t) > 1 && t[0] == '0' { // not JSON
			return Counter{}, false
		}
	}
	if len(t) == 0 || len(t) > 18 {
		return Counter{}, false
	}
	var n uint64
	for _, c := range t {
		if c < '0' || c > '9' {
			return Counter{}, false
		}
		n = n*10 + uint64(c-'0')
	}
	return Count(n), s.ok
}

// Texts are values by name. Numbers and all else are taken as they are written; null is none.
type Texts map[string]string

// UnmarshalJSON implements json.Unmarshaler.
func (t *Texts) UnmarshalJSON(b []byte) error {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(b, &raw); err != nil {
		return err
	}
	*t = nil
	for name, value := range raw {
		var s string
		if json.Unmarshal(value, &s) != nil {
			s = string(value)
		}
		if *t == nil {
			*t = Texts{}
		}
		(*t)[name] = s
	}
	return nil
}

// Counter is a number that travels as a decimal string, or as a plain number.
type Counter struct {
	N   uint64
	Set bool
}

// Count makes a counter.
func Count(n uint64) Counter { return Counter{n, true} }

// IsZero leaves an unset counter out of a message.
func (c Counter) IsZero() bool { return !c.Set }

// MarshalJSON writes the number as a string.
func (c Counter) MarshalJSON() ([]byte, error) {
	return strconv.AppendQuote(nil, strconv.FormatUint(c.N, 10)), nil
}

// UnmarshalJSON takes a string or a plain number.
func (c *Counter) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		return nil
	}
	var err error
	if c.N, err = strconv.ParseUint(strings.Trim(string(b), `"`), 10, 64); err != nil {
		return fmt.Errorf("%.40q is not a counter", b)
	}
	c.Set = true
	return nil
}

// maxLost is the largest jump in the numbers that is taken for loss, in messages: a
// minute.
const maxLost = 3000

// Lost counts the messages that the carrier's numbering says were lost.
type Lost struct{ last uint64 }

// Missing returns how many messages were lost just before the one with number n.
func (l *Lost) Missing(n Counter) int {
	if !n.Set {
		return 0
	}
	before := l.last
	l.last = n.N
	if lost := n.N - before - 1; before > 0 && n.N > before && lost < maxLost {
		return int(lost)
	}
	return 0
}

// AppendAudio appends prefix, audio as base64, and suffix.
func AppendAudio(dst, prefix, audio []byte, suffix string) []byte {
	dst = append(dst, prefix...)
	dst = base64.StdEncoding.AppendEncode(dst, audio)
	return append(dst, suffix...)
}
