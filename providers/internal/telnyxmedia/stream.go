package telnyxmedia

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"voicebridge/codec"
	"voicebridge/providers"
	"voicebridge/providers/internal/byteorder"
	"voicebridge/providers/internal/mediajson"
)

// message is any message that Telnyx sends. Counters and times are decimal strings.
type message struct {
	Event    string            `json:"event"`
	Version  string            `json:"version,omitempty"`
	Sequence mediajson.Counter `json:"sequence_number,omitzero"`
	Stream   string            `json:"stream_id,omitempty"`
	Occurred string            `json:"occurred_at,omitempty"`
	Start    *start            `json:"start,omitempty"`
	Media    *media            `json:"media,omitempty"`
	DTMF     *dtmf             `json:"dtmf,omitempty"`
	Mark     *mark             `json:"mark,omitempty"`
	Stop     *stop             `json:"stop,omitempty"`
	Error    *complaint        `json:"payload,omitempty"`
}

type start struct {
	User    string            `json:"user_id"`
	Leg     string            `json:"call_control_id"`
	Session string            `json:"call_session_id,omitempty"`
	State   string            `json:"client_state,omitempty"`
	Params  map[string]string `json:"custom_parameters,omitempty"`
	Format  mediaFormat       `json:"media_format"`
}

type mediaFormat struct {
	Encoding string `json:"encoding"`
	Rate     int    `json:"sample_rate"`
	Channels int    `json:"channels"`
}

type media struct {
	Track   string            `json:"track,omitempty"`
	Chunk   mediajson.Counter `json:"chunk,omitzero"`
	At      mediajson.Counter `json:"timestamp,omitzero"`
	Payload string            `json:"payload"`
}

type dtmf struct {
	Digit string `json:"digit"`
}

type mark struct {
	Name string `json:"name"`
}

type stop struct {
	User string `json:"user_id"`
	Leg  string `json:"call_control_id"`
}

// complaint is what Telnyx says about our messages.
type complaint struct {
	Code   int    `json:"code"`
	Title  string `json:"title"`
	Detail string `json:"detail"`
}

// mediaKeys are the names in a media message.
var mediaKeys = mediajson.Keys{Event: "media", Media: "media", Sequence: "sequence_number", Stream: "stream_id",
	Track: "track", Chunk: "chunk", At: "timestamp", Payload: "payload"}

// Stream is the bridge's end of one media connection. It puts the frames in order, and
// finds out the order of the bytes of L16, which is disputed: until the caller has spoken
// for a while it is taken to be that of the network, as RFC 3551 has it.
type Stream struct {
	media *Media
	// Set by the start message, read-only from then on.
	started bool
	id      string
	l16     bool

	order byteorder.Finder // found by Decode, used by Encode as well

	// Owned by Decode.
	frames mediajson.Order
	spare  []byte // audio of a message without a number

	// Owned by Encode.
	swapped []byte
}

// Decode implements providers.Stream.
func (s *Stream) Decode(evs []providers.Event, m providers.Message) ([]providers.Event, error) {
	if m.Binary {
		return evs, errors.New("telnyx: binary message, all of Telnyx' are text")
	}
	var f mediajson.Fields
	if mediaKeys.Scan(m.Data, &f) {
		if out, err := s.audio(evs, &f); err == nil {
			return out, nil
		}
	}
	return s.decodeJSON(evs, m.Data)
}

// decodeJSON reads any message.
func (s *Stream) decodeJSON(evs []providers.Event, data []byte) ([]providers.Event, error) {
	var msg message
	if err := json.Unmarshal(data, &msg); err != nil {
		return evs, fmt.Errorf("telnyx: message: %w", err)
	}
	ev := providers.Event{At: -1}
	switch msg.Event {
	case "connected":
		ev.Kind = providers.EventConnected
		return append(evs, ev), nil
	case "start":
		err := s.start(&msg, &ev)
		if err != nil {
			return evs, err
		}
		return append(evs, ev), nil
	}
	if err := s.belongs([]byte(msg.Stream)); err != nil {
		return evs, err
	}
	switch msg.Event {
	case "media":
		if msg.Media == nil {
			return evs, errors.New("telnyx: media message without media object")
		}
		return s.audio(evs, &mediajson.Fields{Stream: []byte(msg.Stream), Track: []byte(msg.Media.Track),
			Chunk: msg.Media.Chunk, At: msg.Media.At, Payload: []byte(msg.Media.Payload)})
	case "dtmf":
		if msg.DTMF == nil || len(msg.DTMF.Digit) != 1 || !providers.ValidDigit(msg.DTMF.Digit[0]) {
			return evs, errors.New("telnyx: dtmf message without a digit")
		}
		ev.Kind, ev.Digit = providers.EventDigit, msg.DTMF.Digit[0]
	case "mark":
		if msg.Mark == nil {
			return evs, errors.New("telnyx: mark message without mark object")
		}
		ev.Kind, ev.Mark = providers.EventMark, msg.Mark.Name
	case "stop":
		ev.Kind = providers.EventStop
	case "error":
		if msg.Error == nil {
			return evs, errors.New("telnyx: error message without payload")
		}
		return evs, fmt.Errorf("telnyx: complaint %d %.40s: %.200s", msg.Error.Code, msg.Error.Title, msg.Error.Detail)
	case "":
		return evs, errors.New("telnyx: message without event")
	}
	return append(evs, ev), nil
}

