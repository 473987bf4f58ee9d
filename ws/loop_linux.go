package ws

import (
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"voicebridge/ws/meter"
)

// Loop waits for many connections at once, and reads from all that have something
// on one goroutine: a connection costs no goroutine, and a wake-up serves as many
// of them as are ready. docs/performance.md has the measurements.
//
// While it waits, a loop occupies one of the scheduler's processors: programs should
// have one more (runtime.GOMAXPROCS) for each loop.
type Loop struct {
	epoll, wake int
	done        chan struct{}

	mu      sync.Mutex
	conns   map[int32]*Conn
	posts   []func(buf []byte) // to be run by the loop
	stopped bool               // no connection is taken any more

	// Owned by the loop.
	stop  bool
	queue []*Conn       // that wait for a turn
	after time.Duration // when the first of them has it

	born  time.Time // the meter's times count from it
	meter meter.Meter
}

const (
	loopEvents = 256      // taken in one wake-up
	loopBuffer = 32 << 10 // read at once; the loop's connections share it
	loopYield  = 5 * time.Millisecond
)

// NewLoop starts an event loop. Where the system has none the error is
// errors.ErrUnsupported.
func NewLoop() (*Loop, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("WebSocket: event loop: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err == nil {
		err = unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, wake, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(wake)})
	}
	if err != nil {
		unix.Close(epoll)
		unix.Close(wake) // -1 where it is the one that failed
		return nil, fmt.Errorf("WebSocket: event loop: %w", err)
	}
	l := &Loop{epoll: epoll, wake: wake, conns: map[int32]*Conn{}, done: make(chan struct{}), born: time.Now()}
	go l.run()
	return l, nil
}

// Close ends the loop and the connections that are left in it.
func (l *Loop) Close() {
	l.post(func([]byte) { l.stop = true })
	<-l.done
}

// post has f run by the loop, soon; buf is the loop's.
func (l *Loop) post(f func(buf []byte)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return
	}
	l.posts = append(l.posts, f)
	_, _ = unix.Write(l.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // cannot fail: the counter is small
}

// Len is how many connections the loop has.
func (l *Loop) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.conns)
}

// Load returns how busy the loop is: 1 is all the time.
func (l *Loop) Load() float64 { return l.meter.Load(l.Len()) }

// Lag returns how late the loop came, at most, to what waited for it in the last seconds.
func (l *Loop) Lag() time.Duration { return l.meter.Lag(time.Since(l.born)) }

// Stuck returns for how long the loop has not come round.
func (l *Loop) Stuck() time.Duration { return l.meter.Stuck(time.Since(l.born)) }

func (l *Loop) run() {
	defer close(l.done)
	buf := make([]byte, loopBuffer)
	events := make([]unix.EpollEvent, loopEvents)
	ready := make([]*Conn, loopEvents)
	var yielded time.Time
	conns := 0
	l.meter.Begin(time.Since(l.born))
	for {
		l.meter.End(time.Since(l.born), conns)
		n, err := unix.EpollWait(l.epoll, events, l.wait())
		if err != nil && err != unix.EINTR {
			panic(fmt.Sprintf("WebSocket: epoll_wait: %v", err)) // EBADF and the like: a bug
		}
		// A goroutine that the scheduler has not seen for 10 ms is taken for a busy one,
		// and loses its processor at every wait from then on.
		now := time.Now()
		l.meter.Begin(now.Sub(l.born))
		if now.Sub(yielded) > loopYield {
			yielded = now
			runtime.Gosched()
		}
		for i := range max(n, 0) { // before posts are taken: a later one wakes the loop again
			if events[i].Fd == int32(l.wake) {
				_, _ = unix.Read(l.wake, buf[:8])
			}
		}
		l.mu.Lock()
		posts := l.posts
		l.posts, conns = nil, len(l.conns)
		for i := range max(n, 0) {
			ready[i] = l.conns[events[i].Fd]
		}
		l.mu.Unlock()
		for i := range max(n, 0) {
			c := ready[i]
			if c == nil { // wake, or one that has gone
				continue
			}
			if events[i].Events&unix.EPOLLOUT != 0 {
				c.line.flush()
			}
			if events[i].Events&^unix.EPOLLOUT != 0 {
				c.readable(buf)
			}
			ready[i] = nil
		}
		for _, f := range posts {
			f(buf)
		}
		l.turns(buf)
		if l.stop {
			l.end()
			return
		}
	}
}

