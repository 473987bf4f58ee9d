package link

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"voicebridge/agent"
	"voicebridge/ws"
)

const (
	tokenTime = time.Minute
	maxParked = 10000
)

// Pool are agents that connect and wait for calls. It implements agent.Dialer.
type Pool struct {
	incoming
	name   string
	bearer string

	mu     sync.Mutex
	given  map[string]time.Time // single-use tokens, and until when they are good
	parked []*parked            // the longest waiting first
	free   chan struct{}        // of size 1: one has come
	closed bool
	live   sync.WaitGroup
}

// parked is a connection that waits for a call.
type parked struct {
	*Conn
	called chan struct{} // closed by Dial: the next ready belongs to it
	ready  chan error    // of size 1: from the reader to Dial; nil hands the connection over
}

// NewPool makes a pool whose agents show the bearer token. Errors name the field.
func NewPool(name string, cfg Incoming, bearer string) (*Pool, error) {
	in, err := newIncoming(cfg)
	if err != nil {
		return nil, err
	}
	if len(bearer) < 16 {
		return nil, errors.New("bearer: must have at least 16 characters: agents that connect to the pool show it")
	}
	return &Pool{incoming: in, name: name, bearer: bearer, given: map[string]time.Time{}, free: make(chan struct{}, 1)},
		nil
}

// NewToken makes a token that is good for one connection within a minute, for
// clients that cannot keep a secret.
func (p *Pool) NewToken() (token string, expires time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	for t, until := range p.given {
		if now.After(until) {
			delete(p.given, t)
		}
	}
	token, expires = rand.Text(), now.Add(tokenTime)
	p.given[token] = expires
	return token, expires
}

// Admits reports whether a request shows a token of the pool's.
func (p *Pool) Admits(r *http.Request) bool { return p.admit(token(r), false) }

// admit checks a token; use uses one of NewToken up.
func (p *Pool) admit(t string, use bool) bool {
	if same(p.bearer, t) {
		return true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	until, ok := p.given[t]
	if use {
		delete(p.given, t)
	}
	return ok && time.Now().Before(until)
}

// ServeHTTP parks an agent until it gets a call or leaves.
func (p *Pool) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !p.admit(token(r), true) {
		http.Error(w, "token", http.StatusUnauthorized)
		return
	}
	p.mu.Lock()
	full := len(p.parked) >= maxParked || p.closed
	if !full {
		p.live.Add(1)
	}
	p.mu.Unlock()
	if full {
		w.Header().Set("Retry-After", "5")
		http.Error(w, "the pool is full", http.StatusServiceUnavailable)
		return
	}
	defer p.live.Done()
	c, err := p.accept(w, r)
	if err != nil {
		return
	}
	p.park(&parked{Conn: c, called: make(chan struct{}), ready: make(chan error, 1)})
}

// park waits with a connection. It ends it, or hands it over.
func (p *Pool) park(c *parked) {
	err := c.say(func() error {
		if w, ok := c.talk.(agent.Waiter); ok {
			return w.Wait(&c.out, p.name)
		}
		return nil
	})
	p.mu.Lock()
	if p.closed {
		err = errors.New("agent: the pool is closed")
	}
	if err == nil {
		p.parked = append(p.parked, c)
		p.announce()
	}
	p.mu.Unlock()
	for err == nil {
		if err = c.receive(); err == nil && c.talk.Ready() {
			select {
			case <-c.called:
				c.ready <- nil // it is Dial's now
				return
			default: // nobody has called yet
			}
		}
	}
	if !p.leave(c) { // Dial has it
		c.ready <- err
	}
	c.ws.Close(ws.CloseGoingAway, "")
	c.Release()
}

// announce tells that there may be an agent. p.mu is held.
func (p *Pool) announce() {
	select {
	case p.free <- struct{}{}:
	default:
	}
}

// leave takes a connection out. It is false where Dial has done so.
func (p *Pool) leave(c *parked) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.Index(p.parked, c)
	if i >= 0 {
		p.parked = slices.Delete(p.parked, i, i+1)
	}
	return i >= 0
}

// take returns the connection that has waited longest; nil if there is none.
func (p *Pool) take() *parked {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.parked) == 0 {
		return nil
	}
	c := p.parked[0]
	p.parked = slices.Delete(p.parked, 0, 1)
	if len(p.parked) > 0 {
		p.announce() // for another call that waits
	}
	return c
}

// Parked returns the number of agents that wait.
func (p *Pool) Parked() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.parked)
}

// Dial implements agent.Dialer: it calls the agent that has waited longest, and
// the next one if it does not say ready in time.
func (p *Pool) Dial(ctx context.Context, call *agent.Call) (agent.Conn, error) {
	wait, stop := context.WithTimeout(ctx, p.Wait)
	defer stop()
	for wait.Err() == nil { // the call may have ended: no other agent is to hear of it
		if c := p.take(); c != nil {
			if err := p.call(wait, c, call); err == nil {
				return c.Conn, nil
			}
			continue
		}
		select {
		case <-p.free:
		case <-wait.Done():
		}
	}
	p.mu.Lock()
	if len(p.parked) > 0 { // the word of it may have come to this call: another one may wait
		p.announce()
	}
	p.mu.Unlock()
	return nil, fmt.Errorf("agent: none in pool %s was ready within %v", p.name, p.Wait)
}

func (p *Pool) call(ctx context.Context, c *parked, call *agent.Call) error {
	c.loop = ws.LoopOf(ctx)
	err := c.say(func() error {
		defer close(c.called) // once ready is awaited, and before the agent hears of it
		return c.talk.Start(&c.out, call, true)
	})
	if err == nil {
		limit := time.NewTimer(p.Ready)
		defer limit.Stop()
		select {
		case err = <-c.ready:
			return err
		case <-limit.C:
			err = errors.New("agent: no ready in time")
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	c.ws.Close(ws.CloseNotReady, "no ready in time") // the reader frees it
	if <-c.ready == nil {                            // it came in the last moment
		c.Release()
	}
	return err
}

// Close sends all agents away that wait, and waits until they are gone.
func (p *Pool) Close() error {
	p.mu.Lock()
	p.closed = true
	for _, c := range p.parked {
		c.ws.Close(ws.CloseGoingAway, "the bridge stops")
	}
	p.mu.Unlock()
	p.live.Wait()
	return nil
}
