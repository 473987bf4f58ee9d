//go:build !race

package bridge_test

import "testing"

// alike skips nothing without the race detector.
func alike(*testing.T, string) {}

// some is as many as there are.
func some(n int) int { return n }
