package ws

// Faults that were found, each by a test that failed before it was mended.

import (
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"voicebridge/ws/frame"
)

// heard is a Handler made of functions.
type heard struct {
	message func()
	closed  func(error)
}

func (h *heard) Message(bool, []byte) { h.message() }
func (h *heard) Writable()            {}
func (h *heard) Closed(err error) {
	if h.closed != nil {
		h.closed(err)
	}
}

func newTestLoop(t *testing.T) *Loop {
	t.Helper()
	l, err := NewLoop()
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// TestFlood: a connection that sends without end does not keep the loop from the
// others.
func TestFlood(t *testing.T) {
	for name, fl := range map[string]struct {
		op      byte
		payload string
		work    time.Duration
	}{"pings": {frame.Ping, "", 0}, "messages": {frame.Text, `{"type":"ping","id":"12345678901234567890"}`,
		5 * time.Microsecond}} {
		t.Run(name, func(t *testing.T) {
			l := newTestLoop(t)
			k := kind{loop: true, limits: limits}
			flood, from := k.open(t)
			victim, other := k.open(t)
			got := make(chan time.Time, 100)
			flood.Serve(l, &heard{message: func() {
				for end := time.Now().Add(fl.work); time.Now().Before(end); {
				}
			}})
			victim.Serve(l, &heard{message: func() { got <- time.Now() }})
			block := []byte(strings.Repeat(string(k.frame(0x80|fl.op, fl.payload)), 10000))
			go io.Copy(io.Discard, from)
			flooding := make(chan struct{})
			go func() {
				defer close(flooding)
				for _, err := from.Write(block); err == nil; _, err = from.Write(block) {
				}
			}()
			<-time.After(100 * time.Millisecond)
			for range 5 {
				at := time.Now()
				if _, err := other.Write(k.frame(0x80|frame.Text, "x")); err != nil {
					t.Fatal(err)
				}
				if d := get(t, got, "message").Sub(at); d > time.Second {
					t.Errorf("a message of another connection waited %v", d)
				}
			}
			from.Close()
			other.Close()
			<-flooding
			flood.Release()
			victim.Release()
		})
	}
}

// TestLatePost: what is posted while the loop works off a wake-up is run.
func TestLatePost(t *testing.T) {
	l := newTestLoop(t)
	k := kind{loop: true, limits: limits}
	busy, goOn := make(chan struct{}), make(chan struct{})
	h := &heard{message: func() { busy <- struct{}{}; <-goOn }}
	first, other1 := k.open(t)
	second, other2 := k.open(t)
	first.Serve(l, h)
	second.Serve(l, h)
	if _, err := other1.Write(k.frame(0x80|frame.Text, "x")); err != nil {
		t.Fatal(err)
	}
	<-busy
	if _, err := other2.Write(k.frame(0x80|frame.Text, "x")); err != nil {
		t.Fatal(err)
	}
	<-time.After(20 * time.Millisecond) // for the kernel: the next wake-up has the message, then the post
	ran := make(chan struct{}, 2)
	l.post(func([]byte) { ran <- struct{}{} })
	goOn <- struct{}{}
	<-busy
	l.post(func([]byte) { ran <- struct{}{} })
	goOn <- struct{}{}
	get(t, ran, "first post")
	get(t, ran, "second post")
	other1.Close()
	other2.Close()
	first.Release()
	second.Release()
}

// TestIdleBeforeServe: one that has been idle before it was served is ended.
func TestIdleBeforeServe(t *testing.T) {
	quick := limits
	quick.Idle = 50 * time.Millisecond
	everyKind(t, quick, func(t *testing.T, k kind) {
		c, _ := k.open(t)
		<-time.After(2 * quick.Idle)
		in := newInbox()
		k.serve(t, c, in)
		if err := get(t, in.closed, "end"); !IsTimeout(err) {
			t.Errorf("ended with %v", err)
		}
	})
}

// TestIdleDuringServe: the end is told once, and not during a message.
func TestIdleDuringServe(t *testing.T) {
	l := newTestLoop(t)
	quick := limits
	quick.Idle = 100 * time.Millisecond
	k := kind{loop: true, limits: quick}
	c, other := k.open(t)
	if _, err := other.Write(append(k.frame(0x80|frame.Text, "one"), k.frame(0x80|frame.Text, "two")...)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Read(); err != nil {
		t.Fatal(err)
	}
	var busy atomic.Bool
	ended := make(chan bool, 2)
	c.Serve(l, &heard{
		message: func() { busy.Store(true); <-time.After(3 * quick.Idle); busy.Store(false) },
		closed:  func(error) { ended <- busy.Load() },
	})
	if get(t, ended, "end") {
		t.Error("the end was told during a message")
	}
	c.Close(CloseTimeout, "")
	other.Close()
	c.Release()
	if len(ended) > 0 {
		t.Error("the end was told twice")
	}
}

// TestWriteLost: a Write whose message is dropped, since the other side closes, fails.
func TestWriteLost(t *testing.T) {
	everyKind(t, limits, func(t *testing.T, k kind) {
		if k.secure && !k.client {
			t.Skip("its goroutine may still send it")
		}
		c, in, other := k.start(t)
		fill(t, c, in, func(int) []byte { return make([]byte, 1<<14) })
		lost := make(chan error, 1)
		go func() { lost <- c.Write(true, make([]byte, 1<<14)) }()
		<-time.After(20 * time.Millisecond)
		if _, err := other.Write(k.frame(0x80|frame.Close, "\x03\xE8")); err != nil {
			t.Fatal(err)
		}
		if err := get(t, lost, "end of the write"); err == nil {
			t.Error("the write of a message that was never sent has succeeded")
		}
	})
}

// TestPause: whoever waits for turns leaves three quarters of the loop's time to others. Where the system takes
// the processor away amid a turn, the next one is not three times as late as that.
func TestPause(t *testing.T) {
	for took, want := range map[time.Duration]time.Duration{
		turn:                   3 * turn,
		40 * time.Millisecond:  2 * time.Millisecond,
		10 * time.Second:       2 * time.Millisecond,
		100 * time.Microsecond: 300 * time.Microsecond,
	} {
		if got := pause(took); got != want {
			t.Errorf("after a turn of %v: %v, not %v", took, got, want)
		}
	}
}
