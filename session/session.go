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
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"voicebridge/codec"
	"voicebridge/providers"
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
	Greeting    time.Duration // for the agent to begin to speak once it is connected; 0: any time
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
	known   Known // set before Run; AnsweredBy also later, up to the start, under mu
	control Control
	told    sync.Once       // Control.Ending
	done    chan struct{}   // closed after it
	leaving atomic.Int64    // the carrier is about to take the call elsewhere: how often it was so; negative: it is not
	ctx     context.Context // ends with the call; Hangup may end it before Run begins
	cancel  context.CancelCauseFunc

	wakeCarrier, wakeAgent chan struct{} // of size 1: there may be something to write

	mu        sync.Mutex // guards what follows
	in        inbound
	out       playout
	events    []AgentEvent // for the agent, before its audio
	discarded time.Duration
	agentGone bool // its connection has ended: there is nobody to talk to
	over      bool // the end has been told
	mix       *mix // there is a party
	stats     Stats
	warned    time.Time
	quiet     int // warnings that were not logged
}

// New makes a session for a connection that the carrier has opened.
// id is that of the call; it must be unique.
func New(id string, spec *providers.Spec, cfg Config, carrier Carrier, dialer Dialer, log *slog.Logger) *Session {
	s := &Session{
		ID: id, spec: spec, cfg: cfg, carrier: carrier, dialer: dialer, stream: spec.NewStream(),
		log:   log.With("provider", spec.Name, "session", id),
		epoch: time.Now(), wakeCarrier: make(chan struct{}, 1), wakeAgent: make(chan struct{}, 1),
		done: make(chan struct{}),
	}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	return s
}

// Expect tells what is known of the call before it starts. A start message of
// another call or account ends the session. It must be called before Run.
func (s *Session) Expect(known Known) { s.known = known }

// Control is what is done about a call outside of its media connection. All may
// be nil.
type Control struct {
	// Streaming is called once the agent is connected; it must not block.
	Streaming func(*Call)
	// Ending is called with the end of the session before the carrier's connection
	// is closed; it must not block.
	Ending func(End)
	// Digits sends digits to the other party as the carrier does it; nil: they are
	// sent as tones in the audio, unless the media connection takes digits.
	Digits func(ctx context.Context, digits string) error
	// Transfer begins to move the call to somebody else; it must not block. ref is
	// the agent's id of the command. Cancel withdraws that, if it is under way. Both
	// are nil where the call cannot be transferred.
	Transfer func(ref string, t *Transfer)
	Cancel   func(ref string) bool
	// Transfers are the modes in which it can be.
	Transfers []string
}

// Use sets how the call is controlled. It must be called before Run.
func (s *Session) Use(c Control) { s.control = c }

// Hangup ends the call, at once or once what the agent has said so far is heard.
func (s *Session) Hangup(afterPlayback bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !afterPlayback || s.call == nil {
		s.finish(APIHangup, nil)
		return
	}
	s.out.hangup("", &End{Cause: APIHangup})
	wake(s.wakeCarrier)
}

// Over tells that the carrier has reported the end of the call.
func (s *Session) Over() { s.finish(CallerHangup, nil) }

// StreamOver tells that the carrier has reported the end of the stream.
func (s *Session) StreamOver() {
	s.finish(CarrierLost, errors.New("session: the carrier says that the stream has ended"))
}

// Done is closed once the end of the session has been told.
func (s *Session) Done() <-chan struct{} { return s.done }

// Returns is how often the call has come back to an agent before.
func (s *Session) Returns() int { return s.known.Returns }

// Ended tells whether the end of the session has been told.
func (s *Session) Ended() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// Leaving tells that the carrier is about to take the call elsewhere: however the
// stream ends then, the call goes on. stays takes it back, unless it has been told
// anew since.
func (s *Session) Leaving() (stays func()) {
	for {
		before := s.leaving.Load()
		mine := max(before, -before) + 1
		if s.leaving.CompareAndSwap(before, mine) {
			return func() { s.leaving.CompareAndSwap(mine, -mine) }
		}
	}
}

// ErrNotYet is the error of what needs the stream's start.
var ErrNotYet = errors.New("session: the stream has not started")

// Digits sends digits to the other party now; see ValidDigits. A false answer
// means that too many wait.
func (s *Session) Digits(digits string) (ok bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.call == nil {
		return false, ErrNotYet
	}
	defer wake(s.wakeCarrier)
	return s.out.digits(item{digits: digits, tone: DefaultTone, gap: DefaultToneGap}, true), nil
}

