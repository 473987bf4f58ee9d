package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"voicebridge/bench/markers"
	"voicebridge/codec"
	"voicebridge/providers"
	"voicebridge/ws"
)

// Behaviour is what an agent of the load does.
type Behaviour string

// The behaviours.
const (
	EchoAgent      Behaviour = "echo"      // says what it hears
	BurstAgent     Behaviour = "burst"     // says three seconds at once, every four
	TalkativeAgent Behaviour = "talkative" // says ten seconds at once, and interrupts itself every one to three
	SilentAgent    Behaviour = "silent"    // says nothing
	SlowAgent      Behaviour = "slow"      // echoes, and reads nothing for half a second every two
)

// Behaviours lists them.
var Behaviours = []Behaviour{EchoAgent, BurstAgent, TalkativeAgent, SilentAgent, SlowAgent}

// Share is a part of the calls of a load, by weight.
type Share[T any] struct {
	Of     T
	Weight float64
}

// pick returns the i-th of many, so that the shares are as near to the weights as
// they can be.
func pick[T any](shares []Share[T], i int) T {
	var all float64
	for _, s := range shares {
		all += s.Weight
	}
	at := float64(i) * 0.6180339887
	at = (at - float64(int(at))) * all
	for _, s := range shares {
		if at -= s.Weight; at < 0 {
			return s.Of
		}
	}
	return shares[len(shares)-1].Of
}

// Line is a carrier's format.
type Line struct {
	Spec   *providers.Spec
	Format codec.Format
}

// Load is what a bridge is measured under: calls whose frames come by the clock,
// whatever the bridge does.
type Load struct {
	Lines    []Share[Line]
	Agents   []Share[Behaviour]
	Calls    int
	Arrivals float64       // calls begun in a second
	Length   time.Duration // of a call, after which another begins; 0: they last
	Settle   time.Duration // after the last call has begun, before the measuring
	Duration time.Duration // of the measuring
	Digits   float64       // pressed in a call and second
	Idle     bool          // the carriers send no audio
	// Hostile are calls beside the others, by what they do: see HostileKinds.
	Hostile map[Behaviour]int
	// Progress, if not nil, is told a few times a second what goes on.
	Progress func(what string, part float64)
}

// jitterBuffer is what a carrier or telephone holds back when somebody begins to
// speak, at the least.
const jitterBuffer = 40 * time.Millisecond

// Generator is the carriers and the agents of a load, in one process and so with
// one clock.
type Generator struct {
	begun   time.Time
	loops   []*ws.Loop
	pacers  []*pacer
	server  *http.Server
	address string
	serving sync.WaitGroup
	serial  atomic.Uint64

	mu    sync.Mutex
	calls map[string]*loadCall // by the carrier's id

	books books
}

// NewGenerator listens for the agents' side on address.
func NewGenerator(address string) (*Generator, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("bench: agents: %w", err)
	}
	g := &Generator{begun: time.Now(), address: l.Addr().String(), calls: map[string]*loadCall{}}
	g.books.reset(0)
	processors := runtime.NumCPU()
	runtime.GOMAXPROCS(3 * processors) // see ws.Loop
	for range processors {
		loop, err := ws.NewLoop()
		if err != nil && !errors.Is(err, errors.ErrUnsupported) {
			return nil, errors.Join(err, l.Close())
		}
		g.loops = append(g.loops, loop) // nil: goroutines do it
		g.pacers = append(g.pacers, newPacer(g.begun, func(d time.Duration) { g.books.took(lates, d) }))
	}
	g.server = &http.Server{Handler: http.HandlerFunc(g.agent), ReadHeaderTimeout: 10 * time.Second}
	g.serving.Go(func() { _ = g.server.Serve(l) }) // ends with Close
	return g, nil
}

// AgentURL is where a bridge finds the agents. With mirror they speak the carrier's
// own messages of a line, for bridges that pass them on as they are.
func (g *Generator) AgentURL(mirror *Line) string {
	if mirror == nil {
		return "ws://" + g.address + "/v1"
	}
	return "ws://" + g.address + "/mirror/" + mirror.Spec.Name
}

// Close ends the generator; no call may be under way.
func (g *Generator) Close() {
	g.server.Close()
	g.serving.Wait()
	for _, p := range g.pacers {
		p.close()
	}
	for _, l := range g.loops {
		if l != nil {
			l.Close()
		}
	}
}

func (g *Generator) now() time.Duration { return time.Since(g.begun) }

// limits of the connections of a load.
var loadLimits = ws.Limits{Text: 1 << 20, Binary: 4 << 20, Write: 30 * time.Second}

// pendingMark is a mark that playout has not reached, and the bytes before it.
type pendingMark struct {
	name string
	at   int64
}

