//go:build !linux

package bench

import (
	"errors"
	"fmt"
	"time"
)

var errNoProc = fmt.Errorf("bench: what a process uses is measured on Linux only: %w", errors.ErrUnsupported)

func pause(d time.Duration) { time.Sleep(d) }

func processTime(int) (time.Duration, error)   { return 0, errNoProc }
func processMemory(int) (int64, error)         { return 0, errNoProc }
func processDescriptors(int) (int, int, error) { return 0, 0, errNoProc }
