package audio

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"voicebridge/agent"
	"voicebridge/codec"
)

// listen takes all that is due for the agent.
func listen(in *Inbound, now time.Duration) (audio []byte, gaps []time.Duration, wait time.Duration) {
	for {
		var ev agent.Event
		ok, wait := in.Next(now, nil, &ev)
		switch {
		case !ok:
			return audio, gaps, wait
		case ev.Kind == agent.EventGap:
			gaps = append(gaps, ev.Duration)
		default:
			audio = append(audio, ev.Audio...)
		}
	}
}

func newTestInbound(stats *Stats) *Inbound {
	f := codec.Format{Encoding: codec.L16LE, Rate: 8000}
	in := NewInbound(f, f, 400*ms, stats)
	return &in
}

// TestInboundFrames: whatever the carrier's messages are cut into, the agent
// gets frames of 20 ms at once.
func TestInboundFrames(t *testing.T) {
	var stats Stats
	in := newTestInbound(&stats)
	want := ramp(1, time.Second)
	var got []byte
	now := time.Duration(0)
	for rest := want; len(rest) > 0; now += ms {
		n := min(18, len(rest))
		in.Push(now, rest[:n], 0)
		rest = rest[n:]
		audio, _, _ := listen(in, now)
		if len(audio)%320 != 0 {
			t.Fatalf("%d bytes are no whole frames", len(audio))
		}
		got = append(got, audio...)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%d bytes, want %d as they were", len(got), len(want))
	}
	if in.sent != time.Second || stats.AgentFrames != 50 {
		t.Errorf("sent %v in %d frames", in.sent, stats.AgentFrames)
	}
}

// TestSlowAgent: the oldest audio is dropped, counted and reported, and the
// agent's clock goes on over it.
func TestSlowAgent(t *testing.T) {
	var stats Stats
	in := newTestInbound(&stats)
	for i := range 50 { // a second, while the agent takes nothing
		in.Push(time.Duration(i)*codec.FrameTime, ramp(160*i, codec.FrameTime), 0)
	}
	audio, gaps, _ := listen(in, time.Second)
	if !bytes.Equal(audio, ramp(160*30, 400*ms)) {
		t.Errorf("%d bytes, want the newest 400 ms", len(audio))
	}
	if len(gaps) != 1 || gaps[0] != 600*ms || stats.Dropped != 600*ms || in.sent != time.Second {
		t.Errorf("gaps %v, dropped %v, clock %v", gaps, stats.Dropped, in.sent)
	}
}

// TestSilenceIsFilled: an agent that counts samples keeps the time although the
// carrier sends nothing.
func TestSilenceIsFilled(t *testing.T) {
	var stats Stats
	in := newTestInbound(&stats)
	now := codec.FrameTime
	in.Push(now, ramp(1, codec.FrameTime), 0)
	listen(in, now)
	for end := now + 5*time.Second; now < end; {
		_, _, wait := listen(in, now)
		if wait <= now {
			t.Fatalf("at %v it asks to wait until %v", now, wait)
		}
		now = wait
	}
	if late := now - in.sent; late < 0 || late > fillAfter+codec.FrameTime {
		t.Errorf("after %v the agent has %v", now, in.sent)
	}
	if stats.Filled < 4700*ms {
		t.Errorf("%v of silence counted", stats.Filled)
	}
}

// TestLateIsNotLost: a stall of a second that ends in a burst. Everything
// arrives, and the clock comes back to the time by leaving out silent frames.
func TestLateIsNotLost(t *testing.T) {
	var stats Stats
	in := newTestInbound(&stats)
	loud := bytes.Repeat([]byte{0, 0x40}, 160)
	now := time.Duration(0)
	heard := 0
	take := func() {
		audio, _, _ := listen(in, now)
		heard += bytes.Count(audio, []byte{0, 0x40})
	}
	for range 10 {
		now += codec.FrameTime
		in.Push(now, loud, 0)
		take()
	}
	for range 50 {
		now += codec.FrameTime
		take()
	}
	for range 50 { // what was late
		in.Push(now, loud, 0)
		take()
	}
	for range 10 {
		now += codec.FrameTime
		in.Push(now, loud, 0)
		take()
	}
	if heard != 70*160 {
		t.Errorf("%d loud samples heard, want all %d", heard, 70*160)
	}
	if over := in.sent - now; over < 700*ms {
		t.Fatalf("the clock is only %v ahead: nothing to repay", over)
	}
	for range 60 { // the caller is silent
		now += codec.FrameTime
		in.Push(now, make([]byte, 320), 0)
		take()
	}
	if over := in.sent - now; over > 2*codec.FrameTime {
		t.Errorf("the clock is still %v ahead", over)
	}
}

