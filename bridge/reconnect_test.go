package bridge_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"voicebridge/agent"
	"voicebridge/agent/link"
	"voicebridge/agent/tools"
	"voicebridge/calls"
	"voicebridge/session"
	"voicebridge/sim"
	"voicebridge/sim/ear"
	"voicebridge/sim/memnet"
	"voicebridge/sim/models"
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

// TestRenewed: a model that says that its connection ends soon gets a new one, with its handle, once nobody speaks;
// the old one is closed in good order, and the caller hears nothing of it.
func TestRenewed(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T) {
		var mu sync.Mutex
		var said []string
		script := &models.Script{GoAway: time.Second, Answer: func(turn int) models.Answer {
			if turn == 0 {
				return models.Answer{PCM: ear.Sine(models.Rate, firstHz, 3*time.Second), Text: "What a day."}
			}
			return models.Answer{PCM: ear.Sine(models.Rate, secondHz, time.Second), Text: "Good bye.",
				Tool: &models.Tool{Name: "end_call", Arguments: `{}`}}
		}, Note: func(what string, m any) {
			mu.Lock()
			defer mu.Unlock()
			if what == "setup" || what == "closed" {
				said = append(said, what+" "+fmt.Sprint(m))
			}
		}}
		model := models.Gemini{Script: script}
		url, stop := memnet.Serve(model)
		defer stop()
		d := modelDialer(t, "gemini", "ws"+strings.TrimPrefix(url, "http")+"/",
			map[string]any{"model": "m", "greeting": "Greet."}, tools.Config{EndCall: true})
		b := startBridge(t, "", func(o *options) { o.dialer = d })
		c := b.caller(t, "twilio", 20*time.Second)
		rate := c.Start.In.Rate
		c.Voice = append(make([]int16, 6*rate), ear.Sine(rate, 400, 600*time.Millisecond)...)
		c.Voice = append(c.Voice, make([]int16, 12*rate)...)
		r := call(t, c)
		b.ended(t, calls.AgentHangup)
		first, second := answers(r.Heard, r.Format.Rate)
		if whole := time.Duration(len(first)) * time.Second / time.Duration(r.Format.Rate); whole < 2950*time.Millisecond ||
			whole > 3050*time.Millisecond || clicks(first) > 0 || !ear.Hears(second, r.Format.Rate, secondHz) {
			t.Errorf("of 3 s %v are heard, with %d clicks", whole, clicks(first))
		}
		mu.Lock()
		defer mu.Unlock()
		if len(said) != 4 || !strings.HasPrefix(said[1], "setup") || !strings.Contains(said[1], "handle:h-1") ||
			!strings.HasPrefix(said[2], "closed") || len(script.Complaints()) > 0 {
			t.Errorf("%q, complaints %v", said, script.Complaints())
		}
	})
}

// TestHandOver: an agent hands the call over to another one, of another dialect, which knows what was said and is
// heard next. Where that one cannot be had the first goes on.
func TestHandOver(t *testing.T) {
	t.Parallel()
	run(t, "to a model", func(t *testing.T) { handOver(t, "agent:model") })
	run(t, "to one that is away", func(t *testing.T) { handOver(t, "agent:away") })
	run(t, "to none", func(t *testing.T) { handOver(t, "agent:nobody") })
}

func handOver(t *testing.T, to string) {
	var mu sync.Mutex
	var told []map[string]any
	var said []string
	agents := &sim.Agent{Log: slog.New(slog.DiscardHandler), Talk: func(ctx context.Context, c *sim.AgentConn) error {
		for _, m := range []map[string]any{
			{"type": "transcript", "role": "agent", "text": "I connect you.", "start_ms": 0, "end_ms": 1000},
			{"type": "transfer", "id": "t1", "to": to, "context": map[string]string{"summary": "Refund"}},
		} {
			if m["type"] == "transfer" {
				if err := c.Audio(c.Speaks.Encoding.AppendEncode(nil, ear.Sine(c.Speaks.Rate, firstHz, time.Second))); err != nil {
					return err
				}
			}
			if err := c.Command(m); err != nil {
				return err
			}
		}
		for {
			binary, data, err := c.Read()
			if err != nil {
				return nil
			}
			var m map[string]any
			if binary || json.Unmarshal(data, &m) != nil {
				continue
			}
			mu.Lock()
			told = append(told, m)
			mu.Unlock()
			failed := m["type"] == "error" || m["type"] == "transfer_status" && m["state"] == "failed"
			if failed {
				if err := c.Command(map[string]string{"type": "hangup"}); err != nil {
					return err
				}
			}
		}
	}}
	url, stop := memnet.Serve(agents)
	defer stop()
	script := &models.Script{Answer: func(int) models.Answer {
		return models.Answer{PCM: ear.Sine(models.Rate, secondHz, time.Second), Text: "Refunds, good day.",
			Tool: &models.Tool{Name: "end_call", Arguments: `{}`}}
	}, Note: func(what string, m any) {
		mu.Lock()
		defer mu.Unlock()
		if what == "conversation.item.create" {
			said = append(said, fmt.Sprint(m))
		}
	}}
	model := models.OpenAI{Script: script}
	modelURL, stopModel := memnet.Serve(model)
	defer stopModel()
	ws := func(url string) string { return "ws" + strings.TrimPrefix(url, "http") + "/" }
	b := startBridge(t, "", func(o *options) {
		o.dialer = dialer(t, link.Config{URL: ws(url)})
		o.agents = map[string]agent.Dialer{
			"model": modelDialer(t, "openai", ws(modelURL), map[string]any{"model": "m"}, tools.Config{EndCall: true}),
			"away":  dialer(t, link.Config{URL: "ws://127.0.0.1:70000/"}),
		}
	})
	c := b.caller(t, "twilio", 20*time.Second)
	c.Voice = make([]int16, 20*c.Start.In.Rate) // who speaks would interrupt the model
	r := call(t, c)
	b.ended(t, calls.AgentHangup)
	first, _ := answers(r.Heard, r.Format.Rate)
	if d := time.Duration(len(first)) * time.Second / time.Duration(r.Format.Rate); d < 950*time.Millisecond {
		t.Errorf("of its second %v are heard", d)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(script.Complaints()) > 0 {
		t.Errorf("the model complains: %v", script.Complaints())
	}
	last := told[len(told)-1]
	if to != "agent:model" {
		if last["type"] != "stop" || last["reason"] != "agent_hangup" || len(said) > 0 {
			t.Errorf("the agent is told %v, the model %v", told, said)
		}
		return
	}
	all := fmt.Sprint(said)
	if last["type"] != "stop" || last["reason"] != "transferred" || !strings.Contains(all, "I connect you.") ||
		!strings.Contains(all, "hands on: Refund") || !ear.Hears(first[len(first)-r.Format.Rate/2:], r.Format.Rate, secondHz) {
		t.Errorf("the agent is told %v, the model %v", told, said)
	}
	if list := b.Control().Calls().List(1, func(*calls.Call) bool { return true }); list[0].Agent != "model" {
		t.Errorf("the call is of %q", list[0].Agent)
	}
}
