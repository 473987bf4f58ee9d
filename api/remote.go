package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"voicebridge/calls"
	"voicebridge/providers"
)

// Requests about calls of other instances.

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

// remote answers a request that has come to another instance.
func (s *Server) remote(ctx context.Context, _ string, body json.RawMessage) (any, error) {
	var r remoteRequest
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, err
	}
	do, known := s.routes()[r.Pattern]
	if !known {
		return nil, errors.New("api: no such request")
	}
	method, _, _ := strings.Cut(r.Pattern, " ")
	req, err := http.NewRequestWithContext(ctx, method, "/", nil)
	if err != nil {
		return nil, err
	}
	req.SetPathValue("call", r.Call)
	answer, err := do(&request{req, r.Token, r.Body})
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
	var r remoteReply
	if err := s.control.Cluster().Ask(a.Context(), where, "api", remoteRequest{pattern, id, a.token, a.body},
		&r); err != nil {
		s.fail(w, a.Request, &apiError{http.StatusGatewayTimeout, "unreachable",
			"the instance that has the call does not answer: " + err.Error(), time.Second})
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

// A call that was answered here may have its stream elsewhere since a moment: its
// instance is looked for up to lookTries times, lookEvery apart.
const (
	lookTries = 10
	lookEvery = 50 * time.Millisecond
)

// whereIs returns the other instance that has a call; empty: none.
func (s *Server) whereIs(a *request, id string) (string, error) {
	where, err := s.control.SessionElsewhere(a.Context(), id)
	call, here := s.control.Calls().Get(id)
	if err == nil && where == "" && !here {
		return s.control.RecordElsewhere(a.Context(), id)
	}
	begins := here && !call.Status.Final() &&
		(call.Direction == calls.Inbound || call.Status == providers.StatusInProgress)
	if !begins || a.Method != http.MethodPost {
		return where, err
	}
	for try := 0; try < lookTries && err == nil && where == "" && s.control.Session(id) == nil; try++ {
		select {
		case <-time.After(lookEvery):
		case <-a.Context().Done():
			return "", a.Context().Err()
		}
		where, err = s.control.SessionElsewhere(a.Context(), id)
	}
	return where, err
}
