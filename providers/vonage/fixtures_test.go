package vonage

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"voicebridge/codec"
	"voicebridge/providers"
	"voicebridge/providers/providertest"
)

// leg returns the fixtures' uuid of a leg: 1 is the caller's, 2 that to our socket, 3
// that of a number.
func leg(n int) string { return fmt.Sprintf("aaaaaaaa-bbbb-cccc-dddd-0123456789a%d", n) }

// TestFixturesMedia: what Vonage sends and takes on the media socket.
func TestFixturesMedia(t *testing.T) {
	for name, want := range map[string]providers.Start{
		"media-connected.json": {In: formats[0],
			Params: map[string]string{"prop1": "value1", "prop2": "value2"}},
		"media-connected-headers.json": {In: formats[0],
			Params: map[string]string{"language": "en-GB", "caller-id": "12025550101"}},
		"media-connected-8000.json":  {In: formats[1], Params: map[string]string{"run": "42"}},
		"media-connected-24000.json": {In: formats[2], Params: map[string]string{"run": "42"}},
		"media-connected-nested-headers.json": {In: formats[0],
			Params: map[string]string{"name": "J Doe", "age": "40", "enable_auditing": "false",
				"system_roles": "[183493,1038492,22]",
				"address":      `{"line_1":"Apartment 14","line_2":"123 Example Street","city":"New York City"}`}},
	} {
		want.Out = want.In
		if ev := providertest.Decode(t, &Stream{}, name); ev.Kind != providers.EventStart ||
			!reflect.DeepEqual(*ev.Start, want) {
			t.Errorf("%s: %+v", name, ev.Start)
		}
	}
	s := &Stream{format: formats[0]}
	for name, want := range map[string]providers.Event{
		"media-dtmf.json":         {Kind: providers.EventDigit, At: -1, Digit: '5', Duration: 260 * time.Millisecond},
		"media-dtmf-old.json":     {Kind: providers.EventDigit, At: -1, Digit: '5', Duration: 260 * time.Millisecond},
		"media-cleared.json":      {Kind: providers.EventCleared, At: -1},
		"media-notify.json":       {Kind: providers.EventMark, At: -1, Mark: "u-17"},
		"media-media-update.json": {Kind: providers.EventUnknown, At: -1},
	} {
		if got := providertest.Decode(t, s, name); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v", name, got)
		}
	}
	for _, f := range formats {
		audio, err := hex.DecodeString(string(providertest.Fixture(t, fmt.Sprintf("media-audio-%d.hex", f.Rate))))
		if err != nil {
			t.Fatal(err)
		}
		evs, err := (&Stream{format: f}).Decode(nil, providers.Message{Binary: true, Data: audio})
		if err != nil || len(evs) != 1 || !bytes.Equal(evs[0].Audio, audio) ||
			f.Duration(len(audio)) != codec.FrameTime {
			t.Errorf("%v: %v, %v", f, evs, err)
		}
	}
	p := &Peer{format: formats[0]}
	for _, name := range []string{"media-send-clear.json", "media-send-notify.json"} {
		var cmd providers.Command
		text := providertest.Fixture(t, name)
		if err := p.Decode(providers.Message{Data: text}, &cmd); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := providertest.Encode(t, s, cmd); !bytes.Equal(got, text) {
			t.Errorf("we send %s\nwant    %s", got, text)
		}
	}
	for _, ev := range []providers.Event{{Kind: providers.EventStart,
		Start: &providers.Start{In: formats[0], Out: formats[0]}},
		{Kind: providers.EventDigit, Digit: '1'}, {Kind: providers.EventCleared}} {
		var out providers.Messages
		if err := p.Encode(&out, &ev); err != nil {
			t.Fatal(err)
		}
		providertest.Known(t, out.All()[0].Data,
			[]string{"media-connected.json", "media-dtmf.json", "media-cleared.json"}, nil)
	}
}

