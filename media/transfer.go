package media

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"voicebridge/calls"
	"voicebridge/providers"
	"voicebridge/session"
	"voicebridge/transfer"
)

// Transfers say where calls may be moved to, and how.
type Transfers struct {
	// Store keeps the transfers; instances that share it take each other's over.
	Store transfer.Store
	// Manager has the times, and the name of this instance.
	Manager transfer.Config
	// Destinations are those that have a name.
	Destinations map[string]Destination
	// Allow are the numbers that may be called: E.164, with a * at the end all that
	// begin so. Those of Destinations may be called anyway.
	Allow []string
	// Ring is how long a destination may ring, unless the request says otherwise.
	Ring time.Duration
	// ShowCaller has destinations see the caller's number, not the bridge's own.
	ShowCaller bool
	// Hold is what a caller hears meanwhile, HoldAgent or HoldMusic, unless the
	// request says otherwise; Music is that of HoldMusic, at the rate of MusicRate.
	Hold      string
	Music     []int16
	MusicRate int
}

// Destination is where calls may be moved to.
type Destination struct {
	To     string // E.164
	Digits string // sent when it answers: an extension
}

// What a caller hears until it is moved.
const (
	HoldAgent = "agent" // its agent
	HoldMusic = "music"
)

// DefaultRingTime is how long a destination may ring.
const DefaultRingTime = 30 * time.Second

// defaultWhisper is what a destination is told that must accept a call.
const defaultWhisper = "You have a call. Press 1 to take it."

// transfers are those that this server has to do with.
type transfers struct {
	manager *transfer.Manager
	hold    holdAudio

	mu     sync.Mutex
	byCall map[string]*noted           // of calls whose session is here
	queues map[string][]transferChange // for other instances, by transfer
}

// noted is the last transfer of a call, as it is known here.
type noted struct {
	id      string
	version int64
	live    bool
	pending int // wishes of the agent that are being looked at
}

// wish notes, before all else, that the agent wants a transfer: a call that it
// leaves now is not over. done takes that back.
func (t *transfers) wish(call string) (done func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.entry(call)
	n.pending++
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		n.pending--
	}
}

func (t *transfers) entry(call string) *noted {
	n := t.byCall[call]
	if n == nil {
		n = &noted{}
		t.byCall[call] = n
	}
	return n
}

// note keeps how a transfer is. It is false for what is older than what is known.
func (t *transfers) note(c *transferChange) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.entry(c.Call)
	if n.id == c.Info.ID && c.Version <= n.version {
		return false
	}
	n.id, n.version, n.live = c.Info.ID, c.Version, !c.Final
	return true
}

// forget is for the end of a session.
func (t *transfers) forget(call string) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := t.byCall[call]; n != nil && !n.live && n.pending == 0 {
		delete(t.byCall, call)
	}
}

// of gives the live transfer of a call, as far as it is known here; has tells
// whether there is one, or soon may be.
func (t *transfers) of(call string) (id string, has bool) {
	if t == nil {
		return "", false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.byCall[call]
	switch {
	case n == nil:
		return "", false
	case n.live:
		return n.id, true
	}
	return "", n.pending > 0
}

// decided waits until what the agent of a call wants is a transfer, or refused. It
// tells whether it wanted anything.
func (t *transfers) decided(ctx context.Context, call string) (wanted bool) {
	for {
		id, has := t.of(call)
		if id != "" || !has {
			return wanted || has
		}
		wanted = true
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return wanted
		}
	}
}

// tell passes changes of a transfer on, one after the other.
func (t *transfers) tell(s *Server, c transferChange, pass func(context.Context, transferChange)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	list, running := t.queues[c.Info.ID]
	t.queues[c.Info.ID] = append(list, c)
	if running {
		return
	}
	s.later(func(ctx context.Context) {
		for {
			t.mu.Lock()
			list := t.queues[c.Info.ID]
			if len(list) == 0 {
				delete(t.queues, c.Info.ID)
				t.mu.Unlock()
				return
			}
			t.queues[c.Info.ID] = list[1:]
			t.mu.Unlock()
			pass(ctx, list[0])
		}
	})
}

// transferInfo is a transfer as the API tells it.
type transferInfo struct {
	ID        string            `json:"id"`
	Call      string            `json:"call"`
	Mode      string            `json:"mode"`
	To        string            `json:"to"`
	State     string            `json:"state"`
	Reason    string            `json:"reason,omitempty"`
	Detail    string            `json:"detail,omitempty"`
	Context   map[string]string `json:"context,omitempty"`
	CreatedAt time.Time         `json:"created_at"`
	UpdatedAt time.Time         `json:"updated_at"`
}

