package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"voicebridge/bench"
)

func TestBenchPlan(t *testing.T) {
	file := filepath.Join(t.TempDir(), "plan.yaml")
	for text, want := range map[string]string{
		"": "", // the defaults
		"carriers: {twilio: 2, vonage/24000: 1}\nagents: {echo: 1, slow: 0.5}\ncalls: [5]\ncall_length: " +
			"10s\nagainst: [portable]": "",
		"carriers: {nokia: 1}":        `carriers: "nokia" is not a carrier`,
		"carriers: {vonage/44100: 1}": "carriers: Vonage Voice API WebSocket has no audio at 44100 Hz",
		"carriers: {twilio: -1}":      "carriers.twilio: -1 must be a weight",
		"carriers: {twilio: 0}":       "at least one of each must have a weight",
		"agents: {ecko: 1}":           `agents: "ecko" must be one of`,
		"calls: [0]":                  "calls: 0 must be between 1 and 100000",
		"duration: 5ms":               "duration: 5ms must be between",
		"call_length: 5ms":            "call_length: 5ms must be at least 1s",
		"rounds: -1":                  "rounds: -1 must be between",
		"arrivals_per_second: .nan":   "arrivals_per_second: NaN must be more than 0",
		"digits_per_call_second: 11":  "digits_per_call_second: 11 must be between",
		"transfers_per_minute: -1":    "transfers_per_minute: -1 must be between",
		"against: [x]":                `against: "x" must be relay, floor or portable`,
		"agents: {burst: 1}\nagainst: [relay]": "against: relay passes the messages of one carrier to agents " +
			"that echo",
		"transfers_per_minute: 1\nagainst: [floor]": "against: floor has no transfers",
		"duraton: 5s": `unknown field "duraton"`,
		"calls: many": "calls",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := (&benchCmd{Scenario: file}).plan()
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	p, err := (&benchCmd{Carrier: "vonage", Rate: 16000, Calls: []int{7}, Agent: "burst", Duration: time.Second}).plan()
	if err != nil || p.lines[0].Of.Format.Rate != 16000 || p.Calls[0] != 7 || p.agents[0].Of != bench.BurstAgent ||
		time.Duration(p.Duration) != time.Second || p.Rounds != 3 {
		t.Errorf("%+v, %v", p, err)
	}
}

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
	var report struct {
		Measurements []bench.Measurement
		Summaries    []bench.Summary
		Ratios       []bench.Ratio
	}
	read := func() {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(out, "report.json"))
		if err == nil {
			err = json.Unmarshal(b, &report)
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
	if len(report.Measurements) != 4 || len(report.Summaries) != 4 || len(report.Ratios) != 5 {
		t.Fatalf("%d measurements, %d summaries, %d ratios", len(report.Measurements), len(report.Summaries),
			len(report.Ratios))
	}
	for _, m := range report.Measurements {
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
	m := report.Measurements[0]
	if m.Setup.Count < 10 || m.Digits == 0 || m.Dropped+m.Refused+m.Complaints != 0 {
		t.Errorf("%+v", m)
	}
	if tr := m.Transfers; tr == nil || tr.Begun < 1 || tr.Bridged != tr.Begun || tr.Talked != tr.Begun ||
		tr.Failed+tr.Faults != 0 || len(tr.TimesMS) != tr.Begun {
		t.Errorf("transfers: %+v", tr)
	}
}
