package bridge_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"voicebridge/agent"
	"voicebridge/agent/link"
	"voicebridge/agent/tools"
	"voicebridge/calls"
	"voicebridge/control"
	"voicebridge/providers"
	"voicebridge/session"
	"voicebridge/sim"
	"voicebridge/sim/ear"
	"voicebridge/sim/memnet"
	"voicebridge/sim/models"
)

// scripted serves an agent, which is given the number of its connection. late is how long a handshake takes.
func scripted(t *testing.T, late time.Duration, talk func(n int, c *sim.AgentConn) error) string {
	t.Helper()
	var n atomic.Int64
	agents := &sim.Agent{Log: slog.New(slog.DiscardHandler), Talk: func(_ context.Context, c *sim.AgentConn) error {
		return talk(int(n.Add(1)), c)
	}}
	url, stop := memnet.Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(late)
		agents.ServeHTTP(w, r)
	}))
	t.Cleanup(stop)
	return "ws" + strings.TrimPrefix(url, "http") + "/"
}

// tones says one.
func tones(c *sim.AgentConn, hz float64, d time.Duration) error {
	return c.Audio(c.Speaks.Encoding.AppendEncode(nil, ear.Sine(c.Speaks.Rate, hz, d)))
}

// hear reads until the end, and gives the messages to told.
func hear(c *sim.AgentConn, told func(map[string]any)) error {
	for {
		binary, data, err := c.Read()
		if err != nil {
			return nil
		}
		var m map[string]any
		if !binary && json.Unmarshal(data, &m) == nil {
			told(m)
		}
	}
}

// two carries a call of a first agent, which may hand it over to "b".
func two(t *testing.T, first, second string, length time.Duration) (*running, []int16, int) {
	t.Helper()
	b := startBridge(t, "", func(o *options) {
		o.dialer = dialer(t, link.Config{URL: first})
		o.agents = map[string]agent.Dialer{"b": dialer(t, link.Config{URL: second})}
	})
	c := b.caller(t, "twilio", length)
	c.Voice = make([]int16, int(length.Seconds())*c.Start.In.Rate)
	r := call(t, c)
	return b, r.Heard, r.Format.Rate
}

// TestBreakWhileHandedOver: an agent whose connection breaks while the next one is dialled leaves the call to that.
func TestBreakWhileHandedOver(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T) {
		first := scripted(t, 0, func(_ int, c *sim.AgentConn) error {
			err := c.Command(map[string]any{"type": "transfer", "to": "agent:b"})
			time.Sleep(time.Second)
			c.Break()
			return err
		})
		second := scripted(t, 2*time.Second, func(_ int, c *sim.AgentConn) error {
			if err := tones(c, secondHz, time.Second); err != nil {
				return err
			}
			return c.Command(map[string]string{"type": "hangup"})
		})
		b, heard, rate := two(t, first, second, 10*time.Second)
		b.ended(t, calls.AgentHangup)
		if tone, _ := answers(heard, rate); !ear.Hears(tone, rate, secondHz) {
			t.Error("the second agent is not heard")
		}
	})
}

// TestHandedOverQueue: an agent that a call is handed over to has the queue that it is configured with.
func TestHandedOverQueue(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T) {
		first := scripted(t, 0, func(_ int, c *sim.AgentConn) error {
			if err := c.Command(map[string]any{"type": "transfer", "to": "agent:b"}); err != nil {
				return err
			}
			return hear(c, func(map[string]any) {})
		})
		second := scripted(t, 0, func(_ int, c *sim.AgentConn) error {
			if err := tones(c, secondHz, 4*time.Second); err != nil { // at once
				return err
			}
			return c.Command(map[string]string{"type": "hangup"})
		})
		b := startBridge(t, "", func(o *options) {
			o.dialer = dialer(t, link.Config{URL: first})
			o.agents = map[string]agent.Dialer{"b": dialer(t, link.Config{URL: second})}
			o.session.AgentQueue, o.queue = time.Second, 10*time.Second
		})
		r := call(t, b.caller(t, "twilio", 20*time.Second))
		b.ended(t, calls.AgentHangup)
		answer, _ := answers(r.Heard, r.Format.Rate)
		if heard := time.Duration(len(answer)) * time.Second / time.Duration(r.Format.Rate); heard < 3900*time.Millisecond {
			t.Errorf("of 4 s %v are heard", heard)
		}
	})
}

