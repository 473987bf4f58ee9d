package twilio

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"voicebridge/providers"
	"voicebridge/providers/internal/twiliomedia"
	"voicebridge/providers/providertest"
)

// The fixtures' account, and two calls of it.
const (
	fixtureAccount = "AC00000000000000000000000000000001"
	call1          = "CA00000000000000000000000000000001"
	call2          = "CA00000000000000000000000000000002"
)

// TestFixturesMedia: what Twilio sends and takes on the media socket.
func TestFixturesMedia(t *testing.T) {
	s := dialect.NewStream()
	if ev := providertest.Decode(t, s, "media-connected.json"); ev.Kind != providers.EventConnected {
		t.Errorf("connected: %+v", ev)
	}
	start := providertest.Decode(t, s, "media-start.json")
	want := &providers.Start{Account: fixtureAccount, Call: call1, Stream: start.Start.Stream, In: twiliomedia.Format, Out: twiliomedia.Format,
		Params: map[string]string{"FirstName": "Jane", "LastName": "Doe", "RemoteParty": "Bob"}}
	if !reflect.DeepEqual(start.Start, want) || !strings.HasPrefix(want.Stream, "MZ") {
		t.Errorf("start: %+v", start.Start)
	}
	if ev := providertest.Decode(t, s, "media-media.json"); ev.Kind != providers.EventAudio || len(ev.Audio) != 160 ||
		ev.At != 5*time.Millisecond || ev.Missing != 0 {
		t.Errorf("media: %+v", ev)
	}
	if ev := providertest.Decode(t, s, "media-media-outbound.json"); ev.Kind != providers.EventUnknown {
		t.Errorf("our own audio: %+v", ev)
	}
	if ev := providertest.Decode(t, s, "media-dtmf.json"); ev.Kind != providers.EventDigit || ev.Digit != '1' {
		t.Errorf("dtmf: %+v", ev)
	}
	if ev := providertest.Decode(t, s, "media-mark.json"); ev.Kind != providers.EventMark || ev.Mark != "my label" {
		t.Errorf("mark: %+v", ev)
	}
	if ev := providertest.Decode(t, s, "media-stop.json"); ev.Kind != providers.EventStop {
		t.Errorf("stop: %+v", ev)
	}
	if ev := providertest.Decode(t, dialect.NewStream(), "media-start-both-tracks.json"); ev.Kind != providers.EventStart ||
		len(ev.Start.Params) != 0 {
		t.Errorf("start of both tracks: %+v", ev)
	}
	p := dialect.NewPeer()
	if err := p.Encode(&providers.Messages{}, &providers.Event{Kind: providers.EventStart, Start: start.Start}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"media-send-media.json", "media-send-mark.json", "media-send-clear.json"} {
		var cmd providers.Command
		text := providertest.Fixture(t, name)
		if err := p.Decode(providers.Message{Data: text}, &cmd); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := providertest.Encode(t, s, cmd); !bytes.Equal(got, text) {
			t.Errorf("we send %s\nwant    %s", got, text)
		}
	}
	for _, ev := range []providers.Event{{Kind: providers.EventConnected},
		{Kind: providers.EventStart, Start: start.Start},
		{Kind: providers.EventAudio, Audio: []byte{1}}, {Kind: providers.EventDigit, Digit: '1'},
		{Kind: providers.EventMark, Mark: "m"}, {Kind: providers.EventStop}} {
		var out providers.Messages
		if err := p.Encode(&out, &ev); err != nil {
			t.Fatal(err)
		}
		providertest.Known(t, out.All()[0].Data, providertest.FixtureNames(t, "media-*.json"),
			[]string{"start.customParameters"})
	}
}

// fixtureHook is a request with a fixture as its body.
func fixtureHook(t *testing.T, name string, purpose providers.Purpose) *providers.Hook {
	return &providers.Hook{Method: "POST", Purpose: purpose, Body: providertest.Fixture(t, name)}
}