// loadCall is a call of a load, as its carrier sees it.
type loadCall struct {
	g      *Generator
	line   Line
	agent  Behaviour
	id     string
	number int
	begun  time.Duration
	length time.Duration
	digits float64
	idle   bool
	conn   *ws.Conn
	raw    net.Conn // of one that pours; otherwise nil
	peer   providers.Peer
	over   chan struct{} // closed when its connection has ended

	// Owned by the pacer, but for what happens before it.
	frames int
	wire   providers.Messages
	ring   *rand.Rand

	// Owned by the connection.
	command providers.Command

	mu       sync.Mutex // guards what follows
	stuck    bool
	ended    bool
	leaving  bool // the caller hangs up
	voice    *markers.Markers
	detector markers.Detector
	reached  bool // the agent has been told of the call
	playing  bool
	buffered int   // bytes to be played
	taken    int64 // bytes that came
	expected int64 // bytes that the agent has said, in the carrier's format; -1: it goes on and on
	last     time.Duration
	lasting  time.Duration // of the last audio that came
	dry      time.Duration // when the caller began to hear nothing in the middle of speech; 0: not
	marks    []pendingMark
	played   int64
	clears   []time.Duration // when the agent asked for them
}

// dial makes one call of the load. A refusal counts and is no error.
func (g *Generator) dial(ctx context.Context, l *Load, i int, url func(*providers.Spec) string) (*loadCall, error) {
	n := g.serial.Add(1)
	line := pick(l.Lines, i)
	c := &loadCall{
		g: g, line: line, agent: pick(l.Agents, i), number: int(n), length: l.Length, digits: l.Digits, idle: l.Idle,
		id: fmt.Sprintf("CA%032x", n), peer: line.Spec.NewPeer(), over: make(chan struct{}),
		voice: markers.New(line.Spec.Start(line.Format).In), detector: markers.NewDetector(markers.New(line.Format)),
		ring: rand.New(rand.NewPCG(n, 0)),
	}
	if c.agent == EchoAgent { // what a slow one does to its own call is its own doing
		c.expected = -1
	}
	g.mu.Lock()
	g.calls[c.id] = c
	g.mu.Unlock()
	c.begun = g.now()
	var dialer ws.Dialer
	if c.agent == TinyCaller {
		dialer.Net = func(ctx context.Context, network, address string) (conn net.Conn, err error) {
			c.raw, err = new(net.Dialer).DialContext(ctx, network, address)
			return c.raw, err
		}
	}
	conn, _, err := dialer.Dial(ctx, url(line.Spec), nil, http.Header{}, loadLimits)
	if err != nil {
		g.forget(c)
		return nil, err
	}
	c.conn = conn
	start := line.Spec.Start(line.Format)
	start.Account, start.Call, start.Stream = "AC00000000000000000000000000000000", c.id, fmt.Sprintf("MZ%032x", n)
	start.Params = map[string]string{"call": c.id}
	if err := c.introduce(&start); err != nil {
		conn.Close(ws.CloseNormal, "")
		for e := error(nil); e == nil; {
			_, _, e = conn.Read()
		}
		conn.Release()
		g.forget(c)
		return nil, err
	}
	if c.agent == TinyCaller {
		c.pourTiny()
		return c, nil
	}
	conn.Serve(g.loops[c.number%len(g.loops)], c)
	g.pacers[c.number%len(g.pacers)].add(c)
	return c, nil
}

// introduce sends what a carrier sends first.
func (c *loadCall) introduce(start *providers.Start) error {
	for _, e := range []providers.Event{{Kind: providers.EventConnected}, {Kind: providers.EventStart, Start: start}} {
		c.wire.Reset()
		err := c.peer.Encode(&c.wire, &e)
		for _, m := range c.wire.All() {
			if err == nil {
				err = c.conn.Write(m.Binary, m.Data)
			}
		}
		if err != nil && !errors.Is(err, errors.ErrUnsupported) { // not all carriers greet
			return err
		}
	}
	return nil
}

func (g *Generator) forget(c *loadCall) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.calls, c.id)
}

// call is the one that a carrier's id means.
func (g *Generator) call(id string) *loadCall {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.calls[id]
}

// wait returns when the call's connection has ended.
func (c *loadCall) wait() {
	<-c.over
	c.conn.Release()
	c.g.forget(c)
}

// hangup has the call ended by its next tick.
func (c *loadCall) hangup() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leaving = true
}

// end ends the call as the carrier does when the caller leaves.
func (c *loadCall) end() {
	c.mu.Lock()
	c.ended = true
	c.mu.Unlock()
	_ = c.send(&providers.Event{Kind: providers.EventStop}) // there may be no such message
	c.conn.Close(ws.CloseNormal, "")
}

func (c *loadCall) send(ev *providers.Event) error {
	c.wire.Reset()
	if err := c.peer.Encode(&c.wire, ev); err != nil {
		return fmt.Errorf("bench: %s: %w", c.line.Spec.Name, err)
	}
	for _, m := range c.wire.All() {
		more, err := c.conn.Put(m.Binary, m.Data)
		if err != nil {
			return err
		}
		if !more {
			c.mu.Lock()
			c.stuck = true
			c.mu.Unlock()
		}
	}
	return nil
}

