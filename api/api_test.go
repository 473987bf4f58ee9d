package api

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"go.uber.org/goleak"

	"voicebridge/calls"
	"voicebridge/control"
	"voicebridge/control/directory"
	"voicebridge/control/transfers"
	"voicebridge/hooks/gate"
	"voicebridge/providers"
	"voicebridge/providers/twilio"
	"voicebridge/transfer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newServer makes the API of a bridge with an account that places no calls.
func newServer(t testing.TB) (*Server, http.Handler) {
	t.Helper()
	f := twilio.Spec.Formats[0]
	account, err := twilio.Spec.NewAccount(providers.Setup{Decode: twilio.Spec.Sample("https://127.0.0.1:1", f)})
	if err != nil {
		t.Fatal(err)
	}
	account = providers.NewAccount(account.ID, twilio.Spec.Abilities, account.Webhooks, nil)
	c := control.New(control.Config{Providers: []*providers.Spec{twilio.Spec}, MaxCalls: 10,
		PublicURL: "https://bridge.example.com",
		Entries: directory.Entries{
			Accounts: map[string]control.Account{"main": {Spec: twilio.Spec, Account: account}}},
		Log: slog.New(slog.DiscardHandler)})
	s := New(Config{Tokens: []Token{{Name: "t", SHA256: sha256.Sum256([]byte("token"))}},
		Providers: []*providers.Spec{twilio.Spec},
		Control:   c, Gate: gate.New(nil), Log: slog.New(slog.DiscardHandler)})
	mux := http.NewServeMux()
	for pattern, h := range s.Doors() {
		mux.HandleFunc(pattern, h)
	}
	return s, mux
}

// TestOpenAPIPaths: the document describes what the API has, and nothing else.
func TestOpenAPIPaths(t *testing.T) {
	doc, err := openapi3.NewLoader().LoadFromData(openAPI)
	if err != nil {
		t.Fatal(err)
	}
	var described, served []string
	for path, item := range doc.Paths.Map() {
		for method := range item.Operations() {
			described = append(described, method+" "+path)
		}
	}
	s, _ := newServer(t)
	for pattern := range s.routes() {
		served = append(served, pattern)
	}
	served = append(served, "GET /v1/events", "GET /v1/openapi.yaml")
	slices.Sort(described)
	slices.Sort(served)
	if !slices.Equal(described, served) {
		t.Errorf("the document describes\n%s\nserved are\n%s", strings.Join(described, "\n"),
			strings.Join(served, "\n"))
	}
}

// enum returns the words that the document knows for a schema, or a property of it.
func enum(doc *openapi3.T, schema, property string) (words []string) {
	s := doc.Components.Schemas[schema].Value
	if property != "" {
		s = s.Properties[property].Value
	}
	for _, w := range s.Enum {
		words = append(words, w.(string))
	}
	return words
}

// TestOpenAPIWords: the document knows the words that the code knows.
func TestOpenAPIWords(t *testing.T) {
	doc, err := openapi3.NewLoader().LoadFromData(openAPI)
	if err != nil {
		t.Fatal(err)
	}
	if got := enum(doc, "Event", "type"); !slices.Equal(got, calls.EventTypes) {
		t.Errorf("events %v, want %v", got, calls.EventTypes)
	}
	for _, s := range enum(doc, "Status", "") {
		begun := []providers.Status{providers.StatusInitiated, providers.StatusRinging, providers.StatusInProgress}
		if s := providers.Status(s); !s.Final() && !slices.Contains(begun, s) {
			t.Errorf("status %s", s)
		}
	}
	if got := enum(doc, "Transfer", "state"); len(got) != len(transfer.States) ||
		got[len(got)-1] != string(transfer.TimedOut) {
		t.Errorf("states of transfers %v, want %v", got, transfer.States)
	}
	if got := enum(doc, "Transfer", "reason"); !slices.Equal(got, transfer.Reasons) {
		t.Errorf("reasons of transfers %v, want %v", got, transfer.Reasons)
	}
	codes := enum(doc, "Problem", "code")
	for _, err := range []error{control.ErrNoCall, control.ErrOver, control.ErrNotStarted, control.ErrNoCommands,
		control.ErrBusy, errors.New("x"), wrong("x"),
		&transfers.Refusal{Status: 422, Code: "bad_field"}, &transfers.Refusal{Status: 403, Code: "not_allowed"},
		&transfers.Refusal{Status: 422, Code: "invalid_destination"},
		&transfers.Refusal{Status: 409, Code: "unsupported"}} {
		if p, _ := problemOf(err); !slices.Contains(codes, p.Code) {
			t.Errorf("the document does not know the code %s", p.Code)
		}
	}
	for kind, status := range carrierStatus {
		p, retry := problemOf(&providers.CallError{Kind: kind})
		if p.Status != status || !slices.Contains(codes, p.Code) ||
			(status == http.StatusTooManyRequests) != (retry > 0) {
			t.Errorf("%s: %+v, again after %v", kind, p, retry)
		}
	}
}

