package providertest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"voicebridge/providers"
)

// Control is what the suite needs to know of a carrier's webhooks and calls.
type Control struct {
	Spec *providers.Spec
	// Config decodes the configuration of an account whose REST API is at the URL.
	Config func(baseURL string) func(any) error
	// Secret must not be told by anything.
	Secret string
}

// RunControl runs the suite: webhooks against the carrier's own end of them, and
// REST requests over TCP.
func RunControl(t *testing.T, c Control) {
	if a, _ := c.pair(t, anyURL); a.Webhooks != nil { // otherwise it tells over a connection of its own
		t.Run("Documents", c.testDocuments)
		t.Run("Longest", c.testLongest)
		t.Run("Webhooks", c.testWebhooks)
		t.Run("Signatures", c.testSignatures)
	}
	t.Run("Calls", c.testCalls)
	t.Run("CallErrors", c.testCallErrors)
	t.Run("Retries", c.testRetries)
	t.Run("Numbers", c.testNumbers)
}

const anyURL = "https://127.0.0.1:1"

func (c Control) pair(t *testing.T, base string) (*providers.Account, providers.Exchange) {
	t.Helper()
	a, x, _ := c.publishing(t, base)
	return a, x
}

// publishing is pair with the answers that can be asked for.
func (c Control) publishing(t *testing.T, base string) (*providers.Account, providers.Exchange, *published) {
	t.Helper()
	setup := providers.Setup{Decode: c.Config(base)}
	a, err := c.Spec.NewAccount(setup)
	if err != nil {
		t.Fatal(err)
	}
	p := &published{}
	a.Publish(p.url)
	x, err := c.Spec.NewExchange(setup)
	if err != nil {
		t.Fatal(err)
	}
	return a, x, p
}

// published are answers that a carrier can ask for, by URL.
type published struct {
	mu   sync.Mutex
	list []*providers.Answer
}

const publishedAt = "https://bridge.example.com/hooks/x/y/do/"

func (p *published) url(a *providers.Answer) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.list = append(p.list, a)
	return publishedAt + strconv.Itoa(len(p.list)-1)
}

// whole is an answer with what the carrier asks for next, where that has been published.
func (p *published) whole(t *testing.T, a *providers.Answer) *providers.Answer {
	t.Helper()
	if a == nil {
		t.Error("no answer")
		return &providers.Answer{}
	}
	n, ok := strings.CutPrefix(a.Next, publishedAt)
	if !ok {
		return a
	}
	i, err := strconv.Atoi(n)
	if err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	rest := *p.list[i]
	p.mu.Unlock()
	rest.Say = cmp.Or(rest.Say, a.Say)
	return &rest
}

// same reports whether the carrier does what was wanted, as far as it can.
func (c Control) same(got, want *providers.Answer) bool {
	return c.possible(got).Equal(c.possible(want))
}

// possible is an answer without what the carrier cannot do.
func (c Control) possible(a *providers.Answer) *providers.Answer {
	p := *c.patient(a)
	p.Media = strings.Replace(p.Media, "?token=", "/", 1) // where the carrier has one URL for all calls
	if p.Room != nil {
		r := *p.Room
		r.End = r.End && c.Spec.Abilities.RoomEnds
		if !c.Spec.Abilities.RoomHold {
			r.Hold = ""
		}
		p.Room = &r
	}
	return &p
}

// patient is an answer that waits for a key at least as long as the carrier does.
func (c Control) patient(a *providers.Answer) *providers.Answer {
	if a.Ask == nil {
		return a
	}
	p := *a
	p.Ask = &providers.Question{URL: a.Ask.URL, Wait: max(a.Ask.Wait, c.Spec.Abilities.KeyWait)}
	return &p
}

const (
	anyMedia = "wss://bridge.example.com/media/x/TOKEN"
	anyNext  = "https://bridge.example.com/hooks/x/y/next/cs_1?a=b&c=d"
)

