// Package ultravox speaks to agents of Ultravox over a WebSocket (server medium): audio in binary messages, all
// else in JSON. A call is made by the vendor's API first. Sources: Ultravox' documents (WebSockets, data messages,
// REST API).
package ultravox

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"

	"voicebridge/agent"
	"voicebridge/agent/model"
	"voicebridge/agent/tools"
	"voicebridge/calls"
	"voicebridge/codec"
)

// Name is the dialect's.
const Name = "ultravox"

// address is the vendor's API.
const address = "wss://api.ultravox.ai/api/calls"

// Dialect describes it.
var Dialect = &agent.Dialect{Name: Name, Title: "Ultravox", Attempt: 10 * time.Second, Ready: 10 * time.Second,
	Service: true, New: newProtocol,
	Can: agent.Features{Formats: "16-bit PCM at 8 or 16 kHz, as the carrier", Marks: "nothing", Hangup: true,
		Digits: true, Transfers: true, Tools: true, Words: true}}

const (
	maxMessage = 1 << 20
	// ahead is how far the agent may be ahead of what is heard: it is taken back when the caller interrupts.
	ahead = 30 * time.Second
	// toolTime is how long the vendor waits for a tool: longer than a webhook may take.
	toolTime = "40s"
)

// options are the dialect's own.
type options struct {
	model.Options `yaml:",inline"`
	// AgentID is the vendor's id of an agent that is kept there.
	AgentID string `yaml:"agent_id"`
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
	for _, name := range []string{"medium", "selectedTools"} {
		if err := model.Fixed(p.Session, name); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// Address implements agent.Addresser.
func (p *protocol) Address(configured string) (string, error) {
	switch {
	case configured != "":
		return configured, nil
	case p.AgentID != "":
		return "wss://api.ultravox.ai/api/agents/" + url.PathEscape(p.AgentID) + "/calls", nil
	}
	return address, nil
}

// Locate implements agent.Locator: it makes a call there.
func (p *protocol) Locate(ctx context.Context, u *url.URL, call *agent.Call) (string, error) {
	var reply struct {
		URL string `json:"joinUrl"`
	}
	err := model.Ask(ctx, p.all.HTTP, u, http.Header{"X-Api-Key": {p.Key}}, p.request(call), &reply)
	if err == nil && reply.URL == "" {
		err = errors.New("it tells no joinUrl")
	}
	return reply.URL, err
}

// Handshake implements agent.Handshaker: the URL is enough.
func (p *protocol) Handshake(*url.URL, http.Header) error { return nil }

// suits returns the format of both directions in a call.
func suits(carrier codec.Format) codec.Format {
	return codec.Format{Encoding: codec.L16LE, Rate: min(cmp.Or(carrier.Rate, 8000), 16000)}
}

// Formats implements agent.Protocol.
func (p *protocol) Formats(*url.URL) (hears, speaks codec.Format, err error) {
	f := suits(codec.Format{})
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

type object = map[string]any

// request is what a call is to be.
func (p *protocol) request(call *agent.Call) object {
	r := object{"medium": object{"serverWebSocket": object{"inputSampleRate": suits(call.Start.In).Rate,
		"outputSampleRate": suits(call.Start.Out).Rate, "clientBufferSizeMs": ahead.Milliseconds()}}}
	for name, value := range map[string]string{"systemPrompt": p.Instructions, "model": p.Model, "voice": p.Voice,
		"languageHint": p.Language} {
		if value != "" {
			r[name] = value
		}
	}
	switch o := model.OpeningOf(call, p.Greeting); {
	case o.Notice != "", o.Resumes && !o.Answer: // it is told why, or goes on where it was
		r["firstSpeakerSettings"] = object{"user": object{}}
	case o.Resumes:
		r["firstSpeakerSettings"] = object{"agent": object{}}
	case o.Greet != "":
		r["firstSpeakerSettings"] = object{"agent": object{"text": o.Greet}}
	}
	var said []any
	for _, l := range model.History(call) {
		role := map[calls.Role]string{calls.Caller: "MESSAGE_ROLE_USER", calls.Agent: "MESSAGE_ROLE_AGENT"}[l.Role]
		said = append(said, object{"role": role, "text": l.Text})
	}
	if len(said) > 0 {
		r["initialMessages"] = said
	}
	if list := model.Tools(p.all.Tools, call); len(list) > 0 {
		r["selectedTools"] = selected(list)
	}
	model.Merge(r, p.Session)
	return r
}

// selected are the tools as the vendor wants them: a parameter each.
func selected(list []tools.Declaration) []any {
	var all []any
	for _, d := range list {
		properties, _ := d.Parameters["properties"].(map[string]any)
		required := map[string]bool{}
		switch names := d.Parameters["required"].(type) {
		case []string:
			for _, name := range names {
				required[name] = true
			}
		case []any: // of the configuration
			for _, name := range names {
				text, _ := name.(string)
				required[text] = true
			}
		}
		parameters := []any{}
		for name, schema := range properties {
			parameters = append(parameters, object{"name": name, "location": "PARAMETER_LOCATION_BODY",
				"schema":   schema,
				"required": required[name]})
		}
		all = append(all, object{"temporaryTool": object{"modelToolName": d.Name, "description": d.Description,
			"timeout": toolTime, "dynamicParameters": parameters, "client": object{}}})
	}
	return all
}
