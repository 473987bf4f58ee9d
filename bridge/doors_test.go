package bridge_test

import (
	"crypto/sha256"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"voicebridge/agent/link"
	"voicebridge/agent/tools"
	"voicebridge/api"
	"voicebridge/bridge"
	"voicebridge/control"
	"voicebridge/providers"
	"voicebridge/providers/twilio"
)

// TestDoorsTable walks the table of doors in docs/configuration.md: it has every
// door, and each is shut to a stranger as it says.
func TestDoorsTable(t *testing.T) {
	b, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(b), "\n## Doors\n")
	text, _, _ = strings.Cut(text, "\n## ")
	pool, err := link.NewPool("desk", incoming(t, link.Incoming{}), "a bearer token of the pool")
	if err != nil {
		t.Fatal(err)
	}
	account, err := twilio.Spec.NewAccount(providers.Setup{Decode: twilio.Spec.Sample("https://127.0.0.1:1",
		twilio.Spec.Formats[0])})
	if err != nil {
		t.Fatal(err)
	}
	make := func() *bridge.Bridge { // each has its own patience with strangers
		return bridge.New(bridge.Config{Providers: []*providers.Spec{twilio.Spec}, Limits: bridge.Defaults,
			Log:       slog.New(slog.DiscardHandler),
			PublicURL: "https://bridge.example.com",
			Agents: map[string]control.Agent{"": {Dialer: pool}, "desk": {Dialer: pool},
				"bot": {Dialer: modelDialer(t, "twilio", "ws://127.0.0.1:1/", map[string]any{"auth_token": "12345",
					"account_sid": "AC0123456789abcdef0123456789abcdef"}, tools.Config{})}},
			Tokens:   []api.Token{{Name: "t"}},
			Accounts: map[string]control.Account{"main": {Spec: twilio.Spec, Account: account}}})
	}
	listed := map[string]bool{}
	fill := strings.NewReplacer("{provider}", "twilio", "{account}", "main", "{call}", "cs_1", "{token...}", "AAAA",
		"{token}", "AAAA",
		"{transfer}", "tr_1", "{nonce}", "n", "{what}", "answer", "{pool}", "desk")
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
			make().Public().ServeHTTP(w, httptest.NewRequest(method, fill.Replace(path), nil))
			want := regexp.MustCompile(`[0-9]{3}`).FindString(cells[4])
			if path == "/hooks/hold.wav" { // where calls can be transferred, it is open to all
				want = "404"
			}
			if fmt.Sprint(w.Code) != want {
				t.Errorf("%s: a stranger gets %d, the table says %s", door, w.Code, want)
			}
		}
	}
	for _, pattern := range make().Doors() {
		if !listed[pattern] {
			t.Errorf("the table does not list %s", pattern)
		}
		delete(listed, pattern)
	}
	for door := range listed {
		t.Errorf("the table lists %s, which is not there", door)
	}
}

// TestReloaded: what is reloaded counts for what is open already. An agent that asks for things over HTTP is answered, a
// token that is gone hears no more events, and one for some accounts gets no agents of all.
func TestReloaded(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T) {
		pool, err := link.NewPool("desk", incoming(t, link.Incoming{}), "a bearer token of the pool")
		if err != nil {
			t.Fatal(err)
		}
		tokens := []api.Token{{Name: "all", SHA256: sha256.Sum256([]byte("all"))},
			{Name: "some", SHA256: sha256.Sum256([]byte("some")), Accounts: []string{"main"}}}
		cfg := bridge.Config{Providers: []*providers.Spec{twilio.Spec}, Limits: bridge.Defaults,
			Log: slog.New(slog.DiscardHandler), PublicURL: "https://bridge.example.com",
			Agents: map[string]control.Agent{"desk": {Dialer: pool}}, Tokens: tokens}
		b := bridge.New(cfg)
		ask := func(token, method, path string) *httptest.ResponseRecorder {
			w, r := httptest.NewRecorder(), httptest.NewRequest(method, path, nil)
			r.Header.Set("Authorization", "Bearer "+token)
			b.Public().ServeHTTP(w, r)
			return w
		}
		if all, some := ask("all", "POST", "/v1/pools/desk/tokens"), ask("some", "POST", "/v1/pools/desk/tokens"); all.Code != 201 ||
			some.Code != 403 {
			t.Errorf("%d %s, %d %s", all.Code, all.Body, some.Code, some.Body)
		}
		const call = "/2010-04-01/Accounts/AC1/Calls/CA1.json"
		if w := ask("", "GET", call); w.Code != 404 {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		heard := make(chan struct{})
		go func() {
			defer close(heard)
			ask("all", "GET", "/v1/events")
		}()
		synctest.Wait()
		cfg.Tokens = tokens[1:]
		cfg.Agents = map[string]control.Agent{"desk": {Dialer: pool},
			"bot": {Dialer: modelDialer(t, "twilio", "ws://127.0.0.1:1/", map[string]any{"auth_token": "12345",
				"account_sid": "AC0123456789abcdef0123456789abcdef"}, tools.Config{})}}
		b.Reload(&cfg)
		if w := ask("", "GET", call); w.Code != 401 {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		time.Sleep(time.Minute)
		select {
		case <-heard:
		default:
			t.Error("a token that is gone hears events")
		}
	})
}
