// Package pipecat speaks to agents of pipecat over its protobuf serializer: audio and messages as frames, one
// a binary WebSocket message. What is asked for besides audio travels as RTVI, where that is configured. Sources:
// pipecat's frames.proto and protobuf serializer, and RTVI 2.1.
package pipecat

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"voicebridge/agent"
	"voicebridge/agent/voicebridge"
	"voicebridge/calls"
	"voicebridge/codec"
	"voicebridge/providers"
)

// Name is the dialect's.
const Name = "pipecat"

// Dialect describes it. Its agents pace themselves, and leave no reserve.
var Dialect = &agent.Dialect{Name: Name, Title: "pipecat (protobuf frames)", Prebuffer: 80 * time.Millisecond,
	New: newProtocol,
	Can: agent.Features{Formats: "16-bit PCM: hears 8 or 16 kHz, speaks any rate", Marks: "nothing", Hangup: true,
		Digits: true, Transfers: true, Words: true}}

const (
	maxBinary = 1 << 20
	maxText   = 1 << 10 // there are none
	hearsRate = 16000
	speakRate = 24000
	version   = "2.1.0" // of RTVI
)

// options are the dialect's own.
type options struct {
	// RTVI tells that the pipeline has an RTVI processor.
	RTVI bool `yaml:"rtvi"`
}

// protocol is that of one configured agent.
type protocol struct {
	options
	hears, speaks codec.Format
	commands      agent.Protocol // what agents may ask for in RTVI
}

func newProtocol(o agent.Options) (agent.Protocol, error) {
	p := &protocol{}
	if o.Decode != nil {
		if err := o.Decode(&p.options); err != nil {
			return nil, err
		}
	}
	if o.Incoming {
		return nil, errors.New("url: must be set: such agents are dialled")
	}
	rate := func(configured, usual int) codec.Format {
		if configured == 0 {
			configured = usual
		}
		return codec.Format{Encoding: codec.L16LE, Rate: configured}
	}
	p.hears, p.speaks = rate(o.InputRate, hearsRate), rate(o.OutputRate, speakRate)
	if !p.hears.Valid() || !p.speaks.Valid() {
		return nil, errors.New("input_rate, output_rate: must be 8000, 16000, 24000 or 48000")
	}
	var err error
	p.commands, err = voicebridge.Dialect.New(agent.Options{})
	return p, err
}

// Formats implements agent.Protocol.
func (p *protocol) Formats(*url.URL) (hears, speaks codec.Format, err error) {
	return p.hears, p.speaks, nil
}

// Limits implements agent.Protocol.
func (p *protocol) Limits(*url.URL) (text, binary int64) { return maxText, maxBinary }

// NewTalk implements agent.Protocol.
func (p *protocol) NewTalk(*url.URL) agent.Talk {
	return &talk{protocol: p, commands: p.commands.NewTalk(&url.URL{})}
}

// talk is what is said in one call.
type talk struct {
	protocol *protocol
	commands agent.Talk // reads and answers what is asked for
	beside   agent.Beside

	// Owned by whoever sends.
	serial  int
	inner   providers.Messages
	silence []byte
	held    bool
	muted   bool

	in atomic.Int64 // call time, a time.Duration

	// Owned by whoever reads.
	fresh     bool // audio has come since the last interruption
	resampler *codec.Resampler
	from      int // its rate
	samples   []int16
	resampled []int16
	audio     []byte
	cmd       agent.Command
}

// Formats implements agent.Talk.
func (t *talk) Formats() (hears, speaks codec.Format) { return t.protocol.hears, t.protocol.speaks }

// Ready implements agent.Talk: there is no such word.
func (t *talk) Ready() bool { return true }

// Attach implements agent.Talker.
func (t *talk) Attach(b agent.Beside) {
	t.beside = b
	if talker, is := t.commands.(agent.Talker); is {
		talker.Attach(b)
	}
}

