package transfer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// virtual runs a test in virtual time.
func virtual(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, test)
}

// running is a manager at work, until stop or the end of the test.
func running(t *testing.T, s Store, h Carrier, name string) (m *Manager, stop func()) {
	t.Helper()
	cfg := Defaults
	cfg.Instance = name
	m = NewManager(s, h, cfg, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); m.Run(ctx) }()
	synctest.Wait()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return m, stop
}

// stores runs a test with a store in memory. transfertest holds that the other one does
// the same.
func stores(t *testing.T, test func(t *testing.T, s Store)) {
	t.Helper()
	virtual(t, func(t *testing.T) { test(t, NewMemory(time.Now, time.Minute)) })
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
	if err := s.Create(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	return r
}

// move lets an event happen.
func move(t testing.TB, s Store, r *Record, ev Event) *Record {
	t.Helper()
	after, moved := r.Apply(ev, time.Now().UnixMilli())
	if !moved {
		t.Fatalf("%s does not move %s", ev.Kind, r.State)
	}
	if err := s.Move(t.Context(), r, after, ev.Kind); err != nil {
		t.Fatalf("%s: %v", ev.Kind, err)
	}
	return after
}

// replayed holds the log of a transfer against the table.
func replayed(t testing.TB, s Store, id string) {
	t.Helper()
	log, err := s.Log(context.Background(), id, 0)
	if err == nil {
		err = replay(log)
	}
	if err != nil {
		t.Error(err)
	}
}

func newWorld() *world { return &world{now: time.Now(), caller: "agent", dial: "good"} }

// until waits for a state.
func until(t *testing.T, m *Manager, id string, want State) *Record {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	r, err := m.Wait(ctx, id, func(r *Record) bool { return r.State == want })
	if err != nil || r.State != want {
		t.Fatalf("%+v, %v, want %s", r, err, want)
	}
	return r
}

// dialled waits until the carrier calls the destination.
func dialled(t *testing.T, m *Manager, id string) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	if r, err := m.Wait(ctx, id, func(r *Record) bool { return r.Leg != "" }); err != nil || r.Leg == "" {
		t.Fatalf("%+v, %v", r, err)
	}
}

// idle waits until a manager acts for nothing any more.
func idle(t *testing.T, m *Manager) {
	t.Helper()
	for range 100 {
		if m.Owned() == 0 {
			return
		}
		time.Sleep(time.Second)
	}
	t.Fatal("the manager still acts")
}

func happens(t *testing.T, m *Manager, id string, evs ...Event) {
	t.Helper()
	for _, ev := range evs {
		if _, moved, err := m.HandleEvent(t.Context(), id, ev); !moved || err != nil {
			t.Fatalf("%s: %v, %v", ev.Kind, moved, err)
		}
	}
}

// TestManager is a transfer from its beginning to its end.
func TestManager(t *testing.T) {
	stores(t, func(t *testing.T, s Store) {
		w := newWorld()
		m, _ := running(t, s, w, "a")
		r, err := m.Start(t.Context(), request())
		if err != nil {
			t.Fatal(err)
		}
		var busy *BusyError
		if _, err := m.Start(t.Context(), request()); !errors.As(err, &busy) || busy.ID != r.ID {
			t.Errorf("a second transfer: %v", err)
		}
		if got, err := m.ByCall(t.Context(), "cs_1"); err != nil || got.ID != r.ID || got.Room == "" ||
			got.Nonce == "" {
			t.Errorf("%+v, %v", got, err)
		}
		dialled(t, m, r.ID)
		happens(t, m, r.ID, Event{Kind: Rang, Leg: "L1"})
		w.set(func() { w.leg, w.legIn = "up", true })
		happens(t, m, r.ID, Event{Kind: Picked})
		until(t, m, r.ID, Bridged) // without a word that they have met
		happens(t, m, r.ID, Event{Kind: LegDown})
		end := until(t, m, r.ID, Ended)
		idle(t, m)
		w.mu.Lock()
		defer w.mu.Unlock()
		if end.Reason != ReasonDestination || w.caller != "gone" || w.dials != 1 || w.joins != 1 {
			t.Errorf("%+v, caller %s, %d calls", end, w.caller, w.dials)
		}
		var states []State
		for _, e := range w.changed {
			states = append(states, e.State)
		}
		want := []State{Requested, Dialing, Ringing, Answered, Bridging, Bridged, Compensating, Ended}
		if got := slices.Compact(states); !slices.Equal(got, want) {
			t.Errorf("told of %v", got)
		}
		replayed(t, s, r.ID)
	})
}

