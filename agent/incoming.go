package agent

// Agents that connect to the bridge: for one call that they were told of, or to
// wait in a pool.

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"voicebridge/codec"
	"voicebridge/notify"
	"voicebridge/session"
	"voicebridge/ws"
)

// Incoming says how agents connect to the bridge.
type Incoming struct {
	InputRate, OutputRate int           // 0: DefaultRate; the agent's URL may choose others
	Write                 time.Duration // for a message to be taken by the agent
	Ping                  time.Duration // between pings
	Wait                  time.Duration // of a call, for an agent
	Ready                 time.Duration // for the ready of a parked agent
}

// Defaults of Incoming's times.
const (
	DefaultWait  = 10 * time.Second
	DefaultReady = 2 * time.Second
	tokenTime    = time.Minute
	maxParked    = 10000
)

// incoming is a checked Incoming.
type incoming struct {
	Incoming
	hears, speaks codec.Format
}

func newIncoming(cfg Incoming) (incoming, error) {
	in := incoming{Incoming: cfg}
	for _, f := range []struct {
		name string
		rate int
		to   *codec.Format
	}{{"input_rate", cfg.InputRate, &in.hears}, {"output_rate", cfg.OutputRate, &in.speaks}} {
		if *f.to = (codec.Format{Encoding: codec.L16LE, Rate: f.rate}); f.rate == 0 {
			f.to.Rate = DefaultRate
		}
		if !f.to.Valid() {
			return in, fmt.Errorf("%s: %d must be one of %v", f.name, f.rate, codec.Rates)
		}
	}
	for _, t := range []struct {
		v   *time.Duration
		def time.Duration
	}{{&in.Write, DefaultWrite}, {&in.Ping, DefaultPing}, {&in.Wait, DefaultWait}, {&in.Ready, DefaultReady}} {
		if *t.v == 0 {
			*t.v = t.def
		}
	}
	return in, nil
}

// Formats implements session.Dialer.
func (in *incoming) Formats() (hears, speaks codec.Format) { return in.hears, in.speaks }

// accept takes a connection whose token is good. Refusals are answered.
func (in *incoming) accept(w http.ResponseWriter, r *http.Request) (*Conn, error) {
	hears, err := format("in_rate", "in_rate", r.URL, 0)
	if r.URL.Query().Get("in_rate") == "" {
		hears = in.hears
	}
	speaks, err2 := format("out_rate", "out_rate", r.URL, 0)
	if r.URL.Query().Get("out_rate") == "" {
		speaks = in.speaks
	}
	if err := errors.Join(err, err2); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return nil, err
	}
	if offered := ws.Subprotocols(r); len(offered) > 0 && !slices.Contains(offered, Protocol) {
		http.Error(w, "no common subprotocol: offer "+Protocol, http.StatusUpgradeRequired)
		return nil, errors.New("agent: no common subprotocol")
	}
	json := r.URL.Query().Get("audio") == "json"
	limits := ws.Limits{Text: MaxText, Binary: MaxBinary, Write: in.Write, AnyOrigin: true}
	if json {
		limits.Text = MaxBinary
	}
	conn, err := ws.Accept(w, r, Protocol, limits)
	if err != nil {
		return nil, err
	}
	c := newConn(conn, hears, speaks, in.Ping)
	c.json = json
	return c, nil
}

// token is what a request shows: as a bearer token, in the query, or as a
// subprotocol, for clients that can set no headers.
func token(r *http.Request) string {
	if t, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		return t
	}
	for _, p := range ws.Subprotocols(r) {
		if t, ok := strings.CutPrefix(p, "bearer."); ok {
			return t
		}
	}
	return r.URL.Query().Get("token")
}

