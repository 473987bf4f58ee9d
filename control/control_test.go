package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"voicebridge/agent"
	"voicebridge/calls"
	"voicebridge/control/directory"
	"voicebridge/control/sweep"
	"voicebridge/control/urls"
	"voicebridge/providers"
	"voicebridge/providers/twilio"
	"voicebridge/ticket"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// recorder is a carrier that keeps what it is told.
type recorder struct {
	mu    sync.Mutex
	n     int
	live  map[string]bool
	done  []string // "leg: what"
	state map[string]error
	fail  error
}

func (r *recorder) note(leg, format string, args ...any) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done = append(r.done, leg+": "+fmt.Sprintf(format, args...))
	return r.fail
}

// Dial implements providers.Commands.
func (r *recorder) Dial(context.Context, *providers.Dial) (providers.Leg, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.n++
	leg := providers.Leg{ID: fmt.Sprint("CA", r.n), Aliases: []string{fmt.Sprint("request-", r.n)}}
	if r.live != nil {
		r.live[leg.ID] = true
	}
	return leg, r.fail
}

// Do implements providers.Commands.
func (r *recorder) Do(_ context.Context, leg string, a *providers.Answer) error {
	what := "say " + a.Say
	if a.Media != "" {
		what = "stream"
	}
	return r.note(leg, "%s, unanswered %v", what, a.Unanswered)
}

// Hangup implements providers.Commands.
func (r *recorder) Hangup(_ context.Context, leg string) error {
	_ = r.note(leg, "hang up")
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.live, leg)
	return nil
}

// Get implements providers.Commands.
func (r *recorder) Get(_ context.Context, leg string) ([]providers.CallEvent, error) {
	_ = r.note(leg, "get")
	return []providers.CallEvent{{Kind: providers.CallProgress, Leg: leg, Status: providers.StatusBusy}}, r.state[leg]
}

func (r *recorder) told() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string{}, r.done...)
}

// someone is an agent that is never dialled.
type someone struct{ agent.Dialer }

func newController(r *recorder, change func(*Config)) *Controller {
	account := providers.NewAccount("AC1", twilio.Spec.Abilities, nil, r)
	cfg := Config{
		Providers: []*providers.Spec{twilio.Spec}, MaxCalls: 100, PublicURL: "https://bridge.example.com", Secret: "s",
		Log: slog.New(slog.DiscardHandler),
		Entries: directory.Entries{
			Accounts: map[string]Account{"main": {Spec: twilio.Spec, Account: account, From: "+15550100999"}},
			Agents:   map[string]Agent{"": {Dialer: someone{}, Fallback: Fallback{Say: "sorry"}}},
		},
	}
	if change != nil {
		change(&cfg)
	}
	return New(cfg)
}

func asked(id string, aliases ...string) *providers.CallEvent {
	return &providers.CallEvent{Kind: providers.CallAsked, Leg: id, Aliases: aliases, From: "+15550100123",
		To: "+15550100999", Ref: "inbound"}
}

// TestAnswerWhereItIsWanted: an event that wants its answer in the reply gets it there,
// any other by a command.
func TestAnswerWhereItIsWanted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := new(recorder)
		c := newController(r, nil)
		ev := asked("CA1")
		ev.Wants = true
		out, err := c.Handle(t.Context(), "main", ev)
		if err != nil || out.Answer == nil || out.Answer.Media == "" || len(r.told()) != 0 {
			t.Errorf("wanted in the reply: %+v, %v, told %v", out, err, r.told())
		}
		if _, err := c.Handle(t.Context(), "main", asked("CA2")); err != nil {
			t.Error(err)
		}
		if got := r.told(); len(got) != 1 || got[0] != "CA2: stream, unanswered true" {
			t.Errorf("told %v", got)
		}
		c.Refuse() // no more calls
		if out, err := c.Handle(t.Context(), "main", asked("CA3")); err != nil || out.Result != ResultRefused {
			t.Errorf("%+v, %v", out, err)
		}
		if got := r.told(); len(got) != 2 || got[1] != "CA3: say All lines are busy. Please call again later., "+
			"unanswered true" {
			t.Errorf("told %v", got)
		}
		if _, err := c.Handle(t.Context(), "nobody", asked("CA4")); !errors.Is(err, ErrNoAccount) {
			t.Errorf("an account that is none: %v", err)
		}
		c.End()
	})
}

// TestEventAgain: an event that has been carried out does nothing when it comes again,
// one that could not be is carried out then.
func TestEventAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{fail: &providers.CallError{Kind: providers.ErrRejected}}
		c := newController(r, nil)
		ev := asked("CA1")
		ev.ID = "event-1"
		if _, err := c.Handle(t.Context(), "main", ev); err == nil {
			t.Fatal("the carrier's refusal is lost")
		}
		r.fail = nil
		for range 3 {
			if _, err := c.Handle(t.Context(), "main", ev); err != nil {
				t.Error(err)
			}
		}
		if got := r.told(); len(got) != 2 {
			t.Errorf("told %v, want one try that failed and one that did not", got)
		}
		r.fail = &providers.CallError{Kind: providers.ErrNoCall}
		if _, err := c.Handle(t.Context(), "main", asked("CA1")); err != nil {
			t.Errorf("a call that has gone is no failure: %v", err)
		}
		c.End()
	})
}

