package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"voicebridge/calls"
	"voicebridge/control/background"
	"voicebridge/control/urls"
	"voicebridge/providers"
	"voicebridge/ticket"
)

// Result is what has become of a call event, for metrics.
type Result string

// The results.
const (
	ResultOK      Result = "ok"
	ResultRefused Result = "refused" // the call is not taken, or not taken further
	ResultUnknown Result = "unknown" // an event of a call that is not known
	ResultLater   Result = "later"   // it cannot be decided yet: the carrier asks again
)

// Outcome is what has become of a call event. Answer is never nil where the event
// wants one.
type Outcome struct {
	Answer *providers.Answer
	Result Result
	// Leg is the one that the answer is for; empty: that of the event.
	Leg string
}

// eventTime is for how long an event that comes again is known.
const eventTime = 10 * time.Minute

// told is a call event on its way.
type told struct {
	*providers.CallEvent
	account Account
	name    string // of the account
	log     *slog.Logger
}

// ids returns all ids of the event's leg.
func (t *told) ids() []string { return append([]string{t.Leg}, t.Aliases...) }

// Handle decides about something that a carrier says. Where the answer is not wanted
// in the reply, the carrier has been given it by a command when Handle returns. What
// wants an answer gets one, unless the error is ErrToken, ErrNoTransfer or ErrNoAccount;
// another event may come again after any other error.
func (c *Controller) Handle(ctx context.Context, account string, ev *providers.CallEvent) (Outcome, error) {
	a, known := c.Accounts()[account]
	if !known {
		return Outcome{}, ErrNoAccount
	}
	once := account + "\x00" + ev.ID
	now := time.Now()
	if ev.ID != "" && !ev.Wants && !c.events.First(once, now, now.Add(eventTime)) {
		return Outcome{Result: ResultOK}, nil
	}
	t := &told{ev, a, account, c.cfg.Log.With("provider", a.Spec.Name, "account", account)}
	asBefore(ev)
	out, err := c.decide(ctx, t)
	if err != nil && ev.Wants && !final(err) {
		t.log.Warn("what a call is to do cannot be decided yet: the carrier asks again", "event", ev.Kind, "call",
			ev.Leg,
			"err", err)
		return Outcome{Answer: c.later(account, ev), Result: ResultLater}, nil
	}
	if err == nil && out.Answer != nil && !ev.Wants {
		err = c.command(ctx, t, &out)
	}
	if err != nil && ev.ID != "" {
		c.events.Forget(once)
	}
	if out.Answer == nil && ev.Wants {
		out.Answer = &providers.Answer{}
	}
	return out, err
}

// command gives the answer to an event whose reply cannot hold it.
func (c *Controller) command(ctx context.Context, t *told, out *Outcome) error {
	leg := t.Leg
	if out.Leg != "" {
		leg = out.Leg
	}
	if !t.account.HasCommands() {
		return fmt.Errorf("answer a call: %w", ErrNoCommands)
	}
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), background.Time)
	defer stop()
	err := t.account.Do(ctx, leg, out.Answer)
	if providers.IsNoCall(err) { // it has gone meanwhile: its end is told, too
		t.log.Debug("answer to a call that has gone", "call", leg, "err", err)
		return nil
	}
	return err
}

// decide takes an event to what it is about.
func (c *Controller) decide(ctx context.Context, t *told) (Outcome, error) {
	kind, rest, _ := strings.Cut(t.Ref, "/")
	switch {
	case kind == urls.Transfer:
		return c.transfers.Handle(ctx, t.name, rest, t.CallEvent)
	case t.Kind == providers.CallNotice:
		t.log.Warn("the carrier reports", "call", t.Leg, "what", t.Raw)
		return Outcome{Result: ResultOK}, nil
	case kind == urls.Do && t.Kind == providers.CallAsked:
		tk, err := c.readTicket(t, ticket.Do, rest)
		if err != nil {
			return Outcome{}, err
		}
		return Outcome{Answer: tk.Do, Result: ResultOK}, nil
	case kind == urls.Next && t.Kind == providers.CallStepDone:
		return c.stepDone(ctx, t, rest)
	case t.Kind == providers.CallAsked && kind == urls.Answer:
		return c.answered(t, rest)
	case t.Kind == providers.CallAsked:
		return c.inbound(ctx, t)
	case t.Kind == providers.CallStepDone, t.Kind == providers.CallKey:
		return Outcome{Result: ResultUnknown}, nil // of a step that another bridge has given
	}
	id := rest
	if kind == urls.Do {
		id = ""
	}
	if kind == urls.Answer || kind == urls.Next { // the carrier has one URL for all events of a call
		tk, err := c.readTicket(t, ticket.Use(kind), rest)
		if err != nil {
			return Outcome{}, err
		}
		id = tk.ID
	}
	return c.progress(ctx, t, id)
}

