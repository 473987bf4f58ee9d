// Package codec turns the bytes that carriers and agents put on the wire into
// 16-bit mono PCM and back: G.711 mu-law and A-law (ITU-T G.711), L16 in either
// byte order (RFC 3551 section 4.5.11), and conversion between sample rates.
//
// It knows samples and bytes only: no packets, no carriers, no clock. It
// imports nothing but github.com/zaf/g711 and the standard library, and nothing in it
// allocates per frame.
package codec

import (
	"fmt"
	"time"
)

// FrameTime is the length of one frame of telephone audio (its ptime).
const FrameTime = 20 * time.Millisecond

// Encoding is how one sample is written as bytes.
type Encoding uint8

// The encodings that carriers and agents use.
const (
	PCMU  Encoding = iota + 1 // G.711 mu-law, one byte a sample
	PCMA                      // G.711 A-law, one byte a sample
	L16LE                     // signed 16-bit, little endian
	L16BE                     // signed 16-bit, big endian (the network order of RFC 3551)
)

// String returns the name as RFC 3551 writes it in lower case, with the byte
// order where there is one to tell: pcmu, pcma, l16, l16be.
func (e Encoding) String() string {
	switch e {
	case PCMU:
		return "pcmu"
	case PCMA:
		return "pcma"
	case L16LE:
		return "l16"
	case L16BE:
		return "l16be"
	}
	return fmt.Sprintf("encoding(%d)", uint8(e))
}

// SampleBytes is the size of one sample.
func (e Encoding) SampleBytes() int {
	if e == L16LE || e == L16BE {
		return 2
	}
	return 1
}

// AppendDecode appends the samples in src to dst. A last byte that is only half
// a sample is left out; see Transcoder for streams that may split a sample.
func (e Encoding) AppendDecode(dst []int16, src []byte) []int16 {
	switch e {
	case PCMU:
		for _, b := range src {
			dst = append(dst, muDecode[b])
		}
	case PCMA:
		for _, b := range src {
			dst = append(dst, aDecode[b])
		}
	case L16LE:
		for ; len(src) >= 2; src = src[2:] {
			dst = append(dst, int16(src[0])|int16(src[1])<<8)
		}
	case L16BE:
		for ; len(src) >= 2; src = src[2:] {
			dst = append(dst, int16(src[1])|int16(src[0])<<8)
		}
	}
	return dst
}

// AppendEncode appends the encoded form of src to dst.
func (e Encoding) AppendEncode(dst []byte, src []int16) []byte {
	switch e {
	case PCMU:
		for _, s := range src {
			dst = append(dst, muEncode[uint16(s)>>2])
		}
	case PCMA:
		for _, s := range src {
			dst = append(dst, aEncode[uint16(s)>>4])
		}
	case L16LE:
		for _, s := range src {
			dst = append(dst, byte(s), byte(s>>8))
		}
	case L16BE:
		for _, s := range src {
			dst = append(dst, byte(s>>8), byte(s))
		}
	}
	return dst
}

// AppendSilence appends n bytes that decode to silence: zero samples, or for
// A-law, which has no zero, the smallest positive one.
func (e Encoding) AppendSilence(dst []byte, n int) []byte {
	var b byte
	switch e {
	case PCMU:
		b = 0xFF
	case PCMA:
		b = 0xD5
	}
	for range n {
		dst = append(dst, b)
	}
	return dst
}

// Format is an encoding at a sample rate, always one channel.
type Format struct {
	Encoding Encoding
	Rate     int // samples a second
}

// Rates are the sample rates that Transcoder converts between.
var Rates = []int{8000, 16000, 24000, 48000}

// String returns the encoding and the rate: pcmu/8000.
func (f Format) String() string { return fmt.Sprintf("%s/%d", f.Encoding, f.Rate) }

// Valid reports whether f is a known encoding at one of Rates.
func (f Format) Valid() bool {
	if f.Encoding < PCMU || f.Encoding > L16BE {
		return false
	}
	for _, r := range Rates {
		if f.Rate == r {
			return true
		}
	}
	return false
}

// FrameSamples is the number of samples in one frame of 20 ms.
func (f Format) FrameSamples() int { return f.Rate / 50 }

// FrameBytes is the number of bytes in one frame of 20 ms.
func (f Format) FrameBytes() int { return f.FrameSamples() * f.Encoding.SampleBytes() }

// Duration is the playing time of n bytes.
func (f Format) Duration(n int) time.Duration {
	return time.Duration(n/f.Encoding.SampleBytes()) * time.Second / time.Duration(f.Rate)
}
