package media

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	_ "embed" // the OpenAPI document
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"voicebridge/calls"
	"voicebridge/providers"
	"voicebridge/session"
)

// APIToken is a bearer token of the control API, of which only the SHA-256 is
// known. Tokens are random, so that a plain hash will do.
type APIToken struct {
	Name   string
	SHA256 [sha256.Size]byte
}

// openAPI describes the control API.
//
//go:embed openapi.yaml
var openAPI []byte

// maxRequest bounds the body of an API request.
const maxRequest = 64 << 10

// apiError is an error as the API tells it.
type apiError struct {
	status int
	code   string
	detail string
	retry  time.Duration
}

func (e *apiError) Error() string { return e.detail }

// problem is RFC 9457.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
	Code   string `json:"code"`
	// Carrier is what the carrier said, where it is to blame.
	Carrier *carrierProblem `json:"carrier,omitempty"`
}

type carrierProblem struct {
	Kind   providers.CallErrorKind `json:"kind"`
	Status int                     `json:"status,omitempty"`
	Code   string                  `json:"code,omitempty"`
	Detail string                  `json:"detail,omitempty"`
}

// carrierStatus is what a carrier's error is answered with.
var carrierStatus = map[providers.CallErrorKind]int{
	providers.ErrCredentials: http.StatusBadGateway,
	providers.ErrNoCall:      http.StatusConflict,
	providers.ErrRejected:    http.StatusUnprocessableEntity,
	providers.ErrRate:        http.StatusTooManyRequests,
	providers.ErrUnavailable: http.StatusBadGateway,
}

// problemOf says how an error is answered.
func problemOf(err error) (p problem, retry time.Duration) {
	var api *apiError
	var carrier *providers.CallError
	var no *transferRefusal
	switch {
	case errors.As(err, &api):
		p.Status, p.Code, p.Detail, retry = api.status, api.code, api.detail, api.retry
	case errors.As(err, &carrier):
		p.Status, p.Code, p.Detail, retry = carrierStatus[carrier.Kind], "carrier_"+string(carrier.Kind), carrier.Error(), carrier.Retry
		if carrier.Kind == providers.ErrRate {
			retry = max(retry, time.Second)
		}
		p.Carrier = &carrierProblem{carrier.Kind, carrier.Status, carrier.Code, carrier.Detail}
	case errors.As(err, &no):
		p.Status, p.Code, p.Detail = no.status, no.code, no.words
		if p.Code == "bad_field" {
			p.Code = "invalid"
		}
		if p.Status == http.StatusServiceUnavailable {
			retry = time.Second
		}
	case errors.Is(err, errNoCall):
		p.Status, p.Code, p.Detail = http.StatusNotFound, "not_found", err.Error()
	case errors.Is(err, errOver), errors.Is(err, errNotStarted):
		p.Status, p.Code, p.Detail = http.StatusConflict, "wrong_state", err.Error()
	case errors.Is(err, errNoREST):
		p.Status, p.Code, p.Detail = http.StatusConflict, "no_credentials", err.Error()
	default:
		p.Status, p.Code, p.Detail = http.StatusInternalServerError, "internal", "something went wrong: see the log"
	}
	p.Type, p.Title = "urn:voicebridge:error:"+p.Code, http.StatusText(p.Status)
	return p, retry
}

func wrong(detail string, args ...any) error {
	return &apiError{http.StatusUnprocessableEntity, "invalid", fmt.Sprintf(detail, args...), 0}
}

// apiCall is one request to the API, and who makes it.
type apiCall struct {
	*http.Request
	token string // its name
	body  []byte
}

// read decodes the body, strictly.
func (a *apiCall) read(into any) error {
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
	case errors.As(err, &wrong) && wrong.Type.Kind() == reflect.String && slices.Contains([]string{"metadata", "context"}, wrong.Field):
		return fmt.Sprintf("the values of %s must be strings, not %s", wrong.Field, wrong.Value)
	case errors.As(err, &wrong):
		want, known := map[reflect.Kind]string{reflect.String: "a string", reflect.Int: "a whole number", reflect.Bool: "true or false"}[wrong.Type.Kind()]
		if !known {
			want = "an object"
		}
		return fmt.Sprintf("%s must be %s, not %s", wrong.Field, want, wrong.Value)
	case errors.Is(err, io.EOF):
		return "is empty"
	}
	return strings.TrimPrefix(err.Error(), "json: ")
}