// TestHandedOverSilent: an agent that a call is handed over to, and says nothing, ends the call as one that is
// called first.
func TestHandedOverSilent(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T) {
		first := scripted(t, 0, func(_ int, c *sim.AgentConn) error {
			if err := tones(c, firstHz, time.Second); err != nil {
				return err
			}
			if err := c.Command(map[string]any{"type": "transfer", "to": "agent:b"}); err != nil {
				return err
			}
			return hear(c, func(map[string]any) {})
		})
		second := scripted(t, 0, func(_ int, c *sim.AgentConn) error { return hear(c, func(map[string]any) {}) })
		b := startBridge(t, "", func(o *options) {
			o.dialer = dialer(t, link.Config{URL: first})
			o.agents = map[string]agent.Dialer{"b": dialer(t, link.Config{URL: second})}
			o.session.Greeting = 3 * time.Second
		})
		call(t, b.caller(t, "twilio", 20*time.Second))
		b.ended(t, calls.AgentSilent)
	})
}

// TestHandedOverOnce: what is said while the next agent is dialled counts for the first alone, and a second
// hand-over is refused meanwhile.
func TestHandedOverOnce(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T) {
		var first, second []map[string]any
		a := scripted(t, 0, func(_ int, c *sim.AgentConn) error {
			for _, to := range []string{"agent:b", "agent:b"} {
				if err := c.Command(map[string]any{"type": "transfer", "to": to, "when": "now"}); err != nil {
					return err
				}
			}
			time.Sleep(500 * time.Millisecond)
			if err := tones(c, firstHz, 3*time.Second); err != nil {
				return err
			}
			return hear(c, func(m map[string]any) { first = append(first, m) })
		})
		next := scripted(t, 2*time.Second, func(_ int, c *sim.AgentConn) error {
			var start map[string]any
			if err := json.Unmarshal(c.Start, &start); err != nil {
				return err
			}
			second = append(second, start)
			if err := tones(c, secondHz, time.Second); err != nil {
				return err
			}
			if err := c.Command(map[string]any{"type": "mark", "name": "end"}); err != nil {
				return err
			}
			return hear(c, func(m map[string]any) { second = append(second, m) })
		})
		b, _, _ := two(t, a, next, 8*time.Second)
		b.ended(t, calls.CallerHangup)
		busy := slices.ContainsFunc(first, func(m map[string]any) bool { return m["code"] == "busy" })
		if last := first[len(first)-1]; !busy || last["type"] != "stop" || last["reason"] != "transferred" {
			t.Errorf("the first is told %v", first)
		}
		at := slices.IndexFunc(second, func(m map[string]any) bool { return m["type"] == "mark" })
		if at < 0 || second[at]["status"] != "played" || second[at]["out_ms"] != 1000.0 ||
			fmt.Sprint(second[0]["resume"]) != "map[from: sent_ms:0]" {
			t.Errorf("the second is told %v", second)
		}
	})
}

// TestPausedAndBroken: what an agent says that is dialled again is heard, though its connection had paused.
func TestPausedAndBroken(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T) {
		url := scripted(t, 0, func(n int, c *sim.AgentConn) error {
			if n == 1 {
				err := c.Command(map[string]string{"type": "pause"})
				time.Sleep(time.Second)
				c.Break()
				return err
			}
			if err := tones(c, secondHz, time.Second); err != nil {
				return err
			}
			return c.Command(map[string]string{"type": "hangup"})
		})
		b := startBridge(t, "", func(o *options) {
			o.dialer = dialer(t, link.Config{URL: url})
			o.session.Reconnect = session.Reconnect{Times: 1, Pause: time.Second}
		})
		r := call(t, b.caller(t, "twilio", 10*time.Second))
		b.ended(t, calls.AgentHangup)
		if tone, _ := answers(r.Heard, r.Format.Rate); !ear.Hears(tone, r.Format.Rate, secondHz) {
			t.Error("it is not heard")
		}
	})
}

