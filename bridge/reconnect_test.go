package bridge_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"voicebridge/agent/link"
	"voicebridge/calls"
	"voicebridge/session"
	"voicebridge/sim"
	"voicebridge/sim/ear"
	"voicebridge/sim/memnet"
)

// TestReconnect: an agent whose connection breaks amid its words is dialled again, and told where it was: what it
// had said is played to its end, without a click, and its clocks go on. An agent that does not come back ends
// the call as one that is lost, once its words were heard.
func TestReconnect(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		comesBack bool
		cause     calls.Cause
	}{"it comes back": {true, calls.AgentHangup}, "it does not": {false, calls.AgentLost}} {
		run(t, name, func(t *testing.T) {
			type start struct {
				In     int64 `json:"in_ms"`
				Out    int64 `json:"out_ms"`
				Resume *struct {
					Sent int64 `json:"sent_ms"`
				}
			}
			var mu sync.Mutex
			var starts []start
			var times []time.Time
			agents := &sim.Agent{Log: slog.New(slog.DiscardHandler), Talk: func(ctx context.Context, c *sim.AgentConn) error {
				var s start
				if err := json.Unmarshal(c.Start, &s); err != nil {
					return err
				}
				mu.Lock()
				starts, times = append(starts, s), append(times, time.Now())
				first := len(starts) == 1
				mu.Unlock()
				if first {
					tone := ear.Sine(c.Speaks.Rate, firstHz, 3*time.Second)
					if err := c.Audio(append(c.Speaks.Encoding.AppendEncode(nil, tone), 7)); err != nil { // half a sample
						return err
					}
					time.Sleep(time.Second)
					c.Break()
					return nil
				}
				if !tt.comesBack {
					c.Break()
					return nil
				}
				time.Sleep(3 * time.Second)
				if err := c.Audio(c.Speaks.Encoding.AppendEncode(nil, ear.Sine(c.Speaks.Rate, secondHz, time.Second))); err != nil {
					return err
				}
				return c.Command(map[string]string{"type": "hangup"})
			}}
			url, stop := memnet.Serve(agents)
			defer stop()
			d := dialer(t, link.Config{URL: "ws" + strings.TrimPrefix(url, "http") + "/"})
			b := startBridge(t, "", func(o *options) {
				o.dialer = d
				o.session.Reconnect = session.Reconnect{Times: 2, Pause: 500 * time.Millisecond}
			})
			r := call(t, b.caller(t, "twilio", 12*time.Second))
			b.ended(t, tt.cause)
			first, second := answers(r.Heard, r.Format.Rate)
			if whole := time.Duration(len(first)) * time.Second / time.Duration(r.Format.Rate); whole < 2950*time.Millisecond ||
				clicks(first) > 0 {
				t.Errorf("of 3 s %v are heard, with %d clicks", whole, clicks(first))
			}
			mu.Lock()
			defer mu.Unlock()
			if !tt.comesBack {
				if len(starts) != 3 {
					t.Errorf("it is dialled %d times", len(starts))
				}
				return
			}
			if len(starts) != 2 || starts[0].Resume != nil || starts[1].Resume == nil || starts[1].Resume.Sent != 3000 ||
				starts[1].Out < 700 || starts[1].Out > 1100 || starts[1].In < 900 || starts[1].In > 1100 {
				t.Fatalf("it is told %+v", starts)
			}
			if away := times[1].Sub(times[0]) - time.Second; away > time.Second {
				t.Errorf("it is back after %v", away)
			}
			if !ear.Hears(second, r.Format.Rate, secondHz) {
				t.Error("what it says then is not heard")
			}
		})
	}
}
