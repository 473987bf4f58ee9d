package link_test

import (
	"context"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"

	"voicebridge/agent"
	"voicebridge/agent/link"
	"voicebridge/agent/voicebridge"
	"voicebridge/calls"
	"voicebridge/codec"
	"voicebridge/providers"
	"voicebridge/sim/memnet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// virtual runs a test in virtual time, on a network in memory.
func virtual(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, test)
}

// TestSignatureVector holds the vector of docs/agent-protocol.md.
func TestSignatureVector(t *testing.T) {
	at := time.Unix(1760000000, 0)
	const want = "t=1760000000,v1=cddb000d3ba4bf7c13477f61cb8baa3109488e30b5df8d44031651b173af4812"
	got := link.Signature("test-secret", at, "cs_7f3a", "/agent?in_rate=16000")
	if got != want {
		t.Fatalf("%s, want %s", got, want)
	}
	check := func(header string, now time.Time, session, target string) error {
		return link.VerifySignature("test-secret", header, now, session, target)
	}
	if err := check(want, at.Add(59*time.Second), "cs_7f3a", "/agent?in_rate=16000"); err != nil {
		t.Error(err)
	}
	if err := check("t=1760000000,v1=00,"+strings.Split(want, ",")[1], at, "cs_7f3a",
		"/agent?in_rate=16000"); err != nil {
		t.Errorf("two signatures while the secret changes: %v", err)
	}
	for name, err := range map[string]error{
		"stale":         check(want, at.Add(61*time.Second), "cs_7f3a", "/agent?in_rate=16000"),
		"from tomorrow": check(want, at.Add(-61*time.Second), "cs_7f3a", "/agent?in_rate=16000"),
		"other session": check(want, at, "cs_7f3b", "/agent?in_rate=16000"),
		"other path":    check(want, at, "cs_7f3a", "/agent"),
		"none":          check("", at, "cs_7f3a", "/agent?in_rate=16000"),
		"no time":       check("v1=00", at, "cs_7f3a", "/agent?in_rate=16000"),
		"no value":      check("t=1760000000", at, "cs_7f3a", "/agent?in_rate=16000"),
	} {
		if err == nil {
			t.Errorf("%s: a signature was accepted that is not valid", name)
		}
	}
}

