package cloudonix

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"voicebridge/codec"
	"voicebridge/providers"
	"voicebridge/providers/internal/twiliomedia"
	"voicebridge/providers/providertest"
)

// The fixtures' domain, its key and its calls.
const (
	domain  = "acme.cloudonix.net"
	key     = "XI0000000000000000000000000001"
	inbound = "a1b2c3d400000000000000000000token"
	placed  = "a1b2c3d400000000000000000000tokn2"
	callSid = "c0000000000000000000000000000001"
)

func config(base string) func(any) error {
	return func(c any) error {
		*c.(*Config) = Config{Domain: domain, APIKey: key, BaseURL: base}
		return nil
	}
}

func TestConformance(t *testing.T) {
	start := providertest.Event(providers.EventStart)
	start.Start = &providers.Start{Account: domain, Call: inbound, Stream: "5f", In: twiliomedia.Format,
		Out: twiliomedia.Format, Params: map[string]string{"run": "42"}}
	audio := providertest.Event(providers.EventAudio)
	audio.Audio, audio.At = []byte{0xff, 0xff, 0xff}, 5*time.Millisecond
	text := providertest.Text
	providertest.Run(t, providertest.Harness{
		Spec: Spec,
		Start: func(f codec.Format) *providers.Start {
			return &providers.Start{Account: domain, Call: inbound, Stream: "5f", In: f, Out: f,
				Params: map[string]string{"a": "b"}}
		},
		Documented: []providertest.Documented{
			{Message: text(`{"event":"connected","protocol":"Call","version":"1.0.0"}`),
				Event: providertest.Event(providers.EventConnected)},
			{Message: text(`{"event":"start","streamSid":"5f","start":{"streamSid":"5f","callSid":"c1","accountSid":"` +
				domain + `","session":"` + inbound + `","context":"inbound","tracks":["inbound"],"customParameters":` +
				`{"run":"42"},"mediaFormat":{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":1}}}`),
				Event: start},
			{Message: text(`{"event":"media","streamSid":"5f","media":{"track":"inbound","chunk":"1","timestamp":"5",` +
				`"payload":"////"}}`), Event: audio},
		},
		Malformed: []providers.Message{text(`{"event":"media"}`), {Binary: true}},
		Unknown:   []providers.Message{text(`{"event":"weather","streamSid":"5f"}`)},
		BadFormat: text(`{"event":"start","streamSid":"5f","start":{"streamSid":"5f","mediaFormat":{"encoding":"x"}}}`),
	})
}

func TestControl(t *testing.T) {
	providertest.RunControl(t, providertest.Control{Spec: Spec, Config: config, Secret: key})
}

// TestFixturesMedia: what Cloudonix sends and takes on the media socket.
func TestFixturesMedia(t *testing.T) {
	for _, name := range providertest.FixtureNames(t, "media-start*.json") {
		s := dialect.NewStream()
		start := providertest.Decode(t, s, name).Start
		if start == nil || start.Call != inbound || start.Account != domain {
			t.Fatalf("%s: %+v", name, start)
		}
		for name, want := range map[string]providers.EventKind{"media-connected.json": providers.EventConnected,
			"media-media.json": providers.EventAudio, "media-media-minimal.json": providers.EventAudio,
			"media-dtmf.json": providers.EventDigit, "media-mark.json": providers.EventMark,
			"media-stop.json": providers.EventStop} {
			if ev := providertest.Decode(t, s, name); ev.Kind != want || want == providers.EventAudio &&
				len(ev.Audio) != 160 {
				t.Errorf("%s: %+v", name, ev)
			}
		}
		p := dialect.NewPeer()
		for _, ev := range []providers.Event{{Kind: providers.EventConnected},
			{Kind: providers.EventStart, Start: start}, {Kind: providers.EventAudio, Audio: []byte{1}},
			{Kind: providers.EventDigit, Digit: '1'}, {Kind: providers.EventMark, Mark: "m"},
			{Kind: providers.EventStop}} {
			var out providers.Messages
			if err := p.Encode(&out, &ev); err != nil {
				t.Fatal(err)
			}
			providertest.Known(t, out.All()[0].Data, providertest.FixtureNames(t, "media-*.json"), nil)
		}
		for _, name := range providertest.FixtureNames(t, "media-send-*.json") {
			var cmd providers.Command
			text := providertest.Fixture(t, name)
			if err := p.Decode(providers.Message{Data: text}, &cmd); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if got := providertest.Encode(t, s, cmd); !bytes.Equal(got, text) {
				t.Errorf("we send %s\nwant    %s", got, text)
			}
		}
	}
}

