package codec

import (
	"math"
	"os"
	"path/filepath"
	"testing"
)

// The reference is built from the tables of ITU-T G.711, not from bit tricks:
// eight segments of sixteen intervals, the first decision values of each
// segment and its step as tables 1a and 2a list them, in units of the uniform
// code (13 bits for A-law, 14 for mu-law).
type g711Reference struct {
	decision [129]int // x_1..: interval n is [decision[n], decision[n+1])
	output   [128]int // y_n
	unit     int      // 16-bit steps per unit
}

func muReference() (r g711Reference) {
	// Table 2a: segment 1 is one half-interval of 1 and fifteen of 2, then
	// sixteen intervals a segment of 4, 8, ... 256, up to the virtual 8159.
	r.unit = 4
	x := 0
	for n := range 128 {
		r.decision[n] = x
		seg, step := n/16, 2
		if seg > 0 {
			step = 2 << seg
		}
		if n == 0 {
			step = 1
		}
		x += step
	}
	r.decision[128] = x
	for n := range 128 {
		r.output[n] = (r.decision[n] + r.decision[n+1]) / 2
	}
	r.output[0] = 0
	return r
}

func aReference() (r g711Reference) {
	// Table 1a: segment 1 has thirty-two intervals of 2, then sixteen a segment
	// of 4, 8, ... 128, up to the virtual 4096.
	r.unit = 8
	x := 0
	for n := range 128 {
		r.decision[n] = x
		step := 2
		if seg := n / 16; seg > 1 {
			step = 1 << seg
		}
		x += step
	}
	r.decision[128] = x
	for n := range 128 {
		r.output[n] = (r.decision[n] + r.decision[n+1]) / 2
	}
	return r
}

// interval of a magnitude in 16-bit steps.
func (r g711Reference) interval(mag int) int {
	n := 0
	for n < 127 && mag >= r.decision[n+1]*r.unit {
		n++
	}
	return n
}

func TestG711Reference(t *testing.T) {
	mu, a := muReference(), aReference()
	if mu.decision[128] != 8159 || a.decision[128] != 4096 || mu.output[127] != 8031 || a.output[127] != 4032 {
		t.Fatalf("the reference itself is wrong: %d %d %d %d", mu.decision[128], a.decision[128], mu.output[127],
			a.output[127])
	}
	for _, tt := range []struct {
		enc  Encoding
		ref  g711Reference
		code func(positive bool, n int) byte
	}{
		// Table 2a: the character signal of the largest positive value is
		// 10000000, of the smallest 11111111; negative ones have the sign bit 0.
		{PCMU, mu, func(pos bool, n int) byte {
			c := byte(127 - n)
			if pos {
				c |= 0x80
			}
			return c
		}},
		// Table 1a: after inversion of the even bits; sign bit 1 for positive.
		{PCMA, a, func(pos bool, n int) byte {
			c := byte(n)
			if pos {
				c |= 0x80
			}
			return c ^ 0x55
		}},
	} {
		for n := range 128 {
			for _, pos := range []bool{true, false} {
				want := tt.ref.output[n] * tt.ref.unit
				if !pos {
					want = -want
				}
				code := tt.code(pos, n)
				if got := tt.enc.AppendDecode(nil, []byte{code}); int(got[0]) != want {
					t.Fatalf("%v: decode %#02x = %d, want %d", tt.enc, code, got[0], want)
				}
			}
		}
		for s := -32768; s <= 32767; s++ {
			// A value on a decision value belongs to the interval above it: for
			// negative ones that is the one of smaller magnitude, hence ^s.
			want := tt.code(true, tt.ref.interval(s))
			if s < 0 {
				want = tt.code(false, tt.ref.interval(^s))
			}
			if got := tt.enc.AppendEncode(nil, []int16{int16(s)}); got[0] != want {
				t.Fatalf("%v: encode %d = %#02x, want %#02x", tt.enc, s, got[0], want)
			}
		}
	}
}

func TestG711Identity(t *testing.T) {
	for _, e := range []Encoding{PCMU, PCMA} {
		for c := range 256 {
			want := byte(c)
			if e == PCMU && c == 0x7F { // minus zero
				want = 0xFF
			}
			if got := e.AppendEncode(nil, e.AppendDecode(nil, []byte{byte(c)})); got[0] != want {
				t.Errorf("%v: %#02x comes back as %#02x", e, c, got[0])
			}
		}
	}
}

