package elevenlabs

import (
	"encoding/base64"
	"encoding/json"
	"time"

	"voicebridge/agent"
	"voicebridge/agent/model"
	"voicebridge/agent/tools"
	"voicebridge/providers"
)

// vendor is what is said in one call.
type vendor struct {
	*model.Talk
	protocol    *protocol
	interrupted int64         // audio of this event and those before is late
	said        time.Duration // when the caller was understood last
}

// Start implements model.Vendor.
func (v *vendor) Start(out *providers.Messages) error {
	model.AddJSON(out, v.protocol.initiation(v.Call()))
	return nil
}

// Audio implements model.Vendor.
func (v *vendor) Audio(out *providers.Messages, audio []byte) {
	m := out.Add(false)
	m.Data = append(m.Data, `{"user_audio_chunk":"`...)
	m.Data = base64.StdEncoding.AppendEncode(m.Data, audio)
	m.Data = append(m.Data, `"}`...)
}

// Tell implements model.Vendor.
func (v *vendor) Tell(out *providers.Messages, text string, answer bool) {
	kind := map[bool]string{true: "user_message", false: "contextual_update"}[answer]
	model.AddJSON(out, object{"type": kind, "text": text})
}

// Cut implements model.Vendor: the agent cannot be told.
func (v *vendor) Cut(*providers.Messages, string, time.Duration) {}

// Result implements model.Vendor.
func (v *vendor) Result(out *providers.Messages, c tools.Call, r model.Result) {
	model.AddJSON(out, object{"type": "client_tool_result", "tool_call_id": c.ID, "result": string(r.Output),
		"is_error": r.Failed})
}

// Stop implements model.Vendor: the connection closes.
func (v *vendor) Stop(*providers.Messages) {}

// message is any of the server's, with the fields that matter here.
type message struct {
	Type     string `json:"type"`
	Metadata struct {
		Out string `json:"agent_output_audio_format"`
		In  string `json:"user_input_audio_format"`
	} `json:"conversation_initiation_metadata_event"`
	Audio struct {
		Audio []byte `json:"audio_base_64"`
		Event int64  `json:"event_id"`
	} `json:"audio_event"`
	Interruption struct {
		Event int64 `json:"event_id"`
	} `json:"interruption_event"`
	Ping struct {
		Event int64 `json:"event_id"`
	} `json:"ping_event"`
	User struct {
		Text string `json:"user_transcript"`
	} `json:"user_transcription_event"`
	Agent struct {
		Text string `json:"agent_response"`
	} `json:"agent_response_event"`
	Call struct {
		Name       string          `json:"tool_name"`
		ID         string          `json:"tool_call_id"`
		Parameters json.RawMessage `json:"parameters"`
	} `json:"client_tool_call"`
	Tool struct {
		Name   string `json:"tool_name"`
		Called bool   `json:"is_called"`
	} `json:"agent_tool_response"`
	Error struct {
		Type    string `json:"error_type"`
		Message string `json:"message"`
	} `json:"error_event"`
}

// Read implements model.Vendor.
func (v *vendor) Read(m providers.Message) {
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
	case "conversation_initiation_metadata":
		v.begin(m.Metadata.In, m.Metadata.Out)
	case "audio":
		if m.Audio.Event > v.interrupted {
			v.Play(v.Turn(), m.Audio.Audio)
		}
	case "interruption":
		v.interrupted = max(v.interrupted, m.Interruption.Event)
		v.InterruptTurn()
		v.Fresh() // events tell what is late
	case "ping":
		v.Say(func(out *providers.Messages) {
			model.AddJSON(out, object{"type": "pong", "event_id": m.Ping.Event})
		})
	case "user_transcript":
		v.EndTurn()
		v.CallersTurn()
		v.CallerSaid(m.User.Text, v.said, v.In())
		v.said = v.In()
	case "agent_response":
		v.EndTurn() // the one before
		v.Words(v.Turn(), m.Agent.Text)
	case "client_tool_call":
		v.Run(tools.Call{ID: m.Call.ID, Name: m.Call.Name, Arguments: m.Call.Parameters})
	case "agent_tool_response":
		if m.Tool.Name == tools.EndCall && m.Tool.Called { // the vendor's own tool of that name
			v.Do(agent.Command{Kind: agent.CommandHangup})
		}
	case "error": // the connection closes
		v.Fail(m.Error.Type, m.Error.Message, false)
	default:
		if !ignored[m.Type] {
			v.Unknown(m.Type)
		}
	}
}

// ignored are messages that tell nothing new.
var ignored = map[string]bool{"agent_response_correction": true, "tentative_user_transcript": true, "vad_score": true,
	"agent_chat_response_part": true, "agent_reasoning_response_part": true, "context_usage": true,
	"asr_initiation_metadata": true, "guardrail_triggered": true, "agent_typing": true, "agent_tool_request": true,
	"agent_tool_response_full_payload": true, "agent_response_metadata": true, "agent_response_complete": true,
	"internal_tentative_agent_response": true, "internal_turn_probability": true, "internal_vad_score": true,
	"mcp_connection_status": true, "mcp_tool_call": true, "rich_content": true}

// begin begins the talk, in the formats of the agent.
func (v *vendor) begin(in, out string) {
	if v.Begun() {
		return
	}
	hears, known := formats[in]
	speaks, too := formats[out]
	if !known || !too {
		v.Fail("format", "the agent is set to hear "+in+" and to speak "+out+
			": choose ulaw_8000, or pcm_ of 8000, 16000, "+
			"24000 or 48000", true)
		return
	}
	v.Format(hears, speaks)
	v.Begin()
	v.Say(func(out *providers.Messages) {
		o := v.Opening("")
		if lines := v.History(); len(lines) > 0 {
			text := "[You were cut off from the caller, and go on now. Do not greet again. What was said so far:]"
			for _, l := range lines {
				text += "\n" + string(l.Role) + ": " + l.Text
			}
			v.Tell(out, text, o.Answer)
		}
		if o.Notice != "" {
			v.Tell(out, o.Notice, true)
		}
	})
}
