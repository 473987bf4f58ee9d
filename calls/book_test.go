package calls

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"voicebridge/providers"
)

// clock is a time that the test moves.
type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func newBook() (*Book, *clock) {
	c := &clock{time.Unix(1000, 0)}
	return New(c.now), c
}

func report(s providers.Status) *providers.CallEvent {
	return &providers.CallEvent{Kind: providers.CallProgress, Leg: "CA1", Status: s, Raw: string(s)}
}

var statuses = []providers.Status{providers.StatusInitiated, providers.StatusRinging, providers.StatusInProgress,
	providers.StatusCompleted,
	providers.StatusBusy, providers.StatusNoAnswer, providers.StatusFailed, providers.StatusCanceled,
	providers.StatusError, ""}

// TestNeverBack: whatever comes, in whatever order and however often, a status
// never goes back, an end is final, each event comes once and in order, and the
// record that events show is the one that is kept.
func TestNeverBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b, clock := newBook()
		feed, _ := b.Listen("")
		call := b.Add(Call{Account: "main", Provider: "x", CarrierID: "CA1", Direction: Inbound})
		order := func(s providers.Status) int {
			if s.Final() {
				return 4
			}
			return rank[s]
		}
		last := call
		for range rapid.IntRange(0, 30).Draw(t, "steps") {
			clock.t = clock.t.Add(time.Millisecond)
			switch rapid.IntRange(0, 6).Draw(t, "what") {
			case 0:
				b.Began(call.ID)
			case 1:
				b.StreamEnded(call.ID, "caller_hangup", rapid.Bool().Draw(t, "over"))
			case 2:
				b.Fail(call.ID, errors.New("x"))
			case 3:
				b.Canceled(call.ID, "api_hangup")
			default:
				r := report(rapid.SampledFrom(statuses).Draw(t, "status"))
				r.AnsweredBy = rapid.SampledFrom([]providers.AnsweredBy{"", "", "human", "machine"}).Draw(t, "by")
				before, _ := b.Get(call.ID)
				changed := b.Report(call.ID, r)
				if after, _ := b.Get(call.ID); !changed && forget(before) != forget(after) {
					t.Fatalf("%+v changed %+v into %+v, and did not say so", r, before, after)
				}
			}
			now, ok := b.Get(call.ID)
			if !ok || order(now.Status) < order(last.Status) || last.Status.Final() && now.Status != last.Status ||
				now.Status.Final() && (now.Streaming || now.EndedAt.IsZero()) || last.Answered != "" &&
				now.Answered != last.Answered {
				t.Fatalf("%+v became %+v", last, now)
			}
			last = now
		}
		feed.Close()
		var types []string
		var end Call
		for ev := range feed.Events() {
			types = append(types, ev.Type)
			end = ev.Call
		}
		once := slices.DeleteFunc(slices.Clone(types),
			func(s string) bool { return s == EventStreaming || s == EventStreamEnd || s == EventDetected })
		if !slices.IsSortedFunc(once, func(a,
			b string) int {
			return slices.Index(EventTypes, a) - slices.Index(EventTypes, b)
		}) ||
			len(slices.Compact(slices.Clone(once))) != len(once) || types[0] != EventCreated {
			t.Fatalf("%v", types)
		}
		if stream := slices.DeleteFunc(slices.Clone(types),
			func(s string) bool {
				return s != EventStreaming &&
					s != EventStreamEnd
			}); last.Status == providers.StatusCompleted &&
			len(stream) > 0 && stream[len(stream)-1] == EventStreaming {
			t.Fatalf("the call has ended before its stream: %v", types)
		}
		if last.Status.Final() && (types[len(types)-1] != EventEnded || end.Status != last.Status) {
			t.Fatalf("%v, %+v, %+v", types, end, last)
		}
		if live := b.Live(); live == 0 != last.Status.Final() {
			t.Fatalf("%d live calls with %+v", live, last)
		}
	})
}

