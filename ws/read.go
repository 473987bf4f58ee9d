package ws

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"voicebridge/ws/frame"
)

// What comes: taking messages apart, and the end of a connection.

// Read waits for the next message; data is valid until the next call. Once it has
// failed, no more messages come.
func (c *Conn) Read() (binary bool, data []byte, err error) {
	for c.err == nil {
		for len(c.buf) > 0 && c.err == nil {
			op, data := c.next(c.now())
			if op != 0 {
				c.pong()
				return op == frame.Binary, data, nil
			}
		}
		c.pong()
		if c.err != nil {
			break
		}
		if c.room == nil {
			c.room = make([]byte, readBuffer)
		}
		n, err := c.conn.Read(c.room)
		if c.buf = c.room[:n]; n == 0 && err != nil {
			c.lost(err)
		}
	}
	return false, nil, c.err
}

// next takes the next piece of c.buf, and gives the message that it completes. op
// is 0 where there is none.
func (c *Conn) next(now int64) (op byte, data []byte) {
	n, op, data, err := c.in.Take(c.buf)
	c.buf = c.buf[n:]
	if err != nil {
		c.refuse(err)
		return 0, nil
	}
	if op >= frame.Text && op <= frame.Close && c.pinged { // a ping is answered before what comes after it
		c.pinged = false
		c.pong()
	}
	switch op {
	case frame.Text, frame.Binary:
		c.alive.Store(now)
		c.heard.Store(now)
		return op, data
	case frame.Ping:
		c.alive.Store(now)
		c.owe(data)
	case frame.Pong:
		c.alive.Store(now)
	case frame.Close:
		c.closedBy(data)
	}
	return 0, nil
}

// owe notes that a ping is to be answered: of several the last one (RFC 6455, section
// 5.5.3), so that a flood of them costs little.
func (c *Conn) owe(data []byte) {
	c.pinged = true
	c.mu.Lock()
	defer c.mu.Unlock()
	c.owes, c.owed = true, append(c.owed[:0], data...)
}

// pong answers the last ping, once the other side takes what it is sent.
func (c *Conn) pong() {
	c.mu.Lock()
	if !c.owes || !c.line.light() {
		c.mu.Unlock()
		return
	}
	c.owes = false
	var data [frame.MaxControl]byte
	n := copy(data[:], c.owed)
	c.mu.Unlock()
	_, _ = c.put(frame.Pong, data[:n]) // a failure shows where it is read
}

// refuse ends the connection because of what came.
func (c *Conn) refuse(err error) {
	code := closeBroken
	switch {
	case errors.Is(err, ErrTooLarge):
		code = CloseTooLarge
	case errors.Is(err, ErrText):
		code = CloseBadText
	}
	c.err = fmt.Errorf("WebSocket: read: %w", err)
	c.Close(code, strings.TrimPrefix(err.Error(), "WebSocket: "))
}

// closedBy takes the other side's close message, and answers it.
func (c *Conn) closedBy(data []byte) {
	code, reason, err := frame.Closing(data)
	if err != nil {
		c.refuse(err)
		return
	}
	c.gone = true
	c.err = fmt.Errorf("WebSocket: read: %w", &CloseError{code, reason})
	if code == closeNone {
		code = 0
	}
	c.Close(code, "")
}

// lost notes that nothing can be read any more.
func (c *Conn) lost(err error) {
	switch cut := c.line.failure(); {
	case c.panicked.Load() != nil:
		err = c.panicked.Load()
	case IsTimeout(cut):
		err = cut
	case IsTimeout(err):
		err = errIdle
	}
	c.gone = !IsTimeout(err)
	if c.err == nil {
		c.err = fmt.Errorf("WebSocket: read: %w", err)
	}
}

// Serve gives all that comes from now on to h: from the loop, or where it is nil
// or cannot, from a goroutine. Read must not be called any more. Release returns
// when the connection has ended.
func (c *Conn) Serve(loop *Loop, h Handler) {
	c.handler, c.done = h, make(chan struct{})
	c.line.onDrained(c.writable)
	if c.err != nil || !c.line.move(loop) {
		go c.serve()
		return
	}
	c.feed(false)
	c.room = nil
	if c.freed() {
		return
	}
	if err := c.line.attach(c); err != nil {
		c.over(err)
	} else { // the descriptor does not show what TLS, or the first turn, has left
		loop.post(c.readable)
	}
}

// freed reports whether a connection that is served has ended.
func (c *Conn) freed() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// serve is Serve without an event loop.
func (c *Conn) serve() {
	defer close(c.done)
	for {
		binary, data, err := c.Read()
		if err != nil {
			c.tellClosed()
			c.release()
			return
		}
		c.give(binary, data)
	}
}

