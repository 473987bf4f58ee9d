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
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// Times of a Cluster.
const (
	// lease is how long the directory outlives an instance.
	lease = 10 * time.Second
	// answerTime is how long another instance may take to answer.
	answerTime = 5 * time.Second
	// onceTime bounds a question that a call waits for; backOff is how long none is
	// asked after one that failed.
	onceTime = 150 * time.Millisecond
	backOff  = 5 * time.Second
)

// Cluster is this instance among others.
type Cluster struct {
	db       redis.UniversalClient
	prefix   string
	instance string
	log      *slog.Logger

	mu      sync.Mutex
	calls   map[string]struct{}      // that this instance has
	pending map[string]chan<- []byte // by request
	changed chan string              // calls to be told of at once
	away    atomic.Int64             // until when the database is taken to be away, Unix nanoseconds
}

// New makes a member with a name that no other one has.
func New(db redis.UniversalClient, prefix, instance string, log *slog.Logger) *Cluster {
	return &Cluster{db: db, prefix: prefix, instance: instance, log: log, calls: map[string]struct{}{}, pending: map[string]chan<- []byte{},
		changed: make(chan string, 4096)}
}

func (c *Cluster) call(id string) string      { return c.prefix + "call:" + id }
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
	tick := time.NewTicker(lease / 3)
	defer tick.Stop()
	for {
		var calls []string
		select {
		case id := <-c.changed:
			calls = append(calls, id)
			for len(c.changed) > 0 {
				calls = append(calls, <-c.changed)
			}
		case <-tick.C:
			c.mu.Lock()
			for id := range c.calls {
				calls = append(calls, id)
			}
			c.mu.Unlock()
		case <-ctx.Done():
			return
		}
		c.write(ctx, calls)
	}
}

// write puts calls into the directory, or takes those out that this instance has no
// more.
func (c *Cluster) write(ctx context.Context, calls []string) {
	if len(calls) == 0 {
		return
	}
	ctx, stop := context.WithTimeout(ctx, 2*time.Second)
	defer stop()
	_, err := c.db.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, id := range calls {
			c.mu.Lock()
			_, mine := c.calls[id]
			c.mu.Unlock()
			if mine {
				p.Set(ctx, c.call(id), c.instance, lease)
			} else {
				p.Del(ctx, c.call(id))
			}
		}
		return nil
	})
	if err != nil && ctx.Err() == nil {
		c.log.Debug("the directory of calls is not written", "err", err) // the next time
	}
}

// Has notes that this instance has a call, Lost that it has it no more. Neither
// waits for the database.
func (c *Cluster) Has(id string)  { c.change(id, true) }
func (c *Cluster) Lost(id string) { c.change(id, false) }

func (c *Cluster) change(id string, has bool) {
	if c == nil {
		return
	}
	c.mu.Lock()
	if has {
		c.calls[id] = struct{}{}
	} else {
		delete(c.calls, id)
	}
	c.mu.Unlock()
	select {
	case c.changed <- id:
	default: // with the next round
	}
}

// Where tells which other instance has a call; empty: none.
func (c *Cluster) Where(ctx context.Context, id string) (string, error) {
	if c == nil {
		return "", nil
	}
	ctx, stop := context.WithTimeout(ctx, 2*time.Second)
	defer stop()
	name, err := c.db.Get(ctx, c.call(id)).Result()
	if errors.Is(err, redis.Nil) || err == nil && name == c.instance {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("cluster: directory: %w", err)
	}
	return name, nil
}

// RemoteError is what another instance could not do.
type RemoteError string

func (e RemoteError) Error() string { return "another instance: " + string(e) }

// ErrNoAnswer is the error of an instance that does not answer.
var ErrNoAnswer = errors.New("cluster: the instance that has the call does not answer")

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
	case n == 0: // nobody listens there
		return ErrNoAnswer
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

// First tells whether a token is used for the first time on any instance. A call
// waits for it, so a database that does not answer at once is not asked again for a
// while, and each instance then knows only of its own tokens.
func (c *Cluster) First(nonce string, until time.Time) bool {
	if c == nil || time.Now().UnixNano() < c.away.Load() {
		return true
	}
	ctx, stop := context.WithTimeout(context.Background(), onceTime)
	defer stop()
	err := c.db.SetArgs(ctx, c.token(nonce), c.instance, redis.SetArgs{Mode: "NX", TTL: max(time.Second, time.Until(until))}).Err()
	switch {
	case errors.Is(err, redis.Nil):
		return false
	case err != nil:
		c.away.Store(time.Now().Add(backOff).UnixNano())
		c.log.Warn("tokens are checked by this instance alone for a while", "err", err)
	}
	return true
}
