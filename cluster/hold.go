package cluster

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

//go:embed lua/hold.lua
var holdLua string

var holdScript = redis.NewScript(holdLua)

// Hold does something that one instance at a time is to do, whenever it is this one's turn,
// until ctx ends. Another one gets its turn once this one has gone, or has not been heard of
// for a lease. While the database is away, whoever does it goes on.
func (c *Cluster) Hold(ctx context.Context, name string, do func(ctx context.Context)) {
	if c == nil {
		do(ctx)
		return
	}
	tick := time.NewTicker(c.lease / 3)
	defer tick.Stop()
	for ctx.Err() == nil {
		if held, err := c.hold(ctx, name, c.lease); held {
			c.held(ctx, name, tick.C, do)
		} else if err != nil {
			c.log.Debug("the database does not say whose turn it is", "what", name, "err", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// held does it until it is another one's turn.
func (c *Cluster) held(ctx context.Context, name string, renew <-chan time.Time, do func(ctx context.Context)) {
	mine, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		do(mine)
	}()
	defer func() {
		stop()
		<-done
		ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), lookTime)
		defer stop()
		_, _ = c.hold(ctx, name, 0) // otherwise it runs out
	}()
	for {
		select {
		case <-renew:
			if held, err := c.hold(ctx, name, c.lease); err == nil && !held {
				return
			}
		case <-done:
			return
		case <-ctx.Done():
			return
		}
	}
}

// hold reports whether it is this instance's turn for so long.
func (c *Cluster) hold(ctx context.Context, name string, lease time.Duration) (held bool, err error) {
	ctx, stop := context.WithTimeout(ctx, lookTime)
	defer stop()
	n, err := holdScript.Run(ctx, c.db, []string{c.prefix + "holds:{" + name + "}"}, c.self, lease.Milliseconds()).Int()
	if err != nil {
		return false, fmt.Errorf("cluster: hold: %w", err)
	}
	return n == 1, nil
}
