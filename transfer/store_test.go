package transfer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
	"voicebridge/sim/outage"

	"github.com/redis/go-redis/v9"
)

// realRedis is one server for all tests of the package; each has keys of its own.
var realRedis = sync.OnceValues(func() (*outage.Redis, error) {
	dir, err := os.MkdirTemp("", "redis")
	if err != nil {
		return nil, err
	}
	return outage.StartRedis(context.Background(), dir)
})

var prefixes int

// redisStore is a store in a real redis-server.
func redisStore(t testing.TB, tombstone time.Duration) *Redis {
	t.Helper()
	server, err := realRedis()
	if err != nil {
		t.Fatal(err)
	}
	db := redis.NewClient(&redis.Options{Addr: server.Addr})
	prefixes++
	s := NewRedis(db, fmt.Sprintf("{test%d-%d}:", os.Getpid(), prefixes), tombstone)
	t.Cleanup(func() {
		if keys, err := db.Keys(context.Background(), s.prefix+"*").Result(); err == nil && len(keys) > 0 {
			db.Del(context.Background(), keys...)
		}
		db.Close()
	})
	return s
}

// keys counts what a store holds.
func keys(t testing.TB, s Store) int {
	t.Helper()
	switch s := s.(type) {
	case *Memory:
		s.lock()
		defer s.mu.Unlock()
		return len(s.kept) + len(s.byCall)
	case *Redis:
		all, err := s.db.Keys(t.Context(), s.prefix+"*").Result()
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	return 0
}

// stores runs a test with both stores.
func stores(t *testing.T, test func(t *testing.T, s Store)) {
	t.Run("memory", func(t *testing.T) { test(t, NewMemory(time.Now, 150*time.Millisecond)) })
	t.Run("redis", func(t *testing.T) { test(t, redisStore(t, 150*time.Millisecond)) })
}

func newRecord(id, call string) *Record {
	r := &Record{ID: id, Request: request(), Room: "vb-" + id, Nonce: "n", Owner: "a"}
	r.Call = call
	return r
}

// created is a record that is stored.
func created(t testing.TB, s Store, id, call string) *Record {
	t.Helper()
	r := newRecord(id, call)
	if err := s.Create(t.Context(), r, time.Minute); err != nil {
		t.Fatal(err)
	}
	return r
}

// move lets an event happen.
func move(t testing.TB, s Store, r *Record, ev Event) *Record {
	t.Helper()
	after, moved := r.apply(ev, time.Now().UnixMilli())
	if !moved {
		t.Fatalf("%s does not move %s", ev.Kind, r.State)
	}
	if err := s.Move(t.Context(), r, after, ev.Kind); err != nil {
		t.Fatalf("%s: %v", ev.Kind, err)
	}
	return after
}

// TestStore is what both stores must do.
func TestStore(t *testing.T) {
	stores(t, func(t *testing.T, s Store) {
		ctx := t.Context()
		if _, _, err := s.Load(ctx, "tr_none"); !errors.Is(err, ErrNotFound) {
			t.Errorf("a record that is not there: %v", err)
		}
		if id, err := s.ByCall(ctx, "cs_1"); id != "" || err != nil {
			t.Errorf("%q, %v", id, err)
		}
		r := created(t, s, "tr_1", "cs_1")
		if d := time.Since(time.UnixMilli(r.Created)).Abs(); d > time.Minute ||
			r.Due != r.Created+times[Requested].Milliseconds() || r.Version != 1 || r.Fence != 1 {
			t.Errorf("%+v", r)
		}
		got, now, err := s.Load(ctx, "tr_1")
		if err != nil || !reflect.DeepEqual(got, r) || now < r.Created {
			t.Errorf("%+v, %d, %v\nwant %+v", got, now, err, r)
		}
		if id, err := s.ByCall(ctx, "cs_1"); id != "tr_1" || err != nil {
			t.Errorf("%q, %v", id, err)
		}
		var busy *BusyError
		if err := s.Create(ctx, newRecord("tr_2", "cs_1"), time.Minute); !errors.As(err, &busy) || busy.ID != "tr_1" {
			t.Errorf("a second transfer: %v", err)
		}
		if _, _, err := s.Load(ctx, "tr_2"); !errors.Is(err, ErrNotFound) {
			t.Errorf("it was stored: %v", err)
		}

		dialingNow := move(t, s, r, Event{Kind: Begin})
		after, _ := r.apply(Event{Kind: Cancel, Reason: ReasonAPI}, now)
		if err := s.Move(ctx, r, after, Cancel); !errors.Is(err, ErrConflict) {
			t.Errorf("a move of an old record: %v", err)
		}
		if first, err := s.Step(ctx, dialingNow, stepDial); !first || err != nil {
			t.Errorf("%v, %v", first, err)
		}
		if first, err := s.Step(ctx, dialingNow, stepDial); first || err != nil {
			t.Errorf("a step was done twice: %v", err)
		}
		if first, err := s.Step(ctx, dialingNow, "else"); !first || err != nil {
			t.Errorf("%v, %v", first, err)
		}
		other := dialingNow.copy()
		other.Fence = 7
		if _, err := s.Step(ctx, other, "third"); !errors.Is(err, ErrConflict) {
			t.Errorf("a step of somebody else: %v", err)
		}
		down := move(t, s, move(t, s, dialingNow, Event{Kind: LegDown, Reason: ReasonBusy}), Event{Kind: Settled})
		if id, _ := s.ByCall(ctx, "cs_1"); id != "tr_1" {
			t.Errorf("while it is cleared the call has the transfer %q", id)
		}
		end := move(t, s, down, Event{Kind: Cleared})
		if end.State != Failed || end.Reason != ReasonBusy {
			t.Errorf("%+v", end)
		}
		if id, _ := s.ByCall(ctx, "cs_1"); id != "" {
			t.Errorf("after the end the call has the transfer %q", id)
		}
		if got, _, err := s.Load(ctx, "tr_1"); err != nil || got.State != Failed {
			t.Errorf("the tombstone: %+v, %v", got, err)
		}
		if list, err := s.Claim(ctx, "b", time.Minute, 10); len(list) > 0 || err != nil {
			t.Errorf("a final transfer was claimed: %v, %v", list, err)
		}
		if ok, err := s.Renew(ctx, end, time.Minute); ok || err != nil {
			t.Errorf("a final transfer was renewed: %v, %v", ok, err)
		}
		replayed(t, s, "tr_1")
	})
}

// replayed holds the log of a transfer against the table and its record (I3, I4, I5).
func replayed(t testing.TB, s Store, id string) {
	t.Helper()
	log, err := s.Log(context.Background(), id, 0)
	if err != nil || len(log) == 0 {
		t.Fatalf("%v, %v", log, err)
	}
	r, _, err := s.Load(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	state := State("")
	for i, e := range log {
		if e.Version != int64(i+1) || i > 0 && (e.Fence < log[i-1].Fence || e.At < log[i-1].At) {
			t.Errorf("entry %d: %+v after %+v", i, e, log[max(0, i-1)])
		}
		to, legal := moves[state][e.Kind]
		switch {
		case i == 0 && e.State == Requested && e.Kind == "create":
		case e.Kind == Cleared && state == Compensating && e.State.Final():
		case legal && to == e.State:
		case e.State == state && !legal: // a note, or a new owner
		default:
			t.Errorf("%s led from %s to %s", e.Kind, state, e.State)
		}
		if state.Final() {
			t.Errorf("%+v after the end", e)
		}
		state = e.State
	}
	if last := log[len(log)-1]; last.State != r.State || last.Version != r.Version || last.Fence != r.Fence {
		t.Errorf("the log ends with %+v, the record is %+v", last, r)
	}
	if part, err := s.Log(context.Background(), id, log[len(log)-1].Version-1); err != nil || len(part) != 1 {
		t.Errorf("the last entry: %v, %v", part, err)
	}
}

// TestStoreConflict: of many who move at once, one does (I18), and the versions
// have no gap.
func TestStoreConflict(t *testing.T) {
	stores(t, func(t *testing.T, s Store) {
		r := created(t, s, "tr_1", "cs_1")
		var won sync.Map
		var group sync.WaitGroup
		for i := range 20 {
			group.Go(func() {
				after, _ := r.apply(Event{Kind: Begin}, r.Created)
				after.Detail = fmt.Sprint(i)
				switch err := s.Move(context.Background(), r, after, Begin); {
				case err == nil:
					won.Store(i, true)
				case !errors.Is(err, ErrConflict):
					t.Error(err)
				}
			})
		}
		group.Wait()
		n := 0
		won.Range(func(any, any) bool { n++; return true })
		if n != 1 {
			t.Errorf("%d have won", n)
		}
		replayed(t, s, "tr_1")
		// Of many who create, too.
		n = 0
		var mu sync.Mutex
		for i := range 20 {
			group.Go(func() {
				err := s.Create(context.Background(), newRecord(fmt.Sprint("tr_x", i), "cs_x"), time.Minute)
				var busy *BusyError
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					n++
				} else if !errors.As(err, &busy) {
					t.Error(err)
				}
			})
		}
		group.Wait()
		if n != 1 {
			t.Errorf("%d transfers of one call", n)
		}
	})
}

// TestStoreLease: a transfer stays with its owner while that renews it, then goes
// to one other, and the old owner can do nothing more (I17).
func TestStoreLease(t *testing.T) {
	stores(t, func(t *testing.T, s Store) {
		ctx := t.Context()
		r := newRecord("tr_1", "cs_1")
		const lease = 100 * time.Millisecond
		if err := s.Create(ctx, r, lease); err != nil {
			t.Fatal(err)
		}
		for begun := time.Now(); time.Since(begun) < 3*lease; time.Sleep(lease / 10) { // in real time: so is the lease
			if ok, err := s.Renew(ctx, r, lease); !ok || err != nil {
				t.Fatalf("%v, %v", ok, err)
			}
			if list, err := s.Claim(ctx, "b", lease, 10); len(list) > 0 || err != nil {
				t.Fatalf("claimed from a live owner: %+v, %v", list[0], err)
			}
		}
		var claimed *Record
		for claimed == nil {
			list, err := s.Claim(ctx, "b", time.Minute, 10)
			if err != nil || len(list) > 1 {
				t.Fatal(list, err)
			}
			if len(list) == 1 {
				claimed = list[0]
			}
		}
		if claimed.Owner != "b" || claimed.Fence != 2 || claimed.Version != 2 || claimed.State != Requested ||
			claimed.To != r.To {
			t.Errorf("%+v", claimed)
		}
		if list, err := s.Claim(ctx, "c", time.Minute, 10); len(list) > 0 || err != nil {
			t.Errorf("claimed twice: %v, %v", list, err)
		}
		after, _ := r.apply(Event{Kind: Begin}, r.Created)
		if err := s.Move(ctx, r, after, Begin); !errors.Is(err, ErrConflict) {
			t.Errorf("a move of the old owner: %v", err)
		}
		if _, err := s.Step(ctx, r, stepDial); !errors.Is(err, ErrConflict) {
			t.Errorf("a step of the old owner: %v", err)
		}
		if ok, err := s.Renew(ctx, r, time.Minute); ok || err != nil {
			t.Errorf("renewed by the old owner: %v, %v", ok, err)
		}
		replayed(t, s, "tr_1")
	})
}

// TestStoreForgets: after the end there is a tombstone for a while, then nothing
// (I29).
func TestStoreForgets(t *testing.T) {
	stores(t, func(t *testing.T, s Store) {
		for i := range 5 {
			r := created(t, s, fmt.Sprint("tr_", i), fmt.Sprint("cs_", i))
			r = move(t, s, r, Event{Kind: Begin})
			if _, err := s.Step(t.Context(), r, stepDial); err != nil {
				t.Fatal(err)
			}
			move(t, s, move(t, s, r, Event{Kind: Cancel, Reason: ReasonAPI}), Event{Kind: Cleared})
		}
		if n := keys(t, s); n < 5 {
			t.Errorf("%d keys: the tombstones are gone already", n)
		}
		for limit := time.Now().Add(10 * time.Second); keys(t, s) > 0; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(limit) {
				t.Fatalf("%d keys are left", keys(t, s))
			}
		}
	})
}

