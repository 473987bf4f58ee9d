package background

import (
	"context"
	"sync"
)

// Tasks go on beside all else, each with a name, while whoever owns them runs. The zero value is
// ready, and does nothing until Run. Its methods may be called at the same time.
type Tasks struct {
	mu    sync.Mutex
	group sync.WaitGroup
	ctx   context.Context // nil: not yet
	stops map[string]func()
}

// Run lets tasks begin, which end with ctx.
func (t *Tasks) Run(ctx context.Context) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ctx, t.stops = ctx, map[string]func(){}
}

// Begin begins a task.
func (t *Tasks) Begin(name string, task func(context.Context)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ctx == nil || t.ctx.Err() != nil {
		return
	}
	ctx, stop := context.WithCancel(t.ctx)
	done := make(chan struct{})
	t.stops[name] = func() { stop(); <-done }
	t.group.Go(func() {
		defer close(done)
		task(ctx)
	})
}

// End ends a task, and waits until that is over.
func (t *Tasks) End(name string) {
	t.mu.Lock()
	stop := t.stops[name]
	delete(t.stops, name)
	t.mu.Unlock()
	if stop != nil {
		stop()
	}
}

// Wait waits for all of them.
func (t *Tasks) Wait() { t.group.Wait() }
