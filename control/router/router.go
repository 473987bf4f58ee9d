// Package router asks the user's application what to do with a call that comes in.
package router

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"voicebridge/notify"
	"voicebridge/providers"
)

// Call is what the application is asked about.
type Call struct {
	Type     string `json:"type"` // call.inbound
	Account  string `json:"account"`
	Provider string `json:"provider"`
	Carrier  string `json:"carrier_id"`
	From     string `json:"from"`
	To       string `json:"to"`
	// Metadata is what the carrier tells with the call.
	Metadata map[string]string `json:"metadata,omitempty"`
}

// Reply is what it has answered.
type Reply struct {
	Agent    string
	Metadata map[string]string // fit for a call; see providers.CheckMetadata
	Refuse   string            // words for the caller, who is not connected
	Language string            // of the words; empty: as of all others
	Voice    string
}

// Router asks an application, once for each call, however often the carrier asks. Its methods
// may be called at the same time.
type Router struct {
	target *notify.Target
	log    *slog.Logger

	mu    sync.Mutex
	asked map[string]*question // by call
}

// New makes a router.
func New(target *notify.Target, log *slog.Logger) *Router {
	return &Router{target: target, log: log, asked: map[string]*question{}}
}

// question is one that has been asked.
type question struct {
	done  chan struct{}
	reply *Reply
	err   error
}

// keepTime is how long an answer is kept for a carrier that asks again.
const keepTime = time.Minute

// Ask asks about a call, or waits for the answer to the question that has been asked about it.
// The question goes on when ctx ends: the carrier asks again.
func (r *Router) Ask(ctx context.Context, call *Call) (*Reply, error) {
	key := call.Account + "\x00" + call.Carrier
	r.mu.Lock()
	q := r.asked[key]
	if q == nil {
		q = &question{done: make(chan struct{})}
		r.asked[key] = q
		go r.put(context.WithoutCancel(ctx), key, call, q)
	}
	r.mu.Unlock()
	select {
	case <-q.done:
		return q.reply, q.err
	case <-ctx.Done():
		return nil, fmt.Errorf("router: %w", ctx.Err())
	}
}

// put asks, within the time-out of the target.
func (r *Router) put(ctx context.Context, key string, call *Call, q *question) {
	q.reply, q.err = r.ask(ctx, call)
	close(q.done)
	time.AfterFunc(keepTime, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.asked, key)
	})
}

func (r *Router) ask(ctx context.Context, call *Call) (*Reply, error) {
	var said struct {
		Agent    string                     `json:"agent"`
		Metadata map[string]json.RawMessage `json:"metadata"`
		Refuse   string                     `json:"refuse"`
		Language string                     `json:"language"`
		Voice    string                     `json:"voice"`
	}
	if err := r.target.Post(ctx, call, &said); err != nil {
		return nil, err
	}
	reply := &Reply{Agent: said.Agent, Refuse: said.Refuse, Language: said.Language, Voice: said.Voice,
		Metadata: map[string]string{}}
	for name, raw := range said.Metadata {
		value, is := text(raw)
		one := map[string]string{name: value}
		if err := providers.CheckMetadata(one); err != nil || !is {
			r.log.Warn("router: a value of metadata is left out", "call", call.Carrier, "name", clip(name), "err", err)
			continue
		}
		reply.Metadata[name] = value
	}
	if err := providers.CheckMetadata(reply.Metadata); err != nil {
		r.log.Warn("router: metadata is left out", "call", call.Carrier, "err", err)
		reply.Metadata = nil
	}
	return reply, nil
}

// text is a value as text: that of strings, the digits of numbers, true and false.
func text(raw json.RawMessage) (s string, is bool) {
	if json.Unmarshal(raw, &s) == nil && string(raw) != "null" {
		return s, true
	}
	return string(raw), !strings.ContainsAny(string(raw[:1]), `{[n`)
}

func clip(s string) string { return s[:min(len(s), 40)] }
