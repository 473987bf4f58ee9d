package bridge_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"

	"voicebridge/agent"
	dialects "voicebridge/agent/all"
	"voicebridge/agent/link"
	"voicebridge/api"
	"voicebridge/bridge"
	"voicebridge/calls"
	"voicebridge/cluster"
	"voicebridge/codec"
	"voicebridge/control"
	"voicebridge/control/transfers"
	"voicebridge/notify"
	"voicebridge/providers"
	"voicebridge/session"
	"voicebridge/sim"
	"voicebridge/sim/ear"
	"voicebridge/sim/memnet"
	"voicebridge/sim/stream"
	"voicebridge/wav"
)

func TestMain(m *testing.M) {
	// After an answer that cuts a request short, net/http waits half a second.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"),
		goleak.Cleanup(func(code int) {
			stopRedis()
			os.Exit(code)
		}))
}

// bridge is a media server on a real port.
type running struct {
	*bridge.Bridge
	url   string // ws://host:port
	admin string // http://host:port
	ends  chan slog.Record
	stop  func() error // begins the drain and waits for its end
}

type options struct {
	limits   bridge.Limits
	session  session.Config
	token    string
	accounts map[string]control.Account
	fallback control.Fallback
	router   *notify.Target
	events   *notify.Target
	tokens   []api.Token
	public   string
	dialer   agent.Dialer
	agents   map[string]agent.Dialer // beside dialer
	queue    time.Duration           // of agents; 0: as of session
	route    func(account, from, to string) (control.Route, bool)
	sockets  bool // real ones, with event loops
	// Of several instances:
	transfers *transfers.Config
	cluster   *cluster.Cluster
}

func (o *options) all() map[string]control.Agent {
	m := map[string]control.Agent{"": {Dialer: o.dialer, Session: o.session, Fallback: o.fallback}}
	for name, d := range o.agents {
		m[name] = control.Agent{Dialer: d, Session: o.session}
		if a := m[name]; o.queue > 0 {
			a.Session.AgentQueue = o.queue
			m[name] = a
		}
	}
	return m
}

