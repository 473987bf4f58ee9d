package telnyx

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"voicebridge/codec"
	"voicebridge/providers"
	"voicebridge/providers/internal/telnyxmedia"
	"voicebridge/providers/providertest"
)

// The fixtures' legs, and the key of the vector of signatures: its seed is the bytes 0 to
// 31; Telnyx' Node SDK accepts it.
const (
	caller    = "v3:CALLER00000000000000000000000000000000000000000000000001"
	human     = "v3:HUMAN000000000000000000000000000000000000000000000000002"
	callerLeg = "428c31b6-0000-4000-8000-000000000001"
	humanLeg  = "428c31b6-0000-4000-8000-000000000002"
	vectorKey = "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg="
	apiKey    = "KEY0000000000000000000000000001"
)

func TestConformance(t *testing.T) {
	text := providertest.Text
	start := providertest.Event(providers.EventStart)
	start.Start = &providers.Start{Account: "u", Call: "v3:1", Stream: "S1", In: telnyxmedia.Formats[1], Out: telnyxmedia.Formats[0],
		Params: map[string]string{"run": "42"}}
	audio := providertest.Event(providers.EventAudio)
	audio.Audio, audio.At = []byte{0xff, 0xff, 0xff}, 5*time.Millisecond
	digit, mark := providertest.Event(providers.EventDigit), providertest.Event(providers.EventMark)
	digit.Digit, mark.Mark = '1', "u-17"
	providertest.Run(t, providertest.Harness{
		Spec: Spec,
		Start: func(f codec.Format) *providers.Start {
			return &providers.Start{Account: "user", Call: "v3:1", Stream: "S1", In: f, Out: f,
				Params: map[string]string{"a": "b"}}
		},
		Documented: []providertest.Documented{
			{Message: text(`{"event":"connected","version":"1.0.0"}`),
				Event: providertest.Event(providers.EventConnected)},
			{Message: text(`{"event":"start","sequence_number":"1","stream_id":"S1","start":{"user_id":"u",` +
				`"call_control_id":"v3:1","call_session_id":"s","from":"+1","to":"+1","tags":["t1"],` +
				`"client_state":"aGF2ZQ==","custom_parameters":{"run":"42"},"media_format":{"encoding":"PCMA",` +
				`"sample_rate":8000,"channels":1}}}`), Event: start},
			{Message: text(`{"event":"media","sequence_number":"4","stream_id":"s1","media":{"track":"inbound",` +
				`"chunk":"1","timestamp":"5","payload":"////"}}`), Event: audio},
			{Message: text(`{"event":"dtmf","stream_id":"S1","occurred_at":"2026-01-01T00:00:00.000Z",` +
				`"sequence_number":"5","dtmf":{"digit":"1"}}`), Event: digit},
			{Message: text(`{"event":"mark","sequence_number":"6","stream_id":"S1","mark":{"name":"u-17"}}`),
				Event: mark},
			{Message: text(`{"event":"stop","sequence_number":"7","stream_id":"S1","stop":{"user_id":"u",` +
				`"call_control_id":"v3:1"}}`), Event: providertest.Event(providers.EventStop)},
		},
		Malformed: []providers.Message{{Binary: true}, text(`{"event":"media"}`),
			text(`{"event":"media","media":{"payload":"!"}}`), text(`{"event":"dtmf"}`), text(`{"event":"mark"}`),
			text(`{"event":"media","stream_id":"other","media":{"payload":"AAAA"}}`),
			text(`{"event":"error","payload":{"code":100003,"title":"malformed_frame","detail":"x"}}`)},
		Unknown: []providers.Message{text(`{"event":"weather"}`),
			text(`{"event":"media","media":{"track":"outbound","payload":"AAAA"}}`)},
		BadFormat: text(`{"event":"start","start":{"call_control_id":"1","media_format":{"encoding":"OPUS",` +
			`"sample_rate":48000,"channels":1}}}`),
	})
}

