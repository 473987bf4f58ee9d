package cluster

import (
	"context"
	"crypto/rand"
	_ "embed" // the scripts
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// The scripts say what their keys, arguments and answers are.
var (
	//go:embed lua/renew.lua
	renewLua string
	//go:embed lua/forget.lua
	forgetLua string

	renewScript, forgetScript = redis.NewScript(renewLua), redis.NewScript(forgetLua)
)

// Members are the instances that share a database. Each has one lease there, which it
// renews for as long as it lives: whatever the calls and transfers are that it has, their
// owner's life is known by that alone, and what rests costs nothing.
//
// A failover may lose what was written just before. It is noticed by the name that a
// Redis gives its history (master_replid): for one lease nobody is then taken to be dead,
// and whoever keeps things in the database writes them again (Failovers).
type Members struct {
	db    redis.UniversalClient
	key   string
	self  string
	lease time.Duration
	log   *slog.Logger

	up atomic.Bool // the database answers

	mu        sync.Mutex
	until     map[string]time.Time // of each that was ever seen, how long it lives at least
	histories map[string]string    // of each master, by address
	trust     time.Time            // nobody is taken to be dead before
	learned   time.Time            // when the others were last asked for
	failovers int
	warned    bool // that the database may evict keys
}

// DefaultLease is how long a dead instance is taken to live.
const DefaultLease = 10 * time.Second

// NewMembers makes this process a member. The name is for people: what it is known by is
// new in each process, so that one that is started again is not taken for the one before.
func NewMembers(db redis.UniversalClient, prefix, name string, lease time.Duration, log *slog.Logger) *Members {
	return &Members{db: db, key: prefix + "instances", self: name + "." + strings.ToLower(rand.Text()[:8]),
		lease: lease,
		log:   log, until: map[string]time.Time{}, histories: map[string]string{}}
}

// Self is what this instance is known by.
func (m *Members) Self() string { return m.self }

// Lease is how long a dead instance is taken to live.
func (m *Members) Lease() time.Duration { return m.lease }

// Renew keeps this instance a member, and learns of the others.
func (m *Members) Renew(ctx context.Context) error {
	ctx, stop := context.WithTimeout(ctx, m.lease/3)
	defer stop()
	m.compare(ctx)
	list, err := renewScript.Run(ctx, m.db, []string{m.key}, m.self, m.lease.Milliseconds()).Slice()
	m.up.Store(err == nil)
	if err != nil {
		return fmt.Errorf("cluster: lease: %w", err)
	}
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.learned.IsZero() && now.Sub(m.learned) > m.lease {
		m.trust = now.Add(m.lease) // the database was away, for the others perhaps as well
	}
	m.learned = now
	for i := 0; i+1 < len(list); i += 2 {
		name, _ := list[i].(string)
		left, _ := list[i+1].(int64)
		m.until[name] = now.Add(time.Duration(left) * time.Millisecond)
	}
	return nil
}

// Up reports whether the database has answered when it was last asked for the lease.
func (m *Members) Up() bool { return m.up.Load() }

// compare looks whether a master has another history than before, or may evict keys.
func (m *Members) compare(ctx context.Context) {
	var mu sync.Mutex
	found, policies := map[string]string{}, map[string]string{}
	look := func(ctx context.Context, address string, db redis.UniversalClient) error {
		info := db.Info(ctx, "replication", "memory").Val() // nothing is known of one that does not answer
		mu.Lock()
		defer mu.Unlock()
		for line := range strings.Lines(info) {
			switch name, value, _ := strings.Cut(strings.TrimSpace(line), ":"); name {
			case "master_replid":
				found[address] = value
			case "maxmemory_policy":
				policies[address] = value
			}
		}
		return nil
	}
	if c, is := m.db.(*redis.ClusterClient); is {
		_ = c.ForEachMaster(ctx, func(ctx context.Context, one *redis.Client) error {
			return look(ctx, one.Options().Addr, one)
		})
	} else {
		_ = look(ctx, "", m.db)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.warn(policies)
	changed := false
	for address, id := range found {
		before, known := m.histories[address]
		// A master of a cluster that was not known before is one that has taken over.
		changed = changed || known && before != id || !known && len(m.histories) > 0
		m.histories[address] = id
	}
	if changed {
		m.failovers++
		m.trust = time.Now().Add(m.lease)
		m.log.Warn("a failover of the database: what it may have lost is written again")
	}
}

// warn complains once of a database that throws away what it is to keep. m.mu is held.
func (m *Members) warn(policies map[string]string) {
	for _, policy := range policies {
		if policy != "noeviction" && !m.warned {
			m.warned = true
			m.log.Warn("the database may throw live transfers away when its memory is full: set its "+
				"maxmemory-policy to "+
				"noeviction", "policy", policy)
		}
	}
}

// Failovers counts those that were noticed.
func (m *Members) Failovers() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.failovers
}

// Alive reports whether an instance lives, as far as that is known: one that is cut off
// does for as long as its lease.
func (m *Members) Alive(ctx context.Context, name string) bool {
	if name == m.self {
		return true
	}
	m.mu.Lock()
	fresh := time.Since(m.learned) < m.lease/20
	m.mu.Unlock()
	if m.alive(name) {
		return true
	}
	if fresh {
		return false
	}
	if err := m.Renew(ctx); err != nil { // it may have begun just now
		return true // nothing is known: it is not taken to be dead
	}
	return m.alive(name)
}

func (m *Members) alive(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	return now.Before(m.until[name]) || now.Before(m.trust)
}

// Others are the other instances that live.
func (m *Members) Others() (names []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	for _, name := range slices.Sorted(maps.Keys(m.until)) {
		if name != m.self && now.Before(m.until[name]) {
			names = append(names, name)
		}
	}
	return names
}

// Dead are the instances whose lease is over.
func (m *Members) Dead() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if now.Before(m.trust) {
		return nil
	}
	var dead []string
	for _, name := range slices.Sorted(maps.Keys(m.until)) {
		if name != m.self && !now.Before(m.until[name]) {
			dead = append(dead, name)
		}
	}
	return dead
}

// Forget takes note that a dead instance has left nothing to be taken over.
func (m *Members) Forget(ctx context.Context, name string) error {
	if err := forgetScript.Run(ctx, m.db, []string{m.key}, name).Err(); err != nil {
		return fmt.Errorf("cluster: forget: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.until, name)
	return nil
}

// leave gives the lease up: others need not wait for its end.
func (m *Members) leave(ctx context.Context) {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer stop()
	if err := renewScript.Run(ctx, m.db, []string{m.key}, m.self, 0).Err(); err != nil {
		m.log.Debug("the lease of this instance is left to run out", "err", err)
	}
}
