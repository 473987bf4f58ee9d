package main

import (
	"context"
	"net"

	"voicebridge/bench/runner"
	"voicebridge/bench/yardstick"
)

type benchCmd struct{ runner.Command }

// Run measures.
func (c *benchCmd) Run(ctx context.Context, out output) error { return c.Command.Run(ctx, out.Writer) }

// yardstickCmd is what bench starts to compare with.
type yardstickCmd struct {
	What   string `arg:"" enum:"relay,floor"`
	Listen string `arg:""`
	Agent  string `arg:""`
}

// Run passes messages on.
func (c *yardstickCmd) Run(ctx context.Context) error {
	l, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return err
	}
	if c.What == "floor" {
		return yardstick.Floor(ctx, l, c.Agent)
	}
	return yardstick.Relay(ctx, l, c.Agent)
}
