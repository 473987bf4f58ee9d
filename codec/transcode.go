package codec

// Transcoder converts a stream of bytes in one format to another: decode,
// resample, encode. Where both formats are the same the bytes pass untouched.
// It keeps a sample that was split between two calls. It is not safe for
// concurrent use, and allocates only until its buffers have grown.
type Transcoder struct {
	in, out  Format
	resample *Resampler // nil at equal rates
	half     []byte     // the first byte of a split sample
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
	t.half = t.half[:0]
	if t.resample != nil {
		t.resample.Reset()
	}
}

// Append appends to dst what src adds to the output.
func (t *Transcoder) Append(dst, src []byte) []byte {
	if t.in.Encoding.SampleBytes() == 2 {
		if len(t.half) == 1 && len(src) > 0 {
			t.half = append(t.half, src[0])
			src = src[1:]
			dst = t.whole(dst, t.half)
			t.half = t.half[:0]
		}
		if len(src)%2 == 1 {
			t.half = append(t.half[:0], src[len(src)-1])
			src = src[:len(src)-1]
		}
	}
	return t.whole(dst, src)
}

// AppendSilence appends what n samples of silence on the input add.
func (t *Transcoder) AppendSilence(dst []byte, n int) []byte {
	var zero [64]byte
	t.half = t.half[:0]
	for n > 0 {
		m := min(n, 32)
		z := t.in.Encoding.AppendSilence(zero[:0], m*t.in.Encoding.SampleBytes())
		dst = t.whole(dst, z)
		n -= m
	}
	return dst
}

func (t *Transcoder) whole(dst, src []byte) []byte {
	if t.in == t.out {
		return append(dst, src...)
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
