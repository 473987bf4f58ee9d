// Package rtpmedia is a media connection over RTP (RFC 3550): packets put in order and what is
// lost concealed, digits of RFC 4733, and audio sent on an absolute schedule, with marks and a
// queue that can be emptied, as carriers with a WebSocket have them.
package rtpmedia

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/pion/rtp"

	"voicebridge/codec"
)

// Config of a connection.
type Config struct {
	Conn net.PacketConn
	// Remote is where audio goes to, and comes from; its port may be 0: then the first packet
	// from the address tells.
	Remote netip.AddrPort
	Format codec.Format // L16 is big-endian here
	Type   uint8        // payload type of the audio
	Events uint8        // payload type of digits (RFC 4733); 0: none
	SSRC   uint32
}

// Handler is given what comes, one at a time.
type Handler interface {
	// Audio is a frame; it is good until it returns.
	Audio(frame []byte)
	Digit(digit byte)
	// Mark tells that what was queued before the mark has been sent.
	Mark(name string)
	// Closed is the last call; err is nil after Close.
	Closed(err error)
}

// Conn is a connection.
type Conn struct {
	Outbox // of frames to be sent

	cfg    Config
	handle Handler
	done   chan struct{}
	closed chan struct{}
	once   sync.Once

	mu      sync.Mutex
	in      jitter
	stats   Stats
	remote  netip.AddrPort // locked to
	pressed bool           // digit is
	digit   uint32         // time stamp of the last digit that was told
	digits  []byte
}

// New makes a connection; Serve begins it.
func New(cfg Config) *Conn {
	c := &Conn{cfg: cfg, done: make(chan struct{}), closed: make(chan struct{}), remote: cfg.Remote}
	c.in = jitter{format: cfg.Format, stats: &c.stats, depth: leastDepth}
	return c
}

// Serve gives what comes to h, and sends, until Close. It returns at once.
func (c *Conn) Serve(h Handler) {
	c.handle = h
	failed := make(chan error, 1)
	go func() { failed <- c.read() }()
	go func() {
		defer close(c.closed)
		err := c.tick(failed)
		h.Closed(err)
	}()
}

// Close ends the connection.
func (c *Conn) Close() {
	c.once.Do(func() {
		close(c.done)
		_ = c.cfg.Conn.Close() // nothing is left to be done about it
	})
}

// Release returns once all has ended. The connection must have been served.
func (c *Conn) Release() { <-c.closed }

// Stats returns what was counted so far.
func (c *Conn) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stats
}

// read takes packets until the connection ends.
func (c *Conn) read() error {
	buf := make([]byte, 2048)
	var h rtp.Header
	for {
		n, from, err := c.cfg.Conn.ReadFrom(buf)
		if err != nil {
			return err
		}
		addr, ok := from.(*net.UDPAddr)
		if !ok {
			return fmt.Errorf("rtp: a packet from %T", from)
		}
		h = rtp.Header{CSRC: h.CSRC[:0], Extensions: h.Extensions[:0]}
		size, err := h.Unmarshal(buf[:n])
		c.mu.Lock()
		if err == nil && h.Version == 2 && c.ours(addr.AddrPort()) {
			c.take(&h, payload(&h, buf[size:n]))
		}
		c.mu.Unlock()
	}
}

// payload is a packet's without its padding.
func payload(h *rtp.Header, b []byte) []byte {
	if h.Padding && len(b) > 0 && int(b[len(b)-1]) <= len(b) {
		return b[:len(b)-int(b[len(b)-1])]
	}
	return b
}

// ours reports whether a packet comes from the other side, which the first one makes known.
func (c *Conn) ours(from netip.AddrPort) bool {
	from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
	if c.remote.Port() == 0 && (!c.remote.Addr().IsValid() || c.remote.Addr().IsUnspecified() ||
		c.remote.Addr().Unmap() == from.Addr()) {
		c.remote = from
	}
	if c.remote.Port() != from.Port() || c.remote.Addr().Unmap() != from.Addr() {
		c.stats.Strangers++
		return false
	}
	return true
}

