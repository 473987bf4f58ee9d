package transfer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"
)

// quick are times for tests in real time.
var quick = Config{Instance: "a", Lease: 300 * time.Millisecond, Poll: 50 * time.Millisecond,
	Look: 20 * time.Millisecond, Retry: 10 * time.Millisecond}

// running is a manager at work, until stop or the end of the test.
func running(t *testing.T, s Store, h Carrier, name string) (m *Manager, stop func()) {
	t.Helper()
	cfg := quick
	cfg.Instance = name
	m = NewManager(s, h, cfg, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); m.Run(ctx) }()
	for m.running() == nil { // it has begun at once
		time.Sleep(time.Millisecond)
	}
	stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return m, stop
}

func (m *Manager) running() context.Context {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ctx
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
	for limit := time.Now().Add(20 * time.Second); m.Owned() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("the manager still acts")
		}
	}
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
		w.mu.Lock()
		w.leg = "up"
		w.mu.Unlock()
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
				w.mu.Lock()
				w.leg = "up"
				w.mu.Unlock()
				happens(t, first, r.ID, Event{Kind: Picked})
				until(t, first, r.ID, Bridged)
			}
			stop()
			second, stopSecond := running(t, s, w, "b")
			ctx, stopWaiting := context.WithTimeout(t.Context(), 20*time.Second)
			end := make(chan *Record)
			go func() {
				r, err := second.Wait(ctx, r.ID, func(*Record) bool { return false })
				if err != nil {
					t.Error(err)
				}
				end <- r
			}()
			began := time.Now()
			for owned := (*Record)(nil); owned == nil || owned.Owner != "b"; {
				if owned, err = second.Get(t.Context(), r.ID); err != nil || time.Since(began) > 10*time.Second {
					t.Fatal(owned, err)
				}
				time.Sleep(5 * time.Millisecond)
			}
			w.mu.Lock()
			w.caller = "gone"
			w.mu.Unlock()
			happens(t, second, r.ID, Event{Kind: CallerLeft})
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

// TestStoreLoses: a store that has lost everything costs nobody's call (I21).
func TestStoreLoses(t *testing.T) {
	mem := NewMemory(time.Now, time.Minute)
	w := newWorld()
	m, _ := running(t, mem, w, "a")
	r, err := m.Start(t.Context(), request())
	if err != nil {
		t.Fatal(err)
	}
	dialled(t, m, r.ID)
	happens(t, m, r.ID, Event{Kind: Rang, Leg: "L1"})
	w.mu.Lock()
	w.leg = "up"
	w.mu.Unlock()
	happens(t, m, r.ID, Event{Kind: Picked})
	until(t, m, r.ID, Bridged)
	for limit := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) { // it has seen that
		m.mu.Lock()
		n := len(m.owned)
		m.mu.Unlock()
		w.mu.Lock()
		told := len(w.changed) > 0 && w.changed[len(w.changed)-1].State == Bridged
		w.mu.Unlock()
		if n == 1 && told {
			break
		}
		if time.Now().After(limit) {
			t.Fatal("the owner does not see its transfer")
		}
	}
	mem.mu.Lock()
	clear(mem.kept)
	clear(mem.byCall)
	mem.mu.Unlock()
	m.wake(r.ID)
	idle(t, m)
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := len(w.changed); w.changed[n-1].State != Failed || w.changed[n-1].Version <= w.changed[n-2].Version {
		t.Errorf("told last: %+v after %+v", w.changed[n-1], w.changed[n-2])
	}
	if w.leg != "down" || w.caller != "agent" {
		t.Errorf("the leg is %s, the caller at %s", w.leg, w.caller)
	}
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

func (a *away) Create(ctx context.Context, r *Record, lease time.Duration) error {
	if err := a.check(); err != nil {
		return err
	}
	return a.Store.Create(ctx, r, lease)
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
func TestDefect2IndexOfNewer(t *testing.T) { TestStoreOldRecord(t) }

// TestDefect3LostUpdate: whoever began a transfer cannot overwrite what a webhook
// has written meanwhile.
func TestDefect3LostUpdate(t *testing.T) {
	stores(t, func(t *testing.T, s Store) {
		r := move(t, s, created(t, s, "tr_1", "cs_1"), Event{Kind: Begin})
		move(t, s, r, Event{Kind: Rang, Leg: "L1"}) // the webhook
		mine, _ := r.apply(Event{Kind: dialing}, r.Updated)
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
	now := time.Unix(1e9, 0)
	mem := NewMemory(func() time.Time { return now }, time.Minute)
	bridged := func(s Store) *Record {
		r := created(t, s, "tr_1", "cs_1")
		for _, ev := range []Event{{Kind: Begin}, {Kind: Picked, Leg: "L1"}, {Kind: Bridge},
			{Kind: Moved, Place: InRoom}, {Kind: Joined}} {
			r = move(t, s, r, ev)
		}
		return r
	}
	r := bridged(mem)
	for range 5 * 60 {
		now = now.Add(time.Minute)
		if ok, err := mem.Renew(t.Context(), r, time.Minute); !ok || err != nil {
			t.Fatal(ok, err)
		}
	}
	if end := move(t, mem, r, Event{Kind: LegDown}); end.Want != Ended || end.Reason != ReasonDestination {
		t.Errorf("%+v", end)
	}
	s := redisStore(t, time.Minute)
	r = bridged(s)
	for _, key := range s.keys(r.ID, r.Call)[:3] {
		s.db.PExpire(t.Context(), key, time.Second)
	}
	if ok, err := s.Renew(t.Context(), r, time.Minute); !ok || err != nil {
		t.Fatal(ok, err)
	}
	for _, key := range s.keys(r.ID, r.Call)[:3] {
		if ttl := s.db.PTTL(t.Context(), key).Val(); ttl < keepLive-time.Minute {
			t.Errorf("%s is kept for %v", key, ttl)
		}
	}
}

// TestDefect5ErrorsSwallowed: a store that fails is told of, so that the carrier
// sends its report again.
func TestDefect5ErrorsSwallowed(t *testing.T) { TestStoreComesBack(t) }

// TestDefect6ClaimThenAct: an instance that dies while it takes a report leaves
// nothing behind that would make the repeated one a duplicate.
func TestDefect6ClaimThenAct(t *testing.T) {
	stores(t, func(t *testing.T, s Store) {
		r := move(t, s, created(t, s, "tr_1", "cs_1"), Event{Kind: Begin})
		for crash := 1; crash <= 2; crash++ { // in Load, in Move
			w := newWorld()
			w.crash = crash
			m := NewManager(crashing{s, w}, w, quick, slog.New(slog.DiscardHandler))
			func() {
				defer func() { _ = recover() }()
				_, _, _ = m.HandleEvent(t.Context(), r.ID, Event{Kind: Picked, Leg: "L1"})
				t.Error("it lived")
			}()
		}
		happens(t, NewManager(s, newWorld(), quick, slog.New(slog.DiscardHandler)), r.ID,
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
		w.mu.Lock()
		w.leg = "up"
		w.mu.Unlock()
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
		if err := s.Create(t.Context(), newRecord("tr_2", "cs_1"), time.Minute); err == nil {
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

// TestDefect10StrictDecoding: a newer instance's field is no error to an older one.
func TestDefect10StrictDecoding(t *testing.T) { TestStoreUnknownFields(t) }