// startBridge serves until the end of the test. agentURL may be empty where
// opt sets a dialer.
func startBridge(t *testing.T, agentURL string, change func(*options)) *running {
	t.Helper()
	opt := options{limits: bridge.Defaults, session: session.Defaults}
	opt.limits.Drain = 0
	if agentURL != "" {
		opt.dialer = dialer(t, link.Config{URL: agentURL})
	}
	if change != nil {
		change(&opt)
	}
	ends := make(chan slog.Record, 1000)
	b := &running{ends: ends}
	public, admin, loops := memnet.Listen(), memnet.Listen(), 0
	if opt.sockets {
		public, admin, loops = listenTCP(t), listenTCP(t), 2
	}
	b.Bridge = bridge.New(bridge.Config{
		Loops: loops, Providers: specs, Agents: opt.all(), Route: opt.route, Transfers: opt.transfers,
		Cluster: opt.cluster, Token: opt.token, Insecure: opt.token == "" && opt.accounts == nil,
		Accounts: opt.accounts, Router: opt.router, Events: opt.events, Tokens: opt.tokens, PublicURL: opt.public,
		Secret: "test", Limits: opt.limits,
		Log: slog.New(logEnds{ends: ends}),
	})
	b.url, b.admin = "ws://"+public.Addr().String(), "http://"+admin.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Serve(ctx, public, admin) }()
	b.stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() {
		if err := b.stop(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func listenTCP(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// incoming has agents that connect speak the first dialect.
func incoming(t *testing.T, in link.Incoming) link.Incoming {
	t.Helper()
	in.Dialect = dialects.Dialects[0]
	var err error
	if in.Protocol, err = in.Dialect.New(agent.Options{Incoming: true}); err != nil {
		t.Fatal(err)
	}
	return in
}

func dialer(t *testing.T, cfg link.Config) *link.Dialer {
	t.Helper()
	cfg.Dialer = network
	d, err := dialects.NewDialer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// logEnds is a log handler that keeps the records of calls that ended.
type logEnds struct {
	ends  chan slog.Record
	attrs []slog.Attr
}

func (l logEnds) Enabled(context.Context, slog.Level) bool { return true }
func (l logEnds) WithAttrs(more []slog.Attr) slog.Handler {
	return logEnds{l.ends, append(l.attrs[:len(l.attrs):len(l.attrs)], more...)}
}
func (l logEnds) WithGroup(string) slog.Handler { return l }
func (l logEnds) Handle(_ context.Context, r slog.Record) error {
	if r.Message == "call ended" {
		r.AddAttrs(l.attrs...)
		l.ends <- r
	}
	return nil
}

// ended waits for the end of a call and checks its cause. It gives the other
// attributes.
func (b *running) ended(t *testing.T, want calls.Cause) map[string]slog.Value {
	t.Helper()
	select {
	case r := <-b.ends:
		attrs := map[string]slog.Value{}
		r.Attrs(func(a slog.Attr) bool { attrs[a.Key] = a.Value; return true })
		if got := attrs["cause"].String(); got != string(want) {
			t.Errorf("the call ended with %s, want %s (%v)", got, want, attrs["err"])
		}
		if warned := r.Level >= slog.LevelWarn; warned != want.Fault() {
			t.Errorf("%s is logged at %v", want, r.Level)
		}
		for _, name := range []string{"account", "agent", "direction"} {
			if _, told := attrs[name]; told {
				continue
			}
			t.Errorf("the log does not say %s", name)
		}
		return attrs
	case <-time.After(15 * time.Second):
		t.Fatalf("the call did not end, want %s", want)
		return nil
	}
}

// startAgent serves an agent until the end of the test and gives its URL.
func startAgent(t *testing.T, talk func(context.Context, *sim.AgentConn) error) string {
	t.Helper()
	a := &sim.Agent{Talk: talk, Log: slog.New(slog.DiscardHandler)}
	url, stop := memnet.Serve(a)
	t.Cleanup(func() {
		stop()
		a.Wait()
	})
	return "ws" + strings.TrimPrefix(url, "http") + "/"
}

func start(spec *providers.Spec, f codec.Format) providers.Start {
	s := spec.Start(f)
	s.Account, s.Call, s.Stream = "AC1", "CA1", "MZ1"
	s.Params = map[string]string{"k": "v"}
	return s
}

// caller talks for d over the carrier.
func (b *running) caller(t *testing.T, name string, d time.Duration) *stream.Caller {
	t.Helper()
	spec := specs[slices.IndexFunc(specs, func(s *providers.Spec) bool { return s.Name == name })]
	f := spec.Formats[0]
	voice, err := ear.Speech(f.Rate)
	if err != nil {
		t.Fatal(err)
	}
	return &stream.Caller{Spec: spec, Dialer: network, URL: b.url + "/media/" + name, Start: start(spec, f), Voice: voice,
		Length: d}
}

func call(t *testing.T, c *stream.Caller) *stream.Result {
	t.Helper()
	r, err := c.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// intact checks that an echoed call lost nothing.
func intact(t *testing.T, r *stream.Result) {
	t.Helper()
	// A machine that stalls leaves some of the echo in the queue at the end.
	if waiting := len(r.SentAt) - len(r.ReceivedAt); waiting > 25 || len(r.ReceivedAt) == 0 {
		t.Errorf("of %d frames %d came back", len(r.SentAt), len(r.ReceivedAt))
	}
	if r.Complaints > 0 {
		t.Errorf("the carrier complains: %v", r.Warnings)
	}
}

// untouched is intact for the one call of a carrier beside others, and checks
// that the bridge passed on every frame.
func (b *running) untouched(t *testing.T, carrier string, r *stream.Result) {
	t.Helper()
	intact(t, r)
	_, body := get(t, b.admin+"/metrics")
	for _, want := range []string{
		fmt.Sprintf("voicebridge_frames_total{direction=\"in\",provider=%q} %d\n", carrier, len(r.SentAt)),
		fmt.Sprintf("voicebridge_dropped_audio_seconds_total{provider=%q,reason=\"slow_agent\"} 0\n", carrier),
		fmt.Sprintf("voicebridge_dropped_audio_seconds_total{provider=%q,reason=\"overflow\"} 0\n", carrier),
		fmt.Sprintf("voicebridge_bad_messages_total{kind=\"malformed\",provider=%q} 0\n", carrier),
	} {
		if !strings.Contains(body, want) {
			t.Errorf("the metrics do not say %s", want)
		}
	}
}

func TestEcho(t *testing.T) {
	for _, spec := range specs {
		for _, f := range spec.Formats {
			for _, query := range []string{"", "?in_rate=8000&out_rate=24000",
				"?in_rate=24000&out_rate=8000&audio=json", "?in_rate=48000&out_rate=48000"} {
				run(t, fmt.Sprintf("%s %v %s", spec.Name, f, query), func(t *testing.T) {
					alike(t, spec.Name)
					b := startBridge(t, startAgent(t, echoAnyProfile)+query, nil)
					c := b.caller(t, spec.Name, 900*time.Millisecond)
					c.Start = start(spec, f)
					voice, err := ear.Speech(f.Rate)
					if err != nil {
						t.Fatal(err)
					}
					c.Voice = voice
					r := call(t, c)
					if lost := len(r.SentAt) - len(r.ReceivedAt); lost > 1 {
						t.Errorf("of %d frames %d came back", len(r.SentAt), len(r.ReceivedAt))
					}
					lag := ear.Align(r.Said, r.Received, f.Rate/10)
					n := len(r.Received) - lag - f.Rate/50
					want := 25.0
					if f.Rate > 8000 && strings.Contains(query, "=8000") {
						want = 20 // the agent cannot carry what lies above its band
					}
					if snr := ear.SNR(r.Said[:n], r.Received, lag); snr < want {
						t.Errorf("signal to noise %.1f dB", snr)
					}
					b.ended(t, calls.CallerHangup)
				})
			}
		}
	}
}

// echoAnyProfile also speaks the JSON profile.
func echoAnyProfile(ctx context.Context, c *sim.AgentConn) error {
	tc := codec.NewTranscoder(c.Hears, c.Speaks)
	for {
		binary, data, err := c.Read()
		if err != nil {
			return nil
		}
		if binary {
			err = c.Audio(tc.Append(nil, data))
		} else {
			var m struct {
				Type  string
				Audio []byte
			}
			if err = json.Unmarshal(data, &m); err == nil && m.Type == "audio" {
				err = c.Command(map[string]any{"type": "audio", "audio": tc.Append(nil, m.Audio)})
			}
		}
		if err != nil {
			return err
		}
	}
}

// script is an agent that is driven by the test.
type script struct {
	t    *testing.T
	conn chan *sim.AgentConn
	said chan map[string]any
	many bool // several calls: said is never closed
	mu   sync.Mutex
	pcm  []byte
}

func newScript(t *testing.T) (*script, string) {
	s := &script{t: t, conn: make(chan *sim.AgentConn, 1), said: make(chan map[string]any, 2000)}
	return s, startAgent(t, s.talk)
}

func (s *script) talk(_ context.Context, c *sim.AgentConn) error {
	s.conn <- c
	for {
		binary, data, err := c.Read()
		if err != nil {
			if !s.many {
				close(s.said)
			}
			return nil
		}
		if binary {
			s.mu.Lock()
			s.pcm = append(s.pcm, data...)
			s.mu.Unlock()
			continue
		}
		var m map[string]any
		if err := json.Unmarshal(data, &m); err != nil {
			return err
		}
		s.said <- m
	}
}

// wait for a message of the type, skipping others.
func (s *script) wait(kind string) map[string]any {
	s.t.Helper()
	timeout := time.After(15 * time.Second)
	for {
		select {
		case m, ok := <-s.said:
			if !ok {
				s.t.Fatalf("the connection ended without %s", kind)
			}
			if m["type"] == kind {
				return m
			}
		case <-timeout:
			s.t.Fatalf("no %s came", kind)
		}
	}
}

// background runs a call while the test goes on.
func background(t *testing.T, c *stream.Caller) func() *stream.Result {
	t.Helper()
	ch := make(chan *stream.Result, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		r, _ := c.Run(ctx)
		ch <- r
	}()
	wait := sync.OnceValue(func() *stream.Result { return <-ch })
	t.Cleanup(func() { cancel(); wait() })
	return wait
}

// TestProtocol walks through the agent's protocol over real sockets.
func TestProtocol(t *testing.T) {
	for _, carrier := range []string{"twilio", "vonage", "asterisk"} {
		run(t, carrier, func(t *testing.T) {
			s, url := newScript(t)
			b := startBridge(t, url, nil)
			c := b.caller(t, carrier, 20*time.Second)
			c.Digits = []stream.Digit{{At: 100 * time.Millisecond, Key: '7'}}
			wait := background(t, c)
			a := <-s.conn
			do := func(v map[string]any) {
				t.Helper()
				if err := a.Command(v); err != nil {
					t.Fatal(err)
				}
			}
			expect := func(kind string, fields map[string]any) {
				t.Helper()
				m := s.wait(kind)
				for k, v := range fields {
					if m[k] != v {
						t.Errorf("%s: %s is %v, want %v (%v)", kind, k, m[k], v, m)
					}
				}
				for _, k := range []string{"seq", "ts", "in_ms", "out_ms"} {
					if _, ok := m[k].(float64); !ok {
						t.Errorf("%s has no %s: %v", kind, k, m)
					}
				}
			}
			expect("dtmf", map[string]any{"digit": "7"})
			do(map[string]any{"type": "ping", "id": "p1"})
			expect("pong", map[string]any{"id": "p1"})

			if err := a.Audio(make([]byte, 16000)); err != nil { // 500 ms
				t.Fatal(err)
			}
			do(map[string]any{"type": "mark", "name": "half"})
			expect("playback", map[string]any{"state": "started"})
			expect("mark", map[string]any{"name": "half", "status": "played", "out_ms": 500.0})
			expect("playback", map[string]any{"state": "idle", "out_ms": 500.0})

			if err := a.Audio(make([]byte, 96000)); err != nil { // 3 s
				t.Fatal(err)
			}
			do(map[string]any{"type": "mark", "name": "never"})
			expect("playback", map[string]any{"state": "started"})
			do(map[string]any{"type": "pause", "id": "pa"})
			expect("ack", map[string]any{"ref": "pa"})
			do(map[string]any{"type": "unpause", "id": "un"})
			expect("ack", map[string]any{"ref": "un"})
			do(map[string]any{"type": "clear", "id": "c1"})
			expect("mark", map[string]any{"name": "never", "status": "cleared"})
			expect("cleared", map[string]any{"ref": "c1", "cause": "agent", "sent_ms": 3500.0})
			do(map[string]any{"type": "interrupt", "id": "c2"})
			expect("cleared", map[string]any{"ref": "c2", "discarded_ms": 0.0, "out_ms": 3500.0})

			for code, cmd := range map[string]map[string]any{
				"unsupported": {"type": "transfer", "id": "x", "to": "+15550100"},
				"bad_field":   {"type": "mark", "id": "x2"},
				"unknown_ref": {"type": "cancel", "id": "x3", "ref": "nothing"},
			} {
				do(cmd)
				expect("error", map[string]any{"code": code, "ref": cmd["id"], "fatal": false})
			}
			if err := a.Command("not an object"); err != nil {
				t.Fatal(err)
			}
			expect("error", map[string]any{"code": "bad_json"})
			do(map[string]any{"type": "dtmf", "digits": "x", "id": "d"})
			expect("error", map[string]any{"code": "bad_field", "ref": "d"})
			do(map[string]any{"type": "future", "field": 1})
			do(map[string]any{"type": "ping", "id": "p1"}) // a repeated id is ignored
			do(map[string]any{"type": "ready", "report_ms": 100})
			expect("buffer", map[string]any{"state": "ok"})

			if err := a.Audio(make([]byte, 9600)); err != nil { // a goodbye of 300 ms
				t.Fatal(err)
			}
			do(map[string]any{"type": "hangup", "id": "h"})
			expect("stop", map[string]any{"reason": "agent_hangup"})
			r := wait()
			if r.CloseCode != 1000 || r.Complaints > 0 {
				t.Errorf("the carrier was closed with %d, complaints %v", r.CloseCode, r.Warnings)
			}
			if r.Clears < 1 || r.Clears > 2 { // the second may come before the first was sent
				t.Errorf("%d clears at the carrier, want 1 or 2", r.Clears)
			}
			attrs := b.ended(t, calls.AgentHangup)
			if attrs["malformed"].Uint64() != 0 || attrs["clears"].Uint64() != 2 {
				t.Errorf("log: %v", attrs)
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			if len(s.pcm) < 16000 {
				t.Errorf("the agent heard %d bytes", len(s.pcm))
			}
		})
	}
}

// TestBurst: a minute of audio in one burst is played in real time, and a clear
// in the middle stops it.
func TestBurst(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T) {
		s, url := newScript(t)
		b := startBridge(t, url, nil)
		c := b.caller(t, "twilio", 30*time.Second)
		var mu sync.Mutex
		var cleared, late time.Duration
		var clearedAt time.Time
		c.Events = func(at time.Duration, cmd *providers.Command) {
			mu.Lock()
			defer mu.Unlock()
			switch {
			case cmd.Kind == providers.CommandClear:
				cleared, clearedAt = at, time.Now()
			case cleared > 0:
				late = at
			}
		}
		wait := background(t, c)
		a := <-s.conn
		tone := codec.L16LE.AppendEncode(nil, ear.Sine(16000, 440, time.Minute))
		for ; len(tone) > 0; tone = tone[min(len(tone), 1<<20):] {
			if err := a.Audio(tone[:min(len(tone), 1<<20)]); err != nil {
				t.Fatal(err)
			}
		}
		started := s.wait("playback")
		begun := time.Now()
		for time.Since(begun) < 3*time.Second { // the bridge must pace for a while
			if err := a.Command(map[string]any{"type": "ping"}); err != nil {
				t.Fatal(err)
			}
			s.wait("pong")
			<-time.After(100 * time.Millisecond)
		}
		asked := time.Now()
		if err := a.Command(map[string]any{"type": "clear"}); err != nil {
			t.Fatal(err)
		}
		m := s.wait("cleared")
		out := time.Duration(m["out_ms"].(float64)) * time.Millisecond
		// By the bridge's own clock: this test may be late.
		elapsed := time.Duration(m["ts"].(float64)-started["ts"].(float64)) * time.Millisecond
		if out < elapsed-250*time.Millisecond || out > elapsed+50*time.Millisecond {
			t.Errorf("after %v the caller is said to have heard %v", elapsed, out)
		}
		if m["sent_ms"] != 60000.0 {
			t.Errorf("sent_ms is %v", m["sent_ms"])
		}
		<-time.After(300 * time.Millisecond)
		if err := a.Command(map[string]any{"type": "hangup", "when": "now"}); err != nil {
			t.Fatal(err)
		}
		r := wait()
		mu.Lock()
		defer mu.Unlock()
		if cleared == 0 || late > 0 {
			t.Errorf("the clear came at %v, audio after it at %v", cleared, late)
		}
		if d := clearedAt.Sub(asked); d > 40*time.Millisecond+session.Defaults.Lead {
			t.Errorf("the clear reached the carrier after %v", d)
		} else {
			t.Logf("the clear reached the carrier after %v", d)
		}
		if r.Gaps != 0 {
			t.Errorf("%d gaps of %v heard", r.Gaps, r.GapTime)
		}
		// Never more at the carrier than the lead and a frame: what was received
		// before the clear is what was heard, and at most that.
		if n := time.Duration(len(r.ReceivedAt)) * codec.FrameTime; n > out+session.Defaults.Lead+2*codec.FrameTime {
			t.Errorf("%v of audio had been sent when %v had been heard", n, out)
		}
		b.ended(t, calls.AgentHangup)
	})
}

func TestToken(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T) {
		b := startBridge(t, startAgent(t, sim.Echo), func(o *options) { o.token = "0123456789abcdef" })
		for path, want := range map[string]int{
			"/media/twilio":                     403,
			"/media/twilio/":                    403,
			"/media/twilio/wrong":               403,
			"/media/twilio/0123456789abcdef/x":  403,
			"/media/nobody/0123456789abcdef":    404,
			"/media/twilio/0123456789abcdef":    101,
			"/media/twilio/0123456789abcdef?q=": 101,
			"/other":                            404,
		} {
			conn, resp, err := websocket.DefaultDialer.Dial(b.url+path, nil)
			if resp == nil || resp.StatusCode != want {
				t.Errorf("%s: %v, want %d", path, err, want)
			}
			if err == nil {
				conn.Close()
			}
		}
	})
}

func TestCallLimit(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T) {
		b := startBridge(t, startAgent(t, sim.Echo), func(o *options) { o.limits.Calls = 1 })
		conn, _, err := websocket.DefaultDialer.Dial(b.url+"/media/twilio", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		waitFor(t, func() bool { return b.Control().Sessions().Len() == 1 })
		_, resp, err := websocket.DefaultDialer.Dial(b.url+"/media/twilio", nil)
		if err == nil || resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
			t.Errorf("a call beyond the limit: %v, %v", err, resp)
		}
	})
}