// take takes a packet of the other side's.
func (c *Conn) take(h *rtp.Header, audio []byte) {
	switch {
	case h.PayloadType == c.cfg.Type && len(audio) > 0 && len(audio)%c.cfg.Format.Encoding.SampleBytes() == 0:
		c.in.put(h, audio, time.Now())
	case h.PayloadType == c.cfg.Events && c.cfg.Events != 0 && len(audio) >= 4:
		c.event(h, audio)
	default:
		c.stats.Foreign++
	}
}

const eventDigits = "0123456789*#ABCD"

// event takes a packet of a digit: RFC 4733 section 2.3. Each packet of one digit has the
// same time stamp; it is told with the first one that says that it has ended.
func (c *Conn) event(h *rtp.Header, b []byte) {
	const end = 0x80
	if int(b[0]) >= len(eventDigits) || b[1]&end == 0 || c.pressed && h.Timestamp == c.digit ||
		len(c.digits) == digitsMost {
		return
	}
	c.pressed, c.digit = true, h.Timestamp
	c.digits = append(c.digits, eventDigits[b[0]])
}

// digitsMost bounds the digits of one frame's time.
const digitsMost = 16

// tick gives and sends what is due, every 20 ms by an absolute schedule, until the end.
func (c *Conn) tick(failed <-chan error) error {
	begin := time.Now()
	timer := time.NewTimer(codec.FrameTime)
	defer timer.Stop()
	out := sender{conn: c.cfg.Conn, header: rtp.Header{Version: 2, PayloadType: c.cfg.Type, SSRC: c.cfg.SSRC}}
	samples := uint32(c.cfg.Format.FrameSamples())
	var frame, audio []byte
	for n := 1; ; n++ {
		select {
		case <-timer.C:
		case err := <-failed:
			select {
			case <-c.done:
				return nil
			default:
			}
			c.Close()
			if errors.Is(err, net.ErrClosed) {
				err = nil
			}
			return err
		case <-c.done:
			<-failed
			return nil
		}
		timer.Reset(time.Until(begin.Add(time.Duration(n+1) * codec.FrameTime)))
		c.mu.Lock()
		frame = append(frame[:0], c.in.due(time.Now())...)
		digits := c.digits
		c.digits = c.digits[:0]
		to := c.remote
		c.mu.Unlock()
		var marks []string
		audio, marks = c.Next(audio[:0])
		for _, d := range digits {
			c.handle.Digit(d)
		}
		if len(frame) > 0 {
			c.handle.Audio(frame)
		}
		out.send(audio, samples, to)
		for _, m := range marks {
			c.handle.Mark(m)
		}
	}
}

// sender sends frames as packets. Its clock goes on where there is none.
type sender struct {
	conn   net.PacketConn
	header rtp.Header
	buf    []byte
	addr   net.UDPAddr
	talks  bool
}

func (s *sender) send(audio []byte, samples uint32, to netip.AddrPort) {
	if len(audio) > 0 && to.IsValid() && to.Port() != 0 {
		s.header.Marker = !s.talks
		s.header.SequenceNumber++
		size := s.header.MarshalSize()
		if need := size + len(audio); cap(s.buf) < need {
			s.buf = make([]byte, need)
		}
		s.buf = s.buf[:size+len(audio)]
		if _, err := s.header.MarshalTo(s.buf); err == nil {
			copy(s.buf[size:], audio)
			s.addr.IP, s.addr.Port = append(s.addr.IP[:0], to.Addr().AsSlice()...), int(to.Port())
			_, _ = s.conn.WriteTo(s.buf, &s.addr) // what is lost on the way is lost
		}
	}
	s.talks = len(audio) > 0
	s.header.Timestamp += samples
}
