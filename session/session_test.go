package session

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"voicebridge/agent"
	"voicebridge/calls"
	"voicebridge/codec"
	"voicebridge/providers"
	"voicebridge/providers/twilio"
	"voicebridge/session/audio"
)

// loop is a carrier's connection and an agent's in one, without sockets: what
// the test puts in as the carrier's message comes out as the agent's audio, is
// said by the agent, and comes out as a message to the carrier.
type loop struct {
	in, out   chan []byte // messages of the carrier and to it
	say, said chan []byte // audio of the agent and to it
	closed    chan struct{}
	events    []agent.EventKind
}

// virtual runs a test in virtual time.
func virtual(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, test)
}

func newLoop() *loop {
	return &loop{in: make(chan []byte), out: make(chan []byte, 64), say: make(chan []byte), said: make(chan []byte, 64),
		closed: make(chan struct{})}
}

// newSession makes a session of Twilio's.
func newSession(m Media, d agent.Dialer, c Control) *Session {
	return New(Options{ID: "cs_1", Spec: twilio.Spec, Config: Defaults, Media: m, Dialer: d, Control: c,
		Log: slog.New(slog.DiscardHandler)})
}

// encode returns the message that a carrier makes of an event.
func encode(t *testing.T, p providers.Peer, ev providers.Event) []byte {
	t.Helper()
	var out providers.Messages
	if err := p.Encode(&out, &ev); err != nil {
		t.Fatal(err)
	}
	return out.All()[0].Data
}

// The carrier's side.
func (l *loop) Serve(h MediaHandler) {
	go func() {
		for {
			select {
			case b := <-l.in:
				h.Message(providers.Message{Data: b})
			case <-l.closed:
				h.Closed(calls.End{Cause: calls.ProtocolError, Err: io.EOF})
				return
			}
		}
	}()
}

func (l *loop) Put(m providers.Message) (bool, error) { l.out <- m.Data; return true, nil }

func (l *loop) Close(calls.End) {
	select {
	case <-l.closed:
	default:
		close(l.closed)
	}
}

func (l *loop) Release() {}

// The agent's side.
type loopAgent struct{ *loop }

func (l loopAgent) Formats() (codec.Format, codec.Format) {
	f := codec.Format{Encoding: codec.L16LE, Rate: 16000}
	return f, f
}

func (l loopAgent) Dial(context.Context, *agent.Call) (agent.Conn, error) { return l, nil }
func (l loopAgent) Close(calls.Cause)                                     {}

func (l loopAgent) Release() {}

func (l loopAgent) Serve(h agent.Handler) {
	go func() {
		var cmd agent.Command
		for {
			select {
			case b := <-l.say:
				cmd = agent.Command{Kind: agent.CommandAudio, Audio: b}
				h.Command(&cmd)
			case <-l.closed:
				h.Gone(&agent.Error{Cause: calls.AgentLost, Err: io.EOF})
				return
			}
		}
	}()
}

func (l loopAgent) Send(ev *agent.Event) (bool, error) {
	if ev.Kind == agent.EventAudio {
		l.said <- ev.Audio
	} else {
		l.events = append(l.events, ev.Kind)
	}
	return true, nil
}

// TestSessionAllocations follows frames through the whole session: no
// allocation between the carrier's socket and the agent's, and back.
func TestSessionAllocations(t *testing.T) {
	virtual(t, func(t *testing.T) {
		l := newLoop()
		s := newSession(l, loopAgent{l}, Control{})
		ended := make(chan calls.End)
		go func() { ended <- s.Run(context.Background()) }()

		peer := twilio.Spec.NewPeer()
		f := codec.Format{Encoding: codec.PCMU, Rate: 8000}
		l.in <- encode(t, peer, providers.Event{Kind: providers.EventStart,
			Start: &providers.Start{Stream: "MZ1", In: f, Out: f}})
		media := encode(t, peer, providers.Event{Kind: providers.EventAudio, Audio: make([]byte, 160)})
		// A frame is sent and comes back; the next is due when the time has come.
		step := func() {
			l.in <- media
			l.say <- <-l.said
			<-l.out
		}
		for range 10 {
			step()
		}
		if n := testing.AllocsPerRun(50, step); n != 0 {
			t.Errorf("%g allocations a frame", n)
		}
		l.in <- encode(t, peer, providers.Event{Kind: providers.EventStop})
		if end := <-ended; end.Cause != calls.CallerHangup {
			t.Errorf("ended with %v", end.Error())
		}
		if !slices.Equal(l.events, []agent.EventKind{agent.EventPlayback, agent.EventStop}) {
			t.Errorf("the agent was told %v", l.events)
		}
	})
}

