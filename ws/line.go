package ws

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// line is what carries the bytes of a connection: TCP, or whatever else net.Conn
// is. Writes never wait: what the other side does not take at once is kept, and
// sent as soon as it does. Reads wait, until the line is given to an event loop.
type line struct {
	net.Conn                 // of no use once the line is in an event loop
	raw      syscall.RawConn // of TCP: writes try it first; nil: they cannot
	limit    time.Duration   // for what is kept to be taken

	mu      sync.Mutex
	moved   sync.Cond // what was kept has gone, or the line has failed
	kept    []byte
	since   time.Time   // when the first of it was kept
	late    *time.Timer // ends the line when limit is over
	failed  error       // of a write
	closed  bool
	dropped bool   // something had not been taken when it was closed
	sending bool   // a goroutine sends what was kept
	drained func() // is told that it has gone, without mu
	loop    *Loop
	fd      int
	watched bool // the loop tells of it
	deaf    bool // but not that there is something to read

	// Arguments and results of try, here so that its closure need not be made anew.
	trying  []byte
	took    int
	tookErr error
	try     func(fd uintptr) bool
}

// ErrSlow is the error of a connection whose other side did not take what it was
// sent in time.
var ErrSlow error = timeoutError("WebSocket: the other side does not take what it is sent")

// timeoutError is a net.Error.
type timeoutError string

func (e timeoutError) Error() string { return string(e) }
func (timeoutError) Timeout() bool   { return true }
func (timeoutError) Temporary() bool { return false }

// maxKept bounds what is kept: writers wait until it has gone, but for answers to
// pings and the like.
const maxKept = 4 << 20

func newLine(conn net.Conn, limit time.Duration) *line {
	l := &line{Conn: conn, limit: limit, fd: -1}
	l.moved.L = &l.mu
	if tcp, ok := conn.(*net.TCPConn); ok {
		if raw, err := tcp.SyscallConn(); err == nil && canTry {
			l.raw = raw
			l.try = func(fd uintptr) bool {
				l.took, l.tookErr = writeSome(int(fd), l.trying)
				return true
			}
		}
	}
	return l
}

// Write takes all of b, or fails.
func (l *line) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.failed != nil:
		return 0, l.failed
	case l.closed:
		return 0, net.ErrClosed
	case l.pending():
		if len(l.kept)+len(b) > maxKept {
			l.fail(ErrSlow)
			return 0, ErrSlow
		}
		l.kept = append(l.kept, b...)
		return len(b), nil
	}
	n, err := l.some(b)
	if err != nil {
		l.fail(err)
		return n, err
	}
	if n < len(b) {
		l.keep(b[n:])
	}
	return len(b), nil
}

// some writes as much of b as is taken at once. l.mu is held.
func (l *line) some(b []byte) (int, error) {
	var n int
	var err error
	switch {
	case l.loop != nil:
		n, err = writeSome(l.fd, b)
	case l.raw != nil:
		l.trying = b
		if err := l.raw.Write(l.try); err != nil {
			return 0, err
		}
		l.trying = nil
		n, err = l.took, l.tookErr
	}
	if err != nil {
		err = &net.OpError{Op: "write", Net: "tcp", Err: err}
	}
	return n, err
}

// keep puts away what was not taken. l.mu is held.
func (l *line) keep(b []byte) {
	l.kept = append(l.kept[:0], b...)
	l.since = time.Now()
	if l.late == nil {
		l.late = time.AfterFunc(l.limit, l.tooLate)
	} else {
		l.late.Reset(l.limit)
	}
	switch {
	case l.loop == nil:
		l.sending = true
		go l.send() // ends when all has gone, or the line
	case l.watched:
		if err := l.loop.watch(l.fd, interest{!l.deaf, true}); err != nil {
			l.fail(err)
		}
	}
}

// pending reports whether something has not been taken yet. l.mu is held.
func (l *line) pending() bool { return len(l.kept) > 0 || l.sending }

// tooLate ends a line whose other side does not take what it is sent.
func (l *line) tooLate() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.pending() || l.closed {
		return
	}
	if rest := l.limit - time.Since(l.since); rest > 0 {
		l.late.Reset(rest)
		return
	}
	l.fail(ErrSlow)
}

// fail notes why nothing can be written any more. What the other side has sent can
// still be read, but not where it is slow. l.mu is held.
func (l *line) fail(err error) {
	if l.failed != nil || l.closed {
		return
	}
	l.failed = err
	l.empty()
	l.moved.Broadcast()
	if errors.Is(err, ErrSlow) {
		l.cut()
	} else {
		time.AfterFunc(linger, func() { l.Cut(err) })
	}
}

func (l *line) empty() {
	l.kept = nil
	if l.late != nil {
		l.late.Stop()
	}
}

// cut ends reads that are under way. l.mu is held.
func (l *line) cut() {
	if l.loop != nil {
		shutdown(l.fd)
	} else {
		_ = l.Conn.Close() // the failure is known
	}
}

// Cut ends the line from any side, because of err.
func (l *line) Cut(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	if l.failed == nil {
		l.fail(err)
	}
	l.cut()
}

// failure is why the line cannot be written to; nil: it can.
func (l *line) failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}