func infoOf(r *transfer.Record) transferInfo {
	return transferInfo{ID: r.ID, Call: r.Call, Mode: string(r.Mode), To: destination(r), State: string(r.State), Reason: r.Reason, Detail: r.Detail,
		Context: r.Context, CreatedAt: time.UnixMilli(r.Created).UTC(), UpdatedAt: time.UnixMilli(r.Updated).UTC()}
}

// destination is the name of where a call is moved to, or the number.
func destination(r *transfer.Record) string {
	if r.Name != "" {
		return "name:" + r.Name
	}
	return r.To
}

// transferRefusal is why a transfer is not begun: a code of the agent's protocol,
// and words.
type transferRefusal struct {
	code, words string
	status      int
}

func (e *transferRefusal) Error() string { return e.words }

func refuseTransfer(status int, code, words string, args ...any) error {
	return &transferRefusal{code, fmt.Sprintf(words, args...), status}
}

// storeAway is a refusal because nothing can be stored.
func storeAway(err error) error {
	return &transferRefusal{"unavailable", "transfers are not possible now: " + err.Error(), http.StatusServiceUnavailable}
}

// beginTransfer begins to move a call.
func (s *Server) beginTransfer(ctx context.Context, id string, t *session.Transfer, by, ref string) (*transfer.Record, error) {
	call, known := s.book.Get(id)
	account := s.cfg.Accounts[call.Account]
	switch {
	case !known:
		return nil, errNoCall
	case call.Status.Final():
		return nil, errOver
	case s.transfers == nil || account.Account == nil || account.Calls == nil:
		return nil, refuseTransfer(http.StatusConflict, "unsupported", "the call's account cannot transfer: it has no credentials for the carrier's REST API")
	case call.CarrierID == "" || call.Status != providers.StatusInProgress:
		return nil, errNotStarted
	case s.draining.Load():
		return nil, refuseTransfer(http.StatusServiceUnavailable, "busy", "the bridge stops")
	}
	req, err := s.transferRequest(&call, t)
	if err != nil {
		return nil, err
	}
	req.By, req.Ref = by, ref
	defer s.wish(id)()
	r, err := s.transfers.manager.Start(ctx, *req)
	var busy *transfer.BusyError
	if errors.As(err, &busy) { // one that is all but over is waited for
		wait, stop := context.WithTimeout(ctx, clearTime)
		before, gerr := s.transfers.manager.Get(wait, busy.ID)
		if gerr == nil && (before.State == transfer.Compensating || before.State.Final()) {
			if _, gerr = s.transfers.manager.Wait(wait, busy.ID, func(*transfer.Record) bool { return false }); gerr == nil {
				r, err = s.transfers.manager.Start(ctx, *req)
			}
		}
		stop()
	}
	switch {
	case errors.As(err, &busy):
		return nil, refuseTransfer(http.StatusConflict, "busy", "the call has a transfer already: %s", busy.ID)
	case err != nil:
		return nil, storeAway(err)
	}
	// Known before anybody is told: a call that its agent leaves now is not over.
	s.transfers.note(&transferChange{Call: id, Info: calls.Transfer{ID: r.ID}})
	s.cfg.Log.Info("transfer begun", "session", id, "transfer", r.ID, "mode", r.Mode, "to", mask(r.To), "name", r.Name, "by", by)
	return r, nil
}

// clearTime is how long a second transfer waits for the end of the first.
const clearTime = 2 * time.Second

