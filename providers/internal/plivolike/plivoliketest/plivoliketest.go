// Package plivoliketest holds a carrier of the kind of package plivolike to both
// conformance suites and to its fixtures, which have the same names for all of them.
package plivoliketest

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"voicebridge/codec"
	"voicebridge/providers"
	"voicebridge/providers/internal/plivolike"
	"voicebridge/providers/internal/plivomedia"
	"voicebridge/providers/providertest"
)

// Carrier is what is held, and what its fixtures say.
type Carrier struct {
	Spec    *providers.Spec
	Dialect *plivolike.Dialect
	// Account, Inbound, Outbound and Stream are the ids in the fixtures, Token is the one
	// that those of requests to the REST API show.
	Account, Token, Inbound, Outbound, Stream string
	// Extra are names that we write, and no fixture shows, but the documents have.
	Extra []string
}

// Run runs all tests.
func Run(t *testing.T, c Carrier) {
	t.Run("Conformance", c.conformance)
	secret := c
	secret.Token = "the account's secret"
	providertest.RunControl(t, providertest.Control{Spec: c.Spec, Config: secret.config, Secret: secret.Token})
	t.Run("FixturesMedia", c.media)
	t.Run("FixturesWebhooks", c.webhooks)
	t.Run("FixturesDocuments", c.documents)
	t.Run("FixturesREST", c.rest)
	t.Run("FixturesExchange", c.exchange)
	t.Run("Config", c.badConfig)
}

// config is that of an account whose REST API is at the URL.
func (c Carrier) config(base string) func(any) error {
	return func(into any) error {
		*into.(*plivolike.Config) = plivolike.Config{AuthID: c.Account, AuthToken: c.Token, Encoding: "mulaw",
			BaseURL: base}
		return nil
	}
}

func (c Carrier) account(t *testing.T, rt http.RoundTripper) *providers.Account {
	t.Helper()
	a, err := c.Spec.NewAccount(providers.Setup{Decode: c.config(""), HTTP: rt})
	if err != nil {
		t.Fatal(err)
	}
	a.Publish(func(*providers.Answer) string { return "https://bridge.example.com/hooks/x/y/do/1" })
	return a
}

func (c Carrier) start(f codec.Format) *providers.Start {
	s := c.Dialect.Media.Start(f)
	s.Account, s.Call, s.Stream = "500025", c.Inbound, "S1"
	return s
}

func (c Carrier) conformance(t *testing.T) {
	text := providertest.Text
	start := providertest.Event(providers.EventStart)
	start.Start = c.Dialect.Media.Start(plivomedia.Formats[0])
	start.Start.Account, start.Start.Call, start.Start.Stream = "100", "C1", "S1"
	audio := providertest.Event(providers.EventAudio)
	audio.Audio, audio.At = []byte{0xff, 0xff, 0xff}, 0
	digit, mark := providertest.Event(providers.EventDigit), providertest.Event(providers.EventMark)
	digit.Digit, mark.Mark = '2', "u-17"
	const begin = `"start":{"callId":"C1","streamId":"S1","accountId":"100","tracks":["inbound"],"mediaFormat":`
	providertest.Run(t, providertest.Harness{
		Spec: c.Spec, Start: c.start,
		Documented: []providertest.Documented{
			{Message: text(`{"sequenceNumber":1,"event":"start",` + begin +
				`{"encoding":"audio/x-mulaw","sampleRate":8000}},"extra_headers":"{}"}`), Event: start},
			{Message: text(`{"sequenceNumber":1,"streamId":"S1","event":"media","media":{"track":"inbound",` +
				`"timestamp":"1767225600123","chunk":1,"payload":"////"},"extra_headers":"a=b;c=d"}`), Event: audio},
			{Message: text(`{"event":"dtmf","sequenceNumber":52,"streamId":"S1","dtmf":{"track":"inbound","digit":"2",` +
				`"timestamp":"1767225601000"},"extra_headers":"{}"}`), Event: digit},
			{Message: text(`{"event":"playedStream","sequenceNumber":60,"streamId":"S1","name":"u-17"}`), Event: mark},
			{Message: text(`{"event":"playedStream","name":"u-17"}`), Event: mark},
			{Message: text(`{"event":"clearedAudio","streamId":"S1"}`),
				Event: providertest.Event(providers.EventCleared)},
			{Message: text(`{"event":"stop","streamId":"S1","reason":"callEnded"}`),
				Event: providertest.Event(providers.EventStop)},
		},
		Malformed: []providers.Message{
			{Binary: true, Data: []byte{1}}, text(`{"event":"media"}`),
			text(`{"event":"media","media":{"payload":"!"}}`),
			text(`{"event":"media","streamId":"other","media":{"payload":"AAAA"}}`), text(`{"event":"dtmf"}`),
			text(`{"event":"dtmf","dtmf":{"digit":"12"}}`), text(`{"event":"clearedAudio","streamId":"other"}`),
		},
		Unknown: []providers.Message{text(`{"event":"weather"}`),
			text(`{"event":"media","media":{"track":"outbound","payload":"AAAA"}}`)},
		BadFormat: text(`{"event":"start",` + begin + `{"encoding":"audio/x-opus","sampleRate":48000}}}`),
	})
}

