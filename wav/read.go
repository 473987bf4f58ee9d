package wav

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"

	"voicebridge/codec"
)

// maxSize bounds the size of a file that is read: an hour at 48 kHz.
const maxSize = 1 << 29

// The rates of files in Hz.
const (
	minRate = 4000
	maxRate = 192000
)

// Read reads a file as mono samples at one of codec.Rates. It takes PCM with 8, 16, 24 or 32
// bits, floating point with 32 or 64, mu-law and A-law, at any rate and with any number of
// channels, which it mixes. Errors name the file and, where there is one, a command that
// makes it one that can be read.
func Read(path string) (samples []int16, rate int, err error) {
	info, err := os.Stat(path)
	if err == nil && info.Size() > maxSize {
		err = fmt.Errorf("%s: larger than %d bytes", path, maxSize)
	}
	if err != nil {
		return nil, 0, err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, 0, err
	}
	samples, rate, err = Parse(b)
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w; convert it with: ffmpeg -i %q -ar 16000 -ac 1 -c:a pcm_s16le converted.wav",
			path, err, path)
	}
	return samples, rate, nil
}

// format is what a fmt chunk says.
type format struct {
	kind, bits     uint16
	channels, rate int
}

// The kinds of formats.
const (
	kindPCM        = 1
	kindFloat      = 3
	kindALaw       = 6
	kindMuLaw      = 7
	kindExtensible = 0xfffe // the kind comes later
)

// Parse is Read for the content of a file.
func Parse(b []byte) (samples []int16, rate int, err error) {
	if len(b) < 12 || string(b[:4]) != "RIFF" && string(b[:4]) != "RF64" || string(b[8:12]) != "WAVE" {
		return nil, 0, errors.New("not a WAV file")
	}
	var f format
	open := uint64(math.MaxUint32) // the size of data that says nothing
	for b = b[12:]; len(b) >= 8; {
		id, size := string(b[:4]), binary.LittleEndian.Uint32(b[4:8])
		b = b[8:]
		body := b[:min(uint64(size), uint64(len(b)))] // recorders that were cut off leave it short
		switch id {
		case "ds64":
			if len(body) >= 16 {
				open = binary.LittleEndian.Uint64(body[8:])
			}
		case "fmt ":
			if f, err = readFormat(body); err != nil {
				return nil, 0, err
			}
		case "data":
			if f.channels == 0 {
				return nil, 0, errors.New("data before its format")
			}
			if size == 0 || size == math.MaxUint32 { // the recorder did not know, or did not come back
				body = b[:min(open, uint64(len(b)))]
			}
			samples, rate = known(mix(f.decode(body), f.channels), f.rate)
			return samples, rate, nil
		}
		b = after(b, uint64(size))
	}
	return nil, 0, errors.New("no data in it")
}

// after is what follows a chunk: those of odd sizes are padded, but by some programs.
func after(b []byte, size uint64) []byte {
	if size >= uint64(len(b)) {
		return nil
	}
	b = b[size:]
	if size%2 == 0 || chunkName(b) && b[0] != 0 {
		return b
	}
	return b[1:]
}

// chunkName reports whether the name of a chunk that matters is next.
func chunkName(b []byte) bool {
	return len(b) >= 4 && slices.Contains([]string{"data", "fmt ", "LIST", "fact", "bext", "cue ", "id3 "},
		string(b[:4]))
}

// readFormat reads a fmt chunk, and checks that such data can be read.
func readFormat(b []byte) (f format, err error) {
	if len(b) < 16 {
		return f, errors.New("its format is cut off")
	}
	u16 := binary.LittleEndian.Uint16
	f = format{kind: u16(b), bits: u16(b[14:]), channels: int(u16(b[2:])), rate: int(binary.LittleEndian.Uint32(b[4:]))}
	if f.kind == kindExtensible && len(b) >= 26 {
		f.kind = u16(b[24:])
	}
	switch {
	case f.decoder() == nil:
		return format{}, fmt.Errorf("format %d with %d bits is not known", f.kind, f.bits)
	case f.channels == 0:
		return format{}, errors.New("no channels in it")
	case f.rate < minRate || f.rate > maxRate:
		return format{}, fmt.Errorf("%d Hz is none of %d to %d", f.rate, minRate, maxRate)
	}
	return f, nil
}

