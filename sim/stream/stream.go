// Package stream is the simulated carrier's end of a media connection: a caller who talks and
// listens, at the carrier's pace, and what it was like.
package stream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"voicebridge/codec"
	"voicebridge/providers"
	"voicebridge/sim/ear"
	"voicebridge/ws"
)

// Caller is one simulated call: a carrier that speaks its own protocol to a
// bridge through the Peer of its Spec, and a caller who talks and listens.
//
// The carrier has one media clock. Every 20 ms it sends a frame of the caller's
// voice and plays a frame of what the bridge has sent; where it has less than a
// frame, the caller hears silence. It echoes a mark when playout reaches it,
// and treats a clear as its Abilities say.
type Caller struct {
	Spec   *providers.Spec
	URL    string // of the bridge's media socket
	Header http.Header
	Dialer ws.Dialer
	// Open, if not nil, makes the media connection; nil without an error: the Dialer does.
	Open   func(ctx context.Context) (providers.PeerConn, error)
	Start  providers.Start // what the carrier tells of the call; In and Out choose the format
	Voice  []int16         // what the caller says, at the format's rate; silence follows
	Length time.Duration   // of the call; 0: as long as Voice
	Digits []Digit
	// Slow is by how much the carrier's clock is slow, in parts per million; less than 0: fast.
	Slow int
	// Buffer is how long audio waits that comes while nothing is played.
	Buffer time.Duration
	// Stall is a time in which nothing comes: all of it comes at once behind it.
	Stall Stall
	// Progress, if not nil, is called about ten times a second of call time.
	Progress func(at time.Duration)
	// Dials, if not nil, is given the digits that are sent to the other party.
	Dials func(digits string)
	// Events, if not nil, sees every command that the carrier takes.
	Events func(at time.Duration, cmd *providers.Command)
}

// Stall is a time of a call.
type Stall struct{ At, For time.Duration }

// Digit is a key that the caller presses.
type Digit struct {
	At  time.Duration
	Key byte
}

// Result is what a call was like at the carrier's end.
type Result struct {
	Format codec.Format
	Said   []int16 // what the caller said, as the carrier's encoding carries it
	Heard  []int16 // what the caller heard, from the start of the call
	// Received is the audio from the bridge as it came, without the carrier's
	// playout.
	Received []int16

	Began      time.Time
	SentAt     []time.Duration // when each frame was sent, from the start of the call
	ReceivedAt []time.Duration // when each frame came
	Gaps       int             // holes in the middle of what was heard
	GapTime    time.Duration
	Marks      int // marks echoed
	Clears     int
	Overflow   int      // frames discarded because the carrier's buffer was full
	Warnings   []string // what the carrier complains about, at most ten
	Complaints int      // how often it complained
	Duration   time.Duration
	CloseCode  int  // with which the bridge closed; 0: it did not
	Lost       bool // the connection ended before the caller hung up
}

// command is what the reader passes on.
type command struct {
	at   time.Duration
	cmd  providers.Command
	err  error // a complaint of the carrier's
	gone error // the connection has ended
}

// maxCall bounds the length of a simulated call.
const maxCall = time.Hour

// Run makes the call and returns when it is over. An error means that the call
// could not be made; what went wrong during the call is in the Result.
func (c *Caller) Run(ctx context.Context) (*Result, error) {
	conn, err := c.connect(ctx)
	if err != nil {
		return nil, fmt.Errorf("simulated carrier: call %s: %w", c.Spec.Name, err)
	}
	call := &call{
		Caller: c, conn: conn, peer: c.Spec.NewPeer(), began: time.Now(),
		format: c.Start.Out, commands: make(chan command, 1024),
		result: &Result{Format: c.Start.Out},
	}
	call.result.Began = call.began
	if call.Length == 0 {
		call.Length = min(maxCall, time.Duration(len(c.Voice))*time.Second/time.Duration(c.Start.In.Rate))
	}
	done := make(chan struct{})
	stop := make(chan struct{})
	go func() {
		defer close(done)
		call.read(stop)
	}()
	err = call.run(ctx)
	close(stop)
	conn.Close(ws.CloseNormal, "")
	<-done
	conn.Release()
	call.finish()
	return call.result, err
}

// connect makes the media connection, or takes the one that is made otherwise.
func (c *Caller) connect(ctx context.Context) (providers.PeerConn, error) {
	if c.Open != nil {
		if conn, err := c.Open(ctx); conn != nil || err != nil {
			return conn, err
		}
	}
	conn, _, err := c.Dialer.Dial(ctx, c.URL, c.Spec.Subprotocols(), c.Header,
		ws.Limits{Text: 1 << 20, Binary: 1 << 20, Write: 5 * time.Second})
	return conn, err
}