// FuzzAPI: whatever is sent, it is answered, and not with an error of ours.
func FuzzAPI(f *testing.F) {
	s, mux := newServer(f)
	call := s.control.Calls().Add(calls.Call{Account: "main"})
	f.Add("POST", "/v1/calls", `{"account":"main","to":"+15550100123"}`)
	f.Add("POST", "/v1/calls/"+call.ID+"/hangup", `{"when":"now"}`)
	f.Add("POST", "/v1/calls/"+call.ID+"/digits", `{"digits":"1"}`)
	f.Add("POST", "/v1/calls/"+call.ID+"/redirect", `{"say":"x"}`)
	f.Add("GET", "/v1/calls?live=true&limit=7", "")
	f.Fuzz(func(t *testing.T, method, target, body string) {
		r, err := http.NewRequest(method, "http://x"+target, strings.NewReader(body))
		if err != nil || r.URL.Path == "/v1/events" {
			t.Skip()
		}
		r.Header.Set("Authorization", "Bearer token")
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		if w.Code >= 500 && w.Code != 503 {
			t.Fatalf("%s %s %s: %d %s", method, target, body, w.Code, w.Body)
		}
	})
}

// TestIdempotencyFull: a key that is repeated is known however many there are, and
// a request that is under way is not forgotten.
func TestIdempotencyFull(t *testing.T) {
	var m answers
	at := time.Now()
	add := func(key string, done bool) (*answer, error) {
		mine := &answer{at: at}
		before, err := m.begin(key, mine)
		if before == nil && err == nil && done {
			m.end(key, mine, reply{201, key}, nil)
		}
		return before, err
	}
	if _, err := add("busy", false); err != nil {
		t.Fatal(err)
	}
	for i := range maxKeys - 1 {
		if before, err := add(fmt.Sprint(i), true); before != nil || err != nil {
			t.Fatal(before, err)
		}
	}
	if before, err := add("0", true); err != nil || before == nil || before.reply.body != "0" {
		t.Errorf("the oldest key, repeated: %+v, %v", before, err)
	}
	if before, err := add("new", true); before != nil || err != nil {
		t.Errorf("a new key: %+v, %v", before, err)
	}
	if _, err := add("busy", true); err == nil {
		t.Error("a request under way was forgotten")
	}
	if len(m.order) != maxKeys || len(m.byKey) != maxKeys {
		t.Errorf("%d and %d keys", len(m.order), len(m.byKey))
	}
}

// TestJSONErrors speak of JSON, not of Go.
func TestJSONErrors(t *testing.T) {
	for body, want := range map[string]string{
		`{"to":1}`:             "to must be a string, not number",
		`{"ring_timeout":"x"}`: "ring_timeout must be a whole number, not string",
		`{"metadata":1}`:       "metadata must be an object, not number",
		`{"metadata":{"a":1}}`: "the values of metadata must be strings, not number",
		`[]`:                   "must be a JSON object",
		"":                     "is empty",
		`{"x":1}`:              `unknown field "x"`,
		`{`:                    "unexpected EOF",
	} {
		err := (&request{body: []byte(body)}).read(&dialRequest{})
		if err == nil || err.Error() != "body: "+want {
			t.Errorf("%s: %v, want %s", body, err, want)
		}
	}
}

// TestScopes: a token sees the calls of its accounts only, and does no more than it may.
func TestScopes(t *testing.T) {
	s, _ := newServer(t)
	s.SetTokens([]Token{
		{Name: "all", SHA256: sha256.Sum256([]byte("all"))},
		{Name: "reader", SHA256: sha256.Sum256([]byte("reader")), May: []string{mayRead}},
		{Name: "placer", SHA256: sha256.Sum256([]byte("placer")), May: []string{mayPlace}},
		{Name: "other", SHA256: sha256.Sum256([]byte("other")), Accounts: []string{"other"}},
		{Name: "main", SHA256: sha256.Sum256([]byte("main")), Accounts: []string{"main"}}})
	mux := http.NewServeMux()
	for pattern, h := range s.Doors() {
		mux.HandleFunc(pattern, h)
	}
	call := s.control.Calls().Add(calls.Call{Account: "main", Provider: "twilio", CarrierID: "CA1",
		Status: providers.StatusInProgress})
	for _, tt := range []struct {
		token, method, path string
		want                int
		body                string // part of it
	}{
		{"all", "GET", "/v1/calls/" + call.ID, 200, call.ID}, {"main", "GET", "/v1/calls/" + call.ID, 200, call.ID},
		{"reader", "GET", "/v1/calls/" + call.ID, 200, call.ID}, {"other", "GET", "/v1/calls/" + call.ID, 404, "not_found"},
		{"placer", "GET", "/v1/calls/" + call.ID, 403, "may not read"},
		{"reader", "POST", "/v1/calls/" + call.ID + "/hangup", 403, "may not control"},
		{"other", "POST", "/v1/calls/" + call.ID + "/hangup", 404, "not_found"},
		{"reader", "POST", "/v1/calls", 403, "may not place"},
		{"placer", "POST", "/v1/calls", 400, "bad_json"}, // it has no body
		{"all", "GET", "/v1/calls", 200, call.ID}, {"other", "GET", "/v1/calls", 200, `{"calls":[]}`},
		{"all", "GET", "/v1/accounts", 200, `"main"`}, {"other", "GET", "/v1/accounts", 200, `{"accounts":[]}`},
		{"other", "GET", "/v1/accounts/main/refused-webhooks", 404, "not_found"},
		{"other", "GET", "/v1/events?call=" + call.ID, 404, "not_found"}, {"placer", "GET", "/v1/events", 403, "may not read"},
		{"nobody", "GET", "/v1/calls", 401, "unauthorized"},
	} {
		r := httptest.NewRequest(tt.method, tt.path, nil)
		r.Header.Set("Authorization", "Bearer "+tt.token)
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		if w.Code != tt.want || !strings.Contains(w.Body.String(), tt.body) {
			t.Errorf("%s: %s %s: %d %s, want %d %s", tt.token, tt.method, tt.path, w.Code, w.Body, tt.want, tt.body)
		}
	}
}

