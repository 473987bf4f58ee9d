package ws

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"voicebridge/ws/frame"
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
	closeNone   = frame.NoCode
	closeLost   = 1006 // it went without a word
)

// Limits of a connection. All but Idle must be set.
type Limits struct {
	Text   int64 // bytes of a text message
	Binary int64 // bytes of a binary message
	// Pieces has binary messages of any size handed on in pieces as they come, of about Binary
	// bytes: for those that hold a stream of samples.
	Pieces bool
	Idle   time.Duration // until a whole message has come; a slow one does not extend it; 0: any time
	Write  time.Duration // for what was written to be taken by the other side
	// Signs tells that pings and pongs count for Idle as messages do; they are asked for.
	Signs bool
	// Fresh has the system take no more than it can soon send: for what must not be old when it is
	// read, and is dropped rather than that.
	Fresh bool
	// AnyOrigin lets web pages of all hosts connect: for sockets that ask for a token which a
	// foreign page does not have.
	AnyOrigin bool
}

// linger is how long Close waits for the other side to close.
const linger = time.Second

// idleRetry is after what time a connection that is idle, and still there, is ended
// anew.
const idleRetry = 100 * time.Millisecond

const (
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

	closed   atomic.Bool
	born     time.Time    // times are counted from it: no clock that is set changes them
	alive    atomic.Int64 // nanoseconds at the last message, ping or pong
	heard    atomic.Int64 // at the last message
	panicked atomic.Pointer[PanicError]

	out  sync.Mutex // held while a frame is written, and guards said
	said bool       // the close message has been: it is the last

	mu     sync.Mutex // guards what follows
	idle   *time.Timer
	hurry  *time.Timer
	ending bool
	owes   bool // a pong is owed, with this
	owed   []byte

	// Owned by whoever reads.
	in        frame.Reader
	buf       []byte // what was read and not taken apart yet
	rest      []byte // of it, what is left to the next turn
	pinged    bool   // a pong is owed, perhaps
	spare     []byte // holds rest
	waits     bool   // for another turn of the loop
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
	ErrTooLarge = frame.ErrTooLarge
	ErrText     = frame.ErrText

	errIdle   error = timeoutError("WebSocket: nothing came in time")
	errLinger error = timeoutError("WebSocket: the other side did not close")
)

// PanicError is the error of a connection whose Handler has panicked. The other side has been
// told 1011.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// Panicked returns what the panic was, and where.
func (e *PanicError) Panicked() (v any, stack []byte) { return e.Value, e.Stack }

// CloseError is how the other side closed the connection.
type CloseError struct {
	Code   int
	Reason string
}

func (e *CloseError) Error() string {
	return fmt.Sprintf("closed by the other side: %d %s", e.Code, e.Reason)
}

func newConn(conn net.Conn, l *line, client bool, early []byte, limits Limits) *Conn {
	c := &Conn{conn: conn, line: l, client: client, limits: limits, buf: early, born: time.Now(),
		in: frame.Reader{Server: !client, Text: limits.Text, Binary: limits.Binary, Pieces: limits.Pieces}}
	l.onDrained(c.pong)
	if limits.Fresh && l.raw != nil {
		_ = keepFresh(l.raw) // otherwise it is as without
	}
	if limits.Idle > 0 {
		c.mu.Lock()
		defer c.mu.Unlock()
		first := limits.Idle
		if limits.Signs {
			first /= 3
		}
		c.idle = time.AfterFunc(first, c.checkIdle)
	}
	return c
}

// checkIdle ends a connection from which no message, or no sign of life, has come in time.
func (c *Conn) checkIdle() {
	if c.checkedIdle() {
		_ = c.Ping() // a failure shows where it is read
	}
}

// checkedIdle reports whether a sign of life is to be asked for.
func (c *Conn) checkedIdle() (ask bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending {
		return false
	}
	last, every := c.heard.Load(), c.limits.Idle
	if c.limits.Signs {
		last, every = c.alive.Load(), c.limits.Idle/3
	}
	quiet := time.Duration(c.now() - last)
	switch rest := c.limits.Idle - quiet; {
	case rest <= 0:
		c.line.interrupt(c)
		c.idle.Reset(idleRetry) // it may not be served yet
		return false
	case quiet < every:
		c.idle.Reset(every - quiet)
		return false
	default:
		c.idle.Reset(min(rest, every))
		return true
	}
}

// idled ends a connection in an event loop from which no message has come in time.
// The other side is still to hear of it.
func (c *Conn) idled([]byte) {
	if c.err == nil {
		c.err = fmt.Errorf("WebSocket: read: %w", errIdle)
		c.tellClosed()
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
func (c *Conn) Quiet() time.Duration { return time.Duration(c.now() - c.alive.Load()) }

func (c *Conn) now() int64 { return int64(time.Since(c.born)) }

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
			err = fmt.Errorf("WebSocket: write: %w", err)
		}
	}
	return err
}

// Put sends one message without waiting. more is false where it could not be sent
// whole: it has been kept, and Writable will tell that it has gone; what is put
// before is kept as well, up to 4 MB.
func (c *Conn) Put(binary bool, data []byte) (more bool, err error) {
	if c.closed.Load() {
		return false, fmt.Errorf("WebSocket: write: %w", net.ErrClosed)
	}
	op := byte(frame.Text)
	if binary {
		op = frame.Binary
	}
	return c.put(op, data)
}

// frames holds buffers for one frame each.
var frames = sync.Pool{New: func() any { b := make([]byte, 0, 2<<10); return &b }}

func (c *Conn) put(op byte, data []byte) (more bool, err error) {
	buf := frames.Get().(*[]byte)
	whole := frame.Append((*buf)[:0], op, data, c.client)
	err = c.write(op, whole)
	if cap(whole) <= frame.KeepBuffer {
		*buf = whole
		frames.Put(buf)
	}
	if err != nil {
		// What the other side said before it left is still to be read; but not for ever.
		c.lingering()
		return false, fmt.Errorf("WebSocket: write: %w", err)
	}
	return c.line.clear(), nil
}

// write writes a frame. None follows the close message (RFC 6455, section 5.5.1).
func (c *Conn) write(op byte, whole []byte) error {
	c.out.Lock()
	defer c.out.Unlock()
	if c.said {
		return net.ErrClosed
	}
	c.said = op == frame.Close
	_, err := c.conn.Write(whole)
	return err
}

// Ping asks the other side for a sign of life; see Quiet.
func (c *Conn) Ping() error {
	_, err := c.put(frame.Ping, nil)
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
		data = append(data, strings.ToValidUTF8(reason[:min(len(reason), frame.MaxControl-2)], "")...)
	}
	_, _ = c.put(frame.Close, data) // a failure shows where it is read
}
