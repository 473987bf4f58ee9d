package hooks

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"voicebridge/control"
	"voicebridge/hooks/gate"
	"voicebridge/providers"
	"voicebridge/wav"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// odd is a carrier whose signature is a header, and whose body says what is to be read.
type odd struct{}

// Authenticate implements providers.Webhooks.
func (odd) Authenticate(h *providers.Hook, _ time.Time) (string, error) {
	switch h.Header.Get("Signed") {
	case "":
		return "", providers.ErrSignature
	case "forgotten":
		return "", providers.ErrUnsigned
	}
	return h.Header.Get("Signed"), nil
}

// Explain implements providers.Webhooks.
func (odd) Explain(*providers.Hook, time.Time) []string { return nil }

// Read implements providers.Webhooks.
func (odd) Read(h *providers.Hook) (evs []providers.CallEvent, err error) {
	for word := range strings.FieldsSeq(string(h.Body)) {
		switch word {
		case "bad":
			return nil, errors.New("what?")
		case "ask":
			evs = append(evs, providers.CallEvent{Kind: providers.CallAsked, Leg: "C1", Wants: true})
		case "tell":
			evs = append(evs, providers.CallEvent{Kind: providers.CallProgress, Leg: "C1", Ref: "own"})
		}
	}
	return evs, nil
}

// Document implements providers.Webhooks.
func (odd) Document(a *providers.Answer) (providers.Document, error) {
	if a.Say == "unspeakable" {
		return providers.Document{}, errors.New("no")
	}
	return providers.Document{ContentType: "text/odd", Body: []byte(a.Say)}, nil
}

// decider is a control that answers as it is told.
type decider struct {
	say string
	err error
	got []providers.CallEvent
}

// Account implements Control.
func (d *decider) Account(name string) (control.Account, bool) {
	account := providers.NewAccount("", providers.Abilities{}, odd{}, speaker{})
	return control.Account{Spec: &providers.Spec{Name: "odd"}, Account: account}, name == "main"
}

// WordsOf implements Control.
func (d *decider) WordsOf(_, token string) (*providers.Answer, error) {
	words, is := strings.CutPrefix(token, "good-")
	if !is {
		return nil, control.ErrToken
	}
	return &providers.Answer{Say: words}, nil
}

// speaker is a carrier that plays files: one with a sample at 22,050 Hz for each letter.
type speaker struct{ providers.Commands }

// Speaks implements providers.Speaker.
func (speaker) Speaks(func(*providers.Answer) string) {}

// Speak implements providers.Speaker.
func (speaker) Speak(_ context.Context, a *providers.Answer) ([]byte, error) {
	if words := a.Say; words == "unspeakable" {
		return []byte("no file"), nil
	}
	return wav.Append(nil, make([]int16, 22050*len(a.Say)), 22050), nil
}

// PublicURL implements Control.
func (d *decider) PublicURL(path string) string { return "https://bridge.example.com" + path }

// Handle implements Control.
func (d *decider) Handle(_ context.Context, _ string, ev *providers.CallEvent) (control.Outcome, error) {
	d.got = append(d.got, *ev)
	return control.Outcome{Answer: &providers.Answer{Say: d.say}, Result: control.ResultOK}, d.err
}

func newServer(d *decider) (*Server, http.Handler) {
	s := New(Config{Providers: []*providers.Spec{{Name: "odd"}}, Control: d, Gate: gate.New(nil), Music: wav.Chime(),
		Log: slog.New(slog.DiscardHandler)})
	mux := http.NewServeMux()
	for pattern, h := range s.Doors() {
		mux.HandleFunc(pattern, h)
	}
	return s, mux
}

