package session

// The agent's side of a session: dialling, and what comes from it.

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"voicebridge/agent"
	"voicebridge/calls"
	"voicebridge/providers"
	"voicebridge/session/audio"
)

// broken is a connection of the agent's that has broken.
type broken struct {
	conn agent.Conn
	flow *flow
	end  calls.End
}

// serveAgent has the call talk to its agent, and to it again where its connection breaks, until the end.
func (s *Session) serveAgent(ctx context.Context) {
	defer s.guard()
	if !s.dialAgent(ctx) {
		return
	}
	for {
		select {
		case <-s.verdict.Done():
			s.mu.Lock() // nothing breaks any more
			s.mu.Unlock()
			s.releaseBroken()
			return
		case b := <-s.broken:
			b.release()
			s.redial(ctx, &b.end)
		case n := <-s.next:
			s.goOn(ctx, &n)
		}
	}
}

// Other is another agent than that which a call began with.
type Other struct {
	Name     string
	Dialer   agent.Dialer
	Config   Config // what is the agent's of it counts
	Fallback *Other // takes the call over where this one fails; nil: none does
}

// next is a connection that is to take the place of the agent's.
type next struct {
	to      *Other // nil: the same agent
	context map[string]string
	still   func() bool // reports whether it may, once it is ready; nil: it may
	done    func(error) // is told, with an error where nothing has changed
}

// HandOver has the call go on with another agent, once that is ready, which is told the context. done is told
// then, or of the error where nothing changes. It is false where something of that kind is under way.
func (s *Session) HandOver(to *Other, context map[string]string, done func(error)) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.replace(next{to: to, context: context, done: done})
}

// Renew implements agent.Beside.
func (s agentSide) Renew(still func() bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current() {
		s.replace(next{still: still, done: func(error) {}})
	}
}

// replace wants another connection. It is false where that is under way. s.mu is held.
func (s *Session) replace(n next) bool {
	if s.going {
		return false
	}
	s.going = true
	if s.lost != nil { // its connection has ended, and the call was to end with it
		s.out.Withdraw(s.lost)
		s.agentGone = false // what is said from now on is the next one's
	}
	s.next <- n // there is room
	return true
}

// current reports whether the connection is still the agent's. s.mu is held.
func (s agentSide) current() bool { return s.flow == s.toAgent && s.flow.bye == "" }

func (s agentSide) isCurrent() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current()
}

// goOn has another connection take the place of the agent's, once it is ready. Until then, and where that
// fails, nothing changes.
func (s *Session) goOn(ctx context.Context, n *next) {
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.going = false
	}()
	call, dialer, limit := s.resumed(), s.Dialer, s.Config.AgentDial
	if n.to != nil {
		call, dialer, limit = s.takenOver(n.context), n.to.Dialer, n.to.Config.AgentDial
	}
	conn, err := s.dial(ctx, dialer, limit, call)
	if err == nil && n.still != nil && !n.still() {
		conn.Close(calls.AgentHangup)
		conn.Release()
		return
	}
	if err != nil {
		s.log.Warn("the connection that was to take the place of the agent's did not come about", "err", err)
		n.done(err)
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.lost != nil {
			s.giveUp(s.lost)
		}
		return
	}
	cause := calls.AgentHangup
	if n.to != nil {
		cause = calls.Transferred
		s.adopt(n.to)
	}
	defer s.leave(cause)() // the new one does not wait for the old one's end
	s.releaseBroken()      // it may have broken meanwhile
	before := s.take(conn, call.Resume)
	if n.to != nil {
		s.awaitGreeting(before)
	}
	n.done(nil)
}

// dial dials an agent, within the limit.
func (s *Session) dial(ctx context.Context, to agent.Dialer, limit time.Duration,
	call *agent.Call) (agent.Conn, error) {
	ctx, stop := s.during(ctx, limit)
	defer stop()
	return to.Dial(ctx, call)
}

