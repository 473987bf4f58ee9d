// Package session is one call: a carrier's media connection on one side, an
// agent on the other. It decodes, paces, keeps marks and clears in order, and
// ends with a Cause.
//
// The work is done by two queues without clock or I/O: inbound (caller to agent)
// and playout (agent to caller). Session gives them the time and moves what they
// say to and from the two connections, with four goroutines: a reader and a
// writer each. No reader ever waits for the other side.
package session

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"voicebridge/codec"
	"voicebridge/providers"
	"voicebridge/ws"
)

// Config are the settings of a session. Every field must be set; Defaults has
// the usual ones.
type Config struct {
	Lead        time.Duration // audio that the carrier holds ahead of time
	Prebuffer   time.Duration // audio to wait for before an utterance begins: for agents that pace themselves
	AgentQueue  time.Duration // the most agent audio that waits to be played
	CallerQueue time.Duration // the most caller audio that waits for a slow agent
	Start       time.Duration // for the carrier's start message to come
	AgentDial   time.Duration // for the agent to be connected, all attempts together
	MaxDuration time.Duration // of a call
}

// Defaults are the settings for a telephone call.
var Defaults = Config{
	Lead:        160 * time.Millisecond,
	AgentQueue:  60 * time.Second,
	CallerQueue: 400 * time.Millisecond,
	Start:       10 * time.Second,
	AgentDial:   7 * time.Second,
	MaxDuration: 4 * time.Hour,
}

// Carrier is the connection to the carrier; *ws.Conn is one.
type Carrier interface {
	Read() (binary bool, data []byte, err error)
	Write(binary bool, data []byte) error
	Close(code int, reason string)
	Release()
}

// Limits of what one side may do to its own call.
const (
	maxMalformed = 50               // malformed carrier messages in a row
	maxEvents    = 1024             // events waiting for a slow agent
	maxDiscarded = 10 * time.Minute // agent audio discarded without a clear
	pushBytes    = 32 << 10         // agent audio taken under one lock
)

// Session is one call.
type Session struct {
	ID      string
	spec    *providers.Spec
	cfg     Config
	carrier Carrier
	dialer  Dialer
	log     *slog.Logger
	epoch   time.Time
	stream  providers.Stream
	call    *Call // set by the start message, before any other goroutine runs
	cancel  context.CancelCauseFunc

	wakeCarrier, wakeAgent chan struct{} // of size 1: there may be something to write

	mu        sync.Mutex // guards what follows
	in        inbound
	out       playout
	events    []AgentEvent // for the agent, before its audio
	discarded time.Duration
	agentGone bool // its connection has ended: there is nobody to talk to
	stats     Stats
	warned    time.Time
	quiet     int // warnings that were not logged
}

// New makes a session for a connection that the carrier has opened.
func New(spec *providers.Spec, cfg Config, carrier Carrier, dialer Dialer, log *slog.Logger) *Session {
	id := newID()
	return &Session{
		ID: id, spec: spec, cfg: cfg, carrier: carrier, dialer: dialer, stream: spec.NewStream(),
		log:   log.With("provider", spec.Name, "session", id),
		epoch: time.Now(), wakeCarrier: make(chan struct{}, 1), wakeAgent: make(chan struct{}, 1),
		cancel: func(error) {},
	}
}

// newID is unguessable and unique.
func newID() string {
	var b [12]byte
	_, _ = rand.Read(b[:]) // never fails
	return "cs_" + hex.EncodeToString(b[:])
}

func (s *Session) now() time.Duration { return time.Since(s.epoch) }

// Stats is a copy of the counters so far.
func (s *Session) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}

// Spec is the carrier's.
func (s *Session) Spec() *providers.Spec { return s.spec }

// Run carries the call and returns when it is over and everything it started
// has ended. The carrier's connection is closed and released. When ctx ends, the
// call ends with the *End that is its cause, or with Shutdown.
func (s *Session) Run(ctx context.Context) End {
	ctx, s.cancel = context.WithCancelCause(ctx)
	defer s.cancel(nil)
	ctx, stop := context.WithTimeout(ctx, s.cfg.MaxDuration)
	defer stop()

	var group sync.WaitGroup
	if s.awaitStart(ctx) {
		s.log.Info("call started", "call", s.call.Start.Call, "stream", s.call.Start.Stream, "format", s.call.Start.In)
		group.Go(func() { s.serveAgent(ctx) })
		group.Go(func() { s.writeCarrier(ctx) })
		s.readCarrier(ctx)
	}
	end := *endOf(ctx)
	s.carrier.Close(end.Cause.closeCode(), string(end.Cause))
	group.Wait()
	s.drain()
	s.carrier.Release()
	s.logEnd(end)
	return end
}

// drain reads until the connection has ended.
func (s *Session) drain() {
	for {
		if _, _, err := s.carrier.Read(); err != nil {
			return
		}
	}
}

func (s *Session) logEnd(end End) {
	st := s.Stats()
	attrs := []any{"cause", end.Cause, "duration", s.now().Round(time.Millisecond),
		"frames_in", st.FramesIn, "frames_out", st.FramesOut, "missing", st.Missing, "malformed", st.Malformed,
		"dropped", st.Dropped, "overflow", st.Overflow, "gaps", st.Gaps, "gap_time", st.GapTime, "clears", st.Clears,
		"delay_in_p99", st.In.Quantile(0.99), "delay_out_p99", st.Out.Quantile(0.99)}
	if end.Err != nil {
		attrs = append(attrs, "err", end.Err)
	}
	s.log.Info("call ended", attrs...)
}

