package audio

import (
	"time"

	"voicebridge/codec"
)

// voice is the agent's audio that waits to be played, already in the carrier's format.
type voice struct {
	from, to codec.Format
	frame    int // bytes of a frame
	tc       *codec.Transcoder
	queue    fifo
	half     []byte        // the first bytes of a sample that was split
	tail     bool          // the transcoder holds the end of the audio back
	padded   bool          // the last frame in queue ends in padding
	came     time.Duration // when audio last came
	first    time.Duration // when the first audio after idle came
}

const (
	// flushAfter is how long nothing must have come from the agent before an
	// incomplete frame is padded and sent.
	flushAfter = 40 * time.Millisecond
	// flushEarly is how long before the carrier runs dry that frame is sent.
	flushEarly = 5 * time.Millisecond
)

func newVoice(from, to codec.Format) voice {
	return voice{from: from, to: to, frame: to.FrameBytes(), tc: codec.NewTranscoder(from, to)}
}

// empty reports whether nothing is left to be played.
func (v *voice) empty() bool { return v.queue.len() == 0 && !v.tail }

// whole gives audio to take in whole samples: one may have been split.
func (v *voice) whole(audio []byte, take func(samples []byte)) {
	size := v.from.Encoding.SampleBytes()
	if len(v.half) > 0 && len(audio) > 0 {
		v.half = append(v.half, audio[0])
		take(v.half)
		v.half = v.half[:0]
		audio = audio[1:]
	}
	if n := len(audio) - len(audio)%size; n < len(audio) {
		v.half = append(v.half, audio[n:]...)
		audio = audio[:n]
	}
	if len(audio) > 0 {
		take(audio)
	}
}

// retune takes samples of another format from now on. Half a sample is forgotten.
func (v *voice) retune(from codec.Format) {
	v.half = v.half[:0]
	if from != v.from {
		v.from, v.tc = from, codec.NewTranscoder(from, v.to)
	}
}

// add queues whole samples. It returns how many of the carrier's samples they add.
func (v *voice) add(now time.Duration, audio []byte) int64 {
	if v.empty() {
		v.first = now
	}
	before := v.queue.len()
	v.queue.grow(func(b []byte) []byte { return v.tc.Append(b, audio) })
	v.tail = v.tail || v.tc.Delay() > 0
	v.padded = false
	v.came = now
	return int64((v.queue.len() - before) / v.to.Encoding.SampleBytes())
}

// pad completes the last frame with silence, and gets out what the resampler holds
// back. toAgent converts a number of samples to the agent's rate. It returns how many
// of the carrier's samples it adds.
func (v *voice) pad(toAgent func(int64) int64) int64 {
	size := v.to.Encoding.SampleBytes()
	before := v.queue.len()
	missing := (v.frame - before) / size
	if v.tail && missing < v.tc.Delay() {
		missing += v.to.FrameSamples()
	}
	v.queue.grow(func(b []byte) []byte {
		b = v.tc.AppendSilence(b, int(toAgent(int64(missing))))
		// Where the agent's samples do not fill a group of the resampler's, a few
		// are missing still.
		return v.to.Encoding.AppendSilence(b, before+missing*size-(len(b)-v.queue.head))
	})
	v.tc.Reset()
	v.tail, v.padded = false, true
	return int64(missing)
}

// reset forgets what waits.
func (v *voice) reset() {
	v.queue.reset()
	v.tc.Reset()
	v.half = v.half[:0]
	v.tail, v.padded = false, false
}
