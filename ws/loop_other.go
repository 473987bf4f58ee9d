//go:build !linux

package ws

import (
	"errors"
	"syscall"
	"time"
)

// Loop is an event loop, which this system does not have.
type Loop struct{}

// NewLoop fails with errors.ErrUnsupported.
func NewLoop() (*Loop, error) { return nil, errors.ErrUnsupported }

// Close ends the loop.
func (*Loop) Close() {}

// Len is how many connections the loop has.
func (*Loop) Len() int { return 0 }

// Load, Lag and Stuck tell how busy and how late it is.
func (*Loop) Load() float64        { return 0 }
func (*Loop) Lag() time.Duration   { return 0 }
func (*Loop) Stuck() time.Duration { return 0 }

// interest is what the loop tells of.
type interest struct{ in, out bool }

func (*Loop) add(int, *Conn, interest) error { return errors.ErrUnsupported }
func (*Loop) watch(int, interest) error      { return errors.ErrUnsupported }
func (*Loop) remove(int) error               { return errors.ErrUnsupported }

func (*Loop) post(func([]byte)) {}
func (*Loop) waits(*Conn)       {}

func detach(syscall.RawConn) (int, error) { return -1, errors.ErrUnsupported }
func shutdown(int)                        {}

func readSome(int, []byte) (int, error) { return 0, errors.ErrUnsupported }
