package journal

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"voicebridge/calls"
)

const (
	// readMost is how many events are read at once, readTime how long new ones are waited
	// for before the question is put again.
	readMost = 256
	readTime = time.Second
)

// Feed gives the events of all calls, in order, until it is closed.
type Feed struct {
	// After is the id of the last event before those that the feed gives: one who
	// comes back with it, to any instance, misses nothing.
	After  string
	Events <-chan calls.Event
	Close  func()
}

// Listen begins a feed. after is the id of the last event that the listener has seen:
// those since are told first, as far as they are kept; empty: from now on. complete is
// false where some are not kept any more.
func (j *Journal) Listen(ctx context.Context, after string) (f *Feed, complete bool, err error) {
	if j.db == nil {
		feed, complete := j.book.Listen(after)
		return &Feed{feed.After, feed.Events(), feed.Close}, complete, nil
	}
	after, complete, err = j.from(ctx, after)
	if err != nil {
		return nil, false, err
	}
	ctx, stop := context.WithCancel(ctx)
	c := make(chan calls.Event)
	go func() {
		defer close(c)
		for at := after; ctx.Err() == nil; {
			at = j.read(ctx, at, c)
		}
	}()
	return &Feed{after, c, func() {
		stop()
		for range c { // until it has ended
		}
	}}, complete, nil
}

// from is where a feed begins.
func (j *Journal) from(ctx context.Context, after string) (id string, complete bool, err error) {
	ctx, stop := context.WithTimeout(ctx, writeTime)
	defer stop()
	info, err := j.db.XInfoStream(ctx, j.prefix).Result()
	switch {
	case err != nil && strings.Contains(err.Error(), "no such key"):
		return "0-0", after == "", nil
	case err != nil:
		return "", false, fmt.Errorf("journal: %w", err)
	case after == "":
		return info.LastGeneratedID, true, nil
	case !isID(after) || less(info.LastGeneratedID, after): // of another journal, or a failover has lost it
		return info.LastGeneratedID, false, nil
	}
	trimmed := info.EntriesAdded > info.Length
	return after, !trimmed || !less(after, info.FirstEntry.ID), nil
}

// split reads an id of an entry: Unix ms, and a number within it.
func split(id string) (ms, n uint64, err error) {
	first, second, _ := strings.Cut(id, "-")
	if ms, err = strconv.ParseUint(first, 10, 64); err == nil {
		n, err = strconv.ParseUint(second, 10, 64)
	}
	return ms, n, err
}

func isID(s string) bool {
	_, _, err := split(s)
	return err == nil
}

// less reports whether an entry comes before another one.
func less(a, b string) bool {
	am, an, _ := split(a)
	bm, bn, _ := split(b)
	return am < bm || am == bm && an < bn
}

// read gives what comes after an entry to c, and returns the last that it has given.
func (j *Journal) read(ctx context.Context, after string, c chan<- calls.Event) string {
	got, err := j.db.XRead(ctx, &redis.XReadArgs{Streams: []string{j.prefix, after}, Count: readMost, Block: readTime}).
		Result()
	if err != nil {
		j.rested(ctx, err)
		return after
	}
	for _, m := range got[0].Messages {
		ev, err := event(&m)
		if err != nil {
			j.log.Error("an event cannot be read", "id", m.ID, "err", err)
			continue
		}
		select {
		case c <- *ev:
			after = m.ID
		case <-ctx.Done():
			return after
		}
	}
	return after
}

// rested waits a little after a database has not answered; that nothing is there is no
// reason to.
func (j *Journal) rested(ctx context.Context, err error) {
	if err == redis.Nil {
		return
	}
	select {
	case <-time.After(writeAgain):
	case <-ctx.Done():
	}
}

// event is that of an entry.
func event(m *redis.XMessage) (*calls.Event, error) {
	body, _ := m.Values["body"].(string)
	var ev calls.Event
	if err := json.Unmarshal([]byte(body), &ev); err != nil {
		return nil, fmt.Errorf("journal: event: %w", err)
	}
	ev.ID = m.ID
	return &ev, nil
}