// adopt makes another agent the call's; Run's goroutine calls it.
func (s *Session) adopt(to *Other) {
	s.mu.Lock()
	s.AgentName, s.Dialer, s.Fallback = to.Name, to.Dialer, to.Fallback
	own, its := &s.Config, &to.Config
	own.Reconnect, own.AgentDial, own.Greeting = its.Reconnect, its.AgentDial, its.Greeting
	s.kept, s.redials = nil, 0
	s.out.Adapt(its.Prebuffer, its.AgentQueue)
	s.mu.Unlock()
	s.notice(func() {
		if s.Control.Adopted != nil {
			s.Control.Adopted(to.Name)
		}
	})
}

// leave tells the agent's connection that it is over, while the call is not. released waits for its end.
func (s *Session) leave(cause calls.Cause) (released func()) {
	s.mu.Lock()
	conn, f := s.agent, s.toAgent
	if conn != nil {
		f.bye = cause
	}
	s.mu.Unlock()
	if conn == nil { // it has broken
		return func() {}
	}
	f.finish(s.send)
	s.mu.Lock()
	s.agent, s.toAgent = nil, s.newAgentFlow()
	s.forget()
	s.mu.Unlock()
	conn.Close(cause)
	return func() {
		<-f.gone
		conn.Release()
	}
}

// forget leaves out what only the Talk so far could say. s.mu is held.
func (s *Session) forget() {
	s.events = slices.DeleteFunc(s.events, func(ev agent.Event) bool { return ev.Kind == agent.EventReply })
}

// resumed returns the call as it is for a connection that goes on.
func (s *Session) resumed() *agent.Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	call := *s.call
	call.Resume = &agent.Resume{In: s.in.Sent(), Out: s.out.Heard(s.now()), Sent: s.out.Sent(),
		Lines: slices.Clone(s.lines), Kept: s.kept}
	return &call
}

// takenOver returns the call as it is for another agent.
func (s *Session) takenOver(context map[string]string) *agent.Call {
	call := s.resumed()
	call.Resume.From, call.Resume.Context, call.Resume.Kept = new(s.AgentName), context, nil
	return call
}

// releaseBroken releases the agent's connection, if it has broken.
func (s *Session) releaseBroken() {
	select {
	case b := <-s.broken:
		b.release()
	default:
	}
}

func (b *broken) release() {
	b.conn.Close(b.end.Cause)
	<-b.flow.gone
	b.conn.Release()
}

// dialAgent dials the agent, or its fallback, and has it served. It is false where the call ends instead.
func (s *Session) dialAgent(ctx context.Context) bool {
	began := time.Now()
	conn, err := s.dial(ctx, s.Dialer, s.Config.AgentDial, s.call)
	var instead *Other
	if err != nil && s.Fallback != nil && !s.verdict.Reached() {
		instead = s.Fallback
		s.log.Warn("the agent cannot be reached: its fallback is dialled", "fallback", instead.Name, "err", err)
		first := err
		if conn, err = s.dial(ctx, instead.Dialer, instead.Config.AgentDial, s.call); err != nil {
			err = fmt.Errorf("%w; and the fallback: %w", first, err)
		}
	}
	if err != nil {
		s.finish(calls.AgentUnreachable, err)
		return false
	}
	s.notice(func() {
		if s.Control.Streaming != nil {
			s.Control.Streaming(s.call, time.Since(began))
		}
	})
	if instead != nil {
		s.adopt(instead)
	}
	s.awaitGreeting(s.take(conn, nil))
	return true
}

// take has a connection to the agent served. told is where it was told that it goes on; nil: it is the first. It
// returns how much audio had come before.
func (s *Session) take(conn agent.Conn, told *agent.Resume) (before time.Duration) {
	s.mu.Lock()
	f := s.toAgent
	before = s.out.Sent()
	s.lost = nil
	s.tune(conn, f)
	if told != nil {
		f.told, f.shift = told.Out, s.out.Sent()-told.Sent
		s.out.Pause(false) // it knows nothing of that
		s.out.Away(nil, 0)
		s.tellHolds()
	}
	s.mu.Unlock()
	conn.Serve(agentSide{s, f, conn})
	s.mu.Lock()
	defer s.mu.Unlock()
	if f == s.toAgent { // otherwise it has broken at once
		s.agent = conn
		s.send()
	}
	return before
}