// tick implements ticker: a frame is sent and one is played.
func (c *loadCall) tick(now time.Duration) bool {
	c.mu.Lock()
	if c.ended {
		c.mu.Unlock()
		return false
	}
	if c.leaving || c.length > 0 && now-c.begun >= c.length {
		c.mu.Unlock()
		c.end()
		return false
	}
	if c.idle {
		c.mu.Unlock()
		return true
	}
	stuck := c.stuck
	payload, marker := c.voice.Frame(c.frames)
	at := time.Duration(c.frames) * codec.FrameTime
	if marker >= 0 && c.expected < 0 && !stuck {
		if c.detector.Sent(marker, now, int64(c.frames*c.line.Format.FrameSamples())) {
			c.g.books.count(func(b *tally) { b.MarkersLost++ })
		}
	}
	c.frames++
	c.play(now)
	due := c.due()
	c.mu.Unlock()
	if stuck { // the bridge reads too slowly: the carrier leaves out what it cannot send
		c.g.books.count(func(b *tally) { b.Unsent++ })
	} else if err := c.send(&providers.Event{Kind: providers.EventAudio, Audio: payload, At: at}); err != nil {
		return false // Closed tells
	}
	for _, m := range due {
		if c.send(&providers.Event{Kind: providers.EventMark, Mark: m.name}) != nil {
			return false
		}
	}
	if c.digits > 0 && c.ring.Float64() < c.digits*codec.FrameTime.Seconds() {
		if c.send(&providers.Event{Kind: providers.EventDigit, Digit: '5', Duration: 100 * time.Millisecond}) == nil {
			c.g.books.count(func(b *tally) { b.Digits++ })
		}
	}
	return true
}

// play is the carrier's playout of one frame. c.mu is held.
func (c *loadCall) play(now time.Duration) {
	frame := c.line.Format.FrameBytes()
	if !c.playing {
		if c.buffered > 0 && (c.line.Format.Duration(c.buffered) >= jitterBuffer || c.expected >= 0 &&
			c.taken >= c.expected) {
			c.playing = true
		} else {
			return
		}
	}
	n := min(frame, c.buffered)
	c.buffered -= n
	c.played += int64(n)
	switch {
	case n == frame:
		if c.dry > 0 {
			c.g.books.gap(now, now-c.dry)
			c.dry = 0
		}
	case c.expected >= 0 && c.taken >= c.expected: // all was said
		c.playing, c.dry = false, 0
	case c.dry == 0:
		c.dry = now
	}
}

// due are the marks that playout has reached. c.mu is held.
func (c *loadCall) due() (due []pendingMark) {
	for len(c.marks) > 0 && c.marks[0].at <= c.played {
		due = append(due, c.marks[0])
		c.marks = c.marks[1:]
	}
	return due
}

// Message implements ws.Handler.
func (c *loadCall) Message(binary bool, data []byte) {
	now := c.g.now()
	cmd := &c.command
	if err := c.peer.Decode(providers.Message{Binary: binary, Data: data}, cmd); err != nil {
		c.g.books.complain(err)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	b := &c.g.books
	switch cmd.Kind {
	case providers.CommandAudio:
		length := c.line.Format.Duration(len(cmd.Audio))
		if d := now - c.last - c.lasting; c.last > 0 && d < 500*time.Millisecond {
			b.took(jitters, max(d, -d))
		}
		c.last, c.lasting = now, length
		c.taken += int64(len(cmd.Audio))
		c.buffered += len(cmd.Audio)
		b.count(func(t *tally) { t.FramesBack++ })
		if c.expected >= 0 {
			return
		}
		if f, ok := c.detector.Hear(now, cmd.Audio); ok {
			b.marker(now, f)
		}
	case providers.CommandMark:
		c.marks = append(c.marks, pendingMark{cmd.Mark, c.played + int64(c.buffered)})
	case providers.CommandClear:
		c.buffered, c.playing, c.dry = 0, false, 0
		c.marks = nil
		if len(c.clears) > 0 {
			b.cleared(now - c.clears[0])
			c.clears = c.clears[:copy(c.clears, c.clears[1:])]
		}
	}
}

// Writable implements ws.Handler.
func (c *loadCall) Writable() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stuck = false
}

// Closed implements ws.Handler.
func (c *loadCall) Closed(err error) {
	c.mu.Lock()
	if !c.ended {
		c.ended = true
		if !c.hostile() {
			c.g.books.lost(err)
		}
	}
	c.mu.Unlock()
	c.conn.Close(ws.CloseNormal, "")
	close(c.over)
}

// said notes that the agent begins to say something, of a duration.
func (c *loadCall) said(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.expected += int64(c.line.Format.FrameBytes()) * int64(d/codec.FrameTime)
}

// interrupted notes that the agent asks for a clear.
func (c *loadCall) interrupted() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.expected = c.taken
	c.clears = append(c.clears, c.g.now())
}

// connected notes that the bridge has reached the agent.
func (c *loadCall) connected() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.reached {
		c.reached = true
		c.g.books.took(setups, c.g.now()-c.begun)
	}
}
