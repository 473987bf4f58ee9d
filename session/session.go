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

	"voicebridge/calls"
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

// Limits of what one side may do to its own call.
const (
	maxMalformed = 50               // malformed carrier messages in a row
	maxEvents    = 1024             // events waiting for a slow agent
	maxDiscarded = 10 * time.Minute // agent audio discarded without a clear
	pushBytes    = 32 << 10         // agent audio taken under one lock
)

// Options are what a session is made from.
type Options struct {
	ID      string // of the call; unique
	Spec    *providers.Spec
	Config  Config
	Media   Media  // the connection that the carrier has opened
	Dialer  Dialer // reaches the agent
	Known   Known  // a start message of another call or account ends the session
	Control Control
	Log     *slog.Logger
}

// Control is what is done about a call outside of its media connection. All may be
// nil. None is called under a lock of the session's but Streaming and Ending, which
// are in order; they must not block.
type Control struct {
	// Streaming is called once the agent is connected, unless Ending has been.
	Streaming func(*Call)
	// Ending is called with the end of the session, once, before the carrier's
	// connection is closed.
	Ending func(End)
	// Digits sends digits to the other party as the carrier does it; nil: they are
	// sent as tones in the audio, unless the media connection takes digits.
	Digits func(ctx context.Context, digits string) error
	// Transfer begins to move the call to somebody else; it must not block. ref is
	// the agent's id of the command. Cancel withdraws that, if it is under way. Both
	// are nil where the call cannot be transferred.
	Transfer func(ref string, t *calls.TransferRequest)
	Cancel   func(ref string) bool
	// Transfers are the modes in which it can be.
	Transfers []string
}

// Session is one call.
type Session struct {
	Options // static
	log     *slog.Logger
	epoch   time.Time // positions in time count from it
	stream  providers.Stream

	verdict verdict
	notices sync.Mutex    // held while Control's Streaming and Ending are called
	told    bool          // Ending has been; guarded by notices
	done    chan struct{} // closed after Ending
	// moves counts how often the carrier was about to take the call elsewhere;
	// negative: it is not any more.
	moves      atomic.Int64
	begun      chan struct{}  // closed by the start message
	startLimit *time.Timer    // ends a session without one
	signals    sync.WaitGroup // digits on their way

	// Owned by whoever calls the carrier's handler.
	received []providers.Event
	bad      int // malformed messages in a row

	wire providers.Messages // owned by the flow to the carrier

	mu         sync.Mutex // guards what follows
	call       *Call      // set by the start message, read-only from then on
	in         inbound
	out        playout
	agent      Agent // nil: not yet; set by Run's goroutine
	toCarrier  flow
	toAgent    flow
	command    providers.Command // of toCarrier
	saying     AgentEvent        // of toAgent
	timer      *time.Timer       // runs tick
	armed      time.Duration     // when it does; 0: it does not
	greetLimit *time.Timer       // ends a call whose agent says nothing
	events     []AgentEvent      // for the agent, before its audio
	discarded  time.Duration     // agent audio since the last clear
	agentGone  bool              // its connection has ended: there is nobody to talk to
	endTold    bool              // nothing is told of the session any more
	room       *room             // nil: there is no party
	stats      Stats
	warned     time.Time
	unlogged   int // warnings that were not logged
}

// New makes a session. Run carries the call.
func New(o Options) *Session {
	s := &Session{
		Options: o, log: o.Log.With("provider", o.Spec.Name, "session", o.ID), stream: o.Spec.NewStream(),
		epoch: time.Now(), done: make(chan struct{}), begun: make(chan struct{}),
		verdict: verdict{done: make(chan struct{})},
	}
	s.toCarrier = flow{mu: &s.mu, next: s.nextToCarrier, gone: make(chan struct{})}
	s.toAgent = flow{mu: &s.mu, next: s.nextToAgent, gone: make(chan struct{})}
	return s
}

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

// CallEnded tells that the carrier has reported the end of the call.
func (s *Session) CallEnded() { s.finish(CallerHangup, nil) }