// TestStoreUnknownFields: fields that a newer instance has written stay (defect 10).
func TestStoreUnknownFields(t *testing.T) {
	stores(t, func(t *testing.T, s Store) {
		r := created(t, s, "tr_1", "cs_1")
		get := func() string { return "" }
		switch s := s.(type) {
		case *Memory:
			s.kept["tr_1"].fields["colour"] = "green"
			get = func() string { return s.kept["tr_1"].fields["colour"] }
		case *Redis:
			if err := s.db.HSet(t.Context(), s.context("tr_1"), "colour", "green").Err(); err != nil {
				t.Fatal(err)
			}
			get = func() string { return s.db.HGet(context.Background(), s.context("tr_1"), "colour").Val() }
		}
		if got, _, err := s.Load(t.Context(), "tr_1"); err != nil || got.To != r.To {
			t.Errorf("%+v, %v", got, err)
		}
		move(t, s, r, Event{Kind: Begin})
		if get() != "green" {
			t.Error("a move has wiped a field that it does not know")
		}
	})
}

// TestStoreOldRecord: what ends an old transfer leaves a newer one of the same call
// alone (I19).
func TestStoreOldRecord(t *testing.T) {
	stores(t, func(t *testing.T, s Store) {
		first := move(t, s, created(t, s, "tr_1", "cs_1"), Event{Kind: Cancel, Reason: ReasonAPI})
		switch s := s.(type) { // as after a failover that has lost the first one's index
		case *Memory:
			delete(s.byCall, "cs_1")
		case *Redis:
			s.db.Del(t.Context(), s.byCall("cs_1"))
		}
		created(t, s, "tr_2", "cs_1")
		move(t, s, first, Event{Kind: Cleared})
		if id, err := s.ByCall(t.Context(), "cs_1"); id != "tr_2" || err != nil {
			t.Errorf("the call has the transfer %q, %v", id, err)
		}
	})
}

