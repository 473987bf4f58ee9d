package timing

import (
	"slices"
	"time"
)

// lateTime is how long what a mark has told counts.
const lateTime = 15 * time.Second

// Lately is what was measured last, of which the least counts: a network and a carrier that stall
// make it more, nothing makes it less.
type Lately struct {
	at, took [8]time.Duration
	n        int // measured in all
}

// Any reports whether anything was measured.
func (l *Lately) Any() bool { return l.n > 0 }

// Add takes a measurement.
func (l *Lately) Add(now, took time.Duration) {
	l.at[l.n%len(l.at)], l.took[l.n%len(l.at)] = now, took
	l.n++
}

// Within returns the least and the most of those that count; it is false where none does.
func (l *Lately) Within(now time.Duration) (least, most time.Duration, ok bool) {
	for i := range min(l.n, len(l.at)) {
		switch took := l.took[i]; {
		case now-l.at[i] > lateTime:
		case !ok:
			least, most, ok = took, took, true
		default:
			least, most = min(least, took), max(most, took)
		}
	}
	return least, most, ok
}

// Apart returns the least of all that are kept, and over how long they were measured.
func (l *Lately) Apart() (least, apart time.Duration) {
	n := min(l.n, len(l.at))
	if n == 0 {
		return 0, 0
	}
	return slices.Min(l.took[:n]), slices.Max(l.at[:n]) - slices.Min(l.at[:n])
}

// Least is the least of those that count, or the last one.
func (l *Lately) Least(now time.Duration) time.Duration {
	if least, _, ok := l.Within(now); ok || l.n == 0 {
		return least
	}
	return l.took[(l.n-1)%len(l.took)]
}
