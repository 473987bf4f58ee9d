package ws

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// What comes: taking messages apart, and the end of a connection.

// Read waits for the next message; data is valid until the next call. Once it has
// failed, no more messages come.
func (c *Conn) Read() (binary bool, data []byte, err error) {
	for c.err == nil {
		for len(c.buf) > 0 && c.err == nil {
			op, data := c.next(time.Now().UnixNano())
			if op != 0 {
				c.pong()
				return op == opBinary, data, nil
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
	n, op, data, err := c.in.take(c.buf)
	c.buf = c.buf[n:]
	if err != nil {
		c.refuse(err)
		return 0, nil
	}
	switch op {
	case opText, opBinary:
		c.alive.Store(now)
		c.heard.Store(now)
		return op, data
	case opPing:
		c.alive.Store(now)
		c.owe(data)
	case opPong:
		c.alive.Store(now)
	case opClose:
		c.closedBy(data)
	}
	return 0, nil
}

// owe notes that a ping is to be answered: of several the last one (RFC 6455, section
// 5.5.3), so that a flood of them costs little.
func (c *Conn) owe(data []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.owes, c.owed = true, append(c.owed[:0], data...)
}

// pong answers the last ping, once the other side takes what it is sent.
func (c *Conn) pong() {
	c.mu.Lock()
	if !c.owes || !c.line.clear() {
		c.mu.Unlock()
		return
	}
	c.owes = false
	var data [maxControl]byte
	n := copy(data[:], c.owed)
	c.mu.Unlock()
	_, _ = c.put(opPong, data[:n]) // a failure shows where it is read
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
	code, reason, err := closing(data)
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
	c.line.onDrained(func() { c.pong(); h.Writable() })
	if c.err != nil || !c.line.move(loop) {
		go c.serve()
		return
	}
	c.feed()
	c.room = nil
	if c.freed() {
		return
	}
	if err := c.line.attach(c); err != nil {
		c.over(err)
	} else if c.conn != c.line { // TLS may have more than the descriptor shows
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
			c.handler.Closed(err)
			c.release()
			return
		}
		c.handler.Message(binary, data)
	}
}

// feed takes apart what was read by an event loop.
func (c *Conn) feed() {
	now := time.Now().UnixNano()
	for len(c.buf) > 0 && c.err == nil {
		if op, data := c.next(now); op != 0 {
			c.handler.Message(op == opBinary, data)
		}
	}
	c.buf = nil
	c.pong()
	switch {
	case c.err == nil:
	case c.gone:
		c.end()
	default: // the other side is still to hear of it
		c.handler.Closed(c.err)
	}
}

// readable reads what there is, into buf, but not for long: the others of the loop
// have their turn too.
func (c *Conn) readable(buf []byte) {
	for range readsAtOnce {
		if c.freed() {
			return
		}
		n, err := c.conn.Read(buf)
		switch {
		case n > 0 && c.err != nil:
			if c.discarded += n; c.discarded > maxDiscard {
				c.over(ErrTooLarge)
			}
		case n > 0:
			c.buf = buf[:n]
			c.feed()
		}
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded):
			return
		default:
			c.over(err)
			return
		}
		if c.conn == c.line {
			return // the loop tells of more
		}
	}
	c.line.loop.post(c.readable) // the descriptor does not show what TLS still has
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
	c.handler.Closed(c.err)
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