// leaver is an agent whose connection cannot be written to any more, while what
// it said before it left is still to be read.
type leaver struct {
	loopAgent
	left []func() (agent.Command, error)
}

func (l *leaver) Dial(context.Context, *agent.Call) (agent.Conn, error) { return l, nil }
func (l *leaver) Send(*agent.Event) (bool, error) {
	return false, &agent.Error{Cause: calls.AgentLost, Err: io.ErrClosedPipe}
}

func (l *leaver) Serve(h agent.Handler) {
	go func() {
		for _, next := range l.left {
			cmd, err := next()
			if err != nil {
				h.Gone(err)
				return
			}
			h.Command(&cmd)
		}
	}()
}

// TestLastWords: a failed write to an agent does not overtake what it had said.
func TestLastWords(t *testing.T) {
	virtual(t, func(t *testing.T) {
		l := newLoop()
		written := make(chan struct{})
		a := &leaver{loopAgent: loopAgent{l}}
		a.left = []func() (agent.Command, error){
			func() (agent.Command, error) {
				<-written
				return agent.Command{Kind: agent.CommandAudio, Audio: make([]byte, 6400)}, nil
			},
			func() (agent.Command, error) {
				return agent.Command{}, &agent.Error{Cause: calls.AgentHangup, Err: io.EOF}
			},
		}
		s := newSession(l, a, Control{})
		ended := make(chan calls.End)
		go func() { ended <- s.Run(context.Background()) }()
		peer := twilio.Spec.NewPeer()
		for _, ev := range []providers.Event{{Kind: providers.EventStart, Start: &providers.Start{Stream: "MZ1"}},
			{Kind: providers.EventAudio, Audio: make([]byte, 160)},
			{Kind: providers.EventAudio, Audio: make([]byte, 160)}} {
			l.in <- encode(t, peer, ev)
		}
		close(written)
		go func() {
			for range l.out {
			}
		}()
		end := <-ended
		close(l.out)
		if st := s.Stats(); end.Cause != calls.AgentHangup || st.FramesOut < 10 {
			t.Errorf("ended with %v after %d frames, want agent_hangup after 10", end.Error(), st.FramesOut)
		}
	})
}

// slow is an agent that is reached only once the call has ended.
type slow struct {
	loopAgent
	until chan struct{}
}

func (s slow) Dial(context.Context, *agent.Call) (agent.Conn, error) {
	<-s.until
	return s.loopAgent, nil
}

// TestTooLate: an agent that comes after the end is not told to be there.
func TestTooLate(t *testing.T) {
	virtual(t, func(t *testing.T) {
		l := newLoop()
		until := make(chan struct{})
		var told []string
		s := newSession(l, slow{loopAgent{l}, until}, Control{
			Streaming: func(*agent.Call, time.Duration) { told = append(told, "streaming") },
			Ending: func(end calls.End) {
				told = append(told, string(end.Cause))
				close(until)
			},
		})
		ended := make(chan calls.End)
		go func() { ended <- s.Run(context.Background()) }()
		peer := twilio.Spec.NewPeer()
		for _, ev := range []providers.Event{{Kind: providers.EventStart, Start: &providers.Start{Stream: "MZ1"}},
			{Kind: providers.EventStop}} {
			l.in <- encode(t, peer, ev)
		}
		<-ended
		if !slices.Equal(told, []string{"caller_hangup"}) {
			t.Errorf("%v", told)
		}
	})
}