// answers are of every kind.
var answers = []providers.Answer{
	{Media: anyMedia},
	{Media: anyMedia, Next: anyNext},
	{Say: "Sorry, <all> lines & operators are busy."},
	{Say: "Leider ist niemand da.", Language: "de-DE", Voice: "2"},
	{Dial: "+15550100123", Caller: "+15550100999"},
	{Say: "One moment.", Dial: "+15550100123", Caller: "+15550100999"},
	{Dial: "+15550100123", Caller: "+15550100999", Next: anyNext, Ring: 12 * time.Second},
	{Room: &providers.Room{Name: "vb-room"}},
	{Room: &providers.Room{Name: "vb-room", Wait: true}},
	{Say: "You are <connected>.", Room: &providers.Room{Name: "vb-room", End: true, Events: anyNext,
		Hold: "https://bridge.example.com/hold.wav"}},
	{Say: "Drücken Sie die 1.", Language: "de-DE", Ask: &providers.Question{URL: anyNext, Wait: 10 * time.Second}},
	{Say: "A call & more. Press 1.", Ask: &providers.Question{URL: anyNext, Wait: 10 * time.Second}},
	{Ask: &providers.Question{URL: anyNext, Wait: time.Second}},
}

// testDocuments: what an account writes, the carrier reads as it was meant.
func (c Control) testDocuments(t *testing.T) {
	a, x := c.pair(t, anyURL)
	var doc providers.Document
	for _, want := range append([]providers.Answer{{}}, answers...) {
		var err error
		if doc, err = a.Webhooks.Document(&want); err != nil {
			t.Fatal(err)
		}
		got, err := x.Answer(doc.ContentType, doc.Body)
		if err == nil && got == nil && len(doc.Body) == 0 { // replies say nothing: commands do, see testCalls
			continue
		}
		if err != nil || !c.same(got, &want) {
			t.Errorf("%s\nis read as %+v, %v\nwant %+v", doc.Body, got, err, want)
		}
		if err == nil && got.Media != "" && !got.Format.Valid() {
			t.Errorf("the stream has no format: %s", doc.Body)
		}
	}
	for _, bad := range []string{"", "{}", "[", "<Response>", "<Response><Nonsense/></Response>",
		`[{"action":"hangup"}]`, "OK"} {
		if got, err := x.Answer(doc.ContentType, []byte(bad)); err == nil && got != nil && !got.Empty() {
			t.Errorf("the carrier took %q for %+v", bad, got)
		}
	}
	if _, err := x.Answer("text/plain", doc.Body); err == nil && len(doc.Body) > 0 {
		t.Error("the carrier took text/plain")
	}
}

// testLongest: a call with as much metadata as it may take along fits into a document,
// and into a request.
func (c Control) testLongest(t *testing.T) {
	a, s := c.serve(t)
	token := strings.Repeat("x", (providers.MaxMetadata+400)*4/3)
	answer := &providers.Answer{Media: anyMedia + token, Next: anyNext + token}
	if err := a.Do(testCtx(t), "CA1", answer); err != nil || !c.same(s.whole(t, s.last().Answer), answer) {
		t.Errorf("%v, %+v", err, s.last())
	}
}

// hookOf is a request as it comes to the account.
func hookOf(t *testing.T, r *http.Request) *providers.Hook {
	t.Helper()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return &providers.Hook{Method: r.Method, URL: r.URL.String(), Header: r.Header, Body: body}
}

// purposes are what the URLs of the carrier's requests were given for.
var purposes = map[providers.AskKind]providers.Purpose{
	providers.AskAnswer: providers.ForAnswer, providers.AskNext: providers.ForNext,
	providers.AskDigit:   providers.ForKey,
	providers.TellStatus: providers.ForStatus, providers.TellDetection: providers.ForStatus,
	providers.TellRoom: providers.ForRoom,
}