// TestFixturesWebhooks: what each request means.
func TestFixturesWebhooks(t *testing.T) {
	status := func(n int, raw string, s providers.Status) []providers.CallEvent {
		return []providers.CallEvent{{Kind: providers.CallProgress, Leg: leg(n), Raw: raw, Status: s}}
	}
	detected := func(raw string) []providers.CallEvent {
		return []providers.CallEvent{{Kind: providers.CallDetected, Leg: leg(3), Raw: raw,
			AnsweredBy: providers.AnsweredBy(raw)}}
	}
	done := func(n int, raw string, s providers.Status) []providers.CallEvent {
		return []providers.CallEvent{{Kind: providers.CallStepDone, Leg: leg(n), Raw: raw, Status: s, Wants: true}}
	}
	joined := []providers.CallEvent{{Kind: providers.CallRoom, Leg: leg(1), Raw: "transfer", Joined: true}}
	asked := []providers.CallEvent{{Kind: providers.CallAsked, Leg: leg(1), From: "+12025550101", To: "+12025550102",
		Wants: true}}
	key := func(digit string) []providers.CallEvent {
		return []providers.CallEvent{{Kind: providers.CallKey, Leg: leg(1), Digit: digit, Wants: true}}
	}
	for _, tt := range []struct {
		purpose providers.Purpose
		want    map[string][]providers.CallEvent
	}{
		{providers.ForAnswer, map[string][]providers.CallEvent{"answer-post": asked, "answer-post-new": asked}},
		{providers.ForStatus, map[string][]providers.CallEvent{
			"event-started":                   status(3, "started", providers.StatusInitiated),
			"event-ringing":                   status(3, "ringing", providers.StatusRinging),
			"event-answered":                  status(1, "answered", providers.StatusInProgress),
			"event-busy":                      status(3, "busy", providers.StatusBusy),
			"event-cancelled":                 status(3, "cancelled", providers.StatusCanceled),
			"event-timeout":                   status(3, "timeout", providers.StatusNoAnswer),
			"event-unanswered":                status(3, "unanswered", providers.StatusNoAnswer),
			"event-rejected":                  status(3, "rejected", providers.StatusBusy),
			"event-rejected-restricted":       status(3, "rejected", providers.StatusFailed),
			"event-failed":                    status(3, "failed", providers.StatusFailed),
			"event-completed":                 status(3, "completed", providers.StatusCompleted),
			"event-completed-disconnected-by": status(1, "completed", providers.StatusCompleted),
			"event-ws-answered":               status(2, "answered", ""),
			"event-ws-disconnected":           status(2, "disconnected", ""),
			"event-ws-unanswered":             status(2, "unanswered", ""),
			"event-human":                     detected("human"),
			"event-machine":                   detected("machine"),
			"event-machine-beep":              detected("machine"),
			"event-transfer":                  {{Kind: providers.CallRoom, Leg: leg(1), Joined: true}},
			"event-transfer-typed":            joined,
			"event-error": {{Kind: providers.CallNotice,
				Raw: "Syntax error in NCCO. Invalid value type or action."}},
			"event-notify": nil,
			"event-record": nil,
		}},
		{providers.ForNext, map[string][]providers.CallEvent{
			"event-started":             nil,
			"event-answered":            nil,
			"event-completed":           nil,
			"event-busy":                done(3, "busy", providers.StatusBusy),
			"event-cancelled":           done(3, "cancelled", providers.StatusCanceled),
			"event-timeout":             done(3, "timeout", providers.StatusNoAnswer),
			"event-unanswered":          done(3, "unanswered", providers.StatusNoAnswer),
			"event-rejected":            done(3, "rejected", providers.StatusBusy),
			"event-rejected-restricted": done(3, "rejected", providers.StatusFailed),
			"event-failed":              done(3, "failed", providers.StatusFailed),
			"event-fallback":            done(3, "failed", providers.StatusFailed),
			"event-ws-answered":         nil,
			"event-ws-disconnected":     done(2, "disconnected", ""),
			"event-ws-unanswered":       done(2, "unanswered", ""),
		}},
		{providers.ForKey, map[string][]providers.CallEvent{
			"event-input-dtmf": key("1"), "event-input-timeout": key(""), "event-input-speech": key(""),
			"dtmf-subscription": key("5")}},
		{providers.ForRoom, map[string][]providers.CallEvent{
			"event-transfer-typed": joined, "event-transfer": {{Kind: providers.CallRoom, Leg: leg(1), Joined: true}},
			"event-started": nil}},
	} {
		for name, want := range tt.want {
			name = "webhook-" + name + ".json"
			h := &providers.Hook{Method: "POST", Purpose: tt.purpose, Body: providertest.Fixture(t, name)}
			if got, err := account(t).Read(h); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%s: %+v, %v\nwant %+v", name, got, err, want)
			}
		}
	}
}

