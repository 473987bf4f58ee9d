package session

import "sync"

// Registry holds the sessions that are live. The number of calls is its size:
// there is no counter to go wrong.
type Registry struct {
	mu    sync.Mutex
	live  map[string]*Session
	empty chan struct{} // closed when live becomes empty; nil unless waited for
}

// Add puts a session in. It is false, and does nothing, where there are most
// already, or one of the same id.
func (r *Registry) Add(s *Session, most int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.live) >= most || r.live[s.ID] != nil {
		return false
	}
	if r.live == nil {
		r.live = map[string]*Session{}
	}
	r.live[s.ID] = s
	return true
}

// Remove takes a session out.
func (r *Registry) Remove(s *Session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.live, s.ID)
	if len(r.live) == 0 && r.empty != nil {
		close(r.empty)
		r.empty = nil
	}
}

// Get gives the live session of an id; nil if there is none.
func (r *Registry) Get(id string) *Session {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.live[id]
}

// Len is the number of live sessions.
func (r *Registry) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.live)
}

// All lists the live sessions.
func (r *Registry) All() []*Session {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]*Session, 0, len(r.live))
	for _, s := range r.live {
		all = append(all, s)
	}
	return all
}

// Empty gives a channel that is closed once no session is live.
func (r *Registry) Empty() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.empty == nil {
		r.empty = make(chan struct{})
		if len(r.live) == 0 {
			close(r.empty)
			done := r.empty
			r.empty = nil
			return done
		}
	}
	return r.empty
}
