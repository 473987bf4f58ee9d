package audio

import (
	"time"

	"voicebridge/codec"
)

// mixer adds audio of two sources. Its buffers are used again.
type mixer struct {
	samples []int16
}

// add adds samples from the front of q, 16-bit little-endian at the frame's rate, to
// a frame in the format f, as far as they last.
func (m *mixer) add(f codec.Format, frame []byte, q *fifo) {
	if f.Encoding == codec.L16LE {
		n := min(len(frame), q.len()) &^ 1
		waiting := q.bytes()
		for i := 0; i < n; i += 2 {
			sum := int32(int16(uint16(frame[i])|uint16(frame[i+1])<<8)) +
				int32(int16(uint16(waiting[i])|uint16(waiting[i+1])<<8))
			v := uint16(saturate(sum))
			frame[i], frame[i+1] = byte(v), byte(v>>8)
		}
		q.drop(n)
		return
	}
	m.samples = f.Encoding.AppendDecode(m.samples[:0], frame)
	n := min(len(m.samples), q.len()/2)
	waiting := q.bytes()
	for i := range n {
		m.samples[i] = saturate(int32(m.samples[i]) + int32(int16(uint16(waiting[2*i])|uint16(waiting[2*i+1])<<8)))
	}
	q.drop(2 * n)
	f.Encoding.AppendEncode(frame[:0], m.samples) // as long as before
}

func saturate(v int32) int16 { return int16(min(max(v, -32768), 32767)) }

// plain returns 16-bit samples at the rate of f.
func plain(f codec.Format) codec.Format { return codec.Format{Encoding: codec.L16LE, Rate: f.Rate} }

// maxMix bounds what waits to be mixed: 200 ms.
func maxMix(f codec.Format) int { return 10 * plain(f).FrameBytes() }

const (
	// quiet is the largest sample of what is taken for silence: -48 dBFS.
	quiet = 128
	// keepUp is how much may wait of audio that must not be late before silence in it is left
	// out.
	keepUp = 60 * time.Millisecond
)

// peakOf returns the largest sample of audio, whatever its sign.
func peakOf(f codec.Format, audio []byte) (peak int32) {
	var samples [160]int16
	for size := len(samples) * f.Encoding.SampleBytes(); len(audio) > 0; audio = audio[min(size, len(audio)):] {
		for _, s := range f.Encoding.AppendDecode(samples[:0], audio[:min(size, len(audio))]) {
			peak = max(peak, int32(s), -int32(s))
		}
	}
	return peak
}

// quietIn reports whether nothing can be heard in audio of a format.
func quietIn(f codec.Format, audio []byte) bool { return peakOf(f, audio) <= quiet }

// live adds audio, 16-bit samples in the format f, that must not be late: silence in it is left
// out while much waits, and the oldest where too much does.
func (q *fifo) live(f codec.Format, add func(b []byte) []byte) {
	before := q.len()
	q.grow(add)
	if q.buf != nil && before > plain(f).FrameBytes()*int(keepUp/codec.FrameTime) &&
		quietIn(plain(f), q.bytes()[before:]) {
		q.truncate(before)
	}
	q.bound(maxMix(f))
}