// same compares tokens in constant time; an empty one is never the same.
func same(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return a != "" && subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// Attended are agents that connect for a call they are told of. It implements
// session.Dialer.
type Attended struct {
	incoming
	announce  notify.Target
	publicURL string

	posts sync.WaitGroup // announcements under way, each bounded by its time-out

	mu      sync.Mutex
	waiting map[string]*appointment // by session
}

// Join waits for the announcements that are under way, once nothing dials any more.
func (a *Attended) Join() { a.posts.Wait() }

// appointment is a call that waits for its agent.
type appointment struct {
	token string
	taken bool
	conn  chan *Conn // of size 1
}

// NewAttended makes agents that are told of calls at the target, and connect to
// the bridge at publicURL. Errors name the field.
func NewAttended(cfg Incoming, announce notify.Target, publicURL string) (*Attended, error) {
	in, err := newIncoming(cfg)
	if err != nil {
		return nil, err
	}
	if err := announce.Check(); err != nil {
		return nil, fmt.Errorf("announce.%w", err)
	}
	return &Attended{incoming: in, announce: announce, publicURL: strings.TrimSuffix(publicURL, "/"), waiting: map[string]*appointment{}}, nil
}

// announcement tells an application of a call that waits.
type announcement struct {
	SessionID string   `json:"session_id"`
	URL       string   `json:"url"`
	Token     string   `json:"token"`
	Call      callInfo `json:"call"`
}

// Dial implements session.Dialer: it tells the application, and waits for its
// agent.
func (a *Attended) Dial(ctx context.Context, call *session.Call) (session.Agent, error) {
	ctx, stop := context.WithTimeout(ctx, a.Wait)
	defer stop()
	ap := &appointment{token: rand.Text(), conn: make(chan *Conn, 1)}
	a.mu.Lock()
	a.waiting[call.Session] = ap
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		delete(a.waiting, call.Session)
		a.mu.Unlock()
		select {
		case c := <-ap.conn: // came too late
			c.ws.Close(ws.CloseNotReady, "too late")
			c.Release()
		default:
		}
	}()
	base, _ := strings.CutPrefix(a.publicURL, "http") // https becomes wss
	// The agent may come before the application has answered, and that may have to
	// do with the agent as long as it likes.
	told := make(chan error, 1)
	a.posts.Go(func() {
		told <- a.announce.Post(context.WithoutCancel(ctx), &announcement{
			SessionID: call.Session, URL: "ws" + base + "/v1/calls/" + call.Session + "/agent", Token: ap.token, Call: information(call),
		}, nil)
	})
	for {
		select {
		case c := <-ap.conn:
			if err := c.start(call); err != nil {
				c.ws.Close(ws.CloseInternal, "start failed")
				c.Release()
				return nil, err
			}
			return c, nil
		case err := <-told:
			if err != nil && !a.coming(ap) {
				return nil, fmt.Errorf("agent: announce: %w", err)
			}
		case <-ctx.Done():
			return nil, fmt.Errorf("agent: none came within %v", a.Wait)
		}
	}
}

// coming tells whether an agent is being let in.
func (a *Attended) coming(ap *appointment) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return ap.taken
}

func (a *Attended) appointment(session string) *appointment {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.waiting[session]
}

// Waits tells whether a call waits for its agent.
func (a *Attended) Waits(session string) bool { return a.appointment(session) != nil }

// Admits tells whether a request shows the token of a call that waits.
func (a *Attended) Admits(r *http.Request, session string) bool {
	ap := a.appointment(session)
	return ap != nil && same(ap.token, token(r))
}

// Attend takes the agent of a call that is admitted.
func (a *Attended) Attend(w http.ResponseWriter, r *http.Request, session string) {
	a.mu.Lock()
	ap := a.waiting[session]
	taken := ap == nil || ap.taken
	if !taken {
		ap.taken = true
	}
	a.mu.Unlock()
	if taken {
		http.Error(w, "the call has an agent", http.StatusConflict)
		return
	}
	c, err := a.accept(w, r)
	if late := a.deliver(session, ap, c, err); late {
		c.ws.Close(ws.CloseNotReady, "too late")
		c.Release()
	}
}

// deliver hands a connection, or the failure to make one, to the call that waits.
// It is too late where none does.
func (a *Attended) deliver(session string, ap *appointment, c *Conn, err error) (late bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case err != nil: // the agent may try again
		ap.taken = false
	case a.waiting[session] != ap:
		return true
	default:
		ap.conn <- c
	}
	return false
}

// Pool are agents that connect and wait for calls. It implements session.Dialer.
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
	return &Pool{incoming: in, name: name, bearer: bearer, given: map[string]time.Time{}, free: make(chan struct{}, 1)}, nil
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

// Admits tells whether a request shows a token of the pool's.
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
	err := c.text(struct {
		header
		Pool string `json:"pool"`
	}{c.header("waiting", 0, 0), p.name})
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
		if err = c.receive(); err == nil && c.cmd.Kind == session.CommandReady {
			select {
			case <-c.called:
				c.awaiting.Store(false)
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

// take gives the connection that has waited longest; nil if there is none.
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

// Parked is the number of agents that wait.
func (p *Pool) Parked() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.parked)
}

// Dial implements session.Dialer: it calls the agent that has waited longest, and
// the next one if it does not say ready in time.
func (p *Pool) Dial(ctx context.Context, call *session.Call) (session.Agent, error) {
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

func (p *Pool) call(ctx context.Context, c *parked, call *session.Call) error {
	c.awaiting.Store(true)
	close(c.called)
	err := c.start(call)
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