// Hold plays audio to the caller over and over, in place of the agent's, which
// waits; nil ends that. audio gives whole frames in the carrier's format.
func (s *Session) Hold(audio func(codec.Format) []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.call == nil || s.over {
		return
	}
	var frames []byte
	if audio != nil {
		frames = audio(s.out.format)
	}
	if held := s.out.held != nil; s.out.hold(frames) != held {
		state := "held"
		if held {
			state = "resumed"
		}
		s.tell(AgentEvent{Kind: AgentHeld, State: state, Out: s.out.heard(s.now())})
	}
	s.awake()
}

// TransferStatus tells the agent how a transfer is. ref is its id of the command,
// if it has asked for the transfer.
func (s *Session) TransferStatus(ref, id, state, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.call != nil && !s.over {
		s.tell(AgentEvent{Kind: AgentTransfer, Ref: ref, Name: id, State: state, Cause: reason, Out: s.out.heard(s.now())})
		wake(s.wakeAgent)
	}
}

// Refuse tells the agent that a command was refused.
func (s *Session) Refuse(ref, code, message string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.call != nil && !s.over {
		s.fault(s.now(), &AgentCommand{ID: ref}, code, message)
		wake(s.wakeAgent)
	}
}

// AnsweredBy tells the agent who has picked up.
func (s *Session) AnsweredBy(who providers.AnsweredBy) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.call == nil { // the agent is told at the start
		s.known.AnsweredBy = who
	} else {
		s.tell(AgentEvent{Kind: AgentAnsweredBy, State: string(who), Out: s.out.heard(s.now())})
		wake(s.wakeAgent)
	}
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
// has ended. The carrier's connection is closed and released. When parent ends, the
// call ends with the *End that is its cause, or with Shutdown.
func (s *Session) Run(parent context.Context) End {
	defer s.cancel(nil)
	defer context.AfterFunc(parent, func() { s.cancel(context.Cause(parent)) })()
	ctx, stop := context.WithTimeout(s.ctx, s.cfg.MaxDuration)
	defer stop()

	var group sync.WaitGroup
	if s.awaitStart(ctx) {
		s.log.Info("call started", "call", s.call.Start.Call, "stream", s.call.Start.Stream, "format", s.call.Start.In)
		group.Go(func() { s.serveAgent(ctx) })
		group.Go(func() { s.writeCarrier(ctx) })
		s.readCarrier(ctx)
	}
	end := *endOf(ctx)
	s.ending(end)
	s.carrier.Close(end.Cause.closeCode(), string(end.Cause))
	group.Wait()
	s.drain()
	s.carrier.Release()
	s.logEnd(end)
	return end
}

// ending tells of the end, once; nothing is told of the session after it.
func (s *Session) ending(end End) {
	s.told.Do(func() {
		s.mu.Lock()
		s.over = true
		if s.mix != nil {
			s.mix.party.once.Do(func() { close(s.mix.party.done) })
		}
		s.mu.Unlock()
		if s.control.Ending != nil {
			s.control.Ending(end)
		}
		close(s.done)
	})
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
		"dropped", st.Dropped, "overflow", st.Overflow, "gaps", st.Gaps, "gap_time", st.GapTime, "clears", st.Clears, "late_marks", st.LateMarks,
		"delay_in_p99", st.In.Quantile(0.99), "delay_out_p99", st.Out.Quantile(0.99)}
	if end.Err != nil {
		attrs = append(attrs, "err", end.Err)
	}
	s.log.Info("call ended", attrs...)
}

// finish ends the call; the first cause counts.
func (s *Session) finish(cause Cause, err error) {
	if s.leaving.Load() > 0 && cause != APIHangup {
		cause = Transferred
	}
	s.cancel(&End{cause, err})
}

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
			if other(s.known.Call, ev.Start.Call) || other(s.known.Account, ev.Start.Account) {
				s.finish(ProtocolError, errors.New("session: the token is of another call"))
				return false
			}
			s.started(ev.Start)
			return true
		}
	}
}

// other tells whether what the stream says contradicts what is known.
func other(known, said string) bool { return known != "" && said != "" && known != said }

// started builds the queues: the formats are known now.
func (s *Session) started(start *providers.Start) {
	s.mu.Lock()
	defer s.mu.Unlock()
	hears, speaks := s.dialer.Formats()
	if start.Call == "" { // Vonage's does not say
		start.Call = s.known.Call
	}
	s.call = &Call{Session: s.ID, Carrier: s.spec.Name, Known: s.known, Start: start, Abilities: s.spec.Abilities}
	s.in = newInbound(start.In, hears, s.cfg.CallerQueue, &s.stats)
	s.out = newPlayout(speaks, start.Out, s.spec.Abilities, &s.cfg, &s.stats, s.tell)
	s.out.native = s.spec.Abilities.SendDigits || s.control.Digits != nil
	s.call.NativeDigits = s.out.native
	s.call.Transfers = s.control.Transfers
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
