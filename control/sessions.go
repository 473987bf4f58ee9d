package control

import (
	"context"
	"errors"
	"time"

	"voicebridge/agent"
	"voicebridge/calls"
	"voicebridge/control/handover"
	"voicebridge/providers"
	"voicebridge/session"
	"voicebridge/ticket"
)

// Admission lets one media connection begin its call.
type Admission struct {
	Spec    *providers.Spec
	Ticket  *ticket.Ticket // nil: who connects has told nothing
	Account Account        // the zero one without a ticket
	agent   Agent
}

// The reasons for which a media connection is not admitted.
var (
	ErrDraining = errors.New("draining")
	ErrFull     = errors.New("calls")
	ErrNoAgent  = errors.New("agent")
	ErrUsed     = errors.New("token")
)

// ReadMedia reads the token of a media connection. It is used up by Admit.
func (c *Controller) ReadMedia(spec *providers.Spec, token string) (*Admission, error) {
	tk, err := c.Office.Read(token, ticket.Media, spec.Name, time.Now())
	if err != nil {
		return nil, err
	}
	account, known := c.Accounts()[tk.Account]
	if !known {
		return nil, ErrNoAccount
	}
	return &Admission{Spec: spec, Ticket: tk, Account: account}, nil
}

// Admit lets a connection begin, and uses its ticket up.
func (c *Controller) Admit(ad *Admission) error {
	switch {
	case c.Draining():
		return ErrDraining
	case c.Full():
		return ErrFull
	}
	tk := ad.Ticket
	switch {
	case tk == nil:
		ad.agent = c.Agents()[""]
	case tk.Party != "":
		ad.agent = c.transfers.Party(tk)
	default:
		ad.agent = c.Agents()[tk.Agent]
	}
	if ad.agent.Dialer == nil { // the ticket is of an instance with other agents
		return ErrNoAgent
	}
	if tk != nil && !(c.Office.Take(tk, time.Now()) && c.cfg.Cluster.First(tk.Nonce(), time.Unix(tk.Expires, 0))) {
		return ErrUsed
	}
	return nil
}

// confirmPause is how long a carrier is given to know a call that it streams.
const confirmPause = 3 * time.Second

// confirm asks a carrier that does not sign what it says whether it knows a call that it
// streams: what comes in might be made up, and costs its agent.
func (c *Controller) confirm(call *calls.Call, a Account, sess *session.Session) {
	if call.Direction != calls.Inbound || call.CarrierID == "" || !a.HasCommands() || a.Spec.Abilities.SignsBodies {
		return
	}
	id, leg := call.ID, call.CarrierID
	c.Later(func(ctx context.Context) {
		unknown := func() bool {
			_, err := a.Get(ctx, leg)
			return providers.IsNoCall(err)
		}
		if !unknown() {
			return
		}
		select {
		case <-sess.Done():
			return
		case <-time.After(confirmPause):
		}
		if !unknown() {
			return
		}
		c.cfg.Log.Warn("the carrier knows no such call: it is made up", "session", id, "call", leg)
		sess.CallEnded()
	})
}

