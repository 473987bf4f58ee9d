package audio

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"voicebridge/agent"
	"voicebridge/calls"
	"voicebridge/codec"
	"voicebridge/providers"
)

const ms = time.Millisecond

var defaults = Settings{Lead: 160 * ms, Queue: 60 * time.Second}

// rig drives a playout in virtual time and is the carrier behind it: it plays
// what it is sent, in real time, and notes what was heard when.
type rig struct {
	t      fataler
	p      Playout
	stats  Stats
	now    time.Duration
	events []agent.Event

	buffered time.Duration // the carrier has audio up to this time
	sent     []byte
	frames   []time.Duration // when each was sent
	commands []providers.Command
	marks    []pendingMark // at the carrier
	most     time.Duration // the longest audio that the carrier held
	holes    int           // times it ran dry before more came
	silent   bool          // it never sends marks back
	buffer   time.Duration // it plays so much later than it could
	trip     time.Duration // a mark's way back
	jitter   func() time.Duration
}

type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

type pendingMark struct {
	name string
	at   time.Duration
}

func native() providers.Abilities { return providers.Abilities{Marks: true, Clear: true} }

// newRig makes one whose two formats are the same, so that bytes can be
// followed from end to end.
func newRig(t fataler, change func(*Settings)) *rig {
	f := codec.Format{Encoding: codec.L16LE, Rate: 8000}
	return newRigFormats(t, f, f, native(), change)
}

func newRigFormats(t fataler, from, to codec.Format, can providers.Abilities, change func(*Settings)) *rig {
	cfg := defaults
	if change != nil {
		change(&cfg)
	}
	r := &rig{t: t, now: time.Second, jitter: func() time.Duration { return 0 }}
	r.p = NewPlayout(from, to, can, cfg, &r.stats, func(ev agent.Event) { r.events = append(r.events, ev) })
	return r
}

// until runs the pacer up to a time.
func (r *rig) until(end time.Duration) {
	r.t.Helper()
	for steps := 0; ; steps++ {
		if steps > 1_000_000 {
			r.t.Fatalf("the pacer spins at %v", r.now)
		}
		r.echo()
		var cmd providers.Command
		ok, wait := r.p.Next(r.now, nil, &cmd)
		if ok {
			r.carrier(&cmd)
			continue
		}
		if r.p.end != nil {
			return
		}
		if wait <= r.now {
			r.t.Fatalf("at %v it asks to wait until %v", r.now, wait)
		}
		if wait < Forever {
			wait += r.jitter()
		}
		for _, m := range r.marks {
			wait = min(wait, max(m.at, r.now))
		}
		if wait > end {
			r.now = end
			r.echo()
			return
		}
		r.now = wait
	}
}

func (r *rig) carrier(cmd *providers.Command) {
	r.commands = append(r.commands, *cmd)
	switch cmd.Kind {
	case providers.CommandAudio:
		if r.buffered < r.now {
			if len(r.frames) > 0 {
				r.holes++
			}
			r.buffered = r.now
		}
		r.buffered += codec.FrameTime
		r.most = max(r.most, r.buffered-r.now)
		r.sent = append(r.sent, cmd.Audio...)
		r.frames = append(r.frames, r.now)
	case providers.CommandMark:
		at := r.now
		if r.buffered > r.now {
			at = r.buffered + r.buffer
		}
		r.marks = append(r.marks, pendingMark{cmd.Mark, at + r.trip})
	case providers.CommandClear:
		r.buffered = r.now
		for i := range r.marks { // as Twilio does
			r.marks[i].at = r.now
		}
	}
}

// echo sends back the marks that are due.
func (r *rig) echo() {
	for len(r.marks) > 0 && r.marks[0].at <= r.now {
		name := r.marks[0].name
		r.marks = r.marks[1:]
		if !r.silent {
			if err := r.p.MarkPlayed(r.now, name, false); err != nil {
				r.t.Fatalf("%v", err)
			}
		}
	}
}

// said lists the events of a kind in short form.
func (r *rig) said(kinds ...agent.EventKind) string {
	var out []string
	for _, ev := range r.events {
		for _, k := range kinds {
			if ev.Kind == k {
				out = append(out, strings.TrimSpace(fmt.Sprint(ev.Mark, " ", ev.MarkStatus, ev.Playback, ev.Buffer,
					ev.ClearedBy, ev.Code)))
			}
		}
	}
	return strings.Join(out, ", ")
}

// ramp is d of audio whose samples count up from first.
func ramp(first int, d time.Duration) []byte {
	var b []byte
	for i := range int(d.Milliseconds()) * 8 {
		b = binary.LittleEndian.AppendUint16(b, uint16(first+i))
	}
	return b
}

func TestBurstIsPaced(t *testing.T) {
	r := newRig(t, nil)
	audio := ramp(1, 60*time.Second)
	if d := r.p.Push(r.now, audio); d != 0 {
		t.Fatalf("%v of 60 s did not fit", d)
	}
	begin := r.now
	r.until(begin + 70*time.Second)
	if !bytes.Equal(r.sent, audio) {
		t.Fatalf("%d bytes were sent, want the %d as they were", len(r.sent), len(audio))
	}
	if r.holes != 0 || r.stats.Gaps != 0 {
		t.Errorf("%d holes, %d counted", r.holes, r.stats.Gaps)
	}
	if r.most > defaults.Lead {
		t.Errorf("the carrier held %v, want at most %v", r.most, defaults.Lead)
	}
	if r.frames[0] != begin {
		t.Errorf("the first frame left after %v", r.frames[0]-begin)
	}
	if got, want := r.said(agent.EventPlayback), "started, idle"; got != want {
		t.Errorf("playback: %s, want %s", got, want)
	}
}

