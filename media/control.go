package media

import (
	"context"
	"errors"
	"fmt"
	"time"

	"voicebridge/calls"
	"voicebridge/providers"
	"voicebridge/session"
	"voicebridge/transfer"
)

// restTime is how long a request to a carrier may take, all attempts together.
const restTime = 20 * time.Second

// What a call that was placed may ask for about answering machines.
const (
	detectOff    = "off"
	detectReport = "report"
	detectHangup = "hangup"
)

// prepare connects a session to the record of its call, which it gives, and to the
// carrier.
func (s *Server) prepare(sess *session.Session, tk *ticket) calls.Call {
	var control session.Control
	var account Account
	// Without a ticket someone else answers the carrier's webhooks.
	record := calls.Call{ID: sess.ID, Provider: sess.Spec().Name}
	if tk != nil {
		record, account = tk.record(), s.cfg.Accounts[tk.Account]
		sess.Expect(session.Known{Call: tk.Call, Account: account.ID, Direction: record.Direction, From: tk.From, To: tk.To, Returned: tk.Returned, Returns: tk.Returns})
	}
	carrierID := record.CarrierID
	control.Streaming = func(c *session.Call) {
		s.book.Bind(sess.ID, c.Start.Call)
		s.book.Began(sess.ID)
	}
	control.Ending = func(end session.End) { s.ending(sess.ID, carrierID, account, end.Cause) }
	if tk != nil && tk.Brief { // what comes next is the transfer's
		control.Ending = func(end session.End) {
			s.book.StreamEnded(sess.ID, string(end.Cause), true)
			s.cfg.Cluster.Lost(sessionKey(sess.ID), string(end.Cause))
			if tk.Party != "" && end.Cause == session.CallerHangup {
				s.partyLeft(tk.Transfer)
			}
		}
	}
	if account.Account != nil && account.Calls != nil && account.Calls.SendsDigits() {
		control.Digits = func(ctx context.Context, digits string) error { return account.Calls.Digits(ctx, carrierID, digits) }
	}
	if s.transfers != nil && account.Account != nil && account.Calls != nil && !tk.Brief {
		control.Transfer = func(ref string, t *session.Transfer) { s.agentTransfer(sess, ref, t) }
		control.Cancel = func(ref string) bool { return s.agentCancel(sess.ID, ref) }
		for _, m := range transfer.Modes {
			control.Transfers = append(control.Transfers, string(m))
		}
	}
	sess.Use(control)
	return record
}

// ending notes the end of a stream, and ends the call at the carrier, unless it is
// the caller who has, the carrier has taken the call elsewhere, or there is a
// fallback: the carrier asks for that.
func (s *Server) ending(id, carrierID string, account Account, cause session.Cause) {
	call, known := s.book.Get(id)
	call.Cause = string(cause)
	over := !known || account.Account == nil || cause != session.Transferred && s.fallback(&call).Empty()
	if _, has := s.transfers.of(id); has {
		if cause == session.CallerHangup || cause == session.APIHangup {
			s.callerLeft(id, cause == session.APIHangup)
		} else {
			over = false // the carrier asks what comes next: it waits for the destination
		}
	}
	s.transfers.forget(id)
	s.book.StreamEnded(id, string(cause), over)
	s.cfg.Cluster.Lost(sessionKey(id), string(cause))
	if !over || cause == session.CallerHangup || account.Account == nil || account.Calls == nil || carrierID == "" {
		return
	}
	s.endAtCarrier(account, id, carrierID)
}

// endAtCarrier ends a call at the carrier, beside all else.
func (s *Server) endAtCarrier(account Account, id, carrierID string) {
	s.later(func(ctx context.Context) {
		if err := account.Calls.Hangup(ctx, carrierID); err != nil {
			s.cfg.Log.Warn("the call was not ended at the carrier", "session", id, "err", err)
		}
	})
}

// fallback is what is done with a call whose stream has ended.
func (s *Server) fallback(c *calls.Call) *providers.Answer {
	if cause := session.Cause(c.Cause); !cause.AgentFailed() && cause != session.StartTimeout {
		return &providers.Answer{}
	}
	f := s.cfg.Agents[c.Agent].Fallback
	return elsewhere(c, f.Say, f.Dial)
}

// elsewhere is an answer that takes a call away from its agent: words, then
// another number, which sees the bridge's own number of the call.
func elsewhere(c *calls.Call, say, dial string) *providers.Answer {
	a := &providers.Answer{Say: say, Dial: dial}
	switch {
	case dial == "":
	case c.Direction == calls.Outbound:
		a.Caller = c.From
	default:
		a.Caller = c.To
	}
	if !providers.ValidNumber(a.Caller) { // a SIP address, say
		a.Caller = ""
	}
	return a
}

