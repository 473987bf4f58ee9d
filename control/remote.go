package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"voicebridge/calls"
	"voicebridge/cluster"
	"voicebridge/providers"
)

// What instances ask each other, and what they find in the directory. A call is known
// there by its session, while it has one, and by its record: by its id and by the
// carrier's.

func sessionKey(id string) string          { return "session:" + id }
func recordKey(id string) string           { return "record:" + id }
func carrierKey(account, id string) string { return "carrier:" + account + ":" + id }

// remoteEvent is an event of a call of another instance.
type remoteEvent struct {
	Call  string
	Event providers.CallEvent
}

// remoteMove takes a call away from its stream.
type remoteMove struct {
	Call, Leg, Account string
	Answer             providers.Answer
}

// moved is how that went.
type moved struct {
	// Error is the carrier's refusal. Gone: there is no such call any more. Unsure:
	// the carrier may have moved it.
	Error        string
	Gone, Unsure bool
}

// remoteStream is a stream of a call: the first one, or that after so many returns.
type remoteStream struct {
	Call    string
	Returns int
}

// handler reads the body of a request.
func handler[T any](do func(context.Context, T) (any, error)) cluster.Handler {
	return func(ctx context.Context, kind string, body json.RawMessage) (any, error) {
		var v T
		if err := json.Unmarshal(body, &v); err != nil {
			return nil, fmt.Errorf("request %s: %w", kind, err)
		}
		return do(ctx, v)
	}
}

// handleRemote answers what other instances ask.
func (c *Controller) handleRemote(ctx context.Context, kind string, body json.RawMessage) (any, error) {
	do, known := c.remote[kind]
	if !known {
		return nil, fmt.Errorf("unknown request %.64q", kind)
	}
	return do(ctx, kind, body)
}

func (c *Controller) remoteEvent(ctx context.Context, r remoteEvent) (any, error) {
	if r.Event.Kind == providers.CallRoom {
		return nil, c.transfers.InRoom(ctx, r.Call, &r.Event)
	}
	c.report(r.Call, &r.Event)
	return nil, nil
}

func (c *Controller) remoteMove(ctx context.Context, r remoteMove) (any, error) {
	account := c.Accounts()[r.Account]
	if !account.HasCommands() {
		return nil, ErrNoCommands
	}
	err := c.move(ctx, &calls.Call{ID: r.Call, Account: r.Account, CarrierID: r.Leg}, account, &r.Answer)
	if err == nil {
		return moved{}, nil
	}
	out := moved{Error: err.Error()}
	var e *providers.CallError
	if errors.As(err, &e) {
		out.Gone = e.Kind == providers.ErrNoCall
		out.Unsure = e.Kind == providers.ErrUnavailable && !e.Unsent()
	}
	return out, nil
}

// remoteEnd waits for the end of a stream: at the carrier it has ended.
func (c *Controller) remoteEnd(_ context.Context, r remoteStream) (any, error) {
	cause, _ := c.ended(r.Call, r.Returns)
	return cause, nil
}

// passEvent passes an event on to the instance that knows the call. It is false where
// there is none; an error where that is not known, or the event was not taken: it must come
// again.
func (c *Controller) passEvent(ctx context.Context, t *told, id string) (bool, error) {
	if c.cfg.Cluster == nil {
		return false, nil
	}
	if id != "" {
		return c.passTo(ctx, recordKey(id), id, t.CallEvent)
	}
	for _, carrierID := range t.ids() {
		key := carrierKey(t.name, carrierID)
		id, err := c.cfg.Cluster.Note(ctx, key)
		if err != nil {
			return false, err
		}
		if id != "" {
			return c.passTo(ctx, key, id, t.CallEvent)
		}
	}
	return false, nil
}

func (c *Controller) passTo(ctx context.Context, key, id string, ev *providers.CallEvent) (bool, error) {
	where, err := c.cfg.Cluster.Where(ctx, key)
	if err != nil || where == "" {
		return false, err
	}
	err = c.cfg.Cluster.Ask(ctx, where, "event", remoteEvent{id, *ev}, nil)
	if errors.Is(err, cluster.ErrNobody) { // the call comes to another instance, which asks the carrier
		return false, nil
	}
	return err == nil, err
}

