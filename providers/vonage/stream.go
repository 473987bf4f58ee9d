package vonage

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"voicebridge/codec"
	"voicebridge/providers"
)

// Stream is the bridge's end of one media connection.
type Stream struct {
	format codec.Format // set by the first message, read-only from then on
}

// Decode implements providers.Stream.
func (s *Stream) Decode(evs []providers.Event, m providers.Message) ([]providers.Event, error) {
	ev := providers.Event{At: -1}
	started := s.format.Rate != 0
	var err error
	switch {
	case !m.Binary && !started:
		err = s.start(m.Data, &ev)
	case !m.Binary:
		err = s.text(m.Data, &ev)
	case !started:
		err = errors.New("vonage: audio before " + eventConnected)
	case len(m.Data)%2 != 0:
		err = fmt.Errorf("vonage: %d bytes are no whole samples", len(m.Data))
	default:
		ev.Kind, ev.Audio = providers.EventAudio, m.Data
	}
	if err != nil {
		return evs, err
	}
	return append(evs, ev), nil
}

// text reads the messages that come after the first.
func (s *Stream) text(data []byte, ev *providers.Event) error {
	var msg struct {
		Event   string          `json:"event"`
		Payload json.RawMessage `json:"payload"`
		dtmf
		Nested *dtmf `json:"dtmf"`
	}
	if err := json.Unmarshal(data, &msg); err != nil {
		return fmt.Errorf("vonage: message: %w", err)
	}
	digit := msg.dtmf
	if msg.Nested != nil {
		digit = *msg.Nested
	}
	switch {
	// Older media servers leave the event out.
	case msg.Event == eventDTMF, msg.Event == "" && digit.Digit != nil:
		return digit.decode(ev)
	case msg.Event == eventCleared:
		ev.Kind = providers.EventCleared
	case msg.Event == eventNotify:
		var p payload
		if json.Unmarshal(msg.Payload, &p) == nil && p.Mark != "" {
			ev.Kind, ev.Mark = providers.EventMark, p.Mark
		} // else somebody else's notify
	case msg.Event == eventConnected:
		return errors.New("vonage: second " + eventConnected)
	case msg.Event == "":
		return errors.New("vonage: message without event")
	}
	return nil
}

// start reads the first message. All its keys but two are custom values, of any
// name and kind, so it is read key by key.
func (s *Stream) start(data []byte, ev *providers.Event) error {
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(data, &keys); err != nil {
		return fmt.Errorf("vonage: message: %w", err)
	}
	params := map[string]string{}
	for k, raw := range keys {
		var v string
		if json.Unmarshal(raw, &v) != nil {
			v = string(raw) // a number or an object: as it was written
		}
		params[k] = v
	}
	if params["event"] != eventConnected {
		return errors.New("vonage: message before " + eventConnected)
	}
	f, err := parseContentType(params["content-type"])
	if err != nil {
		return err
	}
	delete(params, "event")
	delete(params, "content-type")
	s.format = f
	ev.Kind = providers.EventStart
	ev.Start = &providers.Start{In: f, Out: f, Params: params}
	return nil
}

// dtmf is a digit: at the top of the message or in an object of its own.
type dtmf struct {
	Digit    json.RawMessage `json:"digit,omitempty"` // a string, or a plain number
	Duration json.Number     `json:"duration,omitempty"`
}

func (d dtmf) decode(ev *providers.Event) error {
	digit := d.Digit
	if len(digit) == 3 && digit[0] == '"' && digit[2] == '"' {
		digit = digit[1:2]
	}
	if len(digit) != 1 || !providers.ValidDigit(digit[0]) {
		return errors.New("vonage: dtmf message without a digit")
	}
	ev.Kind, ev.Digit = providers.EventDigit, digit[0]
	if ms, err := d.Duration.Float64(); err == nil && ms > 0 && ms < float64(maxDigit/time.Millisecond) {
		ev.Duration = time.Duration(ms) * time.Millisecond
	}
	return nil
}

// Encode implements providers.Stream.
func (s *Stream) Encode(out *providers.Messages, cmd *providers.Command) error {
	switch cmd.Kind {
	case providers.CommandAudio:
		if len(cmd.Audio) != s.format.FrameBytes() {
			return fmt.Errorf("vonage: frame of %d bytes, must be %d", len(cmd.Audio), s.format.FrameBytes())
		}
		addAudio(out, cmd.Audio)
		return nil
	case providers.CommandMark:
		return addJSON(out, action{"notify", &payload{cmd.Mark}})
	case providers.CommandClear:
		return addJSON(out, action{"clear", nil})
	}
	return fmt.Errorf("vonage: %v: %w", cmd.Kind, errors.ErrUnsupported)
}

func addAudio(out *providers.Messages, audio []byte) {
	m := out.Add(true)
	m.Data = append(m.Data, audio...)
}

func addJSON(out *providers.Messages, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("vonage: %w", err)
	}
	m := out.Add(false)
	m.Data = append(m.Data, b...)
	return nil
}