// TestStrangersAndTheRate: those without the token do not use up the handshakes
// of those who have it.
func TestStrangersAndTheRate(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T) {
		b := startBridge(t, startAgent(t, sim.Echo), func(o *options) {
			o.limits.Handshakes = 5
			o.token = "0123456789abcdef"
		})
		for range 20 {
			if _, resp, err := websocket.DefaultDialer.Dial(b.url+"/media/twilio/guess", nil); err == nil ||
				resp.StatusCode != 403 {
				t.Fatalf("a guess: %v", err)
			}
		}
		conn, _, err := websocket.DefaultDialer.Dial(b.url+"/media/twilio/0123456789abcdef", nil)
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	})
}

func TestHandshakeRate(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T) {
		b := startBridge(t, startAgent(t, sim.Echo), func(o *options) { o.limits.Handshakes = 2 })
		refused := 0
		for range 10 {
			conn, resp, err := websocket.DefaultDialer.Dial(b.url+"/media/twilio", nil)
			if err == nil {
				conn.Close()
			} else if resp != nil && resp.StatusCode == 429 {
				refused++
			}
		}
		if refused < 5 {
			t.Errorf("%d of 10 handshakes at once were refused, want most", refused)
		}
	})
}

// waitFor polls for a condition that has no event.
func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatal("it did not come to pass")
		}
		<-time.After(5 * time.Millisecond)
	}
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestDrain(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T) {
		b := startBridge(t, startAgent(t, sim.Echo), func(o *options) { o.limits.Drain = 10 * time.Second })
		if code, _ := get(t, b.admin+"/readyz"); code != 200 {
			t.Errorf("readyz: %d", code)
		}
		wait := background(t, b.caller(t, "twilio", 1500*time.Millisecond))
		waitFor(t, func() bool { return b.Control().Sessions().Len() == 1 })
		stopped := make(chan error, 1)
		go func() { stopped <- b.stop() }()
		waitFor(t, func() bool { code, _ := get(t, b.admin+"/readyz"); return code == 503 })
		if code, _ := get(t, b.admin+"/healthz"); code != 200 {
			t.Errorf("healthz while draining: %d", code)
		}
		_, resp, err := websocket.DefaultDialer.Dial(b.url+"/media/twilio", nil)
		if err == nil || resp == nil || resp.StatusCode != 503 {
			t.Errorf("a new call while draining: %v", err)
		}
		intact(t, wait())
		b.ended(t, calls.CallerHangup)
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})
}

