package media

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"voicebridge/calls"
	"voicebridge/cluster"
	"voicebridge/providers"
	"voicebridge/session"
	"voicebridge/transfer"
)

// What instances ask each other, and what they find in the directory. A call is
// known there by its session, while it has one, and by its record: by its id and by
// the carrier's.

func sessionKey(id string) string                 { return "session:" + id }
func recordKey(id string) string                  { return "record:" + id }
func carrierKey(account, carrierID string) string { return "carrier:" + account + ":" + carrierID }

// remoteRequest is a request to the API about a call of another instance.
type remoteRequest struct {
	Pattern string
	Call    string
	Token   string
	Body    []byte
}

// remoteReply is its answer.
type remoteReply struct {
	Status int
	Body   json.RawMessage
	Retry  time.Duration
}

// remoteStatus is a report on a call of another instance.
type remoteStatus struct {
	Call   string
	Report providers.StatusReport
}

// remoteMove takes a call away from its stream.
type remoteMove struct {
	Call, Carrier, Account string
	Answer                 providers.Answer
}

// remoteStream is a stream of a call: the first one, or that after so many returns.
type remoteStream struct {
	Call    string
	Returns int
}

// remoteEnd is how it has ended.
type remoteEnd struct{ Cause string }

// handle answers what other instances ask.
func (s *Server) handle(ctx context.Context, kind string, body json.RawMessage) (any, error) {
	switch kind {
	case "api":
		var r remoteRequest
		if err := json.Unmarshal(body, &r); err != nil {
			return nil, err
		}
		return s.remoteAPI(ctx, &r)
	case "status":
		var r remoteStatus
		if err := json.Unmarshal(body, &r); err != nil {
			return nil, err
		}
		s.report(r.Call, &r.Report)
		return nil, nil
	case "move":
		var r remoteMove
		if err := json.Unmarshal(body, &r); err != nil {
			return nil, err
		}
		account := s.cfg.Accounts[r.Account]
		if account.Account == nil || account.Calls == nil {
			return nil, errNoREST
		}
		err := s.move(ctx, &calls.Call{ID: r.Call, Account: r.Account, CarrierID: r.Carrier}, account, &r.Answer)
		var refused *transfer.DialError
		switch err = known(err); {
		case errors.Is(err, transfer.ErrGone):
			return "gone", nil
		case errors.As(err, &refused) && !refused.Unsure:
			return "refused: " + err.Error(), nil
		}
		return "moved", err
	case "change":
		var c transferChange
		if err := json.Unmarshal(body, &c); err != nil {
			return nil, err
		}
		s.changed(c)
		return nil, nil
	case "end": // of the stream: at the carrier it has
		var r remoteStream
		if err := json.Unmarshal(body, &r); err != nil {
			return nil, err
		}
		cause, _ := s.ended(r.Call, r.Returns)
		return remoteEnd{cause}, nil
	case "has":
		var id string
		if err := json.Unmarshal(body, &id); err != nil {
			return nil, err
		}
		return s.session(id) != nil, nil
	}
	return nil, errors.New("unknown request " + clip(kind))
}

// remoteAPI answers a request to the API that has come to another instance.
func (s *Server) remoteAPI(ctx context.Context, r *remoteRequest) (*remoteReply, error) {
	do, known := s.apiRoutes()[r.Pattern]
	if !known {
		return nil, errors.New("no such request")
	}
	method, _, _ := strings.Cut(r.Pattern, " ")
	req, err := http.NewRequestWithContext(ctx, method, "/", nil)
	if err != nil {
		return nil, err
	}
	req.SetPathValue("call", r.Call)
	answer, err := do(&apiCall{req, r.Token, r.Body})
	if err != nil {
		p, retry := problemOf(err)
		b, err := json.Marshal(p)
		return &remoteReply{p.Status, b, retry}, err
	}
	out := &remoteReply{Status: answer.status}
	if answer.body != nil {
		out.Body, err = json.Marshal(answer.body)
	}
	return out, err
}

// pass passes a request about a call on to the instance that has it. It is false
// where that is this one, or none.
func (s *Server) pass(w http.ResponseWriter, a *apiCall, pattern string) bool {
	id := a.PathValue("call")
	if s.cfg.Cluster == nil || id == "" || s.session(id) != nil {
		return false
	}
	where, err := s.cfg.Cluster.Where(a.Context(), sessionKey(id))
	call, here := s.book.Get(id)
	if err == nil && where == "" && !here {
		where, err = s.cfg.Cluster.Where(a.Context(), recordKey(id))
	}
	// A call that was answered here may have its stream elsewhere since a moment.
	begins := here && !call.Status.Final() && (call.Direction == calls.Inbound || call.Status == providers.StatusInProgress)
	for try := 0; try < 10 && begins && err == nil && where == "" && s.session(id) == nil && a.Method == "POST"; try++ {
		select {
		case <-time.After(50 * time.Millisecond):
		case <-a.Context().Done():
			return true
		}
		where, err = s.cfg.Cluster.Where(a.Context(), sessionKey(id))
	}
	if s.session(id) != nil {
		return false
	}
	if err != nil || where == "" {
		if err != nil {
			s.cfg.Log.Warn("the directory of calls is away: this instance answers for itself", "err", err)
		}
		return false
	}
	var r remoteReply
	if err := s.cfg.Cluster.Ask(a.Context(), where, "api", remoteRequest{pattern, id, a.token, a.body}, &r); err != nil {
		s.fail(w, a.Request, &apiError{http.StatusGatewayTimeout, "unreachable", "the instance that has the call does not answer: " + err.Error(), time.Second})
		return true
	}
	kind := "application/json"
	if r.Status >= 300 {
		kind = "application/problem+json"
	}
	retryAfter(w, r.Retry)
	if len(r.Body) == 0 {
		w.WriteHeader(r.Status)
	} else {
		writeJSON(w, r.Status, kind, r.Body)
	}
	return true
}

