// Package redisstore is the transfer.Store of several instances.
package redisstore

import (
	"context"
	_ "embed" // the scripts
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"voicebridge/cluster"
	"voicebridge/transfer"
)

// The scripts say what their keys, arguments and answers are.
var (
	//go:embed lua/create.lua
	createLua string
	//go:embed lua/load.lua
	loadLua string
	//go:embed lua/move.lua
	moveLua string
	//go:embed lua/restore.lua
	restoreLua string
	//go:embed lua/step.lua
	stepLua string
	//go:embed lua/claim.lua
	claimLua string

	createScript, loadScript, moveScript = redis.NewScript(createLua), redis.NewScript(loadLua),
		redis.NewScript(moveLua)
	restoreScript, stepScript, claimScript = redis.NewScript(restoreLua), redis.NewScript(stepLua),
		redis.NewScript(claimLua)
)

// Store keeps transfers in Redis.
//
// Its keys, behind the prefix, are those of the system that this project descends
// from: transfer:context:ID (a hash with one field each), transfer:by_call_sid:CALL
// (the id of the call's live transfer), transfer:events:ID (a stream, the log) and
// transfer:step:ID:STEP. All of one call have the call's own hash tag, so that they are
// in one slot of a Cluster, and the calls in all of them: ID is tr_{CALL}_RANDOM there.
// Beside them is transfer:owned:{INSTANCE}, the set of what an instance acts for, which
// is looked at when it is dead.
//
// Nothing is written for a transfer at rest: an owner has what it has for as long as its
// instance is a member.
type Store struct {
	db        redis.UniversalClient
	prefix    string
	tombstone time.Duration
	members   *cluster.Members

	mu    sync.Mutex
	owned map[string]struct{} // by this instance
	left  map[string]string   // that are still to be taken out of an owner's set, by id
	// of which it is not known whether they were taken over: whether they were owned before
	unsure    map[string]bool
	failovers int // that the set of them was compared after
	compared  time.Time
}

// New makes a store in a database.
func New(db redis.UniversalClient, prefix string, tombstone time.Duration, members *cluster.Members) *Store {
	return &Store{db: db, prefix: prefix + "transfer:", tombstone: tombstone, members: members,
		owned: map[string]struct{}{}, left: map[string]string{}, unsure: map[string]bool{}}
}

// tagged is an id of a transfer with the hash tag of its call.
func tagged(id string) string {
	rest := strings.TrimPrefix(id, "tr_")
	call, random, _ := strings.Cut(rest, "_")
	return "tr_{" + call + "}_" + random
}

// callTag is the hash tag of a call: that of transfer.NewID.
func callTag(call string) string { return "cs_{" + transfer.CallPart(call) + "}" }

func (s *Store) context(id string) string  { return s.prefix + "context:" + tagged(id) }
func (s *Store) byCall(call string) string { return s.prefix + "by_call_sid:" + callTag(call) }
func (s *Store) events(id string) string   { return s.prefix + "events:" + tagged(id) }
func (s *Store) step(id, step string) string {
	return s.prefix + "step:" + tagged(id) + ":" + step
}
func (s *Store) set(owner string) string  { return s.prefix + "owned:{" + owner + "}" }
func (s *Store) wake(owner string) string { return s.prefix + "wake:{" + owner + "}" }

// keys are those of one transfer, in the order of the scripts.
func (s *Store) keys(id, call string) []string {
	return []string{s.context(id), s.byCall(call), s.events(id)}
}

// pairs appends name and value of each field.
func pairs(args []any, m map[string]string) []any {
	for k, v := range m {
		args = append(args, k, v)
	}
	return args
}

// Create implements transfer.Store. The set of the owner comes first: what is in it and
// is not stored harms nobody, what is stored and not in it would have no heir.
func (s *Store) Create(ctx context.Context, r *transfer.Record) error {
	r.Begin(0)
	if err := s.own(ctx, r.Owner, r.ID); err != nil {
		return err
	}
	key := s.context(r.ID)
	args := pairs([]any{r.ID, transfer.KeepNew.Milliseconds(), r.Due, key[:strings.LastIndexByte(key, '_')+1]},
		hashOf(r))
	got, err := createScript.Run(ctx, s.db, s.keys(r.ID, r.Call), args...).Slice()
	if err != nil {
		return fmt.Errorf("transfer: store: create: %w", err)
	}
	if busy, _ := got[0].(string); busy != "" {
		s.disown(ctx, r.Owner, r.ID)
		return &transfer.BusyError{ID: busy}
	}
	now, _ := got[1].(int64)
	r.Begin(now)
	return nil
}

// own notes what an instance acts for.
func (s *Store) own(ctx context.Context, owner, id string) error {
	if owner == s.members.Self() {
		s.mu.Lock()
		s.owned[id] = struct{}{}
		s.mu.Unlock()
	}
	if err := s.add(ctx, owner, id); err != nil {
		return fmt.Errorf("transfer: store: own: %w", err)
	}
	return nil
}

