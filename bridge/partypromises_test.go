package bridge_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"voicebridge/codec"
	"voicebridge/providers"
	"voicebridge/providers/all"
	"voicebridge/sim"
	"voicebridge/sim/promises"
	"voicebridge/sim/stream"
	"voicebridge/wav"
)

// TestPromisesTransfer holds the same promises against calls that are transferred meanwhile: the
// caller hears music, a human comes who talks with both, or whom the agent only listens to, or the
// agent leaves. Beside them it checks what caller and human hear of each other.
func TestPromisesTransfer(t *testing.T) {
	histories(t, some(20), func(t *testing.T, seed uint64) { newThree(t, seed).run() })
}

// The voices can be told apart in any sum of two of them: the agent's has the low 11 bits, the
// human's the next 2, the caller's, as the music's, those above.
const (
	humanShift  = 11
	callerShift = 13
	agentMask   = 1<<humanShift - 1
	// agentMost is how much the agent can say, so that its numbers have room.
	agentMost = 20 * promises.Rate
)

// numbered is a voice of symbols, one each 20 ms, of which none comes twice in a row.
func numbered(rng *rand.Rand, symbols []int16, shift int, length time.Duration) []int16 {
	pcm := make([]int16, 0, length*promises.Rate/time.Second)
	last := -1
	for range length / codec.FrameTime {
		next := rng.IntN(len(symbols))
		if next == last {
			next = (next + 1) % len(symbols)
		}
		last = next
		for range promises.Rate / 50 {
			pcm = append(pcm, symbols[next]<<shift)
		}
	}
	return pcm
}

// symbol is one of those that are heard one after the other.
type symbol struct {
	value int16
	at    time.Time
}

// symbols are those in what was heard, without the silence between them.
func symbols(began time.Time, pcm []int16, of func(v int16) int16) (all []symbol) {
	last := int16(0)
	for i, v := range pcm {
		if s := of(v); s != last {
			if last = s; s != 0 {
				all = append(all, symbol{s, began.Add(time.Duration(i) * time.Second / promises.Rate)})
			}
		}
	}
	return all
}

// three is a call of an agent, its caller and a human.
type three struct {
	t     *testing.T
	seed  uint64
	rng   *rand.Rand
	spec  *providers.Spec
	m     promises.Model
	human sim.Phone
	mode  string // of the transfer
	stays string // what the agent does
	done  []string
}

func newThree(t *testing.T, seed uint64) *three {
	h := &three{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 17))}
	// Telnyx' order of bytes is found out by what sounds natural, which these voices do not.
	carrier := []string{"vonage", "asterisk", "plivo", "vobiz"}[h.rng.IntN(4)]
	h.spec = all.Lookup(carrier)
	h.mode = []string{"conference", "attended"}[h.rng.IntN(2)]
	h.stays = []string{"stay", "stay", "listen", "leave"}[h.rng.IntN(4)]
	h.m.Away = time.Duration(h.rng.IntN(3)*h.rng.IntN(100)) * time.Millisecond / 2
	h.human = sim.Phone{Ring: time.Duration(100+h.rng.IntN(2000)) * time.Millisecond, Press: '1',
		After:  time.Duration(100+h.rng.IntN(500)) * time.Millisecond,
		Voice:  numbered(h.rng, []int16{1, 2, 3}, humanShift, time.Minute),
		Length: time.Duration(3000+h.rng.IntN(20000)) * time.Millisecond}
	if h.rng.IntN(6) == 0 {
		h.human.Reject = providers.StatusBusy
	}
	return h
}

func (h *three) run() {
	s := &script{t: h.t, conn: make(chan *sim.AgentConn, 1), said: make(chan map[string]any, 2000)}
	var once sync.Once
	url := startAgent(h.t, func(ctx context.Context, c *sim.AgentConn) (err error) {
		once.Do(func() { err = s.talk(ctx, c) })
		return errors.Join(err, c.Command(map[string]any{"type": "hangup"})) // it came back: that is all
	})
	music := numbered(h.rng, []int16{-1, 1}, callerShift, 2*time.Second)
	x := deskIn(h.t, h.spec, exactFormat(h.spec), url+"?in_rate=16000&out_rate=16000", map[string]sim.Phone{human: h.human},
		func(o *options, exchange *sim.Exchange) {
			o.transfers.Music = wav.NewMusic(music, promises.Rate)
			exchange.Dialer.Net = farNet(func() time.Duration { return h.m.Away }, func() time.Duration { return h.m.Away })
		})
	caller := x.inboundCall(sim.Phone{Length: 3 * time.Minute,
		Voice: numbered(h.rng, []int16{-4, -3, -2, -1, 1, 2, 3}, callerShift, 3*time.Minute)})
	a := <-s.conn
	tells := listenTo(s)
	h.talk(a)
	out := caller.Wait()
	told := <-tells
	var leg *stream.Result
	if c := x.legTo(human); c != nil {
		if o := c.Wait(); len(o.Streams) > 0 {
			leg = o.Streams[len(o.Streams)-1]
		}
	}
	h.settled(x)
	h.check(out.Streams[0], leg, codec.L16LE.AppendDecode(nil, s.pcm), told)
}

