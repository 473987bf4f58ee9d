// Package journal keeps what becomes of calls: one ordered list of events for all
// instances that share a database, which outlives each of them. Of one instance alone it
// is the book of its calls.
//
// Each instance writes what its own book tells. Two of them may know of a call, that which
// answered the carrier and that which has its audio: what both tell is there once. The end
// of a call comes behind that of its stream, whoever hears of it first.
package journal

import (
	"context"
	_ "embed" // the scripts
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/redis/go-redis/v9"

	"voicebridge/calls"
	"voicebridge/providers"
)

// The scripts say what their keys, arguments and answers are.
var (
	//go:embed lua/write.lua
	writeLua string
	//go:embed lua/duty.lua
	dutyLua string

	dutyScript = redis.NewScript(dutyLua)
)

const (
	// mostEntries is about how many events are kept for those who come back.
	mostEntries = 100_000
	// keepCall is how long what was told of a call is known: longer than any call;
	// keepOver once the call is over.
	keepCall = 26 * time.Hour
	keepOver = 10 * time.Minute
	// writeMost is how many events are written at once, writeAgain how soon again after
	// that has failed, writeTime how long it may take.
	writeMost  = 100
	writeAgain = 500 * time.Millisecond
	writeTime  = 2 * time.Second
)

// Journal is that of one instance, or of all that share a database.
type Journal struct {
	book   *calls.Book
	db     redis.UniversalClient // nil: of one instance alone
	prefix string
	self   string
	log    *slog.Logger
	start  string // the last event of the book before all that are the journal's
	// streamTime is how long the end of a call waits for that of its stream.
	streamTime time.Duration
}

// New makes the journal of an instance alone.
func New(book *calls.Book, log *slog.Logger) *Journal { return Shared(book, nil, "", "", log) }

// Shared makes the journal of several instances, of which this one is self.
func Shared(book *calls.Book, db redis.UniversalClient, prefix, self string, log *slog.Logger) *Journal {
	return &Journal{book, db, prefix + "events:{all}", self, log, book.Last(), 5 * time.Second}
}

func (j *Journal) call(id string) string         { return j.prefix + ":call:" + id }
func (j *Journal) leg(account, id string) string { return j.prefix + ":leg:" + account + ":" + id }
func (j *Journal) duty() string                  { return j.prefix + ":duty" }

// Run writes what this instance's book tells, until ctx ends; what it has told by then is
// still written.
func (j *Journal) Run(ctx context.Context) {
	if j.db == nil {
		<-ctx.Done()
		return
	}
	last := j.start
	feed, _ := j.book.Listen(last)
	var waiting []waiting
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		var list []calls.Event
		select {
		case ev, ok := <-feed.Events():
			if !ok { // it could not keep up: begin where it was
				var complete bool
				if feed, complete = j.book.Listen(last); !complete {
					j.log.Warn("events are lost: they could not be written for too long", "after", last)
				}
				continue
			}
			list = more(feed, ev)
		case <-tick.C:
		case <-ctx.Done():
			feed.Close()
			j.rest(ctx, feed, waiting)
			return
		}
		if len(list) > 0 {
			last = list[len(list)-1].ID
		}
		waiting = append(waiting, j.write(ctx, list, false)...)
		waiting = j.ends(ctx, waiting)
	}
}

// waiting is the end of a call whose stream is still to end.
type waiting struct {
	event calls.Event
	until time.Time
}

// more takes what else is there.
func more(feed *calls.Feed, first calls.Event) []calls.Event {
	list := []calls.Event{first}
	for len(list) < writeMost {
		select {
		case ev, ok := <-feed.Events():
			if !ok {
				return list
			}
			list = append(list, ev)
		default:
			return list
		}
	}
	return list
}

// rest writes what is left when the instance stops, with little patience: nobody will wait
// for the ends of streams any more.
func (j *Journal) rest(ctx context.Context, feed *calls.Feed, list []waiting) {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), writeTime)
	defer stop()
	for ev := range feed.Events() {
		list = append(list, j.write(ctx, more(feed, ev), false)...)
	}
	var ends []calls.Event
	for _, w := range list {
		ends = append(ends, w.event)
	}
	j.write(ctx, ends, true)
}

// ends writes the ends of calls that have waited for long enough, and returns the others.
func (j *Journal) ends(ctx context.Context, list []waiting) (left []waiting) {
	var due []calls.Event
	for _, w := range list {
		if time.Now().Before(w.until) {
			left = append(left, w)
		} else {
			due = append(due, w.event)
		}
	}
	j.write(ctx, due, true)
	return left
}

