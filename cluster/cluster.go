// Package cluster lets several instances of the bridge act as one: a directory in
// Redis says which instance has a call, and a request that lands on another one is
// passed on to it.
//
// Requests go over publish and subscribe, with an answer for each: nothing has to
// be stored or trimmed, and one that is lost shows as an answer that does not come.
// What must not be lost, the state of transfers, is not told here but stored.
//
// An instance alone needs none of this: a nil *Cluster knows only itself.
package cluster

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
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

// Times of a Cluster.
const (
	// keepNote is how long the last note of a name is kept.
	keepNote = time.Minute
	// answerTime is how long another instance may take to answer.
	answerTime = 5 * time.Second
	// firstTime bounds a question that a call waits for; backOff is how long none is
	// asked after one that failed.
	firstTime = 150 * time.Millisecond
	lookTime  = 500 * time.Millisecond
	backOff   = 5 * time.Second
)

// Cluster is this instance among others.
type Cluster struct {
	db       redis.UniversalClient
	prefix   string
	instance string
	lease    time.Duration
	log      *slog.Logger

	mu      sync.Mutex
	has     map[string]string        // names that this instance has, with a note each
	had     map[string]string        // names that it has no more, with what is left to say
	pending map[string]chan<- []byte // by request
	changed chan string              // names to be told of at once
	away    atomic.Int64             // until when the database is taken to be away, Unix nanoseconds
}

// DefaultLease is how long the directory outlives an instance.
const DefaultLease = 10 * time.Second

// New makes a member with a name that no other one has. lease is how long the
// directory outlives it.
func New(db redis.UniversalClient, prefix, instance string, lease time.Duration, log *slog.Logger) *Cluster {
	return &Cluster{db: db, prefix: prefix, instance: instance, lease: lease, log: log, has: map[string]string{},
		had: map[string]string{}, pending: map[string]chan<- []byte{},
		changed: make(chan string, 4096)}
}

func (c *Cluster) entry(name string) string   { return c.prefix + "call:" + name }
func (c *Cluster) channel(name string) string { return c.prefix + "to:" + name }
func (c *Cluster) token(nonce string) string  { return c.prefix + "token:" + nonce }

// Handler answers a request of another instance.
type Handler func(ctx context.Context, kind string, body json.RawMessage) (any, error)

// envelope is a request, or its answer.
type envelope struct {
	ID    string          `json:"id"`
	From  string          `json:"from"`
	Kind  string          `json:"kind,omitempty"` // empty: an answer
	Body  json.RawMessage `json:"body,omitempty"`
	Error string          `json:"error,omitempty"`
}

// Run takes part until ctx ends; requests go to handle.
func (c *Cluster) Run(ctx context.Context, handle Handler) {
	var group sync.WaitGroup
	group.Go(func() { c.tell(ctx) })
	sub := c.db.Subscribe(ctx, c.channel(c.instance)) // it connects again by itself
	messages := sub.Channel(redis.WithChannelSize(1024))
	for ctx.Err() == nil {
		select {
		case m, ok := <-messages:
			if !ok {
				return
			}
			var e envelope
			if err := json.Unmarshal([]byte(m.Payload), &e); err != nil {
				c.log.Warn("message of another instance", "err", err)
				continue
			}
			if e.Kind == "" {
				c.answered(&e)
				continue
			}
			group.Go(func() { c.serve(ctx, &e, handle) })
		case <-ctx.Done():
		}
	}
	sub.Close()
	group.Wait()
}

// tell keeps the directory: a call at once, all of them again before their lease is
// over.
func (c *Cluster) tell(ctx context.Context) {
	tick := time.NewTicker(c.lease / 3)
	defer tick.Stop()
	for {
		var names []string
		select {
		case name := <-c.changed:
			names = append(names, name)
			for len(c.changed) > 0 {
				names = append(names, <-c.changed)
			}
		case <-tick.C:
			c.mu.Lock()
			names = slices.AppendSeq(slices.AppendSeq(names, maps.Keys(c.has)), maps.Keys(c.had))
			c.mu.Unlock()
		case <-ctx.Done():
			return
		}
		c.write(ctx, names)
	}
}

// write puts names into the directory, or takes those out that this instance has no
// more.
func (c *Cluster) write(ctx context.Context, names []string) {
	if len(names) == 0 {
		return
	}
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
				p.Set(ctx, c.entry(name), c.instance+"\n"+note, c.lease)
			case had:
				p.Eval(ctx, lostLua, []string{c.entry(name)}, c.instance+"\n", last, keepNote.Milliseconds())
				over[name] = last
			}
		}
		return nil
	})
	if err != nil {
		if ctx.Err() == nil {
			c.log.Debug("the directory of calls is not written", "err", err) // the next time
		}
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, last := range over {
		if c.had[name] == last {
			delete(c.had, name)
		}
	}
}