// end ends what is left.
func (l *Loop) end() {
	l.mu.Lock()
	l.stopped = true
	left := make([]*Conn, 0, len(l.conns))
	for _, c := range l.conns {
		left = append(left, c)
	}
	l.mu.Unlock()
	for _, c := range left {
		c.over(&net.OpError{Op: "read", Net: "tcp", Err: net.ErrClosed})
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	unix.Close(l.epoll)
	unix.Close(l.wake)
}

// waits has a connection wait for its turn; only the loop calls it.
func (l *Loop) waits(c *Conn) { l.queue = append(l.queue, c) }

// wait is how long the loop may wait for something to come, in milliseconds; -1: any time.
func (l *Loop) wait() int {
	if len(l.queue) == 0 {
		return -1
	}
	return int(max(0, l.after-time.Since(l.born)+time.Millisecond-1) / time.Millisecond)
}

// turns gives the connection a turn that has waited longest for one, if it is time.
func (l *Loop) turns(buf []byte) {
	if len(l.queue) == 0 {
		return
	}
	began := time.Since(l.born)
	if began < l.after {
		return
	}
	c := l.queue[0]
	l.queue = l.queue[:copy(l.queue, l.queue[1:])]
	c.serveTurn(buf)
	end := time.Since(l.born)
	l.after = end + pause(end-began)
}

// interest is what the loop tells of.
type interest struct{ in, out bool }

func (i interest) events() (bits uint32) {
	if i.in {
		bits |= unix.EPOLLIN
	}
	if i.out {
		bits |= unix.EPOLLOUT
	}
	return bits
}

func (l *Loop) add(fd int, c *Conn, i interest) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return &net.OpError{Op: "watch", Net: "tcp", Err: net.ErrClosed}
	}
	l.conns[int32(fd)] = c
	if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd,
		&unix.EpollEvent{Events: i.events(), Fd: int32(fd)}); err != nil {
		delete(l.conns, int32(fd))
		return &net.OpError{Op: "watch", Net: "tcp", Err: err}
	}
	return nil
}

// watch changes what the loop tells of.
func (l *Loop) watch(fd int, i interest) error {
	if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_MOD, fd,
		&unix.EpollEvent{Events: i.events(), Fd: int32(fd)}); err != nil {
		return &net.OpError{Op: "watch", Net: "tcp", Err: err}
	}
	return nil
}

// remove closes a descriptor; the kernel forgets what it was watched for.
func (l *Loop) remove(fd int) error {
	l.mu.Lock()
	delete(l.conns, int32(fd))
	l.mu.Unlock()
	if err := unix.Close(fd); err != nil {
		return fmt.Errorf("WebSocket: close: %w", err)
	}
	return nil
}

// detach returns a second descriptor of a connection, which the runtime's own poller
// does not know.
func detach(raw syscall.RawConn) (fd int, err error) {
	if e := raw.Control(func(old uintptr) {
		fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0)
	}); e != nil {
		return -1, e
	}
	return fd, err
}

func shutdown(fd int) { _ = unix.Shutdown(fd, unix.SHUT_RDWR) } // fails where the other side has left already

// readSome reads what there is.
func readSome(fd int, b []byte) (int, error) {
	for {
		n, err := unix.Read(fd, b)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return 0, os.ErrDeadlineExceeded
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		}
		return n, nil
	}
}