// decoder returns what reads a sample; nil: nothing does.
func (f format) decoder() func(b []byte) int16 {
	switch [2]uint16{f.kind, f.bits} {
	case [2]uint16{kindPCM, 8}: // from 0 to 255
		return func(b []byte) int16 { return int16(b[0]^0x80) << 8 }
	case [2]uint16{kindPCM, 16}, [2]uint16{kindPCM, 24}, [2]uint16{kindPCM, 32}: // the upper bits
		return func(b []byte) int16 { return int16(binary.LittleEndian.Uint16(b[len(b)-2:])) }
	case [2]uint16{kindFloat, 32}:
		return func(b []byte) int16 { return ofFloat(float64(math.Float32frombits(binary.LittleEndian.Uint32(b)))) }
	case [2]uint16{kindFloat, 64}:
		return func(b []byte) int16 { return ofFloat(math.Float64frombits(binary.LittleEndian.Uint64(b))) }
	case [2]uint16{kindALaw, 8}:
		return func(b []byte) int16 { return codec.PCMA.AppendDecode(nil, b)[0] }
	case [2]uint16{kindMuLaw, 8}:
		return func(b []byte) int16 { return codec.PCMU.AppendDecode(nil, b)[0] }
	}
	return nil
}

// ofFloat is a sample that is 1 at full scale.
func ofFloat(v float64) int16 {
	if math.IsNaN(v) {
		return 0
	}
	return int16(math.Round(32767 * min(1, max(-1, v))))
}

// decode reads samples of all channels.
func (f format) decode(b []byte) []int16 {
	read, size := f.decoder(), int(f.bits/8)
	s := make([]int16, 0, len(b)/size)
	for ; len(b) >= size; b = b[size:] {
		s = append(s, read(b[:size]))
	}
	return s
}

func mix(s []int16, channels int) []int16 {
	if channels == 1 {
		return s
	}
	out := s[:0]
	for ; len(s) >= channels; s = s[channels:] {
		sum := 0
		for _, v := range s[:channels] {
			sum += int(v)
		}
		out = append(out, int16(sum/channels))
	}
	return out
}

// known resamples what has none of codec.Rates to the next higher of them.
func known(s []int16, rate int) ([]int16, int) {
	i, _ := slices.BinarySearch(codec.Rates, rate)
	to := codec.Rates[min(i, len(codec.Rates)-1)]
	if to == rate {
		return s, rate
	}
	from, into := ratio(rate, to)
	if from == into { // as good as the same
		return s, to
	}
	r := codec.NewResampler(from, into)
	n := len(s) * to / rate
	out := r.Append(nil, append(s, make([]int16, rate)...)) // what it holds back comes with the silence
	return out[min(r.Delay(), len(out)):min(r.Delay()+n, len(out))], to
}

// mostTerm bounds the terms of a ratio of rates: a resampler has a filter for each.
const mostTerm = 1000

// ratio is that of two rates in small terms: exact for all usual ones, within a thousandth for
// others, which is less than two cents of a semitone (by continued fractions).
func ratio(from, to int) (in, out int) {
	a, b := from, to
	n0, d0, n1, d1 := 0, 1, 1, 0
	for b != 0 {
		q := a / b
		n, d := q*n1+n0, q*d1+d0
		if n > mostTerm || d > mostTerm {
			break
		}
		n0, d0, n1, d1 = n1, d1, n, d
		a, b = b, a-q*b
	}
	return n1, d1
}