// media: what the carrier sends and takes on the media socket.
func (c Carrier) media(t *testing.T) {
	for _, name := range providertest.FixtureNames(t, "media-start*.json") {
		s := c.Spec.NewStream()
		start := providertest.Decode(t, s, name).Start
		if start == nil || start.Call != c.Inbound || start.Stream != c.Stream {
			t.Fatalf("%s: %+v", name, start)
		}
		p := c.Spec.NewPeer()
		var out providers.Messages
		if err := p.Encode(&out, &providers.Event{Kind: providers.EventStart, Start: start}); err != nil {
			t.Fatal(err)
		}
		c.audio(t, s, p, start)
		c.commands(t, s, p, start)
	}
	s := c.Spec.NewStream()
	providertest.Decode(t, s, "media-start.json")
	for name, want := range map[string]providers.Event{
		"media-dtmf.json": {Kind: providers.EventDigit, At: -1, Digit: '2'},
	} {
		if ev := providertest.Decode(t, s, name); !reflect.DeepEqual(ev, want) {
			t.Errorf("%s: %+v", name, ev)
		}
	}
	for pattern, kind := range map[string]providers.EventKind{"media-played*.json": providers.EventMark,
		"media-cleared*.json": providers.EventCleared} {
		for _, name := range providertest.FixtureNames(t, pattern) {
			if ev := providertest.Decode(t, s, name); ev.Kind != kind ||
				(kind == providers.EventMark) != (ev.Mark != "") {
				t.Errorf("%s: %+v", name, ev)
			}
		}
	}
	p := c.Spec.NewPeer()
	for _, ev := range []providers.Event{{Kind: providers.EventStart, Start: c.start(plivomedia.Formats[0])},
		{Kind: providers.EventAudio, Audio: []byte{1}}, {Kind: providers.EventDigit, Digit: '1'},
		{Kind: providers.EventMark, Mark: "m"}, {Kind: providers.EventCleared}} {
		var out providers.Messages
		if err := p.Encode(&out, &ev); err != nil {
			t.Fatal(err)
		}
		providertest.Known(t, out.All()[0].Data, providertest.FixtureNames(t, "media-*.json"), nil)
	}
}

// audio: each fixture holds 20 ms of a tone of 400 Hz, whatever its format.
func (c Carrier) audio(t *testing.T, s providers.Stream, p providers.Peer, start *providers.Start) {
	pattern := map[codec.Encoding]string{codec.PCMU: "media-media.json",
		c.Dialect.Media.L16In: fmt.Sprintf("media-media-l16-%d-*.json", start.In.Rate)}[start.In.Encoding]
	for _, name := range providertest.FixtureNames(t, pattern) {
		ev := providertest.Decode(t, s, name)
		samples := start.In.Encoding.AppendDecode(nil, ev.Audio)
		if ev.Kind != providers.EventAudio || len(samples) != start.In.FrameSamples() || !tone(samples, start.In.Rate) {
			t.Errorf("%s: %v of %d samples is no tone", name, ev.Kind, len(samples))
		}
	}
}

