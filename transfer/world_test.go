package transfer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// world is a carrier with a caller and a destination, and all that can go wrong. It
// implements Carrier.
type world struct {
	mu     sync.Mutex
	now    time.Time
	caller string // agent, room, away, gone
	leg    string // "", ringing, up, down
	legIn  bool   // it has got the document that puts it into the room
	harm   string // what a command that came twice has done
	began  time.Time
	dials  int
	dial   string // what comes of a dial: good, refused, lost (placed, but the answer is lost), never (neither)
	joins  int
	// pending are reports on their way.
	pending []Event
	// crash counts down to the call in which the owner dies, before or after its
	// effect; fail makes calls fail without dying.
	crash, after int
	fail         int
	safe         bool // nobody dies: what the store has lost only the owner knows
	lose         int  // calls whose effect is there, but whose answer is lost
	refuse       bool // a number that the caller is to be connected to is not taken
	changed      []Entry
}

type crashed struct{}

var errREST = errors.New("the carrier answers with 500")

// call is a call at the carrier, or of the store.
func (w *world) call(effect func() error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.crash > 0 && !w.safe {
		if w.crash--; w.crash == 0 {
			panic(crashed{})
		}
	}
	if w.fail > 0 {
		w.fail--
		return errREST
	}
	err := effect()
	if w.lose > 0 {
		w.lose--
		return errREST
	}
	if w.after > 0 && !w.safe {
		if w.after--; w.after == 0 {
			panic(crashed{})
		}
	}
	return err
}

func (w *world) Dial(context.Context, *Record) (leg string, err error) {
	err = w.call(func() error {
		switch w.dial {
		case "refused":
			return &DialError{Reason: ReasonInvalid, Err: errREST}
		case "never":
			return &DialError{Unsure: true, Err: errREST}
		}
		w.dials++
		w.leg, w.began = "ringing", w.now
		w.pending = append(w.pending, Event{Kind: Rang, Leg: "L1"})
		if w.dial == "lost" {
			return &DialError{Unsure: true, Err: errREST}
		}
		leg = "L1"
		return nil
	})
	return leg, err
}

func (w *world) Join(_ context.Context, r *Record) error {
	return w.call(func() error {
		if w.caller == "gone" {
			return ErrGone
		}
		if w.caller != "agent" { // it leaves the room, which ends it, or a phone rings twice
			w.harm = "moved again from " + w.caller
		}
		w.joins++
		w.caller = "room"
		if r.Mode == Blind {
			w.caller = "away"
		}
		w.meet()
		return nil
	})
}

// set changes how it is.
func (w *world) set(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
}

// meet reports who is in the room.
func (w *world) meet() {
	if w.caller == "room" {
		w.pending = append(w.pending, Event{Kind: CallerIn})
	}
	if w.leg == "up" && w.legIn {
		w.pending = append(w.pending, Event{Kind: LegIn, Leg: "L1"})
	}
}

func (w *world) Hangup(_ context.Context, r *Record) error {
	return w.call(func() error {
		if r.Leg != "L1" {
			return fmt.Errorf("no leg %q", r.Leg)
		}
		if w.leg == "ringing" || w.leg == "up" {
			w.leg = "down"
			w.pending = append(w.pending, Event{Kind: LegDown, Leg: "L1", Reason: ReasonDestination})
		}
		return nil
	})
}

func (w *world) Settle(_ context.Context, r *Record) error {
	return w.call(func() error {
		if w.caller == "gone" {
			return ErrGone
		}
		switch r.Disposition() {
		case Resume:
			w.caller = "agent"
		case Hangup:
			w.caller = "gone"
		default:
			if w.refuse { // the number is not taken
				return &DialError{Reason: ReasonInvalid, Err: errREST}
			}
			if w.caller == "number" && r.Mode != Blind { // whom the caller talks to is rung again
				w.harm = "connected again"
			}
			w.caller = "number"
		}
		return nil
	})
}

func (w *world) GiveUp(context.Context, *Record) error {
	return w.call(func() error { w.caller = "gone"; return nil })
}

func (w *world) Leg(context.Context, *Record) (evs []Event, err error) {
	err = w.call(func() error {
		switch w.leg {
		case "ringing":
			evs = []Event{{Kind: Rang}}
		case "up":
			evs = []Event{{Kind: Picked}}
		case "down":
			evs = []Event{{Kind: LegDown, Reason: ReasonNoAnswer}}
		}
		return nil
	})
	return evs, err
}

func (w *world) Where(context.Context, *Record) (at Whereabouts, err error) {
	err = w.call(func() error {
		at.LegIn = w.leg == "up" && w.legIn
		at.Caller = map[string]Place{"agent": AtAgent, "room": InRoom, "away": Away, "number": Away}[w.caller]
		return nil
	})
	return at, err
}

