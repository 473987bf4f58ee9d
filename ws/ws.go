// Package ws is WebSocket connections with every limit set. They carry messages
// and know nothing of calls.
//
// A connection is read in one of two ways. Read waits for the next message. Serve
// has each message given to a Handler: by an event loop, which serves many
// connections on one goroutine, or by a goroutine of the connection's own where
// there is no loop. Both run the same framing over the same line, so that they
// behave alike. Only the handshakes are left to a library.
package ws

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Close codes of RFC 6455 and the private ones of this project.
const (
	CloseNormal      = 1000
	CloseGoingAway   = 1001
	CloseUnsupported = 1003
	CloseBadText     = 1007
	ClosePolicy      = 1008
	CloseTooLarge    = 1009
	CloseInternal    = 1011
	CloseTryLater    = 1013
	CloseProtocol    = 4000 // to agents: too many malformed messages
	CloseNotReady    = 4008 // to agents: no ready in time
	CloseBadStart    = 4400 // to carriers: the stream makes no sense
	CloseTimeout     = 4408 // to carriers: nothing came in time

	closeBroken = 1002 // the rules of RFC 6455 were broken
	closeNone   = 1005 // the other side gave no code
	closeLost   = 1006 // it went without a word
)

// Limits of a connection. All but Idle must be set.
type Limits struct {
	Text   int64         // bytes of a text message
	Binary int64         // bytes of a binary message
	Idle   time.Duration // until a whole message has come; a slow one does not extend it; 0: any time
	Write  time.Duration // for what was written to be taken by the other side
	// AnyOrigin lets web pages connect: for sockets that ask for a token which a
	// foreign page does not have.
	AnyOrigin bool
}

// linger is how long Close waits for the other side to close.
const linger = time.Second

// idleRetry is after what time a connection that is idle, and still there, is ended
// anew.
const idleRetry = 100 * time.Millisecond

const (
	keepBuffer  = 64 << 10 // the largest buffer that is kept for the next message
	readBuffer  = 4 << 10  // of a connection without event loop
	readsAtOnce = 4        // of a connection with TLS: a record each
	maxDiscard  = 16 << 20 // read of what comes after this side has ended the connection
)

// Handler is given what comes over a connection. Message and Closed are called one
// at a time; Writable may be called at any time.
type Handler interface {
	// Message is a whole message; data is valid until it returns.
	Message(binary bool, data []byte)
	// Writable tells that what Put had to keep has gone.
	Writable()
	// Closed is the last call of Message and Closed; err is as of Read.
	Closed(err error)
}

// Conn is a WebSocket connection. One goroutine may call Read or Serve; all else
// may be called from anywhere. The life of a connection ends in three steps: Close
// from any side, Read until it fails or Closed, Release.
type Conn struct {
	conn   net.Conn // line, or TLS over it
	line   *line
	client bool
	limits Limits

	subprotocol string

	closed atomic.Bool
	alive  atomic.Int64 // Unix nanoseconds of the last message, ping or pong
	heard  atomic.Int64 // of the last message

	mu     sync.Mutex // guards what follows
	idle   *time.Timer
	hurry  *time.Timer
	ending bool
	owes   bool // a pong is owed, with this
	owed   []byte

	// Owned by whoever reads.
	in        reader
	buf       []byte // what was read and not taken apart yet
	room      []byte
	err       error // why no more messages come
	gone      bool  // the other side has ended the connection
	discarded int

	handler Handler
	done    chan struct{} // closed when a connection that is served is free
}

// ErrTooLarge is the error of a message beyond its limit, ErrText of a text
// message that is not UTF-8. The connection is closed with the right code.
var (
	ErrTooLarge = errors.New("ws: message too large")
	ErrText     = errors.New("ws: text is not UTF-8")

	errIdle   error = timeoutError("ws: nothing came in time")
	errLinger error = timeoutError("ws: the other side did not close")
)

// CloseError is how the other side closed the connection.
type CloseError struct {
	Code   int
	Reason string
}

func (e *CloseError) Error() string {
	return fmt.Sprintf("closed by the other side: %d %s", e.Code, e.Reason)
}

func newConn(conn net.Conn, l *line, client bool, early []byte, limits Limits) *Conn {
	c := &Conn{conn: conn, line: l, client: client, limits: limits, buf: early,
		in: reader{server: !client, text: limits.Text, binary: limits.Binary}}
	now := time.Now().UnixNano()
	c.alive.Store(now)
	c.heard.Store(now)
	if limits.Idle > 0 {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.idle = time.AfterFunc(limits.Idle, c.checkIdle)
	}
	return c
}

