package timing

import (
	"testing"
	"time"
)

const frame = 20 * time.Millisecond

// TestStalled: what comes late is told apart from what comes as ever, until late is how it is; and
// silence of a carrier that sends nothing then is no stall.
func TestStalled(t *testing.T) {
	var c Clock
	now := time.Duration(0)
	frames := func(n int, late time.Duration) (stalled int) {
		for range n {
			now += frame
			if c.Tick(now+late, frame); c.Stalled(now + late) {
				stalled++
			}
		}
		return stalled
	}
	if n := frames(100, 0); n != 0 {
		t.Errorf("%d of 100 frames in time are in a stall", n)
	}
	if n := frames(100, 300*time.Millisecond); n != 100 {
		t.Errorf("%d of 100 late frames are in a stall", n)
	}
	if n := frames(100, 10*time.Millisecond); n != 0 {
		t.Errorf("%d of 100 frames are in a stall, which are late by 10 ms", n)
	}
	frames(300, 300*time.Millisecond)
	if n := frames(100, 300*time.Millisecond); n != 0 {
		t.Errorf("%d of 100 frames are in a stall after 6 s of the same", n)
	}
	if now += 2 * time.Second; c.Stalled(now) {
		t.Error("silence is a stall")
	}
}