func (s *Stream) start(msg *message, ev *providers.Event) error {
	switch {
	case s.started:
		return errors.New("telnyx: second start message")
	case msg.Start == nil || msg.Start.Leg == "":
		return errors.New("telnyx: start message without call_control_id")
	}
	in, err := FormatOf(msg.Start.Format.Encoding, msg.Start.Format.Rate, msg.Start.Format.Channels)
	if err != nil {
		return err
	}
	out := s.media.Format(msg.Start.State)
	s.started, s.id = true, msg.Stream
	s.l16 = in.Encoding == codec.L16BE || out.Encoding == codec.L16BE
	s.order.Measures = in.Encoding == codec.L16BE
	ev.Kind = providers.EventStart
	ev.Start = &providers.Start{Account: msg.Start.User, Call: msg.Start.Leg, Stream: s.id, In: in, Out: out,
		Params: msg.Start.Params}
	return nil
}

// belongs checks that a message comes after the start and is of this stream, whose id may
// be written in capitals.
func (s *Stream) belongs(id []byte) error {
	if !s.started {
		return errors.New("telnyx: message before start")
	}
	if len(id) > 0 && s.id != "" && string(id) != s.id && !strings.EqualFold(string(id), s.id) {
		return errors.New("telnyx: message of another stream")
	}
	return nil
}

// maxAt bounds the times that are believed, in milliseconds.
const maxAt = 1 << 40

// audio takes a frame and returns those that are due: this one, those that have waited for
// it, or none where one before it is still to come.
func (s *Stream) audio(evs []providers.Event, f *mediajson.Fields) ([]providers.Event, error) {
	if err := s.belongs(f.Stream); err != nil {
		return evs, err
	}
	if len(f.Track) > 0 && string(f.Track) != "inbound" {
		return append(evs, providers.Event{At: -1}), nil // what the bridge itself said
	}
	at := time.Duration(-1)
	if f.At.Set && f.At.N < maxAt {
		at = time.Duration(f.At.N) * time.Millisecond
	}
	buffer := s.spare[:0]
	if f.Chunk.N > 0 {
		buffer = s.frames.Buffer()
	}
	audio, err := base64.StdEncoding.AppendDecode(buffer, f.Payload)
	if err != nil {
		return evs, fmt.Errorf("telnyx: media payload: %w", err)
	}
	s.order.In(audio)
	if f.Chunk.N > 0 {
		return s.frames.Take(evs, f.Chunk.N, at, audio), nil
	}
	s.spare = audio
	return append(evs, providers.Event{Kind: providers.EventAudio, Audio: audio, At: at}), nil
}

// audioPrefix is an audio command up to its payload.
var audioPrefix = []byte(`{"event":"media","media":{"payload":"`)

// command is a message to Telnyx that is no audio.
type command struct {
	Event string `json:"event"`
	Mark  *mark  `json:"mark,omitempty"`
}

// Encode implements providers.Stream.
func (s *Stream) Encode(out *providers.Messages, cmd *providers.Command) error {
	switch cmd.Kind {
	case providers.CommandAudio:
		audio := cmd.Audio
		if s.l16 && s.order.Little() {
			s.swapped = append(s.swapped[:0], audio...)
			byteorder.Swap(s.swapped)
			audio = s.swapped
		}
		m := out.Add(false)
		m.Data = mediajson.AppendAudio(m.Data, audioPrefix, audio, `"}}`)
		return nil
	case providers.CommandMark:
		return addJSON(out, &command{"mark", &mark{cmd.Mark}})
	case providers.CommandClear:
		return addJSON(out, &command{Event: "clear"})
	}
	return fmt.Errorf("telnyx: %v: %w", cmd.Kind, errors.ErrUnsupported)
}

func addJSON(out *providers.Messages, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("telnyx: %w", err)
	}
	m := out.Add(false)
	m.Data = append(m.Data, b...)
	return nil
}