// TestNoDrift: ticks that come late by up to 19 ms must not add up.
func TestNoDrift(t *testing.T) {
	r := newRig(t, nil)
	rng := rand.New(rand.NewPCG(1, 2))
	r.jitter = func() time.Duration { return time.Duration(rng.IntN(19)) * ms }
	r.p.Push(r.now, ramp(1, 60*time.Second))
	begin := r.now
	r.until(begin + 70*time.Second)
	for n, at := range r.frames {
		due := begin + time.Duration(n+1)*codec.FrameTime - defaults.Lead
		if late := at - max(due, begin); late < 0 || late > 20*ms {
			t.Fatalf("frame %d left %v after its time", n, late)
		}
	}
	if r.holes != 0 {
		t.Errorf("%d holes", r.holes)
	}
}

// TestStall: after a stall the backlog goes out in one go, but not more than the
// lead, and the hole is counted.
func TestStall(t *testing.T) {
	r := newRig(t, nil)
	r.p.Push(r.now, ramp(1, 5*time.Second))
	r.until(r.now + 2*time.Second)
	r.now += 300 * ms
	r.until(r.now + 10*time.Second)
	if r.holes != 1 || r.stats.Gaps != 1 {
		t.Errorf("%d holes, %d counted, want 1", r.holes, r.stats.Gaps)
	}
	if r.most > defaults.Lead {
		t.Errorf("the carrier held %v, want at most %v", r.most, defaults.Lead)
	}
	if len(r.sent) != 80000 {
		t.Errorf("%d bytes sent, want all 80000", len(r.sent))
	}
}

func TestClear(t *testing.T) {
	r := newRig(t, nil)
	begin := r.now
	r.p.Push(r.now, ramp(1, 3*time.Second))
	r.p.Mark("half")
	r.until(begin + 1280*ms)
	before := len(r.commands)
	r.p.Push(r.now, []byte{0x55}) // half a sample must not survive either
	r.p.Clear(r.now, agent.ClearByAgent, "c1")
	r.p.Push(r.now, ramp(20000, 500*ms))
	r.until(begin + 20*time.Second)

	after := r.commands[before:]
	if after[0].Kind != providers.CommandClear {
		t.Fatalf("the first thing after a clear is %v", after[0].Kind)
	}
	var heard []byte
	for _, c := range after[1:] {
		heard = append(heard, c.Audio...)
	}
	if !bytes.Equal(heard, ramp(20000, 500*ms)) {
		t.Error("after the clear something else was sent than what came after it")
	}
	if got, want := r.said(agent.EventMark, agent.EventCleared), "half cleared, agent"; got != want {
		t.Errorf("said %s, want %s", got, want)
	}
	for _, ev := range r.events {
		if ev.Kind == agent.EventCleared && (ev.Out != 1280*ms || ev.Sent != 3*time.Second || ev.Discarded != 1720*ms ||
			ev.Ref != "c1") {
			t.Errorf("cleared: heard %v of %v, discarded %v, ref %q", ev.Out, ev.Sent, ev.Discarded, ev.Ref)
		}
	}
	if r.said(agent.EventPlayback) != "started, started, idle" {
		t.Errorf("playback: %s", r.said(agent.EventPlayback))
	}
}

func TestClearOnEmpty(t *testing.T) {
	r := newRig(t, nil)
	r.p.Clear(r.now, agent.ClearByAgent, "")
	r.until(r.now + time.Second)
	if len(r.commands) != 1 || r.commands[0].Kind != providers.CommandClear {
		t.Errorf("the carrier was sent %v, want a clear", r.commands)
	}
	if ev := r.events[0]; ev.Kind != agent.EventCleared || ev.Discarded != 0 || ev.Out != 0 {
		t.Errorf("said %+v", ev)
	}
}

// TestClearEndsResampler: nothing that the filter holds reaches the next reply.
func TestClearEndsResampler(t *testing.T) {
	from, to := codec.Format{Encoding: codec.L16LE, Rate: 24000}, codec.Format{Encoding: codec.L16LE, Rate: 8000}
	r := newRigFormats(t, from, to, native(), nil)
	r.p.Push(r.now, bytes.Repeat([]byte{0, 0x60}, 24000))
	r.until(r.now + 100*ms)
	r.p.Clear(r.now, agent.ClearByAgent, "")
	n := len(r.sent)
	r.p.Push(r.now, make([]byte, 48000))
	r.until(r.now + 3*time.Second)
	for i, b := range r.sent[n:] {
		if b != 0 {
			t.Fatalf("byte %d after the clear is %#x, want silence", i, b)
		}
	}
}

func TestMarks(t *testing.T) {
	r := newRig(t, nil)
	begin := r.now
	r.p.Mark("empty")
	r.until(begin + ms)
	if r.said(agent.EventMark) != "empty played" {
		t.Fatalf("a mark on an empty queue: %q", r.said(agent.EventMark))
	}
	r.events = nil
	begin = r.now
	r.p.Push(r.now, ramp(1, 100*ms))
	r.p.Mark("a")
	r.p.Mark("b") // at the same place
	r.p.Push(r.now, ramp(801, 100*ms))
	r.p.Mark("end")
	r.until(begin + 99*ms)
	if r.said(agent.EventMark) != "" {
		t.Errorf("before 100 ms were heard: %s", r.said(agent.EventMark))
	}
	r.until(begin + 101*ms)
	if r.said(agent.EventMark) != "a played, b played" {
		t.Errorf("after 100 ms: %s", r.said(agent.EventMark))
	}
	r.until(begin + time.Second)
	if r.said(agent.EventMark) != "a played, b played, end played" {
		t.Errorf("at the end: %s", r.said(agent.EventMark))
	}
	for i, want := range []time.Duration{100 * ms, 100 * ms, 200 * ms} {
		var marks []agent.Event
		for _, ev := range r.events {
			if ev.Kind == agent.EventMark {
				marks = append(marks, ev)
			}
		}
		if marks[i].Out != want {
			t.Errorf("mark %s is reported with the playhead at %v, want %v", marks[i].Mark, marks[i].Out, want)
		}
	}
	if bytes.Contains(r.sent, make([]byte, 16)) {
		t.Error("a mark made it pad")
	}
}

