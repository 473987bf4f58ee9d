// Package timing is what can be told of a carrier's time by what comes from it: its clock, its
// stalls, and how late its marks are.
package timing

import (
	"math"
	"time"
)

// Clock is the carrier's, as its own audio tells of it: a carrier takes what it plays at the pace
// at which it sends.
type Clock struct {
	came   time.Duration             // audio that has come
	since  time.Duration             // when the last look began
	last   time.Duration             // when audio came last
	late   time.Duration             // by which that was late
	least  time.Duration             // by which audio was late in it, at least
	before [stallLooks]time.Duration // in those before, the last one at looks-1
	looks  int
	behind time.Duration
}

const (
	// LookTime is how long the clock is watched before it is compared with how it was.
	LookTime = time.Second
	// jumpMost is how much a clock may seem to run away in a LookTime: more is a pause, a loss,
	// or a network that has changed.
	jumpMost = 5 * time.Millisecond
)

// Tick takes note of audio that has come.
func (c *Clock) Tick(now, length time.Duration) {
	c.came += length
	if c.looks == 0 && c.since == 0 {
		c.since, c.least = now, math.MaxInt64
	}
	c.last, c.late = now, now-c.came
	c.least = min(c.least, c.late)
	if now < c.since+LookTime {
		return
	}
	if d := c.least - c.before[(c.looks+stallLooks-1)%stallLooks]; c.looks > 0 && d.Abs() < jumpMost {
		c.behind += d
	}
	c.before[c.looks%stallLooks] = c.least
	c.since, c.least = now, math.MaxInt64
	c.looks++
}

const (
	// stallLeast is by how much more than before audio must be late for a stall.
	stallLeast = 20 * time.Millisecond
	// stallLooks is how many looks are remembered: what lasts longer is how it is now.
	stallLooks = 5
	// stallFresh is how old the last audio may be to tell of one: a carrier may send nothing in silence.
	stallFresh = 100 * time.Millisecond
)

// Stalled reports whether what the carrier sends is later at this moment than it was before: what
// else comes now is late by as much.
func (c *Clock) Stalled(now time.Duration) bool {
	usual := c.least
	for _, least := range c.before[:min(c.looks, stallLooks)] {
		usual = min(usual, least)
	}
	return c.came > 0 && now-c.last < stallFresh && c.late-usual > stallLeast
}

// Behind is how much longer the carrier's time has taken than ours since the call began, of what
// could be told: it grows where the carrier's clock is slow.
func (c *Clock) Behind() time.Duration { return c.behind }
