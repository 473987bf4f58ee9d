package session

// The carrier's side of a session: what comes from it.

import (
	"context"
	"errors"
	"fmt"
	"time"

	"voicebridge/providers"
	"voicebridge/ws"
)

// carrierSide is the session as its carrier's connection sees it.
type carrierSide struct{ *Session }

// Writable implements ws.Handler.
func (s carrierSide) Writable() { s.writable(&s.toCarrier) }

// Closed implements ws.Handler.
func (s carrierSide) Closed(err error) {
	switch code := ws.CloseCode(err); {
	case code == ws.CloseNormal || code == ws.CloseGoingAway || code == 1005:
		s.finish(CallerHangup, nil)
	case code != 0:
		s.finish(CarrierLost, err)
	case errors.Is(err, ws.ErrSlow):
		s.finish(CarrierTimeout, err)
	case ws.IsTimeout(err):
		s.finish(MediaTimeout, err)
	default:
		s.finish(ProtocolError, err)
	}
	close(s.toCarrier.gone)
}

// Message implements ws.Handler.
func (s carrierSide) Message(binary bool, data []byte) {
	if s.ctx.Err() != nil {
		return
	}
	ev := &s.event
	err := s.stream.Decode(providers.Message{Binary: binary, Data: data}, ev)
	switch {
	case s.call == nil && errors.Is(err, providers.ErrFormat):
		s.finish(ProtocolError, err)
	case err != nil:
		if s.bad++; s.bad >= maxMalformed {
			s.finish(ProtocolError, fmt.Errorf("%d malformed messages in a row: %w", s.bad, err))
			return
		}
		s.malformed(err)
	case s.call == nil:
		if ev.Kind == providers.EventStart && s.late.Stop() {
			if other(s.known.Call, ev.Start.Call) || other(s.known.Account, ev.Start.Account) {
				s.finish(ProtocolError, errors.New("session: the token is of another call"))
				return
			}
			s.bad = 0
			s.started(ev.Start)
			s.log.Info("call started", "call", s.call.Start.Call, "stream", s.call.Start.Stream, "format", s.call.Start.In)
			close(s.begun)
		}
	case ev.Kind == providers.EventStop:
		s.finish(CallerHangup, nil)
	default:
		s.bad = 0
		s.carrierEvent(ev)
	}
}

func (s *Session) carrierEvent(ev *providers.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	switch ev.Kind {
	case providers.EventAudio:
		if s.mix != nil {
			s.mix.callerSays(ev.Audio)
		}
		if s.agentGone {
			s.stats.FramesIn++
			break
		}
		s.in.audio(now, ev.Audio, ev.Missing)
	case providers.EventDigit:
		s.stats.Digits++
		s.tell(AgentEvent{Kind: AgentDigit, Digit: ev.Digit, Duration: ev.Duration, Out: s.out.heard(now)})
	case providers.EventMark:
		if err := s.out.markPlayed(now, ev.Mark); err != nil {
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
	defer s.mu.Unlock()
	s.stats.Malformed++
	if s.quiet++; time.Since(s.warned) < time.Second {
		return
	}
	s.log.Warn("malformed message from the carrier", "err", err, "count", s.quiet)
	s.warned, s.quiet = time.Now(), 0
}

// signalTime is how long the carrier may take to send digits.
const signalTime = 10 * time.Second

// signal has the carrier send digits outside of the media connection.
func (s *Session) signal(it item) {
	ctx, stop := context.WithTimeout(s.ctx, signalTime)
	defer stop()
	err := s.control.Digits(ctx, it.digits)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.signalled(it, err)
	s.send()
}

// signalled takes note of what became of digits. s.mu is held.
func (s *Session) signalled(it item, err error) {
	s.out.signalling = false
	if errors.Is(err, errors.ErrUnsupported) { // it does not know these
		s.out.tones = append(s.out.tones, tones{item: it})
		return
	}
	if err != nil {
		s.log.Warn("digits were not sent", "err", err)
		s.fault(s.now(), &AgentCommand{ID: it.id}, "carrier_error", "the carrier did not send the digits")
		return
	}
	s.ack(s.now(), it.id)
}
