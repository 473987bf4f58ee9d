// Package link is the link to AI agents: how they are reached, kept alive and lost, and
// what they may do to their own call. What is said on it is an agent.Dialect.
//
// An agent is dialled (Dialer), connects for one call that it is told of (Attended), or
// connects and waits for calls (Pool). All three give the session a Conn.
package link

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"voicebridge/agent"
	"voicebridge/calls"
	"voicebridge/codec"
	"voicebridge/providers"
	"voicebridge/ws"
)

// Conn is the connection to an agent for one call; it implements agent.Conn. Its
// Talk translates, Conn keeps the connection alive and says how it has ended.
type Conn struct {
	ws    *ws.Conn
	talk  agent.Talk
	stays bool // see agent.Dialect
	ping  time.Duration
	loop  *ws.Loop    // that serves the connection; nil: a goroutine does
	alive *time.Timer // runs keepalive

	closed atomic.Bool // nothing that still comes matters

	mu   sync.Mutex // guards what follows, and that alive is not set anew after done
	dead bool       // the agent does not answer pings
	done bool

	out providers.Messages // owned by whoever sends

	do func(*agent.Command) // owned by whoever reads
	h  agent.Handler        // nil before Serve

	// Owned by whoever reads before Serve.
	trouble error // why the agent will not be ready
	said    error // what it has complained of
}

func newConn(conn *ws.Conn, talk agent.Talk, ping time.Duration) *Conn {
	c := &Conn{ws: conn, talk: talk, ping: ping}
	c.do = c.early
	if talker, is := talk.(agent.Talker); is {
		talker.Attach(beside{c})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.alive = time.AfterFunc(c.ping, c.keepalive)
	return c
}

// early takes what an agent wants before Serve: nothing but the end counts.
func (c *Conn) early(cmd *agent.Command) {
	if cmd.Kind == agent.CommandFault && cmd.Fatal {
		c.trouble = fmt.Errorf("agent: %s: %s", cmd.Code, cmd.Message)
	}
}

// beside is the connection as its Talk sees it.
type beside struct{ *Conn }

// Do implements agent.Beside.
func (c beside) Do(cmd *agent.Command) {
	if c.h != nil {
		c.h.Do(cmd)
	}
}

// Reply implements agent.Beside. Before Serve it is called by whoever reads, and sends at once.
func (c beside) Reply(add func(*providers.Messages) error) {
	if c.h != nil {
		c.h.Reply(add)
		return
	}
	err := c.say(func() error { return c.talk.Encode(&c.out, &agent.Event{Kind: agent.EventReply, Reply: add}) })
	if err != nil && c.trouble == nil {
		c.trouble = err
	}
}

// Said implements agent.Beside. Nothing is said before Serve.
func (c beside) Said(l calls.Line) {
	if c.h != nil {
		c.h.Said(l)
	}
}

// Used implements agent.Beside.
func (c beside) Used(u calls.Usage) {
	if c.h != nil {
		c.h.Used(u)
	}
}

// Renew implements agent.Beside.
func (c beside) Renew(still func() bool) {
	if c.h != nil {
		c.h.Renew(still)
	}
}

// Keep implements agent.Beside.
func (c beside) Keep(state any) {
	if c.h != nil {
		c.h.Keep(state)
	}
}

// Trouble implements agent.Beside.
func (c beside) Trouble(code, message string) {
	if c.h != nil {
		c.h.Trouble(code, message)
	} else {
		c.said = fmt.Errorf("agent: %s: %s", code, message)
	}
}

// keepalive pings, and ends a connection from which nothing comes back.
func (c *Conn) keepalive() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done {
		return
	}
	if c.ws.Quiet() > 2*c.ping {
		c.dead = true
		c.ws.Close(ws.ClosePolicy, "no answer to pings")
		return
	}
	_ = c.ws.Ping() // a failure shows in Quiet, or where it is read
	c.alive.Reset(c.ping)
}

// Formats implements agent.Conn.
func (c *Conn) Formats() (hears, speaks codec.Format) { return c.talk.Formats() }

// start introduces the call.
func (c *Conn) start(call *agent.Call, await bool) error {
	return c.say(func() error { return c.talk.Start(&c.out, call, await) })
}