// give hands a message on. A panic ends this connection, and no other of its loop.
func (c *Conn) give(binary bool, data []byte) {
	c.message(binary, data)
	if p := c.panicked.Load(); p != nil && c.err == nil { // there, or in Writable
		c.err = fmt.Errorf("WebSocket: read: %w", p)
	}
}

func (c *Conn) message(binary bool, data []byte) {
	defer c.guard()
	c.handler.Message(binary, data)
}

// writable tells that what was kept has gone.
func (c *Conn) writable() {
	c.pong()
	defer c.guard()
	c.handler.Writable()
}

// guard is deferred where a Handler is called.
func (c *Conn) guard() {
	if v := recover(); v != nil {
		c.panicked.CompareAndSwap(nil, &PanicError{v, debug.Stack()})
		c.Close(CloseInternal, "")
	}
}

// tellClosed tells the handler of the end. A panic in that has nobody left to be told.
func (c *Conn) tellClosed() {
	defer func() { _ = recover() }()
	c.handler.Closed(c.err)
}

// turn is how long an event loop works for one connection before the others have theirs. Whoever
// needs more waits in a queue, of which one is served each time that the loop comes round: however
// many send all that they can, the others are late by one turn, or one message that takes longer.
const turn = 200 * time.Microsecond

// others is how much more of the loop's time is left to the others than those have that wait for
// turns.
const others = 3

// maxPause is how long those wait that are next, at most: a turn that took much longer than turn was
// not all spent on them, but the system had taken the processor away meanwhile.
const maxPause = 10 * turn

// pause is how long those wait that are next after a turn that took so long.
func pause(took time.Duration) time.Duration { return min(others*took, maxPause) }

// feed takes apart what was read by an event loop, for a turn. What is left then is kept: copied,
// unless it has been. It reports whether all of the turn was needed.
func (c *Conn) feed(kept bool) (long bool) {
	now := c.now()
	for end := now + int64(turn); len(c.buf) > 0 && c.err == nil && !long; long = now > end {
		if op, data := c.next(now); op != 0 {
			c.give(op == frame.Binary, data)
		}
		now = c.now()
	}
	if c.rest = c.buf; len(c.rest) > 0 && !kept {
		c.spare = append(c.spare[:0], c.rest...)
		c.rest = c.spare
	}
	c.buf = nil
	c.pong()
	switch {
	case c.err == nil:
		return long
	case c.gone:
		c.end()
	default: // the other side is still to hear of it
		c.tellClosed()
	}
	return false
}

// readable reads what there is, into buf, for a turn, unless the connection waits for one.
func (c *Conn) readable(buf []byte) {
	if !c.waits {
		c.serveTurn(buf)
	}
}

// serveTurn gives the connection a turn.
func (c *Conn) serveTurn(buf []byte) {
	if c.takeTurn(buf); c.freed() {
		return
	}
	if c.line.listen(!c.waits); c.waits {
		c.line.loop.waits(c)
	}
}

// takeTurn goes on with what the last turn has left, or reads what there is.
func (c *Conn) takeTurn(buf []byte) {
	c.waits = false
	switch {
	case c.closed.Load() && c.line.failure() != nil: // it has had its time to close as well
		c.over(c.line.failure())
		return
	case c.err != nil:
		c.rest = nil
	case len(c.rest) > 0:
		c.buf, c.rest = c.rest, nil
		long := c.feed(true)
		c.waits = long || c.conn != c.line // the descriptor does not show what TLS still has
		return
	}
	for range readsAtOnce {
		if c.freed() {
			return
		}
		n, err := c.conn.Read(buf)
		long := false
		switch {
		case n > 0 && c.err != nil:
			if c.discarded += n; c.discarded > maxDiscard {
				c.over(ErrTooLarge)
			}
		case n > 0:
			c.buf = buf[:n]
			long = c.feed(false)
		}
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return
		case err != nil:
			c.over(err)
			return
		case long:
			c.waits = true
			return
		case c.conn == c.line:
			return // the loop tells of more
		}
	}
	c.waits = true // TLS may still have something
}

// over ends a connection in an event loop from which nothing more can be read.
func (c *Conn) over(err error) {
	if c.freed() {
		return
	}
	told := c.err != nil
	c.lost(err)
	if told {
		c.free()
		close(c.done)
		return
	}
	c.end()
}

// end tells the handler of the end, and frees a connection in an event loop.
func (c *Conn) end() {
	c.tellClosed()
	c.free()
	close(c.done)
}

// Release frees the connection after Read has failed or Closed was called. Where
// it was this side that ended it, what the other side still sends is read for a
// second at most: data that nobody reads would make the system take back the close
// message.
func (c *Conn) Release() {
	if c.done != nil {
		<-c.done
		return
	}
	c.release()
}

func (c *Conn) release() {
	c.lingering()
	if !c.gone && c.line.SetReadDeadline(time.Now().Add(linger)) == nil {
		_, _ = io.CopyN(io.Discard, c.conn, maxDiscard)
	}
	c.free()
}
