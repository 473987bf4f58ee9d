package codec

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
)

func eachPair(t *testing.T, f func(t *testing.T, in, out int)) {
	for _, in := range Rates {
		for _, out := range Rates {
			if in != out {
				t.Run(fmt.Sprintf("%d-%d", in, out), func(t *testing.T) { f(t, in, out) })
			}
		}
	}
}

// level is the amplitude of the frequency hz in x, by a Blackman-Harris
// windowed single-bin Fourier transform (side lobes below -92 dB).
func level(x []int16, rate int, hz float64) float64 {
	var re, im, sum float64
	for i, s := range x {
		p := 2 * math.Pi * float64(i) / float64(len(x))
		w := 0.35875 - 0.48829*math.Cos(p) + 0.14128*math.Cos(2*p) - 0.01168*math.Cos(3*p)
		a := 2 * math.Pi * hz * float64(i) / float64(rate)
		re += w * float64(s) * math.Cos(a)
		im += w * float64(s) * math.Sin(a)
		sum += w
	}
	return 2 * math.Hypot(re, im) / sum
}

func decibels(ratio float64) float64 { return 20 * math.Log10(ratio) }

// resampled is the steady part of the answer to a tone.
func resampled(in, out int, hz, amplitude float64) []int16 {
	y := NewResampler(in, out).Append(nil, tone(in, hz, amplitude, in/2))
	return y[out/10:]
}

// TestResampleQuality sends real tones through every pair. Low is the lower of
// the two rates; its Nyquist frequency decides the bands. For 8 kHz: pass band
// 0 to 3.4 kHz within 0.05 dB, images and aliases of it at most -85 dB.
func TestResampleQuality(t *testing.T) {
	eachPair(t, func(t *testing.T, in, out int) {
		const amplitude = 30000
		nyquist := float64(min(in, out)) / 2
		pass, stop := 0.85*nyquist, 1.15*nyquist
		var ripple, worst float64
		worst = -200
		for hz := 50.0; hz <= pass; hz += (pass - 50) / 40 {
			y := resampled(in, out, hz, amplitude)
			ripple = max(ripple, math.Abs(decibels(level(y, out, hz)/amplitude)))
			if out > in { // the images of this tone around the multiples of the input rate
				for m := 1; m*in-int(hz) < out/2; m++ {
					for _, image := range []float64{float64(m*in) - hz, float64(m*in) + hz} {
						if image < float64(out)/2 {
							worst = max(worst, decibels(level(y, out, image)/amplitude))
						}
					}
				}
			}
		}
		if out < in { // what folds down from the stop band
			for hz := stop; hz < float64(in)/2; hz += (float64(in)/2 - stop) / 61 {
				alias := math.Abs(hz - math.Round(hz/float64(out))*float64(out))
				worst = max(worst, decibels(level(resampled(in, out, hz, amplitude), out, alias)/amplitude))
			}
		}
		t.Logf("ripple %.4f dB, worst image or alias %.1f dB, delay %.2f ms", ripple, worst,
			1000*float64(NewResampler(in, out).Delay())/float64(out))
		if ripple > 0.05 {
			t.Errorf("pass band ripple %.3f dB, want at most 0.05", ripple)
		}
		if worst > -85 {
			t.Errorf("image or alias at %.1f dB, want at most -85", worst)
		}
	})
}

// TestResampleDelay finds the peak of an impulse, and that output comes at once:
// for each frame in, a frame out.
func TestResampleDelay(t *testing.T) {
	eachPair(t, func(t *testing.T, in, out int) {
		r := NewResampler(in, out)
		x := make([]int16, in/50)
		x[0] = 30000
		y := r.Append(nil, x)
		if len(y) != out/50 {
			t.Fatalf("%d samples for a frame, want %d", len(y), out/50)
		}
		peak := 0
		for i, s := range y {
			if s > y[peak] {
				peak = i
			}
		}
		if peak != r.Delay() {
			t.Errorf("the peak comes after %d samples, Delay says %d", peak, r.Delay())
		}
		if ms := 1000 * float64(peak) / float64(out); ms > 4 {
			t.Errorf("delay %.2f ms, want at most 4", ms)
		}
	})
}

func TestResampleChunks(t *testing.T) {
	eachPair(t, func(t *testing.T, in, out int) {
		rng := rand.New(rand.NewPCG(1, uint64(in*out)))
		x := make([]int16, 5000)
		for i := range x {
			x[i] = int16(rng.Uint32())
		}
		whole := NewResampler(in, out).Append(nil, x)
		for range 20 {
			r := NewResampler(in, out)
			var y []int16
			most := 1 + rng.IntN(700)
			for rest := x; len(rest) > 0; {
				n := min(rng.IntN(most+1), len(rest))
				y = r.Append(y, rest[:n])
				rest = rest[n:]
			}
			if !slices.Equal(y, whole) {
				t.Fatalf("pieces of at most %d samples change the output", most)
			}
		}
		if want := len(x) / (in / gcd(in, out)) * (out / gcd(in, out)); len(whole) != want {
			t.Errorf("%d samples for %d, want %d", len(whole), len(x), want)
		}
	})
}