// testWebhooks: what the carrier asks and tells is authentic and understood.
func (c Control) testWebhooks(t *testing.T) {
	a, x := c.pair(t, anyURL)
	leg := x.NewCall()
	if x.NewCall().ID == leg.ID {
		t.Error("two calls have one id")
	}
	call := providers.ExchangeCall{ID: leg.ID, Aliases: leg.Aliases, From: "+15550001111", To: "+15550002222",
		Inbound: true, Answered: true, Status: providers.StatusInProgress}
	in := call
	in.Status = providers.StatusRinging
	tests := []struct {
		ask  providers.Ask
		want providers.CallEvent
	}{
		{providers.Ask{Kind: providers.AskAnswer, Call: in},
			providers.CallEvent{Kind: providers.CallAsked, From: call.From, To: call.To}},
		{providers.Ask{Kind: providers.AskNext, Call: call}, providers.CallEvent{Kind: providers.CallStepDone}},
		{providers.Ask{Kind: providers.TellRoom, Call: call, Room: "vb-room", Joined: true},
			providers.CallEvent{Kind: providers.CallRoom, Joined: true}},
		{providers.Ask{Kind: providers.TellRoom, Call: call, Room: "vb-room", Joined: true, Sequence: 1},
			providers.CallEvent{Kind: providers.CallRoom, Joined: true}},
		{providers.Ask{Kind: providers.TellRoom, Call: call, Room: "vb-room"},
			providers.CallEvent{Kind: providers.CallRoom}},
	}
	for _, s := range []providers.Status{providers.StatusInitiated, providers.StatusRinging, providers.StatusInProgress,
		providers.StatusCompleted,
		providers.StatusBusy, providers.StatusNoAnswer, providers.StatusFailed, providers.StatusCanceled} {
		now := call
		now.Status = s
		tests = append(tests, struct {
			ask  providers.Ask
			want providers.CallEvent
		}{providers.Ask{Kind: providers.TellStatus, Call: now},
			providers.CallEvent{Kind: providers.CallProgress, Status: s}})
	}
	for _, by := range []providers.AnsweredBy{providers.AnsweredByHuman, providers.AnsweredByMachine} {
		tests = append(tests, struct {
			ask  providers.Ask
			want providers.CallEvent
		}{providers.Ask{Kind: providers.TellDetection, Call: call, AnsweredBy: by},
			providers.CallEvent{Kind: providers.CallDetected, AnsweredBy: by}})
	}
	for _, s := range []providers.Status{providers.StatusBusy, providers.StatusNoAnswer, providers.StatusFailed} {
		tests = append(tests, struct {
			ask  providers.Ask
			want providers.CallEvent
		}{providers.Ask{Kind: providers.AskNext, Call: call, Dial: s},
			providers.CallEvent{Kind: providers.CallStepDone, Status: s}})
	}
	for _, digit := range []string{"1", "#", ""} {
		tests = append(tests, struct {
			ask  providers.Ask
			want providers.CallEvent
		}{providers.Ask{Kind: providers.AskDigit, Call: call, Digit: digit},
			providers.CallEvent{Kind: providers.CallKey, Digit: digit}})
	}
	for _, tt := range tests {
		c.testWebhook(t, a, x, tt.ask, tt.want)
	}
	for _, bad := range []string{"", "%", "{", "[]", "null", `"x"`, strings.Repeat(`{"a":`, 20000), "CallSid=CA1",
		`{"uuid":7}`} {
		for purpose := providers.ForAnswer; purpose <= providers.ForRoom; purpose++ {
			if evs, err := a.Webhooks.Read(&providers.Hook{Method: "POST", Header: http.Header{}, Body: []byte(bad),
				Purpose: purpose}); err == nil {
				t.Errorf("%.40q was taken: %+v", bad, evs)
			}
		}
	}
}