func TestControl(t *testing.T) {
	sample := Sample("https://127.0.0.1:1", telnyxmedia.Formats[0])
	providertest.RunControl(t, providertest.Control{Spec: Spec, Secret: "the secret",
		Config: func(base string) func(any) error {
			return func(c any) error {
				if err := sample(c); err != nil {
					return err
				}
				c.(*Config).BaseURL, c.(*Config).APIKey = base, "the secret"
				return nil
			}
		}})
}

func config(base string) func(any) error {
	return func(c any) error {
		*c.(*Config) = Config{APIKey: apiKey, PublicKey: vectorKey, ConnectionID: "7267000000000000001",
			Encoding: "pcmu", Voice: "female", Language: "en-US", BaseURL: base}
		return nil
	}
}

func account(t testing.TB, rt http.RoundTripper) *providers.Account {
	t.Helper()
	a, err := NewAccount(providers.Setup{Decode: config(""), HTTP: rt})
	if err != nil {
		t.Fatal(err)
	}
	a.Publish(func(*providers.Answer) string { return "https://b.example/hooks/telnyx/main/do/T" })
	return a
}

// TestSignature: as Telnyx signs, for as long as it is fresh.
func TestSignature(t *testing.T) {
	w := account(t, nil).Webhooks
	r, body := providertest.FixtureRequest(t, "webhook-headers.http")
	at := time.Unix(1767225600, 0)
	for name, tt := range map[string]struct {
		now    time.Time
		change func(*providers.Hook)
		good   bool
	}{
		"good":        {at, func(*providers.Hook) {}, true},
		"within time": {at.Add(maxAge), func(*providers.Hook) {}, true},
		"late":        {at.Add(maxAge + time.Second), func(*providers.Hook) {}, false},
		"early":       {at.Add(-maxAge - time.Second), func(*providers.Hook) {}, false},
		"body":        {at, func(h *providers.Hook) { h.Body = append(bytes.Clone(h.Body), ' ') }, false},
		"time":        {at, func(h *providers.Hook) { h.Header.Set(timeHeader, "1767225601") }, false},
		"no time":     {at, func(h *providers.Hook) { h.Header.Del(timeHeader) }, false},
		"no base64":   {at, func(h *providers.Hook) { h.Header.Set(signatureHeader, "!") }, false},
	} {
		h := &providers.Hook{Method: "POST", Header: r.Header.Clone(), Body: body}
		tt.change(h)
		_, err := w.Authenticate(h, tt.now)
		if (err == nil) != tt.good || err != nil && !errors.Is(err, providers.ErrSignature) {
			t.Errorf("%s: %v", name, err)
		}
		if lines := w.Explain(h, tt.now); tt.good != (len(lines) == 1) {
			t.Errorf("%s: %q", name, lines)
		}
	}
}

