package transfer

import (
	"context"
	_ "embed" // the scripts
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// The scripts say what their keys, arguments and answers are.
var (
	//go:embed lua/create.lua
	createLua string
	//go:embed lua/load.lua
	loadLua string
	//go:embed lua/move.lua
	moveLua string
	//go:embed lua/step.lua
	stepLua string
	//go:embed lua/renew.lua
	renewLua string
	//go:embed lua/expired.lua
	expiredLua string
	//go:embed lua/claim.lua
	claimLua string

	createScript, loadScript, moveScript = redis.NewScript(createLua), redis.NewScript(loadLua),
		redis.NewScript(moveLua)
	stepScript, renewScript    = redis.NewScript(stepLua), redis.NewScript(renewLua)
	expiredScript, claimScript = redis.NewScript(expiredLua), redis.NewScript(claimLua)
)

// Redis is the Store of several instances.
//
// Its keys, behind the prefix, are those of the system that this project descends
// from: transfer:context:ID (a hash with one field each), transfer:by_call_sid:CALL
// (the id of the call's live transfer), transfer:events:ID (a stream, the log),
// transfer:step:ID:STEP, and transfer:live (a sorted set: until when each owner has
// its transfer). All have one hash tag, so that one slot of a cluster holds them.
type Redis struct {
	db        redis.UniversalClient
	prefix    string
	tombstone time.Duration
}

// NewRedis makes a store in a database. The prefix must hold a hash tag, as in
// "{voicebridge}:".
func NewRedis(db redis.UniversalClient, prefix string, tombstone time.Duration) *Redis {
	return &Redis{db: db, prefix: prefix + "transfer:", tombstone: tombstone}
}

func (s *Redis) context(id string) string  { return s.prefix + "context:" + id }
func (s *Redis) byCall(call string) string { return s.prefix + "by_call_sid:" + call }
func (s *Redis) events(id string) string   { return s.prefix + "events:" + id }
func (s *Redis) step(id, step string) string {
	return s.prefix + "step:" + id + ":" + step
}
func (s *Redis) live() string { return s.prefix + "live" }
func (s *Redis) wake() string { return s.prefix + "wake" }

// keys are those of one transfer, in the order of the scripts.
func (s *Redis) keys(id, call string) []string {
	return []string{s.context(id), s.byCall(call), s.events(id), s.live(), s.step(id, stepDial)}
}

// pairs appends name and value of each field.
func pairs(args []any, m map[string]string) []any {
	for k, v := range m {
		args = append(args, k, v)
	}
	return args
}

// Create implements Store.
func (s *Redis) Create(ctx context.Context, r *Record, lease time.Duration) error {
	r.begin(0)
	args := pairs([]any{r.ID, lease.Milliseconds(), keepLive.Milliseconds(), times[Requested].Milliseconds(), s.wake()},
		r.store())
	got, err := createScript.Run(ctx, s.db, s.keys(r.ID, r.Call)[:4], args...).Slice()
	if err != nil {
		return fmt.Errorf("transfer: store: create: %w", err)
	}
	if busy, _ := got[0].(string); busy != "" {
		return &BusyError{busy}
	}
	now, _ := got[1].(int64)
	r.begin(now)
	return nil
}

// hash reads what HGETALL gives to a script.
func hash(v any) map[string]string {
	list, _ := v.([]any)
	m := map[string]string{}
	for i := 0; i+1 < len(list); i += 2 {
		k, _ := list[i].(string)
		m[k], _ = list[i+1].(string)
	}
	return m
}

// Load implements Store.
func (s *Redis) Load(ctx context.Context, id string) (*Record, int64, error) {
	got, err := loadScript.Run(ctx, s.db, []string{s.context(id)}).Slice()
	if err != nil {
		return nil, 0, fmt.Errorf("transfer: store: load: %w", err)
	}
	now, _ := got[0].(int64)
	m := hash(got[1])
	if len(m) == 0 {
		return nil, now, ErrNotFound
	}
	r, err := load(m)
	return r, now, err
}

// ByCall implements Store.
func (s *Redis) ByCall(ctx context.Context, call string) (string, error) {
	id, err := s.db.Get(ctx, s.byCall(call)).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return "", fmt.Errorf("transfer: store: by call: %w", err)
	}
	return id, nil
}

