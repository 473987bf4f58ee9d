package wav

import (
	"math"
	"sync"

	"voicebridge/codec"
)

// Music is audio that is played over and over to callers who wait. It is made in each
// format once.
type Music struct {
	pcm  []int16
	rate int

	mu sync.Mutex
	by map[codec.Format][]byte
}

// NewMusic makes music of samples at a rate in Hz.
func NewMusic(pcm []int16, rate int) *Music { return &Music{pcm: pcm, rate: rate} }

// In returns whole frames in a format.
func (m *Music) In(f codec.Format) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	if b, made := m.by[f]; made {
		return b
	}
	from := codec.Format{Encoding: codec.L16LE, Rate: m.rate}
	b := codec.NewTranscoder(from, f).Append(nil, codec.L16LE.AppendEncode(nil, m.pcm))
	if rest := len(b) % f.FrameBytes(); rest > 0 {
		b = f.Encoding.AppendSilence(b, f.FrameBytes()-rest)
	}
	if m.by == nil {
		m.by = map[codec.Format][]byte{}
	}
	m.by[f] = b
	return b
}

// File returns the music as a WAV file.
func (m *Music) File() []byte { return Append(nil, m.pcm, m.rate) }

// At returns the music as a WAV file at another rate in Hz.
func (m *Music) At(rate int) []byte {
	b := m.In(codec.Format{Encoding: codec.L16LE, Rate: rate})
	return Append(nil, codec.L16LE.AppendDecode(nil, b), rate)
}

// Chime is the music that comes with the bridge: two soft notes every four seconds.
func Chime() *Music {
	const rate = 16000
	pcm := make([]int16, 4*rate)
	for i, note := range []float64{523.25, 659.25} { // C5, E5
		from := i * rate * 2 / 5
		for n := range rate * 3 / 2 {
			t := float64(n) / float64(rate)
			level := 4000 * min(1, t/0.02) * math.Exp(-3*t)
			pcm[from+n] += int16(level * math.Sin(2*math.Pi*note*t))
		}
	}
	return NewMusic(pcm, rate)
}