// TestLateMarks: marks that the carrier echoes because of a clear are not taken
// for new ones, although the agent uses the same name again.
func TestLateMarks(t *testing.T) {
	r := newRig(t, nil)
	r.p.Push(r.now, ramp(1, 100*ms))
	r.p.Mark("m")
	r.until(r.now + 10*ms) // all is at the carrier
	r.p.Clear(r.now, agent.ClearByAgent, "")
	r.p.Push(r.now, ramp(1, 500*ms))
	r.p.Mark("m")
	r.until(r.now + 100*ms)
	if got := r.said(agent.EventMark); got != "m cleared" {
		t.Errorf("said %q, want the old one cleared and no more", got)
	}
	if r.stats.LateMarks != 1 {
		t.Errorf("%d late marks, want 1", r.stats.LateMarks)
	}
	r.until(r.now + time.Second)
	if got := r.said(agent.EventMark); got != "m cleared, m played" {
		t.Errorf("said %q", got)
	}
	if err := r.p.MarkPlayed(r.now, "somebody else's", false); err == nil {
		t.Error("a mark that was never sent was taken")
	}
}

// TestSilentCarrier: marks and the hang-up do not wait for ever for a carrier
// that does not send marks back, and one without marks is estimated.
func TestSilentCarrier(t *testing.T) {
	for _, tt := range []struct {
		can  providers.Abilities
		late time.Duration
	}{{native(), markLate}, {providers.Abilities{}, 0}} {
		f := codec.Format{Encoding: codec.L16LE, Rate: 8000}
		r := newRigFormats(t, f, f, tt.can, nil)
		r.silent = true
		begin := r.now
		r.p.Push(r.now, ramp(1, 200*ms))
		r.p.Mark("m")
		r.p.Hangup("", &calls.End{Cause: calls.AgentHangup})
		r.p.Push(r.now, ramp(1, 200*ms)) // after the hang-up: ignored
		r.until(begin + 200*ms + tt.late - ms)
		if r.said(agent.EventMark) != "" || r.p.end != nil {
			t.Errorf("%+v: said %s before its time, end %v", tt.can, r.said(agent.EventMark), r.p.end)
		}
		r.until(begin + 200*ms + tt.late + ms)
		if r.said(agent.EventMark) != "m played" || r.p.end == nil || r.p.end.Cause != calls.AgentHangup {
			t.Errorf("%+v: said %q, end %v", tt.can, r.said(agent.EventMark), r.p.end)
		}
		if len(r.sent) != 3200 {
			t.Errorf("%d bytes sent, want 3200", len(r.sent))
		}
	}
}

func TestHangup(t *testing.T) {
	r := newRig(t, nil)
	begin := r.now
	r.p.Push(r.now, ramp(1, time.Second))
	r.p.Hangup("h1", &calls.End{Cause: calls.AgentHangup})
	r.until(begin + 999*ms)
	if r.p.end != nil {
		t.Fatal("hung up before the goodbye was heard")
	}
	if r.p.Cancel("other") || !r.p.Cancel("h1") || r.p.Cancel("h1") {
		t.Error("cancel takes what it should not, or not what it should")
	}
	r.until(begin + 3*time.Second)
	if r.p.end != nil {
		t.Fatal("hung up after it was withdrawn")
	}
	r.p.Push(r.now, ramp(1, time.Second))
	r.p.Hangup("", &calls.End{Cause: calls.AgentHangup})
	r.p.Clear(r.now, agent.ClearByAgent, "")
	if r.p.end == nil {
		t.Error("a hang-up does not fall due with a clear")
	}
}

func TestPause(t *testing.T) {
	r := newRig(t, nil)
	begin := r.now
	r.p.Push(r.now, ramp(1, time.Second))
	r.until(begin + 200*ms)
	r.p.Pause(true)
	n := len(r.frames)
	r.until(begin + 5*time.Second)
	if len(r.frames) != n {
		t.Errorf("%d frames left during the pause", len(r.frames)-n)
	}
	if got := r.p.Heard(r.now); got != time.Duration(n)*codec.FrameTime {
		t.Errorf("heard %v in the pause, want the %d frames that the carrier had", got, n)
	}
	r.p.Pause(false)
	r.until(begin + 7*time.Second)
	if r.stats.Gaps != 0 {
		t.Error("a pause that the agent asked for was counted as a gap")
	}
	if !bytes.Equal(r.sent, ramp(1, time.Second)) {
		t.Error("something was lost by the pause")
	}
	r.p.Pause(true)
	r.p.Clear(r.now, agent.ClearByAgent, "")
	r.p.Push(r.now, ramp(1, 100*ms))
	r.until(r.now + time.Second)
	if len(r.frames) != 55 {
		t.Errorf("%d frames, want 55: a clear ends a pause", len(r.frames))
	}
}

