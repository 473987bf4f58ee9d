package codec

import (
	"math"
	"testing"
	"time"
)

// goertzel is the power of one frequency.
func goertzel(s []int16, rate int, hz float64) float64 {
	var a, b float64
	k := 2 * math.Cos(2*math.Pi*hz/float64(rate))
	for _, x := range s {
		a, b = float64(x)+k*a-b, a
	}
	return (a*a + b*b - k*a*b) / float64(len(s)) / float64(len(s))
}

// TestDTMF: each digit has its two frequencies of Q.23 and hardly anything at the
// others, in every encoding and rate, within the limits of Q.24.
func TestDTMF(t *testing.T) {
	rows := map[byte]int{}
	for i := range len(dtmfKeys) {
		rows[dtmfKeys[i]] = i
	}
	for _, f := range []Format{{PCMU, 8000}, {PCMA, 8000}, {L16LE, 8000}, {L16LE, 16000}, {L16BE, 24000},
		{L16LE, 48000}} {
		for digit, key := range rows {
			b := AppendDTMF([]byte("kept"), f, string(digit), 100*time.Millisecond, 60*time.Millisecond)
			if string(b[:4]) != "kept" || f.Duration(len(b)-4) != 160*time.Millisecond {
				t.Fatalf("%v %c: %v long", f, digit, f.Duration(len(b)-4))
			}
			s := f.Encoding.AppendDecode(nil, b[4:])
			tone, gap := s[:f.Rate/10], s[f.Rate/10:]
			row, column := dtmfRows[key/4], dtmfColumns[key%4]
			low, high := goertzel(tone, f.Rate, row), goertzel(tone, f.Rate, column)
			if twist := 10 * math.Log10(high/low); twist < 1 || twist > 3 {
				t.Errorf("%v %c: the high tone is %.1f dB above the low one", f, digit, twist)
			}
			for _, hz := range append(dtmfRows[:], dtmfColumns[:]...) {
				if p := goertzel(tone, f.Rate, hz); hz != row && hz != column && 10*math.Log10(p/low) > -20 {
					t.Errorf("%v %c: %v Hz at %.1f dB", f, digit, hz, 10*math.Log10(p/low))
				}
			}
			for _, x := range gap {
				if x > 16 || x < -16 {
					t.Fatalf("%v %c: the gap is not silent", f, digit)
				}
			}
		}
	}
	f := Format{L16LE, 8000}
	if got := f.Duration(len(AppendDTMF(nil, f, "wW?", time.Second, time.Second))); got != 1500*time.Millisecond {
		t.Errorf("pauses: %v", got)
	}
}