// reply is what is answered: a status and a JSON value, or nothing.
type reply struct {
	status int
	body   any
}

// apiRoutes are the requests of the API; openapi.yaml describes each.
func (s *Server) apiRoutes() map[string]func(*apiCall) (reply, error) {
	return map[string]func(*apiCall) (reply, error){
		"POST /v1/calls":                              s.apiDial,
		"GET /v1/calls":                               s.apiList,
		"GET /v1/calls/{call}":                        s.apiGet,
		"POST /v1/calls/{call}/hangup":                s.apiHangup,
		"POST /v1/calls/{call}/digits":                s.apiDigits,
		"POST /v1/calls/{call}/redirect":              s.apiRedirect,
		"POST /v1/calls/{call}/transfers":             s.apiTransfer,
		"GET /v1/transfers/{transfer}":                s.apiGetTransfer,
		"DELETE /v1/transfers/{transfer}":             s.apiCancelTransfer,
		"GET /v1/providers":                           s.apiProviders,
		"GET /v1/accounts":                            s.apiAccounts,
		"GET /v1/accounts/{account}/refused-webhooks": s.apiRefused,
		"POST /v1/pools/{pool}/tokens":                s.apiPoolToken,
	}
}

// api adds the doors of the control API, if there is a token for it.
func (s *Server) api(doors map[string]http.HandlerFunc) {
	if len(s.cfg.Tokens) == 0 {
		return
	}
	for pattern, do := range s.apiRoutes() {
		doors[pattern] = s.authorized(func(w http.ResponseWriter, a *apiCall) {
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
	doors["GET /v1/events"] = s.authorized(s.apiEvents)
	doors["GET /v1/openapi.yaml"] = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/yaml")
		_, _ = w.Write(openAPI)
	}
	doors["/v1/"] = func(w http.ResponseWriter, r *http.Request) {
		s.fail(w, r, &apiError{http.StatusNotFound, "not_found", "there is nothing at this path and method: see /v1/openapi.yaml", 0})
	}
}

// authorized lets through who has a token.
func (s *Server) authorized(next func(http.ResponseWriter, *apiCall)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		name, ok := s.tokenName(r)
		if !ok {
			s.stranger(w, r, &apiError{http.StatusUnauthorized, "unauthorized", "Authorization must be Bearer, with a token of api.tokens", 0})
			return
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
		if err != nil {
			s.fail(w, r, &apiError{http.StatusRequestEntityTooLarge, "too_large", fmt.Sprintf("the body is larger than %d bytes", maxRequest), 0})
			return
		}
		if kind := r.Header.Get("Content-Type"); len(body) > 0 && !strings.HasPrefix(kind, "application/json") {
			s.fail(w, r, &apiError{http.StatusUnsupportedMediaType, "media_type", "Content-Type must be application/json", 0})
			return
		}
		next(w, &apiCall{r, name, body})
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

func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	p, retry := problemOf(err)
	if p.Status == http.StatusInternalServerError {
		s.cfg.Log.Error("API", "method", r.Method, "pattern", r.Pattern, "err", err)
	}
	retryAfter(w, retry)
	writeJSON(w, p.Status, "application/problem+json", p)
}

func retryAfter(w http.ResponseWriter, d time.Duration) {
	if d > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(d.Seconds()))))
	}
}

