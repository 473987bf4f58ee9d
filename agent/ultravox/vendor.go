package ultravox

import (
	"encoding/json"
	"time"

	"voicebridge/agent/model"
	"voicebridge/agent/tools"
	"voicebridge/providers"
)

// vendor is what is said in one call.
type vendor struct {
	*model.Talk
	protocol *protocol
	listens  time.Duration // since when the caller is listened to
}

// Start implements model.Vendor: the server speaks first.
func (v *vendor) Start(*providers.Messages) error {
	v.Format(suits(v.Call().Start.In), suits(v.Call().Start.Out))
	return nil
}

// Audio implements model.Vendor.
func (v *vendor) Audio(out *providers.Messages, audio []byte) {
	m := out.Add(true)
	m.Data = append(m.Data, audio...)
}

// Tell implements model.Vendor.
func (v *vendor) Tell(out *providers.Messages, text string, answer bool) {
	urgency := map[bool]string{true: "soon", false: "later"}[answer]
	model.AddJSON(out, object{"type": "user_text_message", "text": text, "urgency": urgency})
}

// Cut implements model.Vendor: the agent knows what it has taken back.
func (v *vendor) Cut(*providers.Messages, string, time.Duration) {}

// Result implements model.Vendor.
func (v *vendor) Result(out *providers.Messages, c tools.Call, r model.Result) {
	// Of an errorMessage the model would know nothing: a failure is a result, too.
	model.AddJSON(out, object{"type": "client_tool_result", "invocationId": c.ID, "result": string(r.Output),
		"responseType": "tool-response", "agentReaction": map[bool]string{true: "listens", false: "speaks"}[r.Quiet]})
}

// Stop implements model.Vendor: the connection closes.
func (v *vendor) Stop(*providers.Messages) {}

// message is any of the server's, with the fields that matter here.
type message struct {
	Type       string          `json:"type"`
	State      string          `json:"state"`
	Role       string          `json:"role"`
	Text       *string         `json:"text"`
	Delta      *string         `json:"delta"`
	Final      bool            `json:"final"`
	Tool       string          `json:"toolName"`
	ID         string          `json:"invocationId"`
	Parameters json.RawMessage `json:"parameters"`
}

// Read implements model.Vendor.
func (v *vendor) Read(m providers.Message) {
	if m.Binary {
		if v.Begun() && !v.Late() {
			v.Play(v.Turn(), m.Data)
		}
		return
	}
	var msg message
	if err := json.Unmarshal(m.Data, &msg); err != nil {
		v.Bad("not a JSON object, or of the wrong types")
		return
	}
	v.do(&msg)
}

// do does what a message says.
func (v *vendor) do(m *message) {
	switch m.Type {
	case "call_started":
		v.begin()
	case "state":
		v.state(m.State)
	case "transcript":
		v.transcript(m)
	case "playback_clear_buffer":
		v.InterruptTurn()
	case "client_tool_invocation":
		v.Run(tools.Call{ID: m.ID, Name: m.Tool, Arguments: m.Parameters})
	case "pong", "debug", "spawn_thread", "thread_spawned", "thread_rejected", "thread_terminated",
		"side_generation_delta", "side_generation_completed":
	default:
		v.Unknown(m.Type)
	}
}

// begin begins the talk.
func (v *vendor) begin() {
	if v.Begun() {
		return
	}
	v.Begin()
	if notice := v.Opening("").Notice; notice != "" {
		v.Say(func(out *providers.Messages) { v.Tell(out, notice, true) })
	}
}

// state takes what the agent does.
func (v *vendor) state(is string) {
	switch is {
	case "speaking":
		v.Turn() // what comes now is not late
	case "listening", "thinking":
		if is == "listening" {
			v.listens = v.In()
		}
		v.EndTurn()
	}
}

// transcript takes what was said.
func (v *vendor) transcript(m *message) {
	switch {
	case m.Role == "user" && m.Final && m.Text != nil:
		v.CallersTurn()
		v.CallerSaid(*m.Text, min(v.listens, v.In()), v.In())
	case m.Role == "agent" && m.Delta != nil && !v.Late():
		v.Words(v.Turn(), *m.Delta)
	case m.Role == "agent" && m.Final && m.Text != nil && !v.Late():
		v.Text(v.LastTurn(), *m.Text)
	}
}
