package providers

import (
	"sync"
	"time"
)

// Once remembers what may be used once, such as the ids of signed requests, for
// as long as it would be valid. The zero value is ready.
type Once struct {
	mu    sync.Mutex
	until map[string]time.Time
	swept time.Time
}

// sweepAfter is how often what has expired is forgotten.
const sweepAfter = time.Minute

// First reports whether id is used for the first time, and remembers it until the
// given time.
func (o *Once) First(id string, now, until time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.until == nil {
		o.until = map[string]time.Time{}
	}
	if now.Sub(o.swept) >= sweepAfter {
		o.swept = now
		for k, t := range o.until {
			if now.After(t) {
				delete(o.until, k)
			}
		}
	}
	if _, used := o.until[id]; used {
		return false
	}
	o.until[id] = until
	return true
}

// Forget takes back that id has been used: what it was for has not been done.
func (o *Once) Forget(id string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.until, id)
}
