package control

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"voicebridge/calls"
	"voicebridge/control/background"
	"voicebridge/control/urls"
	"voicebridge/providers"
	"voicebridge/ticket"
)

// What a call that was placed may ask for about answering machines.
const (
	DetectOff    = "off"
	DetectReport = "report"
	DetectHangup = "hangup"
)

// What every carrier takes of a call that is placed.
const (
	MinRing, MaxRing = 5 * time.Second, 120 * time.Second
	MaxDialDigits    = 32
)

// ValidDialDigits reports whether digits can be sent when a call is answered.
func ValidDialDigits(digits string) bool {
	return len(digits) <= MaxDialDigits && strings.Trim(digits, "0123456789*#w") == ""
}

// Dial is a call to be placed. It has been checked.
type Dial struct {
	Account, To, From, Agent string
	Metadata                 map[string]string
	Ring                     time.Duration
	Detect                   string
	Digits                   string // sent when the call is answered
}

// Dial places a call. The call is known before the carrier is asked, so that no event
// comes too early.
func (c *Controller) Dial(ctx context.Context, d *Dial) (calls.Call, error) {
	account := c.Accounts()[d.Account]
	if !account.HasCommands() {
		return calls.Call{}, ErrNoCommands
	}
	provider := account.Spec.Name
	call := calls.Call{Account: d.Account, Provider: provider, Direction: calls.Outbound, From: d.From, To: d.To,
		Agent: d.Agent, Metadata: d.Metadata}
	if d.Detect != DetectOff {
		call.Detect = d.Detect
	}
	call = c.book.Add(call)
	token := c.Office.Make(ticketOf(ticket.Answer, &call), time.Now())
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), background.Time)
	defer stop()
	leg, err := account.Dial(ctx, &providers.Dial{
		To: d.To, From: d.From, Ring: d.Ring, Detect: call.Detect != "", Digits: d.Digits,
		Answer: c.HookURL(provider, d.Account, urls.Answer+"/"+token),
		Status: c.HookURL(provider, d.Account, urls.Status+"/"+call.ID),
	})
	c.totals.Placed(provider, err)
	if err != nil {
		c.book.Fail(call.ID, err)
		if reported, _ := c.book.Get(call.ID); reported.Status.Final() && reported.CarrierID != "" {
			c.EndAtCarrier(account, call.ID, reported.CarrierID) // it has been placed all the same
		}
		return call, err
	}
	c.book.Bind(call.ID, leg.ID, leg.Aliases...)
	call, _ = c.book.Get(call.ID)
	if call.Status.Final() && call.Cause == string(calls.APIHangup) { // hung up while it was placed
		c.EndAtCarrier(account, call.ID, leg.ID)
	}
	c.cfg.Log.Info("call placed", "provider", provider, "account", d.Account, "session", call.ID, "call", leg.ID,
		"from", calls.Mask(d.From), "to", calls.Mask(d.To))
	return call, nil
}

// Hangup ends a call: by its session if it has one here, otherwise at the carrier. One
// that has ended is no error.
func (c *Controller) Hangup(ctx context.Context, id string, afterPlayback bool) error {
	call, known := c.book.Get(id)
	if !known {
		return ErrNoCall
	}
	if sess := c.Session(id); sess != nil {
		sess.Hangup(afterPlayback)
		return nil
	}
	if call.Status.Final() {
		return nil
	}
	account := c.Accounts()[call.Account]
	if !account.HasCommands() {
		return ErrNoCommands
	}
	if call.CarrierID == "" {
		// It is being placed: Dial sees to it, unless it has just got its id.
		if call = c.book.Canceled(id, string(calls.APIHangup)); call.CarrierID == "" {
			return nil
		}
	}
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), background.Time)
	defer stop()
	if err := account.Hangup(ctx, call.CarrierID); err != nil {
		return err
	}
	c.book.Canceled(id, string(calls.APIHangup))
	return nil
}

// EndAtCarrier ends a call at the carrier, beside all else.
func (c *Controller) EndAtCarrier(account Account, id, leg string) {
	c.Later(func(ctx context.Context) {
		if err := account.Hangup(ctx, leg); err != nil {
			c.cfg.Log.Warn("the call was not ended at the carrier", "session", id, "err", err)
		}
	})
}

