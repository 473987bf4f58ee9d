package models

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"

	"voicebridge/codec"
)

// OpenAILive is a model behind OpenAI's Live API. It implements http.Handler. It speaks in real time, and falls
// silent by itself when the caller speaks.
type OpenAILive struct{ *Script }

// liveSession is one of its connections.
type liveSession struct {
	speaker
	started bool
}

// ServeHTTP takes a call.
func (o OpenAILive) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if o.Key != "" && r.Header.Get("Authorization") != "Bearer "+o.Key {
		http.Error(w, `{"error":{"code":"invalid_api_key"}}`, http.StatusUnauthorized)
		return
	}
	if r.URL.RawQuery != "" {
		o.complain("the URL has a query")
	}
	conn, err := accept(w, r, nil)
	if err != nil {
		o.complain("%v", err)
		return
	}
	c := &liveSession{speaker: speaker{Script: o.Script, conn: conn, pace: codec.FrameTime}}
	c.mouth = c
	part(o.Script, conn, c.serve())
}

func (c *liveSession) serve() error {
	for {
		binary, data, err := c.conn.Read()
		if err != nil {
			return err
		}
		var m map[string]any
		if binary || json.Unmarshal(data, &m) != nil {
			c.complain("not a JSON object: %.100q", data)
			continue
		}
		kind, _ := m["type"].(string)
		c.note(kind, m)
		if (kind == "session.start") == c.started {
			c.complain("%s at the wrong time", kind)
			continue
		}
		if err := c.client(kind, m); err != nil {
			c.complain("%v", err)
			c.say("error", map[string]any{"error": map[string]any{"type": "invalid_request_error",
				"code": "invalid_value", "message": err.Error(), "param": nil}})
		}
		if c.broken {
			return errBroken
		}
		if kind == "session.close" {
			c.say("session.closed", map[string]any{"reason": "close_requested",
				"usage": map[string]any{"seconds": 20}})
			return nil
		}
	}
}

// liveFields are those of a session that may be set.
var liveFields = []string{"model", "instructions", "audio", "delegation", "input", "store"}

// client does what a message says.
func (c *liveSession) client(kind string, m map[string]any) error {
	switch kind {
	case "session.start":
		return c.start(m)
	case "session.input_audio.append":
		text, _ := m["audio"].(string)
		b, err := base64.StdEncoding.DecodeString(text)
		if err != nil || len(b) == 0 {
			return fmt.Errorf("audio: %.100s", fmt.Sprint(m))
		}
		c.hear(b)
	case "session.commentary.append", "session.thinking.append":
		id, has := m["delegation_id"]
		if text, is := m["content"].(string); !is || text == "" || !has || id != nil {
			return fmt.Errorf("%s: %v", kind, m)
		}
		if kind == "session.commentary.append" {
			c.begin()
		}
	case "response.item.create":
		item, _ := m["item"].(map[string]any)
		id, _ := item["call_id"].(string)
		if _, is := item["output"].(string); !is || item["type"] != "function_call_output" || !c.result(id) {
			return fmt.Errorf("a result of no call: %v", m)
		}
	case "response.create":
		c.begin()
	case "session.close":
	default:
		return fmt.Errorf("unknown %s", kind)
	}
	return nil
}

func (c *liveSession) start(m map[string]any) error {
	s, _ := m["session"].(map[string]any)
	for name := range s {
		if !slices.Contains(liveFields, name) {
			return fmt.Errorf("unknown parameter: 'session.%s'", name)
		}
	}
	audio, _ := s["audio"].(map[string]any)
	f, _ := audio["format"].(map[string]any)
	rate, _ := f["rate"].(float64)
	kinds := map[any]codec.Encoding{"audio/pcmu": codec.PCMU, "audio/pcma": codec.PCMA, "audio/pcm": codec.L16LE}
	e, known := kinds[f["type"]]
	c.in = codec.Format{Encoding: e, Rate: int(rate)}
	c.out = c.in
	if !known || !c.in.Valid() || s["model"] == nil {
		return fmt.Errorf("session: %v", s)
	}
	delegation, _ := s["delegation"].(map[string]any)
	responses, _ := delegation["responses"].(map[string]any)
	if delegation["type"] == "responses" && (responses["model"] == nil || responses["tools"] == nil) {
		return fmt.Errorf("delegation: %v", delegation)
	}
	c.started = true
	s["id"] = "live_1"
	c.say("session.started", map[string]any{"session": s})
	return nil
}

func (c *liveSession) began() { c.voice = nil }
func (c *liveSession) late()  {}

func (c *liveSession) paused(turn int) {
	c.say("session.input_transcript.delta", map[string]any{"delta": words(turn), "start_ms": 1, "end_ms": 2})
}

func (c *liveSession) answering(a *Answer) {
	c.say("session.output_transcript.delta", map[string]any{"delta": a.Text, "start_ms": 1, "end_ms": 2})
}

func (c *liveSession) audio(b []byte) {
	c.say("session.output_audio.delta", map[string]any{"delta": b})
}

func (c *liveSession) spoken() {
	c.say("session.usage.updated", map[string]any{"usage": map[string]any{"seconds": 15}})
}

func (c *liveSession) failed(code string) {
	c.say("error", map[string]any{"error": map[string]any{"type": "server_error", "code": code,
		"message": "It fails."}})
}

func (c *liveSession) call(id string, tool *Tool) {
	c.say("response.event", map[string]any{"delegation_id": "del_1", "event": map[string]any{
		"type": "response.output_item.done", "output_index": 0, "item": map[string]any{"type": "function_call",
			"id": "fc_1", "call_id": id, "name": tool.Name, "arguments": tool.Arguments, "status": "completed"}}})
}
