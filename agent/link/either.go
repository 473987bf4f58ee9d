package link

import (
	"context"
	"fmt"

	"voicebridge/agent"
	"voicebridge/codec"
)

// Either reaches an agent, or another one where that fails; it implements agent.Dialer.
type Either struct {
	First, Other agent.Dialer
	Name         string // of the first
}

// Formats implements agent.Dialer.
func (e *Either) Formats() (hears, speaks codec.Format) { return e.First.Formats() }

// Protocol is that of the first, where it has one.
func (e *Either) Protocol() agent.Protocol {
	if first, has := e.First.(interface{ Protocol() agent.Protocol }); has {
		return first.Protocol()
	}
	return nil
}

// Dial implements agent.Dialer. Of a call that goes on the other one is told that it takes it over.
func (e *Either) Dial(ctx context.Context, call *agent.Call) (agent.Conn, error) {
	conn, err := e.First.Dial(ctx, call)
	if err == nil || ctx.Err() != nil {
		return conn, err
	}
	if call.Resume != nil {
		over := *call
		resume := *call.Resume
		resume.From, resume.Kept = &e.Name, nil
		over.Resume = &resume
		call = &over
	}
	conn, other := e.Other.Dial(ctx, call)
	if other != nil {
		return nil, fmt.Errorf("%w; and the fallback: %w", err, other)
	}
	return conn, nil
}