// detected acts on who has picked up a call.
func (s *Server) detected(id string, who providers.AnsweredBy) {
	if sess := s.registry.Get(id); sess != nil {
		sess.AnsweredBy(who)
	}
	call, _ := s.book.Get(id)
	if call.Detect == detectHangup && (who == providers.AnsweredByMachine || who == providers.AnsweredByFax) {
		s.later(func(ctx context.Context) {
			if err := s.hangup(ctx, id, false); err != nil {
				s.cfg.Log.Warn("call to a machine was not ended", "session", id, "err", err)
			}
		})
	}
}

// report notes what a carrier says of a call, and acts on it. It is false where
// that is nothing new.
func (s *Server) report(id string, r *providers.StatusReport) bool {
	if !s.book.Report(id, r) {
		return false
	}
	if r.AnsweredBy != "" {
		s.detected(id, r.AnsweredBy)
	}
	if r.Status.Final() {
		s.callerLeft(id, true)
		if sess := s.registry.Get(id); sess != nil {
			sess.Over()
		}
	}
	return true
}

// dialRequest is a call to be placed.
type dialRequest struct {
	Account  string            `json:"account"`
	To       string            `json:"to"`
	From     string            `json:"from"`
	Agent    string            `json:"agent"`
	Metadata map[string]string `json:"metadata"`
	Ring     int               `json:"ring_timeout"` // seconds
	Detect   string            `json:"machine_detection"`
	Digits   string            `json:"digits"`
}

const (
	defaultRing      = 30
	minRing, maxRing = 5, 120 // what every carrier takes
	maxDialDigits    = 32
)

// callerID chooses the number that a call seems to come from.
func (s *Server) callerID(a *Account, asked string) string {
	switch {
	case asked != "":
		return asked
	case a.From != "":
		return a.From
	case len(a.Numbers) > 0:
		return a.Numbers[int((s.turn.Add(1)-1)%uint64(len(a.Numbers)))]
	}
	return ""
}

// dial places a call that has been checked. The call is known before the carrier
// is asked, so that no webhook comes too early.
func (s *Server) dial(ctx context.Context, account Account, r *dialRequest) (calls.Call, error) {
	call := calls.Call{Account: r.Account, Provider: account.Spec.Name, Direction: calls.Outbound, From: r.From, To: r.To, Agent: r.Agent, Metadata: r.Metadata}
	if r.Detect != detectOff {
		call.Detect = r.Detect
	}
	call = s.book.Add(call)
	token := s.tokens.make(ticket{
		Use: useAnswer, Provider: account.Spec.Name, Account: r.Account, ID: call.ID, Agent: r.Agent,
		From: r.From, To: r.To, Outbound: true, Metadata: r.Metadata,
	}, time.Now())
	hooks := "/hooks/" + account.Spec.Name + "/" + r.Account
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), restTime)
	defer stop()
	carrierID, err := account.Calls.Dial(ctx, &providers.Dial{
		To: r.To, From: r.From, Answer: s.hookURL(hooks + "/answer/" + token), Status: s.hookURL(hooks + "/status/" + call.ID),
		Ring: time.Duration(r.Ring) * time.Second, Detect: r.Detect != detectOff, Digits: r.Digits,
	})
	s.totals.place(account.Spec.Name, err)
	if err != nil {
		s.book.Fail(call.ID, err)
		if c, _ := s.book.Get(call.ID); c.Status.Final() && c.CarrierID != "" { // it has reported the call all the same
			s.endAtCarrier(account, call.ID, c.CarrierID)
		}
		return call, err
	}
	s.book.Bind(call.ID, carrierID)
	call, _ = s.book.Get(call.ID)
	if call.Status.Final() && call.Cause == string(session.APIHangup) { // hung up while it was placed
		s.endAtCarrier(account, call.ID, carrierID)
	}
	s.cfg.Log.Info("call placed", "provider", account.Spec.Name, "account", r.Account, "session", call.ID, "call", carrierID, "from", mask(r.From), "to", mask(r.To))
	return call, nil
}

var (
	errNoCall     = errors.New("no such call")
	errOver       = errors.New("the call has ended")
	errNoREST     = errors.New("the account has no credentials for the carrier's REST API")
	errNotStarted = errors.New("the call has no audio yet")
)

