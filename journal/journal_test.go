package journal

import (
	"context"
	"log/slog"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"voicebridge/calls"
	"voicebridge/providers"
	"voicebridge/sim/outage"
)

var server *outage.Redis

func TestMain(m *testing.M) {
	var stop func()
	var err error
	if server, stop, err = outage.Temporary(context.Background()); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) { stop(); os.Exit(code) }))
}

// instance is one of several, with a book of its own.
type instance struct {
	*Journal
	book *calls.Book
	stop func() // in good order
	die  func() // without a word
}

func begin(t *testing.T, name string) *instance {
	t.Helper()
	db := redis.NewClient(&redis.Options{Addr: server.Addr, MaxRetries: -1})
	book := calls.New(time.Now)
	i := &instance{Journal: Shared(book, db, t.Name()+":", name, slog.New(slog.DiscardHandler)), book: book}
	ctx, stop := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() { i.Run(ctx) })
	i.stop = sync.OnceFunc(func() { stop(); group.Wait(); db.Close() })
	i.die = func() { db.Close(); i.stop() }
	t.Cleanup(i.stop)
	return i
}

// told collects what a feed gives.
type told struct {
	mu   sync.Mutex
	list []calls.Event
	more chan struct{}
}

func listen(t *testing.T, j *Journal, after string) (l *told, complete bool) {
	t.Helper()
	feed, complete, err := j.Listen(context.Background(), after)
	if err != nil {
		t.Fatal(err)
	}
	l = &told{more: make(chan struct{}, 1000)}
	var group sync.WaitGroup
	group.Go(func() {
		for ev := range feed.Events {
			l.add(&ev)
		}
	})
	t.Cleanup(func() { feed.Close(); group.Wait() })
	return l, complete
}

func (l *told) add(ev *calls.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, *ev)
	l.more <- struct{}{}
}

// await waits for so many events, and returns their types.
func (l *told) await(t *testing.T, n int) (types []string) {
	t.Helper()
	limit := time.After(30 * time.Second)
	for {
		l.mu.Lock()
		types = nil
		for _, ev := range l.list {
			types = append(types, ev.Type)
		}
		l.mu.Unlock()
		if len(types) >= n {
			return types
		}
		select {
		case <-l.more:
		case <-limit:
			t.Fatalf("told: %v, want %d", types, n)
		}
	}
}

var life = []string{calls.EventCreated, calls.EventAnswered, calls.EventStreaming, calls.EventStreamEnd,
	calls.EventEnded}

// TestOnce: of a call whose webhooks one instance takes, and whose audio another one, each
// event is told once, in order, and its end behind that of its stream, by every instance.
func TestOnce(t *testing.T) {
	a, b := begin(t, "a"), begin(t, "b")
	feed, _ := listen(t, a.Journal, "")
	call := calls.Call{Account: "main", Provider: "twilio", CarrierID: "CA1", Direction: calls.Inbound}
	call = a.book.Add(call)
	a.book.Answered(call.ID)
	feed.await(t, 2)
	b.book.Add(call)
	b.book.Began(call.ID)
	feed.await(t, 3)
	over := &providers.CallEvent{Kind: providers.CallProgress, Status: providers.StatusCompleted}
	a.book.Report(call.ID, over)
	if got, err := a.db.HGet(t.Context(), a.call(call.ID), "over").Result(); err == nil {
		t.Errorf("over before its stream: %q", got)
	}
	b.book.StreamEnded(call.ID, "carrier", true)
	if got := feed.await(t, 5); !slices.Equal(got, life) {
		t.Errorf("told: %v", got)
	}
	for _, i := range []*instance{a, b} { // the end of a transfer may be told later
		i.book.Transferred(call.ID, calls.Transfer{ID: "tr_1", State: "ended"})
	}
	b.book.Said(call.ID, calls.Line{Role: calls.Agent, Text: "Goodbye."}) // and what was said last
	late := append(slices.Clone(life), calls.EventTransfer, calls.EventTranscript)
	if got := feed.await(t, 7); !slices.Equal(got, late) {
		t.Errorf("told: %v", got)
	}
	// Who comes back, to another instance, misses nothing and hears nothing twice.
	again, complete := listen(t, b.Journal, feed.list[1].ID)
	if got := again.await(t, 5); !slices.Equal(got, late[2:]) || !complete {
		t.Errorf("told again: %v, %v", got, complete)
	}
	if _, complete := listen(t, b.Journal, "99999999999999-0"); complete {
		t.Error("what the journal has lost is not said to be missing")
	}
	if _, complete := listen(t, b.Journal, "of-another"); complete {
		t.Error("what was of another journal is not said to be missing")
	}
}

