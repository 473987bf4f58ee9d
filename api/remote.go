package api

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"voicebridge/calls"
	"voicebridge/cluster"
	"voicebridge/providers"
)

// Requests about calls of other instances.

// remoteRequest is a request to the API about a call of another instance.
type remoteRequest struct {
	Pattern string
	Call    string
	Token   string
	Key     string // Idempotency-Key
	Body    []byte
}

// remoteReply is its answer.
type remoteReply struct {
	Status int
	Body   json.RawMessage
	Retry  time.Duration
	// Elsewhere is another instance to ask instead: it has the call's stream.
	Elsewhere string
}

// remote answers a request that has come to another instance.
func (s *Server) remote(ctx context.Context, _ string, body json.RawMessage) (any, error) {
	var r remoteRequest
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, err
	}
	route, known := s.routes()[r.Pattern]
	if !known {
		return nil, errors.New("api: no such request")
	}
	method, _, _ := strings.Cut(r.Pattern, " ")
	req, err := http.NewRequestWithContext(ctx, method, "/", nil)
	if err != nil {
		return nil, err
	}
	req.SetPathValue("call", r.Call)
	if r.Key != "" {
		req.Header.Set("Idempotency-Key", r.Key)
	}
	a := &request{req, s.tokenNamed(r.Token), r.Body}
	if s.control.Session(r.Call) == nil {
		if where, err := s.whereIs(a, r.Call); err == nil && where != "" && s.control.Session(r.Call) == nil {
			return &remoteReply{Elsewhere: where}, nil
		}
	}
	answer, err := s.carryOut(route, a)
	if err != nil {
		p, retry := problemOf(err)
		b, err := json.Marshal(p)
		return &remoteReply{Status: p.Status, Body: b, Retry: retry}, err
	}
	out := &remoteReply{Status: answer.status}
	if answer.body != nil {
		out.Body, err = json.Marshal(answer.body)
	}
	return out, err
}

// pass passes a request about a call on to the instance that has it. It is false where
// that is this one, or none.
func (s *Server) pass(w http.ResponseWriter, a *request, pattern string) bool {
	id := a.PathValue("call")
	if s.control.Cluster() == nil || id == "" || s.control.Session(id) != nil {
		return false
	}
	where, err := s.whereIs(a, id)
	switch {
	case a.Context().Err() != nil:
		return true
	case s.control.Session(id) != nil:
		return false
	case err != nil:
		s.cfg.Log.Warn("the directory of calls is away: this instance answers for itself", "err", err)
		return false
	case where == "":
		return false
	}
	r, err := s.askOther(a, where, remoteRequest{Pattern: pattern, Call: id})
	if err == nil && r.Elsewhere != "" { // the call's record is there, but its stream has begun on another one
		r, err = s.askOther(a, r.Elsewhere, remoteRequest{Pattern: pattern, Call: id})
	}
	if err == nil && r.Status == 0 {
		err = unreachable(errors.New("the call moves"))
	}
	if err != nil {
		s.fail(w, a.Request, err)
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

// askOther has another instance carry a request out.
func (s *Server) askOther(a *request, where string, r remoteRequest) (answer remoteReply, err error) {
	r.Token, r.Body = a.token.Name, a.body
	if err := s.control.Cluster().Ask(a.Context(), where, "api", r, &answer); err != nil {
		return answer, unreachable(err)
	}
	return answer, nil
}

func unreachable(err error) error {
	return &apiError{http.StatusGatewayTimeout, "unreachable",
		"the instance that has the call does not answer: " + err.Error(), time.Second}
}

// remoteCalls lists the calls of this instance for another one.
func (s *Server) remoteCalls(_ context.Context, _ string, body json.RawMessage) (any, error) {
	var want wanted
	if err := json.Unmarshal(body, &want); err != nil {
		return nil, err
	}
	return s.control.Calls().List(want.Limit, want.fits), nil
}

// listTime is how long other instances may take to list their calls.
const listTime = 2 * time.Second

// everywhere lists the calls of all instances, the newest first. Of one that several know
// the record counts that has the stream, or has heard of it last.
func (s *Server) everywhere(ctx context.Context, want *wanted) ([]calls.Call, error) {
	list := s.control.Calls().List(want.Limit, want.fits)
	c := s.control.Cluster()
	if c == nil {
		return list, nil
	}
	ctx, stop := context.WithTimeout(ctx, listTime)
	defer stop()
	var mu sync.Mutex
	var group sync.WaitGroup
	var failed error
	for _, name := range c.Others() {
		group.Go(func() {
			var theirs []calls.Call
			err := c.Ask(ctx, name, "calls", want, &theirs)
			mu.Lock()
			defer mu.Unlock()
			list = append(list, theirs...)
			if err != nil && !errors.Is(err, cluster.ErrNobody) {
				failed = err
			}
		})
	}
	group.Wait()
	if failed != nil {
		return nil, &apiError{http.StatusServiceUnavailable, "unavailable",
			"not all instances have listed their calls: " + failed.Error(), time.Second}
	}
	best := map[string]calls.Call{}
	for _, call := range list {
		before, known := best[call.ID]
		if !known || call.Streaming && !before.Streaming ||
			call.Streaming == before.Streaming && call.Status.Final() && !before.Status.Final() {
			best[call.ID] = call
		}
	}
	list = slices.SortedFunc(maps.Values(best), func(x, y calls.Call) int {
		return cmp.Or(y.CreatedAt.Compare(x.CreatedAt), strings.Compare(x.ID, y.ID))
	})
	return list[:min(len(list), want.Limit)], nil
}

// A call that was answered here may have its stream elsewhere since a moment: its
// instance is looked for up to lookTries times, lookEvery apart.
const (
	lookTries = 10
	lookEvery = 50 * time.Millisecond
)

// whereIs returns the other instance that has a call; empty: none.
func (s *Server) whereIs(a *request, id string) (string, error) {
	ctx := a.Context()
	where, err := s.control.SessionElsewhere(ctx, id)
	call, here := s.control.Calls().Get(id)
	if err == nil && where == "" && !here {
		where, err = s.control.RecordElsewhere(ctx, id)
	}
	// A call of which nobody knows may have come in just now.
	begins := !here && where == "" || here && !call.Status.Final() &&
		(call.Direction == calls.Inbound || call.Status == providers.StatusInProgress)
	if !begins || a.Method != http.MethodPost {
		return where, err
	}
	for try := 0; try < lookTries && err == nil && where == "" && s.control.Session(id) == nil; try++ {
		select {
		case <-time.After(lookEvery):
		case <-ctx.Done():
			return "", ctx.Err()
		}
		if where, err = s.control.SessionElsewhere(ctx, id); err == nil && where == "" && !here {
			where, err = s.control.RecordElsewhere(ctx, id)
		}
	}
	return where, err
}
