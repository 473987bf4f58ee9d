package session

import (
	"errors"
	"fmt"
	"runtime/debug"

	"voicebridge/calls"
)

// A panic in the handling of one call ends that call, and no other. Whoever brings
// something to a session, a connection, a timer or a goroutine of its own, is guarded;
// the lock is given up by a deferred call everywhere, so that it is free afterwards.

// guard is deferred where a session is entered.
func (s *Session) guard() {
	if v := recover(); v != nil {
		s.Control.panicked(v, debug.Stack())
		s.end(calls.End{Cause: calls.BridgeFault, Err: fmt.Errorf("session: panic: %v", v)})
	}
}

// guarded does something that what comes after must not depend on.
func (s *Session) guarded(do func()) {
	defer s.guard()
	do()
}

// below tells of a panic in one of the two connections, if that is how it has ended.
func (s *Session) below(err error) {
	var fault interface{ Panicked() (v any, stack []byte) }
	if errors.As(err, &fault) {
		s.Control.panicked(fault.Panicked())
	}
}

// panicked tells of a panic, if somebody wants to know.
func (c *Control) panicked(v any, stack []byte) {
	if c.Panicked != nil {
		c.Panicked(v, stack)
	}
}

// unlocked does something without the lock, which is held again afterwards, however that
// ends.
func (s *Session) unlocked(do func()) {
	s.mu.Unlock()
	defer s.mu.Lock()
	do()
}
