package link

import (
	"context"
	"net/url"
	"testing"

	"voicebridge/agent"
	"voicebridge/codec"
)

// silent is a protocol in which nothing is said.
type silent struct{ agent.Protocol }

func (silent) Formats(*url.URL) (hears, speaks codec.Format, err error) { return hears, speaks, nil }

// TestPoolWakes: a call that gives up although an agent has come leaves it to the
// next one.
func TestPoolWakes(t *testing.T) {
	p, err := NewPool("desk", Incoming{Protocol: silent{}}, "a bearer token of the pool")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // just after the word of an agent has come to this call
	p.parked = []*parked{{}}
	if _, err := p.Dial(ctx, &agent.Call{}); err == nil || len(p.parked) != 1 {
		t.Fatalf("%v, %d agents", err, len(p.parked))
	}
	select {
	case <-p.free:
	default:
		t.Error("an agent waits, and nobody is told")
	}
}
