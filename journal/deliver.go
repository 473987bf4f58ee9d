package journal

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"voicebridge/calls"
)

const (
	// group and teller are what the database knows those by who tell of events: whoever
	// has the duty is the same teller, and goes on with what was not taken.
	group, teller = "webhooks", "teller"
	// dutyLease is how long the duty stays with an instance that has died.
	dutyLease = 10 * time.Second
	// underWay is how many events may be with send at once.
	underWay = 5000
)

// Deliver gives each event to send, which calls done when it was taken, or given up, until
// ctx ends. Of several instances one has the duty to; when that dies, another one has, and
// goes on with what was not done.
func (j *Journal) Deliver(ctx context.Context, send func(ev *calls.Event, done func())) {
	if j.db == nil {
		j.book.Follow(ctx, j.start, func(ev *calls.Event) { send(ev, func() {}) })
		return
	}
	d := &delivery{Journal: j, send: send, with: map[string]struct{}{}}
	for ctx.Err() == nil && !d.found(ctx, "$") {
		d.rested(ctx, context.DeadlineExceeded)
	}
	for ctx.Err() == nil {
		if !d.hasDuty(ctx, dutyLease) {
			d.begun = false
			select {
			case <-time.After(dutyLease / 5):
			case <-ctx.Done():
			}
			continue
		}
		d.turn(ctx)
	}
	if d.begun { // what was told while this instance stopped
		last, stop := context.WithTimeout(context.WithoutCancel(ctx), writeTime)
		defer stop()
		_, _ = d.read(last, ">", -1)
		d.hasDuty(last, 0)
	}
}

// delivery is the duty of this instance.
type delivery struct {
	*Journal
	send  func(ev *calls.Event, done func())
	begun bool // the duty is this instance's, and what others have left was taken up
	// from is up to where events were read, or what there was when this instance began: where the place is lost
	// from which all tell, they go on from there.
	from string

	mu   sync.Mutex
	with map[string]struct{} // events that are with send
}

// hasDuty takes, keeps or gives up the duty.
func (d *delivery) hasDuty(ctx context.Context, lease time.Duration) bool {
	ctx, stop := context.WithTimeout(ctx, writeTime)
	defer stop()
	n, err := dutyScript.Run(ctx, d.db, []string{d.duty()}, d.self, lease.Milliseconds()).Int()
	return err == nil && n == 1
}

// found makes the place from which all instances tell, unless there is one: what comes
// behind an event is told, "$" is the last one now.
func (d *delivery) found(ctx context.Context, from string) bool {
	if from == "$" {
		last, err := d.db.XRevRangeN(ctx, d.prefix, "+", "-", 1).Result()
		if err != nil {
			return false
		}
		d.from = "0"
		for _, m := range last {
			d.from = m.ID
		}
		from = d.from
	}
	err := d.db.XGroupCreateMkStream(ctx, d.prefix, group, from).Err()
	return err == nil || strings.Contains(err.Error(), "BUSYGROUP")
}

// turn reads what there is, first what was begun before.
func (d *delivery) turn(ctx context.Context) {
	if !d.begun {
		if !d.left(ctx) {
			return
		}
		d.begun = true
	}
	d.mu.Lock()
	full := len(d.with) >= underWay
	d.mu.Unlock()
	if full {
		d.rested(ctx, context.DeadlineExceeded)
		return
	}
	if _, err := d.read(ctx, ">", readTime); err != nil {
		d.rested(ctx, err)
		if strings.Contains(err.Error(), "NOGROUP") { // a failover has lost it
			d.found(ctx, d.from)
		}
	}
}

// left gives what whoever had the duty before has left.
func (d *delivery) left(ctx context.Context) bool {
	for at := "0"; ; {
		last, err := d.read(ctx, at, -1)
		if err != nil && err != redis.Nil {
			d.rested(ctx, err)
			return false
		}
		if last == "" {
			return true
		}
		at = last
	}
}

// read takes events after one of those that were begun, or new ones, and returns the last.
func (d *delivery) read(ctx context.Context, from string, wait time.Duration) (last string, err error) {
	got, err := d.db.XReadGroup(ctx, &redis.XReadGroupArgs{Group: group, Consumer: teller,
		Streams: []string{d.prefix, from}, Count: readMost, Block: wait}).Result()
	if err != nil {
		return "", err
	}
	for _, m := range got[0].Messages {
		if last = m.ID; from == ">" {
			d.from = m.ID
		}
		d.mu.Lock()
		_, has := d.with[m.ID]
		d.with[m.ID] = struct{}{}
		d.mu.Unlock()
		if has {
			continue
		}
		ev, err := event(&m)
		if err != nil { // also one that was trimmed meanwhile
			d.log.Error("an event cannot be told", "id", m.ID, "err", err)
			d.done(m.ID)
			continue
		}
		d.send(ev, func() { d.done(m.ID) })
	}
	return last, nil
}

// done notes that an event was taken. Where that fails it may be told again, with the same
// id.
func (d *delivery) done(id string) {
	ctx, stop := context.WithTimeout(context.Background(), writeTime)
	defer stop()
	if err := d.db.XAck(ctx, d.prefix, group, id).Err(); err != nil {
		d.log.Debug("it is not noted that an event was taken", "id", id, "err", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.with, id)
}
