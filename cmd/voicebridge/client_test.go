package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"voicebridge/calls"
	"voicebridge/logs"
	"voicebridge/providers"
	"voicebridge/providers/all"
	"voicebridge/sim"
	"voicebridge/sim/ear"
)

// lines is output that is read while it is written.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// eventually waits for something that another goroutine does.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s did not come", what)
		}
	}
}

// field gives what follows a label in output.
func field(t *testing.T, out, label string) string {
	t.Helper()
	_, rest, ok := strings.Cut(out, label)
	if !ok {
		t.Fatalf("no %q in %s", label, out)
	}
	return strings.Fields(rest)[0]
}

// TestCommands: a bridge from a configuration file, at a simulated carrier, and
// every command that talks to it.
func TestCommands(t *testing.T) {
	for _, spec := range all.Specs {
		t.Run(spec.Name, func(t *testing.T) { testCommands(t, spec) })
	}
}

func testCommands(t *testing.T, spec *providers.Spec) {
	voice, err := ear.Speech(spec.Formats[0].Rate)
	if err != nil {
		t.Fatal(err)
	}
	exchange := &sim.Exchange{Spec: spec, Phone: func(c providers.ExchangeCall) sim.Phone {
		p := sim.Phone{Ring: 10 * time.Millisecond, Voice: voice, Length: 300 * time.Millisecond}
		if c.To == "+15550100777" { // stays on the line
			p.Length = time.Minute
		}
		return p
	}}
	rest := httptest.NewServer(exchange)
	t.Cleanup(func() {
		exchange.Wait()
		rest.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	account, err := exchange.Settings(rest.URL, spec.Formats[0], "")
	if err != nil {
		t.Fatal(err)
	}
	agent := &sim.Agent{Talk: sim.Echo, Log: logs.Direct(io.Discard, slog.LevelInfo, false)}
	agents := httptest.NewServer(agent)
	t.Cleanup(func() { agents.Close(); agent.Wait() })

	out, err := command(t, "token")
	if err != nil {
		t.Fatal(err)
	}
	token, sum := field(t, out, "uses the API:"), field(t, out, "configuration:")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	delete(account, "from")
	account["numbers"] = []string{"+15550100999", "+15550100998"}
	b, err := yaml.Marshal(map[string]any{
		"listen": address, "public_url": "http://" + address, "accounts": map[string]any{"main": account},
		"agent":  map[string]any{"url": "ws" + strings.TrimPrefix(agents.URL, "http")},
		"api":    map[string]any{"tokens": []any{map[string]any{"name": "test", "sha256": sum}}},
		"limits": map[string]any{"drain_timeout": "1s"},
	})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "voicebridge.yaml")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := command(t, "check", "config", file); err != nil || !strings.Contains(out, "1 accounts, 1 agents") {
		t.Fatalf("%s, %v", out, err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- run(ctx, []string{"serve", "--config", file}, io.Discard, io.Discard) }()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	eventually(t, "the bridge", func() bool {
		resp, err := http.Get("http://" + address + "/healthz")
		if err == nil {
			resp.Body.Close()
		}
		return err == nil
	})
	t.Setenv("VOICEBRIDGE_API", "http://"+address)
	t.Setenv("VOICEBRIDGE_TOKEN", token)

	var feed lines
	listening, hush := context.WithCancel(context.Background())
	heard := make(chan error, 1)
	go func() { heard <- run(listening, []string{"events"}, &feed, io.Discard) }()

	out, err = command(t, "call", "--account", "main", "--to", "+15550100123", "--meta", "a=b", "--wait")
	id, _, _ := strings.Cut(out, "\n")
	if err != nil || !strings.HasPrefix(id, "cs_") || !strings.Contains(out, "ended: completed caller_hangup") {
		t.Errorf("%s, %v", out, err)
	}
	out, err = command(t, "call", "--account", "main", "--to", "+15550100777")
	if err != nil {
		t.Fatal(err)
	}
	long := strings.TrimSpace(out)
	eventually(t, "the audio of the long call", func() bool {
		out, err := command(t, "calls", "--live", "--json")
		return err == nil && strings.Contains(out, long) && strings.Contains(out, `"streaming": true`)
	})
	if out, err := command(t, "calls"); err != nil || !strings.Contains(out, "+15550100998") ||
		strings.Count(out, "main") != 2 {
		t.Errorf("%s, %v", out, err)
	}
	if out, err := command(t, "digits", long, "12"); err != nil {
		t.Errorf("%s, %v", out, err)
	}
	if out, err := command(t, "hangup", long); err != nil {
		t.Errorf("%s, %v", out, err)
	}
	eventually(t, "the end in the feed", func() bool {
		return strings.Count(feed.String(), calls.EventEnded) >= 1 && strings.Contains(feed.String(), "api_hangup")
	})
	hush()
	if err := <-heard; err != nil {
		t.Error(err)
	}
	for _, want := range []string{"call.created       outbound  " + spec.Name + "  +15550100998  ->  +15550100777",
		"call.streaming"} {
		if !strings.Contains(feed.String(), want) {
			t.Errorf("the feed does not say %q:\n%s", want, feed.String())
		}
	}

	if out, err := command(t, "providers", "--accounts"); err != nil || !regexp.MustCompile(spec.Name+` +true`).MatchString(out) ||
		!strings.Contains(out, address+"/hooks/"+spec.Name+"/main/status") {
		t.Errorf("%s, %v", out, err)
	}
	if out, err := command(t, "check", "webhook", "--account", "main"); err != nil ||
		!strings.Contains(out, "No webhook of main has been refused") {
		t.Errorf("%s, %v", out, err)
	}
	// A request of another account, to the bridge and in a file.
	other, err := spec.NewExchange(providers.Setup{Decode: spec.Sample(rest.URL, spec.Formats[0])})
	if err != nil {
		t.Fatal(err)
	}
	hook := "/hooks/" + spec.Name + "/main/inbound"
	req, err := other.Ask(&providers.Ask{Kind: providers.AskAnswer, URL: "http://" + address + hook,
		Call: providers.ExchangeCall{ID: "x"}}, time.Now())
	if errors.Is(err, providers.ErrNotAsked) { // it has no webhooks
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(req.Body)
	if err != nil {
		t.Fatal(err)
	}
	var raw bytes.Buffer
	fmt.Fprintf(&raw, "POST %s HTTP/1.1\r\nHost: %s\r\n", hook, address)
	if err := req.Header.Write(&raw); err != nil {
		t.Fatal(err)
	}
	raw.WriteString("\r\n")
	raw.Write(body)
	saved := filepath.Join(t.TempDir(), "request.txt")
	if err := os.WriteFile(saved, raw.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	req.Body = io.NopCloser(bytes.NewReader(body))
	resp, err := http.DefaultClient.Do(req)
	if err != nil || resp.StatusCode != 403 {
		t.Fatalf("%v, %v", resp, err)
	}
	resp.Body.Close()
	for _, args := range [][]string{{}, {"--config", file, "--request", saved}} {
		out, err := command(t, append([]string{"check", "webhook", "--account", "main"}, args...)...)
		if refused := (exitCode)(0); (len(args) > 0) != errors.As(err, &refused) || err != nil && refused != 1 ||
			!strings.Contains(out, "Refused:") || strings.Count(out, "\n") < 2 { // and what to do about it
			t.Errorf("%v: %s, %v", args, out, err)
		}
	}

	exchange.Numbers = []providers.Number{{Number: "+15550100001", Can: []string{"voice"}, Webhook: "https://b.example/x"}}
	if out, err := command(t, "numbers", "main"); err != nil || !strings.Contains(out, "+15550100001  voice") {
		t.Errorf("%s, %v", out, err)
	}
	for want, args := range map[string][]string{
		"to: must be a number": {"call", "--account", "main", "--to", "5550100"},
		"no such call":         {"hangup", "cs_nobody"},
		"HTTP 401":             {"calls", "--token", "wrong"},
		"must be a token":      {"calls", "--token", ""},
		"does not answer":      {"calls", "--api", "http://127.0.0.1:1"},
		"there is no API here": {"calls", "--api", agents.URL},
		"belong together":      {"check", "webhook", "--account", "main", "--config", file},
		"digits: must be":      {"digits", "cs_nobody", "x"},
		"no such account":      {"check", "webhook", "--account", "nobody"},
		"--account: \"nobody\" is not one": {"check", "webhook", "--account", "nobody", "--config", file, "--request",
			saved},
		"malformed HTTP": {"check", "webhook", "--account", "main", "--config", file, "--request", file},
		"no such file":   {"check", "config", "nowhere.yaml"},
	} {
		out, err := command(t, args...)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %s, %v, want %q", args, out, err, want)
		}
	}
}

// TestDemoOutbound: the call is placed through the API, and the events are shown.
func TestDemoOutbound(t *testing.T) {
	t.Parallel()
	for _, spec := range all.Specs {
		t.Run(spec.Name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			out, err := command(t, "demo", "--outbound", "--carrier", spec.Name, "--prebuffer", "1s", "--out", dir)
			checkIntact(t, dir, out, err)
			for _, kind := range []string{calls.EventCreated, calls.EventRinging, calls.EventAnswered,
				calls.EventStreaming, calls.EventStreamEnd, calls.EventEnded} {
				if (kind != calls.EventRinging || spec.Abilities.Rings) && !strings.Contains(out, kind) {
					t.Errorf("no %s:\n%s", kind, out)
				}
			}
		})
	}
}

func FuzzReadHook(f *testing.F) {
	f.Add([]byte("POST /hooks/twilio/main/inbound HTTP/1.1\r\nHost: x\r\nX-Twilio-Signature: y\r\n\r\nCallSid=CA1"))
	f.Add([]byte("GET / HTTP/1.0\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := readHook(b, "https://bridge.example.com"); err == nil &&
			!strings.HasPrefix(h.URL, "https://bridge.example.com") {
			t.Fatalf("%+v", h)
		}
	})
}