// TestStoreAway: a database that is away gives an error at once, and nothing else.
func TestStoreAway(t *testing.T) {
	db := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", MaxRetries: -1})
	defer db.Close()
	s := NewRedis(db, "{x}:", time.Minute)
	r := newRecord("tr_1", "cs_1")
	_, _, load := s.Load(t.Context(), "tr_1")
	_, byCall := s.ByCall(t.Context(), "cs_1")
	_, log := s.Log(t.Context(), "tr_1", 0)
	_, step := s.Step(t.Context(), r, stepDial)
	_, renew := s.Renew(t.Context(), r, time.Minute)
	_, claim := s.Claim(t.Context(), "a", time.Minute, 1)
	for name, err := range map[string]error{"create": s.Create(t.Context(), r, time.Minute), "load": load,
		"by call": byCall, "log": log,
		"step": step, "renew": renew, "claim": claim, "move": s.Move(t.Context(), r, r, Begin)} {
		if err == nil || errors.Is(err, ErrNotFound) || errors.Is(err, ErrConflict) ||
			!strings.Contains(err.Error(), "transfer: store: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// BenchmarkByCall: a lookup by call costs the same however many transfers there
// are, unlike the scan for keys that it replaces.
func BenchmarkByCall(b *testing.B) {
	for _, n := range []int{1, 1000, 100_000, 1_000_000} {
		s := redisStore(b, time.Minute)
		pipe := s.db.Pipeline()
		for i := range n {
			pipe.HSet(b.Context(), s.context(fmt.Sprint("tr_", i)), "call", fmt.Sprint("cs_", i), "state", "ringing")
			pipe.Set(b.Context(), s.byCall(fmt.Sprint("cs_", i)), fmt.Sprint("tr_", i), 0)
			if i%10_000 == 9999 || i == n-1 {
				if _, err := pipe.Exec(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		}
		call := fmt.Sprint("cs_", n/2)
		b.Run(fmt.Sprint("get/", n), func(b *testing.B) {
			for b.Loop() {
				if id, err := s.ByCall(b.Context(), call); id != fmt.Sprint("tr_", n/2) {
					b.Fatal(id, err)
				}
			}
		})
		b.Run(fmt.Sprint("keys/", n), func(b *testing.B) {
			for b.Loop() {
				all, err := s.db.Keys(b.Context(), s.prefix+"context:*").Result()
				if err != nil || len(all) != n {
					b.Fatal(len(all), err)
				}
				for _, k := range all[:1] { // and then one HGET for each: one is counted
					s.db.HGet(b.Context(), k, "call")
				}
			}
		})
		s.db.FlushAll(b.Context())
	}
}
