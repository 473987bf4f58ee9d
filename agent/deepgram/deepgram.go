// Package deepgram speaks to Deepgram's Voice Agent over a WebSocket: audio in binary messages, all else
// in JSON. Sources: Deepgram's reference of the Voice Agent API (v1) and the types of its SDK.
package deepgram

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"voicebridge/agent"
	"voicebridge/agent/model"
	"voicebridge/calls"
	"voicebridge/codec"
)

// Name is the dialect's.
const Name = "deepgram"

// address is where the vendor's agents are.
const address = "wss://agent.deepgram.com/v1/agent/converse"

// Dialect describes it.
var Dialect = &agent.Dialect{Name: Name, Title: "Deepgram Voice Agent", Attempt: 10 * time.Second,
	Ready: 10 * time.Second, Service: true, Stays: true, New: newProtocol,
	Can: agent.Features{Formats: "mu-law and A-law at 8 kHz, untouched; 16-bit PCM at the carrier's rate",
		Marks: "nothing", Hangup: true, Digits: true, Transfers: true, Tools: true, Words: true}}

const maxMessage = 1 << 20

// options are the dialect's own.
type options struct {
	model.Options `yaml:",inline"`
	// Provider is whose Model it is, in Deepgram's words.
	Provider string `yaml:"think_provider"`
	// Transcription is the model that understands the caller; empty: Deepgram's default.
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
	for _, path := range [][]string{{"type"}, {"audio", "input", "encoding"}, {"audio", "input", "sample_rate"},
		{"audio", "output", "encoding"}, {"audio", "output", "sample_rate"}, {"audio", "output", "container"},
		{"agent", "think", "functions"}} {
		if err := model.Fixed(p.Session, path...); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// Address implements agent.Addresser.
func (p *protocol) Address(configured string) (string, error) {
	_, whole := p.Session["agent"].(string) // one that is kept at the vendor's
	if p.Model == "" && !whole {
		return "", errors.New("options.model: must be set, such as gpt-4o-mini, or options.session.agent be the " +
			"id of an agent at Deepgram")
	}
	if configured == "" {
		return address, nil
	}
	return configured, nil
}

// Handshake implements agent.Handshaker.
func (p *protocol) Handshake(_ *url.URL, h http.Header) error {
	model.Header(h, "Authorization", "Token ", p.Key)
	return nil
}

// Formats implements agent.Protocol.
func (p *protocol) Formats(*url.URL) (hears, speaks codec.Format, err error) {
	f := codec.Format{Encoding: codec.PCMU, Rate: 8000}
	return f, f, nil
}

// Limits implements agent.Protocol.
func (p *protocol) Limits(*url.URL) (text, binary int64) { return maxMessage, maxMessage }

// NewTalk implements agent.Protocol.
func (p *protocol) NewTalk(u *url.URL) agent.Talk {
	hears, speaks, _ := p.Formats(u)
	v := &vendor{protocol: p, Talk: model.New(p.all.Tools, hears, speaks)}
	v.Use(v)
	return v.Talk
}

// encoding names a carrier's, and returns the format that the agent has for it.
func encoding(carrier codec.Format) (string, codec.Format) {
	switch carrier.Encoding {
	case codec.PCMU:
		return "mulaw", carrier
	case codec.PCMA:
		return "alaw", carrier
	}
	return "linear16", codec.Format{Encoding: codec.L16LE, Rate: carrier.Rate}
}

// settings are what the agent is told to be, and what was said before.
func (p *protocol) settings(in, out codec.Format, functions []any, greeting string,
	history []calls.Line) map[string]any {
	hears, _ := encoding(in)
	speaks, _ := encoding(out)
	think := map[string]any{"functions": functions}
	if p.Model != "" {
		provider := p.Provider
		if provider == "" {
			provider = "open_ai"
		}
		think["provider"] = map[string]any{"type": provider, "model": p.Model}
	}
	if p.Instructions != "" {
		think["prompt"] = p.Instructions
	}
	is := map[string]any{"think": think}
	if greeting != "" {
		is["greeting"] = greeting
	}
	var messages []any
	for _, l := range history {
		role := map[calls.Role]string{calls.Caller: "user", calls.Agent: "assistant"}[l.Role]
		messages = append(messages, map[string]any{"type": "History", "role": role, "content": l.Text})
	}
	if len(messages) > 0 {
		is["context"] = map[string]any{"messages": messages}
	}
	if p.Voice != "" {
		is["speak"] = map[string]any{"provider": map[string]any{"type": "deepgram", "model": p.Voice}}
	}
	if listen := p.listen(); len(listen) > 1 {
		is["listen"] = map[string]any{"provider": listen}
	}
	s := map[string]any{"type": "Settings", "agent": is, "audio": map[string]any{
		"input":  map[string]any{"encoding": hears, "sample_rate": in.Rate},
		"output": map[string]any{"encoding": speaks, "sample_rate": out.Rate, "container": "none"}}}
	model.Merge(s, p.Session)
	return s
}

// listen is what understands the caller.
func (p *protocol) listen() map[string]any {
	listen := map[string]any{"type": "deepgram"}
	if p.Transcription != "" {
		listen["model"], listen["version"] = p.Transcription, "v1"
		if strings.HasPrefix(p.Transcription, "flux") {
			listen["version"] = "v2"
		}
	}
	if p.Language != "" {
		listen["language"] = p.Language
	}
	return listen
}