// tone reports whether samples are a sine of 400 Hz: it comes again after each period, and
// no two neighbours are far apart, as they are in the wrong order of bytes.
func tone(samples []int16, rate int) bool {
	period := rate / 400
	for i, s := range samples[period:] {
		if d := int(s) - int(samples[i]); d < -700 || d > 700 {
			return false
		}
	}
	for i, s := range samples[1:] {
		if d := int(s) - int(samples[i]); d < -3500 || d > 3500 {
			return false
		}
	}
	return true
}

// commands: what we send is what the carrier takes, to the letter.
func (c Carrier) commands(t *testing.T, s providers.Stream, p providers.Peer, start *providers.Start) {
	names := []string{"media-send-checkpoint.json", "media-send-clearAudio.json"}
	if c.Spec.Abilities.SendDigits {
		names = append(names, "media-send-sendDTMF.json")
	}
	switch {
	case start.Out.Encoding == codec.PCMU:
		names = append(names, "media-send-playAudio.json")
	case start.Out.Rate == 8000, c.Spec.Name == "plivo":
		names = append(names, fmt.Sprintf("media-send-playAudio-l16-%d.json", start.Out.Rate))
	}
	for _, name := range names {
		var cmd providers.Command
		text := providertest.Fixture(t, name)
		if err := p.Decode(providers.Message{Data: text}, &cmd); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := providertest.Encode(t, s, cmd); !bytes.Equal(got, text) {
			t.Errorf("we send %s\nwant    %s", got, text)
		}
		if cmd.Kind == providers.CommandAudio &&
			!tone(start.Out.Encoding.AppendDecode(nil, cmd.Audio), start.Out.Rate) {
			t.Errorf("%s: no tone", name)
		}
	}
}

// told is a fixture of a webhook and what it means.
type told struct {
	purpose providers.Purpose
	name    string
	want    []providers.CallEvent
}

// webhooks: what each request means.
func (c Carrier) webhooks(t *testing.T) {
	a := c.account(t, nil)
	for _, tt := range c.told() {
		body := providertest.Fixture(t, tt.name)
		got, err := a.Webhooks.Read(&providers.Hook{Method: "POST", Purpose: tt.purpose, Body: body})
		for i := range got { // the ids of its request, which some have, and here are the call's
			if len(got[i].Aliases) > 0 && !strings.HasPrefix(got[i].Leg, c.Outbound[:8]) {
				t.Errorf("%s: %q", tt.name, got[i].Aliases)
			}
		}
		if err != nil || len(got)+len(tt.want) > 0 && !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %+v, %v\nwant %+v", tt.name, got, err, tt.want)
		}
	}
}

