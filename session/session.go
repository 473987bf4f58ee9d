// Package session is one call: a carrier's media connection on one side, an
// agent on the other. It decodes, paces, keeps marks and clears in order, and
// ends with a Cause.
//
// The work is done by the two queues of package audio, without clock or I/O: Inbound
// (caller to agent) and Playout (agent to caller). Session gives them the time and moves what they
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

	"voicebridge/agent"
	"voicebridge/calls"
	"voicebridge/codec"
	"voicebridge/providers"
	"voicebridge/session/audio"
	"voicebridge/session/verdict"
)

// Config are the settings of a session. Every field must be set; Defaults has
// the usual ones.
type Config struct {
	Lead        time.Duration // audio that the carrier holds ahead of time
	Prebuffer   time.Duration // audio to wait for before an utterance begins: for agents that pace themselves
	AgentQueue  time.Duration // the most agent audio that waits to be played
	Live        time.Duration // see audio.Settings
	CallerQueue time.Duration // the most caller audio that waits for a slow agent
	Start       time.Duration // for the carrier's start message to come
	AgentDial   time.Duration // for the agent to be connected, all attempts together
	MaxDuration time.Duration // of a call
	Greeting    time.Duration // for the agent to begin to speak once it is connected; 0: any time
	Reconnect   Reconnect
}

// Reconnect is what is done about an agent whose connection breaks amid a call.
type Reconnect struct {
	Times int           // it is dialled again, in all; 0: the call ends
	Pause time.Duration // after the first attempt, which comes at once; then twice as long each
	// Music is what the caller hears meanwhile, as of Hold; nil: nothing.
	Music func(codec.Format) []byte
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
	maxEvents    = 8192             // events waiting for a slow agent: all marks may be answered at once
	maxDiscarded = 10 * time.Minute // agent audio discarded without a clear
	pushBytes    = 32 << 10         // agent audio taken under one lock
	musicAfter   = time.Second      // how long an agent is away without music: most are back by then
	maxLines     = 400              // that an agent is told which is dialled again
)

// Options are what a session is made from.
type Options struct {
	ID        string // of the call; unique
	Spec      *providers.Spec
	Config    Config
	Media     Media // the connection that the carrier has opened
	AgentName string
	Dialer    agent.Dialer // reaches the agent
	// Fallback takes the call over where the agent cannot be reached, or is lost; nil: none does.
	Fallback *Other
	Known    agent.Known // a start message of another call or account ends the session
	Control  Control
	Log      *slog.Logger
}

// Control is what is done about a call outside of its media connection. All may be
// nil. None is called under a lock of the session's but Streaming, Adopted and Ending, which
// are in order; they must not block.
type Control struct {
	// Streaming is called once the agent is connected, which took so long, unless Ending has
	// been.
	Streaming func(c *agent.Call, took time.Duration)
	// Ending is called with the end of the session, once, before the carrier's
	// connection is closed.
	Ending func(calls.End)
	// Panicked is told of a panic in the handling of the call, which has ended it.
	Panicked func(v any, stack []byte)
	// Digits sends digits to the other party as the carrier does it; nil: they are
	// sent as tones in the audio, unless the media connection takes digits.
	Digits func(ctx context.Context, digits string) error
	// Transfer begins to move the call to somebody else; it must not block. ref is
	// the agent's id of the command. Cancel withdraws that, if it is under way. Both
	// are nil where the call cannot be transferred.
	Transfer func(ref string, t *calls.TransferRequest)
	Cancel   func(ref string) bool
	// Adopted is told the name of another agent that has the call from now on, unless Ending has been called.
	Adopted func(agent string)
	// Transfers are the modes in which it can be.
	Transfers []string
	// Said and Used are told of what was said, and of what the agent has used up; nil: nobody is.
	Said func(calls.Line)
	Used func(calls.Usage)
}