// passStatus passes a report on to the instance that knows the call. It is false
// where there is none.
func (s *Server) passStatus(ctx context.Context, h *accountHook, id string, report *providers.StatusReport) bool {
	if s.cfg.Cluster == nil {
		return false
	}
	key := carrierKey(h.name, report.Call)
	if id != "" {
		key = recordKey(id)
	}
	where, err := s.cfg.Cluster.Where(ctx, key)
	if err != nil || where == "" {
		return false
	}
	if id == "" {
		if id, err = s.cfg.Cluster.Note(ctx, key); err != nil || id == "" {
			return false
		}
	}
	return s.cfg.Cluster.Ask(ctx, where, "status", remoteStatus{id, *report}, nil) == nil
}

// remoteMove has the instance that has the caller's session move it. done is false
// where there is none, or it does not answer.
func (h hands) remoteMove(ctx context.Context, r *transfer.Record, a *providers.Answer) (done bool, err error) {
	where, err := h.cfg.Cluster.Where(ctx, sessionKey(r.Call))
	if err != nil || where == "" {
		return false, nil
	}
	var how string
	err = h.cfg.Cluster.Ask(ctx, where, "move", remoteMove{r.Call, r.Caller, r.Account, *a}, &how)
	switch {
	case err == nil && how == "gone":
		return true, transfer.ErrGone
	case err == nil && strings.HasPrefix(how, "refused: "):
		return true, &transfer.DialError{Reason: transfer.ReasonCarrier, Err: errors.New(how)}
	case errors.Is(err, cluster.ErrNobody): // it is dead
		return false, nil
	}
	return true, err // without an answer it may have been moved
}

// remoteChange tells the instance that has the session of a call, if there is one,
// how its transfer is.
func (h hands) remoteChange(c transferChange) {
	if h.cfg.Cluster == nil {
		return
	}
	h.transfers.tell(h.Server, c, func(ctx context.Context, c transferChange) {
		where, err := h.cfg.Cluster.Where(ctx, sessionKey(c.Call))
		if err != nil || where == "" {
			return
		}
		if err := h.cfg.Cluster.Ask(ctx, where, "change", c, nil); err != nil {
			h.cfg.Log.Warn("the instance that has the call is not told of its transfer", "transfer", c.Info.ID, "err", err)
		}
	})
}

// streams tells whether a call has a live stream, on whatever instance.
func (s *Server) streams(ctx context.Context, id string) bool {
	if s.session(id) != nil {
		return true
	}
	where, err := s.cfg.Cluster.Where(ctx, sessionKey(id))
	if err != nil || where == "" {
		return false
	}
	var has bool // the directory outlives an instance
	return s.cfg.Cluster.Ask(ctx, where, "has", id, &has) == nil && has
}

// ended gives how a stream of this instance's has ended, for which it is waited.
func (s *Server) ended(id string, returns int) (cause string, here bool) {
	sess := s.registry.Get(id)
	switch {
	case sess == nil:
		return "", false
	case sess.Returns() > returns: // the call has a newer one
		return string(session.Transferred), true
	}
	s.await(sess)
	call, _ := s.book.Get(id)
	return call.Cause, true
}

// streamEnded gives how the last stream of a call has ended, on whatever instance,
// and whether it was on this one; empty: there has been none, or its instance is
// gone. returns says which stream it is.
func (s *Server) streamEnded(ctx context.Context, id string, returns int) (cause string, here bool) {
	if cause, here := s.ended(id, returns); here {
		return cause, true
	}
	call, known := s.book.Get(id)
	if s.cfg.Cluster == nil || call.Cause != "" && call.Returns == returns {
		return call.Cause, known
	}
	key := sessionKey(id)
	if where, err := s.cfg.Cluster.Where(ctx, key); err == nil && where != "" {
		var end remoteEnd
		if s.cfg.Cluster.Ask(ctx, where, "end", remoteStream{id, returns}, &end) == nil {
			return end.Cause, false
		}
		return "", false
	}
	cause, err := s.cfg.Cluster.Note(ctx, key)
	if err != nil {
		return "", false
	}
	return cause, false
}

// instanceLost is why a call comes back to an agent whose instance has gone.
const instanceLost = "instance_lost"

// follow keeps the directory of records up to date.
func (s *Server) follow(ctx context.Context, feed *calls.Feed) {
	last := ""
	for {
		select {
		case ev, ok := <-feed.Events():
			if !ok { // it could not keep up
				feed, _ = s.book.Listen(last)
				continue
			}
			last = ev.ID
			switch c := &ev.Call; {
			case c.Account == "":
			case ev.Type == calls.EventEnded:
				s.cfg.Cluster.Lost(recordKey(c.ID), "")
				s.cfg.Cluster.Lost(carrierKey(c.Account, c.CarrierID), "")
			case ev.Type == calls.EventCreated:
				s.cfg.Cluster.Has(recordKey(c.ID), "")
				fallthrough
			default:
				if c.CarrierID != "" {
					s.cfg.Cluster.Has(carrierKey(c.Account, c.CarrierID), c.ID)
				}
			}
		case <-ctx.Done():
			feed.Close()
			return
		}
	}
}