// moveElsewhere has the instance that has a call's session move it. done is false
// where there is none, or it is dead.
func (c *Controller) moveElsewhere(ctx context.Context, call *calls.Call, a *providers.Answer) (done bool, err error) {
	where, err := c.cfg.Cluster.Where(ctx, sessionKey(call.ID))
	if err != nil || where == "" {
		return false, nil
	}
	var how moved
	err = c.cfg.Cluster.Ask(ctx, where, "move", remoteMove{call.ID, call.CarrierID, call.Account, *a}, &how)
	switch {
	case errors.Is(err, cluster.ErrNobody):
		return false, nil
	case err != nil: // without an answer it may have been moved
		return true, &providers.CallError{Op: "redirect", Kind: providers.ErrUnavailable, Err: err}
	case how.Error == "":
		return true, nil
	}
	e := &providers.CallError{Op: "redirect", Kind: providers.ErrRejected, Detail: how.Error}
	switch {
	case how.Gone:
		e.Kind = providers.ErrNoCall
	case how.Unsure:
		e.Kind = providers.ErrUnavailable
	}
	return true, e
}

// SessionElsewhere returns the other instance that has the session of a call; empty: none.
func (c *Controller) SessionElsewhere(ctx context.Context, call string) (string, error) {
	return c.cfg.Cluster.Where(ctx, sessionKey(call))
}

// RecordElsewhere returns the other instance that has the record of a call; empty:
// none.
func (c *Controller) RecordElsewhere(ctx context.Context, call string) (string, error) {
	return c.cfg.Cluster.Where(ctx, recordKey(call))
}

// Streams reports whether a call has a live stream, on whatever instance.
func (c *Controller) Streams(ctx context.Context, id string) bool {
	_, streams := c.StreamReturns(ctx, id)
	return streams
}

// StreamReturns returns how often a call that has a live stream, on whatever instance, had
// come back to an agent before that.
func (c *Controller) StreamReturns(ctx context.Context, id string) (returns int, streams bool) {
	if sess := c.Session(id); sess != nil {
		return sess.Returns(), true
	}
	where, err := c.SessionElsewhere(ctx, id)
	if err != nil || where == "" {
		return 0, false
	}
	var has remoteHas // the directory outlives an instance
	if c.cfg.Cluster.Ask(ctx, where, "has", id, &has) != nil {
		return 0, false
	}
	return has.Returns, has.Streams
}

// remoteHas says whether an instance has a stream of a call, and of which return.
type remoteHas struct {
	Streams bool
	Returns int
}

func (c *Controller) remoteHas(_ context.Context, id string) (any, error) {
	if sess := c.Session(id); sess != nil {
		return remoteHas{true, sess.Returns()}, nil
	}
	return remoteHas{}, nil
}

// ended returns how a stream of this instance's has ended, for which it is waited.
func (c *Controller) ended(id string, returns int) (cause calls.Cause, here bool) {
	sess := c.sessions.Get(id)
	switch {
	case sess == nil:
		return "", false
	case sess.Returns() > returns: // the call has a newer one
		return calls.Transferred, true
	}
	c.await(sess)
	call, _ := c.book.Get(id)
	return calls.Cause(call.Cause), true
}

// StreamEnded returns how the last stream of a call has ended, on whatever instance,
// and whether it was on this one; empty: there has been none, or its instance is gone.
// returns says which stream it is.
func (c *Controller) StreamEnded(ctx context.Context, id string, returns int) (cause calls.Cause, here bool) {
	if cause, here := c.ended(id, returns); here {
		return cause, true
	}
	call, known := c.book.Get(id)
	if c.cfg.Cluster == nil || call.Cause != "" && call.Returns == returns {
		return calls.Cause(call.Cause), known
	}
	if where, err := c.SessionElsewhere(ctx, id); err == nil && where != "" {
		var end calls.Cause
		_ = c.cfg.Cluster.Ask(ctx, where, "end", remoteStream{id, returns}, &end) // empty where nobody answers
		return end, false
	}
	last, err := c.cfg.Cluster.Note(ctx, sessionKey(id))
	if err != nil {
		return "", false
	}
	return calls.Cause(last), false
}

// left takes a call out of the directory that is another instance's.
func (c *Controller) left(call *calls.Call) {
	for _, id := range call.CarrierIDs() {
		c.cfg.Cluster.Lost(carrierKey(call.Account, id), "")
	}
	c.cfg.Cluster.Lost(recordKey(call.ID), "")
}

// directory puts a call into the directory, and takes it out at its end.
func (c *Controller) directory(ev *calls.Event) {
	call := &ev.Call
	ended := ev.Type == calls.EventEnded
	if call.Account == "" || call.Status.Final() && !ended { // what is told of it later does not bring it back
		return
	}
	if ended {
		c.left(call)
		return
	}
	for _, id := range call.CarrierIDs() {
		c.cfg.Cluster.Has(carrierKey(call.Account, id), call.ID)
	}
	if ev.Type == calls.EventCreated {
		c.cfg.Cluster.Has(recordKey(call.ID), "")
	}
}
