package transfers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"voicebridge/agent"
	"voicebridge/calls"
	"voicebridge/control"
	"voicebridge/control/directory"
	"voicebridge/providers"
	"voicebridge/providers/twilio"
	"voicebridge/transfer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is a carrier that keeps what it is told, and is as it is told.
type fake struct {
	mu    sync.Mutex
	told  []string
	state map[string][]providers.CallEvent
	fail  error
}

func (f *fake) note(format string, args ...any) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.told = append(f.told, fmt.Sprintf(format, args...))
	return f.fail
}

// Dial implements providers.Commands.
func (f *fake) Dial(_ context.Context, d *providers.Dial) (providers.Leg, error) {
	return providers.Leg{ID: "request-1"}, f.note("dial %s", d.To)
}

// Do implements providers.Commands.
func (f *fake) Do(_ context.Context, leg string, a *providers.Answer) error {
	switch {
	case a.Room != nil:
		return f.note("%s: room", leg)
	case a.Dial != "":
		return f.note("%s: connect %s", leg, a.Dial)
	}
	return f.note("%s: stream", leg)
}

// Hangup implements providers.Commands.
func (f *fake) Hangup(_ context.Context, leg string) error { return f.note("%s: hang up", leg) }

// Get implements providers.Commands.
func (f *fake) Get(_ context.Context, leg string) ([]providers.CallEvent, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state[leg], nil
}

func (f *fake) all() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.told, ", ")
}

const (
	caller = "+15550100123"
	own    = "+15550100999"
	human  = "+15550100777"
)

// newTransfers makes the transfers of a bridge with one call, which has no stream.
func newTransfers(t *testing.T, f *fake) (*Transfers, *control.Controller, calls.Call) {
	t.Helper()
	account := providers.NewAccount("AC1", twilio.Spec.Abilities, nil, f)
	log := slog.New(slog.DiscardHandler)
	c := control.New(control.Config{
		Providers: []*providers.Spec{twilio.Spec}, MaxCalls: 10, PublicURL: "https://bridge.example.com", Secret: "s",
		Log: log,
		Entries: directory.Entries{
			Accounts: map[string]control.Account{"main": {Spec: twilio.Spec, Account: account}},
			Agents:   map[string]control.Agent{"brief": {Dialer: someone{}}},
		},
	})
	times := transfer.Defaults
	times.Instance = "a"
	tr := New(c, Config{
		Store: transfer.NewMemory(time.Now, time.Minute), Manager: times, Ring: DefaultRing, Hold: HoldAgent,
		Allow:        []string{"+1555010*", "+49301234567"},
		Destinations: map[string]Destination{"desk": {To: "+15559990000", Digits: "12"}},
	}, log)
	call := c.Calls().Add(calls.Call{Account: "main", Provider: "twilio", CarrierID: "CA1", Direction: calls.Inbound,
		From: caller, To: own})
	c.Calls().Answered(call.ID)
	call, _ = c.Calls().Get(call.ID)
	return tr, c, call
}

// someone is an agent that is never dialled.
type someone struct{ agent.Dialer }

// TestCheck: each wish is completed with what is usual, or refused with a word about the
// field.
func TestCheck(t *testing.T) {
	tr, _, call := newTransfers(t, new(fake))
	long := strings.Repeat("x", 1001)
	for want, cases := range map[string][]calls.TransferRequest{
		"": {{To: human}, {To: "name:desk"}, {To: "+49301234567"},
			{To: human, Mode: "attended", Accept: "stay"}, {To: human, Agent: "stay"}},
		"to: ":     {{}, {To: "555"}, {To: "name:nobody"}, {To: "+16660000"}, {To: "+493012345678"}},
		"mode: ":   {{To: human, Mode: "warm"}},
		"agent: ":  {{To: human, Agent: "sings"}, {To: human, Agent: "stay", Mode: "blind"}},
		"from: ":   {{To: human, From: "x"}, {To: human, From: "+12125550000"}},
		"timeout_": {{To: human, Timeout: 4}, {To: human, Timeout: 121}},
		"whisper": {{To: human, Mode: "attended", Whisper: long}, {To: human, Whisper: "x"},
			{To: human, Accept: "digit"}},
		"brief: ":  {{To: human, Mode: "attended", Brief: "nobody"}},
		"context:": {{To: human, Mode: "attended", Brief: "brief", Context: map[string]string{"k": long}}},
		"accept: ": {{To: human, Mode: "attended", Accept: "sometimes"}},
		"digits": {{To: human, Digits: "x"}, {To: human, Digits: "1", Detect: true},
			{To: human, Mode: "blind", Digits: "1"}},
		"hold: ":   {{To: human, Hold: "silence"}},
		"on_end: ": {{To: human, OnEnd: "cry"}, {To: human, Mode: "blind", OnEnd: "resume"}},
		"on_fail:": {{To: human, OnFail: map[string]string{"never": "resume"}},
			{To: human, OnFail: map[string]string{"": "+16660000"}}},
	} {
		for _, wish := range cases {
			req, no := tr.check(&call, &wish)
			switch {
			case want == "" && no != nil:
				t.Errorf("%+v: %v", wish, no)
			case want == "" && (req.From != own || req.Ring != DefaultRing || req.OnEnd == "" || req.Mode == ""):
				t.Errorf("%+v is completed to %+v", wish, req)
			case want != "" && (no == nil || !strings.HasPrefix(no.Words, want)):
				t.Errorf("%+v: %v, want a word about %s", wish, no, want)
			}
		}
	}
	if req, no := tr.check(&call, &calls.TransferRequest{To: "name:desk"}); no != nil || req.To != "+15559990000" ||
		req.Digits != "12" || req.Name != "desk" {
		t.Errorf("%+v, %v", req, no)
	}
}

