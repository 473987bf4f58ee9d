package codec

import (
	"math"
	"slices"
)

// Filter design. The prototype low-pass is a Kaiser-windowed sinc that reaches
// halfDelay samples of the lower rate to each side, which is also its delay:
// 20/8000 s = 2.5 ms where one side is 8 kHz. Its cut-off is the lower Nyquist
// frequency f, with a pass band up to 0.85 f (3.4 kHz of 4) and a stop band from
// 1.15 f (4.6 kHz of 4).
const (
	halfDelay  = 20
	kaiserBeta = 8.9
)

// blockGroups is how many groups of M input samples a Resampler works on at a
// time: one frame of 20 ms in all pairs but one (48 to 16 kHz takes two).
const blockGroups = 160

// Resampler converts a stream of samples from one rate to another. Its output
// depends on the samples alone, not on how they are cut into calls, and comes
// without hold-back: L output samples for every M input samples where out/in is
// L/M in lowest terms. It is not safe for concurrent use.
//
// The input is dealt out to M streams, and each of the L outputs of a group is
// the sum of filters over adjacent samples of one stream each. Filters are
// polyphase: only outputs that are kept are computed, and only from coefficients
// that are not zero.
type Resampler struct {
	up, down int      // L, M
	held     [6]int16 // the samples of the next group that have arrived
	fill     int      // how many of them
	history  int      // samples of each stream kept before the current block
	streams  [][]float32
	outputs  [][]run // for each of the L outputs of a group
	sums     [][]float32
}

// run is a part of a filter: coefficients for adjacent samples of one stream,
// the first of which is at that stream's current position + from.
type run struct {
	stream, from int
	h            []float32
}

// NewResampler makes a resampler between two of Rates. It returns nil where the
// rates are the same.
func NewResampler(in, out int) *Resampler {
	if in == out {
		return nil
	}
	g := gcd(in, out)
	r := &Resampler{up: out / g, down: in / g}
	r.outputs = design(r.up, r.down)
	for _, runs := range r.outputs {
		for _, run := range runs {
			r.history = max(r.history, -run.from)
		}
	}
	for range r.down {
		r.streams = append(r.streams, make([]float32, r.history+blockGroups))
	}
	for range r.up {
		r.sums = append(r.sums, make([]float32, blockGroups))
	}
	return r
}

// Delay is the filter's delay in samples of the output.
func (r *Resampler) Delay() int { return halfDelay * max(r.up, r.down) / r.down }

// Reset forgets what has been heard: the next output is that of a new stream.
func (r *Resampler) Reset() {
	r.fill = 0
	for _, s := range r.streams {
		clear(s)
	}
}

// Append appends to dst what src adds to the output.
func (r *Resampler) Append(dst, src []int16) []int16 {
	if r.fill > 0 { // complete the group that was begun
		n := copy(r.held[r.fill:r.down], src)
		r.fill += n
		src = src[n:]
		if r.fill < r.down {
			return dst
		}
		r.fill = 0
		dst = r.groups(dst, r.held[:r.down])
	}
	whole := len(src) - len(src)%r.down
	for whole > 0 {
		n := min(whole, blockGroups*r.down)
		dst = r.groups(dst, src[:n])
		src = src[n:]
		whole -= n
	}
	r.fill = copy(r.held[:], src)
	return dst
}

// groups takes whole groups of M samples, at most one block of them.
func (r *Resampler) groups(dst, src []int16) []int16 {
	n := len(src) / r.down
	for i, s := range r.streams {
		for j, at := r.history, i; at < len(src); j, at = j+1, at+r.down {
			s[j] = float32(src[at])
		}
	}
	for q, runs := range r.outputs {
		sum := r.sums[q][:(n+firStep-1)/firStep*firStep] // those beyond n are not used
		clear(sum)
		for _, run := range runs {
			fir(sum, r.streams[run.stream][r.history+run.from:], run.h)
		}
	}
	at, up := len(dst), len(r.sums)
	dst = slices.Grow(dst, n*up)[:at+n*up]
	for q, sum := range r.sums {
		for i, y := at+q, sum[:n]; len(y) > 0; i, y = i+up, y[1:] {
			dst[i] = round(y[0])
		}
	}
	for _, s := range r.streams {
		copy(s[:r.history], s[n:])
	}
	return dst
}

// round is to the nearest integer, saturating.
func round(y float32) int16 {
	v := int32(y+32768.5) - 32768 // the conversion truncates: keep it positive
	if int32(int16(v)) != v {
		return int16(v>>31) ^ 32767
	}
	return int16(v)
}

// design returns the runs of each of the up outputs of a group of down inputs.
func design(up, down int) [][]run {
	k := max(up, down) // prototype samples per sample of the lower rate
	side := halfDelay * k
	outputs := make([][]run, up)
	for q := range outputs {
		// Input u of the group (u <= 0 for earlier ones) weighs h(i) in output q.
		index := func(u int) int { return q*down - side - u*up }
		first := int(math.Floor(float64(q*down-2*side) / float64(up)))
		last := q * down / up
		var sum float64
		for u := first; u <= last; u++ {
			sum += prototype(index(u), k, side)
		}
		for s := range down {
			from, h := 0, []float32(nil)
			for u := first; u <= last; u++ {
				if mod(u, down) != s {
					continue
				}
				c := prototype(index(u), k, side) / sum
				if c == 0 && h == nil {
					continue
				}
				if h == nil {
					from = (u - s) / down
				}
				h = append(h, float32(c))
			}
			for len(h) > 0 && h[len(h)-1] == 0 {
				h = h[:len(h)-1]
			}
			if len(h) > 0 {
				outputs[q] = append(outputs[q], run{s, from, h})
			}
		}
	}
	return outputs
}

// prototype is the windowed sinc with its zeros at the multiples of k, exactly.
func prototype(i, k, side int) float64 {
	if i == 0 {
		return 1
	}
	if i%k == 0 || i <= -side || i >= side {
		return 0
	}
	x := math.Pi * float64(i) / float64(k)
	w := float64(i) / float64(side)
	return math.Sin(x) / x * bessel(kaiserBeta*math.Sqrt(1-w*w)) / bessel(kaiserBeta)
}

// bessel is the modified Bessel function of the first kind, order zero.
func bessel(x float64) float64 {
	sum, term := 1.0, 1.0
	for n := 1.0; term > sum*1e-17; n++ {
		term *= x / (2 * n) * (x / (2 * n))
		sum += term
	}
	return sum
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

func mod(a, n int) int { return ((a % n) + n) % n }
