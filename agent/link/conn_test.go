package link

import (
	"errors"
	"testing"

	"voicebridge/agent"
	"voicebridge/calls"
	"voicebridge/ws"
)

// TestLostByPanic: a fault of the bridge's own in the reading of an agent is not the agent's.
func TestLostByPanic(t *testing.T) {
	c := &Conn{}
	var known *agent.Error
	if err := c.lost(&ws.PanicError{Value: "oops"}); !errors.As(err, &known) || known.Cause != calls.BridgeFault {
		t.Errorf("%v", err)
	}
}
