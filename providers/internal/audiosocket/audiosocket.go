// Package audiosocket is the media connection of Asterisk's AudioSocket: frames of one byte of
// type, two of length and a payload, over TCP. Nothing in it paces what is sent, so this does.
// Source: Asterisk's documentation and res_audiosocket.c.
package audiosocket

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"voicebridge/codec"
	"voicebridge/providers/internal/rtpmedia"
)

// The types of frames.
const (
	Hangup byte = 0x00
	UUID   byte = 0x01 // 16 bytes, the first one from Asterisk
	Digit  byte = 0x03 // one byte of ASCII
	Error  byte = 0xff
)

// kinds are the types of audio, by the rate of 16-bit samples in little-endian.
var kinds = map[int]byte{8000: 0x10, 12000: 0x11, 16000: 0x12, 24000: 0x13, 32000: 0x14, 44100: 0x15, 48000: 0x16}

// KindOf is the type of frames with audio of a format.
func KindOf(f codec.Format) (kind byte, known bool) {
	kind, known = kinds[f.Rate]
	return kind, known && f.Encoding == codec.L16LE
}

// maxPayload bounds a frame that is read: 20 ms at 48 kHz are 1920 bytes.
const maxPayload = 16 << 10

// Append appends a frame to b.
func Append(b []byte, kind byte, payload []byte) []byte {
	b = append(b, kind, 0, 0)
	binary.BigEndian.PutUint16(b[len(b)-2:], uint16(len(payload)))
	return append(b, payload...)
}

// Read reads a frame. The payload may use the memory of buf, and is good until that is used
// again.
func Read(r io.Reader, buf []byte) (kind byte, payload []byte, err error) {
	var head [3]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := int(binary.BigEndian.Uint16(head[1:]))
	if n > maxPayload {
		return 0, nil, fmt.Errorf("audiosocket: a frame of %d bytes", n)
	}
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	if _, err := io.ReadFull(r, buf[:n]); err != nil {
		return 0, nil, errors.Join(io.ErrUnexpectedEOF, err)
	}
	return head[0], buf[:n], nil
}

// ReadUUID reads the first frame, which says what the connection is for.
func ReadUUID(r io.Reader) (id [16]byte, err error) {
	kind, payload, err := Read(r, nil)
	if err == nil && (kind != UUID || len(payload) != len(id)) {
		err = fmt.Errorf("audiosocket: the first frame is of type %#x with %d bytes, no UUID", kind, len(payload))
	}
	copy(id[:], payload)
	return id, err
}

// Conn is a connection whose UUID has been read, or sent.
type Conn struct {
	rtpmedia.Outbox // of frames to be sent

	conn   net.Conn
	kind   byte
	handle rtpmedia.Handler
	done   chan struct{}
	closed chan struct{}
	once   sync.Once

	telling sync.Mutex // one call of the handler at a time
}

// New makes a connection with audio of a type; Serve begins it.
func New(conn net.Conn, kind byte) *Conn {
	return &Conn{conn: conn, kind: kind, done: make(chan struct{}), closed: make(chan struct{})}
}

// Serve gives what comes to h, and sends, until Close. It returns at once.
func (c *Conn) Serve(h rtpmedia.Handler) {
	c.handle = h
	ticked := make(chan struct{})
	go func() {
		defer close(ticked)
		c.tick()
	}()
	go func() {
		defer close(c.closed)
		err := c.read()
		c.Close()
		<-ticked
		h.Closed(err)
	}()
}

// writeTime is how long the other side may take for a frame.
const writeTime = 5 * time.Second

// Close ends the connection.
func (c *Conn) Close() {
	c.once.Do(func() {
		close(c.done)
		_ = c.conn.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = c.conn.Write(Append(nil, Hangup, nil)) // whoever is gone hears it otherwise
		_ = c.conn.Close()
	})
}

// Release returns once all has ended. The connection must have been served.
func (c *Conn) Release() { <-c.closed }

// read takes frames until the connection ends.
func (c *Conn) read() error {
	r, buf := bufio.NewReader(c.conn), make([]byte, 4096)
	for {
		kind, payload, err := Read(r, buf)
		if err != nil {
			select {
			case <-c.done:
				return nil
			default:
			}
			if err == io.EOF {
				return nil
			}
			return fmt.Errorf("audiosocket: %w", err)
		}
		switch {
		case kind == Hangup:
			return nil
		case kind == c.kind && len(payload)%2 == 0 && len(payload) > 0:
			c.telling.Lock()
			c.handle.Audio(payload)
			c.telling.Unlock()
		case kind == Digit && len(payload) == 1:
			c.telling.Lock()
			c.handle.Digit(payload[0])
			c.telling.Unlock()
		case kind == Error:
			return fmt.Errorf("audiosocket: Asterisk reports an error: %x", payload)
		} // all else, odd lengths too, means nothing
	}
}

// tick sends what is due, every 20 ms by an absolute schedule, until the end.
func (c *Conn) tick() {
	begin := time.Now()
	timer := time.NewTimer(codec.FrameTime)
	defer timer.Stop()
	var frame, message []byte
	for n := 2; ; n++ {
		select {
		case <-timer.C:
		case <-c.done:
			return
		}
		timer.Reset(time.Until(begin.Add(time.Duration(n) * codec.FrameTime)))
		var marks []string
		if frame, marks = c.Next(frame[:0]); len(frame) > 0 {
			message = Append(message[:0], c.kind, frame)
			_ = c.conn.SetWriteDeadline(time.Now().Add(writeTime))
			if _, err := c.conn.Write(message); err != nil {
				_ = c.conn.Close() // who reads tells of it
				return
			}
		}
		for _, m := range marks {
			c.telling.Lock()
			c.handle.Mark(m)
			c.telling.Unlock()
		}
	}
}