// readTicket reads the token of an event.
func (c *Controller) readTicket(t *told, use ticket.Use, token string) (*ticket.Ticket, error) {
	tk, err := c.Office.Read(token, use, t.account.Spec.Name, time.Now())
	if err == nil && tk.Account != t.name {
		err = errors.New("ticket: of another account")
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrToken, err)
	}
	return tk, nil
}

// inbound answers what to do with a call that comes in.
func (c *Controller) inbound(ctx context.Context, t *told) (Outcome, error) {
	log := t.log.With("call", t.Leg, "from", calls.Mask(t.From), "to", calls.Mask(t.To))
	refuse := func(why string, a *providers.Answer) (Outcome, error) {
		log.Info("call refused", "why", why)
		a.Unanswered = true
		return Outcome{Answer: a, Result: ResultRefused}, nil
	}
	busy := c.Say(c.Words().Busy, "", "")
	switch {
	case c.Draining():
		return refuse("the bridge stops", busy)
	case c.Full():
		return refuse("limits.calls is reached", busy)
	}
	// A carrier that asks twice about a call is told the same.
	call, known := c.book.Find(t.name, t.ids()...)
	if !known {
		route, refusal, err := c.route(ctx, t)
		switch {
		case err != nil:
			return Outcome{}, err
		case refusal != nil:
			return refuse("no route fits, and there is no agent for all others; or the router says so", refusal)
		}
		call = c.comes(t, route)
	}
	log.Info("call comes in", "session", call.ID, "agent", call.Agent)
	answer := c.Stream(&call)
	answer.Unanswered = true
	return Outcome{Answer: answer, Result: ResultOK}, nil
}

// comes notes a call that comes in, once, however often the carrier asks at the same time.
func (c *Controller) comes(t *told, r Route) calls.Call {
	c.coming.Lock()
	defer c.coming.Unlock()
	if call, known := c.book.Find(t.name, t.ids()...); known {
		return call
	}
	return c.book.Add(calls.Call{
		Account: t.name, Provider: t.account.Spec.Name, CarrierID: t.Leg, Direction: calls.Inbound,
		Status: providers.StatusRinging,
		From:   t.From, To: t.To, Forward: t.Forward, Agent: r.Agent, Metadata: c.metadata(t, r),
	}, t.Aliases...)
}

// metadata is what comes along with a call, and what its route says: that counts more.
func (c *Controller) metadata(t *told, r Route) map[string]string {
	if len(t.Metadata) == 0 {
		return r.Metadata
	}
	all := maps.Clone(t.Metadata)
	maps.Copy(all, r.Metadata)
	if err := providers.CheckMetadata(all); err != nil {
		t.log.Warn("what comes along with the call is left out", "call", t.Leg, "err", err)
		return r.Metadata
	}
	return all
}

// answered says what to do with a call that was placed and picked up.
func (c *Controller) answered(t *told, token string) (Outcome, error) {
	tk, err := c.readTicket(t, ticket.Answer, token)
	if err != nil {
		return Outcome{}, err
	}
	call, known := c.book.Get(tk.ID)
	if !known { // another instance has placed it
		call = c.book.Add(recordOf(tk))
	}
	if call.Status.Final() { // it was hung up meanwhile
		return Outcome{Answer: &providers.Answer{}, Result: ResultRefused}, nil
	}
	c.book.Bind(call.ID, t.Leg, t.Aliases...)
	call.CarrierID = t.Leg
	return Outcome{Answer: c.Stream(&call), Result: ResultOK}, nil
}

// recordOf is what a ticket says of a call.
func recordOf(tk *ticket.Ticket) calls.Call {
	call := calls.Call{ID: tk.ID, Account: tk.Account, Provider: tk.Provider, CarrierID: tk.Call, Agent: tk.Agent,
		Direction: calls.Inbound, From: tk.From, To: tk.To, Metadata: tk.Metadata, Returned: tk.Returned,
		Returns: tk.Returns, Detect: tk.Detect}
	if tk.Outbound {
		call.Direction = calls.Outbound
	}
	return call
}

// ticketOf is what a token says of a call.
func ticketOf(use ticket.Use, call *calls.Call) ticket.Ticket {
	return ticket.Ticket{
		Use: use, Provider: call.Provider, Account: call.Account, ID: call.ID, Agent: call.Agent, Call: call.CarrierID,
		From: call.From, To: call.To, Outbound: call.Direction == calls.Outbound, Metadata: call.Metadata,
		Returned: call.Returned, Returns: call.Returns, Detect: call.Detect,
	}
}