// TestFixturesMedia: what Telnyx sends and takes on the media socket.
func TestFixturesMedia(t *testing.T) {
	for name, encoding := range map[string]codec.Encoding{"media-start.json": codec.PCMU,
		"media-start-minimal.json": codec.PCMU, "media-start-no-custom.json": codec.PCMU,
		"media-start-pcma.json": codec.PCMA, "media-start-l16-16000.json": codec.L16BE} {
		s := media.NewStream()
		start := providertest.Decode(t, s, name).Start
		if start == nil || start.Call != caller || start.In.Encoding != encoding || start.Out != telnyxmedia.Formats[0] {
			t.Errorf("%s: %+v", name, start)
		}
	}
	for _, name := range []string{"media-start-g722.json", "media-start-opus.json", "media-start-amr-wb.json"} {
		_, err := (media.NewStream()).Decode(nil, providers.Message{Data: providertest.Fixture(t, name)})
		if !errors.Is(err, providers.ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, want := range map[string]providers.EventKind{"media-connected.json": providers.EventConnected,
		"media-connected-auth-token.json": providers.EventConnected, "media-dtmf.json": providers.EventDigit,
		"media-mark.json": providers.EventMark, "media-stop.json": providers.EventStop,
		"media-media-outbound.json": providers.EventUnknown} {
		s := media.NewStream()
		providertest.Decode(t, s, "media-start.json")
		if ev := providertest.Decode(t, s, name); ev.Kind != want {
			t.Errorf("%s: %+v", name, ev)
		}
	}
	for _, name := range providertest.FixtureNames(t, "media-error-*.json") {
		s := media.NewStream()
		providertest.Decode(t, s, "media-start.json")
		evs, err := s.Decode(nil, providers.Message{Data: providertest.Fixture(t, name)})
		if code := strings.TrimSuffix(strings.TrimPrefix(name, "media-error-"), ".json"); len(evs) > 0 || err == nil ||
			!strings.Contains(err.Error(), code) {
			t.Errorf("%s: %+v, %v", name, evs, err)
		}
	}
	s, p := media.NewStream(), media.NewPeer()
	start := providertest.Decode(t, s, "media-start.json")
	for _, ev := range []providers.Event{{Kind: providers.EventConnected}, start,
		{Kind: providers.EventAudio, Audio: []byte{1}}, {Kind: providers.EventDigit, Digit: '1'},
		{Kind: providers.EventMark, Mark: "m"}, {Kind: providers.EventStop}} {
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

// TestFixturesReordered: chunks 2, 4, 3, 3.
func TestFixturesReordered(t *testing.T) {
	s := media.NewStream()
	providertest.Decode(t, s, "media-start.json")
	var at []time.Duration
	for line := range bytes.SplitSeq(providertest.Fixture(t, "media-media-reordered.jsonl"), []byte("\n")) {
		evs, err := s.Decode(nil, providers.Message{Data: line})
		if err != nil {
			t.Fatal(err)
		}
		for _, ev := range evs {
			at = append(at, ev.At)
		}
	}
	if len(at) != 0 { // the first one may still come
		t.Errorf("%v before the first", at)
	}
	for n := 5; n <= 6; n++ {
		evs, err := s.Decode(nil, providertest.Text(`{"event":"media","media":{"chunk":"`+string(rune('0'+n))+
			`","timestamp":"80","payload":"AAAA"}}`))
		if err != nil {
			t.Fatal(err)
		}
		for _, ev := range evs {
			at = append(at, ev.At)
		}
	}
	ms := time.Millisecond
	if want := []time.Duration{20 * ms, 40 * ms, 60 * ms, 80 * ms, 80 * ms}; !reflect.DeepEqual(at, want) {
		t.Errorf("%v, want %v", at, want)
	}
}

// TestFixturesWebhooks: what each event means.
func TestFixturesWebhooks(t *testing.T) {
	w := account(t, nil).Webhooks
	asked := providers.CallEvent{Kind: providers.CallAsked, Leg: caller, Aliases: []string{callerLeg},
		From: "+12025550101", To: "+12025550102", Raw: "initiated"}
	capture := asked
	capture.Aliases = []string{"30000003-0000-11ee-8000-000000000001"}
	progress := func(leg, alias, raw string, s providers.Status) providers.CallEvent {
		return providers.CallEvent{Kind: providers.CallProgress, Leg: leg, Aliases: []string{alias}, Raw: raw,
			Status: s}
	}
	detected := func(raw string, by providers.AnsweredBy) providers.CallEvent {
		return providers.CallEvent{Kind: providers.CallDetected, Leg: human, Aliases: []string{humanLeg}, Raw: raw,
			AnsweredBy: by}
	}
	room := func(raw string, joined bool) providers.CallEvent {
		return providers.CallEvent{Kind: providers.CallRoom, Leg: caller, Aliases: []string{callerLeg}, Raw: raw,
			Joined: joined}
	}
	captured := progress(caller, "30000005-0000-11ee-8000-000000000001", "answered", providers.StatusInProgress)
	for name, want := range map[string][]providers.CallEvent{
		"call-initiated-full":             {asked},
		"call-initiated-incoming":         {asked},
		"call-initiated-incoming-capture": {capture},
		"call-initiated-outgoing":         {progress(human, humanLeg, "initiated", providers.StatusInitiated)},
		"call-answered":                   {progress(caller, callerLeg, "answered", providers.StatusInProgress)},
		"call-answered-stream":            {progress(caller, callerLeg, "answered", providers.StatusInProgress)},
		"call-answered-capture":           {captured},
		"call-hangup-normal":              {progress(caller, callerLeg, "normal_clearing", providers.StatusCompleted)},
		"call-hangup-time-limit":          {progress(caller, callerLeg, "time_limit", providers.StatusCompleted)},
		"call-hangup-busy":                {progress(human, humanLeg, "user_busy", providers.StatusBusy)},
		"call-hangup-no-answer":           {progress(human, humanLeg, "no_answer", providers.StatusNoAnswer)},
		"call-hangup-timeout":             {progress(human, humanLeg, "timeout", providers.StatusNoAnswer)},
		"call-hangup-cancel":              {progress(human, humanLeg, "originator_cancel", providers.StatusCanceled)},
		"call-hangup-not-found":           {progress(human, humanLeg, "not_found", providers.StatusFailed)},
		"call-hangup-unspecified":         {progress(human, humanLeg, "unspecified", providers.StatusFailed)},
		"call-hangup-rejected":            {progress(caller, callerLeg, "call_rejected", providers.StatusFailed)},

		"call-machine-detection-ended-human":    {detected("human", providers.AnsweredByHuman)},
		"call-machine-detection-ended-machine":  {detected("machine", providers.AnsweredByMachine)},
		"call-machine-detection-ended-not_sure": {detected("not_sure", providers.AnsweredByUnknown)},
		"call-machine-premium-detection-ended":  {detected("human_residence", providers.AnsweredByHuman)},

		"conference-participant-joined": {room("conference.participant.joined", true)},
		"conference-participant-left":   {room("conference.participant.left", false)},

		"call-bridged": nil, "call-dtmf-received": nil, "call-gather-ended-valid": nil, "call-speak-ended": nil,
		"call-speak-started": nil, "call-machine-greeting-ended": nil, "conference-created": nil,
		"conference-ended":  nil,
		"streaming-started": nil, "streaming-started-full": nil, "streaming-stopped": nil, "streaming-failed": nil,
	} {
		got, err := w.Read(&providers.Hook{Method: "POST", Body: providertest.Fixture(t, "webhook-"+name+".json")})
		for i := range got {
			if got[i].ID == "" {
				t.Errorf("%s: no id", name)
			}
			got[i].ID = ""
		}
		if err != nil || len(got)+len(want) > 0 && !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v\nwant %+v", name, got, err, want)
		}
	}
	if evs, err := w.Read(&providers.Hook{Body: providertest.Fixture(t,
		"webhook-v1-call-initiated.json")}); err == nil ||
		!strings.Contains(err.Error(), "webhook_api_version") {
		t.Errorf("version 1: %+v, %v", evs, err)
	}
}

// TestStates: what an event belongs to is told by the state that was given, whatever the
// separators of its type.
func TestStates(t *testing.T) {
	w := account(t, nil).Webhooks
	const base = "https://b.example/hooks/telnyx/main/"
	st := state{Answer: base + "answer/A", Status: base + "status/S", Next: base + "next/N", Key: base + "transfer/K",
		Room: base + "transfer/R", Do: base + "do/D"}
	for text, want := range map[string]string{
		`"call.answered"`:               "progress:status/S asked:answer/A asked:do/D",
		`"call_answered"`:               "progress:status/S asked:answer/A asked:do/D",
		`"call.hangup"`:                 "progress:status/S",
		`"call.speak.ended"`:            "asked:do/D",
		`"call.gather.ended"`:           "key:transfer/K",
		`"conference.participant.left"`: "room:transfer/R",
		`"streaming.stopped"`:           "step done:next/N",
		`"streaming_failed"`:            "step done:next/N",
	} {
		body := `{"data":{"event_type":` + text + `,"id":"1","payload":{"call_control_id":"x","client_state":"` +
			st.encode() + `","stream_url":"` + streamURL("wss://b.example/media/telnyx/T?a=b", st.Next) + `"}}}`
		evs, err := w.Read(&providers.Hook{Body: []byte(body)})
		var got []string
		ids := map[string]bool{}
		for _, ev := range evs {
			got = append(got, ev.Kind.String()+":"+ev.Ref)
			ids[ev.Kind.String()+ev.ID] = true
		}
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%s: %q, %v, want %s", text, got, err, want)
		}
	}
	number := state{Next: st.Next, Number: caller}
	body := `{"data":{"event_type":"call.hangup","id":"1","payload":{"call_control_id":"x","call_leg_id":"y",` +
		`"hangup_cause":"user_busy","client_state":"` + number.encode() + `"}}}`
	evs, err := w.Read(&providers.Hook{Body: []byte(body)})
	if err != nil || len(evs) != 1 || evs[0].Kind != providers.CallStepDone || evs[0].Leg != caller ||
		evs[0].Status != providers.StatusBusy || evs[0].Ref != "next/N" {
		t.Errorf("%+v, %v", evs, err)
	}
}

// roundTrip answers with fixtures, and keeps what it was asked last.
type roundTrip struct {
	t       *testing.T
	status  int
	replies map[string]string // by method and what the path begins with
	asked   []*http.Request
	sent    [][]byte
}

// RoundTrip implements http.RoundTripper.
func (r *roundTrip) RoundTrip(req *http.Request) (*http.Response, error) {
	var sent []byte
	if req.Body != nil {
		sent, _ = io.ReadAll(req.Body)
	}
	r.asked, r.sent = append(r.asked, req), append(r.sent, sent)
	body := []byte(`{"data":{"result":"ok"}}`)
	for _, what := range slices.Sorted(maps.Keys(r.replies)) { // the longest that fits is the last
		if name := r.replies[what]; strings.HasPrefix(req.Method+" "+req.URL.Path, what) {
			body = []byte(name)
			if strings.HasSuffix(name, ".json") {
				body = providertest.Fixture(r.t, name)
			}
		}
	}
	return &http.Response{StatusCode: r.status, Header: http.Header{}, Request: req,
		Body: io.NopCloser(bytes.NewReader(body))}, nil
}

// answers answers each request in turn.
type answers struct {
	list  []string // status and body
	asked []string
}

// RoundTrip implements http.RoundTripper.
func (a *answers) RoundTrip(req *http.Request) (*http.Response, error) {
	a.asked = append(a.asked, req.Method+" "+req.URL.Path)
	status, body, _ := strings.Cut(a.list[0], " ")
	a.list = a.list[1:]
	code, err := strconv.Atoi(status)
	return &http.Response{StatusCode: code, Header: http.Header{}, Request: req,
		Body: io.NopCloser(strings.NewReader(body))}, err
}

// TestConferenceMadeMeanwhile: where two legs make a conference at once, the second joins that of the first.
func TestConferenceMadeMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const none, one = `200 {"data":[]}`, `200 {"data":[{"id":"conf-1","name":"xfer"}]}`
		rt := &answers{list: []string{`200 {"data":{"call_control_id":"v3:1","is_alive":true}}`, none,
			`422 {"errors":[{"code":"90033","title":"Conference with given name already exists and it's active"}]}`, none, one,
			`200 {"data":{"result":"ok"}}`}}
		if err := account(t, rt).Do(t.Context(), "v3:1", &providers.Answer{Room: &providers.Room{Name: "xfer"}}); err != nil {
			t.Error(err)
		}
		if last := rt.asked[len(rt.asked)-1]; last != "POST /v2/conferences/conf-1/actions/join" {
			t.Errorf("asked was %q", rt.asked)
		}
	})
}

