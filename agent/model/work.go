package model

import (
	"context"
	"encoding/json"
	"errors"

	"voicebridge/agent"
	"voicebridge/agent/tools"
	"voicebridge/notify"
	"voicebridge/providers"
)

// Run has a tool carried out, and the model told of it. It is false where that was done before.
func (t *Talk) Run(c tools.Call) bool {
	if len(c.ID) > MaxID || len(c.Name) > MaxID {
		t.Bad("the id or the name of a tool is too long")
		return false
	}
	t.CallerDone()
	id := workID(c.ID)
	if t.open[id] != nil || len(t.open) >= 2*maxCalls {
		return false
	}
	t.begun++
	action, err := t.set.Action(c)
	if c.Arguments = append(json.RawMessage(nil), c.Arguments...); err != nil {
		c.Arguments = nil // which may be long
	}
	w := &work{call: c}
	t.open[id] = w
	switch {
	case t.ending != "":
		t.tell(w, failure("the call is ending"))
	case t.begun > maxCalls:
		t.tell(w, failure("too many tools"))
	case err != nil:
		t.tell(w, failure(err.Error()))
	case action.End:
		t.ending, t.endingAt = id, t.in
		t.tell(w, Result{Output: json.RawMessage(`{"status":"ending"}`), Quiet: true})
	case action.Transfer != nil:
		t.Do(agent.Command{Kind: agent.CommandTransfer, ID: id, Transfer: action.Transfer})
		t.tell(w, Result{Output: json.RawMessage(`{"status":"dialing"}`), Quiet: true})
	case action.Own != nil:
		t.ask(w, action.Own)
	case !agent.ValidDigits(action.Digits):
		t.tell(w, failure("digits must be 1 to 64 of 0-9 * # A-D w W"))
	default:
		t.Do(agent.Command{Kind: agent.CommandDigits, ID: id, Digits: action.Digits, Tone: agent.DefaultTone,
			Gap: agent.DefaultToneGap})
	}
	return true
}

// toolPrefix begins the ids of tools' commands.
const toolPrefix = "tool:"

// workID is the id of a tool's command.
func workID(call string) string { return toolPrefix + call }

func failure(why string) Result {
	b, _ := json.Marshal(map[string]string{"error": why}) // never fails
	return Result{Output: b, Failed: true}
}

// tell has the model told what has come of a tool.
func (t *Talk) tell(w *work, r Result) {
	w.told, w.call.Arguments = true, nil
	t.Say(func(out *providers.Messages) { t.vendor.Result(out, w.call, r) })
}

// ask asks a webhook of the user's.
func (t *Talk) ask(w *work, own *tools.Own) {
	ctx, cancel := context.WithCancel(t.ctx)
	w.cancel = cancel
	about := tools.About{Session: t.call.Session, Carrier: t.call.Carrier, Direction: t.call.Known.Direction,
		From: t.call.Known.From, To: t.call.Known.To, Metadata: t.call.Custom()}
	t.asked.Go(func() {
		defer cancel()
		answer, err := own.Ask(ctx, w.call, &about)
		t.mu.Lock()
		if ctx.Err() == nil {
			t.answered(w, answer, err)
		}
		t.unlock()
	})
}

// answered takes the answer of a webhook.
func (t *Talk) answered(w *work, answer json.RawMessage, err error) {
	var status notify.StatusError
	switch {
	case err == nil:
		t.tell(w, Result{Output: answer})
		return
	case errors.As(err, &status):
		t.tell(w, failure("the tool "+status.Error()))
	case errors.Is(err, context.DeadlineExceeded):
		t.tell(w, failure("the tool did not answer in time"))
	default:
		t.tell(w, failure("the tool could not be reached"))
	}
	t.Trouble("tool", err.Error())
}

// Cancel withdraws a tool. The model is told nothing of it any more.
func (t *Talk) Cancel(call string) {
	id := workID(call)
	w := t.open[id]
	switch {
	case w == nil || w.over:
		return
	case t.ending == id && !t.hung: // nothing was done yet
	case w.cancel != nil:
		w.cancel()
	default:
		t.Do(agent.Command{Kind: agent.CommandCancel, Ref: id})
	}
	if t.ending == id {
		t.ending, t.hung = "", false
	}
	w.told, w.over = true, true
}
