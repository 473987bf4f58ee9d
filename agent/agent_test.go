package agent

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"
	"golang.org/x/time/rate"

	"voicebridge/codec"
	"voicebridge/providers"
	"voicebridge/session"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestSignatureVector holds the vector of docs/agent-protocol.md.
func TestSignatureVector(t *testing.T) {
	at := time.Unix(1760000000, 0)
	const want = "t=1760000000,v1=cddb000d3ba4bf7c13477f61cb8baa3109488e30b5df8d44031651b173af4812"
	got := Signature("test-secret", at, "cs_7f3a", "/agent?in_rate=16000")
	if got != want {
		t.Fatalf("%s, want %s", got, want)
	}
	check := func(header string, now time.Time, session, target string) error {
		return VerifySignature("test-secret", header, now, session, target)
	}
	if err := check(want, at.Add(59*time.Second), "cs_7f3a", "/agent?in_rate=16000"); err != nil {
		t.Error(err)
	}
	if err := check("t=1760000000,v1=00,"+strings.Split(want, ",")[1], at, "cs_7f3a", "/agent?in_rate=16000"); err != nil {
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
		cfg           Config
		err           string
		hears, speaks int
	}{
		{Config{URL: "ws://127.0.0.1:1/"}, "", 16000, 16000},
		{Config{URL: "ws://localhost:1/a?in_rate=8000&out_rate=24000"}, "", 8000, 24000},
		{Config{URL: "wss://agent.example.com/", InputRate: 48000, OutputRate: 8000}, "", 48000, 8000},
		{Config{URL: "ws://agent.example.com/", Plaintext: true}, "", 16000, 16000},
		{Config{URL: "ws://agent.example.com/"}, "url: ", 0, 0},
		{Config{URL: "ws://agent.example.com.127.0.0.1.evil/"}, "url: ", 0, 0},
		{Config{URL: "http://agent.example.com/"}, "url: ", 0, 0},
		{Config{URL: "foo"}, "url: \"foo\"", 0, 0},
		{Config{URL: "wss://h/", Header: http.Header{"bad name": {"x"}}}, "headers: ", 0, 0},
		{Config{URL: "wss://h/", Header: http.Header{"X": {"a\nb"}}}, "headers: ", 0, 0},
		{Config{URL: "wss://h/", Header: http.Header{"sec-websocket-protocol": {"x"}}}, "headers: ", 0, 0},
		{Config{URL: "wss://h/", Bearer: "a\nb"}, "bearer: ", 0, 0},
		{Config{URL: "wss://user:secret@agent.example.com/"}, "url: ", 0, 0},
		{Config{URL: ""}, "url: ", 0, 0},
		{Config{URL: "ws://"}, "url: ", 0, 0},
		{Config{URL: "ws://[::1"}, "url: ", 0, 0},
		{Config{URL: "ws://[::1]/?in_rate=11025"}, "url: in_rate: ", 0, 0},
		{Config{URL: "ws://[::1]/?out_rate=x"}, "url: out_rate=x", 0, 0},
		{Config{URL: "ws://[::1]/?audio=opus"}, "url: audio=opus", 0, 0},
		{Config{URL: "ws://[::1]/", OutputRate: 44100}, "output_rate: ", 0, 0},
	} {
		d, err := New(tt.cfg)
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

func testCall() *session.Call {
	f := codec.Format{Encoding: codec.PCMU, Rate: 8000}
	return &session.Call{Session: "cs_1", Carrier: "twilio", Abilities: providers.Abilities{Clear: true, Marks: true, Digits: true},
		Start: &providers.Start{Call: "CA1", Stream: "MZ1", Account: "AC1", In: f, Out: f, Params: map[string]string{"a": "b"}}}
}

// TestHandshake: what an agent sees of the bridge.
func TestHandshake(t *testing.T) {
	type seen struct {
		header http.Header
		first  map[string]any
	}
	got := make(chan seen, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		up := websocket.Upgrader{Subprotocols: []string{Protocol}}
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
	defer srv.Close()
	d, err := New(Config{URL: "ws" + srv.URL[4:] + "/a?out_rate=24000", Bearer: "tok", Secret: "sec", Header: http.Header{"X-Tenant": {"acme"}}})
	if err != nil {
		t.Fatal(err)
	}
	a, err := d.Dial(t.Context(), testCall())
	if err != nil {
		t.Fatal(err)
	}
	s := <-got
	if s.header.Get("Authorization") != "Bearer tok" || s.header.Get("X-Tenant") != "acme" || s.header.Get("Voicebridge-Session") != "cs_1" {
		t.Errorf("header: %v", s.header)
	}
	if err := VerifySignature("sec", s.header.Get("Voicebridge-Signature"), time.Now(), "cs_1", "/a?out_rate=24000"); err != nil {
		t.Error(err)
	}
	delete(s.first, "ts")
	want := map[string]any{
		"type": "start", "seq": 1.0, "in_ms": 0.0, "out_ms": 0.0, "protocol": Protocol, "session_id": "cs_1",
		"call": map[string]any{"id": "CA1", "carrier": "twilio", "account": "AC1", "stream": "MZ1", "codec": "pcmu/8000", "custom": map[string]any{"a": "b"}},
		"audio": map[string]any{"encoding": "pcm_s16le", "channels": 1.0, "frame_ms": 20.0,
			"input": map[string]any{"sample_rate": 16000.0}, "output": map[string]any{"sample_rate": 24000.0}},
		"capabilities": map[string]any{"clear": "native", "mark": "native", "dtmf_in": true, "dtmf_out": "inband", "transfer": []any{}},
		"await_ready":  false, "barge_in": "agent",
	}
	if !reflect.DeepEqual(s.first, want) {
		t.Errorf("start is\n%v\nwant\n%v", s.first, want)
	}
	gone := make(gone, 1)
	a.Serve(nil, gone)
	a.Close(session.AgentHangup)
	<-gone
	a.Release()
}

// gone is what hears of the end of an agent only.
type gone chan error

func (gone) Command(*session.AgentCommand) {}
func (gone) Writable()                     {}
func (g gone) Gone(err error)              { g <- err }

// TestRetry: a busy agent is tried twice, and the dial gives up with its context.
func TestRetry(t *testing.T) {
	tries := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		tries++
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	defer srv.Close()
	d, err := New(Config{URL: "ws" + srv.URL[4:]})
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
}

// TestDialEnds: the dial of an agent that takes the connection and never answers
// ends with the call.
func TestDialEnds(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d, err := New(Config{URL: "ws://" + l.Addr().String(), Attempt: time.Minute})
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
}

// TestKeepalive: an agent that does not answer pings is gone.
func TestKeepalive(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		up := websocket.Upgrader{}
		conn, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		t.Cleanup(func() { conn.Close() }) // reads nothing, so answers nothing
	}))
	defer srv.Close()
	d, err := New(Config{URL: "ws" + srv.URL[4:], Ping: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	a, err := d.Dial(t.Context(), testCall())
	if err != nil {
		t.Fatal(err)
	}
	gone := make(gone, 1)
	a.Serve(nil, gone)
	err = <-gone
	if err == nil || !strings.Contains(err.Error(), "no answer to pings") {
		t.Errorf("%v", err)
	}
	a.Release()
}

func newTestConn() *Conn {
	f := codec.Format{Encoding: codec.L16LE, Rate: 16000}
	return &Conn{json: true, hears: f, speaks: f, commands: rate.NewLimiter(rate.Inf, 0)}
}

func TestCommands(t *testing.T) {
	ms := time.Millisecond
	for text, want := range map[string]session.AgentCommand{
		`{"type":"clear"}`:                                 {Kind: session.CommandClear},
		`{"type":"interrupt","id":"a"}`:                    {Kind: session.CommandClear, ID: "a"},
		`{"type":"mark","name":"m"}`:                       {Kind: session.CommandMark, Name: "m"},
		`{"type":"pause"}`:                                 {Kind: session.CommandPause},
		`{"type":"unpause"}`:                               {Kind: session.CommandUnpause},
		`{"type":"hangup"}`:                                {Kind: session.CommandHangup},
		`{"type":"hangup","when":"now","reason":"done"}`:   {Kind: session.CommandHangup, Now: true},
		`{"type":"hangup","when":"after_playback"}`:        {Kind: session.CommandHangup},
		`{"type":"cancel","ref":"h"}`:                      {Kind: session.CommandCancel, Ref: "h"},
		`{"type":"ping","id":"p"}`:                         {Kind: session.CommandPing, ID: "p"},
		`{"type":"ready","report_ms":250}`:                 {Kind: session.CommandReady, Every: 250 * ms},
		`{"type":"ready","report_ms":0,"last_seq":3}`:      {Kind: session.CommandReady},
		`{"type":"tomorrow","id":"t"}`:                     {Kind: session.CommandUnknown, Name: "tomorrow"},
		`{"type":"audio","audio":"AAEC"}`:                  {Kind: session.CommandAudio, Audio: []byte{0, 1, 2}},
		`{"type":"pong"}`:                                  {},
		`{"type":"ready"}`:                                 {Kind: session.CommandReady, Every: -1},
		`{"type":"ready","input_rate":16000}`:              {Kind: session.CommandReady, Every: -1},
		`{"type":"ready","input_rate":11025}`:              {Kind: session.CommandFault, Code: "unsupported"},
		`{"type":"ready","input_rate":8000}`:               {Kind: session.CommandFault, Code: "unsupported"},
		`{"type":"ready","barge_in":"bridge"}`:             {Kind: session.CommandFault, Code: "unsupported"},
		`{"type":"ready","speech":true}`:                   {Kind: session.CommandFault, Code: "unsupported"},
		`{"type":"transcript","name":{"a":1},"id":7}`:      {Kind: session.CommandUnknown, Name: "transcript"},
		`{"type":"pong","id":7}`:                           {},
		`{"type":7}`:                                       {Kind: session.CommandFault, Code: "bad_field"},
		`null`:                                             {Kind: session.CommandFault, Code: "bad_json"},
		`{"type":"ready","report_ms":9223372036854775807}`: {Kind: session.CommandFault, Code: "bad_field"},
		`{"type":"ready","report_ms":5}`:                   {Kind: session.CommandFault, Code: "bad_field"},
		`{"type":"transfer","to":"x","id":"t1"}`:           {Kind: session.CommandTransfer, ID: "t1", Transfer: &session.Transfer{To: "x"}},
		`{"type":"transfer","to":"x","when":"now","on_fail":"hangup","context":{"a":"b"}}`: {Kind: session.CommandTransfer, Now: true,
			Transfer: &session.Transfer{To: "x", OnFail: session.OnFail{"": "hangup"}, Context: map[string]string{"a": "b"}}},
		`{"type":"transfer","to":"x","on_fail":{"busy":"resume","default":"hangup"}}`: {Kind: session.CommandTransfer,
			Transfer: &session.Transfer{To: "x", OnFail: session.OnFail{"": "hangup", "busy": "resume"}}},
		`{"type":"transfer","to":7}`:                                                       {Kind: session.CommandFault, Code: "bad_field"},
		`{"type":"transfer","to":"x","on_fail":7}`:                                         {Kind: session.CommandFault, Code: "bad_field"},
		`{"type":"transfer","to":"x","when":"soon"}`:                                       {Kind: session.CommandFault, Code: "bad_field"},
		`{"type":"transfer","context":{"a":"` + strings.Repeat("x", 4096) + `"}}`:          {Kind: session.CommandFault, Code: "bad_field"},
		`{"type":"dtmf","digits":"1w#D"}`:                                                  {Kind: session.CommandDigits, Digits: "1w#D", Tone: 100 * ms, Gap: 60 * ms},
		`{"type":"dtmf","digits":"1","id":"d","when":"now","duration_ms":200,"gap_ms":40}`: {Kind: session.CommandDigits, ID: "d", Digits: "1", Now: true, Tone: 200 * ms, Gap: 40 * ms},
		`{"type":"dtmf"}`:                                            {Kind: session.CommandFault, Code: "bad_field"},
		`{"type":"dtmf","digits":"12e"}`:                             {Kind: session.CommandFault, Code: "bad_field"},
		`{"type":"dtmf","digits":"1","duration_ms":5}`:               {Kind: session.CommandFault, Code: "bad_field"},
		`{"type":"dtmf","digits":"1","gap_ms":50000}`:                {Kind: session.CommandFault, Code: "bad_field"},
		`{"type":"dtmf","digits":"1","when":"then"}`:                 {Kind: session.CommandFault, Code: "bad_field"},
		`{"type":"dtmf","digits":"` + strings.Repeat("1", 65) + `"}`: {Kind: session.CommandFault, Code: "bad_field"},
		`{"type":"mark"}`:                                            {Kind: session.CommandFault, Code: "bad_field"},
		`{"type":"mark","name":7,"id":"m"}`:                          {Kind: session.CommandFault, Code: "bad_field", ID: "m"},
		`{"type":"hangup","when":"soon"}`:                            {Kind: session.CommandFault, Code: "bad_field"},
		`{"type":"cancel"}`:                                          {Kind: session.CommandFault, Code: "bad_field"},
		`{"type":"audio","audio":"?"}`:                               {Kind: session.CommandFault, Code: "bad_field"},
		`{}`:                                                         {Kind: session.CommandFault, Code: "bad_field"},
		`[]`:                                                         {Kind: session.CommandFault, Code: "bad_json"},
		`{`:                                                          {Kind: session.CommandFault, Code: "bad_json"},
		`{"type":"mark","name":"` + strings.Repeat("x", 129) + `"}`: {Kind: session.CommandFault, Code: "bad_field"},
		`{"type":"clear","id":"` + strings.Repeat("x", 65) + `"}`:   {Kind: session.CommandFault, Code: "bad_field"},
	} {
		var got session.AgentCommand
		ok := newTestConn().command([]byte(text), &got)
		if got.Kind == session.CommandFault {
			if got.Message == "" {
				t.Errorf("%s: a fault without words", text)
			}
			got.Message, want.ID = "", got.ID
		}
		if !ok {
			got = session.AgentCommand{}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s\n is %+v\nwant %+v", text, got, want)
		}
	}
}

func TestRepeatedIDs(t *testing.T) {
	c := newTestConn()
	var cmd session.AgentCommand
	for i := range 200 {
		text, _ := json.Marshal(map[string]string{"type": "clear", "id": strings.Repeat("i", 1+i%60)})
		if ok := c.command(text, &cmd); ok != (i < 60) {
			t.Fatalf("command %d: %v", i, ok)
		}
	}
	if len(c.ids) > keptIDs {
		t.Errorf("%d ids are kept", len(c.ids))
	}
}

// TestMendedCommand: a command that was refused may come again under its id.
func TestMendedCommand(t *testing.T) {
	c := newTestConn()
	var cmd session.AgentCommand
	c.command([]byte(`{"type":"mark","id":"m"}`), &cmd)
	if cmd.Kind != session.CommandFault {
		t.Fatalf("%+v", cmd)
	}
	cmd = session.AgentCommand{}
	if !c.command([]byte(`{"type":"mark","id":"m","name":"x"}`), &cmd) || cmd.Kind != session.CommandMark {
		t.Errorf("%+v", cmd)
	}
}

func TestBadJSONEnds(t *testing.T) {
	c := newTestConn()
	for i := range maxBadJSON {
		var cmd session.AgentCommand
		c.command([]byte("{"), &cmd)
		if cmd.Fatal != (i == maxBadJSON-1) {
			t.Errorf("bad message %d: fatal %v", i+1, cmd.Fatal)
		}
	}
}

func FuzzCommand(f *testing.F) {
	for _, s := range []string{
		`{"type":"clear","id":"a"}`, `{"type":"mark","name":"m"}`, `{"type":"hangup","when":"now"}`, `{"type":"audio","audio":"AAAA"}`,
		`{"type":"ready","report_ms":100}`, `{"type":1}`, `[]`, `{"type":"cancel","ref":"x"}`, `{"type":"\u0000"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var cmd session.AgentCommand
		if newTestConn().command(data, &cmd) && cmd.Kind == session.CommandFault && cmd.Code == "" {
			t.Fatalf("%q: a fault without a code", data)
		}
		if len(cmd.ID) > maxID || len(cmd.Name) > maxName {
			t.Fatalf("%q: %+v", data, cmd)
		}
	})
}

// TestPoolWakes: a call that gives up although an agent has come leaves it to the
// next one.
func TestPoolWakes(t *testing.T) {
	p, err := NewPool("desk", Incoming{}, "a bearer token of the pool")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // just after the word of an agent has come to this call
	p.parked = []*parked{{}}
	if _, err := p.Dial(ctx, testCall()); err == nil || len(p.parked) != 1 {
		t.Fatalf("%v, %d agents", err, len(p.parked))
	}
	select {
	case <-p.free:
	default:
		t.Error("an agent waits, and nobody is told")
	}
}