func TestConfig(t *testing.T) {
	for _, tt := range []struct {
		cfg           link.Config
		rates         agent.Options
		err           string
		hears, speaks int
	}{
		{link.Config{URL: "ws://127.0.0.1:1/"}, agent.Options{}, "", 16000, 16000},
		{link.Config{URL: "ws://localhost:1/a?in_rate=8000&out_rate=24000"}, agent.Options{}, "", 8000, 24000},
		{link.Config{URL: "wss://agent.example.com/"}, agent.Options{InputRate: 48000, OutputRate: 8000}, "", 48000,
			8000},
		{link.Config{URL: "ws://agent.example.com/", Plaintext: true}, agent.Options{}, "", 16000, 16000},
		{link.Config{URL: "ws://agent.example.com/"}, agent.Options{}, "url: ", 0, 0},
		{link.Config{URL: "ws://agent.example.com.127.0.0.1.evil/"}, agent.Options{}, "url: ", 0, 0},
		{link.Config{URL: "http://agent.example.com/"}, agent.Options{}, "url: ", 0, 0},
		{link.Config{URL: "foo"}, agent.Options{}, "url: \"foo\"", 0, 0},
		{link.Config{URL: "wss://h/", Header: http.Header{"bad name": {"x"}}}, agent.Options{}, "headers: ", 0, 0},
		{link.Config{URL: "wss://h/", Header: http.Header{"X": {"a\nb"}}}, agent.Options{}, "headers: ", 0, 0},
		{link.Config{URL: "wss://h/", Header: http.Header{"sec-websocket-protocol": {"x"}}}, agent.Options{},
			"headers: ", 0, 0},
		{link.Config{URL: "wss://h/", Bearer: "a\nb"}, agent.Options{}, "bearer: ", 0, 0},
		{link.Config{URL: "wss://user:secret@agent.example.com/"}, agent.Options{}, "url: ", 0, 0},
		{link.Config{URL: ""}, agent.Options{}, "url: ", 0, 0},
		{link.Config{URL: "ws://"}, agent.Options{}, "url: ", 0, 0},
		{link.Config{URL: "ws://[::1"}, agent.Options{}, "url: ", 0, 0},
		{link.Config{URL: "ws://[::1]/?in_rate=11025"}, agent.Options{}, "url: in_rate: ", 0, 0},
		{link.Config{URL: "ws://[::1]/?out_rate=x"}, agent.Options{}, "url: out_rate=x", 0, 0},
		{link.Config{URL: "ws://[::1]/?audio=opus"}, agent.Options{}, "url: audio=opus", 0, 0},
		{link.Config{URL: "ws://[::1]/"}, agent.Options{OutputRate: 44100}, "output_rate: ", 0, 0},
	} {
		d, err := newDialer(tt.rates, tt.cfg)
		if tt.err != "" {
			if err == nil || !strings.HasPrefix(err.Error(), tt.err) || strings.Contains(err.Error(), "secret@") {
				t.Errorf("%+v: %v, want %s", tt.cfg, err, tt.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%+v: %v", tt.cfg, err)
			continue
		}
		hears, speaks := d.Formats()
		if hears.Rate != tt.hears || speaks.Rate != tt.speaks {
			t.Errorf("%+v: %v, %v", tt.cfg, hears, speaks)
		}
	}
}

// newDialer makes a dialer that speaks voicebridge.v1.
func newDialer(o agent.Options, cfg link.Config) (*link.Dialer, error) {
	cfg.Dialect, cfg.Dialer.Net = voicebridge.Dialect, memnet.Dial
	var err error
	if cfg.Protocol, err = cfg.Dialect.New(o); err != nil {
		return nil, err
	}
	return link.New(cfg)
}

func testCall() *agent.Call {
	f := codec.Format{Encoding: codec.PCMU, Rate: 8000}
	return &agent.Call{Session: "cs_1", Carrier: "twilio",
		Abilities: providers.Abilities{Clear: true, Marks: true, Digits: true},
		Start: &providers.Start{Call: "CA1", Stream: "MZ1", Account: "AC1", In: f, Out: f,
			Params: map[string]string{"a": "b"}}}
}

// TestHandshake: what an agent sees of the bridge.
func TestHandshake(t *testing.T) {
	virtual(t, func(t *testing.T) {
		type seen struct {
			header http.Header
			first  map[string]any
		}
		got := make(chan seen, 1)
		url, stop := memnet.Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			up := websocket.Upgrader{Subprotocols: []string{voicebridge.Name}}
			conn, err := up.Upgrade(w, r, nil)
			if err != nil {
				return
			}
			defer conn.Close()
			var m map[string]any
			if err := conn.ReadJSON(&m); err != nil {
				t.Error(err)
			}
			got <- seen{r.Header, m}
			conn.ReadMessage()
		}))
		defer stop()
		d, err := newDialer(agent.Options{}, link.Config{URL: "ws" + url[4:] + "/a?out_rate=24000", Bearer: "tok",
			Secret: "sec", Header: http.Header{"X-Tenant": {"acme"}}})
		if err != nil {
			t.Fatal(err)
		}
		a, err := d.Dial(t.Context(), testCall())
		if err != nil {
			t.Fatal(err)
		}
		s := <-got
		if s.header.Get("Authorization") != "Bearer tok" || s.header.Get("X-Tenant") != "acme" ||
			s.header.Get("Voicebridge-Session") != "cs_1" {
			t.Errorf("header: %v", s.header)
		}
		if err := link.VerifySignature("sec", s.header.Get("Voicebridge-Signature"), time.Now(), "cs_1",
			"/a?out_rate=24000"); err != nil {
			t.Error(err)
		}
		delete(s.first, "ts")
		want := map[string]any{
			"type": "start", "seq": 1.0, "in_ms": 0.0, "out_ms": 0.0, "protocol": voicebridge.Name,
			"session_id": "cs_1",
			"call": map[string]any{"id": "CA1", "carrier": "twilio", "account": "AC1", "stream": "MZ1",
				"codec": "pcmu/8000", "custom": map[string]any{"a": "b"}},
			"audio": map[string]any{"encoding": "pcm_s16le", "channels": 1.0, "frame_ms": 20.0,
				"input": map[string]any{"sample_rate": 16000.0}, "output": map[string]any{"sample_rate": 24000.0}},
			"capabilities": map[string]any{"clear": "native", "mark": "native", "dtmf_in": true, "dtmf_out": "inband",
				"transfer": []any{}},
			"await_ready": false, "barge_in": "agent",
		}
		if !reflect.DeepEqual(s.first, want) {
			t.Errorf("start is\n%v\nwant\n%v", s.first, want)
		}
		gone := make(gone, 1)
		a.Serve(gone)
		a.Close(calls.AgentHangup)
		<-gone
		a.Release()
	})
}

