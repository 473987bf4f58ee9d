// Package frame is the framing of RFC 6455, section 5: one reader and one writer for every
// connection, whatever brings the bytes.
package frame

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"unicode/utf8"
)

// Opcodes of RFC 6455, section 5.2.
const (
	Continue = 0x0
	Text     = 0x1
	Binary   = 0x2
	Close    = 0x8
	Ping     = 0x9
	Pong     = 0xA
)

const (
	maxHeader  = 14  // bytes of a frame's header
	MaxControl = 125 // bytes of a control frame's payload
)

// ErrTooLarge is the error of a message beyond its limit, ErrText of a text
// message that is not UTF-8.
var (
	ErrTooLarge = errors.New("WebSocket: message too large")
	ErrText     = errors.New("WebSocket: text is not UTF-8")
)

// KeepBuffer is the largest buffer that is kept for the next message.
const KeepBuffer = 64 << 10

// NoCode is the close code of a message without one.
const NoCode = 1005

// errProtocol is the kind of all errors of a peer that breaks the rules.
var errProtocol = errors.New("WebSocket: protocol error")

func broken(what string) error { return fmt.Errorf("%w: %s", errProtocol, what) }

// Reader takes frames apart. It holds no more than the message that is under way:
// one that comes whole is handed on where it lies.
type Reader struct {
	Server       bool  // frames must be masked
	Text, Binary int64 // bytes of a message, at most
	Pieces       bool  // binary messages come in pieces of Binary bytes

	header [maxHeader]byte
	have   int // bytes of header
	need   int

	op     byte // of the frame
	final  bool
	masked bool
	key    uint32
	left   int64 // bytes of its payload to come
	inside bool  // the header has been read

	kind    byte // of the message under way; 0: none
	msg     []byte
	given   int    // bytes of msg that have been handed on
	control []byte // payload of a control frame that came in pieces
}

// Take reads b up to the end of a frame at most, and tells how much that was. op is
// 0 where more is needed. Otherwise it is that of a whole message, or piece, or control frame;
// data is its payload, which may lie in b, valid until the next call.
func (r *Reader) Take(b []byte) (n int, op byte, data []byte, err error) {
	if r.given > 0 {
		r.msg, r.given = r.msg[:copy(r.msg, r.msg[r.given:])], 0
	}
	for !r.inside {
		if r.have == 0 {
			r.need = 2
		}
		m := copy(r.header[r.have:r.need], b[n:])
		n, r.have = n+m, r.have+m
		if r.have < r.need {
			return n, 0, nil, nil
		}
		if r.need == 2 {
			if r.need = r.length(); r.need > 2 {
				continue
			}
		}
		if err := r.begin(); err != nil {
			return n, 0, nil, err
		}
	}
	m := int(min(r.left, int64(len(b)-n)))
	part := b[n : n+m]
	n += m
	if r.masked {
		r.key = mask(part, r.key)
	}
	if r.left -= int64(m); r.left > 0 {
		r.keep(part)
		op, data = r.piece()
		return n, op, data, nil
	}
	r.inside, r.have = false, 0
	if r.op >= Close {
		if len(r.control) > 0 {
			r.keep(part)
			part, r.control = r.control, r.control[:0]
		}
		return n, r.op, part, nil
	}
	if !r.final {
		r.keep(part)
		op, data = r.piece()
		return n, op, data, nil
	}
	if len(r.msg) > 0 {
		r.keep(part)
		part = r.msg
		if r.msg = r.msg[:0]; cap(r.msg) > KeepBuffer {
			r.msg = nil
		}
	}
	op, r.kind = r.kind, 0
	if op == Text && !utf8.Valid(part) {
		return n, 0, nil, ErrText
	}
	return n, op, part, nil
}

// piece returns what there is of a message that is handed on in pieces, once that is enough:
// an even number of bytes, so that no sample is cut in two.
func (r *Reader) piece() (op byte, data []byte) {
	if !r.Pieces || r.kind != Binary || r.op >= Close || int64(len(r.msg)) < r.Binary {
		return 0, nil
	}
	r.given = len(r.msg) &^ 1
	return Binary, r.msg[:r.given]
}