// TestFixturesWebhooks: what each request means.
func TestFixturesWebhooks(t *testing.T) {
	asked := func(leg, from, to string) []providers.CallEvent {
		return []providers.CallEvent{{Kind: providers.CallAsked, Leg: leg, From: from, To: to, Wants: true}}
	}
	status := func(raw string, s providers.Status) []providers.CallEvent {
		return []providers.CallEvent{{Kind: providers.CallProgress, Leg: call2, Raw: raw, Status: s}}
	}
	detected := func(raw string, by providers.AnsweredBy) []providers.CallEvent {
		return []providers.CallEvent{{Kind: providers.CallDetected, Leg: call2, Raw: raw, AnsweredBy: by}}
	}
	done := func(raw string, s providers.Status) []providers.CallEvent {
		return []providers.CallEvent{{Kind: providers.CallStepDone, Leg: call1, Raw: raw, Status: s, Wants: true}}
	}
	room := func(raw string, joined bool) []providers.CallEvent {
		return []providers.CallEvent{{Kind: providers.CallRoom, Leg: call2, Raw: raw, Joined: joined}}
	}
	key := func(digit string) []providers.CallEvent {
		return []providers.CallEvent{{Kind: providers.CallKey, Leg: call1, Digit: digit, Wants: true}}
	}
	for _, tt := range []struct {
		purpose providers.Purpose
		want    map[string][]providers.CallEvent
	}{
		{providers.ForAnswer, map[string][]providers.CallEvent{
			"webhook-voice.form":           asked(call1, "+12025550101", "+12025550102"),
			"webhook-voice-minimal.form":   asked(call1, "+12025550101", "+12025550102"),
			"webhook-voice-optional.form":  forwarded(asked(call1, "+12025550101", "+12025550102")),
			"webhook-voice-anonymous.form": asked(call1, "anonymous", "+12025550102"),
			"webhook-voice-sip.form": asked(call1, "sip:alice@acme.sip.twilio.com",
				"sip:bridge@acme.sip.twilio.com"),
			"webhook-voice-outbound-answered.form": asked(call2, "+12025550102", "+12025550103"),
			"webhook-voice-outbound-amd-sync.form": asked(call2, "+12025550102", "+12025550103"),
		}},
		{providers.ForStatus, map[string][]providers.CallEvent{
			"webhook-status-initiated.form": status("initiated", providers.StatusInitiated),
			"webhook-status-ringing.form":   status("ringing", providers.StatusRinging),
			"webhook-status-answered.form":  status("in-progress", providers.StatusInProgress),
			"webhook-status-completed.form": append(detected("human", providers.AnsweredByHuman),
				status("completed", providers.StatusCompleted)...),

			"webhook-status-completed-sip.form":   status("completed", providers.StatusCompleted),
			"webhook-status-busy.form":            status("busy", providers.StatusBusy),
			"webhook-status-no-answer.form":       status("no-answer", providers.StatusNoAnswer),
			"webhook-status-failed.form":          status("failed", providers.StatusFailed),
			"webhook-status-canceled.form":        status("canceled", providers.StatusCanceled),
			"webhook-number-status-answered.form": status("in-progress", providers.StatusInProgress),
			"webhook-amd-human.form":              detected("human", providers.AnsweredByHuman),
			"webhook-amd-fax.form":                detected("fax", providers.AnsweredByFax),
			"webhook-amd-unknown.form":            detected("unknown", providers.AnsweredByUnknown),
			"webhook-amd-machine_start.form":      detected("machine_start", providers.AnsweredByMachine),
			"webhook-amd-machine_end_beep.form":   detected("machine_end_beep", providers.AnsweredByMachine),

			"webhook-amd-machine_end_silence.form": detected("machine_end_silence", providers.AnsweredByMachine),
			"webhook-amd-machine_end_other.form":   detected("machine_end_other", providers.AnsweredByMachine),
		}},
		{providers.ForNext, map[string][]providers.CallEvent{
			"webhook-dial-action-completed.form": done("completed", providers.StatusCompleted),
			"webhook-dial-action-answered.form":  done("answered", providers.StatusCompleted),
			"webhook-dial-action-busy.form":      done("busy", providers.StatusBusy),
			"webhook-dial-action-no-answer.form": done("no-answer", providers.StatusNoAnswer),
			"webhook-dial-action-failed.form":    done("failed", providers.StatusFailed),
			"webhook-dial-action-canceled.form":  done("canceled", providers.StatusCanceled),
		}},
		{providers.ForKey, map[string][]providers.CallEvent{"webhook-gather.form": key("1"),
			"webhook-gather-speech.form": key("")}},
		{providers.ForRoom, map[string][]providers.CallEvent{
			"conference-participant-join.form":             room("participant-join", true),
			"conference-participant-leave.form":            room("participant-leave", false),
			"conference-participant-leave-no-answer.form":  room("participant-leave", false),
			"conference-participant-leave-redirected.form": room("participant-leave", false),
			"conference-start.form":                        nil,
			"conference-end.form":                          nil,
			"conference-end-api.form":                      nil,
			"conference-end-last.form":                     nil,
			"conference-participant-mute.form":             nil,
			"conference-participant-speech-start.form":     nil,
			"conference-announcement-fail.form":            nil,
		}},
	} {
		for name, want := range tt.want {
			w := &webhooks{Config{AccountSID: fixtureAccount, AuthToken: "12345"}}
			if got, err := w.Read(fixtureHook(t, name, tt.purpose)); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%s: %+v, %v\nwant %+v", name, got, err, want)
			}
		}
	}
}