// call is a Caller under way. All but read belongs to one goroutine.
type call struct {
	*Caller
	conn     providers.PeerConn
	peer     providers.Peer
	began    time.Time
	format   codec.Format
	commands chan command
	result   *Result

	wire   providers.Messages
	late   []providers.Message // sent behind one of the next messages
	kept   []providers.Event   // in the stall
	hold   int                 // which one
	buffer []byte              // to be played
	heard  []byte
	said   []byte
	got    []byte
	plays  time.Duration // when playout begins, or began
	played int64         // bytes taken from buffer so far
	queued int64         // bytes put into buffer so far
	marks  []callMark
	filled []bool // for each tick: there was a whole frame to play
	ended  bool
}

type callMark struct {
	name string
	at   int64
}

func (c *call) now() time.Duration { return time.Since(c.began) }

// read passes on what the bridge sends until the connection has ended.
func (c *call) read(stop <-chan struct{}) {
	for {
		var m command
		binary, data, err := c.conn.Read()
		if m.at = c.now(); err != nil {
			m.gone = err
		} else {
			m.err = c.peer.Decode(providers.Message{Binary: binary, Data: data}, &m.cmd)
			m.cmd.Audio = append([]byte(nil), m.cmd.Audio...)
		}
		select {
		case c.commands <- m:
		case <-stop:
		}
		if err != nil {
			return
		}
	}
}

func (c *call) send(ev *providers.Event) error {
	c.wire.Reset()
	if err := c.peer.Encode(&c.wire, ev); err != nil {
		return fmt.Errorf("simulated carrier: %s: %w", c.Spec.Name, err)
	}
	if c.Spec.Abilities.Reorders && ev.Kind == providers.EventAudio && ev.At%lateEvery == 0 && len(c.late) == 0 {
		for _, m := range c.wire.All() {
			c.late = append(c.late, providers.Message{Binary: m.Binary, Data: bytes.Clone(m.Data)})
		}
		if c.hold = 1; ev.At == 0 {
			c.hold = 2
		}
		return nil
	}
	all := c.wire.All()
	if c.hold--; c.hold <= 0 {
		all = append(all, c.late...)
		c.late = nil
	}
	for _, m := range all {
		if err := c.conn.Write(m.Binary, m.Data); err != nil {
			return errLost
		}
	}
	return nil
}

// errLost: the connection cannot be written to. The reader knows why.
var errLost = errors.New("the connection is lost")

// lateEvery is how often a carrier that reorders sends a frame behind the next one. The first
// one comes behind two: whoever sends it back at once begins with the longest delay there is,
// and does not run dry by chance later on.
const lateEvery = 100 * time.Millisecond

// run makes the call. A bridge that ends it at any time, the very first included, is no error.
func (c *call) run(ctx context.Context) error {
	err := c.talk(ctx)
	if !errors.Is(err, errLost) {
		return err
	}
	for !c.ended {
		_ = c.take(<-c.commands) // what it would send is lost as well
	}
	return nil
}

