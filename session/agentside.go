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
		case <-s.verdict.done:
			s.mu.Lock() // nothing breaks any more
			s.mu.Unlock()
			select {
			case b := <-s.broken:
				b.release()
			default:
			}
			return
		case b := <-s.broken:
			b.release()
			if !s.redial(ctx, &b.end) {
				return
			}
		case n := <-s.next:
			s.goOn(ctx, &n)
		}
	}
}

// next is a connection that is to take the place of the agent's.
type next struct {
	to      agent.Dialer // nil: the same agent
	config  Config       // of to
	from    string       // the name of the agent so far
	context map[string]string
	done    func(error) // is told, with an error where nothing has changed
}

// HandOver has the call go on with another agent, once that is ready: from is the name of the one so far, and
// context what it hands on. done is told then, or of the error where nothing changes. It is false where something
// of that kind is under way.
func (s *Session) HandOver(to agent.Dialer, config Config, from string, context map[string]string,
	done func(error)) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.replace(next{to, config, from, context, done})
}

// Renew implements agent.Beside.
func (s agentSide) Renew() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current() {
		s.replace(next{done: func(error) {}})
	}
}

// replace wants another connection. It is false where that is under way. s.mu is held.
func (s *Session) replace(n next) bool {
	if s.going {
		return false
	}
	s.going = true
	s.next <- n // there is room
	return true
}

// current reports whether the connection is still the agent's. s.mu is held.
func (s agentSide) current() bool { return s.flow == s.toAgent && s.flow.bye == "" }

// goOn has another connection take the place of the agent's, once it is ready. Until then, and where that
// fails, nothing changes.
func (s *Session) goOn(ctx context.Context, n *next) {
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.going = false
	}()
	call := s.resumed()
	dialer, limit := s.Dialer, s.Config.AgentDial
	if n.to != nil {
		dialer, limit = n.to, n.config.AgentDial
		call.Resume.From, call.Resume.Context, call.Resume.Kept = &n.from, n.context, nil
	}
	dial, stop := s.during(ctx, limit)
	conn, err := dialer.Dial(dial, call)
	stop()
	if err != nil {
		s.log.Warn("the connection that was to take the place of the agent's did not come about", "err", err)
		n.done(err)
		return
	}
	cause := calls.AgentHangup
	if n.to != nil {
		cause = calls.Transferred
		s.Dialer = n.to // of this goroutine
		s.mu.Lock()
		s.Config.Reconnect, s.Config.AgentDial, s.kept = n.config.Reconnect, n.config.AgentDial, nil
		s.out.Adapt(n.config.Prebuffer, n.config.AgentQueue)
		s.mu.Unlock()
	}
	defer s.leave(cause)() // the new one does not wait for the old one's end
	select {
	case b := <-s.broken: // it has broken meanwhile
		b.release()
	default:
	}
	s.take(conn, call.Resume)
	if n.to != nil {
		s.mu.Lock()
		s.awaitGreeting(n.config.Greeting)
		s.mu.Unlock()
	}
	n.done(nil)
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

func (b *broken) release() {
	b.conn.Close(b.end.Cause)
	<-b.flow.gone
	b.conn.Release()
}

// dialAgent dials the agent and has it served. It is false where the call ends instead.
func (s *Session) dialAgent(ctx context.Context) bool {
	dial, stop := s.during(ctx, s.Config.AgentDial)
	began := time.Now()
	conn, err := s.Dialer.Dial(dial, s.call)
	stop()
	if err != nil {
		s.finish(calls.AgentUnreachable, err)
		return false
	}
	s.notice(func() {
		if s.Control.Streaming != nil {
			s.Control.Streaming(s.call, time.Since(began))
		}
	})
	s.take(conn, nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.awaitGreeting(s.Config.Greeting)
	return true
}

// take has a connection to the agent served. told is where it was told that it goes on; nil: it is the first.
func (s *Session) take(conn agent.Conn, told *agent.Resume) {
	s.mu.Lock()
	f := s.toAgent
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
	conn.Close(s.verdict.get().Cause)
	<-f.gone
	conn.Release()
}

// redial dials the agent again. It is false where that is given up: the caller hears what was queued, and
// the call ends as the connection has.
func (s *Session) redial(ctx context.Context, end *calls.End) bool {
	if music := s.Config.Reconnect.Music; music != nil {
		frames := music(s.out.Format())
		s.mu.Lock()
		s.out.Away(frames, s.now()+musicAfter)
		s.send()
		s.mu.Unlock()
	}
	for pause := s.Config.Reconnect.Pause; ; pause *= 2 {
		again, left := s.again()
		if !left {
			break
		}
		s.log.Warn("the agent's connection has broken: it is dialled again", "err", end.Err)
		dial, stop := s.during(ctx, s.Config.AgentDial)
		conn, err := s.Dialer.Dial(dial, again)
		stop()
		if err == nil {
			s.take(conn, again.Resume)
			return true
		}
		end.Err = err
		s.mu.Lock()
		s.kept = nil // it may be what was refused
		s.mu.Unlock()
		select {
		case <-s.verdict.done:
			return false
		case <-time.After(pause):
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.giveUp(end)
	return false
}

// again returns the call as it is for an agent that is dialled again. It is false where it is not.
func (s *Session) again() (*agent.Call, bool) {
	s.mu.Lock()
	left := s.redials < s.Config.Reconnect.Times && !s.verdict.reached()
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

// awaitGreeting ends the call if the agent says nothing from now on for so long; 0: it may. s.mu is held.
func (s *Session) awaitGreeting(limit time.Duration) {
	if s.greetLimit != nil {
		s.greetLimit.Stop()
	}
	if limit == 0 {
		return
	}
	before := s.out.Sent()
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
	s.mu.Lock()
	current := s.current()
	s.mu.Unlock()
	if current {
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
	case s.verdict.reached():
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

func (s *Session) agentAudio(audio []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := s.out.Push(s.now(), audio); d > 0 {
		if s.discarded += d; s.discarded > maxDiscarded {
			s.finish(calls.AgentProtocol, fmt.Errorf("%v of audio beyond what the queue holds", s.discarded))
		}
	}
	s.send()
}

// agentCancels withdraws a command: one that is queued here, or a transfer under way,
// which is asked for without the lock.
func (s *Session) agentCancels(cmd *agent.Command) {
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
func (s *Session) agentCommand(cmd *agent.Command) {
	s.mu.Lock()
	defer s.mu.Unlock()
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
	var known *agent.Error
	if errors.As(err, &known) {
		end.Cause = known.Cause
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if f != s.toAgent || f.bye != "" { // another one has taken its place, or is about to
		return
	}
	switch end.Cause {
	case calls.AgentTimeout, calls.AgentProtocol:
		s.finish(end.Cause, end.Err)
		return
	case calls.AgentHangup:
		end.Err = nil
	}
	if end.Cause == calls.AgentLost && (s.redials < s.Config.Reconnect.Times || s.going) &&
		!s.verdict.reached() && !s.out.Ending() {
		s.broken <- broken{conn, s.toAgent, *end} // there is room: one connection at a time
		s.agent, s.toAgent = nil, s.newAgentFlow()
		s.forget()
		return
	}
	s.giveUp(end)
}

// giveUp ends the call once what was queued has been heard. s.mu is held.
func (s *Session) giveUp(end *calls.End) {
	if !s.agentGone {
		s.agentGone = true
		s.out.Away(nil, 0)
		s.out.Hangup("", end)
		s.send()
	}
}
