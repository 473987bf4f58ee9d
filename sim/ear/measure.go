// Package ear hears for those who cannot: what was said, what was heard, how alike they
// are, and tones in between.
package ear

import (
	"fmt"
	"math"
	"slices"
	"time"

	"voicebridge/wav"
)

// Align finds by how many samples heard lags behind said, from 0 to most, where
// they are most alike.
func Align(said, heard []int16, most int) int {
	// A stretch of two seconds around the loudest place tells enough.
	const stretch = 16000
	from, best := 0, 0.0
	for at := 0; at+stretch/8 <= len(said); at += stretch / 8 {
		if e := energy(said[at : at+stretch/8]); e > best {
			from, best = at, e
		}
	}
	from = max(0, from-stretch/2)
	ref := said[from:min(len(said), from+stretch)]
	lag, best := 0, math.Inf(-1)
	power := energy(heard[min(from, len(heard)):min(from+len(ref), len(heard))])
	for l := 0; l <= most && from+l < len(heard); l++ {
		h := heard[from+l:]
		if c := dot(ref, h) / math.Sqrt(power+1); c > best {
			lag, best = l, c
		}
		power -= float64(h[0]) * float64(h[0]) // the window moves on by one
		if len(ref) < len(h) {
			power += float64(h[len(ref)]) * float64(h[len(ref)])
		}
	}
	return lag
}

// dot is the sum of the products of what both have. The race detector does not look at this: it would take ten
// times as long, and the caller's recordings are over.
//
//go:norace
func dot(a, b []int16) float64 {
	var sum int64
	b = b[:min(len(a), len(b))]
	for i, v := range b {
		sum += int64(a[i]) * int64(v)
	}
	return float64(sum)
}

// Find finds said in heard, whenever that was, and tells how alike they are there:
// 1 is the same but for its loudness. Both are at 8 kHz.
func Find(said, heard []int16) (likeness float64) {
	lag := Align(said, heard, len(heard))
	// The loudest half second, which Align has looked for.
	const stretch = 4000
	from, best := 0, 0.0
	for at := 0; at+stretch <= len(said); at += stretch / 2 {
		if e := energy(said[at : at+stretch]); e > best {
			from, best = at, e
		}
	}
	var both, a, b float64
	for i := from; i < min(from+stretch, len(said), len(heard)-lag); i++ {
		x, y := float64(said[i]), float64(heard[i+lag])
		both, a, b = both+x*y, a+x*x, b+y*y
	}
	if a == 0 || b == 0 {
		return 0
	}
	return both / math.Sqrt(a*b)
}

// Hears reports whether a tone is in audio, at its loudest fifth of a second.
func Hears(pcm []int16, rate int, hz float64) bool {
	n := rate / 5
	for from := 0; from+n <= len(pcm); from += n {
		var re, im, all float64
		for i, s := range pcm[from : from+n] {
			a := 2 * math.Pi * hz * float64(i) / float64(rate)
			re += float64(s) * math.Cos(a)
			im += float64(s) * math.Sin(a)
			all += float64(s) * float64(s)
		}
		if p := (re*re + im*im) * 2 / float64(n); p > 1e6*float64(n)/4 && p > 0.3*all {
			return true
		}
	}
	return false
}

func energy(s []int16) float64 { return dot(s, s) }

// SNR is the ratio in dB of said to its difference from heard, which lags behind
// by lag samples. The part of said that was not heard counts as wrong.
func SNR(said, heard []int16, lag int) float64 {
	var signal, noise float64
	for i, s := range said {
		h := 0.0
		if i+lag < len(heard) {
			h = float64(heard[i+lag])
		}
		signal += float64(s) * float64(s)
		noise += (float64(s) - h) * (float64(s) - h)
	}
	if noise == 0 {
		return 120 // as they were
	}
	return 10 * math.Log10(signal/noise)
}

// Whole is how much of what was said is heard, from 0 to 1: of the pieces of 100 ms in which something is said, those
// that are there in that order with at least snr dB, whatever comes between them, and up to 2 s later. It judges
// audio that took its way in real time, beside whatever else the machine did.
func Whole(said, heard []int16, rate int, snr float64) float64 {
	piece, from, since, whole, all := rate/10, 0, 0, 0, 0 // since: said since what was found last
	for ; len(said) >= piece; said, since = said[piece:], since+piece {
		part := said[:piece]
		if energy(part) < 300*300*float64(piece) { // so soft that companding is heard
			continue
		}
		all++
		noise := energy(part) / math.Pow(10, snr/10)
		at := from + since // it mostly is where it should
		if !is(part, heard, at, noise) {
			for at = from; at <= from+since+2*rate && !is(part, heard, at, noise); at++ {
			}
		}
		if at <= from+since+2*rate {
			from, since = at, 0
			whole++
		}
	}
	return float64(whole) / float64(max(1, all))
}

// WholeFile is Whole of two WAV files.
func WholeFile(said, heard string, snr float64) (float64, error) {
	before, rate, err := wav.Read(said)
	if err != nil {
		return 0, fmt.Errorf("ear: %w", err)
	}
	after, _, err := wav.Read(heard)
	if err != nil {
		return 0, fmt.Errorf("ear: %w", err)
	}
	return Whole(before, after, rate, snr), nil
}

// is reports whether part is what is heard from at on, but for so much noise.
func is(part, heard []int16, at int, noise float64) bool {
	if at+len(part) > len(heard) {
		return false
	}
	for i, h := range heard[at : at+len(part)] {
		d := float64(h) - float64(part[i])
		if noise -= d * d; noise < 0 {
			return false
		}
	}
	return true
}

// Quantile is the q-quantile of d, 0 to 1; 0 for none.
func Quantile(d []time.Duration, q float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(d))
	return s[min(len(s)-1, int(q*float64(len(s))))]
}