// TestTakeOver: an owner dies at any point; another one goes on within its lease,
// and whoever waits is answered (I16).
func TestTakeOver(t *testing.T) {
	stores(t, func(t *testing.T, s Store) {
		for i, die := range []State{Requested, Dialing, Ringing, Bridged} {
			w := newWorld()
			first, stop := running(t, s, w, "a")
			req := request()
			req.Call = fmt.Sprint("cs_", i)
			r, err := first.Start(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			if die == Ringing || die == Bridged {
				dialled(t, first, r.ID)
				happens(t, first, r.ID, Event{Kind: Rang, Leg: "L1"})
			}
			if die == Bridged {
				w.set(func() { w.leg, w.legIn = "up", true })
				happens(t, first, r.ID, Event{Kind: Picked})
				until(t, first, r.ID, Bridged)
			}
			stop()
			second, stopSecond := running(t, s, w, "b")
			ctx, stopWaiting := context.WithTimeout(t.Context(), 5*time.Minute)
			end := make(chan *Record)
			go func() {
				r, err := second.Wait(ctx, r.ID, func(*Record) bool { return false })
				if err != nil {
					t.Error(err)
				}
				end <- r
			}()
			time.Sleep(2 * Defaults.Lease)
			if owned, err := second.Get(t.Context(), r.ID); err != nil || owned.Owner != "b" {
				t.Fatal(owned, err)
			}
			w.mu.Lock()
			w.caller = "gone"
			w.mu.Unlock()
			if _, _, err := second.HandleEvent(t.Context(), r.ID, Event{Kind: CallerLeft}); err != nil {
				t.Error(err)
			}
			if r := <-end; r == nil || !r.State.Final() {
				t.Errorf("%s: %+v", die, r)
			}
			stopWaiting()
			w.mu.Lock()
			if w.dials > 1 || w.leg == "up" || w.leg == "ringing" {
				t.Errorf("%s: %d calls, the leg is %q", die, w.dials, w.leg)
			}
			w.mu.Unlock()
			stopSecond()
			replayed(t, s, r.ID)
		}
	})
}

// TestStoreComesBack: while the store is away nothing is dialled and nothing is
// said to be done; then it goes on (I20).
func TestStoreComesBack(t *testing.T) {
	virtual(t, testStoreComesBack)
}

func testStoreComesBack(t *testing.T) {
	s := &away{Store: NewMemory(time.Now, time.Minute)}
	w := newWorld()
	m, _ := running(t, s, w, "a")
	s.away(true)
	if _, err := m.Start(t.Context(), request()); !errors.Is(err, errAway) {
		t.Errorf("%v", err)
	}
	if w.dials != 0 {
		t.Error("dialled without a record")
	}
	s.away(false)
	r, err := m.Start(t.Context(), request())
	if err != nil {
		t.Fatal(err)
	}
	dialled(t, m, r.ID)
	s.away(true)
	if _, _, err := m.HandleEvent(t.Context(), r.ID, Event{Kind: LegDown, Reason: ReasonBusy}); !errors.Is(err,
		errAway) {
		t.Errorf("%v", err) // the webhook answers 503, and is sent again
	}
	s.away(false)
	happens(t, m, r.ID, Event{Kind: LegDown, Reason: ReasonBusy})
	if end := until(t, m, r.ID, Failed); end.Reason != ReasonBusy {
		t.Errorf("%+v", end)
	}
}

// TestStoreLoses: a store that has lost everything, or has gone back in time, costs
// nobody's call: its owner knows better (I21).
func TestStoreLoses(t *testing.T) {
	for _, all := range []bool{true, false} {
		stores(t, func(t *testing.T, s Store) {
			mem := s.(*Memory)
			w := newWorld()
			m, _ := running(t, mem, w, "a")
			r, err := m.Start(t.Context(), request())
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			old := mem.copy()
			if all {
				old = NewMemory(time.Now, time.Minute)
			}
			dialled(t, m, r.ID)
			happens(t, m, r.ID, Event{Kind: Rang, Leg: "L1"})
			w.set(func() { w.leg, w.legIn = "up", true })
			happens(t, m, r.ID, Event{Kind: Picked})
			until(t, m, r.ID, Bridged)
			synctest.Wait()
			mem.become(old)
			time.Sleep(time.Minute)
			if got, err := m.Get(t.Context(), r.ID); err != nil || got.State != Bridged || got.Leg != "L1" ||
				got.At != InRoom {
				t.Errorf("all lost: %t: %+v, %v", all, got, err)
			}
			w.mu.Lock()
			if w.dials != 1 || w.joins != 1 || w.caller != "room" || w.leg != "up" {
				t.Errorf("%d calls, the caller moved %d times, is at %s, the leg is %s", w.dials, w.joins, w.caller,
					w.leg)
			}
			w.mu.Unlock()
			happens(t, m, r.ID, Event{Kind: LegDown})
			until(t, m, r.ID, Ended)
			idle(t, m)
		})
	}
}

// TestCreateUnsure: a transfer that is stored although that was not answered is ended: it
// would keep its call busy.
func TestCreateUnsure(t *testing.T) {
	stores(t, func(t *testing.T, s Store) {
		w := newWorld()
		m, _ := running(t, unsure{s}, w, "a")
		if _, err := m.Start(t.Context(), request()); !errors.Is(err, errAway) {
			t.Fatal(err)
		}
		idle(t, m)
		if id, err := s.ByCall(t.Context(), "cs_1"); id != "" || err != nil || w.dials != 0 {
			t.Errorf("the call has the transfer %q, %v, %d calls", id, err, w.dials)
		}
	})
}

// unsure is a store that stores new transfers, but does not say so.
type unsure struct{ Store }

func (u unsure) Create(ctx context.Context, r *Record) error {
	_ = u.Store.Create(ctx, r)
	return errAway
}

// away is a store that is not there at times.
type away struct {
	Store
	mu   sync.Mutex
	gone bool
}

var errAway = errors.New("the store is away")

func (a *away) away(on bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.gone = on
}

func (a *away) check() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.gone {
		return errAway
	}
	return nil
}

