package session

// What is sent, and when: the one place that writes to both connections.

import (
	"fmt"
	"time"

	"voicebridge/codec"
	"voicebridge/providers"
)

// flow is one direction. One goroutine at a time sends in it; others that come
// meanwhile leave it to that one.
type flow struct {
	busy    bool          // a goroutine sends
	again   bool          // there may be more for it
	stuck   bool          // what was sent last has not been taken yet
	dead    bool          // nothing can be sent any more
	last    chan struct{} // of the agent's: the call is over, the stop is to be sent, and this closed then
	drained uint          // how often Writable was called
	wait    time.Duration // nothing is due before, unless something comes
	frame   []byte
	gone    chan struct{} // closed when the connection has told of its end
}

const (
	// slack is how much later than due a frame of a run may go out: the carrier's
	// next message is a clock that costs nothing, a timer is one that costs a
	// wake-up. What the carrier holds ahead hides it.
	slack        = 25 * time.Millisecond
	leadForSlack = 100 * time.Millisecond
)

// send sends what is due, both ways, and sets the timer for what is not. s.mu is
// held, but not while a connection takes something.
func (s *Session) send() {
	if s.call == nil {
		return
	}
	s.run(&s.toCarrier, s.nextToCarrier)
	if s.agent != nil { // after the other: that may have something to tell
		s.run(&s.toAgent, s.nextToAgent)
	} else {
		s.toAgent.wait = forever
	}
	if s.ctx.Err() != nil {
		return
	}
	at, now := min(s.toCarrier.wait, s.toAgent.wait), s.now()
	if at == s.armed || at == forever {
		return
	}
	s.armed = at
	s.timer.Reset(at - now)
}

// tick is the timer's.
func (s *Session) tick() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.armed = 0
	s.send()
}

// run sends in one direction until nothing is due.
func (s *Session) run(f *flow, next func() (more bool)) {
	if f.busy {
		f.again = true
		return
	}
	f.busy = true
	for more := true; more; {
		f.again = false
		more = next() || f.again
	}
	f.busy = false
	if f.last != nil {
		close(f.last)
		f.last = nil
	}
}

// sent takes note of how a connection took something. before is what drained was.
func (f *flow) sent(more bool, err error, before uint) {
	switch {
	case err != nil: // the connection tells why it has ended
		f.dead, f.wait = true, forever
	case !more && f.drained == before:
		f.stuck = true
	}
}

// writable is for what was kept having gone.
func (s *Session) writable(f *flow) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f.drained++
	f.stuck = false
	s.send()
}

// nextToCarrier sends what is due to the carrier, paced. It is false where nothing
// is.
func (s *Session) nextToCarrier() bool {
	f := &s.toCarrier
	if f.dead || f.stuck || s.ctx.Err() != nil {
		f.wait = forever
		return false
	}
	now := s.now()
	cmd := &s.command
	ok, wait := s.out.next(now, f.frame, cmd)
	f.wait = wait
	if transfers := s.out.ready; len(transfers) > 0 {
		s.out.ready = nil
		s.mu.Unlock()
		for _, it := range transfers {
			s.control.Transfer(it.id, it.transfer)
		}
		s.mu.Lock()
	}
	if end := s.out.end; end != nil {
		s.finish(end.Cause, end.Err)
		return false
	}
	if !ok {
		return false
	}
	signalled, came, before := s.out.signalled, s.out.came, f.drained
	if cmd.Kind == providers.CommandDigits && !s.spec.Abilities.SendDigits {
		s.signals.Go(func() { s.signal(signalled) })
		return true
	}
	s.mu.Unlock()
	msg, err := s.stream.Encode(s.wire[:0], cmd)
	if err != nil {
		s.finish(ProtocolError, fmt.Errorf("encode %v: %w", cmd.Kind, err))
		s.mu.Lock()
		return false
	}
	s.wire = msg.Data
	more, err := s.carrier.Put(msg.Binary, msg.Data)
	s.mu.Lock()
	f.sent(more, err, before)
	if err != nil {
		return false
	}
	switch cmd.Kind {
	case providers.CommandDigits:
		s.signalled(signalled, nil)
	case providers.CommandAudio:
		if now-came < codec.FrameTime {
			s.stats.Out.add(s.now() - came)
		}
	}
	return true
}

// nextToAgent sends what is due to the agent: events first, then audio. Once the
// call is over it sends the events that are left and the stop. It is false where
// there is nothing.
func (s *Session) nextToAgent() bool {
	f := &s.toAgent
	ended := s.ctx.Err() != nil
	if f.dead || f.last == nil && (ended || f.stuck) {
		f.wait = forever
		return false
	}
	now := s.now()
	ev := &s.saying
	stop := f.last != nil && len(s.events) == 0
	if stop {
		*ev = AgentEvent{Kind: AgentStop, Cause: string(endOf(s.ctx).Cause), Duration: now, In: s.in.sent, Out: s.out.heard(now)}
		f.dead = true
	} else if ok, wait := s.nextForAgent(now, f.frame, ev); !ok {
		f.wait = wait
		return false
	}
	arrived, before := s.in.taken, f.drained
	s.mu.Unlock()
	more, err := s.agent.Send(ev)
	s.mu.Lock()
	f.sent(more, err, before)
	if ev.Kind == AgentAudio {
		s.stats.In.add(s.now() - arrived)
	}
	return err == nil && !stop
}

// nextForAgent gives what to send now: events first, then audio.
func (s *Session) nextForAgent(now time.Duration, buf []byte, ev *AgentEvent) (ok bool, wait time.Duration) {
	if len(s.events) > 0 {
		*ev = s.events[0]
		s.events = s.events[:copy(s.events, s.events[1:])]
		ev.In = s.in.sent
		return true, 0
	}
	ok, wait = s.in.next(now, buf, ev)
	if ok && s.mix != nil && ev.Kind == AgentAudio {
		s.mix.agent.addTo(ev.Audio)
	}
	if ok {
		ev.Out = s.out.heard(now)
	}
	return ok, wait
}
