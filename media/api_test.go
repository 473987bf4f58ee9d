package media

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"golang.org/x/time/rate"

	"voicebridge/agent"
	"voicebridge/calls"
	"voicebridge/providers"
	"voicebridge/providers/twilio"
	"voicebridge/transfer"
)

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
	s := New(Config{Limits: Defaults, Log: slog.New(slog.DiscardHandler)})
	for pattern := range s.apiRoutes() {
		served = append(served, pattern)
	}
	served = append(served, "GET /v1/events", "GET /v1/openapi.yaml")
	slices.Sort(described)
	slices.Sort(served)
	if !slices.Equal(described, served) {
		t.Errorf("the document describes\n%s\nserved are\n%s", strings.Join(described, "\n"), strings.Join(served, "\n"))
	}
}

// TestOpenAPIWords: the document knows the words that the code knows.
func TestOpenAPIWords(t *testing.T) {
	doc, err := openapi3.NewLoader().LoadFromData(openAPI)
	if err != nil {
		t.Fatal(err)
	}
	enum := func(schema, property string) (words []string) {
		s := doc.Components.Schemas[schema].Value
		if property != "" {
			s = s.Properties[property].Value
		}
		for _, w := range s.Enum {
			words = append(words, w.(string))
		}
		return words
	}
	if got := enum("Event", "type"); !slices.Equal(got, calls.EventTypes) {
		t.Errorf("events %v, want %v", got, calls.EventTypes)
	}
	for _, s := range enum("Status", "") {
		if s := providers.Status(s); !s.Final() && s != providers.StatusInitiated && s != providers.StatusRinging && s != providers.StatusInProgress {
			t.Errorf("status %s", s)
		}
	}
	if got := enum("Transfer", "state"); len(got) != len(transfer.States) || got[len(got)-1] != string(transfer.TimedOut) {
		t.Errorf("states of transfers %v, want %v", got, transfer.States)
	}
	if got := enum("Transfer", "reason"); !slices.Equal(got, transfer.Reasons) {
		t.Errorf("reasons of transfers %v, want %v", got, transfer.Reasons)
	}
	codes := enum("Problem", "code")
	for _, err := range []error{errNoCall, errOver, errNotStarted, errNoREST, errors.New("x"), wrong("x"), storeAway(errors.New("x")),
		refuseTransfer(422, "bad_field", "x"), refuseTransfer(403, "not_allowed", "x"), refuseTransfer(422, "invalid_destination", "x"), refuseTransfer(409, "unsupported", "x")} {
		if p, _ := problemOf(err); !slices.Contains(codes, p.Code) {
			t.Errorf("the document does not know the code %s", p.Code)
		}
	}
	for kind, status := range carrierStatus {
		p, retry := problemOf(&providers.CallError{Kind: kind})
		if p.Status != status || !slices.Contains(codes, p.Code) || (status == http.StatusTooManyRequests) != (retry > 0) {
			t.Errorf("%s: %+v, again after %v", kind, p, retry)
		}
	}
}

