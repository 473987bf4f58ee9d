package rtpmedia

import (
	"encoding/hex"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/rtp"
	"go.uber.org/goleak"

	"voicebridge/codec"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// line is a UDP socket in memory.
type line struct {
	in   chan datagram
	out  func(b []byte)
	done chan struct{}
	once sync.Once
}

type datagram struct {
	b    []byte
	from *net.UDPAddr
}

func newLine() *line { return &line{in: make(chan datagram, 1000), done: make(chan struct{})} }

func (l *line) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case d := <-l.in:
		return copy(b, d.b), d.from, nil
	case <-l.done:
		return 0, nil, net.ErrClosed
	}
}

func (l *line) WriteTo(b []byte, _ net.Addr) (int, error) {
	if l.out != nil {
		l.out(b)
	}
	return len(b), nil
}

func (l *line) Close() error                     { l.once.Do(func() { close(l.done) }); return nil }
func (l *line) LocalAddr() net.Addr              { return asterisk }
func (l *line) SetDeadline(time.Time) error      { return nil }
func (l *line) SetReadDeadline(time.Time) error  { return nil }
func (l *line) SetWriteDeadline(time.Time) error { return nil }

var (
	asterisk = &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 20022}
	stranger = &net.UDPAddr{IP: net.IPv4(192, 0, 2, 9), Port: 20022}
	ulaw     = codec.Format{Encoding: codec.PCMU, Rate: 8000}
)

// ear keeps what comes.
type ear struct {
	mu     sync.Mutex
	frames []string
	at     []time.Duration
	began  time.Time
	digits string
	marks  []string
	closed int
	err    error
}

func (e *ear) Audio(frame []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.frames, e.at = append(e.frames, string(frame)), append(e.at, time.Since(e.began))
}
func (e *ear) Digit(d byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.digits += string(d)
}
func (e *ear) Mark(name string) { e.marks = append(e.marks, name) }
func (e *ear) Closed(err error) { e.closed++; e.err = err }

// connect runs a test with a connection in virtual time.
func connect(t *testing.T, test func(l *line, c *Conn, e *ear)) {
	synctest.Test(t, func(t *testing.T) {
		l, e := newLine(), &ear{began: time.Now()}
		c := New(Config{Conn: l, Remote: asterisk.AddrPort(), Format: ulaw, Type: 0, Events: 101, SSRC: 7})
		c.Serve(e)
		time.Sleep(codec.FrameTime / 4) // what comes does not come at the very time that a frame is due
		test(l, c, e)
		c.Close()
		c.Release()
		if e.closed != 1 || e.err != nil {
			t.Errorf("closed %d times, %v", e.closed, e.err)
		}
	})
}

// say makes packet n of a stream, whose audio is the number.
func say(n int) []byte {
	h := rtp.Header{Version: 2, SequenceNumber: uint16(65530 + n), Timestamp: uint32(n * 160), SSRC: 5}
	b, _ := h.Marshal()
	audio := make([]byte, 160)
	for i := range audio {
		audio[i] = byte(n%100) + 1
	}
	return append(b, audio...)
}

// said is the number that a frame has.
func said(frame string) int { return int(frame[0]) - 1 }

// TestOrder: packets come out in order, once, at an even pace, whatever comes in between.
func TestOrder(t *testing.T) {
	connect(t, func(l *line, c *Conn, e *ear) {
		order := []int{0, 2, 1, 3, 5, 4, 6, 7, 8, 9}
		for i, n := range order {
			l.in <- datagram{say(n), asterisk}
			if n == 3 {
				l.in <- datagram{say(n), asterisk}
			}
			l.in <- datagram{say(50 + i), stranger}
			l.in <- datagram{[]byte("no RTP"), asterisk}
			time.Sleep(20 * time.Millisecond)
		}
		time.Sleep(40 * time.Millisecond)
		e.mu.Lock()
		defer e.mu.Unlock()
		for i, f := range e.frames {
			if i < 10 && said(f) != i {
				t.Errorf("frame %d is %d", i, said(f))
			}
			if i > 0 && e.at[i]-e.at[i-1] != codec.FrameTime {
				t.Errorf("frame %d after %v", i, e.at[i]-e.at[i-1])
			}
		}
		if s := c.Stats(); len(e.frames) < 10 || s.Twice != 1 || s.Lost != 0 || s.Strangers != len(order) {
			t.Errorf("%d frames, %+v", len(e.frames), s)
		}
	})
}

