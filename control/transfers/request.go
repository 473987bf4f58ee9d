package transfers

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"voicebridge/calls"
	"voicebridge/control"
	"voicebridge/providers"
	"voicebridge/session"
	"voicebridge/transfer"
)

// Refusal is why a transfer is not begun, or not ended.
type Refusal struct {
	Status int    // as HTTP says it
	Code   string // of the agents' protocols
	Words  string
}

func (e *Refusal) Error() string { return e.Words }

func refuse(status int, code, words string, args ...any) *Refusal {
	return &Refusal{status, code, fmt.Sprintf(words, args...)}
}

// storeAway is a refusal because nothing can be stored.
func storeAway(err error) error {
	return refuse(http.StatusServiceUnavailable, "unavailable", "transfers are not possible now: %v", err)
}

// ErrNotFound is the error of a transfer that is not known.
var ErrNotFound = refuse(http.StatusNotFound, "not_found", "no such transfer")

// clearTime is how long a second transfer waits for the end of the first.
const clearTime = 2 * time.Second

// Start begins to move a call. by says who wants that, ref is the agent's id of its
// command. Errors are *Refusal, or those of package control.
func (t *Transfers) Start(ctx context.Context, id string, want *calls.TransferRequest, by, ref string) (Info, error) {
	call, known := t.control.Calls().Get(id)
	account, _ := t.control.Account(call.Account)
	switch {
	case !known:
		return Info{}, control.ErrNoCall
	case call.Status.Final():
		return Info{}, control.ErrOver
	case !account.HasCommands():
		return Info{}, refuse(http.StatusConflict, "unsupported",
			"the call's account cannot transfer: it has no credentials for the carrier's REST API")
	case call.CarrierID == "" || call.Status != providers.StatusInProgress:
		return Info{}, control.ErrNotStarted
	case t.control.Draining():
		return Info{}, refuse(http.StatusServiceUnavailable, "busy", "the bridge stops")
	}
	req, no := t.check(&call, want)
	if no != nil {
		return Info{}, no
	}
	if what := t.tries.take(time.Now(), req, t.cfg.Limits); what != "" {
		return Info{}, tooOften(what)
	}
	req.By, req.Ref, req.Returns = by, ref, int64(call.Returns)
	req.Place = t.placeOf(ctx, account, req)
	defer t.request(id)()
	r, err := t.begin(ctx, req)
	var busy *transfer.BusyError
	switch {
	case errors.As(err, &busy):
		return Info{}, refuse(http.StatusConflict, "busy", "the call has a transfer already: %s", busy.ID)
	case err != nil:
		return Info{}, storeAway(err)
	}
	// Known before anybody is told: a call that its agent leaves now is not over.
	t.note(&change{Call: id, Info: calls.Transfer{ID: r.ID}})
	t.log.Info("transfer begun", "session", id, "transfer", r.ID, "mode", r.Mode, "to", calls.Mask(r.To), "name",
		r.Name, "by", by)
	return infoOf(r), nil
}

// placeOf is where the carrier says that the caller is, where that will be the only sign
// that it has been taken elsewhere.
func (t *Transfers) placeOf(ctx context.Context, account control.Account, req *transfer.Request) string {
	if req.Mode != transfer.Blind || !account.Spec.Abilities.StreamStays {
		return ""
	}
	ctx, stop := context.WithTimeout(ctx, placeTime)
	defer stop()
	evs, err := account.State(ctx, req.Caller)
	if err != nil {
		t.log.Warn("the carrier does not say where a call is", "session", req.Call, "err", err)
		return ""
	}
	for _, ev := range evs {
		if ev.Place != "" {
			return ev.Place
		}
	}
	return ""
}

// placeTime is how long a carrier may take to say where a call is.
const placeTime = 2 * time.Second

// begin stores a transfer. One before it that is all but over is waited for.
func (t *Transfers) begin(ctx context.Context, req *transfer.Request) (*transfer.Record, error) {
	r, err := t.manager.Start(ctx, *req)
	var busy *transfer.BusyError
	if !errors.As(err, &busy) {
		return r, err
	}
	wait, stop := context.WithTimeout(ctx, clearTime)
	defer stop()
	before, gerr := t.manager.Get(wait, busy.ID)
	if gerr != nil || !over(before) {
		return nil, err
	}
	if _, gerr = t.manager.Wait(wait, busy.ID, func(*transfer.Record) bool { return false }); gerr != nil {
		return nil, err
	}
	return t.manager.Start(ctx, *req)
}

// over reports whether nobody wants the destination any more.
func over(r *transfer.Record) bool { return r.State.Final() || r.State == transfer.Compensating }

