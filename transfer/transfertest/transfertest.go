// Package transfertest is what every transfer.Store must do.
package transfertest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	"voicebridge/transfer"
)

// Harness is a store under test.
type Harness struct {
	// New makes an empty one, which forgets final records after Tombstone. Its owners are
	// those of the harness.
	New func(t *testing.T) transfer.Store
	// Live begins an owner's lease, Die ends it.
	Live, Die func(t *testing.T, s transfer.Store, owner string)
	// Keys counts what is kept; Fading is how much of it is forgotten by and by.
	Keys, Fading func(t *testing.T, s transfer.Store) int
	// Unindex and Evict lose the index of a call and a record.
	Unindex func(t *testing.T, s transfer.Store, call string)
	Evict   func(t *testing.T, s transfer.Store, id string)
}

// Tombstone is how long final records are kept.
const Tombstone = time.Minute

// Request asks for a transfer of a call.
func Request(call string) transfer.Request {
	return transfer.Request{Call: call, Account: "main", Provider: "carrier", Caller: "CA1", To: "+15550100123",
		From: "+15550100999", Mode: transfer.Conference, Ring: 20 * time.Second, OnEnd: transfer.Hangup,
		By: transfer.ReasonAPI}
}

// Record is a new one. Its number tells it from others of the call.
func Record(call string, n int) *transfer.Record {
	return &transfer.Record{ID: fmt.Sprintf("tr_%s_%d", transfer.CallPart(call), n), Request: Request(call), Room: "vb",
		Nonce: "n", Owner: "a"}
}

// suite is one test of one store.
type suite struct {
	*testing.T
	Harness
	s transfer.Store
}

// Run runs all tests, each with a store of its own.
func (h Harness) Run(t *testing.T, bubble func(t *testing.T, test func(t *testing.T))) {
	for name, test := range map[string]func(*suite){
		"Life": (*suite).life, "Conflict": (*suite).conflict, "Lease": (*suite).lease, "Forgets": (*suite).forgets,
		"OldRecord": (*suite).oldRecord, "Restore": (*suite).restore,
		"Evicted": (*suite).evicted,
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := &suite{t, h, h.New(t)}
				h.Live(t, s.s, "a")
				test(s)
			})
		})
	}
}

