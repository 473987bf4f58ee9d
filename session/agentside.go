package session

// The agent's side of a session: dialling, and what comes from it.

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// dialAgent dials the agent and has it served.
func (s *Session) dialAgent() {
	dial, stop := context.WithTimeout(s.ctx, s.cfg.AgentDial)
	agent, err := s.dialer.Dial(dial, s.call)
	stop()
	if err != nil {
		s.finish(AgentUnreachable, err)
		return
	}
	s.connected(agent)
	agent.Serve(s.loop, agentSide{s})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.agent = agent
	if s.cfg.Greeting > 0 {
		s.silent = time.AfterFunc(s.cfg.Greeting, s.greeted)
	}
	s.send()
}

// leaveAgent tells the agent of the end of the call, and waits until it has gone.
func (s *Session) leaveAgent() {
	s.mu.Lock()
	agent := s.agent
	if agent == nil {
		s.mu.Unlock()
		return
	}
	said := make(chan struct{})
	s.toAgent.last = said
	s.send()
	s.mu.Unlock()
	<-said
	agent.Close(endOf(s.ctx).Cause)
	<-s.toAgent.gone
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
	s.toAgent.frame = make([]byte, 0, hears.FrameBytes())
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

// agentSide is the session as its agent sees it.
type agentSide struct{ *Session }

// Writable implements AgentHandler.
func (s agentSide) Writable() { s.writable(&s.toAgent) }

// Gone implements AgentHandler.
func (s agentSide) Gone(err error) {
	s.agentFailed(err)
	close(s.toAgent.gone)
}

// Command implements AgentHandler.
func (s agentSide) Command(cmd *AgentCommand) {
	if s.ctx.Err() != nil {
		return
	}
	if cmd.Kind != CommandAudio {
		s.agentCommand(cmd)
		return
	}
	for pcm := cmd.Audio; len(pcm) > 0; {
		n := min(len(pcm), pushBytes)
		s.agentAudio(pcm[:n])
		pcm = pcm[n:]
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
	s.send()
}

func (s *Session) agentCommand(cmd *AgentCommand) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.send()
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
		s.send()
	}
}
