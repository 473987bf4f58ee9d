package session

// The agent's side of a session: dialling, its writer and its reader.

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// serveAgent dials the agent, then is its writer; it starts and joins its reader.
func (s *Session) serveAgent(ctx context.Context) {
	dial, stop := context.WithTimeout(ctx, s.cfg.AgentDial)
	agent, err := s.dialer.Dial(dial, s.call)
	stop()
	if err != nil {
		s.finish(AgentUnreachable, err)
		return
	}
	s.connected(agent)
	if s.cfg.Greeting > 0 {
		silent := time.AfterFunc(s.cfg.Greeting, s.greeted)
		defer silent.Stop()
	}
	var reader sync.WaitGroup
	reader.Go(func() { s.readAgent(ctx, agent) })
	err = s.hurried(ctx, agent, s.writeAgent)
	cause := AgentLost
	var known *AgentError
	switch {
	case ctx.Err() != nil:
		cause = endOf(ctx).Cause
	case errors.As(err, &known) && known.Cause == AgentTimeout:
		cause = AgentTimeout
		s.agentFailed(err)
	}
	agent.Close(cause)
	reader.Wait() // what the agent said before it left comes first
	if ctx.Err() == nil {
		s.agentFailed(err)
	}
	agent.Release()
}

// connected adapts the queues to an agent that has chosen other formats than were
// expected, and tells who wants to know.
func (s *Session) connected(agent Agent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	hears, speaks := agent.Formats()
	s.in.retune(hears)
	if speaks != s.out.agent {
		s.out.retune(speaks)
	}
	if s.control.Streaming != nil && !s.over {
		s.control.Streaming(s.call)
	}
}

// greeted ends the call if the agent has said nothing so far.
func (s *Session) greeted() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.out.received == 0 {
		s.finish(AgentSilent, fmt.Errorf("session: nothing said within %v", s.cfg.Greeting))
	}
}

// hurried runs write, and closes the connection to an agent that does not take
// its last messages within a second of the end of the call.
func (s *Session) hurried(ctx context.Context, agent Agent, write func(context.Context, Agent) error) error {
	written := make(chan struct{})
	var late sync.WaitGroup
	late.Add(1)
	stop := context.AfterFunc(ctx, func() {
		defer late.Done()
		select {
		case <-written:
		case <-time.After(time.Second):
			agent.Close(endOf(ctx).Cause)
		}
	})
	err := write(ctx, agent)
	close(written)
	if stop() {
		late.Done()
	}
	late.Wait()
	return err
}

// writeAgent sends events and audio until the call ends, then the stop.
func (s *Session) writeAgent(ctx context.Context, agent Agent) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	hears, _ := agent.Formats()
	frame := make([]byte, 0, hears.FrameBytes())
	var ev AgentEvent
	for ctx.Err() == nil {
		s.mu.Lock()
		now := s.now()
		ok, wait := s.nextForAgent(now, frame, &ev)
		arrived := s.in.taken
		s.mu.Unlock()
		if !ok {
			pause(ctx, timer, wait-now, s.wakeAgent)
			continue
		}
		if err := agent.Send(&ev); err != nil {
			return err
		}
		if ev.Kind == AgentAudio {
			s.mu.Lock()
			s.stats.In.add(s.now() - arrived)
			s.mu.Unlock()
		}
	}
	for { // what was said before the end comes before the stop
		s.mu.Lock()
		pending := len(s.events) > 0
		if pending {
			s.nextForAgent(s.now(), frame, &ev)
		} else {
			ev = AgentEvent{Kind: AgentStop, Cause: string(endOf(ctx).Cause), Duration: s.now(),
				In: s.in.sent, Out: s.out.heard(s.now())}
		}
		s.mu.Unlock()
		if err := agent.Send(&ev); err != nil || !pending {
			return err
		}
	}
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

// readAgent is the agent's reader.
func (s *Session) readAgent(ctx context.Context, agent Agent) {
	var cmd AgentCommand
	for {
		if err := agent.Receive(&cmd); err != nil {
			s.agentFailed(err)
			return
		}
		if ctx.Err() != nil {
			continue // read until the connection has ended
		}
		if cmd.Kind != CommandAudio {
			s.agentCommand(&cmd)
			continue
		}
		for pcm := cmd.Audio; len(pcm) > 0; {
			n := min(len(pcm), pushBytes)
			s.agentAudio(pcm[:n])
			pcm = pcm[n:]
		}
	}
}

