//go:build !linux

package process

import (
	"errors"
	"fmt"
	"time"
)

var errNoProc = fmt.Errorf("process: what a process uses is measured on Linux only: %w", errors.ErrUnsupported)

func Pause(d time.Duration) { time.Sleep(d) }

func Time(int) (time.Duration, error)   { return 0, errNoProc }
func Memory(int) (int64, error)         { return 0, errNoProc }
func Descriptors(int) (int, int, error) { return 0, 0, errNoProc }
