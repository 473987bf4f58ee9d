package bench

import (
	"bufio"
	"bytes"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"voicebridge/providers"
	"voicebridge/ws"
	"voicebridge/ws/frame"
)

// The behaviours of hostile calls: one end sends all that is taken, without pause. When the bridge
// ends such a call another begins. They are beside the calls that are measured, and are not.
const (
	FloodAgent Behaviour = "flood" // the agent's commands say nothing: {}
	KeysAgent  Behaviour = "keys"  // they are objects of 60 KB of keys
	EmptyAgent Behaviour = "empty" // the agent's audio has no samples, in 2-byte messages
	TinyCaller Behaviour = "tiny"  // the carrier's frames have 2 bytes of audio
)

// HostileKinds lists them.
var HostileKinds = []Behaviour{FloodAgent, KeysAgent, EmptyAgent, TinyCaller}

// hostility begins the hostile calls; they go on until the fleet is stopped.
func (f *fleet) hostility() {
	for _, kind := range slices.Sorted(maps.Keys(f.load.Hostile)) {
		one := *f.load
		one.Agents, one.Length = []Share[Behaviour]{{Of: kind, Weight: 1}}, 0
		for i := range f.load.Hostile[kind] {
			f.group.Go(func() {
				for f.ctx.Err() == nil {
					c, err := f.g.dial(f.ctx, &one, i, f.target.URL)
					if err != nil {
						_ = sleep(f.ctx, time.Second)
						continue // it is refused, or the end
					}
					f.mu.Lock()
					f.foes[c] = struct{}{}
					if f.ctx.Err() != nil { // hangup has not seen it
						c.cutOff()
					}
					f.mu.Unlock()
					c.wait()
					f.mu.Lock()
					delete(f.foes, c)
					f.mu.Unlock()
					_ = sleep(f.ctx, time.Second) // calls do not begin faster than callers call
				}
			})
		}
	}
}

// hostile reports whether a call is one.
func (c *loadCall) hostile() bool { return slices.Contains(HostileKinds, c.agent) }

// cutOff ends a hostile call; what it pours holds up everything else that it might say.
func (c *loadCall) cutOff() {
	if c.raw != nil {
		_ = c.raw.Close() // it is known to be rude
		return
	}
	c.conn.Close(ws.CloseNormal, "")
}

// pour sends a message again and again, in heaps, so that it costs this end little, for as long as
// the connection lasts.
func pour(raw net.Conn, message []byte) {
	for heap := bytes.Repeat(message, 1+heapBytes/len(message)); ; {
		if _, err := raw.Write(heap); err != nil {
			return // it has ended
		}
	}
}

const heapBytes = 256 << 10

// pourTiny serves a call that has been introduced, and pours the tiniest frames.
func (c *loadCall) pourTiny() {
	c.conn.Serve(nil, c)
	tiny, err := c.tiny()
	if err != nil {
		c.g.books.complain(err)
		c.conn.Close(ws.CloseNormal, "")
		return
	}
	go pour(c.raw, tiny) // ends with the connection
}

// tiny is a frame with 2 bytes of audio as the call's carrier sends it.
func (c *loadCall) tiny() ([]byte, error) {
	c.wire.Reset()
	if err := c.peer.Encode(&c.wire, &providers.Event{Kind: providers.EventAudio, Audio: []byte{0, 0}}); err != nil {
		return nil, err
	}
	m := c.wire.All()[0]
	op := byte(frame.Text)
	if m.Binary {
		op = frame.Binary
	}
	return frame.Append(nil, op, m.Data, true), nil
}

// floods are what hostile agents pour.
var floods = map[Behaviour][]byte{
	FloodAgent: frame.Append(nil, frame.Text, []byte("{}"), false),
	KeysAgent:  frame.Append(nil, frame.Text, []byte(`{"type":"mark"`+strings.Repeat(`,"k":1`, 10000)+`}`), false),
	EmptyAgent: frame.Append(nil, frame.Binary, nil, false),
}

// seen lets the connection of a request be seen that becomes a WebSocket.
type seen struct {
	http.ResponseWriter
	conn net.Conn
}

// Hijack implements http.Hijacker.
func (s *seen) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(s.ResponseWriter).Hijack()
	s.conn = conn
	return conn, rw, err
}