func (w *world) Caller(context.Context, *Record) (ev Event, err error) {
	err = w.call(func() error {
		if w.caller == "gone" {
			ev = Event{Kind: CallerLeft}
		}
		return nil
	})
	return ev, err
}

func (w *world) Changed(_ *Record, e Entry) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.changed = append(w.changed, e)
}

// crashing is a store whose calls may be the last ones of their instance.
type crashing struct {
	Store
	w *world
}

func (c crashing) Load(ctx context.Context, id string) (r *Record, now int64, err error) {
	if e := c.w.call(func() error { r, now, err = c.Store.Load(ctx, id); return nil }); e != nil {
		return nil, 0, e
	}
	return r, now, err
}

func (c crashing) Move(ctx context.Context, before, after *Record, kind Kind) error {
	return c.w.call(func() error { return c.Store.Move(ctx, before, after, kind) })
}

func (c crashing) Step(ctx context.Context, r *Record, step string) (first bool, err error) {
	if e := c.w.call(func() error { first, err = c.Store.Step(ctx, r, step); return nil }); e != nil {
		return false, e
	}
	return first, err
}

// run is one transfer in a world.
type run struct {
	t     *rapid.T
	w     *world
	store Store // as it is
	m     *Manager
	d     *driver // nil: its owner has crashed
	id    string
	names int
	said  bool // the destination has answered the question
}

const testLease = 10 * time.Second

func newRun(t *rapid.T, store Store, w *world, req Request) *run {
	r := &run{t: t, w: w, store: store}
	r.m = NewManager(crashing{store, w}, w, Defaults, slog.New(slog.DiscardHandler))
	rec := &Record{ID: "tr_1", Request: req, Room: "vb-1", Nonce: "n", Owner: "a"}
	if err := store.Renew(context.Background(), rec.Owner, testLease); err != nil {
		t.Fatal(err)
	}
	if err := store.Create(context.Background(), rec); err != nil {
		t.Fatal(err)
	}
	r.id = rec.ID
	r.own(rec)
	return r
}

// own lets this instance act for the transfer.
func (r *run) own(rec *Record) {
	r.d = r.m.driver(rec)
	r.m.owned[rec.ID] = &owned{r: rec, driver: r.d}
}

// survive runs something in which the owner may die.
func (r *run) survive(do func()) (alive bool) {
	defer func() {
		if e := recover(); e != nil {
			if _, ok := e.(crashed); !ok {
				panic(e)
			}
			alive = false
		}
	}()
	do()
	return true
}

// step lets the owner do what is due.
func (r *run) step() {
	if r.d == nil {
		return
	}
	if !r.survive(func() {
		if r.d.step(context.Background()) < 0 {
			r.d = nil
		}
	}) {
		r.d = nil
	}
	if r.w.safe {
		rec, _, err := r.store.Load(context.Background(), r.id)
		r.w.safe = r.d != nil && (err != nil || rec.Version < r.d.last.Version)
	}
}

// claim lets another instance take over, if the lease is over.
func (r *run) claim() {
	r.names++
	name := fmt.Sprint("owner", r.names)
	err := r.store.Renew(context.Background(), name, testLease)
	if err != nil {
		r.t.Fatal(err)
	}
	list, err := r.store.Claim(context.Background(), name, 10)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, rec := range list {
		r.own(rec)
	}
}

// deliver brings a report to whatever instance; one that fails is sent again.
func (r *run) deliver(i int, keep bool) {
	ev := r.w.pending[i]
	r.survive(func() {
		_, _, err := r.m.HandleEvent(context.Background(), r.id, ev)
		if err == nil && !keep {
			r.w.pending = slices.Delete(r.w.pending, i, i+1)
		}
	})
}

// answer is the destination picking up: the carrier asks what to do with it, and
// is answered as the webhooks do.
func (r *run) answer() {
	if r.w.leg != "ringing" {
		return
	}
	r.w.leg = "up"
	r.w.pending = append(r.w.pending, Event{Kind: Picked, Leg: "L1"})
	ok := r.survive(func() {
		rec, _, err := r.m.HandleEvent(context.Background(), r.id, Event{Kind: Picked, Leg: "L1"})
		switch {
		case err != nil: // the carrier gives up on the leg
			r.w.leg = "down"
		case rec.State.Final() || rec.State == Compensating:
			r.w.leg = "down" // the document says so
		case rec.Mode == Attended:
			if _, _, err := r.m.HandleEvent(context.Background(), r.id, Event{Kind: Brief}); err != nil {
				r.w.leg = "down"
			}
		case rec.Agent != "":
			r.party()
		default:
			r.w.legIn = true
			r.w.meet()
		}
	})
	if !ok {
		r.w.leg = "down"
	}
	if r.w.leg == "down" {
		r.w.pending = append(r.w.pending, Event{Kind: LegDown, Leg: "L1", Reason: ReasonDestination})
	}
}