func TestOverflow(t *testing.T) {
	r := newRig(t, func(c *Settings) { c.Queue = 6 * time.Second })
	begin := r.now
	if d := r.p.Push(r.now, ramp(0, 7*time.Second)); d != time.Second {
		t.Fatalf("discarded %v, want 1 s", d)
	}
	r.p.Push(r.now, ramp(0, time.Second))
	if got := r.said(agent.EventFault, agent.EventBuffer); got != "buffer_overflow, full" {
		t.Errorf("said %s", got)
	}
	r.until(begin + 5500*ms)
	if got := r.said(agent.EventBuffer); got != "full, high, ok" {
		t.Errorf("said %s", got)
	}
	r.p.Push(r.now, ramp(100, 500*ms))
	r.until(begin + 20*time.Second)
	if want := append(ramp(0, 6*time.Second), ramp(100, 500*ms)...); !bytes.Equal(r.sent, want) {
		t.Errorf("%d bytes sent, want the oldest 6 s and what came later", len(r.sent))
	}
	if got := r.p.Heard(r.now); got != 8500*ms {
		t.Errorf("the playhead ends at %v, want 8.5 s: it skips what was discarded", got)
	}
	if r.stats.Overflow != 2*time.Second || r.stats.AgentAudio != 8500*ms {
		t.Errorf("stats: %v of %v discarded", r.stats.Overflow, r.stats.AgentAudio)
	}
}

func TestPadding(t *testing.T) {
	r := newRig(t, nil)
	begin := r.now
	r.p.Push(r.now, ramp(1, 50*ms))
	r.p.Mark("end")
	r.until(begin + 39*ms)
	if len(r.frames) != 2 {
		t.Fatalf("%d frames before the agent had been silent, want 2", len(r.frames))
	}
	r.until(begin + 41*ms)
	if want := append(ramp(1, 50*ms), make([]byte, 160)...); !bytes.Equal(r.sent, want) {
		t.Errorf("sent %d bytes, want 800 of audio and 160 of silence, in time", len(r.sent))
	}
	r.until(begin + time.Second)
	if r.said(agent.EventMark) != "end played" || r.p.Heard(r.now) != 50*ms || r.holes != 0 {
		t.Errorf("marks %q, heard %v, %d holes", r.said(agent.EventMark), r.p.Heard(r.now), r.holes)
	}
	// The agent's next audio continues its own timeline: padding does not count.
	r.p.Push(r.now, ramp(1, 40*ms))
	r.until(r.now + 20*ms)
	if got := r.p.Heard(r.now); got != 70*ms {
		t.Errorf("heard %v, want 70 ms", got)
	}
}

// TestByByte: an agent that sends one byte at a time is heard all the same.
func TestByByte(t *testing.T) {
	r := newRig(t, nil)
	want := ramp(1, 200*ms)
	for i := range want {
		r.p.Push(r.now, want[i:i+1])
		if i%16 == 15 {
			r.until(r.now + ms)
		}
	}
	r.until(r.now + time.Second)
	if !bytes.Equal(r.sent, want) {
		t.Errorf("%d bytes sent, want %d as they were", len(r.sent), len(want))
	}
}

// TestLiveAgent: an agent that speaks in real time is not held back, and jitter
// that stays below a frame makes no hole after the first.
func TestLiveAgent(t *testing.T) {
	for _, prebuffer := range []time.Duration{0, 80 * ms} {
		r := newRig(t, func(c *Settings) { c.Prebuffer = prebuffer })
		rng := rand.New(rand.NewPCG(3, 4))
		begin := r.now
		for i := range 500 {
			r.until(begin + time.Duration(i)*codec.FrameTime + time.Duration(rng.IntN(8))*ms)
			r.p.Push(r.now, ramp(1, codec.FrameTime))
		}
		r.until(r.now + 5*time.Second)
		if first := r.frames[0] - begin; first > prebuffer+8*ms || first < prebuffer-codec.FrameTime {
			t.Errorf("prebuffer %v: the first frame left after %v", prebuffer, first)
		}
		if r.stats.Gaps != 0 || len(r.frames) != 500 || prebuffer > 0 && r.holes != 0 {
			t.Errorf("prebuffer %v: %d gaps, %d holes, %d frames", prebuffer, r.stats.Gaps, r.holes, len(r.frames))
		}
	}
}

// TestAgentClock: an agent that speaks in real time for an hour, by a clock that is slow or fast, makes
// no hole: pauses in what it says are made longer where it has a prebuffer. One that is ahead
// anyway is left as it is.
func TestAgentClock(t *testing.T) {
	pause := make([]byte, 320)
	for _, ppm := range []time.Duration{-200, 0, 200} {
		r := newRig(t, func(c *Settings) { c.Prebuffer = 80 * ms })
		rng := rand.New(rand.NewPCG(3, 4))
		begin, n := r.now, 3600*50
		for i := range n {
			r.until(begin + time.Duration(i)*(codec.FrameTime+codec.FrameTime*ppm/1_000_000) +
				time.Duration(rng.IntN(8))*ms)
			frame := ramp(1, codec.FrameTime)
			if i%40 > 35 {
				frame = pause
			}
			r.p.Push(r.now, frame)
		}
		r.until(r.now + 5*time.Second)
		added := time.Duration(len(r.frames)-n) * codec.FrameTime
		if want := max(0, ppm*3600*time.Second/1_000_000); added < want-60*ms || added > want+60*ms {
			t.Errorf("%d ppm: %v of silence was added, want about %v", ppm, added, want)
		}
		if r.stats.Gaps != 0 || r.holes != 0 || r.p.Heard(r.now) != time.Duration(n)*codec.FrameTime {
			t.Errorf("%d ppm: %d gaps, %d holes, %v heard", ppm, r.stats.Gaps, r.holes, r.p.Heard(r.now))
		}
	}
	for _, lead := range []time.Duration{20 * ms, 40 * ms, 160 * ms} {
		r := newRig(t, func(c *Settings) { c.Prebuffer, c.Lead = 200*ms, lead })
		r.p.Push(r.now, bytes.Repeat(pause, 100))
		r.until(r.now + 5*time.Second)
		if len(r.frames) != 100 {
			t.Errorf("lead %v: 100 frames are %d", lead, len(r.frames))
		}
	}
}