// check makes a request of what is wanted, or says why it is refused.
func (t *Transfers) check(call *calls.Call, want *calls.TransferRequest) (*transfer.Request, *Refusal) {
	req := t.requestOf(call, want)
	if no := t.checkDestination(req, want.To); no != nil {
		return nil, no
	}
	req.Own = t.control.OwnNumber(call)
	if req.From == "" {
		req.From = req.Own
		if t.cfg.ShowCaller && call.Direction == calls.Inbound && providers.ValidNumber(call.From) {
			req.From = call.From
		}
	}
	if no := t.checkFields(req, want.Agent); no != nil {
		return nil, no
	}
	account, _ := t.control.Account(call.Account)
	if own := []string{t.control.OwnNumber(call), call.From, call.To}; !account.Owns(req.From) &&
		!slices.Contains(own, req.From) {
		return nil, bad("from: must be a number of the account, or the caller's")
	}
	if call.Direction == calls.Inbound && req.From == call.From {
		req.Forward = call.Forward
	}
	for reason, d := range req.OnFail {
		if reason != "" && !slices.Contains(transfer.Reasons, reason) {
			return nil, bad("on_fail: %.64q is no reason: they are %v", reason, transfer.Reasons)
		}
		if d != transfer.Resume && d != transfer.Hangup && !(providers.ValidNumber(d) && t.allowed(d)) {
			return nil, bad("on_fail: must be resume, hangup, or a number in E.164 that transfers may go to")
		}
	}
	return req, nil
}

func bad(words string, args ...any) *Refusal {
	return refuse(http.StatusUnprocessableEntity, "bad_field", words, args...)
}

// requestOf completes what is wanted with what is usual.
func (t *Transfers) requestOf(call *calls.Call, want *calls.TransferRequest) *transfer.Request {
	req := &transfer.Request{
		Call: call.ID, Account: call.Account, Provider: call.Provider, Caller: call.CarrierID, From: want.From,
		To:   want.To,
		Mode: transfer.Mode(want.Mode), Whisper: want.Whisper, Language: want.Language, Voice: want.Voice,
		Brief: want.Brief, Accept: want.Accept,
		Digits: want.Digits, Detect: want.Detect,
		Ring: time.Duration(want.Timeout) * time.Second, Hold: want.Hold, OnFail: want.OnFail, OnEnd: want.OnEnd,
		Context: want.Context,
		Host:    t.control.Host(),
	}
	if want.Agent != "leave" {
		req.Agent = want.Agent
	}
	or(&req.Mode, transfer.Conference)
	or(&req.Ring, t.cfg.Ring)
	or(&req.Hold, t.cfg.Hold)
	if req.Mode == transfer.Attended {
		or(&req.Accept, transfer.AcceptDigit)
		or(&req.Whisper, t.control.Words().Accept)
	}
	if req.Agent != "" && req.Mode != transfer.Blind { // they are alone again
		or(&req.OnEnd, transfer.Resume)
	}
	return req
}

// or sets what is not set.
func or[T comparable](v *T, usual T) {
	var zero T
	if *v == zero {
		*v = usual
	}
}

// checkDestination finds the number of a name, and checks one that is given.
func (t *Transfers) checkDestination(req *transfer.Request, to string) *Refusal {
	if name, named := strings.CutPrefix(to, "name:"); named {
		d, known := t.cfg.Destinations[name]
		if !known {
			return refuse(http.StatusUnprocessableEntity, "invalid_destination", "to: there is no destination %.64q",
				name)
		}
		req.Name, req.To = name, d.To
		or(&req.Digits, d.Digits)
		return nil
	}
	switch {
	case !providers.ValidNumber(req.To):
		return refuse(http.StatusUnprocessableEntity, "invalid_destination",
			"to: must be a number in E.164, such as +15550100123, or name:NAME")
	case !t.allowed(req.To):
		return refuse(http.StatusForbidden, "not_allowed",
			"to: the configuration does not allow transfers to this number")
	}
	return nil
}

// rule is one that requests must keep.
type rule struct {
	broken bool
	words  string
	args   []any
}