// Release implements agent.Talker.
func (t *talk) Release() {}

type object = map[string]any

// rtvi adds a message, where the pipeline takes them.
func (t *talk) rtvi(out *providers.Messages, kind string, data any) error {
	if !t.protocol.RTVI {
		return nil
	}
	t.serial++
	m := object{"label": "rtvi-ai", "type": kind, "id": "vb" + strconv.Itoa(t.serial)}
	if data != nil {
		m["data"] = data
	}
	b, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("pipecat: %w", err)
	}
	to := out.Add(true)
	to.Data = appendMessage(to.Data, b)
	return nil
}

// Start implements agent.Talk.
func (t *talk) Start(out *providers.Messages, call *agent.Call, await bool) error {
	t.inner.Reset() // what is said first in that dialect is not said here
	if err := t.commands.Start(&t.inner, call, false); err != nil {
		return err
	}
	about := object{"library": "voicebridge"}
	if err := t.rtvi(out, "client-ready", object{"version": version, "about": about}); err != nil {
		return err
	}
	facts := object{"call_id": call.Session}
	for name, value := range map[string]string{"from": call.Known.From, "to": call.Known.To,
		"direction": call.Known.Direction, "returned": call.Known.Returned} {
		if value != "" {
			facts[name] = value
		}
	}
	if custom := call.Custom(); len(custom) > 0 {
		facts["custom"] = custom
	}
	return t.rtvi(out, "client-message", object{"t": "call", "d": facts})
}

// Encode implements agent.Talk.
func (t *talk) Encode(out *providers.Messages, ev *agent.Event) error {
	t.in.Store(int64(ev.In))
	switch ev.Kind {
	case agent.EventAudio:
		if t.held || t.muted { // it must not hear the caller
			t.hear(out, t.quiet())
			return nil
		}
		t.hear(out, ev.Audio)
	case agent.EventGap: // it counts half a second without audio as silence anyway
		for d := min(ev.Duration, 2*time.Second); d > 0; d -= codec.FrameTime {
			t.hear(out, t.quiet())
		}
	case agent.EventDigit:
		return t.rtvi(out, "dtmf", object{"buttons": []string{string(ev.Digit)}})
	case agent.EventAck, agent.EventFault, agent.EventTransfer, agent.EventHold:
		switch ev.Hold {
		case agent.Held, agent.Resumed:
			t.held = ev.Hold == agent.Held
		case agent.Muted, agent.Unmuted:
			t.muted = ev.Hold == agent.Muted
		}
		t.inner.Reset()
		if err := t.commands.Encode(&t.inner, ev); err != nil {
			return err
		}
		for _, m := range t.inner.All() {
			answer := object{"t": "voicebridge", "d": json.RawMessage(m.Data)}
			if err := t.rtvi(out, "client-message", answer); err != nil {
				return err
			}
		}
	case agent.EventStop:
		return t.rtvi(out, "disconnect-bot", nil)
	}
	return nil
}

// quiet is a frame of silence.
func (t *talk) quiet() []byte {
	if t.silence == nil {
		t.silence = t.protocol.hears.Encoding.AppendSilence(nil, t.protocol.hears.FrameBytes())
	}
	return t.silence
}

func (t *talk) hear(out *providers.Messages, pcm []byte) {
	m := out.Add(true)
	m.Data = appendAudio(m.Data, pcm, t.protocol.hears.Rate)
}

// Decode implements agent.Talk.
func (t *talk) Decode(m providers.Message, do func(*agent.Command)) {
	f, err := readFrame(m.Data)
	switch {
	case !m.Binary || err != nil:
		do(&agent.Command{Kind: agent.CommandFault, Code: "bad_frame", Message: "not a frame of pipecat's"})
	case f.kind == audioFrame:
		t.play(&f, do)
	case f.kind == interruptionFrame:
		t.interrupt(do)
	case f.kind == messageFrame:
		t.message(f.data, do)
	case f.kind == 0:
		do(&agent.Command{Kind: agent.CommandUnknown, Type: "frame"})
	}
}

