package codec

// Transcoder converts a stream of bytes in one format to another: decode,
// resample, encode. Where both formats are the same the bytes pass untouched.
// It is not safe for concurrent use, and allocates only until its buffers have
// grown.
type Transcoder struct {
	in, out  Format
	resample *Resampler // nil at equal rates
	decoded  []int16
	resulted []int16
}

// maxDecode bounds the working buffers, whatever the size of a call.
const maxDecode = 960

// NewTranscoder makes a transcoder; both formats must be Valid.
func NewTranscoder(in, out Format) *Transcoder {
	return &Transcoder{in: in, out: out, resample: NewResampler(in.Rate, out.Rate)}
}

// Delay is how many samples of the output the resampler holds back.
func (t *Transcoder) Delay() int {
	if t.resample == nil {
		return 0
	}
	return t.resample.Delay()
}

// Reset drops what is in flight, so that nothing of it reaches later output.
func (t *Transcoder) Reset() {
	if t.resample != nil {
		t.resample.Reset()
	}
}

// Append appends to dst what src adds to the output. A last byte that is only
// half a sample is left out.
func (t *Transcoder) Append(dst, src []byte) []byte {
	if t.in == t.out {
		return append(dst, src[:len(src)-len(src)%t.in.Encoding.SampleBytes()]...)
	}
	for len(src) > 0 {
		n := min(len(src), maxDecode)
		t.decoded = t.in.Encoding.AppendDecode(t.decoded[:0], src[:n])
		src = src[n:]
		samples := t.decoded
		if t.resample != nil {
			t.resulted = t.resample.Append(t.resulted[:0], t.decoded)
			samples = t.resulted
		}
		dst = t.out.Encoding.AppendEncode(dst, samples)
	}
	return dst
}

// AppendSilence appends what n samples of silence on the input add.
func (t *Transcoder) AppendSilence(dst []byte, n int) []byte {
	var zero [64]byte
	for n > 0 {
		m := min(n, 32)
		z := t.in.Encoding.AppendSilence(zero[:0], m*t.in.Encoding.SampleBytes())
		dst = t.Append(dst, z)
		n -= m
	}
	return dst
}
