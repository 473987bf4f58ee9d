package gemini

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"

	"voicebridge/agent/model"
	"voicebridge/agent/tools"
	"voicebridge/calls"
	"voicebridge/providers"
)

// lifetime is after how long a connection is renewed: it ends after some ten minutes.
const lifetime = 9 * time.Minute

// goAway is how long before its end a connection is renewed, whoever speaks, of which the server tells it.
const goAway = 2 * time.Second

// vendor is what is said in one call.
type vendor struct {
	*model.Talk
	protocol *protocol
}

// Start implements model.Vendor.
func (v *vendor) Start(out *providers.Messages) error {
	setup := v.protocol.setup(v.Tools())
	if r := v.Call().Resume; r != nil && r.Kept != nil {
		model.Merge(setup, object{"sessionResumption": object{"handle": r.Kept}})
	} else if len(v.History()) > 0 {
		model.Merge(setup, object{"historyConfig": object{"initialHistoryInClientContent": true}})
	}
	model.AddJSON(out, object{"setup": setup})
	return nil
}

// Audio implements model.Vendor.
func (v *vendor) Audio(out *providers.Messages, audio []byte) {
	m := out.Add(false)
	m.Data = append(m.Data, `{"realtimeInput":{"audio":{"mimeType":"audio/pcm;rate=16000","data":"`...)
	m.Data = base64.StdEncoding.AppendEncode(m.Data, audio)
	m.Data = append(m.Data, `"}}}`...)
}

// Tell implements model.Vendor. The model decides whether it says something about it.
func (v *vendor) Tell(out *providers.Messages, text string, _ bool) {
	model.AddJSON(out, object{"realtimeInput": object{"text": text}})
}

// Cut implements model.Vendor: the model takes all to be played as it comes, and cannot be told.
func (v *vendor) Cut(*providers.Messages, string, time.Duration) {}

// Result implements model.Vendor.
func (v *vendor) Result(out *providers.Messages, c tools.Call, r model.Result) {
	var response any = object{"output": r.Output}
	if r.Failed {
		response = r.Output // an object with error
	}
	model.AddJSON(out, object{"toolResponse": object{"functionResponses": []any{
		object{"id": c.ID, "name": c.Name, "response": response}}}})
}

// Stop implements model.Vendor: the connection closes.
func (v *vendor) Stop(*providers.Messages) {}

// message is any of the server's, with the fields that matter here. Several may be set.
type message struct {
	SetupComplete *struct{} `json:"setupComplete"`
	ServerContent *content  `json:"serverContent"`
	ToolCall      *struct {
		FunctionCalls []struct {
			ID   string          `json:"id"`
			Name string          `json:"name"`
			Args json.RawMessage `json:"args"`
		} `json:"functionCalls"`
	} `json:"toolCall"`
	Cancellation *struct {
		IDs []string `json:"ids"`
	} `json:"toolCallCancellation"`
	Usage *struct {
		Prompt   float64 `json:"promptTokenCount"`
		Response float64 `json:"responseTokenCount"`
		Cached   float64 `json:"cachedContentTokenCount"`
	} `json:"usageMetadata"`
	GoAway *struct {
		Left string `json:"timeLeft"` // a JSON Duration, such as 9.5s
	} `json:"goAway"`
	Resumption *struct {
		Handle    string `json:"newHandle"`
		Resumable bool   `json:"resumable"`
	} `json:"sessionResumptionUpdate"`
	Activity *struct{} `json:"voiceActivity"`
}

// content is what happens in a turn.
type content struct {
	ModelTurn *struct {
		Parts []struct {
			InlineData *struct {
				MimeType string `json:"mimeType"`
				Data     []byte `json:"data"`
			} `json:"inlineData"`
		} `json:"parts"`
	} `json:"modelTurn"`
	Interrupted  bool   `json:"interrupted"`
	TurnComplete bool   `json:"turnComplete"`
	Reason       string `json:"turnCompleteReason"`
	Input        *words `json:"inputTranscription"`
	Output       *words `json:"outputTranscription"`
}

type words struct {
	Text     string `json:"text"`
	Finished bool   `json:"finished"`
}

