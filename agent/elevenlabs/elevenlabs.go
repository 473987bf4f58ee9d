// Package elevenlabs speaks to agents of ElevenLabs (Conversational AI) over a WebSocket. Prompt, voice, tools
// and formats are set at the vendor's. Sources: ElevenLabs' reference of the Agents WebSocket and the types of
// its SDKs.
package elevenlabs

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"voicebridge/agent"
	"voicebridge/agent/model"
	"voicebridge/codec"
)

// Name is the dialect's.
const Name = "elevenlabs"

// address is where the vendor's agents are.
const address = "wss://api.elevenlabs.io/v1/convai/conversation"

// Dialect describes it.
var Dialect = &agent.Dialect{Name: Name, Title: "ElevenLabs Agents", Attempt: 10 * time.Second,
	Ready: 10 * time.Second, Service: true, Subprotocols: []string{"convai"}, New: newProtocol,
	Can: agent.Features{Formats: "as the agent is set: mu-law at 8 kHz, untouched, or 16-bit PCM", Marks: "nothing",
		Hangup: true, Digits: true, Transfers: true, Tools: true, Words: true}}

const (
	maxText   = 16 << 20
	maxBinary = 1 << 10 // there are none
)

// formats are those that an agent may be set to.
var formats = map[string]codec.Format{
	"ulaw_8000": {Encoding: codec.PCMU, Rate: 8000}, "pcm_8000": {Encoding: codec.L16LE, Rate: 8000},
	"pcm_16000": {Encoding: codec.L16LE, Rate: 16000}, "pcm_24000": {Encoding: codec.L16LE, Rate: 24000},
	"pcm_48000": {Encoding: codec.L16LE, Rate: 48000},
}

// options are the dialect's own.
type options struct {
	model.Options `yaml:",inline"`
	// AgentID is the vendor's id of the agent.
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
	if p.Model != "" {
		return nil, errors.New("options.model: is set at the vendor's, in the agent")
	}
	return p, model.Fixed(p.Session, "type")
}

// Address implements agent.Addresser.
func (p *protocol) Address(configured string) (string, error) {
	if err := model.Need("agent_id", p.AgentID); err != nil {
		return "", err
	}
	if configured == "" {
		return address, nil
	}
	return configured, nil
}

// Locate implements agent.Locator: with a key, an agent is reached by a URL that is signed for one call.
func (p *protocol) Locate(ctx context.Context, u *url.URL, _ *agent.Call) (string, error) {
	at := *u
	q := at.Query()
	q.Set("agent_id", p.AgentID)
	at.RawQuery = q.Encode()
	if p.Key == "" {
		return at.String(), nil
	}
	at.Path = strings.TrimSuffix(at.Path, "/") + "/get-signed-url"
	var reply struct {
		URL string `json:"signed_url"`
	}
	err := model.Ask(ctx, p.all.HTTP, &at, http.Header{"Xi-Api-Key": {p.Key}}, nil, &reply)
	return reply.URL, err
}

// Handshake implements agent.Handshaker: the URL is signed.
func (p *protocol) Handshake(*url.URL, http.Header) error { return nil }

// Formats implements agent.Protocol: the agent tells them.
func (p *protocol) Formats(*url.URL) (hears, speaks codec.Format, err error) {
	return formats["ulaw_8000"], formats["ulaw_8000"], nil
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

// initiation is what the agent is told first. Only what is configured may be: the agent allows each of it.
func (p *protocol) initiation(call *agent.Call) object {
	variables := object{"call_id": call.Session}
	for name, value := range call.Custom() {
		variables[name] = value
	}
	for name, value := range map[string]string{"from_number": call.Known.From, "to_number": call.Known.To,
		"direction": call.Known.Direction, "returned": call.Known.Returned} {
		if value != "" {
			variables[name] = value
		}
	}
	is, override := object{}, object{}
	if p.Language != "" {
		is["language"] = p.Language
	}
	if p.Greeting != "" { // a caller who is there already is not greeted
		is["first_message"] = model.OpeningOf(call, p.Greeting).Greet
	}
	if p.Instructions != "" {
		is["prompt"] = object{"prompt": p.Instructions}
	}
	if len(is) > 0 {
		override["agent"] = is
	}
	if p.Voice != "" {
		override["tts"] = object{"voice_id": p.Voice}
	}
	s := object{"type": "conversation_initiation_client_data", "dynamic_variables": variables}
	if len(override) > 0 {
		s["conversation_config_override"] = override
	}
	model.Merge(s, p.Session)
	return s
}
