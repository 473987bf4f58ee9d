package transfers

import (
	"context"
	"errors"

	"voicebridge/calls"
	"voicebridge/control"
	"voicebridge/control/urls"
	"voicebridge/providers"
	"voicebridge/transfer"
)

// carrier does what the state machine wants done. It implements transfer.Carrier.
type carrier struct{ *Transfers }

// hookURL is the URL of a webhook of a transfer.
func (t *Transfers) hookURL(r *transfer.Record, what string) string {
	return t.control.HookURL(r.Provider, r.Account, urls.Transfer+"/"+r.ID+"/"+r.Nonce+"/"+what)
}

// account returns the transfer's account.
func (t *Transfers) account(r *transfer.Record) (control.Account, error) {
	account, _ := t.control.Account(r.Account)
	if !account.HasCommands() {
		return account, &transfer.DialError{Reason: transfer.ReasonCarrier, Err: control.ErrNoCommands}
	}
	return account, nil
}

// meaning tells what an error of the carrier means for what was asked.
func meaning(err error) error {
	var e *providers.CallError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, control.ErrNoCommands):
		return &transfer.DialError{Reason: transfer.ReasonCarrier, Err: err}
	case !errors.As(err, &e):
		return err
	case e.Kind == providers.ErrNoCall:
		return transfer.ErrGone
	case e.Kind == providers.ErrRejected:
		return &transfer.DialError{Reason: transfer.ReasonInvalid, Err: err}
	case e.Kind == providers.ErrUnavailable && !e.Unsent():
		return &transfer.DialError{Reason: transfer.ReasonCarrier, Unsure: true, Err: err}
	}
	return &transfer.DialError{Reason: transfer.ReasonCarrier, Err: err}
}

// Dial implements transfer.Carrier.
func (c carrier) Dial(ctx context.Context, r *transfer.Record) (string, error) {
	account, err := c.account(r)
	if err != nil {
		return "", err
	}
	d := &providers.Dial{To: r.To, From: r.From, Forward: r.Forward, Answer: c.hookURL(r, "answer"),
		Status: c.hookURL(r, "status"),
		Ring:   r.Ring, Detect: r.Detect, Digits: r.Digits}
	leg, err := account.Dial(ctx, d)
	var e *providers.CallError
	if errors.As(err, &e) && e.Kind == providers.ErrRejected && r.Own != "" && r.From != r.Own &&
		!account.Owns(r.From) {
		c.log.Warn("the carrier does not show the caller's number: it shows the bridge's", "transfer", r.ID, "err", err)
		d.From, d.Forward = r.Own, ""
		leg, err = account.Dial(ctx, d)
	}
	if err = meaning(err); errors.Is(err, transfer.ErrGone) { // nobody can have gone yet
		err = &transfer.DialError{Reason: transfer.ReasonCarrier, Err: err}
	}
	return leg.ID, err
}

// room is where caller and destination meet. It ends with the caller, but not with
// the destination: what becomes of the caller then is not the carrier's to say.
func (t *Transfers) room(r *transfer.Record, caller bool) *providers.Answer {
	return &providers.Answer{Room: &providers.Room{
		Name: r.Room, End: caller, Wait: caller, Events: t.hookURL(r, "room"),
		Hold: t.control.HoldURL(r.Provider, r.Account),
	}}
}

// number connects the caller of a blind transfer.
func (t *Transfers) number(r *transfer.Record) *providers.Answer {
	return &providers.Answer{Dial: r.To, Caller: r.From, Ring: r.Ring, Next: t.control.NextURL(t.recordOf(r))}
}

// Join implements transfer.Carrier.
func (c carrier) Join(ctx context.Context, r *transfer.Record) error {
	if r.Mode == transfer.Blind {
		return c.move(ctx, r, c.number(r))
	}
	return c.move(ctx, r, c.room(r, true))
}

