package asterisk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"voicebridge/codec"
	"voicebridge/providers"
	"voicebridge/providers/asterisk/ari"
	"voicebridge/providers/providertest"
)

func TestConformance(t *testing.T) {
	text := providertest.Text
	f := codec.Format{Encoding: codec.PCMU, Rate: 8000}
	start := providertest.Event(providers.EventStart)
	start.Start = &providers.Start{Call: "1795376166.2", Stream: "1795376166.2", In: f, Out: f}
	audio := providertest.Event(providers.EventAudio)
	audio.Audio = make([]byte, 160)
	digit := providertest.Event(providers.EventDigit)
	digit.Digit = '1'
	mark := providertest.Event(providers.EventMark)
	mark.Mark = "mark-1"
	fixture := func(name string) providers.Message {
		return providers.Message{Data: providertest.Fixture(t, name)}
	}
	unknown := providertest.Event(providers.EventUnknown)
	providertest.Run(t, providertest.Harness{
		Spec: Spec,
		Start: func(f codec.Format) *providers.Start {
			return &providers.Start{Call: "caller-1", Stream: "caller-1.media-x", In: f, Out: f}
		},
		Documented: []providertest.Documented{
			{Message: fixture("media-start.txt"), Event: start},
			{Message: providers.Message{Binary: true, Data: make([]byte, 160)}, Event: audio},
			{Message: fixture("media-dtmf.txt"), Event: digit},
			{Message: fixture("media-mark-processed.txt"), Event: mark},
			{Message: fixture("media-status.txt"), Event: unknown},
		},
		Malformed: []providers.Message{
			text("DTMF_END"), text("DTMF_END digit:x"), text("DTMF_END digit:12"), text("media_start"),
			text(`{"event":"DTMF_END","digit":5}`), {Binary: true, Data: make([]byte, 639)},
		},
		Unknown: []providers.Message{text("SOMETHING_ELSE a:b"), text(`{"event":"SOMETHING_ELSE"}`),
			text("MEDIA_XOFF\n")},
		BadFormat: fixture("media-start-opus.json"),
	})
}

func TestControl(t *testing.T) {
	sample := Spec.Sample("http://127.0.0.1", Spec.Formats[0])
	providertest.RunControl(t, providertest.Control{Spec: Spec, Secret: "the secret",
		Config: func(base string) func(any) error {
			return func(c any) error {
				if err := sample(c); err != nil {
					return err
				}
				c.(*ari.Config).URL, c.(*ari.Config).Password = base+"/ari", "the secret"
				return nil
			}
		}})
}

// server is ARI, as far as a test tells.
type server struct {
	mu     sync.Mutex
	asked  []*http.Request
	bodies [][]byte
	reply  func(r *http.Request) (status int, body string)
}

// RoundTrip implements http.RoundTripper.
func (s *server) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		body, _ = io.ReadAll(r.Body)
	}
	s.mu.Lock()
	s.asked, s.bodies = append(s.asked, r), append(s.bodies, body)
	s.mu.Unlock()
	status, text := 404, `{"message":"Channel not found"}`
	if s.reply != nil {
		status, text = s.reply(r)
	}
	return &http.Response{StatusCode: status, Header: http.Header{}, Request: r,
		Body: io.NopCloser(strings.NewReader(text))}, nil
}