// TestDrainLimit: calls that do not end are ended, and both sides are told.
func TestDrainLimit(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T) {
		s, url := newScript(t)
		b := startBridge(t, url, func(o *options) { o.limits.Drain = 200 * time.Millisecond })
		wait := background(t, b.caller(t, "twilio", 30*time.Second))
		<-s.conn
		if err := b.stop(); err != nil {
			t.Error(err)
		}
		if m := s.wait("stop"); m["reason"] != "shutdown" {
			t.Errorf("the agent was told %v", m)
		}
		if r := wait(); r.CloseCode != 1001 {
			t.Errorf("the carrier was closed with %d, want 1001", r.CloseCode)
		}
		b.ended(t, calls.Shutdown)
	})
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T) {
		b := startBridge(t, startAgent(t, sim.Echo), nil)
		call(t, b.caller(t, "twilio", 500*time.Millisecond))
		b.ended(t, calls.CallerHangup)
		waitFor(t, func() bool { return b.Control().Sessions().Len() == 0 })
		_, body := get(t, b.admin+"/metrics")
		for _, want := range []string{
			`voicebridge_calls{provider="twilio"} 0`,
			`voicebridge_calls_limit 1000`,
			`voicebridge_account_calls_ended_total{account="",agent="",cause="caller_hangup"} 1`,
			`voicebridge_call_duration_seconds_count{provider="twilio"} 1`,
			`voicebridge_agent_connect_seconds_count{agent=""} 1`,
			`voicebridge_build_info{`,
			`voicebridge_calls_ended_total{cause="caller_hangup",provider="twilio"} 1`,
			`voicebridge_calls_ended_total{cause="agent_lost",provider="vonage"} 0`,
			`voicebridge_frames_total{direction="in",provider="twilio"} 25`,
			`voicebridge_delay_seconds_count{direction="in",provider="twilio"} 25`,
			`voicebridge_handshakes_refused_total{reason="token"} 0`,
		} {
			if !strings.Contains(body, want) {
				t.Errorf("no %s", want)
			}
		}
		if lines := strings.Split(body, "\n"); !slices.ContainsFunc(lines,
			func(l string) bool { return strings.HasPrefix(l, "go_goroutines") }) {
			t.Error("no Go metrics")
		}
		if code, _ := get(t, "http"+strings.TrimPrefix(b.url, "ws")+"/metrics"); code != 404 {
			t.Errorf("metrics on the public listener: %d", code)
		}
	})
}

