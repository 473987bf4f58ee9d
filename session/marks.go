package session

// What the agent queues in line with its audio: marks and the hang-up.

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	maxMarks = 256
	// markLate is how long after its time a mark is waited for.
	markLate = 2 * time.Second
	// maxLag bounds how much the carrier is taken to be late.
	maxLag = 300 * time.Millisecond
)

// item is something queued in line with the audio.
type item struct {
	at       int64
	name     string // of a mark
	end      *End   // of a hang-up, otherwise nil
	digits   string // of digits to be sent
	transfer *Transfer
	tone     time.Duration
	gap      time.Duration
	id       string // of the command
	serial   uint64
	behind   int64         // the position behind which it was sent to the carrier
	due      time.Duration // when it is taken as played without a word of the carrier
}

// mark queues a mark. It is false where there are too many.
func (p *playout) mark(name string) bool {
	if len(p.items)+len(p.inflight) >= maxMarks {
		return false
	}
	p.stats.Marks++
	p.items = append(p.items, item{at: p.pushed, name: name})
	return true
}

// hangup queues the end of the call behind the audio that came before it.
func (p *playout) hangup(id string, end *End) {
	p.finishing, p.paused = true, false
	p.items = append(p.items, item{at: p.pushed, id: id, end: end})
}

// cancel withdraws a queued hang-up, or digits. It is false where there is none of that id.
func (p *playout) cancel(id string) bool {
	for _, list := range []*[]item{&p.items, &p.inflight} {
		for i, it := range *list {
			if (it.end != nil || it.digits != "" || it.transfer != nil) && it.id == id && it.id != "" {
				*list = append((*list)[:i], (*list)[i+1:]...)
				p.finishing = p.ending()
				return true
			}
		}
	}
	return false
}

// ending tells whether a hang-up is queued.
func (p *playout) ending() bool {
	is := func(it item) bool { return it.end != nil }
	return slices.ContainsFunc(p.items, is) || slices.ContainsFunc(p.inflight, is)
}

// reach moves the first item to those in flight: the audio before it is with the
// carrier. It gives the serial of the mark to send.
func (p *playout) reach(now time.Duration) uint64 {
	it := p.items[0]
	p.items = p.items[:copy(p.items, p.items[1:])]
	p.serial++
	it.serial, it.behind, it.due = p.serial, p.taken, now
	if at := p.dry() + p.lag; p.run && at > now {
		it.due = at
	}
	if p.can.Marks {
		it.due += markLate
	}
	if n := len(p.inflight); n > 0 { // in order, whatever becomes of lag
		it.due = max(it.due, p.inflight[n-1].due)
	}
	p.inflight = append(p.inflight, it)
	return it.serial
}

// late takes how much later than expected a mark came: the least is the truth
// about the carrier, more may be the network's.
func (p *playout) late(d time.Duration) {
	d = min(max(0, d), maxLag)
	if d > p.lag {
		d = p.lag + (d-p.lag)/4
	}
	p.lag = d
}

// expire reports what counts as played although the carrier has not said so.
func (p *playout) expire(now time.Duration) {
	for len(p.inflight) > 0 && p.inflight[0].due <= now {
		p.played(now, 1)
	}
}

// played reports the first n items in flight.
func (p *playout) played(now time.Duration, n int) {
	for _, it := range p.inflight[:n] {
		if it.end != nil {
			p.end = it.end
			continue
		}
		p.tell(AgentEvent{Kind: AgentMark, Name: it.name, State: "played", Out: p.heard(now)})
	}
	p.inflight = p.inflight[:copy(p.inflight, p.inflight[n:])]
}

// wireName is the name of a mark at the carrier: ours, so that one that comes
// back after a clear is told from a new one of the same name.
func (p *playout) wireName(serial uint64) string {
	return strconv.FormatUint(p.generation, 10) + "." + strconv.FormatUint(serial, 10)
}

// markPlayed takes a mark that came back from the carrier.
func (p *playout) markPlayed(now time.Duration, wire string) error {
	generation, rest, _ := strings.Cut(wire, ".")
	g, err := strconv.ParseUint(generation, 10, 64)
	serial, err2 := strconv.ParseUint(rest, 10, 64)
	if err != nil || err2 != nil {
		return errors.New("session: a mark that was never sent")
	}
	for i, it := range p.inflight {
		if it.serial != serial || g != p.generation {
			continue
		}
		if expected := p.t0 + p.duration(it.behind-p.base); p.run && it.behind > p.base {
			p.late(now - expected)
		}
		p.high = max(p.high, it.at)
		p.played(now, i+1) // marks come back in order: those before it were lost
		return nil
	}
	p.stats.LateMarks++
	return nil
}
