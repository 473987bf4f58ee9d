// Package verdict is how a session ends.
package verdict

import (
	"context"
	"errors"
	"sync/atomic"

	"voicebridge/calls"
)

// EndOf reads the End from a context that is done.
func EndOf(ctx context.Context) calls.End {
	err := context.Cause(ctx)
	var end *calls.End
	switch {
	case errors.As(err, &end):
		return *end
	case errors.Is(err, context.DeadlineExceeded):
		return calls.End{Cause: calls.MaxDuration}
	}
	return calls.End{Cause: calls.Shutdown, Err: err}
}

// Verdict is how a session ends: the first End counts. It may be used from anywhere.
type Verdict struct {
	end  atomic.Pointer[calls.End]
	done chan struct{}
}

// New makes one of a session that goes on.
func New() *Verdict { return &Verdict{done: make(chan struct{})} }

// Reach settles on an End. It reports whether it is the first.
func (v *Verdict) Reach(end calls.End) bool {
	if !v.end.CompareAndSwap(nil, &end) {
		return false
	}
	close(v.done)
	return true
}

// Reached reports whether there is an End.
func (v *Verdict) Reached() bool { return v.end.Load() != nil }

// Done is closed once there is one.
func (v *Verdict) Done() <-chan struct{} { return v.done }

// Get returns the End; there must be one.
func (v *Verdict) Get() calls.End { return *v.end.Load() }