func (c *call) talk(ctx context.Context) error {
	err := c.send(&providers.Event{Kind: providers.EventConnected})
	if err == nil || errors.Is(err, errors.ErrUnsupported) {
		err = c.send(&providers.Event{Kind: providers.EventStart, Start: &c.Start})
	}
	if err != nil {
		return err
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	digits := c.Digits
	for n := 0; ; n++ {
		// The clock is absolute: a late tick does not move the next one.
		at := time.Duration(n) * codec.FrameTime
		for timer.Reset(at + at*time.Duration(c.Slow)/1e6 - c.now()); ; {
			select {
			case m := <-c.commands:
				if err := c.take(m); err != nil || c.ended {
					return err
				}
				continue
			case <-ctx.Done():
				c.hangup()
				return ctx.Err()
			case <-timer.C:
			}
			break
		}
		if at >= c.Length {
			c.hangup()
			return nil
		}
		if err := c.tick(n, at); err != nil {
			return err
		}
		for len(digits) > 0 && digits[0].At <= at {
			if err := c.send(&providers.Event{Kind: providers.EventDigit, Digit: digits[0].Key,
				Duration: 100 * time.Millisecond}); err != nil {
				return err
			}
			digits = digits[1:]
		}
		if c.Progress != nil && n%5 == 0 {
			c.Progress(at)
		}
	}
}

// tick sends a frame and plays one.
func (c *call) tick(n int, at time.Duration) error {
	size := c.Start.In.FrameSamples()
	frame := make([]int16, size)
	if from := n * size; from < len(c.Voice) {
		copy(frame, c.Voice[from:])
	}
	payload := c.Start.In.Encoding.AppendEncode(nil, frame)
	c.said = append(c.said, payload...)
	c.result.SentAt = append(c.result.SentAt, c.now())
	if !c.Spec.Abilities.Silent || n*size < len(c.Voice) {
		c.kept = append(c.kept, providers.Event{Kind: providers.EventAudio, Audio: payload, At: at})
	}
	stalled := at >= c.Stall.At && at < c.Stall.At+c.Stall.For
	for ; len(c.kept) > 0 && !stalled; c.kept = c.kept[1:] {
		if err := c.send(&c.kept[0]); err != nil {
			return err
		}
	}
	out := min(c.format.FrameBytes(), len(c.buffer))
	if c.now() < c.plays {
		out = 0
	}
	c.heard = append(c.heard, c.buffer[:out]...)
	c.heard = c.format.Encoding.AppendSilence(c.heard, c.format.FrameBytes()-out)
	c.buffer = c.buffer[out:]
	c.played += int64(out)
	c.filled = append(c.filled, out == c.format.FrameBytes())
	return c.echo()
}

// echo sends back the marks that playout has reached.
func (c *call) echo() error {
	for len(c.marks) > 0 && c.marks[0].at <= c.played {
		name := c.marks[0].name
		c.marks = c.marks[1:]
		c.result.Marks++
		if err := c.send(&providers.Event{Kind: providers.EventMark, Mark: name}); err != nil {
			return err
		}
	}
	return nil
}

// take acts on a command of the bridge's.
func (c *call) take(m command) error {
	switch {
	case m.gone != nil:
		c.ended, c.result.Lost = true, true
		c.result.CloseCode = ws.CloseCode(m.gone)
		return nil
	case m.err != nil:
		if c.result.Complaints++; c.result.Complaints <= 10 {
			c.result.Warnings = append(c.result.Warnings, m.err.Error())
		}
	}
	if c.Events != nil && m.cmd.Kind != 0 {
		c.Events(m.at, &m.cmd)
	}
	switch m.cmd.Kind {
	case providers.CommandAudio:
		c.got = append(c.got, m.cmd.Audio...)
		c.result.ReceivedAt = append(c.result.ReceivedAt, m.at)
		if q := c.Spec.Abilities.Queue; q > 0 && c.format.Duration(len(c.buffer)) >= q {
			c.result.Overflow++
			return nil
		}
		if len(c.buffer) == 0 {
			c.plays = m.at + c.Buffer
		}
		c.buffer = append(c.buffer, m.cmd.Audio...)
		c.queued += int64(len(m.cmd.Audio))
	case providers.CommandMark:
		c.marks = append(c.marks, callMark{m.cmd.Mark, c.queued})
		return c.echo()
	case providers.CommandClear:
		c.result.Clears++
		c.played += int64(len(c.buffer))
		c.buffer = nil
		if !c.Spec.Abilities.ClearMarks {
			c.marks = nil
		}
		if err := c.echo(); err != nil || !c.Spec.Abilities.Clears {
			return err
		}
		return c.send(&providers.Event{Kind: providers.EventCleared})
	case providers.CommandDigits:
		if c.Dials != nil {
			c.Dials(m.cmd.Digits)
		}
	case providers.CommandHangup:
		c.ended = true
	}
	return nil
}

// hangup ends the call as the carrier does when the caller leaves.
func (c *call) hangup() {
	// An error means that the connection is gone, or that there is no stop message.
	_ = c.send(&providers.Event{Kind: providers.EventStop})
}

func (c *call) finish() {
	r := c.result
	r.Duration = c.now()
	r.Said = c.Start.In.Encoding.AppendDecode(nil, c.said)
	r.Heard = c.format.Encoding.AppendDecode(nil, c.heard)
	r.Received = c.format.Encoding.AppendDecode(nil, c.got)
	first, last := -1, -1
	for i, ok := range c.filled {
		if ok {
			if first < 0 {
				first = i
			}
			last = i
		}
	}
	for i := first + 1; first >= 0 && i < last; i++ {
		if !c.filled[i] {
			if c.filled[i-1] {
				r.Gaps++
			}
			r.GapTime += codec.FrameTime
		}
	}
}

// AddedDelay is how long each frame took from the caller through bridge, agent
// and back to the carrier, for an agent that echoes: the time between the
// message that carried it there and the one that carried it back, plus the
// delay of the audio within the messages, which is that of the filters.
func (r *Result) AddedDelay() []time.Duration {
	lag := ear.Align(r.Said, r.Received, r.Format.Rate/50)
	filters := time.Duration(lag) * time.Second / time.Duration(r.Format.Rate)
	var d []time.Duration
	for i, at := range r.ReceivedAt {
		if i < len(r.SentAt) {
			d = append(d, at-r.SentAt[i]+filters)
		}
	}
	return d
}
