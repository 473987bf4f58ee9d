package markers

import (
	"math"
	"testing"
	"time"

	"voicebridge/codec"
)

// TestMarkers: markers are found, at their place and each for itself, in audio that
// has been through G.711, another rate and other frames; what is missing or too much
// between them shows.
func TestMarkers(t *testing.T) {
	f := codec.Format{Encoding: codec.PCMU, Rate: 8000}
	pcm := codec.Format{Encoding: codec.L16LE, Rate: 16000}
	for name, c := range map[string]struct {
		spoil     func(frame int, b []byte) []byte
		want      int
		lost      int
		min, max  time.Duration // of what is too much, in all
		delayed   time.Duration
		tolerance time.Duration
	}{
		"as it was": {nil, 19, 0, 0, 0, 0, time.Millisecond},
		"a frame lost": {func(n int, b []byte) []byte { return b[:len(b)*min(1, n^60)] }, 19, 0, -21 * time.Millisecond,
			-19 * time.Millisecond, 0, 21 * time.Millisecond},
		"a frame more": {func(n int, b []byte) []byte { return append(b, make([]byte, 320*2*(1-min(1, n^60)))...) }, 19,
			0, 19 * time.Millisecond, 21 * time.Millisecond, 0, 21 * time.Millisecond},
		"a marker lost": {func(n int, b []byte) []byte {
			if n == 3*markerEvery-1 {
				clear(b)
			}
			return b
		}, 18, 1, 0, 0, 0, time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			m := New(f)
			d := NewDetector(m)
			there, back := codec.NewTranscoder(f, pcm), codec.NewTranscoder(pcm, f)
			var wire []byte
			var delays []time.Duration
			var extra time.Duration
			lost := 0
			for n := range 20 * markerEvery {
				at := time.Duration(n) * codec.FrameTime
				payload, id := m.Frame(n)
				if id >= 0 {
					d.sent = append(d.sent, sent{id, at, int64(n * f.FrameSamples())})
				}
				b := there.Append(nil, payload)
				if c.spoil != nil {
					b = c.spoil(n, b)
				}
				wire = back.Append(wire, b)
				for len(wire) >= 100 { // other frames than those that were sent
					if got, ok := d.Hear(at, wire[:100]); ok {
						delays, extra, lost = append(delays, got.Delay), extra+got.Extra, lost+got.Lost
					}
					wire = wire[100:]
				}
			}
			filters := 5 * time.Millisecond
			if len(delays) != c.want || lost != c.lost || extra < c.min-time.Millisecond ||
				extra > c.max+time.Millisecond {
				t.Errorf("%d markers, %d lost, %v too much; want %d, %d, %v to %v", len(delays), lost, extra, c.want,
					c.lost, c.min, c.max)
			}
			for _, delay := range delays {
				// A place in a message of 12.5 ms counts from the message's beginning.
				if d := delay - filters; d < -13*time.Millisecond-c.tolerance || d > 13*time.Millisecond+c.tolerance {
					t.Errorf("delay %v, want about that of the filters, %v", delay, filters)
				}
			}
		})
	}
}

// TestMarkersDiffer: no marker is taken for another.
func TestMarkersDiffer(t *testing.T) {
	for _, f := range []codec.Format{{Encoding: codec.PCMU, Rate: 8000}, {Encoding: codec.L16LE, Rate: 16000},
		{Encoding: codec.L16LE, Rate: 24000}} {
		m := New(f)
		for i := range markerCount {
			for j := range markerCount {
				var both float64
				for k, v := range m.pcm[i] {
					both += float64(v) * float64(m.pcm[j][k])
				}
				alike := both / math.Sqrt(m.energy[i]*m.energy[j])
				if i == j && alike < 0.999 || i != j && alike > markerAlike/2 {
					t.Errorf("%v: markers %d and %d are alike by %.2f", f, i, j, alike)
				}
			}
		}
	}
}