func (c Carrier) told() (all []told) {
	add := func(purpose providers.Purpose, name string, evs ...providers.CallEvent) {
		all = append(all, told{purpose, "webhook-" + name + ".form", evs})
	}
	const caller, ours, third = "+12025550101", "+12025550102", "+12025550103"
	in := providers.CallEvent{Kind: providers.CallAsked, Leg: c.Inbound, From: caller, To: ours, Wants: true,
		Raw: "ringing"}
	add(providers.ForAnswer, "answer-inbound", in)
	again := in
	again.Raw = "in-progress"
	add(providers.ForAnswer, "redirect-fetch", again)
	add(providers.ForAnswer, "transfer-fetch", again)
	add(providers.ForAnswer, "answer-outbound", providers.CallEvent{Kind: providers.CallAsked, Leg: c.Outbound,
		From: ours, To: third, Wants: true, Raw: "in-progress"},
		providers.CallEvent{Kind: providers.CallProgress, Leg: c.Outbound, Raw: "in-progress",
			Status: providers.StatusInProgress})
	progress := func(raw string, s providers.Status) providers.CallEvent {
		return providers.CallEvent{Kind: providers.CallProgress, Leg: c.Outbound, Raw: raw, Status: s}
	}
	for _, purpose := range []providers.Purpose{providers.ForStatus, providers.ForAnswer} { // without a hangup URL
		add(purpose, "ring", progress("ringing", providers.StatusRinging))
		add(purpose, "hangup-completed", progress("completed", providers.StatusCompleted))
		add(purpose, "hangup-end-of-xml", progress("completed", providers.StatusCompleted))
		add(purpose, "hangup-invalid-xml", progress("completed", providers.StatusCompleted))
		add(purpose, "hangup-busy", progress("busy", providers.StatusBusy))
		add(purpose, "hangup-no-answer", progress("no-answer", providers.StatusNoAnswer))
		add(purpose, "hangup-failed", progress("failed", providers.StatusFailed))
		add(purpose, "hangup-cancel", progress("cancel", providers.StatusCanceled))
		add(purpose, "machine-detection", providers.CallEvent{Kind: providers.CallDetected, Leg: c.Outbound,
			Raw: "Machine=true", AnsweredBy: providers.AnsweredByMachine})
		for _, name := range []string{"StartStream", "StopStream", "DroppedStream", "DegradedStream", "PlayedStream",
			"ClearedAudio"} {
			add(purpose, "stream-"+name)
		}
	}
	late := providers.StatusNoAnswer
	if c.Spec.Name == "vobiz" { // its fixture is of a call that was answered, and lasted as long as it might
		late = providers.StatusCompleted
	}
	add(providers.ForStatus, "hangup-timeout", progress("timeout", late))
	for raw, s := range map[string]providers.Status{"completed": providers.StatusCompleted,
		"busy": providers.StatusBusy, "no-answer": providers.StatusNoAnswer} {
		add(providers.ForNext, "dial-action-"+raw, providers.CallEvent{Kind: providers.CallStepDone, Leg: c.Inbound,
			Wants: true, Raw: raw, Status: s})
	}
	add(providers.ForNext, "redirect-fetch", providers.CallEvent{Kind: providers.CallStepDone, Leg: c.Inbound,
		Wants: true})
	for _, name := range []string{"answer", "connected", "hangup"} {
		if c.Spec.Name != "vobiz" || name != "hangup" { // that one names no call
			add(providers.ForNext, "dial-callback-"+name)
		}
	}
	room := func(leg, action string) providers.CallEvent {
		return providers.CallEvent{Kind: providers.CallRoom, Leg: leg, Raw: action, Joined: action == "enter"}
	}
	member := c.Outbound
	if c.Spec.Name == "vobiz" {
		member = c.Inbound
	}
	add(providers.ForRoom, "conference-enter", room(member, "enter"))
	add(providers.ForRoom, "conference-exit", room(member, "exit"))
	return all
}

