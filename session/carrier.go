package session

// The carrier's side of a session: its reader, and its writer, which paces.

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"voicebridge/codec"
	"voicebridge/providers"
	"voicebridge/ws"
)

// closeWhenDone closes the carrier's connection when ctx ends, so that a read
// under way ends too. The function it returns undoes it.
func (s *Session) closeWhenDone(ctx context.Context) func() {
	stop := context.AfterFunc(ctx, func() {
		end := endOf(ctx)
		s.ending(*end)
		s.carrier.Close(end.Cause.closeCode(), string(end.Cause))
	})
	return func() { stop() }
}

func (s *Session) read() (providers.Message, error) {
	binary, data, err := s.carrier.Read()
	return providers.Message{Binary: binary, Data: data}, err
}

// carrierFailed ends the call after a failed read.
func (s *Session) carrierFailed(err error) {
	switch code := ws.CloseCode(err); {
	case code == ws.CloseNormal || code == ws.CloseGoingAway || code == 1005:
		s.finish(CallerHangup, nil)
	case code != 0:
		s.finish(CarrierLost, err)
	case ws.IsTimeout(err):
		s.finish(MediaTimeout, err)
	default:
		s.finish(ProtocolError, err)
	}
}

// readCarrier is the carrier's reader: audio to the agent, marks and digits.
func (s *Session) readCarrier(ctx context.Context) {
	defer s.closeWhenDone(ctx)()
	var ev providers.Event
	bad := 0
	for {
		msg, err := s.read()
		if err != nil {
			s.carrierFailed(err)
			return
		}
		if ctx.Err() != nil {
			return
		}
		if err := s.stream.Decode(msg, &ev); err != nil {
			if bad++; bad >= maxMalformed {
				s.finish(ProtocolError, fmt.Errorf("%d malformed messages in a row: %w", bad, err))
				return
			}
			s.malformed(err)
			continue
		}
		bad = 0
		if ev.Kind == providers.EventStop {
			s.finish(CallerHangup, nil)
			return
		}
		s.carrierEvent(&ev)
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
		wake(s.wakeCarrier) // a hang-up may have been reached
	case providers.EventCleared: // nothing waits for it
	default:
		s.stats.Unknown++
	}
	wake(s.wakeAgent)
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

// writeCarrier is the carrier's writer and the pacer of what the caller hears.
func (s *Session) writeCarrier(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	frame := make([]byte, 0, s.call.Start.Out.FrameBytes())
	var wire []byte
	var cmd providers.Command // outside the loop: it escapes
	var group sync.WaitGroup  // of digits on their way
	defer group.Wait()
	for ctx.Err() == nil {
		s.mu.Lock()
		now := s.now()
		ok, wait := s.out.next(now, frame, &cmd)
		end, came, told, signalled := s.out.end, s.out.came, len(s.events) > 0, s.out.signalled
		transfers := s.out.ready
		s.out.ready = nil
		s.mu.Unlock()
		for _, it := range transfers {
			s.control.Transfer(it.id, it.transfer)
		}
		if told {
			wake(s.wakeAgent)
		}
		if end != nil {
			s.finish(end.Cause, end.Err)
			return
		}
		if !ok {
			pause(ctx, timer, wait-now, s.wakeCarrier)
			continue
		}
		if cmd.Kind == providers.CommandDigits && !s.spec.Abilities.SendDigits {
			group.Go(func() { s.signal(ctx, signalled) })
			continue
		}
		msg, err := s.stream.Encode(wire[:0], &cmd)
		if err != nil {
			s.finish(ProtocolError, fmt.Errorf("encode %v: %w", cmd.Kind, err))
			return
		}
		wire = msg.Data
		if err := s.carrier.Write(msg.Binary, msg.Data); err != nil {
			s.carrierWriteFailed(ctx, err)
			return
		}
		if cmd.Kind == providers.CommandDigits {
			s.signalDone(signalled, nil)
		}
		if cmd.Kind == providers.CommandAudio && now-came < codec.FrameTime {
			s.mu.Lock()
			s.stats.Out.add(s.now() - came)
			s.mu.Unlock()
		}
	}
}

// signalTime is how long the carrier may take to send digits.
const signalTime = 10 * time.Second

// signal has the carrier send digits outside of the media connection.
func (s *Session) signal(ctx context.Context, it item) {
	ctx, stop := context.WithTimeout(ctx, signalTime)
	defer stop()
	s.signalDone(it, s.control.Digits(ctx, it.digits))
}

func (s *Session) signalDone(it item, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer wake(s.wakeAgent)
	defer wake(s.wakeCarrier)
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

func (s *Session) carrierWriteFailed(ctx context.Context, err error) {
	if ws.IsTimeout(err) {
		s.finish(CarrierTimeout, err)
		return
	}
	select { // the reader finds out why, if the carrier said so
	case <-ctx.Done():
	case <-time.After(time.Second):
		s.finish(CarrierLost, err)
	}
}

// pause waits for d, a wake-up or the end.
func pause(ctx context.Context, timer *time.Timer, d time.Duration, wake <-chan struct{}) {
	timer.Reset(d)
	select {
	case <-timer.C:
	case <-wake:
	case <-ctx.Done():
	}
}
