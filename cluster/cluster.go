package cluster

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// Times of a Cluster.
const (
	// keepEntry is how long an entry of the directory outlives its writing: longer than
	// any call. What an instance leaves behind that dies goes then.
	keepEntry = 26 * time.Hour
	// keepNote is how long the last note of a name is kept.
	keepNote = time.Minute
	// writeAgain is how soon the directory is written again after that has failed.
	writeAgain = time.Second
	// firstTime bounds a question that a call waits for; backOff is how long none is
	// asked after one that failed.
	firstTime = 150 * time.Millisecond
	lookTime  = time.Second
	backOff   = 5 * time.Second
)

// writeMost is how many names are written at once.
const writeMost = 500

// Cluster is this instance among others.
type Cluster struct {
	*Members
	db     redis.UniversalClient
	prefix string
	log    *slog.Logger

	mu      sync.Mutex
	has     map[string]string   // names that this instance has, with a note each
	had     map[string]string   // names that it has no more, with what is left to say
	stale   map[string]struct{} // names of either that are still to be written
	wake    chan struct{}       // there are some
	pending map[string]chan<- []byte
	served  map[string]*reply // requests of others, by id, for those that come again

	away   atomic.Int64 // until when the database is taken to be away, Unix nanoseconds
	failed atomic.Int32 // times in a row that it did not answer in time
}

// New makes this instance one among others.
func New(m *Members, prefix string) *Cluster {
	return &Cluster{Members: m, db: m.db, prefix: prefix, log: m.log, has: map[string]string{},
		had: map[string]string{}, stale: map[string]struct{}{}, wake: make(chan struct{}, 1),
		pending: map[string]chan<- []byte{}, served: map[string]*reply{}}
}

// DB is the database that the instances share.
func (c *Cluster) DB() redis.UniversalClient { return c.db }

// Prefix begins all keys.
func (c *Cluster) Prefix() string { return c.prefix }

func (c *Cluster) entry(name string) string   { return c.prefix + "call:{" + name + "}" }
func (c *Cluster) channel(name string) string { return c.prefix + "to:{" + name + "}" }
func (c *Cluster) token(nonce string) string  { return c.prefix + "token:{" + nonce + "}" }

// Handler answers a request of another instance. A request that comes again is not
// handled again, but answered as before.
type Handler func(ctx context.Context, kind string, body json.RawMessage) (any, error)

// Run takes part until ctx ends; requests go to handle.
func (c *Cluster) Run(ctx context.Context, handle Handler) {
	var group sync.WaitGroup
	group.Go(func() { c.listen(ctx, handle) })
	group.Go(func() { c.tell(ctx) })
	tick := time.NewTicker(c.lease / 3)
	defer tick.Stop()
	failovers := 0
	for ctx.Err() == nil {
		if err := c.Renew(ctx); err != nil && ctx.Err() == nil {
			c.log.Warn("this instance cannot renew its lease", "err", err)
		}
		if n := c.Failovers(); n != failovers {
			failovers = n
			c.tellAll()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	group.Wait()
	c.leave(ctx)
}

// tellAll has the whole directory written again.
func (c *Cluster) tellAll() {
	c.mu.Lock()
	for name := range c.has {
		c.stale[name] = struct{}{}
	}
	c.mu.Unlock()
	c.poke()
}

func (c *Cluster) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// tell keeps the directory: each name is written once, when it comes, changes or goes.
func (c *Cluster) tell(ctx context.Context) {
	for {
		select {
		case <-c.wake:
		case <-ctx.Done():
			return
		}
		for names := c.due(); len(names) > 0; names = c.due() {
			if c.write(ctx, names) {
				continue
			}
			select {
			case <-time.After(writeAgain):
			case <-ctx.Done():
				return
			}
		}
	}
}

// due takes names that are to be written.
func (c *Cluster) due() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var names []string
	for name := range c.stale {
		if len(names) == writeMost {
			break
		}
		names = append(names, name)
		delete(c.stale, name)
	}
	return names
}

// write puts names into the directory, or takes those out that this instance has no
// more. Where it fails, they are due again.
func (c *Cluster) write(ctx context.Context, names []string) bool {
	ctx, stop := context.WithTimeout(ctx, 2*time.Second)
	defer stop()
	over := map[string]string{}
	_, err := c.db.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, name := range names {
			c.mu.Lock()
			note, has := c.has[name]
			last, had := c.had[name]
			c.mu.Unlock()
			switch {
			case has:
				p.Set(ctx, c.entry(name), c.self+"\n"+note, keepEntry)
			case had:
				p.Eval(ctx, lostLua, []string{c.entry(name)}, c.self+"\n", last, keepNote.Milliseconds())
				over[name] = last
			}
		}
		return nil
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		for _, name := range names {
			c.stale[name] = struct{}{}
		}
		c.log.Debug("the directory of calls is not written", "err", err) // soon again
		return false
	}
	for name, last := range over {
		if is, had := c.had[name]; had && is == last {
			delete(c.had, name)
		}
	}
	return true
}

