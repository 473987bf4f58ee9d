package audio

import (
	"math"
	"time"
)

// clock is the carrier's, as its own audio tells of it: a carrier takes what it plays at the pace
// at which it sends.
type clock struct {
	came   time.Duration // audio that has come
	since  time.Duration // when the last look began
	least  time.Duration // by which audio was late in it, at least
	before time.Duration // in the one before
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
	c.least = min(c.least, now-c.came)
	if now < c.since+lookTime {
		return
	}
	if d := c.least - c.before; c.looks > 0 && d.Abs() < jumpMost {
		c.behind += d
	}
	c.before, c.since, c.least = c.least, now, math.MaxInt64
	c.looks++
}

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