// add puts ids into the set of an owner, which is kept for as long as they.
func (s *Store) add(ctx context.Context, owner string, ids ...any) error {
	_, err := s.db.Pipelined(ctx, func(p redis.Pipeliner) error {
		p.SAdd(ctx, s.set(owner), ids...)
		p.PExpire(ctx, s.set(owner), transfer.KeepLive)
		return nil
	})
	return err
}

// disown takes out what an instance does not act for any more, now or with the next Renew.
func (s *Store) disown(ctx context.Context, owner, id string) {
	s.mu.Lock()
	if owner == s.members.Self() {
		delete(s.owned, id)
	}
	s.mu.Unlock()
	if s.db.SRem(ctx, s.set(owner), id).Err() != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.left[id] = owner
	}
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

// Load implements transfer.Store.
func (s *Store) Load(ctx context.Context, id string) (*transfer.Record, int64, error) {
	got, err := loadScript.Run(ctx, s.db, []string{s.context(id)}).Slice()
	if err != nil {
		return nil, 0, fmt.Errorf("transfer: store: load: %w", err)
	}
	now, _ := got[0].(int64)
	m := hash(got[1])
	if len(m) == 0 {
		return nil, now, transfer.ErrNotFound
	}
	r, err := parse(m)
	return r, now, err
}

// ByCall implements transfer.Store.
func (s *Store) ByCall(ctx context.Context, call string) (string, error) {
	id, err := s.db.Get(ctx, s.byCall(call)).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return "", fmt.Errorf("transfer: store: by call: %w", err)
	}
	return id, nil
}

// Move implements transfer.Store.
func (s *Store) Move(ctx context.Context, before, after *transfer.Record, kind transfer.Kind) error {
	final, keep := 0, transfer.KeepLive
	if after.State.Final() {
		final, keep = 1, s.tombstone
	}
	args := pairs([]any{after.ID, before.Version, before.Fence, after.Version, final, keep.Milliseconds(),
		string(kind), string(after.State), after.Reason, after.Updated}, changes(before, after))
	keys := append(s.keys(after.ID, after.Call), s.step(after.ID, transfer.StepDial),
		s.step(after.ID, transfer.StepSettle))
	got, err := moveScript.Run(ctx, s.db, keys, args...).Text()
	if err != nil {
		return fmt.Errorf("transfer: store: move: %w", err)
	}
	return answered(got)
}

// Restore implements transfer.Store.
func (s *Store) Restore(ctx context.Context, r *transfer.Record) error {
	final, keep := 0, transfer.KeepLive
	if r.State.Final() {
		final, keep = 1, s.tombstone
	} else if err := s.own(ctx, r.Owner, r.ID); err != nil {
		return err
	}
	args := pairs([]any{r.ID, r.Version, r.Fence, keep.Milliseconds(), string(r.State), r.Reason, r.Updated, final},
		hashOf(r))
	got, err := restoreScript.Run(ctx, s.db, s.keys(r.ID, r.Call), args...).Text()
	if err != nil {
		return fmt.Errorf("transfer: store: restore: %w", err)
	}
	return answered(got)
}

// answered is the error that a script's answer means.
func answered(word string) error {
	switch word {
	case "none":
		return transfer.ErrNotFound
	case "conflict":
		return transfer.ErrConflict
	}
	return nil
}

// Log implements transfer.Store.
func (s *Store) Log(ctx context.Context, id string, after int64) ([]transfer.Entry, error) {
	got, err := s.db.XRange(ctx, s.events(id), strconv.FormatInt(after+1, 10)+"-0", "+").Result()
	if err != nil {
		return nil, fmt.Errorf("transfer: store: log: %w", err)
	}
	var list []transfer.Entry
	for _, m := range got {
		text := func(k string) string { v, _ := m.Values[k].(string); return v }
		var e transfer.Entry
		_, err := fmt.Sscanf(m.ID+" "+text("fence")+" "+text("at"), "%d-0 %d %d", &e.Version, &e.Fence, &e.At)
		if err != nil {
			return nil, fmt.Errorf("transfer: store: log entry %s: %w", m.ID, err)
		}
		e.Kind, e.State, e.Reason = transfer.Kind(text("kind")), transfer.State(text("state")), text("reason")
		list = append(list, e)
	}
	return list, nil
}

// Step implements transfer.Store.
func (s *Store) Step(ctx context.Context, r *transfer.Record, step string) (bool, error) {
	got, err := stepScript.Run(ctx, s.db, []string{s.step(r.ID, step), s.context(r.ID)}, r.Fence,
		transfer.KeepLive.Milliseconds()).Text()
	if err != nil {
		return false, fmt.Errorf("transfer: store: step: %w", err)
	}
	return got == "first", answered(got)
}

// Finished implements transfer.Store.
func (s *Store) Finished(ctx context.Context, owner, id string) { s.disown(ctx, owner, id) }

// compareTime is how often the set of what this instance has is compared with what it
// knows, though nothing is known to have been lost.
const compareTime = 10 * time.Minute

