package notify

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// Queue delivers events to a Target: those of one key in order, one after the
// other; those of different keys beside each other. An event that is not taken
// is sent again with growing pauses, then given up.
type Queue struct {
	target *Target
	log    *slog.Logger
	ctx    context.Context
	stop   context.CancelFunc
	places chan struct{} // bounds the requests under way

	mu      sync.Mutex
	waiting map[string][]event // keys with a goroutine; the first event is under way
	size    int
	closed  bool
	full    bool // events are being lost, which has been logged
	workers sync.WaitGroup

	sent, lost, again atomic.Uint64
	failing           atomic.Bool // the target does not take events, which has been logged
}

type event struct {
	id   string
	body []byte
	done func()
}

// Limits of a Queue.
const (
	maxWaiting  = 10000
	maxRequests = 32
	// giveUp is how long an event is tried for: then it holds up those behind it
	// no longer.
	giveUp = 10 * time.Minute
)

// NewQueue makes a queue. Close ends it.
func NewQueue(target *Target, log *slog.Logger) *Queue {
	q := &Queue{target: target, log: log, waiting: map[string][]event{}, places: make(chan struct{}, maxRequests)}
	q.ctx, q.stop = context.WithCancel(context.Background())
	return q
}

// Send queues an event. The id goes into the header Voicebridge-Event. done is called once
// it was taken or given up; never, if the queue ends before.
func (q *Queue) Send(key, id string, v any, done func()) {
	body, err := json.Marshal(v)
	if err != nil {
		q.log.Error("event", "id", id, "err", err)
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || q.size >= maxWaiting {
		if q.lost.Add(1); !q.full {
			q.full = true
			q.log.Warn("events are lost: too many wait to be taken", "first", id, "waiting", q.size)
		}
		return
	}
	q.full = q.full && q.size > maxWaiting/2
	q.size++
	list, running := q.waiting[key]
	q.waiting[key] = append(list, event{id, body, done})
	if !running {
		q.workers.Go(func() { q.work(key) })
	}
}

// work delivers the events of a key until there are no more.
func (q *Queue) work(key string) {
	for {
		q.mu.Lock()
		list := q.waiting[key]
		if len(list) == 0 {
			delete(q.waiting, key)
			q.mu.Unlock()
			return
		}
		ev := list[0]
		q.mu.Unlock()
		q.deliver(ev)
		q.mu.Lock()
		q.waiting[key] = q.waiting[key][1:]
		q.size--
		q.mu.Unlock()
	}
}

func (q *Queue) deliver(ev event) {
	_, err := backoff.Retry(q.ctx, func() (struct{}, error) {
		select {
		case q.places <- struct{}{}:
		case <-q.ctx.Done():
			return struct{}{}, q.ctx.Err()
		}
		defer func() { <-q.places }()
		err := q.target.post(q.ctx, ev.body, map[string]string{"Voicebridge-Event": ev.id}, nil)
		q.note(err)
		return struct{}{}, err
	}, backoff.WithBackOff(&backoff.ExponentialBackOff{
		InitialInterval: 500 * time.Millisecond, RandomizationFactor: 0.5, Multiplier: 2, MaxInterval: time.Minute,
	}), backoff.WithMaxElapsedTime(giveUp))
	if err != nil && q.ctx.Err() != nil {
		q.lost.Add(1)
		return
	}
	defer ev.done()
	if err != nil {
		q.lost.Add(1)
		q.log.Warn("event was not delivered", "id", ev.id, "err", err)
		return
	}
	q.sent.Add(1)
}

// note tells of the first failure, and of the first success after some.
func (q *Queue) note(err error) {
	switch {
	case err == nil && q.failing.Swap(false):
		q.log.Info("events are taken again")
	case err == nil:
	case q.ctx.Err() == nil:
		if q.again.Add(1); !q.failing.Swap(true) {
			q.log.Warn("an event was not taken, and is sent again, as all are for ten minutes", "err", err)
		}
	}
}

// Counts are the events delivered, those given up, and the attempts that failed.
func (q *Queue) Counts() (sent, lost, again uint64) {
	return q.sent.Load(), q.lost.Load(), q.again.Load()
}

// Close ends the queue: what waits is still sent within the time, and what is left
// then is lost.
func (q *Queue) Close(within time.Duration) {
	q.mu.Lock()
	q.closed = true
	left := q.size
	q.mu.Unlock()
	done := make(chan struct{})
	go func() { q.workers.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(within):
		q.log.Warn("events are left", "err", fmt.Errorf("%d events had not been taken", left))
	}
	q.stop()
	<-done
}