// TestFixturesREST: requests have Telnyx' names, its replies are understood, and the
// simulated Telnyx takes its requests.
func TestFixturesREST(t *testing.T) {
	rt := &roundTrip{t: t, status: 200, replies: map[string]string{"POST /v2/calls": "rest-create-call-response.json"}}
	a := account(t, rt)
	ctx := t.Context()
	same := func(err error, name string, documented ...string) {
		t.Helper()
		want, body := providertest.FixtureRequest(t, name)
		last := len(rt.asked) - 1
		got := rt.asked[last]
		if err != nil || got.Method != want.Method || got.URL.Path != want.URL.Path ||
			got.Header.Get("Authorization") != want.Header.Get("Authorization") {
			t.Errorf("%v: %s %s, want %s %s", err, got.Method, got.URL, want.Method, want.URL)
		}
		if len(body) > 0 {
			providertest.Known(t, rt.sent[last], []string{name}, append(documented, "client_state", "command_id"))
		}
	}
	leg, err := a.Dial(ctx, &providers.Dial{To: "+12025550103", From: "+12025550102", Answer: "https://b.example/a",
		Status: "https://b.example/s", Ring: 30 * time.Second, Detect: true, Digits: "1w2"})
	if same(err, "rest-create-call.http", "send_digits_on_answer"); leg.ID != human || leg.Aliases[0] != humanLeg {
		t.Errorf("%+v", leg)
	}
	rt.replies = map[string]string{"GET /v2/calls": "rest-get-call-response.json", "GET /v2/conferences": `{"data":[]}`}
	evs, err := a.Get(ctx, caller)
	if same(err, "rest-get-call.http"); len(evs) != 1 || evs[0].Status != providers.StatusInProgress ||
		evs[0].Place == "" {
		t.Errorf("%+v", evs)
	}
	same(a.Hangup(ctx, caller), "rest-hangup.http")
	same(a.SendDigits(ctx, caller, "1www2WABCDw9"), "rest-send-dtmf.http")
	const media, next = "wss://b.example/m", "https://b.example/n"
	same(a.Do(ctx, caller, &providers.Answer{Unanswered: true, Media: media, Next: next}), "rest-answer-stream.http",
		"send_silence_when_idle")
	same(a.Do(ctx, caller, &providers.Answer{Unanswered: true, Say: "x"}), "rest-answer.http")
	same(a.Do(ctx, caller, &providers.Answer{Say: "x"}), "rest-speak.http")
	ask := &providers.Question{URL: "https://b.example/k", Wait: time.Second}
	same(a.Do(ctx, caller, &providers.Answer{Ask: ask}), "rest-gather.http")
	same(a.Do(ctx, caller, &providers.Answer{Say: "x", Ask: ask}), "rest-gather-using-speak.http")
	same(a.Do(ctx, caller, &providers.Answer{Media: media, Next: next}), "rest-streaming-start.http")
	same(a.Do(ctx, caller, &providers.Answer{Dial: "+12025550103", Caller: "+12025550102", Next: next}),
		"rest-transfer.http", "park_after_unbridge")
	room := &providers.Answer{Room: &providers.Room{Name: "xfer-0001", End: true, Events: "https://b.example/r",
		Hold: "https://b.example/h"}}
	same(a.Do(ctx, caller, room), "rest-conference-create.http")
	rt.replies["GET /v2/conferences"] = `{"data":[{"id":"0ccc7b54-0000-4000-8000-0000000000c1"}]}`
	same(a.Do(ctx, caller, room), "rest-conference-join.http")
	rt.replies["GET /v2/conferences/"] = "rest-conference-participants-response.json"
	in, err := a.InRoom(ctx, "xfer-0001", caller, human)
	same(err, "rest-conference-participants.http")
	if rt.replies["GET /v2/conferences"] = ""; !reflect.DeepEqual(in, []bool{true, false}) {
		t.Errorf("in the room: %v", in)
	}
}

