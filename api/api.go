// Package api is what those who run the bridge ask of it: calls are placed, listed,
// ended, moved and followed. It hands all that to control, and requests about calls of
// other instances to those.
package api

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	_ "embed" // the OpenAPI document
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"voicebridge/control"
	"voicebridge/control/transfers"
	"voicebridge/hooks/gate"
	"voicebridge/journal"
	"voicebridge/providers"
)

// Token is a bearer token of the API, of which only the SHA-256 is known. Tokens are
// random, so that a plain hash will do.
type Token struct {
	Name   string
	SHA256 [sha256.Size]byte
	// Accounts are those whose calls it is for, May what it may do: Scopes. Empty: all.
	Accounts, May []string
}

// What a token may do.
const (
	mayRead    = "read"    // see calls, transfers, events and accounts
	mayPlace   = "place"   // place calls
	mayControl = "control" // end, move and redirect calls, send digits, make tokens of pools
)

// Scopes are all that a token may do.
var Scopes = []string{mayRead, mayPlace, mayControl}

func (t *Token) may(scope string) bool { return len(t.May) == 0 || slices.Contains(t.May, scope) }

// sees reports whether calls of an account are its business. A call of no account is of
// those tokens that are for all.
func (t *Token) sees(account string) bool {
	return len(t.Accounts) == 0 || slices.Contains(t.Accounts, account)
}

// Config of a Server.
type Config struct {
	// Tokens open the API; without any, only the doors of agents are there.
	Tokens    []Token
	Providers []*providers.Spec
	Control   *control.Controller
	Transfers *transfers.Transfers // nil: there are none
	Journal   *journal.Journal     // what the feed of events is of
	Gate      *gate.Gate
	Log       *slog.Logger
}

// openAPI describes the API.
//
//go:embed openapi.yaml
var openAPI []byte

// maxRequest bounds the body of a request.
const maxRequest = 64 << 10

// Server answers the API.
type Server struct {
	cfg     Config
	control *control.Controller
	answers answers
	tokens  atomic.Pointer[[]Token]
}

// New makes a server, which also answers what other instances pass on.
func New(cfg Config) *Server {
	s := &Server{cfg: cfg, control: cfg.Control}
	s.SetTokens(cfg.Tokens)
	cfg.Control.OnRemote("api", s.remote)
	cfg.Control.OnRemote("calls", s.remoteCalls)
	return s
}

// SetTokens has other tokens open the API. Without any at the beginning it is not there.
func (s *Server) SetTokens(tokens []Token) { s.tokens.Store(&tokens) }

// request is one request to the API, and who makes it.
type request struct {
	*http.Request
	token *Token
	body  []byte
}

// route is one request of the API, and what it needs.
type route struct {
	needs string
	do    func(*request) (reply, error)
}

// reply is what is answered: a status and a JSON value, or nothing.
type reply struct {
	status int
	body   any
}

// routes are the requests of the API; openapi.yaml describes each.
func (s *Server) routes() map[string]route {
	return map[string]route{
		"POST /v1/calls":                              {mayPlace, s.dial},
		"GET /v1/calls":                               {mayRead, s.list},
		"GET /v1/calls/{call}":                        {mayRead, s.get},
		"POST /v1/calls/{call}/hangup":                {mayControl, s.hangup},
		"GET /v1/calls/{call}/transcript":             {mayRead, s.transcript},
		"POST /v1/calls/{call}/digits":                {mayControl, s.digits},
		"POST /v1/calls/{call}/redirect":              {mayControl, s.redirect},
		"POST /v1/calls/{call}/transfers":             {mayControl, s.beginTransfer},
		"GET /v1/transfers/{transfer}":                {mayRead, s.getTransfer},
		"DELETE /v1/transfers/{transfer}":             {mayControl, s.endTransfer},
		"GET /v1/providers":                           {mayRead, s.providers},
		"GET /v1/accounts":                            {mayRead, s.accounts},
		"GET /v1/accounts/{account}/refused-webhooks": {mayRead, s.refused},
		"GET /v1/accounts/{account}/numbers":          {mayRead, s.numbers},
		"POST /v1/pools/{pool}/tokens":                {mayControl, s.poolToken},
	}
}

// carryOut does what a request asks for, if its token may, and the call or account that it
// is about is the token's business.
func (s *Server) carryOut(r route, a *request) (reply, error) {
	if !a.token.may(r.needs) {
		return reply{}, &apiError{http.StatusForbidden, "forbidden", "the token may not " + r.needs, 0}
	}
	if id := a.PathValue("call"); id != "" {
		if call, known := s.control.Calls().Get(id); known && !a.token.sees(call.Account) {
			return reply{}, control.ErrNoCall
		}
	}
	if name := a.PathValue("account"); name != "" && !a.token.sees(name) {
		return reply{}, &apiError{http.StatusNotFound, "not_found", "no such account", 0}
	}
	return r.do(a)
}

