package bridge_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"voicebridge/calls"
	"voicebridge/codec"
	"voicebridge/providers"
	"voicebridge/sim/ear"
	"voicebridge/sim/memnet"
	"voicebridge/sim/promises"
	"voicebridge/sim/stream"
)

// TestPromises holds what is written in docs/agent-protocol.md against random histories of
// agents: what the caller hears, and what the agent is told.
func TestPromises(t *testing.T) {
	histories(t, 100, history)
}

// histories runs many of them: so many, or n in 100 of as many as VOICEBRIDGE_HISTORIES says.
func histories(t *testing.T, n int, history func(t *testing.T, seed uint64)) {
	if s := os.Getenv("VOICEBRIDGE_HISTORIES"); s != "" {
		all, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		n = all * n / 100
	}
	const parts = 4
	for part := range parts {
		t.Run(strconv.Itoa(part), func(t *testing.T) {
			t.Parallel()
			for seed := part; seed < n && !t.Failed(); seed += parts {
				virtual(t, func(t *testing.T) { history(t, uint64(seed)) })
			}
		})
	}
}

// history is one call, of an agent that does what it likes.
func history(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 16))
	// they have a format that is exact
	carrier := []string{"vonage", "asterisk", "plivo", "vobiz", "telnyx"}[rng.IntN(5)]
	s, url := newScript(t)
	b := startBridge(t, url+"?in_rate=16000&out_rate=16000", nil)
	c := b.caller(t, carrier, 5*time.Minute)
	m := promises.Model{Away: time.Duration(rng.IntN(3)) * time.Duration(rng.IntN(200)) * time.Millisecond / 2}
	stalled := time.Now().Add(time.Duration(rng.IntN(20000)) * time.Millisecond)
	stall := time.Duration(rng.IntN(3)) * time.Duration(rng.IntN(2000)) * time.Millisecond
	far(c, func() time.Duration { // what the caller's side sends is held up once
		return m.Away + max(0, min(stall, stall-time.Since(stalled).Abs()))
	}, func() time.Duration { return m.Away })
	c.Buffer = time.Duration(rng.IntN(3)*rng.IntN(61)) * time.Millisecond
	c.Slow = rng.IntN(401) - 200
	m.Slow = c.Slow
	for at := time.Duration(0); rng.IntN(3) > 0; {
		at += time.Duration(300+rng.IntN(9000)) * time.Millisecond
		c.Digits = append(c.Digits, stream.Digit{At: at, Key: "0123456789*#"[rng.IntN(12)]})
	}
	as := slices.IndexFunc(c.Spec.Formats, func(f codec.Format) bool {
		return f.Rate == promises.Rate && (f.Encoding == codec.L16LE || f.Encoding == codec.L16BE)
	})
	c.Start = start(c.Spec, c.Spec.Formats[as])
	var err error
	if c.Voice, err = ear.Speech(promises.Rate); err != nil {
		t.Fatal(err)
	}
	c.Events = func(at time.Duration, cmd *providers.Command) {
		if cmd.Kind == providers.CommandDigits {
			m.Dialled(cmd.Digits, at*1e6/time.Duration(1e6+c.Slow))
		}
	}
	wait := background(t, c)
	a := <-s.conn
	tells := listenTo(s)
	var done []string
	do := func(what string, command map[string]any) {
		done = append(done, what)
		if err := a.Command(command); err != nil {
			t.Fatal(err)
		}
	}
	say := func(samples int) {
		done = append(done, fmt.Sprintf("say %d samples", samples))
		if err := a.Audio(m.Say(samples)); err != nil {
			t.Fatal(err)
		}
	}
	paused := false
	for i := range 4 + rng.IntN(16) {
		switch rng.IntN(12) {
		case 0, 1:
			say(320 * (1 + rng.IntN(150)))
		case 2:
			say(1 + rng.IntN(20000)) // any length
		case 3: // a stream of pieces
			for range 1 + rng.IntN(40) {
				say(320)
				time.Sleep(time.Duration(15+rng.IntN(10)) * time.Millisecond)
			}
		case 4, 5:
			d := time.Duration(rng.IntN(2500)) * time.Millisecond
			done = append(done, d.String())
			time.Sleep(d)
		case 6, 9, 10:
			name := strconv.Itoa(i)
			m.Mark(name)
			do("mark "+name, map[string]any{"type": "mark", "name": name})
		case 11:
			if !c.Spec.Abilities.SendDigits {
				break // they would be tones in what is heard
			}
			digits := "0123456789*#"[:1+rng.IntN(11)]
			m.Dial(digits)
			do("dial "+digits, map[string]any{"type": "dtmf", "digits": digits})
		case 7:
			m.Clear()
			paused = false
			do("clear", map[string]any{"type": "clear"})
		case 8:
			what := "pause"
			if paused {
				what = "unpause"
			}
			paused = !paused
			do(what, map[string]any{"type": what})
		}
	}
	m.Mark("last")
	do("mark last", map[string]any{"type": "mark", "name": "last"})
	m.Hangup()
	do("hangup", map[string]any{"type": "hangup"})
	r := wait()
	b.ended(t, calls.AgentHangup)
	m.Began = r.Began
	for _, x := range <-tells {
		m.Told(x.msg, x.at)
	}
	pressed := ""
	for _, d := range c.Digits {
		pressed += string(d.Key)
	}
	for _, f := range m.Check(r.Heard, pressed) {
		t.Errorf("seed %d, %s %v away, with a buffer of %v, slow by %d ppm, stalled for %v: %s\nafter %q", seed, carrier,
			m.Away, c.Buffer, c.Slow, stall, f, done)
	}
}

// told is a message of the bridge's to the agent.
type told struct {
	msg map[string]any
	at  time.Time
}

// listenTo keeps what the agent is told until its connection ends.
func listenTo(s *script) <-chan []told {
	tells := make(chan []told, 1)
	go func() {
		var all []told
		for msg := range s.said {
			all = append(all, told{msg, time.Now()})
		}
		tells <- all
	}()
	return tells
}

// far puts a caller's connection that far away.
func far(c *stream.Caller, there, back func() time.Duration) {
	c.Dialer.Net = farNet(there, back)
}

func farNet(there, back func() time.Duration) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := memnet.Dial(ctx, network, address)
		if err == nil {
			memnet.Far(conn, there, back)
		}
		return conn, err
	}
}
