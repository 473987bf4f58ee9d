package transfer

import (
	"cmp"
	"context"
	crypto "crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Carrier does what a transfer needs done at the carrier. Methods return when ctx ends.
// What has been done already is no error. None repeats by itself what the carrier may
// have done: Dial never is, and before another Join its effect is looked for (Where).
type Carrier interface {
	// Dial calls the destination and returns the carrier's id of the leg. The
	// error is a *DialError where it is known what came of it.
	Dial(ctx context.Context, r *Record) (leg string, err error)
	// Join moves the caller to the destination: into the room or, blind, to the
	// number. The error is ErrGone where the caller has hung up.
	Join(ctx context.Context, r *Record) error
	// Hangup ends the destination's leg.
	Hangup(ctx context.Context, r *Record) error
	// Settle does with the caller what r.Disposition says, unless it finds that done
	// already. The error is ErrGone where the caller has hung up.
	Settle(ctx context.Context, r *Record) error
	// GiveUp tells a caller for whom nothing else can be done so, and ends the call.
	GiveUp(ctx context.Context, r *Record) error
	// Leg asks how the destination's leg is. Caller asks whether the caller has hung
	// up: an event without a Kind says nothing new.
	Leg(ctx context.Context, r *Record) ([]Event, error)
	Caller(ctx context.Context, r *Record) (Event, error)
	// Where finds out where both are, by whatever the bridge and the carrier know.
	Where(ctx context.Context, r *Record) (Whereabouts, error)
	// Changed is told of each entry of the log, in order, some perhaps again. It
	// must not block.
	Changed(r *Record, e Entry)
}

// Whereabouts say where caller and destination are.
type Whereabouts struct {
	Caller Place // AtAgent, InRoom or Away; empty: it is not known
	LegIn  bool  // the destination is in the room
}

// ErrGone is the error of a leg that has ended.
var ErrGone = errors.New("transfer: the leg has ended")

// DialError tells why the destination is not called.
type DialError struct {
	Reason string
	Unsure bool // or whether it is called all the same
	Err    error
}

func (e *DialError) Error() string { return e.Err.Error() }

// Unwrap returns the underlying error.
func (e *DialError) Unwrap() error { return e.Err }

// Config of a Manager. Every field must be set; Defaults has the usual times.
type Config struct {
	Instance string        // unique among those that share the store
	Lease    time.Duration // how long a dead owner keeps its transfers
	Poll     time.Duration // between questions to the carrier while a phone rings; ten times that later
	Look     time.Duration // how often a change is looked for of which no word has come
	Retry    time.Duration // before what has failed is tried again
	Keep     time.Duration // how long the store keeps what is over; 0: Tombstone
}

// Defaults are the times for real carriers.
var Defaults = Config{Lease: 10 * time.Second, Poll: 5 * time.Second, Look: time.Second, Retry: time.Second}

// storeTime is how long a store may take to answer.
const storeTime = 2 * time.Second

// claimMost is how many transfers are taken over at once.
const claimMost = 100

// Manager moves transfers on. Its methods may be called at the same time.
type Manager struct {
	store   Store
	carrier Carrier
	cfg     Config
	log     *slog.Logger

	begun   chan struct{} // closed when Run begins
	mu      sync.Mutex
	ctx     context.Context // of Run; nil before and after
	owned   map[string]*owned
	waiting map[string]map[chan struct{}]struct{} // by transfer
	stirred chan struct{}                         // closed when an owned transfer changes, and made anew
	drivers sync.WaitGroup
}

// owned is a transfer that this instance acts for.
type owned struct {
	r      *Record      // as it was when this instance began to
	state  atomic.Value // State, as it was last seen
	stop   context.CancelFunc
	driver *driver
}

func (o *owned) seen() State {
	s, _ := o.state.Load().(State)
	return s
}

// NewManager makes a manager; it acts while Run does.
func NewManager(store Store, carrier Carrier, cfg Config, log *slog.Logger) *Manager {
	cfg.Keep = cmp.Or(cfg.Keep, Tombstone)
	return &Manager{store: store, carrier: carrier, cfg: cfg, log: log, owned: map[string]*owned{},
		waiting: map[string]map[chan struct{}]struct{}{}, stirred: make(chan struct{}), begun: make(chan struct{})}
}

// Run acts for the transfers of this instance, and takes over those of dead ones,
// until ctx ends. It is called once.
func (m *Manager) Run(ctx context.Context) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	m.mu.Lock()
	m.ctx = ctx
	m.mu.Unlock()
	close(m.begun)
	var group sync.WaitGroup
	group.Go(func() {
		for id := range m.store.Wakes(ctx, m.cfg.Instance) {
			m.wake(id)
		}
	})
	tick := time.NewTicker(m.cfg.Lease / 3)
	defer tick.Stop()
	for ctx.Err() == nil {
		m.renew(ctx)
		m.claim(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	m.mu.Lock()
	m.ctx = nil
	m.mu.Unlock()
	m.drivers.Wait()
	one, stopOne := context.WithTimeout(context.Background(), storeTime/4)
	defer stopOne()
	if err := m.store.Release(one, m.cfg.Instance); err != nil { // others need not wait for the lease
		m.log.Debug("the lease of the transfers is left to run out", "err", err)
	}
	m.mu.Lock()
	clear(m.owned)
	m.mu.Unlock()
	group.Wait()
}

// renew keeps what this instance owns.
func (m *Manager) renew(ctx context.Context) {
	ctx, stop := context.WithTimeout(ctx, storeTime)
	defer stop()
	if err := m.store.Renew(ctx, m.cfg.Instance, m.cfg.Lease); err != nil && ctx.Err() == nil {
		m.log.Warn("the lease of the transfers is not renewed", "err", err)
	}
}

// claim takes over what nobody acts for.
func (m *Manager) claim(ctx context.Context) {
	ctx, stop := context.WithTimeout(ctx, 2*storeTime)
	defer stop()
	list, err := m.store.Claim(ctx, m.cfg.Instance, claimMost)
	for _, r := range list {
		m.log.Warn("transfer taken over", "transfer", r.ID, "session", r.Call, "state", r.State, "fence", r.Fence)
		m.own(r, r.Version, false)
	}
	if err != nil && ctx.Err() == nil {
		m.log.Debug("transfers cannot be looked for", "err", err)
	}
}

// own begins to act for a transfer, of whose log all up to a version has been told. One in
// doubt may not be stored; if it is, it is canceled.
func (m *Manager) own(r *Record, told int64, doubt bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ctx == nil {
		return
	}
	if before := m.owned[r.ID]; before != nil {
		before.stop()
	}
	ctx, stop := context.WithCancel(m.ctx)
	o := &owned{r: r, stop: stop, driver: m.driver(r)}
	o.state.Store(r.State)
	m.owned[r.ID] = o
	o.driver.told, o.driver.doubt = told, doubt
	o.driver.seen = func(s State) {
		o.state.Store(s)
		m.mu.Lock()
		m.stir()
		m.mu.Unlock()
	}
	m.drivers.Go(func() {
		defer stop()
		for !o.driver.guarded(ctx) { // what it does is a function of the record: it begins again
			select {
			case <-time.After(m.cfg.Lease):
			case <-ctx.Done():
			}
		}
		m.finished(ctx, o)
	})
}

// finished lets a transfer go whose driver is at its end. Run lets go of those that are left.
func (m *Manager) finished(ctx context.Context, o *owned) {
	m.mu.Lock()
	last := m.owned[o.r.ID] == o && ctx.Err() == nil
	if last {
		delete(m.owned, o.r.ID)
		m.stir()
	}
	m.mu.Unlock()
	if last {
		ctx, stop := context.WithTimeout(ctx, storeTime)
		defer stop()
		m.store.Finished(ctx, m.cfg.Instance, o.r.ID)
	}
}

// stir tells that an owned transfer has changed. It is called with mu held.
func (m *Manager) stir() {
	close(m.stirred)
	m.stirred = make(chan struct{})
}

// WaitSettled waits until nothing is Unsettled.
func (m *Manager) WaitSettled(ctx context.Context) error {
	for {
		m.mu.Lock()
		stirred := m.stirred
		m.mu.Unlock()
		if len(m.Unsettled()) == 0 {
			return nil
		}
		select {
		case <-stirred:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Unsettled are the ids of the transfers that this instance acts for and that are
// neither bridged nor over.
func (m *Manager) Unsettled() (ids []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, o := range m.owned {
		if s := o.seen(); s != Bridged && !s.Final() {
			ids = append(ids, id)
		}
	}
	return ids
}

// Owned is the number of transfers that this instance acts for.
func (m *Manager) Owned() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.owned)
}

// ErrStopped is the error of a manager that does not run.
var ErrStopped = errors.New("transfer: the bridge stops, or has not begun")

// Start begins a transfer; this instance acts for it. Nothing is asked of the
// carrier before it is stored.
func (m *Manager) Start(ctx context.Context, req Request) (*Record, error) {
	ctx, stop := context.WithTimeout(ctx, storeTime)
	defer stop()
	select {
	case <-m.begun:
	case <-ctx.Done():
		return nil, ErrStopped
	}
	m.mu.Lock()
	running := m.ctx != nil
	m.mu.Unlock()
	if !running {
		return nil, ErrStopped
	}
	r := &Record{ID: NewID(req.Call), Request: req, Room: "vb-" + random(), Nonce: random(), Owner: m.cfg.Instance}
	err := m.store.Create(ctx, r)
	var busy *BusyError
	switch {
	case errors.As(err, &busy):
		return nil, err
	case err != nil: // it may be stored all the same: nobody wants it then
		r.Begin(time.Now().UnixMilli())
		m.own(r, 0, true)
		return nil, err
	}
	m.own(r.copy(), 0, false)
	return r, nil
}

// NewID makes the id of a transfer of a call, which holds that of the call: whoever knows
// one knows where a store keeps it.
func NewID(call string) string { return "tr_" + CallPart(call) + "_" + random()[:10] }

// CallPart is the id of a call as it stands in those of its transfers.
func CallPart(call string) string {
	return strings.ReplaceAll(strings.TrimPrefix(call, "cs_"), "_", "-")
}

// random is unguessable.
func random() string { return strings.ToLower(crypto.Text()) }

// HandleEvent lets something happen to a transfer. moved is false where it changes
// nothing; the record is as it is then.
func (m *Manager) HandleEvent(ctx context.Context, id string, ev Event) (r *Record, moved bool, err error) {
	return m.apply(ctx, id, ev, 0)
}

// apply lets an event happen, for the owner of that fence; 0: for anybody.
func (m *Manager) apply(ctx context.Context, id string, ev Event, fence int64) (*Record, bool, error) {
	ctx, stop := context.WithTimeout(ctx, storeTime)
	defer stop()
	for try := 0; ; try++ {
		before, now, err := m.store.Load(ctx, id)
		if err != nil {
			return nil, false, err
		}
		before.Now = now
		if fence != 0 && before.Fence != fence {
			return before, false, ErrConflict
		}
		after, moved := before.Apply(ev, now)
		if !moved {
			return before, false, nil
		}
		err = m.store.Move(ctx, before, after, ev.Kind)
		switch {
		case err == nil:
			after.Now = now
			m.know(after)
			m.wake(id)
			if after.Owner != m.cfg.Instance {
				m.store.Wake(ctx, after)
			}
			return after, true, nil
		case !errors.Is(err, ErrConflict):
			return nil, false, err
		}
		select { // somebody else has moved it
		case <-time.After(time.Duration(rand.IntN(1+min(try, 20))) * time.Millisecond):
		case <-ctx.Done():
			return nil, false, fmt.Errorf("transfer: %s: %w", ev.Kind, ctx.Err())
		}
	}
}

// know gives the driver of a transfer what has been stored, in case the store loses it.
func (m *Manager) know(r *Record) {
	m.mu.Lock()
	defer m.mu.Unlock()
	o := m.owned[r.ID]
	if o == nil || o.driver.fence != r.Fence {
		return
	}
	if known := o.driver.latest.Load(); known == nil || known.Version < r.Version {
		o.driver.latest.Store(r)
	}
}

// Get returns a transfer.
func (m *Manager) Get(ctx context.Context, id string) (*Record, error) {
	ctx, stop := context.WithTimeout(ctx, storeTime)
	defer stop()
	return m.load(ctx, id)
}

func (m *Manager) load(ctx context.Context, id string) (*Record, error) {
	r, now, err := m.store.Load(ctx, id)
	if err == nil {
		r.Now = now
	}
	return r, err
}

// ByCall returns the live transfer of a call; nil: it has none.
func (m *Manager) ByCall(ctx context.Context, call string) (*Record, error) {
	ctx, stop := context.WithTimeout(ctx, storeTime)
	defer stop()
	id, err := m.store.ByCall(ctx, call)
	if err != nil || id == "" {
		return nil, err
	}
	r, err := m.load(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	return r, err
}

// Cancel ends a transfer that is not over; by says who wants that.
func (m *Manager) Cancel(ctx context.Context, id, by string) (*Record, bool, error) {
	return m.HandleEvent(ctx, id, Event{Kind: Cancel, Reason: by})
}

// Wait waits until a transfer is as it should be, or over, and gives it. It misses
// nothing, whenever it is called.
func (m *Manager) Wait(ctx context.Context, id string, enough func(*Record) bool) (*Record, error) {
	woken, stop := m.listen(id)
	defer stop()
	for {
		r, err := m.Get(ctx, id)
		switch {
		case err != nil && (errors.Is(err, ErrNotFound) || ctx.Err() != nil):
			return nil, err
		case err == nil && (r.State.Final() || enough(r)):
			return r, nil
		}
		select {
		case <-woken:
		case <-time.After(m.cfg.Look): // a word may have been lost
		case <-ctx.Done():
			return r, ctx.Err()
		}
	}
}

// listen returns a channel that is told of changes of a transfer.
func (m *Manager) listen(id string) (woken <-chan struct{}, stop func()) {
	c := make(chan struct{}, 1)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.waiting[id] == nil {
		m.waiting[id] = map[chan struct{}]struct{}{}
	}
	m.waiting[id][c] = struct{}{}
	return c, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.waiting[id], c)
		if len(m.waiting[id]) == 0 {
			delete(m.waiting, id)
		}
	}
}

func (m *Manager) wake(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for c := range m.waiting[id] {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}
