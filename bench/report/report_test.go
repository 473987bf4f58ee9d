package report

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"voicebridge/bench"
)

// sample is a report of two bridges and three numbers of calls.
func sample() *Report {
	r := New("Twilio <Media> & \"Streams\" </script>")
	r.Capacity = "150 calls"
	for round := 1; round <= 3; round++ {
		for _, calls := range []int{200, 50, 100} {
			for i, name := range []string{"voicebridge", "relay"} {
				v := float64(i + 1)
				m := &bench.Measurement{Target: name, Calls: calls, Round: round, Seconds: 10,
					CPU:      new(v * float64(round)),
					MemoryKB: new(50 * v),
					Delay: bench.Quantiles{Count: 1000, P50: 5 * v, P90: 6 * v, P99: 7 * v, P999: 8 * v,
						Max: 9 * v},
					Trustworthy: round > 1,
					Gaps:        uint64(i),
					DelayBars:   []bench.Bar{{FromMS: 4, ToMS: 5, Count: 10}, {FromMS: 5, ToMS: 6, Count: 900}},
					Timeline:    []bench.Second{{DelayMS: 5}, {Gaps: i, DelayMS: 7}, {DelayMS: 5}}}
				r.Add(m)
			}
		}
	}
	return r
}

func TestReport(t *testing.T) {
	r := sample()
	s := r.Summaries()
	if len(s) != 6 || s[0].Calls != 50 || s[5].Calls != 200 {
		t.Fatalf("%+v", s)
	}
	if want := (Spread{3, 2, 1, 3}); s[0].Target != "voicebridge" || s[0].CPU != want || s[1].Gaps != 3 {
		t.Errorf("%+v", s[:2])
	}
	ratios := r.Ratios()
	if len(ratios) != 3 || ratios[0].Calls != 50 || ratios[0].Spread != (Spread{3, 0.5, 0.5, 0.5}) ||
		ratios[0].To != "relay" {
		t.Errorf("%+v", ratios)
	}
	if n := r.Untrustworthy(); n != 6 {
		t.Errorf("%d are not to be trusted, want 6", n)
	}
	var b bytes.Buffer
	if err := r.JSON(&b); err != nil {
		t.Fatal(err)
	}
	var back struct {
		Measurements []bench.Measurement
		Summaries    []Summary
	}
	if err := json.Unmarshal(b.Bytes(), &back); err != nil || len(back.Measurements) != 18 ||
		back.Summaries[0].CPU.Median != 2 {
		t.Errorf("%v: %+v", err, back.Summaries)
	}
}

// TestReportInBrowser: a browser draws the page, pictures and tables.
func TestReportInBrowser(t *testing.T) {
	program, err := exec.LookPath("chromium")
	if err != nil {
		if os.Getenv("VOICEBRIDGE_E2E") != "" {
			t.Fatal(err)
		}
		t.Skipf("%v ('make test' installs it)", err)
	}
	page := filepath.Join(t.TempDir(), "report.html")
	f, err := os.Create(page)
	if err != nil {
		t.Fatal(err)
	}
	if err := sample().HTML(f); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd := exec.Command(program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--enable-logging=stderr", "--user-data-dir="+t.TempDir(),
		"--virtual-time-budget=3000", "--dump-dom", "file://"+page)
	cmd.Stderr = &stderr
	dom, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	if strings.Contains(stderr.String(), "CONSOLE") {
		t.Errorf("the page complains: %s", stderr.String())
	}
	text := string(dom)
	for what, want := range map[string]int{"<svg": 5, "<polyline": 9, "<option": 18, "NOT TRUSTWORTHY": 6 + 1,
		"<table>": 3} {
		if n := strings.Count(text, what); n != want {
			t.Errorf("%d of %q, want %d", n, what, want)
		}
	}
	for _, bad := range []string{"NaN", "undefined", "Infinity"} {
		if body := text[strings.Index(text, "<main>"):strings.Index(text, "<script>")]; strings.Contains(body, bad) {
			t.Errorf("the page shows %s", bad)
		}
	}
}
