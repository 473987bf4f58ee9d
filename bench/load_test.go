package bench

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"voicebridge/bench/process"
	"voicebridge/bench/yardstick"
	"voicebridge/providers"
	"voicebridge/providers/twilio"
	"voicebridge/providers/vonage"
)

func TestPick(t *testing.T) {
	shares := []Share[string]{{"a", 3}, {"b", 1}, {"c", 0}}
	got := map[string]int{}
	for i := range 400 {
		got[pick(shares, i)]++
	}
	if got["a"] < 295 || got["a"] > 305 || got["a"]+got["b"] != 400 {
		t.Errorf("%v, want 300 and 100", got)
	}
}

type count struct {
	n    atomic.Int32
	most int32
	done chan struct{}
}

func (c *count) tick(time.Duration) bool {
	if c.n.Add(1) == c.most {
		close(c.done)
		return false
	}
	return true
}

// TestPacer: each call is ticked for by the clock, until it does not want to be.
func TestPacer(t *testing.T) {
	begun := time.Now()
	p := newPacer(begun, func(time.Duration) {})
	var calls []*count
	for range 50 {
		c := &count{most: 11, done: make(chan struct{})}
		calls = append(calls, c)
		p.add(c)
	}
	for _, c := range calls {
		<-c.done
	}
	if d := time.Since(begun); d < 200*time.Millisecond {
		t.Errorf("11 ticks took %v", d)
	}
	p.close()
	for _, c := range calls {
		if n := c.n.Load(); n != c.most {
			t.Errorf("%d ticks, want %d", n, c.most)
		}
	}
}

func line(spec *providers.Spec) []Share[Line] { return []Share[Line]{{Line{spec, spec.Formats[0]}, 1}} }

func only(b Behaviour) []Share[Behaviour] { return []Share[Behaviour]{{b, 1}} }

// yardstick runs one, and gives its URL and its end.
func startYardstick(t *testing.T, run func(context.Context, net.Listener, string) error, agent string) (url string,
	stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx, l, agent) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return "ws://" + l.Addr().String() + "/", cancel
}

func generator(t *testing.T) *Generator {
	t.Helper()
	g, err := NewGenerator("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return g
}

// TestMeasure: the yardsticks carry calls of either carrier, and what they do is
// measured.
func TestMeasure(t *testing.T) {
	g := generator(t)
	for _, spec := range []*providers.Spec{twilio.Spec, vonage.Spec} {
		for name, run := range map[string]func(context.Context, net.Listener, string) error{"relay": yardstick.Relay,
			"floor": yardstick.Floor} {
			if name == "floor" {
				if l, err := net.Listen("tcp", "127.0.0.1:0"); err == nil {
					ctx, cancel := context.WithCancel(t.Context())
					cancel()
					if errors.Is(yardstick.Floor(ctx, l, ""), errors.ErrUnsupported) {
						continue
					}
				}
			}
			t.Run(spec.Name+" "+name, func(t *testing.T) {
				load := &Load{Lines: line(spec), Agents: only(EchoAgent), Calls: 5, Arrivals: 100,
					Settle: 200 * time.Millisecond, Duration: 2 * time.Second}
				url, _ := startYardstick(t, run, g.AgentURL(&load.Lines[0].Of))
				target := &Target{Name: name, URL: func(*providers.Spec) string { return url }}
				m, err := g.Measure(t.Context(), target, load)
				if err != nil {
					t.Fatal(err)
				}
				if m.Markers < 15 || m.Markers > 25 || m.FramesBack < 400 || m.FramesBack > 600 ||
					m.Dropped+m.Refused+m.Complaints != 0 {
					t.Errorf("%+v", m)
				}
				if m.Delay.P50 <= 0 || m.Delay.P50 > 1000 || m.Setup.Count != 5 || len(m.Timeline) == 0 ||
					len(m.DelayBars) == 0 {
					t.Errorf("%+v", m)
				}
			})
		}
	}
}

// TestBridgeFails: a bridge that refuses, hangs or dies is told of as such.
func TestBridgeFails(t *testing.T) {
	g := generator(t)
	load := &Load{Lines: line(twilio.Spec), Agents: only(EchoAgent), Calls: 30, Arrivals: 1000, Settle: 0,
		Duration: 20 * time.Second}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.NotFoundHandler()}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	measure := func(url, why string) {
		t.Helper()
		_, err := g.Measure(t.Context(), &Target{Name: "it", URL: func(*providers.Spec) string { return url }}, load)
		if !errors.Is(err, ErrBridge) || !strings.Contains(err.Error(), why) {
			t.Errorf("%v, want %q", err, why)
		}
	}
	measure("ws://"+l.Addr().String()+"/", "takes no calls: a call was not taken: WebSocket: dial: websocket: bad "+
		"handshake: 404 Not Found")

	hangs, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { hangs.Close() })
	before := dialTime
	dialTime = 300 * time.Millisecond
	measure("ws://"+hangs.Addr().String()+"/", "takes no calls")
	dialTime = before

	url, die := startYardstick(t, yardstick.Relay, g.AgentURL(&load.Lines[0].Of))
	load.Progress = func(what string, part float64) {
		if what == "measuring" {
			die()
		}
	}
	dies := make(chan struct{})
	go func() {
		defer close(dies)
		<-time.After(500 * time.Millisecond)
		for {
			g.mu.Lock()
			n := 0
			for _, c := range g.calls {
				c.conn.Close(1000, "") // the relay's process does not really die: its connections do
				n++
			}
			g.mu.Unlock()
			if n == 0 {
				return
			}
			<-time.After(50 * time.Millisecond)
		}
	}()
	measure(url, "has ended or refused")
	<-dies
}

// TestDescriptors: more calls than descriptors is said before anything begins.
func TestDescriptors(t *testing.T) {
	err := CheckDescriptors(1 << 29)
	if _, _, e := process.Descriptors(1); errors.Is(e, errors.ErrUnsupported) {
		t.Skip(e)
	}
	if err == nil || !strings.Contains(err.Error(), "may open") || !strings.Contains(err.Error(), "ulimit -n") {
		t.Errorf("%v", err)
	}
	if err := CheckDescriptors(10); err != nil {
		t.Error(err)
	}
}
