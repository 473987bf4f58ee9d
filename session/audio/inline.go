package audio

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"voicebridge/calls"
)

// MaxMarks bounds the commands in line with the audio that are not answered or done: a minute that
// a model answers at once has hundreds of marks.
const MaxMarks = 4096

// Item is something queued in line with the audio: a mark, a hang-up, digits or a
// transfer.
type Item struct {
	at       int64 // the position behind which it stands
	ID       string
	mark     string        // name of a mark
	end      *calls.End    // of a hang-up, otherwise nil
	Digits   string        // of digits to be sent
	Tone     time.Duration // of digits
	Gap      time.Duration // of digits
	Transfer *calls.TransferRequest

	// Of one that is in flight.
	serial uint64
	sent   time.Duration // when it was sent to the carrier
	plays  time.Duration // when the carrier should have played what it had then; 0: it had nothing
	alone  bool          // it had nothing for a while: what it takes to come back is the trip alone
	due    time.Duration // when it is taken as played without a word of the carrier
}

// cancelable reports whether an agent may take it back.
func (it *Item) cancelable() bool { return it.end != nil || it.Digits != "" || it.Transfer != nil }

// inline is what the agent queues in line with its audio. An item waits until the
// audio before it is with the carrier, and is in flight until the caller has heard
// that: the carrier echoes marks, and what it does not echo is taken as played when
// its time has come.
type inline struct {
	items      []Item // waiting to be reached
	inflight   []Item // sent to the carrier, or waiting for the playhead
	serial     uint64 // of the last one that was sent
	generation uint64 // of clears: echoes of an older one are not ours any more
}

// open returns how many are not answered.
func (l *inline) open() int { return len(l.items) + len(l.inflight) }

// add queues an item.
func (l *inline) add(it Item) { l.items = append(l.items, it) }

// pop removes the first item that waits, and returns it.
func (l *inline) pop() Item {
	it := l.items[0]
	l.items = l.items[:copy(l.items, l.items[1:])]
	return it
}

// send moves the first Item to those in flight. It is taken as played at the time due, though not
// before those ahead of it. It returns its serial.
func (l *inline) send(now, plays, due time.Duration, alone bool) uint64 {
	it := l.pop()
	l.serial++
	it.serial, it.sent, it.plays, it.due, it.alone = l.serial, now, plays, due, alone
	if n := len(l.inflight); n > 0 {
		it.due = max(it.due, l.inflight[n-1].due)
	}
	l.inflight = append(l.inflight, it)
	return it.serial
}

// next returns when the first item in flight is taken as played.
func (l *inline) next() time.Duration {
	if len(l.inflight) == 0 {
		return Forever
	}
	return l.inflight[0].due
}

// land removes the first n items in flight. They are good until the next send.
func (l *inline) land(n int) []Item {
	landed := slices.Clone(l.inflight[:n])
	l.inflight = l.inflight[:copy(l.inflight, l.inflight[n:])]
	return landed
}

// empty removes all items, those in flight first.
func (l *inline) empty() []Item {
	all := slices.Concat(l.inflight, l.items)
	l.items, l.inflight = l.items[:0], l.inflight[:0]
	l.generation++
	return all
}

// cancel withdraws a queued command. It reports whether there was one of that id.
func (l *inline) cancel(id string) bool {
	for _, list := range []*[]Item{&l.items, &l.inflight} {
		for i, it := range *list {
			if it.cancelable() && it.ID == id && id != "" {
				*list = slices.Delete(*list, i, i+1)
				return true
			}
		}
	}
	return false
}

// withdraw removes a hang-up.
func (l *inline) withdraw(end *calls.End) {
	is := func(it Item) bool { return it.end == end }
	l.items, l.inflight = slices.DeleteFunc(l.items, is), slices.DeleteFunc(l.inflight, is)
}

// hasHangup reports whether a hang-up is queued.
func (l *inline) hasHangup() bool {
	return slices.ContainsFunc(slices.Concat(l.items, l.inflight), func(it Item) bool { return it.end != nil })
}

// waitingDigits counts the digits that wait.
func (l *inline) waitingDigits() (n int) {
	for _, it := range l.items {
		if it.Digits != "" {
			n++
		}
	}
	return n
}

// wireName returns the name of a mark at the carrier: ours, so that one that comes
// back after a clear is told from a new one of the same name.
func (l *inline) wireName(serial uint64) string {
	return strconv.FormatUint(l.generation, 10) + "." + strconv.FormatUint(serial, 10)
}

// errStrangeMark is the error of a mark that was never sent.
var errStrangeMark = errors.New("session: a mark that was never sent")

// find returns the place in flight of a mark that came back; negative: it is not
// waited for any more.
func (l *inline) find(wire string) (int, error) {
	generation, rest, _ := strings.Cut(wire, ".")
	g, err := strconv.ParseUint(generation, 10, 64)
	serial, err2 := strconv.ParseUint(rest, 10, 64)
	if err != nil || err2 != nil {
		return 0, errStrangeMark
	}
	if g != l.generation {
		return -1, nil
	}
	return slices.IndexFunc(l.inflight, func(it Item) bool { return it.serial == serial }), nil
}