func (a *away) Create(ctx context.Context, r *Record) error {
	if err := a.check(); err != nil {
		return err
	}
	return a.Store.Create(ctx, r)
}

func (a *away) Load(ctx context.Context, id string) (*Record, int64, error) {
	if err := a.check(); err != nil {
		return nil, 0, err
	}
	return a.Store.Load(ctx, id)
}

// The defects of the system that this project descends from, each with both stores.

// TestDefect1PublishBeforeSubscribe: what happens before somebody waits is not
// missed by them.
func TestDefect1PublishBeforeSubscribe(t *testing.T) {
	stores(t, func(t *testing.T, s Store) {
		m, _ := running(t, s, newWorld(), "a")
		r, err := m.Start(t.Context(), request())
		if err != nil {
			t.Fatal(err)
		}
		dialled(t, m, r.ID)
		happens(t, m, r.ID, Event{Kind: LegDown, Reason: ReasonBusy})
		idle(t, m)
		if end := until(t, m, r.ID, Failed); end.Reason != ReasonBusy {
			t.Errorf("%+v", end)
		}
	})
}

// TestDefect2IndexOfNewer: the end of an old transfer leaves the index of a newer
// one alone.
func TestDefect2IndexOfNewer(t *testing.T) {
	stores(t, func(t *testing.T, s Store) {
		first := move(t, s, created(t, s, "tr_1", "cs_1"), Event{Kind: Cancel, Reason: ReasonAPI})
		delete(s.(*Memory).byCall, "cs_1")
		created(t, s, "tr_2", "cs_1")
		move(t, s, first, Event{Kind: Cleared})
		if id, err := s.ByCall(t.Context(), "cs_1"); id != "tr_2" || err != nil {
			t.Errorf("the call has the transfer %q, %v", id, err)
		}
	})
}

// TestDefect3LostUpdate: whoever began a transfer cannot overwrite what a webhook
// has written meanwhile.
func TestDefect3LostUpdate(t *testing.T) {
	stores(t, func(t *testing.T, s Store) {
		r := move(t, s, created(t, s, "tr_1", "cs_1"), Event{Kind: Begin})
		move(t, s, r, Event{Kind: Rang, Leg: "L1"}) // the webhook
		mine, _ := r.Apply(Event{Kind: dialing}, r.Updated)
		if err := s.Move(t.Context(), r, mine, dialing); !errors.Is(err, ErrConflict) {
			t.Errorf("%v", err)
		}
		got, _, err := s.Load(t.Context(), "tr_1")
		if err != nil || got.Leg != "L1" || got.State != Ringing {
			t.Errorf("%+v, %v", got, err)
		}
	})
}