// TestInterruptedAfterBreak: a caller interrupts what a model has said before its connection broke.
func TestInterruptedAfterBreak(t *testing.T) {
	t.Parallel()
	for _, v := range models.List {
		if v.Duplex || !v.Greets { // falls silent by itself; greets anew
			continue
		}
		run(t, v.Dialect, func(t *testing.T) {
			script := &models.Script{Key: models.Key, Break: 2 * time.Second, Answer: func(turn int) models.Answer {
				if turn == 0 {
					return models.Answer{PCM: ear.Sine(models.Rate, firstHz, 12*time.Second), Text: "What a day."}
				}
				return models.Answer{PCM: ear.Sine(models.Rate, secondHz, time.Second), Text: "Good bye.",
					Tool: &models.Tool{Name: "end_call", Arguments: `{}`}}
			}}
			url, stop := memnet.Serve(v.New(script))
			defer stop()
			d := modelDialer(t, v.Dialect, "ws"+strings.TrimPrefix(url, "http")+"/", optionsOf(&v), tools.Config{EndCall: true})
			b := startBridge(t, "", func(o *options) {
				o.dialer = d
				o.session.Reconnect = session.Reconnect{Times: 1, Pause: time.Second}
			})
			c := b.caller(t, "twilio", 20*time.Second)
			rate := c.Start.In.Rate
			c.Voice = append(make([]int16, 5*rate), ear.Sine(rate, 400, 600*time.Millisecond)...)
			c.Voice = append(c.Voice, make([]int16, 15*rate)...)
			r := call(t, c)
			b.ended(t, calls.AgentHangup)
			first, second := answers(r.Heard, r.Format.Rate)
			if d := time.Duration(len(first)) * time.Second / time.Duration(r.Format.Rate); d < 4500*time.Millisecond ||
				d > 5500*time.Millisecond || !ear.Hears(second, r.Format.Rate, secondHz) {
				t.Errorf("%v are heard of what is interrupted after 5 s", d)
			}
		})
	}
}

// TestHandedOverReturns: a call that comes back from a transfer comes back to the agent that it was handed over to.
func TestHandedOverReturns(t *testing.T) {
	t.Parallel()
	carriers(t, func(t *testing.T, spec *providers.Spec) {
		s, second := newScript(t)
		s.many = true
		first := scripted(t, 0, func(n int, c *sim.AgentConn) error {
			if n > 1 {
				t.Error("the first agent has the call again")
			}
			if err := c.Command(map[string]any{"type": "transfer", "to": "agent:b"}); err != nil {
				return err
			}
			return hear(c, func(map[string]any) {})
		})
		x := desk(t, spec, first, map[string]sim.Phone{busyLine: {Reject: providers.StatusBusy}},
			func(o *options, _ *sim.Exchange) {
				o.agents = map[string]agent.Dialer{"b": dialer(t, link.Config{URL: second})}
			})
		exchange := x.inboundCall(callerPhone(spec, 20*time.Second))
		a := <-s.conn
		if err := a.Command(map[string]any{"type": "transfer", "to": busyLine, "mode": "blind"}); err != nil {
			t.Fatal(err)
		}
		b := <-s.conn
		if b.Session != a.Session || !strings.Contains(string(b.Start), `"returned":"busy"`) {
			t.Errorf("the call comes back as %s", b.Start)
		}
		exchange.Hangup()
		exchange.Wait()
		x.settled(t)
	})
}

// TestHandedOverAndGone: an agent that hands the call over may leave at once; where the next one cannot be had the call
// ends with it, once what it has said is heard.
func TestHandedOverAndGone(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		to, when string
		late     time.Duration
		cause    calls.Cause
	}{
		"behind what it says": {"agent:b", "after_playback", time.Second, calls.AgentHangup},
		"at once":             {"agent:b", "now", time.Second, calls.AgentHangup},
		"to one that is away": {"agent:away", "after_playback", 0, calls.AgentHangup},
	} {
		run(t, name, func(t *testing.T) {
			first := scripted(t, 0, func(_ int, a *sim.AgentConn) error {
				if err := tones(a, firstHz, time.Second); err != nil {
					return err
				}
				return a.Command(map[string]any{"type": "transfer", "to": c.to, "when": c.when})
			})
			reached := false
			second := scripted(t, c.late, func(_ int, a *sim.AgentConn) error {
				reached = true
				if err := tones(a, secondHz, time.Second); err != nil {
					return err
				}
				return a.Command(map[string]string{"type": "hangup"})
			})
			b := startBridge(t, "", func(o *options) {
				o.dialer = dialer(t, link.Config{URL: first})
				o.agents = map[string]agent.Dialer{"b": dialer(t, link.Config{URL: second}),
					"away": dialer(t, link.Config{URL: "ws://127.0.0.1:70000/"})}
			})
			cl := b.caller(t, "twilio", 20*time.Second)
			cl.Voice = make([]int16, 20*cl.Start.In.Rate)
			r := call(t, cl)
			b.ended(t, c.cause)
			before, after := answers(r.Heard, r.Format.Rate)
			if d := time.Duration(len(before)) * time.Second / time.Duration(r.Format.Rate); d < 950*time.Millisecond {
				t.Errorf("of the first agent's second %v are heard", d)
			}
			if all := append(slices.Clone(before), after...); reached != (c.to == "agent:b") ||
				reached != ear.Hears(all[len(all)-r.Format.Rate/2:], r.Format.Rate, secondHz) {
				t.Errorf("the second agent is reached: %v", reached)
			}
		})
	}
}

