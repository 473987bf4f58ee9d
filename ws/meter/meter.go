// Package meter tells how busy an event loop is, and how late it comes to what waits.
package meter

import (
	"math"
	"sync/atomic"
	"time"
)

// window is how long is looked at.
const window = 5 * time.Second

// Meter is that of one loop, which calls Begin and End; the rest may be called from anywhere. Times
// count from any moment. The zero value is ready.
type Meter struct {
	round   atomic.Int64  // when the round began that goes on; 0: none does
	longest atomic.Int64  // round of this window
	before  atomic.Int64  // that of the one before
	share   atomic.Uint64 // of the last window, as bits
	conns   atomic.Int64  // that it was for

	// Owned by the loop.
	since, busy time.Duration // of this window
}

// Begin tells that the loop has been woken.
func (m *Meter) Begin(now time.Duration) { m.round.Store(int64(max(now, 1))) }

// End tells that it has worked off what there was, of so many connections.
func (m *Meter) End(now time.Duration, conns int) {
	took := now - time.Duration(m.round.Swap(0))
	m.busy += took
	m.longest.Store(max(m.longest.Load(), int64(took)))
	if past := now - m.since; past >= window {
		m.share.Store(math.Float64bits(float64(m.busy) / float64(past)))
		m.conns.Store(int64(conns))
		m.before.Store(m.longest.Swap(0))
		m.since, m.busy = now, 0
	}
}

// Lag returns how late what came was, at most, of the last 5 to 10 seconds: the longest round, be
// it under way.
func (m *Meter) Lag(now time.Duration) time.Duration {
	lag := max(m.longest.Load(), m.before.Load())
	if began := m.round.Load(); began > 0 {
		lag = max(lag, int64(now)-began)
	}
	return time.Duration(lag)
}

// Stuck returns how long the round under way has lasted.
func (m *Meter) Stuck(now time.Duration) time.Duration {
	if began := m.round.Load(); began > 0 {
		return max(0, now-time.Duration(began))
	}
	return 0
}

// usual is what a connection costs where nothing has been measured yet, of one processor.
const usual = 1. / 4096

// Load returns how busy the loop is with so many connections, of 1: as it was, and as much more, or
// less, as it has got or lost since.
func (m *Meter) Load(conns int) float64 {
	share, had := math.Float64frombits(m.share.Load()), float64(m.conns.Load())
	each := usual
	if had >= 16 { // otherwise it is other things that cost
		each = share / had
	}
	return max(0, share+(float64(conns)-had)*each)
}
