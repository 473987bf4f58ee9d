package background

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestInOrder: what has the same key is done one after the other, all else beside it, each
// for a bounded time; a panic ends one thing only, and Stop waits for all.
func TestInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var got []string
		note := func(what string) {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, what)
		}
		w := New(func(string) {
			if recover() != nil {
				note("panic")
			}
		})
		add := func(key, what string, takes time.Duration) {
			w.InOrder(key, func(context.Context) { time.Sleep(takes); note(what) })
		}
		add("a", "a1", 2*time.Second)
		add("b", "b1", time.Second)
		w.InOrder("a", func(context.Context) { panic("a2") })
		add("a", "a3", 0)
		w.Later(func(ctx context.Context) { <-ctx.Done(); note("late") })
		begun := time.Now()
		w.Stop()
		if fmt.Sprint(got) != "[b1 a1 panic a3 late]" || time.Since(begun) != Time {
			t.Errorf("done: %v after %v", got, time.Since(begun))
		}
		w.Later(func(context.Context) { note("too late") })
		add("c", "too late", 0)
		w.Stop()
		if len(got) != 5 {
			t.Errorf("done after the end: %v", got)
		}
	})
}