// leaveAgent tells the agent of the end of the call, and waits until it has gone.
func (s *Session) leaveAgent() {
	s.mu.Lock()
	conn, f := s.agent, s.toAgent
	s.mu.Unlock()
	if conn == nil {
		return
	}
	s.guarded(func() { f.finish(s.send) })
	conn.Close(s.verdict.Get().Cause)
	<-f.gone
	conn.Release()
}

// redial dials the agent again, where that may help, and then its fallback. Where nobody takes the call the caller
// hears what was queued, and the call ends as the connection has.
func (s *Session) redial(ctx context.Context, end *calls.End) {
	if music := s.Config.Reconnect.Music; music != nil {
		frames := music(s.out.Format())
		s.mu.Lock()
		s.out.Away(frames, s.now()+musicAfter)
		s.send()
		s.mu.Unlock()
	}
	for pause := s.Config.Reconnect.Pause; end.Cause == calls.AgentLost; pause *= 2 {
		again, left := s.again()
		if !left {
			break
		}
		s.log.Warn("the agent's connection has broken: it is dialled again", "err", end.Err)
		conn, err := s.dial(ctx, s.Dialer, s.Config.AgentDial, again)
		if err == nil {
			s.take(conn, again.Resume)
			return
		}
		end.Err = err
		s.mu.Lock()
		s.kept = nil // it may be what was refused
		s.mu.Unlock()
		select {
		case <-s.verdict.Done():
			return
		case <-time.After(pause):
		}
	}
	if end.Cause.AgentFailed() && s.fallBack(ctx, end) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.giveUp(end)
}

// fallBack has the agent's fallback take the call over. It is false where there is none, or it cannot be reached
// either.
func (s *Session) fallBack(ctx context.Context, end *calls.End) bool {
	to := s.Fallback
	if to == nil || s.verdict.Reached() {
		return false
	}
	s.log.Warn("the agent is lost: its fallback takes the call over", "fallback", to.Name, "err", end.Err)
	call := s.takenOver(nil)
	conn, err := s.dial(ctx, to.Dialer, to.Config.AgentDial, call)
	if err != nil {
		end.Err = errors.Join(end.Err, fmt.Errorf("and the fallback: %w", err))
		return false
	}
	s.adopt(to)
	s.awaitGreeting(s.take(conn, call.Resume))
	return true
}

// again returns the call as it is for an agent that is dialled again. It is false where it is not.
func (s *Session) again() (*agent.Call, bool) {
	s.mu.Lock()
	left := s.redials < s.Config.Reconnect.Times && !s.verdict.Reached()
	if left {
		s.redials++
	}
	s.mu.Unlock()
	if !left {
		return nil, false
	}
	return s.resumed(), true
}

// tellHolds tells a connection that goes on who is held. s.mu is held.
func (s *Session) tellHolds() {
	if s.out.Held() {
		s.tellHold(agent.Held)
	}
	if s.party != nil && s.party.listen {
		s.tellHold(agent.Muted)
	}
}

// tune adapts the queues to an agent that has chosen other formats than were expected. s.mu is held.
func (s *Session) tune(to agent.Conn, f *flow) {
	hears, speaks := to.Formats()
	s.in.Retune(hears)
	s.out.Retune(speaks)
	if s.room != nil {
		s.room.Retune()
	}
	f.buf = make([]byte, 0, hears.FrameBytes())
}

// awaitGreeting ends the call if the agent says nothing for as long as is configured. before is how much audio had
// come when it was connected.
func (s *Session) awaitGreeting(before time.Duration) {
	limit := s.Config.Greeting
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.greetLimit != nil {
		s.greetLimit.Stop()
	}
	if limit == 0 {
		return
	}
	s.greetLimit = time.AfterFunc(limit, func() {
		s.mu.Lock()
		silent := s.out.Sent() == before
		s.mu.Unlock()
		if silent {
			s.finish(calls.AgentSilent, fmt.Errorf("session: nothing said within %v", limit))
		}
	})
}

// agentSide is the session as one connection of its agent's sees it.
type agentSide struct {
	*Session
	flow *flow
	conn agent.Conn
}

// Writable implements agent.Handler.
func (s agentSide) Writable() { s.writable(s.flow) }

// Gone implements agent.Handler.
func (s agentSide) Gone(err error) {
	defer close(s.flow.gone)
	defer s.guard()
	s.below(err)
	s.agentFailed(s.conn, s.flow, err)
}

