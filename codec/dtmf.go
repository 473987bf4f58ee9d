package codec

import (
	"math"
	"strings"
	"time"
)

// The frequencies of DTMF in Hz, ITU-T Q.23: a digit is one of a row and one of
// a column.
var (
	dtmfRows    = [4]float64{697, 770, 852, 941}
	dtmfColumns = [4]float64{1209, 1336, 1477, 1633}
)

// dtmfKeys are the digits, row by row.
const dtmfKeys = "123A456B789C*0#D"

// Levels of the two tones. The high one is 2 dB above the low one, since lines
// weaken it more; together they peak 5 dB below full scale.
const (
	dtmfLow  = 8200
	dtmfHigh = 10300
)

// AppendDTMF appends digits as tones to b, in format f: each for tone, followed
// by silence for gap. The digits are 0-9 * # A-D; w is half a second of silence,
// W a whole one. Anything else is left out.
func AppendDTMF(b []byte, f Format, digits string, tone, gap time.Duration) []byte {
	samples := func(d time.Duration) int { return int(d * time.Duration(f.Rate) / time.Second) }
	ramp := samples(2 * time.Millisecond) // against clicks
	var pcm []int16
	for _, d := range digits {
		switch key := strings.IndexRune(dtmfKeys, d); {
		case d == 'w':
			pcm = append(pcm, make([]int16, samples(time.Second/2))...)
		case d == 'W':
			pcm = append(pcm, make([]int16, samples(time.Second))...)
		case key >= 0:
			low, high := 2*math.Pi*dtmfRows[key/4]/float64(f.Rate), 2*math.Pi*dtmfColumns[key%4]/float64(f.Rate)
			n := samples(tone)
			for i := range n {
				level := min(1, float64(min(i, n-1-i))/float64(ramp))
				pcm = append(pcm, int16(math.Round(level*(dtmfLow*math.Sin(low*float64(i))+
					dtmfHigh*math.Sin(high*float64(i))))))
			}
			pcm = append(pcm, make([]int16, samples(gap))...)
		}
	}
	return f.Encoding.AppendEncode(b, pcm)
}