// onDrained has f told when what was kept has gone.
func (l *line) onDrained(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drained = f
}

// clear reports whether all that was written has gone.
func (l *line) clear() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.pending()
}

// light reports whether little of what was written is still to go: an answer to a ping may follow.
func (l *line) light() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.kept) < lightKept
}

// lightKept is what may be kept before pings are not answered any more until it has gone.
const lightKept = 4 << 10

// wait returns when all that was written has gone.
func (l *line) wait() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.settle()
	if l.failed == nil && l.dropped {
		return net.ErrClosed
	}
	return l.failed
}

// settle waits until nothing is kept any more. l.mu is held.
func (l *line) settle() {
	for l.pending() && l.failed == nil && !l.closed {
		l.moved.Wait()
	}
}

// send writes what is kept, where there is no event loop.
func (l *line) send() {
	l.mu.Lock()
	var spare []byte
	for len(l.kept) > 0 && l.failed == nil && !l.closed {
		b := l.kept
		l.kept = spare[:0]
		l.mu.Unlock()
		_, err := l.Conn.Write(b)
		l.mu.Lock()
		spare, l.since = b, time.Now()
		if err != nil {
			l.fail(err)
		}
	}
	l.sending = false
	l.gone()
}

// flush writes what is kept, when the event loop says that it will be taken.
func (l *line) flush() {
	l.mu.Lock()
	if l.failed != nil || l.closed || len(l.kept) == 0 {
		l.mu.Unlock()
		return
	}
	n, err := writeSome(l.fd, l.kept)
	if err != nil {
		l.fail(&net.OpError{Op: "write", Net: "tcp", Err: err})
	} else {
		l.kept = l.kept[:copy(l.kept, l.kept[n:])]
		l.since = time.Now()
	}
	if len(l.kept) > 0 {
		l.mu.Unlock()
		return
	}
	if err := l.loop.watch(l.fd, interest{!l.deaf, false}); err != nil {
		l.fail(err)
	}
	l.gone()
}

// gone tells that nothing is kept any more, and unlocks mu.
func (l *line) gone() {
	if l.late != nil {
		l.late.Stop()
	}
	l.kept = nil
	l.moved.Broadcast()
	tell := l.drained
	if l.failed != nil || l.closed {
		tell = nil
	}
	l.mu.Unlock()
	if tell != nil {
		tell()
	}
}

// Read reads what there is. In an event loop it fails with os.ErrDeadlineExceeded
// where there is nothing, which TLS takes for a reason to ask again.
func (l *line) Read(b []byte) (int, error) {
	if l.loop == nil {
		return l.Conn.Read(b)
	}
	n, err := readSome(l.fd, b)
	if err != nil && err != os.ErrDeadlineExceeded && err != io.EOF {
		err = &net.OpError{Op: "read", Net: "tcp", Err: err}
	}
	return n, err
}

// Deadlines are those of handshakes only: later on timers cut the line. Writes
// have none, since they do not wait.

// SetDeadline implements net.Conn.
func (l *line) SetDeadline(t time.Time) error { return l.SetReadDeadline(t) }

// SetReadDeadline implements net.Conn.
func (l *line) SetReadDeadline(t time.Time) error {
	if l.loop != nil {
		return nil
	}
	return l.Conn.SetReadDeadline(t)
}

// SetWriteDeadline implements net.Conn.
func (l *line) SetWriteDeadline(time.Time) error { return nil }

// move gives the line to an event loop, which is still to watch it. It is false
// where that cannot be.
func (l *line) move(loop *Loop) bool {
	if loop == nil || l.raw == nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.settle()
	if l.closed || l.failed != nil {
		return false
	}
	fd, err := detach(l.raw)
	if err != nil {
		return false
	}
	_ = l.Conn.Close() // the descriptor lives on as fd
	l.loop, l.fd = loop, fd
	return true
}

// interrupt has reads fail because nothing came in time.
func (l *line) interrupt(c *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
	case l.loop == nil:
		_ = l.Conn.SetReadDeadline(time.Now()) // fails where the line has ended already
	case l.watched:
		l.loop.post(c.idled)
	}
}

// listen has the event loop tell, or not, that there is something to read.
func (l *line) listen(on bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || !l.watched || l.deaf == !on {
		return
	}
	l.deaf = !on
	if err := l.loop.watch(l.fd, interest{on, len(l.kept) > 0}); err != nil {
		l.fail(err)
	}
}

// attach has the event loop tell of the line.
func (l *line) attach(c *Conn) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return net.ErrClosed
	}
	l.watched = true
	return l.loop.add(l.fd, c, interest{true, len(l.kept) > 0})
}

// Close ends the line.
func (l *line) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	// Where a goroutine has to write even what would be taken at once, it may do so.
	if l.raw == nil && l.failed == nil && l.sending && l.Conn.SetWriteDeadline(time.Now().Add(linger)) == nil {
		for l.sending && l.failed == nil {
			l.moved.Wait()
		}
	}
	if l.closed {
		return nil
	}
	l.closed, l.dropped = true, l.pending()
	l.empty()
	l.moved.Broadcast()
	if l.loop != nil {
		return l.loop.remove(l.fd)
	}
	return l.Conn.Close()
}
