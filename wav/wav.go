// Package wav reads and writes WAV files: mono 16-bit samples on our side, whatever of
// the usual encodings and channels on the file's (RIFF, "Multimedia Programming
// Interface and Data Specifications 1.0").
package wav

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"

	"voicebridge/codec"
)

// maxSize bounds the size of a file that is read: an hour at 48 kHz.
const maxSize = 1 << 29

// convert is how any other file becomes one that can be read.
const convert = "convert it with: sox IN.wav -r 16000 -c 1 -b 16 -e signed OUT.wav"

// Read reads a file as mono samples. It takes 16-bit PCM, mu-law and A-law of
// any number of channels, which it mixes.
func Read(path string) (samples []int16, rate int, err error) {
	info, err := os.Stat(path)
	if err == nil && info.Size() > maxSize {
		err = fmt.Errorf("larger than %d bytes", maxSize)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("wav: %w", err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, 0, fmt.Errorf("wav: %w", err)
	}
	samples, rate, err = Parse(b)
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", path, err)
	}
	return samples, rate, nil
}

// Parse is Read for the content of a file.
func Parse(b []byte) (samples []int16, rate int, err error) {
	if len(b) < 12 || string(b[:4]) != "RIFF" || string(b[8:12]) != "WAVE" {
		return nil, 0, errors.New("wav: not a RIFF WAVE file")
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
				return nil, 0, errors.New("wav: short fmt chunk")
			}
			kind, bits := binary.LittleEndian.Uint16(body), binary.LittleEndian.Uint16(body[14:])
			if kind == 0xFFFE && len(body) >= 26 { // extensible: the kind comes later
				kind = binary.LittleEndian.Uint16(body[24:])
			}
			encoding = encodings[[2]uint16{kind, bits}]
			channels, rate = int(binary.LittleEndian.Uint16(body[2:])), int(binary.LittleEndian.Uint32(body[4:]))
			if encoding == 0 || channels == 0 {
				return nil, 0, fmt.Errorf("wav: format %d with %d bits and %d channels: %s", kind, bits, channels,
					convert)
			}
			if !slices.Contains(codec.Rates, rate) {
				return nil, 0, fmt.Errorf("wav: %d Hz must be one of %v: %s", rate, codec.Rates, convert)
			}
		case "data":
			if channels == 0 {
				return nil, 0, errors.New("wav: data before format")
			}
			return mix(encoding.AppendDecode(nil, body), channels), rate, nil
		}
		b = b[min(len(b), size+size&1):]
	}
	return nil, 0, errors.New("wav: no data chunk")
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

// Append appends a file with mono 16-bit PCM to dst.
func Append(dst []byte, samples []int16, rate int) []byte {
	n := uint32(2 * len(samples))
	dst = append(dst, "RIFF"...)
	dst = binary.LittleEndian.AppendUint32(dst, 36+n)
	dst = append(dst, "WAVEfmt "...)
	dst = binary.LittleEndian.AppendUint32(dst, 16)
	dst = append(dst, 1, 0, 1, 0) // PCM, one channel
	dst = binary.LittleEndian.AppendUint32(dst, uint32(rate))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(2*rate))
	dst = append(dst, 2, 0, 16, 0)
	dst = append(dst, "data"...)
	dst = binary.LittleEndian.AppendUint32(dst, n)
	return codec.L16LE.AppendEncode(dst, samples)
}

// Write writes a file with mono 16-bit PCM.
func Write(path string, samples []int16, rate int) error {
	if err := os.WriteFile(path, Append(nil, samples, rate), 0o644); err != nil {
		return fmt.Errorf("wav: %w", err)
	}
	return nil
}
