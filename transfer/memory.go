package transfer

import (
	"context"
	"maps"
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
	wakes  map[chan string]struct{}
}

// kept is what is kept of a transfer. Its fields are those that the Redis store
// has, so that both treat unknown ones alike.
type kept struct {
	fields map[string]string
	log    []Entry
	steps  map[string]bool
	lease  int64 // until when its owner has it; 0: it is final
	until  int64 // when it is forgotten
}

// NewMemory makes an empty store, which forgets final records after tombstone.
func NewMemory(now func() time.Time, tombstone time.Duration) *Memory {
	return &Memory{now: now, tombstone: tombstone, kept: map[string]*kept{}, byCall: map[string]string{},
		wakes: map[chan string]struct{}{}}
}

// lock returns the time, and forgets what is old. The caller unlocks.
func (m *Memory) lock() int64 {
	m.mu.Lock()
	now := m.now().UnixMilli()
	for id, k := range m.kept {
		if now >= k.until {
			if call := k.fields["call"]; m.byCall[call] == id {
				delete(m.byCall, call)
			}
			delete(m.kept, id)
		}
	}
	return now
}

// Create implements Store.
func (m *Memory) Create(_ context.Context, r *Record, lease time.Duration) error {
	now := m.lock()
	defer m.mu.Unlock()
	if id, busy := m.byCall[r.Call]; busy {
		return &BusyError{id}
	}
	r.begin(now)
	k := &kept{fields: r.store(), steps: map[string]bool{}, lease: now + lease.Milliseconds(),
		until: now + keepLive.Milliseconds()}
	k.log = append(k.log, r.entry(create))
	m.kept[r.ID], m.byCall[r.Call] = k, r.ID
	m.wake(r.ID)
	return nil
}

// begin sets what a new record begins with.
func (r *Record) begin(now int64) {
	r.State, r.Version, r.Fence, r.At = Requested, 1, 1, AtAgent
	r.Created, r.Updated, r.Due = now, now, now+times[Requested].Milliseconds()
}

func (r *Record) entry(kind Kind) Entry {
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
	r, err := load(k.fields)
	return r, now, err
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
	is, err := load(k.fields)
	if err != nil {
		return err
	}
	if is.Version != before.Version || is.Fence != before.Fence {
		return ErrConflict
	}
	maps.Copy(k.fields, changes(before, after))
	k.log = append(k.log, after.entry(kind))
	k.until = max(k.until, now+keepLive.Milliseconds())
	if after.State.Final() {
		k.lease, k.until = 0, now+m.tombstone.Milliseconds()
		if m.byCall[after.Call] == after.ID {
			delete(m.byCall, after.Call)
		}
	}
	m.wake(after.ID)
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
	case k.fields["fence"] != r.store()["fence"]:
		return false, ErrConflict
	case k.steps[step]:
		return false, nil
	}
	k.steps[step] = true
	return true, nil
}

// Renew implements Store.
func (m *Memory) Renew(_ context.Context, r *Record, lease time.Duration) (bool, error) {
	now := m.lock()
	defer m.mu.Unlock()
	k := m.kept[r.ID]
	if k == nil || k.lease == 0 || k.fields["fence"] != r.store()["fence"] {
		return false, nil
	}
	k.lease, k.until = now+lease.Milliseconds(), now+keepLive.Milliseconds()
	return true, nil
}

// Claim implements Store.
func (m *Memory) Claim(_ context.Context, owner string, lease time.Duration, limit int) ([]*Record, error) {
	now := m.lock()
	defer m.mu.Unlock()
	var list []*Record
	for _, k := range m.kept {
		if k.lease == 0 || k.lease > now || len(list) >= limit {
			continue
		}
		before, err := load(k.fields)
		if err != nil {
			return list, err
		}
		after := before.claim(owner)
		after.Updated = now
		maps.Copy(k.fields, changes(before, after))
		k.log = append(k.log, after.entry(claimed))
		k.lease, k.until = now+lease.Milliseconds(), now+keepLive.Milliseconds()
		m.wake(after.ID)
		list = append(list, after)
	}
	return list, nil
}

// claim is a record with a new owner.
func (r *Record) claim(owner string) *Record {
	c := r.copy()
	c.Owner, c.Fence, c.Version = owner, r.Fence+1, r.Version+1
	return c
}

// Wakes implements Store.
func (m *Memory) Wakes(ctx context.Context) <-chan string {
	c := make(chan string, 64)
	m.mu.Lock()
	m.wakes[c] = struct{}{}
	m.mu.Unlock()
	context.AfterFunc(ctx, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.wakes, c)
		close(c)
	})
	return c
}

// wake tells of a change. m.mu is held.
func (m *Memory) wake(id string) {
	for c := range m.wakes {
		select {
		case c <- id:
		default:
		}
	}
}