// Begin carries the call of an admitted media connection. ctx is for what belongs to
// the connections of the call; the call does not end with it. It is false, and
// nothing has begun, where there is no room any more.
func (c *Controller) Begin(ctx context.Context, ad *Admission, m session.Media) bool {
	sess, record := c.newSession(ad, m)
	if before := c.Session(sess.ID); before != nil { // the carrier has left its stream alone, and begun a new one
		before.StreamEnded()
		<-before.Done()
	}
	if !c.enter(sess) { // the last place went to another, the call is here already, or the bridge stops
		return false
	}
	c.book.Add(record)
	c.cfg.Cluster.Has(sessionKey(sess.ID), "")
	c.book.Answered(sess.ID)                 // there is a stream
	if call, ok := c.book.Get(sess.ID); ok { // what was reported before the session could be told
		if call.Answered != "" {
			sess.AnsweredBy(call.Answered)
		}
		if call.Status.Final() {
			sess.CallEnded()
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(c.ctx, func() { cancel(context.Cause(c.ctx)) })
	go func() {
		defer c.running.Done()
		defer cancel(nil)
		defer stop()
		cause := calls.BridgeFault // where Run panics: what it has begun may be left
		defer func() { c.totals.Ended(sess, record.Account, record.Agent, cause) }()
		defer c.Guard("the call " + sess.ID)
		cause = sess.Run(ctx).Cause
	}()
	return true
}

// newSession makes the session of a media connection and the record of its call.
func (c *Controller) newSession(ad *Admission, m session.Media) (*session.Session, calls.Call) {
	// Without a ticket someone else answers the carrier's events.
	record := calls.Call{ID: calls.NewID(), Provider: ad.Spec.Name}
	var known agent.Known
	if tk := ad.Ticket; tk != nil {
		record = recordOf(tk)
		known = agent.Known{Call: tk.Call, Account: ad.Account.ID, Direction: record.Direction, From: tk.From,
			To: tk.To, Metadata: tk.Metadata, Returned: tk.Returned, Returns: tk.Returns}
	}
	o := session.Options{ID: record.ID, Spec: ad.Spec, Config: ad.agent.Session, Media: m, Dialer: ad.agent.Dialer,
		AgentName: record.Agent, Fallback: handover.Fallback(record.Agent, c.Agents()), Known: known,
		Log: c.cfg.Log.With("account", record.Account, "agent", record.Agent, "direction", record.Direction)}
	var sess *session.Session
	o.Control = c.controlOf(ad, &record, func() *session.Session { return sess })
	sess = session.New(o)
	return sess, record
}

// controlOf is what a session asks of the controller.
func (c *Controller) controlOf(ad *Admission, record *calls.Call, sess func() *session.Session) session.Control {
	id, leg, account := record.ID, record.CarrierID, ad.Account
	control := session.Control{
		Panicked: func(v any, stack []byte) { c.panicked("the call "+id, v, stack) },
		Streaming: func(call *agent.Call, took time.Duration) {
			c.totals.Connected(record.Agent, took)
			c.book.Bind(id, call.Start.Call)
			c.book.Began(id)
			c.confirm(record, account, sess())
		},
		Ending:  func(end calls.End) { c.ending(id, leg, account, end.Cause) },
		Adopted: func(agent string) { c.book.Reassign(id, agent) },
		Said:    func(l calls.Line) { c.book.Said(id, l) },
		Used:    func(u calls.Usage) { c.book.Used(id, u) },
	}
	brief := ad.Ticket != nil && ad.Ticket.Brief
	if brief { // what comes next is the transfer's
		control.Ending = func(end calls.End) { c.briefEnding(ad.Ticket, end.Cause) }
	}
	if account.SendsDigits() {
		control.Digits = func(ctx context.Context, digits string) error { return account.SendDigits(ctx, leg, digits) }
	}
	if brief {
		return control
	}
	begin := noTransfers{}.Begin
	if modes := c.transfers.Modes(); len(modes) > 0 && account.HasCommands() {
		begin = c.transfers.Begin
		control.Cancel = func(ref string) bool { return c.transfers.Cancel(id, ref) }
		control.Transfers = modes
	}
	control.Transfer = func(ref string, t *calls.TransferRequest) {
		if !handover.Begin(sess(), ref, t, c.Agents()) {
			begin(sess(), ref, t)
		}
	}
	return control
}

func (c *Controller) enter(sess *session.Session) bool {
	c.gate.Lock()
	defer c.gate.Unlock()
	if c.closed || !c.sessions.Add(sess, c.cfg.MaxCalls) {
		return false
	}
	c.running.Add(1)
	return true
}

// ending notes the end of a stream, and ends the call at the carrier, unless it is the
// caller who has, the carrier has taken the call elsewhere, or there is a fallback:
// the carrier asks for that.
func (c *Controller) ending(id, leg string, account Account, cause calls.Cause) {
	call, known := c.book.Get(id)
	call.Cause = string(cause)
	over := !known || account.Account == nil || cause != calls.Transferred && c.fallback(&call).Empty()
	if c.transfers.Has(id) {
		if cause == calls.CallerHangup || cause == calls.APIHangup {
			c.transfers.Left(id, cause == calls.APIHangup)
		} else {
			over = false // the carrier asks what comes next: it waits for the destination
		}
	}
	c.transfers.Forget(id)
	c.book.StreamEnded(id, string(cause), over)
	c.cfg.Cluster.Lost(sessionKey(id), string(cause))
	if over && cause != calls.CallerHangup && account.HasCommands() && leg != "" {
		c.EndAtCarrier(account, id, leg)
	}
}

// briefEnding notes the end of a stream of a transfer's destination.
func (c *Controller) briefEnding(tk *ticket.Ticket, cause calls.Cause) {
	c.book.StreamEnded(tk.ID, string(cause), true)
	c.cfg.Cluster.Lost(sessionKey(tk.ID), string(cause))
	if tk.Party != "" && cause == calls.CallerHangup {
		c.transfers.PartyLeft(tk.Transfer)
	}
}

// fallback is what is done with a call whose stream has ended.
func (c *Controller) fallback(call *calls.Call) *providers.Answer {
	if cause := calls.Cause(call.Cause); !cause.AgentFailed() && cause != calls.StartTimeout {
		return &providers.Answer{}
	}
	f := c.Agents()[call.Agent].Fallback
	return c.Elsewhere(call, &f)
}

// Session returns the live session of a call; nil: its end has been told, or there is
// none.
func (c *Controller) Session(id string) *session.Session {
	sess := c.sessions.Get(id)
	if sess != nil && sess.Ended() {
		return nil
	}
	return sess
}

// streamEnd is how long a session may take to learn that its stream has ended.
const streamEnd = 2 * time.Second

// await waits for the end of a session whose stream has ended at the carrier.
func (c *Controller) await(sess *session.Session) {
	late := time.AfterFunc(streamEnd, sess.StreamEnded)
	defer late.Stop()
	<-sess.Done()
}
