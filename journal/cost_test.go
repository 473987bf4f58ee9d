package journal

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"voicebridge/calls"
	"voicebridge/providers"
)

// figure sums figures that Redis tells of itself.
func figure(b *testing.B, section string, names ...string) float64 {
	b.Helper()
	sum, err := server.Figure(section, names...)
	if err != nil {
		b.Fatal(err)
	}
	return sum
}

// BenchmarkCost is what calls cost the database, measured with a real redis-server: five
// events from begin to end, and what is kept of each while it lives.
//
//	go test ./journal -run '^$' -bench Cost -benchtime 20000x
func BenchmarkCost(b *testing.B) {
	db := redis.NewClient(&redis.Options{Addr: server.Addr})
	defer db.Close()
	if err := db.FlushAll(context.Background()).Err(); err != nil {
		b.Fatal(err)
	}
	book := calls.New(time.Now)
	j := Shared(book, db, "cost:", "a", slog.New(slog.DiscardHandler))
	ctx, stop := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() { j.Run(ctx) })
	written := func(n int) {
		for {
			if info, err := db.XInfoStream(ctx, j.prefix).Result(); err == nil && info.EntriesAdded >= int64(n) {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}
	ops, cpu := figure(b, "stats", "total_commands_processed"),
		figure(b, "cpu", "used_cpu_user", "used_cpu_sys")
	memory := figure(b, "memory", "used_memory")
	b.ResetTimer()
	var ids []string
	for i := range b.N {
		call := book.Add(calls.Call{Account: "main", Provider: "twilio", CarrierID: fmt.Sprintf("CA%032d", i),
			Direction: calls.Inbound, From: "+15550100123", To: "+15550100999"})
		book.Answered(call.ID)
		book.Began(call.ID)
		ids = append(ids, call.ID)
		if i%100 == 99 { // a book keeps only so many events for those who are slow
			written(3 * (i + 1))
		}
	}
	written(3 * b.N)
	live := figure(b, "memory", "used_memory") - memory
	for i, id := range ids {
		book.StreamEnded(id, "carrier", false)
		book.Report(id, &providers.CallEvent{Kind: providers.CallProgress, Status: providers.StatusCompleted})
		if i%100 == 99 {
			written(3*b.N + 2*(i+1))
		}
	}
	written(5 * b.N)
	n := float64(b.N)
	b.ReportMetric((figure(b, "stats", "total_commands_processed")-ops)/n, "ops/call")
	b.ReportMetric((figure(b, "cpu", "used_cpu_user", "used_cpu_sys")-cpu)/n*1000, "CPU-ms/call")
	b.ReportMetric(live/n, "B/call")
	stop()
	group.Wait()
}