// testWebhook makes the carrier's request and reads it.
func (c Control) testWebhook(t *testing.T, a *providers.Account, x providers.Exchange, ask providers.Ask,
	want providers.CallEvent) {
	t.Helper()
	now := time.Now()
	const ref = "next/TOKEN"
	ask.URL = "https://bridge.example.com/hooks/x/y/" + ref
	r, err := x.Ask(&ask, now)
	if errors.Is(err, providers.ErrNotAsked) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	h := hookOf(t, r)
	h.Purpose = purposes[ask.Kind]
	if _, err := a.Webhooks.Authenticate(h, now); err != nil {
		t.Fatalf("%+v: %v", ask, err)
	}
	evs, err := a.Webhooks.Read(h)
	if err != nil || len(evs) == 0 {
		t.Errorf("%s: %+v, %v", h.Body, evs, err)
		return
	}
	var got *providers.CallEvent
	for i := range evs {
		if evs[i].Kind == want.Kind {
			got = &evs[i]
		} else if evs[i].Kind != providers.CallProgress || evs[i].Status != ask.Call.Status { // what else it may tell
			t.Errorf("%s: also %+v", h.Body, evs[i])
		}
	}
	switch {
	case got == nil:
		t.Errorf("%s: %+v, want %+v", h.Body, evs, want)
		return
	case want.Kind != providers.CallStepDone && !got.Is(ask.Call.ID): // that may be told by the other end's leg
		t.Errorf("%s: of the leg %q %q, want %q", h.Body, got.Leg, got.Aliases, ask.Call.ID)
	case got.Ref != "" && got.Ref != ref:
		t.Errorf("%s: belongs to %q, want %q", h.Body, got.Ref, ref)
	case (want.Kind == providers.CallProgress || want.Kind == providers.CallDetected) && got.Raw == "":
		t.Errorf("%s: without the carrier's word", h.Body)
	}
	got.Leg, got.Aliases, got.Ref, got.Raw, got.ID, got.Wants = "", nil, "", "", "", false
	if want.Kind == providers.CallAsked && got.From == "" { // not all say it again
		t.Errorf("%s: nobody calls", h.Body)
	}
	if !reflect.DeepEqual(*got, want) {
		t.Errorf("%s: %+v, want %+v", h.Body, *got, want)
	}
}

// testSignatures: a request that is changed in anything is refused, and Explain
// says why without telling the secret.
func (c Control) testSignatures(t *testing.T) {
	a, x := c.pair(t, anyURL)
	now := time.Now()
	const u = "https://bridge.example.com/hooks/x/y/inbound"
	call := providers.ExchangeCall{ID: x.NewCall().ID, From: "+15550001111", To: "+15550002222"}
	for name, change := range map[string]func(*providers.Hook){
		"body":     func(h *providers.Hook) { h.Body = append(h.Body, "&x=y"...) },
		"no body":  func(h *providers.Hook) { h.Body = nil },
		"unsigned": func(h *providers.Hook) { h.Header = http.Header{"Content-Type": h.Header["Content-Type"]} },
		"signature": func(h *providers.Hook) {
			for name := range h.Header {
				if name != "Content-Type" {
					h.Header.Set(name, "Bearer a.b.c")
				}
			}
		},
	} {
		if !c.Spec.Abilities.SignsBodies && strings.Contains(name, "body") {
			continue
		}
		r, err := x.Ask(&providers.Ask{Kind: providers.AskAnswer, URL: u, Call: call}, now)
		if err != nil {
			t.Fatal(err)
		}
		h := hookOf(t, r)
		if lines := a.Webhooks.Explain(h, now); len(lines) != 1 {
			t.Errorf("Explain of a good request: %q", lines)
		}
		change(h)
		lines := a.Webhooks.Explain(h, now)
		if len(lines) < 2 || strings.Contains(strings.Join(lines, "\n"), c.Secret) {
			t.Errorf("%s: Explain: %q", name, lines)
		}
		if _, err := a.Webhooks.Authenticate(h, now); !errors.Is(err, providers.ErrSignature) ||
			strings.Contains(err.Error(), c.Secret) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if !c.Spec.Abilities.SignsHandshake {
		return
	}
	socket := strings.Replace(u, "https", "wss", 1)
	header, err := x.Handshake(socket, now)
	if err != nil {
		t.Fatal(err)
	}
	h := &providers.Hook{Method: "GET", URL: socket, Header: header}
	if _, err := a.Webhooks.Authenticate(h, now); err != nil {
		t.Errorf("handshake: %v", err)
	}
	if _, err := a.Webhooks.Authenticate(&providers.Hook{Method: "GET", URL: socket, Header: http.Header{}},
		now); !errors.Is(err, providers.ErrSignature) {
		t.Errorf("unsigned handshake: %v", err)
	}
}

// api is a carrier's REST API that does what the test says.
type api struct {
	*published
	url string
	mu  sync.Mutex
	ops []*providers.Operation
	// answer is called for each request that is good; its error is replied.
	answer func(n int, op *providers.Operation) error
}

func (c Control) serve(t *testing.T) (*providers.Account, *api) {
	t.Helper()
	s := &api{}
	var x providers.Exchange
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		op, err := x.Operation(r, body, time.Now())
		if err != nil {
			t.Errorf("%s %s %s: %v", r.Method, r.URL.Path, body, err)
		} else {
			s.mu.Lock()
			s.ops = append(s.ops, op)
			err = s.answer(len(s.ops), op)
			s.mu.Unlock()
			if err == nil && op.Done != nil {
				op.Done()
			}
		}
		if garbage, ok := err.(garbage); ok {
			w.WriteHeader(garbage.status)
			_, _ = io.WriteString(w, garbage.body)
			return
		}
		x.Reply(w, op, &providers.ExchangeCall{ID: "CA1", From: "+15550100999", To: "+15550100123",
			Status: providers.StatusInProgress}, err)
	}))
	t.Cleanup(srv.Close)
	var a *providers.Account
	a, x, s.published = c.publishing(t, srv.URL)
	s.url = srv.URL
	s.answer = func(int, *providers.Operation) error { return nil }
	if !a.HasCommands() {
		t.Fatal("the account has no calls")
	}
	return a, s
}

