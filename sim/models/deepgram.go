package models

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"

	"voicebridge/codec"
)

// Deepgram is an agent behind Deepgram's Voice Agent API. It implements http.Handler.
type Deepgram struct{ *Script }

// converse is one of its connections.
type converse struct {
	speaker
	applied bool
}

// ServeHTTP takes a call.
func (d Deepgram) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if d.Key != "" && r.Header.Get("Authorization") != "Token "+d.Key {
		http.Error(w, `{"err_code":"INVALID_AUTH"}`, http.StatusUnauthorized)
		return
	}
	conn, err := accept(w, r, []string{"token"})
	if err != nil {
		d.complain("%v", err)
		return
	}
	c := &converse{speaker: speaker{Script: d.Script, conn: conn}}
	c.mouth = c
	c.say("Welcome", map[string]any{"request_id": "b5a2f6f0-1c1e-4f5b-9d27-3f6c1b9e7d21"})
	part(d.Script, conn, c.serve())
}

func (c *converse) serve() error {
	for {
		binary, data, err := c.conn.Read()
		if err != nil {
			return err
		}
		if binary && c.applied {
			if c.hear(data); c.broken {
				return errBroken
			}
			continue
		}
		var m map[string]any
		if json.Unmarshal(data, &m) != nil {
			c.fail("UNPARSABLE_CLIENT_MESSAGE", fmt.Sprintf("%.100q", data))
			return nil
		}
		kind, _ := m["type"].(string)
		c.note(kind, m)
		if !c.applied && kind != "Settings" {
			c.fail("UNPARSABLE_CLIENT_MESSAGE", kind+" before Settings")
			return nil
		}
		if !c.client(kind, m) {
			return nil
		}
	}
}

// client does what a message says. It is false where it is the end.
func (c *converse) client(kind string, m map[string]any) bool {
	switch kind {
	case "Settings":
		if err := c.settings(m); err != nil {
			c.fail("INVALID_SETTINGS", err.Error())
			return false
		}
		c.applied = true
		c.say("SettingsApplied", map[string]any{})
		is, _ := m["agent"].(map[string]any)
		if is["greeting"] != nil {
			c.begin()
		} else {
			c.turn++
		}
	case "KeepAlive", "UpdatePrompt":
	case "InjectUserMessage":
		c.begin()
	case "FunctionCallResponse":
		id, _ := m["id"].(string)
		if _, is := m["content"].(string); !is || !c.result(id) {
			c.complain("a response to no call: %v", m)
		}
		c.begin()
	default:
		c.fail("UNPARSABLE_CLIENT_MESSAGE", kind)
		return false
	}
	return true
}

func (c *converse) fail(code, description string) {
	c.complain("%s: %s", code, description)
	c.say("Error", map[string]any{"code": code, "description": description})
}

// encodings are those of the formats that are used here.
var encodings = map[string]codec.Encoding{"mulaw": codec.PCMU, "alaw": codec.PCMA, "linear16": codec.L16LE}

func (c *converse) settings(m map[string]any) error {
	for name := range m {
		if !slices.Contains([]string{"type", "tags", "experimental", "flags", "mip_opt_out", "audio", "agent"}, name) {
			return fmt.Errorf("unknown %s", name)
		}
	}
	audio, _ := m["audio"].(map[string]any)
	for side, f := range map[string]*codec.Format{"input": &c.in, "output": &c.out} {
		half, _ := audio[side].(map[string]any)
		name, _ := half["encoding"].(string)
		rate, _ := half["sample_rate"].(float64)
		e, known := encodings[name]
		*f = codec.Format{Encoding: e, Rate: int(rate)}
		if !known || !f.Valid() {
			return fmt.Errorf("audio.%s: %v", side, half)
		}
		if side == "output" && half["container"] != "none" {
			return fmt.Errorf("audio.output.container: %v: a header would be heard", half["container"])
		}
	}
	is, _ := m["agent"].(map[string]any)
	for name := range is {
		if !slices.Contains([]string{"language", "context", "listen", "think", "speak", "greeting"}, name) {
			return fmt.Errorf("unknown agent.%s", name)
		}
	}
	think, _ := is["think"].(map[string]any)
	provider, _ := think["provider"].(map[string]any)
	if provider["type"] == nil || provider["model"] == nil {
		return fmt.Errorf("agent.think.provider: %v", provider)
	}
	for _, f := range list(think["functions"]) {
		if f["name"] == "" || f["parameters"] == nil {
			return fmt.Errorf("agent.think.functions: %v", f)
		}
	}
	return nil
}

func (c *converse) began() { c.say("UserStartedSpeaking", map[string]any{}) }
func (c *converse) late()  {}

func (c *converse) paused(turn int) {
	c.say("ConversationText", map[string]any{"role": "user", "content": words(turn)})
}

func (c *converse) answering(a *Answer) {
	c.say("ConversationText", map[string]any{"role": "assistant", "content": a.Text})
}

func (c *converse) audio(b []byte) { _ = c.conn.Write(true, b) }
func (c *converse) spoken()        { c.say("AgentAudioDone", map[string]any{}) }

func (c *converse) failed(code string) {
	c.say("Error", map[string]any{"code": code, "description": "It fails."})
}

func (c *converse) call(id string, tool *Tool) {
	c.say("FunctionCallRequest", map[string]any{"functions": []any{map[string]any{"id": id, "name": tool.Name,
		"arguments": tool.Arguments, "client_side": true}}})
}