// Doors are what the server answers, by pattern.
func (s *Server) Doors() map[string]http.HandlerFunc {
	doors := map[string]http.HandlerFunc{
		"GET /v1/calls/{call}/agent": s.attend,
		"GET /v1/pools/{pool}/agent": s.park,
	}
	if len(s.cfg.Tokens) == 0 {
		return doors
	}
	for pattern, r := range s.routes() {
		doors[pattern] = s.authorized(pattern, func(w http.ResponseWriter, a *request) {
			if s.pass(w, a, pattern) {
				return
			}
			answer, err := s.carryOut(r, a)
			if err != nil {
				s.fail(w, a.Request, err)
				return
			}
			writeJSON(w, answer.status, "application/json", answer.body)
		})
	}
	doors[listen] = s.authorized(listen, s.events)
	doors["GET /v1/openapi.yaml"] = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/yaml")
		_, _ = w.Write(openAPI)
	}
	doors["/v1/"] = func(w http.ResponseWriter, r *http.Request) {
		s.fail(w, r, &apiError{http.StatusNotFound, "not_found",
			"there is nothing at this path and method: see /v1/openapi.yaml", 0})
	}
	return doors
}

// listen is the pattern of the events.
const listen = "GET /v1/events"

// queries are the parameters that a request may have in its query.
var queries = map[string][]string{"GET /v1/calls": {"account", "status", "live", "limit"}, listen: {"call"}}

// knownQuery refuses parameters that mean nothing: who gives one expects something of it.
func knownQuery(r *http.Request, pattern string) error {
	for name := range r.URL.Query() {
		if !slices.Contains(queries[pattern], name) {
			return wrong("%.40s: is no parameter here: there are %v", name, queries[pattern])
		}
	}
	return nil
}

// authorized lets through who has a token, and asks what the pattern knows.
func (s *Server) authorized(pattern string, next func(http.ResponseWriter, *request)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		token := s.tokenOf(r)
		if token == nil {
			s.stranger(w, r, &apiError{http.StatusUnauthorized, "unauthorized",
				"Authorization must be Bearer, with a token of api.tokens", 0})
			return
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
		if err != nil {
			s.fail(w, r, &apiError{http.StatusRequestEntityTooLarge, "too_large",
				fmt.Sprintf("the body is larger than %d bytes", maxRequest), 0})
			return
		}
		if kind := r.Header.Get("Content-Type"); len(body) > 0 && !strings.HasPrefix(kind, "application/json") {
			s.fail(w, r, &apiError{http.StatusUnsupportedMediaType, "media_type",
				"Content-Type must be application/json", 0})
			return
		}
		if err := knownQuery(r, pattern); err != nil {
			s.fail(w, r, err)
			return
		}
		next(w, &request{r, token, body})
	}
}

// tokenOf finds the token that a request shows; nil: none. All are compared, so that the
// time tells nothing.
func (s *Server) tokenOf(r *http.Request) (found *Token) {
	shown, bearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	sum := sha256.Sum256([]byte(shown))
	tokens := *s.tokens.Load()
	for i := range tokens {
		t := &tokens[i]
		if subtle.ConstantTimeCompare(sum[:], t.SHA256[:]) == 1 && bearer {
			found = t
		}
	}
	return found
}

// tokenNamed is the token of a request that another instance passes on; instances have the
// same configuration.
func (s *Server) tokenNamed(name string) *Token {
	for _, t := range *s.tokens.Load() {
		if t.Name == name {
			return &t
		}
	}
	return &Token{Name: name, May: []string{"nothing"}}
}

// stranger answers those who show no good token, not too often.
func (s *Server) stranger(w http.ResponseWriter, r *http.Request, err *apiError) {
	if !s.cfg.Gate.Stranger() {
		err = &apiError{http.StatusTooManyRequests, "rate_limited", "too many requests without a good token",
			time.Second}
	} else if err.status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="voicebridge"`)
	}
	s.fail(w, r, err)
}

// read decodes the body, strictly.
func (a *request) read(into any) error {
	d := json.NewDecoder(bytes.NewReader(a.body))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if err == nil {
		if _, more := d.Token(); more != io.EOF {
			err = errors.New("more than one JSON value")
		}
	}
	if err != nil {
		return &apiError{http.StatusBadRequest, "bad_json", "body: " + jsonError(err), 0}
	}
	return nil
}

// jsonError says what is wrong with JSON in the words of its sender.
func jsonError(err error) string {
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.As(err, &wrong) && wrong.Field == "":
		return "must be a JSON object"
	case errors.As(err, &wrong) && wrong.Type.Kind() == reflect.String &&
		slices.Contains([]string{"metadata", "context"}, wrong.Field):
		return fmt.Sprintf("the values of %s must be strings, not %s", wrong.Field, wrong.Value)
	case errors.As(err, &wrong):
		want, known := map[reflect.Kind]string{reflect.String: "a string", reflect.Int: "a whole number",
			reflect.Bool: "true or false"}[wrong.Type.Kind()]
		if !known {
			want = "an object"
		}
		return fmt.Sprintf("%s must be %s, not %s", wrong.Field, want, wrong.Value)
	case errors.Is(err, io.EOF):
		return "is empty"
	}
	return strings.TrimPrefix(err.Error(), "json: ")
}
