package bridge_test

import (
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"

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