func (s *server) commands(t testing.TB) *commands {
	t.Helper()
	cfg, base, err := ari.ReadConfig(providers.Setup{Decode: func(c any) error {
		*c.(*ari.Config) = ari.Config{URL: "http://127.0.0.1:8088/ari", Username: "asterisk", Password: "asterisk",
			App: "voicebridge", Media: "bridge", Endpoint: "PJSIP/{digits}@trunk"}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	return newCommands(cfg, base, s)
}

const hooks = "https://b.example/hooks/asterisk/main/"

// TestFixturesEvents: what each of ARI's events means.
func TestFixturesEvents(t *testing.T) {
	human := ari.State{Answer: hooks + "answer/a", Status: hooks + "status/s"}
	caller := ari.State{Key: hooks + "key/k", Play: "pb-1"}
	progress := func(leg, raw string, s providers.Status) []providers.CallEvent {
		return []providers.CallEvent{{Kind: providers.CallProgress, Ref: "status/s", Leg: leg, Raw: raw, Status: s}}
	}
	for name, want := range map[string][]providers.CallEvent{
		"StasisStart-pjsip-inbound": {{Kind: providers.CallAsked, ID: "start-caller-1", Leg: "caller-1", Raw: "Ring",
			From: "+12025550101", To: "+12025550102", Metadata: map[string]string{"arg1": "inbound", "arg2": "run42"}}},
		"StasisStart-human": {
			{Kind: providers.CallProgress, Ref: "status/s", Leg: "human-1", Raw: "Up",
				Status: providers.StatusInProgress},
			{Kind: providers.CallAsked, ID: "start-human-1", Ref: "answer/a", Leg: "human-1", Raw: "Up", To: "echo"}},
		"ChannelStateChange-ringing": progress("human-1", "Ringing", providers.StatusRinging),
		"ChannelStateChange-up":      nil,
		"ChannelDestroyed-busy":      progress("human-1", "User busy", providers.StatusBusy),
		"ChannelDestroyed-no-answer": progress("human-1", "User alerting, no answer",
			providers.StatusNoAnswer),
		"ChannelDestroyed-no-user-responding": progress("human-1", "No user responding", providers.StatusNoAnswer),
		"ChannelDestroyed-rejected":           progress("human-1", "Call Rejected", providers.StatusBusy),
		"ChannelDestroyed-unallocated": progress("human-1", "Unallocated (unassigned) number",
			providers.StatusFailed),
		"ChannelDestroyed-congestion":   progress("human-1", "Circuit/channel congestion", providers.StatusFailed),
		"ChannelDestroyed-interworking": progress("human-1", "Interworking, unspecified", providers.StatusNoAnswer),
		"ChannelDtmfReceived": {{Kind: providers.CallKey, ID: "pb-1", Ref: "key/k", Leg: "caller-1",
			Raw: "ChannelDtmfReceived", Digit: "5"}},
		"ChannelHangupRequest-cause": nil,
		"ChannelHold":                nil,
		"Dial-ringing":               nil,
		"ApplicationRegistered":      nil,
		"BridgeCreated":              nil,
		"BridgeDestroyed":            nil,
		"PlaybackStarted":            nil,
		"RecordingFinished":          nil,
		"StasisEnd":                  nil,
	} {
		s := &server{}
		var got []providers.CallEvent
		var mu sync.Mutex
		l := &listener{commands: s.commands(t), live: map[string]ari.State{}, up: map[string]bool{},
			handle: func(_ context.Context, ev *providers.CallEvent) {
				mu.Lock()
				defer mu.Unlock()
				got = append(got, *ev)
			}}
		if strings.Contains(name, "human") || strings.Contains(name, "Change") || strings.Contains(name, "Destroyed") {
			l.keep("human-1", human)
		}
		if name == "ChannelDtmfReceived" {
			l.keep("caller-1", caller)
		}
		var ev event
		if err := json.Unmarshal(providertest.Fixture(t, "ari-"+name+".json"), &ev); err != nil {
			t.Fatal(err)
		}
		l.take(t.Context(), &ev)
		l.group.Wait()
		if strings.HasPrefix(name, "ChannelDestroyed") && len(got) == 1 && len(want) == 1 {
			want[0].Raw = got[0].Raw // in Asterisk's words
		}
		if len(got)+len(want) > 0 && !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v\nwant %+v", name, got, want)
		}
	}
}

// TestFixturesRequests: what is asked of ARI has its names, and the simulated one takes what
// the fixtures ask.
func TestFixturesRequests(t *testing.T) {
	fixture := func(name string) (*http.Request, string) {
		r, body := providertest.FixtureRequest(t, name)
		return r, string(body)
	}
	alone := true
	s := &server{reply: func(r *http.Request) (int, string) {
		switch {
		case alone && r.Method == "GET" && strings.Contains(r.URL.Path, "/bridges/"):
			return 200, `{"channels":["caller-1"]}`
		case r.Method == "GET" && strings.HasSuffix(r.URL.Path, "/variable"):
			return 404, string(providertest.Fixture(t, "rest-variable-missing-response.json"))
		case r.Method == "GET" && strings.Contains(r.URL.Path, "/bridges/"):
			return 200, string(providertest.Fixture(t, "rest-bridge-get-response.json"))
		case r.Method == "POST" && r.URL.Path == "/ari/channels":
			return 200, fmt.Sprintf(`{"id":%q}`, r.URL.Query().Get("channelId"))
		case r.Method == "GET":
			return 200, string(providertest.Fixture(t, "rest-channel-get-response.json"))
		}
		return 200, "{}"
	}}
	c := s.commands(t)
	c.publish = func(*providers.Answer) string { return hooks + "do/d" }
	ctx := t.Context()
	if _, err := c.Dial(ctx, &providers.Dial{To: "+12025550103", From: "+12025550102",
		Ring: 30 * time.Second}); err != nil {
		t.Fatal(err)
	}
	for _, a := range []providers.Answer{{Media: "wss://b.example/media/asterisk/TOKEN", Unanswered: true},
		{Room: &providers.Room{Name: "x", Wait: true}}} {
		if err := c.Do(ctx, "caller-1", &a); err != nil {
			t.Fatal(err)
		}
	}
	if evs, err := c.Get(ctx, "media-1"); err != nil || len(evs) != 1 || evs[0].Status != providers.StatusInProgress {
		t.Errorf("%+v, %v", evs, err)
	}
	alone = false
	if in, err := c.InRoom(ctx, "x", []string{"human-1", "other"}); err != nil || !in[0] || in[1] {
		t.Errorf("%v, %v", in, err)
	}
	if err := errors.Join(c.SendDigits(ctx, "caller-1", "12#"), c.Hangup(ctx, "caller-1")); err != nil {
		t.Error(err)
	}
	seen := map[string]bool{}
	for i, r := range s.asked {
		if user, password, _ := r.BasicAuth(); user != "asterisk" || password != "asterisk" {
			t.Errorf("%s: %s, %s", r.URL, user, password)
		}
		// each path, with ids left out, and each parameter, is in a fixture
		for _, name := range providertest.FixtureNames(t, "rest-*.http") {
			like, body := fixture(name)
			if like.Method != r.Method || shape(like.URL.Path) != shape(r.URL.Path) {
				continue
			}
			known := true
			for p := range r.URL.Query() {
				known = known && (like.URL.Query().Has(p) || p == "timeout" || p == "callerId" || p == "channelId")
			}
			seen[name] = seen[name] || known && (len(s.bodies[i]) == 0) == (body == "")
		}
	}
	for _, name := range []string{"rest-originate-pjsip.http", "rest-external-media-websocket.http", "rest-answer.http",
		"rest-bridge-add-channel.http", "rest-bridge-moh.http", "rest-bridge-get.http", "rest-channel-get.http",
		"rest-channel-hangup.http", "rest-send-dtmf.http", "rest-variable-missing.http"} {
		if !seen[name] {
			t.Errorf("nothing was asked like %s", name)
		}
	}
	for name, want := range map[string]string{"rest-error-409-not-in-stasis.json": "Channel not in Stasis application",
		"rest-error-401.json": "Authentication required", "rest-error-422.json": "Channel not in this bridge"} {
		if _, detail := fault(0, providertest.Fixture(t, name)); detail != want {
			t.Errorf("%s: %q", name, detail)
		}
	}
}

// shape is a path without ids.
func shape(path string) string {
	parts := strings.Split(path, "/")
	for i, p := range parts {
		if i > 2 && p != "externalMedia" && (i == 3 || strings.HasPrefix(p, "vb-")) {
			parts[i] = "ID"
		}
	}
	return strings.Join(parts, "/")
}

// TestConfig: what is wrong is said with the field's name.
func TestConfig(t *testing.T) {
	for field, change := range map[string]func(*ari.Config){
		"url": func(c *ari.Config) { c.URL = "127.0.0.1:8088" }, "username": func(c *ari.Config) { c.Username = "" },
		"app": func(c *ari.Config) { c.App = "a,b" }, "format": func(c *ari.Config) { c.Format = "opus" },
		"endpoint":       func(c *ari.Config) { c.Endpoint = "PJSIP/trunk" },
		"dial":           func(c *ari.Config) { c.Dial = []string{"alice"} },
		"speech":         func(c *ari.Config) { c.Speech = ari.Speech{URL: "x", Command: []string{"cat"}} },
		"speech.command": func(c *ari.Config) { c.Speech.Command = []string{"no-such-program"} },
		"speech.url":     func(c *ari.Config) { c.Speech.URL = "http://tts.example/{text}" },
		"":               func(c *ari.Config) { c.Speech.URL = "https://tts.example/say?text={text}" },
	} {
		_, err := NewAccount(providers.Setup{Decode: func(c any) error {
			cfg := c.(*ari.Config)
			*cfg = ari.Config{URL: "http://127.0.0.1:8088/ari", Username: "u", Password: "p",
				Endpoint: "PJSIP/{number}@t"}
			change(cfg)
			return nil
		}})
		if (err == nil) != (field == "") || err != nil && !strings.HasPrefix(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// TestSpeech: words are a prompt, a URL, or what a command makes of them.
func TestSpeech(t *testing.T) {
	c := (&server{}).commands(t)
	c.Speaks(func(a *providers.Answer) string { return "https://b.example/" + a.Say })
	say := func(s ari.Speech) string {
		c.cfg.Speech = s
		return c.cfg.Sound(&providers.Answer{Say: "a b", Language: "de-DE"}, c.words)
	}
	for want, s := range map[string]ari.Speech{"": {},
		"sound:https://tts.example/?a+b&de-DE": {URL: "https://tts.example/?{text}&{language}"},
		"sound:https://b.example/a b":          {Command: []string{"cat"}}} {
		if got := say(s); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	c.cfg.Speech.Command = []string{"cat"}
	if file, err := c.Speak(t.Context(), &providers.Answer{Say: "-v words; $HOME"}); err != nil || string(file) != "-v words; $HOME" {
		t.Errorf("%q, %v", file, err)
	}
	c.cfg.Prompts = map[string]string{"a b": "sound:x"}
	if got := say(ari.Speech{}); got != "sound:x" {
		t.Error(got)
	}
}

// TestEndpoint: what may be dialled.
func TestEndpoint(t *testing.T) {
	cfg := ari.Config{Endpoint: "PJSIP/{digits}@trunk", Dial: []string{"PJSIP/alice", "Local/*@desk"}}
	for to, want := range map[string]string{"+15550100123": "PJSIP/15550100123@trunk", "PJSIP/alice": "PJSIP/alice",
		"Local/12@desk": "Local/12@desk", "Local/1/2@desk": "", "Local/1@desk&PJSIP/bob@desk": "", "PJSIP/bob": "",
		"": "", "PJSIP/alicex": ""} {
		if got := cfg.EndpointOf(to); got != want {
			t.Errorf("%s: %q, want %q", to, got, want)
		}
	}
}

// TestRequestsAsMessages: a request and its reply have the form of the fixtures.
func TestRequestsAsMessages(t *testing.T) {
	a := newAccepted("u", "p")
	reply := make(chan *restResponse, 1)
	a.waiting["rq-2"] = reply
	a.replied(providertest.Fixture(t, "ari-RESTResponse-404.json"))
	if said := <-reply; said.Status != 404 || said.Body != `{"message":"Channel not found"}` || len(a.waiting) > 0 {
		t.Errorf("%+v", said)
	}
	for _, bad := range []string{"", "{}", `{"request_id":"rq-2"}`, `{"request_id":5,"status_code":200}`} {
		a.replied([]byte(bad))
	}
	want := restRequest{Type: "RESTRequest", Transaction: "tx-2", Request: "rq-2", Method: "POST", URI: "channels",
		Query:       []restQuery{{"endpoint", "PJSIP/12025550103@trunk"}, {"app", "bridge"}},
		ContentType: "application/json", Body: `{"variables":{"VB_CALL":"caller-1"}}`}
	got, err := json.Marshal(want)
	if err != nil || string(got) != strings.TrimSpace(string(providertest.Fixture(t, "ari-send-RESTRequest-body.json"))) {
		t.Errorf("%s, %v", got, err)
	}
	r, err := http.NewRequest("GET", "http://asterisk/asterisk/ping", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.RoundTrip(r); !errors.Is(err, errNoConnection) {
		t.Errorf("without a connection: %v", err)
	}
}

// TestNothingKept: nothing is kept of a media channel that had ended before, or was never made.
func TestNothingKept(t *testing.T) {
	pbx := httptest.NewServer(http.NotFoundHandler())
	defer pbx.Close()
	cfg, base, err := ari.ReadConfig(providers.Setup{Decode: func(c any) error {
		err := Spec.Sample("http://127.0.0.1", Spec.Formats[0])(c)
		c.(*ari.Config).URL = pbx.URL + "/ari"
		return err
	}})
	if err != nil {
		t.Fatal(err)
	}
	c := newCommands(cfg, base, nil)
	if err := c.endMedia(t.Context(), "media-1"); err != nil {
		t.Error(err)
	}
	if _, err := c.external(t.Context(), "media-2", ari.State{}); err == nil {
		t.Error("a channel is made where there is nothing")
	}
	if len(c.states) > 0 {
		t.Errorf("kept are %v", c.states)
	}
}

// TestTwoClaim: where two bridges that know nothing of each other have one application, the one
// that has lost it says so.
func TestTwoClaim(t *testing.T) {
	sample := Spec.Sample("http://127.0.0.1", Spec.Formats[0])
	x, err := Spec.NewExchange(providers.Setup{Decode: sample})
	if err != nil {
		t.Fatal(err)
	}
	pbx := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !x.(interface {
			Feed(http.ResponseWriter, *http.Request) bool
		}).Feed(w, r) {
			http.NotFound(w, r)
		}
	}))
	defer pbx.Close()
	listen := func(ctx context.Context) error {
		cfg, base, err := ari.ReadConfig(providers.Setup{Decode: func(c any) error {
			err := sample(c)
			c.(*ari.Config).URL = pbx.URL + "/ari"
			return err
		}})
		if err != nil {
			return err
		}
		return newCommands(cfg, base, nil).Listen(ctx, func(context.Context, *providers.CallEvent) {})
	}
	ctx, stop := context.WithCancel(t.Context())
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { first <- listen(ctx) }()
	for !x.(providers.Teller).Heard() {
		runtime.Gosched()
	}
	go func() { second <- listen(ctx) }()
	if err := <-first; !errors.Is(err, errReplaced) {
		t.Errorf("the first one: %v", err)
	}
	stop()
	if err := <-second; !errors.Is(err, context.Canceled) {
		t.Errorf("the second one: %v", err)
	}
}

// TestLook: a channel that is gone has ended; one that comes while it is looked has not.
func TestLook(t *testing.T) {
	var l *listener
	s := &server{reply: func(r *http.Request) (int, string) {
		if strings.HasSuffix(r.URL.Path, "/channels") {
			l.take(t.Context(), &event{Type: "ChannelStateChange", Channel: ari.Channel{ID: "new", State: "Ringing"}})
		}
		return 200, "[]"
	}}
	var ended []string
	l = &listener{commands: s.commands(t), live: map[string]ari.State{}, up: map[string]bool{},
		handle: func(_ context.Context, ev *providers.CallEvent) {
			if ev.Status.Final() {
				ended = append(ended, ev.Leg)
			}
		}}
	for _, id := range []string{"old", "new"} {
		l.keep(id, ari.State{Status: hooks + "status/" + id})
	}
	l.take(t.Context(), &event{Type: "StasisStart", Channel: ari.Channel{ID: "old", State: "Up"}})
	l.look(t.Context(), nil)
	l.group.Wait()
	if len(ended) != 1 || ended[0] != "old" {
		t.Errorf("ended: %v, want the old one", ended)
	}
}

// TestTidy: Asterisk leaves what belonged to a call that has ended: its audio, its bridge, the
// number that it was being connected to.
func TestTidy(t *testing.T) {
	s := &server{reply: func(r *http.Request) (int, string) {
		if strings.HasSuffix(r.URL.Path, "/bridges/leg.call") && r.Method == "GET" {
			return 200, `{"channels":["leg.media-2"]}`
		}
		return 200, "{}"
	}}
	l := &listener{commands: s.commands(t), live: map[string]ari.State{}, up: map[string]bool{},
		handle: func(context.Context, *providers.CallEvent) {}}
	l.keep("leg", ari.State{Media: "leg.media-1", Dialed: "leg.to-1"})
	l.take(t.Context(), &event{Type: "ChannelDestroyed", Channel: ari.Channel{ID: "leg"}, Cause: 16})
	l.group.Wait()
	ended := map[string]bool{}
	for _, r := range s.asked {
		if r.Method == "DELETE" {
			ended[strings.TrimPrefix(r.URL.Path, "/ari/")] = true
		}
	}
	for _, want := range []string{"channels/leg.media-1", "channels/leg.media-2", "channels/leg.to-1",
		"bridges/leg.call"} {
		if !ended[want] {
			t.Errorf("%s is left: %v", want, ended)
		}
	}
}

// TestDetection: a call with machine detection goes through the dialplan, and what that has
// found is told before the call is asked about.
func TestDetection(t *testing.T) {
	s := &server{reply: func(r *http.Request) (int, string) {
		return 200, fmt.Sprintf(`{"id":%q}`, r.URL.Query().Get("channelId"))
	}}
	c := s.commands(t)
	d := &providers.Dial{To: "+12025550103", From: "+12025550102", Ring: time.Second, Detect: true,
		Status: hooks + "status/s", Answer: hooks + "answer/a"}
	if _, err := c.Dial(t.Context(), d); err == nil || len(s.asked) > 0 {
		t.Errorf("without a context: %v", err)
	}
	c.cfg.Detect = "amd"
	leg, err := c.Dial(t.Context(), d)
	if err != nil || len(s.asked) != 2 || s.asked[0].URL.Query().Get("context") != "amd" ||
		s.asked[0].URL.Query().Has("app") || s.asked[1].URL.Path != "/ari/applications/voicebridge/subscription" ||
		s.asked[1].URL.Query().Get("eventSource") != "channel:"+leg.ID {
		t.Fatalf("%v, %d requests", err, len(s.asked))
	}
	var got []providers.CallEvent
	l := &listener{commands: c, live: map[string]ari.State{}, up: map[string]bool{},
		handle: func(_ context.Context, ev *providers.CallEvent) { got = append(got, *ev) }}
	l.take(t.Context(), &event{Type: "StasisStart", Channel: ari.Channel{ID: leg.ID, State: "Up",
		Vars: map[string]string{ari.Detected: "MACHINE"}}})
	if len(got) != 3 || got[1].Kind != providers.CallDetected || got[1].AnsweredBy != providers.AnsweredByMachine ||
		got[1].Ref != "status/s" {
		t.Errorf("%+v", got)
	}
}

// FuzzEvent: whatever Asterisk says is taken or left, and whatever is asked of the simulated
// one.
func FuzzEvent(f *testing.F) {
	names, _ := filepath.Glob(filepath.Join("testdata", "fixtures", "ari-*.json"))
	for _, name := range names {
		f.Add(providertest.Fixture(f, filepath.Base(name)))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		l := &listener{commands: (&server{}).commands(t), live: map[string]ari.State{}, up: map[string]bool{},
			handle: func(_ context.Context, ev *providers.CallEvent) {
				if ev.Kind == 0 || ev.Leg == "" {
					t.Errorf("%q: %+v", data, ev)
				}
			}}
		var ev event
		if json.Unmarshal(data, &ev) == nil {
			l.take(t.Context(), &ev)
			l.group.Wait()
		}
		var cfg ari.Config
		sample := Spec.Sample("http://127.0.0.1", Spec.Formats[0])
		if err := sample(&cfg); err != nil {
			t.Fatal(err)
		}
		x, err := Spec.NewExchange(providers.Setup{Decode: sample})
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest("POST", "/ari/channels", nil)
		r.SetBasicAuth("asterisk", cfg.Password)
		_, _ = x.Operation(r, data, time.Now())
	})
}
