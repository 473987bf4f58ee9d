package asteriskmedia

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"voicebridge/codec"
	"voicebridge/providers"
)

// The events of chan_websocket.
const (
	eventStart     = "MEDIA_START"
	eventOff       = "MEDIA_XOFF"
	eventOn        = "MEDIA_XON"
	eventMark      = "MEDIA_MARK_PROCESSED"
	eventDigit     = "DTMF_END"
	commandMark    = "MARK_MEDIA"
	commandFlush   = "FLUSH_MEDIA"
	commandHangup  = "HANGUP"
	commandAnswer  = "ANSWER"
	commandStatus  = "GET_STATUS"
	commandPause   = "PAUSE_MEDIA"
	commandGoOn    = "CONTINUE_MEDIA"
	commandDrained = "REPORT_QUEUE_DRAINED"
	commandBuffer  = "START_MEDIA_BUFFERING"
	commandUnbuff  = "STOP_MEDIA_BUFFERING"
	commandDirect  = "SET_MEDIA_DIRECTION"
)

// What Asterisk takes in one message; longer text it leaves out without a word, longer
// audio ends the connection.
const (
	maxText  = 128
	maxAudio = 65500
)

// message is an event of chan_websocket, in either format.
type message struct {
	Event       string            `json:"event"`
	Connection  string            `json:"connection_id,omitempty"`
	Channel     string            `json:"channel,omitempty"`
	ChannelID   string            `json:"channel_id,omitempty"`
	Format      string            `json:"format,omitempty"`
	FrameSize   int               `json:"optimal_frame_size,omitempty"`
	Ptime       int               `json:"ptime,omitempty"`
	Variables   map[string]string `json:"channel_variables,omitempty"`
	Correlation string            `json:"correlation_id,omitempty"`
	Digit       string            `json:"digit,omitempty"`
}

// Stream is the bridge's end of one media connection of chan_websocket. It answers in the
// format, plain text or JSON, in which Asterisk begins.
type Stream struct {
	format codec.Format // set by the start, read-only from then on
	json   bool
	full   atomic.Bool // Asterisk's queue: what is sent would be lost without a word
}

// Decode implements providers.Stream.
func (s *Stream) Decode(evs []providers.Event, m providers.Message) ([]providers.Event, error) {
	ev := providers.Event{At: -1}
	started := s.format.Rate != 0
	switch {
	case m.Binary && !started:
		return evs, errors.New("asterisk: audio before " + eventStart)
	case m.Binary && len(m.Data)%s.format.Encoding.SampleBytes() != 0:
		return evs, fmt.Errorf("asterisk: %d bytes are no whole samples", len(m.Data))
	case m.Binary:
		ev.Kind, ev.Audio = providers.EventAudio, m.Data
		return append(evs, ev), nil
	}
	msg, isJSON, err := readMessage(m.Data)
	if err != nil {
		return evs, err
	}
	if msg.Event == eventStart == started {
		return evs, fmt.Errorf("asterisk: %.40q is out of place", msg.Event)
	}
	switch msg.Event {
	case eventStart:
		err = s.start(&msg, &ev)
		s.json = isJSON
	case eventMark:
		ev.Kind, ev.Mark = providers.EventMark, msg.Correlation
	case eventDigit:
		if len(msg.Digit) != 1 || !providers.ValidDigit(msg.Digit[0]) {
			return evs, errors.New("asterisk: " + eventDigit + " without a digit")
		}
		ev.Kind, ev.Digit = providers.EventDigit, msg.Digit[0]
	case eventOff, eventOn:
		s.full.Store(msg.Event == eventOff)
	}
	if err != nil {
		return evs, err
	}
	return append(evs, ev), nil
}

func (s *Stream) start(msg *message, ev *providers.Event) error {
	f, known := FormatOf(msg.Format)
	if !known {
		return providers.FormatError("asterisk", msg.Format, 0, 1)
	}
	s.format = f
	ev.Kind = providers.EventStart
	ev.Start = &providers.Start{Call: LegOf(msg.ChannelID), Stream: msg.ChannelID, In: f, Out: f}
	return nil
}

// readMessage reads an event in plain text or JSON.
func readMessage(data []byte) (msg message, isJSON bool, err error) {
	data = bytes.TrimRight(data, "\r\n")
	if bytes.HasPrefix(data, []byte("{")) {
		if err := json.Unmarshal(data, &msg); err != nil {
			return msg, true, fmt.Errorf("asterisk: message: %w", err)
		}
		isJSON = true
	} else {
		msg = plainMessage(string(data))
	}
	if strings.Trim(msg.Event, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_") != "" || msg.Event == "" {
		return msg, isJSON, fmt.Errorf("asterisk: no event: %.40q", data)
	}
	return msg, isJSON, nil
}

// plainMessage reads an event in plain text: a word, then an id, or names and values. Older
// versions leave some of them out.
func plainMessage(text string) (msg message) {
	var rest string
	msg.Event, rest, _ = strings.Cut(text, " ")
	if msg.Event == eventMark {
		msg.Correlation = rest
		return msg
	}
	for pair := range strings.FieldsSeq(rest) {
		name, value, _ := strings.Cut(pair, ":")
		switch name {
		case "channel_id":
			msg.ChannelID = value
		case "format":
			msg.Format = value
		case "digit":
			msg.Digit = value
		}
	}
	return msg
}

// Encode implements providers.Stream. While Asterisk's queue is full it adds no audio.
func (s *Stream) Encode(out *providers.Messages, cmd *providers.Command) error {
	switch cmd.Kind {
	case providers.CommandAudio:
		if len(cmd.Audio) != s.format.FrameBytes() {
			return fmt.Errorf("asterisk: frame of %d bytes, must be %d", len(cmd.Audio), s.format.FrameBytes())
		}
		if !s.full.Load() {
			m := out.Add(true)
			m.Data = append(m.Data, cmd.Audio...)
		}
		return nil
	case providers.CommandMark:
		return s.command(out, commandMark, cmd.Mark)
	case providers.CommandClear:
		s.full.Store(false)
		return s.command(out, commandFlush, "")
	}
	return fmt.Errorf("asterisk: %v: %w", cmd.Kind, errors.ErrUnsupported)
}

// command adds a command in the format of the connection.
func (s *Stream) command(out *providers.Messages, word, id string) error {
	text := []byte(word)
	if s.json {
		var err error
		if text, err = json.Marshal(struct {
			Command     string `json:"command"`
			Correlation string `json:"correlation_id,omitempty"`
		}{word, id}); err != nil {
			return fmt.Errorf("asterisk: %s: %w", word, err)
		}
	} else if id != "" {
		text = append(append(text, ' '), id...)
	}
	if len(text) > maxText {
		return fmt.Errorf("asterisk: a command of %d bytes is more than the %d that are taken", len(text), maxText)
	}
	m := out.Add(false)
	m.Data = append(m.Data, text...)
	return nil
}
