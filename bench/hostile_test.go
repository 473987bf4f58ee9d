package bench

import (
	"bytes"
	"testing"

	"voicebridge/providers"
	"voicebridge/providers/all"
	"voicebridge/ws/frame"
)

// TestHostileFrames: what hostile calls pour is what it is meant to be: messages that break no rule
// of the framing, and audio that is audio to the carrier's own stream.
func TestHostileFrames(t *testing.T) {
	one := func(wire []byte, server bool) (op byte, data []byte) {
		t.Helper()
		r := frame.Reader{Server: server, Text: 1 << 16, Binary: 1 << 16}
		n, op, data, err := r.Take(bytes.Clone(wire))
		if err != nil || n != len(wire) {
			t.Errorf("%d of %d bytes are taken: %v", n, len(wire), err)
		}
		return op, data
	}
	for kind, wire := range floods {
		if op, data := one(wire, false); (op == frame.Binary) != (kind == EmptyAgent) || len(data) > 64<<10 {
			t.Errorf("%s: opcode %d, %d bytes", kind, op, len(data))
		}
	}
	for _, spec := range all.Specs {
		start := spec.Start(spec.Formats[0])
		start.Account, start.Call, start.Stream = "AC1", "CA1", "MZ1"
		stream := spec.NewStream()
		c := &loadCall{peer: spec.NewPeer()}
		var begin providers.Messages
		if err := c.peer.Encode(&begin, &providers.Event{Kind: providers.EventStart, Start: &start}); err != nil {
			t.Fatal(err)
		}
		for _, m := range begin.All() {
			if _, err := stream.Decode(nil, m); err != nil {
				t.Fatal(err)
			}
		}
		wire, err := c.tiny()
		if err != nil {
			t.Fatal(err)
		}
		op, data := one(wire, true)
		evs, err := stream.Decode(nil, providers.Message{Binary: op == frame.Binary, Data: data})
		if err != nil || len(evs) != 1 || len(evs[0].Audio) != 2 {
			t.Errorf("%s: %+v %v", spec.Name, evs, err)
		}
	}
}
