//go:build !linux

package ws

import "syscall"

// keepFresh does nothing: other systems have no such bound for writes.
func keepFresh(syscall.RawConn) error { return nil }
