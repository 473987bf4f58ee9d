// Package session is one call: a carrier's media connection on one side, an
// agent on the other. It decodes, paces, keeps marks and clears in order, and
// ends with a Cause.
//
// The work is done by two queues without clock or I/O: inbound (caller to agent)
// and playout (agent to caller). Session gives them the time and moves what they
// say to and from the two connections. Whoever brings something, a connection, a
// timer or a request, sends all that is due then; a side that does not take more
// holds up nobody else.
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
	// Serve gives what comes from now on to h; see ws.Conn.
	Serve(loop *ws.Loop, h ws.Handler)
	// Put sends a message without waiting. Where more is false, h's Writable tells
	// when more can be sent. A failure ends the connection, which Closed tells.
	Put(binary bool, data []byte) (more bool, err error)
	Close(code int, reason string)
	// Release returns when the connection has ended.
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
	loop    *ws.Loop
	begun   chan struct{}  // closed by the start message
	late    *time.Timer    // ends a session without one
	signals sync.WaitGroup // digits on their way

	// Owned by the carrier's handler.
	event providers.Event
	bad   int // malformed messages in a row

	mu        sync.Mutex // guards what follows
	in        inbound
	out       playout
	agent     Agent // nil: not yet
	toCarrier flow
	toAgent   flow
	command   providers.Command // of toCarrier
	wire      []byte
	saying    AgentEvent    // of toAgent
	timer     *time.Timer   // runs tick
	armed     time.Duration // when it does; 0: it does not
	silent    *time.Timer   // ends a call whose agent says nothing
	events    []AgentEvent  // for the agent, before its audio
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
		epoch: time.Now(), done: make(chan struct{}), begun: make(chan struct{}),
	}
	s.toCarrier.gone, s.toAgent.gone = make(chan struct{}), make(chan struct{})
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	return s
}

// Expect tells what is known of the call before it starts. A start message of
// another call or account ends the session. It must be called before Run.
func (s *Session) Expect(known Known) { s.known = known }

// In has the connections served by an event loop; without it, or with nil, they
// are by goroutines of their own. It must be called before Run.
func (s *Session) In(loop *ws.Loop) { s.loop = loop }

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
	s.send()
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
	defer s.send()
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
	s.send()
}

// TransferStatus tells the agent how a transfer is. ref is its id of the command,
// if it has asked for the transfer.
func (s *Session) TransferStatus(ref, id, state, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.call != nil && !s.over {
		s.tell(AgentEvent{Kind: AgentTransfer, Ref: ref, Name: id, State: state, Cause: reason, Out: s.out.heard(s.now())})
		s.send()
	}
}

// Refuse tells the agent that a command was refused.
func (s *Session) Refuse(ref, code, message string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.call != nil && !s.over {
		s.fault(s.now(), &AgentCommand{ID: ref}, code, message)
		s.send()
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
		s.send()
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
	limit := time.AfterFunc(s.cfg.MaxDuration, func() { s.cancel(&End{Cause: MaxDuration}) })
	defer limit.Stop()
	s.late = time.AfterFunc(s.cfg.Start, func() { s.finish(StartTimeout, nil) })
	defer s.late.Stop()
	context.AfterFunc(s.ctx, func() { // not when Run gets there: it may be dialling
		end := endOf(s.ctx)
		s.ending(*end)
		s.carrier.Close(end.Cause.closeCode(), string(end.Cause))
	})
	s.carrier.Serve(s.loop, carrierSide{s})
	select {
	case <-s.begun:
		s.dialAgent()
	case <-s.ctx.Done():
	}
	<-s.ctx.Done()
	end := *endOf(s.ctx)
	s.ending(end)
	s.leaveAgent()
	<-s.toCarrier.gone
	s.carrier.Release()
	s.signals.Wait()
	s.halt()
	s.logEnd(end)
	return end
}

// halt stops the timers.
func (s *Session) halt() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range []*time.Timer{s.timer, s.silent} {
		if t != nil {
			t.Stop()
		}
	}
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
	s.toCarrier.frame = make([]byte, 0, start.Out.FrameBytes())
	s.timer = time.AfterFunc(time.Hour, s.tick)
	if s.cfg.Lead >= leadForSlack {
		s.out.slack = slack
	}
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