// party is the destination coming to the bridge, where the agent stays.
func (r *run) party() {
	for _, ev := range []Event{{Kind: Bridge}, {Kind: Moved, Place: Here}, {Kind: Joined}} {
		if _, _, err := r.m.HandleEvent(context.Background(), r.id, ev); err != nil {
			return
		}
	}
}

// reply is the destination's answer to the question whether it takes the call.
func (r *run) reply(yes bool) {
	if r.w.leg != "up" || r.said {
		return
	}
	r.said = true
	ev := Event{Kind: Decline}
	if yes {
		ev.Kind = Accept
	}
	r.survive(func() {
		if rec, _, err := r.m.HandleEvent(context.Background(), r.id, ev); err != nil || rec.State.Final() || !yes {
			r.hangup(ReasonDestination)
		} else if rec.Agent != "" {
			r.party()
		} else {
			r.w.legIn = true
			r.w.meet()
		}
	})
}

func (r *run) hangup(reason string) {
	if r.w.leg == "ringing" || r.w.leg == "up" {
		r.w.leg = "down"
		r.w.pending = append(r.w.pending, Event{Kind: LegDown, Leg: "L1", Reason: reason})
	}
}

func (r *run) advance(d time.Duration, mem *Memory) {
	r.w.now = r.w.now.Add(d)
	if r.w.leg == "ringing" && r.w.now.Sub(r.w.began) > 22*time.Second {
		r.hangup(ReasonNoAnswer)
	}
	if mem == nil {
		return
	}
}

// copy is a store as it is now.
func (m *Memory) copy() *Memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := NewMemory(m.now, m.tombstone)
	for id, k := range m.kept {
		one := *k
		one.r, one.steps, one.log = k.r.copy(), maps.Clone(k.steps), slices.Clone(k.log)
		c.kept[id] = &one
		if k.until != 0 {
			c.over = append(c.over, &one)
		}
	}
	c.byCall = maps.Clone(m.byCall)
	return c
}

// become has the store hold what another one does: a failover to a replica that lagged
// behind.
func (m *Memory) become(old *Memory) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.kept, m.byCall, m.over = old.kept, old.byCall, old.over
}

