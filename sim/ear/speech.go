package ear

import (
	_ "embed"
	"math"
	"math/cmplx"
	"math/rand/v2"
	"time"

	"voicebridge/codec"
	"voicebridge/wav"
)

// speech.wav was made with espeak-ng and sox (Debian packages):
//
//	espeak-ng -v en-us -s 155 -p 45 -w s.wav "Hello. I am calling about the train to Amsterdam. When does the
//	next one leave? Thank you."
//	sox -D s.wav -b 16 -r 16000 speech.wav norm -6 pad 0.2 0.3
//
//go:embed speech.wav
var speech []byte

// Speech is a sentence of a caller's at the given rate.
func Speech(rate int) ([]int16, error) {
	s, from, err := wav.Parse(speech)
	if err != nil {
		return nil, err
	}
	return Resample(s, from, rate), nil
}

// Resample converts samples that are there in whole: without delay, and as long
// as before.
func Resample(s []int16, from, to int) []int16 {
	r := codec.NewResampler(from, to)
	if r == nil {
		return s
	}
	pad := make([]int16, from/50)
	out := r.Append(r.Append(nil, s), pad)[r.Delay():]
	return out[:len(s)*to/from]
}

// Microphone is what a telephone's microphone picks up over the given length:
// the speech again and again with pauses between, and under it the noise and hum
// of a room, so that no frame is digital silence. The same every time.
func Microphone(speech []int16, rate int, length time.Duration) []int16 {
	const (
		pause = 1200 * time.Millisecond
		noise = 30 // peak: -61 dBFS
		hum   = 10
	)
	rng := rand.New(rand.NewPCG(1, 2))
	period := len(speech) + int(pause*time.Duration(rate)/time.Second)
	out := make([]int16, int(length*time.Duration(rate)/time.Second))
	for i := range out {
		v := float64(rng.IntN(2*noise+1)-noise) + hum*math.Sin(2*math.Pi*50*float64(i)/float64(rate))
		if at := i % period; at < len(speech) {
			v += float64(speech[at])
		}
		out[i] = int16(max(-32768, min(32767, v)))
	}
	return out
}

// Sine is a tone at a third of full scale.
//
//go:norace
func Sine(rate int, hz float64, length time.Duration) []int16 {
	s := make([]int16, int(length*time.Duration(rate)/time.Second))
	turn, at := cmplx.Rect(1, 2*math.Pi*hz/float64(rate)), complex(10000, 0)
	for i := range s {
		s[i] = int16(math.RoundToEven(imag(at)))
		at *= turn
	}
	return s
}
