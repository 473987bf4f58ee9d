package main

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"voicebridge/bridge"
	"voicebridge/config"
	"voicebridge/logs"
)

// TestReload: accounts, agents, routes, tokens and the log's level follow the file; what cannot
// is named; a file that is wrong changes nothing.
func TestReload(t *testing.T) {
	path := filepath.Join(t.TempDir(), "voicebridge.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const base = `public_url: https://b.example
media: {token: a-token-that-nobody-guesses}
api: {tokens: [{name: t, sha256: "` + "0000000000000000000000000000000000000000000000000000000000000001" + `"}]}
accounts:
  main: {provider: twilio, account_sid: AC00000000000000000000000000000001, auth_token: "%TOKEN"}
  same: {provider: twilio, account_sid: AC00000000000000000000000000000002, auth_token: same}
agent: {url: "ws://127.0.0.1:1/"}
agents: {sales: {url: "ws://127.0.0.1:2/"}}
`
	write(strings.ReplaceAll(base, "%TOKEN", "one"))
	cfg, err := config.Load(path, os.Getenv)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	level := new(slog.LevelVar)
	logger := logs.Direct(&log, level, false)
	settings, closeAll, err := cfg.Bridge(logger)
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll()
	r := &reloader{path: path, server: bridge.New(settings), now: cfg, running: settings, level: level, log: logger}
	control := r.server.Control()
	before, same, sales := control.Accounts()["main"], control.Accounts()["same"], control.Agent("sales")

	r.reload()
	if control.Accounts()["main"].Account != before.Account || !strings.Contains(log.String(), "changes=nothing") {
		t.Errorf("nothing has changed: %s", log.String())
	}
	log.Reset()
	write(strings.ReplaceAll(base, "%TOKEN", "two") + "  support: {url: \"ws://127.0.0.1:3/\"}\n" +
		"limits: {calls: 7}\nlog: {level: warn}\nroutes: [{to: \"+15550100123\", agent: sales}, {agent: sales}]\n")
	// the last agents block is the one that counts
	text, _ := os.ReadFile(path)
	write(strings.Replace(string(text), "agents: {sales: {url: \"ws://127.0.0.1:2/\"}}\n  support",
		"agents:\n  sales: {url: \"ws://127.0.0.1:2/\"}\n  support", 1))
	r.reload()
	after := control.Accounts()["main"]
	if after.Account == before.Account || control.Accounts()["same"].Account != same.Account ||
		control.Agent("sales").Dialer != sales.Dialer || control.Agent("support").Dialer == nil ||
		control.Entries().Route == nil || level.Level() != slog.LevelWarn {
		t.Errorf("not all has changed that should, or more: %s", log.String())
	}
	for _, want := range []string{"account main changed", "agent support new", "routes changed", "keys=[limits]"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not say %q: %s", want, log.String())
		}
	}
	log.Reset()
	write("accounts: {main: {provider: nobody}}\n")
	r.reload()
	if control.Accounts()["main"].Account != after.Account || !strings.Contains(log.String(), "all stays as it was") {
		t.Errorf("a wrong file: %s", log.String())
	}
	if strings.Contains(log.String(), "a-token-that-nobody-guesses") {
		t.Error("the log has a secret")
	}
}
