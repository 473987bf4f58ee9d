package vonage

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"voicebridge/codec"
	"voicebridge/providers"
)

// Peer is Vonage's end of one media connection.
type Peer struct {
	format codec.Format
}

// Encode implements providers.Peer.
func (p *Peer) Encode(out *providers.Messages, ev *providers.Event) error {
	switch ev.Kind {
	case providers.EventStart:
		p.format = ev.Start.In
		keys := map[string]string{"event": eventConnected, "content-type": contentType(p.format)}
		for k, v := range ev.Start.Params {
			keys[k] = v
		}
		return addJSON(out, keys)
	case providers.EventAudio:
		addAudio(out, ev.Audio)
		return nil
	case providers.EventDigit:
		return addJSON(out, struct {
			Event    string `json:"event"`
			Digit    string `json:"digit"`
			Duration int64  `json:"duration"`
		}{eventDTMF, string(ev.Digit), int64(ev.Duration / time.Millisecond)})
	case providers.EventCleared:
		return addJSON(out, map[string]string{"event": eventCleared})
	case providers.EventMark:
		return addJSON(out, struct {
			Event   string  `json:"event"`
			Payload payload `json:"payload"`
		}{eventNotify, payload{ev.Mark}})
	}
	// There is no greeting before websocket:connected and no stop message:
	// Vonage closes the socket.
	return fmt.Errorf("vonage: %v: %w", ev.Kind, errors.ErrUnsupported)
}

// Decode implements providers.Peer. Of audio longer than a frame Vonage plays
// the first frame, and nothing of shorter audio.
func (p *Peer) Decode(m providers.Message, cmd *providers.Command) error {
	*cmd = providers.Command{}
	if m.Binary {
		frame := p.format.FrameBytes()
		if len(m.Data) < frame {
			return fmt.Errorf("vonage: frame of %d bytes rejected, must be %d", len(m.Data), frame)
		}
		cmd.Kind, cmd.Audio = providers.CommandAudio, m.Data[:frame]
		if len(m.Data) > frame {
			return fmt.Errorf("vonage: frame of %d bytes cut, must be %d", len(m.Data), frame)
		}
		return nil
	}
	var a action
	if err := json.Unmarshal(m.Data, &a); err != nil {
		return fmt.Errorf("vonage: command: %w", err)
	}
	switch {
	case a.Action == "clear":
		cmd.Kind = providers.CommandClear
	case a.Action == "notify" && a.Payload != nil:
		cmd.Kind, cmd.Mark = providers.CommandMark, a.Payload.Mark
	default:
		return fmt.Errorf("vonage: unknown action %.40q", a.Action)
	}
	return nil
}