// TestChunkedAgent: an agent that speaks in real time in large pieces is not cut
// up by padding: at most its first pieces find the carrier dry, since it leaves
// no reserve (that is what a prebuffer is for).
func TestChunkedAgent(t *testing.T) {
	for _, tt := range []struct {
		rate        int
		piece, each time.Duration
	}{{16000, 100 * ms, 100 * ms}, {16000, 60 * ms, 60 * ms}, {24000, 200 * ms, 200 * ms}, {8000, 50 * ms, 50 * ms},
		{16000, 100 * ms, 50 * ms}} {
		from, to := codec.Format{Encoding: codec.L16LE, Rate: tt.rate}, codec.Format{Encoding: codec.L16LE, Rate: 8000}
		r := newRigFormats(t, from, to, native(), nil)
		begin := r.now
		for i := range 50 {
			r.until(begin + time.Duration(i)*tt.each)
			r.p.Push(r.now, bytes.Repeat([]byte{0, 0x20}, int(tt.piece.Milliseconds())*tt.rate/1000))
		}
		r.until(r.now + 10*time.Second)
		added := time.Duration(len(r.frames))*codec.FrameTime - 50*tt.piece
		if added > 3*codec.FrameTime || r.stats.Gaps > 4 {
			t.Errorf("%+v: %v of silence was added, %d gaps", tt, added, r.stats.Gaps)
		}
	}
}

// TestPaddingIsCounted: padding that turns out to be in the middle of speech is
// a gap that the caller heard.
func TestPaddingIsCounted(t *testing.T) {
	r := newRig(t, nil)
	r.p.Push(r.now, ramp(1, 50*ms))
	r.until(r.now + 150*ms)
	r.p.Push(r.now, ramp(1, 50*ms))
	r.until(r.now + time.Second)
	if r.stats.Gaps != 1 || r.stats.GapTime != 100*ms {
		t.Errorf("%d gaps of %v, want one of 100 ms", r.stats.Gaps, r.stats.GapTime)
	}
}

// TestTailIsHeard: the end of an utterance comes out of the resampler whole.
func TestTailIsHeard(t *testing.T) {
	from, to := codec.Format{Encoding: codec.L16LE, Rate: 16000}, codec.Format{Encoding: codec.L16LE, Rate: 8000}
	for short := range 40 { // samples of the carrier's rate that the last frame is short of
		r := newRigFormats(t, from, to, native(), nil)
		pcm := append(make([]byte, 4*(800-short-16)), bytes.Repeat([]byte{0, 0x40}, 32)...)
		r.p.Push(r.now, pcm)
		r.until(r.now + 2*time.Second)
		loud := 0
		for i := 0; i+1 < len(r.sent); i += 2 {
			if s := int16(r.sent[i]) | int16(r.sent[i+1])<<8; s > 0x2000 {
				loud++
			}
		}
		if loud < 15 || loud > 17 || len(r.sent)%320 != 0 {
			t.Fatalf("short by %d: %d of 16 loud samples came out, %d bytes", short, loud, len(r.sent))
		}
	}
}

// TestLateMark: one mark that comes back late does not put out the playhead, nor
// make the pacer spin.
func TestLateMark(t *testing.T) {
	r := newRig(t, nil)
	r.p.Push(r.now, ramp(1, 100*ms))
	r.p.Mark("late")
	r.silent = true // the echo is done by hand
	r.until(r.now + time.Second)
	if err := r.p.MarkPlayed(r.now, "0.1", false); err != nil {
		t.Fatal(err)
	}
	r.p.Push(r.now, ramp(1, 500*ms))
	r.p.Mark("a")
	r.p.Push(r.now, ramp(1, 500*ms))
	r.p.Mark("b")
	r.until(r.now + 5*time.Second) // the rig fails if it spins
	if r.said(agent.EventMark) != "late played, a played, b played" {
		t.Errorf("marks: %s", r.said(agent.EventMark))
	}
	begin := r.now
	before := r.p.Heard(r.now)
	r.p.Push(r.now, ramp(1, 3*time.Second))
	r.until(begin + time.Second)
	if d := r.p.Heard(r.now) - before; d < 900*ms || d > time.Second {
		t.Errorf("after a second %v are said to have been heard", d)
	}
}

// TestMarksDueInOrder: the time-out of a mark is never before that of an earlier
// one, although the carrier's lateness changes between them.
func TestMarksDueInOrder(t *testing.T) {
	r := newRig(t, nil)
	r.silent = true
	r.p.lag = maxLag
	r.p.Push(r.now, ramp(1, 40*ms))
	r.p.Mark("a")
	r.until(r.now + ms)
	r.p.lag = 0
	r.p.Mark("b")
	r.until(r.now + 10*time.Second)
	if r.said(agent.EventMark) != "a played, b played" {
		t.Errorf("marks: %s", r.said(agent.EventMark))
	}
}

