package media

import (
	"context"
	"errors"

	"voicebridge/calls"
	"voicebridge/providers"
	"voicebridge/session"
	"voicebridge/transfer"
)

// hands do for the transfer manager what is to be done at the carrier. They
// implement transfer.Hands.
type hands struct{ *Server }

// transferHook is the URL of a webhook of a transfer.
func (s *Server) transferHook(r *transfer.Record, what string) string {
	return s.hookURL("/hooks/" + r.Provider + "/" + r.Account + "/transfer/" + r.ID + "/" + r.Nonce + "/" + what)
}

// calls of the transfer's account.
func (h hands) calls(r *transfer.Record) (providers.Calls, error) {
	account := h.cfg.Accounts[r.Account]
	if account.Account == nil || account.Calls == nil {
		return nil, &transfer.DialError{Reason: transfer.ReasonCarrier, Err: errNoREST}
	}
	return account.Calls, nil
}

// known tells what an error of the carrier means for what was asked.
func known(err error) error {
	var e *providers.CallError
	switch {
	case err == nil:
		return nil
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

// Dial implements transfer.Hands.
func (h hands) Dial(ctx context.Context, r *transfer.Record) (string, error) {
	rest, err := h.calls(r)
	if err != nil {
		return "", err
	}
	leg, err := rest.Dial(ctx, &providers.Dial{To: r.To, From: r.From, Answer: h.transferHook(r, "answer"), Status: h.transferHook(r, "status"),
		Ring: r.Ring, Detect: r.Detect, Digits: r.Digits})
	if err = known(err); errors.Is(err, transfer.ErrGone) { // nobody can have gone yet
		err = &transfer.DialError{Reason: transfer.ReasonCarrier, Err: err}
	}
	return leg, err
}

// room is where caller and destination meet. It ends with the caller, but not with
// the destination: what becomes of the caller then is not the carrier's to say.
func (s *Server) room(r *transfer.Record, caller bool) *providers.Answer {
	return &providers.Answer{Room: &providers.Room{
		Name: r.Room, End: caller, Wait: caller, Events: s.transferHook(r, "room"), Hold: s.hookURL("/hold.wav"),
	}}
}

// Join implements transfer.Hands.
func (h hands) Join(ctx context.Context, r *transfer.Record) error {
	answer := h.room(r, true)
	if r.Mode == transfer.Blind {
		answer = &providers.Answer{Dial: r.To, Caller: r.From, Ring: r.Ring, Next: h.nextURL(h.recordOf(r))}
	}
	return known(h.moveCaller(ctx, r, answer))
}

// recordOf is what is known of the call of a transfer.
func (s *Server) recordOf(r *transfer.Record) *calls.Call {
	if call, ok := s.book.Get(r.Call); ok {
		return &call
	}
	return &calls.Call{ID: r.Call, Account: r.Account, Provider: r.Provider, CarrierID: r.Caller, Direction: calls.Inbound, From: r.From, To: r.From}
}

// moveCaller has the carrier do something else with the caller, by the instance
// that has its session, if there is one.
func (h hands) moveCaller(ctx context.Context, r *transfer.Record, a *providers.Answer) error {
	account := h.cfg.Accounts[r.Account]
	if account.Account == nil || account.Calls == nil {
		return &transfer.DialError{Reason: transfer.ReasonCarrier, Err: errNoREST}
	}
	if h.session(r.Call) == nil {
		done, err := h.remoteMove(ctx, r, a)
		if done {
			return err
		}
	}
	call := h.recordOf(r)
	call.CarrierID = r.Caller
	return h.move(ctx, call, account, a)
}

// Hangup implements transfer.Hands.
func (h hands) Hangup(ctx context.Context, r *transfer.Record) error {
	rest, err := h.calls(r)
	if err != nil {
		return err
	}
	return known(rest.Hangup(ctx, r.Leg))
}

// Settle implements transfer.Hands.
func (h hands) Settle(ctx context.Context, r *transfer.Record) error {
	switch d := r.Disposition(); d {
	case transfer.Resume:
		if r.At == transfer.Moving && h.streams(ctx, r.Call) {
			return nil // it has never left its agent
		}
		return known(h.moveCaller(ctx, r, h.returned(r)))
	case transfer.Hangup:
		rest, err := h.calls(r)
		if err != nil {
			return err
		}
		if err := rest.Hangup(ctx, r.Caller); err != nil {
			return known(err)
		}
		sess := h.session(r.Call)
		switch {
		case sess == nil:
			h.book.StreamEnded(r.Call, string(session.Transferred), true)
		case r.At == transfer.AtAgent || r.At == transfer.Here:
			sess.Hangup(false)
		default: // the carrier has left it alone
			sess.StreamOver()
		}
		return nil
	default:
		return known(h.moveCaller(ctx, r, &providers.Answer{Dial: d, Caller: r.From}))
	}
}

// returned has the call of a transfer streamed to its agent again.
func (s *Server) returned(r *transfer.Record) *providers.Answer {
	call := *s.recordOf(r)
	if again := s.book.Return(r.Call, r.Reason); again.ID != "" {
		call = again
	} else {
		call.Returns++
	}
	call.CarrierID, call.Returned = r.Caller, r.Reason
	return s.stream(&call)
}

// Leg implements transfer.Hands.
func (h hands) Leg(ctx context.Context, r *transfer.Record) (transfer.Event, error) {
	report, err := h.ask(ctx, r, r.Leg)
	if err != nil || report == nil {
		return transfer.Event{}, err
	}
	return legEvent(report), nil
}

// Caller implements transfer.Hands.
func (h hands) Caller(ctx context.Context, r *transfer.Record) (transfer.Event, error) {
	report, err := h.ask(ctx, r, r.Caller)
	if err != nil || !report.Status.Final() {
		return transfer.Event{}, err
	}
	return transfer.Event{Kind: transfer.CallerLeft}, nil
}

// ask asks how a leg is. One that is not there has ended.
func (h hands) ask(ctx context.Context, r *transfer.Record, leg string) (*providers.StatusReport, error) {
	rest, err := h.calls(r)
	if err != nil {
		return nil, err
	}
	report, err := rest.Get(ctx, leg)
	if providers.IsNoCall(err) {
		return &providers.StatusReport{Call: leg, Status: providers.StatusCompleted}, nil
	}
	return report, err
}

// legReasons are why a leg has ended, by its status.
var legReasons = map[providers.Status]string{
	providers.StatusCompleted: transfer.ReasonDestination, providers.StatusBusy: transfer.ReasonBusy, providers.StatusNoAnswer: transfer.ReasonNoAnswer,
	providers.StatusFailed: transfer.ReasonInvalid, providers.StatusCanceled: transfer.ReasonNoAnswer,
}

// legEvent is what a report on the destination's leg means.
func legEvent(r *providers.StatusReport) transfer.Event {
	ev := transfer.Event{Leg: r.Call}
	switch {
	case r.AnsweredBy == providers.AnsweredByMachine || r.AnsweredBy == providers.AnsweredByFax:
		ev.Kind = transfer.Machine
	case r.AnsweredBy != "" && !r.Status.Final():
		ev.Kind = transfer.Human
	case r.Status.Final():
		ev.Kind, ev.Reason = transfer.LegDown, legReasons[r.Status]
	case r.Status == providers.StatusRinging:
		ev.Kind = transfer.Rang
	case r.Status == providers.StatusInProgress:
		ev.Kind = transfer.Picked
	}
	return ev
}

// Changed implements transfer.Hands.
func (h hands) Changed(r *transfer.Record, e transfer.Entry) {
	move := e.Move() && e.State != transfer.Compensating
	info := calls.Transfer{ID: r.ID, Mode: string(r.Mode), To: destination(r), State: string(e.State), Reason: e.Reason}
	if move {
		h.cfg.Log.Info("transfer", "transfer", r.ID, "session", r.Call, "state", e.State, "reason", e.Reason, "detail", r.Detail)
		h.book.Transferred(r.Call, info)
		h.totals.transfer(r.Provider, string(e.State))
	}
	change := transferChange{Version: e.Version, Call: r.Call, Ref: r.Ref, Hold: r.Hold, Move: move, Info: info, Final: e.State.Final()}
	if h.session(r.Call) == nil {
		h.remoteChange(change)
	}
	h.changed(change) // what is known here is kept, too
}

// transferChange tells the instance that has the call's session how its transfer
// is.
type transferChange struct {
	Version         int64
	Call, Ref, Hold string
	Move, Final     bool
	Info            calls.Transfer
}

// changed tells the agent how a transfer of its call is, and holds the call
// meanwhile.
func (s *Server) changed(c transferChange) {
	if !s.transfers.note(&c) {
		return
	}
	sess := s.session(c.Call)
	if sess == nil {
		s.transfers.forget(c.Call)
		return
	}
	if c.Move {
		sess.TransferStatus(c.Ref, c.Info.ID, c.Info.State, c.Info.Reason)
	}
	switch {
	case c.Final, c.Info.State == string(transfer.Bridged):
		sess.Hold(nil)
	case c.Move && c.Info.State == string(transfer.Dialing) && c.Hold == HoldMusic:
		sess.Hold(s.transfers.hold.in)
	}
}
