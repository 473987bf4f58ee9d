package yardstick

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"golang.org/x/sys/unix"
)

// Floor is the least that a program in Go can do: it takes connections like Relay,
// and passes bytes on without a look at them, all on one goroutine that waits for
// every socket at once. Frames may pass as they are: those of the carrier are masked
// as the agent's must be, and those of the agent are not.
func Floor(ctx context.Context, l net.Listener, agent string) error {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("bench: floor: %w", err)
	}
	f := &floor{epoll: epoll, peers: map[int32]*floorEnd{}}
	var group sync.WaitGroup
	group.Go(func() { f.run(ctx) })
	defer group.Wait()
	return serveYardstick(ctx, l, agent, func(carrier, agent *websocket.Conn) {
		over := make(chan struct{})
		if err := f.join(carrier, agent, over); err == nil {
			<-over
		}
	})
}

type floor struct {
	epoll int
	mu    sync.Mutex
	peers map[int32]*floorEnd
}

type floorEnd struct {
	fd, peer int
	over     chan struct{}
}

func (f *floor) join(a, b *websocket.Conn, over chan struct{}) error {
	var fds [2]int
	for i, c := range []*websocket.Conn{a, b} {
		raw, err := c.NetConn().(*net.TCPConn).SyscallConn()
		if err != nil {
			return err
		}
		var e error
		if err := raw.Control(func(fd uintptr) {
			fds[i],
				e = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
		}); err != nil || e != nil {
			return fmt.Errorf("bench: floor: %w", e)
		}
		c.Close()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, fd := range fds {
		f.peers[int32(fd)] = &floorEnd{fd, fds[1-i], over}
		if err := unix.EpollCtl(f.epoll, unix.EPOLL_CTL_ADD, fd,
			&unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}); err != nil {
			return fmt.Errorf("bench: floor: %w", err)
		}
	}
	return nil
}

func (f *floor) run(ctx context.Context) {
	defer unix.Close(f.epoll)
	events := make([]unix.EpollEvent, 256)
	buf := make([]byte, 64<<10)
	var yielded time.Time
	for ctx.Err() == nil {
		n, err := unix.EpollWait(f.epoll, events, 200)
		if now := time.Now(); now.Sub(yielded) > 5*time.Millisecond { // see ws.Loop
			yielded = now
			runtime.Gosched()
		}
		if err != nil && err != unix.EINTR {
			panic(fmt.Sprintf("bench: floor: %v", err))
		}
		for _, ev := range events[:max(n, 0)] {
			f.mu.Lock()
			end := f.peers[ev.Fd]
			f.mu.Unlock()
			if end == nil {
				continue
			}
			n, err := unix.Read(end.fd, buf)
			if err == unix.EAGAIN || err == unix.EINTR {
				continue
			}
			if n > 0 && err == nil {
				if m, err := unix.Write(end.peer, buf[:n]); err == nil && m == n {
					continue
				}
			}
			f.part(end) // at its end, or where a peer is too slow for the floor
		}
	}
}

func (f *floor) part(end *floorEnd) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, fd := range []int{end.fd, end.peer} {
		delete(f.peers, int32(fd))
		unix.Close(fd)
	}
	close(end.over)
}