// TestFixturesSignatures: a webhook and a handshake as Twilio signs them.
func TestFixturesSignatures(t *testing.T) {
	w := &webhooks{Config{AccountSID: fixtureAccount, AuthToken: "12345"}}
	for name, u := range map[string]string{
		"handshake.http":       "wss://bridge.example.com/twilio/media/abc123",
		"webhook-headers.http": "https://bridge.example.com/twilio/voice?tenant=acme",
	} {
		r, body := providertest.FixtureRequest(t, name)
		h := &providers.Hook{Method: r.Method, URL: u, Header: r.Header, Body: body}
		if _, err := w.Authenticate(h, time.Now()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestFixturesDocuments: every element and attribute that we write is Twilio's.
func TestFixturesDocuments(t *testing.T) {
	for _, a := range []providers.Answer{
		{}, {Media: "wss://b.example/x", Next: "https://b.example/n"}, {Say: "x"},
		{Dial: "+12025550103", Caller: "+12025550102", Next: "https://b.example/n"},
		{Say: "x", Ask: &providers.Question{URL: "https://b.example/k", Wait: time.Second}},
		{Room: &providers.Room{Name: "xfer-0001", End: true, Events: "https://b.example/e",
			Hold: "https://b.example/h"}},
	} {
		doc, err := marshal(&a)
		if err != nil {
			t.Fatal(err)
		}
		// In Twilio's documents, but in no fixture.
		providertest.Known(t, doc, providertest.FixtureNames(t, "answer-*.xml"),
			[]string{"Response/Redirect", "Response/Redirect@method", "Response/Gather@actionOnEmptyResult"})
	}
	x := &exchange{Config{AccountSID: fixtureAccount}}
	got, err := x.Answer("text/xml", providertest.Fixture(t, "answer-say-hangup.xml"))
	if err != nil || got.Say == "" {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err = x.Answer("text/xml", providertest.Fixture(t, "answer-stream.xml")); err != nil ||
		got.Media != "wss://bridge.example.com/twilio/media/abc123" {
		t.Errorf("%+v, %v", got, err)
	}
}

// roundTrip answers a request with a status and a fixture, and keeps what was sent.
type roundTrip struct {
	t      *testing.T
	status int
	reply  string
	sent   []byte
	path   string
	method string
}

func (r *roundTrip) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		r.sent, _ = io.ReadAll(req.Body)
	}
	r.path, r.method = req.URL.Path, req.Method
	return &http.Response{StatusCode: r.status, Header: http.Header{"Content-Type": {"application/json"}}, Request: req,
		Body: io.NopCloser(bytes.NewReader(providertest.Fixture(r.t, r.reply)))}, nil
}

// TestFixturesREST: requests have Twilio's names, and its replies are understood.
func TestFixturesREST(t *testing.T) {
	rt := &roundTrip{t: t, status: 201, reply: "rest-create-call-response.json"}
	c := &commands{cfg: Config{AccountSID: fixtureAccount, AuthToken: "token"}, http: rt}
	ctx := context.Background()
	leg, err := c.Dial(ctx, &providers.Dial{To: "+12025550103", From: "+12025550102", Answer: "https://b.example/a",
		Status: "https://b.example/s",
		Ring:   30 * time.Second, Detect: true})
	if err != nil || leg.ID != call2 {
		t.Errorf("%+v, %v", leg, err)
	}
	same := func(name string) {
		t.Helper()
		want, body := providertest.FixtureRequest(t, name)
		if rt.method != want.Method || rt.path != want.URL.Path {
			t.Errorf("%s %s, want %s %s", rt.method, rt.path, want.Method, want.URL.Path)
		}
		if len(body) > 0 {
			providertest.Known(t, rt.sent, []string{name}, nil)
		}
	}
	same("rest-create-call.http")
	rt.status, rt.reply = 200, "rest-get-call-response.json"
	evs, err := c.Get(ctx, call2)
	want := []providers.CallEvent{{Kind: providers.CallDetected, Leg: call2, Raw: "human",
		AnsweredBy: providers.AnsweredByHuman},
		{Kind: providers.CallProgress, Leg: call2, Raw: "completed", Status: providers.StatusCompleted}}
	if err != nil || !reflect.DeepEqual(evs, want) {
		t.Errorf("%+v, %v", evs, err)
	}
	same("rest-get-call.http")
	if err := c.Hangup(ctx, call2); err != nil {
		t.Error(err)
	}
	same("rest-hangup.http")
	if err := c.Do(ctx, call1, &providers.Answer{Room: &providers.Room{Name: "xfer-0001", End: true}}); err != nil {
		t.Error(err)
	}
	same("rest-redirect-twiml.http")
	for name, tt := range map[string]struct {
		status int
		kind   providers.CallErrorKind
		code   string
	}{
		"rest-error-20003.json": {401, providers.ErrCredentials, "20003"},
		"rest-error-20404.json": {404, providers.ErrNoCall, "20404"},
		"rest-error-20429.json": {429, providers.ErrRate, "20429"},
		"rest-error-21205.json": {400, providers.ErrRejected, "21205"},
		"rest-error-21210.json": {400, providers.ErrRejected, "21210"},
		"rest-error-21211.json": {400, providers.ErrRejected, "21211"},
		"rest-error-21220.json": {400, providers.ErrNoCall, "21220"},
	} {
		rt.status, rt.reply = tt.status, name
		e, ok := c.Hangup(ctx, call1).(*providers.CallError)
		if !ok || e.Kind != tt.kind || e.Code != tt.code || e.Detail == "" {
			t.Errorf("%s: %+v", name, e)
		}
	}
}

// TestFixturesExchange: the simulated Twilio takes what Twilio takes, and its requests
// have Twilio's parameters.
func TestFixturesExchange(t *testing.T) {
	x := &exchange{Config{AccountSID: fixtureAccount, AuthToken: "token"}}
	for name, kind := range map[string]providers.OperationKind{
		"rest-create-call.http": providers.OpDial, "rest-get-call.http": providers.OpGet,
		"rest-hangup.http": providers.OpHangup,
		"rest-cancel.http": providers.OpHangup, "rest-redirect-twiml.http": providers.OpDo,
	} {
		r, body := providertest.FixtureRequest(t, name)
		if op, err := x.Operation(r, body, time.Now()); err != nil || op.Kind != kind {
			t.Errorf("%s: %+v, %v", name, op, err)
		}
	}
	call := providers.ExchangeCall{ID: call2, From: "+12025550102", To: "+12025550103",
		Status: providers.StatusCompleted}
	for pattern, ask := range map[string]providers.Ask{
		"webhook-voice*":                  {Kind: providers.AskAnswer},
		"webhook-status-*.form":           {Kind: providers.TellStatus},
		"webhook-amd-*":                   {Kind: providers.TellDetection, AnsweredBy: providers.AnsweredByMachine},
		"webhook-dial-action-*":           {Kind: providers.AskNext, Dial: providers.StatusBusy},
		"webhook-gather.form":             {Kind: providers.AskDigit, Digit: "1"},
		"conference-participant-*":        {Kind: providers.TellRoom, Room: "xfer-0001", Joined: true},
		"conference-participant-leave*f*": {Kind: providers.TellRoom, Room: "xfer-0001"},
	} {
		ask.URL, ask.Call = "https://b.example/x", call
		providertest.Known(t, providertest.Asked(t, x, ask), providertest.FixtureNames(t, pattern), nil)
	}
}

// forwarded is a call whose number may be shown to others.
func forwarded(evs []providers.CallEvent) []providers.CallEvent {
	evs[0].Forward = `{"parentCallInfoToken":"x"}`
	return evs
}