func writeJSON(w http.ResponseWriter, status int, kind string, v any) {
	if v == nil {
		w.WriteHeader(status)
		return
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // a client that is gone needs no answer
}

// apiDial places a call. A request that is repeated with its Idempotency-Key is
// answered as the first was.
func (s *Server) apiDial(a *apiCall) (reply, error) {
	r := dialRequest{Ring: defaultRing, Detect: detectOff}
	if err := a.read(&r); err != nil {
		return reply{}, err
	}
	account, known := s.cfg.Accounts[r.Account]
	r.From = s.callerID(&account, r.From)
	switch {
	case !known:
		return reply{}, wrong("account: %q is not one of the configured accounts", clip(r.Account))
	case account.Calls == nil:
		return reply{}, errNoREST
	case !providers.ValidNumber(r.To):
		return reply{}, wrong("to: must be a number in E.164, such as +15550100123")
	case !providers.ValidNumber(r.From):
		return reply{}, wrong("from: must be a number in E.164; it may be left out where the account has from or numbers")
	case r.Ring < minRing || r.Ring > maxRing:
		return reply{}, wrong("ring_timeout: must be %d to %d seconds", minRing, maxRing)
	case !slices.Contains([]string{detectOff, detectReport, detectHangup}, r.Detect):
		return reply{}, wrong("machine_detection: must be off, report or hangup")
	case !validDialDigits(r.Digits):
		return reply{}, wrong("digits: must be at most %d of 0-9 * # w", maxDialDigits)
	}
	if r.Digits != "" && r.Detect != detectOff { // Twilio would leave the detection out
		return reply{}, wrong("digits: cannot be sent by a call with machine_detection: send them later, or let the agent")
	}
	if err := s.checkRoute(Route{r.Agent, r.Metadata}); err != nil {
		return reply{}, wrong("%v", err)
	}
	return s.once(a, func() (reply, error) {
		if s.draining.Load() || s.book.Live() >= s.cfg.Limits.Calls {
			return reply{}, &apiError{http.StatusServiceUnavailable, "busy", "no more calls are taken now", 5 * time.Second}
		}
		call, err := s.dial(a.Context(), account, &r)
		return reply{http.StatusCreated, call}, err
	})
}

const (
	defaultList = 100
	maxList     = 1000
)

// apiList lists calls, the newest first.
func (s *Server) apiList(a *apiCall) (reply, error) {
	q := a.URL.Query()
	limit := defaultList
	if l := q.Get("limit"); l != "" {
		n, err := strconv.Atoi(l)
		if err != nil || n < 1 || n > maxList {
			return reply{}, wrong("limit: must be 1 to %d", maxList)
		}
		limit = n
	}
	live, status := q.Get("live"), providers.Status(q.Get("status"))
	switch {
	case live != "" && live != "true" && live != "false":
		return reply{}, wrong("live: must be true or false")
	case status != "" && status != providers.StatusInitiated && status != providers.StatusRinging && status != providers.StatusInProgress && !status.Final():
		return reply{}, wrong("status: %q is none", clip(string(status)))
	}
	list := s.book.List(limit, func(c *calls.Call) bool {
		return (q.Get("account") == "" || q.Get("account") == c.Account) &&
			(status == "" || status == c.Status) &&
			(live == "" || live == strconv.FormatBool(!c.Status.Final()))
	})
	return reply{http.StatusOK, map[string]any{"calls": list}}, nil
}

func (s *Server) apiGet(a *apiCall) (reply, error) {
	call, known := s.book.Get(a.PathValue("call"))
	if !known {
		return reply{}, errNoCall
	}
	return reply{http.StatusOK, call}, nil
}

func (s *Server) apiHangup(a *apiCall) (reply, error) {
	r := struct {
		When string `json:"when"`
	}{"now"}
	if len(a.body) > 0 {
		if err := a.read(&r); err != nil {
			return reply{}, err
		}
	}
	if r.When != "now" && r.When != "after_playback" {
		return reply{}, wrong("when: must be now or after_playback")
	}
	ctx, stop := context.WithTimeout(context.WithoutCancel(a.Context()), restTime)
	defer stop()
	return reply{http.StatusNoContent, nil}, s.hangup(ctx, a.PathValue("call"), r.When == "after_playback")
}

func (s *Server) apiDigits(a *apiCall) (reply, error) {
	var r struct {
		Digits string `json:"digits"`
	}
	if err := a.read(&r); err != nil {
		return reply{}, err
	}
	if !session.ValidDigits(r.Digits) {
		return reply{}, wrong("digits: must be 1 to 64 of 0-9 * # A-D w W")
	}
	ctx, stop := context.WithTimeout(context.WithoutCancel(a.Context()), restTime)
	defer stop()
	return reply{http.StatusNoContent, nil}, s.digits(ctx, a.PathValue("call"), r.Digits)
}

func (s *Server) apiRedirect(a *apiCall) (reply, error) {
	var r struct {
		Say  string `json:"say"`
		Dial string `json:"dial"`
	}
	if err := a.read(&r); err != nil {
		return reply{}, err
	}
	switch {
	case r.Say == "" && r.Dial == "":
		return reply{}, wrong("say or dial must be set")
	case len(r.Say) > MaxSay:
		return reply{}, wrong("say: must have at most %d bytes", MaxSay)
	case r.Dial != "" && !providers.ValidNumber(r.Dial):
		return reply{}, wrong("dial: must be a number in E.164, such as +15550100123")
	}
	ctx, stop := context.WithTimeout(context.WithoutCancel(a.Context()), restTime)
	defer stop()
	return reply{http.StatusNoContent, nil}, s.redirect(ctx, a.PathValue("call"), r.Say, r.Dial)
}

// providerInfo describes a carrier.
type providerInfo struct {
	Name     string   `json:"name"`
	Title    string   `json:"title"`
	Formats  []string `json:"formats"`
	Marks    bool     `json:"marks"`
	Clear    bool     `json:"clear"`
	DTMFIn   bool     `json:"dtmf_in"`
	Accounts bool     `json:"accounts"`
}

// apiProviders lists the carriers and what they can do.
func (s *Server) apiProviders(*apiCall) (reply, error) {
	list := []providerInfo{}
	for _, p := range s.cfg.Providers {
		can := p.Abilities
		info := providerInfo{Name: p.Name, Title: p.Title, Marks: can.Marks, Clear: can.Clear, DTMFIn: can.Digits, Accounts: p.NewAccount != nil}
		for _, f := range p.Formats {
			info.Formats = append(info.Formats, f.String())
		}
		list = append(list, info)
	}
	return reply{http.StatusOK, map[string]any{"providers": list}}, nil
}

type accountInfo struct {
	Name     string   `json:"name"`
	Provider string   `json:"provider"`
	From     string   `json:"from,omitempty"`
	Numbers  []string `json:"numbers"`
	Calls    bool     `json:"calls"`
	DTMFOut  string   `json:"dtmf_out"`
	Inbound  string   `json:"inbound_url"`
	Status   string   `json:"status_url"`
}

// apiAccounts lists the accounts, without secrets.
func (s *Server) apiAccounts(*apiCall) (reply, error) {
	list := []accountInfo{}
	for name, a := range s.cfg.Accounts {
		hooks := s.hookURL("/hooks/" + a.Spec.Name + "/" + name)
		info := accountInfo{Name: name, Provider: a.Spec.Name, From: a.From, Numbers: append([]string{}, a.Numbers...),
			Calls: a.Calls != nil, DTMFOut: "inband", Inbound: hooks + "/inbound", Status: hooks + "/status"}
		if a.Spec.Abilities.SendDigits || a.Calls != nil && a.Calls.SendsDigits() {
			info.DTMFOut = "native"
		}
		list = append(list, info)
	}
	slices.SortFunc(list, func(x, y accountInfo) int { return strings.Compare(x.Name, y.Name) })
	return reply{http.StatusOK, map[string]any{"accounts": list}}, nil
}

type refusedInfo struct {
	Time        time.Time `json:"time"`
	Method      string    `json:"method"`
	Path        string    `json:"path"` // without what may be a token
	Error       string    `json:"error"`
	Explanation []string  `json:"explanation"`
}

// apiRefused explains the last webhooks of an account that were refused.
func (s *Server) apiRefused(a *apiCall) (reply, error) {
	account, known := s.cfg.Accounts[a.PathValue("account")]
	if !known {
		return reply{}, &apiError{http.StatusNotFound, "not_found", "no such account", 0}
	}
	list := []refusedInfo{}
	for _, r := range s.refused.list(a.PathValue("account")) {
		info := refusedInfo{Time: r.at, Method: r.hook.Method, Path: hookPath(r.hook.URL), Error: hide(r.err.Error())}
		for _, line := range account.Webhooks.Explain(r.hook, r.at) {
			info.Explanation = append(info.Explanation, hide(line))
		}
		list = append(list, info)
	}
	return reply{http.StatusOK, map[string]any{"refused": list}}, nil
}

// tokenPart is the part of a path that holds a token.
var tokenPart = regexp.MustCompile(`(/(?:media/[a-z]+|hooks/[a-z]+/[A-Za-z0-9_-]+/answer)/)[A-Za-z0-9_-]{20,}`)

// hide replaces tokens in URLs.
func hide(s string) string { return tokenPart.ReplaceAllString(s, "${1}TOKEN") }

// hookPath is the path of a URL, without tokens.
func hookPath(u string) string {
	if _, rest, ok := strings.Cut(u, "://"); ok {
		if i := strings.IndexByte(rest, '/'); i >= 0 {
			u = rest[i:]
		}
	}
	return hide(u)
}

// tokenMaker is a pool whose agents may connect with tokens for one time.
type tokenMaker interface {
	NewToken() (token string, expires time.Time)
}

func (s *Server) apiPoolToken(a *apiCall) (reply, error) {
	pool, ok := s.cfg.Agents[a.PathValue("pool")].Dialer.(tokenMaker)
	if !ok {
		return reply{}, &apiError{http.StatusNotFound, "not_found", "no such pool", 0}
	}
	token, expires := pool.NewToken()
	return reply{http.StatusCreated, map[string]any{"token": token, "expires_at": expires, "url": s.socketURL("/v1/pools/" + a.PathValue("pool") + "/agent")}}, nil
}

// attender are agents that connect for a call.
type attender interface {
	// Waits tells whether a call waits for its agent, Admits whether a request
	// shows the token of the call.
	Waits(session string) bool
	Admits(r *http.Request, session string) bool
	Attend(w http.ResponseWriter, r *http.Request, session string)
}

// attend takes the agent of a call that waits for it.
func (s *Server) attend(w http.ResponseWriter, r *http.Request) {
	call := r.PathValue("call")
	for _, a := range s.cfg.Agents {
		at, ok := a.Dialer.(attender)
		switch {
		case !ok || !at.Waits(call):
		case !at.Admits(r, call):
			s.stranger(w, r, &apiError{http.StatusUnauthorized, "unauthorized", "the token must be the one of the announcement", 0})
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
	// Admits tells whether a request shows a token of the pool's.
	Admits(r *http.Request) bool
	http.Handler
}

// park takes an agent that waits for calls.
func (s *Server) park(w http.ResponseWriter, r *http.Request) {
	p, ok := s.cfg.Agents[r.PathValue("pool")].Dialer.(pool)
	switch {
	case !ok:
		s.stranger(w, r, &apiError{http.StatusNotFound, "not_found", "no such pool", 0})
	case !p.Admits(r):
		s.stranger(w, r, &apiError{http.StatusUnauthorized, "unauthorized", "the token must be the pool's bearer, or one of the API's that was not used yet", 0})
	default:
		p.ServeHTTP(w, r)
	}
}

// stranger answers those who show no good token, not too often.
func (s *Server) stranger(w http.ResponseWriter, r *http.Request, err *apiError) {
	if !s.strangers.Allow() {
		s.totals.refuse("strangers")
		err = &apiError{http.StatusTooManyRequests, "rate_limited", "too many requests without a good token", time.Second}
	} else if err.status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="voicebridge"`)
	}
	s.fail(w, r, err)
}
