package bridge_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"voicebridge/calls"
	"voicebridge/codec"
	"voicebridge/providers"
	"voicebridge/sim"
	"voicebridge/sim/ear"
	"voicebridge/sim/memnet"
	"voicebridge/sim/promises"
	"voicebridge/sim/stream"
)

// TestPromises holds what is written in docs/agent-protocol.md against random histories of
// agents: what the caller hears, and what the agent is told.
func TestPromises(t *testing.T) {
	histories(t, some(100), history)
}

// histories runs many of them: so many, or n in 100 of as many as VOICEBRIDGE_HISTORIES says,
// of which it then tells how many are done, from the one of VOICEBRIDGE_SEED on.
func histories(t *testing.T, n int, history func(t *testing.T, seed uint64)) {
	first, _ := strconv.Atoi(os.Getenv("VOICEBRIDGE_SEED")) // 0 where none is set
	var done atomic.Int64
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
			for seed := first - first%parts + part; seed < n && !t.Failed(); seed += parts {
				virtual(t, func(t *testing.T) { history(t, uint64(seed)) })
				if n := done.Add(1); n%1000 == 0 {
					fmt.Fprintln(os.Stderr, t.Name(), n, "histories")
				}
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
	c.Start = start(c.Spec, exactFormat(c.Spec))
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
	x := actor{rng: rng, m: &m, conn: a, left: math.MaxInt, frames: 150, rest: 2500}
	for i := range 4 + rng.IntN(16) {
		switch what := rng.IntN(12); {
		case what < 9:
			x.act(what, strconv.Itoa(i))
		case what < 11:
			x.mark(strconv.Itoa(i))
		case c.Spec.Abilities.SendDigits: // otherwise they would be tones in what is heard
			digits := "0123456789*#"[:1+rng.IntN(11)]
			m.Dial(digits)
			x.do("dial "+digits, map[string]any{"type": "dtmf", "digits": digits})
		}
	}
	x.mark("last")
	x.hangup()
	if x.gone {
		t.Fatalf("seed %d: the agent's connection ended amid %q", seed, x.done)
	}
	r := wait()
	b.ended(t, calls.AgentHangup)
	m.Began = r.Began
	for _, told := range <-tells {
		m.Told(told.msg, told.at)
	}
	pressed := ""
	for _, d := range c.Digits {
		pressed += string(d.Key)
	}
	for _, f := range m.Check(r.Heard, pressed) {
		t.Errorf("seed %d, %s %v away, with a buffer of %v, slow by %d ppm, stalled for %v: %s\nafter %q", seed, carrier,
			m.Away, c.Buffer, c.Slow, stall, f, x.done)
	}
}

// exactFormat is one in which no sample changes.
func exactFormat(spec *providers.Spec) codec.Format {
	return spec.Formats[slices.IndexFunc(spec.Formats, func(f codec.Format) bool {
		return f.Rate == promises.Rate && (f.Encoding == codec.L16LE || f.Encoding == codec.L16BE)
	})]
}

// actor is an agent that does what it likes, and has the model note it.
type actor struct {
	rng    *rand.Rand
	m      *promises.Model
	conn   *sim.AgentConn
	left   int // samples that it may still say
	frames int // that it says at once, at the most
	rest   int // for which it waits, at the most, in ms
	done   []string
	paused bool
	gone   bool // its connection has ended
}

func (x *actor) do(what string, command map[string]any) {
	x.done = append(x.done, what)
	x.gone = x.conn.Command(command) != nil || x.gone
}

func (x *actor) say(samples int) {
	if samples = min(samples, x.left); samples > 0 {
		x.done = append(x.done, fmt.Sprintf("say %d samples", samples))
		x.left -= samples
		x.gone = x.conn.Audio(x.m.Say(samples)) != nil || x.gone
	}
}

func (x *actor) mark(name string) {
	x.m.Mark(name)
	x.do("mark "+name, map[string]any{"type": "mark", "name": name})
}

func (x *actor) hangup() {
	x.m.Hangup()
	x.do("hangup", map[string]any{"type": "hangup"})
}

// act does one of nine things. name is of a mark.
func (x *actor) act(what int, name string) {
	switch what {
	case 0, 1:
		x.say(320 * (1 + x.rng.IntN(x.frames)))
	case 2:
		x.say(1 + x.rng.IntN(20000)) // any length
	case 3: // a stream of pieces
		for range 1 + x.rng.IntN(40) {
			x.say(320)
			time.Sleep(time.Duration(15+x.rng.IntN(10)) * time.Millisecond)
		}
	case 4, 5:
		d := time.Duration(x.rng.IntN(x.rest)) * time.Millisecond
		x.done = append(x.done, d.String())
		time.Sleep(d)
	case 6:
		x.mark(name)
	case 7:
		x.m.Clear()
		x.paused = false
		x.do("clear", map[string]any{"type": "clear"})
	case 8:
		command := map[bool]string{true: "unpause", false: "pause"}[x.paused]
		x.paused = !x.paused
		x.do(command, map[string]any{"type": command})
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