// TestLeaves: a leg that is in a conference leaves it before it does something else.
func TestLeaves(t *testing.T) {
	rt := &roundTrip{t: t, status: 200, replies: map[string]string{
		"GET /v2/calls": `{"data":{"is_alive":true,"client_state":"` + state{Conference: "xfer-0001"}.encode() +
			`"}}`,
		"GET /v2/conferences": `{"data":[{"id":"0ccc7b54-0000-4000-8000-0000000000c1"}]}`,
	}}
	if err := account(t, rt).Do(t.Context(), caller, &providers.Answer{Media: "wss://b.example/m"}); err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, r := range rt.asked {
		paths = append(paths, r.Method+" "+r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:])
	}
	if got := strings.Join(paths, ", "); got != "GET "+caller+", GET conferences, POST leave, POST streaming_start" {
		t.Errorf("%s", got)
	}
	want, body := providertest.FixtureRequest(t, "rest-conference-leave.http")
	if rt.asked[2].URL.Path != want.URL.Path {
		t.Errorf("%s", rt.asked[2].URL)
	}
	providertest.Known(t, rt.sent[2], []string{"rest-conference-leave.http"}, nil)
	_ = body
}

// TestFixturesErrors: what Telnyx refuses.
func TestFixturesErrors(t *testing.T) {
	for code, tt := range map[string]struct {
		status int
		kind   providers.CallErrorKind
	}{
		"10009": {401, providers.ErrCredentials}, "10011": {429, providers.ErrRate},
		"10016": {422, providers.ErrRejected},
		"90015": {422, providers.ErrNoCall}, "90018": {422, providers.ErrNoCall}, "90034": {422, providers.ErrRejected},
		"90041": {422, providers.ErrRejected}, "90044": {422, providers.ErrRejected},
		"90046": {422, providers.ErrRejected},
	} {
		rt := &roundTrip{t: t, status: tt.status, replies: map[string]string{"": "rest-error-" + code + ".json"}}
		_, err := account(t, rt).Get(t.Context(), caller)
		var e *providers.CallError
		if !errors.As(err, &e) || e.Kind != tt.kind || e.Code != code || e.Detail == "" {
			t.Errorf("%s: %v", code, err)
		}
	}
}

