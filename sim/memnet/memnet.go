// Package memnet is a network in memory, for tests in virtual time (testing/synctest):
// whatever waits for one of its connections waits durably, so that the clock can move
// on. Connections are buffered, as those of TCP are.
//
// Addresses are those of this machine with ports that TCP does not have, above 65535,
// so that Dial can tell them from real ones.
package memnet

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// room is how much one direction of a connection holds that was not read yet; TCP holds
// about as much on the loopback.
const room = 256 << 10

var (
	listeners sync.Map // *listener by address
	ports     atomic.Int64
)

func newAddr() *net.TCPAddr {
	return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1<<16 + int(ports.Add(1))}
}

// Listen listens on a new port.
func Listen() net.Listener {
	l := &listener{addr: newAddr(), conns: make(chan net.Conn, 128), done: make(chan struct{})}
	listeners.Store(l.addr.String(), l)
	return l
}

// Dial connects to a listener, or over TCP where the address is a real one.
func Dial(ctx context.Context, network, address string) (net.Conn, error) {
	found, ok := listeners.Load(address)
	if !ok {
		if _, port, err := net.SplitHostPort(address); err == nil && len(port) > 4 && port > "65535" {
			return nil, refused(network)
		}
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	l := found.(*listener)
	here, there := pipe(newAddr(), l.addr)
	select {
	case <-l.done:
		return nil, refused(network)
	case l.conns <- there:
		return here, nil
	case <-ctx.Done():
		return nil, &net.OpError{Op: "dial", Net: network, Err: ctx.Err()}
	}
}

func refused(network string) error {
	return &net.OpError{Op: "dial", Net: network, Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
}

// Serve answers requests at the URL until stop, which waits for its end.
func Serve(h http.Handler) (url string, stop func()) {
	l := Listen()
	srv := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l) // ends with Close
	}()
	return "http://" + l.Addr().String(), sync.OnceFunc(func() {
		srv.Close()
		<-done
	})
}

type listener struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return l.addr }

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.addr, Err: net.ErrClosed}
	}
}

// Close implements net.Listener.
func (l *listener) Close() error {
	l.once.Do(func() {
		listeners.Delete(l.addr.String())
		close(l.done)
		for {
			select {
			case c := <-l.conns: // dialled, and never accepted
				c.Close()
			default:
				return
			}
		}
	})
	return nil
}

// half is one direction of a connection.
type half struct {
	mu    sync.Mutex
	moved *sync.Cond
	data  []byte
	ended bool // the writer has closed
	left  bool // the reader has
	until [2]deadline

	takes func() time.Duration // how long what is written now is under way; nil: no time
	under []parcel             // of data, what has not arrived
	there int                  // of data, what has
}

// parcel is that many bytes on their way.
type parcel struct {
	n  int
	at time.Time // of their arrival
}

// arrived returns how much can be read.
func (h *half) arrived() int {
	if h.takes == nil {
		return len(h.data)
	}
	for len(h.under) > 0 && !time.Now().Before(h.under[0].at) {
		h.there += h.under[0].n
		h.under = h.under[1:]
	}
	return h.there
}

// written takes note of n more bytes.
func (h *half) written(n int) {
	if h.takes == nil || n == 0 {
		return
	}
	at := time.Now().Add(h.takes())
	if last := len(h.under) - 1; last >= 0 && at.Before(h.under[last].at) {
		at = h.under[last].at // none overtakes another
	}
	h.under = append(h.under, parcel{n, at})
	h.wakeAt(at)
}

// Far makes what is written to either end of a connection of Dial's take that long to arrive: there
// is asked for each piece that is written to this end, back for those of the other one. It is for a
// connection that nothing was written to.
func Far(c net.Conn, there, back func() time.Duration) {
	for h, takes := range map[*half]func() time.Duration{c.(*conn).out: there, c.(*conn).in: back} {
		h.mu.Lock()
		h.takes = takes
		h.mu.Unlock()
	}
}

// The deadlines of a half.
const (
	reading = iota
	writing
)

type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) over() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func newHalf() *half {
	h := new(half)
	h.moved = sync.NewCond(&h.mu)
	return h
}

// wake lets all look again who wait.
func (h *half) wake() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.moved.Broadcast()
}

// wakeAt has all look again at a time; nil: it has come, and needs no timer. In a bubble of synctest a timer
// that is due runs at once, and two that do so at the same time crash the race detector of Go 1.26.
func (h *half) wakeAt(at time.Time) *time.Timer {
	if d := time.Until(at); d > 0 {
		return time.AfterFunc(d, h.wake)
	}
	return nil
}

func (h *half) setDeadline(which int, at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	d := &h.until[which]
	if d.timer != nil {
		d.timer.Stop()
	}
	*d = deadline{at: at}
	if !at.IsZero() {
		d.timer = h.wakeAt(at)
	}
	h.moved.Broadcast()
}

// conn is one end of a connection.
type conn struct {
	in, out       *half
	local, remote net.Addr
}

func pipe(a, b net.Addr) (*conn, *conn) {
	ab, ba := newHalf(), newHalf()
	return &conn{in: ba, out: ab, local: a, remote: b}, &conn{in: ab, out: ba, local: b, remote: a}
}

func (c *conn) fail(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Source: c.local, Addr: c.remote, Err: err}
}

// Read implements net.Conn.
func (c *conn) Read(b []byte) (int, error) {
	h := c.in
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.left:
			return 0, c.fail("read", net.ErrClosed)
		case h.until[reading].over():
			return 0, c.fail("read", os.ErrDeadlineExceeded)
		case h.arrived() > 0 || len(b) == 0:
			n := copy(b, h.data[:h.arrived()])
			h.data, h.there = h.data[n:], h.there-n
			h.moved.Broadcast()
			return n, nil
		case h.ended && len(h.data) == 0:
			return 0, io.EOF
		}
		h.moved.Wait()
	}
}

// Write implements net.Conn.
func (c *conn) Write(b []byte) (done int, err error) {
	h := c.out
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.ended:
			return done, c.fail("write", net.ErrClosed)
		case h.left:
			return done, c.fail("write", os.NewSyscallError("write", syscall.EPIPE))
		case h.until[writing].over():
			return done, c.fail("write", os.ErrDeadlineExceeded)
		}
		n := min(len(b)-done, room-len(h.data))
		h.data = append(h.data, b[done:done+n]...)
		h.written(n)
		h.moved.Broadcast()
		if done += n; done == len(b) {
			return done, nil
		}
		h.moved.Wait()
	}
}

// CloseWrite ends one direction, as that of net.TCPConn.
func (c *conn) CloseWrite() error {
	c.out.mu.Lock()
	c.out.ended = true
	c.out.mu.Unlock()
	c.out.wake()
	return nil
}

// Close implements net.Conn. What was written can still be read by the other side.
func (c *conn) Close() error {
	_ = c.CloseWrite()
	_ = c.SetDeadline(time.Time{})
	c.in.mu.Lock()
	c.in.left, c.in.data, c.in.under, c.in.there = true, nil, nil, 0
	c.in.mu.Unlock()
	c.in.wake()
	return nil
}

// LocalAddr implements net.Conn.
func (c *conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements net.Conn.
func (c *conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline implements net.Conn.
func (c *conn) SetDeadline(t time.Time) error {
	_ = c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

// SetReadDeadline implements net.Conn.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.in.setDeadline(reading, t)
	return nil
}

// SetWriteDeadline implements net.Conn.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.out.setDeadline(writing, t)
	return nil
}
