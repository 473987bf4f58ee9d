package models

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"voicebridge/codec"
)

// ElevenLabs is an agent at ElevenLabs, with the API that signs URLs. It implements http.Handler.
type ElevenLabs struct{ *Script }

// elevenFormat is what the agent is set to.
const elevenFormat = "ulaw_8000"

// signature is what a signed URL has.
const signature = "cvtkn_1"

// convai is one of its connections.
type convai struct {
	speaker
	event int // of the audio
	begun bool
}

// ServeHTTP takes a call, or signs a URL for one.
func (e ElevenLabs) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if strings.HasSuffix(r.URL.Path, "/get-signed-url") {
		if r.Header.Get("xi-api-key") != e.Key || q.Get("agent_id") == "" {
			http.Error(w, `{"detail":{"status":"invalid_api_key"}}`, http.StatusUnauthorized)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]string{"signed_url": "ws://" + r.Host +
			"/v1/convai/conversation?agent_id=" +
			q.Get("agent_id") + "&conversation_signature=" + signature})
		return
	}
	if e.Key != "" && q.Get("conversation_signature") != signature {
		http.Error(w, "not signed", http.StatusForbidden)
		return
	}
	conn, err := accept(w, r, []string{"convai"})
	if err != nil {
		e.complain("%v", err)
		return
	}
	f := codec.Format{Encoding: codec.PCMU, Rate: 8000}
	c := &convai{speaker: speaker{Script: e.Script, conn: conn, in: f, out: f}}
	c.mouth = c
	part(e.Script, conn, c.serve())
}

func (c *convai) serve() error {
	for {
		binary, data, err := c.conn.Read()
		if err != nil {
			return err
		}
		var m map[string]any
		if binary || json.Unmarshal(data, &m) != nil {
			c.complain("not a JSON object: %.100q", data)
			return nil
		}
		kind, _ := m["type"].(string)
		c.note(kind, m)
		if (kind == "conversation_initiation_client_data") == c.begun {
			c.complain("%s at the wrong time", kind)
			return nil
		}
		if err := c.client(kind, m); err != nil {
			c.complain("%v", err)
		}
		if c.broken {
			return errBroken
		}
	}
}

// client does what a message says.
func (c *convai) client(kind string, m map[string]any) error {
	switch kind {
	case "conversation_initiation_client_data":
		c.begun = true
		c.say(kind[:len("conversation_initiation")]+"_metadata", map[string]any{
			"conversation_initiation_metadata_event": map[string]any{"conversation_id": "conv_1",
				"agent_output_audio_format": elevenFormat, "user_input_audio_format": elevenFormat}})
		c.say("ping", map[string]any{"ping_event": map[string]any{"event_id": 7, "ping_ms": nil}})
		c.begin() // the agent's first message
	case "": // the only one without a type
		text, _ := m["user_audio_chunk"].(string)
		b, err := base64.StdEncoding.DecodeString(text)
		if err != nil || len(b) == 0 || len(m) != 1 {
			return fmt.Errorf("audio: %.100s", fmt.Sprint(m))
		}
		c.hear(b)
	case "pong":
		if m["event_id"] != 7.0 {
			return fmt.Errorf("pong: %v", m)
		}
	case "user_message", "contextual_update":
		if _, is := m["text"].(string); !is {
			return fmt.Errorf("%v", m)
		}
		if kind == "user_message" {
			c.begin()
		}
	case "client_tool_result":
		id, _ := m["tool_call_id"].(string)
		_, text := m["result"].(string)
		if _, is := m["is_error"].(bool); !is || !text || !c.result(id) {
			return fmt.Errorf("a result of no call: %v", m)
		}
		c.begin()
	case "user_activity":
	default:
		return fmt.Errorf("unknown %s", kind)
	}
	return nil
}

func (c *convai) began() {
	c.say("interruption", map[string]any{"interruption_event": map[string]any{"event_id": c.event + 1}})
}

func (c *convai) late() {}

func (c *convai) paused(turn int) {
	c.say("user_transcript", map[string]any{"user_transcription_event": map[string]any{"user_transcript": words(turn),
		"event_id": c.event}})
	c.event += 2 // later than what was interrupted
}

func (c *convai) answering(a *Answer) {
	c.say("agent_response", map[string]any{"agent_response_event": map[string]any{"agent_response": a.Text,
		"event_id": c.event}})
}

func (c *convai) audio(b []byte) {
	c.event++
	c.say("audio", map[string]any{"audio_event": map[string]any{"audio_base_64": b, "event_id": c.event}})
}

func (c *convai) spoken() {}

func (c *convai) failed(code string) {
	c.say("error", map[string]any{"error_event": map[string]any{"code": 1011, "error_type": code,
		"message": "It fails."}})
}

func (c *convai) call(id string, tool *Tool) {
	c.say("client_tool_call", map[string]any{"client_tool_call": map[string]any{"tool_name": tool.Name,
		"tool_call_id": id, "parameters": json.RawMessage(tool.Arguments), "event_id": c.event}})
}
