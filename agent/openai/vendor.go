package openai

import (
	"encoding/base64"
	"encoding/json"
	"strconv"
	"time"

	"voicebridge/agent/flatjson"
	"voicebridge/agent/model"
	"voicebridge/agent/tools"
	"voicebridge/calls"
	"voicebridge/codec"
	"voicebridge/providers"
)

// vendor is what is said in one call.
type vendor struct {
	*model.Talk
	protocol *protocol

	hears, speaks string          // formats
	configured    bool            // the session is being set up
	expires       time.Time       // when it does; zero: it is not told
	response      string          // that is made now; empty: none
	wanted        bool            // one is to be made when that is done
	speaking      bool            // the caller
	dropped       string          // the last one that was interrupted: late audio of it may come
	items         map[string]int  // where in an item its audio is
	speech        map[string]said // of the caller, by item
	results       int             // tools of which the model has no result yet
	comment       bool            // it is to say something about those that it has
	item, audible string          // of the last audio: its item and response
}

// said is when the caller has said something, in time of the audio sent.
type said struct{ from, to time.Duration }

const (
	// lifetime is how long a session lasts at most, renewEarly how long before its end it is renewed, if that can
	// be done while nobody speaks.
	lifetime   = 60 * time.Minute
	renewEarly = 3 * time.Minute
	maxItems   = 256 // of which something is known
	maxMembers = 8   // of a message of audio
)

// Start implements model.Vendor: the server speaks first.
func (v *vendor) Start(*providers.Messages) error {
	in, out := v.Call().Start.In, v.Call().Start.Out
	var hears, speaks codec.Format
	v.hears, hears = v.protocol.suits(in)
	v.speaks, speaks = v.protocol.suits(out)
	v.Format(hears, speaks)
	v.items, v.speech = map[string]int{}, map[string]said{}
	return nil
}

// Audio implements model.Vendor.
func (v *vendor) Audio(out *providers.Messages, audio []byte) {
	m := out.Add(false)
	m.Data = append(m.Data, `{"type":"input_audio_buffer.append","audio":"`...)
	m.Data = base64.StdEncoding.AppendEncode(m.Data, audio)
	m.Data = append(m.Data, `"}`...)
}

// Tell implements model.Vendor.
func (v *vendor) Tell(out *providers.Messages, text string, answer bool) {
	addItem(out, "user", "input_text", text)
	if answer {
		v.answer(out)
	}
}

// addItem adds words to the conversation.
func addItem(out *providers.Messages, role, kind, text string) {
	model.AddJSON(out, map[string]any{"type": "conversation.item.create", "item": map[string]any{"type": "message",
		"role": role, "content": []any{map[string]any{"type": kind, "text": text}}}})
}

// answer asks for a response, now or once the one that is made is done.
func (v *vendor) answer(out *providers.Messages) {
	if v.response != "" || v.speaking { // what the caller says is answered, too, with that
		v.wanted = true
		return
	}
	v.wanted = false
	model.AddJSON(out, map[string]any{"type": "response.create"})
}

// Cut implements model.Vendor.
func (v *vendor) Cut(out *providers.Messages, item string, heard time.Duration) {
	index, known := v.items[item]
	if !known {
		return
	}
	model.AddJSON(out, map[string]any{"type": "conversation.item.truncate", "item_id": item, "content_index": index,
		"audio_end_ms": heard.Milliseconds()})
}

// Result implements model.Vendor.
func (v *vendor) Result(out *providers.Messages, c tools.Call, r model.Result) {
	model.AddJSON(out, map[string]any{"type": "conversation.item.create", "item": map[string]any{
		"type": "function_call_output", "call_id": c.ID, "output": string(r.Output)}})
	v.results--
	v.comment = v.comment || !r.Quiet
	v.comments(out)
}

// comments asks for a response once all tools have their results.
func (v *vendor) comments(out *providers.Messages) {
	if v.results <= 0 && v.comment {
		v.results, v.comment = 0, false
		v.answer(out)
	}
}

// Stop implements model.Vendor: the connection closes.
func (v *vendor) Stop(*providers.Messages) {}

// message is any of the server's, with the fields that matter here.
type message struct {
	Type    string `json:"type"`
	ItemID  string `json:"item_id"`
	Content int    `json:"content_index"`
	Reply   string `json:"response_id"`
	Delta   string `json:"delta"`
	Text    string `json:"transcript"`
	Begin   int64  `json:"audio_start_ms"`
	End     int64  `json:"audio_end_ms"`
	Item    struct {
		Type, Status, Name string
		Call               string `json:"call_id"`
		Arguments          string
	} `json:"item"`
	Response struct {
		ID      string `json:"id"`
		Status  string
		Details struct {
			Reason string
			Error  struct{ Code, Message, Type string }
		} `json:"status_details"`
		Usage usage
	} `json:"response"`
	Usage usage `json:"usage"`
	Error struct {
		Type, Code, Message string
	} `json:"error"`
	Session struct {
		Expires int64 `json:"expires_at"` // Unix, in seconds
	} `json:"session"`
}

