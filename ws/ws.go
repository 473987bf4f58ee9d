// Package ws is the one place that knows the WebSocket library: a connection
// with every limit set, which gorilla's defaults leave open. It carries messages
// and knows nothing of calls.
package ws

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/gorilla/websocket"
)

// Close codes of RFC 6455 and the private ones of this project.
const (
	CloseNormal      = websocket.CloseNormalClosure
	CloseGoingAway   = websocket.CloseGoingAway
	CloseUnsupported = websocket.CloseUnsupportedData
	CloseBadText     = websocket.CloseInvalidFramePayloadData
	ClosePolicy      = websocket.ClosePolicyViolation
	CloseTooLarge    = websocket.CloseMessageTooBig
	CloseInternal    = websocket.CloseInternalServerErr
	CloseTryLater    = websocket.CloseTryAgainLater
	CloseProtocol    = 4000 // to agents: too many malformed messages
	CloseNotReady    = 4008 // to agents: no ready in time
	CloseBadStart    = 4400 // to carriers: the stream makes no sense
	CloseTimeout     = 4408 // to carriers: nothing came in time
)

// Limits of a connection. All but Idle must be set.
type Limits struct {
	Text   int64         // bytes of a text message
	Binary int64         // bytes of a binary message
	Idle   time.Duration // until a whole message has come; a slow one does not extend it; 0: any time
	Write  time.Duration // for one message to be taken by the other side
	// AnyOrigin lets web pages connect: for sockets that ask for a token which a
	// foreign page does not have.
	AnyOrigin bool
}

// linger is how long Close waits for the other side to close.
const linger = time.Second

// keepBuffer is the largest read buffer that is kept for the next message.
const keepBuffer = 64 << 10

// Conn is a WebSocket connection. One goroutine may call Read and another
// Write; Ping and Close may be called from anywhere. The life of a connection
// ends in three steps: Close from any side, Read until it fails, Release.
type Conn struct {
	conn   *websocket.Conn
	limits Limits
	closed atomic.Bool
	alive  atomic.Int64 // Unix nanoseconds of the last message or pong

	// Owned by the goroutine that reads.
	buf   []byte
	armed time.Time // when the read deadline was last set
	gone  bool      // the other side has ended the connection

	ponging atomic.Bool
	pongs   sync.WaitGroup
}

// ErrTooLarge is the error of a message beyond its limit, ErrText of a text
// message that is not UTF-8. The connection is closed with the right code.
var (
	ErrTooLarge = errors.New("ws: message too large")
	ErrText     = errors.New("ws: text is not UTF-8")
)

var writeBuffers sync.Pool

// Accept turns a request into a connection, choosing the subprotocol if it is not
// empty and offered. Requests of web pages, which have an Origin, are refused
// with 403 unless the limits say otherwise.
func Accept(w http.ResponseWriter, r *http.Request, subprotocol string, limits Limits) (*Conn, error) {
	up := websocket.Upgrader{
		HandshakeTimeout: limits.Write,
		WriteBufferSize:  4 << 10,
		WriteBufferPool:  &writeBuffers,
		CheckOrigin:      func(r *http.Request) bool { return limits.AnyOrigin || len(r.Header["Origin"]) == 0 },
		Error: func(w http.ResponseWriter, _ *http.Request, status int, reason error) {
			http.Error(w, reason.Error(), status)
		},
	}
	if subprotocol != "" {
		up.Subprotocols = []string{subprotocol}
	}
	conn, err := up.Upgrade(w, r, nil)
	if err != nil {
		return nil, fmt.Errorf("ws: upgrade: %w", err)
	}
	return newConn(conn, limits), nil
}

// Subprotocols are those that a request offers.
func Subprotocols(r *http.Request) []string { return websocket.Subprotocols(r) }

// Dial connects to a server, offering the subprotocol if it is not empty. A
// server that chooses another one is refused. status is the HTTP status of a
// refused handshake, otherwise 0.
func Dial(ctx context.Context, url, subprotocol string, header http.Header, limits Limits) (c *Conn, status int, err error) {
	d := websocket.Dialer{
		Proxy:           http.ProxyFromEnvironment,
		WriteBufferSize: 4 << 10,
		WriteBufferPool: &writeBuffers,
	}
	if subprotocol != "" {
		d.Subprotocols = []string{subprotocol}
	}
	// The library heeds the deadline of ctx while it waits for the server's
	// answer, but not its cancellation.
	stop := func() bool { return true }
	d.NetDialContext = func(dial context.Context, network, address string) (net.Conn, error) {
		tcp, err := (&net.Dialer{}).DialContext(dial, network, address)
		if err == nil {
			stop = context.AfterFunc(ctx, func() { _ = tcp.SetDeadline(time.Now()) })
		}
		return tcp, err
	}
	conn, resp, err := d.DialContext(ctx, url, header)
	if !stop() && err == nil {
		conn.Close()
		err = context.Cause(ctx)
	}
	if err != nil {
		if resp != nil {
			return nil, resp.StatusCode, fmt.Errorf("ws: dial: %w: %s", err, resp.Status)
		}
		return nil, 0, fmt.Errorf("ws: dial: %w", err)
	}
	if p := conn.Subprotocol(); p != "" && p != subprotocol {
		conn.Close()
		return nil, 0, fmt.Errorf("ws: dial: the server chose subprotocol %.40q", p)
	}
	return newConn(conn, limits), 0, nil
}

