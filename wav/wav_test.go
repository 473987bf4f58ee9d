package wav

import (
	"path/filepath"
	"slices"
	"testing"

	"voicebridge/codec"
)

// samples returns n samples that are all different from their neighbours.
func samples(n int) []int16 {
	s := make([]int16, n)
	for i := range s {
		s[i] = int16(i * 7919)
	}
	return s
}

func TestWAV(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.wav")
	want := samples(1600)
	if err := Write(path, want, 16000); err != nil {
		t.Fatal(err)
	}
	got, rate, err := Read(path)
	if err != nil || rate != 16000 || !slices.Equal(got, want) {
		t.Errorf("%d samples at %d Hz, %v", len(got), rate, err)
	}
	if _, _, err := Read(path + "x"); err == nil {
		t.Error("a file that is not there was read")
	}
	stereo := []byte("RIFF\x00\x00\x00\x00WAVEfmt " +
		"\x10\x00\x00\x00\x01\x00\x02\x00\x40\x1f\x00\x00\x00\x00\x00\x00\x04\x00\x10\x00" +
		"LIST\x01\x00\x00\x00x\x00data\xff\xff\xff\xff\x02\x00\x04\x00\xfe\xff\x00\x00")
	if got, rate, err := Parse(stereo); err != nil || rate != 8000 || !slices.Equal(got, []int16{3, -1}) {
		t.Errorf("stereo with an odd chunk and an open length: %v, %d, %v", got, rate, err)
	}
	odd := slices.Clone(stereo)
	odd[25] = 0x10 // 4160 Hz
	for _, b := range [][]byte{nil, stereo[:20], stereo[:44], odd} {
		if _, _, err := Parse(b); err == nil {
			t.Errorf("%q was read", b)
		}
	}
}

func FuzzWAV(f *testing.F) {
	f.Add(Append(nil, samples(78), 16000))
	f.Add([]byte("RIFF\x00\x00\x00\x00WAVEfmt " +
		"\x10\x00\x00\x00\x07\x00\x01\x00\x40\x1f\x00\x00\x00\x00\x00\x00\x01\x00\x08\x00data\x02\x00\x00\x00\xff\x7f"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, rate, err := Parse(b)
		if err == nil && (!slices.Contains(codec.Rates, rate) || len(s) > len(b)) {
			t.Fatalf("%d samples at %d Hz from %d bytes", len(s), rate, len(b))
		}
	})
}