// keep puts away a part of a payload.
func (r *Reader) keep(part []byte) {
	if r.op >= Close {
		r.control = append(r.control, part...)
		return
	}
	if r.msg == nil && int64(len(part))+r.left > 1024 {
		r.msg = make([]byte, 0, min(int64(len(part))+r.left, KeepBuffer))
	}
	r.msg = append(r.msg, part...)
}

// length is how long the header is, by its first two bytes.
func (r *Reader) length() int {
	need := 2
	switch r.header[1] & 0x7F {
	case 126:
		need += 2
	case 127:
		need += 8
	}
	if r.header[1]&0x80 != 0 {
		need += 4
	}
	return need
}

// begin reads a whole header.
func (r *Reader) begin() error {
	h := r.header[:r.need]
	r.op, r.final, r.masked = h[0]&0xF, h[0]&0x80 != 0, h[1]&0x80 != 0
	at, least := 2, int64(0)
	switch h[1] & 0x7F {
	case 126:
		r.left = int64(binary.BigEndian.Uint16(h[2:]))
		at, least = 4, 126
	case 127:
		size := binary.BigEndian.Uint64(h[2:])
		if size > 1<<62 {
			return ErrTooLarge
		}
		r.left = int64(size)
		at, least = 10, 1<<16
	default:
		r.left = int64(h[1] & 0x7F)
	}
	if r.masked {
		r.key = binary.LittleEndian.Uint32(h[at:])
	}
	r.inside = true
	switch {
	case h[0]&0x70 != 0:
		return broken("reserved bits are set")
	case r.left < least:
		return broken("a length in more bytes than it needs")
	case r.masked != r.Server:
		return broken("masked, or not masked, as it must not be")
	case r.op >= Close && (!r.final || r.left > MaxControl):
		return broken("a control frame that is long or in fragments")
	case r.op == Close || r.op == Ping || r.op == Pong:
		return nil
	case r.op > Binary:
		return broken("an opcode that is not known")
	case (r.op == Continue) != (r.kind != 0):
		return broken("a fragment out of place")
	}
	if r.op != Continue {
		r.kind = r.op
	}
	limit := r.Text
	if r.kind == Binary {
		limit = r.Binary
	}
	if r.left > limit-int64(len(r.msg)) && !(r.Pieces && r.kind == Binary) {
		return ErrTooLarge
	}
	return nil
}

// mask applies the key to b, in place, and gives the key for what follows it.
func mask(b []byte, key uint32) uint32 {
	wide := uint64(key)<<32 | uint64(key)
	for len(b) >= 8 {
		binary.LittleEndian.PutUint64(b, binary.LittleEndian.Uint64(b)^wide)
		b = b[8:]
	}
	for i := range b {
		b[i] ^= byte(key >> (8 * (i & 3)))
	}
	turn := 8 * (len(b) & 3)
	return key>>turn | key<<(32-turn)
}

// Append appends a frame with all of data. That of a client is masked, with a
// key that nobody can foresee (section 10.3).
func Append(to []byte, op byte, data []byte, client bool) []byte {
	var masked byte
	if client {
		masked = 0x80
	}
	to = append(to, 0x80|op)
	switch n := len(data); {
	case n <= 125:
		to = append(to, masked|byte(n))
	case n <= 0xFFFF:
		to = append(to, masked|126, byte(n>>8), byte(n))
	default:
		to = append(to, masked|127)
		to = binary.BigEndian.AppendUint64(to, uint64(n))
	}
	if !client {
		return append(to, data...)
	}
	key := rand.Uint32()
	to = binary.LittleEndian.AppendUint32(to, key)
	at := len(to)
	to = append(to, data...)
	mask(to[at:], key)
	return to
}

// Closing reads the payload of a close frame: 1005 where it is empty.
func Closing(data []byte) (code int, reason string, err error) {
	switch {
	case len(data) == 0:
		return NoCode, "", nil
	case len(data) == 1:
		return 0, "", broken("a close code of one byte")
	}
	code, reason = int(binary.BigEndian.Uint16(data)), string(data[2:])
	switch {
	case code < 1000 || code > 4999 || code >= 1004 && code <= 1006 || code >= 1015 && code < 3000:
		return 0, "", broken("a close code that must not be sent")
	case !utf8.ValidString(reason):
		return 0, "", broken("a reason that is not UTF-8")
	}
	return code, reason, nil
}