// TestLongAnswer: an agent says a minute at once, with marks, and is interrupted near its end: the
// caller hears all of it up to there without a gap, silence within two frames then, and each
// mark is told of once.
func TestLongAnswer(t *testing.T) {
	for _, spec := range specs {
		run(t, spec.Name, func(t *testing.T) {
			alike(t, spec.Name)
			s, url := newScript(t)
			b := startBridge(t, url, func(o *options) { o.session.AgentQueue = 90 * time.Second })
			c := b.caller(t, spec.Name, 70*time.Second)
			wait := background(t, c)
			a := <-s.conn
			const rate, said, until = 16000, 60 * time.Second, 55 * time.Second
			tone := codec.L16LE.AppendEncode(nil, ear.Sine(rate, 440, said))
			step := len(tone) / 12
			for i := range 12 { // in messages of five seconds
				if err := a.Audio(tone[i*step : (i+1)*step]); err != nil {
					t.Fatal(err)
				}
				if err := a.Command(map[string]any{"type": "mark", "name": strconv.Itoa(i)}); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(until)
			if err := a.Command(map[string]any{"type": "clear", "id": "c"}); err != nil {
				t.Fatal(err)
			}
			r := wait()
			heard := r.Heard[:len(r.Heard)]
			first := slices.IndexFunc(heard, func(s int16) bool { return s > 1000 })
			last := len(heard) - 1
			for last >= 0 && heard[last] < 1000 {
				last--
			}
			length := time.Duration(last-first) * time.Second / time.Duration(r.Format.Rate)
			if late := length - until; late.Abs() > 2*codec.FrameTime+30*time.Millisecond || r.Gaps > 0 ||
				r.Complaints > 0 {
				t.Errorf("%v were heard before the interruption after %v, with %d gaps; complaints %v", length, until,
					r.Gaps,
					r.Warnings)
			}
			told := map[string][]string{}
			for len(told) < 12 {
				m := s.wait("mark")
				name, _ := m["name"].(string)
				status, _ := m["status"].(string)
				told[name] = append(told[name], status)
			}
			s.wait("stop")
			for i := range 12 {
				want := "played"
				if time.Duration(i+1)*5*time.Second > until {
					want = "cleared"
				}
				if got := told[strconv.Itoa(i)]; len(got) != 1 || got[0] != want && (i+1)*5 != 55 {
					t.Errorf("mark %d: %v, want %s", i, got, want)
				}
			}
		})
	}
}

// TestLongStall: 25 s of the caller's audio come at once. The call goes on, and the agent has the
// newest of it at once.
func TestLongStall(t *testing.T) {
	for _, spec := range specs {
		run(t, spec.Name, func(t *testing.T) {
			alike(t, spec.Name)
			s, url := newScript(t)
			b := startBridge(t, url, nil)
			const stall, after = 25 * time.Second, 3 * time.Second
			c := b.caller(t, spec.Name, 2*time.Second+stall+after)
			rate := c.Start.In.Rate
			c.Voice = append(ear.Sine(rate, 300, 2*time.Second+stall), ear.Sine(rate, 800, after)...)
			c.Stall = stream.Stall{At: 2 * time.Second, For: stall}
			r := call(t, c)
			b.ended(t, calls.CallerHangup)
			if r.Lost || r.Complaints > 0 {
				t.Errorf("lost: %v, complaints %v", r.Lost, r.Warnings)
			}
			s.mu.Lock()
			pcm := codec.L16LE.AppendDecode(nil, s.pcm)
			s.mu.Unlock()
			newest := pcm[len(pcm)-16000*5/2:]
			for i := 0; i+8000 <= len(newest); i += 8000 {
				if !ear.Hears(newest[i:i+8000], 16000, 800) || ear.Hears(newest[i:i+8000], 16000, 300) {
					t.Errorf("the agent did not hear last what the caller said last, at %d", i)
				}
			}
		})
	}
}

// TestAgentMistakes: what agents get wrong they are told, once, and it does no harm: a type that
// is not known, the header of a WAV file before the samples, five minutes in one message.
func TestAgentMistakes(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, url := newScript(t)
		b := startBridge(t, url, func(o *options) { o.session.AgentQueue = 10 * time.Minute })
		wait := background(t, b.caller(t, "vonage", 8*time.Second))
		a := <-s.conn
		for range 3 {
			if err := a.Command(map[string]any{"type": "Clear"}); err != nil {
				t.Fatal(err)
			}
		}
		const rate = 16000
		for range 2 {
			if err := a.Audio(wav.Append(nil, ear.Sine(rate, 440, time.Second), rate)); err != nil {
				t.Fatal(err)
			}
		}
		if err := a.Audio(codec.L16LE.AppendEncode(nil, ear.Sine(rate, 440, 5*time.Minute))); err != nil {
			t.Fatal(err)
		}
		r := wait()
		told := map[string]int{}
		for m := range s.said {
			if m["type"] == "error" {
				told[m["code"].(string)]++
			}
		}
		if told["unknown_type"] != 1 || told["bad_field"] != 1 || len(told) != 2 {
			t.Errorf("the agent was told %v", told)
		}
		for i := 1; i < len(r.Received); i++ { // a header is a click
			if d := int(r.Received[i]) - int(r.Received[i-1]); d > 8000 || d < -8000 {
				t.Fatalf("a step of %d at %d", d, i)
			}
		}
		if r.Gaps > 0 || len(r.Received) < 7*r.Format.Rate {
			t.Errorf("%d gaps, %d samples", r.Gaps, len(r.Received))
		}
		_, body := get(t, b.admin+"/metrics")
		if want := `voicebridge_bad_messages_total{kind="agent_unknown",provider="vonage"} 3`; !strings.Contains(body,
			want) {
			t.Errorf("the metrics do not say %s", want)
		}
	})
}

// TestMuted: a leg that is muted sends pings and nothing else, for as long as it likes.
func TestMuted(t *testing.T) {
	virtual(t, func(t *testing.T) {
		b := startBridge(t, startAgent(t, sim.Echo), nil)
		conn, _, err := websocket.DefaultDialer.Dial(b.url+"/media/vonage", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		for _, text := range []string{`{"event":"websocket:connected","content-type":"audio/l16;rate=16000"}`,
			`{"event":"websocket:media:update","active":false}`} {
			if err := conn.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		go func() {
			for {
				if _, _, err := conn.ReadMessage(); err != nil {
					return
				}
			}
		}()
		for range 30 {
			time.Sleep(20 * time.Second)
			if err := conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(time.Second)); err != nil {
				t.Fatal(err)
			}
		}
		if n := b.Control().Sessions().Len(); n != 1 {
			t.Errorf("%d calls after ten minutes of pings", n)
		}
		_ = conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1000, ""),
			time.Now().Add(time.Second))
		b.ended(t, calls.CallerHangup)
	})
}