// gone is what hears of the end of an agent only.
type gone chan error

func (gone) Command(*agent.Command) {}
func (gone) Writable()              {}
func (g gone) Gone(err error)       { g <- err }

func (gone) Reply(func(*providers.Messages) error) {}
func (gone) Said(calls.Line)                       {}
func (gone) Used(calls.Usage)                      {}
func (gone) Keep(any)                              {}
func (gone) Do(*agent.Command)                     {}
func (gone) Renew(func() bool)                     {}
func (gone) Trouble(string, string)                {}

// TestRetry: a busy agent is tried twice, and the dial gives up with its context.
func TestRetry(t *testing.T) {
	virtual(t, func(t *testing.T) {
		tries := 0
		url, stop := memnet.Serve(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			tries++
			w.WriteHeader(http.StatusServiceUnavailable)
		}))
		defer stop()
		d, err := newDialer(agent.Options{}, link.Config{URL: "ws" + url[4:]})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Dial(t.Context(), testCall()); err == nil || tries != 2 {
			t.Errorf("%d tries, %v", tries, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := d.Dial(ctx, testCall()); err == nil {
			t.Error("dialled without a context")
		}
	})
}

// TestDialEnds: the dial of an agent that takes the connection and never answers
// ends with the call.
func TestDialEnds(t *testing.T) {
	virtual(t, func(t *testing.T) {
		l := memnet.Listen()
		defer l.Close()
		d, err := newDialer(agent.Options{}, link.Config{URL: "ws://" + l.Addr().String(), Attempt: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			cancel() // the handshake is under way
			conn.Read(make([]byte, 4096))
			conn.Read(make([]byte, 1)) // until the bridge closes
			conn.Close()
		}()
		begun := time.Now()
		if _, err := d.Dial(ctx, testCall()); err == nil || time.Since(begun) > 10*time.Second {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
	})
}

// TestKeepalive: an agent that does not answer pings is gone.
func TestKeepalive(t *testing.T) {
	virtual(t, func(t *testing.T) {
		url, stop := memnet.Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			up := websocket.Upgrader{}
			conn, err := up.Upgrade(w, r, nil)
			if err != nil {
				return
			}
			t.Cleanup(func() { conn.Close() }) // reads nothing, so answers nothing
		}))
		defer stop()
		d, err := newDialer(agent.Options{}, link.Config{URL: "ws" + url[4:], Ping: 50 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		a, err := d.Dial(t.Context(), testCall())
		if err != nil {
			t.Fatal(err)
		}
		gone := make(gone, 1)
		a.Serve(gone)
		err = <-gone
		if err == nil || !strings.Contains(err.Error(), "no answer to pings") {
			t.Errorf("%v", err)
		}
		a.Release()
	})
}