// forget is a call but for when it was heard of.
func forget(c Call) string {
	c.heard = time.Time{}
	return fmt.Sprint(c)
}

// TestTwice: a carrier that asks twice about a call gets one record.
func TestTwice(t *testing.T) {
	b, _ := newBook()
	first := b.Add(Call{Account: "main", CarrierID: "CA1", From: "+1"})
	if again := b.Add(Call{Account: "main", CarrierID: "CA1", From: "+2"}); again.ID != first.ID || again.From != "+1" {
		t.Errorf("%+v, then %+v", first, again)
	}
	if other := b.Add(Call{Account: "other", CarrierID: "CA1"}); other.ID == first.ID {
		t.Error("two accounts share a call")
	}
	if again := b.Add(Call{ID: first.ID, Account: "x"}); again.Account != "main" {
		t.Errorf("%+v", again)
	}
	if c, ok := b.Find("main", "CA1"); !ok || c.ID != first.ID {
		t.Errorf("%+v, %v", c, ok)
	}
	if _, ok := b.Find("main", ""); ok {
		t.Error("a call without a carrier's id was found by it")
	}
	if c, ok := b.Get("cs_nobody"); ok {
		t.Errorf("%+v", c)
	}
	if b.Report("cs_nobody", report(providers.StatusCompleted)) {
		t.Error("a report on nobody changed something")
	}
}

// TestSweep: calls of which nothing is heard are given up, and ended ones
// forgotten after a while, carrier's id and all.
func TestSweep(t *testing.T) {
	b, clock := newBook()
	lost := b.Add(Call{CarrierID: "CA1"})
	live := b.Add(Call{CarrierID: "CA2"})
	b.Began(live.ID)
	quiet := b.Add(Call{CarrierID: "CA3"})
	b.Report(quiet.ID, &providers.CallEvent{Kind: providers.CallProgress, Leg: "CA3",
		Status: providers.StatusInProgress})
	clock.t = clock.t.Add(time.Hour)
	b.Sweep(15*time.Minute, 24*time.Hour)
	for id, want := range map[string]providers.Status{lost.ID: "failed", live.ID: "in-progress",
		quiet.ID: "in-progress"} {
		if c, _ := b.Get(id); c.Status != want || (c.Error != "") != (want == "failed") {
			t.Errorf("%+v, want %s", c, want)
		}
	}
	clock.t = clock.t.Add(24 * time.Hour)
	b.Sweep(15*time.Minute, 24*time.Hour)
	if _, ok := b.Get(lost.ID); ok {
		t.Error("the lost call is still known")
	}
	if _, ok := b.Find("", "CA1"); ok || len(b.byCarrier) != 2 {
		t.Errorf("%v", b.byCarrier)
	}
	if c, _ := b.Get(quiet.ID); c.Status != "failed" {
		t.Errorf("%+v", c)
	}
	if c, _ := b.Get(live.ID); c.Status != "in-progress" {
		t.Errorf("%+v", c)
	}
}

// TestQuiet: calls without a stream of which nothing is heard are asked for, each
// once in a while.
func TestQuiet(t *testing.T) {
	b, clock := newBook()
	alone := b.Add(Call{CarrierID: "CA1"})
	live := b.Add(Call{CarrierID: "CA2"})
	b.Began(live.ID)
	b.Add(Call{}) // the carrier has not taken it yet
	over := b.Add(Call{CarrierID: "CA4"})
	b.Report(over.ID, report(providers.StatusCompleted))
	for _, step := range []struct {
		after time.Duration
		want  int
	}{{time.Minute - 1, 0}, {1, 1}, {time.Minute - 1, 0}, {1, 1}} {
		clock.t = clock.t.Add(step.after)
		quiet := b.Quiet(time.Minute, 5)
		if again := b.Quiet(time.Minute, 5); len(quiet) != step.want || step.want == 1 && quiet[0].ID != alone.ID ||
			len(again) != step.want {
			t.Errorf("%+v, and again %+v", quiet, again)
		}
		for _, c := range quiet {
			b.LookedAfter(c.ID)
		}
	}
	b.StreamEnded(live.ID, "transferred", false)
	clock.t = clock.t.Add(time.Hour)
	if quiet := b.Quiet(time.Minute, 1); len(quiet) != 1 {
		t.Errorf("%+v", quiet)
	}
	if quiet := b.Quiet(time.Minute, 5); len(quiet) != 2 {
		t.Errorf("%+v", quiet)
	}
}