// Session is one call.
type Session struct {
	Options // static
	log     *slog.Logger
	epoch   time.Time // positions in time count from it
	stream  providers.Stream

	verdict *verdict.Verdict
	notices sync.Mutex    // held while Control's Streaming and Ending are called
	told    bool          // Ending has been; guarded by notices
	done    chan struct{} // closed after Ending
	// moves counts how often the carrier was about to take the call elsewhere;
	// negative: it is not any more.
	moves      atomic.Int64
	begun      chan struct{}  // closed by the start message
	startLimit *time.Timer    // ends a session without one
	broken     chan broken    // the agent's connection that has broken, and is replaced
	next       chan next      // what is to take its place
	signals    sync.WaitGroup // digits on their way

	// Owned by whoever calls the carrier's handler.
	received []providers.Event
	bad      int // malformed messages in a row

	wire providers.Messages // owned by the flow to the carrier

	mu         sync.Mutex  // guards what follows
	call       *agent.Call // set by the start message, read-only from then on
	in         audio.Inbound
	out        audio.Playout
	agent      agent.Conn // nil: not yet, or not now; set by Run's goroutine
	toCarrier  flow
	toAgent    *flow
	command    providers.Command // of toCarrier
	timer      *time.Timer       // runs tick
	armed      time.Duration     // when it does; 0: it does not
	greetLimit *time.Timer       // ends a call whose agent says nothing
	events     []agent.Event     // for the agent, before its audio
	discarded  time.Duration     // agent audio since the last clear
	agentGone  bool              // its connection has ended: there is nobody to talk to
	lost       *calls.End        // the end of the call for which that is queued; nil: it is not
	redials    int               // of the agent so far
	going      bool              // another connection is to take the place of the agent's
	lines      []calls.Line      // said so far
	kept       any               // what its dialect has kept for the next connection
	endTold    bool              // nothing is told of the session any more
	party      *Party            // nil: there is none
	room       *audio.Room       // of the party
	stats      audio.Stats
	warned     time.Time
	troubled   time.Time
	unlogged   int // warnings that were not logged
}

// New makes a session. Run carries the call.
func New(o Options) *Session {
	s := &Session{
		Options: o, log: o.Log.With("provider", o.Spec.Name, "session", o.ID), stream: o.Spec.NewStream(),
		epoch: time.Now(), done: make(chan struct{}), begun: make(chan struct{}),
		verdict: verdict.New(), broken: make(chan broken, 1),
		next: make(chan next, 1),
	}
	s.toCarrier = flow{mu: &s.mu, next: s.nextToCarrier, gone: make(chan struct{})}
	s.toAgent = s.newAgentFlow()
	return s
}

// Hangup ends the call, at once or once what the agent has said so far is heard.
func (s *Session) Hangup(afterPlayback bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !afterPlayback || s.call == nil {
		s.finish(calls.APIHangup, nil)
		return
	}
	s.out.Hangup("", &calls.End{Cause: calls.APIHangup})
	s.send()
}

// CallEnded tells that the carrier has reported the end of the call.
func (s *Session) CallEnded() { s.finish(calls.CallerHangup, nil) }

// StreamEnded tells that the carrier has reported the end of the stream.
func (s *Session) StreamEnded() {
	s.finish(calls.CarrierLost, errors.New("session: the carrier says that the stream has ended"))
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
	return s.out.SendDigits(audio.Item{Digits: digits, Tone: agent.DefaultTone, Gap: agent.DefaultToneGap}, true), nil
}

