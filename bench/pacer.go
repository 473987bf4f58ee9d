package bench

import (
	"runtime"
	"sync"
	"time"
	"voicebridge/bench/process"
)

const (
	slots    = 200 // of a frame's time: 0.1 ms each
	slotTime = 20 * time.Millisecond / slots
)

// pacer ticks every 20 ms for each of many calls, each in its slot, by an absolute
// clock: a late tick does not move the next one, and no tick is left out.
type pacer struct {
	begun time.Time
	late  func(time.Duration) // is told how late each tick is

	mu    sync.Mutex
	slots [slots][]ticker
	next  int
	stop  chan struct{}
	done  chan struct{}
}

// ticker is what a pacer ticks for. It is false once that is not wanted any more.
type ticker interface {
	tick(now time.Duration) bool
}

func newPacer(begun time.Time, late func(time.Duration)) *pacer {
	p := &pacer{begun: begun, late: late, stop: make(chan struct{}), done: make(chan struct{})}
	go p.run()
	return p
}

// add begins to tick for t.
func (p *pacer) add(t ticker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	// The golden ratio spreads them evenly, however many there are.
	slot := int(float64(p.next)*0.6180339887*slots) % slots
	p.next++
	p.slots[slot] = append(p.slots[slot], t)
}

func (p *pacer) run() {
	defer close(p.done)
	var due []ticker
	var yielded time.Duration
	for n := int(time.Since(p.begun)/slotTime) + 1; ; n++ {
		p.mu.Lock()
		due = append(due[:0], p.slots[n%slots]...)
		p.mu.Unlock()
		if len(due) == 0 && n%slots != 0 {
			continue
		}
		at := time.Duration(n) * slotTime
		process.Pause(at - time.Since(p.begun))
		if now := time.Since(p.begun); now-yielded > 5*time.Millisecond { // see ws.Loop
			yielded = now
			runtime.Gosched()
		}
		select {
		case <-p.stop:
			return
		default:
		}
		gone := false
		for i, t := range due {
			now := time.Since(p.begun)
			p.late(now - at)
			if !t.tick(now) {
				due[i], gone = nil, true
			}
		}
		if gone {
			p.drop(n%slots, due)
		}
	}
}

// drop takes out of a slot what due has no more; what was added meanwhile stays.
func (p *pacer) drop(slot int, due []ticker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	kept := p.slots[slot][:0:0]
	for i, t := range p.slots[slot] {
		if i >= len(due) || due[i] != nil {
			kept = append(kept, t)
		}
	}
	p.slots[slot] = kept
}

func (p *pacer) close() {
	close(p.stop)
	<-p.done
}