// usage is what a response, or a transcription, has used.
type usage struct {
	Input  float64 `json:"input_tokens"`
	Output float64 `json:"output_tokens"`
	In     struct {
		Audio  float64 `json:"audio_tokens"`
		Cached float64 `json:"cached_tokens"`
	} `json:"input_token_details"`
	Out struct {
		Audio float64 `json:"audio_tokens"`
	} `json:"output_token_details"`
	Seconds float64
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

// do does what a message says. Messages with two names had the second in the beta, and have it still with
// other vendors.
func (v *vendor) do(m *message) {
	switch m.Type {
	case "session.created":
		if m.Session.Expires > 0 {
			v.expires = time.Unix(m.Session.Expires, 0)
		}
		v.created()
	case "session.updated":
		v.updated()
	case "response.created":
		v.response, v.wanted = m.Response.ID, false // it answers all that there is
		v.Making(true)
	case "response.output_audio.delta", "response.audio.delta":
		v.audio(m.Reply, m.ItemID, m.Content, []byte(m.Delta))
	case "response.output_audio.done", "response.audio.done":
		v.Spoken(m.ItemID)
	case "response.output_audio_transcript.delta", "response.audio_transcript.delta":
		if m.Reply != v.dropped {
			v.Words(m.ItemID, m.Delta)
		}
	case "response.output_audio_transcript.done", "response.audio_transcript.done":
		v.Text(m.ItemID, m.Text)
	case "response.output_item.done":
		v.itemDone(m)
	case "response.done":
		v.responseDone(m)
	case "input_audio_buffer.speech_started":
		v.speechStarted(m)
	case "input_audio_buffer.speech_stopped":
		v.speaking = false
		v.CallerSpeaks(false)
		if s, known := v.speech[m.ItemID]; known {
			s.to = milliseconds(m.End)
			v.speech[m.ItemID] = s
		}
	case "conversation.item.input_audio_transcription.completed":
		s := v.speech[m.ItemID]
		delete(v.speech, m.ItemID)
		v.CallerSaid(m.Text, v.Since(s.from), v.Since(max(s.from, s.to)))
		v.Used(used("transcription_", &m.Usage))
	case "error":
		v.failed(m.Error.Code, m.Error.Message)
	default:
		if !ignored[m.Type] {
			v.Unknown(m.Type)
		}
	}
}

// ignored are messages that tell nothing new.
var ignored = map[string]bool{
	"conversation.created": true, "conversation.item.created": true, "conversation.item.added": true,
	"conversation.item.done": true, "conversation.item.truncated": true, "conversation.item.deleted": true,
	"conversation.item.input_audio_transcription.delta":   true,
	"conversation.item.input_audio_transcription.segment": true,
	"conversation.item.input_audio_transcription.failed":  true,
	"input_audio_buffer.committed":                        true, "input_audio_buffer.cleared": true,
	"input_audio_buffer.timeout_triggered": true, "rate_limits.updated": true,
	"response.output_item.added": true, "response.content_part.added": true, "response.content_part.done": true,
	"response.function_call_arguments.delta": true, "response.function_call_arguments.done": true,
	"response.output_text.delta": true, "response.output_text.done": true, "response.text.delta": true,
	"response.text.done": true, "ping": true,
}

func milliseconds(n int64) time.Duration { return time.Duration(n) * time.Millisecond }

// created configures the session.
func (v *vendor) created() {
	if v.configured {
		return
	}
	v.configured = true
	v.Say(func(out *providers.Messages) {
		model.AddJSON(out, map[string]any{"type": "session.update",
			"session": v.protocol.session(v.hears, v.speaks, declared(v.Tools()))})
	})
}

// declared are the tools as the model is told of them.
func declared(list []tools.Declaration) []any {
	all := []any{}
	for _, d := range list {
		all = append(all, map[string]any{"type": "function", "name": d.Name, "description": d.Description,
			"parameters": d.Parameters})
	}
	return all
}

// updated begins the talk.
func (v *vendor) updated() {
	if v.Begun() {
		return
	}
	v.Begin()
	left := lifetime
	if !v.expires.IsZero() {
		left = min(left, time.Until(v.expires))
	}
	v.Renew(max(left-renewEarly, renewEarly), renewEarly/2)
	v.Say(func(out *providers.Messages) {
		for _, l := range v.History() {
			role, kind := "user", "input_text"
			if l.Role == calls.Agent {
				role, kind = "assistant", "output_text"
			}
			addItem(out, role, kind, l.Text)
		}
		switch o := v.Opening(v.protocol.Greeting); {
		case o.Notice != "":
			v.Tell(out, o.Notice, true)
		case o.Greet != "":
			model.AddJSON(out, map[string]any{"type": "response.create",
				"response": map[string]any{"instructions": o.Greet}})
		case o.Answer:
			v.answer(out)
		}
	})
}

// fastAudio plays the audio of a message that is written as usual.
func (v *vendor) fastAudio(b []byte) bool {
	var isAudio bool
	var reply, item, audio []byte
	content := 0
	plain := flatjson.Members(b, maxMembers, func(key, value []byte) (ok bool) {
		switch string(key) {
		case "type":
			isAudio = string(value) == `"response.output_audio.delta"`
			return isAudio
		case "response_id":
			reply, ok = flatjson.Text(value)
		case "item_id":
			item, ok = flatjson.Text(value)
		case "delta":
			audio, ok = flatjson.Text(value)
		case "content_index":
			n, err := strconv.Atoi(string(value))
			content, ok = n, err == nil
		case "event_id", "output_index":
			ok = true
		}
		return ok
	})
	if !plain || !isAudio {
		return false
	}
	if string(item) != v.item { // converted once for each item
		v.item = string(item)
	}
	if string(reply) != v.audible {
		v.audible = string(reply)
	}
	v.audio(v.audible, v.item, content, audio)
	return true
}

// audio plays a piece of an item, unless it is late.
func (v *vendor) audio(reply, item string, content int, audio []byte) {
	if reply == v.dropped && reply != "" || len(item) > model.MaxID {
		return
	}
	if _, known := v.items[item]; !known {
		if len(v.items) == maxItems {
			clear(v.items)
		}
		v.items[item] = content
	}
	v.PlayText(item, audio)
}

// speechStarted interrupts the model.
func (v *vendor) speechStarted(m *message) {
	if len(v.speech) == maxItems {
		clear(v.speech)
	}
	if len(m.ItemID) <= model.MaxID {
		v.speech[m.ItemID] = said{from: milliseconds(m.Begin)}
	}
	v.speaking = true
	v.CallerSpeaks(true)
	if v.protocol.Interrupt != nil && !*v.protocol.Interrupt {
		return
	}
	if v.response != "" {
		v.dropped = v.response
	}
	if v.response != "" || v.Unheard() {
		v.Talk.Interrupt()
	}
}

// itemDone runs a tool whose call is complete.
func (v *vendor) itemDone(m *message) {
	it := &m.Item
	if it.Type != "function_call" || it.Status != "completed" {
		return
	}
	if v.Run(tools.Call{ID: it.Call, Name: it.Name, Arguments: json.RawMessage(it.Arguments)}) {
		v.results++
	}
}

// responseDone notes that a response is over.
func (v *vendor) responseDone(m *message) {
	r := &m.Response
	if r.ID == v.response {
		v.response = ""
		v.Making(false)
	}
	v.Used(used("", &r.Usage))
	if r.Status == "failed" {
		v.failed(r.Details.Error.Code, r.Details.Error.Message)
	}
	if v.wanted && v.response == "" && !v.speaking {
		v.Say(v.answer)
	}
}

// used names what was used.
func used(prefix string, u *usage) calls.Usage {
	all := calls.Usage{}
	for name, n := range map[string]float64{"input_tokens": u.Input, "output_tokens": u.Output,
		"input_audio_tokens": u.In.Audio, "cached_tokens": u.In.Cached, "output_audio_tokens": u.Out.Audio,
		"seconds": u.Seconds} {
		if n > 0 {
			all[prefix+name] = n
		}
	}
	return all
}

// hopeless are errors after which no response comes any more.
var hopeless = map[string]bool{"insufficient_quota": true, "invalid_api_key": true, "account_deactivated": true,
	"billing_hard_limit_reached": true, "beta_api_shape_disabled": true}

// failed takes an error.
func (v *vendor) failed(code, message string) {
	switch {
	case code == "response_cancel_not_active":
	case code == "conversation_already_has_active_response":
		v.wanted = true
	case hopeless[code] || !v.Begun():
		v.Fail(code, message, hopeless[code])
	default:
		v.Trouble(code, message)
	}
}
