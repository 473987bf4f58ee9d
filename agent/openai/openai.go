// Package openai speaks to models of OpenAI's Realtime API, and of others that took it over, over a
// WebSocket. Sources: OpenAI's API reference (Realtime client and server events) and the types of
// its SDK.
package openai

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"voicebridge/agent"
	"voicebridge/agent/model"
	"voicebridge/codec"
)

// Name is the dialect's.
const Name = "openai"

// address is where OpenAI's own are.
const address = "wss://api.openai.com/v1/realtime"

// Dialect describes it.
var Dialect = &agent.Dialect{Name: Name, Title: "OpenAI Realtime", Attempt: 10 * time.Second, Ready: 10 * time.Second,
	Service: true, Stays: true, New: newProtocol,
	Can: agent.Features{Formats: "mu-law and A-law at 8 kHz, untouched; 16-bit PCM at 24 kHz",
		Marks: "the end of what was heard, by reply", Hangup: true, Digits: true, Transfers: true,
		Tools: true, Words: true}}

const (
	maxText   = 16 << 20
	maxBinary = 1 << 10 // there are none
)

// formats are those that the models take.
var formats = map[string]codec.Format{
	"pcmu": {Encoding: codec.PCMU, Rate: 8000},
	"pcma": {Encoding: codec.PCMA, Rate: 8000},
	"pcm":  {Encoding: codec.L16LE, Rate: 24000},
}

// options are the dialect's own.
type options struct {
	model.Options `yaml:",inline"`
	// Format is what the model hears and speaks; empty: what the carrier has.
	Format string `yaml:"format"`
	// Interrupt tells whether the caller interrupts the model; nil: yes.
	Interrupt *bool `yaml:"interrupt"`
	// Transcription is the model that writes down what the caller says; empty: none.
	Transcription string `yaml:"transcription"`
}

// protocol is that of one configured agent.
type protocol struct {
	options
	all agent.Options
}

func newProtocol(o agent.Options) (agent.Protocol, error) {
	p := &protocol{all: o}
	if o.Decode != nil {
		if err := o.Decode(&p.options); err != nil {
			return nil, err
		}
	}
	if err := p.Check(&o); err != nil {
		return nil, err
	}
	if _, known := formats[p.Format]; p.Format != "" && !known {
		return nil, fmt.Errorf("options.format: %q must be pcmu, pcma or pcm, or empty for the carrier's", p.Format)
	}
	for _, path := range [][]string{{"type"}, {"model"}, {"tools"}, {"audio", "input", "format"},
		{"audio", "output", "format"}} {
		if err := model.Fixed(p.Session, path...); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// Address implements agent.Addresser.
func (p *protocol) Address(configured string) (string, error) {
	if configured == "" {
		configured = address
	}
	u, err := url.Parse(configured)
	if err != nil {
		return configured, nil // what is wrong with it is told by whoever dials
	}
	q := u.Query()
	if q.Get("model") == "" && q.Get("call_id") == "" {
		if p.Model == "" {
			return "", errors.New("options.model: must be set, such as gpt-realtime-2.1")
		}
		q.Set("model", p.Model)
		u.RawQuery = q.Encode()
	}
	return u.String(), nil
}

// Handshake implements agent.Handshaker.
func (p *protocol) Handshake(_ *url.URL, h http.Header) error {
	model.Header(h, "Authorization", "Bearer ", p.Key)
	return nil
}

// Formats implements agent.Protocol.
func (p *protocol) Formats(*url.URL) (hears, speaks codec.Format, err error) {
	f := formats[p.Format]
	if p.Format == "" {
		f = formats["pcmu"]
	}
	return f, f, nil
}

// Limits implements agent.Protocol.
func (p *protocol) Limits(*url.URL) (text, binary int64) { return maxText, maxBinary }

// NewTalk implements agent.Protocol.
func (p *protocol) NewTalk(u *url.URL) agent.Talk {
	hears, speaks, _ := p.Formats(u)
	v := &vendor{protocol: p, Talk: model.New(p.all.Tools, hears, speaks)}
	v.Use(v)
	return v.Talk
}

// suits returns the format that the model uses in a call.
func (p *protocol) suits(carrier codec.Format) (name string, f codec.Format) {
	switch {
	case p.Format != "":
		name = p.Format
	case carrier.Encoding == codec.PCMA:
		name = "pcma"
	case carrier.Encoding == codec.PCMU, carrier.Rate == 8000:
		name = "pcmu"
	default:
		name = "pcm"
	}
	return name, formats[name]
}

// session is what a session is told to be.
func (p *protocol) session(hears, speaks string, tools []any) map[string]any {
	input := map[string]any{"format": format(hears)}
	if p.Interrupt != nil && !*p.Interrupt {
		input["turn_detection"] = map[string]any{"type": "server_vad", "interrupt_response": false}
	}
	if p.Transcription != "" {
		transcription := map[string]any{"model": p.Transcription}
		if p.Language != "" {
			transcription["language"] = p.Language
		}
		input["transcription"] = transcription
	}
	output := map[string]any{"format": format(speaks)}
	if p.Voice != "" {
		output["voice"] = p.Voice
	}
	s := map[string]any{"type": "realtime", "output_modalities": []string{"audio"}, "tools": tools,
		"audio": map[string]any{"input": input, "output": output}}
	if p.Instructions != "" {
		s["instructions"] = p.Instructions
	}
	model.Merge(s, p.Session)
	return s
}

// format is one on the wire. Those of G.711 have no rate.
func format(name string) map[string]any {
	if name == "pcm" {
		return map[string]any{"type": "audio/pcm", "rate": formats[name].Rate}
	}
	return map[string]any{"type": "audio/" + name}
}