// TestQueuedHangup: what may and may not happen while one is queued.
func TestQueuedHangup(t *testing.T) {
	r := newRig(t, nil)
	begin := r.now
	r.p.Push(r.now, ramp(1, 300*ms))
	r.p.Hangup("h1", &calls.End{Cause: calls.AgentHangup})
	r.p.Hangup("h2", &calls.End{Cause: calls.AgentHangup})
	if r.p.Pause(true) {
		t.Error("a pause was taken")
	}
	r.p.Push(r.now, ramp(1, 900*ms)) // ignored, but the agent's time goes on
	if !r.p.Cancel("h1") || !r.p.finishing || !r.p.Cancel("h2") || r.p.finishing {
		t.Error("it is not finishing as long as a hang-up is queued")
	}
	r.p.Push(r.now, ramp(20000, 300*ms))
	r.until(begin + 100*ms)
	if got := r.p.Heard(r.now); got != 100*ms {
		t.Errorf("heard %v, want 100 ms", got)
	}
	r.until(begin + 400*ms)
	if got := r.p.Heard(r.now); got != 1300*ms {
		t.Errorf("heard %v, want 1.3 s: the playhead skips what was ignored", got)
	}
	r.until(begin + 10*time.Second)
	if want := append(ramp(1, 300*ms), ramp(20000, 300*ms)...); !bytes.Equal(r.sent, want) || r.p.end != nil {
		t.Errorf("%d bytes sent, end %v", len(r.sent), r.p.end)
	}
}

func TestReport(t *testing.T) {
	r := newRig(t, nil)
	r.p.report = 100 * ms
	r.p.Push(r.now, ramp(1, time.Second))
	r.events = nil
	r.until(r.now + 950*ms)
	if n := strings.Count(r.said(agent.EventBuffer), "ok"); n < 9 || n > 10 {
		t.Errorf("%d reports in 950 ms, want one each 100", n)
	}
}

// TestModel drives a playout with random commands and compares with what an
// agent may rely on.
func TestModel(t *testing.T) {
	rates := []int{8000, 16000, 24000}
	rapid.Check(t, func(t *rapid.T) {
		rate := rapid.SampledFrom(rates).Draw(t, "rate")
		f := codec.Format{Encoding: codec.L16LE, Rate: rate}
		can := rapid.SampledFrom([]providers.Abilities{native(), {Marks: true}, {Clear: true}, {}}).Draw(t, "can")
		r := newRigFormats(t, f, f, can, func(c *Settings) {
			c.Queue = 3 * time.Second
			c.Prebuffer = rapid.SampledFrom([]time.Duration{0, 60 * ms}).Draw(t, "prebuffer")
		})
		r.silent = rapid.Bool().Draw(t, "silent")
		jitter := rapid.SliceOfN(rapid.IntRange(0, 15), 8, 8).Draw(t, "jitter")
		k := 0
		r.jitter = func() time.Duration { k++; return time.Duration(jitter[k%8]) * ms }

		var expect []byte // what the caller is to hear: never zero, so padding can be told
		sample, marked, cleared := uint16(1), 0, 0
		since := 0 // bytes of r.sent that belong to before the last clear
		strip := func(b []byte) (out []byte) {
			for i := 0; i+1 < len(b); i += 2 {
				if b[i] != 0 || b[i+1] != 0 {
					out = append(out, b[i], b[i+1])
				}
			}
			return out
		}
		check := func() {
			heard := strip(r.sent[since:])
			if !bytes.HasPrefix(expect, heard) {
				t.Fatalf("sent %d bytes that are not what the agent said", len(heard))
			}
			if r.most > defaults.Lead {
				t.Fatalf("the carrier held %v", r.most)
			}
		}
		playhead := time.Duration(0)
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"push", "push", "run", "run", "mark", "clear", "pause"}).Draw(t, "step") {
			case "push":
				n := rapid.IntRange(1, rate).Draw(t, "samples")
				var b []byte
				for range n {
					b = binary.LittleEndian.AppendUint16(b, sample)
					if sample++; sample == 0 {
						sample = 1
					}
				}
				d := r.p.Push(r.now, b)
				expect = append(expect, b[:len(b)-2*int(r.p.agentSamples(d))]...)
			case "run":
				r.until(r.now + time.Duration(rapid.IntRange(0, 900).Draw(t, "ms"))*ms)
			case "mark":
				if r.p.Mark(fmt.Sprint(marked)) {
					marked++
				}
			case "clear":
				r.p.Clear(r.now, agent.ClearByAgent, "")
				cleared++
				expect, since = nil, len(r.sent)
				if n := strings.Count(r.said(agent.EventMark), ","); marked > 0 && n != marked-1 {
					t.Fatalf("after a clear %d of %d marks are answered", n+1, marked)
				}
			case "pause":
				r.p.Pause(!r.p.paused)
			}
			check()
			heard := r.p.Heard(r.now)
			if heard < playhead || heard > r.p.sent() {
				t.Fatalf("the playhead went from %v to %v of %v", playhead, heard, r.p.sent())
			}
			playhead = heard
		}
		r.p.Pause(false)
		r.until(r.now + 20*time.Second)
		check()
		if got := strip(r.sent[since:]); !bytes.Equal(got, expect) {
			t.Fatalf("in the end %d bytes were heard of %d", len(got), len(expect))
		}
		if heard := r.p.Heard(r.now); heard != r.p.sent() {
			t.Fatalf("in the end the playhead is at %v of %v", heard, r.p.sent())
		}
		var names []string
		for _, ev := range r.events {
			if ev.Kind == agent.EventMark {
				names = append(names, ev.Mark)
			}
		}
		for i, n := range names {
			if n != fmt.Sprint(i) {
				t.Fatalf("marks were answered in the order %v", names)
			}
		}
		if len(names) != marked {
			t.Fatalf("%d of %d marks were answered", len(names), marked)
		}
	})
}

func (p *Playout) agentSamples(d time.Duration) int64 {
	return (int64(d)*int64(p.agent.Rate) + int64(time.Second)/2) / int64(time.Second)
}