// say sends what add adds, before Serve, and waits until it is taken.
func (c *Conn) say(add func() error) error {
	c.out.Reset()
	if err := add(); err != nil {
		return err
	}
	for _, m := range c.out.All() {
		if err := c.ws.Write(m.Binary, m.Data); err != nil {
			return sendError(err)
		}
	}
	return nil
}

// readyOr waits until the agent is ready, and frees the connection if that does not
// come in time, or the call ends meanwhile.
func (c *Conn) readyOr(ctx context.Context, limit time.Duration) error {
	stop := context.AfterFunc(ctx, func() { c.ws.Close(ws.CloseNormal, "the call is over") })
	err := c.awaitReady(limit)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		c.ws.Close(ws.CloseNotReady, "")
		c.Release()
	}
	return err
}

// awaitReady waits until the agent is ready, and discards what comes before. When
// the time is over the connection ends.
func (c *Conn) awaitReady(limit time.Duration) error {
	late := time.AfterFunc(limit, func() { c.ws.Close(ws.CloseNotReady, "no ready in time") })
	defer late.Stop()
	for !c.talk.Ready() {
		err := c.receive()
		if c.trouble != nil { // it says more than the end of the connection
			return c.trouble
		}
		if err != nil {
			return errors.Join(err, c.said)
		}
	}
	if !late.Stop() {
		return fmt.Errorf("agent: no ready within %v", limit)
	}
	return nil
}

// receive reads one message, before Serve.
func (c *Conn) receive() error {
	binary, data, err := c.ws.Read()
	if err != nil {
		return c.lost(err)
	}
	c.talk.Decode(providers.Message{Binary: binary, Data: data}, c.do)
	return nil
}

// Release implements agent.Conn.
func (c *Conn) Release() {
	c.mu.Lock()
	c.done = true
	c.alive.Stop()
	c.mu.Unlock()
	c.ws.Release()
	if talker, is := c.talk.(agent.Talker); is {
		talker.Release()
	}
}

// Close implements agent.Conn.
func (c *Conn) Close(cause calls.Cause) {
	code := ws.CloseNormal
	switch cause {
	case calls.AgentTimeout:
		code = ws.ClosePolicy
	case calls.AgentProtocol:
		code = ws.CloseProtocol
	}
	c.closed.Store(true)
	c.ws.Close(code, string(cause))
}

// Serve implements agent.Conn.
func (c *Conn) Serve(h agent.Handler) {
	c.h, c.do = h, h.Command
	c.ws.Serve(c.loop, served{c})
}

// served is the connection as ws sees it.
type served struct{ *Conn }

// Message implements ws.Handler.
func (c served) Message(binary bool, data []byte) {
	if c.closed.Load() {
		return
	}
	c.talk.Decode(providers.Message{Binary: binary, Data: data}, c.do)
}

// Writable implements ws.Handler.
func (c served) Writable() { c.h.Writable() }

// Closed implements ws.Handler.
func (c served) Closed(err error) { c.h.Gone(c.lost(err)) }

// Send implements agent.Conn.
func (c *Conn) Send(ev *agent.Event) (more bool, err error) {
	c.out.Reset()
	if err := c.talk.Encode(&c.out, ev); err != nil {
		return false, fmt.Errorf("agent: encode: %w", err)
	}
	more = true
	for _, m := range c.out.All() {
		if more, err = c.ws.Put(m.Binary, m.Data); err != nil {
			return false, sendError(err)
		}
	}
	return more, nil
}

func sendError(err error) error {
	cause := calls.AgentLost
	if ws.IsTimeout(err) {
		cause = calls.AgentTimeout
	}
	return &agent.Error{Cause: cause, Err: fmt.Errorf("agent: %w", err)}
}

// lost says how the connection ended.
func (c *Conn) lost(err error) error {
	cause := calls.AgentLost
	var panicked *ws.PanicError
	switch code := ws.CloseCode(err); {
	case errors.As(err, &panicked):
		cause = calls.BridgeFault
	case ws.InGoodOrder(code) && !c.stays:
		cause = calls.AgentHangup
	case errors.Is(err, ws.ErrSlow):
		cause = calls.AgentTimeout
	case code == 0 && !ws.IsTimeout(err):
		cause = calls.AgentProtocol
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		return &agent.Error{Cause: calls.AgentLost, Err: errors.New("agent: no answer to pings")}
	}
	return &agent.Error{Cause: cause, Err: fmt.Errorf("agent: %w", err)}
}