// TestMissing: audio that the carrier says is lost is replaced by silence.
func TestMissing(t *testing.T) {
	var stats Stats
	in := newTestInbound(&stats)
	in.Push(20*ms, ramp(1, codec.FrameTime), 0)
	in.Push(80*ms, ramp(1, codec.FrameTime), 2)
	audio, _, _ := listen(in, 80*ms)
	want := append(append(ramp(1, codec.FrameTime), make([]byte, 640)...), ramp(1, codec.FrameTime)...)
	if !bytes.Equal(audio, want) || stats.Missing != 2 {
		t.Errorf("%d bytes, %d missing", len(audio), stats.Missing)
	}
}

// TestMissingIsBounded: what the carrier says is lost is not filled in twice,
// nor beyond the time that has passed, and is no fault of the agent's.
func TestMissingIsBounded(t *testing.T) {
	for _, tt := range []struct {
		hole    time.Duration
		missing int
	}{{time.Second, 49}, {600 * ms, 29}, {100 * ms, 4}, {0, 1 << 30}, {300 * ms, 1 << 30}} {
		var stats Stats
		in := newTestInbound(&stats)
		now := time.Duration(0)
		play := func(n, missing int) {
			for i := range n {
				now += codec.FrameTime
				in.Push(now, ramp(1, codec.FrameTime), missing*(1-min(i, 1)))
				listen(in, now)
			}
		}
		play(50, 0)
		for end := now + tt.hole; now < end; {
			now += codec.FrameTime
			if now < end {
				listen(in, now)
			}
		}
		if tt.hole > 0 {
			now -= codec.FrameTime
		}
		play(50, tt.missing)
		if d := now - in.sent; d < -codec.FrameTime || d > fillAfter+codec.FrameTime || stats.Dropped != 0 {
			t.Errorf("%+v: at %v the agent has been given %v, dropped %v", tt, now, in.sent, stats.Dropped)
		}
	}
	var stats Stats
	in := newTestInbound(&stats)
	in.Push(20*ms, ramp(1, codec.FrameTime), 0)
	in.Push(time.Hour, make([]byte, 64<<10), 1<<30) // a huge message with a wild counter
	if n := cap(in.queue.buf); n > 256<<10 {
		t.Errorf("a buffer of %d bytes", n)
	}
}