// Read implements model.Vendor: JSON comes in binary messages, too.
func (v *vendor) Read(m providers.Message) {
	var msg message
	if err := json.Unmarshal(m.Data, &msg); err != nil {
		v.Bad("not a JSON object, or of the wrong types")
		return
	}
	known := msg.GoAway != nil || msg.Resumption != nil || msg.Activity != nil
	if msg.GoAway != nil {
		left, _ := time.ParseDuration(msg.GoAway.Left) // 0 where it is none
		v.Renew(0, max(0, left-goAway))
	}
	if r := msg.Resumption; r != nil && r.Resumable && r.Handle != "" {
		v.Keep(r.Handle)
	}
	if msg.SetupComplete != nil {
		known = true
		v.begin()
	}
	if msg.ServerContent != nil {
		known = true
		v.content(msg.ServerContent)
	}
	if msg.ToolCall != nil {
		known = true
		for _, f := range msg.ToolCall.FunctionCalls {
			v.Run(tools.Call{ID: f.ID, Name: f.Name, Arguments: f.Args})
		}
	}
	if msg.Cancellation != nil {
		known = true
		for _, id := range msg.Cancellation.IDs {
			v.Cancel(id)
		}
	}
	if u := msg.Usage; u != nil {
		known = true
		all := calls.Usage{}
		for name, n := range map[string]float64{"input_tokens": u.Prompt, "output_tokens": u.Response,
			"cached_tokens": u.Cached} {
			if n > 0 {
				all[name] = n
			}
		}
		v.Used(all)
	}
	if !known {
		v.Unknown("a message of another kind")
	}
}

// begin begins the talk.
func (v *vendor) begin() {
	if v.Begun() {
		return
	}
	v.Begin()
	v.Renew(lifetime, lifetime/9)
	v.Say(func(out *providers.Messages) {
		o := v.Opening(v.protocol.Greeting)
		if o.Resumes && v.Call().Resume.Kept == nil { // the server does not know what was said
			v.history(out, o.Answer)
		}
		switch {
		case o.Resumes && v.Call().Resume.Kept != nil && o.Answer:
			v.Tell(out, "[You were cut off from the caller for a moment. Answer what was said last.]", true)
		case o.Notice != "":
			v.Tell(out, o.Notice, true)
		case o.Greet != "":
			addTurns(out, []any{turn("user", o.Greet)}, true)
		}
	})
}

// history adds what was said before. With answer the model answers the last of it.
func (v *vendor) history(out *providers.Messages, answer bool) {
	var turns []any
	for _, l := range v.History() {
		role := map[calls.Role]string{calls.Caller: "user", calls.Agent: "model"}[l.Role]
		turns = append(turns, turn(role, l.Text))
	}
	if len(turns) > 0 {
		addTurns(out, turns, answer)
	}
}

func turn(role, text string) object {
	return object{"role": role, "parts": []any{object{"text": text}}}
}

func addTurns(out *providers.Messages, turns []any, complete bool) {
	model.AddJSON(out, object{"clientContent": object{"turns": turns, "turnComplete": complete}})
}

// content does what happens in a turn: audio first, then its ends.
func (v *vendor) content(c *content) {
	if w := c.Input; w != nil {
		v.CallerWords(w.Text, v.In(), v.In())
		if w.Finished {
			v.CallerDone()
		}
	}
	if c.ModelTurn != nil && !v.Late() {
		v.CallerDone()
		for _, part := range c.ModelTurn.Parts {
			if part.InlineData != nil {
				v.audio(part.InlineData.MimeType, part.InlineData.Data)
			}
		}
	}
	if c.Output != nil && !v.Late() {
		v.Words(v.Turn(), c.Output.Text)
	}
	if c.Interrupted {
		v.InterruptTurn()
	}
	if c.TurnComplete {
		v.CallerDone()
		v.EndTurn()
		v.Fresh()
		if c.Reason != "" && c.Reason != "TURN_COMPLETE_REASON_UNSPECIFIED" {
			v.Trouble(c.Reason, "the model did not answer as usual")
		}
	}
}

// audio plays a part.
func (v *vendor) audio(mime string, pcm []byte) {
	if _, rate, has := strings.Cut(mime, "rate="); has && rate != "24000" {
		v.Bad("audio that is not at 24000 Hz")
		return
	}
	v.Play(v.Turn(), pcm)
}