// garbage is a reply that the carrier should not give.
type garbage struct {
	status int
	body   string
}

func (garbage) Error() string { return "garbage" }

// last is the last request that was about a call.
func (s *api) last() *providers.Operation {
	return s.find(func(op *providers.Operation) bool { return op.Kind != providers.OpOther })
}

// done is the last request that had something done with a call.
func (s *api) done() *providers.Operation {
	return s.find(func(op *providers.Operation) bool {
		return op.Kind == providers.OpDo || op.Kind == providers.OpDial && op.Call != "" // for the call
	})
}

func (s *api) find(fits func(*providers.Operation) bool) *providers.Operation {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, op := range slices.Backward(s.ops) {
		if fits(op) {
			return op
		}
	}
	return &providers.Operation{}
}

func (s *api) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.ops)
}

func testCtx(t *testing.T) context.Context {
	ctx, stop := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(stop)
	return ctx
}

// testCalls: each request arrives as it was meant.
func (c Control) testCalls(t *testing.T) {
	a, s := c.serve(t)
	ctx := testCtx(t)
	for _, want := range []providers.Dial{
		{To: "+15550100123", From: "+15550100999", Answer: "https://bridge.example.com/a",
			Status: "https://bridge.example.com/s"},
		{To: "+15550100123", From: "+15550100999", Answer: "https://bridge.example.com/a",
			Status: "https://bridge.example.com/s",
			Ring:   20 * time.Second, Detect: true},
		{To: "+15550100123", From: "+15550100999", Answer: "https://bridge.example.com/a",
			Status: "https://bridge.example.com/s", Digits: "1w2#"},
	} {
		want.Detect = want.Detect && c.Spec.Abilities.Detects
		leg, err := a.Dial(ctx, &want)
		if err != nil || leg.ID != cmp.Or(s.last().Leg, "CA1") || s.last().Kind != providers.OpDial ||
			*s.last().Dial != want {
			t.Errorf("%+v, %v\nbecame %+v\nwant %+v", leg, err, s.last().Dial, want)
		}
	}
	if err := a.Hangup(ctx, "CA1"); err != nil || s.last().Kind != providers.OpHangup || s.last().Call != "CA1" {
		t.Errorf("%v, %+v", err, s.last())
	}
	evs, err := a.Get(ctx, "CA1")
	if err != nil || s.last().Kind != providers.OpGet || len(evs) == 0 || evs[0].Status != providers.StatusInProgress ||
		evs[0].Leg != "CA1" {
		t.Errorf("%+v, %v, %+v", evs, err, s.last())
	}
	for _, answer := range answers {
		before := s.done()
		if err := a.Do(ctx, "CA1", &answer); err != nil || s.done() == before ||
			!c.same(s.whole(t, s.done().Answer), &answer) {
			t.Errorf("%v, %+v\nwant %+v", err, s.done().Answer, answer)
		}
	}
	if err := a.Do(ctx, "CA1", &providers.Answer{}); err != nil || s.last().Kind != providers.OpHangup {
		t.Errorf("nothing to do: %v, %+v", err, s.last())
	}
	if a.SendsDigits() != c.Spec.Abilities.PressesDigits {
		t.Errorf("sends digits: %v, but the abilities say %v", a.SendsDigits(), c.Spec.Abilities.PressesDigits)
	}
	n := s.count()
	switch err := a.SendDigits(ctx, "CA1", "1w#"); {
	case a.SendsDigits() && (err != nil || s.last().Kind != providers.OpDigits || s.last().Digits != "1w#"):
		t.Errorf("%v, %+v", err, s.last())
	case !a.SendsDigits() && (!errors.Is(err, errors.ErrUnsupported) || s.count() != n):
		t.Errorf("digits that the carrier cannot send: %v", err)
	}
	for _, digits := range []string{strings.Repeat("1", 64), strings.Repeat("W", 64), "0123456789*#wW", "AD"} {
		if err := a.SendDigits(ctx, "CA1", digits); err != nil && !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s: %v", digits, err)
		}
	}
}

