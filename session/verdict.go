package session

import (
	"context"
	"errors"
	"sync/atomic"

	"voicebridge/calls"
)

// endOf reads the End from a context that is done.
func endOf(ctx context.Context) calls.End {
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

// verdict is how a session ends: the first End counts. It may be used from anywhere.
type verdict struct {
	end  atomic.Pointer[calls.End]
	done chan struct{} // closed once there is one
}

// reach settles on an End. It reports whether it is the first.
func (v *verdict) reach(end calls.End) bool {
	if !v.end.CompareAndSwap(nil, &end) {
		return false
	}
	close(v.done)
	return true
}

// reached reports whether there is an End.
func (v *verdict) reached() bool { return v.end.Load() != nil }

// get returns the End; there must be one.
func (v *verdict) get() calls.End { return *v.end.Load() }
