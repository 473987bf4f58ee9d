//go:build speex

// Package speex calls libspeexdsp (Debian package libspeexdsp-dev), so that
// benchmarks can set our resampler beside a well-known one. Nothing else uses it.
package speex

/*
#cgo pkg-config: speexdsp
#include <speex/speex_resampler.h>
*/
import "C"
import "fmt"

// Resampler is a libspeexdsp resampler.
type Resampler struct{ state *C.SpeexResamplerState }

// New makes a resampler of the given quality, 0 to 10.
func New(in, out, quality int) (*Resampler, error) {
	var code C.int
	s := C.speex_resampler_init(1, C.spx_uint32_t(in), C.spx_uint32_t(out), C.int(quality), &code)
	if code != 0 {
		return nil, fmt.Errorf("speex: init %d -> %d: error %d", in, out, int(code))
	}
	return &Resampler{s}, nil
}

// Process resamples src into dst n times and returns how many samples of dst
// one run made; n runs in one call keep the cost of the call itself out.
func (r *Resampler) Process(dst, src []int16, n int) int {
	var made C.spx_uint32_t
	for range n {
		in, out := C.spx_uint32_t(len(src)), C.spx_uint32_t(len(dst))
		C.speex_resampler_process_int(r.state, 0, (*C.spx_int16_t)(&src[0]), &in, (*C.spx_int16_t)(&dst[0]), &out)
		made = out
	}
	return int(made)
}

// Close frees the resampler.
func (r *Resampler) Close() { C.speex_resampler_destroy(r.state) }
