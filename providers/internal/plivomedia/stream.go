package plivomedia

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"voicebridge/providers"
	"voicebridge/providers/internal/mediajson"
)

// message is any message that the carrier sends. Its counters are plain numbers, its
// times strings of Unix milliseconds.
type message struct {
	Event    string            `json:"event"`
	Sequence mediajson.Counter `json:"sequenceNumber,omitzero"`
	Stream   string            `json:"streamId,omitempty"`
	Start    *start            `json:"start,omitempty"`
	Media    *media            `json:"media,omitempty"`
	DTMF     *dtmf             `json:"dtmf,omitempty"`
	Name     string            `json:"name,omitempty"` // of a mark
	// Extra are custom values, "a=b;c=d" or "{}", which the bridge does not use.
	Extra string `json:"extra_headers,omitempty"`
}

type start struct {
	Call    string   `json:"callId"`
	Stream  string   `json:"streamId"`
	Account string   `json:"accountId"`
	Tracks  []string `json:"tracks"`
	Format  struct {
		Encoding string `json:"encoding"`
		Rate     int    `json:"sampleRate"`
	} `json:"mediaFormat"`
}

type media struct {
	Track   string            `json:"track"`
	At      mediajson.Counter `json:"timestamp"`
	Chunk   mediajson.Counter `json:"chunk,omitzero"`
	Payload string            `json:"payload"`
}

type dtmf struct {
	Track string `json:"track,omitempty"`
	Digit string `json:"digit"`
	At    string `json:"timestamp,omitempty"`
}

// mediaKeys are the names in a media message.
var mediaKeys = mediajson.Keys{Event: "media", Media: "media", Sequence: "sequenceNumber", Stream: "streamId",
	Track: "track", Chunk: "chunk", At: "timestamp", Payload: "payload", Ignored: "extra_headers"}

// Stream is the bridge's end of one media connection.
type Stream struct {
	dialect *Dialect
	// Set by the start message, read-only from then on.
	started bool
	id      string
	prefix  []byte // an audio command up to its payload

	// Owned by Decode.
	audio []byte
	first uint64 // the time of the first audio, Unix ms
	lost  mediajson.Lost
}

func (s *Stream) errorf(format string, args ...any) error {
	return fmt.Errorf(s.dialect.Name+": "+format, args...)
}

// Decode implements providers.Stream.
func (s *Stream) Decode(evs []providers.Event, m providers.Message) ([]providers.Event, error) {
	if m.Binary {
		return evs, s.errorf("binary message, all are text")
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
		return s.errorf("message: %w", err)
	}
	if msg.Event == "start" {
		return s.start(&msg, ev)
	}
	if err := s.belongs([]byte(msg.Stream)); err != nil {
		return err
	}
	switch msg.Event {
	case "media":
		if msg.Media == nil {
			return s.errorf("media message without media object")
		}
		return s.media(&mediajson.Fields{Stream: []byte(msg.Stream), Track: []byte(msg.Media.Track),
			Chunk: msg.Media.Chunk, At: msg.Media.At, Payload: []byte(msg.Media.Payload)}, ev)
	case "dtmf":
		if msg.DTMF == nil || len(msg.DTMF.Digit) != 1 || !providers.ValidDigit(msg.DTMF.Digit[0]) {
			return s.errorf("dtmf message without a digit")
		}
		ev.Kind, ev.Digit = providers.EventDigit, msg.DTMF.Digit[0]
	case "playedStream", "played": // the second is in an older article
		ev.Kind, ev.Mark = providers.EventMark, msg.Name
	case "clearedAudio":
		ev.Kind = providers.EventCleared
	case "stop": // not to be relied on
		ev.Kind = providers.EventStop
	case "":
		return s.errorf("message without event")
	}
	return nil
}

func (s *Stream) start(msg *message, ev *providers.Event) error {
	switch {
	case s.started:
		return s.errorf("second start message")
	case msg.Start == nil || msg.Start.Stream == "":
		return s.errorf("start message without streamId")
	}
	f, err := s.dialect.FormatOf(msg.Start.Format.Encoding, msg.Start.Format.Rate)
	if err != nil {
		return err
	}
	s.started, s.id = true, msg.Start.Stream
	s.prefix = []byte(`{"event":"playAudio",`)
	if s.dialect.NamesStream {
		id, err := json.Marshal(s.id)
		if err != nil {
			return s.errorf("streamId: %w", err)
		}
		s.prefix = fmt.Appendf(s.prefix, `"streamId":%s,`, id)
	}
	s.prefix = fmt.Appendf(s.prefix, `"media":{"contentType":%q,"sampleRate":%d,"payload":"`,
		EncodingName(f.Encoding), f.Rate)
	ev.Kind, ev.Start = providers.EventStart, s.dialect.Start(f)
	ev.Start.Account, ev.Start.Call, ev.Start.Stream = msg.Start.Account, msg.Start.Call, s.id
	return nil
}

// maxAt bounds the times that are believed, in milliseconds since 1970.
const maxAt = 1 << 48

func (s *Stream) media(f *mediajson.Fields, ev *providers.Event) error {
	if err := s.belongs(f.Stream); err != nil {
		return err
	}
	if len(f.Track) > 0 && string(f.Track) != "inbound" {
		return nil // what the bridge itself said
	}
	var err error
	s.audio, err = base64.StdEncoding.AppendDecode(s.audio[:0], f.Payload)
	if err != nil {
		return s.errorf("media payload: %w", err)
	}
	ev.Kind, ev.Audio = providers.EventAudio, s.audio
	if f.At.Set && f.At.N < maxAt {
		if s.first == 0 {
			s.first = f.At.N
		}
		ev.At = time.Duration(int64(f.At.N)-int64(s.first)) * time.Millisecond
	}
	ev.Missing = s.lost.Missing(f.Chunk)
	return nil
}

// belongs checks that a message comes after the start and is of this stream. Not all
// name it.
func (s *Stream) belongs(id []byte) error {
	if !s.started {
		return s.errorf("message before start")
	}
	if len(id) > 0 && string(id) != s.id {
		return s.errorf("message of another stream")
	}
	return nil
}

// command is a message to the carrier that is no audio.
type command struct {
	Event  string `json:"event"`
	Stream string `json:"streamId,omitempty"`
	Name   string `json:"name,omitempty"`
	DTMF   string `json:"dtmf,omitempty"`
}

// Encode implements providers.Stream.
func (s *Stream) Encode(out *providers.Messages, cmd *providers.Command) error {
	switch cmd.Kind {
	case providers.CommandAudio:
		m := out.Add(false)
		m.Data = mediajson.AppendAudio(m.Data, s.prefix, cmd.Audio, `"}}`)
		return nil
	case providers.CommandMark:
		return addJSON(out, &command{Event: "checkpoint", Stream: s.id, Name: cmd.Mark})
	case providers.CommandClear:
		return addJSON(out, &command{Event: "clearAudio", Stream: s.id})
	case providers.CommandDigits:
		if s.dialect.SendsDigits && strings.Trim(cmd.Digits, "0123456789*#") == "" {
			return addJSON(out, &command{Event: "sendDTMF", DTMF: cmd.Digits})
		}
	}
	return s.errorf("%v: %w", cmd.Kind, errors.ErrUnsupported)
}

func addJSON(out *providers.Messages, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	m := out.Add(false)
	m.Data = append(m.Data, b...)
	return nil
}
