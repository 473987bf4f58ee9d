package ear

import (
	"math"
	"os"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"voicebridge/codec"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestMeasures: the measures find what was put in.
func TestMeasures(t *testing.T) {
	said, err := Speech(8000)
	if err != nil {
		t.Fatal(err)
	}
	heard := append(make([]int16, 357), said...)
	if lag := Align(said, heard, 1000); lag != 357 {
		t.Errorf("lag %d, want 357", lag)
	}
	if snr := SNR(said, heard, 357); snr != 120 {
		t.Errorf("equal: %.1f dB", snr)
	}
	if snr := SNR(said, heard, 358); snr > 20 {
		t.Errorf("off by a sample: %.1f dB", snr)
	}
	noisy := slices.Clone(said)
	for i := range noisy {
		noisy[i] += int16(10 * (1 - 2*(i&1)))
	}
	want := 10 * math.Log10(energy(said)/(100*float64(len(said))))
	if snr := SNR(said, noisy, 0); math.Abs(snr-want) > 0.1 {
		t.Errorf("with noise: %.1f dB, want %.1f", snr, want)
	}
	if snr := SNR(said, heard[:len(heard)/2], 357); snr > 6 {
		t.Errorf("half of it: %.1f dB", snr)
	}
	d := []time.Duration{5, 1, 4, 2, 3}
	if Quantile(d, 0.5) != 3 || Quantile(d, 0.99) != 5 || Quantile(nil, 0.5) != 0 {
		t.Error("quantiles are wrong")
	}
}

// TestWhole: what is said is found whatever comes between and is left out, but not where it is wrong.
func TestWhole(t *testing.T) {
	const rate = 8000
	said, err := Speech(rate)
	if err != nil {
		t.Fatal(err)
	}
	silence := make([]int16, rate/3)
	wrong := slices.Clone(said)
	for i := range wrong {
		wrong[i] += wrong[i] / 8
	}
	for name, tt := range map[string]struct {
		heard    []int16
		from, to float64
	}{
		"as it was":        {said, 1, 1},
		"late":             {slices.Concat(silence, said), 1, 1},
		"with holes":       {slices.Concat(said[:9000], silence, said[9000:17000], silence, said[17000:]), 0.9, 0.99},
		"less of it":       {slices.Concat(said[:9000], said[12000:]), 0.8, 0.99},
		"half of it":       {said[:len(said)/2], 0.3, 0.7},
		"every other part": {everyOther(said, rate/50), 0, 0.1},
		"too loud":         {wrong, 0, 0},
		"nothing":          {nil, 0, 0},
	} {
		if got := Whole(said, tt.heard, rate, 25); got < tt.from || got > tt.to {
			t.Errorf("%s: %.2f, want %.2f to %.2f", name, got, tt.from, tt.to)
		}
	}
}

// everyOther leaves out every other n samples.
func everyOther(pcm []int16, n int) (rest []int16) {
	for ; len(pcm) >= 2*n; pcm = pcm[2*n:] {
		rest = append(rest, pcm[:n]...)
	}
	return rest
}

// TestSpeech: the sample that is shipped is speech of some seconds.
func TestSpeech(t *testing.T) {
	for _, rate := range codec.Rates {
		s, err := Speech(rate)
		if err != nil {
			t.Fatal(err)
		}
		if len(s) < 5*rate || energy(s)/float64(len(s)) < 1e5 {
			t.Errorf("%d Hz: %d samples of power %.0f", rate, len(s), energy(s)/float64(len(s)))
		}
	}
	if _, err := os.Stat("speech.wav"); err != nil {
		t.Error(err)
	}
}

// TestMicrophone: there is always something to hear, and now and then speech.
func TestMicrophone(t *testing.T) {
	said, err := Speech(8000)
	if err != nil {
		t.Fatal(err)
	}
	s := Microphone(said, 8000, 20*time.Second)
	loud, quiet := 0, 0
	for at := 0; at < len(s); at += 160 {
		switch e := energy(s[at:at+160]) / 160; {
		case e == 0:
			t.Fatalf("digital silence at %d", at)
		case e > 1e5:
			loud++
		case e < 1e3:
			quiet++
		}
	}
	if len(s) != 160000 || loud < 300 || quiet < 100 {
		t.Errorf("%d samples, %d loud and %d quiet frames", len(s), loud, quiet)
	}
}
