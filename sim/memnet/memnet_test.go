package memnet

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// connected returns a listener, and both ends of a connection to it.
func connected(t *testing.T) (l net.Listener, here, there net.Conn) {
	t.Helper()
	l = Listen()
	here, err := Dial(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if there, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return l, here, there
}

// TestConn: connections behave as those of TCP, in virtual time.
func TestConn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, here, there := connected(t)
		sent := bytes.Repeat([]byte("abcdefgh"), room/4)
		go func() {
			_, _ = here.Write(sent) // more than there is room for
			here.Close()
		}()
		if got, err := io.ReadAll(there); err != nil || !bytes.Equal(got, sent) {
			t.Errorf("%d of %d bytes, %v", len(got), len(sent), err)
		}
		if _, err := there.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("to one who has gone: %v", err)
		}
		if _, err := here.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("closed: %v", err)
		}
		l.Close()
		if _, err := Dial(t.Context(), "tcp", l.Addr().String()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("nobody listens: %v", err)
		}
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("closed listener: %v", err)
		}
	})
}

// TestDeadlines: reads and writes end on time, and can go on.
func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, c, other := connected(t)
		defer l.Close()
		defer c.Close()
		defer other.Close()
		began := time.Now()
		_ = c.SetReadDeadline(began.Add(time.Second))
		_, err := c.Read(make([]byte, 1))
		if !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("read: %v after %v", err, time.Since(began))
		}
		_ = c.SetWriteDeadline(began.Add(3 * time.Second))
		n, err := c.Write(make([]byte, room+1))
		if n != room || !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != 3*time.Second {
			t.Errorf("write: %d, %v after %v", n, err, time.Since(began))
		}
		_ = c.SetDeadline(time.Time{})
		if _, err := other.Write([]byte("y")); err != nil {
			t.Error(err)
		}
		if n, err := c.Read(make([]byte, 5)); n != 1 || err != nil {
			t.Errorf("read again: %d, %v", n, err)
		}
		ctx, stop := context.WithCancel(t.Context())
		stop()
		for range cap(l.(*listener).conns) { // until nobody can wait any more
			_, _ = Dial(t.Context(), "tcp", l.Addr().String())
		}
		if _, err := Dial(ctx, "tcp", l.Addr().String()); !errors.Is(err, context.Canceled) {
			t.Errorf("canceled: %v", err)
		}
	})
}

// TestFar: what is written takes its time in both directions, and keeps its order; what the
// last of it brings comes before the end.
func TestFar(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, here, there := connected(t)
		defer l.Close()
		takes := []time.Duration{300 * time.Millisecond, 100 * time.Millisecond, 50 * time.Millisecond}
		Far(here, func() time.Duration { d := takes[0]; takes = takes[1:]; return d },
			func() time.Duration { return time.Second })
		begin := time.Now()
		expect := func(c net.Conn, want string, at time.Duration) {
			t.Helper()
			got := make([]byte, len(want))
			if _, err := io.ReadFull(c, got); err != nil || string(got) != want || time.Since(begin) != at {
				t.Errorf("%q after %v, %v; want %q after %v", got, time.Since(begin), err, want, at)
			}
		}
		for _, s := range []string{"ab", "c"} {
			if _, err := here.Write([]byte(s)); err != nil {
				t.Fatal(err)
			}
		}
		expect(there, "abc", 300*time.Millisecond)
		if _, err := there.Write([]byte("d")); err != nil {
			t.Fatal(err)
		}
		expect(here, "d", 1300*time.Millisecond)
		if _, err := here.Write([]byte("e")); err != nil {
			t.Fatal(err)
		}
		here.Close()
		expect(there, "e", 1350*time.Millisecond)
		if _, err := there.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("at the end: %v", err)
		}
	})
}
