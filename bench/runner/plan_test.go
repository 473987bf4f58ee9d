package runner

import (
	"os"
	"path/filepath"
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
		_, err := (&Command{Scenario: file}).plan()
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	p, err := (&Command{Carrier: "vonage", Rate: 16000, Calls: []int{7}, Agent: "burst", Duration: time.Second}).plan()
	if err != nil || p.lines[0].Of.Format.Rate != 16000 || p.Calls[0] != 7 || p.agents[0].Of != bench.BurstAgent ||
		time.Duration(p.Duration) != time.Second || p.Rounds != 3 {
		t.Errorf("%+v, %v", p, err)
	}
}