// TestStopped: the end of a call whose instance has stopped is told, once, when the carrier
// reports it to another one.
func TestStopped(t *testing.T) {
	a, b := begin(t, "a"), begin(t, "b")
	feed, _ := listen(t, b.Journal, "")
	call := a.book.Add(calls.Call{Account: "main", Provider: "twilio", CarrierID: "CA1", Direction: calls.Inbound})
	a.book.Answered(call.ID)
	a.book.Began(call.ID)
	a.stop() // what it has told is still written
	feed.await(t, 3)
	ended := func(account, id, leg string, want bool) {
		t.Helper()
		told, err := b.Ended(t.Context(), account, id, []string{leg}, providers.StatusCompleted)
		if told != want || err != nil {
			t.Errorf("%s %s %s: %v, %v", account, id, leg, told, err)
		}
	}
	ended("other", "", "CA1", false)
	ended("other", call.ID, "CA1", false)
	ended("main", "", "CA2", false)
	ended("main", "", "CA1", true)
	ended("main", call.ID, "CA1", false)
	got := feed.await(t, 4)
	last := feed.list[3].Call
	if got[3] != calls.EventEnded || last.ID != call.ID || last.Status != providers.StatusCompleted ||
		last.EndedAt.IsZero() || last.Streaming {
		t.Errorf("told: %v, %+v", got, last)
	}
}

// TestStreamOfDead: the end of a call is told though that of its stream never is.
func TestStreamOfDead(t *testing.T) {
	a, b := begin(t, "a"), begin(t, "b")
	a.streamTime = time.Second / 10
	feed, _ := listen(t, a.Journal, "")
	call := a.book.Add(calls.Call{Account: "main", Provider: "twilio", CarrierID: "CA1", Direction: calls.Inbound})
	b.book.Add(call)
	b.book.Began(call.ID)
	feed.await(t, 3) // also answered
	b.die()
	a.book.Report(call.ID, &providers.CallEvent{Kind: providers.CallProgress, Status: providers.StatusCompleted})
	if got := feed.await(t, 4); got[3] != calls.EventEnded {
		t.Errorf("told: %v", got)
	}
}

// TestStopsAmidEnd: the end of a call is told though the instance that waits for that of its
// stream stops.
func TestStopsAmidEnd(t *testing.T) {
	a, b := begin(t, "a"), begin(t, "b")
	feed, _ := listen(t, b.Journal, "")
	call := a.book.Add(calls.Call{Account: "main", Provider: "twilio", CarrierID: "CA1", Direction: calls.Inbound})
	b.book.Add(call)
	b.book.Began(call.ID)
	feed.await(t, 3) // also answered
	a.book.Report(call.ID, &providers.CallEvent{Kind: providers.CallProgress, Status: providers.StatusCompleted})
	a.stop()
	if got := feed.await(t, 4); got[3] != calls.EventEnded {
		t.Errorf("told: %v", got)
	}
}