func TestPlayoutAllocations(t *testing.T) {
	from, to := codec.Format{Encoding: codec.L16LE, Rate: 16000}, codec.Format{Encoding: codec.PCMU, Rate: 8000}
	r := newRigFormats(t, from, to, native(), nil)
	pcm, buf := make([]byte, 640), make([]byte, 0, 160)
	var cmd providers.Command
	step := func() {
		r.p.Push(r.now, pcm)
		for {
			if ok, _ := r.p.Next(r.now, buf, &cmd); !ok {
				break
			}
		}
		r.now += codec.FrameTime
	}
	for range 100 {
		step()
	}
	if n := testing.AllocsPerRun(500, step); n != 0 {
		t.Errorf("%g allocations a frame", n)
	}
}

func BenchmarkPlayout(b *testing.B) {
	from, to := codec.Format{Encoding: codec.L16LE, Rate: 16000}, codec.Format{Encoding: codec.PCMU, Rate: 8000}
	cfg := defaults
	var stats Stats
	p := NewPlayout(from, to, native(), cfg, &stats, func(agent.Event) {})
	pcm, buf := make([]byte, 640), make([]byte, 0, 160)
	var cmd providers.Command
	now := time.Duration(0)
	b.ReportAllocs()
	for b.Loop() {
		p.Push(now, pcm)
		for ok := true; ok; {
			ok, _ = p.Next(now, buf, &cmd)
		}
		now += codec.FrameTime
	}
}

// TestSlack: a frame of a run may be late by the slack, the first one of an utterance
// may not.
func TestSlack(t *testing.T) {
	const slack = 25 * ms
	cfg := defaults
	cfg.Prebuffer, cfg.Slack = 60*ms, slack
	var stats Stats
	p := NewPlayout(codec.Format{Encoding: codec.L16LE, Rate: 8000}, codec.Format{Encoding: codec.PCMU, Rate: 8000},
		providers.Abilities{}, cfg, &stats, func(agent.Event) {})
	var cmd providers.Command
	buf := make([]byte, 0, 160)
	for _, now := range []time.Duration{0, 5 * time.Second} {
		p.Push(now, make([]byte, 320))
		if ok, wait := p.Next(now, buf, &cmd); ok || wait != now+cfg.Prebuffer {
			t.Errorf("at %v: %t, next at %v, want at %v", now, ok, wait, now+cfg.Prebuffer)
		}
		p.Push(now+10*time.Millisecond, make([]byte, 320*15))
		now += 10 * time.Millisecond
		for range 8 { // the lead
			if ok, _ := p.Next(now, buf, &cmd); !ok {
				t.Fatalf("at %v: nothing is sent", now)
			}
		}
		if ok, wait := p.Next(now, buf, &cmd); ok || wait != now+codec.FrameTime+slack {
			t.Errorf("at %v: %t, next at %v, want at %v", now, ok, wait, now+codec.FrameTime+slack)
		}
		for at := now; p.pushed > p.taken; at += codec.FrameTime {
			p.Next(at, buf, &cmd)
		}
	}
}

// TestHeardPosition: how much the caller has heard is known within a frame, however long a mark
// takes on its way back, as long as two have come back alone, and however much the carrier buffers.
func TestHeardPosition(t *testing.T) {
	for _, trip := range []time.Duration{0, 100 * ms, 400 * ms} {
		for _, buffer := range []time.Duration{0, 60 * ms, 120 * ms} {
			r := newRig(t, nil)
			r.trip, r.buffer = trip, buffer
			for range 2 {
				r.p.Mark("alone")
				r.until(r.now + time.Second)
			}
			begin := r.now
			r.p.Push(r.now, ramp(1, 4*time.Second))
			for i := range 8 {
				r.p.Mark(string(rune('a' + i)))
				r.p.Push(r.now, ramp(1, 200*ms))
			}
			r.p.Mark("last")
			r.until(begin + 7*time.Second)
			begin = r.now
			r.p.Push(r.now, ramp(1, 2*time.Second))
			r.until(begin + 1500*ms)
			before := r.p.received - 16000
			want := r.p.agentTime(before) + 1500*ms - buffer
			if off := r.p.Heard(r.now) - want; off.Abs() > codec.FrameTime {
				t.Errorf("trip %v, buffer %v: the position is off by %v", trip, buffer, off)
			}
			if a := r.p.accuracy(r.now); a < codec.FrameTime || a > 3*codec.FrameTime/2 {
				t.Errorf("trip %v, buffer %v: it is said to be sure to %v", trip, buffer, a)
			}
		}
	}
}

// TestAccuracy: the truth is never further off than is said, with marks that nothing else
// tells the trip of, with none, and after one that came late.
func TestAccuracy(t *testing.T) {
	for _, marks := range []bool{false, true} {
		for _, trip := range []time.Duration{0, 100 * ms} {
			for _, buffer := range []time.Duration{0, 60 * ms, 120 * ms} {
				r := newRig(t, nil)
				r.trip, r.buffer = trip, buffer
				begin := r.now
				for i := range 20 {
					r.p.Push(r.now, ramp(1, 250*ms))
					if marks {
						r.p.Mark(string(rune('a' + i)))
					}
				}
				for step := range 8 {
					if step == 4 {
						r.trip += 150 * ms
					}
					r.until(r.now + 500*ms)
					off := r.p.Heard(r.now) - (r.now - begin - buffer)
					if a := r.p.accuracy(r.now); off.Abs() > a {
						t.Errorf("marks %v, trip %v, buffer %v, at %v: off by %v, said to be sure to %v", marks, trip,
							buffer,
							r.now, off, a)
					}
				}
				r.p.Clear(r.now, agent.ClearByAgent, "")
				cleared := r.events[len(r.events)-1]
				if cleared.Kind == agent.EventPlayback {
					cleared = r.events[len(r.events)-2]
				}
				if cleared.Kind != agent.EventCleared || cleared.Accuracy < codec.FrameTime {
					t.Errorf("the clear is told as %+v", cleared)
				}
			}
		}
	}
}

