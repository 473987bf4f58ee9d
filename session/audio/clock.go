package audio

import (
	"math"
	"time"
)

// clock is the carrier's, as its own audio tells of it: a carrier takes what it plays at the pace
// at which it sends.
type clock struct {
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
	lookTime = time.Second
	// jumpMost is how much a clock may seem to run away in a lookTime: more is a pause, a loss,
	// or a network that has changed.
	jumpMost = 5 * time.Millisecond
)

// tick takes note of audio that has come.
func (c *clock) tick(now, length time.Duration) {
	c.came += length
	if c.looks == 0 && c.since == 0 {
		c.since, c.least = now, math.MaxInt64
	}
	c.last, c.late = now, now-c.came
	c.least = min(c.least, c.late)
	if now < c.since+lookTime {
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

// stalled reports whether what the carrier sends is later at this moment than it was before: what
// else comes now is late by as much.
func (c *clock) stalled(now time.Duration) bool {
	usual := c.least
	for _, least := range c.before[:min(c.looks, stallLooks)] {
		usual = min(usual, least)
	}
	return c.came > 0 && now-c.last < stallFresh && c.late-usual > stallLeast
}

// Stalled reports whether what the carrier sends is later at this moment than it was before.
func (in *Inbound) Stalled(now time.Duration) bool { return in.clock.stalled(now) }

// Behind is how much longer the carrier's time has taken than ours since the call began, of what
// could be told: it grows where the carrier's clock is slow.
func (in *Inbound) Behind() time.Duration { return in.clock.behind }

// Follow keeps the schedule on the carrier's clock, which is so much behind ours.
func (s *schedule) Follow(behind time.Duration) {
	if s.run {
		s.t0 += behind - s.followed
	}
	s.followed = behind
}
