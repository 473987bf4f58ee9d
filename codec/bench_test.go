package codec

import (
	"fmt"
	"testing"
)

func BenchmarkResample(b *testing.B) {
	for _, in := range Rates {
		for _, out := range Rates {
			if in == out {
				continue
			}
			b.Run(fmt.Sprintf("%d-%d", in, out), func(b *testing.B) {
				r := NewResampler(in, out)
				src := make([]int16, in/50)
				for i := range src {
					src[i] = int16(i * 7919)
				}
				dst := make([]int16, 0, out/50+8)
				b.ReportAllocs()
				for b.Loop() {
					dst = r.Append(dst[:0], src)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(src)), "ns/sample")
			})
		}
	}
}

func BenchmarkTranscode(b *testing.B) {
	mu, pcm := Format{PCMU, 8000}, Format{L16LE, 16000}
	for _, p := range [][2]Format{{mu, pcm}, {pcm, mu}, {mu, {L16LE, 8000}}, {pcm, pcm}} {
		b.Run(fmt.Sprintf("%v-%v", p[0], p[1]), func(b *testing.B) {
			t := NewTranscoder(p[0], p[1])
			src := make([]byte, p[0].FrameBytes())
			dst := make([]byte, 0, p[1].FrameBytes())
			b.ReportAllocs()
			for b.Loop() {
				dst = t.Append(dst[:0], src)
			}
		})
	}
}