// documents: every element and attribute that we write is the carrier's.
func (c Carrier) documents(t *testing.T) {
	a := c.account(t, nil)
	docs := []providers.Document{}
	for _, answer := range []providers.Answer{
		{}, {Media: "wss://b.example/x", Next: "https://b.example/n"}, {Say: "x"},
		{Dial: "+12025550103", Caller: "+12025550102", Next: "https://b.example/n"},
		{Say: "x", Ask: &providers.Question{URL: "https://b.example/k", Wait: time.Second}},
		{Room: &providers.Room{Name: "xfer-0001", End: true, Events: "https://b.example/e",
			Hold: "https://b.example/h"}},
	} {
		doc, err := a.Webhooks.Document(&answer)
		if err != nil {
			t.Fatal(err)
		}
		docs = append(docs, doc)
	}
	doc, err := a.Webhooks.(providers.Holder).HoldDocument("https://b.example/hold.wav")
	if err != nil {
		t.Fatal(err)
	}
	for _, doc := range append(docs, doc) {
		providertest.Known(t, doc.Body, providertest.FixtureNames(t, "answer-*.xml"), append(c.Extra,
			"Response/Redirect", "Response/Redirect@method", "Response/Play", "Response/Play@loop"))
	}
	x := &plivolike.Exchange{Dialect: c.Dialect}
	for _, name := range []string{"answer-hangup-busy.xml", "answer-speak-hangup.xml"} {
		if _, err := x.Answer("text/xml", providertest.Fixture(t, name)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// roundTrip answers with a fixture, and keeps what it was asked.
type roundTrip struct {
	t             *testing.T
	status        int
	reply         string
	method, query string
	path          string
	header        http.Header
	sent          []byte
}

// RoundTrip implements http.RoundTripper.
func (r *roundTrip) RoundTrip(req *http.Request) (*http.Response, error) {
	r.sent = nil
	if req.Body != nil {
		r.sent, _ = io.ReadAll(req.Body)
	}
	r.method, r.path, r.query, r.header = req.Method, req.URL.Path, req.URL.RawQuery, req.Header
	var body []byte
	if r.reply != "" {
		body = providertest.Fixture(r.t, r.reply)
	}
	return &http.Response{StatusCode: r.status, Header: http.Header{}, Request: req,
		Body: io.NopCloser(bytes.NewReader(body))}, nil
}

// rest: requests have the carrier's names, and its replies are understood.
func (c Carrier) rest(t *testing.T) {
	rt := &roundTrip{t: t}
	a := c.account(t, rt)
	ctx := t.Context()
	same := func(err error, name string) {
		t.Helper()
		want, body := providertest.FixtureRequest(t, name)
		if err != nil || rt.method != want.Method || rt.path != want.URL.Path || rt.query != want.URL.RawQuery ||
			rt.header.Get("Authorization")+rt.header.Get("X-Auth-Token") !=
				want.Header.Get("Authorization")+want.Header.Get("X-Auth-Token") {
			t.Errorf("%v: %s %s?%s %v, want %s %s", err, rt.method, rt.path, rt.query, rt.header, want.Method, want.URL)
		}
		if len(body) > 0 {
			providertest.Known(t, rt.sent, []string{name}, []string{"send_digits"})
		}
	}
	rt.status, rt.reply = 201, "rest-create-call-response.json"
	leg, err := a.Dial(ctx, &providers.Dial{To: "+12025550103", From: "+12025550102", Answer: "https://b.example/a",
		Status: "https://b.example/s", Ring: 30 * time.Second, Detect: true, Digits: "1w2"})
	if same(err, "rest-create-call.http"); leg.ID == "" {
		t.Errorf("%+v", leg)
	}
	rt.status, rt.reply = 200, "rest-get-live-call-response.json"
	evs, err := a.Get(ctx, c.Outbound)
	if same(err, "rest-get-live-call.http"); len(evs) != 1 || evs[0].Status != providers.StatusInProgress {
		t.Errorf("%+v", evs)
	}
	rt.status, rt.reply = 204, ""
	same(a.Hangup(ctx, c.Outbound), "rest-hangup.http")
	rt.status, rt.reply = 202, "rest-transfer-response.json"
	same(a.Do(ctx, c.Inbound, &providers.Answer{Say: "x"}), "rest-transfer.http")
	same(a.SendDigits(ctx, c.Inbound, "1w2#"), "rest-send-digits.http")
	rt.status, rt.reply = 200, "rest-conference-get-response.json"
	in, err := a.InRoom(ctx, "xfer-0001", c.Inbound, c.Outbound)
	if same(err, "rest-conference-get.http"); !reflect.DeepEqual(in, []bool{true, false}) {
		t.Errorf("in the room: %v", in)
	}
}

// exchange: the simulated end takes what the carrier takes, and its requests have the
// carrier's parameters.
func (c Carrier) exchange(t *testing.T) {
	x, err := c.Spec.NewExchange(providers.Setup{Decode: c.config("")})
	if err != nil {
		t.Fatal(err)
	}
	for name, kind := range map[string]providers.OperationKind{
		"rest-create-call.http": providers.OpDial, "rest-get-live-call.http": providers.OpGet,
		"rest-hangup.http": providers.OpHangup, "rest-transfer.http": providers.OpDo,
		"rest-send-digits.http": providers.OpDigits, "rest-conference-get.http": providers.OpRoom,
	} {
		r, body := providertest.FixtureRequest(t, name)
		r.URL.Path = strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, "/v1"), "/api/v1")
		for _, optional := range []string{`,"time_limit":3600`, `,"machine_detection_time":5000`, `,"fallback_url":"` +
			`https://bridge.example.com/plivo/fallback","fallback_method":"POST"`} { // not simulated
			body = bytes.Replace(body, []byte(optional), nil, 1)
		}
		for _, url := range []string{"ring", "amd"} { // which are one URL of ours
			body = bytes.ReplaceAll(body, []byte("/"+url+`"`), []byte(`/hangup"`))
		}
		if op, err := x.Operation(r, body, time.Now()); err != nil || op.Kind != kind {
			t.Errorf("%s: %+v, %v", name, op, err)
		}
		r.URL.Path = strings.TrimSuffix(r.URL.Path, "/")
		if _, err := x.Operation(r, body, time.Now()); err == nil {
			t.Errorf("%s: taken without the slash at its end", name)
		}
	}
	call := providers.ExchangeCall{ID: c.Outbound, From: "+12025550102", To: "+12025550103",
		Status: providers.StatusCompleted}
	for pattern, ask := range map[string]providers.Ask{
		"webhook-answer-*":       {Kind: providers.AskAnswer},
		"webhook-hangup-*":       {Kind: providers.TellStatus},
		"webhook-machine-*":      {Kind: providers.TellDetection, AnsweredBy: providers.AnsweredByMachine},
		"webhook-dial-action-*":  {Kind: providers.AskNext, Dial: providers.StatusBusy},
		"webhook-g[ae]t*":        {Kind: providers.AskDigit, Digit: "1"},
		"webhook-conference-en*": {Kind: providers.TellRoom, Room: "xfer-0001", Joined: true},
		"webhook-conference-ex*": {Kind: providers.TellRoom, Room: "xfer-0001"},
	} {
		ask.URL, ask.Call = "https://b.example/x", call
		providertest.Known(t, providertest.Asked(t, x, ask), providertest.FixtureNames(t, pattern),
			[]string{"ParentAuthID", "ALegUUID", "ALegRequestUUID", "RequestUUID", "Event", "Direction"})
	}
}

// badConfig: what is wrong with a configuration is said with the field's name.
func (c Carrier) badConfig(t *testing.T) {
	good := plivolike.Config{AuthID: "MA1", AuthToken: "t"}
	for field, change := range map[string]func(*plivolike.Config){
		"auth_id":    func(cfg *plivolike.Config) { cfg.AuthID = "" },
		"auth_token": func(cfg *plivolike.Config) { cfg.AuthToken = "" },
		"encoding":   func(cfg *plivolike.Config) { cfg.Encoding = "opus" },
		"rate":       func(cfg *plivolike.Config) { cfg.Rate = 44100 },
		"base_url":   func(cfg *plivolike.Config) { cfg.BaseURL = "http://example.com" },
		"calls_per":  func(cfg *plivolike.Config) { cfg.Calls = -1 },
		"":           func(cfg *plivolike.Config) { cfg.Encoding, cfg.Rate = "l16", 16000 },
	} {
		cfg := good
		_, err := c.Spec.NewAccount(providers.Setup{Decode: func(into any) error {
			usual := into.(*plivolike.Config)
			cfg.Encoding = usual.Encoding
			change(&cfg)
			*usual = cfg
			return nil
		}})
		if (err == nil) != (field == "") || err != nil && !strings.HasPrefix(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}