// hangup ends a call: by its session if it has one here, otherwise at the carrier.
// One that has ended is no error.
func (s *Server) hangup(ctx context.Context, id string, afterPlayback bool) error {
	call, known := s.book.Get(id)
	if !known {
		return errNoCall
	}
	if sess := s.session(id); sess != nil {
		sess.Hangup(afterPlayback)
		return nil
	}
	if call.Status.Final() {
		return nil
	}
	account := s.cfg.Accounts[call.Account]
	if account.Account == nil || account.Calls == nil {
		return errNoREST
	}
	if call.CarrierID == "" {
		// It is being placed: dial sees to it, unless it has just got its id.
		if call = s.book.Canceled(id, string(session.APIHangup)); call.CarrierID == "" {
			return nil
		}
	}
	if err := account.Calls.Hangup(ctx, call.CarrierID); err != nil {
		return err
	}
	s.book.Canceled(id, string(session.APIHangup))
	return nil
}

// digits sends digits to the other party of a call.
func (s *Server) digits(ctx context.Context, id, digits string) error {
	call, known := s.book.Get(id)
	switch {
	case !known:
		return errNoCall
	case call.Status.Final():
		return errOver
	}
	sess := s.session(id)
	if sess == nil {
		account := s.cfg.Accounts[call.Account]
		if account.Account == nil || account.Calls == nil || call.CarrierID == "" {
			return errNotStarted
		}
		err := account.Calls.Digits(ctx, call.CarrierID, digits)
		if errors.Is(err, errors.ErrUnsupported) {
			return errNotStarted
		}
		return err
	}
	ok, err := sess.Digits(digits)
	switch {
	case err != nil:
		return errNotStarted
	case !ok:
		return &apiError{409, "busy", "too many digits wait to be sent, or the call is about to end", 0}
	}
	return nil
}

// unsure is how long a carrier that did not answer may still take a call
// elsewhere.
const unsure = 10 * time.Second

// redirect has the carrier say something to a call, and connect it to another
// number; its stream ends.
func (s *Server) redirect(ctx context.Context, id, say, dial string) error {
	call, known := s.book.Get(id)
	account := s.cfg.Accounts[call.Account]
	switch {
	case !known:
		return errNoCall
	case call.Status.Final():
		return errOver
	case account.Account == nil || account.Calls == nil:
		return errNoREST
	case call.CarrierID == "":
		return errNotStarted
	}
	if err := s.move(ctx, &call, account, elsewhere(&call, say, dial)); err != nil {
		return fmt.Errorf("redirect: %w", err)
	}
	return nil
}

// move has the carrier do something else with a call; its stream ends.
func (s *Server) move(ctx context.Context, call *calls.Call, account Account, a *providers.Answer) error {
	sess := s.session(call.ID)
	if sess == nil {
		return account.Calls.Redirect(ctx, call.CarrierID, a)
	}
	done := make(chan struct{})
	s.moves.Store(call.ID, done)
	defer func() {
		s.moves.CompareAndDelete(call.ID, done)
		close(done)
	}()
	stays := sess.Leaving()
	err := account.Calls.Redirect(ctx, call.CarrierID, a)
	var e *providers.CallError
	switch {
	case err == nil:
		time.AfterFunc(streamEnd, sess.StreamOver) // Vonage leaves the stream alone
	case errors.As(err, &e) && e.Kind == providers.ErrUnavailable && !e.Unsent():
		time.AfterFunc(unsure, stays) // it may have been carried out
	default:
		stays()
		select {
		case <-sess.Done(): // it has ended meanwhile, and left the call to the carrier
			s.book.StreamEnded(call.ID, string(session.Transferred), true)
			s.endAtCarrier(account, call.ID, call.CarrierID)
		default:
		}
	}
	return err
}

// session gives the live session of a call; nil: its end has been told, or there is
// none.
func (s *Server) session(id string) *session.Session {
	sess := s.registry.Get(id)
	if sess != nil {
		select {
		case <-sess.Done():
			return nil
		default:
		}
	}
	return sess
}

const (
	// quietCall is how long nothing has been heard of a live call before the carrier
	// is asked how it is.
	quietCall = 2 * time.Minute
	// maxAsked bounds the calls that are asked for at once.
	maxAsked = 20
)

// reconcile asks the carriers about calls of which nothing has been heard, such as
// those that have gone on without a stream: not all report the end.
func (s *Server) reconcile() {
	for _, call := range s.book.Quiet(quietCall, maxAsked) {
		account := s.cfg.Accounts[call.Account]
		if account.Account == nil || account.Calls == nil {
			continue
		}
		s.later(func(ctx context.Context) {
			report, err := account.Calls.Get(ctx, call.CarrierID)
			switch {
			case providers.IsNoCall(err):
				report = &providers.StatusReport{Call: call.CarrierID, Status: providers.StatusCompleted}
			case err != nil:
				s.cfg.Log.Warn("the carrier does not say how a call is", "session", call.ID, "err", err)
				return
			}
			s.report(call.ID, report)
		})
	}
}
