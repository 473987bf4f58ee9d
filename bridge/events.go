package bridge

import (
	"context"
	"sync"
	"time"

	"voicebridge/calls"
	"voicebridge/journal"
	"voicebridge/providers"
)

// eventsEnd is how long events still wait to be taken when the bridge stops.
const eventsEnd = 5 * time.Second

// newJournal makes the journal, which also knows of calls whose instance has stopped.
func (b *Bridge) newJournal() *journal.Journal {
	c := b.cfg.Cluster
	if c == nil {
		return journal.New(b.control.Calls(), b.cfg.Log)
	}
	j := journal.Shared(b.control.Calls(), c.DB(), c.Prefix(), c.Self(), b.cfg.Log)
	b.control.OnOrphan(func(ctx context.Context, account, id string, legs []string, s providers.Status) error {
		told, err := j.Ended(ctx, account, id, legs, s)
		if told {
			b.cfg.Log.Info("end of a call whose instance has stopped", "session", id, "status", s)
		}
		return err
	})
	return j
}

// tell keeps the journal and tells the user's application, up to the last event before it
// is stopped.
func (b *Bridge) tell(group *sync.WaitGroup) (stop func()) {
	keep, stopKeeping := context.WithCancel(context.Background())
	tell, stopTelling := context.WithCancel(context.Background())
	var keeping, telling sync.WaitGroup
	keeping.Go(func() { b.journal.Run(keep) })
	if b.events != nil {
		telling.Go(func() {
			b.journal.Deliver(tell, func(ev *calls.Event, done func()) { b.events.Send(ev.Call.ID, ev.ID, ev, done) })
		})
	}
	group.Go(func() { keeping.Wait(); telling.Wait() })
	return func() {
		stopKeeping()
		keeping.Wait()
		stopTelling()
		telling.Wait()
		if b.events != nil {
			b.events.Close(eventsEnd)
		}
	}
}
