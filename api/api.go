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
	"time"

	"voicebridge/control"
	"voicebridge/control/transfers"
	"voicebridge/hooks/gate"
	"voicebridge/providers"
)

// Token is a bearer token of the API, of which only the SHA-256 is known. Tokens are
// random, so that a plain hash will do.
type Token struct {
	Name   string
	SHA256 [sha256.Size]byte
}

// Config of a Server.
type Config struct {
	// Tokens open the API; without any, only the doors of agents are there.
	Tokens    []Token
	Providers []*providers.Spec
	Control   *control.Controller
	Transfers *transfers.Transfers // nil: there are none
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
}

// New makes a server, which also answers what other instances pass on.
func New(cfg Config) *Server {
	s := &Server{cfg: cfg, control: cfg.Control}
	cfg.Control.OnRemote("api", s.remote)
	return s
}

// request is one request to the API, and who makes it.
type request struct {
	*http.Request
	token string // its name
	body  []byte
}

// reply is what is answered: a status and a JSON value, or nothing.
type reply struct {
	status int
	body   any
}

// routes are the requests of the API; openapi.yaml describes each.
func (s *Server) routes() map[string]func(*request) (reply, error) {
	return map[string]func(*request) (reply, error){
		"POST /v1/calls":                              s.dial,
		"GET /v1/calls":                               s.list,
		"GET /v1/calls/{call}":                        s.get,
		"POST /v1/calls/{call}/hangup":                s.hangup,
		"POST /v1/calls/{call}/digits":                s.digits,
		"POST /v1/calls/{call}/redirect":              s.redirect,
		"POST /v1/calls/{call}/transfers":             s.beginTransfer,
		"GET /v1/transfers/{transfer}":                s.getTransfer,
		"DELETE /v1/transfers/{transfer}":             s.endTransfer,
		"GET /v1/providers":                           s.providers,
		"GET /v1/accounts":                            s.accounts,
		"GET /v1/accounts/{account}/refused-webhooks": s.refused,
		"POST /v1/pools/{pool}/tokens":                s.poolToken,
	}
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
	for pattern, do := range s.routes() {
		doors[pattern] = s.authorized(func(w http.ResponseWriter, a *request) {
			if s.pass(w, a, pattern) {
				return
			}
			r, err := do(a)
			if err != nil {
				s.fail(w, a.Request, err)
				return
			}
			writeJSON(w, r.status, "application/json", r.body)
		})
	}
	doors["GET /v1/events"] = s.authorized(s.events)
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

// authorized lets through who has a token.
func (s *Server) authorized(next func(http.ResponseWriter, *request)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		name, ok := s.tokenName(r)
		if !ok {
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
		next(w, &request{r, name, body})
	}
}

// tokenName finds whose token a request shows. All are compared, so that the time
// tells nothing.
func (s *Server) tokenName(r *http.Request) (name string, ok bool) {
	shown, bearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	sum := sha256.Sum256([]byte(shown))
	for _, t := range s.cfg.Tokens {
		if subtle.ConstantTimeCompare(sum[:], t.SHA256[:]) == 1 {
			name, ok = t.Name, bearer
		}
	}
	return name, ok
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
