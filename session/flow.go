package session

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"voicebridge/agent"
	"voicebridge/calls"
	"voicebridge/codec"
	"voicebridge/providers"
	"voicebridge/session/audio"
)

// flow sends in one direction: to the carrier, or to the agent. It is the one place
// that writes to that connection.
//
// Locks: mu is the session's, and held by whoever calls a method. next gives it up
// while the connection takes something, and holds it again when it returns. One
// goroutine at a time sends (busy); those that come meanwhile leave it to that one
// (again), so nobody waits for a connection.
type flow struct {
	mu   *sync.Mutex
	next func() (more bool) // sends what is due; false: nothing is

	busy    bool          // a goroutine sends
	again   bool          // there may be more for it
	stuck   bool          // the connection keeps what was sent last: Writable tells when it has gone
	dead    bool          // nothing can be sent any more
	last    chan struct{} // the call is over: what is left is to be sent, and this closed then
	drained uint          // how often Writable was called
	due     time.Duration // nothing is due before, unless something comes
	buf     []byte        // for a frame
	gone    chan struct{} // closed when the connection has told of its end
	bye     calls.Cause   // why it ends before the call does; empty: it does not

	// Of a connection to the agent: what is being said, and how much more audio there was before its first than
	// it was told.
	saying agent.Event
	told   time.Duration // the playhead that it was told
	shift  time.Duration
}

const (
	// slack is how much later than due a frame of a run may go out: the carrier's
	// next message is a clock that costs nothing, a timer is one that costs a
	// wake-up. What the carrier holds ahead hides it.
	slack        = 25 * time.Millisecond
	leadForSlack = 100 * time.Millisecond
)

// run sends until nothing is due.
func (f *flow) run() {
	if f.busy {
		f.again = true
		return
	}
	f.busy = true
	defer f.idle()
	for more := true; more; {
		f.again = false
		more = f.next() || f.again
	}
}

// idle notes that nothing is sent any more.
func (f *flow) idle() {
	f.busy = false
	if f.last != nil {
		close(f.last)
		f.last = nil
	}
}

// took takes note of how the connection took something. before is what drained was.
func (f *flow) took(more bool, err error, before uint) {
	switch {
	case err != nil: // the connection tells why it has ended
		f.dead, f.due = true, audio.Forever
	case !more && f.drained == before:
		f.stuck = true
	}
}

// writable notes that what the connection kept has gone.
func (f *flow) writable() {
	f.drained++
	f.stuck = false
}

// finish has what is left sent, and returns once it is. send is what runs the flow; mu
// is not held.
func (f *flow) finish(send func()) {
	sent := make(chan struct{})
	f.begin(sent, send)
	<-sent
}

func (f *flow) begin(sent chan struct{}, send func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = sent
	send()
}

// newAgentFlow makes what sends to one connection of the agent's.
func (s *Session) newAgentFlow() *flow {
	f := &flow{mu: &s.mu, gone: make(chan struct{})}
	f.next = func() bool { return s.nextToAgent(f) }
	return f
}

// send sends what is due, both ways, and sets the timer for what is not. s.mu is
// held, but not while a connection takes something.
func (s *Session) send() {
	if s.call == nil {
		return
	}
	s.toCarrier.run()
	if s.agent != nil { // after the other: that may have something to tell
		s.toAgent.run()
	} else {
		s.toAgent.due = audio.Forever
	}
	if s.verdict.Reached() {
		return
	}
	at, now := min(s.toCarrier.due, s.toAgent.due), s.now()
	if at == s.armed || at == audio.Forever {
		return
	}
	s.armed = at
	s.timer.Reset(at - now)
}

// tick is the timer's.
func (s *Session) tick() {
	defer s.guard()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.armed = 0
	s.send()
}

// writable is for a connection that takes more.
func (s *Session) writable(f *flow) {
	defer s.guard()
	s.mu.Lock()
	defer s.mu.Unlock()
	f.writable()
	s.send()
}

// nextToCarrier sends what is due to the carrier, paced. It is false where nothing
// is.
func (s *Session) nextToCarrier() bool {
	f := &s.toCarrier
	if s.verdict.Reached() {
		f.due = audio.Forever
		return s.hangUp()
	}
	if f.dead || f.stuck {
		f.due = audio.Forever
		return false
	}
	now := s.now()
	cmd := &s.command
	s.out.Follow(s.in.Behind())
	ok, due := s.out.Next(now, f.buf, cmd)
	f.due = due
	s.beginTransfers()
	if end := s.out.End(); end != nil {
		s.finish(end.Cause, end.Err)
		return false
	}
	switch {
	case !ok:
		return false
	case cmd.Kind == providers.CommandDigits && !s.streams(cmd.Digits):
		digits := s.out.Signalled()
		if s.Control.Digits == nil {
			s.digitsSent(digits, errors.ErrUnsupported)
			return true
		}
		s.signals.Go(func() { s.signal(digits) })
		return true
	}
	return s.put(cmd, now)
}