// TestAnyHistory: whatever happens in whatever order, a transfer ends, nobody is
// left alone, nobody is called twice, and nothing is left (I1 to I20).
func TestAnyHistory(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{now: time.Unix(1e9, 0), caller: "agent",
			dial: rapid.SampledFrom([]string{"good", "good", "good", "refused", "lost", "never"}).Draw(t, "dial")}
		mem := NewMemory(func() time.Time { return w.now }, 24*time.Hour)
		req := request()
		req.Mode = rapid.SampledFrom([]Mode{Conference, Conference, Attended, Blind}).Draw(t, "mode")
		if req.Mode != Blind && rapid.IntRange(0, 2).Draw(t, "agent") == 0 {
			req.Agent = AgentStays
		}
		req.OnEnd = rapid.SampledFrom([]string{Hangup, Resume, ""}).Draw(t, "on_end")
		req.Detect = rapid.Bool().Draw(t, "detect")
		if rapid.Bool().Draw(t, "on_fail") {
			req.OnFail = map[string]string{"": rapid.SampledFrom([]string{Hangup, Resume, "+15550100777"}).Draw(t,
				"disposition")}
		}
		w.refuse = rapid.Bool().Draw(t, "refuse")
		r := newRun(t, mem, w, req)
		var old *Memory // as it was, for a failover that goes back in time
		steps := rapid.IntRange(0, 40).Draw(t, "steps")
		for range steps {
			switch what := rapid.IntRange(0, 16).Draw(t, "what"); what {
			case 0, 1, 2, 3:
				r.step()
			case 4, 5:
				if n := len(w.pending); n > 0 {
					r.deliver(rapid.IntRange(0, n-1).Draw(t, "report"), rapid.Bool().Draw(t, "twice"))
				}
			case 6:
				if n := len(w.pending); n > 0 { // lost
					i := rapid.IntRange(0, n-1).Draw(t, "report")
					w.pending = slices.Delete(w.pending, i, i+1)
				}
			case 7:
				r.answer()
			case 8:
				r.hangup(rapid.SampledFrom([]string{ReasonBusy, ReasonDeclined, ReasonDestination}).Draw(t, "reason"))
			case 9:
				r.reply(rapid.Bool().Draw(t, "yes"))
			case 10:
				if rapid.IntRange(0, 3).Draw(t, "really") == 0 && w.caller != "gone" {
					w.caller = "gone"
					w.pending = append(w.pending, Event{Kind: CallerLeft})
				}
			case 11:
				r.advance(time.Duration(rapid.IntRange(1, 15000).Draw(t, "ms"))*time.Millisecond, mem)
				if r.d != nil && (rapid.IntRange(0, 2).Draw(t, "renewed") > 0 || w.safe) {
					_ = mem.Renew(t.Context(), r.d.last.Owner, testLease)
				}
				if !w.safe { // after a failover nobody is taken to be dead for a while
					r.claim()
				}
			case 12:
				switch rapid.IntRange(0, 3).Draw(t, "fault") {
				case 3:
					w.lose = rapid.IntRange(1, 3).Draw(t, "lose")
				case 0:
					w.crash = rapid.IntRange(1, 6).Draw(t, "crash")
				case 1:
					w.after = rapid.IntRange(1, 6).Draw(t, "after")
				case 2:
					w.fail = rapid.IntRange(1, 4).Draw(t, "fail")
				}
			case 13:
				if rapid.IntRange(0, 4).Draw(t, "really") == 0 {
					r.survive(func() { _, _, _ = r.m.Cancel(context.Background(), r.id, ReasonAPI) })
				}
			case 15:
				old = mem.copy()
			case 16:
				// With its owner goes what a store has lost: that is one fault too many.
				if old != nil && r.d != nil && rapid.IntRange(0, 2).Draw(t, "really") == 0 {
					mem.become(old)
					old, w.safe = nil, true
				}
			case 14:
				if rapid.IntRange(0, 4).Draw(t, "really") == 0 && w.leg == "up" && req.Detect {
					kind := rapid.SampledFrom([]Kind{Human, Machine}).Draw(t, "who")
					w.pending = append(w.pending, Event{Kind: kind, Leg: "L1"})
				}
			}
		}
		// From here on nothing goes wrong any more, but what was lost stays lost. A
		// conversation is ended by the destination.
		w.crash, w.after, w.fail, w.lose, w.safe = 0, 0, 0, 0, false
		for range 600 {
			rec, _, err := mem.Load(t.Context(), r.id)
			if err != nil {
				t.Fatal(err)
			}
			if rec.State.Final() && len(w.pending) == 0 && w.leg != "ringing" && r.d == nil {
				break
			}
			if rec.State == Bridged && rec.Mode == Blind { // the carrier's own affair: the call ends some time
				w.caller = "gone"
				w.pending = append(w.pending, Event{Kind: CallerLeft})
			}
			for len(w.pending) > 0 {
				r.deliver(0, false)
			}
			if rec.State == Bridged {
				r.hangup(ReasonDestination)
			}
			r.step()
			r.advance(500*time.Millisecond, mem)
			if r.d == nil {
				r.claim()
			} else {
				_ = mem.Renew(t.Context(), r.d.last.Owner, testLease)
			}
		}
		rec, _, err := mem.Load(t.Context(), r.id)
		if err != nil {
			t.Fatal(err)
		}
		log, _ := mem.Log(t.Context(), r.id, 0)
		if !rec.State.Final() {
			t.Fatalf("it never ends: %+v\n%+v", rec, log)
		}
		if w.leg == "up" || w.leg == "ringing" {
			t.Fatalf("an orphan leg is %s: %+v\n%+v", w.leg, rec, log)
		}
		if w.harm != "" {
			t.Fatalf("the caller was lost: %s: %+v\n%+v", w.harm, rec, log)
		}
		if w.dials > 1 {
			t.Fatalf("the destination was called %d times", w.dials)
		}
		if w.caller == "room" {
			t.Fatalf("the caller is alone in the room: %+v\n%+v", rec, log)
		}
		if id, _ := mem.ByCall(t.Context(), rec.Call); id != "" {
			t.Fatal("the call still has a transfer")
		}
		where := map[string]string{"": "agent", Resume: "agent", Hangup: "gone"}[rec.Disposition()]
		if where == "" {
			where = "number"
		}
		if w.caller != where && w.caller != "gone" {
			t.Fatalf("the caller is at %q, want %q: %+v\n%+v", w.caller, where, rec, log)
		}
		if err := replay(log); err != nil {
			t.Fatal(err)
		}
	})
}

// replay holds a log against the table.
func replay(log []Entry) error {
	for i, e := range log[1:] {
		before := log[i]
		to, legal := moves[before.State][e.Kind]
		if e.Kind == Cleared && legal {
			to = e.State
		}
		switch {
		case before.State.Final():
			return fmt.Errorf("%+v after the end", e)
		case e.Kind == Restored && e.Version > before.Version:
		case e.Version != before.Version+1 || e.State != before.State && (!legal || to != e.State):
			return fmt.Errorf("%+v after %+v", e, before)
		}
	}
	return nil
}