// TestDoorsTable walks the table of doors in docs/configuration.md: it has every
// door, and each is shut to a stranger as it says.
func TestDoorsTable(t *testing.T) {
	b, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(b), "\n## Doors\n")
	text, _, _ = strings.Cut(text, "\n## ")
	pool, err := agent.NewPool("desk", agent.Incoming{}, "a bearer token of the pool")
	if err != nil {
		t.Fatal(err)
	}
	account, err := twilio.NewAccount(twilio.Sample("https://127.0.0.1:1", twilio.Spec.Formats[0]))
	if err != nil {
		t.Fatal(err)
	}
	s := New(Config{Providers: []*providers.Spec{twilio.Spec}, Limits: Defaults, Log: slog.New(slog.DiscardHandler), PublicURL: "https://bridge.example.com",
		Agents: map[string]Agent{"": {Dialer: pool}, "desk": {Dialer: pool}}, Tokens: []APIToken{{Name: "t"}},
		Accounts:  map[string]Account{"main": {Spec: twilio.Spec, Account: account}},
		Transfers: &Transfers{Store: transfer.NewMemory(time.Now, transfer.Tombstone), Manager: transfer.Defaults}})
	s.strangers.SetLimit(rate.Inf)
	listed := map[string]bool{}
	fill := strings.NewReplacer("{provider}", "twilio", "{account}", "main", "{call}", "cs_1", "{token...}", "AAAA", "{token}", "AAAA", "{transfer}", "tr_1", "{nonce}", "n", "{what}", "answer", "{pool}", "desk")
	for row := range strings.Lines(text) {
		cells := strings.Split(row, "|")
		if len(cells) < 6 || !strings.Contains(cells[1], "`/") && !strings.Contains(cells[1], " /") {
			continue
		}
		for door := range strings.SplitSeq(strings.ReplaceAll(cells[1], "`", ""), ",") {
			door = strings.TrimSpace(door)
			listed[door] = true
			method, path, ok := strings.Cut(door, " ")
			if !ok {
				method, path = "POST", door
			}
			w := httptest.NewRecorder()
			s.Public().ServeHTTP(w, httptest.NewRequest(method, fill.Replace(path), nil))
			if want := regexp.MustCompile(`[0-9]{3}`).FindString(cells[4]); fmt.Sprint(w.Code) != want {
				t.Errorf("%s: a stranger gets %d, the table says %s", door, w.Code, want)
			}
		}
	}
	for pattern := range s.doors() {
		if !listed[pattern] {
			t.Errorf("the table does not list %s", pattern)
		}
		delete(listed, pattern)
	}
	for door := range listed {
		t.Errorf("the table lists %s, which is not there", door)
	}
}

// FuzzAPI: whatever is sent, it is answered, and not with an error of ours.
func FuzzAPI(f *testing.F) {
	account, err := twilio.NewAccount(twilio.Sample("https://127.0.0.1:1", twilio.Spec.Formats[0]))
	if err != nil {
		f.Fatal(err)
	}
	account.Calls = nil // nothing is placed
	s := New(Config{Providers: []*providers.Spec{twilio.Spec}, Limits: Defaults, Log: slog.New(slog.DiscardHandler), PublicURL: "https://bridge.example.com",
		Tokens: []APIToken{{Name: "t", SHA256: sha256.Sum256([]byte("token"))}}, Accounts: map[string]Account{"main": {Spec: twilio.Spec, Account: account}}})
	call := s.book.Add(calls.Call{Account: "main"})
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
		s.Public().ServeHTTP(w, r)
		if w.Code >= 500 && w.Code != 503 {
			t.Fatalf("%s %s %s: %d %s", method, target, body, w.Code, w.Body)
		}
	})
}

// TestReconcile: the carrier is asked about calls that it reports nothing of.
func TestReconcile(t *testing.T) {
	account, err := twilio.NewAccount(twilio.Sample("https://127.0.0.1:1", twilio.Spec.Formats[0]))
	if err != nil {
		t.Fatal(err)
	}
	carrier := &asked{answers: map[string]error{"CA2": &providers.CallError{Kind: providers.ErrNoCall}, "CA3": &providers.CallError{Kind: providers.ErrUnavailable}}}
	account.Calls = carrier
	s := New(Config{Providers: []*providers.Spec{twilio.Spec}, Limits: Defaults, Log: slog.New(slog.DiscardHandler),
		Accounts: map[string]Account{"main": {Spec: twilio.Spec, Account: account}}})
	now := time.Now()
	s.book = calls.New(func() time.Time { return now })
	want := map[string]providers.Status{}
	for id, status := range map[string]providers.Status{"CA1": providers.StatusBusy, "CA2": providers.StatusCompleted, "CA3": providers.StatusInitiated} {
		want[s.book.Add(calls.Call{Account: "main", CarrierID: id}).ID] = status
	}
	s.reconcile()
	s.background.Wait()
	if carrier.n.Load() != 0 {
		t.Error("asked too early")
	}
	now = now.Add(quietCall)
	s.reconcile()
	s.background.Wait()
	for id, status := range want {
		if c, _ := s.book.Get(id); c.Status != status {
			t.Errorf("%+v, want %s", c, status)
		}
	}
}

