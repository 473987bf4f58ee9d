package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"voicebridge/bench"
	"voicebridge/bench/report"
)

// TestBench: the command measures this bridge and the yardsticks as processes, and
// writes its report; transfers among the load reach a human.
func TestBench(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("what a process uses is measured on Linux only")
	}
	binary, err := chaosBinary()
	if err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	run := func(args ...string) (string, error) {
		b, err := exec.Command(binary, append([]string{"bench", "--out", out}, args...)...).CombinedOutput()
		return string(b), err
	}
	var got struct {
		Measurements []bench.Measurement
		Summaries    []report.Summary
		Ratios       []report.Ratio
	}
	read := func() {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(out, "report.json"))
		if err == nil {
			err = json.Unmarshal(b, &got)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if said, err := run("--calls", "5", "--rounds", "1", "--duration", "1s", "--against",
		"relay,floor,portable"); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	read()
	if len(got.Measurements) != 4 || len(got.Summaries) != 4 || len(got.Ratios) != 5 {
		t.Fatalf("%d measurements, %d summaries, %d ratios", len(got.Measurements), len(got.Summaries),
			len(got.Ratios))
	}
	for _, m := range got.Measurements {
		if m.CPU == nil || *m.CPU <= 0 || m.MemoryKB == nil || m.Markers == 0 ||
			m.Dropped+m.Refused+m.Complaints != 0 ||
			m.DescriptorsLeft == nil || *m.DescriptorsLeft != 0 {
			t.Errorf("%+v", m)
		}
	}
	if html, err := os.ReadFile(filepath.Join(out, "report.html")); err != nil ||
		!strings.Contains(string(html), `"target":"floor"`) {
		t.Errorf("the page does not tell of the floor: %v", err)
	}

	if said, err := run("--calls", "5", "--rounds", "1", "--duration", "1s", "--against", "relay", "--at-most",
		"0.01"); err == nil || !strings.Contains(said, "more than 0.01") {
		t.Errorf("%v: %s", err, said)
	}

	plan := filepath.Join(out, "plan.yaml")
	text := "carriers: {twilio: 1, vonage: 1}\nagents: {echo: 2, talkative: 1, burst: 1, slow: 1}\ncalls: " +
		"[10]\ncall_length: 2s\nrounds: 1\nduration: 5s\ndigits_per_call_second: 1\ntransfers_per_minute: 40\n"
	if err := os.WriteFile(plan, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	said, err := run("--scenario", plan)
	if err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	read()
	m := got.Measurements[0]
	if m.Setup.Count < 10 || m.Digits == 0 || m.Dropped+m.Refused+m.Complaints != 0 {
		t.Errorf("%+v", m)
	}
	if tr := m.Transfers; tr == nil || tr.Begun < 1 || tr.Bridged != tr.Begun || tr.Talked != tr.Begun ||
		tr.Failed+tr.Faults != 0 || len(tr.TimesMS) != tr.Begun {
		t.Errorf("transfers: %+v", tr)
	}
}
