//go:build race

package bridge_test

import "testing"

// alike skips what is run for all carriers without the race detector, and costs ten times as much
// with it: two of them, of different kinds, show the same races.
func alike(t *testing.T, carrier string) {
	t.Helper()
	if carrier != "twilio" && carrier != "asterisk" {
		t.Skip("without the race detector")
	}
}

// some is a fifth of what is run without the race detector.
func some(n int) int { return n / 5 }