// Where implements transfer.Carrier: by the stream, if there is one, and by who the carrier
// says is in the room.
func (c carrier) Where(ctx context.Context, r *transfer.Record) (w transfer.Whereabouts, err error) {
	account, err := c.account(r)
	if err != nil {
		return w, err
	}
	streams := c.control.Streams(ctx, r.Call)
	if r.Mode == transfer.Blind {
		return c.whereBlind(ctx, account, r, streams)
	}
	in, err := account.InRoom(ctx, r.Room, r.Caller, r.Leg)
	unknown := errors.Is(err, errors.ErrUnsupported)
	if err != nil && !unknown {
		return w, meaning(err)
	}
	w.LegIn = !unknown && r.Leg != "" && in[1]
	switch {
	case !unknown && in[0]:
		w.Caller = transfer.InRoom
	case !unknown && !streams && r.State == transfer.Compensating && r.At != transfer.Moving: // it has been somewhere
		w.Caller = transfer.Away
	case !streams && (unknown || account.Spec.Abilities.StreamStays): // there is nowhere else to go
		w.Caller = transfer.InRoom
	case !streams:
	case !account.Spec.Abilities.StreamStays, w.LegIn || r.LegIn:
		w.Caller = transfer.AtAgent
	}
	return w, nil
}

// whereBlind finds out whether the caller of a blind transfer has left its agent.
func (c carrier) whereBlind(ctx context.Context, account control.Account, r *transfer.Record, streams bool) (
	w transfer.Whereabouts, err error) {
	if !streams {
		return transfer.Whereabouts{Caller: transfer.Away}, nil
	}
	if !account.Spec.Abilities.StreamStays {
		return transfer.Whereabouts{Caller: transfer.AtAgent}, nil
	}
	evs, err := account.State(ctx, r.Caller)
	if err != nil {
		return w, meaning(err)
	}
	w.Caller = transfer.AtAgent
	for _, ev := range evs {
		if ev.Place != "" && r.Place != "" && ev.Place != r.Place {
			w.Caller = transfer.Away
		}
	}
	return w, nil
}

// GiveUp implements transfer.Carrier.
func (c carrier) GiveUp(ctx context.Context, r *transfer.Record) error {
	err := c.move(ctx, r, c.control.Say(c.control.Words().NotConnected, "", ""))
	if err == nil || errors.Is(err, transfer.ErrGone) {
		return err
	}
	return c.hangupCaller(ctx, r)
}

// recordOf is what is known of the call of a transfer.
func (t *Transfers) recordOf(r *transfer.Record) *calls.Call {
	if call, ok := t.control.Calls().Get(r.Call); ok {
		return &call
	}
	return &calls.Call{ID: r.Call, Account: r.Account, Provider: r.Provider, CarrierID: r.Caller,
		Direction: calls.Inbound, From: r.From, To: r.From}
}

// move has the carrier do something else with the caller.
func (c carrier) move(ctx context.Context, r *transfer.Record, a *providers.Answer) error {
	call := c.recordOf(r)
	call.CarrierID = r.Caller
	return meaning(c.control.Move(ctx, call, a))
}

// Hangup implements transfer.Carrier.
func (c carrier) Hangup(ctx context.Context, r *transfer.Record) error {
	account, err := c.account(r)
	if err != nil {
		return err
	}
	return meaning(account.Hangup(ctx, r.Leg))
}

// Settle implements transfer.Carrier. A caller that the carrier gave no answer about may be
// with its agent again: another try, with a new token, would take it from there.
func (c carrier) Settle(ctx context.Context, r *transfer.Record) error {
	switch d := r.Disposition(); d {
	case transfer.Resume:
		if c.back(ctx, r) {
			return nil
		}
		return c.move(ctx, r, c.returned(r))
	case transfer.Hangup:
		return c.hangupCaller(ctx, r)
	default:
		return c.move(ctx, r, &providers.Answer{Dial: d, Caller: r.From, Next: c.control.NextURL(c.recordOf(r))})
	}
}

