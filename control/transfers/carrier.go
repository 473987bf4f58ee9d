package transfers

import (
	"context"
	"errors"

	"voicebridge/calls"
	"voicebridge/control"
	"voicebridge/providers"
	"voicebridge/transfer"
)

// carrier does what the state machine wants done. It implements transfer.Carrier.
type carrier struct{ *Transfers }

// hookURL is the URL of a webhook of a transfer.
func (t *Transfers) hookURL(r *transfer.Record, what string) string {
	return t.control.HookURL(r.Provider, r.Account, control.RefTransfer+"/"+r.ID+"/"+r.Nonce+"/"+what)
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
	leg, err := account.Dial(ctx, &providers.Dial{To: r.To, From: r.From, Answer: c.hookURL(r, "answer"),
		Status: c.hookURL(r, "status"),
		Ring:   r.Ring, Detect: r.Detect, Digits: r.Digits})
	if err = meaning(err); errors.Is(err, transfer.ErrGone) { // nobody can have gone yet
		err = &transfer.DialError{Reason: transfer.ReasonCarrier, Err: err}
	}
	return leg.ID, err
}

// room is where caller and destination meet. It ends with the caller, but not with
// the destination: what becomes of the caller then is not the carrier's to say.
func (t *Transfers) room(r *transfer.Record, caller bool) *providers.Answer {
	return &providers.Answer{Room: &providers.Room{
		Name: r.Room, End: caller, Wait: caller, Events: t.hookURL(r, "room"), Hold: t.control.PublicURL("/hold.wav"),
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

// Settle implements transfer.Carrier.
func (c carrier) Settle(ctx context.Context, r *transfer.Record) error {
	switch d := r.Disposition(); d {
	case transfer.Resume:
		if r.At == transfer.Moving && c.control.Streams(ctx, r.Call) {
			return nil // it has never left its agent
		}
		return c.move(ctx, r, c.returned(r))
	case transfer.Hangup:
		return c.hangupCaller(ctx, r)
	default:
		return c.move(ctx, r, &providers.Answer{Dial: d, Caller: r.From})
	}
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
func (c carrier) Leg(ctx context.Context, r *transfer.Record) (transfer.Event, error) {
	account, err := c.account(r)
	if err != nil {
		return transfer.Event{}, err
	}
	evs, err := account.State(ctx, r.Leg)
	if err != nil {
		return transfer.Event{}, err
	}
	var most transfer.Event
	for _, ev := range evs {
		if e := legEvent(&ev); weight[e.Kind] > weight[most.Kind] {
			most = e
		}
	}
	return most, nil
}

// weight says which of the things that are known of a leg counts most.
var weight = map[transfer.Kind]int{transfer.Rang: 1, transfer.Picked: 2, transfer.Human: 3, transfer.LegDown: 4,
	transfer.Machine: 5}

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

// legEvent is what word of the destination's leg means.
func legEvent(ev *providers.CallEvent) transfer.Event {
	e := transfer.Event{Leg: ev.Leg, Aliases: ev.Aliases}
	switch {
	case ev.AnsweredBy == providers.AnsweredByMachine || ev.AnsweredBy == providers.AnsweredByFax:
		e.Kind = transfer.Machine
	case ev.AnsweredBy != "" && !ev.Status.Final():
		e.Kind = transfer.Human
	case ev.Status.Final():
		e.Kind, e.Reason = transfer.LegDown, legReasons[ev.Status]
	case ev.Status == providers.StatusRinging:
		e.Kind = transfer.Rang
	case ev.Status == providers.StatusInProgress:
		e.Kind = transfer.Picked
	}
	return e
}