// TestLoss: with 5 % loss and 30 ms of jitter nearly all that arrives is heard, and what is lost
// is concealed, up to a silence.
func TestLoss(t *testing.T) {
	connect(t, func(l *line, c *Conn, e *ear) {
		rng := rand.New(rand.NewPCG(1, 2))
		const n = 3000
		lost := 0
		var group sync.WaitGroup
		for i := range n {
			if rng.IntN(20) == 0 {
				lost++
			} else {
				delay := time.Duration(rng.IntN(30)) * time.Millisecond
				group.Go(func() {
					time.Sleep(delay)
					l.in <- datagram{say(i), asterisk}
				})
			}
			time.Sleep(20 * time.Millisecond)
		}
		group.Wait()
		time.Sleep(time.Second)
		e.mu.Lock()
		frames := len(e.frames)
		e.mu.Unlock()
		s := c.Stats()
		t.Logf("%d of %d packets lost; %d frames, %+v", lost, n, frames, s)
		if s.Late > n/100 || s.Lost < lost*8/10 || s.Concealed > (lost+s.Late)*13/10+10 || frames < n-n/50 || frames > n+n/50 {
			t.Errorf("%d lost: %d frames, %+v", lost, frames, s)
		}
		c.mu.Lock()
		depth := c.in.depth
		c.mu.Unlock()
		if depth > 6 {
			t.Errorf("it waits for %d frames", depth)
		}
	})
}

// TestFade: what is repeated gets softer without a step, then there is nothing.
func TestFade(t *testing.T) {
	f := codec.Format{Encoding: codec.L16BE, Rate: 8000}
	j := jitter{format: f, stats: &Stats{}, depth: 1}
	tone := make([]int16, 160)
	for i := range tone {
		tone[i] = int16(10000 * math.Sin(float64(i)/8*math.Pi)) // whole periods
	}
	j.put(&rtp.Header{SequenceNumber: 1}, codec.L16BE.AppendEncode(nil, tone), time.Now())
	loud := []float64{}
	for {
		frame := j.due(time.Now())
		if frame == nil {
			break
		}
		pcm := codec.L16BE.AppendDecode(nil, frame)
		sum := 0.0
		for _, s := range pcm {
			sum += float64(s) * float64(s)
		}
		loud = append(loud, math.Sqrt(sum/160))
	}
	if len(loud) != 1+concealed {
		t.Fatalf("%v", loud)
	}
	for i := 1; i < len(loud); i++ {
		if loud[i] >= loud[i-1] {
			t.Errorf("frame %d is not softer: %v", i, loud)
		}
	}
}

// TestJumps: another source, another numbering, or a flood does not stop what is heard, nor is
// it heard late.
func TestJumps(t *testing.T) {
	connect(t, func(l *line, c *Conn, e *ear) {
		send := func(n int, change func(h *rtp.Header)) {
			var h rtp.Header
			b := say(n)
			size, err := h.Unmarshal(b)
			if err != nil {
				t.Fatal(err)
			}
			change(&h)
			head, _ := h.Marshal()
			l.in <- datagram{append(head, b[size:]...), asterisk}
		}
		for i := range 20 {
			send(i, func(*rtp.Header) {})
			time.Sleep(20 * time.Millisecond)
		}
		for i := range 20 {
			send(20+i, func(h *rtp.Header) { h.SSRC, h.SequenceNumber = 99, h.SequenceNumber+30000 })
			time.Sleep(20 * time.Millisecond)
		}
		for i := range 500 { // ten seconds at once
			send(i%90, func(h *rtp.Header) { h.SSRC, h.SequenceNumber = 99, uint16(65530+30040+i) })
		}
		synctest.Wait()
		c.mu.Lock()
		held := c.in.held
		c.mu.Unlock()
		if s := c.Stats(); s.Jumps != 1 || held > mostDepth+leastDepth {
			t.Errorf("%d frames wait, %+v", held, s)
		}
		time.Sleep(time.Second)
		e.mu.Lock()
		defer e.mu.Unlock()
		if last := said(e.frames[len(e.frames)-1]); len(e.frames) < 50 || last > 95 {
			t.Errorf("%d frames, the last %d", len(e.frames), last)
		}
	})
}

