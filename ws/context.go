package ws

import "context"

type loopKey struct{}

// WithLoop returns a context that carries the event loop for the connections of one
// call, so that both of its connections are served by the same one. nil: none.
func WithLoop(ctx context.Context, loop *Loop) context.Context {
	return context.WithValue(ctx, loopKey{}, loop)
}

// LoopOf returns the event loop that a context carries; nil: goroutines serve the
// connections.
func LoopOf(ctx context.Context) *Loop {
	loop, _ := ctx.Value(loopKey{}).(*Loop)
	return loop
}
