package twilio

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"voicebridge/providers"
)

// Peer is Twilio's end of one media connection.
type Peer struct {
	start     *providers.Start
	quotedSid []byte
	sequence  uint64
	chunk     uint64
}

// Encode implements providers.Peer.
func (p *Peer) Encode(buf []byte, ev *providers.Event) (providers.Message, error) {
	if ev.Kind == providers.EventConnected {
		return encodeJSON(buf, &message{Event: "connected", Protocol: "Call", Version: "1.0.0"})
	}
	if ev.Kind == providers.EventStart {
		var err error
		if p.quotedSid, err = json.Marshal(ev.Start.Stream); err != nil {
			return providers.Message{}, fmt.Errorf("twilio: streamSid: %w", err)
		}
		p.start = ev.Start
	}
	if p.start == nil {
		return providers.Message{}, fmt.Errorf("twilio: %v before start", ev.Kind)
	}
	p.sequence++
	msg := message{SequenceNumber: count(p.sequence), StreamSid: p.start.Stream}
	switch ev.Kind {
	case providers.EventStart:
		msg.Event = "start"
		params := ev.Start.Params
		if params == nil {
			params = map[string]string{}
		}
		msg.Start = &start{
			AccountSid:       ev.Start.Account,
			StreamSid:        ev.Start.Stream,
			CallSid:          ev.Start.Call,
			Tracks:           []string{"inbound"},
			CustomParameters: params,
			MediaFormat:      mediaFormat,
		}
	case providers.EventAudio:
		p.chunk += 1 + uint64(ev.Missing)
		return p.audio(buf, ev), nil
	case providers.EventDigit:
		msg.Event = "dtmf"
		msg.DTMF = &dtmf{Track: "inbound_track", Digit: string(ev.Digit)}
	case providers.EventMark:
		msg.Event = "mark"
		msg.Mark = &mark{ev.Mark}
	case providers.EventStop:
		msg.Event = "stop"
		msg.Stop = &stop{p.start.Account, p.start.Call}
	default:
		p.sequence--
		return providers.Message{}, fmt.Errorf("twilio: %v: %w", ev.Kind, errors.ErrUnsupported)
	}
	return encodeJSON(buf, &msg)
}

func (p *Peer) audio(buf []byte, ev *providers.Event) providers.Message {
	buf = append(buf, `{"event":"media","sequenceNumber":"`...)
	buf = strconv.AppendUint(buf, p.sequence, 10)
	buf = append(buf, `","streamSid":`...)
	buf = append(buf, p.quotedSid...)
	buf = append(buf, `,"media":{"track":"inbound","chunk":"`...)
	buf = strconv.AppendUint(buf, p.chunk, 10)
	buf = append(buf, `","timestamp":"`...)
	buf = strconv.AppendInt(buf, int64(ev.At/time.Millisecond), 10)
	buf = append(buf, `","payload":"`...)
	buf = base64.StdEncoding.AppendEncode(buf, ev.Audio)
	return providers.Message{Data: append(buf, `"}}`...)}
}

// Decode implements providers.Peer. What it refuses, Twilio logs as warning
// 31951 and ignores.
func (p *Peer) Decode(m providers.Message, cmd *providers.Command) error {
	*cmd = providers.Command{}
	if m.Binary {
		return errors.New("twilio: 31951: binary message")
	}
	// Unlike what Twilio sends, what it takes has exactly these fields.
	var msg struct {
		Event     string `json:"event"`
		StreamSid string `json:"streamSid"`
		Media     *struct {
			Payload *string `json:"payload"`
		} `json:"media"`
		Mark *mark `json:"mark"`
	}
	d := json.NewDecoder(bytes.NewReader(m.Data))
	d.DisallowUnknownFields()
	if err := d.Decode(&msg); err != nil {
		return fmt.Errorf("twilio: 31951: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("twilio: 31951: more than one JSON value")
	}
	if p.start == nil || msg.StreamSid != p.start.Stream {
		return errors.New("twilio: 31951: wrong streamSid")
	}
	switch {
	case msg.Event == "media" && msg.Media != nil && msg.Media.Payload != nil && msg.Mark == nil:
		audio, err := base64.StdEncoding.DecodeString(*msg.Media.Payload)
		if err != nil {
			return fmt.Errorf("twilio: 31951: payload: %w", err)
		}
		cmd.Kind, cmd.Audio = providers.CommandAudio, audio
	case msg.Event == "mark" && msg.Mark != nil && msg.Media == nil:
		cmd.Kind, cmd.Mark = providers.CommandMark, msg.Mark.Name
	case msg.Event == "clear" && msg.Mark == nil && msg.Media == nil:
		cmd.Kind = providers.CommandClear
	default:
		return fmt.Errorf("twilio: 31951: event %.40q with the wrong objects", msg.Event)
	}
	return nil
}
