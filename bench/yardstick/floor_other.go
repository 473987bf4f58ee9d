//go:build !linux

package yardstick

import (
	"context"
	"errors"
	"fmt"
	"net"
)

// Floor is there on Linux only.
func Floor(context.Context, net.Listener, string) error {
	return fmt.Errorf("bench: floor: %w", errors.ErrUnsupported)
}