// TestResampleLevels: constant input stays constant (no tone at the input rate),
// and a full-scale square saturates instead of wrapping.
func TestResampleLevels(t *testing.T) {
	eachPair(t, func(t *testing.T, in, out int) {
		x := make([]int16, in/10)
		for i := range x {
			x[i] = 12345
		}
		for i, s := range NewResampler(in, out).Append(nil, x)[out/50:] {
			if s < 12344 || s > 12346 {
				t.Fatalf("constant 12345 became %d at %d", s, i)
			}
		}
		for i := range x {
			x[i] = 32767
			if i/(in/500)%2 == 1 {
				x[i] = -32768
			}
		}
		y := NewResampler(in, out).Append(nil, x)[out/50:]
		for i := 1; i < len(y); i++ {
			if d := int(y[i]) - int(y[i-1]); d > 65000 || d < -65000 {
				t.Fatalf("wrapped from %d to %d at %d", y[i-1], y[i], i)
			}
		}
		if slices.Max(y) != 32767 || slices.Min(y) != -32768 {
			t.Errorf("a full-scale square reaches %d and %d", slices.Max(y), slices.Min(y))
		}
	})
}

func TestResampleReset(t *testing.T) {
	eachPair(t, func(t *testing.T, in, out int) {
		r := NewResampler(in, out)
		r.Append(nil, tone(in, 1000, 20000, 997))
		r.Reset()
		x := tone(in, 440, 9000, 2000)
		if !slices.Equal(r.Append(nil, x), NewResampler(in, out).Append(nil, x)) {
			t.Error("something from before the reset is still heard")
		}
	})
}

func TestFIRAgrees(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		n, taps := firStep*(1+rng.IntN(12)), 1+rng.IntN(50)
		x, h := make([]float32, n+taps-1), make([]float32, taps)
		for i := range x {
			x[i] = rng.Float32()*2 - 1
		}
		for i := range h {
			h[i] = rng.Float32()*2 - 1
		}
		a, b := make([]float32, n), make([]float32, n)
		for i := range a {
			a[i] = rng.Float32()
			b[i] = a[i]
		}
		fir(a, x, h)
		firGeneric(b, x, h)
		for i := range a {
			// Other processors may fuse multiplication and addition.
			if a[i] != b[i] && (runtime.GOARCH == "amd64" || math.Abs(float64(a[i]-b[i])) > 1e-4) {
				t.Fatalf("n=%d taps=%d: sum %d is %g, want %g", n, taps, i, a[i], b[i])
			}
		}
	}
}

func TestTranscoder(t *testing.T) {
	formats := []Format{{PCMU, 8000}, {PCMA, 8000}, {L16LE, 8000}, {L16BE, 16000}, {L16LE, 16000}, {L16LE, 24000},
		{L16LE, 48000}}
	rng := rand.New(rand.NewPCG(5, 6))
	for _, in := range formats {
		for _, out := range formats {
			x := make([]byte, 50*in.FrameBytes())
			for i := range x {
				x[i] = byte(rng.Uint32())
			}
			whole := NewTranscoder(in, out).Append(nil, x)
			if want := 50 * out.FrameBytes(); len(whole) != want {
				t.Fatalf("%v -> %v: %d bytes for a second, want %d", in, out, len(whole), want)
			}
			if in == out && !slices.Equal(whole, x) {
				t.Fatalf("%v: the bytes did not pass untouched", in)
			}
			tc := NewTranscoder(in, out)
			var y []byte
			for rest := x; len(rest) > 0; {
				n := min((1+rng.IntN(99))*in.Encoding.SampleBytes(), len(rest))
				y = tc.Append(y, rest[:n])
				rest = rest[n:]
			}
			if !slices.Equal(y, whole) {
				t.Fatalf("%v -> %v: the cut into pieces changes the output", in, out)
			}
			tc.Reset()
			if got := len(tc.AppendSilence(nil, in.FrameSamples())); got != out.FrameBytes() {
				t.Errorf("%v -> %v: a frame of silence gives %d bytes", in, out, got)
			}
		}
	}
}

func TestNoAllocations(t *testing.T) {
	formats := []Format{{PCMU, 8000}, {PCMA, 8000}, {L16LE, 16000}, {L16BE, 24000}, {L16LE, 48000}}
	for _, in := range formats {
		for _, out := range formats {
			tc := NewTranscoder(in, out)
			src := make([]byte, in.FrameBytes())
			dst := make([]byte, 0, out.FrameBytes())
			tc.Append(dst, src)
			if n := testing.AllocsPerRun(100, func() { tc.Append(dst, src) }); n != 0 {
				t.Errorf("%v -> %v: %g allocations a frame", in, out, n)
			}
		}
	}
}