// asked is a carrier that knows how calls are.
type asked struct {
	providers.Calls
	answers map[string]error
	n       atomic.Int32
}

func (a *asked) Get(_ context.Context, id string) (*providers.StatusReport, error) {
	a.n.Add(1)
	return &providers.StatusReport{Call: id, Status: providers.StatusBusy}, a.answers[id]
}

// TestHangupBesideDial: whenever a call is hung up while it is placed, it ends at
// the carrier.
func TestHangupBesideDial(t *testing.T) {
	account, err := twilio.NewAccount(twilio.Sample("https://127.0.0.1:1", twilio.Spec.Formats[0]))
	if err != nil {
		t.Fatal(err)
	}
	carrier := &placing{live: map[string]bool{}}
	account.Calls = carrier
	main := Account{Spec: twilio.Spec, Account: account}
	s := New(Config{Providers: []*providers.Spec{twilio.Spec}, Limits: Defaults, Log: slog.New(slog.DiscardHandler),
		Accounts: map[string]Account{"main": main}})
	for range 500 {
		feed, _ := s.book.Listen("")
		done := make(chan struct{})
		go func() {
			defer close(done)
			if _, err := s.dial(context.Background(), main, &dialRequest{Account: "main"}); err != nil {
				t.Error(err)
			}
		}()
		if err := s.hangup(context.Background(), (<-feed.Events()).Call.ID, false); err != nil {
			t.Error(err)
		}
		feed.Close()
		<-done
	}
	s.background.Wait()
	if n := len(carrier.live); n > 0 {
		t.Errorf("%d calls live on", n)
	}
}

// placing is a carrier that knows which calls are live.
type placing struct {
	providers.Calls
	mu   sync.Mutex
	n    int
	live map[string]bool
}

func (p *placing) Dial(context.Context, *providers.Dial) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.n++
	id := fmt.Sprint("CA", p.n)
	p.live[id] = true
	return id, nil
}

func (p *placing) Hangup(_ context.Context, id string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.live, id)
	return nil
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
		`{"to":1}`: "to must be a string, not number", `{"ring_timeout":"x"}`: "ring_timeout must be a whole number, not string",
		`{"metadata":1}`: "metadata must be an object, not number", `{"metadata":{"a":1}}`: "the values of metadata must be strings, not number", `[]`: "must be a JSON object", "": "is empty", `{"x":1}`: `unknown field "x"`, `{`: "unexpected EOF",
	} {
		err := (&apiCall{body: []byte(body)}).read(&dialRequest{})
		if err == nil || err.Error() != "body: "+want {
			t.Errorf("%s: %v, want %s", body, err, want)
		}
	}
}

// TestTransferChanges: what is told late of a transfer does not undo what came
// after it.
func TestTransferChanges(t *testing.T) {
	tr := &transfers{byCall: map[string]*noted{}}
	change := func(id string, version int64, final bool) bool {
		return tr.note(&transferChange{Call: "cs_1", Version: version, Final: final, Info: calls.Transfer{ID: id}})
	}
	if !change("tr_1", 2, false) || !change("tr_1", 5, true) || change("tr_1", 3, false) || change("tr_1", 5, true) {
		t.Error("not just what is new")
	}
	if id, has := tr.of("cs_1"); id != "" || has {
		t.Errorf("%q, %v after the end", id, has)
	}
	if !change("tr_2", 1, false) { // the next one begins anew
		t.Error("a second transfer")
	}
	if id, _ := tr.of("cs_1"); id != "tr_2" {
		t.Errorf("%q", id)
	}
	done := tr.wish("cs_2")
	if _, has := tr.of("cs_2"); !has {
		t.Error("a wish is not known")
	}
	tr.forget("cs_2")
	done()
	if _, has := tr.of("cs_2"); has {
		t.Error("a wish that was refused is known")
	}
	tr.forget("cs_2")
	if len(tr.byCall) != 1 {
		t.Errorf("%d calls are remembered", len(tr.byCall))
	}
}