// TestAliases: a destination is known by each of its ids, and hung up by the last that
// the carrier has told.
func TestAliases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := new(fake)
		tr, c, call := newTransfers(t, f)
		ctx, stop := context.WithCancel(t.Context())
		var group sync.WaitGroup
		group.Go(func() { tr.Run(ctx) })
		info, err := tr.Start(ctx, call.ID, &calls.TransferRequest{To: human}, transfer.ReasonAPI, "")
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		r, err := tr.manager.Get(ctx, info.ID)
		if err != nil || r.Leg != "request-1" {
			t.Fatalf("%+v, %v", r, err)
		}
		ref := r.ID + "/" + r.Nonce + "/status"
		tell := func(ev providers.CallEvent) control.Outcome {
			t.Helper()
			out, err := tr.Handle(ctx, "main", ref, &ev)
			if err != nil {
				t.Error(err)
			}
			return out
		}
		if out := tell(providers.CallEvent{Kind: providers.CallProgress, Leg: "other",
			Status: providers.StatusBusy}); out.Result != control.ResultUnknown {
			t.Errorf("a leg that is none of the transfer's: %+v", out)
		}
		tell(providers.CallEvent{Kind: providers.CallProgress, Leg: "CA9", Aliases: []string{"request-1"},
			Status: providers.StatusRinging})
		if r, _ = tr.manager.Get(ctx, info.ID); r.Leg != "CA9" || r.State != transfer.Ringing {
			t.Errorf("%+v", r)
		}
		if _, err := tr.Handle(ctx, "main", r.ID+"/guess/status", &providers.CallEvent{}); !errors.Is(err,
			control.ErrNoTransfer) {
			t.Errorf("with another nonce: %v", err)
		}
		if _, err := tr.End(ctx, info.ID); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if got := f.all(); got != "dial "+human+", CA9: hang up" {
			t.Errorf("the carrier was told: %s", got)
		}
		time.Sleep(time.Minute)
		stop()
		group.Wait()
		c.End()
	})
}

// TestBusy: a call has one transfer at a time.
func TestBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr, c, call := newTransfers(t, new(fake))
		ctx, stop := context.WithCancel(t.Context())
		var group sync.WaitGroup
		group.Go(func() { tr.Run(ctx) })
		if _, err := tr.Start(ctx, call.ID, &calls.TransferRequest{To: human}, transfer.ReasonAPI, ""); err != nil {
			t.Fatal(err)
		}
		_, err := tr.Start(ctx, call.ID, &calls.TransferRequest{To: human}, transfer.ReasonAPI, "")
		var no *Refusal
		if !errors.As(err, &no) || no.Code != "busy" || !tr.Has(call.ID) {
			t.Errorf("a second one: %v, has %v", err, tr.Has(call.ID))
		}
		if _, err := tr.Get(ctx, "tr_none"); !errors.As(err, &no) || no.Status != 404 {
			t.Errorf("one that is none: %v", err)
		}
		if _, err := tr.Start(ctx, "cs_none", &calls.TransferRequest{To: human}, transfer.ReasonAPI,
			""); !errors.Is(err, control.ErrNoCall) {
			t.Errorf("a call that is none: %v", err)
		}
		stop()
		group.Wait()
		c.End()
	})
}

// TestDecided: whoever asks what comes next waits for a wish that is being looked at,
// and no longer.
func TestDecided(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr, c, call := newTransfers(t, new(fake))
		if tr.decided(t.Context(), call.ID) {
			t.Error("nothing is wanted")
		}
		done := tr.request(call.ID)
		began := time.Now()
		time.AfterFunc(300*time.Millisecond, done)
		if wanted := tr.decided(t.Context(), call.ID); !wanted || time.Since(began) != 300*time.Millisecond {
			t.Errorf("wanted %v after %v", wanted, time.Since(began))
		}
		ctx, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		defer tr.request(call.ID)()
		if !tr.decided(ctx, call.ID) || ctx.Err() == nil {
			t.Error("it did not wait to the end")
		}
		c.End()
	})
}