// TestFixturesSignatures: a webhook as Vonage signs it. The query of a GET is not
// signed, so that one is refused.
func TestFixturesSignatures(t *testing.T) {
	r, body := providertest.FixtureRequest(t, "webhook-headers.http")
	h := &providers.Hook{Method: r.Method, Header: r.Header, Body: body, Purpose: providers.ForStatus}
	w := account(t)
	if _, err := w.Authenticate(h, issued.Add(time.Minute)); err != nil {
		t.Error(err)
	}
	evs, err := w.Read(h)
	if err != nil || len(evs) != 1 || evs[0].Leg != "63f61863-4a51-4f6b-86e1-46edebcf9356" ||
		evs[0].Status != providers.StatusInProgress {
		t.Errorf("%+v, %v", evs, err)
	}
	r, body = providertest.FixtureRequest(t, "webhook-answer-get.http")
	if _, err := w.Read(&providers.Hook{Method: r.Method, Header: r.Header, Body: body,
		Purpose: providers.ForAnswer}); err == nil {
		t.Error("a GET was taken")
	}
}

// TestFixturesDocuments: every member that we write is Vonage's.
func TestFixturesDocuments(t *testing.T) {
	names := providertest.FixtureNames(t, "ncco-*.json")
	// In Vonage's reference, but in no fixture.
	documented := []string{"eventMethod"}
	for _, a := range []providers.Answer{
		{Media: "wss://b.example/x", Next: "https://b.example/n"}, {Say: "x"},
		{Dial: "+12025550103", Caller: "+12025550102", Next: "https://b.example/n"},
		{Say: "x", Ask: &providers.Question{URL: "https://b.example/k", Wait: time.Second}},
		{Room: &providers.Room{Name: "xfer-0001", End: true, Events: "https://b.example/e",
			Hold: "https://b.example/h"}},
	} {
		doc, err := account(t).Document(&a)
		if err != nil {
			t.Fatal(err)
		}
		providertest.Known(t, doc.Body, names, documented)
	}
	x := &exchange{}
	for name, want := range map[string]providers.Answer{
		"ncco-talk.json":         {Say: "Sorry, we cannot take your call."},
		"ncco-conversation.json": {Room: &providers.Room{Name: "xfer-0001", End: true}},
		"ncco-conversation-wait.json": {Say: "We will connect you when an agent is available",
			Room: &providers.Room{Name: "xfer-0001", Wait: true, Hold: "https://bridge.example.com/hold.mp3"}},
		"ncco-connect-phone-fallback.json": {Dial: "+12025550103", Caller: "+12025550102", Ring: 5 * time.Second,
			Next: "https://bridge.example.com/vonage/event-fallback"},
		"ncco-input-one-digit.json": {Say: "Press 1 to take the call.",
			Ask: &providers.Question{URL: "https://bridge.example.com/vonage/input", Wait: 5 * time.Second}},
	} {
		if got, err := x.Answer("application/json", providertest.Fixture(t, name)); err != nil || !got.Equal(&want) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// roundTrip answers a request with a status and a fixture, and keeps what was sent.
type roundTrip struct {
	t            *testing.T
	status       int
	reply        string
	sent         []byte
	method, path string
}

func (r *roundTrip) RoundTrip(req *http.Request) (*http.Response, error) {
	r.sent, _ = io.ReadAll(req.Body)
	r.method, r.path = req.Method, req.URL.Path
	var body []byte
	if r.reply != "" {
		body = providertest.Fixture(r.t, r.reply)
	}
	return &http.Response{StatusCode: r.status, Header: http.Header{}, Request: req,
		Body: io.NopCloser(bytes.NewReader(body))}, nil
}

// TestFixturesREST: requests have Vonage's names, and its replies are understood.
func TestFixturesREST(t *testing.T) {
	rt := &roundTrip{t: t, status: 201, reply: "rest-create-call-response.json"}
	a, err := NewAccount(providers.Setup{Decode: config("https://api.example.com"), HTTP: rt})
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	same := func(name string) {
		t.Helper()
		want, body := providertest.FixtureRequest(t, name)
		if rt.method != want.Method || rt.path != want.URL.Path {
			t.Errorf("%s %s, want %s %s", rt.method, rt.path, want.Method, want.URL.Path)
		}
		if len(body) > 0 {
			// In the reference of this request, but not in its fixture.
			providertest.Known(t, rt.sent, []string{name}, []string{"to.dtmfAnswer", "destination.ncco.startOnEnter"})
		}
	}
	got, err := a.Dial(ctx, &providers.Dial{To: "+12025550103", From: "+12025550102", Answer: "https://b.example/a",
		Status: "https://b.example/s",
		Ring:   30 * time.Second, Detect: true})
	if err != nil || got.ID != leg(3) {
		t.Errorf("%+v, %v", got, err)
	}
	same("rest-create-call-answer-url.http")
	rt.status, rt.reply = 200, "rest-get-call-response.json"
	evs, err := a.Get(ctx, leg(3))
	if err != nil || len(evs) != 1 || evs[0].Status != providers.StatusCompleted {
		t.Errorf("%+v, %v", evs, err)
	}
	same("rest-get-call.http")
	rt.status, rt.reply = 204, ""
	if err := a.Hangup(ctx, leg(1)); err != nil {
		t.Error(err)
	}
	same("rest-hangup.http")
	if err := a.Do(ctx, leg(1), &providers.Answer{Room: &providers.Room{Name: "xfer-0001", End: true}}); err != nil {
		t.Error(err)
	}
	same("rest-transfer-ncco.http")
	rt.status, rt.reply = 200, "rest-send-dtmf-response.json"
	if err := a.SendDigits(ctx, leg(1), "1w2#"); err != nil {
		t.Error(err)
	}
	same("rest-send-dtmf.http")
	for name, tt := range map[string]struct {
		status int
		kind   providers.CallErrorKind
	}{
		"rest-error-400.json": {400, providers.ErrRejected}, "rest-error-401.json": {401, providers.ErrCredentials},
		"rest-error-404.json": {404, providers.ErrNoCall},
	} {
		rt.status, rt.reply = tt.status, name
		_, err := a.Get(ctx, leg(1))
		e, ok := err.(*providers.CallError)
		if !ok || e.Kind != tt.kind || e.Code == "" || e.Detail == "" {
			t.Errorf("%s: %+v", name, e)
		}
	}
}

// TestFixturesExchange: the simulated Vonage's requests have Vonage's members.
func TestFixturesExchange(t *testing.T) {
	x := &exchange{cfg: Config{SignatureSecret: secret}}
	call := providers.ExchangeCall{ID: leg(3), From: "+12025550102", To: "+12025550103",
		Status: providers.StatusCompleted}
	for pattern, ask := range map[string]providers.Ask{
		"webhook-answer-post*":         {Kind: providers.AskAnswer},
		"webhook-event-s*.json":        {Kind: providers.TellStatus},
		"webhook-event-*human.json":    {Kind: providers.TellDetection, AnsweredBy: providers.AnsweredByHuman},
		"webhook-event-[bw]*.json":     {Kind: providers.AskNext, Dial: providers.StatusBusy},
		"webhook-event-input-*":        {Kind: providers.AskDigit, Digit: "1"},
		"webhook-event-transfer*.json": {Kind: providers.TellRoom, Room: "xfer-0001", Joined: true},
	} {
		ask.URL, ask.Call = "https://b.example/x", call
		var documented []string
		if strings.HasPrefix(pattern, "webhook-answer") { // older versions
			documented = []string{"direction", "timestamp"}
		}
		providertest.Known(t, providertest.Asked(t, x, ask), providertest.FixtureNames(t, pattern), documented)
	}
}