// write adds events until that has been done, and returns those that wait. What is under
// way is finished although ctx ends.
func (j *Journal) write(ctx context.Context, list []calls.Event, force bool) (waits []waiting) {
	for len(list) > 0 {
		answers, err := j.try(context.WithoutCancel(ctx), list, force)
		if err == nil {
			for i, a := range answers {
				if a == "waits" {
					waits = append(waits, waiting{list[i], time.Now().Add(j.streamTime)})
				}
			}
			return waits
		}
		j.log.Debug("events are not written", "events", len(list), "err", err) // soon again
		select {
		case <-time.After(writeAgain):
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

// try adds events. What was added already, and no answer came, is not added again.
func (j *Journal) try(ctx context.Context, list []calls.Event, force bool) (answers []string, err error) {
	ctx, stop := context.WithTimeout(ctx, writeTime)
	defer stop()
	var cmds []*redis.Cmd
	forced := 0
	if force {
		forced = 1
	}
	_, err = j.db.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i := range list {
			ev := &list[i]
			body, err := json.Marshal(ev)
			if err != nil {
				return err
			}
			cmds = append(cmds, p.Eval(ctx, writeLua, []string{j.prefix, j.call(ev.Call.ID)}, ev.Call.ID, ev.Type,
				same(ev), body, keepCall.Milliseconds(), keepOver.Milliseconds(), mostEntries, forced))
			if ev.Type == calls.EventCreated || ev.Type == calls.EventAnswered {
				for _, id := range ev.Call.CarrierIDs() {
					p.Set(ctx, j.leg(ev.Call.Account, id), ev.Call.ID, keepCall)
				}
			}
			if ev.Type == calls.EventEnded {
				for _, id := range ev.Call.CarrierIDs() {
					p.PExpire(ctx, j.leg(ev.Call.Account, id), keepOver)
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("journal: write: %w", err)
	}
	for _, c := range cmds {
		word, _ := c.Text()
		answers = append(answers, word)
	}
	return answers, nil
}

// same names an event by what is the same of it where two instances tell it.
func same(ev *calls.Event) string {
	switch ev.Type {
	case calls.EventStreaming, calls.EventStreamEnd, calls.EventTranscript: // a call may have several
		return ev.ID
	case calls.EventTransfer:
		return ev.Type + ":" + ev.Transfer.ID + ":" + ev.Transfer.State
	}
	return ev.Type
}

// Ended tells of the end of a call that no instance knows any more, as a carrier reports
// it: that which knew it has stopped. The call is named by its id, or by ids of the
// carrier's. It is false where nothing is known of it, or its end was told.
func (j *Journal) Ended(ctx context.Context, account, id string, legs []string, s providers.Status) (bool, error) {
	if j == nil || j.db == nil {
		return false, nil
	}
	ctx, stop := context.WithTimeout(ctx, writeTime)
	defer stop()
	ev, err := j.last(ctx, account, id, legs)
	if err != nil || ev == nil || ev.Call.Account != account {
		return false, err
	}
	now := time.Now().UTC()
	ev.ID, ev.Type, ev.Time, ev.Transfer = "", calls.EventEnded, now, nil
	ev.Call.Status, ev.Call.EndedAt, ev.Call.Streaming = s, now, false
	answers, err := j.try(ctx, []calls.Event{*ev}, true)
	return err == nil && answers[0] == "told", err
}

// last is the last event that was told of a call; nil: none.
func (j *Journal) last(ctx context.Context, account, id string, legs []string) (*calls.Event, error) {
	ids := []string{id}
	for _, leg := range legs {
		found, err := j.db.Get(ctx, j.leg(account, leg)).Result()
		if err != nil && !errors.Is(err, redis.Nil) {
			return nil, fmt.Errorf("journal: %w", err)
		}
		ids = append(ids, found)
	}
	for _, id := range ids {
		if id == "" {
			continue
		}
		body, err := j.db.HGet(ctx, j.call(id), "last").Bytes()
		if errors.Is(err, redis.Nil) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("journal: %w", err)
		}
		var ev calls.Event
		if err := json.Unmarshal(body, &ev); err != nil {
			return nil, fmt.Errorf("journal: event: %w", err)
		}
		return &ev, nil
	}
	return nil, nil
}
