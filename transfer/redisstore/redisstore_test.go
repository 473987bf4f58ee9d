package redisstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"voicebridge/cluster"
	"voicebridge/sim/outage"
	"voicebridge/transfer"
	"voicebridge/transfer/transfertest"
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

// newStore makes a store in the real redis-server.
func newStore(t testing.TB) *Store {
	t.Helper()
	db := redis.NewClient(&redis.Options{Addr: server.Addr})
	t.Cleanup(func() { db.Close() })
	prefix := fmt.Sprintf("%s-%d:", strings.ReplaceAll(t.Name(), "/", "-"), time.Now().UnixNano())
	m := cluster.NewMembers(db, prefix, "x", time.Minute, slog.New(slog.DiscardHandler))
	return New(db, prefix, transfertest.Tombstone, m)
}

// lease sets until when an owner lives.
func lease(t *testing.T, s transfer.Store, owner string, left time.Duration) {
	t.Helper()
	r := s.(*Store)
	key := strings.TrimSuffix(r.prefix, "transfer:") + "instances"
	score := float64(time.Now().Add(left).UnixMilli())
	if err := r.db.ZAdd(t.Context(), key, redis.Z{Score: score, Member: owner}).Err(); err != nil {
		t.Fatal(err)
	}
	if err := r.members.Renew(t.Context()); err != nil { // learns of it
		t.Fatal(err)
	}
}