// StreamEnded tells that the carrier has reported the end of the stream.
func (s *Session) StreamEnded() {
	s.finish(CarrierLost, errors.New("session: the carrier says that the stream has ended"))
}

// Done is closed once the end of the session has been told.
func (s *Session) Done() <-chan struct{} { return s.done }

// Returns is how often the call has come back to an agent before.
func (s *Session) Returns() int { return s.Known.Returns }

// Ended reports whether the end of the session has been told.
func (s *Session) Ended() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// MoveAway tells that the carrier is about to take the call elsewhere: however the
// stream ends then, the call goes on, and the cause is Transferred. stays takes it
// back, unless MoveAway has been called again since.
func (s *Session) MoveAway() (stays func()) {
	for {
		before := s.moves.Load()
		mine := max(before, -before) + 1
		if s.moves.CompareAndSwap(before, mine) {
			return func() { s.moves.CompareAndSwap(mine, -mine) }
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
	return s.out.dial(item{digits: digits, tone: DefaultTone, gap: DefaultToneGap}, true), nil
}

// Hold plays audio to the caller over and over, in place of the agent's, which
// waits; nil ends that. audio returns whole frames in the carrier's format.
func (s *Session) Hold(audio func(codec.Format) []byte) {
	s.mu.Lock()
	ready := s.call != nil && !s.endTold
	format := s.out.format // known since the start
	s.mu.Unlock()
	if !ready {
		return
	}
	var frames []byte
	if audio != nil {
		frames = audio(format)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch held := s.out.held != nil; {
	case s.out.hold(frames) == held:
		s.send()
	case held:
		s.tellHold(Resumed)
	default:
		s.tellHold(Held)
	}
}

// TransferStatus tells the agent how a transfer is. ref is its id of the command,
// if it has asked for the transfer.
func (s *Session) TransferStatus(ref string, t TransferStatus) {
	s.tellAgent(func(out time.Duration) {
		s.tell(AgentEvent{Kind: AgentTransfer, Ref: ref, Transfer: t, Out: out})
	})
}

// Refuse tells the agent that a command was refused.
func (s *Session) Refuse(ref, code, message string) {
	s.tellAgent(func(time.Duration) { s.fault(&AgentCommand{ID: ref}, code, message) })
}

// tellAgent has something told to the agent, if there is one to be told.
func (s *Session) tellAgent(tell func(out time.Duration)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.call != nil && !s.endTold {
		tell(s.out.heard(s.now()))
		s.send()
	}
}

// AnsweredBy tells the agent who has picked up.
func (s *Session) AnsweredBy(who providers.AnsweredBy) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.call == nil { // the agent is told at the start
		s.Known.AnsweredBy = who
		return
	}
	s.tell(AgentEvent{Kind: AgentAnsweredBy, AnsweredBy: who, Out: s.out.heard(s.now())})
	s.send()
}

func (s *Session) now() time.Duration { return time.Since(s.epoch) }

// Stats returns a copy of the counters so far.
func (s *Session) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}

// Run carries the call and returns when it is over and everything it started
// has ended. The carrier's connection is closed and released. When ctx ends, the
// call ends with the *End that is its cause, or with Shutdown.
func (s *Session) Run(ctx context.Context) End {
	defer context.AfterFunc(ctx, func() { s.end(endOf(ctx)) })()
	limit := time.AfterFunc(s.Config.MaxDuration, func() { s.end(End{Cause: MaxDuration}) })
	defer limit.Stop()
	s.startLimit = time.AfterFunc(s.Config.Start, func() { s.finish(StartTimeout, nil) })
	defer s.startLimit.Stop()
	s.Media.Serve(carrierSide{s})
	select {
	case <-s.begun:
		s.dialAgent(ctx)
	case <-s.verdict.done:
	}
	<-s.verdict.done
	s.ending()
	s.leaveAgent()
	<-s.toCarrier.gone
	s.Media.Release()
	s.signals.Wait()
	s.stopTimers()
	end := s.verdict.get()
	s.logEnd(end)
	return end
}

// during returns a context that ends with the session, or after the limit.
func (s *Session) during(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	ctx, stop := context.WithTimeout(ctx, limit)
	go func() {
		select {
		case <-s.verdict.done:
			stop()
		case <-ctx.Done():
		}
	}()
	return ctx, stop
}

func (s *Session) stopTimers() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range []*time.Timer{s.timer, s.greetLimit} {
		if t != nil {
			t.Stop()
		}
	}
}