// Stream has a call streamed to its agent, by a media URL of its own.
func (c *Controller) Stream(call *calls.Call) *providers.Answer {
	return &providers.Answer{
		Media: c.SocketURL(c.MediaPath(ticketOf(ticket.Media, call))),
		Next:  c.NextURL(call),
	}
}

// WordsOf are those that a carrier fetches as a file by a URL that it was given.
func (c *Controller) WordsOf(account, token string) (*providers.Answer, error) {
	a, known := c.Account(account)
	if !known {
		return nil, ErrNoAccount
	}
	tk, err := c.Office.Read(strings.TrimSuffix(token, ".wav"), ticket.Do, a.Spec.Name, time.Now())
	if err == nil && tk.Account != account {
		err = errors.New("ticket: of another account")
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrToken, err)
	}
	return tk.Do, nil
}

// NextURL is asked what comes once a call's stream, or a number, is over. It says all
// that any instance needs to know of the call.
func (c *Controller) NextURL(call *calls.Call) string {
	token := c.Office.Make(ticketOf(ticket.Next, call), time.Now())
	return c.HookURL(call.Provider, call.Account, urls.Next+"/"+token)
}

// progress takes word of how a call is: of our id, where the event tells it, or of the
// carrier's.
func (c *Controller) progress(ctx context.Context, t *told, id string) (Outcome, error) {
	call, known := c.book.Get(id)
	if !known {
		call, known = c.book.Find(t.name, t.ids()...)
	}
	if !known {
		passed, err := c.passEvent(ctx, t, id)
		if err != nil {
			return Outcome{}, fmt.Errorf("event of a call of another instance: %w", err)
		}
		if passed {
			return Outcome{Result: ResultOK}, nil
		}
		if t.Status.Final() {
			if err := c.orphan(ctx, t.name, id, t.ids(), t.Status); err != nil {
				return Outcome{}, fmt.Errorf("end of a call that no instance knows: %w", err)
			}
		}
	}
	switch {
	case !known || call.Account != t.name || call.CarrierID != "" && !slices.ContainsFunc(t.ids(), call.Is):
		t.log.Debug("event of an unknown call", "event", t.Kind, "call", t.Leg, "raw", t.Raw)
		return Outcome{Result: ResultUnknown}, nil
	case t.Kind == providers.CallRoom:
		c.book.Bind(call.ID, t.Leg, t.Aliases...)
		return Outcome{Result: ResultOK}, c.transfers.InRoom(ctx, call.ID, t.CallEvent)
	}
	if Unanswered(t.CallEvent, call.Direction == calls.Outbound && call.BeganAt.IsZero() && !call.Status.Final()) {
		c.settle(call.ID, t.CallEvent)
		return Outcome{Result: ResultOK}, nil
	}
	unwanted := call.Error != "" || call.Cause == string(calls.APIHangup) && call.Status.Final()
	if unwanted && t.Status != "" && !t.Status.Final() && t.account.HasCommands() {
		// The carrier has placed it after all, although it did not say so: nobody
		// waits for it any more.
		c.EndAtCarrier(t.account, call.ID, t.Leg)
	}
	if c.report(call.ID, t.CallEvent) {
		t.log.Info("call status", "session", call.ID, "call", t.Leg, "status", t.Status, "raw", t.Raw, "answered_by",
			t.AnsweredBy)
	}
	return Outcome{Result: ResultOK}, nil
}

// SettleTime is how long a better word is waited for than that a call is completed which was
// never answered: with some carriers busy and the like follow.
const SettleTime = 2 * time.Second

// Unanswered reports whether an event has no good word for the end of a call yet. waiting tells
// that nobody has answered it, as far as is known.
func Unanswered(ev *providers.CallEvent, waiting bool) bool {
	return ev.Status == providers.StatusCompleted && (ev.Unanswered || waiting)
}

// settle takes the end of a call after a while. By then it may have been answered, or have ended
// with a better word.
func (c *Controller) settle(id string, ev *providers.CallEvent) {
	later := *ev
	c.Later(func(ctx context.Context) {
		select {
		case <-time.After(SettleTime):
		case <-ctx.Done():
		}
		if call, _ := c.book.Get(id); call.BeganAt.IsZero() {
			later.Status = providers.StatusNoAnswer
		}
		c.report(id, &later)
	})
}

// report notes what a carrier says of a call, and acts on it. It is false where that
// is nothing new.
func (c *Controller) report(id string, ev *providers.CallEvent) bool {
	if !c.book.Report(id, ev) {
		return false
	}
	if ev.AnsweredBy != "" {
		c.detected(id, ev.AnsweredBy)
	}
	if ev.Status.Final() {
		c.transfers.Left(id, true)
		if sess := c.sessions.Get(id); sess != nil {
			sess.CallEnded()
		}
	}
	return true
}

