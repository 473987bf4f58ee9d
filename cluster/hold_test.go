package cluster

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// TestHold: one instance at a time does it, and another one once that has gone, or another
// holds what it held.
func TestHold(t *testing.T) {
	db := redis.NewClient(&redis.Options{Addr: server.Addr})
	defer db.Close()
	turns := make(chan string)
	begin := func(name string) (stop func()) {
		c := New(NewMembers(db, t.Name()+":", name, 900*time.Millisecond, slog.New(slog.DiscardHandler)), t.Name()+":")
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() {
			defer close(done)
			c.Hold(ctx, "x", func(ctx context.Context) {
				turns <- name
				<-ctx.Done()
				turns <- name + " ends"
			})
		}()
		return sync.OnceFunc(func() {
			cancel()
			for ended := false; !ended; {
				select {
				case <-turns:
				case <-done:
					ended = true
				}
			}
		})
	}
	stop := begin("a")
	if got := <-turns; got != "a" {
		t.Fatal(got)
	}
	other := begin("b")
	defer other()
	select {
	case got := <-turns:
		t.Fatalf("two at a time: %s", got)
	case <-time.After(100 * time.Millisecond):
	}
	stop()
	if got := <-turns; got != "b" {
		t.Fatal(got)
	}
	key := t.Name() + ":holds:{x}"
	db.Set(t.Context(), key, "c", 0) // until that is noticed
	if got := <-turns; got != "b ends" {
		t.Errorf("%s, want b ends", got)
	}
	db.Del(t.Context(), key)
	if got := <-turns; got != "b" {
		t.Errorf("%s, want b", got)
	}
	var alone *Cluster
	alone.Hold(t.Context(), "x", func(context.Context) { stop = nil })
	if stop != nil {
		t.Error("who is alone did not do it")
	}
}
