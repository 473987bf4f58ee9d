package session

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"voicebridge/agent"
	"voicebridge/calls"
	"voicebridge/codec"
	"voicebridge/providers"
	"voicebridge/providers/providertest/commanded"
	"voicebridge/providers/twilio"
)

// same is an agent that speaks the carrier's own format.
type same struct {
	loopAgent
	format codec.Format
}

// Formats implements agent.Dialer and agent.Conn.
func (s same) Formats() (codec.Format, codec.Format) { return s.format, s.format }

// Dial implements agent.Dialer.
func (s same) Dial(context.Context, *agent.Call) (agent.Conn, error) { return s, nil }

// carry begins a call of a carrier's with an agent of the same format.
func carry(t *testing.T, spec *providers.Spec, l *loop, d agent.Dialer) (peer providers.Peer, end func() calls.End) {
	t.Helper()
	s := New(Options{ID: "cs_1", Spec: spec, Config: Defaults, Media: l, Dialer: d, Log: slog.New(slog.DiscardHandler)})
	ended := make(chan calls.End, 1)
	go func() { ended <- s.Run(context.Background()) }()
	peer = spec.NewPeer()
	f := spec.Formats[0]
	l.in <- encode(t, peer, providers.Event{Kind: providers.EventStart,
		Start: &providers.Start{Call: "C1", Stream: "S1", In: f, Out: f}})
	return peer, func() calls.End { l.Close(calls.End{}); return <-ended }
}

// TestUntouched: where carrier and agent speak the same, the bytes pass as they are,
// both ways, at once.
func TestUntouched(t *testing.T) {
	for _, spec := range []*providers.Spec{twilio.Spec, commanded.Spec} { // PCMU, PCMA
		f := spec.Formats[0]
		t.Run(f.String(), func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				l := newLoop()
				peer, end := carry(t, spec, l, same{loopAgent{l}, f})
				r := rand.New(rand.NewPCG(1, 2))
				read := spec.NewPeer()
				_ = encode(t, read, providers.Event{Kind: providers.EventStart,
					Start: &providers.Start{Call: "C1", Stream: "S1", In: f, Out: f}})
				began := time.Now()
				for n := range 50 {
					frame := make([]byte, f.FrameBytes())
					for i := range frame {
						frame[i] = byte(r.Uint32())
					}
					l.in <- encode(t, peer, providers.Event{Kind: providers.EventAudio, Audio: frame,
						At: time.Duration(n) * codec.FrameTime})
					heard := <-l.said
					if !bytes.Equal(heard, frame) {
						t.Fatalf("frame %d: the agent hears other bytes", n)
					}
					l.say <- append([]byte(nil), heard...)
					var cmd providers.Command
					if err := read.Decode(providers.Message{Data: <-l.out}, &cmd); err != nil ||
						!bytes.Equal(cmd.Audio, frame) {
						t.Fatalf("frame %d: the caller hears other bytes, %v", n, err)
					}
					if d := time.Since(began) - time.Duration(n)*codec.FrameTime; d != 0 {
						t.Fatalf("frame %d came back %v late", n, d)
					}
					time.Sleep(codec.FrameTime)
				}
				end()
			})
		})
	}
}

// TestUntouchedAllocations: and nothing is allocated for it.
func TestUntouchedAllocations(t *testing.T) {
	virtual(t, func(t *testing.T) {
		l := newLoop()
		f := twilio.Spec.Formats[0]
		peer, end := carry(t, twilio.Spec, l, same{loopAgent{l}, f})
		media := encode(t, peer, providers.Event{Kind: providers.EventAudio, Audio: make([]byte, f.FrameBytes())})
		step := func() {
			l.in <- media
			l.say <- <-l.said
			<-l.out
			time.Sleep(codec.FrameTime)
		}
		for range 10 {
			step()
		}
		if n := testing.AllocsPerRun(100, step); n != 0 {
			t.Errorf("%v allocations a frame", n)
		}
		end()
	})
}

// hanging is a carrier whose media connection can end the call, and whose agent hangs
// up as soon as it is there.
type hanging struct{ loopAgent }

// Dial implements agent.Dialer.
func (h hanging) Dial(context.Context, *agent.Call) (agent.Conn, error) { return h, nil }

// Serve implements agent.Conn.
func (h hanging) Serve(handler agent.Handler) {
	go func() {
		handler.Command(&agent.Command{Kind: agent.CommandHangup, Now: true})
		<-h.closed
		handler.Gone(&agent.Error{Cause: calls.AgentLost, Err: io.EOF})
	}()
}

// hangStream is a stream with a command that ends the call.
type hangStream struct{ providers.Stream }

// Encode implements providers.Stream.
func (s hangStream) Encode(out *providers.Messages, cmd *providers.Command) error {
	if cmd.Kind != providers.CommandHangup {
		return s.Stream.Encode(out, cmd)
	}
	out.Add(false).Data = append([]byte(nil), "HANGUP"...)
	return nil
}

// TestHangupByMedia: where the media connection can end the call, it is told to before
// it is closed, and not where the caller has hung up.
func TestHangupByMedia(t *testing.T) {
	virtual(t, func(t *testing.T) {
		spec := *twilio.Spec
		spec.Abilities.Hangup = true
		spec.NewStream = func() providers.Stream { return hangStream{twilio.Spec.NewStream()} }
		for _, agentHangsUp := range []bool{true, false} {
			l := newLoop()
			var d agent.Dialer = loopAgent{l}
			if agentHangsUp {
				d = hanging{loopAgent{l}}
			}
			peer, end := carry(t, &spec, l, d)
			synctest.Wait()
			if !agentHangsUp {
				l.in <- encode(t, peer, providers.Event{Kind: providers.EventStop})
			}
			time.Sleep(5 * time.Second)
			var told strings.Builder
			for len(l.out) > 0 {
				told.Write(<-l.out)
			}
			if strings.Contains(told.String(), "HANGUP") != agentHangsUp {
				t.Errorf("agent hangs up: %v, the carrier was told %q", agentHangsUp, told.String())
			}
			if e := end(); errors.Is(e.Err, io.ErrUnexpectedEOF) {
				t.Error(e)
			}
		}
	})
}
