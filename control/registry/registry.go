// Package registry knows the sessions of one bridge.
package registry

import (
	"sync"

	"voicebridge/session"
)

// Sessions holds the sessions that are live. The number of calls is its size:
// there is no counter to go wrong.
type Sessions struct {
	mu    sync.Mutex
	all   map[*session.Session]struct{}
	live  map[string]*session.Session // the last one of each call
	empty chan struct{}               // closed when all becomes empty; nil unless waited for
}

// Add puts a session in. It is false, and does nothing, where there are most
// already, or one of the same call whose end has not been told.
func (r *Sessions) Add(s *session.Session, most int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.live[s.ID]
	if len(r.all) >= most || before != nil && !before.Ended() {
		return false
	}
	if r.live == nil {
		r.live, r.all = map[string]*session.Session{}, map[*session.Session]struct{}{}
	}
	r.live[s.ID], r.all[s] = s, struct{}{}
	return true
}

// Remove takes a session out.
func (r *Sessions) Remove(s *session.Session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.all, s)
	if r.live[s.ID] == s {
		delete(r.live, s.ID)
	}
	if len(r.all) == 0 && r.empty != nil {
		close(r.empty)
		r.empty = nil
	}
}

// Get returns the live session of an id; nil if there is none.
func (r *Sessions) Get(id string) *session.Session {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.live[id]
}

// Len returns the number of live sessions.
func (r *Sessions) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.all)
}

// All lists the live sessions.
func (r *Sessions) All() []*session.Session {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]*session.Session, 0, len(r.all))
	for s := range r.all {
		all = append(all, s)
	}
	return all
}

// Empty returns a channel that is closed once no session is live.
func (r *Sessions) Empty() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.empty == nil {
		r.empty = make(chan struct{})
		if len(r.all) == 0 {
			close(r.empty)
			done := r.empty
			r.empty = nil
			return done
		}
	}
	return r.empty
}