// TestFormerAgent: what an agent wants that has handed the call over, and is told so, is not done any more.
func TestFormerAgent(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T) {
		first := scripted(t, 0, func(_ int, c *sim.AgentConn) error {
			if err := c.Command(map[string]any{"type": "transfer", "to": "agent:b"}); err != nil {
				return err
			}
			return hear(c, func(m map[string]any) {
				if m["type"] == "stop" {
					_ = tones(c, firstHz, time.Second) // fails where the connection has been closed
					_ = c.Command(map[string]any{"type": "hangup", "when": "now"})
				}
			})
		})
		second := scripted(t, 0, func(_ int, c *sim.AgentConn) error {
			time.Sleep(2 * time.Second)
			if err := tones(c, secondHz, time.Second); err != nil {
				return err
			}
			return c.Command(map[string]string{"type": "hangup"})
		})
		b, heard, rate := two(t, first, second, 10*time.Second)
		b.ended(t, calls.AgentHangup)
		if tone, _ := answers(heard, rate); !ear.Hears(tone, rate, secondHz) || ear.Hears(tone, rate, firstHz) {
			t.Error("the second agent is not heard, or the first is")
		}
	})
}

// TestFallbackAgent: the agent's fallback has the call that cannot reach it, or has lost it, and is told what was said
// before; nobody comes for that one.
func TestFallbackAgent(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		times  int // that the agent is dialled again
		there  int // how often it is
		hangup bool
		second bool // the fallback is there
		agent  string
		cause  calls.Cause
	}{
		"away":                         {0, 0, false, true, "b", calls.AgentHangup},
		"lost":                         {0, 1, false, true, "b", calls.AgentHangup},
		"lost, and not to be had then": {2, 1, false, true, "b", calls.AgentHangup},
		"back":                         {2, 2, false, true, "", calls.AgentHangup},
		"leaves":                       {2, 1, true, true, "", calls.AgentHangup},
		"both away":                    {0, 0, false, false, "", calls.AgentUnreachable},
		"lost, and the fallback away":  {0, 1, false, false, "", calls.AgentLost},
	} {
		run(t, name, func(t *testing.T) {
			first := scripted(t, 0, func(n int, a *sim.AgentConn) error {
				if n > c.there {
					a.Break()
					return nil
				}
				if err := tones(a, firstHz, time.Second); err != nil {
					return err
				}
				if n == 2 || c.hangup {
					return a.Command(map[string]string{"type": "hangup"})
				}
				time.Sleep(500 * time.Millisecond)
				a.Break()
				return nil
			})
			if c.there == 0 {
				first = "ws://127.0.0.1:70000/"
			}
			var told map[string]any
			second := "ws://127.0.0.1:70000/"
			if c.second {
				second = scripted(t, 0, func(_ int, a *sim.AgentConn) error {
					if err := json.Unmarshal(a.Start, &told); err != nil {
						return err
					}
					if err := tones(a, secondHz, time.Second); err != nil {
						return err
					}
					return a.Command(map[string]string{"type": "hangup"})
				})
			}
			b := startBridge(t, "", func(o *options) {
				o.dialer = dialer(t, link.Config{URL: first})
				o.agents = map[string]agent.Dialer{"b": dialer(t, link.Config{URL: second})}
				o.fallback = control.Fallback{Agent: "b"}
				o.session.Reconnect = session.Reconnect{Times: c.times, Pause: time.Second}
			})
			r := call(t, b.caller(t, "twilio", 20*time.Second))
			b.ended(t, c.cause)
			if list := b.Control().Calls().List(1, func(*calls.Call) bool { return true }); list[0].Agent != c.agent {
				t.Errorf("the call is of %q", list[0].Agent)
			}
			before, after := answers(r.Heard, r.Format.Rate)
			all := append(slices.Clone(before), after...)
			if c.agent == "b" != ear.Hears(all, r.Format.Rate, secondHz) || c.agent == "b" != (told != nil) {
				t.Errorf("the fallback is told %v", told)
			}
			if resume, is := told["resume"].(map[string]any); c.agent == "b" && (is != (c.there > 0) || is && resume["from"] == nil) {
				t.Errorf("the fallback is told %v", told)
			}
		})
	}
}
