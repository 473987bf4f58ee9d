package openailive

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"

	"voicebridge/agent/flatjson"
	"voicebridge/agent/model"
	"voicebridge/agent/tools"
	"voicebridge/calls"
	"voicebridge/providers"
)

// vendor is what is said in one call.
type vendor struct {
	*model.Talk
	protocol *protocol
	seconds  float64 // used so far
	results  int     // tools of which the model has no result yet
}

const (
	maxMembers = 8 // of a message of audio
	// renewEarly is how long before its end a session is renewed, if that can be done while nobody speaks.
	renewEarly = 3 * time.Minute
)

// Start implements model.Vendor.
func (v *vendor) Start(out *providers.Messages) error {
	carrier := v.Call().Start.Out
	_, f := format(carrier)
	v.Format(f, f)
	list := []any{}
	for _, d := range v.Tools() {
		list = append(list, object{"type": "function", "name": d.Name, "description": d.Description,
			"parameters": d.Parameters, "strict": false})
	}
	model.AddJSON(out, object{"type": "session.start", "session": v.protocol.session(carrier, list)})
	return nil
}

// Audio implements model.Vendor.
func (v *vendor) Audio(out *providers.Messages, audio []byte) {
	m := out.Add(false)
	m.Data = append(m.Data, `{"type":"session.input_audio.append","audio":"`...)
	m.Data = base64.StdEncoding.AppendEncode(m.Data, audio)
	m.Data = append(m.Data, `"}`...)
}

// Tell implements model.Vendor. Keys are for it to know, all else to be spoken of.
func (v *vendor) Tell(out *providers.Messages, text string, answer bool) {
	kind := "session.commentary.append"
	if !answer || strings.HasPrefix(text, "[Keypad") {
		kind = "session.thinking.append"
	}
	model.AddJSON(out, object{"type": kind, "delegation_id": nil, "content": text})
}

// Cut implements model.Vendor: the model hears for itself when it is interrupted.
func (v *vendor) Cut(*providers.Messages, string, time.Duration) {}

// Result implements model.Vendor.
func (v *vendor) Result(out *providers.Messages, c tools.Call, r model.Result) {
	model.AddJSON(out, object{"type": "response.item.create", "item": object{"type": "function_call_output",
		"call_id": c.ID, "output": string(r.Output)}})
	if v.results--; v.results <= 0 && c.Name != tools.EndCall { // what it works on goes on then
		model.AddJSON(out, object{"type": "response.create"})
	}
}

// Stop implements model.Vendor.
func (v *vendor) Stop(out *providers.Messages) { model.AddJSON(out, object{"type": "session.close"}) }

// message is any of the server's, with the fields that matter here.
type message struct {
	Type  string `json:"type"`
	Delta string `json:"delta"`
	Begin int64  `json:"start_ms"`
	End   int64  `json:"end_ms"`
	Event struct {
		Type string
		Item struct {
			Type, Status, Name, Arguments string
			Call                          string `json:"call_id"`
		}
	} `json:"event"`
	Usage struct {
		Seconds float64
	} `json:"usage"`
	Error struct {
		Code, Message string
	} `json:"error"`
	Reason  string `json:"reason"`
	Session struct {
		Expires int64 `json:"expires_at"` // Unix, in seconds
	} `json:"session"`
}

// Read implements model.Vendor.
func (v *vendor) Read(m providers.Message) {
	if v.fastAudio(m.Data) {
		return
	}
	var msg message
	if err := json.Unmarshal(m.Data, &msg); err != nil {
		v.Bad("not a JSON object, or of the wrong types")
		return
	}
	v.do(&msg)
}

// fastAudio plays the audio of a message that is written as usual.
func (v *vendor) fastAudio(b []byte) bool {
	isAudio := false
	var audio []byte
	plain := flatjson.Members(b, maxMembers, func(key, value []byte) (ok bool) {
		switch string(key) {
		case "type":
			isAudio = string(value) == `"session.output_audio.delta"`
			return isAudio
		case "delta":
			audio, ok = flatjson.Text(value)
			return ok
		}
		return true
	})
	if plain && isAudio {
		v.audio(audio)
	}
	return plain && isAudio
}

// audio plays a piece. The caller has finished then.
func (v *vendor) audio(b []byte) {
	v.CallerDone()
	v.PlayText(v.Turn(), b)
}

// do does what a message says.
func (v *vendor) do(m *message) {
	switch m.Type {
	case "session.started":
		v.begin(m.Session.Expires)
	case "session.output_audio.delta":
		v.audio([]byte(m.Delta))
	case "session.output_transcript.delta":
		v.Words(v.Turn(), m.Delta)
	case "session.input_transcript.delta":
		v.EndTurn()
		v.CallerWords(m.Delta, v.Since(time.Duration(m.Begin)*time.Millisecond),
			v.Since(time.Duration(m.End)*time.Millisecond))
	case "response.event":
		if it := &m.Event.Item; m.Event.Type == "response.output_item.done" && it.Type == "function_call" &&
			it.Status == "completed" {
			if v.Run(tools.Call{ID: it.Call, Name: it.Name, Arguments: json.RawMessage(it.Arguments)}) {
				v.results++
			}
		}
	case "session.usage.updated":
		v.used(m.Usage.Seconds)
	case "session.closed":
		v.used(m.Usage.Seconds)
		if m.Reason != "close_requested" {
			v.Trouble(m.Reason, "the session was closed")
		}
	case "error":
		if v.Begun() {
			v.Trouble(m.Error.Code, m.Error.Message)
		} else {
			v.Fail(m.Error.Code, m.Error.Message, false)
		}
	case "session.commentary.appended", "session.thinking.appended", "session.instructions.appended",
		"session.delegation.created", "session.updated", "info", "response.item.created":
	default:
		v.Unknown(m.Type)
	}
}

// begin begins the talk.
func (v *vendor) begin(expires int64) {
	if v.Begun() {
		return
	}
	v.Begin()
	if expires > 0 {
		left := time.Until(time.Unix(expires, 0))
		v.Renew(max(left-renewEarly, renewEarly), renewEarly/2)
	}
	v.Say(func(out *providers.Messages) {
		o := v.Opening(v.protocol.Greeting)
		for _, l := range v.History() {
			v.Tell(out, "[Said before by the "+string(l.Role)+": "+l.Text+"]", false)
		}
		if o.Answer {
			o.Notice = "[You were cut off from the caller for a moment. Answer what was said last.]"
		}
		if text := o.Notice + o.Greet; text != "" {
			v.Tell(out, text, true)
		}
	})
}

// used takes what the session has used in all.
func (v *vendor) used(seconds float64) {
	if seconds > v.seconds {
		v.Used(calls.Usage{"seconds": seconds - v.seconds})
		v.seconds = seconds
	}
}
