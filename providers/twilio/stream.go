package twilio

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"voicebridge/providers"
)

// Stream is the bridge's end of one media connection.
type Stream struct {
	// Set by the start message, read-only from then on.
	started   bool
	streamSid string
	prefix    []byte // an audio command up to its payload

	// Owned by Decode.
	audio []byte
	chunk uint64 // number of the last audio message
}

// Decode implements providers.Stream.
func (s *Stream) Decode(m providers.Message, ev *providers.Event) error {
	*ev = providers.Event{At: -1}
	if m.Binary {
		return errors.New("twilio: binary message, all of Twilio's are text")
	}
	var f mediaFields
	if scanMedia(m.Data, &f) && s.media(&f, ev) == nil {
		return nil
	}
	return s.decodeJSON(m.Data, ev)
}

// decodeJSON reads any message. For those that scanMedia accepts it does the
// same as Decode, which a fuzz target holds.
func (s *Stream) decodeJSON(data []byte, ev *providers.Event) error {
	var msg message
	if err := json.Unmarshal(data, &msg); err != nil {
		return fmt.Errorf("twilio: message: %w", err)
	}
	switch msg.Event {
	case "connected":
		ev.Kind = providers.EventConnected
		return nil
	case "start":
		return s.start(&msg, ev)
	case "media":
		if msg.Media == nil {
			return errors.New("twilio: media message without media object")
		}
		return s.media(&mediaFields{
			streamSid: []byte(msg.StreamSid),
			track:     []byte(msg.Media.Track),
			chunk:     msg.Media.Chunk,
			timestamp: msg.Media.Timestamp,
			payload:   []byte(msg.Media.Payload),
		}, ev)
	}
	var err error
	switch msg.Event {
	case "dtmf":
		if msg.DTMF == nil || len(msg.DTMF.Digit) != 1 || !providers.ValidDigit(msg.DTMF.Digit[0]) {
			return errors.New("twilio: dtmf message without a digit")
		}
		if err = s.belongs([]byte(msg.StreamSid)); err == nil {
			ev.Kind, ev.Digit = providers.EventDigit, msg.DTMF.Digit[0]
		}
	case "mark":
		if msg.Mark == nil {
			return errors.New("twilio: mark message without mark object")
		}
		if err = s.belongs([]byte(msg.StreamSid)); err == nil {
			ev.Kind, ev.Mark = providers.EventMark, msg.Mark.Name
		}
	case "stop":
		if err = s.belongs([]byte(msg.StreamSid)); err == nil {
			ev.Kind = providers.EventStop
		}
	case "":
		return errors.New("twilio: message without event")
	}
	return err
}

func (s *Stream) start(msg *message, ev *providers.Event) error {
	switch {
	case s.started:
		return errors.New("twilio: second start message")
	case msg.Start == nil:
		return errors.New("twilio: start message without start object")
	case msg.Start.MediaFormat != mediaFormat:
		f := msg.Start.MediaFormat
		return providers.FormatError("twilio", f.Encoding, f.SampleRate, f.Channels)
	}
	sid := msg.StreamSid
	if sid == "" {
		sid = msg.Start.StreamSid
	}
	if sid == "" {
		return errors.New("twilio: start message without streamSid")
	}
	quoted, err := json.Marshal(sid)
	if err != nil {
		return fmt.Errorf("twilio: streamSid: %w", err)
	}
	s.started, s.streamSid = true, sid
	s.prefix = fmt.Appendf(nil, `{"event":"media","streamSid":%s,"media":{"payload":"`, quoted)
	ev.Kind = providers.EventStart
	ev.Start = &providers.Start{
		Account: msg.Start.AccountSid,
		Call:    msg.Start.CallSid,
		Stream:  sid,
		In:      format,
		Out:     format,
		Params:  msg.Start.CustomParameters,
	}
	return nil
}

// maxLost is the largest jump in the numbers that is taken for loss: a minute.
const maxLost = 3000

func (s *Stream) media(f *mediaFields, ev *providers.Event) error {
	if err := s.belongs(f.streamSid); err != nil {
		return err
	}
	if len(f.track) > 0 && string(f.track) != "inbound" {
		return nil // what the bridge itself said: <Start><Stream> can send it
	}
	var err error
	s.audio, err = base64.StdEncoding.AppendDecode(s.audio[:0], f.payload)
	if err != nil {
		return fmt.Errorf("twilio: media payload: %w", err)
	}
	ev.Kind, ev.Audio = providers.EventAudio, s.audio
	if f.timestamp.set && f.timestamp.n < 1<<40 {
		ev.At = time.Duration(f.timestamp.n) * time.Millisecond
	}
	if f.chunk.set {
		if lost := f.chunk.n - s.chunk - 1; s.chunk > 0 && f.chunk.n > s.chunk && lost < maxLost {
			ev.Missing = int(lost)
		}
		s.chunk = f.chunk.n
	}
	return nil
}

// belongs checks that a message comes after the start and is of this stream.
// Twilio always names the stream; a message that does not is let through.
func (s *Stream) belongs(streamSid []byte) error {
	if !s.started {
		return errors.New("twilio: message before start")
	}
	if len(streamSid) > 0 && string(streamSid) != s.streamSid {
		return errors.New("twilio: message of another stream")
	}
	return nil
}

// Encode implements providers.Stream.
func (s *Stream) Encode(buf []byte, cmd *providers.Command) (providers.Message, error) {
	switch cmd.Kind {
	case providers.CommandAudio:
		buf = append(buf, s.prefix...)
		buf = base64.StdEncoding.AppendEncode(buf, cmd.Audio)
		return providers.Message{Data: append(buf, `"}}`...)}, nil
	case providers.CommandMark:
		return encodeJSON(buf, &message{Event: "mark", StreamSid: s.streamSid, Mark: &mark{cmd.Mark}})
	case providers.CommandClear:
		return encodeJSON(buf, &message{Event: "clear", StreamSid: s.streamSid})
	}
	return providers.Message{}, fmt.Errorf("twilio: %v: %w", cmd.Kind, errors.ErrUnsupported)
}

func encodeJSON(buf []byte, msg *message) (providers.Message, error) {
	b, err := json.Marshal(msg)
	if err != nil {
		return providers.Message{}, fmt.Errorf("twilio: %w", err)
	}
	return providers.Message{Data: append(buf, b...)}, nil
}

// counter is a number that travels as a decimal string.
type counter struct {
	n   uint64
	set bool
}

func count(n uint64) counter { return counter{n, true} }

// IsZero leaves an unset counter out of a message.
func (c counter) IsZero() bool { return !c.set }

// MarshalJSON writes the number as a string.
func (c counter) MarshalJSON() ([]byte, error) {
	return strconv.AppendQuote(nil, strconv.FormatUint(c.n, 10)), nil
}

// UnmarshalJSON takes a string, as documented, or a plain number.
func (c *counter) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		return nil
	}
	var err error
	if c.n, err = strconv.ParseUint(strings.Trim(string(b), `"`), 10, 64); err != nil {
		return fmt.Errorf("%.40q is not a counter", b)
	}
	c.set = true
	return nil
}