// checkIdle ends a connection from which no message has come in time.
func (c *Conn) checkIdle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending {
		return
	}
	if rest := c.limits.Idle - time.Duration(time.Now().UnixNano()-c.heard.Load()); rest > 0 {
		c.idle.Reset(rest)
		return
	}
	c.line.interrupt(c)
	c.idle.Reset(idleRetry) // it may not be served yet
}

// idled ends a connection in an event loop from which no message has come in time.
// The other side is still to hear of it.
func (c *Conn) idled([]byte) {
	if c.err == nil {
		c.err = fmt.Errorf("ws: read: %w", errIdle)
		c.handler.Closed(c.err)
	}
}

// lingering leaves the other side a second to end the connection.
func (c *Conn) lingering() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ending = true
	if c.idle != nil {
		c.idle.Stop()
	}
	if c.hurry == nil {
		c.hurry = time.AfterFunc(linger, func() { c.line.Cut(errLinger) })
	}
}

// free closes the line.
func (c *Conn) free() {
	c.lingering()
	c.mu.Lock()
	c.hurry.Stop()
	c.mu.Unlock()
	_ = c.conn.Close() // there is nobody to tell
}

// Subprotocol returns the one that was chosen in the handshake; empty: none.
func (c *Conn) Subprotocol() string { return c.subprotocol }

// Quiet returns how long nothing has been heard from the other side: no message,
// ping or pong.
func (c *Conn) Quiet() time.Duration { return time.Duration(time.Now().UnixNano() - c.alive.Load()) }

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
	c.err = fmt.Errorf("ws: read: %w", err)
	c.Close(code, strings.TrimPrefix(err.Error(), "ws: "))
}

// closedBy takes the other side's close message, and answers it.
func (c *Conn) closedBy(data []byte) {
	code, reason, err := closing(data)
	if err != nil {
		c.refuse(err)
		return
	}
	c.gone = true
	c.err = fmt.Errorf("ws: read: %w", &CloseError{code, reason})
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
		c.err = fmt.Errorf("ws: read: %w", err)
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

// CloseCode is the code with which the other side closed the connection: 1005
// where it gave none, 1006 where it went without a word, and 0 where the
// connection ended otherwise: a time-out, or a message that broke the rules.
func CloseCode(err error) int {
	var closed *CloseError
	var network *net.OpError
	switch {
	case errors.As(err, &closed):
		return closed.Code
	case IsTimeout(err):
		return 0
	case errors.As(err, &network), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return closeLost
	}
	return 0
}

// InGoodOrder reports whether the other side closed with the code in good order.
func InGoodOrder(code int) bool {
	return code == CloseNormal || code == CloseGoingAway || code == closeNone
}

// IsTimeout reports whether a connection ended because of a time limit; ErrSlow is
// that of writing.
func IsTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

// Write sends one message, and waits until the other side, or the system for it,
// has taken it.
func (c *Conn) Write(binary bool, data []byte) error {
	more, err := c.Put(binary, data)
	if err == nil && !more {
		if err = c.line.wait(); err != nil {
			err = fmt.Errorf("ws: write: %w", err)
		}
	}
	return err
}

// Put sends one message without waiting. more is false where it could not be sent
// whole: it has been kept, and Writable will tell that it has gone; what is put
// before is kept as well, up to 4 MB.
func (c *Conn) Put(binary bool, data []byte) (more bool, err error) {
	if c.closed.Load() {
		return false, fmt.Errorf("ws: write: %w", net.ErrClosed)
	}
	op := byte(opText)
	if binary {
		op = opBinary
	}
	return c.put(op, data)
}

// frames holds buffers for one frame each.
var frames = sync.Pool{New: func() any { b := make([]byte, 0, 2<<10); return &b }}

func (c *Conn) put(op byte, data []byte) (more bool, err error) {
	buf := frames.Get().(*[]byte)
	frame := appendFrame((*buf)[:0], op, data, c.client)
	_, err = c.conn.Write(frame)
	if cap(frame) <= keepBuffer {
		*buf = frame
		frames.Put(buf)
	}
	if err != nil {
		// What the other side said before it left is still to be read; but not for ever.
		c.lingering()
		return false, fmt.Errorf("ws: write: %w", err)
	}
	return c.line.clear(), nil
}

// Ping asks the other side for a sign of life; see Quiet.
func (c *Conn) Ping() error {
	_, err := c.put(opPing, nil)
	return err
}

// Close says goodbye: it sends a close message and leaves the other side a
// second to answer, then Read fails. Calls after the first do nothing. Code 0 says
// nothing in the message.
func (c *Conn) Close(code int, reason string) {
	if c.closed.Swap(true) {
		return
	}
	c.lingering()
	var data []byte
	if code != 0 {
		data = append(data, byte(code>>8), byte(code))
		data = append(data, reason[:min(len(reason), maxControl-2)]...)
	}
	_, _ = c.put(opClose, data) // a failure shows where it is read
}
