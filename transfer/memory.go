package transfer

import (
	"context"
	"sync"
	"time"
)

// Memory is the Store of a single instance.
type Memory struct {
	now       func() time.Time
	tombstone time.Duration

	mu     sync.Mutex
	kept   map[string]*kept
	byCall map[string]string
	over   []*kept                // final ones, in the order in which they are forgotten
	leases map[string]int64       // until when each owner has what it has
	wakes  map[string]chan string // by owner
}

// kept is what is kept of a transfer.
type kept struct {
	r     *Record
	log   []Entry
	steps map[string]bool
	until int64 // when it is forgotten; 0: it is not over
}

// NewMemory makes an empty store, which forgets final records after tombstone.
func NewMemory(now func() time.Time, tombstone time.Duration) *Memory {
	return &Memory{now: now, tombstone: tombstone, kept: map[string]*kept{}, byCall: map[string]string{},
		leases: map[string]int64{}, wakes: map[string]chan string{}}
}

// lock returns the time, and forgets what is old. The caller unlocks.
func (m *Memory) lock() int64 {
	m.mu.Lock()
	now := m.now().UnixMilli()
	for len(m.over) > 0 && now >= m.over[0].until {
		delete(m.kept, m.over[0].r.ID)
		m.over = m.over[1:]
	}
	return now
}

// Create implements Store.
func (m *Memory) Create(_ context.Context, r *Record) error {
	now := m.lock()
	defer m.mu.Unlock()
	if id, busy := m.byCall[r.Call]; busy && m.kept[id] != nil {
		return &BusyError{id}
	}
	r.Begin(now)
	k := &kept{r: r.copy(), steps: map[string]bool{}}
	k.log = append(k.log, r.Entry(Create))
	m.kept[r.ID], m.byCall[r.Call] = k, r.ID
	return nil
}

// Begin sets what a new record begins with, at a time of the store's.
func (r *Record) Begin(now int64) {
	r.State, r.Version, r.Fence, r.At = Requested, 1, 1, AtAgent
	r.Created, r.Updated, r.Due = now, now, now+times[Requested].Milliseconds()
}

// Entry is the line of the log for what has made the record what it is.
func (r *Record) Entry(kind Kind) Entry {
	return Entry{r.Version, kind, r.State, r.Reason, r.Fence, r.Updated}
}

// Load implements Store.
func (m *Memory) Load(_ context.Context, id string) (*Record, int64, error) {
	now := m.lock()
	defer m.mu.Unlock()
	k := m.kept[id]
	if k == nil {
		return nil, now, ErrNotFound
	}
	return k.r.copy(), now, nil
}

// ByCall implements Store.
func (m *Memory) ByCall(_ context.Context, call string) (string, error) {
	m.lock()
	defer m.mu.Unlock()
	return m.byCall[call], nil
}

// Move implements Store.
func (m *Memory) Move(_ context.Context, before, after *Record, kind Kind) error {
	now := m.lock()
	defer m.mu.Unlock()
	k := m.kept[before.ID]
	if k == nil {
		return ErrNotFound
	}
	if k.r.Version != before.Version || k.r.Fence != before.Fence {
		return ErrConflict
	}
	k.r = after.copy()
	k.log = append(k.log, after.Entry(kind))
	m.end(k, after, now)
	return nil
}

// end forgets a final record after a while. m.mu is held.
func (m *Memory) end(k *kept, r *Record, now int64) {
	if !r.State.Final() {
		return
	}
	k.until = now + m.tombstone.Milliseconds()
	m.over = append(m.over, k)
	if m.byCall[r.Call] == r.ID {
		delete(m.byCall, r.Call)
	}
}

// Restore implements Store.
func (m *Memory) Restore(_ context.Context, r *Record) error {
	now := m.lock()
	defer m.mu.Unlock()
	k := m.kept[r.ID]
	if k == nil {
		k = &kept{steps: map[string]bool{}}
		m.kept[r.ID] = k
	} else if k.r.Fence > r.Fence || k.r.Fence == r.Fence && k.r.Version >= r.Version {
		return ErrConflict
	}
	k.r = r.copy()
	k.log = append(k.log, r.Entry(Restored))
	if _, busy := m.byCall[r.Call]; !busy && !r.State.Final() {
		m.byCall[r.Call] = r.ID
	}
	m.end(k, r, now)
	return nil
}

// Log implements Store.
func (m *Memory) Log(_ context.Context, id string, after int64) ([]Entry, error) {
	m.lock()
	defer m.mu.Unlock()
	k := m.kept[id]
	if k == nil {
		return nil, ErrNotFound
	}
	var list []Entry
	for _, e := range k.log {
		if e.Version > after {
			list = append(list, e)
		}
	}
	return list, nil
}

// Step implements Store.
func (m *Memory) Step(_ context.Context, r *Record, step string) (bool, error) {
	m.lock()
	defer m.mu.Unlock()
	k := m.kept[r.ID]
	switch {
	case k == nil:
		return false, ErrNotFound
	case k.r.Fence != r.Fence:
		return false, ErrConflict
	case k.steps[step]:
		return false, nil
	}
	k.steps[step] = true
	return true, nil
}

// Renew implements Store.
func (m *Memory) Renew(_ context.Context, owner string, lease time.Duration) error {
	now := m.lock()
	defer m.mu.Unlock()
	m.leases[owner] = now + lease.Milliseconds()
	return nil
}

// Release implements Store.
func (m *Memory) Release(_ context.Context, owner string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.leases[owner] = 0
	return nil
}

// Finished implements Store: the owner is in the record alone.
func (m *Memory) Finished(context.Context, string, string) {}

// Claim implements Store.
func (m *Memory) Claim(_ context.Context, owner string, limit int) ([]*Record, error) {
	now := m.lock()
	defer m.mu.Unlock()
	if len(m.leases) == 1 && m.leases[owner] > now { // it is alone, as most are
		return nil, nil
	}
	var list []*Record
	for _, k := range m.kept {
		if k.until != 0 || m.leases[k.r.Owner] > now || len(list) >= limit {
			continue
		}
		r := k.r.copy()
		r.Owner, r.Fence, r.Version, r.Updated = owner, r.Fence+1, r.Version+1, now
		k.r = r
		k.log = append(k.log, r.Entry(Claimed))
		list = append(list, r.copy())
	}
	return list, nil
}

// Wake implements Store.
func (m *Memory) Wake(_ context.Context, r *Record) {
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case m.wakes[r.Owner] <- r.ID:
	default:
	}
}

// Wakes implements Store.
func (m *Memory) Wakes(ctx context.Context, owner string) <-chan string {
	c := make(chan string, 64)
	m.mu.Lock()
	m.wakes[owner] = c
	m.mu.Unlock()
	context.AfterFunc(ctx, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.wakes, owner)
		close(c)
	})
	return c
}