// TestDefect4LongCall: hours after the bridging, the end is handled as it is after
// a minute (I24).
func TestDefect4LongCall(t *testing.T) {
	stores(t, func(t *testing.T, s Store) {
		w := newWorld()
		m, _ := running(t, s, w, "a")
		r, err := m.Start(t.Context(), request())
		if err != nil {
			t.Fatal(err)
		}
		dialled(t, m, r.ID)
		w.set(func() { w.leg, w.legIn = "up", true })
		happens(t, m, r.ID, Event{Kind: Picked, Leg: "L1"})
		until(t, m, r.ID, Bridged)
		time.Sleep(5 * time.Hour)
		happens(t, m, r.ID, Event{Kind: LegDown})
		if end := until(t, m, r.ID, Ended); end.Reason != ReasonDestination {
			t.Errorf("%+v", end)
		}
		idle(t, m)
	})
}

// TestDefect5ErrorsSwallowed: a store that fails is told of, so that the carrier
// sends its report again.
func TestDefect5ErrorsSwallowed(t *testing.T) { virtual(t, testStoreComesBack) }

// TestDefect6ClaimThenAct: an instance that dies while it takes a report leaves
// nothing behind that would make the repeated one a duplicate.
func TestDefect6ClaimThenAct(t *testing.T) {
	stores(t, func(t *testing.T, s Store) {
		r := move(t, s, created(t, s, "tr_1", "cs_1"), Event{Kind: Begin})
		for crash := 1; crash <= 2; crash++ { // in Load, in Move
			w := newWorld()
			w.crash = crash
			m := NewManager(crashing{s, w}, w, Defaults, slog.New(slog.DiscardHandler))
			func() {
				defer func() { _ = recover() }()
				_, _, _ = m.HandleEvent(t.Context(), r.ID, Event{Kind: Picked, Leg: "L1"})
				t.Error("it lived")
			}()
		}
		happens(t, NewManager(s, newWorld(), Defaults, slog.New(slog.DiscardHandler)), r.ID,
			Event{Kind: Picked, Leg: "L1"})
	})
}

// TestDefect7TerminalStates: what has failed is not answered later, nor the other
// way round.
func TestDefect7TerminalStates(t *testing.T) {
	stores(t, func(t *testing.T, s Store) {
		m, _ := running(t, s, newWorld(), "a")
		r, err := m.Start(t.Context(), request())
		if err != nil {
			t.Fatal(err)
		}
		dialled(t, m, r.ID)
		happens(t, m, r.ID, Event{Kind: LegDown, Reason: ReasonNoAnswer})
		until(t, m, r.ID, Failed)
		for _, k := range kinds {
			if got, moved, err := m.HandleEvent(t.Context(), r.ID, Event{Kind: k}); moved || err != nil ||
				got.State != Failed || got.Reason != ReasonNoAnswer {
				t.Errorf("%s: %+v, %v", k, got, err)
			}
		}
	})
}

// TestDefect8OneWinner: of all who see that the destination has answered, one acts.
func TestDefect8OneWinner(t *testing.T) {
	stores(t, func(t *testing.T, s Store) {
		w := newWorld()
		m, _ := running(t, s, w, "a")
		r, err := m.Start(t.Context(), request())
		if err != nil {
			t.Fatal(err)
		}
		dialled(t, m, r.ID)
		w.set(func() { w.leg, w.legIn = "up", true })
		var group sync.WaitGroup
		var mu sync.Mutex
		moves := 0
		for range 10 {
			group.Go(func() {
				_, moved, err := m.HandleEvent(context.Background(), r.ID, Event{Kind: Picked, Leg: "L1"})
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				if moved {
					moves++
				}
			})
			group.Go(func() {
				if _, err := m.Wait(context.Background(), r.ID,
					func(r *Record) bool { return r.State == Bridged }); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
		w.mu.Lock()
		defer w.mu.Unlock()
		if moves != 1 || w.joins != 1 {
			t.Errorf("%d moves, the caller was moved %d times", moves, w.joins)
		}
	})
}

// TestDefect9TwoWrites: record and index are there together, or not at all.
func TestDefect9TwoWrites(t *testing.T) {
	stores(t, func(t *testing.T, s Store) {
		created(t, s, "tr_1", "cs_1")
		if err := s.Create(t.Context(), newRecord("tr_2", "cs_1")); err == nil {
			t.Fatal("stored")
		}
		if id, err := s.ByCall(t.Context(), "cs_1"); id != "tr_1" || err != nil {
			t.Errorf("%q, %v", id, err)
		}
		if _, _, err := s.Load(t.Context(), "tr_2"); !errors.Is(err, ErrNotFound) {
			t.Errorf("half of a transfer: %v", err)
		}
	})
}