// TestHangupEarly: a session that is ended before it runs does not run.
func TestHangupEarly(t *testing.T) {
	virtual(t, func(t *testing.T) {
		l := newLoop()
		s := newSession(l, loopAgent{l}, Control{})
		s.Hangup(true)
		if end := s.Run(context.Background()); end.Cause != calls.APIHangup {
			t.Errorf("ended with %v", end.Error())
		}
		if ok, err := s.Digits("1"); ok || !errors.Is(err, ErrNotYet) {
			t.Errorf("%v, %v", ok, err)
		}
	})
}

func TestDelays(t *testing.T) {
	var d audio.Delays
	if d.Quantile(0.5) != 0 {
		t.Error("a quantile of nothing")
	}
	for range 99 {
		d.Add(3 * time.Millisecond)
	}
	d.Add(time.Minute)
	if d.Quantile(0.5) != 5*time.Millisecond || d.Quantile(0.999) != time.Second || d.Count() != 100 {
		t.Errorf("median %v, p99.9 %v of %d", d.Quantile(0.5), d.Quantile(0.999), d.Count())
	}
}

// TestBeforeAgent: what is due to the caller while the agent is being dialled goes out
// by the clock, with no message of the carrier's.
func TestBeforeAgent(t *testing.T) {
	virtual(t, func(t *testing.T) {
		l := newLoop()
		until := make(chan struct{})
		s := newSession(l, slow{loopAgent{l}, until}, Control{})
		ended := make(chan calls.End)
		go func() { ended <- s.Run(context.Background()) }()
		f := codec.Format{Encoding: codec.PCMU, Rate: 8000}
		l.in <- encode(t, twilio.Spec.NewPeer(), providers.Event{Kind: providers.EventStart,
			Start: &providers.Start{Stream: "MZ1", In: f, Out: f}})
		for ok := false; !ok; {
			var err error
			if ok, err = s.Digits("12345"); err != nil && !errors.Is(err, ErrNotYet) {
				t.Fatal(err)
			}
		}
		for i := range 40 { // 160 ms each, 20 ms a frame
			select {
			case <-l.out:
			case <-time.After(2 * time.Second):
				t.Fatalf("%d of 40 frames came", i)
			}
		}
		s.Hangup(false)
		close(until)
		<-ended
	})
}

// faulty is an agent whose handling panics at some point.
type faulty struct {
	loopAgent
	at string
}

func (f faulty) Dial(context.Context, *agent.Call) (agent.Conn, error) {
	if f.at == "dial" {
		panic("dial")
	}
	return f, nil
}

func (f faulty) Send(ev *agent.Event) (bool, error) {
	if f.at == "send" && ev.Kind == agent.EventAudio || f.at == "stop" && ev.Kind == agent.EventStop {
		panic(f.at)
	}
	return f.loopAgent.Send(ev)
}

// faultyStream is a carrier whose messages make the bridge panic.
type faultyStream struct {
	providers.Stream
	at string
}

func (f faultyStream) Decode(dst []providers.Event, m providers.Message) ([]providers.Event, error) {
	if f.at == "decode" && strings.Contains(string(m.Data), `"media"`) {
		panic(f.at)
	}
	return f.Stream.Decode(dst, m)
}

func (f faultyStream) Encode(out *providers.Messages, cmd *providers.Command) error {
	if f.at == "encode" {
		panic(f.at)
	}
	return f.Stream.Encode(out, cmd)
}

