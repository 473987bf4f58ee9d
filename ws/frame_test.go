package ws

import (
	"bytes"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
)

// FuzzReader: whatever comes, and in whatever pieces, the reader gives the same
// messages and the same end.
func FuzzReader(f *testing.F) {
	f.Add(appendFrame(nil, opText, []byte("hello"), true), 1, true)
	f.Add(appendFrame(appendFrame(nil, opBinary, make([]byte, 300), false), opClose, []byte{3, 232}, false), 7, false)
	f.Add([]byte{0x01, 0x81, 1, 2, 3, 4, 5, 0x80, 0x81, 1, 2, 3, 4, 5}, 3, true)
	f.Add([]byte{0x82, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF}, 2, true)
	f.Fuzz(func(t *testing.T, b []byte, step int, server bool) {
		read := func(step int) (out []byte, err error) {
			r := reader{server: server, text: 1000, binary: 2000}
			b := bytes.Clone(b) // it is unmasked in place
			for len(b) > 0 {
				piece := b[:min(step, len(b))]
				b = b[len(piece):]
				for len(piece) > 0 {
					n, op, data, err := r.take(piece)
					if n < 0 || n > len(piece) || n == 0 && op == 0 && err == nil {
						t.Fatalf("took %d of %d bytes", n, len(piece))
					}
					if err != nil {
						return out, err
					}
					if len(data) > 2000 {
						t.Fatalf("a message of %d bytes", len(data))
					}
					if op != 0 {
						out = append(append(out, op), data...)
					}
					piece = piece[n:]
				}
			}
			return out, nil
		}
		one, err1 := read(len(b))
		some, err2 := read(max(1, step%100))
		if !bytes.Equal(one, some) || (err1 == nil) != (err2 == nil) {
			t.Errorf("at once %q, %v; in pieces %q, %v", one, err1, some, err2)
		}
	})
}

// TestMask: masking in parts is masking at once.
func TestMask(t *testing.T) {
	want := []byte(strings.Repeat("masked and unmasked ", 10))
	for cut := range len(want) {
		b := bytes.Clone(want)
		key := mask(b[:cut], 0x01020304)
		mask(b[cut:], key)
		mask(b, 0x01020304)
		if !bytes.Equal(b, want) {
			t.Fatalf("cut at %d: %q", cut, b)
		}
	}
}

// TestEarly: what a server says in one go with its answer to the handshake is heard.
func TestEarly(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		a := &answered{Conn: conn}
		b := make([]byte, 4096)
		n, err := conn.Read(b)
		if err != nil {
			t.Error(err)
			return
		}
		if _, err := a.Write(b[:n]); err != nil {
			t.Error(err)
		}
		conn.Write(append(a.answer, appendFrame(nil, opText, []byte("early"), false)...))
		io.Copy(io.Discard, conn)
	}()
	c, _, err := Dial(t.Context(), "ws://"+l.Addr().String(), nil, nil, limits)
	if err != nil {
		t.Fatal(err)
	}
	if _, data, err := c.Read(); err != nil || string(data) != "early" {
		t.Errorf("%q, %v", data, err)
	}
	c.Close(CloseNormal, "")
	for err := error(nil); err == nil; {
		_, _, err = c.Read()
	}
	c.Release()
}

func BenchmarkReader(b *testing.B) {
	frame := appendFrame(nil, opText, bytes.Repeat([]byte("a"), 350), true)
	work := make([]byte, len(frame))
	r := reader{server: true, text: 1 << 16, binary: 1 << 16}
	b.ReportAllocs()
	for b.Loop() {
		copy(work, frame)
		if _, op, _, err := r.take(work); op != opText || err != nil {
			b.Fatal(op, err)
		}
	}
}

func BenchmarkWriter(b *testing.B) {
	data := bytes.Repeat([]byte("a"), 640)
	var frame []byte
	b.ReportAllocs()
	for b.Loop() {
		frame = appendFrame(frame[:0], opBinary, data, true)
	}
}

// TestSamplesInPieces: a message of samples is handed on in pieces, none of which cuts a sample in two.
func TestSamplesInPieces(t *testing.T) {
	want := make([]byte, 100001)
	for i := range want {
		want[i] = byte(i * 31)
	}
	fragments := appendFrame(nil, opBinary, want[:33333], true)
	fragments[0] &^= 0x80
	rest := appendFrame(nil, opContinue, want[33333:], true)
	ping := appendFrame(nil, opPing, []byte("x"), true)
	for name, wire := range map[string][]byte{
		"one frame": appendFrame(nil, opBinary, want, true),
		"fragments": slices.Concat(fragments, ping, rest),
	} {
		for _, step := range []int{1, 3, 1000, 4096, 65536, len(wire)} {
			r := reader{server: true, text: 10, binary: 1000, pieces: true}
			var got []byte
			pieces, sum := 0, bytes.Clone(wire)
			for at := 0; at < len(sum); {
				n, op, data, err := r.take(sum[at:min(len(sum), at+step)])
				if at += n; err != nil {
					t.Fatal(err)
				}
				if op != opBinary {
					continue
				}
				if got = append(got, data...); len(data)%2 != 0 && len(got) != len(want) {
					t.Fatalf("%s, %d: a piece of %d bytes", name, step, len(data))
				}
				if pieces++; len(data) > 1000+step {
					t.Errorf("%s, %d: a piece of %d bytes", name, step, len(data))
				}
			}
			if !bytes.Equal(got, want) || step < 1000 && pieces < 90 {
				t.Errorf("%s, %d: %d bytes in %d pieces", name, step, len(got), pieces)
			}
		}
	}
	r := reader{server: true, text: 10, binary: 1000, pieces: true}
	if _, _, _, err := r.take(appendFrame(nil, opText, want[:11], true)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a text that is too long: %v", err)
	}
}
