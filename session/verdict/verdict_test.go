package verdict

import (
	"context"
	"errors"
	"io"
	"testing"

	"voicebridge/calls"
)

// TestEndOf: the cause of a context becomes the cause of the call.
func TestEndOf(t *testing.T) {
	for err, want := range map[error]calls.Cause{
		&calls.End{Cause: calls.AgentLost, Err: io.EOF}: calls.AgentLost,
		context.DeadlineExceeded:                        calls.MaxDuration,
		context.Canceled:                                calls.Shutdown,
		errors.New("other"):                             calls.Shutdown,
	} {
		ctx, cancel := context.WithCancelCause(context.Background())
		cancel(err)
		if got := EndOf(ctx); got.Cause != want {
			t.Errorf("%v ends with %s, want %s", err, got.Cause, want)
		}
	}
}

// TestFirst: the first End counts.
func TestFirst(t *testing.T) {
	v := New()
	if v.Reached() || !v.Reach(calls.End{Cause: calls.AgentLost}) || v.Reach(calls.End{Cause: calls.Shutdown}) {
		t.Error("not the first counts")
	}
	<-v.Done()
	if !v.Reached() || v.Get().Cause != calls.AgentLost {
		t.Errorf("it is %v", v.Get())
	}
}
