// Package openailive speaks to models of OpenAI's Live API over a WebSocket: full duplex, without turns. The model
// stops by itself when the caller speaks, and hands work to another one, which uses the tools. Sources: the types of
// OpenAI's SDK (Live client and server events).
package openailive

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
const Name = "openai_live"

// address is where OpenAI's own are.
const address = "wss://api.openai.com/v1/live/sessions"

// Dialect describes it.
var Dialect = &agent.Dialect{Name: Name, Title: "OpenAI Live", Attempt: 10 * time.Second, Ready: 10 * time.Second,
	Service: true, Stays: true, New: newProtocol,
	Can: agent.Features{Formats: "mu-law and A-law at 8 kHz, untouched; 16-bit PCM at 16 kHz",
		Marks: "nothing", Hangup: true, Digits: true, Transfers: true, Tools: true, Words: true}}

const (
	maxText   = 16 << 20
	maxBinary = 1 << 10 // there are none
)

// options are the dialect's own.
type options struct {
	model.Options `yaml:",inline"`
	// Delegate is the model that uses the tools; empty: there are none.
	Delegate string `yaml:"delegate"`
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
	if p.Delegate == "" && len(o.Tools.List(true)) > 0 {
		return nil, errors.New("options.delegate: must be set, to the model that uses the tools; or switch all off " +
			"(tools.off)")
	}
	for _, path := range [][]string{{"model"}, {"audio", "format"}, {"delegation", "responses", "tools"}} {
		if err := model.Fixed(p.Session, path...); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// Address implements agent.Addresser.
func (p *protocol) Address(configured string) (string, error) {
	if err := model.Need("model", p.Model); err != nil {
		return "", fmt.Errorf("%w, such as gpt-live-1", err)
	}
	if configured == "" {
		return address, nil
	}
	return configured, nil
}

// Handshake implements agent.Handshaker.
func (p *protocol) Handshake(_ *url.URL, h http.Header) error {
	model.Header(h, "Authorization", "Bearer ", p.Key)
	return nil
}

// format is the one of both directions: that of what the carrier plays.
func format(carrier codec.Format) (string, codec.Format) {
	switch {
	case carrier.Encoding == codec.PCMA:
		return "audio/pcma", carrier
	case carrier.Encoding == codec.PCMU || carrier.Rate <= 8000:
		return "audio/pcmu", codec.Format{Encoding: codec.PCMU, Rate: 8000}
	}
	return "audio/pcm", codec.Format{Encoding: codec.L16LE, Rate: 16000}
}

// Formats implements agent.Protocol.
func (p *protocol) Formats(*url.URL) (hears, speaks codec.Format, err error) {
	_, f := format(codec.Format{})
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

type object = map[string]any

// session is what a session is told to be. What it does not know it refuses.
func (p *protocol) session(carrier codec.Format, tools []any) object {
	name, f := format(carrier)
	audio := object{"format": object{"type": name, "rate": f.Rate}}
	if p.Voice != "" {
		audio["output"] = object{"voice": p.Voice}
	}
	s := object{"model": p.Model, "audio": audio, "delegation": object{"type": "client"}}
	if p.Delegate != "" {
		s["delegation"] = object{"type": "responses", "responses": object{"model": p.Delegate, "tools": tools,
			"instructions": "Use the tools for what the caller wants done."}}
	}
	if p.Instructions != "" {
		s["instructions"] = p.Instructions
	}
	model.Merge(s, p.Session)
	return s
}