// TestFixturesExchange: the simulated Telnyx takes what Telnyx takes, and its events have
// Telnyx' names.
func TestFixturesExchange(t *testing.T) {
	x := &exchange{cfg: Config{APIKey: apiKey, ConnectionID: "7267000000000000001"}, states: map[string]string{},
		spoken: map[string]bool{}}
	for name, kind := range map[string]providers.OperationKind{
		"rest-get-call.http": providers.OpGet, "rest-hangup.http": providers.OpHangup,
		"rest-answer-stream.http": providers.OpDo,
		"rest-speak.http":         providers.OpDo, "rest-gather-using-speak.http": providers.OpDo,
		"rest-conference-participants.http": providers.OpRoom,
	} {
		r, body := providertest.FixtureRequest(t, name)
		r.URL.Path = strings.TrimPrefix(r.URL.Path, "/v2")
		body = bytes.Replace(body, []byte(`"payload_type":"text",`), nil, 1) // not simulated
		body = bytes.ReplaceAll(body, []byte("cnVuLTQy"), []byte(state{Status: "https://b.example/s"}.encode()))
		if op, err := x.Operation(r, body, time.Now()); err != nil || op.Kind != kind {
			t.Errorf("%s: %+v, %v", name, op, err)
		}
	}
	call := providers.ExchangeCall{ID: human, Aliases: []string{humanLeg}, From: "+12025550102", To: "+12025550103",
		Status: providers.StatusCompleted}
	in := call
	in.Inbound = true
	for pattern, ask := range map[string]providers.Ask{
		"webhook-call-initiated-incoming*":          {Kind: providers.AskAnswer, Call: in},
		"webhook-call-answered*":                    {Kind: providers.AskAnswer, Call: call},
		"webhook-call-hangup-*":                     {Kind: providers.TellStatus, Call: call},
		"webhook-call-machine-detection-*":          {Kind: providers.TellDetection, Call: call, AnsweredBy: "human"},
		"webhook-call-gather-ended-*":               {Kind: providers.AskDigit, Call: call, Digit: "1"},
		"webhook-conference-participant-joined.js*": {Kind: providers.TellRoom, Call: call, Room: "x", Joined: true},
		"webhook-streaming-s*":                      {Kind: providers.AskNext, Call: call},
	} {
		ask.URL = "https://b.example/x"
		providertest.Known(t, providertest.Asked(t, x, ask), providertest.FixtureNames(t, pattern),
			[]string{"meta", "meta.attempt", "meta.delivered_to", "data.payload.state"})
	}
}