//go:embed lua/lost.lua
var lostLua string

// Has puts a name into the directory, with a note: this instance has what it
// stands for. Lost takes it out again; a last note stays for a while. Neither waits
// for the database.
func (c *Cluster) Has(name, note string) {
	if c == nil {
		return
	}
	c.mu.Lock()
	before, had := c.has[name]
	c.has[name] = note
	delete(c.had, name)
	c.mu.Unlock()
	if !had || before != note {
		c.tellOf(name)
	}
}

// Lost is the reverse of Has.
func (c *Cluster) Lost(name, last string) {
	if c == nil {
		return
	}
	c.mu.Lock()
	_, had := c.has[name]
	delete(c.has, name)
	if had {
		c.had[name] = last
	}
	c.mu.Unlock()
	if had {
		c.tellOf(name)
	}
}

func (c *Cluster) tellOf(name string) {
	c.mu.Lock()
	c.stale[name] = struct{}{}
	c.mu.Unlock()
	c.poke()
}

// look reads an entry of the directory.
func (c *Cluster) look(ctx context.Context, name string) (instance, note string, err error) {
	if c == nil {
		return "", "", nil
	}
	if c.isAway() {
		return "", "", errAway
	}
	looking, stop := context.WithTimeout(ctx, lookTime)
	defer stop()
	v, err := c.db.Get(looking, c.entry(name)).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		if ctx.Err() == nil { // otherwise it is who asked that has gone
			c.gone(err)
		}
		return "", "", fmt.Errorf("cluster: directory: %w", err)
	}
	c.failed.Store(0)
	instance, note, _ = strings.Cut(v, "\n")
	return instance, note, nil
}

// Where returns which other instance has what a name stands for; empty: none that lives.
func (c *Cluster) Where(ctx context.Context, name string) (string, error) {
	instance, _, err := c.look(ctx, name)
	if err != nil || instance == "" || instance == c.self || !c.Alive(ctx, instance) {
		return "", err
	}
	return instance, nil
}

// Note returns the note of a name.
func (c *Cluster) Note(ctx context.Context, name string) (string, error) {
	_, note, err := c.look(ctx, name)
	return note, err
}

// First reports whether a token is used for the first time on any instance. A call
// waits for it, so a database that does not answer at once is not asked again for a
// while, and each instance then knows only of its own tokens.
func (c *Cluster) First(nonce string, until time.Time) bool {
	if c == nil || c.isAway() {
		return true
	}
	ctx, stop := context.WithTimeout(context.Background(), firstTime)
	defer stop()
	err := c.db.SetArgs(ctx, c.token(nonce), c.self,
		redis.SetArgs{Mode: "NX", TTL: max(time.Second, time.Until(until))}).Err()
	switch {
	case errors.Is(err, redis.Nil):
		c.failed.Store(0)
		return false
	case err != nil:
		c.gone(err)
	default:
		c.failed.Store(0)
	}
	return true
}

// Unused takes back that a token was used: what it was for has not been done.
func (c *Cluster) Unused(nonce string) {
	if c == nil || c.isAway() {
		return
	}
	ctx, stop := context.WithTimeout(context.Background(), firstTime)
	defer stop()
	if err := c.db.Del(ctx, c.token(nonce)).Err(); err != nil {
		c.gone(err)
	}
}

// errAway is the error of a database that has not answered just now.
var errAway = errors.New("cluster: the database is away")

func (c *Cluster) isAway() bool { return time.Now().UnixNano() < c.away.Load() }

// gone takes the database to be away for a while, once it has failed twice in a row: one
// slow answer is none.
func (c *Cluster) gone(err error) {
	if c.failed.Add(1) < 2 {
		return
	}
	c.away.Store(time.Now().Add(backOff).UnixNano())
	c.log.Warn("the database is away: for a while this instance knows only of itself", "err", err)
}

// Take makes this instance the one that deals with something, unless another one already
// does, and returns which.
func (c *Cluster) Take(ctx context.Context, name string, keep time.Duration) (instance string, err error) {
	ctx, stop := context.WithTimeout(ctx, lookTime)
	defer stop()
	got, err := c.db.SetArgs(ctx, c.prefix+"once:{"+name+"}", c.self, redis.SetArgs{Mode: "NX", Get: true, TTL: keep}).
		Result()
	switch {
	case errors.Is(err, redis.Nil):
		return c.self, nil
	case err != nil:
		return "", fmt.Errorf("cluster: take: %w", err)
	}
	return got, nil
}