func newConn(conn *websocket.Conn, limits Limits) *Conn {
	c := &Conn{conn: conn, limits: limits}
	conn.SetReadLimit(max(limits.Text, limits.Binary))
	c.touch()
	conn.SetPongHandler(func(string) error { c.touch(); return nil })
	conn.SetPingHandler(func(data string) error { c.touch(); c.pong(data); return nil })
	return c
}

// pong answers a ping beside the reader, which must not wait for a writer that
// is held up. One answer is under way at a time: RFC 6455 lets pings that come
// meanwhile go unanswered.
func (c *Conn) pong(data string) {
	if c.ponging.Swap(true) {
		return
	}
	c.pongs.Go(func() {
		defer c.ponging.Store(false)
		// A failure is one of the connection, which Read will tell.
		_ = c.conn.WriteControl(websocket.PongMessage, []byte(data), time.Now().Add(c.limits.Write))
	})
}

func (c *Conn) touch() { c.alive.Store(time.Now().UnixNano()) }

// Quiet is how long nothing has been heard from the other side: no message,
// ping or pong.
func (c *Conn) Quiet() time.Duration { return time.Duration(time.Now().UnixNano() - c.alive.Load()) }

// Read returns the next message; data is valid until the next call. Once it has
// failed, no more messages come.
func (c *Conn) Read() (binary bool, data []byte, err error) {
	// Setting a deadline costs as much as decoding a frame: not for each one.
	if now := time.Now(); c.limits.Idle > 0 && now.Sub(c.armed) > min(time.Second, c.limits.Idle/8) && !c.closed.Load() {
		c.armed = now
		if err := c.conn.SetReadDeadline(now.Add(c.limits.Idle)); err != nil {
			return false, nil, fmt.Errorf("ws: read: %w", err)
		}
		if c.closed.Load() { // Close came in between
			c.hurry()
		}
	}
	kind, r, err := c.conn.NextReader()
	if err != nil {
		return false, nil, c.failed(err)
	}
	binary = kind == websocket.BinaryMessage
	limit := c.limits.Text
	if binary {
		limit = c.limits.Binary
	}
	if cap(c.buf) > keepBuffer {
		c.buf = nil
	}
	c.buf = c.buf[:0]
	for {
		if len(c.buf) == cap(c.buf) {
			c.buf = slices.Grow(c.buf, max(1024, cap(c.buf)))
		}
		n, err := r.Read(c.buf[len(c.buf):cap(c.buf)])
		c.buf = c.buf[:len(c.buf)+n]
		if int64(len(c.buf)) > limit {
			c.Close(CloseTooLarge, "message too large")
			return false, nil, ErrTooLarge
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return false, nil, c.failed(err)
		}
	}
	if !binary && !utf8.Valid(c.buf) {
		c.Close(CloseBadText, "text is not UTF-8")
		return false, nil, ErrText
	}
	c.touch()
	return binary, c.buf, nil
}

func (c *Conn) failed(err error) error {
	if errors.Is(err, websocket.ErrReadLimit) {
		c.Close(CloseTooLarge, "message too large")
		return ErrTooLarge
	}
	c.gone = CloseCode(err) != 0
	return fmt.Errorf("ws: read: %w", err)
}

// Release frees the connection after Read has failed. Where it was this side
// that ended it, what the other side still sends is read for a second at most:
// data that nobody reads would make the system take back the close message.
func (c *Conn) Release() {
	if !c.gone {
		c.hurry()
		_, _ = io.CopyN(io.Discard, c.conn.NetConn(), 16<<20)
	}
	c.conn.Close()
	c.pongs.Wait()
}

// CloseCode is the code with which the other side closed the connection: 1005
// where it gave none, 1006 where it went without a word, and 0 where the
// connection ended otherwise: a time-out, or a message that broke the rules.
func CloseCode(err error) int {
	var closed *websocket.CloseError
	var network *net.OpError
	switch {
	case errors.As(err, &closed):
		return closed.Code
	case IsTimeout(err):
		return 0
	case errors.As(err, &network), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return websocket.CloseAbnormalClosure
	}
	return 0
}

// IsTimeout tells whether a Read or Write failed because of its time limit.
func IsTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

// Write sends one message.
func (c *Conn) Write(binary bool, data []byte) error {
	kind := websocket.TextMessage
	if binary {
		kind = websocket.BinaryMessage
	}
	if c.closed.Load() {
		return fmt.Errorf("ws: write: %w", net.ErrClosed)
	}
	err := c.conn.SetWriteDeadline(time.Now().Add(c.limits.Write))
	if err == nil {
		err = c.conn.WriteMessage(kind, data)
	}
	if err != nil {
		return fmt.Errorf("ws: write: %w", err)
	}
	return nil
}

// Ping asks the other side for a sign of life; see Quiet.
func (c *Conn) Ping() error {
	if err := c.conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(c.limits.Write)); err != nil {
		return fmt.Errorf("ws: ping: %w", err)
	}
	return nil
}

// Close says goodbye: it sends a close message and leaves the other side a
// second to answer, then Read fails. Calls after the first do nothing.
func (c *Conn) Close(code int, reason string) {
	if c.closed.Swap(true) {
		return
	}
	c.hurry()
	// An error means that the other side is gone already, which Read will tell.
	_ = c.conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, reason), time.Now().Add(linger))
}

// hurry ends reads and writes that are under way after the linger time.
func (c *Conn) hurry() {
	_ = c.conn.NetConn().SetDeadline(time.Now().Add(linger))
}