// TestHooks: what becomes of a webhook, and what is replied.
func TestHooks(t *testing.T) {
	for name, tt := range map[string]struct {
		path, signed, body, say string
		err                     error
		status                  int
		reply, result           string
	}{
		"asked": {path: "odd/main/inbound", signed: "1", body: "ask", say: "hello", status: 200,
			reply: "hello", result: "ok"},
		"told": {path: "odd/main/status", signed: "1", body: "tell", say: "unheard", status: 204,
			result: "ok"},
		"both": {path: "odd/main/status/cs_1", signed: "1", body: "tell ask tell", say: "hello",
			status: 200, reply: "hello", result: "ok"},
		"nothing":           {path: "odd/main/status", signed: "1", body: "else", status: 204, result: "ok"},
		"unsigned":          {path: "odd/main/inbound", body: "ask", status: 403, result: "signature"},
		"signer is down":    {path: "odd/main/inbound", signed: "forgotten", body: "ask", status: 503, result: "signature"},
		"unknown account":   {path: "odd/other/inbound", signed: "1", body: "ask", status: 404, result: "account"},
		"another carrier's": {path: "else/main/inbound", signed: "1", body: "ask", status: 404, result: "account"},
		"malformed":         {path: "odd/main/inbound", signed: "1", body: "bad", status: 400, result: "malformed"},
		"too large": {path: "odd/main/inbound", signed: "1", body: strings.Repeat("x", maxHook+1), status: 413,
			result: "size"},
		"token": {path: "odd/main/next/T", signed: "1", body: "tell", err: control.ErrToken, status: 403,
			result: "token"},
		"no transfer": {path: "odd/main/transfer/t/n/room", signed: "1", body: "tell", err: control.ErrNoTransfer,
			status: 404, result: "unknown"},
		"store away": {path: "odd/main/status", signed: "1", body: "tell", err: errors.New("away"), status: 503,
			result: "error"},
		"no document": {path: "odd/main/inbound", signed: "1", body: "ask", say: "unspeakable", status: 500,
			result: "error"},
	} {
		t.Run(name, func(t *testing.T) {
			d := &decider{say: tt.say, err: tt.err}
			s, mux := newServer(d)
			r := httptest.NewRequest("POST", "/hooks/"+tt.path, strings.NewReader(tt.body))
			if tt.signed != "" {
				r.Header.Set("Signed", tt.signed)
			}
			w := httptest.NewRecorder()
			mux.ServeHTTP(w, r)
			if w.Code != tt.status || tt.reply != "" &&
				(w.Body.String() != tt.reply || w.Header().Get("Content-Type") != "text/odd") {
				t.Errorf("%d %q, want %d %q", w.Code, w.Body, tt.status, tt.reply)
			}
			if (w.Header().Get("Retry-After") != "") != (tt.status == 503) {
				t.Errorf("Retry-After: %q", w.Header().Get("Retry-After"))
			}
			carrier, _, _ := strings.Cut(tt.path, "/")
			if carrier == "else" {
				carrier = "unknown"
			}
			if n := testutil.ToFloat64(s.requests.WithLabelValues(carrier, tt.result)); n != 1 {
				t.Errorf("counted %v as %s", n, tt.result)
			}
		})
	}
}

// TestRefs: an event belongs to what its URL was given for, unless it says so itself.
func TestRefs(t *testing.T) {
	d := &decider{}
	_, mux := newServer(d)
	r := httptest.NewRequest("POST", "/hooks/odd/main/transfer/tr_1/n/digit?x=y", strings.NewReader("ask tell"))
	r.Header.Set("Signed", "1")
	mux.ServeHTTP(httptest.NewRecorder(), r)
	if len(d.got) != 2 || d.got[0].Ref != "transfer/tr_1/n/digit" || d.got[1].Ref != "own" {
		t.Errorf("%+v", d.got)
	}
}

// TestSignatureOnce: a signature that is good once is used up by what is carried out,
// and only by that.
func TestSignatureOnce(t *testing.T) {
	d := &decider{err: errors.New("away")}
	_, mux := newServer(d)
	post := func() int {
		r := httptest.NewRequest("POST", "/hooks/odd/main/status", strings.NewReader("tell"))
		r.Header.Set("Signed", "token-1")
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		return w.Code
	}
	if got := post(); got != 503 {
		t.Errorf("%d, want 503", got)
	}
	d.err = nil
	if got := post(); got != 204 {
		t.Errorf("again, once it can be carried out: %d, want 204", got)
	}
	if got := post(); got != 403 {
		t.Errorf("a replay: %d, want 403", got)
	}
}

// TestStrangers: whoever keeps on coming with wrong signatures is told to wait.
func TestStrangers(t *testing.T) {
	_, mux := newServer(&decider{})
	last := 0
	for range 40 {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest("POST", "/hooks/odd/main/inbound", strings.NewReader("ask")))
		last = w.Code
	}
	if last != http.StatusTooManyRequests {
		t.Errorf("%d, want 429", last)
	}
}

// TestMusic: a file that can be played.
func TestMusic(t *testing.T) {
	_, mux := newServer(&decider{})
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest("GET", "/hooks/hold.wav", nil))
	if pcm, rate, err := wav.Parse(w.Body.Bytes()); err != nil || len(pcm) == 0 || rate != 16000 {
		t.Errorf("%d samples at %d Hz, %v", len(pcm), rate, err)
	}
}

// TestWords: what a carrier that plays files is given for words.
func TestWords(t *testing.T) {
	_, mux := newServer(&decider{})
	for token, want := range map[string]int{"good-hello": 200, "bad": 403, "good-unspeakable": 500} {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest("GET", "/hooks/odd/main/words/"+token, nil))
		if w.Code != want {
			t.Errorf("%s: %d, want %d", token, w.Code, want)
		}
		if want != 200 {
			continue
		}
		pcm, rate, err := wav.Parse(w.Body.Bytes())
		if err != nil || rate != 8000 || len(pcm) < 5*8000 || len(pcm) > 5*8000+160 {
			t.Errorf("%d samples at %d Hz, %v", len(pcm), rate, err)
		}
	}
}
