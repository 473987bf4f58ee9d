package bench

// The agents of a load.

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"time"

	"voicebridge/agent/voicebridge"
	"voicebridge/codec"
	"voicebridge/providers"
	"voicebridge/sim/ear"
	"voicebridge/ws"
)

const (
	burstLength = 3 * time.Second
	burstEvery  = 4 * time.Second
	talkLength  = 10 * time.Second
	stallLength = 500 * time.Millisecond
	stallEvery  = 2 * time.Second
)

// agent takes a bridge's connection to an agent.
func (g *Generator) agent(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == modelPath {
		g.model(w, r)
		return
	}
	name, mirror := strings.CutPrefix(r.URL.Path, "/mirror/")
	var protocols []string
	if !mirror {
		protocols = voicebridge.Dialect.Subprotocols
	}
	visible := &seen{ResponseWriter: w}
	conn, err := ws.Accept(visible, r, protocols, loadLimits)
	if err != nil {
		g.books.complain(err)
		return
	}
	e := &agentEnd{g: g, conn: conn}
	if mirror {
		g.mu.Lock()
		for _, c := range g.calls {
			if c.line.Spec.Name == name {
				e.stream = c.line.Spec.NewStream()
				break
			}
		}
		g.mu.Unlock()
		if e.stream == nil {
			conn.Close(ws.ClosePolicy, "no call of this carrier is under way")
			conn.Release()
			return
		}
	}
	if !mirror { // a slow agent reads for itself
		if binary, data, err := conn.Read(); err == nil {
			e.Message(binary, data)
		}
		if e.call != nil && e.call.agent == SlowAgent {
			e.slow()
			return
		}
		if e.call != nil && floods[e.call.agent] != nil {
			conn.Serve(nil, e)
			pour(visible.conn, floods[e.call.agent])
			return
		}
	}
	conn.Serve(g.loops[int(g.serial.Load())%len(g.loops)], e)
}

// agentEnd is the agent's end of one call.
type agentEnd struct {
	g      *Generator
	conn   *ws.Conn
	stream providers.Stream // of a mirror; nil: it speaks the bridge's protocol

	call *loadCall
	rate int
	evs  []providers.Event
	wire providers.Messages

	mu    sync.Mutex // guards what follows
	timer *time.Timer
	over  bool
	talks bool // a talkative one is saying something
}

// Message implements ws.Handler.
func (e *agentEnd) Message(binary bool, data []byte) {
	switch {
	case e.stream != nil:
		e.mirrored(binary, data)
	case !binary && e.call == nil:
		e.start(data)
	case binary && e.call != nil && e.call.agent == EchoAgent:
		_, _ = e.conn.Put(true, data) // Closed tells
	}
}

// start takes the bridge's first message.
func (e *agentEnd) start(data []byte) {
	var start struct {
		Type string
		Call struct {
			ID     string
			Custom map[string]string
		}
		Audio struct {
			Output struct {
				Rate int `json:"sample_rate"`
			}
		}
	}
	if err := json.Unmarshal(data, &start); err != nil || start.Type != "start" {
		return
	}
	id := start.Call.ID
	if c := start.Call.Custom["call"]; c != "" { // Vonage's own id is not told there
		id = c
	}
	if e.call = e.g.call(id); e.call == nil {
		e.conn.Close(ws.ClosePolicy, "no such call")
		return
	}
	e.rate = start.Audio.Output.Rate
	e.call.connected()
	e.mu.Lock()
	defer e.mu.Unlock()
	switch e.call.agent {
	case BurstAgent:
		e.timer = time.AfterFunc(time.Second, e.burst)
	case TalkativeAgent:
		e.timer = time.AfterFunc(time.Second, e.talk)
	}
}

// mirrored is for a bridge that passes the carrier's messages on.
func (e *agentEnd) mirrored(binary bool, data []byte) {
	var err error
	if e.evs, err = e.stream.Decode(e.evs[:0], providers.Message{Binary: binary, Data: data}); err != nil {
		e.g.books.complain(err)
		return
	}
	for i := range e.evs {
		e.mirror(&e.evs[i])
	}
}

// mirror is an event of a call whose messages are passed on.
func (e *agentEnd) mirror(ev *providers.Event) {
	switch ev.Kind {
	case providers.EventStart:
		id := ev.Start.Call
		if c := ev.Start.Params["call"]; c != "" {
			id = c
		}
		if e.call = e.g.call(id); e.call != nil {
			e.call.connected()
		}
	case providers.EventAudio:
		if e.call == nil || e.call.agent != EchoAgent {
			return
		}
		e.wire.Reset()
		if err := e.stream.Encode(&e.wire, &providers.Command{Kind: providers.CommandAudio,
			Audio: ev.Audio}); err != nil {
			e.g.books.complain(err)
			return
		}
		for _, m := range e.wire.All() {
			_, _ = e.conn.Put(m.Binary, m.Data) // Closed tells
		}
	}
}

// slow reads and answers, but nothing for a while again and again: the bridge
// cannot send meanwhile.
func (e *agentEnd) slow() {
	reads := time.Now()
	for {
		binary, data, err := e.conn.Read()
		if err != nil {
			break
		}
		if binary && e.conn.Write(true, data) != nil {
			break
		}
		if time.Since(reads) > stallEvery-stallLength {
			time.Sleep(stallLength)
			reads = time.Now()
		}
	}
	e.Closed(nil)
	e.conn.Release()
}

// spoken is what agents say, at a rate.
var (
	spokenMu sync.Mutex
	spokenOf = map[int][]byte{}
)

func spoken(rate int, d time.Duration) []byte {
	spokenMu.Lock()
	defer spokenMu.Unlock()
	if spokenOf[rate] == nil {
		spokenOf[rate] = codec.L16LE.AppendEncode(nil, ear.Sine(rate, 440, talkLength))
	}
	return spokenOf[rate][:2*int(d*time.Duration(rate)/time.Second)]
}

// burst says something at once.
func (e *agentEnd) burst() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.over {
		return
	}
	e.call.said(burstLength)
	_, _ = e.conn.Put(true, spoken(e.rate, burstLength))
	_, _ = e.conn.Put(false, []byte(`{"type":"mark","name":"end"}`))
	e.timer.Reset(burstEvery)
}

// talk interrupts what was said, and says something else half a second later.
func (e *agentEnd) talk() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.over {
		return
	}
	if e.talks {
		e.call.interrupted()
		_, _ = e.conn.Put(false, []byte(`{"type":"clear"}`))
		e.talks = false
		e.timer.Reset(500 * time.Millisecond)
		return
	}
	e.talks = true
	e.call.said(talkLength)
	_, _ = e.conn.Put(true, spoken(e.rate, talkLength))
	e.timer.Reset(time.Second + time.Duration(e.call.number%200)*10*time.Millisecond)
}

// Writable implements ws.Handler.
func (e *agentEnd) Writable() {}

// Closed implements ws.Handler.
func (e *agentEnd) Closed(error) {
	e.mu.Lock()
	e.over = true
	if e.timer != nil {
		e.timer.Stop()
	}
	e.mu.Unlock()
	e.conn.Close(ws.CloseNormal, "")
}
