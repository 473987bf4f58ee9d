package ws

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// unsent is how much the system may hold of a fresh connection that it has not sent, in bytes: 12
// frames of 16 kHz. What it has sent waits at the other side, as much as that takes.
const unsent = 8 << 10

// keepFresh has the system take no more than it can soon send.
func keepFresh(raw syscall.RawConn) error {
	var err error
	if e := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsent)
	}); e != nil {
		return e
	}
	return err
}