// TestPanic: wherever the handling of a call panics, that call ends, everything that it
// has begun ends with it, and its lock is free.
func TestPanic(t *testing.T) {
	for _, at := range []string{"dial", "send", "stop", "decode", "encode", "ending"} {
		t.Run(at, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				l := newLoop()
				spec := *twilio.Spec
				spec.NewStream = func() providers.Stream { return faultyStream{twilio.Spec.NewStream(), at} }
				panics := make(chan string, 10)
				s := New(Options{ID: "cs_1", Spec: &spec, Config: Defaults, Media: l, Dialer: faulty{loopAgent{l}, at},
					Log: slog.New(slog.DiscardHandler), Control: Control{
						Panicked: func(v any, stack []byte) { panics <- v.(string) + string(stack[:9]) },
						Ending: func(calls.End) {
							if at == "ending" {
								panic(at)
							}
						}}})
				ended := make(chan calls.End, 1)
				go func() { ended <- s.Run(context.Background()) }()
				peer := twilio.Spec.NewPeer()
				f := codec.Format{Encoding: codec.PCMU, Rate: 8000}
				send := func(ev providers.Event) {
					select {
					case l.in <- encode(t, peer, ev):
					case <-l.closed:
					case <-time.After(time.Second):
					}
				}
				send(providers.Event{Kind: providers.EventStart, Start: &providers.Start{Stream: "MZ1", In: f, Out: f}})
				synctest.Wait()
				send(providers.Event{Kind: providers.EventAudio, Audio: make([]byte, 160)})
				select {
				case l.say <- make([]byte, 640):
				case <-l.closed:
				case <-time.After(time.Second):
				}
				synctest.Wait()
				send(providers.Event{Kind: providers.EventStop})
				end := <-ended
				if want := at != "stop" && at != "ending"; (end.Cause == calls.BridgeFault) != want {
					t.Errorf("ended with %v", end.Error())
				}
				if len(panics) != 1 || !strings.HasPrefix(<-panics, at+"goroutine") {
					t.Errorf("%d panics were told of", len(panics))
				}
				if !s.mu.TryLock() {
					t.Error("the lock is held")
				}
			})
		})
	}
}

// renewed is an agent that has a new connection each time.
type renewed struct {
	loopAgent
	conns chan *renewal
}

// renewal is one of its connections.
type renewal struct {
	loopAgent
	h                agent.Handler
	stopped          bool // in good order, while the call goes on
	closed, released bool
}

func (r renewed) Dial(context.Context, *agent.Call) (agent.Conn, error) {
	c := &renewal{loopAgent: r.loopAgent}
	r.conns <- c
	return c, nil
}

func (r *renewal) Serve(h agent.Handler) { r.h = h }

func (r *renewal) Send(ev *agent.Event) (bool, error) {
	r.stopped = r.stopped || ev.Kind == agent.EventStop && ev.GoesOn
	return true, nil
}

func (r *renewal) Close(calls.Cause) {
	if r.closed = true; r.h != nil {
		go r.h.Gone(&agent.Error{Cause: calls.AgentHangup})
	}
}

func (r *renewal) Release() { r.released = true }

// TestRenewal: a connection that is to take the place of another one is given up where somebody speaks once it is
// ready, and may be asked for again.
func TestRenewal(t *testing.T) {
	virtual(t, func(t *testing.T) {
		l := newLoop()
		conns := make(chan *renewal, 3)
		s := newSession(l, renewed{loopAgent{l}, conns}, Control{})
		ended := make(chan calls.End)
		go func() { ended <- s.Run(context.Background()) }()
		f := codec.Format{Encoding: codec.PCMU, Rate: 8000}
		l.in <- encode(t, twilio.Spec.NewPeer(), providers.Event{Kind: providers.EventStart,
			Start: &providers.Start{Stream: "MZ1", In: f, Out: f}})
		first := <-conns
		synctest.Wait()
		first.h.Renew(func() bool { return false })
		second := <-conns
		synctest.Wait()
		if first.stopped || second.h != nil || !second.closed || !second.released {
			t.Errorf("the first is told that it is over: %v; the second: %+v", first.stopped, second)
		}
		first.h.Renew(func() bool { return true })
		third := <-conns
		synctest.Wait()
		if !first.stopped || !first.released || third.h == nil || third.closed {
			t.Errorf("the first is told that it is over: %v; the third: %+v", first.stopped, third)
		}
		s.Hangup(false)
		<-ended
	})
}
