// Package process tells what a process uses, on Linux.
package process

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Pause sleeps, to within a few hundredths of a millisecond: time.Sleep rounds up to
// whole ones where nothing else goes on, and calls would come in bundles.
func Pause(d time.Duration) {
	if d <= 0 {
		return
	}
	t := unix.NsecToTimespec(int64(d))
	_ = unix.Nanosleep(&t, nil) // a signal ends it early: the frame is sent early, by as much as nobody can tell
}

// Time is the processor time that a process has used, in user and system.
func Time(pid int) (time.Duration, error) {
	var t unix.Timespec
	// The clock of a process; see clock_getcpuclockid(3) and the kernel's
	// posix-timers.h.
	if err := unix.ClockGettime(int32(^pid<<3|2), &t); err != nil {
		return 0, fmt.Errorf("process: processor time of process %d: %w", pid, err)
	}
	return time.Duration(t.Nano()), nil
}

// Memory is the memory of its own that a process has in use, in bytes:
// without files, and without what the kernel keeps for it.
func Memory(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, fmt.Errorf("process: memory of process %d: %w", pid, err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("process: memory of process %d: %w", pid, err)
			}
			return kb << 10, nil
		}
	}
	return 0, fmt.Errorf("process: memory of process %d: not told", pid)
}

// Descriptors is how many descriptors a process has open, and how many it may.
func Descriptors(pid int) (open, limit int, err error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		return 0, 0, fmt.Errorf("process: descriptors of process %d: %w", pid, err)
	}
	var l unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &l); err != nil {
		return 0, 0, fmt.Errorf("process: descriptors of process %d: %w", pid, err)
	}
	return len(files), int(min(l.Cur, 1<<30)), nil
}
