package twiliomedia

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

// Peer is Twilio's end of one media connection.
type Peer struct {
	dialect   *Dialect
	start     *providers.Start
	quotedSid []byte
	sequence  uint64
	chunk     uint64
}

func (p *Peer) errorf(f string, args ...any) error {
	return fmt.Errorf(p.dialect.Name+": "+f, args...)
}

// Encode implements providers.Peer.
func (p *Peer) Encode(out *providers.Messages, ev *providers.Event) error {
	if ev.Kind == providers.EventConnected {
		return addJSON(out, &message{Event: "connected", Protocol: "Call", Version: "1.0.0"})
	}
	if ev.Kind == providers.EventStart {
		var err error
		if p.quotedSid, err = json.Marshal(ev.Start.Stream); err != nil {
			return p.errorf("streamSid: %w", err)
		}
		p.start = ev.Start
	}
	if p.start == nil {
		return p.errorf("%v before start", ev.Kind)
	}
	p.sequence++
	msg := message{SequenceNumber: mediajson.Count(p.sequence), StreamSid: p.start.Stream}
	switch ev.Kind {
	case providers.EventStart:
		msg.Event, msg.Start = "start", p.startObject()
	case providers.EventAudio:
		p.chunk += 1 + uint64(ev.Missing)
		p.audio(out.Add(false), ev)
		return nil
	case providers.EventDigit:
		msg.Event = "dtmf"
		msg.DTMF = &dtmf{Track: "inbound_track", Digit: string(ev.Digit)}
	case providers.EventMark:
		msg.Event = "mark"
		msg.Mark = &mark{ev.Mark}
	case providers.EventStop:
		msg.Event = "stop"
		msg.Stop = &stop{AccountSid: p.start.Account, CallSid: p.start.Call}
		if p.dialect.Session {
			msg.Stop.Session, msg.Stop.CallSid = p.start.Call, unusable(p.start.Call)
		}
	default:
		p.sequence--
		return p.errorf("%v: %w", ev.Kind, errors.ErrUnsupported)
	}
	return addJSON(out, &msg)
}

func (p *Peer) startObject() *start {
	params := p.start.Params
	if params == nil {
		params = map[string]string{}
	}
	s := &start{AccountSid: p.start.Account, StreamSid: p.start.Stream, CallSid: p.start.Call,
		Tracks: []string{"inbound"}, CustomParameters: params, MediaFormat: mediaFormat}
	if p.dialect.Session {
		s.Session, s.CallSid, s.Context = s.CallSid, unusable(s.CallSid), "inbound"
	}
	return s
}

// unusable is the callSid of a session: no command knows it.
func unusable(session string) string { return "media-" + session }

func (p *Peer) audio(m *providers.Message, ev *providers.Event) {
	m.Data = append(m.Data, `{"event":"media","sequenceNumber":"`...)
	m.Data = strconv.AppendUint(m.Data, p.sequence, 10)
	m.Data = append(m.Data, `","streamSid":`...)
	m.Data = append(m.Data, p.quotedSid...)
	m.Data = append(m.Data, `,"media":{"track":"inbound","chunk":"`...)
	m.Data = strconv.AppendUint(m.Data, p.chunk, 10)
	m.Data = append(m.Data, `","timestamp":"`...)
	m.Data = strconv.AppendInt(m.Data, int64(ev.At/time.Millisecond), 10)
	m.Data = mediajson.AppendAudio(m.Data, payloadPrefix, ev.Audio, `"}}`)
}

var payloadPrefix = []byte(`","payload":"`)

// Decode implements providers.Peer. What it refuses, Twilio logs as warning
// 31951 and ignores.
func (p *Peer) Decode(m providers.Message, cmd *providers.Command) error {
	*cmd = providers.Command{}
	if m.Binary {
		return p.errorf("31951: binary message")
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
	if err := rest.Strict(m.Data, &msg); err != nil {
		return p.errorf("31951: %w", err)
	}
	if p.start == nil || msg.StreamSid != p.start.Stream {
		return p.errorf("31951: wrong streamSid")
	}
	switch {
	case msg.Event == "media" && msg.Media != nil && msg.Media.Payload != nil && msg.Mark == nil:
		audio, err := base64.StdEncoding.DecodeString(*msg.Media.Payload)
		if err != nil {
			return p.errorf("31951: payload: %w", err)
		}
		cmd.Kind, cmd.Audio = providers.CommandAudio, audio
	case msg.Event == "mark" && msg.Mark != nil && msg.Media == nil:
		cmd.Kind, cmd.Mark = providers.CommandMark, msg.Mark.Name
	case msg.Event == "clear" && msg.Mark == nil && msg.Media == nil:
		cmd.Kind = providers.CommandClear
	default:
		return p.errorf("31951: event %.40q with the wrong objects", msg.Event)
	}
	return nil
}
