package plivomedia

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"voicebridge/codec"
	"voicebridge/providers"
	"voicebridge/providers/internal/mediajson"
	"voicebridge/providers/internal/rest"
)

// Peer is the carrier's end of one media connection.
type Peer struct {
	dialect  *Dialect
	start    *providers.Start
	quotedID []byte
	sequence uint64
	chunk    uint64
}

// epoch is when simulated streams begin, in Unix ms.
const epoch = 1_767_225_600_000

// Encode implements providers.Peer.
func (p *Peer) Encode(out *providers.Messages, ev *providers.Event) error {
	if ev.Kind == providers.EventStart {
		if err := p.begin(ev.Start); err != nil {
			return err
		}
	}
	if p.start == nil {
		return fmt.Errorf("%s: %v before start: %w", p.dialect.Name, ev.Kind, errors.ErrUnsupported)
	}
	p.sequence++
	msg := message{Sequence: mediajson.Count(p.sequence), Stream: p.start.Stream, Extra: "{}"}
	switch ev.Kind {
	case providers.EventStart:
		msg.Event, msg.Stream, msg.Start = "start", "", p.startObject()
	case providers.EventAudio:
		p.chunk += 1 + uint64(ev.Missing)
		p.audio(out.Add(false), ev)
		return nil
	case providers.EventDigit:
		msg.Event = "dtmf"
		msg.DTMF = &dtmf{Track: "inbound", Digit: string(ev.Digit), At: strconv.FormatInt(epoch, 10)}
	case providers.EventMark:
		msg.Event, msg.Name, msg.Extra = "playedStream", ev.Mark, ""
		if p.dialect.NamesStream {
			msg.Stream, msg.Sequence = "", mediajson.Counter{}
		}
	case providers.EventCleared:
		msg.Event, msg.Extra = "clearedAudio", ""
	default: // it just closes the connection
		p.sequence--
		return fmt.Errorf("%s: %v: %w", p.dialect.Name, ev.Kind, errors.ErrUnsupported)
	}
	return addJSON(out, &msg)
}

func (p *Peer) begin(s *providers.Start) (err error) {
	if want := p.dialect.Heard(s.Out); s.In != want {
		return fmt.Errorf("%s: what the caller says comes as %v with %v", p.dialect.Name, want, s.Out)
	}
	if p.quotedID, err = json.Marshal(s.Stream); err != nil {
		return fmt.Errorf("%s: streamId: %w", p.dialect.Name, err)
	}
	p.start = s
	return nil
}

func (p *Peer) startObject() *start {
	s := &start{Call: p.start.Call, Stream: p.start.Stream, Account: p.start.Account, Tracks: []string{"inbound"}}
	s.Format.Encoding, s.Format.Rate = EncodingName(p.start.Out.Encoding), p.start.Out.Rate
	return s
}

func (p *Peer) audio(m *providers.Message, ev *providers.Event) {
	m.Data = append(m.Data, `{"sequenceNumber":`...)
	m.Data = strconv.AppendUint(m.Data, p.sequence, 10)
	m.Data = append(m.Data, `,"streamId":`...)
	m.Data = append(m.Data, p.quotedID...)
	m.Data = append(m.Data, `,"event":"media","media":{"track":"inbound","timestamp":"`...)
	m.Data = strconv.AppendInt(m.Data, epoch+int64(ev.At/time.Millisecond), 10)
	m.Data = append(m.Data, `","chunk":`...)
	m.Data = strconv.AppendUint(m.Data, p.chunk, 10)
	m.Data = mediajson.AppendAudio(m.Data, payloadPrefix, ev.Audio, `"},"extra_headers":"{}"}`)
}

var payloadPrefix = []byte(`,"payload":"`)

// Decode implements providers.Peer.
func (p *Peer) Decode(m providers.Message, cmd *providers.Command) error {
	*cmd = providers.Command{}
	if m.Binary {
		return fmt.Errorf("%s: binary message", p.dialect.Name)
	}
	var msg struct {
		command
		Media *struct {
			Type    string  `json:"contentType"`
			Rate    int     `json:"sampleRate"`
			Payload *string `json:"payload"`
		} `json:"media"`
	}
	if err := rest.Strict(m.Data, &msg); err != nil {
		return fmt.Errorf("%s: message: %w", p.dialect.Name, err)
	}
	if p.start == nil || msg.Stream != "" && msg.Stream != p.start.Stream {
		return fmt.Errorf("%s: message of another stream", p.dialect.Name)
	}
	switch {
	case msg.Event == "playAudio" && msg.Media != nil && msg.Media.Payload != nil:
		f, err := p.dialect.FormatOf(msg.Media.Type, msg.Media.Rate)
		audio, wrong := base64.StdEncoding.DecodeString(*msg.Media.Payload)
		if err = errors.Join(err, wrong); err != nil || f != p.start.Out {
			return fmt.Errorf("%s: playAudio of %v instead of %v: %w", p.dialect.Name, f, p.start.Out, err)
		}
		if f.Encoding == codec.L16LE && len(audio)%2 != 0 {
			return fmt.Errorf("%s: %d bytes are no whole samples", p.dialect.Name, len(audio))
		}
		cmd.Kind, cmd.Audio = providers.CommandAudio, audio
	case msg.Media != nil:
		return fmt.Errorf("%s: media in %.40q", p.dialect.Name, msg.Event)
	case msg.Event == "checkpoint" && msg.Name != "" && msg.Stream != "":
		cmd.Kind, cmd.Mark = providers.CommandMark, msg.Name
	case msg.Event == "clearAudio" && msg.Stream != "":
		cmd.Kind = providers.CommandClear
	case msg.Event == "sendDTMF" && msg.DTMF != "" && p.dialect.SendsDigits:
		cmd.Kind, cmd.Digits = providers.CommandDigits, msg.DTMF
	default:
		return fmt.Errorf("%s: event %.40q", p.dialect.Name, msg.Event)
	}
	return nil
}
