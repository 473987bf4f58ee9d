package models

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"voicebridge/codec"
	"voicebridge/ws"
)

// Ultravox is an agent of Ultravox, with the API that makes calls. It implements http.Handler. There is no SDK
// that could judge it.
type Ultravox struct{ *Script }

// joined is one of its connections.
type joined struct {
	speaker
	ordinal int
}

// ServeHTTP takes a call, or makes one.
func (u Ultravox) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == "POST" {
		u.make(w, r)
		return
	}
	var in, out int
	if _, err := fmt.Sscanf(r.URL.Path, "/calls/%d/%d", &in, &out); err != nil {
		http.NotFound(w, r)
		return
	}
	conn, err := accept(w, r, nil)
	if err != nil {
		u.complain("%v", err)
		return
	}
	c := &joined{speaker: speaker{Script: u.Script, conn: conn, in: codec.Format{Encoding: codec.L16LE, Rate: in},
		out: codec.Format{Encoding: codec.L16LE, Rate: out}}}
	c.mouth = c
	c.say("call_started", map[string]any{"callId": "1"})
	if r.URL.Query().Get("first") == "agent" {
		c.begin()
	}
	part(u.Script, conn, c.serve())
}

// make makes a call.
func (u Ultravox) make(w http.ResponseWriter, r *http.Request) {
	var m map[string]any
	if u.Key != "" && r.Header.Get("X-API-Key") != u.Key {
		http.Error(w, `{"detail":"Authentication credentials were not provided."}`, http.StatusForbidden)
		return
	}
	err := json.NewDecoder(r.Body).Decode(&m)
	medium, _ := m["medium"].(map[string]any)
	socket, _ := medium["serverWebSocket"].(map[string]any)
	in, _ := socket["inputSampleRate"].(float64)
	out, _ := socket["outputSampleRate"].(float64)
	for _, tool := range list(m["selectedTools"]) {
		temporary, _ := tool["temporaryTool"].(map[string]any)
		if temporary["modelToolName"] == "" || temporary["client"] == nil {
			err = fmt.Errorf("tool: %v", tool)
		}
		for _, p := range list(temporary["dynamicParameters"]) {
			if p["location"] != "PARAMETER_LOCATION_BODY" || p["schema"] == nil {
				err = fmt.Errorf("tool: %v", tool)
			}
		}
	}
	if err != nil || in == 0 || out == 0 {
		u.complain("a call that is not made: %v, %v", m, err)
		http.Error(w, `{"detail":"wrong"}`, http.StatusBadRequest)
		return
	}
	first := "agent"
	if speaker, _ := m["firstSpeakerSettings"].(map[string]any); speaker["user"] != nil {
		first = "caller"
	}
	u.note("calls", m)
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(map[string]string{"callId": "1",
		"joinUrl": fmt.Sprintf("ws://%s/calls/%.0f/%.0f?first=%s", r.Host, in, out, first)})
}

func (c *joined) serve() error {
	for {
		binary, data, err := c.conn.Read()
		if err != nil {
			return err
		}
		if binary {
			if c.hear(data); c.broken {
				return errBroken
			}
			continue
		}
		var m map[string]any
		if json.Unmarshal(data, &m) != nil {
			c.complain("not a JSON object: %.100q", data)
			return nil
		}
		kind, _ := m["type"].(string)
		c.note(kind, m)
		if err := c.client(kind, m); err != nil {
			c.complain("%v", err)
		}
	}
}

// client does what a message says.
func (c *joined) client(kind string, m map[string]any) error {
	switch kind {
	case "user_text_message":
		if urgency, _ := m["urgency"].(string); !strings.Contains("immediate soon later", urgency) || m["text"] == "" {
			return fmt.Errorf("%v", m)
		}
		c.begin()
	case "client_tool_result":
		id, _ := m["invocationId"].(string)
		if _, is := m["result"].(string); !is || !c.result(id) {
			return fmt.Errorf("a result of no call: %v", m)
		}
		if m["agentReaction"] != "listens" {
			c.begin()
		}
	default:
		return fmt.Errorf("unknown %s", kind)
	}
	return nil
}

func (c *joined) state(is string) { c.say("state", map[string]any{"state": is}) }

func (c *joined) transcript(role string, text, delta any) {
	c.say("transcript", map[string]any{"role": role, "medium": "voice", "text": text, "delta": delta,
		"final": delta == nil, "ordinal": c.ordinal})
}

func (c *joined) began() { c.say("playback_clear_buffer", map[string]any{}) }
func (c *joined) late()  { c.state("listening") }

func (c *joined) paused(turn int) {
	c.ordinal++
	c.transcript("user", words(turn), nil)
	c.state("thinking")
}

func (c *joined) answering(a *Answer) {
	c.ordinal++
	c.state("speaking")
	c.transcript("agent", nil, a.Text)
}

func (c *joined) audio(b []byte) { _ = c.conn.Write(true, b) }

func (c *joined) spoken() {
	c.transcript("agent", c.answer.Text, nil)
	c.state("listening")
}

func (c *joined) failed(string) { c.conn.Close(ws.CloseInternal, "") }

func (c *joined) call(id string, tool *Tool) {
	c.say("client_tool_invocation", map[string]any{"toolName": tool.Name, "invocationId": id,
		"parameters": json.RawMessage(tool.Arguments)})
}
