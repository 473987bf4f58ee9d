package bench

import (
	_ "embed"

	"voicebridge/codec"
)

// speech.wav was made with espeak-ng and sox (Debian packages):
//
//	espeak-ng -v en-us -s 155 -p 45 -w s.wav "Hello. I am calling about the train to Amsterdam. When does the next one leave? Thank you."
//	sox -D s.wav -b 16 -r 16000 speech.wav norm -6 pad 0.2 0.3
//
//go:embed speech.wav
var speech []byte

// Speech is a sentence of a caller's at the given rate.
func Speech(rate int) ([]int16, error) {
	s, from, err := ParseWAV(speech)
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