// Digits sends digits to the other party of a call.
func (c *Controller) Digits(ctx context.Context, id, digits string) error {
	call, known := c.book.Get(id)
	switch {
	case !known:
		return ErrNoCall
	case call.Status.Final():
		return ErrOver
	}
	if sess := c.Session(id); sess != nil {
		ok, err := sess.Digits(digits)
		switch {
		case err != nil:
			return ErrNotStarted
		case !ok:
			return ErrBusy
		}
		return nil
	}
	account := c.Accounts()[call.Account]
	if !account.HasCommands() || call.CarrierID == "" {
		return ErrNotStarted
	}
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), background.Time)
	defer stop()
	err := account.SendDigits(ctx, call.CarrierID, digits)
	if errors.Is(err, errors.ErrUnsupported) {
		return ErrNotStarted
	}
	return err
}

// Redirect has the carrier say something to a call, and connect it to another number;
// its stream ends.
func (c *Controller) Redirect(ctx context.Context, id string, to *Fallback) error {
	call, known := c.book.Get(id)
	account := c.Accounts()[call.Account]
	switch {
	case !known:
		return ErrNoCall
	case call.Status.Final():
		return ErrOver
	case !account.HasCommands():
		return ErrNoCommands
	case call.CarrierID == "":
		return ErrNotStarted
	}
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), background.Time)
	defer stop()
	if err := c.move(ctx, &call, account, c.Elsewhere(&call, to)); err != nil {
		return fmt.Errorf("redirect: %w", err)
	}
	return nil
}

// Elsewhere is an answer that takes a call away from its agent: words, then another
// number, which sees the bridge's own number of the call.
func (c *Controller) Elsewhere(call *calls.Call, to *Fallback) *providers.Answer {
	a := c.Say(to.Say, to.Language, to.Voice)
	if a.Dial = to.Dial; a.Dial != "" {
		a.Caller = c.OwnNumber(call)
	}
	return a
}

// OwnNumber is the bridge's own number of a call: the account's where that is none, but a SIP
// address, say. Empty: there is none.
func (c *Controller) OwnNumber(call *calls.Call) string {
	own := call.To
	if call.Direction == calls.Outbound {
		own = call.From
	}
	if !providers.ValidNumber(own) {
		return c.Accounts()[call.Account].From
	}
	return own
}

// lateMove is how long a carrier that did not answer may still take a call
// elsewhere.
const lateMove = 10 * time.Second

// Move has the carrier do something else with a call, by the instance that has its
// session, if there is one. The call's own stream ends.
func (c *Controller) Move(ctx context.Context, call *calls.Call, a *providers.Answer) error {
	account := c.Accounts()[call.Account]
	if !account.HasCommands() {
		return ErrNoCommands
	}
	if c.Session(call.ID) == nil {
		if done, err := c.moveElsewhere(ctx, call, a); done {
			return err
		}
	}
	return c.move(ctx, call, account, a)
}

func (c *Controller) move(ctx context.Context, call *calls.Call, account Account, a *providers.Answer) error {
	sess := c.Session(call.ID)
	if sess == nil {
		return account.Do(ctx, call.CarrierID, a)
	}
	done := make(chan struct{})
	c.moves.Store(call.ID, done)
	defer func() {
		c.moves.CompareAndDelete(call.ID, done)
		close(done)
	}()
	stays := sess.MoveAway()
	err := account.Do(ctx, call.CarrierID, a)
	var e *providers.CallError
	if errors.As(err, &e) && e.Kind == providers.ErrUnavailable && !e.Unsent() && !account.Spec.Abilities.StreamStays {
		select { // it shows by the end of the stream that the call was taken elsewhere
		case <-sess.Done():
			err = nil
		case <-time.After(confirmTime):
		case <-ctx.Done():
		}
	}
	switch {
	case err == nil:
		time.AfterFunc(streamEnd, sess.StreamEnded) // for carriers that leave it alone
	case errors.As(err, &e) && e.Kind == providers.ErrUnavailable && !e.Unsent():
		time.AfterFunc(lateMove, stays) // it may have been carried out
	default:
		stays()
		if sess.Ended() { // meanwhile, and it has left the call to the carrier
			c.book.StreamEnded(call.ID, string(calls.Transferred), true)
			c.EndAtCarrier(account, call.ID, call.CarrierID)
		}
	}
	return err
}

// confirmTime is how soon a stream ends whose call the carrier has taken elsewhere.
const confirmTime = 2 * time.Second