// TestDuty: one instance tells the application; when it is gone another one goes on, first
// with what was not taken.
func TestDuty(t *testing.T) {
	a, b := begin(t, "a"), begin(t, "b")
	deliver := func(i *instance, take bool) (l *told, stop func()) {
		l = &told{more: make(chan struct{}, 1000)}
		ctx, cancel := context.WithCancel(context.Background())
		var group sync.WaitGroup
		group.Go(func() {
			i.Deliver(ctx, func(ev *calls.Event, done func()) {
				l.add(ev)
				if take {
					done()
				}
			})
		})
		stop = sync.OnceFunc(func() { cancel(); group.Wait() })
		t.Cleanup(stop)
		return l, stop
	}
	first, stopFirst := deliver(a, false)
	for limit := time.Now().Add(30 * time.Second); a.db.Get(t.Context(), a.duty()).Val() != "a"; {
		if time.Now().After(limit) {
			t.Fatal("nobody has the duty")
		}
	}
	second, _ := deliver(b, true)
	call := b.book.Add(calls.Call{Account: "main", Provider: "twilio", CarrierID: "CA1", Direction: calls.Inbound})
	first.await(t, 1)
	stopFirst()
	b.book.Answered(call.ID)
	if got := second.await(t, 2); !slices.Equal(got, life[:2]) {
		t.Errorf("told: %v", got)
	}
	if n := len(first.list); n != 1 {
		t.Errorf("%d events were told by the first", n)
	}
	b.book.Report(call.ID, &providers.CallEvent{Kind: providers.CallProgress, Status: providers.StatusCompleted})
	second.await(t, 3)
	for limit := time.Now().Add(30 * time.Second); ; {
		left, err := b.db.XPending(t.Context(), b.prefix, group).Result()
		if err == nil && left.Count == 0 {
			break
		}
		if time.Now().After(limit) {
			t.Fatalf("left: %+v, %v", left, err)
		}
	}
}

// TestAlone: of one instance alone the journal is its book.
func TestAlone(t *testing.T) {
	book := calls.New(time.Now)
	j := New(book, slog.New(slog.DiscardHandler))
	call := book.Add(calls.Call{Account: "main", Provider: "twilio", CarrierID: "CA1", Direction: calls.Inbound})
	ctx, stop := context.WithCancel(t.Context())
	stop()
	var types []string
	j.Deliver(ctx, func(ev *calls.Event, done func()) { types = append(types, ev.Type); done() })
	j.Run(ctx)
	told, err := j.Ended(t.Context(), "main", call.ID, nil, providers.StatusCompleted)
	feed, complete, lerr := j.Listen(t.Context(), "")
	if lerr != nil {
		t.Fatal(lerr)
	}
	feed.Close()
	if len(types) != 1 || told || err != nil || !complete {
		t.Errorf("%v, %v, %v, %v", types, told, err, complete)
	}
}

// TestPlaceLost: where a failover has lost the place from which events are told, none is left out that came
// before it is made again.
func TestPlaceLost(t *testing.T) {
	a := begin(t, "a")
	l := &told{more: make(chan struct{}, 1000)}
	ctx, cancel := context.WithCancel(context.Background())
	var delivering sync.WaitGroup
	delivering.Go(func() { a.Deliver(ctx, func(ev *calls.Event, done func()) { l.add(ev); done() }) })
	defer delivering.Wait()
	defer cancel()
	for limit := time.Now().Add(30 * time.Second); a.db.Get(t.Context(), a.duty()).Val() != "a"; {
		if time.Now().After(limit) {
			t.Fatal("nobody has the duty")
		}
	}
	call := a.book.Add(calls.Call{Account: "main", Provider: "twilio", CarrierID: "CA1", Direction: calls.Inbound})
	l.await(t, 1)
	all, err := a.db.XRange(t.Context(), a.prefix, "-", "+").Result()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.db.TxPipelined(t.Context(), func(p redis.Pipeliner) error {
		p.XGroupDestroy(t.Context(), a.prefix, group)
		p.XAdd(t.Context(), &redis.XAddArgs{Stream: a.prefix, Values: all[0].Values})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	a.book.Answered(call.ID)
	if got := l.await(t, 3); !slices.Equal(got, []string{calls.EventCreated, calls.EventCreated, calls.EventAnswered}) {
		t.Errorf("told: %v", got)
	}
}