// TestG711Golden compares with files made by SoX, see testdata/README.md. SoX
// rounds a sample to 14 or 13 bits before it encodes, so a sample closer than that
// to a decision value may fall on its other side.
func TestG711Golden(t *testing.T) {
	sweep := L16LE.AppendDecode(nil, golden(t, "sweep.s16"))
	for _, tt := range []struct {
		enc          Encoding
		codes, sweep string
		rounding     int
	}{{PCMU, "codes-ul.s16", "sweep.ul", 2}, {PCMA, "codes-al.s16", "sweep.al", 4}} {
		var all []byte
		for c := range 256 {
			all = append(all, byte(c))
		}
		want := L16LE.AppendDecode(nil, golden(t, tt.codes))
		for c, s := range tt.enc.AppendDecode(nil, all) {
			if s != want[c] {
				t.Errorf("%v: decode %#02x = %d, sox says %d", tt.enc, c, s, want[c])
			}
		}
		theirs := golden(t, tt.sweep)
		ours := tt.enc.AppendEncode(nil, sweep)
		if len(theirs) != len(ours) {
			t.Fatalf("%v: %d codes, sox has %d", tt.enc, len(ours), len(theirs))
		}
		for i, sample := range sweep {
			near := false
			for d := -tt.rounding; d <= tt.rounding; d++ {
				near = near || tt.enc.AppendEncode(nil, []int16{int16(int(sample) + d)})[0] == theirs[i]
			}
			if !near {
				t.Errorf("%v: sample %d = %d is %#02x, sox says %#02x", tt.enc, i, sample, ours[i], theirs[i])
			}
		}
	}
}

// TestG711Noise holds the quality of a round trip: at least 33 dB from -30 to
// -6 dBFS.
func TestG711Noise(t *testing.T) {
	for _, e := range []Encoding{PCMU, PCMA} {
		for db := -30.0; db <= -6; db += 3 {
			in := tone(8000, 1013, 32767*math.Pow(10, db/20), 8000)
			out := e.AppendDecode(nil, e.AppendEncode(nil, in))
			var signal, noise float64
			for i := range in {
				d := float64(out[i]) - float64(in[i])
				signal += float64(in[i]) * float64(in[i])
				noise += d * d
			}
			if snr := 10 * math.Log10(signal/noise); snr < 33 {
				t.Errorf("%v at %g dBFS: %.1f dB", e, db, snr)
			}
		}
	}
}

func TestL16(t *testing.T) {
	samples := []int16{0, 1, -1, 0x1234, -32768, 32767}
	le := L16LE.AppendEncode(nil, samples)
	be := L16BE.AppendEncode(nil, samples)
	if le[6] != 0x34 || le[7] != 0x12 || be[6] != 0x12 || be[7] != 0x34 {
		t.Fatalf("byte order: % x, % x", le, be)
	}
	for _, tt := range []struct {
		enc  Encoding
		wire []byte
	}{{L16LE, le}, {L16BE, be}} {
		got := tt.enc.AppendDecode(nil, append(tt.wire, 0x55)) // half a sample more
		for i, s := range samples {
			if len(got) != len(samples) || got[i] != s {
				t.Fatalf("%v: %v, want %v", tt.enc, got, samples)
			}
		}
	}
}

func TestFormat(t *testing.T) {
	for f, want := range map[Format]struct {
		name  string
		bytes int
	}{
		{PCMU, 8000}:   {"pcmu/8000", 160},
		{PCMA, 8000}:   {"pcma/8000", 160},
		{L16LE, 16000}: {"l16/16000", 640},
		{L16BE, 48000}: {"l16be/48000", 1920},
	} {
		if f.String() != want.name || f.FrameBytes() != want.bytes || f.Duration(want.bytes) != FrameTime ||
			!f.Valid() {
			t.Errorf("%v: frame %d, %v", f, f.FrameBytes(), f.Duration(want.bytes))
		}
	}
	for _, f := range []Format{{}, {PCMU, 0}, {L16LE, 44100}, {9, 8000}} {
		if f.Valid() {
			t.Errorf("%v is valid", f)
		}
	}
	for _, e := range []Encoding{PCMU, PCMA, L16LE, L16BE} {
		for _, s := range e.AppendDecode(nil, e.AppendSilence(nil, 16)) {
			if s < 0 || s > 8 {
				t.Errorf("%v: silence decodes to %d", e, s)
			}
		}
	}
}

func golden(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// tone is a sine of the given frequency and amplitude.
func tone(rate int, hz, amplitude float64, n int) []int16 {
	s := make([]int16, n)
	for i := range s {
		s[i] = int16(math.Round(amplitude * math.Sin(2*math.Pi*hz*float64(i)/float64(rate))))
	}
	return s
}
