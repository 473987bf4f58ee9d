// Package gemini speaks to models of Google's Gemini Live API (BidiGenerateContent) over a WebSocket.
// Sources: Google's reference of the Live API and the types of its SDK.
package gemini

import (
	"net/http"
	"net/url"
	"strings"
	"time"

	"voicebridge/agent"
	"voicebridge/agent/model"
	"voicebridge/agent/tools"
	"voicebridge/codec"
)

// Name is the dialect's.
const Name = "gemini"

// address is where Google's own are.
const address = "wss://generativelanguage.googleapis.com/ws/google.ai.generativelanguage.v1beta.GenerativeService." +
	"BidiGenerateContent"

// Dialect describes it.
var Dialect = &agent.Dialect{Name: Name, Title: "Gemini Live", Attempt: 10 * time.Second, Ready: 10 * time.Second,
	Service: true, Stays: true, New: newProtocol,
	Can: agent.Features{Formats: "16-bit PCM: hears 16 kHz, speaks 24 kHz", Marks: "nothing", Hangup: true,
		Digits: true, Transfers: true, Tools: true, Words: true}}

// maxMessage is for text and binary messages: the server's JSON comes in either.
const maxMessage = 16 << 20

var (
	hears  = codec.Format{Encoding: codec.L16LE, Rate: 16000}
	speaks = codec.Format{Encoding: codec.L16LE, Rate: 24000}
)

// options are the dialect's own.
type options struct {
	model.Options `yaml:",inline"`
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
	for _, path := range [][]string{{"model"}, {"tools"}, {"generationConfig", "responseModalities"}} {
		if err := model.Fixed(p.Session, path...); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// Address implements agent.Addresser.
func (p *protocol) Address(configured string) (string, error) {
	if err := model.Need("model", p.Model); err != nil {
		return "", err
	}
	if configured == "" {
		return address, nil
	}
	return configured, nil
}

// Handshake implements agent.Handshaker. A key in a header does not end in logs, as one in a query does.
func (p *protocol) Handshake(_ *url.URL, h http.Header) error {
	model.Header(h, "X-Goog-Api-Key", "", p.Key)
	return nil
}

// Formats implements agent.Protocol.
func (p *protocol) Formats(*url.URL) (codec.Format, codec.Format, error) { return hears, speaks, nil }

// Limits implements agent.Protocol.
func (p *protocol) Limits(*url.URL) (text, binary int64) { return maxMessage, maxMessage }

// NewTalk implements agent.Protocol.
func (p *protocol) NewTalk(*url.URL) agent.Talk {
	v := &vendor{protocol: p, Talk: model.New(p.all.Tools, hears, speaks)}
	v.Use(v)
	return v.Talk
}

type object = map[string]any

// setup is what a session is told to be.
func (p *protocol) setup(list []tools.Declaration) object {
	name := p.Model
	if !strings.Contains(name, "/") {
		name = "models/" + name
	}
	generation, speech := object{"responseModalities": []string{"AUDIO"}}, object{}
	if p.Voice != "" {
		speech["voiceConfig"] = object{"prebuiltVoiceConfig": object{"voiceName": p.Voice}}
	}
	if p.Language != "" {
		speech["languageCode"] = p.Language
	}
	if len(speech) > 0 {
		generation["speechConfig"] = speech
	}
	s := object{"model": name, "generationConfig": generation, "inputAudioTranscription": object{},
		"outputAudioTranscription": object{}, "sessionResumption": object{},
		"contextWindowCompression": object{"slidingWindow": object{}}}
	if p.Instructions != "" {
		s["systemInstruction"] = object{"parts": []any{object{"text": p.Instructions}}, "role": "user"}
	}
	var declared []any
	for _, d := range list {
		declared = append(declared, object{"name": d.Name, "description": d.Description, "behavior": "BLOCKING",
			"parameters": upper(d.Parameters)})
	}
	if len(declared) > 0 {
		s["tools"] = []any{object{"functionDeclarations": declared}}
	}
	model.Merge(s, p.Session)
	return s
}

// upper returns a JSON Schema with the names of types as this API has them.
func upper(schema any) any {
	switch v := schema.(type) {
	case object:
		o := object{}
		for name, value := range v {
			if text, is := value.(string); is && name == "type" {
				value = strings.ToUpper(text)
			}
			o[name] = upper(value)
		}
		return o
	case []any:
		var all []any
		for _, e := range v {
			all = append(all, upper(e))
		}
		return all
	}
	return schema
}