// TestUnknownQuery: a parameter that means nothing is refused.
func TestUnknownQuery(t *testing.T) {
	s, _ := newServer(t)
	s.SetTokens([]Token{{Name: "all", SHA256: sha256.Sum256([]byte("all"))}})
	mux := http.NewServeMux()
	for pattern, h := range s.Doors() {
		mux.HandleFunc(pattern, h)
	}
	for path, want := range map[string]int{"/v1/calls?limit=5": 200, "/v1/calls?limt=5": 422, "/v1/events?calls=x": 422,
		"/v1/accounts?x": 422, "/v1/accounts": 200} {
		r := httptest.NewRequest("GET", path, nil)
		r.Header.Set("Authorization", "Bearer all")
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("%s: %d %s, want %d", path, w.Code, w.Body, want)
		}
	}
}

// TestTranscript: what was said in a call can be asked for while it is known, is told by events, and both are as the
// document has them.
func TestTranscript(t *testing.T) {
	doc, err := openapi3.NewLoader().LoadFromData(openAPI)
	if err != nil {
		t.Fatal(err)
	}
	s, mux := newServer(t)
	book := s.control.Calls()
	call := book.Add(calls.Call{Account: "main", Provider: "twilio"})
	feed, _ := book.Listen("")
	defer feed.Close()
	lines := []calls.Line{{Role: calls.Caller, Text: "Hello?", From: 20, To: 900},
		{Role: calls.Agent, Text: "One two three.", Heard: "One two", Interrupted: true, From: 1000, To: 1900}}
	for _, l := range lines {
		book.Said(call.ID, l)
		ev := <-feed.Events()
		if ev.Type != calls.EventTranscript || *ev.Said != l {
			t.Errorf("told is %+v", ev)
		}
		matches(t, doc, "Event", ev)
	}
	book.Used(call.ID, calls.Usage{"input_tokens": 20})
	book.Used(call.ID, calls.Usage{"input_tokens": 5, "seconds": 1.5})
	ask := func(path string) (int, map[string]any) {
		r := httptest.NewRequest("GET", path, nil)
		r.Header.Set("Authorization", "Bearer token")
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		var m map[string]any
		if err := json.Unmarshal(w.Body.Bytes(), &m); err != nil {
			t.Fatalf("%s: %s", path, w.Body)
		}
		return w.Code, m
	}
	status, m := ask("/v1/calls/" + call.ID + "/transcript")
	all, _ := m["transcript"].([]any)
	if status != http.StatusOK || len(all) != 2 || all[1].(map[string]any)["heard"] != "One two" {
		t.Errorf("%d, %v", status, m)
	}
	for _, l := range all {
		matches(t, doc, "Line", l)
	}
	if _, m := ask("/v1/calls/" + call.ID); m["usage"].(map[string]any)["input_tokens"] != 25.0 {
		t.Errorf("the call is %v", m)
	}
	if status, _ := ask("/v1/calls/cs_0/transcript"); status != http.StatusNotFound {
		t.Errorf("of no call: %d", status)
	}
}

// matches holds a value to a schema of the document.
func matches(t *testing.T, doc *openapi3.T, schema string, v any) {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var plain any
	if err := json.Unmarshal(b, &plain); err != nil {
		t.Fatal(err)
	}
	if err := doc.Components.Schemas[schema].Value.VisitJSON(plain); err != nil {
		t.Errorf("%s: %v", b, err)
	}
}