// TestForget: a call without a stream may be another's, and nothing is told of it then.
func TestForget(t *testing.T) {
	b, _ := newBook()
	quiet, live := b.Add(Call{CarrierID: "CA1"}), b.Add(Call{CarrierID: "CA2"})
	b.Began(live.ID)
	last := b.Last()
	if !b.Forget(quiet.ID) || b.Forget(quiet.ID) || b.Forget(live.ID) || b.Live() != 1 || b.Last() != last {
		t.Errorf("%d are live", b.Live())
	}
	if _, known := b.Get(quiet.ID); known {
		t.Error("it is known")
	}
}

// TestBounded: ended calls beyond the bound are forgotten, the oldest first.
func TestBounded(t *testing.T) {
	b, _ := newBook()
	first := ""
	for i := range keepCalls + 10 {
		c := b.Add(Call{CarrierID: fmt.Sprint(i)})
		if i == 0 {
			first = c.ID
		}
		b.Report(c.ID, report(providers.StatusBusy))
	}
	b.Sweep(time.Hour, time.Hour)
	if _, ok := b.Get(first); ok || len(b.calls) > keepCalls || len(b.byCarrier) != len(b.calls) ||
		len(b.events) > keepEvents {
		t.Errorf("%d calls, %d ids, %d events", len(b.calls), len(b.byCarrier), len(b.events))
	}
}

// TestFeed: who comes back is told what was missed, and told if it is not kept.
func TestFeed(t *testing.T) {
	b, _ := newBook()
	feed, complete := b.Listen("")
	if !complete {
		t.Error("nothing was missed")
	}
	a := b.Add(Call{})
	first := <-feed.Events()
	b.Began(a.ID)
	for after, want := range map[string]struct {
		events   int
		complete bool
	}{first.ID: {2, true}, b.boot + "-3": {0, true}, b.boot + "-4": {3, false}, "other-1": {3, false}, "x": {3, false},
		b.boot + "-0": {3, true}} {
		f, complete := b.Listen(after)
		if len(f.c) != want.events || complete != want.complete {
			t.Errorf("after %s: %d events, complete %v", after, len(f.c), complete)
		}
		f.Close()
		f.Close()
	}
	for i := range keepEvents {
		b.StreamEnded(a.ID, fmt.Sprint(i), false) // each is news
	}
	b.StreamEnded(a.ID, fmt.Sprint(keepEvents-1), false) // this is not
	if last := b.events[len(b.events)-1].ID; last != b.id(3+keepEvents) {
		t.Errorf("the last event is %s", last)
	}
	if _, complete := b.Listen(first.ID); complete {
		t.Error("events that are not kept were not missed")
	}
	n := 0
	for range feed.Events() {
		n++
	}
	if !errors.Is(feed.Err(), ErrSlow) || n != feedQueue {
		t.Errorf("%v after %d events", feed.Err(), n)
	}
}

// TestMetadata: a record that was given away is not the one that is kept.
func TestMetadata(t *testing.T) {
	b, _ := newBook()
	c := b.Add(Call{Metadata: map[string]string{"a": "b"}})
	c.Metadata["a"] = "c"
	if kept, _ := b.Get(c.ID); kept.Metadata["a"] != "b" {
		t.Error("it is")
	}
	list := b.List(10, func(*Call) bool { return true })
	list[0].Metadata["a"] = "d"
	if kept, _ := b.Get(c.ID); kept.Metadata["a"] != "b" {
		t.Error("it is")
	}
}