// TestConfig: what is wrong is said with the field's name.
func TestConfig(t *testing.T) {
	for field, change := range map[string]func(*Config){
		"api_key": func(c *Config) { c.APIKey = "" }, "public_key": func(c *Config) { c.PublicKey = "AAAA" },
		"connection_id": func(c *Config) { c.ConnectionID = "" }, "encoding": func(c *Config) { c.Encoding = "opus" },
		"encoding, rate": func(c *Config) { c.Rate = 44100 },
		"base_url":       func(c *Config) { c.BaseURL = "http://a.example" },
		"":               func(c *Config) { c.Encoding, c.Rate = "l16", 16000 },
	} {
		_, err := NewAccount(providers.Setup{Decode: func(c any) error {
			if err := config("")(c); err != nil {
				return err
			}
			change(c.(*Config))
			return nil
		}})
		if (err == nil) != (field == "") || err != nil && !strings.HasPrefix(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// FuzzWebhook: whatever comes is read or refused, on both ends.
func FuzzWebhook(f *testing.F) {
	for _, pattern := range []string{"webhook-*.json", "rest-*.http"} {
		names, _ := filepath.Glob(filepath.Join("testdata", "fixtures", pattern))
		for _, name := range names {
			if _, body, ok := bytes.Cut(providertest.Fixture(f, filepath.Base(name)), []byte("\n\n")); ok {
				f.Add(body)
			} else {
				f.Add(providertest.Fixture(f, filepath.Base(name)))
			}
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		w := &webhooks{}
		evs, err := w.Read(&providers.Hook{Method: "POST", Body: data})
		for _, ev := range evs {
			if err != nil || ev.Kind == 0 || ev.Leg == "" {
				t.Errorf("%q: %+v, %v", data, ev, err)
			}
		}
		x := &exchange{cfg: Config{APIKey: apiKey}, states: map[string]string{}, spoken: map[string]bool{}}
		for _, path := range []string{"/calls", "/calls/1/actions/answer", "/calls/1/actions/speak",
			"/calls/1/actions/gather", "/calls/1/actions/streaming_start", "/calls/1/actions/transfer", "/conferences",
			"/conferences/1/actions/join", "/conferences/1/actions/leave"} {
			r := httptest.NewRequest("POST", path, nil)
			r.Header.Set("Authorization", "Bearer "+apiKey)
			if op, err := x.Operation(r, data, time.Now()); err == nil {
				if _, err := json.Marshal(op); err != nil {
					t.Errorf("%q: %v", data, err)
				}
			}
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
		s, p := media.NewStream(), media.NewPeer()
		evs, err := s.Decode(nil, providers.Message{Data: start})
		if err != nil || p.Encode(&providers.Messages{}, &evs[0]) != nil {
			t.Fatal(err)
		}
		if evs, err := s.Decode(nil, providers.Message{Data: data}); err != nil && len(evs) > 0 {
			t.Errorf("%q: %+v, %v", data, evs, err)
		}
		var cmd providers.Command
		_ = p.Decode(providers.Message{Data: data}, &cmd)
	})
}