// TestChanges: what is told late of a transfer does not undo what came after it.
func TestChanges(t *testing.T) {
	tr, _, _ := newTransfers(t, new(fake))
	told := func(id string, version int64, final bool) bool {
		return tr.note(&change{Call: "cs_1", Version: version, Final: final, Info: calls.Transfer{ID: id}})
	}
	if !told("tr_1", 2, false) || !told("tr_1", 5, true) || told("tr_1", 3, false) || told("tr_1", 5, true) {
		t.Error("not just what is new")
	}
	if id, has, _ := tr.of("cs_1"); id != "" || has {
		t.Errorf("%q, %v after the end", id, has)
	}
	if !told("tr_2", 1, false) { // the next one begins anew
		t.Error("a second transfer")
	}
	if id, _, _ := tr.of("cs_1"); id != "tr_2" {
		t.Errorf("%q", id)
	}
	done := tr.request("cs_2")
	if !tr.Has("cs_2") {
		t.Error("a request is not known")
	}
	tr.Forget("cs_2")
	done()
	if tr.Has("cs_2") {
		t.Error("a request that was refused is known")
	}
	tr.Forget("cs_2")
	if len(tr.byCall) != 1 {
		t.Errorf("%d calls are remembered", len(tr.byCall))
	}
}

// TestMeaning: what an error of the carrier means for the state machine.
func TestMeaning(t *testing.T) {
	for _, tt := range []struct {
		err          error
		gone, unsure bool
		reason       string
	}{
		{&providers.CallError{Kind: providers.ErrNoCall}, true, false, ""},
		{&providers.CallError{Kind: providers.ErrRejected}, false, false, transfer.ReasonInvalid},
		{&providers.CallError{Kind: providers.ErrUnavailable}, false, true, transfer.ReasonCarrier},
		{&providers.CallError{Kind: providers.ErrRate}, false, false, transfer.ReasonCarrier},
		{control.ErrNoCommands, false, false, transfer.ReasonCarrier},
	} {
		got := meaning(tt.err)
		var dial *transfer.DialError
		switch {
		case errors.Is(got, transfer.ErrGone) != tt.gone:
			t.Errorf("%v: %v", tt.err, got)
		case !tt.gone && (!errors.As(got, &dial) || dial.Unsure != tt.unsure || dial.Reason != tt.reason):
			t.Errorf("%v: %+v", tt.err, got)
		}
	}
	if meaning(nil) != nil {
		t.Error("nothing has a meaning")
	}
}

// TestLegEvents: what word of a leg means: all that it tells, in the order in which it
// happened.
func TestLegEvents(t *testing.T) {
	f := &fake{state: map[string][]providers.CallEvent{
		"both": {{Kind: providers.CallProgress, Leg: "both", Status: providers.StatusInProgress},
			{Kind: providers.CallDetected, Leg: "both", AnsweredBy: "machine"}},
		"over": {{Kind: providers.CallDetected, Leg: "over", AnsweredBy: "human"},
			{Kind: providers.CallProgress, Leg: "over", Status: providers.StatusBusy}},
		"none": {},
		"one":  {{Leg: "one", AnsweredBy: "machine", Status: providers.StatusCompleted}}, // in one report
	}}
	tr, _, _ := newTransfers(t, f)
	for leg, want := range map[string][]transfer.Kind{"both": {transfer.Picked, transfer.Machine},
		"over": {transfer.Human, transfer.LegDown}, "none": nil, "one": {transfer.Machine, transfer.LegDown}} {
		got, err := carrier{tr}.Leg(t.Context(), &transfer.Record{Leg: leg, Request: transfer.Request{Account: "main"}})
		var kinds []transfer.Kind
		for _, ev := range got {
			kinds = append(kinds, ev.Kind)
		}
		if err != nil || !slices.Equal(kinds, want) {
			t.Errorf("%s: %v, %v, want %v", leg, kinds, err, want)
		}
	}
}

// shy is a carrier that shows only numbers of its own.
type shy struct {
	fake
	dials []providers.Dial
}

// Dial implements providers.Commands.
func (s *shy) Dial(_ context.Context, d *providers.Dial) (providers.Leg, error) {
	s.dials = append(s.dials, *d)
	if d.From != own {
		return providers.Leg{}, &providers.CallError{Op: "dial", Kind: providers.ErrRejected, Status: 400, Code: "21210"}
	}
	return providers.Leg{ID: "L"}, nil
}

// TestShownNumber: the caller's number is shown with what lets the carrier do that; one that
// does not all the same shows the bridge's.
func TestShownNumber(t *testing.T) {
	s := new(shy)
	tr, _, call := newTransfers(t, &s.fake)
	call.Forward = "token"
	req, no := tr.check(&call, &calls.TransferRequest{To: human, From: caller})
	if no != nil {
		t.Fatal(no)
	}
	account, _ := tr.control.Account("main")
	account.Account = providers.NewAccount("AC1", twilio.Spec.Abilities, nil, s)
	tr.control.Accounts()["main"] = account
	leg, err := carrier{tr}.Dial(t.Context(), &transfer.Record{ID: "tr_1", Request: *req})
	if leg != "L" || err != nil || len(s.dials) != 2 || s.dials[0].From != caller || s.dials[0].Forward != "token" ||
		s.dials[1].From != own || s.dials[1].Forward != "" {
		t.Errorf("%s, %v: %+v", leg, err, s.dials)
	}
}