// testNumbers: all numbers of the account are listed, page after page.
func (c Control) testNumbers(t *testing.T) {
	a, s := c.serve(t)
	var want []providers.Number
	for i := range 230 {
		n := providers.Number{Number: fmt.Sprintf("+1555%07d", i), Can: providers.Can(true, i%2 == 0, false, false)}
		if i%3 > 0 {
			n.Webhook = anyNext
		}
		want = append(want, n)
	}
	s.answer = func(_ int, op *providers.Operation) error {
		op.Numbers = want
		return nil
	}
	got, err := a.Numbers(testCtx(t))
	if errors.Is(err, errors.ErrUnsupported) {
		return
	}
	if err != nil || len(got) != len(want) {
		t.Fatalf("%d numbers, %v", len(got), err)
	}
	for i := range got {
		if got[i].Number != want[i].Number || !slices.Contains(got[i].Can, "voice") ||
			(got[i].Webhook != "") != (want[i].Webhook != "") {
			t.Errorf("%+v, want %+v", got[i], want[i])
		}
	}
	s.answer = func(n int, op *providers.Operation) error {
		if n%2 == 0 {
			return &providers.CallError{Kind: providers.ErrCredentials, Status: 401, Code: "20003"}
		}
		op.Numbers = want
		return nil
	}
	if list, err := a.Numbers(testCtx(t)); err == nil {
		t.Errorf("half a list: %d", len(list))
	}
}

