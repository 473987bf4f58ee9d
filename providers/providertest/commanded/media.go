package commanded

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"voicebridge/providers"
	"voicebridge/providers/internal/rest"
)

// message is a message of the media connection in either direction.
type message struct {
	Event string `json:"event"` // connected, start, media, digit, mark, clear, stop
	Call  string `json:"call_control_id,omitempty"`
	ID    string `json:"stream_id,omitempty"`
	Codec string `json:"codec,omitempty"`
	Chunk int    `json:"chunk,omitempty"` // from 1
	At    int64  `json:"timestamp,omitempty"`
	Audio string `json:"payload,omitempty"`
	Digit string `json:"digit,omitempty"`
	Name  string `json:"name,omitempty"`
}

// window is how many frames are waited for that come late.
const window = 4

// frame is one that has come too early.
type frame struct {
	chunk int // 0: none
	at    time.Duration
	audio []byte
}

// stream implements providers.Stream. It puts the frames in order.
type stream struct {
	started bool
	next    int // chunk
	early   [window]frame
}

// Decode implements providers.Stream.
func (s *stream) Decode(evs []providers.Event, m providers.Message) ([]providers.Event, error) {
	var msg message
	if m.Binary {
		return evs, errors.New("commanded: binary message")
	}
	if err := json.Unmarshal(m.Data, &msg); err != nil {
		return evs, fmt.Errorf("commanded: %w", err)
	}
	if !s.started && msg.Event != "connected" && msg.Event != "start" {
		return evs, fmt.Errorf("commanded: %.40q before start", msg.Event)
	}
	ev := providers.Event{At: -1}
	switch msg.Event {
	case "connected":
		ev.Kind = providers.EventConnected
	case "start":
		return s.start(evs, &msg)
	case "media":
		return s.media(evs, &msg)
	case "digit":
		if len(msg.Digit) != 1 || !providers.ValidDigit(msg.Digit[0]) {
			return evs, errors.New("commanded: no digit")
		}
		ev.Kind, ev.Digit = providers.EventDigit, msg.Digit[0]
	case "mark":
		ev.Kind, ev.Mark = providers.EventMark, msg.Name
	case "stop":
		ev.Kind = providers.EventStop
	}
	return append(evs, ev), nil
}

func (s *stream) start(evs []providers.Event, msg *message) ([]providers.Event, error) {
	switch {
	case s.started:
		return evs, errors.New("commanded: second start")
	case msg.Codec != "PCMA":
		return evs, providers.FormatError(Name, msg.Codec, 8000, 1)
	}
	s.started, s.next = true, 1
	return append(evs, providers.Event{Kind: providers.EventStart, At: -1,
		Start: &providers.Start{Call: msg.Call, Stream: msg.ID, In: format, Out: format}}), nil
}

// media returns the frames that are due: this one, those that have waited for it, or
// nothing where one before it is still to come.
func (s *stream) media(evs []providers.Event, msg *message) ([]providers.Event, error) {
	audio, err := base64.StdEncoding.DecodeString(msg.Audio)
	at := time.Duration(msg.At) * time.Millisecond
	switch {
	case err != nil || len(audio) == 0:
		return evs, errors.New("commanded: payload")
	case msg.Chunk < s.next: // twice, or far too late
		return evs, nil
	case msg.Chunk >= s.next+window: // those before are lost
		missing := msg.Chunk - s.next
		s.early = [window]frame{}
		s.next = msg.Chunk + 1
		return append(evs, providers.Event{Kind: providers.EventAudio, Audio: audio, At: at, Missing: missing}), nil
	}
	s.early[msg.Chunk%window] = frame{msg.Chunk, at, audio}
	for f := &s.early[s.next%window]; f.chunk == s.next; f = &s.early[s.next%window] {
		evs = append(evs, providers.Event{Kind: providers.EventAudio, Audio: f.audio, At: f.at})
		s.next++
	}
	return evs, nil
}

// Encode implements providers.Stream.
func (s *stream) Encode(out *providers.Messages, cmd *providers.Command) error {
	switch cmd.Kind {
	case providers.CommandAudio:
		return add(out, &message{Event: "media", Audio: base64.StdEncoding.EncodeToString(cmd.Audio)})
	case providers.CommandMark:
		return add(out, &message{Event: "mark", Name: cmd.Mark})
	case providers.CommandClear:
		return add(out, &message{Event: "clear"})
	}
	return fmt.Errorf("commanded: %v: %w", cmd.Kind, errors.ErrUnsupported)
}

func add(out *providers.Messages, msg *message) error {
	b, err := json.Marshal(msg)
	if err != nil {
		return err
	}
	m := out.Add(false)
	m.Data = append(m.Data, b...)
	return nil
}

// peer implements providers.Peer.
type peer struct {
	started bool
	chunk   int
}

// Encode implements providers.Peer.
func (p *peer) Encode(out *providers.Messages, ev *providers.Event) error {
	switch ev.Kind {
	case providers.EventConnected:
		return add(out, &message{Event: "connected"})
	case providers.EventStart:
		p.started = true
		return add(out, &message{Event: "start", Call: ev.Start.Call, ID: ev.Start.Stream, Codec: "PCMA"})
	case providers.EventAudio:
		p.chunk += 1 + ev.Missing
		return add(out, &message{Event: "media", Chunk: p.chunk, At: ev.At.Milliseconds(),
			Audio: base64.StdEncoding.EncodeToString(ev.Audio)})
	case providers.EventDigit:
		return add(out, &message{Event: "digit", Digit: string(ev.Digit)})
	case providers.EventMark:
		return add(out, &message{Event: "mark", Name: ev.Mark})
	case providers.EventStop:
		return add(out, &message{Event: "stop"})
	}
	return fmt.Errorf("commanded: %v: %w", ev.Kind, errors.ErrUnsupported)
}

// Decode implements providers.Peer.
func (p *peer) Decode(m providers.Message, cmd *providers.Command) error {
	*cmd = providers.Command{}
	var msg message
	if err := rest.Strict(m.Data, &msg); err != nil || m.Binary || !p.started {
		return fmt.Errorf("commanded: %.100q: %w", m.Data, errors.Join(err, errors.New("out of place")))
	}
	switch msg.Event {
	case "media":
		audio, err := base64.StdEncoding.DecodeString(msg.Audio)
		if err != nil {
			return fmt.Errorf("commanded: payload: %w", err)
		}
		cmd.Kind, cmd.Audio = providers.CommandAudio, audio
	case "mark":
		cmd.Kind, cmd.Mark = providers.CommandMark, msg.Name
	case "clear":
		cmd.Kind = providers.CommandClear
	default:
		return fmt.Errorf("commanded: event %.40q", msg.Event)
	}
	return nil
}
