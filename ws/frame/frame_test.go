package frame

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
)

// FuzzReader: whatever comes, and in whatever pieces, the reader gives the same
// messages and the same end.
func FuzzReader(f *testing.F) {
	f.Add(Append(nil, Text, []byte("hello"), true), 1, true)
	f.Add(Append(Append(nil, Binary, make([]byte, 300), false), Close, []byte{3, 232}, false), 7, false)
	f.Add([]byte{0x01, 0x81, 1, 2, 3, 4, 5, 0x80, 0x81, 1, 2, 3, 4, 5}, 3, true)
	f.Add([]byte{0x82, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF}, 2, true)
	f.Fuzz(func(t *testing.T, b []byte, step int, server bool) {
		read := func(step int) (out []byte, err error) {
			r := Reader{Server: server, Text: 1000, Binary: 2000}
			b := bytes.Clone(b) // it is unmasked in place
			for len(b) > 0 {
				piece := b[:min(step, len(b))]
				b = b[len(piece):]
				for len(piece) > 0 {
					n, op, data, err := r.Take(piece)
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

func BenchmarkReader(b *testing.B) {
	frame := Append(nil, Text, bytes.Repeat([]byte("a"), 350), true)
	work := make([]byte, len(frame))
	r := Reader{Server: true, Text: 1 << 16, Binary: 1 << 16}
	b.ReportAllocs()
	for b.Loop() {
		copy(work, frame)
		if _, op, _, err := r.Take(work); op != Text || err != nil {
			b.Fatal(op, err)
		}
	}
}

func BenchmarkWriter(b *testing.B) {
	data := bytes.Repeat([]byte("a"), 640)
	var frame []byte
	b.ReportAllocs()
	for b.Loop() {
		frame = Append(frame[:0], Binary, data, true)
	}
}

// TestSamplesInPieces: a message of samples is handed on in pieces, none of which cuts a sample in two.
func TestSamplesInPieces(t *testing.T) {
	want := make([]byte, 100001)
	for i := range want {
		want[i] = byte(i * 31)
	}
	fragments := Append(nil, Binary, want[:33333], true)
	fragments[0] &^= 0x80
	rest := Append(nil, Continue, want[33333:], true)
	ping := Append(nil, Ping, []byte("x"), true)
	for name, wire := range map[string][]byte{
		"one frame": Append(nil, Binary, want, true),
		"fragments": slices.Concat(fragments, ping, rest),
	} {
		for _, step := range []int{1, 3, 1000, 4096, 65536, len(wire)} {
			r := Reader{Server: true, Text: 10, Binary: 1000, Pieces: true}
			var got []byte
			pieces, sum := 0, bytes.Clone(wire)
			for at := 0; at < len(sum); {
				n, op, data, err := r.Take(sum[at:min(len(sum), at+step)])
				if at += n; err != nil {
					t.Fatal(err)
				}
				if op != Binary {
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
	r := Reader{Server: true, Text: 10, Binary: 1000, Pieces: true}
	if _, _, _, err := r.Take(Append(nil, Text, want[:11], true)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a text that is too long: %v", err)
	}
}