// interrupt takes back what was not heard: once, though it may be told in two ways.
func (t *talk) interrupt(do func(*agent.Command)) {
	if t.fresh {
		t.fresh = false
		do(&agent.Command{Kind: agent.CommandClear})
	}
}

// play plays a frame, at whatever rate it is.
func (t *talk) play(f *frame, do func(*agent.Command)) {
	pcm := f.audio[voicebridge.WAVHeader(f.audio):]
	if f.rate == 0 {
		f.rate = t.protocol.speaks.Rate
	}
	source := codec.Format{Encoding: codec.L16LE, Rate: f.rate}
	if !source.Valid() || f.channels < 1 || f.channels > 2 || len(pcm)%(2*f.channels) != 0 {
		do(&agent.Command{Kind: agent.CommandFault, Code: "bad_frame",
			Message: "audio must be 16 bits at 8000, 16000, 24000 or 48000 Hz, of one or two channels"})
		return
	}
	if len(pcm) == 0 {
		return
	}
	t.fresh = true
	if f.rate == t.protocol.speaks.Rate && f.channels == 1 {
		t.cmd = agent.Command{Kind: agent.CommandAudio, Audio: pcm}
		do(&t.cmd)
		return
	}
	t.samples = codec.L16LE.AppendDecode(t.samples[:0], pcm)
	if f.channels == 2 {
		for i := range len(t.samples) / 2 {
			t.samples[i] = int16((int(t.samples[2*i]) + int(t.samples[2*i+1])) / 2)
		}
		t.samples = t.samples[:len(t.samples)/2]
	}
	samples := t.samples
	if f.rate != t.protocol.speaks.Rate {
		if t.from != f.rate {
			t.from, t.resampler = f.rate, codec.NewResampler(f.rate, t.protocol.speaks.Rate)
		}
		t.resampled = t.resampler.Append(t.resampled[:0], samples)
		samples = t.resampled
	}
	t.audio = codec.L16LE.AppendEncode(t.audio[:0], samples)
	t.cmd = agent.Command{Kind: agent.CommandAudio, Audio: t.audio}
	do(&t.cmd)
}

// envelope is a message of RTVI.
type envelope struct {
	Type string          `json:"type"`
	Data json.RawMessage `json:"data"`
}

// details are what matters in the data of one; what the application sends may be anything.
type details struct {
	Voicebridge json.RawMessage `json:"voicebridge"`
	Text        string          `json:"text"`
	Final       bool            `json:"final"`
	Error       string          `json:"error"`
}

// message does what a message of RTVI says.
func (t *talk) message(data []byte, do func(*agent.Command)) {
	var m envelope
	if err := json.Unmarshal(data, &m); err != nil {
		do(&agent.Command{Kind: agent.CommandFault, Code: "bad_message", Message: "a message that is no RTVI"})
		return
	}
	var d details
	_ = json.Unmarshal(m.Data, &d) // see details
	switch m.Type {
	case "bot-interrupted":
		t.interrupt(do)
	case "server-message":
		if len(d.Voicebridge) > 0 {
			t.commands.Decode(providers.Message{Data: d.Voicebridge}, do)
		}
	case "user-transcription":
		if d.Final {
			t.said(calls.Caller, d.Text)
		}
	case "bot-transcription":
		t.said(calls.Agent, d.Text)
	case "error":
		if t.beside != nil {
			t.beside.Trouble("pipecat", d.Error)
		}
	}
}

// said tells what was said. When is not told: it was just now.
func (t *talk) said(who calls.Role, text string) {
	if t.beside != nil && text != "" {
		at := calls.MS(time.Duration(t.in.Load()))
		t.beside.Said(calls.Line{Role: who, Text: text, From: at, To: at})
	}
}
