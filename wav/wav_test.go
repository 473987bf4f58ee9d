package wav

import (
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
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
}

// file is a WAV file: chunks behind the header.
func file(chunks ...string) []byte {
	return []byte("RIFF\x00\x00\x00\x00WAVE" + strings.Join(chunks, ""))
}

// chunk is one with a size as it is, or as it should be.
func chunk(name, body string, size ...uint32) string {
	n := uint32(len(body))
	if len(size) > 0 {
		n = size[0]
	}
	return name + string(binary.LittleEndian.AppendUint32(nil, n)) + body
}

func formatChunk(kind, channels uint16, rate uint32, bits uint16, more string) string {
	b := binary.LittleEndian.AppendUint16(binary.LittleEndian.AppendUint16(nil, kind), channels)
	b = binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(b, rate), 0)
	return chunk("fmt ", string(binary.LittleEndian.AppendUint16(binary.LittleEndian.AppendUint16(b, 0), bits))+more)
}

// TestFormats: what other programs write.
func TestFormats(t *testing.T) {
	pcm := formatChunk(1, 1, 8000, 16, "")
	float32s := string(binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil,
		math.Float32bits(0.5)), math.Float32bits(-7)))
	float64s := string(binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil,
		math.Float64bits(-0.5)), math.Float64bits(math.NaN())))
	rf64 := []byte("RF64\xff\xff\xff\xffWAVE" + chunk("ds64",
		strings.Repeat("\x00", 8)+"\x02\x00\x00\x00\x00\x00\x00\x00"+
			strings.Repeat("\x00", 12)) + pcm + chunk("data", "\x01\x00\x09\x09", math.MaxUint32))
	for name, tt := range map[string]struct {
		file []byte
		want []int16
	}{
		"16 bits": {file(pcm, chunk("data", "\x01\x00\xff\xff")), []int16{1, -1}},
		"8 bits": {file(formatChunk(1, 1, 8000, 8, ""), chunk("data", "\x80\x00\xff")),
			[]int16{0, -32768, 32512}},
		"24 bits": {file(formatChunk(1, 1, 8000, 24, ""), chunk("data", "\x99\x01\x80")), []int16{-32767}},
		"32 bits": {file(formatChunk(1, 1, 8000, 32, ""), chunk("data", "\x99\x99\x02\x00")), []int16{2}},
		"float":   {file(formatChunk(3, 1, 8000, 32, ""), chunk("data", float32s)), []int16{16384, -32767}},
		"double":  {file(formatChunk(3, 1, 8000, 64, ""), chunk("data", float64s)), []int16{-16384, 0}},
		"mu-law": {file(formatChunk(7, 1, 8000, 8, "\x00\x00"), chunk("data", "\xff\x00")),
			[]int16{0, -32124}},
		"A-law": {file(formatChunk(6, 1, 8000, 8, "\x00\x00"), chunk("data", "\xd5")), []int16{8}},
		"extensible": {file(formatChunk(0xfffe, 1, 8000, 16, "\x16\x00\x10\x00\x04\x00\x00\x00\x01\x00"),
			chunk("data", "\x05\x00")), []int16{5}},
		"stereo": {file(formatChunk(1, 2, 8000, 16, ""),
			chunk("data", "\x02\x00\x04\x00\xfe\xff\x00\x00")), []int16{3, -1}},
		"size 0":              {file(pcm, chunk("data", "\x01\x00\x02\x00", 0)), []int16{1, 2}},
		"size -1":             {file(pcm, chunk("data", "\x01\x00\x02\x00", math.MaxUint32)), []int16{1, 2}},
		"cut off":             {file(pcm, chunk("data", "\x01\x00\x02", 100)), []int16{1}},
		"empty":               {file(pcm, chunk("data", "")), nil},
		"LIST with its pad":   {file(pcm, chunk("LIST", "abc")+"\x00", chunk("data", "\x01\x00")), []int16{1}},
		"LIST without it":     {file(pcm, chunk("LIST", "abc"), chunk("data", "\x01\x00")), []int16{1}},
		"what follows":        {file(pcm, chunk("data", "\x01\x00"), chunk("LIST", "abcd")), []int16{1}},
		"RF64":                {rf64, []int16{1}},
		"LIST of no known id": {file(pcm, chunk("junk", "x\x00\x00"), "\x00"+chunk("data", "\x01\x00")), []int16{1}},
	} {
		got, rate, err := Parse(tt.file)
		if err != nil || rate != 8000 || !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v at %d Hz, %v", name, got, rate, err)
		}
	}
	for name, b := range map[string][]byte{"nothing": nil, "no WAV file": []byte("OggS0000WAVE"), "no data": file(pcm),
		"no format": file(chunk("data", "1234")), "no channels": file(formatChunk(1, 0, 8000, 16, "")),
		"rate": file(formatChunk(1, 1, 100, 16, "")), "ADPCM": file(formatChunk(2, 1, 8000, 4, "")),
		"short": file(chunk("fmt ", "12345678"))} {
		if _, _, err := Parse(b); err == nil {
			t.Errorf("%s was read", name)
		}
	}
	path := filepath.Join(t.TempDir(), "x.wav")
	if err := os.WriteFile(path, []byte("OggS0000WAVE"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Read(path); err == nil || !strings.Contains(err.Error(), path) ||
		!strings.Contains(err.Error(), "ffmpeg") {
		t.Errorf("%v: neither file nor command", err)
	}
}

// TestRates: a tone keeps its pitch, its length and its place at all rates.
func TestRates(t *testing.T) {
	for from, to := range map[int]int{8000: 8000, 11025: 16000, 16000: 16000, 22050: 24000, 32000: 48000, 44100: 48000,
		96000: 48000, 5512: 8000} {
		tone := func(rate int) []int16 {
			s := make([]int16, rate)
			for i := range s {
				s[i] = int16(10000 * math.Sin(2*math.Pi*440*float64(i)/float64(rate)))
			}
			return s
		}
		got, rate, err := Parse(Append(nil, tone(from), from))
		want := tone(to)
		if err != nil || rate != to || len(got) != len(want) {
			t.Errorf("%d Hz: %d samples at %d Hz, %v", from, len(got), rate, err)
			continue
		}
		worst := 0.0
		for i := to / 10; i < to*9/10; i++ {
			worst = max(worst, math.Abs(float64(got[i])-float64(want[i])))
		}
		if worst > 10000*2*math.Pi*440/float64(to) { // a sample
			t.Errorf("%d Hz: the tone is off by up to %.0f", from, worst)
		}
	}
}

// TestRatio: rates that have no factor in common take no filter for each of thousands of terms.
func TestRatio(t *testing.T) {
	for from, to := range map[int]int{44100: 48000, 22050: 24000, 8000: 16000, 191999: 48000, 4001: 8000, 47999: 48000} {
		in, out := ratio(from, to)
		if off := float64(out)/float64(in)/(float64(to)/float64(from)) - 1; math.Abs(off) > 1e-3 || in > mostTerm ||
			out > mostTerm {
			t.Errorf("%d to %d Hz: %d to %d, off by %g", from, to, in, out, off)
		}
	}
}

func FuzzWAV(f *testing.F) {
	f.Add(Append(nil, samples(78), 16000))
	f.Add([]byte("RIFF\x00\x00\x00\x00WAVEfmt " +
		"\x10\x00\x00\x00\x07\x00\x01\x00\x40\x1f\x00\x00\x00\x00\x00\x00\x01\x00\x08\x00data\x02\x00\x00\x00\xff\x7f"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, rate, err := Parse(b)
		if err == nil && (!slices.Contains(codec.Rates, rate) || len(s) > 7*len(b)+7*48000) {
			t.Fatalf("%d samples at %d Hz from %d bytes", len(s), rate, len(b))
		}
	})
}
