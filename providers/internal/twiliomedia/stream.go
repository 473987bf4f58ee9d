package twiliomedia

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"voicebridge/providers"
	"voicebridge/providers/internal/mediajson"
)

// Stream is the bridge's end of one media connection.
type Stream struct {
	dialect *Dialect
	// Set by the start message, read-only from then on.
	started   bool
	streamSid string
	prefix    []byte // an audio command up to its payload

	// Owned by Decode.
	audio []byte
	lost  mediajson.Lost
}

func (s *Stream) errorf(f string, args ...any) error {
	return fmt.Errorf(s.dialect.Name+": "+f, args...)
}

// mediaKeys are the names in a media message.
var mediaKeys = mediajson.Keys{Event: "media", Media: "media", Sequence: "sequenceNumber", Stream: "streamSid",
	Track: "track", Chunk: "chunk", At: "timestamp", Payload: "payload"}

// Decode implements providers.Stream.
func (s *Stream) Decode(evs []providers.Event, m providers.Message) ([]providers.Event, error) {
	if m.Binary {
		return evs, s.errorf("binary message, all are text")
	}
	ev := providers.Event{At: -1}
	var f mediajson.Fields
	if !mediaKeys.Scan(m.Data, &f) || s.media(&f, &ev) != nil || ev.Kind == 0 {
		if err := s.decodeJSON(m.Data, &ev); err != nil {
			return evs, err
		}
	}
	return append(evs, ev), nil
}

// decodeJSON reads any message. For those that mediaKeys scans it does the same as
// Decode, which a fuzz target holds.
func (s *Stream) decodeJSON(data []byte, ev *providers.Event) error {
	*ev = providers.Event{At: -1}
	var msg message
	if err := json.Unmarshal(data, &msg); err != nil {
		return s.errorf("message: %w", err)
	}
	switch msg.Event {
	case "connected":
		ev.Kind = providers.EventConnected
		return nil
	case "start":
		return s.start(&msg, ev)
	case "media":
		if msg.Media == nil {
			return s.errorf("media message without media object")
		}
		return s.media(&mediajson.Fields{
			Stream:  []byte(msg.StreamSid),
			Track:   []byte(msg.Media.Track),
			Chunk:   msg.Media.Chunk,
			At:      msg.Media.Timestamp,
			Payload: []byte(msg.Media.Payload),
		}, ev)
	case "dtmf":
		if msg.DTMF == nil || len(msg.DTMF.Digit) != 1 || !providers.ValidDigit(msg.DTMF.Digit[0]) {
			return s.errorf("dtmf message without a digit")
		}
		return s.event(&msg, ev, providers.Event{Kind: providers.EventDigit, At: -1, Digit: msg.DTMF.Digit[0]})
	case "mark":
		if msg.Mark == nil {
			return s.errorf("mark message without mark object")
		}
		return s.event(&msg, ev, providers.Event{Kind: providers.EventMark, At: -1, Mark: msg.Mark.Name})
	case "stop":
		return s.event(&msg, ev, providers.Event{Kind: providers.EventStop, At: -1})
	case "":
		return s.errorf("message without event")
	}
	return nil
}

// event sets ev where the message belongs to this stream.
func (s *Stream) event(msg *message, ev *providers.Event, is providers.Event) error {
	if err := s.belongs([]byte(msg.StreamSid)); err != nil {
		return err
	}
	*ev = is
	return nil
}

func (s *Stream) start(msg *message, ev *providers.Event) error {
	switch {
	case s.started:
		return s.errorf("second start message")
	case msg.Start == nil:
		return s.errorf("start message without start object")
	case msg.Start.MediaFormat != mediaFormat:
		f := msg.Start.MediaFormat
		return providers.FormatError(s.dialect.Name, f.Encoding, f.SampleRate, f.Channels)
	}
	sid := msg.StreamSid
	if sid == "" {
		sid = msg.Start.StreamSid
	}
	if sid == "" {
		return s.errorf("start message without streamSid")
	}
	quoted, err := json.Marshal(sid)
	if err != nil {
		return s.errorf("streamSid: %w", err)
	}
	s.started, s.streamSid = true, sid
	s.prefix = fmt.Appendf(nil, `{"event":"media","streamSid":%s,"media":{"payload":"`, quoted)
	call := msg.Start.CallSid
	if s.dialect.Session {
		call = msg.Start.Session
	}
	ev.Kind = providers.EventStart
	ev.Start = &providers.Start{
		Account: msg.Start.AccountSid,
		Call:    call,
		Stream:  sid,
		In:      Format,
		Out:     Format,
		Params:  msg.Start.CustomParameters,
		OneWay:  slices.Contains(msg.Start.Tracks, "outbound"), // <Start><Stream>, not <Connect><Stream>
	}
	return nil
}

// maxAt bounds the timestamps that are believed, in milliseconds.
const maxAt = 1 << 40

func (s *Stream) media(f *mediajson.Fields, ev *providers.Event) error {
	if err := s.belongs(f.Stream); err != nil {
		return err
	}
	if len(f.Track) > 0 && string(f.Track) != "inbound" {
		return nil // what the bridge itself said: <Start><Stream> can send it
	}
	var err error
	s.audio, err = base64.StdEncoding.AppendDecode(s.audio[:0], f.Payload)
	if err != nil {
		return s.errorf("media payload: %w", err)
	}
	ev.Kind, ev.Audio = providers.EventAudio, s.audio
	if f.At.Set && f.At.N < maxAt {
		ev.At = time.Duration(f.At.N) * time.Millisecond
	}
	ev.Missing = s.lost.Missing(f.Chunk)
	return nil
}

// belongs checks that a message comes after the start and is of this stream.
// Twilio always names the stream; a message that does not is let through.
func (s *Stream) belongs(streamSid []byte) error {
	if !s.started {
		return s.errorf("message before start")
	}
	if len(streamSid) > 0 && string(streamSid) != s.streamSid {
		return s.errorf("message of another stream")
	}
	return nil
}

// Encode implements providers.Stream.
func (s *Stream) Encode(out *providers.Messages, cmd *providers.Command) error {
	switch cmd.Kind {
	case providers.CommandAudio:
		m := out.Add(false)
		m.Data = mediajson.AppendAudio(m.Data, s.prefix, cmd.Audio, `"}}`)
		return nil
	case providers.CommandMark:
		return addJSON(out, &message{Event: "mark", StreamSid: s.streamSid, Mark: &mark{cmd.Mark}})
	case providers.CommandClear:
		return addJSON(out, &message{Event: "clear", StreamSid: s.streamSid})
	}
	return s.errorf("%v: %w", cmd.Kind, errors.ErrUnsupported)
}

func addJSON(out *providers.Messages, msg *message) error {
	b, err := json.Marshal(msg)
	if err != nil {
		return err
	}
	m := out.Add(false)
	m.Data = append(m.Data, b...)
	return nil
}
