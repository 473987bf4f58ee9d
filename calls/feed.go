package calls

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Feed gives the events of all calls, in order.
type Feed struct {
	// After is the id of the last event before those that the feed gives: one who
	// comes back with it misses nothing.
	After string

	book *Book
	c    chan Event
	lost bool // written before c is closed
}

// ErrSlow is why a feed ends whose listener does not keep up.
var ErrSlow = errors.New("calls: the listener is too slow")

// tell makes an event. b.mu is held.
func (b *Book) tell(kind string, c *Call) { b.announce(Event{Type: kind, Call: c.copy()}) }

// announce tells an event to all. b.mu is held.
func (b *Book) announce(ev Event) {
	b.serial++
	ev.ID, ev.Time, ev.serial = b.id(b.serial), b.now(), b.serial
	if len(b.events) == keepEvents {
		b.events = b.events[:copy(b.events, b.events[keepEvents/4:])]
	}
	b.events = append(b.events, ev)
	for f := range b.feeds {
		select {
		case f.c <- ev:
		default:
			f.lost = true
			b.remove(f)
		}
	}
}

// id returns that of an event.
func (b *Book) id(serial uint64) string { return fmt.Sprintf("%s-%d", b.boot, serial) }

// Listen begins a feed. after is the id of the last event that the listener has
// seen: those since are told first, as far as they are kept; empty: from now on.
// complete is false where some are not kept any more.
func (b *Book) Listen(after string) (f *Feed, complete bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var missed []Event
	complete = true
	if after != "" {
		missed, complete = b.since(after)
	}
	first := b.serial + 1
	if len(missed) > 0 {
		first = missed[0].serial
	}
	f = &Feed{After: b.id(first - 1), book: b, c: make(chan Event, len(missed)+feedQueue)}
	for _, ev := range missed {
		f.c <- ev
	}
	b.feeds[f] = struct{}{}
	return f, complete
}

// Last is the id of the last event.
func (b *Book) Last() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.id(b.serial)
}

// Follow gives each event after an id to do, one that is slow, too: until ctx ends, and then
// what was told before.
func (b *Book) Follow(ctx context.Context, after string, do func(ev *Event)) {
	feed, _ := b.Listen(after)
	for {
		select {
		case ev, ok := <-feed.Events():
			if !ok { // it could not keep up: begin where it was
				feed, _ = b.Listen(after)
				continue
			}
			after = ev.ID
			do(&ev)
		case <-ctx.Done():
			feed.Close()
			for ev := range feed.Events() {
				do(&ev)
			}
			return
		}
	}
}

// since returns the kept events after an id.
func (b *Book) since(after string) ([]Event, bool) {
	boot, number, _ := strings.Cut(after, "-")
	n, err := strconv.ParseUint(number, 10, 64)
	if err != nil || boot != b.boot || n > b.serial { // of another process, or none of ours
		return b.events, false
	}
	for i, ev := range b.events {
		if ev.serial > n {
			return b.events[i:], ev.serial == n+1
		}
	}
	return nil, true
}

// Events is closed when the feed ends.
func (f *Feed) Events() <-chan Event { return f.c }

// Err returns why the feed has ended, once Events is closed; nil after Close.
func (f *Feed) Err() error {
	f.book.mu.Lock()
	defer f.book.mu.Unlock()
	if f.lost {
		return ErrSlow
	}
	return nil
}

// Close ends the feed.
func (f *Feed) Close() {
	f.book.mu.Lock()
	defer f.book.mu.Unlock()
	f.book.remove(f)
}

func (b *Book) remove(f *Feed) {
	if _, in := b.feeds[f]; in {
		delete(b.feeds, f)
		close(f.c)
	}
}
