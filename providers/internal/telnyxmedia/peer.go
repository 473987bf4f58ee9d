package telnyxmedia

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"voicebridge/providers"
	"voicebridge/providers/internal/mediajson"
	"voicebridge/providers/internal/rest"
)

// Peer is Telnyx' end of one media connection.
type Peer struct {
	media    *Media
	start    *providers.Start
	quotedID []byte
	sequence uint64
	chunk    uint64
}

// Encode implements providers.Peer.
func (p *Peer) Encode(out *providers.Messages, ev *providers.Event) error {
	if ev.Kind == providers.EventConnected {
		return addJSON(out, &message{Event: "connected", Version: "1.0.0"})
	}
	if ev.Kind == providers.EventStart {
		var err error
		if p.quotedID, err = json.Marshal(ev.Start.Stream); err != nil {
			return fmt.Errorf("telnyx: stream_id: %w", err)
		}
		p.start = ev.Start
	}
	if p.start == nil {
		return fmt.Errorf("telnyx: %v before start", ev.Kind)
	}
	p.sequence++
	msg := message{Sequence: mediajson.Count(p.sequence), Stream: p.start.Stream}
	switch ev.Kind {
	case providers.EventStart:
		msg.Event, msg.Start = "start", &start{User: p.start.Account, Leg: p.start.Call, Params: p.start.Params,
			State: p.media.State(p.start.Out), Format: mediaFormat{Names[p.start.In.Encoding], p.start.In.Rate, 1}}
	case providers.EventAudio:
		p.chunk += 1 + uint64(ev.Missing)
		p.audio(out.Add(false), ev)
		return nil
	case providers.EventDigit:
		msg.Event, msg.DTMF, msg.Occurred = "dtmf", &dtmf{string(ev.Digit)}, "2026-01-01T00:00:02.698408Z"
	case providers.EventMark:
		msg.Event, msg.Mark = "mark", &mark{ev.Mark}
	case providers.EventStop:
		msg.Event, msg.Stop = "stop", &stop{p.start.Account, p.start.Call}
	default:
		p.sequence--
		return fmt.Errorf("telnyx: %v: %w", ev.Kind, errors.ErrUnsupported)
	}
	return addJSON(out, &msg)
}

func (p *Peer) audio(m *providers.Message, ev *providers.Event) {
	m.Data = append(m.Data, `{"event":"media","sequence_number":"`...)
	m.Data = strconv.AppendUint(m.Data, p.sequence, 10)
	m.Data = append(m.Data, `","media":{"track":"inbound","chunk":"`...)
	m.Data = strconv.AppendUint(m.Data, p.chunk, 10)
	m.Data = append(m.Data, `","timestamp":"`...)
	m.Data = strconv.AppendInt(m.Data, int64(ev.At/time.Millisecond), 10)
	m.Data = mediajson.AppendAudio(m.Data, payloadPrefix, ev.Audio, `"},"stream_id":`)
	m.Data = append(m.Data, p.quotedID...)
	m.Data = append(m.Data, '}')
}

var payloadPrefix = []byte(`","payload":"`)

// The audio of one message: 20 ms to 30 s.
const (
	leastAudio = 20 * time.Millisecond
	mostAudio  = 30 * time.Second
)

// Decode implements providers.Peer. It complains as Telnyx does.
func (p *Peer) Decode(m providers.Message, cmd *providers.Command) error {
	*cmd = providers.Command{}
	if m.Binary {
		return errors.New("telnyx: 100003 malformed_frame: binary message")
	}
	var msg struct {
		Event  string `json:"event"`
		Stream string `json:"stream_id"`
		Mark   *mark  `json:"mark"`
		Media  *struct {
			Payload *string `json:"payload"`
		} `json:"media"`
	}
	if err := rest.Strict(m.Data, &msg); err != nil || p.start == nil {
		return fmt.Errorf("telnyx: 100003 malformed_frame: %w", err)
	}
	switch {
	case msg.Event == "media" && msg.Media != nil && msg.Media.Payload != nil && msg.Mark == nil:
		audio, err := base64.StdEncoding.DecodeString(*msg.Media.Payload)
		if err != nil {
			return fmt.Errorf("telnyx: 100004 invalid_media: %w", err)
		}
		if d := p.start.Out.Duration(len(audio)); d < leastAudio || d > mostAudio {
			return fmt.Errorf("telnyx: 100004 invalid_media: %v of audio", d)
		}
		cmd.Kind, cmd.Audio = providers.CommandAudio, audio
	case msg.Event == "mark" && msg.Mark != nil && msg.Media == nil:
		cmd.Kind, cmd.Mark = providers.CommandMark, msg.Mark.Name
	case msg.Event == "clear" && msg.Mark == nil && msg.Media == nil:
		cmd.Kind = providers.CommandClear
	default:
		return fmt.Errorf("telnyx: 100003 malformed_frame: event %.40q", msg.Event)
	}
	return nil
}