// testCallErrors: what a carrier refuses becomes a typed error that tells no
// secret, and a call that has ended is no error for a hang-up.
func (c Control) testCallErrors(t *testing.T) {
	a, s := c.serve(t)
	ctx := testCtx(t)
	for name, tt := range map[string]struct {
		reply error
		want  providers.CallErrorKind
		tries int
	}{
		"credentials": {&providers.CallError{Kind: providers.ErrCredentials, Status: 401, Code: "20003"},
			providers.ErrCredentials, 1},
		"forbidden": {&providers.CallError{Kind: providers.ErrCredentials, Status: 403, Code: "20003"},
			providers.ErrCredentials, 1},
		"no call": {&providers.CallError{Kind: providers.ErrNoCall, Status: 404}, providers.ErrNoCall, 1},
		"rejected": {&providers.CallError{Kind: providers.ErrRejected, Status: 400, Code: "21211",
			Detail: "The 'To' number is not valid"}, providers.ErrRejected, 1},
		"rate": {&providers.CallError{Kind: providers.ErrRate, Status: 429, Code: "20429"}, providers.ErrRate, 4},
		"rate, long": {&providers.CallError{Kind: providers.ErrRate, Status: 429, Code: "20429", Retry: time.Hour},
			providers.ErrRate, 1},
		"500":       {garbage{500, `{"oops`}, providers.ErrUnavailable, 1},
		"503 empty": {garbage{503, ""}, providers.ErrUnavailable, 1},
		"garbage":   {garbage{200, "<html>hello"}, providers.ErrUnavailable, 1},
		"no id":     {garbage{201, "{}"}, providers.ErrUnavailable, 1},
		"redirect":  {garbage{302, ""}, providers.ErrUnavailable, 1},
	} {
		before := s.count()
		s.mu.Lock()
		s.answer = func(int, *providers.Operation) error { return tt.reply }
		s.mu.Unlock()
		_, err := a.Dial(ctx, &providers.Dial{To: "+15550100123", From: "+15550100999", Answer: "https://b.example/a",
			Status: "https://b.example/s"})
		var e *providers.CallError
		if !errors.As(err, &e) || e.Kind != tt.want || strings.Contains(err.Error(), c.Secret) {
			t.Errorf("%s: %v, want %s", name, err, tt.want)
		}
		if n := s.count() - before; n != tt.tries {
			t.Errorf("%s: %d tries, want %d", name, n, tt.tries)
		}
	}
	s.mu.Lock()
	s.answer = func(int, *providers.Operation) error {
		return &providers.CallError{Kind: providers.ErrNoCall, Status: 404}
	}
	s.mu.Unlock()
	if err := a.Hangup(ctx, "CA1"); err != nil {
		t.Errorf("hang-up of a call that has ended: %v", err)
	}
	if err := a.Do(ctx, "CA1", &providers.Answer{Say: "x"}); !providers.IsNoCall(err) {
		t.Errorf("redirect of a call that has ended: %v", err)
	}
}

// testRetries: what may be repeated is; a carrier that is not there is
// unavailable, and what was never sent may be sent again.
func (c Control) testRetries(t *testing.T) {
	a, s := c.serve(t)
	ctx := testCtx(t)
	s.answer = func(n int, _ *providers.Operation) error {
		if n < 3 {
			return garbage{500, "oops"}
		}
		return nil
	}
	if err := a.Hangup(ctx, "CA1"); err != nil || s.count() != 3 {
		t.Errorf("%v after %d tries", err, s.count())
	}
	gone := httptest.NewServer(nil)
	gone.Close()
	b, _ := c.pair(t, gone.URL)
	_, err := b.Get(ctx, "CA1")
	var e *providers.CallError
	if !errors.As(err, &e) || e.Kind != providers.ErrUnavailable || e.Status != 0 {
		t.Errorf("nobody there: %v", err)
	}
	canceled, stop := context.WithCancel(ctx)
	stop()
	if err := a.Hangup(canceled, "CA1"); err == nil {
		t.Error("a request was made for nobody")
	}
	// A carrier that takes the request and says nothing is not waited for longer
	// than the caller wants.
	hush := make(chan struct{})
	s.mu.Lock()
	s.answer = func(int, *providers.Operation) error { <-hush; return nil }
	s.mu.Unlock()
	short, cut := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cut()
	_, err = a.Get(short, "CA1")
	close(hush)
	if !errors.As(err, &e) || e.Kind != providers.ErrUnavailable || e.Status != 0 {
		t.Errorf("a silent carrier: %v", err)
	}
	// A reply without end is not read to the end.
	big := garbage{200, `{"sid":"` + string(bytes.Repeat([]byte("x"), 2<<20))}
	s.mu.Lock()
	s.answer = func(int, *providers.Operation) error { return big }
	s.mu.Unlock()
	if _, err := a.Dial(ctx, &providers.Dial{To: "+15550100123", From: "+15550100999", Answer: "https://b.example/a",
		Status: "https://b.example/s"}); err == nil {
		t.Error("an endless reply was taken")
	}
}
