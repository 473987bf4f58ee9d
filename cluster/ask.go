package cluster

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// answerTime is how long another instance may take to answer.
	answerTime = 5 * time.Second
	// askAgain is how soon a request is sent again of which no answer has come: it may
	// have been lost while a connection was being made anew.
	askAgain = 700 * time.Millisecond
	// keepReply is how long an answer is known, for a request that comes again.
	keepReply = 3 * answerTime
)

// envelope is a request, or its answer.
type envelope struct {
	ID    string          `json:"id"`
	From  string          `json:"from"`
	Kind  string          `json:"kind,omitempty"` // empty: an answer
	Body  json.RawMessage `json:"body,omitempty"`
	Error string          `json:"error,omitempty"`
}

// reply is the answer to a request.
type reply struct {
	ready chan struct{} // closed once there is one
	envelope
	body any
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

// listen takes what other instances send.
func (c *Cluster) listen(ctx context.Context, handle Handler) {
	var group sync.WaitGroup
	defer group.Wait()
	// Sharded: in a Cluster a message is for one node, not for all of them.
	sub := c.db.SSubscribe(ctx, c.channel(c.self)) // it connects again by itself
	defer sub.Close()
	messages := sub.Channel(redis.WithChannelSize(1024))
	for {
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
			return
		}
	}
}

// Ask passes a request on to another instance and reads its answer. Whether that lives
// is known by its lease, not by who listens: in a Cluster nobody knows that.
func (c *Cluster) Ask(ctx context.Context, instance, kind string, body, answer any) error {
	ctx, stop := context.WithTimeout(ctx, answerTime)
	defer stop()
	if !c.Alive(ctx, instance) {
		return ErrNobody
	}
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
	for try := 0; ; try++ {
		err := c.send(ctx, instance, envelope{ID: id, Kind: kind}, body)
		if err != nil && try == 0 {
			return err
		}
		select {
		case b := <-got:
			return read(b, answer)
		case <-time.After(askAgain):
			if !c.Alive(ctx, instance) {
				return ErrNoAnswer // it lived when it was asked
			}
		case <-ctx.Done():
			return ErrNoAnswer
		}
	}
}

// read reads an answer.
func read(b []byte, answer any) error {
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
}

func (c *Cluster) send(ctx context.Context, instance string, e envelope, body any) (err error) {
	e.From = c.self
	if body != nil {
		if e.Body, err = json.Marshal(body); err != nil {
			return fmt.Errorf("cluster: %w", err)
		}
	}
	b, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	if err := c.db.SPublish(ctx, c.channel(instance), b).Err(); err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	return nil
}

// serve answers a request.
func (c *Cluster) serve(ctx context.Context, e *envelope, handle Handler) {
	ctx, stop := context.WithTimeout(ctx, answerTime)
	defer stop()
	r, first := c.take(e.ID)
	if first {
		body, err := c.guarded(ctx, e, handle)
		r.body = body
		if err != nil {
			r.Error = strings.ToValidUTF8(err.Error(), "?")
		}
		close(r.ready)
	}
	select {
	case <-r.ready:
	case <-ctx.Done():
		return
	}
	if err := c.send(ctx, e.From, r.envelope, r.body); err != nil && ctx.Err() == nil {
		c.log.Warn("another instance was not answered", "kind", e.Kind, "err", err)
	}
}

// guarded handles a request. A panic is an error like others.
func (c *Cluster) guarded(ctx context.Context, e *envelope, handle Handler) (body any, err error) {
	defer func() {
		if v := recover(); v != nil {
			c.log.Error("panic", "in", "request "+e.Kind, "panic", v, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	return handle(ctx, e.Kind, e.Body)
}

// take returns the answer to a request, which the first one who takes it is to give.
func (c *Cluster) take(id string) (r *reply, first bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r, known := c.served[id]; known {
		return r, false
	}
	r = &reply{ready: make(chan struct{}), envelope: envelope{ID: id}}
	c.served[id] = r
	time.AfterFunc(keepReply, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.served, id)
	})
	return r, true
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
