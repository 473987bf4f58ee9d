package session

// The carrier's side of a session: what comes from it.

import (
	"context"
	"errors"
	"fmt"
	"time"

	"voicebridge/agent"
	"voicebridge/calls"
	"voicebridge/providers"
	"voicebridge/session/audio"
)

// carrierSide is the session as its media connection sees it.
type carrierSide struct{ *Session }

// Writable implements MediaHandler.
func (s carrierSide) Writable() { s.writable(&s.toCarrier) }

// Closed implements MediaHandler.
func (s carrierSide) Closed(end calls.End) {
	defer close(s.toCarrier.gone)
	defer s.guard()
	s.below(end.Err)
	s.finish(end.Cause, end.Err)
}

// Message implements MediaHandler.
func (s carrierSide) Message(m providers.Message) {
	defer s.guard()
	if s.verdict.Reached() {
		return
	}
	var err error
	s.received, err = s.stream.Decode(s.received[:0], m)
	switch {
	case s.call == nil && errors.Is(err, providers.ErrFormat):
		s.finish(calls.ProtocolError, err)
	case err != nil:
		if s.bad++; s.bad >= maxMalformed {
			s.finish(calls.ProtocolError, fmt.Errorf("%d malformed messages in a row: %w", s.bad, err))
			return
		}
		s.malformed(err)
	}
	for i := range s.received {
		s.event(&s.received[i])
	}
}

// event takes one event.
func (s *Session) event(ev *providers.Event) {
	switch {
	case s.call == nil:
		if ev.Kind == providers.EventStart && s.startLimit.Stop() {
			s.begin(ev.Start)
		}
	case ev.Kind == providers.EventStop:
		s.finish(calls.CallerHangup, nil)
	default:
		s.bad = 0
		s.carrierEvent(ev)
	}
}

// begin takes the start message.
func (s *Session) begin(start *providers.Start) {
	if contradicts(s.Known.Call, start.Call) || contradicts(s.Known.Account, start.Account) {
		s.finish(calls.ProtocolError, errors.New("session: the token is of another call"))
		return
	}
	s.bad = 0
	s.started(start)
	s.log.Info("call started", "call", s.call.Start.Call, "stream", s.call.Start.Stream, "format", s.call.Start.In)
	if start.OneWay {
		s.log.Warn("nothing of what the agent says is heard: the carrier streams one way. Have it answer the call "+
			"with a stream in both directions, such as <Connect><Stream>", "call", s.call.Start.Call)
	}
	close(s.begun)
}

// contradicts reports whether what the stream says is not what is known. Either may
// say nothing.
func contradicts(known, said string) bool { return known != "" && said != "" && known != said }

func (s *Session) carrierEvent(ev *providers.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	switch ev.Kind {
	case providers.EventAudio:
		if s.party != nil {
			s.party.hear(s.room.CallerSays(ev.Audio))
		}
		if s.agentGone {
			s.stats.FramesIn++
			break
		}
		s.in.Push(now, ev.Audio, ev.Missing)
	case providers.EventDigit:
		s.stats.Digits++
		s.tell(agent.Event{Kind: agent.EventDigit, Digit: ev.Digit, Duration: ev.Duration, Out: s.out.Heard(now)})
	case providers.EventMark:
		if err := s.out.MarkPlayed(now, ev.Mark, s.in.Stalled(now)); err != nil {
			s.stats.Unknown++
		}
	case providers.EventCleared: // nothing waits for it
	default:
		s.stats.Unknown++
	}
	s.send()
}

// malformed counts a bad message, and logs at most one a second.
func (s *Session) malformed(err error) {
	s.mu.Lock()
	s.stats.Malformed++
	s.unlogged++
	count := s.unlogged
	quiet := time.Since(s.warned) < time.Second
	if !quiet {
		s.warned, s.unlogged = time.Now(), 0
	}
	s.mu.Unlock()
	if !quiet {
		s.log.Warn("malformed message from the carrier", "err", err, "count", count)
	}
}

// signalTime is how long the carrier may take to send digits.
const signalTime = 10 * time.Second

// signal has the carrier send digits outside of the media connection.
func (s *Session) signal(it audio.Item) {
	defer s.guard()
	ctx, stop := s.during(context.Background(), signalTime)
	defer stop()
	err := s.Control.Digits(ctx, it.Digits)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.digitsSent(it, err)
	s.send()
}

// digitsSent takes note of what became of digits that the carrier was to send. s.mu is
// held.
func (s *Session) digitsSent(it audio.Item, err error) {
	s.out.Confirm()
	switch {
	case errors.Is(err, errors.ErrUnsupported): // it does not know these
		s.out.Unknown(it)
	case err != nil:
		s.log.Warn("digits were not sent", "err", err)
		s.fault(&agent.Command{ID: it.ID}, "carrier_error", "the carrier did not send the digits")
	default:
		s.ack(it.ID)
	}
}
