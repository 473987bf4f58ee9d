package transfer

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain stops the redis-server, too.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func request() Request {
	return Request{Call: "cs_1", Account: "main", Provider: "twilio", Caller: "CA1", To: "+15550100123",
		From: "+15550100999",
		Mode: Conference, Ring: 20 * time.Second, OnEnd: Hangup, By: ReasonAPI}
}

func record() *Record {
	r := &Record{ID: "tr_1", Request: request(), Room: "vb-1", Nonce: "n", Owner: "a"}
	r.Begin(1000)
	return r
}

// kinds are all events.
var kinds = []Kind{Begin, Divert, Rang, Picked, Brief, Accept, Decline, Machine, Bridge, Joined, LegDown, Refused,
	CallerLeft, Cancel, Timeout, Cleared,
	Placed, Human, Unsure, Moved, CallerIn, LegIn, Settled, dialing}

// TestMoves: the table knows each state and event, every state but the final ones
// can be left by the caller's hang-up, and nothing leaves a final one.
func TestMoves(t *testing.T) {
	for from, row := range moves {
		if !slices.Contains(States, from) || from.Final() {
			t.Errorf("a row for %s", from)
		}
		for kind, to := range row {
			if !slices.Contains(kinds, kind) || to != "" && (!slices.Contains(States, to) || to.Final()) {
				t.Errorf("%s by %s to %s: a final state is reached by Cleared only", from, kind, to)
			}
		}
		if from != Compensating && row[CallerLeft] != Compensating {
			t.Errorf("the caller's hang-up does not end %s", from)
		}
		if times[from] == 0 && from != Bridged && from != Dialing && from != Ringing {
			t.Errorf("%s may last for ever", from)
		}
	}
	for _, s := range States {
		if s.Final() == (moves[s] != nil) {
			t.Errorf("%s: final %v, moves %v", s, s.Final(), moves[s])
		}
		if !s.Final() {
			continue
		}
		for _, k := range kinds {
			r := record()
			r.State = s
			if _, moved := r.Apply(Event{Kind: k, Leg: "x", Reason: "x", Place: InRoom}, 1e12); moved {
				t.Errorf("%s left %s", k, s)
			}
		}
	}
}

// TestMovesDrawn: docs/transfers.md draws the moves that there are.
func TestMovesDrawn(t *testing.T) {
	doc, err := os.ReadFile("../docs/transfers.md")
	if err != nil {
		t.Fatal(err)
	}
	drawn := map[[2]State]bool{}
	for _, m := range regexp.MustCompile(`(?m)^    (\w+) --> (\w+)`).FindAllSubmatch(doc, -1) {
		drawn[[2]State{State(m[1]), State(m[2])}] = true
	}
	want := map[[2]State]bool{{Bridged, Compensating}: true} // as all others, but a part of the way of most
	for from, row := range moves {
		for _, to := range row {
			if to != Compensating && to != "" {
				want[[2]State{from, to}] = true
			}
		}
	}
	for _, s := range States {
		if s.Final() {
			want[[2]State{Compensating, s}] = true
		}
	}
	if !maps.Equal(drawn, want) {
		t.Errorf("drawn are %v\nwant %v", drawn, want)
	}
}

// TestTimeoutOnce: a time-out counts only once its time has come, and a duplicate
// of any event changes nothing.
func TestTimeoutOnce(t *testing.T) {
	r := record()
	if _, moved := r.Apply(Event{Kind: Timeout}, r.Due-1); moved {
		t.Error("timed out too early")
	}
	late, moved := r.Apply(Event{Kind: Timeout}, r.Due)
	if !moved || late.State != Compensating || late.Want != TimedOut {
		t.Errorf("%+v", late)
	}
	for _, ev := range []Event{{Kind: Begin}, {Kind: Placed, Leg: "L"}, {Kind: Rang}, {Kind: Picked}, {Kind: Bridge},
		{Kind: Moved, Place: InRoom}, {Kind: Joined},
		{Kind: LegDown}, {Kind: Settled}, {Kind: Cleared}} {
		next, moved := r.Apply(ev, 2000)
		if !moved {
			t.Fatalf("%s does not move %s", ev.Kind, r.State)
		}
		if again, moved := next.Apply(ev, 2000); moved {
			t.Errorf("%s twice: %s, then %s", ev.Kind, next.State, again.State)
		}
		r = next
	}
	if r.State != Ended || r.Reason != ReasonDestination {
		t.Errorf("%+v", r)
	}
}

// TestGoneLeg: a leg that the carrier does not know any more has left if it had answered; otherwise it did not answer.
func TestGoneLeg(t *testing.T) {
	gone := Event{Kind: LegDown, Reason: ReasonDestination}
	r := record()
	for _, step := range []struct {
		ev   Event
		want string
	}{{Event{Kind: Begin}, ReasonNoAnswer}, {Event{Kind: Rang}, ReasonNoAnswer}, {Event{Kind: Picked}, ReasonDestination}} {
		r, _ = r.Apply(step.ev, 1000)
		if end, moved := r.Apply(gone, 2000); !moved || end.Want != Failed || end.Reason != step.want {
			t.Errorf("gone while %s: %+v, want failed, %s", r.State, end, step.want)
		}
	}
}

// TestDisposition: what becomes of the caller.
func TestDisposition(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*Record)
		want   string
	}{
		"failed, with the agent": {func(r *Record) { r.Want, r.Reason = Failed, ReasonBusy }, ""},
		"failed, away":           {func(r *Record) { r.Want, r.Reason, r.At = Failed, ReasonBusy, InRoom }, Resume},
		"failed, hang up": {func(r *Record) { r.Want, r.OnFail = Failed, map[string]string{"": Hangup} },
			Hangup},
		"busy, number": {func(r *Record) {
			r.Want, r.Reason, r.OnFail = Failed, ReasonBusy, map[string]string{"": Hangup, ReasonBusy: "+15550100777"}
		}, "+15550100777"},
		"timed out": {func(r *Record) {
			r.Want, r.Reason, r.OnFail = TimedOut, ReasonTimeout, map[string]string{ReasonTimeout: Hangup}
		}, Hangup},
		"canceled, away": {func(r *Record) {
			r.Want, r.At, r.OnFail = Canceled, InRoom,
				map[string]string{"": Hangup}
		}, Resume},
		"ended":       {func(r *Record) { r.Want, r.At = Ended, InRoom }, Hangup},
		"ended, back": {func(r *Record) { r.Want, r.At, r.OnEnd = Ended, InRoom, Resume }, Resume},
		"gone":        {func(r *Record) { r.Want, r.At, r.CallerGone = Ended, InRoom, true }, ""},
		"gone, whatever should have been": {func(r *Record) {
			r.Want, r.CallerGone, r.OnFail = Failed, true,
				map[string]string{"": "+15550100777"}
		}, ""},
	} {
		r := record()
		tt.change(r)
		if got := r.Disposition(); got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}