// Renew implements transfer.Store: the lease is that of the instance, which the members
// keep. After a failover it compares the set of what this instance has with what it knows,
// and it takes out of the sets what could not be taken out before.
func (s *Store) Renew(ctx context.Context, owner string, _ time.Duration) error {
	n := s.members.Failovers()
	s.mu.Lock()
	again, left := n != s.failovers || time.Since(s.compared) > compareTime, maps.Clone(s.left)
	clear(s.left)
	s.mu.Unlock()
	for id, whose := range left {
		s.disown(ctx, whose, id)
	}
	if !again {
		return nil
	}
	if err := s.compare(ctx, owner); err != nil {
		return fmt.Errorf("transfer: store: own: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failovers, s.compared = n, time.Now()
	return nil
}

// compare makes the set of what an instance has the same as what it knows, which may
// change meanwhile.
func (s *Store) compare(ctx context.Context, owner string) error {
	there, err := s.db.SMembers(ctx, s.set(owner)).Result()
	if err != nil {
		return err
	}
	members := make([]any, len(there))
	for i, id := range there {
		members[i] = id
	}
	known, stale := s.differ(members)
	if len(known) > 0 {
		if err := s.add(ctx, owner, known...); err != nil {
			return err
		}
		_, over := s.differ(known)
		stale = append(stale, over...)
	}
	if len(stale) > 0 {
		return s.db.SRem(ctx, s.set(owner), stale...).Err()
	}
	return nil
}

// differ gives all that this instance has, and what it does not have of a list.
func (s *Store) differ(list []any) (known, stale []any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.owned {
		known = append(known, id)
	}
	for _, id := range list {
		name, _ := id.(string)
		if _, has := s.owned[name]; !has {
			stale = append(stale, id)
		}
	}
	return known, stale
}

// Release implements transfer.Store: the members give the lease up.
func (s *Store) Release(context.Context, string) error { return nil }

// Claim implements transfer.Store.
func (s *Store) Claim(ctx context.Context, owner string, limit int) ([]*transfer.Record, error) {
	list, err := s.reclaim(ctx, owner)
	if err != nil {
		return list, err
	}
	for _, dead := range s.members.Dead() {
		ids, err := s.db.SRandMemberN(ctx, s.set(dead), int64(limit-len(list))).Result()
		if err != nil {
			return list, fmt.Errorf("transfer: store: claim: %w", err)
		}
		for _, id := range ids {
			r, err := s.claim(ctx, id, dead, owner)
			if err != nil {
				return list, err
			}
			if r != nil {
				list = append(list, r)
			}
		}
		switch {
		case len(list) >= limit:
			return list, nil
		case len(ids) == 0:
			if err := s.members.Forget(ctx, dead); err != nil {
				return list, err
			}
		}
	}
	return list, nil
}

// claim takes one over; nil: somebody else has, or it is over.
func (s *Store) claim(ctx context.Context, id, dead, owner string) (*transfer.Record, error) {
	s.mu.Lock()
	_, had := s.owned[id]
	s.mu.Unlock()
	err := s.own(ctx, owner, id)
	var r *transfer.Record
	if err == nil {
		r, err = s.take(ctx, id, dead, owner)
	}
	if err != nil { // it is this owner's perhaps, and nobody else would act for it
		s.mu.Lock()
		s.unsure[id] = had
		s.mu.Unlock()
		return nil, err
	}
	s.disown(ctx, dead, id)
	if r == nil && !had {
		s.disown(ctx, owner, id)
	}
	return r, nil
}

// take makes an owner that of what another one had; nil: it is somebody else's, or over.
func (s *Store) take(ctx context.Context, id, from, owner string) (*transfer.Record, error) {
	got, err := claimScript.Run(ctx, s.db, []string{s.context(id), s.events(id)}, from, owner,
		transfer.KeepLive.Milliseconds()).Result()
	if err != nil {
		return nil, fmt.Errorf("transfer: store: claim: %w", err)
	}
	if m := hash(got); len(m) > 0 {
		return parse(m)
	}
	return nil, nil
}

// reclaim gives what was taken over without an answer.
func (s *Store) reclaim(ctx context.Context, owner string) (list []*transfer.Record, err error) {
	s.mu.Lock()
	unsure := maps.Clone(s.unsure)
	s.mu.Unlock()
	for id, had := range unsure {
		r, err := s.take(ctx, id, owner, owner)
		if err != nil {
			return list, err
		}
		s.mu.Lock()
		delete(s.unsure, id)
		s.mu.Unlock()
		switch {
		case r != nil:
			list = append(list, r)
		case !had:
			s.disown(ctx, owner, id)
		}
	}
	return list, nil
}

// Wake implements transfer.Store. The message is sharded: in a Cluster it is for one
// node.
func (s *Store) Wake(ctx context.Context, r *transfer.Record) {
	_ = s.db.SPublish(ctx, s.wake(r.Owner), r.ID) // the owner looks from time to time
}

// Wakes implements transfer.Store.
func (s *Store) Wakes(ctx context.Context, owner string) <-chan string {
	c := make(chan string, 64)
	go func() {
		defer close(c)
		sub := s.db.SSubscribe(ctx, s.wake(owner)) // it connects again by itself
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