// talk is what the agent does.
func (h *three) talk(a *sim.AgentConn) {
	x := &actor{rng: h.rng, m: &h.m, conn: a, left: agentMost, frames: 100, rest: 4000}
	transfer := map[string]any{"type": "transfer", "to": human, "mode": h.mode, "agent": h.stays}
	if h.rng.IntN(2) == 0 {
		transfer["hold"] = "music"
	}
	if h.rng.IntN(3) == 0 {
		transfer["when"] = "now"
	}
	actions := 6 + h.rng.IntN(14)
	at := h.rng.IntN(actions)
	for i := 0; i < actions && !x.gone; i++ {
		if i == at {
			h.m.Transfer()
			x.do(fmt.Sprint("transfer ", transfer), transfer)
		}
		switch what := h.rng.IntN(12); what {
		case 9:
			x.act(4, "")
		case 10:
			x.mark(strconv.Itoa(i))
		default:
			x.act(what, strconv.Itoa(i))
		}
	}
	x.hangup()
	h.done = x.done
}

// settled checks that nobody is left, and that the carrier was asked for nothing strange. A human
// who comes when the call is over is not let in.
func (h *three) settled(x *testbed) {
	x.exchange.Wait()
	if rooms := x.exchange.Rooms(); len(rooms) > 0 {
		h.errorf("somebody is left in a room: %v", rooms)
	}
	for _, c := range x.exchange.Calls() {
		if out := c.Wait(); !out.Call.Status.Final() || out.Fault != nil &&
			(out.Call.To != human || !strings.Contains(out.Fault.Error(), "503")) {
			h.errorf("%+v: %v", out.Call, out.Fault)
		}
	}
}

// check holds what was heard against what was said.
func (h *three) check(caller, leg *stream.Result, agent []int16, told []told) {
	h.m.Began = caller.Began
	for _, x := range told {
		h.m.Told(x.msg, x.at)
	}
	if caller.Format != exactFormat(h.spec) {
		h.t.Fatalf("the stream is of %v", caller.Format)
	}
	pcm := make([]int16, len(caller.Heard))
	for i, v := range caller.Heard {
		pcm[i] = v & agentMask
	}
	for _, f := range h.m.Check(pcm, "") {
		h.errorf("%s", f)
	}
	if leg == nil || h.stays == "leave" {
		return
	}
	humans := func(v int16) int16 { return v >> humanShift & 3 }
	callers := func(v int16) int16 { return v >> callerShift }
	said := symbols(leg.Began, leg.Said, humans)
	h.passes("the human to the caller", said, symbols(caller.Began, caller.Heard, humans))
	h.passes("the human to the agent", said, symbols(caller.Began, agent, humans))
	said = symbols(caller.Began, caller.Said, callers)
	h.passes("the caller to the human", said, symbols(leg.Began, leg.Heard, callers))
	h.passes("the caller to the agent", said, symbols(caller.Began, agent, callers))
	h.overheard(leg, told)
}

// overheard checks what the human hears of the agent: in order, and nothing that was taken back.
func (h *three) overheard(leg *stream.Result, told []told) {
	last := int16(0)
	for i, v := range leg.Heard {
		place := v & agentMask
		if place == 0 {
			continue
		}
		at := leg.Began.Add(time.Duration(i) * time.Second / promises.Rate)
		if place < last {
			h.errorf("the human hears %d ms of the agent's after %d ms", place*10, last*10)
			return
		}
		last = place
		for _, x := range told {
			if sent, _ := x.msg["sent_ms"].(float64); x.msg["type"] == "cleared" && int(place)*10 < int(sent) &&
				at.After(x.at.Add(h.m.Away+lateMost)) {
				h.errorf("the human hears %d ms of the agent's at %v, which was taken back at %v", place*10,
					at.Sub(leg.Began), x.at.Sub(leg.Began))
				return
			}
		}
	}
}

// lateMost is how late somebody may be heard who never pauses, beside the two ways to the bridge
// and from it: 200 ms that wait, and what the carrier holds.
const lateMost = 240 * time.Millisecond

// passes checks that what is heard is what is said, whole, in order and in time.
func (h *three) passes(who string, said, heard []symbol) {
	if len(heard) < 4 { // the first and the last may be cut
		return
	}
	heard = heard[1 : len(heard)-1]
	problem := fmt.Sprintf("%d pieces are heard which were not said one after the other", len(heard))
	for first := range said {
		rest := said[first:]
		if len(rest) < len(heard) || !slices.EqualFunc(heard, rest[:len(heard)], func(a, b symbol) bool {
			return a.value == b.value
		}) {
			continue
		}
		late := -1
		for i := range heard {
			if d := heard[i].at.Sub(rest[i].at); late < 0 && (d > lateMost+2*h.m.Away || d < -codec.FrameTime) {
				late = i
			}
		}
		if late < 0 {
			return
		}
		problem = fmt.Sprintf("%v late at %d of %d", heard[late].at.Sub(rest[late].at), late, len(heard))
	}
	h.errorf("%s: %s", who, problem)
}

func (h *three) errorf(format string, args ...any) {
	h.t.Errorf("seed %d, %s %v away, %s, %s, %s %v: %s\nafter %q", h.seed, h.spec.Name, h.m.Away, h.mode, h.stays,
		h.human.Reject, h.human.Length, fmt.Sprintf(format, args...), h.done)
}
