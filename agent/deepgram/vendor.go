package deepgram

import (
	"encoding/json"
	"strings"
	"time"

	"voicebridge/agent/model"
	"voicebridge/agent/tools"
	"voicebridge/codec"
	"voicebridge/providers"
)

// vendor is what is said in one call.
type vendor struct {
	*model.Talk
	protocol   *protocol
	in, out    codec.Format
	configured bool
	spoke      time.Duration // when the caller has begun to speak last
}

// Start implements model.Vendor: the server speaks first.
func (v *vendor) Start(*providers.Messages) error {
	_, v.in = encoding(v.Call().Start.In)
	_, v.out = encoding(v.Call().Start.Out)
	v.Format(v.in, v.out)
	return nil
}

// Audio implements model.Vendor.
func (v *vendor) Audio(out *providers.Messages, audio []byte) {
	m := out.Add(true)
	m.Data = append(m.Data, audio...)
}

// Tell implements model.Vendor. There is no way to tell it something that it does not answer.
func (v *vendor) Tell(out *providers.Messages, text string, _ bool) {
	model.AddJSON(out, map[string]any{"type": "InjectUserMessage", "content": text})
}

// Cut implements model.Vendor: the agent cannot be told.
func (v *vendor) Cut(*providers.Messages, string, time.Duration) {}

// Result implements model.Vendor.
func (v *vendor) Result(out *providers.Messages, c tools.Call, r model.Result) {
	model.AddJSON(out, map[string]any{"type": "FunctionCallResponse", "id": c.ID, "name": c.Name,
		"content": string(r.Output)})
}

// Stop implements model.Vendor: the connection closes.
func (v *vendor) Stop(*providers.Messages) {}

// message is any of the server's, with the fields that matter here.
type message struct {
	Type        string `json:"type"`
	Role        string `json:"role"`
	Content     string `json:"content"`
	Code        string `json:"code"`
	Description string `json:"description"`
	Message     string `json:"message"`
	Functions   []struct {
		ID         string `json:"id"`
		Name       string `json:"name"`
		Arguments  string `json:"arguments"`
		ClientSide bool   `json:"client_side"`
	} `json:"functions"`
}

// Read implements model.Vendor.
func (v *vendor) Read(m providers.Message) {
	if m.Binary {
		if !v.Late() {
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
	case "Welcome":
		v.welcome()
	case "SettingsApplied":
		v.applied()
	case "ConversationText":
		v.text(m)
	case "AgentThinking", "AgentStartedSpeaking":
		v.Turn()
	case "AgentAudioDone":
		v.EndTurn()
	case "UserStartedSpeaking":
		v.spoke = v.In()
		v.InterruptTurn()
	case "FunctionCallRequest":
		for _, f := range m.Functions {
			if f.ClientSide {
				v.Run(tools.Call{ID: f.ID, Name: f.Name, Arguments: json.RawMessage(f.Arguments)})
			}
		}
	case "FunctionCallCancelled":
		for _, f := range m.Functions {
			v.Cancel(f.ID)
		}
	case "Warning", "InjectionRefused":
		v.Trouble(m.Code, m.Description+m.Message)
	case "Error": // each is the end
		v.Fail(m.Code, m.Description+m.Message, false)
	case "PromptUpdated", "SpeakUpdated", "ThinkUpdated", "ListenUpdated", "LatencyReport", "History",
		"FunctionCallResponse", "FunctionCalling", "EndOfThought":
	default:
		v.Unknown(m.Type)
	}
}

// welcome configures the agent.
func (v *vendor) welcome() {
	if v.configured {
		return
	}
	v.configured = true
	functions := []any{}
	for _, d := range v.Tools() {
		functions = append(functions, map[string]any{"name": d.Name, "description": d.Description,
			"parameters": d.Parameters, "defer_until_eot": true}) // none is run for a turn that goes on
	}
	history := v.History()
	if v.Opening("").Answer { // it is asked anew
		history = history[:len(history)-1]
	}
	settings := v.protocol.settings(v.in, v.out, functions, v.Opening(v.protocol.Greeting).Greet, history)
	v.Say(func(out *providers.Messages) { model.AddJSON(out, settings) })
}

// applied begins the talk.
func (v *vendor) applied() {
	if v.Begun() {
		return
	}
	v.Begin()
	o := v.Opening("")
	text := o.Notice
	if o.Answer {
		lines := v.History()
		text = lines[len(lines)-1].Text
	}
	if text != "" {
		v.Say(func(out *providers.Messages) { v.Tell(out, text, true) })
	}
}

// text takes what was said.
func (v *vendor) text(m *message) {
	switch m.Role {
	case "user":
		v.CallersTurn()
		v.CallerSaid(m.Content, min(v.spoke, v.In()), v.In())
	case "assistant":
		v.Words(v.Turn(), strings.TrimSpace(m.Content)+" ")
	}
}