// transferRequest checks a wish.
func (s *Server) transferRequest(call *calls.Call, t *session.Transfer) (*transfer.Request, error) {
	cfg := s.cfg.Transfers
	bad := func(words string, args ...any) (*transfer.Request, error) {
		return nil, refuseTransfer(http.StatusUnprocessableEntity, "bad_field", words, args...)
	}
	req := &transfer.Request{
		Call: call.ID, Account: call.Account, Provider: call.Provider, Caller: call.CarrierID, From: t.From, To: t.To,
		Mode: transfer.Mode(t.Mode), Whisper: t.Whisper, Brief: t.Brief, Accept: t.Accept, Digits: t.Digits, Detect: t.Detect,
		Ring: time.Duration(t.Timeout) * time.Second, Hold: t.Hold, OnFail: t.OnFail, OnEnd: t.OnEnd, Context: t.Context,
	}
	if req.Mode == "" {
		req.Mode = transfer.Conference
	}
	if t.Agent != "leave" {
		req.Agent = t.Agent
	}
	if req.Host = s.cfg.InstanceURL; req.Host == "" && s.cfg.Cluster == nil {
		req.Host = s.cfg.PublicURL
	}
	if req.Ring == 0 {
		req.Ring = cfg.Ring
	}
	if req.Hold == "" {
		req.Hold = cfg.Hold
	}
	if name, named := strings.CutPrefix(t.To, "name:"); named {
		d, known := cfg.Destinations[name]
		if !known {
			return nil, refuseTransfer(http.StatusUnprocessableEntity, "invalid_destination", "to: there is no destination %q", clip(name))
		}
		req.Name, req.To = name, d.To
		if req.Digits == "" {
			req.Digits = d.Digits
		}
	} else if !providers.ValidNumber(req.To) {
		return nil, refuseTransfer(http.StatusUnprocessableEntity, "invalid_destination", "to: must be a number in E.164, such as +15550100123, or name:NAME")
	} else if !s.allowed(req.To) {
		return nil, refuseTransfer(http.StatusForbidden, "not_allowed", "to: the configuration does not allow transfers to this number")
	}
	own := elsewhere(call, "", req.To).Caller
	if req.From == "" {
		if req.From = own; cfg.ShowCaller && call.Direction == calls.Inbound && providers.ValidNumber(call.From) {
			req.From = call.From
		}
	}
	switch {
	case !slices.Contains(transfer.Modes, req.Mode):
		return bad("mode: must be one of %v", transfer.Modes)
	case !slices.Contains([]string{"", "leave", transfer.AgentListens, transfer.AgentStays}, t.Agent):
		return bad("agent: must be leave, listen or stay")
	case req.Agent != "" && req.Mode == transfer.Blind:
		return bad("agent: leaves with mode blind")
	case req.Agent != "" && req.Host == "":
		return nil, refuseTransfer(http.StatusUnprocessableEntity, "unsupported", "agent: to listen or stay, instance_url must be set where there are several instances")
	case !providers.ValidNumber(req.From):
		return bad("from: must be a number in E.164; the call's own is none")
	case req.Ring < minRing*time.Second || req.Ring > maxRing*time.Second:
		return bad("timeout_s: must be %d to %d", minRing, maxRing)
	case len(req.Whisper) > MaxSay:
		return bad("whisper: must have at most %d bytes", MaxSay)
	case req.Brief != "" && s.cfg.Agents[req.Brief].Dialer == nil:
		return bad("brief: there is no agent %q", clip(req.Brief))
	case req.Brief != "" && providers.CheckParams(req.Context) != nil:
		return bad("context: %v", providers.CheckParams(req.Context))
	case req.Mode != transfer.Attended && req.Whisper+req.Brief+req.Accept != "":
		return bad("whisper, brief and accept: are for mode attended")
	case req.Accept != "" && req.Accept != transfer.AcceptDigit && req.Accept != transfer.AcceptStay:
		return bad("accept: must be digit or stay")
	case !validDialDigits(req.Digits):
		return bad("digits: must be at most %d of 0-9 * # w", maxDialDigits)
	case req.Digits != "" && req.Detect:
		return bad("digits: not with machine_detection")
	case req.Mode == transfer.Blind && (req.Digits != "" || req.Detect):
		return bad("digits and machine_detection: not with mode blind")
	case req.Hold != HoldAgent && req.Hold != HoldMusic:
		return bad("hold: must be agent or music")
	case req.OnEnd != "" && req.OnEnd != transfer.Resume && req.OnEnd != transfer.Hangup:
		return bad("on_end: must be hangup or resume")
	case req.OnEnd != "" && req.Mode == transfer.Blind:
		return bad("on_end: not with mode blind: the bridge has left")
	}
	for reason, d := range req.OnFail {
		if reason != "" && !slices.Contains(transfer.Reasons, reason) {
			return bad("on_fail: %q is no reason: they are %v", clip(reason), transfer.Reasons)
		}
		if d != transfer.Resume && d != transfer.Hangup && !(providers.ValidNumber(d) && s.allowed(d)) {
			return bad("on_fail: must be resume, hangup, or a number in E.164 that transfers may go to")
		}
	}
	if req.OnEnd == "" {
		req.OnEnd = transfer.Hangup
		if req.Agent != "" { // they are alone again
			req.OnEnd = transfer.Resume
		}
	}
	if req.Mode == transfer.Attended {
		if req.Accept == "" {
			req.Accept = transfer.AcceptDigit
		}
		if req.Whisper == "" {
			req.Whisper = defaultWhisper
		}
	}
	return req, nil
}

// validDialDigits tells whether digits can be sent when a call is answered.
func validDialDigits(digits string) bool {
	return len(digits) <= maxDialDigits && strings.Trim(digits, "0123456789*#w") == ""
}

// allowed tells whether calls may be moved to a number.
func (s *Server) allowed(number string) bool {
	for _, d := range s.cfg.Transfers.Destinations {
		if d.To == number {
			return true
		}
	}
	return slices.ContainsFunc(s.cfg.Transfers.Allow, func(pattern string) bool {
		prefix, open := strings.CutSuffix(pattern, "*")
		return pattern == number || open && strings.HasPrefix(number, prefix)
	})
}

