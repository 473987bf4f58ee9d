package api

import (
	"net/http"
	"time"
)

// tokenMaker is a pool whose agents may connect with tokens for one time.
type tokenMaker interface {
	NewToken() (token string, expires time.Time)
}

func (s *Server) poolToken(a *request) (reply, error) {
	if len(a.token.Accounts) > 0 { // agents of a pool take the calls of all accounts
		return reply{}, &apiError{http.StatusForbidden, "forbidden", "the token is for some accounts only", 0}
	}
	pool, ok := s.control.Agent(a.PathValue("pool")).Dialer.(tokenMaker)
	if !ok {
		return reply{}, &apiError{http.StatusNotFound, "not_found", "no such pool", 0}
	}
	token, expires := pool.NewToken()
	return reply{http.StatusCreated, map[string]any{"token": token, "expires_at": expires,
		"url": s.control.SocketURL("/v1/pools/" + a.PathValue("pool") + "/agent")}}, nil
}

// attender are agents that connect for a call.
type attender interface {
	// Waits reports whether a call waits for its agent, Admits whether a request
	// shows the token of the call.
	Waits(session string) bool
	Admits(r *http.Request, session string) bool
	Attend(w http.ResponseWriter, r *http.Request, session string)
}

// attend takes the agent of a call that waits for it.
func (s *Server) attend(w http.ResponseWriter, r *http.Request) {
	call := r.PathValue("call")
	for _, a := range s.control.Agents() {
		at, ok := a.Dialer.(attender)
		switch {
		case !ok || !at.Waits(call):
		case !at.Admits(r, call):
			s.stranger(w, r, &apiError{http.StatusUnauthorized, "unauthorized",
				"the token must be the one of the announcement", 0})
			return
		default:
			at.Attend(w, r, call)
			return
		}
	}
	s.stranger(w, r, &apiError{http.StatusNotFound, "not_found", "no call waits for an agent here", 0})
}

// pool are agents that wait for calls.
type pool interface {
	// Admits reports whether a request shows a token of the pool's.
	Admits(r *http.Request) bool
	http.Handler
}

// park takes an agent that waits for calls.
func (s *Server) park(w http.ResponseWriter, r *http.Request) {
	p, ok := s.control.Agent(r.PathValue("pool")).Dialer.(pool)
	switch {
	case !ok:
		s.stranger(w, r, &apiError{http.StatusNotFound, "not_found", "no such pool", 0})
	case !p.Admits(r):
		s.stranger(w, r, &apiError{http.StatusUnauthorized, "unauthorized",
			"the token must be the pool's bearer, or one of the API's that was not used yet", 0})
	default:
		p.ServeHTTP(w, r)
	}
}