// TestDigits: each digit is told once, though its end is sent three times, and packets are lost.
func TestDigits(t *testing.T) {
	connect(t, func(l *line, _ *Conn, e *ear) {
		seq := uint16(0)
		for i, d := range []byte{1, 1, 11, 10} {
			for k := range 6 {
				seq++
				end := byte(0)
				if k >= 3 {
					end = 0x80
				}
				h := rtp.Header{Version: 2, PayloadType: 101, SequenceNumber: seq, Timestamp: uint32(8000 + 1600*i), SSRC: 5}
				b, _ := h.Marshal()
				if i != 1 || k != 3 { // the first end of one is lost
					l.in <- datagram{append(b, d, end|10, 0, byte(160*k)), asterisk}
				}
				time.Sleep(20 * time.Millisecond)
			}
		}
		time.Sleep(40 * time.Millisecond)
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.digits != "11#*" {
			t.Errorf("%q", e.digits)
		}
	})
}

// TestSend: frames go out every 20 ms with one numbering and clock, marks are told of when they
// are reached, and a flush leaves nothing.
func TestSend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, e, began := newLine(), &ear{}, time.Now()
		var sent []rtp.Header
		var at []time.Duration
		l.out = func(b []byte) {
			var h rtp.Header
			if n, err := h.Unmarshal(b); err != nil || len(b)-n != 160 {
				t.Errorf("%d bytes, %v", len(b), err)
			}
			sent, at = append(sent, h), append(at, time.Since(began))
		}
		c := New(Config{Conn: l, Remote: asterisk.AddrPort(), Format: ulaw, SSRC: 7})
		c.Serve(e)
		for range 5 {
			c.Play(make([]byte, 160))
		}
		c.Mark("a")
		time.Sleep(210 * time.Millisecond)
		for range 50 {
			c.Play(make([]byte, 160))
		}
		c.Mark("never")
		time.Sleep(60 * time.Millisecond)
		c.Flush()
		time.Sleep(time.Second)
		c.Mark("b")
		time.Sleep(40 * time.Millisecond)
		c.Close()
		c.Release()
		if len(sent) != 8 || strings.Join(e.marks, ",") != "a,b" {
			t.Fatalf("%d packets, marks %v", len(sent), e.marks)
		}
		for i, h := range sent {
			if h.SSRC != 7 || h.SequenceNumber != sent[0].SequenceNumber+uint16(i) ||
				h.Marker != (i == 0 || i == 5) || time.Duration(h.Timestamp-sent[0].Timestamp)*time.Second/8000 != at[i]-at[0] {
				t.Errorf("packet %d: %+v at %v", i, h, at[i])
			}
		}
	})
}

// TestFixtures: the header that Asterisk sends is read.
func TestFixtures(t *testing.T) {
	for name, want := range map[string]uint8{"rtp-ulaw-header.hex": 0, "rtp-slin16-header.hex": 118} {
		text, err := os.ReadFile("../../asterisk/testdata/fixtures/" + name)
		if err != nil {
			t.Fatal(err)
		}
		b, err := hex.DecodeString(strings.TrimSpace(string(text)))
		if err != nil {
			t.Fatal(err)
		}
		var h rtp.Header
		if n, err := h.Unmarshal(b); err != nil || n != 12 || h.PayloadType != want && h.PayloadType != 108 {
			t.Errorf("%s: %+v, %v", name, h, err)
		}
	}
}

// TestFirst: where the port is not known, the first packet from the address tells.
func TestFirst(t *testing.T) {
	c := New(Config{Remote: netip.AddrPortFrom(asterisk.AddrPort().Addr(), 0), Format: ulaw})
	if c.ours(stranger.AddrPort()) || !c.ours(asterisk.AddrPort()) || c.ours(netip.AddrPortFrom(
		asterisk.AddrPort().Addr(), 5)) {
		t.Errorf("locked to %v", c.remote)
	}
}

// FuzzPacket: whatever comes is taken or left.
func FuzzPacket(f *testing.F) {
	f.Add(say(1), uint8(0))
	f.Add(say(2), uint8(101))
	f.Fuzz(func(t *testing.T, b []byte, events uint8) {
		c := New(Config{Format: ulaw, Events: events})
		for range 3 {
			var h rtp.Header
			if n, err := h.Unmarshal(b); err == nil {
				c.take(&h, payload(&h, b[n:]))
			}
			c.in.due(time.Now())
		}
	})
}
