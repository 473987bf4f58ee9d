package session

// The agent's side of a session: dialling, and what comes from it.

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// dialAgent dials the agent and has it served.
func (s *Session) dialAgent(ctx context.Context) {
	dial, stop := s.during(ctx, s.Config.AgentDial)
	agent, err := s.Dialer.Dial(dial, s.call)
	stop()
	if err != nil {
		s.finish(AgentUnreachable, err)
		return
	}
	s.tune(agent)
	s.notice(func() {
		if s.Control.Streaming != nil {
			s.Control.Streaming(s.call)
		}
	})
	agent.Serve(agentSide{s})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.agent = agent
	if s.Config.Greeting > 0 {
		s.greetLimit = time.AfterFunc(s.Config.Greeting, s.checkGreeting)
	}
	s.send()
}

// leaveAgent tells the agent of the end of the call, and waits until it has gone.
func (s *Session) leaveAgent() {
	if s.agent == nil { // set by this goroutine
		return
	}
	s.toAgent.finish(s.send)
	s.agent.Close(s.verdict.get().Cause)
	<-s.toAgent.gone
	s.agent.Release()
}

// tune adapts the queues to an agent that has chosen other formats than were expected.
func (s *Session) tune(agent Agent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	hears, speaks := agent.Formats()
	s.in.retune(hears)
	if speaks != s.out.agent {
		s.out.retune(speaks)
	}
	s.toAgent.buf = make([]byte, 0, hears.FrameBytes())
}

// checkGreeting ends the call if the agent has said nothing so far.
func (s *Session) checkGreeting() {
	s.mu.Lock()
	silent := s.out.received == 0
	s.mu.Unlock()
	if silent {
		s.finish(AgentSilent, fmt.Errorf("session: nothing said within %v", s.Config.Greeting))
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
	switch {
	case s.verdict.reached():
	case cmd.Kind == CommandAudio:
		for audio := cmd.Audio; len(audio) > 0; {
			n := min(len(audio), pushBytes)
			s.agentAudio(audio[:n])
			audio = audio[n:]
		}
	case cmd.Kind == CommandCancel:
		s.agentCancels(cmd)
	default:
		s.agentCommand(cmd)
	}
}

func (s *Session) agentAudio(audio []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := s.out.push(s.now(), audio); d > 0 {
		if s.discarded += d; s.discarded > maxDiscarded {
			s.finish(AgentProtocol, fmt.Errorf("%v of audio beyond what the queue holds", s.discarded))
		}
	}
	s.send()
}

// agentCancels withdraws a command: one that is queued here, or a transfer under way,
// which is asked for without the lock.
func (s *Session) agentCancels(cmd *AgentCommand) {
	s.mu.Lock()
	s.stats.Commands++
	found := s.out.cancel(cmd.Ref)
	s.mu.Unlock()
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

// agentCommand carries out a command, or refuses it.
func (s *Session) agentCommand(cmd *AgentCommand) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.send()
	now := s.now()
	s.stats.Commands++
	switch cmd.Kind {
	case CommandUnknown:
		if s.stats.Ignored++; s.stats.Ignored == 1 {
			s.log.Info("message of unknown type from the agent is ignored, as later ones", "type", cmd.Type)
		}
	case CommandMark:
		if !s.out.mark(cmd.Mark) {
			s.fault(cmd, "rate_limited", fmt.Sprintf("more than %d open marks", maxMarks))
		}
	case CommandClear:
		s.discarded = 0
		s.out.flush(now, ClearByAgent, cmd.ID)
	case CommandPause, CommandUnpause:
		if !s.out.pause(cmd.Kind == CommandPause) {
			s.fault(cmd, "busy", "a hang-up is queued: cancel it first")
			return
		}
		s.ack(cmd.ID)
	case CommandHangup:
		if cmd.Now {
			s.finish(AgentHangup, nil)
			return
		}
		s.out.hangup(cmd.ID, &End{Cause: AgentHangup})
	case CommandDigits:
		if !s.out.dial(item{id: cmd.ID, digits: cmd.Digits, tone: cmd.Tone, gap: cmd.Gap}, cmd.Now) {
			s.fault(cmd, "busy", "too many digits wait, or a hang-up is queued")
		}
	case CommandTransfer:
		s.agentTransfers(cmd)
	case CommandReady:
		if cmd.Every >= 0 {
			s.out.report, s.out.reported = cmd.Every, now
		}
	case CommandPing:
		s.tell(AgentEvent{Kind: AgentPong, Ref: cmd.ID, Out: s.out.heard(now)})
	case CommandFault:
		s.fault(cmd, cmd.Code, cmd.Message)
		if cmd.Fatal {
			s.finish(AgentProtocol, errors.New(cmd.Message))
		}
	}
}

// agentTransfers queues a transfer.
func (s *Session) agentTransfers(cmd *AgentCommand) {
	switch {
	case s.Control.Transfer == nil:
		s.fault(cmd, "unsupported", "this call cannot be transferred")
	case s.out.finishing:
		s.fault(cmd, "busy", "a hang-up is queued: cancel it first")
	case !s.out.transfer(item{id: cmd.ID, transfer: cmd.Transfer}, cmd.Now):
		s.fault(cmd, "busy", "too many commands wait")
	}
}

// ack tells the agent that a command is done, if it has an id. s.mu is held.
func (s *Session) ack(id string) {
	if id != "" {
		s.tell(AgentEvent{Kind: AgentAck, Ref: id, Out: s.out.heard(s.now())})
	}
}

// fault tells the agent that a command was refused. s.mu is held.
func (s *Session) fault(cmd *AgentCommand, code, message string) {
	s.stats.Faults++
	s.tell(AgentEvent{Kind: AgentFault, Ref: cmd.ID, Code: code, Message: message, Fatal: cmd.Fatal,
		Out: s.out.heard(s.now())})
}

// agentFailed ends the call after the agent's connection has ended: the caller
// still hears what was queued, unless the agent broke the rules.
func (s *Session) agentFailed(err error) {
	end := &End{Cause: AgentLost, Err: err}
	var known *AgentError
	if errors.As(err, &known) {
		end.Cause = known.Cause
	}
	switch end.Cause {
	case AgentTimeout, AgentProtocol:
		s.finish(end.Cause, end.Err)
		return
	case AgentHangup:
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