// Hold plays audio to the caller over and over, in place of the agent's, which
// waits; nil ends that. music returns whole frames in the carrier's format.
func (s *Session) Hold(music func(codec.Format) []byte) {
	s.mu.Lock()
	ready := s.call != nil && !s.endTold
	format := s.out.Format() // known since the start
	s.mu.Unlock()
	if !ready {
		return
	}
	var frames []byte
	if music != nil {
		frames = music(format)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch held := s.out.Held(); {
	case s.out.Hold(frames) == held:
		s.send()
	case held:
		s.tellHold(agent.Resumed)
	default:
		s.tellHold(agent.Held)
	}
}

// TransferStatus tells the agent how a transfer is. ref is its id of the command,
// if it has asked for the transfer.
func (s *Session) TransferStatus(ref string, t agent.TransferStatus) {
	s.tellAgent(func(out time.Duration) {
		s.tell(agent.Event{Kind: agent.EventTransfer, Ref: ref, Transfer: t, Out: out})
	})
}

// Refuse tells the agent that a command was refused.
func (s *Session) Refuse(ref, code, message string) {
	s.tellAgent(func(time.Duration) { s.fault(&agent.Command{ID: ref}, code, message) })
}

// tellAgent has something told to the agent, if there is one to be told.
func (s *Session) tellAgent(tell func(out time.Duration)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.call != nil && !s.endTold {
		tell(s.out.Heard(s.now()))
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
	s.tell(agent.Event{Kind: agent.EventAnsweredBy, AnsweredBy: who, Out: s.out.Heard(s.now())})
	s.send()
}

func (s *Session) now() time.Duration { return time.Since(s.epoch) }

// Length is how long the session has lasted so far.
func (s *Session) Length() time.Duration { return s.now() }

// Stats returns a copy of the counters so far.
func (s *Session) Stats() audio.Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}

// Run carries the call and returns when it is over and everything it started
// has ended. The carrier's connection is closed and released. When ctx ends, the
// call ends with the *End that is its cause, or with Shutdown.
func (s *Session) Run(ctx context.Context) calls.End {
	defer context.AfterFunc(ctx, func() { s.end(verdict.EndOf(ctx)) })()
	limit := time.AfterFunc(s.Config.MaxDuration, func() { s.end(calls.End{Cause: calls.MaxDuration}) })
	defer limit.Stop()
	s.startLimit = time.AfterFunc(s.Config.Start, func() { s.finish(calls.StartTimeout, nil) })
	defer s.startLimit.Stop()
	s.Media.Serve(carrierSide{s})
	select {
	case <-s.begun:
		s.serveAgent(ctx)
	case <-s.verdict.Done():
	}
	<-s.verdict.Done()
	s.guarded(s.ending)
	s.leaveAgent()
	<-s.toCarrier.gone
	s.Media.Release()
	s.signals.Wait()
	s.stopTimers()
	end := s.verdict.Get()
	s.logEnd(end)
	return end
}

// during returns a context that ends with the session, or after the limit.
func (s *Session) during(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	ctx, stop := context.WithTimeout(ctx, limit)
	go func() {
		select {
		case <-s.verdict.Done():
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
func (s *Session) finish(cause calls.Cause, err error) {
	if s.moves.Load() > 0 && cause != calls.APIHangup {
		cause = calls.Transferred
	}
	s.end(calls.End{Cause: cause, Err: err})
}

// end ends the call. What is to be done then is done beside: Run may be dialling, and
// the caller may hold s.mu.
func (s *Session) end(end calls.End) {
	if s.verdict.Reach(end) {
		go func() {
			defer s.guard()
			s.conclude()
		}()
	}
}

// conclude tells of the end, and closes the carrier's connection.
func (s *Session) conclude() {
	defer s.Media.Close(s.verdict.Get())
	s.guarded(s.ending)
	if s.Spec.Abilities.Hangup {
		s.mu.Lock()
		started := s.call != nil
		s.mu.Unlock()
		if started {
			s.toCarrier.finish(s.send)
		}
	}
}

// ending tells of the end, once; nothing is told of the session after it.
func (s *Session) ending() {
	s.notice(func() {
		s.told = true
		s.mu.Lock()
		s.endTold = true
		party := s.party
		s.mu.Unlock()
		if party != nil {
			party.end()
		}
		defer close(s.done)
		if s.Control.Ending != nil {
			s.Control.Ending(s.verdict.Get())
		}
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

func (s *Session) logEnd(end calls.End) {
	st := s.Stats()
	attrs := []any{"cause", end.Cause, "duration", s.now().Round(time.Millisecond),
		"frames_in", st.FramesIn, "frames_out", st.FramesOut, "missing", st.Missing, "malformed", st.Malformed,
		"dropped", st.Dropped, "overflow", st.Overflow, "gaps", st.Gaps, "gap_time", st.GapTime, "clears", st.Clears,
		"late_marks", st.LateMarks,
		"delay_in_p99", st.In.Quantile(0.99), "delay_out_p99", st.Out.Quantile(0.99)}
	if end.Err != nil {
		attrs = append(attrs, "err", end.Err)
	}
	level := slog.LevelInfo
	if end.Cause.Fault() {
		level = slog.LevelWarn
	}
	s.log.Log(context.Background(), level, "call ended", attrs...)
}

// started builds the queues: the formats are known now.
func (s *Session) started(start *providers.Start) {
	s.mu.Lock()
	defer s.mu.Unlock()
	hears, speaks := s.Dialer.Formats()
	if start.Call == "" { // not all carriers say
		start.Call = s.Known.Call
	}
	set := audio.Settings{Lead: s.Config.Lead, Prebuffer: s.Config.Prebuffer, Queue: s.Config.AgentQueue,
		Live:         s.Config.Live,
		NativeDigits: s.Spec.Abilities.SendDigits || s.Control.Digits != nil}
	if s.Config.Lead >= leadForSlack {
		set.Slack = slack
	}
	s.in = audio.NewInbound(start.In, hears, s.Config.CallerQueue, &s.stats)
	s.out = audio.NewPlayout(speaks, start.Out, s.Spec.Abilities, set, &s.stats, s.tell)
	s.call = &agent.Call{Session: s.ID, Carrier: s.Spec.Name, Known: s.Known, Start: start, Abilities: s.Spec.Abilities,
		NativeDigits: set.NativeDigits, Transfers: s.Control.Transfers}
	s.toCarrier.buf = make([]byte, 0, start.Out.FrameBytes())
	s.timer = time.AfterFunc(time.Hour, s.tick)
}

// tell queues an event for the agent. s.mu is held.
func (s *Session) tell(ev agent.Event) {
	if s.agentGone {
		return
	}
	if len(s.events) >= maxEvents {
		s.finish(calls.AgentTimeout, errors.New("session: the agent does not read its events"))
		return
	}
	s.events = append(s.events, ev)
}

// tellHold tells the agent who is held. s.mu is held.
func (s *Session) tellHold(state agent.HoldState) {
	s.tell(agent.Event{Kind: agent.EventHold, Hold: state, Out: s.out.Heard(s.now())})
	s.send()
}
