package models

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"

	"voicebridge/codec"
)

// Gemini is a model behind Google's Live API. It implements http.Handler.
type Gemini struct{ *Script }

// live is one of its connections.
type live struct {
	speaker
	setup map[string]any
}

var (
	geminiHears  = codec.Format{Encoding: codec.L16LE, Rate: 16000}
	geminiSpeaks = codec.Format{Encoding: codec.L16LE, Rate: 24000}
)

// ServeHTTP takes a call.
func (g Gemini) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if g.Key != "" && r.Header.Get("X-Goog-Api-Key") != g.Key && r.URL.Query().Get("key") != g.Key {
		http.Error(w, "API key not valid", http.StatusForbidden)
		return
	}
	conn, err := accept(w, r, nil)
	if err != nil {
		g.complain("%v", err)
		return
	}
	c := &live{speaker: speaker{Script: g.Script, conn: conn, in: geminiHears, out: geminiSpeaks}}
	c.mouth = c
	part(g.Script, conn, c.serve())
}

func (c *live) serve() error {
	for {
		_, data, err := c.conn.Read()
		if err != nil {
			return nil
		}
		var m map[string]any
		if json.Unmarshal(data, &m) != nil || len(m) != 1 {
			c.complain("not an object of one member: %.100q", data)
			return fmt.Errorf("invalid")
		}
		for kind, v := range m {
			c.note(kind, m)
			fields, _ := v.(map[string]any)
			if err := c.client(kind, fields); err != nil {
				c.complain("%v", err)
				return err
			}
			if c.broken {
				return errBroken
			}
		}
	}
}

// client does what a message says.
func (c *live) client(kind string, m map[string]any) error {
	if (kind == "setup") != (c.setup == nil) {
		return fmt.Errorf("%s at the wrong time", kind)
	}
	switch kind {
	case "setup":
		return c.begins(m)
	case "realtimeInput":
		return c.input(m)
	case "clientContent":
		turns := list(m["turns"])
		for _, turn := range turns {
			if turn["role"] != "user" && turn["role"] != "model" || len(list(turn["parts"])) == 0 {
				return fmt.Errorf("clientContent: %v", m)
			}
		}
		if m["turnComplete"] == true {
			c.begin()
		}
	case "toolResponse":
		return c.results(list(m["functionResponses"]))
	default:
		return fmt.Errorf("unknown %s", kind)
	}
	return nil
}

// setupFields are those of a setup.
var setupFields = []string{"model", "generationConfig", "systemInstruction", "tools", "realtimeInputConfig",
	"inputAudioTranscription", "outputAudioTranscription", "sessionResumption", "contextWindowCompression",
	"historyConfig", "proactivity"}

func (c *live) begins(m map[string]any) error {
	for name := range m {
		if !slices.Contains(setupFields, name) {
			return fmt.Errorf("unknown setup.%s", name)
		}
	}
	for _, tool := range list(m["tools"]) {
		for _, f := range list(tool["functionDeclarations"]) {
			parameters, _ := f["parameters"].(map[string]any)
			if f["name"] == "" || parameters["type"] != "OBJECT" {
				return fmt.Errorf("function: %v", f)
			}
		}
	}
	c.setup = m
	c.send(true, map[string]any{"setupComplete": map[string]any{"sessionId": "gs-1"}})
	c.send(true, map[string]any{"sessionResumptionUpdate": map[string]any{"newHandle": "h-1", "resumable": true}})
	return nil
}

// content says something of a turn, in a binary message, as the real one does.
func (c *live) content(fields map[string]any) { c.send(true, map[string]any{"serverContent": fields}) }

func (c *live) input(m map[string]any) error {
	if len(m) != 1 {
		return fmt.Errorf("realtimeInput: %v", m)
	}
	if _, is := m["text"].(string); is {
		c.begin()
		return nil
	}
	audio, _ := m["audio"].(map[string]any)
	text, _ := audio["data"].(string)
	b, err := base64.StdEncoding.DecodeString(text)
	if audio["mimeType"] != "audio/pcm;rate=16000" || err != nil || len(b) == 0 {
		return fmt.Errorf("realtimeInput: %.100s", fmt.Sprint(m))
	}
	before := c.Script.heard
	if c.GoAway > 0 && before < c.GoAway && before+geminiHears.Duration(len(b)) >= c.GoAway {
		c.send(true, map[string]any{"goAway": map[string]any{"timeLeft": "9.5s"}})
	}
	c.hear(b)
	return nil
}

func (c *live) began() { c.content(map[string]any{"interrupted": true}) }
func (c *live) late()  { c.content(map[string]any{"turnComplete": true}) }

func (c *live) paused(turn int) {
	text := words(turn)
	for _, part := range []string{text[:10], text[10:]} {
		c.content(map[string]any{"inputTranscription": map[string]any{"text": part}})
	}
}

func (c *live) answering(a *Answer) {
	c.content(map[string]any{"outputTranscription": map[string]any{"text": a.Text}})
}

func (c *live) audio(b []byte) {
	c.content(map[string]any{"modelTurn": map[string]any{"role": "model", "parts": []any{map[string]any{
		"inlineData": map[string]any{"mimeType": "audio/pcm;rate=24000", "data": b}}}}})
}

func (c *live) spoken() {
	c.content(map[string]any{"generationComplete": true})
	c.send(true, map[string]any{"serverContent": map[string]any{"turnComplete": true},
		"usageMetadata": map[string]any{"promptTokenCount": 20, "responseTokenCount": 10, "totalTokenCount": 30}})
}

func (c *live) failed(code string) {
	c.content(map[string]any{"turnComplete": true, "turnCompleteReason": code})
}

func (c *live) call(id string, tool *Tool) {
	c.send(true, map[string]any{"toolCall": map[string]any{"functionCalls": []any{map[string]any{"id": id,
		"name": tool.Name, "args": json.RawMessage(tool.Arguments)}}}})
}

// results takes what has come of functions.
func (c *live) results(all []map[string]any) error {
	for _, r := range all {
		id, _ := r["id"].(string)
		if _, is := r["response"].(map[string]any); !is || !c.result(id) {
			return fmt.Errorf("a response to no call: %v", r)
		}
	}
	if len(all) > 0 {
		c.begin()
	}
	return nil
}