// Do implements agent.Beside.
func (s agentSide) Do(cmd *agent.Command) {
	if s.isCurrent() {
		s.Command(cmd)
	}
}

// Reply implements agent.Beside.
func (s agentSide) Reply(add func(*providers.Messages) error) {
	defer s.guard()
	s.tellAgent(func(out time.Duration) {
		if s.current() { // otherwise it is of another connection
			s.tell(agent.Event{Kind: agent.EventReply, Reply: add, Out: out})
		}
	})
}

// Said implements agent.Beside.
func (s agentSide) Said(l calls.Line) {
	s.mu.Lock()
	if len(s.lines) == maxLines {
		s.lines = slices.Delete(s.lines, 0, maxLines/4)
	}
	s.lines = append(s.lines, l)
	s.mu.Unlock()
	if s.Control.Said != nil {
		s.Control.Said(l)
	}
}

// Used implements agent.Beside.
func (s agentSide) Used(u calls.Usage) {
	if s.Control.Used != nil {
		s.Control.Used(u)
	}
}

// Keep implements agent.Beside.
func (s agentSide) Keep(state any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current() {
		s.kept = state
	}
}

// Trouble implements agent.Beside.
func (s agentSide) Trouble(code, message string) {
	s.mu.Lock()
	s.stats.Faults++
	quiet := time.Since(s.troubled) < time.Second
	if !quiet {
		s.troubled = time.Now()
	}
	s.mu.Unlock()
	if !quiet {
		s.log.Warn("the agent reports an error", "code", code, "err", message)
	}
}

// Command implements agent.Handler.
func (s agentSide) Command(cmd *agent.Command) {
	defer s.guard()
	switch {
	case s.verdict.Reached():
	case cmd.Kind == agent.CommandAudio:
		for audio := cmd.Audio; len(audio) > 0; {
			n := min(len(audio), pushBytes)
			s.agentAudio(audio[:n])
			audio = audio[n:]
		}
	case cmd.Kind == agent.CommandCancel:
		s.agentCancels(cmd)
	case cmd.Kind == agent.CommandFault && cmd.Fatal && cmd.Cause != "": // the agent itself says that it ends
		s.agentFailed(s.conn, s.flow, &agent.Error{Cause: cmd.Cause, Err: errors.New(cmd.Code + ": " + cmd.Message)})
	default:
		s.agentCommand(cmd)
	}
}

func (s agentSide) agentAudio(audio []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.current() { // another connection's audio follows, from where this one's ends
		return
	}
	if d := s.out.Push(s.now(), audio); d > 0 {
		if s.discarded += d; s.discarded > maxDiscarded {
			s.finish(calls.AgentProtocol, fmt.Errorf("%v of audio beyond what the queue holds", s.discarded))
		}
	}
	s.send()
}

