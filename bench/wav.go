package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"

	"voicebridge/codec"
)

// maxWAV bounds the size of a file that is read: an hour at 48 kHz.
const maxWAV = 1 << 29

// convert is how any other file becomes one that can be read.
const convert = "convert it with: sox IN.wav -r 16000 -c 1 -b 16 -e signed OUT.wav"

// ReadWAV reads a file as mono samples. It takes 16-bit PCM, mu-law and A-law of
// any number of channels, which it mixes.
func ReadWAV(path string) (samples []int16, rate int, err error) {
	info, err := os.Stat(path)
	if err == nil && info.Size() > maxWAV {
		err = fmt.Errorf("larger than %d bytes", maxWAV)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("bench: wav: %w", err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, 0, fmt.Errorf("bench: wav: %w", err)
	}
	samples, rate, err = ParseWAV(b)
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", path, err)
	}
	return samples, rate, nil
}

// ParseWAV is ReadWAV for the content of a file.
func ParseWAV(b []byte) (samples []int16, rate int, err error) {
	if len(b) < 12 || string(b[:4]) != "RIFF" || string(b[8:12]) != "WAVE" {
		return nil, 0, errors.New("bench: wav: not a RIFF WAVE file")
	}
	encodings := map[[2]uint16]codec.Encoding{{1, 16}: codec.L16LE, {6, 8}: codec.PCMA, {7, 8}: codec.PCMU}
	var encoding codec.Encoding
	channels := 0
	for b = b[12:]; len(b) >= 8; {
		id, size := string(b[:4]), int(binary.LittleEndian.Uint32(b[4:8]))
		b = b[8:]
		body := b[:min(size, len(b))] // recorders that were cut off leave the size open
		switch id {
		case "fmt ":
			if len(body) < 16 {
				return nil, 0, errors.New("bench: wav: short fmt chunk")
			}
			kind, bits := binary.LittleEndian.Uint16(body), binary.LittleEndian.Uint16(body[14:])
			if kind == 0xFFFE && len(body) >= 26 { // extensible: the kind comes later
				kind = binary.LittleEndian.Uint16(body[24:])
			}
			encoding = encodings[[2]uint16{kind, bits}]
			channels, rate = int(binary.LittleEndian.Uint16(body[2:])), int(binary.LittleEndian.Uint32(body[4:]))
			if encoding == 0 || channels == 0 {
				return nil, 0, fmt.Errorf("bench: wav: format %d with %d bits and %d channels: %s", kind, bits, channels, convert)
			}
			if !slices.Contains(codec.Rates, rate) {
				return nil, 0, fmt.Errorf("bench: wav: %d Hz must be one of %v: %s", rate, codec.Rates, convert)
			}
		case "data":
			if channels == 0 {
				return nil, 0, errors.New("bench: wav: data before format")
			}
			return mix(encoding.AppendDecode(nil, body), channels), rate, nil
		}
		b = b[min(len(b), size+size&1):]
	}
	return nil, 0, errors.New("bench: wav: no data chunk")
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

// WriteWAV writes mono 16-bit PCM.
func WriteWAV(path string, samples []int16, rate int) error {
	n := uint32(2 * len(samples))
	b := []byte("RIFF")
	b = binary.LittleEndian.AppendUint32(b, 36+n)
	b = append(b, "WAVEfmt "...)
	b = binary.LittleEndian.AppendUint32(b, 16)
	b = append(b, 1, 0, 1, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(rate))
	b = binary.LittleEndian.AppendUint32(b, uint32(2*rate))
	b = append(b, 2, 0, 16, 0)
	b = append(b, "data"...)
	b = binary.LittleEndian.AppendUint32(b, n)
	b = codec.L16LE.AppendEncode(b, samples)
	if err := os.WriteFile(path, b, 0o644); err != nil {
		return fmt.Errorf("bench: wav: %w", err)
	}
	return nil
}
