package redisstore

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"voicebridge/cluster"
	"voicebridge/transfer"
	"voicebridge/transfer/transfertest"
)

// What many instances cost the database, measured with a real redis-server:
//
//	go test ./transfer/redisstore -run '^$' -bench Cost -benchtime 1x
//
// docs/transfers.md has the figures, and what follows from them.

// figure sums figures that Redis tells of itself.
func figure(b *testing.B, section string, names ...string) float64 {
	b.Helper()
	sum, err := server.Figure(section, names...)
	if err != nil {
		b.Fatal(err)
	}
	return sum
}

// busy is how much CPU the database has used, in seconds.
func busy(b *testing.B) float64 { return figure(b, "cpu", "used_cpu_user", "used_cpu_sys") }

// instances are members of one cluster, at work until the end of the benchmark.
func instances(b *testing.B, db *redis.Client, prefix string, n int) (all []*cluster.Cluster) {
	b.Helper()
	ctx, stop := context.WithCancel(context.Background())
	var group sync.WaitGroup
	b.Cleanup(func() { stop(); group.Wait() })
	for i := range n {
		m := cluster.NewMembers(db, prefix, fmt.Sprint("i", i), cluster.DefaultLease, slog.New(slog.DiscardHandler))
		c := cluster.New(m, prefix)
		group.Go(func() { c.Run(ctx, nil) })
		all = append(all, c)
	}
	return all
}

// BenchmarkCostAtRest is what calls cost that just go on: each is three names in the
// directory, and a tenth of them have a transfer that is bridged.
func BenchmarkCostAtRest(b *testing.B) {
	for _, n := range []int{1, 3, 10} {
		for _, calls := range []int{10_000, 100_000} {
			b.Run(fmt.Sprintf("instances=%d/calls=%d", n, calls), func(b *testing.B) {
				db := redis.NewClient(&redis.Options{Addr: server.Addr})
				defer db.Close()
				if err := db.FlushAll(context.Background()).Err(); err != nil {
					b.Fatal(err)
				}
				before := figure(b, "memory", "used_memory")
				all := instances(b, db, "cost:", n)
				for i := range calls {
					c := all[i%n]
					for _, name := range []string{"session:", "record:", "carrier:main:"} {
						c.Has(name+fmt.Sprint("cs_", i), "")
					}
				}
				for db.DBSize(context.Background()).Val() < int64(3*calls) {
					time.Sleep(100 * time.Millisecond)
				}
				memory := figure(b, "memory", "used_memory") - before
				const span = 10 * time.Second
				for b.Loop() {
					from, used := figure(b, "stats", "total_commands_processed"), busy(b)
					time.Sleep(span)
					b.ReportMetric((busy(b)-used)/span.Seconds()*100, "CPU%")
					done := figure(b, "stats", "total_commands_processed") - from
					b.ReportMetric(done/span.Seconds(), "ops/s")
					b.ReportMetric(memory/float64(calls), "B/call")
				}
			})
		}
	}
}

// prompt is a carrier whose destinations pick up at once, and that tells of it.
type prompt struct {
	tell func(id string, evs ...transfer.Event)
}

func (p prompt) Dial(_ context.Context, r *transfer.Record) (string, error) {
	go p.tell(r.ID, transfer.Event{Kind: transfer.Rang, Leg: "L"}, transfer.Event{Kind: transfer.Picked, Leg: "L"},
		transfer.Event{Kind: transfer.LegIn, Leg: "L"})
	return "L", nil
}

func (p prompt) Join(_ context.Context, r *transfer.Record) error {
	go p.tell(r.ID, transfer.Event{Kind: transfer.CallerIn})
	return nil
}

func (prompt) Hangup(context.Context, *transfer.Record) error                  { return nil }
func (prompt) Settle(context.Context, *transfer.Record) error                  { return nil }
func (prompt) GiveUp(context.Context, *transfer.Record) error                  { return nil }
func (prompt) Changed(*transfer.Record, transfer.Entry)                        {}
func (prompt) Leg(context.Context, *transfer.Record) ([]transfer.Event, error) { return nil, nil }

func (prompt) Caller(context.Context, *transfer.Record) (ev transfer.Event, err error) {
	return ev, nil
}

func (prompt) Where(context.Context, *transfer.Record) (w transfer.Whereabouts, err error) {
	return w, nil
}

// BenchmarkCostTransfers is what transfers cost, from the request to the end: 100 a second,
// whose webhooks land on any instance, and those that are bridged meanwhile.
func BenchmarkCostTransfers(b *testing.B) {
	for _, n := range []int{1, 3, 10} {
		b.Run(fmt.Sprintf("instances=%d", n), func(b *testing.B) {
			db := redis.NewClient(&redis.Options{Addr: server.Addr})
			defer db.Close()
			if err := db.FlushAll(context.Background()).Err(); err != nil {
				b.Fatal(err)
			}
			ctx, stop := context.WithCancel(context.Background())
			var group sync.WaitGroup
			defer group.Wait()
			defer stop()
			var managers []*transfer.Manager
			for i, c := range instances(b, db, "cost:", n) {
				times := transfer.Defaults
				times.Instance = c.Self()
				carrier := prompt{func(id string, evs ...transfer.Event) {
					for k, ev := range evs { // at whatever instance
						_, _, _ = managers[(i+k)%n].HandleEvent(ctx, id, ev)
					}
				}}
				m := transfer.NewManager(New(db, "cost:", transfer.Tombstone, c.Members), carrier, times,
					slog.New(slog.DiscardHandler))
				managers = append(managers, m)
			}
			for _, m := range managers {
				group.Go(func() { m.Run(ctx) })
			}
			const rate, span = 100, 10 * time.Second
			for b.Loop() {
				from, used := figure(b, "stats", "total_commands_processed"), busy(b)
				began := time.Now()
				every := time.NewTicker(time.Second / rate)
				begun := 0
				var ends sync.WaitGroup
				for ; time.Since(began) < span; <-every.C {
					m := managers[begun%n]
					r, err := m.Start(ctx, transfertest.Request(fmt.Sprint("cs_", begun)))
					if err != nil {
						b.Fatal(err)
					}
					begun++
					ends.Go(func() {
						_, err := m.Wait(ctx, r.ID,
							func(r *transfer.Record) bool { return r.State == transfer.Bridged })
						if err == nil {
							_, _, err = m.HandleEvent(ctx, r.ID, transfer.Event{Kind: transfer.LegDown})
						}
						if err == nil {
							_, err = m.Wait(ctx, r.ID, func(*transfer.Record) bool { return false })
						}
						if err != nil {
							b.Error(err)
						}
					})
				}
				every.Stop()
				ends.Wait()
				done := figure(b, "stats", "total_commands_processed") - from
				b.ReportMetric(done/float64(begun), "ops/transfer")
				b.ReportMetric((busy(b)-used)/float64(begun)*1000, "CPU-ms/transfer")
				b.ReportMetric(float64(begun)/span.Seconds(), "transfers/s")
				b.ReportMetric(figure(b, "memory", "used_memory")/float64(begun), "B/transfer")
			}
		})
	}
}