// finish ends the call; the first cause counts.
func (s *Session) finish(cause Cause, err error) { s.cancel(&End{cause, err}) }

// awaitStart reads up to the start message. False means that the session is over.
func (s *Session) awaitStart(ctx context.Context) bool {
	late := time.AfterFunc(s.cfg.Start, func() { s.finish(StartTimeout, nil) })
	defer late.Stop()
	defer s.closeWhenDone(ctx)()
	for bad := 0; ; {
		msg, err := s.read()
		if err != nil {
			s.carrierFailed(err)
			return false
		}
		if ctx.Err() != nil {
			return false
		}
		var ev providers.Event
		err = s.stream.Decode(msg, &ev)
		switch {
		case errors.Is(err, providers.ErrFormat):
			s.finish(ProtocolError, err)
			return false
		case err != nil:
			if bad++; bad >= maxMalformed {
				s.finish(ProtocolError, err)
				return false
			}
			s.malformed(err)
		case ev.Kind == providers.EventStart && late.Stop():
			s.started(ev.Start)
			return true
		}
	}
}

// started builds the queues: the formats are known now.
func (s *Session) started(start *providers.Start) {
	s.mu.Lock()
	defer s.mu.Unlock()
	hears, speaks := s.dialer.Formats()
	s.call = &Call{Session: s.ID, Carrier: s.spec.Name, Start: start, Abilities: s.spec.Abilities}
	s.in = newInbound(start.In, hears, s.cfg.CallerQueue, &s.stats)
	s.out = newPlayout(speaks, start.Out, s.spec.Abilities, &s.cfg, &s.stats, s.tell)
}

// tell queues an event for the agent. s.mu is held.
func (s *Session) tell(ev AgentEvent) {
	if s.agentGone {
		return
	}
	if len(s.events) >= maxEvents {
		s.finish(AgentTimeout, errors.New("session: the agent does not read its events"))
		return
	}
	s.events = append(s.events, ev)
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// closeWhenDone closes the carrier's connection when ctx ends, so that a read
// under way ends too. The function it returns undoes it.
func (s *Session) closeWhenDone(ctx context.Context) func() {
	stop := context.AfterFunc(ctx, func() {
		end := endOf(ctx)
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
	for ctx.Err() == nil {
		s.mu.Lock()
		now := s.now()
		ok, wait := s.out.next(now, frame, &cmd)
		end, came, told := s.out.end, s.out.came, len(s.events) > 0
		s.mu.Unlock()
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
		msg, err := s.stream.Encode(wire[:0], &cmd)
		if err != nil {
			s.finish(ProtocolError, fmt.Errorf("encode %v: %w", cmd.Kind, err))
			return
		}
		wire = msg.Data
		if err := s.carrier.Write(msg.Binary, msg.Data); err != nil {
			s.carrierWriteFailed(err)
			return
		}
		if cmd.Kind == providers.CommandAudio && now-came < codec.FrameTime {
			s.mu.Lock()
			s.stats.Out.add(s.now() - came)
			s.mu.Unlock()
		}
	}
}

func (s *Session) carrierWriteFailed(err error) {
	if ws.IsTimeout(err) {
		s.finish(CarrierTimeout, err)
		return
	}
	// The reader finds out why, if the carrier said so: give it a moment.
	time.AfterFunc(time.Second, func() { s.finish(CarrierLost, err) })
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

// serveAgent dials the agent, then is its writer; it starts and joins its reader.
func (s *Session) serveAgent(ctx context.Context) {
	dial, stop := context.WithTimeout(ctx, s.cfg.AgentDial)
	agent, err := s.dialer.Dial(dial, s.call)
	stop()
	if err != nil {
		s.finish(AgentUnreachable, err)
		return
	}
	var reader sync.WaitGroup
	reader.Go(func() { s.readAgent(ctx, agent) })
	err = s.hurried(ctx, agent, s.writeAgent)
	cause := AgentLost
	if ctx.Err() != nil {
		cause = endOf(ctx).Cause
	} else {
		s.agentFailed(err)
	}
	agent.Close(cause)
	reader.Wait()
	agent.Release()
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
	hears, _ := s.dialer.Formats()
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
			s.fault(now, cmd.ID, "rate_limited", fmt.Sprintf("more than %d open marks", maxMarks))
		}
	case CommandClear:
		s.discarded = 0
		s.out.flush(now, "agent", cmd.ID)
	case CommandPause, CommandUnpause:
		s.out.paused = cmd.Kind == CommandPause
		s.ack(now, cmd.ID)
	case CommandHangup:
		if cmd.Now {
			s.finish(AgentHangup, nil)
			return
		}
		s.out.hangup(cmd.ID, &End{Cause: AgentHangup})
	case CommandCancel:
		if !s.out.cancel(cmd.Ref) {
			s.fault(now, cmd.ID, "unknown_ref", "no queued command with this id")
			return
		}
		s.ack(now, cmd.ID)
	case CommandReport:
		s.out.report, s.out.reported = cmd.Every, now
	case CommandPing:
		s.tell(AgentEvent{Kind: AgentPong, Ref: cmd.ID, Out: s.out.heard(now)})
	case CommandFault:
		s.stats.Faults++
		s.tell(AgentEvent{Kind: AgentFault, Ref: cmd.ID, Code: cmd.Code, Message: cmd.Message, Fatal: cmd.Fatal, Out: s.out.heard(now)})
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

func (s *Session) fault(now time.Duration, ref, code, message string) {
	s.stats.Faults++
	s.tell(AgentEvent{Kind: AgentFault, Ref: ref, Code: code, Message: message, Out: s.out.heard(now)})
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