func TestStore(t *testing.T) {
	keys := func(t *testing.T, s transfer.Store) []string {
		all, err := s.(*Store).db.Keys(t.Context(), s.(*Store).prefix+"*").Result()
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	transfertest.Harness{
		New:  func(t *testing.T) transfer.Store { return newStore(t) },
		Live: func(t *testing.T, s transfer.Store, owner string) { lease(t, s, owner, time.Hour) },
		Die:  func(t *testing.T, s transfer.Store, owner string) { lease(t, s, owner, -time.Hour) },
		Keys: func(t *testing.T, s transfer.Store) int { return len(keys(t, s)) },
		Fading: func(t *testing.T, s transfer.Store) (n int) {
			for _, k := range keys(t, s) {
				if ttl := s.(*Store).db.PTTL(t.Context(), k).Val(); ttl > 0 && ttl <= transfertest.Tombstone {
					n++
				} else {
					t.Logf("%s is kept for %v", k, ttl)
				}
			}
			return n
		},
		Unindex: func(t *testing.T, s transfer.Store, call string) {
			s.(*Store).db.Del(t.Context(), s.(*Store).byCall(call))
		},
		Evict: func(t *testing.T, s transfer.Store, id string) {
			s.(*Store).db.Del(t.Context(), s.(*Store).context(id), s.(*Store).events(id))
		},
	}.Run(t, func(t *testing.T, test func(t *testing.T)) { test(t) })
}

// TestKeys: those of one call are in one slot of a Cluster, and the keys of design.md.
func TestKeys(t *testing.T) {
	s := &Store{prefix: "vb:transfer:"}
	id := transfer.NewID("cs_abc")
	for _, key := range []string{s.context(id), s.byCall("cs_abc"), s.events(id), s.step(id, "dial")} {
		if !strings.Contains(key, "{abc}") || strings.Count(key, "{") != 1 {
			t.Errorf("%s has another hash tag", key)
		}
	}
	for i, begin := range []string{"vb:transfer:context:tr_", "vb:transfer:by_call_sid:cs_", "vb:transfer:events:tr_"} {
		if key := s.keys(id, "cs_abc")[i]; !strings.HasPrefix(key, begin) {
			t.Errorf("%s, want %s…", key, begin)
		}
	}
}

// TestAway: a database that is away gives an error at once, and nothing else.
func TestAway(t *testing.T) {
	db := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", MaxRetries: -1})
	defer db.Close()
	s := New(db, "x:", time.Minute, cluster.NewMembers(db, "x:", "x", time.Minute, slog.New(slog.DiscardHandler)))
	r := transfertest.Record("cs_1", 1)
	ctx := t.Context()
	_, _, load := s.Load(ctx, r.ID)
	_, byCall := s.ByCall(ctx, "cs_1")
	_, log := s.Log(ctx, r.ID, 0)
	_, step := s.Step(ctx, r, transfer.StepDial)
	for name, err := range map[string]error{"create": s.Create(ctx, r), "load": load, "by call": byCall, "log": log,
		"step": step, "move": s.Move(ctx, r, r, transfer.Begin), "restore": s.Restore(ctx, r)} {
		if err == nil || errors.Is(err, transfer.ErrNotFound) || errors.Is(err, transfer.ErrConflict) ||
			!strings.Contains(err.Error(), "transfer: store: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestUntouched: what nobody takes up, because the request came to the database after its owner
// had given it up, is gone soon, and in no other transfer's way.
func TestUntouched(t *testing.T) {
	s := newStore(t)
	r := transfertest.Record("cs_1", 1)
	if err := s.Create(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	kept := func(least, most time.Duration) {
		t.Helper()
		for _, key := range s.keys(r.ID, r.Call) {
			if ttl := s.db.PTTL(t.Context(), key).Val(); ttl <= least || ttl > most {
				t.Errorf("%s is kept for %v", key, ttl)
			}
		}
	}
	kept(0, transfer.KeepNew)
	after := *r
	after.State, after.Version = transfer.Dialing, r.Version+1
	if err := s.Move(t.Context(), r, &after, transfer.Begin); err != nil {
		t.Fatal(err)
	}
	kept(transfer.KeepLive-time.Minute, transfer.KeepLive)
}

// TestOwnedAgain: after a failover the set of what an instance has is written again.
func TestOwnedAgain(t *testing.T) {
	s := newStore(t)
	r := transfertest.Record("cs_1", 1)
	r.Owner = s.members.Self()
	if err := s.Create(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	s.db.Del(t.Context(), s.set(r.Owner))
	s.failovers-- // as if one more had been noticed
	if err := s.Renew(t.Context(), r.Owner, time.Minute); err != nil {
		t.Fatal(err)
	}
	if ids := s.db.SMembers(t.Context(), s.set(r.Owner)).Val(); len(ids) != 1 || ids[0] != r.ID {
		t.Errorf("%v", ids)
	}
}

// TestFinished: what an instance does not act for any more leaves its set, though the store
// was away then.
func TestFinished(t *testing.T) {
	s := newStore(t)
	self := s.members.Self()
	left := func(want ...string) {
		t.Helper()
		if got := s.db.SMembers(t.Context(), s.set(self)).Val(); !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	}
	r := transfertest.Record("cs_1", 1)
	r.Owner = self
	if err := s.Create(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	gone, stop := context.WithCancel(t.Context())
	stop()
	s.Finished(gone, self, r.ID)
	left(r.ID)
	if err := s.Renew(t.Context(), self, time.Minute); err != nil {
		t.Fatal(err)
	}
	left()
	s.db.SAdd(t.Context(), s.set(self), "tr_1_stale") // a failover has brought it back
	s.failovers--
	if err := s.Renew(t.Context(), self, time.Minute); err != nil {
		t.Fatal(err)
	}
	left()
}

// mute is a connection on which the answer to one take-over is lost.
type mute struct{ lost atomic.Bool }

func (m *mute) DialHook(next redis.DialHook) redis.DialHook { return next }

func (m *mute) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (m *mute) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if args := cmd.Args(); err == nil && len(args) > 1 && args[1] == claimScript.Hash() &&
			m.lost.CompareAndSwap(false, true) {
			err = errors.New("the answer is lost")
			cmd.SetErr(err)
		}
		return err
	}
}

// TestClaimAnswerLost: a transfer that was taken over without an answer has an owner who
// acts for it.
func TestClaimAnswerLost(t *testing.T) {
	s := newStore(t)
	r := transfertest.Record("cs_1", 1)
	r.Owner = "dead"
	if err := s.Create(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	self := s.members.Self()
	if err := claimScript.Load(t.Context(), s.db).Err(); err != nil {
		t.Fatal(err)
	}
	s.db.AddHook(new(mute))
	if _, err := s.claim(t.Context(), r.ID, "dead", self); err == nil {
		t.Fatal("the answer is not lost")
	}
	list, err := s.Claim(t.Context(), self, 10)
	if err != nil || len(list) != 1 || list[0].Owner != self {
		t.Fatalf("%v, %v", list, err)
	}
	if again, err := s.claim(t.Context(), r.ID, "dead", self); again != nil || err != nil {
		t.Errorf("%v, %v", again, err)
	}
	if ids := s.db.SMembers(t.Context(), s.set(self)).Val(); len(ids) != 1 {
		t.Errorf("it is not in the set of its owner: %v", ids)
	}
	// One that is over, or somebody else's, does not stay in the set.
	gone, stop := context.WithCancel(t.Context())
	stop()
	if _, err := s.claim(gone, "tr_2_x", "dead", self); err == nil {
		t.Fatal("it was looked for")
	}
	if list, err := s.Claim(t.Context(), self, 10); len(list) != 0 || err != nil {
		t.Errorf("%v, %v", list, err)
	}
	if ids := s.differing(); len(ids) != 1 {
		t.Errorf("owned: %v", ids)
	}
}

// differing is all that the store takes to be this instance's.
func (s *Store) differing() []any {
	known, _ := s.differ(nil)
	return known
}