// finish ends the call; the first cause counts.
func (s *Session) finish(cause Cause, err error) {
	if s.moves.Load() > 0 && cause != APIHangup {
		cause = Transferred
	}
	s.end(End{cause, err})
}

// end ends the call. What is to be done then is done beside: Run may be dialling, and
// the caller may hold s.mu.
func (s *Session) end(end End) {
	if s.verdict.reach(end) {
		go s.conclude()
	}
}

// conclude tells of the end, and closes the carrier's connection.
func (s *Session) conclude() {
	s.ending()
	if s.Spec.Abilities.Hangup {
		s.mu.Lock()
		started := s.call != nil
		s.mu.Unlock()
		if started {
			s.toCarrier.finish(s.send)
		}
	}
	s.Media.Close(s.verdict.get())
}

// ending tells of the end, once; nothing is told of the session after it.
func (s *Session) ending() {
	s.notice(func() {
		s.told = true
		s.mu.Lock()
		s.endTold = true
		room := s.room
		s.mu.Unlock()
		if room != nil {
			room.party.end()
		}
		if s.Control.Ending != nil {
			s.Control.Ending(s.verdict.get())
		}
		close(s.done)
	})
}

// notice tells of the session, unless its end has been told.
func (s *Session) notice(tell func()) {
	s.notices.Lock()
	defer s.notices.Unlock()
	if !s.told {
		tell()
	}
}

func (s *Session) logEnd(end End) {
	st := s.Stats()
	attrs := []any{"cause", end.Cause, "duration", s.now().Round(time.Millisecond),
		"frames_in", st.FramesIn, "frames_out", st.FramesOut, "missing", st.Missing, "malformed", st.Malformed,
		"dropped", st.Dropped, "overflow", st.Overflow, "gaps", st.Gaps, "gap_time", st.GapTime, "clears", st.Clears,
		"late_marks", st.LateMarks,
		"delay_in_p99", st.In.Quantile(0.99), "delay_out_p99", st.Out.Quantile(0.99)}
	if end.Err != nil {
		attrs = append(attrs, "err", end.Err)
	}
	s.log.Info("call ended", attrs...)
}

// started builds the queues: the formats are known now.
func (s *Session) started(start *providers.Start) {
	s.mu.Lock()
	defer s.mu.Unlock()
	hears, speaks := s.Dialer.Formats()
	if start.Call == "" { // not all carriers say
		start.Call = s.Known.Call
	}
	s.in = newInbound(start.In, hears, s.Config.CallerQueue, &s.stats)
	s.out = newPlayout(speaks, start.Out, s.Spec.Abilities, &s.Config, &s.stats, s.tell)
	s.out.native = s.Spec.Abilities.SendDigits || s.Control.Digits != nil
	if s.Config.Lead >= leadForSlack {
		s.out.slack = slack
	}
	s.call = &Call{Session: s.ID, Carrier: s.Spec.Name, Known: s.Known, Start: start, Abilities: s.Spec.Abilities,
		NativeDigits: s.out.native, Transfers: s.Control.Transfers}
	s.toCarrier.buf = make([]byte, 0, start.Out.FrameBytes())
	s.timer = time.AfterFunc(time.Hour, s.tick)
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

// tellHold tells the agent who is held. s.mu is held.
func (s *Session) tellHold(state HoldState) {
	s.tell(AgentEvent{Kind: AgentHold, Hold: state, Out: s.out.heard(s.now())})
	s.send()
}