// streams reports whether the media connection can send these digits: no carrier's knows
// pauses, and not all A to D.
func (s *Session) streams(digits string) bool {
	return s.Spec.Abilities.SendDigits && strings.Trim(digits, "0123456789*#") == ""
}

// put gives a command to the carrier's connection. It is false where that failed.
func (s *Session) put(cmd *providers.Command, now time.Duration) bool {
	f := &s.toCarrier
	signalled, came, before := s.out.Signalled(), s.out.Came(), f.drained
	var more bool
	var err error
	s.unlocked(func() { more, err = s.translate(cmd) })
	f.took(more, err, before)
	if err != nil {
		return false
	}
	switch cmd.Kind {
	case providers.CommandDigits:
		s.digitsSent(signalled, nil)
	case providers.CommandAudio:
		if now-came < codec.FrameTime {
			s.stats.Out.Add(s.now() - came)
		}
	}
	return true
}

// translate writes a command in the carrier's messages. The flow owns the stream's
// Encode and the messages; s.mu is not held.
func (s *Session) translate(cmd *providers.Command) (more bool, err error) {
	s.wire.Reset()
	if err := s.stream.Encode(&s.wire, cmd); err != nil {
		s.finish(calls.ProtocolError, fmt.Errorf("encode %v: %w", cmd.Kind, err))
		return false, err
	}
	more = true
	for _, m := range s.wire.All() {
		if more, err = s.Media.Put(m); err != nil {
			return false, err
		}
	}
	return more, nil
}

// hangUp ends the call over the media connection, where that can and the carrier does
// not know yet. It is done once; the flow then has nothing more to send.
func (s *Session) hangUp() bool {
	f := &s.toCarrier
	wanted := f.last != nil && !f.dead && s.Spec.Abilities.Hangup && !s.verdict.Get().Cause.ByCarrier()
	f.dead = f.dead || f.last != nil
	if wanted {
		s.put(&providers.Command{Kind: providers.CommandHangup}, s.now())
	}
	return false
}

// beginTransfers begins those whose time has come. s.mu is held, but not meanwhile.
func (s *Session) beginTransfers() {
	due := s.out.TakeTransfers()
	if len(due) == 0 {
		return
	}
	s.unlocked(func() {
		for _, it := range due {
			s.Control.Transfer(it.ID, it.Transfer)
		}
	})
}

// nextToAgent sends what is due to the agent: events first, then audio. Once the
// call is over it sends the events that are left and the stop. It is false where
// there is nothing.
func (s *Session) nextToAgent(f *flow) bool {
	if f != s.toAgent { // another connection has taken its place
		return false
	}
	if f.dead || f.last == nil && (s.verdict.Reached() || f.stuck) {
		f.due = audio.Forever
		return false
	}
	now := s.now()
	ev := &f.saying
	if f.last != nil {
		s.out.Over(now, f.bye == "")
	}
	stop := f.last != nil && len(s.events) == 0
	if stop {
		*ev = agent.Event{Kind: agent.EventStop, End: s.endFor(f), GoesOn: f.bye != "", Duration: now, In: s.in.Sent(),
			Out: s.out.Heard(now)}
		f.dead = true
	} else if ok, due := s.nextForAgent(now, f.buf, ev); !ok {
		f.due = due
		return false
	}
	if f.shift > 0 {
		ev.Out = max(f.told, ev.Out-f.shift)
		ev.Sent = max(0, ev.Sent-f.shift)
	}
	arrived, before, to := s.in.Taken(), f.drained, s.agent
	var more bool
	var err error
	s.unlocked(func() { more, err = to.Send(ev) })
	f.took(more, err, before)
	if ev.Kind == agent.EventAudio {
		s.stats.In.Add(s.now() - arrived)
	}
	return err == nil && !stop
}

// endFor is the end that the agent's connection is told.
func (s *Session) endFor(f *flow) calls.Cause {
	if f.bye != "" {
		return f.bye
	}
	return s.verdict.Get().Cause
}

// nextForAgent returns what to send now: events first, then audio.
func (s *Session) nextForAgent(now time.Duration, buf []byte, ev *agent.Event) (ok bool, due time.Duration) {
	if len(s.events) > 0 {
		*ev = s.events[0]
		s.events = s.events[:copy(s.events, s.events[1:])]
		ev.In = s.in.Sent()
		return true, 0
	}
	ok, due = s.in.Next(now, buf, ev)
	if ok && s.party != nil && ev.Kind == agent.EventAudio {
		s.room.AgentHears(ev.Audio)
	}
	if ok {
		ev.Out = s.out.Heard(now)
	}
	return ok, due
}