// TestIDsThatChange: a call is known by all of its ids, and commands take the one that
// the carrier has told last.
func TestIDsThatChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := new(recorder)
		c := newController(r, nil)
		call, err := c.Dial(t.Context(), &Dial{Account: "main", To: "+15550100123", From: "+15550100999"})
		if err != nil || call.CarrierID != "CA1" {
			t.Fatalf("%+v, %v", call, err)
		}
		for _, ev := range []*providers.CallEvent{
			{Kind: providers.CallProgress, Leg: "request-1", Status: providers.StatusRinging},
			{Kind: providers.CallProgress, Leg: "new", Aliases: []string{"CA1", "session-1"},
				Status: providers.StatusInProgress},
		} {
			if out, err := c.Handle(t.Context(), "main", ev); err != nil || out.Result != ResultOK {
				t.Errorf("%+v: %+v, %v", ev, out, err)
			}
		}
		got, _ := c.Calls().Get(call.ID)
		if got.Status != providers.StatusInProgress || got.CarrierID != "new" {
			t.Errorf("%+v", got)
		}
		if err := c.Hangup(t.Context(), call.ID, false); err != nil {
			t.Error(err)
		}
		if done := r.told(); len(done) != 1 || done[0] != "new: hang up" {
			t.Errorf("told %v", done)
		}
		if out, err := c.Handle(t.Context(), "main",
			&providers.CallEvent{Kind: providers.CallProgress, Leg: "other",
				Status: providers.StatusBusy}); err != nil || out.Result != ResultUnknown {
			t.Errorf("%+v, %v", out, err)
		}
		c.End()
	})
}

// TestNext: what a call does once its stream is over, where the carrier takes commands:
// its fallback, on the leg of the ticket; what follows a number is the end.
func TestNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := new(recorder)
		c := newController(r, nil)
		call := c.Calls().Add(calls.Call{Account: "main", Provider: "twilio", CarrierID: "CA1",
			Direction: calls.Inbound, To: "+15550100999"})
		token := c.Office.Make(ticketOf(ticket.Next, &call), time.Now())
		c.Calls().StreamEnded(call.ID, string(calls.AgentLost), false)
		over := &providers.CallEvent{Kind: providers.CallStepDone, Leg: "the-stream's-own", Ref: "next/" + token}
		if _, err := c.Handle(t.Context(), "main", over); err != nil {
			t.Fatal(err)
		}
		over.Status = providers.StatusCompleted // of the number
		if _, err := c.Handle(t.Context(), "main", over); err != nil {
			t.Fatal(err)
		}
		if got := r.told(); len(got) != 2 || got[0] != "CA1: say sorry, unanswered false" || got[1] != "CA1: hang up" {
			t.Errorf("told %v", got)
		}
		for _, ref := range []string{"next/" + token + "x", "next/", "answer/" + token, "transfer/tr_1/n/answer"} {
			ev := &providers.CallEvent{Kind: providers.CallStepDone, Leg: "CA1", Ref: ref}
			if ref[:4] == "answ" {
				ev.Kind = providers.CallAsked
			}
			if _, err := c.Handle(t.Context(), "main", ev); !errors.Is(err, ErrToken) &&
				!errors.Is(err, ErrNoTransfer) {
				t.Errorf("%s: %v", ref, err)
			}
		}
		c.End()
	})
}

// TestPurposes: what a URL was given for can be told from it.
func TestPurposes(t *testing.T) {
	for ref, want := range map[string]providers.Purpose{
		"inbound": providers.ForAnswer, "answer/T": providers.ForAnswer, "status": providers.ForStatus,
		"status/cs_1": providers.ForStatus,
		"next/T":      providers.ForNext, "transfer/tr_1/n/answer": providers.ForAnswer,
		"transfer/tr_1/n/status": providers.ForStatus,
		"transfer/tr_1/n/digit":  providers.ForKey, "transfer/tr_1/n/briefed": providers.ForNext,
		"transfer/tr_1/n/room":  providers.ForRoom,
		"transfer/tr_1/n/party": providers.ForNext,
	} {
		if got := urls.PurposeOf(ref); got != want {
			t.Errorf("%s: %d, want %d", ref, got, want)
		}
	}
}