// Move implements Store.
func (s *Redis) Move(ctx context.Context, before, after *Record, kind Kind) error {
	final, keep := 0, keepLive
	if after.State.Final() {
		final, keep = 1, s.tombstone
	}
	args := pairs([]any{after.ID, before.Version, before.Fence, after.Version, final, keep.Milliseconds(), s.wake(),
		string(kind), string(after.State), after.Reason, after.Updated}, changes(before, after))
	got, err := moveScript.Run(ctx, s.db, s.keys(after.ID, after.Call), args...).Text()
	if err != nil {
		return fmt.Errorf("transfer: store: move: %w", err)
	}
	return answered(got)
}

// answered is the error that a script's answer means.
func answered(word string) error {
	switch word {
	case "none":
		return ErrNotFound
	case "conflict":
		return ErrConflict
	}
	return nil
}

// Log implements Store.
func (s *Redis) Log(ctx context.Context, id string, after int64) ([]Entry, error) {
	got, err := s.db.XRange(ctx, s.events(id), strconv.FormatInt(after+1, 10)+"-0", "+").Result()
	if err != nil {
		return nil, fmt.Errorf("transfer: store: log: %w", err)
	}
	var list []Entry
	for _, m := range got {
		text := func(k string) string { v, _ := m.Values[k].(string); return v }
		var e Entry
		_, err := fmt.Sscanf(m.ID+" "+text("fence")+" "+text("at"), "%d-0 %d %d", &e.Version, &e.Fence, &e.At)
		if err != nil {
			return nil, fmt.Errorf("transfer: store: log entry %s: %w", m.ID, err)
		}
		e.Kind, e.State, e.Reason = Kind(text("kind")), State(text("state")), text("reason")
		list = append(list, e)
	}
	return list, nil
}

// Step implements Store.
func (s *Redis) Step(ctx context.Context, r *Record, step string) (bool, error) {
	got, err := stepScript.Run(ctx, s.db, []string{s.step(r.ID, step), s.context(r.ID)}, r.Fence,
		keepLive.Milliseconds()).Text()
	if err != nil {
		return false, fmt.Errorf("transfer: store: step: %w", err)
	}
	return got == "first", answered(got)
}

// Renew implements Store.
func (s *Redis) Renew(ctx context.Context, r *Record, lease time.Duration) (bool, error) {
	n, err := renewScript.Run(ctx, s.db, s.keys(r.ID, r.Call), r.ID, r.Fence, lease.Milliseconds(),
		keepLive.Milliseconds()).Int()
	if err != nil {
		return false, fmt.Errorf("transfer: store: renew: %w", err)
	}
	return n == 1, nil
}

// Claim implements Store.
func (s *Redis) Claim(ctx context.Context, owner string, lease time.Duration, limit int) ([]*Record, error) {
	ids, err := expiredScript.Run(ctx, s.db, []string{s.live()}, limit).StringSlice()
	if err != nil {
		return nil, fmt.Errorf("transfer: store: expired: %w", err)
	}
	var list []*Record
	for _, id := range ids {
		call, err := s.db.HGet(ctx, s.context(id), "call").Result()
		if err != nil && !errors.Is(err, redis.Nil) {
			return list, fmt.Errorf("transfer: store: claim: %w", err)
		}
		got, err := claimScript.Run(ctx, s.db, s.keys(id, call), id, owner, lease.Milliseconds(),
			keepLive.Milliseconds(), s.wake()).Result()
		if err != nil {
			return list, fmt.Errorf("transfer: store: claim: %w", err)
		}
		m := hash(got)
		if len(m) == 0 { // another instance was quicker
			continue
		}
		r, err := load(m)
		if err != nil {
			return list, err
		}
		list = append(list, r)
	}
	return list, nil
}

// Wakes implements Store.
func (s *Redis) Wakes(ctx context.Context) <-chan string {
	c := make(chan string, 64)
	go func() {
		defer close(c)
		sub := s.db.Subscribe(ctx, s.wake()) // it connects again by itself
		defer sub.Close()
		messages := sub.Channel()
		for {
			select {
			case m, ok := <-messages:
				if !ok {
					return
				}
				select {
				case c <- m.Payload:
				default:
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return c
}
