//go:build speex

package codec

import (
	"fmt"
	"testing"

	"voicebridge/codec/internal/speex"
)

// BenchmarkSpeex is libspeexdsp at quality 5 on the input of BenchmarkResample:
//
//	go test -tags speex -run '^$' -bench 'Resample|Speex' ./codec
func BenchmarkSpeex(b *testing.B) {
	for _, in := range Rates {
		for _, out := range Rates {
			if in == out {
				continue
			}
			b.Run(fmt.Sprintf("%d-%d", in, out), func(b *testing.B) {
				r, err := speex.New(in, out, 5)
				if err != nil {
					b.Fatal(err)
				}
				defer r.Close()
				src, dst := make([]int16, in/50), make([]int16, out/50+8)
				for i := range src {
					src[i] = int16(i * 7919)
				}
				r.Process(dst, src, b.N)
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(src)), "ns/sample")
			})
		}
	}
}