// TestClock: the agent's clock is right within 200 ms, whatever the carrier loses, and what is
// missing in it has been filled in or told.
func TestClock(t *testing.T) {
	loud := bytes.Repeat([]byte{0, 0x40}, 160)
	for name, lose := range map[string]func(frame int) (lost, numbered bool){
		"60 ms of each second":   func(i int) (bool, bool) { return i%50 < 3, false },
		"180 ms of 5 s":          func(i int) (bool, bool) { return i%250 < 9, false },
		"a second, with numbers": func(i int) (bool, bool) { return i >= 500 && i < 550, true },
		"4 s, with numbers":      func(i int) (bool, bool) { return i >= 500 && i < 700, true },
		"4 s":                    func(i int) (bool, bool) { return i >= 500 && i < 700, false },
	} {
		for _, stuck := range []bool{false, true} {
			var stats Stats
			in := newTestInbound(&stats)
			now, missing := time.Duration(0), 0
			var told time.Duration
			for i := range 50 * 120 {
				now += codec.FrameTime
				if lost, numbered := lose(i); lost {
					missing += btoi(numbered)
				} else {
					in.Push(now, loud, missing)
					missing = 0
				}
				if stuck && i > 450 && i < 800 { // the agent takes nothing
					continue
				}
				_, gaps, _ := listen(in, now)
				for _, g := range gaps {
					told += g
				}
				if off := now - in.zero - in.sent; off < -200*ms || off > 200*ms+codec.FrameTime && now > 2*time.Second &&
					in.last == now && (i < 500 || i > 760) {
					t.Fatalf("%s, stuck %v: at %v the clock is %v behind", name, stuck, now, off)
				}
			}
			audio := time.Duration(stats.AgentFrames) * codec.FrameTime
			if off := now - in.zero - audio - told; off < -200*ms || off > 220*ms {
				t.Errorf("%s, stuck %v: %v of %v are neither there nor told", name, stuck, off, now)
			}
		}
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestNoiseIsRepaid: a caller in a noisy place, whose pauses are never silent, does not keep the
// clock ahead.
func TestNoiseIsRepaid(t *testing.T) {
	var stats Stats
	in := newTestInbound(&stats)
	rng := rand.New(rand.NewPCG(1, 2))
	noise := func(level float64) []byte {
		var b []byte
		for range 160 {
			b = binary.LittleEndian.AppendUint16(b, uint16(int16(level*rng.NormFloat64())))
		}
		return b
	}
	now := time.Duration(0)
	say := func(level float64) {
		now += codec.FrameTime
		in.Push(now, noise(level), 0)
		listen(in, now)
	}
	for range 100 {
		say(300) // a peak of some -30 dBFS
	}
	for range 100 { // a stall of two seconds
		now += codec.FrameTime
		listen(in, now)
	}
	for range 90 { // which comes after all
		in.Push(now, noise(4000), 0)
		listen(in, now)
	}
	if ahead := in.sent - now; ahead < time.Second {
		t.Fatalf("only %v ahead", ahead)
	}
	for i := range 400 { // speech with pauses, and noise in them
		level := 300.0
		if i%50 < 25 {
			level = 4000
		}
		say(level)
	}
	if ahead := in.sent - now; ahead > 100*ms {
		t.Errorf("still %v ahead", ahead)
	}
}

// TestFastCarrier: the clock follows the time, not a carrier whose own is fast.
func TestFastCarrier(t *testing.T) {
	var stats Stats
	in := newTestInbound(&stats)
	now := time.Duration(0)
	for i := range 50 * 1200 {
		now += codec.FrameTime * 999 / 1000 // 1,000 ppm: 1.2 s in 20 minutes
		frame := bytes.Repeat([]byte{0, 0x40}, 160)
		if i%100 < 20 {
			frame = make([]byte, 320)
		}
		in.Push(now, frame, 0)
		listen(in, now)
	}
	if ahead := in.sent - now; ahead > 100*ms {
		t.Errorf("%v ahead after %v", ahead, now)
	}
}

// TestRetuneIsSmooth: a tone that waits when the agent chooses another rate goes on without a
// click, there and where the next audio joins it.
func TestRetuneIsSmooth(t *testing.T) {
	f := func(rate int) codec.Format { return codec.Format{Encoding: codec.L16LE, Rate: rate} }
	for _, to := range codec.Rates {
		in := NewInbound(f(8000), f(16000), 400*ms, &Stats{})
		n := 0
		say := func(frames int) {
			for range frames {
				var b []byte
				for range 160 {
					b = binary.LittleEndian.AppendUint16(b, uint16(int16(10000*math.Sin(2*math.Pi*300*float64(n)/8000))))
					n++
				}
				in.Push(time.Duration(n)*time.Second/8000, b, 0)
			}
		}
		say(10)
		in.Retune(f(to))
		var pcm []int16
		take := func() {
			audio, _, _ := listen(&in, time.Duration(n)*time.Second/8000)
			pcm = codec.L16LE.AppendDecode(pcm, audio)
		}
		take()
		for range 20 {
			say(1)
			take()
		}
		most := 10000 * 2 * math.Pi * 300 / float64(to) * 1.1 // between two samples of the tone
		for i := to / 50; i < len(pcm); i++ {
			if step := math.Abs(float64(pcm[i]) - float64(pcm[i-1])); step > most {
				t.Errorf("%d Hz: a step of %.0f after %d ms, more than %.0f", to, step, i*1000/to, most)
				break
			}
		}
	}
}

func TestInboundAllocations(t *testing.T) {
	var stats Stats
	in := NewInbound(codec.Format{Encoding: codec.PCMU, Rate: 8000}, codec.Format{Encoding: codec.L16LE, Rate: 16000},
		400*ms, &stats)
	payload, buf := make([]byte, 160), make([]byte, 0, 640)
	now := time.Duration(0)
	var ev agent.Event
	step := func() {
		now += codec.FrameTime
		in.Push(now, payload, 0)
		if ok, _ := in.Next(now, buf, &ev); !ok || ev.Kind != agent.EventAudio {
			t.Fatal("no frame")
		}
	}
	step()
	if n := testing.AllocsPerRun(500, step); n != 0 {
		t.Errorf("%g allocations a frame", n)
	}
}