// back reports whether the caller is with its agent: it has never left it, or it has come
// back with a stream that began after the transfer had moved it.
func (c carrier) back(ctx context.Context, r *transfer.Record) bool {
	if !c.control.Streams(ctx, r.Call) {
		return false
	}
	if r.At == transfer.Moving {
		w, err := c.Where(ctx, r)
		return err == nil && w.Caller == transfer.AtAgent
	}
	returns, _ := c.control.StreamReturns(ctx, r.Call)
	return int64(returns) > r.Returns
}

// hangupCaller ends the call at the carrier, and what is left of it here.
func (c carrier) hangupCaller(ctx context.Context, r *transfer.Record) error {
	account, err := c.account(r)
	if err != nil {
		return err
	}
	if err := account.Hangup(ctx, r.Caller); err != nil {
		return meaning(err)
	}
	sess := c.control.Session(r.Call)
	switch {
	case sess == nil:
		c.control.Calls().StreamEnded(r.Call, string(calls.Transferred), true)
	case r.At == transfer.AtAgent || r.At == transfer.Here:
		sess.Hangup(false)
	default: // the carrier has left it alone
		sess.StreamEnded()
	}
	return nil
}

// returned has the call of a transfer streamed to its agent again.
func (t *Transfers) returned(r *transfer.Record) *providers.Answer {
	call := *t.recordOf(r)
	if again := t.control.Calls().Return(r.Call, r.Reason); again.ID != "" {
		call = again
	} else {
		call.Returns++
	}
	call.CarrierID, call.Returned = r.Caller, r.Reason
	return t.control.Stream(&call)
}

// Leg implements transfer.Carrier.
func (c carrier) Leg(ctx context.Context, r *transfer.Record) ([]transfer.Event, error) {
	account, err := c.account(r)
	if err != nil {
		return nil, err
	}
	evs, err := account.State(ctx, r.Leg)
	if err != nil {
		return nil, err
	}
	var list []transfer.Event
	for _, ev := range evs {
		list = append(list, legEvents(&ev)...)
	}
	return list, nil
}

// Caller implements transfer.Carrier.
func (c carrier) Caller(ctx context.Context, r *transfer.Record) (transfer.Event, error) {
	account, err := c.account(r)
	if err != nil {
		return transfer.Event{}, err
	}
	evs, err := account.State(ctx, r.Caller)
	for _, ev := range evs {
		if ev.Status.Final() {
			return transfer.Event{Kind: transfer.CallerLeft}, err
		}
	}
	return transfer.Event{}, err
}

// legReasons are why a leg has ended, by its status.
var legReasons = map[providers.Status]string{
	providers.StatusCompleted: transfer.ReasonDestination, providers.StatusBusy: transfer.ReasonBusy,
	providers.StatusNoAnswer: transfer.ReasonNoAnswer,
	providers.StatusFailed:   transfer.ReasonInvalid, providers.StatusCanceled: transfer.ReasonNoAnswer,
}

// legEvents are what word of the destination's leg means: who has answered, how the leg is,
// or both.
func legEvents(ev *providers.CallEvent) (evs []transfer.Event) {
	add := func(kind transfer.Kind, reason string) {
		evs = append(evs, transfer.Event{Kind: kind, Reason: reason, Leg: ev.Leg, Aliases: ev.Aliases})
	}
	switch {
	case ev.Status == providers.StatusRinging:
		add(transfer.Rang, "")
	case ev.Status == providers.StatusInProgress:
		add(transfer.Picked, "")
	}
	switch {
	case ev.AnsweredBy == providers.AnsweredByMachine || ev.AnsweredBy == providers.AnsweredByFax:
		add(transfer.Machine, "")
	case ev.AnsweredBy != "":
		add(transfer.Human, "")
	}
	switch {
	case control.Unanswered(ev, false):
		add(transfer.LegDown, transfer.ReasonNoAnswer)
	case ev.Status.Final():
		add(transfer.LegDown, legReasons[ev.Status])
	}
	return evs
}
