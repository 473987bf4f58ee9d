package asteriskmedia

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"voicebridge/codec"
	"voicebridge/providers"
)

// Peer is chan_websocket. It speaks JSON, and takes both formats, as Asterisk does not; what
// the Stream answers in is tested with the fixtures.
type Peer struct {
	format codec.Format
}

// Encode implements providers.Peer.
func (p *Peer) Encode(out *providers.Messages, ev *providers.Event) error {
	msg := message{}
	switch ev.Kind {
	case providers.EventStart:
		p.format = ev.Start.In
		id := ev.Start.Stream
		if LegOf(id) != ev.Start.Call {
			id = ev.Start.Call + mediaMark + id
		}
		msg = message{Event: eventStart, Connection: "bridge", Channel: "WebSocket/bridge/0x7f79ac006da0",
			ChannelID: id, Format: NameOf(p.format), FrameSize: p.format.FrameBytes(), Ptime: 20,
			Variables: map[string]string{"MEDIA_WEBSOCKET_CONNECTION_ID": "bridge"}}
	case providers.EventAudio:
		m := out.Add(true)
		m.Data = append(m.Data, ev.Audio...)
		return nil
	case providers.EventDigit:
		msg = message{Event: eventDigit, ChannelID: "1", Digit: string(ev.Digit)}
	case providers.EventMark:
		msg = message{Event: eventMark, ChannelID: "1", Correlation: ev.Mark}
	default: // there is no greeting and no stop, and nothing is said of a flush
		return fmt.Errorf("asterisk: %v: %w", ev.Kind, errors.ErrUnsupported)
	}
	b, err := json.Marshal(msg)
	if err != nil {
		return fmt.Errorf("asterisk: %w", err)
	}
	m := out.Add(false)
	m.Data = append(m.Data, b...)
	return nil
}

// Decode implements providers.Peer. Asterisk says nothing of most of what it leaves out; here
// each is an error.
func (p *Peer) Decode(m providers.Message, cmd *providers.Command) error {
	*cmd = providers.Command{}
	if m.Binary {
		frame := p.format.FrameBytes()
		if len(m.Data) > maxAudio {
			return fmt.Errorf("asterisk: %d bytes in a message end the connection", len(m.Data))
		}
		cmd.Kind, cmd.Audio = providers.CommandAudio, m.Data[:len(m.Data)/frame*frame]
		if len(m.Data)%frame != 0 {
			return fmt.Errorf("asterisk: the last %d bytes are no whole frame of %d and are lost", len(m.Data)%frame,
				frame)
		}
		return nil
	}
	word, id, err := readCommand(m.Data)
	if err != nil {
		return err
	}
	switch word {
	case commandMark:
		cmd.Kind, cmd.Mark = providers.CommandMark, id
	case commandFlush:
		cmd.Kind = providers.CommandClear
	case commandHangup, commandAnswer, commandStatus, commandPause, commandGoOn, commandDrained, commandBuffer,
		commandUnbuff, commandDirect: // the bridge needs none of them
	default:
		return fmt.Errorf("asterisk: unknown command %.40q", word)
	}
	return nil
}

// readCommand reads a command in plain text or JSON.
func readCommand(data []byte) (word, id string, err error) {
	if len(data) > maxText {
		return "", "", fmt.Errorf("asterisk: a command of %d bytes is left out", len(data))
	}
	if !strings.HasPrefix(string(data), "{") {
		word, id, _ = strings.Cut(string(data), " ")
		return word, id, nil
	}
	var c struct {
		Command     string `json:"command"`
		Correlation string `json:"correlation_id"`
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return "", "", fmt.Errorf("asterisk: Unable to parse JSON command: %w", err)
	}
	return c.Command, c.Correlation, nil
}
