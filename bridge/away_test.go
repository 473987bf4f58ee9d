package bridge_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"voicebridge/agent"
	"voicebridge/agent/link"
	"voicebridge/calls"
	"voicebridge/codec"
	"voicebridge/session"
	"voicebridge/sim"
	"voicebridge/sim/ear"
	"voicebridge/sim/memnet"
)

// restarting is an agent that cannot be reached for some time, once it was.
type restarting struct {
	agent.Dialer
	dialled atomic.Int32
	refuses int32
}

// Dial implements agent.Dialer.
func (r *restarting) Dial(ctx context.Context, call *agent.Call) (agent.Conn, error) {
	if n := r.dialled.Add(1); n > 1 && n <= 1+r.refuses {
		return nil, errors.New("connection refused")
	}
	return r.Dialer.Dial(ctx, call)
}

// TestMusicWhileAway: a caller whose agent is being dialled again hears what was said to its end, then music, and
// then the agent as soon as it says something.
func TestMusicWhileAway(t *testing.T) {
	t.Parallel()
	const musicHz = 700
	for name, refuses := range map[string]int32{"it comes back": 2, "it does not": 9} {
		run(t, name, func(t *testing.T) {
			agents := &sim.Agent{Log: slog.New(slog.DiscardHandler),
				Talk: func(_ context.Context, c *sim.AgentConn) error {
					first := !strings.Contains(string(c.Start), `"resume"`)
					hz := secondHz
					if first {
						hz = firstHz
					}
					tone := ear.Sine(c.Speaks.Rate, float64(hz), 3*time.Second)
					// half a sample
					if err := c.Audio(append(c.Speaks.Encoding.AppendEncode(nil, tone), 7)); err != nil {
						return err
					}
					if !first {
						return c.Command(map[string]string{"type": "hangup"})
					}
					time.Sleep(time.Second)
					c.Break()
					return nil
				}}
			url, stop := memnet.Serve(agents)
			defer stop()
			d := &restarting{refuses: refuses,
				Dialer: dialer(t, link.Config{URL: "ws" + strings.TrimPrefix(url, "http") + "/"})}
			b := startBridge(t, "", func(o *options) {
				o.dialer = d
				o.session.Reconnect = session.Reconnect{Times: 3, Pause: 2 * time.Second,
					Music: func(f codec.Format) []byte {
						return f.Encoding.AppendEncode(nil, ear.Sine(f.Rate, musicHz, time.Second))
					}}
			})
			r := call(t, b.caller(t, "twilio", 20*time.Second))
			cause := calls.AgentHangup
			if refuses > 3 {
				cause = calls.AgentLost
			}
			b.ended(t, cause)
			part := func(from, to time.Duration) []int16 { // of the call
				at := func(d time.Duration) int {
					return min(len(r.Heard),
						int(d*time.Duration(r.Format.Rate)/time.Second))
				}
				return r.Heard[at(from):at(to)]
			}
			hears := func(from, to time.Duration,
				hz float64) bool {
				return ear.Hears(part(from, to), r.Format.Rate, hz)
			}
			if !hears(0, 3*time.Second, firstHz) || hears(0, 2900*time.Millisecond, musicHz) ||
				!hears(4*time.Second, 7*time.Second, musicHz) {
				t.Error("what was said and then music should be heard")
			}
			switch back := hears(7*time.Second, 20*time.Second, secondHz); {
			case back != (refuses <= 3):
				t.Errorf("the agent is heard again: %v", back)
			case back && hears(7500*time.Millisecond, 20*time.Second, musicHz):
				t.Error("the music goes on beside the agent")
			}
		})
	}
}