// checkFields checks all but the destination, and sets what is usual for the end.
func (t *Transfers) checkFields(req *transfer.Request, agent string) *Refusal {
	if req.Agent != "" && req.Mode != transfer.Blind && req.Host == "" {
		return refuse(http.StatusUnprocessableEntity, "unsupported",
			"agent: to listen or stay, instance_url must be set where there are several instances")
	}
	attended, blind := req.Mode == transfer.Attended, req.Mode == transfer.Blind
	brief := providers.CheckMetadata(req.Context)
	account, _ := t.control.Account(req.Account)
	for _, r := range []rule{
		{!slices.Contains(transfer.Modes, req.Mode), "mode: must be one of %v", []any{transfer.Modes}},
		{!slices.Contains([]string{"", "leave", transfer.AgentListens, transfer.AgentStays}, agent),
			"agent: must be leave, listen or stay", nil},
		{req.Agent != "" && blind, "agent: leaves with mode blind", nil},
		{!providers.ValidNumber(req.From), "from: must be a number in E.164; the call's own is none", nil},
		{req.Ring < control.MinRing || req.Ring > control.MaxRing, "timeout_s: must be %v to %v",
			[]any{control.MinRing.Seconds(), control.MaxRing.Seconds()}},
		{len(req.Whisper) > control.MaxSay, "whisper: must have at most %d bytes", []any{control.MaxSay}},
		{req.Brief != "" && t.control.Agent(req.Brief).Dialer == nil, "brief: there is no agent %.64q",
			[]any{req.Brief}},
		{req.Brief != "" && brief != nil, "context: %v", []any{brief}},
		{!attended && req.Whisper+req.Brief+req.Accept != "", "whisper, brief and accept: are for mode attended", nil},
		{!slices.Contains([]string{"", transfer.AcceptDigit, transfer.AcceptStay}, req.Accept),
			"accept: must be digit or stay", nil},
		{!control.ValidDialDigits(req.Digits), "digits: must be at most %d of 0-9 * # w", []any{control.MaxDialDigits}},
		{req.Detect && !account.Spec.Abilities.Detects, "machine_detection: the account's carrier has none", nil},
		{req.Digits != "" && req.Detect && !account.Spec.Abilities.DetectDigits, "digits: not with machine_detection",
			nil},
		{blind && (req.Digits != "" || req.Detect), "digits and machine_detection: not with mode blind", nil},
		{req.Hold != HoldAgent && req.Hold != HoldMusic, "hold: must be agent or music", nil},
		{!slices.Contains([]string{"", transfer.Resume, transfer.Hangup}, req.OnEnd),
			"on_end: must be hangup or resume", nil},
		{req.OnEnd != "" && blind, "on_end: not with mode blind: the bridge has left", nil},
	} {
		if r.broken {
			return bad(r.words, r.args...)
		}
	}
	or(&req.OnEnd, transfer.Hangup)
	return nil
}

// allowed reports whether calls may be moved to a number.
func (t *Transfers) allowed(number string) bool {
	for _, d := range t.cfg.Destinations {
		if d.To == number {
			return true
		}
	}
	return slices.ContainsFunc(t.cfg.Allow, func(pattern string) bool {
		prefix, open := strings.CutSuffix(pattern, "*")
		return pattern == number || open && strings.HasPrefix(number, prefix)
	})
}

// Begin implements control.Transfers.
func (t *Transfers) Begin(sess *session.Session, ref string, want *calls.TransferRequest) {
	done := t.request(sess.ID)
	t.control.Later(func(ctx context.Context) {
		defer done()
		_, err := t.Start(ctx, sess.ID, want, transfer.ReasonAgent, ref)
		if err == nil {
			return // the states follow
		}
		code := "internal"
		var no *Refusal
		switch {
		case errors.As(err, &no):
			code = no.Code
		case errors.Is(err, control.ErrOver), errors.Is(err, control.ErrNotStarted), errors.Is(err, control.ErrNoCall):
			code = "busy"
		}
		sess.Refuse(ref, code, err.Error())
	})
}

// Ask implements control.Transfers.
func (t *Transfers) Ask(ctx context.Context, call string, want *calls.TransferRequest) error {
	_, err := t.Start(ctx, call, want, transfer.ReasonAgent, "")
	return err
}

// Cancel implements control.Transfers.
func (t *Transfers) Cancel(call, ref string) bool {
	id, _, _ := t.of(call)
	if id == "" || ref == "" {
		return false
	}
	t.control.Later(func(ctx context.Context) {
		if r, err := t.manager.Get(ctx, id); err != nil || r.Ref != ref {
			return
		}
		if _, _, err := t.manager.Cancel(ctx, id, transfer.ReasonAgent); err != nil {
			t.log.Warn("transfer is not canceled", "transfer", id, "err", err)
		}
	})
	return true
}

// Get returns a transfer.
func (t *Transfers) Get(ctx context.Context, id string) (Info, error) {
	r, err := t.manager.Get(ctx, id)
	switch {
	case errors.Is(err, transfer.ErrNotFound):
		return Info{}, ErrNotFound
	case err != nil:
		return Info{}, storeAway(err)
	}
	return infoOf(r), nil
}

// End cancels a transfer; one that is bridged is taken back.
func (t *Transfers) End(ctx context.Context, id string) (Info, error) {
	r, moved, err := t.manager.Cancel(ctx, id, transfer.ReasonAPI)
	switch {
	case errors.Is(err, transfer.ErrNotFound):
		return Info{}, ErrNotFound
	case err != nil:
		return Info{}, storeAway(err)
	case !moved && r.Want != transfer.Canceled:
		return Info{}, refuse(http.StatusConflict, "wrong_state", "the transfer is over: %s", r.State)
	}
	return infoOf(r), nil
}