// lostLua takes an entry out, unless it is another instance's by now. KEYS: 1 entry; ARGV: 1 how one's own begins, 2
// the last note, 3 how long it
// is kept, ms.
const lostLua = `
local is = redis.call('GET', KEYS[1])
if not is or string.sub(is, 1, #ARGV[1]) == ARGV[1] then
  if ARGV[2] == '' then redis.call('DEL', KEYS[1]) else redis.call('SET', KEYS[1], '\n' .. ARGV[2], 'PX', ARGV[3]) end
end
return 0`

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
	select {
	case c.changed <- name:
	default: // with the next round
	}
}

// look reads an entry of the directory.
func (c *Cluster) look(ctx context.Context, name string) (instance, note string, err error) {
	if c == nil {
		return "", "", nil
	}
	if c.isAway() {
		return "", "", errAway
	}
	ctx, stop := context.WithTimeout(ctx, lookTime)
	defer stop()
	v, err := c.db.Get(ctx, c.entry(name)).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		c.gone(err)
		return "", "", fmt.Errorf("cluster: directory: %w", err)
	}
	instance, note, _ = strings.Cut(v, "\n")
	return instance, note, nil
}

// Where tells which other instance has what a name stands for; empty: none.
func (c *Cluster) Where(ctx context.Context, name string) (string, error) {
	instance, _, err := c.look(ctx, name)
	if c != nil && instance == c.instance {
		instance = ""
	}
	return instance, err
}

// Note returns the note of a name.
func (c *Cluster) Note(ctx context.Context, name string) (string, error) {
	_, note, err := c.look(ctx, name)
	return note, err
}

// RemoteError is what another instance could not do.
type RemoteError string

func (e RemoteError) Error() string { return "another instance: " + string(e) }

// ErrNoAnswer is the error of an instance that does not answer: whether it has got
// the request is not known. ErrNobody: it has not, it is dead.
var (
	ErrNoAnswer = errors.New("cluster: the instance that has the call does not answer")
	ErrNobody   = errors.New("cluster: the instance that had the call is not there any more")
)

// Ask passes a request on to another instance and reads its answer.
func (c *Cluster) Ask(ctx context.Context, instance, kind string, body, answer any) error {
	ctx, stop := context.WithTimeout(ctx, answerTime)
	defer stop()
	id := rand.Text()
	got := make(chan []byte, 1)
	c.mu.Lock()
	c.pending[id] = got
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.pending, id)
		c.mu.Unlock()
	}()
	n, err := c.send(ctx, instance, envelope{ID: id, Kind: kind}, body)
	switch {
	case err != nil:
		return err
	case n == 0:
		return ErrNobody
	}
	select {
	case b := <-got:
		var e envelope
		if err := json.Unmarshal(b, &e); err != nil {
			return fmt.Errorf("cluster: answer: %w", err)
		}
		if e.Error != "" {
			return RemoteError(e.Error)
		}
		if answer == nil || len(e.Body) == 0 {
			return nil
		}
		if err := json.Unmarshal(e.Body, answer); err != nil {
			return fmt.Errorf("cluster: answer: %w", err)
		}
		return nil
	case <-ctx.Done():
		return ErrNoAnswer
	}
}

func (c *Cluster) send(ctx context.Context, instance string, e envelope, body any) (listeners int64, err error) {
	e.From = c.instance
	if body != nil {
		if e.Body, err = json.Marshal(body); err != nil {
			return 0, fmt.Errorf("cluster: %w", err)
		}
	}
	b, err := json.Marshal(e)
	if err != nil {
		return 0, fmt.Errorf("cluster: %w", err)
	}
	n, err := c.db.Publish(ctx, c.channel(instance), b).Result()
	if err != nil {
		return 0, fmt.Errorf("cluster: %w", err)
	}
	return n, nil
}

// serve answers a request.
func (c *Cluster) serve(ctx context.Context, e *envelope, handle Handler) {
	ctx, stop := context.WithTimeout(ctx, answerTime)
	defer stop()
	body, err := handle(ctx, e.Kind, e.Body)
	reply := envelope{ID: e.ID}
	if err != nil {
		reply.Error = strings.ToValidUTF8(err.Error(), "?")
	}
	if _, err := c.send(ctx, e.From, reply, body); err != nil && ctx.Err() == nil {
		c.log.Warn("another instance was not answered", "kind", e.Kind, "err", err)
	}
}

func (c *Cluster) answered(e *envelope) {
	c.mu.Lock()
	got := c.pending[e.ID]
	c.mu.Unlock()
	if got == nil { // too late
		return
	}
	b, err := json.Marshal(e)
	if err != nil {
		return
	}
	select {
	case got <- b:
	default:
	}
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
	err := c.db.SetArgs(ctx, c.token(nonce), c.instance,
		redis.SetArgs{Mode: "NX", TTL: max(time.Second, time.Until(until))}).Err()
	switch {
	case errors.Is(err, redis.Nil):
		return false
	case err != nil:
		c.gone(err)
	}
	return true
}

// errAway is the error of a database that has not answered just now.
var errAway = errors.New("cluster: the database is away")

func (c *Cluster) isAway() bool { return time.Now().UnixNano() < c.away.Load() }

// gone takes the database to be away for a while.
func (c *Cluster) gone(err error) {
	c.away.Store(time.Now().Add(backOff).UnixNano())
	c.log.Warn("the database is away: for a while this instance knows only of itself", "err", err)
}