// detected acts on who has picked up a call.
func (c *Controller) detected(id string, who providers.AnsweredBy) {
	if sess := c.sessions.Get(id); sess != nil {
		sess.AnsweredBy(who)
	} else if c.cfg.Cluster != nil { // another instance may have it
		c.Later(func(ctx context.Context) {
			ev := providers.CallEvent{Kind: providers.CallDetected, AnsweredBy: who}
			if _, err := c.passTo(ctx, sessionKey(id), id, &ev); err != nil {
				c.cfg.Log.Warn("who has picked up is not passed on", "session", id, "err", err)
			}
		})
	}
	call, _ := c.book.Get(id)
	if call.Detect == DetectHangup && (who == providers.AnsweredByMachine || who == providers.AnsweredByFax) {
		c.Later(func(ctx context.Context) {
			if err := c.Hangup(ctx, id, false); err != nil {
				c.cfg.Log.Warn("call to a machine was not ended", "session", id, "err", err)
			}
		})
	}
}

// stated notes what a carrier says of a call that it was asked about.
func (c *Controller) stated(id string, ev *providers.CallEvent) {
	if Unanswered(ev, false) {
		ev.Status = providers.StatusNoAnswer
	}
	c.report(id, ev)
}

// Step is what a call was doing and does not any more.
type Step struct {
	Call *calls.Call
	// Number is how the call to a number went; empty: it was no number.
	Number providers.Status
	Cause  calls.Cause // of the stream; empty: there has been none, or its instance has gone
	Here   bool        // the stream was this instance's
	// Returns is how often the call had come back before.
	Returns int
}

// stepDone says what to do with a call whose stream, or number, is over: what its
// transfer wants, if it has one; the fallback where its agent has failed; the agent
// again where its instance has gone; otherwise nothing more.
func (c *Controller) stepDone(ctx context.Context, t *told, token string) (Outcome, error) {
	tk, err := c.readTicket(t, ticket.Next, token)
	if err != nil {
		return Outcome{}, err
	}
	step := Step{Number: t.Status, Returns: tk.Returns}
	if step.Number == "" {
		if step.Cause, step.Here = c.StreamEnded(ctx, tk.ID, tk.Returns); step.Cause == calls.Transferred {
			if !c.awaitMove(ctx, tk.ID) {
				return Outcome{}, errMoving
			}
			return Outcome{Result: ResultOK}, nil // it has been taken elsewhere
		}
	}
	call := c.book.Add(recordOf(tk))
	step.Call = &call
	answer, err := c.transfers.Next(ctx, &step)
	if err != nil {
		return Outcome{}, err
	}
	if answer == nil {
		answer = c.withoutTransfer(t, &step)
	}
	return Outcome{Answer: answer, Result: ResultOK, Leg: call.CarrierID}, nil
}

// maxReturns is how often a call comes back whose instance has gone.
const maxReturns = 3

// instanceLost is why a call comes back to an agent whose instance has gone.
const instanceLost = "instance_lost"

// withoutTransfer says what a call does that has no transfer.
func (c *Controller) withoutTransfer(t *told, step *Step) *providers.Answer {
	call := step.Call
	if call.Cause = string(step.Cause); step.Cause == "" {
		if c.cfg.Cluster != nil && step.Number == "" && step.Returns < maxReturns && !call.Status.Final() {
			call.Returned, call.Returns = instanceLost, step.Returns+1
			t.log.Warn("a call comes back", "session", call.ID)
			return c.Stream(call)
		}
		call.Cause = string(calls.StartTimeout)
	}
	answer := &providers.Answer{}
	switch {
	case step.Number == "":
		answer = c.fallback(call)
	case step.Number != providers.StatusCompleted && step.Number != providers.StatusCanceled:
		answer = c.Say(c.Words().NoAnswer, "", "")
	}
	if answer.Empty() {
		c.book.StreamEnded(call.ID, call.Cause, true)
	}
	return answer
}

// moveTime is how long a carrier waits for an answer while it is asked to take the call
// elsewhere: less than any gives a webhook.
const moveTime = 3 * time.Second

// errMoving has the carrier ask again: what is answered before it is asked to take the call
// elsewhere would count.
var errMoving = errors.New("the call is being taken elsewhere")

// awaitMove waits for the end of such a request. It is false where that takes too long.
func (c *Controller) awaitMove(ctx context.Context, call string) bool {
	done, moving := c.moves.Load(call)
	if !moving {
		return true
	}
	ctx, stop := context.WithTimeout(ctx, moveTime)
	defer stop()
	select {
	case <-done.(chan struct{}):
		return true
	case <-ctx.Done():
		return false
	}
}
