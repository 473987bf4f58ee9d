package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

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

// testLease is long: in no test is it waited for.
const testLease = 30 * time.Second

// member takes part until stop, or the end of the test.
func member(t *testing.T, addr, name string, handle Handler) (c *Cluster, stop func()) {
	t.Helper()
	db := redis.NewClient(&redis.Options{Addr: addr, MaxRetries: -1, ContextTimeoutEnabled: true})
	c = New(NewMembers(db, t.Name()+":", name, testLease, slog.New(slog.DiscardHandler)), t.Name()+":")
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
	limit, again := time.After(time.Minute), time.NewTicker(5*time.Millisecond)
	defer again.Stop()
	for !is() {
		select {
		case <-again.C:
		case <-limit:
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
	becomes(t, "found", func() bool { return where(b, "session:1") == a.Self() && where(b, "carrier:x") == a.Self() })
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
	becomes(t, "there", func() bool { return where(a, "session:1") == b.Self() })
	a.mu.Lock()
	a.had["session:1"] = "transferred" // as a stream that lingers
	a.mu.Unlock()
	a.tellOf("session:1")
	becomes(t, "the old one is over", func() bool { a.mu.Lock(); defer a.mu.Unlock(); return len(a.had) == 0 })
	// They are written once, and not again before the end.
	for _, name := range []string{"carrier:x", "session:1"} {
		if ttl := a.db.PTTL(t.Context(), a.entry(name)).Val(); ttl < 24*time.Hour {
			t.Errorf("%s is forgotten after %v", name, ttl)
		}
	}
	stopA()
	if err := b.Renew(t.Context()); err != nil { // it learns of that
		t.Fatal(err)
	}
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
		n, err := ask(b, t.Context(), a.Self(), "double")
		_, err2 := ask(a, t.Context(), b.Self(), "x")
		return err == nil && n == 42 && err2 == nil
	})
	var remote RemoteError
	if _, err := ask(b, t.Context(), a.Self(), "else"); !errors.As(err, &remote) || remote != "unknown else" {
		t.Errorf("%v", err)
	}
	if _, err := ask(b, t.Context(), "nobody", "double"); !errors.Is(err, ErrNobody) {
		t.Errorf("%v", err)
	}
	ctx, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	if _, err := ask(b, ctx, a.Self(), "hang"); !errors.Is(err, ErrNoAnswer) {
		t.Errorf("%v", err)
	}
	close(leave)
	var group sync.WaitGroup
	for range 50 {
		group.Go(func() {
			if n, err := ask(b, context.Background(), a.Self(), "double"); n != 42 || err != nil {
				t.Errorf("%d, %v", n, err)
			}
		})
	}
	group.Wait()
	if len(b.pending) > 0 {
		t.Errorf("%d requests are left", len(b.pending))
	}
	// Nonsense on the channel harms nobody.
	a.db.SPublish(t.Context(), a.channel(a.Self()), "{")
	a.db.SPublish(t.Context(), a.channel(a.Self()), `{"id":"x"}`)
	if n, err := ask(b, t.Context(), a.Self(), "double"); n != 42 || err != nil {
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
	if b.Unused("one"); !a.First("one", until) {
		t.Error("what was not used is not good")
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

// TestAskAgain: a request whose message is lost is sent again, and one that comes twice is
// handled once.
func TestAskAgain(t *testing.T) {
	handled := make(chan string, 10)
	a, _ := member(t, server.Addr, "a", func(_ context.Context, kind string, _ json.RawMessage) (any, error) {
		handled <- kind
		return "done", nil
	})
	b, _ := member(t, server.Addr, "b", nil)
	becomes(t, "b listens", func() bool {
		n, err := a.db.PubSubShardNumSub(t.Context(), b.channel(b.Self())).Result()
		return err == nil && n[b.channel(b.Self())] == 1
	})
	becomes(t, "a listens", func() bool {
		n, err := a.db.PubSubShardNumSub(t.Context(), a.channel(a.Self())).Result()
		return err == nil && n[a.channel(a.Self())] == 1
	})
	e := envelope{ID: "same", Kind: "x", From: b.Self()}
	got := make(chan []byte, 2)
	b.mu.Lock()
	b.pending["same"] = got
	b.mu.Unlock()
	for range 2 {
		if err := b.send(t.Context(), a.Self(), e, nil); err != nil {
			t.Fatal(err)
		}
		<-got // each is answered
	}
	if len(handled) != 1 {
		t.Errorf("handled %d times", len(handled))
	}
}

// TestMembers: who lives is known by the lease alone; whoever leaves is dead at once, and
// so is the process before, of the same name.
func TestMembers(t *testing.T) {
	db := redis.NewClient(&redis.Options{Addr: server.Addr})
	defer db.Close()
	at := func(name string) *Members {
		m := NewMembers(db, t.Name()+":", name, testLease, slog.New(slog.DiscardHandler))
		if err := m.Renew(t.Context()); err != nil {
			t.Fatal(err)
		}
		return m
	}
	a, again, b := at("a"), at("a"), at("b")
	if !b.Alive(t.Context(), a.Self()) || !b.Alive(t.Context(), again.Self()) || a.Self() == again.Self() {
		t.Error("two processes of one name are not two members")
	}
	a.leave(t.Context())
	if err := b.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	if b.Alive(t.Context(), a.Self()) || !slices.Equal(b.Dead(), []string{a.Self()}) ||
		b.Alive(t.Context(), "nobody.x") {
		t.Errorf("dead are %v", b.Dead())
	}
	// A failover: nobody is taken to be dead, for the lease may just have been lost.
	b.mu.Lock()
	b.histories[""] = "another"
	b.mu.Unlock()
	if err := b.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	if b.Failovers() != 1 || len(b.Dead()) != 0 || !b.Alive(t.Context(), a.Self()) {
		t.Errorf("%d failovers, dead are %v", b.Failovers(), b.Dead())
	}
	b.trust = time.Time{}
	if err := b.Forget(t.Context(), a.Self()); err != nil || len(b.Dead()) != 0 {
		t.Errorf("%v, dead are %v", err, b.Dead())
	}
	if n := db.ZCard(t.Context(), t.Name()+":instances").Val(); n != 2 {
		t.Errorf("%d instances are known", n)
	}
}

// TestEvicts: a database that may throw away what it is to keep is told of, once.
func TestEvicts(t *testing.T) {
	db := redis.NewClient(&redis.Options{Addr: server.Addr})
	defer db.Close()
	var log bytes.Buffer
	m := NewMembers(db, t.Name()+":", "a", testLease, slog.New(slog.NewTextHandler(&log, nil)))
	renew := func(policy string, lines int) {
		t.Helper()
		if err := db.ConfigSet(t.Context(), "maxmemory-policy", policy).Err(); err != nil {
			t.Fatal(err)
		}
		if err := m.Renew(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(log.String(), "maxmemory-policy"); n != lines {
			t.Errorf("%s: %d lines of log: %s", policy, n, &log)
		}
	}
	renew("noeviction", 0)
	renew("allkeys-lru", 1)
	renew("volatile-ttl", 1)
	renew("noeviction", 1)
}

// TestWrittenAgain: what a failover may have lost of the directory is written again.
func TestWrittenAgain(t *testing.T) {
	a, _ := member(t, server.Addr, "a", nil)
	a.Has("session:1", "x")
	there := func() bool { return a.db.Exists(t.Context(), a.entry("session:1")).Val() == 1 }
	becomes(t, "written", there)
	a.db.Del(t.Context(), a.entry("session:1"))
	a.tellAll()
	becomes(t, "written again", there)
}

// FuzzEnvelope: whatever is published, an instance goes on.
func FuzzEnvelope(f *testing.F) {
	f.Add([]byte(`{"id":"x","from":"b","kind":"api","body":{"a":1}}`))
	f.Add([]byte(`{"id":"x","error":"no"}`))
	db := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"})
	f.Cleanup(func() { db.Close() })
	c := New(NewMembers(db, "x:", "a", time.Second, slog.New(slog.DiscardHandler)), "x:")
	f.Fuzz(func(t *testing.T, b []byte) {
		var e envelope
		if json.Unmarshal(b, &e) == nil && e.Kind == "" {
			c.answered(&e)
		}
	})
}

// TestAskerGone: that one request was given up says nothing of the database.
func TestAskerGone(t *testing.T) {
	a, _ := member(t, server.Addr, "a", nil)
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := a.Where(gone, "x"); err == nil {
		t.Error("an answer for nobody")
	}
	if _, err := a.Where(t.Context(), "x"); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}
