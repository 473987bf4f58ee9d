// Package wav reads and writes WAV files: mono 16-bit samples on our side, whatever recorders
// write on the file's (RIFF, "Multimedia Programming Interface and Data Specifications 1.0";
// RF64, EBU Tech 3306).
package wav

import (
	"encoding/binary"
	"os"

	"voicebridge/codec"
)

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
		return err
	}
	return nil
}
