// Package background does what goes on beside the calls, such as requests to carriers: each
// thing for a bounded time, some in order, and none that is not waited for in the end.
package background

import (
	"context"
	"sync"
	"time"
)

// Time is how long one thing may take: a request to a carrier, all attempts together.
const Time = 20 * time.Second

// Work is what goes on in the background. Its methods may be called at the same time.
type Work struct {
	guard func(what string)

	mu      sync.Mutex
	stopped bool // nothing begins any more
	lanes   map[string][]func(context.Context)
	group   sync.WaitGroup
}

// New makes Work. guard is deferred by everything: it recovers from panics.
func New(guard func(what string)) *Work {
	return &Work{guard: guard, lanes: map[string][]func(context.Context){}}
}

// Later does something beside the calls that is waited for when the bridge stops.
func (w *Work) Later(do func(ctx context.Context)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.begin(func() { w.one(do) })
}

// begin is called with mu held.
func (w *Work) begin(do func()) {
	if !w.stopped {
		w.group.Go(do)
	}
}

// InOrder is Later for what must be done one after the other: of all that has the
// same key, each waits for the one before.
func (w *Work) InOrder(key string, do func(ctx context.Context)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	queue, running := w.lanes[key]
	w.lanes[key] = append(queue, do)
	if !running {
		w.begin(func() { w.lane(key) })
	}
}

// lane does all that has one key, each with the time that it would have alone.
func (w *Work) lane(key string) {
	for {
		w.mu.Lock()
		queue := w.lanes[key]
		if len(queue) == 0 {
			delete(w.lanes, key)
			w.mu.Unlock()
			return
		}
		w.lanes[key] = queue[1:]
		w.mu.Unlock()
		w.one(queue[0])
	}
}

// one does one thing. A panic in it is no reason not to do the next.
func (w *Work) one(do func(context.Context)) {
	ctx, stop := context.WithTimeout(context.Background(), Time)
	defer stop()
	defer w.guard("background work")
	do(ctx)
}

// Stop waits for what has begun; nothing begins any more.
func (w *Work) Stop() {
	w.mu.Lock()
	w.stopped = true
	w.mu.Unlock()
	w.group.Wait()
}