// wish notes that somebody wants a transfer of a call, until it is done.
func (s *Server) wish(call string) (done func()) {
	over := s.transfers.wish(call)
	return func() {
		over()
		if s.session(call) == nil {
			s.transfers.forget(call)
		}
	}
}

// agentTransfer begins a transfer that an agent wants, beside its session.
func (s *Server) agentTransfer(sess *session.Session, ref string, t *session.Transfer) {
	done := s.wish(sess.ID)
	s.later(func(ctx context.Context) {
		defer done()
		_, err := s.beginTransfer(ctx, sess.ID, t, transfer.ReasonAgent, ref)
		if err == nil {
			return // the states follow
		}
		code := "internal"
		var no *transferRefusal
		switch {
		case errors.As(err, &no):
			code = no.code
		case errors.Is(err, errOver), errors.Is(err, errNotStarted), errors.Is(err, errNoCall):
			code = "busy"
		}
		sess.Refuse(ref, code, err.Error())
	})
}

// agentCancel withdraws a transfer that an agent has asked for.
func (s *Server) agentCancel(call, ref string) bool {
	id, _ := s.transfers.of(call)
	if id == "" || ref == "" {
		return false
	}
	s.later(func(ctx context.Context) {
		if r, err := s.transfers.manager.Get(ctx, id); err != nil || r.Ref != ref {
			return
		}
		if _, _, err := s.transfers.manager.Cancel(ctx, id, transfer.ReasonAgent); err != nil {
			s.cfg.Log.Warn("transfer is not canceled", "transfer", id, "err", err)
		}
	})
	return true
}

// apiTransfer begins a transfer.
func (s *Server) apiTransfer(a *apiCall) (reply, error) {
	var t session.Transfer
	if err := a.read(&t); err != nil {
		return reply{}, err
	}
	if b, err := json.Marshal(t.Context); err != nil || len(b) > 4<<10 {
		return reply{}, wrong("context: must have at most 4096 bytes as JSON")
	}
	r, err := s.beginTransfer(a.Context(), a.PathValue("call"), &t, transfer.ReasonAPI, "")
	if err != nil {
		return reply{}, err
	}
	return reply{http.StatusCreated, infoOf(r)}, nil
}

// findTransfer gives the transfer of a request.
func (s *Server) findTransfer(a *apiCall) (*transfer.Record, error) {
	none := &apiError{http.StatusNotFound, "not_found", "no such transfer", 0}
	if s.transfers == nil {
		return nil, none
	}
	r, err := s.transfers.manager.Get(a.Context(), a.PathValue("transfer"))
	switch {
	case errors.Is(err, transfer.ErrNotFound):
		return nil, none
	case err != nil:
		return nil, storeAway(err)
	}
	return r, nil
}

func (s *Server) apiGetTransfer(a *apiCall) (reply, error) {
	r, err := s.findTransfer(a)
	if err != nil {
		return reply{}, err
	}
	return reply{http.StatusOK, infoOf(r)}, nil
}

// apiCancelTransfer cancels a transfer; one that is bridged is taken back.
func (s *Server) apiCancelTransfer(a *apiCall) (reply, error) {
	r, err := s.findTransfer(a)
	if err != nil {
		return reply{}, err
	}
	r, moved, err := s.transfers.manager.Cancel(a.Context(), r.ID, transfer.ReasonAPI)
	switch {
	case err != nil:
		return reply{}, storeAway(err)
	case !moved && r.Want != transfer.Canceled:
		return reply{}, &apiError{http.StatusConflict, "wrong_state", "the transfer is over: " + string(r.State), 0}
	}
	return reply{http.StatusOK, infoOf(r)}, nil
}

// callerLeft tells the transfer of a call, if it has one, that the caller has hung
// up. Where only its stream has ended, the carrier is asked first: another instance
// may have had the caller moved.
func (s *Server) callerLeft(call string, sure bool) {
	if s.transfers == nil {
		return
	}
	s.later(func(ctx context.Context) {
		for try := 0; ; try++ {
			r, err := s.transfers.manager.ByCall(ctx, call)
			if err == nil && r != nil {
				err = s.left(ctx, r, sure)
			}
			if err == nil || try == 5 || ctx.Err() != nil { // the owner asks the carrier, too
				return
			}
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
		}
	})
}

func (s *Server) left(ctx context.Context, r *transfer.Record, sure bool) error {
	if !sure && r.At != transfer.AtAgent && r.At != transfer.Here {
		ev, err := hands{s}.Caller(ctx, r)
		if err != nil || ev.Kind == "" {
			return err
		}
	}
	_, _, err := s.transfers.manager.HandleEvent(ctx, r.ID, transfer.Event{Kind: transfer.CallerLeft})
	return err
}
