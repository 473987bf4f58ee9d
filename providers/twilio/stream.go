package twilio

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"voicebridge/providers"
	"voicebridge/providers/internal/mediajson"
)

// Stream is the bridge's end of one media connection.
type Stream struct {
	// Set by the start message, read-only from then on.
	started   bool
	streamSid string
	prefix    []byte // an audio command up to its payload

	// Owned by Decode.
	audio []byte
	lost  mediajson.Lost
}

// mediaKeys are the names in a media message.
var mediaKeys = mediajson.Keys{Event: "media", Media: "media", Sequence: "sequenceNumber", Stream: "streamSid",
	Track: "track", Chunk: "chunk", At: "timestamp", Payload: "payload"}

// Decode implements providers.Stream.
func (s *Stream) Decode(evs []providers.Event, m providers.Message) ([]providers.Event, error) {
	if m.Binary {
		return evs, errors.New("twilio: binary message, all of Twilio's are text")
	}
	ev := providers.Event{At: -1}
	var f mediajson.Fields
	if !mediaKeys.Scan(m.Data, &f) || s.media(&f, &ev) != nil {
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
		return s.media(&mediajson.Fields{
			Stream:  []byte(msg.StreamSid),
			Track:   []byte(msg.Media.Track),
			Chunk:   msg.Media.Chunk,
			At:      msg.Media.Timestamp,
			Payload: []byte(msg.Media.Payload),
		}, ev)
	case "dtmf":
		if msg.DTMF == nil || len(msg.DTMF.Digit) != 1 || !providers.ValidDigit(msg.DTMF.Digit[0]) {
			return errors.New("twilio: dtmf message without a digit")
		}
		return s.event(&msg, ev, providers.Event{Kind: providers.EventDigit, At: -1, Digit: msg.DTMF.Digit[0]})
	case "mark":
		if msg.Mark == nil {
			return errors.New("twilio: mark message without mark object")
		}
		return s.event(&msg, ev, providers.Event{Kind: providers.EventMark, At: -1, Mark: msg.Mark.Name})
	case "stop":
		return s.event(&msg, ev, providers.Event{Kind: providers.EventStop, At: -1})
	case "":
		return errors.New("twilio: message without event")
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
		return fmt.Errorf("twilio: media payload: %w", err)
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
		return errors.New("twilio: message before start")
	}
	if len(streamSid) > 0 && string(streamSid) != s.streamSid {
		return errors.New("twilio: message of another stream")
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
	return fmt.Errorf("twilio: %v: %w", cmd.Kind, errors.ErrUnsupported)
}

func addJSON(out *providers.Messages, msg *message) error {
	b, err := json.Marshal(msg)
	if err != nil {
		return fmt.Errorf("twilio: %w", err)
	}
	m := out.Add(false)
	m.Data = append(m.Data, b...)
	return nil
}