// agentCancels withdraws a command: one that is queued here, or a transfer under way,
// which is asked for without the lock.
func (s agentSide) agentCancels(cmd *agent.Command) {
	if !s.isCurrent() {
		return
	}
	found := s.withdraw(cmd.Ref)
	if !found && s.Control.Cancel != nil {
		found = s.Control.Cancel(cmd.Ref)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if found {
		s.ack(cmd.ID)
	} else {
		s.fault(cmd, "unknown_ref", "no queued command with this id")
	}
	s.send()
}

// withdraw takes a queued command back.
func (s *Session) withdraw(ref string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Commands++
	return s.out.Cancel(ref)
}

// agentCommand carries out a command, or refuses it.
func (s agentSide) agentCommand(cmd *agent.Command) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.current() { // the call is another connection's
		return
	}
	defer s.send()
	now := s.now()
	s.stats.Commands++
	switch cmd.Kind {
	case agent.CommandUnknown:
		if s.stats.Ignored++; s.stats.Ignored == 1 {
			s.log.Info("message of unknown type from the agent is ignored, as later ones", "type", cmd.Type)
			s.fault(cmd, "unknown_type", fmt.Sprintf("type %q is not known, and ignored, as later ones are", cmd.Type))
		}
	case agent.CommandMark:
		if !s.out.Mark(cmd.Mark) {
			s.fault(cmd, "rate_limited", fmt.Sprintf("more than %d open marks", audio.MaxMarks))
		}
	case agent.CommandClear:
		s.discarded = 0
		s.out.Clear(now, agent.ClearByAgent, cmd.ID)
	case agent.CommandPause, agent.CommandUnpause:
		if !s.out.Pause(cmd.Kind == agent.CommandPause) {
			s.fault(cmd, "busy", "a hang-up is queued: cancel it first")
			return
		}
		s.ack(cmd.ID)
	case agent.CommandHangup:
		if cmd.Now {
			s.finish(calls.AgentHangup, nil)
			return
		}
		s.out.Hangup(cmd.ID, &calls.End{Cause: calls.AgentHangup})
	case agent.CommandDigits:
		if !s.out.SendDigits(audio.Item{ID: cmd.ID, Digits: cmd.Digits, Tone: cmd.Tone, Gap: cmd.Gap}, cmd.Now) {
			s.fault(cmd, "busy", "too many digits wait, or a hang-up is queued")
		}
	case agent.CommandTransfer:
		s.agentTransfers(cmd)
	case agent.CommandReady:
		if cmd.Every >= 0 {
			s.out.Report(now, cmd.Every)
		}
	case agent.CommandPing:
		s.tell(agent.Event{Kind: agent.EventPong, Ref: cmd.ID, Out: s.out.Heard(now)})
	case agent.CommandFault:
		s.fault(cmd, cmd.Code, cmd.Message)
		if cmd.Fatal {
			s.finish(calls.AgentProtocol, errors.New(cmd.Message))
		}
	}
}

// agentTransfers queues a transfer.
func (s *Session) agentTransfers(cmd *agent.Command) {
	switch {
	case s.Control.Transfer == nil:
		s.fault(cmd, "unsupported", "this call cannot be transferred")
	case s.out.Ending():
		s.fault(cmd, "busy", "a hang-up is queued: cancel it first")
	case !s.out.Transfer(audio.Item{ID: cmd.ID, Transfer: cmd.Transfer}, cmd.Now):
		s.fault(cmd, "busy", "too many commands wait")
	}
}

// ack tells the agent that a command is done, if it has an id. s.mu is held.
func (s *Session) ack(id string) {
	if id != "" {
		s.tell(agent.Event{Kind: agent.EventAck, Ref: id, Out: s.out.Heard(s.now())})
	}
}

// fault tells the agent that a command was refused. s.mu is held.
func (s *Session) fault(cmd *agent.Command, code, message string) {
	s.stats.Faults++
	s.tell(agent.Event{Kind: agent.EventFault, Ref: cmd.ID, Code: code, Message: message, Fatal: cmd.Fatal,
		Out: s.out.Heard(s.now())})
}

// agentFailed ends the call after the agent's connection has ended: the caller
// still hears what was queued, unless the agent broke the rules.
func (s *Session) agentFailed(conn agent.Conn, f *flow, err error) {
	end := &calls.End{Cause: calls.AgentLost, Err: err}
	if known := (*agent.Error)(nil); errors.As(err, &known) {
		end.Cause = known.Cause
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if f != s.toAgent || f.bye != "" { // another one has taken its place, or is about to
		return
	}
	if end.Cause == calls.AgentHangup {
		end.Err = nil
	}
	goesOn := s.going || end.Cause == calls.AgentLost && s.redials < s.Config.Reconnect.Times ||
		end.Cause.AgentFailed() && s.Fallback != nil
	if goesOn && !s.verdict.Reached() && !s.out.Ending() {
		s.broken <- broken{conn, s.toAgent, *end} // there is room: one connection at a time
		s.agent, s.toAgent = nil, s.newAgentFlow()
		s.forget()
		return
	}
	s.giveUp(end)
}

// giveUp ends the call once what was queued has been heard, or at once where the agent has broken the rules. s.mu is
// held.
func (s *Session) giveUp(end *calls.End) {
	switch {
	case end.Cause == calls.AgentTimeout || end.Cause == calls.AgentProtocol:
		s.finish(end.Cause, end.Err)
	case !s.agentGone:
		s.agentGone, s.lost = true, end
		s.out.Away(nil, 0)
		s.out.Hangup("", end)
		s.send()
	}
}
