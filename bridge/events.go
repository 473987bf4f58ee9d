package bridge

import (
	"context"
	"time"

	"voicebridge/calls"
)

// eventsEnd is how long events still wait to be taken when the bridge stops.
const eventsEnd = 5 * time.Second

// tell moves events from a feed to the user's application, up to the last one before
// ctx ends.
func (b *Bridge) tell(ctx context.Context, feed *calls.Feed) {
	last := ""
	for {
		select {
		case ev, ok := <-feed.Events():
			if !ok { // it could not keep up: begin where it was
				feed, _ = b.control.Calls().Listen(last)
				continue
			}
			b.events.Send(ev.Call.ID, ev.ID, ev)
			last = ev.ID
		case <-ctx.Done():
			feed.Close()
			for ev := range feed.Events() {
				b.events.Send(ev.Call.ID, ev.ID, ev)
			}
			return
		}
	}
}
