package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"
	"voicebridge/sim/outage"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"
)

var server *outage.Redis

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "redis")
	if err != nil {
		panic(err)
	}
	if server, err = outage.StartRedis(context.Background(), dir); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = server.Stop()
		_ = os.RemoveAll(dir)
		os.Exit(code)
	}))
}

const testLease = 400 * time.Millisecond

// member takes part until stop, or the end of the test.
func member(t *testing.T, addr, name string, handle Handler) (c *Cluster, stop func()) {
	t.Helper()
	db := redis.NewClient(&redis.Options{Addr: addr, MaxRetries: -1, ContextTimeoutEnabled: true})
	c = New(db, "{"+t.Name()+"}:", name, testLease, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); c.Run(ctx, handle) }()
	stop = sync.OnceFunc(func() { cancel(); <-done; db.Close() })
	t.Cleanup(stop)
	return c, stop
}

// becomes waits until something is as it should be.
func becomes(t *testing.T, what string, is func() bool) {
	t.Helper()
	for limit := time.Now().Add(10 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("%s: not so", what)
		}
	}
}

// TestDirectory: what one instance has, others find, for as long as it lives.
func TestDirectory(t *testing.T) {
	a, stopA := member(t, server.Addr, "a", nil)
	b, _ := member(t, server.Addr, "b", nil)
	where := func(c *Cluster, name string) string {
		w, err := c.Where(t.Context(), name)
		if err != nil {
			t.Error(err)
		}
		return w
	}
	a.Has("session:1", "")
	a.Has("carrier:x", "cs_1")
	becomes(t, "found", func() bool { return where(b, "session:1") == "a" && where(b, "carrier:x") == "a" })
	if w := where(a, "session:1"); w != "" {
		t.Errorf("its own call is at %q", w)
	}
	if note, err := b.Note(t.Context(), "carrier:x"); note != "cs_1" || err != nil {
		t.Errorf("%q, %v", note, err)
	}
	a.Lost("session:1", "agent_hangup")
	becomes(t, "lost", func() bool { return where(b, "session:1") == "" })
	if note, err := b.Note(t.Context(), "session:1"); note != "agent_hangup" || err != nil {
		t.Errorf("the last note: %q, %v", note, err)
	}
	b.Has("session:1", "") // it comes again, elsewhere
	becomes(t, "there", func() bool { return where(a, "session:1") == "b" })
	a.mu.Lock()
	a.had["session:1"] = "transferred" // as a stream that lingers
	a.mu.Unlock()
	a.tellOf("session:1")
	becomes(t, "the old one is over", func() bool { a.mu.Lock(); defer a.mu.Unlock(); return len(a.had) == 0 })
	time.Sleep(2 * testLease) // in real time: so is the lease
	if where(b, "carrier:x") != "a" || where(a, "session:1") != "b" {
		t.Error("forgotten although they live")
	}
	stopA()
	becomes(t, "dead", func() bool { return where(b, "carrier:x") == "" })
	a.Lost("never:had", "x")
	if note, err := b.Note(t.Context(), "never:had"); note != "" || err != nil {
		t.Errorf("%q, %v", note, err)
	}
	var none *Cluster
	none.Has("x", "")
	none.Lost("x", "")
	if w, err := none.Where(t.Context(), "x"); w != "" || err != nil || !none.First("n", time.Now().Add(time.Minute)) {
		t.Error("an instance alone")
	}
}

// TestAsk: a request is answered by the instance that it is for; one that is dead,
// or slow, or fails, is told apart.
func TestAsk(t *testing.T) {
	leave := make(chan struct{})
	a, _ := member(t, server.Addr, "a", func(ctx context.Context, kind string, body json.RawMessage) (any, error) {
		switch kind {
		case "double":
			var n int
			if err := json.Unmarshal(body, &n); err != nil {
				return nil, err
			}
			return 2 * n, nil
		case "hang":
			select {
			case <-leave:
			case <-ctx.Done():
			}
		}
		return nil, errors.New("unknown " + kind)
	})
	b, _ := member(t, server.Addr, "b", func(context.Context, string, json.RawMessage) (any, error) { return nil, nil })
	ask := func(c *Cluster, ctx context.Context, to, kind string) (n int, err error) {
		err = c.Ask(ctx, to, kind, 21, &n)
		return n, err
	}
	becomes(t, "both listen", func() bool {
		n, err := ask(b, t.Context(), "a", "double")
		_, err2 := ask(a, t.Context(), "b", "x")
		return err == nil && n == 42 && err2 == nil
	})
	var remote RemoteError
	if _, err := ask(b, t.Context(), "a", "else"); !errors.As(err, &remote) || remote != "unknown else" {
		t.Errorf("%v", err)
	}
	if _, err := ask(b, t.Context(), "nobody", "double"); !errors.Is(err, ErrNobody) {
		t.Errorf("%v", err)
	}
	ctx, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	if _, err := ask(b, ctx, "a", "hang"); !errors.Is(err, ErrNoAnswer) {
		t.Errorf("%v", err)
	}
	close(leave)
	var group sync.WaitGroup
	for range 50 {
		group.Go(func() {
			if n, err := ask(b, context.Background(), "a", "double"); n != 42 || err != nil {
				t.Errorf("%d, %v", n, err)
			}
		})
	}
	group.Wait()
	if len(b.pending) > 0 {
		t.Errorf("%d requests are left", len(b.pending))
	}
	// Nonsense on the channel harms nobody.
	a.db.Publish(t.Context(), a.channel("a"), "{")
	a.db.Publish(t.Context(), a.channel("a"), `{"id":"x"}`)
	if n, err := ask(b, t.Context(), "a", "double"); n != 42 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}

// TestFirst: a token is good once on all instances together; a database that is
// away delays nobody for long, and each instance then knows of its own tokens only.
func TestFirst(t *testing.T) {
	proxy, err := outage.NewProxy(server.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Close)
	a, stopA := member(t, proxy.Addr, "a", nil)
	b, stopB := member(t, server.Addr, "b", nil)
	until := time.Now().Add(time.Minute)
	if !a.First("one", until) || b.First("one", until) || a.First("one", until) || !b.First("two", until) {
		t.Error("not good just once")
	}
	proxy.Cut()
	began := time.Now()
	for range 100 {
		if !a.First("three", until) {
			t.Error("refused without knowing")
		}
	}
	if d := time.Since(began); d > 2*time.Second {
		t.Errorf("100 tokens took %v", d)
	}
	proxy.Mend()
	stopA()
	stopB()
}

// FuzzEnvelope: whatever is published, an instance goes on.
func FuzzEnvelope(f *testing.F) {
	f.Add([]byte(`{"id":"x","from":"b","kind":"api","body":{"a":1}}`))
	f.Add([]byte(`{"id":"x","error":"no"}`))
	db := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"})
	f.Cleanup(func() { db.Close() })
	c := New(db, "{x}:", "a", time.Second, slog.New(slog.DiscardHandler))
	f.Fuzz(func(t *testing.T, b []byte) {
		var e envelope
		if json.Unmarshal(b, &e) == nil && e.Kind == "" {
			c.answered(&e)
		}
	})
}