func (t *suite) created(call string, n int) *transfer.Record {
	t.Helper()
	r := Record(call, n)
	if err := t.s.Create(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	return r
}

// move lets events happen.
func (t *suite) move(r *transfer.Record, evs ...transfer.Event) *transfer.Record {
	t.Helper()
	for _, ev := range evs {
		after, moved := r.Apply(ev, max(r.Updated, time.Now().UnixMilli()))
		if !moved {
			t.Fatalf("%s does not move %s", ev.Kind, r.State)
		}
		if err := t.s.Move(t.Context(), r, after, ev.Kind); err != nil {
			t.Fatalf("%s: %v", ev.Kind, err)
		}
		r = after
	}
	return r
}

func (t *suite) life() {
	ctx := t.Context()
	if _, _, err := t.s.Load(ctx, "tr_1_9"); !errors.Is(err, transfer.ErrNotFound) {
		t.Errorf("a record that is not there: %v", err)
	}
	if id, err := t.s.ByCall(ctx, "cs_1"); id != "" || err != nil {
		t.Errorf("%q, %v", id, err)
	}
	r := t.created("cs_1", 1)
	if r.Due <= r.Created || r.Version != 1 || r.Fence != 1 {
		t.Errorf("%+v", r)
	}
	got, now, err := t.s.Load(ctx, r.ID)
	if err != nil || !reflect.DeepEqual(got, r) || now < r.Created {
		t.Errorf("%+v, %d, %v\nwant %+v", got, now, err, r)
	}
	if id, err := t.s.ByCall(ctx, "cs_1"); id != r.ID || err != nil {
		t.Errorf("%q, %v", id, err)
	}
	var busy *transfer.BusyError
	if err := t.s.Create(ctx, Record("cs_1", 2)); !errors.As(err, &busy) || busy.ID != r.ID {
		t.Errorf("a second transfer: %v", err)
	}
	if _, _, err := t.s.Load(ctx, Record("cs_1", 2).ID); !errors.Is(err, transfer.ErrNotFound) {
		t.Errorf("it was stored: %v", err)
	}
	dialing := t.move(r, transfer.Event{Kind: transfer.Begin})
	after, _ := r.Apply(transfer.Event{Kind: transfer.Cancel, Reason: transfer.ReasonAPI}, now)
	if err := t.s.Move(ctx, r, after, transfer.Cancel); !errors.Is(err, transfer.ErrConflict) {
		t.Errorf("a move of an old record: %v", err)
	}
	for i, want := range []bool{true, false} {
		if first, err := t.s.Step(ctx, dialing, transfer.StepDial); first != want || err != nil {
			t.Errorf("step %d: %v, %v", i, first, err)
		}
	}
	if first, err := t.s.Step(ctx, dialing, "else"); !first || err != nil {
		t.Errorf("%v, %v", first, err)
	}
	other := *dialing
	other.Fence = 7
	if _, err := t.s.Step(ctx, &other, "third"); !errors.Is(err, transfer.ErrConflict) {
		t.Errorf("a step of somebody else: %v", err)
	}
	down := t.move(dialing, transfer.Event{Kind: transfer.LegDown, Reason: transfer.ReasonBusy},
		transfer.Event{Kind: transfer.Settled})
	if id, _ := t.s.ByCall(ctx, "cs_1"); id != r.ID {
		t.Errorf("while it is cleared the call has the transfer %q", id)
	}
	if end := t.move(down, transfer.Event{Kind: transfer.Cleared}); end.State != transfer.Failed {
		t.Errorf("%+v", end)
	}
	if id, _ := t.s.ByCall(ctx, "cs_1"); id != "" {
		t.Errorf("after the end the call has the transfer %q", id)
	}
	if got, _, err := t.s.Load(ctx, r.ID); err != nil || got.State != transfer.Failed {
		t.Errorf("the tombstone: %+v, %v", got, err)
	}
	t.Die(t.T, t.s, "a")
	if list, err := t.s.Claim(ctx, "b", 10); len(list) > 0 || err != nil {
		t.Errorf("a final transfer was claimed: %v, %v", list, err)
	}
	t.replayed(r.ID)
}

// replayed holds the log of a transfer against the table and its record (I3, I4, I5).
func (t *suite) replayed(id string) {
	t.Helper()
	log, err := t.s.Log(context.Background(), id, 0)
	if err != nil || len(log) == 0 {
		t.Fatalf("%v, %v", log, err)
	}
	r, _, err := t.s.Load(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	if err := Replay(log); err != nil {
		t.Error(err)
	}
	if last := log[len(log)-1]; last.State != r.State || last.Version != r.Version || last.Fence != r.Fence {
		t.Errorf("the log ends with %+v, the record is %+v", last, r)
	}
	if part, err := t.s.Log(context.Background(), id, log[len(log)-1].Version-1); err != nil || len(part) != 1 {
		t.Errorf("the last entry: %v, %v", part, err)
	}
}

// Replay returns what is wrong with a log: a move that is not legal, or a gap.
func Replay(log []transfer.Entry) error {
	for i, e := range log[1:] {
		before := log[i]
		to, legal := before.State.Leads(e.Kind)
		if e.Kind == transfer.Cleared && legal {
			to = e.State
		}
		again := e.Kind == transfer.Restored && e.Version > before.Version
		switch {
		case before.State.Final():
			return fmt.Errorf("%+v after the end", e)
		case again:
		case e.Version != before.Version+1, e.Fence < before.Fence, e.State != before.State &&
			(!legal || to != e.State):
			return fmt.Errorf("%+v after %+v", e, before)
		}
	}
	return nil
}

// conflict: of many who move at once, one does (I18), and of many who create.
func (t *suite) conflict() {
	r := t.created("cs_1", 1)
	var mu sync.Mutex
	var group sync.WaitGroup
	won := 0
	count := func(err error, lost func(error) bool) {
		mu.Lock()
		defer mu.Unlock()
		if err == nil {
			won++
		} else if !lost(err) {
			t.Error(err)
		}
	}
	for range 20 {
		group.Go(func() {
			after, _ := r.Apply(transfer.Event{Kind: transfer.Begin}, r.Created)
			err := t.s.Move(context.Background(), r, after, transfer.Begin)
			count(err, func(err error) bool { return errors.Is(err, transfer.ErrConflict) })
		})
	}
	group.Wait()
	if won != 1 {
		t.Errorf("%d have won", won)
	}
	t.replayed(r.ID)
	won = 0
	for i := range 20 {
		group.Go(func() {
			var busy *transfer.BusyError
			count(t.s.Create(context.Background(), Record("cs_x", i)),
				func(err error) bool { return errors.As(err, &busy) })
		})
	}
	group.Wait()
	if won != 1 {
		t.Errorf("%d transfers of one call", won)
	}
}

// lease: a transfer stays with its owner while that lives, then goes to one other, and
// the old owner can do nothing more (I17).
func (t *suite) lease() {
	ctx := t.Context()
	r := t.created("cs_1", 1)
	t.Live(t.T, t.s, "b")
	if list, err := t.s.Claim(ctx, "b", 10); len(list) > 0 || err != nil {
		t.Fatalf("claimed from a live owner: %v, %v", list, err)
	}
	t.Die(t.T, t.s, "a")
	list, err := t.s.Claim(ctx, "b", 10)
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	claimed := list[0]
	if claimed.Owner != "b" || claimed.Fence != 2 || claimed.Version != 2 || claimed.State != transfer.Requested ||
		claimed.To != r.To {
		t.Errorf("%+v", claimed)
	}
	if list, err := t.s.Claim(ctx, "c", 10); len(list) > 0 || err != nil {
		t.Errorf("claimed twice: %v, %v", list, err)
	}
	after, _ := r.Apply(transfer.Event{Kind: transfer.Begin}, r.Created)
	if err := t.s.Move(ctx, r, after, transfer.Begin); !errors.Is(err, transfer.ErrConflict) {
		t.Errorf("a move of the old owner: %v", err)
	}
	if _, err := t.s.Step(ctx, r, transfer.StepDial); !errors.Is(err, transfer.ErrConflict) {
		t.Errorf("a step of the old owner: %v", err)
	}
	if err := t.s.Restore(ctx, after); !errors.Is(err, transfer.ErrConflict) {
		t.Errorf("restored by the old owner: %v", err)
	}
	t.replayed(r.ID)
}

// forgets: after the end there is a tombstone for a while, then nothing (I29).
func (t *suite) forgets() {
	for i := range 5 {
		r := t.move(t.created(fmt.Sprint("cs_", i), 1), transfer.Event{Kind: transfer.Begin})
		if _, err := t.s.Step(t.Context(), r, transfer.StepDial); err != nil {
			t.Fatal(err)
		}
		t.move(r, transfer.Event{Kind: transfer.Cancel, Reason: transfer.ReasonAPI},
			transfer.Event{Kind: transfer.Cleared})
		t.s.Finished(t.Context(), r.Owner, r.ID)
	}
	all, fading := t.Keys(t.T, t.s), t.Fading(t.T, t.s)
	if all < 5 || fading != all {
		t.Errorf("%d keys, of which %d are forgotten by and by", all, fading)
	}
}

// oldRecord: what ends an old transfer leaves a newer one of the same call alone (I19),
// as after a failover that has lost the first one's index.
func (t *suite) oldRecord() {
	first := t.move(t.created("cs_1", 1), transfer.Event{Kind: transfer.Cancel, Reason: transfer.ReasonAPI})
	t.Unindex(t.T, t.s, "cs_1")
	second := t.created("cs_1", 2)
	t.move(first, transfer.Event{Kind: transfer.Cleared})
	if id, err := t.s.ByCall(t.Context(), "cs_1"); id != second.ID || err != nil {
		t.Errorf("the call has the transfer %q, %v", id, err)
	}
}

// restore: an owner's word counts against a store that has lost something, and not
// against one that knows better.
func (t *suite) restore() {
	ctx := t.Context()
	r := t.created("cs_1", 1)
	known := t.move(r, transfer.Event{Kind: transfer.Begin}, transfer.Event{Kind: transfer.Placed, Leg: "L1"})
	if err := t.s.Restore(ctx, known); !errors.Is(err, transfer.ErrConflict) {
		t.Errorf("the same was restored: %v", err)
	}
	t.Evict(t.T, t.s, r.ID)
	t.Unindex(t.T, t.s, "cs_1")
	known.Version++
	if err := t.s.Restore(ctx, known); err != nil {
		t.Fatal(err)
	}
	got, _, err := t.s.Load(ctx, r.ID)
	if err != nil || !reflect.DeepEqual(got, known) {
		t.Errorf("%+v, %v\nwant %+v", got, err, known)
	}
	if id, err := t.s.ByCall(ctx, "cs_1"); id != r.ID || err != nil {
		t.Errorf("the index: %q, %v", id, err)
	}
	t.move(known, transfer.Event{Kind: transfer.Rang})
}

// evicted: an index whose record is gone is in nobody's way.
func (t *suite) evicted() {
	r := t.created("cs_1", 1)
	t.Evict(t.T, t.s, r.ID)
	t.created("cs_1", 2)
}