// TestStallForgotten: marks that one stall of the network has delayed do not count for long.
func TestStallForgotten(t *testing.T) {
	r := newRig(t, nil)
	begin := r.now
	r.p.Push(r.now, ramp(1, 20*time.Second))
	for i := range 20 {
		r.p.items = append(r.p.items, Item{at: int64(8000 * (i + 1)), mark: string(rune('a' + i))})
	}
	r.until(begin + 4900*ms)
	r.trip = 400 * ms // of the next one alone
	r.until(begin + 5900*ms)
	r.trip = 0
	r.until(begin + 8*time.Second)
	if r.p.lag > 20*ms {
		t.Errorf("the carrier is still taken to be %v late", r.p.lag)
	}
}

// TestOver: marks that are open when the call ends are answered, once.
func TestOver(t *testing.T) {
	r := newRig(t, nil)
	r.p.Push(r.now, ramp(1, time.Second))
	r.p.Mark("a")
	r.p.Push(r.now, ramp(1, time.Second))
	r.p.Mark("b")
	r.until(r.now + 900*ms)
	r.p.Over(r.now, true)
	r.p.Over(r.now, true)
	r.until(r.now + 2*time.Second) // what comes back now is late
	if got := r.said(agent.EventMark); got != "a cleared, b cleared" {
		t.Errorf("marks: %s", got)
	}
}

// TestBufferLevels: the buffer is told full and high once, not with each piece.
func TestBufferLevels(t *testing.T) {
	r := newRig(t, func(s *Settings) { s.Queue = 2 * time.Second })
	for range 40 { // an agent that fills it as it empties
		r.p.Push(r.now, ramp(1, 200*ms))
		r.until(r.now + 100*ms)
	}
	r.until(r.now + 5*time.Second)
	if got := r.said(agent.EventBuffer); got != "high, full, high, ok" {
		t.Errorf("told: %s", got)
	}
}

// TestDrift: however long the agent speaks without a pause, a carrier whose clock is not ours
// holds as much as at the beginning, and never runs dry.
func TestDrift(t *testing.T) {
	const hours = 2
	for _, ppm := range []time.Duration{-200, 200} {
		f := codec.Format{Encoding: codec.PCMU, Rate: 8000}
		var stats Stats
		out := NewPlayout(f, f, native(), defaults, &stats, func(agent.Event) {})
		in := NewInbound(f, f, 400*ms, &stats)
		rng := rand.New(rand.NewPCG(1, 2))
		frame := make([]byte, 160)
		length := codec.FrameTime + codec.FrameTime*ppm/1_000_000 // of a frame, at the carrier
		now, comes, sends := time.Second, time.Second, time.Second
		var dry, least, most time.Duration // until when it has audio, and how much it held
		var cmd providers.Command
		var ev agent.Event
		least = time.Hour
		for now < hours*time.Hour {
			if now >= comes {
				in.Push(now+time.Duration(rng.IntN(8))*ms, frame, 0) // the network is not even
				for ok := true; ok; {
					ok, _ = in.Next(now, frame[:0], &ev)
				}
				comes += length
			}
			if now >= sends { // in time, and more than is played
				out.Push(now, make([]byte, 160*50))
				sends += 900 * ms
			}
			out.Follow(in.Behind())
			ok, wait := out.Next(now, frame[:0], &cmd)
			if !ok {
				now = min(wait, comes, sends)
				continue
			}
			if cmd.Kind != providers.CommandAudio {
				continue
			}
			if now > dry {
				if now > 2*time.Second {
					t.Fatalf("%d ppm: it ran dry at %v", ppm, now)
				}
				dry = now
			}
			if dry += length; now > 10*time.Second {
				least, most = min(least, dry-now), max(most, dry-now)
			}
			if out.pushed-out.taken > 8000*30 { // the agent stops for a moment now and then
				sends = now + 20*time.Second
			}
		}
		if least < 140*ms || most > 180*ms {
			t.Errorf("%d ppm: it held %v to %v", ppm, least, most)
		}
	}
}

// TestHeardHeld: what the carrier has got of the agent's audio when music begins, or tones do, is
// heard before them, and a mark in it that comes back meanwhile tells nothing else.
func TestHeardHeld(t *testing.T) {
	r := newRig(t, nil)
	r.buffer = 60 * ms
	for i := range 10 { // the carrier is late by its buffer: that is learnt
		r.p.Push(r.now, ramp(1, 200*ms))
		r.p.Mark(string(rune('a' + i)))
	}
	r.until(r.now + 1500*ms)
	at, lag := r.p.Heard(r.now), r.p.lag
	if lag < 20*ms {
		t.Fatalf("the lag is %v", lag)
	}
	r.p.Mark("in the air")
	r.p.Hold(make([]byte, r.p.frame))
	r.until(r.now + 500*ms)
	if got := r.p.Heard(r.now); got != r.p.on(r.p.taken) || got < at+160*ms {
		t.Errorf("%v is heard amid the music, the carrier has got %v, %v was when it began", got, r.p.on(r.p.taken), at)
	}
	if r.p.lag < lag {
		t.Errorf("the carrier was late by %v, is said to be by %v", lag, r.p.lag)
	}
	at = r.p.Heard(r.now)
	r.p.Hold(nil)
	r.until(r.now + 100*ms) // the carrier still plays music
	if got := r.p.Heard(r.now); got != at {
		t.Errorf("%v is heard, and music plays since %v", got, at)
	}
	r.until(r.now + 200*ms)
	if off := r.p.Heard(r.now) - at - (300-160)*ms + r.p.lag; off.Abs() > codec.FrameTime {
		t.Errorf("%v is heard 300 ms after the music, %v was in it", r.p.Heard(r.now), at)
	}
}
