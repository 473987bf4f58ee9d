package bench

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"voicebridge/bench/markers"
	"voicebridge/ws"
)

// books are what a load has measured since it was last reset. Its methods may be
// called from anywhere.
type books struct {
	mu     sync.Mutex
	from   time.Duration // when the measuring began
	tally  tally
	hists  [kinds]*hdrhistogram.Histogram
	second []Second
	errs   []string
}

// tally are the counts of a measurement.
type tally struct {
	FramesBack  uint64 // audio messages that the bridge sent
	Markers     uint64 // markers that came back
	MarkersLost uint64 // that did not
	LostMS      int64  // audio missing between markers
	ExtraMS     int64  // audio that is too much between markers
	Gaps        uint64 // holes that callers heard
	GapMS       int64
	Unsent      uint64 // frames that the bridge did not take in time
	Digits      uint64
	Clears      uint64
	Dropped     uint64 // calls that the bridge ended
	Refused     uint64 // calls that it did not take
	Complaints  uint64 // messages that the carrier would refuse
}

// The histograms of books, in microseconds.
const (
	delays  = iota // added
	jitters        // of pacing
	clears         // from the agent's to the carrier's
	setups         // of calls
	lates          // of the generator itself
	kinds
)

// Second is what happened in a second of a measurement.
type Second struct {
	Gaps    int     `json:"gaps"`
	DelayMS float64 `json:"delay_ms"` // the longest
}

func histogram() *hdrhistogram.Histogram { return hdrhistogram.New(1, 60_000_000, 3) }

func (b *books) reset(now time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.from, b.tally, b.second = now, tally{Refused: b.tally.Refused}, nil
	for kind := range b.hists {
		if kind != setups || b.hists[kind] == nil { // the calls that are measured were set up before
			b.hists[kind] = histogram()
		}
	}
}

// fresh forgets everything.
func (b *books) fresh(now time.Duration) {
	b.mu.Lock()
	b.hists[setups], b.tally.Refused, b.errs = nil, 0, nil
	b.mu.Unlock()
	b.reset(now)
}

// record adds a duration to one of the histograms. b.mu is held.
func (b *books) record(kind int, d time.Duration) {
	h := b.hists[kind]
	_ = h.RecordValue(min(max(int64(d/time.Microsecond), 1), h.HighestTrackableValue()))
}

// took adds a duration to one of the histograms.
func (b *books) took(kind int, d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.record(kind, d)
}

// at is the second of a time. b.mu is held.
func (b *books) at(now time.Duration) *Second {
	n := max(0, int((now-b.from)/time.Second))
	for len(b.second) <= n {
		b.second = append(b.second, Second{})
	}
	return &b.second[n]
}

func (b *books) count(f func(*tally)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f(&b.tally)
}

func (b *books) cleared(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tally.Clears++
	b.record(clears, d)
}

func (b *books) gap(now, length time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tally.Gaps++
	b.tally.GapMS += length.Milliseconds()
	b.at(now).Gaps++
}

func (b *books) marker(now time.Duration, f markers.Found) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tally.Markers++
	b.tally.MarkersLost += uint64(f.Lost)
	switch ms := f.Extra.Milliseconds(); { // resampling moves them by a sample or two
	case ms >= 2:
		b.tally.ExtraMS += ms
	case ms <= -2:
		b.tally.LostMS -= ms
	}
	b.record(delays, f.Delay)
	s := b.at(now)
	s.DelayMS = max(s.DelayMS, float64(f.Delay)/1e6)
}

// lost notes that the bridge has ended a call.
func (b *books) lost(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tally.Dropped++
	b.say(fmt.Sprintf("a call was ended: %v (close code %d)", err, ws.CloseCode(err)))
}

// refused notes that the bridge has not taken a call.
func (b *books) refused(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tally.Refused++
	b.say(fmt.Sprintf("a call was not taken: %v", err))
}

// complain notes a message that makes no sense.
func (b *books) complain(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tally.Complaints++
	b.say(fmt.Sprintf("a message makes no sense: %v", err))
}

// say keeps the first few errors. b.mu is held.
func (b *books) say(what string) {
	if len(b.errs) < 5 && !slices.Contains(b.errs, what) {
		b.errs = append(b.errs, what)
	}
}