// TestReconcile: the carrier is asked about calls that it reports nothing of.
func TestReconcile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{state: map[string]error{"CA2": &providers.CallError{Kind: providers.ErrNoCall},
			"CA3": &providers.CallError{Kind: providers.ErrRejected}}}
		c := newController(r, nil)
		want := map[string]providers.Status{}
		for id, status := range map[string]providers.Status{"CA1": providers.StatusBusy,
			"CA2": providers.StatusCompleted, "CA3": providers.StatusInitiated} {
			want[c.book.Add(calls.Call{Account: "main", CarrierID: id}).ID] = status
		}
		ctx, stop := context.WithCancel(t.Context())
		var group sync.WaitGroup
		group.Go(func() { c.Run(ctx) })
		time.Sleep(sweep.Quiet - sweep.Every)
		if got := r.told(); len(got) != 0 {
			t.Errorf("asked too early: %v", got)
		}
		time.Sleep(3 * sweep.Every)
		synctest.Wait()
		for id, status := range want {
			if got, _ := c.book.Get(id); got.Status != status {
				t.Errorf("%+v, want %s", got, status)
			}
		}
		stop()
		group.Wait()
		c.End()
	})
}

// TestHangupBesideDial: whenever a call is hung up while it is placed, it ends at the
// carrier.
func TestHangupBesideDial(t *testing.T) {
	r := &recorder{live: map[string]bool{}}
	c := newController(r, nil)
	for range 500 {
		feed, _ := c.book.Listen("")
		done := make(chan struct{})
		go func() {
			defer close(done)
			if _, err := c.Dial(context.Background(), &Dial{Account: "main"}); err != nil {
				t.Error(err)
			}
		}()
		if err := c.Hangup(context.Background(), (<-feed.Events()).Call.ID, false); err != nil {
			t.Error(err)
		}
		feed.Close()
		<-done
	}
	c.End()
	if n := len(r.live); n > 0 {
		t.Errorf("%d calls live on", n)
	}
}

// TestOrphan: the end of a call that no instance knows is told of once it is stored; else the
// carrier is to report it again. Other reports of such calls say nothing.
func TestOrphan(t *testing.T) {
	c := newController(new(recorder), nil)
	var told []string
	var fails error
	c.OnOrphan(func(_ context.Context, account, id string, legs []string, s providers.Status) error {
		told = append(told, fmt.Sprint(account, id, legs, s))
		return fails
	})
	report := func(s providers.Status) error {
		_, err := c.Handle(t.Context(), "main",
			&providers.CallEvent{Kind: providers.CallProgress, Leg: "CA1", Status: s,
				Ref: "status/cs_1"})
		return err
	}
	if err := report(providers.StatusInProgress); err != nil || len(told) != 0 {
		t.Errorf("%v, %v", told, err)
	}
	fails = errors.New("the store is away")
	if err := report(providers.StatusCompleted); !errors.Is(err, fails) {
		t.Errorf("%v", err)
	}
	fails = nil
	if err := report(providers.StatusCompleted); err != nil ||
		fmt.Sprint(told) != "[maincs_1[CA1]completed maincs_1[CA1]completed]" {
		t.Errorf("%v, %v", told, err)
	}
}

// TestOwnNumber: a call whose party has no number shows the account's, for carriers want one.
func TestOwnNumber(t *testing.T) {
	c := newController(new(recorder), nil)
	for to, want := range map[string]string{"+15550100777": "+15550100777", "client:bridge": "+15550100999",
		"sip:x@b.example": "+15550100999", "": "+15550100999"} {
		call := &calls.Call{Account: "main", Direction: calls.Inbound, From: "client:alice", To: to}
		if got := c.OwnNumber(call); got != want {
			t.Errorf("%q: %s, want %s", to, got, want)
		}
		if a := c.Elsewhere(call, &Fallback{Dial: "+15550100123"}); a.Caller != want {
			t.Errorf("%q: a call to a number shows %s", to, a.Caller)
		}
	}
}

// TestWords: what the bridge itself says is as configured, in the language that is.
func TestWords(t *testing.T) {
	c := newController(new(recorder), func(cfg *Config) {
		cfg.Words = directory.Words{Language: "de-DE", Busy: "Alle Leitungen sind belegt."}
		cfg.Agents = map[string]Agent{"": {Dialer: someone{}, Fallback: Fallback{Say: "Un moment", Language: "fr-FR"}}}
	})
	c.Refuse()
	ev := asked("CA1")
	ev.Wants = true
	out, err := c.Handle(t.Context(), "main", ev)
	if err != nil || out.Answer.Say != "Alle Leitungen sind belegt." || out.Answer.Language != "de-DE" {
		t.Errorf("%+v, %v", out.Answer, err)
	}
	if w := c.Words(); w.NotInService != directory.DefaultWords.NotInService {
		t.Errorf("what is not configured: %q", w.NotInService)
	}
	a := c.fallback(&calls.Call{Account: "main", Cause: string(calls.AgentLost)})
	if a.Say != "Un moment" || a.Language != "fr-FR" {
		t.Errorf("%+v", a)
	}
}
