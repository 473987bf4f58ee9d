package main

import (
	"context"
	"errors"

	"voicebridge/demo"
)

type demoCmd struct{ demo.Command }

// Run makes the call.
func (c *demoCmd) Run(ctx context.Context, out output) error {
	err := c.Command.Run(ctx, out.Writer)
	if errors.Is(err, demo.ErrFailed) { // it has said why
		return exitCode(1)
	}
	return err
}