// TestFixturesWebhooks: what each request means.
func TestFixturesWebhooks(t *testing.T) {
	w := &webhooks{Config{Domain: domain, APIKey: key}}
	read := func(purpose providers.Purpose, name string, want ...providers.CallEvent) {
		t.Helper()
		h := &providers.Hook{Method: "POST", Purpose: purpose, Body: providertest.Fixture(t, name)}
		if strings.HasSuffix(name, ".http") {
			r, body := providertest.FixtureRequest(t, name)
			h.Method, h.URL, h.Body = r.Method, "https://b.example"+r.URL.String(), body
		}
		if got, err := w.Read(h); err != nil || len(got)+len(want) > 0 && !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v\nwant %+v", name, got, err, want)
		}
	}
	alias := []string{callSid}
	asked := providers.CallEvent{Kind: providers.CallAsked, Leg: inbound, Aliases: alias, From: "+12025550101",
		To: "+12025550102", Wants: true, Raw: "ringing"}
	for _, name := range []string{"webhook-voice-post.json", "webhook-voice-diverted.json", "webhook-voice.form",
		"webhook-voice-get.http"} {
		read(providers.ForAnswer, name, asked)
	}
	subscriber := asked
	subscriber.From = "alice"
	read(providers.ForAnswer, "webhook-voice-subscriber.json", subscriber)
	answered := providers.CallEvent{Kind: providers.CallAsked, Leg: placed, Aliases: alias, From: "+12025550102",
		To: "+12025550103", Wants: true, Raw: "in-progress"}
	read(providers.ForAnswer, "webhook-voice-outbound-api.json", answered)
	for name, want := range map[string]providers.Status{
		"session-new": providers.StatusInitiated, "session-processing": providers.StatusInitiated,
		"session-ringing": providers.StatusRinging, "session-connected": providers.StatusInProgress,
		"session-list": providers.StatusInProgress, "session-completed": providers.StatusCompleted,
		"session-busy": providers.StatusBusy, "session-noanswer": providers.StatusNoAnswer,
		"session-cancel": providers.StatusCanceled, "session-congestion": providers.StatusFailed,
		"session-nocredit": providers.StatusFailed, "session-error": providers.StatusFailed,
		"cdr-ANSWER": providers.StatusCompleted, "cdr-BUSY": providers.StatusBusy,
		"cdr-CANCEL":     providers.StatusCanceled,
		"cdr-CONGESTION": providers.StatusFailed, "cdr-FAILED": providers.StatusFailed,
		"cdr-NOANSWER": providers.StatusNoAnswer,
	} {
		got, err := w.Read(&providers.Hook{Method: "POST", Purpose: providers.ForStatus,
			Body: providertest.Fixture(t, "webhook-"+name+".json")})
		if err != nil || len(got) != 1 || got[0].Kind != providers.CallProgress || got[0].Status != want ||
			got[0].Leg != placed {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	for raw, s := range map[string]providers.Status{"busy": providers.StatusBusy,
		"completed": providers.StatusCompleted, "failed": providers.StatusFailed, "no-answer": providers.StatusNoAnswer,
		"canceled": providers.StatusCanceled} {
		read(providers.ForNext, "webhook-dial-action-"+raw+".json", providers.CallEvent{Kind: providers.CallStepDone,
			Leg: inbound, Aliases: alias, Wants: true, Raw: raw, Status: s})
	}
	read(providers.ForKey, "webhook-gather.json", providers.CallEvent{Kind: providers.CallKey, Leg: inbound,
		Aliases: alias, Wants: true, Raw: "ringing", Digit: "1"})
	for _, name := range []string{"conference-participant-join.json", "conference-participant-join.form"} {
		read(providers.ForRoom, name, providers.CallEvent{Kind: providers.CallRoom, Leg: placed, Joined: true,
			Raw: "participant-join"})
	}
}

// TestFixturesDocuments: every verb and attribute that we write is Cloudonix'.
func TestFixturesDocuments(t *testing.T) {
	for _, a := range []providers.Answer{
		{}, {Media: "wss://b.example/x", Next: "https://b.example/n"}, {Say: "x"},
		{Dial: "+12025550103", Caller: "+12025550102", Next: "https://b.example/n"},
		{Say: "x", Ask: &providers.Question{URL: "https://b.example/k", Wait: time.Second}},
		{Room: &providers.Room{Name: "xfer-0001", End: true, Events: "https://b.example/e"}},
	} {
		doc, err := marshal(&a)
		if err != nil {
			t.Fatal(err)
		}
		providertest.Known(t, doc, providertest.FixtureNames(t, "answer-*.xml"),
			[]string{"Response/Redirect", "Response/Redirect@method"})
	}
	x := &exchange{Config{Domain: domain}}
	for _, name := range []string{"answer-conference.xml", "answer-dial.xml", "answer-gather.xml",
		"answer-say-hangup.xml"} {
		doc := bytes.Replace(providertest.Fixture(t, name), []byte("start end join leave"), []byte("join leave"), 1)
		if _, err := x.Answer("text/xml", doc); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// roundTrip answers with a fixture, and keeps what it was asked.
type roundTrip struct {
	t      *testing.T
	status int
	reply  string
	asked  *http.Request
	sent   []byte
}

// RoundTrip implements http.RoundTripper.
func (r *roundTrip) RoundTrip(req *http.Request) (*http.Response, error) {
	r.asked, r.sent = req, nil
	if req.Body != nil {
		r.sent, _ = io.ReadAll(req.Body)
	}
	var body []byte
	if r.reply != "" {
		body = providertest.Fixture(r.t, r.reply)
	}
	return &http.Response{StatusCode: r.status, Header: http.Header{}, Request: req,
		Body: io.NopCloser(bytes.NewReader(body))}, nil
}

// TestFixturesREST: requests have Cloudonix' names, its replies are understood, and the
// simulated Cloudonix takes the same requests.
func TestFixturesREST(t *testing.T) {
	rt := &roundTrip{t: t}
	a, err := NewAccount(providers.Setup{Decode: config(""), HTTP: rt})
	if err != nil {
		t.Fatal(err)
	}
	x := &exchange{Config{Domain: domain, APIKey: key}}
	same := func(err error, name string, kind providers.OperationKind) {
		t.Helper()
		want, body := providertest.FixtureRequest(t, name)
		if err != nil || rt.asked.Method != want.Method || rt.asked.URL.Path != want.URL.Path ||
			rt.asked.Header.Get("Authorization") != want.Header.Get("Authorization") {
			t.Errorf("%v: %s %s, want %s %s", err, rt.asked.Method, rt.asked.URL, want.Method, want.URL)
		}
		if len(body) > 0 {
			providertest.Known(t, rt.sent, []string{name}, []string{"callback"})
		}
		if kind == providers.OpDial { // the fixture has no callback, which is not required
			body = bytes.Replace(body, []byte(`"url":`), []byte(`"callback":"https://b.example/s","url":`), 1)
		}
		if op, err := x.Operation(want, body, time.Now()); err != nil || op.Kind != kind {
			t.Errorf("%s: %+v, %v", name, op, err)
		}
	}
	ctx := t.Context()
	rt.status, rt.reply = 200, "rest-create-call-response.json"
	leg, err := a.Dial(ctx, &providers.Dial{To: "+12025550103", From: "+12025550102", Answer: "https://b.example/a",
		Status: "https://b.example/s", Ring: 30 * time.Second, Digits: "ww1"})
	if same(err, "rest-create-call-url.http", providers.OpDial); leg.ID != placed {
		t.Errorf("%+v", leg)
	}
	rt.reply = "rest-get-session-response.json"
	evs, err := a.Get(ctx, inbound)
	if same(err, "rest-get-session.http", providers.OpGet); len(evs) != 1 ||
		evs[0].Status != providers.StatusInProgress {
		t.Errorf("%+v", evs)
	}
	rt.status, rt.reply = 204, ""
	same(a.Hangup(ctx, inbound), "rest-hangup.http", providers.OpHangup)
	same(a.Do(ctx, inbound, &providers.Answer{Room: &providers.Room{Name: "xfer-0001", End: true}}),
		"rest-switch-application.http", providers.OpDo)
	for name, status := range map[string]int{"rest-error-404.json": 404, "rest-error-429.json": 429} {
		rt.status, rt.reply = status, name
		var e *providers.CallError
		if _, err := a.Get(ctx, inbound); !errors.As(err, &e) || e.Status != status || e.Detail == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestFixturesExchange: what the simulated Cloudonix asks and tells has Cloudonix' names.
func TestFixturesExchange(t *testing.T) {
	x := &exchange{Config{Domain: domain, APIKey: key, WebhookHeader: defaultHeader, WebhookSecret: key}}
	call := providers.ExchangeCall{ID: placed, From: "+12025550102", To: "+12025550103",
		Status: providers.StatusCompleted}
	in := call
	in.Inbound = true
	for pattern, ask := range map[string]providers.Ask{
		"webhook-voice*.json":     {Kind: providers.AskAnswer, Call: call},
		"webhook-session-*":       {Kind: providers.TellStatus, Call: call},
		"webhook-cdr-*":           {Kind: providers.TellStatus, Call: in},
		"webhook-dial-action-*":   {Kind: providers.AskNext, Call: call, Dial: providers.StatusBusy},
		"webhook-gather*":         {Kind: providers.AskDigit, Call: call, Digit: "1"},
		"conference-participant*": {Kind: providers.TellRoom, Call: call, Room: "xfer-0001", Joined: true},
	} {
		ask.URL = "https://b.example/x"
		known := []string{"session.subscriberId", "session.destination", "session.callerId", "session.direction"}
		providertest.Known(t, providertest.Asked(t, x, ask), providertest.FixtureNames(t, pattern), known)
	}
}

// TestConfig: what is wrong is said with the field's name, and a short domain is completed.
func TestConfig(t *testing.T) {
	for field, change := range map[string]func(*Config){
		"domain": func(c *Config) { c.Domain = "a/b" }, "api_key": func(c *Config) { c.APIKey = "" },
		"requests": func(c *Config) { c.Requests = -1 }, "base_url": func(c *Config) { c.BaseURL = "http://a.example" },
		"": func(c *Config) { c.Domain = "acme" },
	} {
		a, err := NewAccount(providers.Setup{Decode: func(c any) error {
			cfg := c.(*Config)
			cfg.Domain, cfg.APIKey = "acme", "k"
			change(cfg)
			return nil
		}})
		if (err == nil) != (field == "") || err != nil && !strings.HasPrefix(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
		if err == nil && a.ID != domain {
			t.Errorf("account %q", a.ID)
		}
	}
}

// TestOwnHeader: a domain may show something else than its API key.
func TestOwnHeader(t *testing.T) {
	a, err := NewAccount(providers.Setup{Decode: func(c any) error {
		*c.(*Config) = Config{Domain: "acme", APIKey: "k", WebhookHeader: "Authorization", WebhookSecret: "Bearer r"}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	for header, good := range map[string]bool{"Bearer r": true, "Bearer k": false, "": false} {
		h := &providers.Hook{Header: http.Header{"Authorization": {header}, "X-Cx-Apikey": {"k"}}}
		if _, err := a.Webhooks.Authenticate(h, time.Now()); (err == nil) != good {
			t.Errorf("%q: %v", header, err)
		}
	}
}

// TestTenInTen: never are more than ten requests made in ten seconds.
func TestTenInTen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Time
		a, err := NewAccount(providers.Setup{Decode: func(c any) error {
			cfg := c.(*Config) // with the usual limit
			cfg.Domain, cfg.APIKey = "acme", "k"
			return nil
		}, HTTP: roundTripper(func(r *http.Request) (*http.Response, error) {
			at = append(at, time.Now())
			return &http.Response{StatusCode: 204, Body: http.NoBody, Request: r}, nil
		})})
		if err != nil {
			t.Fatal(err)
		}
		for range 40 {
			if err := a.Hangup(t.Context(), "x"); err != nil {
				t.Fatal(err)
			}
		}
		for i := range at {
			n := slices.IndexFunc(at[i:], func(t time.Time) bool { return t.Sub(at[i]) >= requestsTime })
			if n > defaultRequests {
				t.Errorf("%d requests in ten seconds", n)
			}
		}
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// FuzzWebhook: whatever comes is read or refused, on both ends.
func FuzzWebhook(f *testing.F) {
	for _, pattern := range []string{"*.json", "*.form", "*.xml"} {
		names, _ := filepath.Glob(filepath.Join("testdata", "fixtures", pattern))
		for _, name := range names {
			f.Add(providertest.Fixture(f, filepath.Base(name)))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		w, x := &webhooks{Config{Domain: domain}}, &exchange{Config{Domain: domain, APIKey: key}}
		for purpose := providers.ForAnswer; purpose <= providers.ForRoom; purpose++ {
			evs, err := w.Read(&providers.Hook{Method: "POST", Purpose: purpose, Body: data})
			for _, ev := range evs {
				if err != nil || ev.Kind == 0 || ev.Leg == "" {
					t.Errorf("%q: %+v, %v", data, ev, err)
				}
			}
		}
		_, _ = x.Answer("application/xml", data)
		doc, _ := json.Marshal(switchBody{string(data)})
		for _, body := range [][]byte{data, doc} {
			r := httptest.NewRequest("POST", "/calls/"+domain+"/sessions/a1/application", nil)
			r.Header.Set("Authorization", "Bearer "+key)
			_, _ = x.Operation(r, body, time.Now())
			_, _ = dialled(body)
		}
	})
}

// FuzzDecode: so is what comes over a media connection.
func FuzzDecode(f *testing.F) {
	for _, name := range providertest.FixtureNames(f, "media-*.json") {
		f.Add(providertest.Fixture(f, name))
	}
	start := providertest.Fixture(f, "media-start.json")
	f.Fuzz(func(t *testing.T, data []byte) {
		s, p := dialect.NewStream(), dialect.NewPeer()
		if _, err := s.Decode(nil, providers.Message{Data: start}); err != nil {
			t.Fatal(err)
		}
		if evs, err := s.Decode(nil, providers.Message{Data: data}); err != nil && len(evs) > 0 {
			t.Errorf("%q: %+v, %v", data, evs, err)
		}
		var cmd providers.Command
		_ = p.Decode(providers.Message{Data: data}, &cmd)
	})
}