func (s *Session) agentAudio(pcm []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := s.out.push(s.now(), pcm); d > 0 {
		if s.discarded += d; s.discarded > maxDiscarded {
			s.finish(AgentProtocol, fmt.Errorf("%v of audio beyond what the queue holds", s.discarded))
		}
	}
	s.awake()
}

// awake wakes both writers. s.mu is held.
func (s *Session) awake() {
	wake(s.wakeCarrier)
	if len(s.events) > 0 {
		wake(s.wakeAgent)
	}
}

func (s *Session) agentCommand(cmd *AgentCommand) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.awake()
	now := s.now()
	s.stats.Commands++
	switch cmd.Kind {
	case CommandUnknown:
		if s.stats.Ignored++; s.stats.Ignored == 1 {
			s.log.Info("message of unknown type from the agent is ignored, as later ones", "type", cmd.Name)
		}
	case CommandMark:
		if !s.out.mark(cmd.Name) {
			s.fault(now, cmd, "rate_limited", fmt.Sprintf("more than %d open marks", maxMarks))
		}
	case CommandClear:
		s.discarded = 0
		s.out.flush(now, "agent", cmd.ID)
	case CommandPause, CommandUnpause:
		if !s.out.pause(cmd.Kind == CommandPause) {
			s.fault(now, cmd, "busy", "a hang-up is queued: cancel it first")
			return
		}
		s.ack(now, cmd.ID)
	case CommandHangup:
		if cmd.Now {
			s.finish(AgentHangup, nil)
			return
		}
		s.out.hangup(cmd.ID, &End{Cause: AgentHangup})
	case CommandDigits:
		if !s.out.digits(item{id: cmd.ID, digits: cmd.Digits, tone: cmd.Tone, gap: cmd.Gap}, cmd.Now) {
			s.fault(now, cmd, "busy", "too many digits wait, or a hang-up is queued")
		}
	case CommandTransfer:
		switch {
		case s.control.Transfer == nil:
			s.fault(now, cmd, "unsupported", "this call cannot be transferred")
		case s.out.finishing:
			s.fault(now, cmd, "busy", "a hang-up is queued: cancel it first")
		case cmd.Now:
			s.out.ready = append(s.out.ready, item{id: cmd.ID, transfer: cmd.Transfer})
		case len(s.out.items) >= maxMarks:
			s.fault(now, cmd, "busy", "too many commands wait")
		default:
			s.out.items = append(s.out.items, item{at: s.out.pushed, id: cmd.ID, transfer: cmd.Transfer})
		}
	case CommandCancel:
		if !s.out.cancel(cmd.Ref) && (s.control.Cancel == nil || !s.control.Cancel(cmd.Ref)) {
			s.fault(now, cmd, "unknown_ref", "no queued command with this id")
			return
		}
		s.ack(now, cmd.ID)
	case CommandReady:
		if cmd.Every >= 0 {
			s.out.report, s.out.reported = cmd.Every, now
		}
	case CommandPing:
		s.tell(AgentEvent{Kind: AgentPong, Ref: cmd.ID, Out: s.out.heard(now)})
	case CommandFault:
		s.fault(now, cmd, cmd.Code, cmd.Message)
		if cmd.Fatal {
			s.finish(AgentProtocol, errors.New(cmd.Message))
		}
	}
}

func (s *Session) ack(now time.Duration, id string) {
	if id != "" {
		s.tell(AgentEvent{Kind: AgentAck, Ref: id, Out: s.out.heard(now)})
	}
}

// fault tells the agent that a command was refused.
func (s *Session) fault(now time.Duration, cmd *AgentCommand, code, message string) {
	s.stats.Faults++
	s.tell(AgentEvent{Kind: AgentFault, Ref: cmd.ID, Code: code, Message: message, Fatal: cmd.Fatal, Out: s.out.heard(now)})
}

// agentFailed ends the call after the agent's connection has ended: the caller
// still hears what was queued, unless the agent broke the rules.
func (s *Session) agentFailed(err error) {
	end := &End{Cause: AgentLost, Err: err}
	var known *AgentError
	if errors.As(err, &known) {
		end.Cause = known.Cause
	}
	if end.Cause == AgentTimeout || end.Cause == AgentProtocol {
		s.finish(end.Cause, end.Err)
		return
	}
	if end.Cause == AgentHangup {
		end.Err = nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.agentGone {
		s.agentGone = true
		s.out.hangup("", end)
		wake(s.wakeCarrier)
	}
}
