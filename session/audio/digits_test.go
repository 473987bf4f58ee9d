package audio

import (
	"strings"
	"testing"
	"time"

	"voicebridge/agent"
	"voicebridge/calls"
	"voicebridge/codec"
	"voicebridge/providers"
)

// dialled is a playout at 8 kHz, where a digit is eight frames long.
func dialled(native bool) (*Playout, *[]agent.Event) {
	f := codec.Format{Encoding: codec.L16LE, Rate: 8000}
	told := &[]agent.Event{}
	cfg := defaults
	p := NewPlayout(f, f, providers.Abilities{Clear: true}, cfg, &Stats{},
		func(ev agent.Event) { *told = append(*told, ev) })
	p.native = native
	return &p, told
}

// drive runs the playout in virtual time and gives what the carrier gets: a for a
// frame of audio, t for one of tones, c for a clear, and digits in words.
func drive(p *Playout, from, to time.Duration) string {
	var b strings.Builder
	var cmd providers.Command
	frame := make([]byte, 0, 320)
	for now := from; now < to; {
		ok, wait := p.Next(now, frame, &cmd)
		if !ok {
			if now = min(wait, to); wait == Forever {
				break
			}
			continue
		}
		switch {
		case cmd.Kind == providers.CommandClear:
			b.WriteByte('c')
		case cmd.Kind == providers.CommandDigits: // the test says when they are sent
			b.WriteString("<" + cmd.Digits + ">")
		case cmd.Audio[0] == 1 && cmd.Audio[1] == 0:
			b.WriteByte('a')
		default:
			b.WriteByte('t')
		}
	}
	return b.String()
}

// ones is audio of n frames that can be told from tones.
func ones(n int) []byte {
	b := make([]byte, 320*n)
	for i := 0; i < len(b); i += 2 {
		b[i] = 1
	}
	return b
}

var one = Item{Digits: "1", ID: "d", Tone: agent.DefaultTone, Gap: agent.DefaultToneGap}

func acks(told []agent.Event) (ids string) {
	for _, ev := range told {
		if ev.Kind == agent.EventAck {
			ids += ev.Ref
		}
	}
	return ids
}

// TestDigitsInLine: tones come where they were queued, the audio after them waits,
// and they take no place on the agent's timeline.
func TestDigitsInLine(t *testing.T) {
	p, told := dialled(false)
	p.Push(0, ones(3))
	if !p.SendDigits(one, false) {
		t.Fatal("refused")
	}
	p.Mark("end")
	p.Push(0, ones(2))
	p.Mark("after")
	if got := drive(p, 0, 2*time.Second); got != "aaatttttttt"+"aa" {
		t.Errorf("%s", got)
	}
	if acks(*told) != "d" || p.Heard(2*time.Second) != 100*time.Millisecond {
		t.Errorf("acks %q, heard %v", acks(*told), p.Heard(2*time.Second))
	}
	var marks []agent.Event
	for _, ev := range *told {
		if ev.Kind == agent.EventMark {
			marks = append(marks, ev)
		}
	}
	if len(marks) != 2 || marks[0].Out != 60*time.Millisecond || marks[1].Out != 100*time.Millisecond {
		t.Errorf("%+v", marks)
	}
	if p.stats.Gaps != 0 {
		t.Error("tones are no gap")
	}
}

// TestDigitsNow: tones that cannot wait go before the audio that does.
func TestDigitsNow(t *testing.T) {
	p, _ := dialled(false)
	p.Push(0, ones(20))
	got := drive(p, 0, 10*time.Millisecond)
	p.SendDigits(one, true)
	got += " " + drive(p, 10*time.Millisecond, 2*time.Second)
	if got != "aaaaaaaa ttttttttaaaaaaaaaaaa" {
		t.Errorf("%s", got)
	}
}

// TestDigitsPace: tones keep to the lead, as audio does.
func TestDigitsPace(t *testing.T) {
	p, _ := dialled(false)
	p.SendDigits(Item{Digits: "12", Tone: agent.DefaultTone, Gap: agent.DefaultToneGap}, true) // 320 ms
	if got := drive(p, 0, 1); got != "tttttttt" {
		t.Errorf("at once %s, want the lead of 160 ms", got)
	}
	if got := drive(p, 1, 100*time.Millisecond); got != "tttt" {
		t.Errorf("within 100 ms %s", got)
	}
}

// TestDigitsAndClear: a clear discards audio and marks, but digits fall due, and a
// hang-up waits for them.
func TestDigitsAndClear(t *testing.T) {
	p, told := dialled(false)
	p.Push(0, ones(50))
	p.SendDigits(one, false)
	p.Hangup("h", &calls.End{Cause: calls.AgentHangup})
	got := drive(p, 0, 10*time.Millisecond)
	p.Clear(10*time.Millisecond, agent.ClearByAgent, "c")
	got += " " + drive(p, 10*time.Millisecond, 3*time.Second)
	if got != "aaaaaaaa ctttttttt" || acks(*told) != "d" || p.end == nil {
		t.Errorf("%s, acks %q, end %v", got, acks(*told), p.end)
	}
}

// TestDigitsCanceled: digits that wait can be withdrawn.
func TestDigitsCanceled(t *testing.T) {
	p, _ := dialled(false)
	p.Push(0, ones(2))
	p.SendDigits(one, false)
	if !p.Cancel("d") || p.Cancel("d") {
		t.Error("not canceled just once")
	}
	if got := drive(p, 0, time.Second); got != "aa" {
		t.Errorf("%s", got)
	}
}

// TestDigitsNative: where the carrier sends digits, there are no tones, but the
// order is kept.
func TestDigitsNative(t *testing.T) {
	p, _ := dialled(true)
	p.Push(0, ones(1))
	p.SendDigits(one, false)
	p.Push(0, ones(1))
	if got := drive(p, 0, time.Second); got != "a<1>" || !p.signalling {
		t.Errorf("%s: what comes behind them waits until they are sent", got)
	}
	p.Confirm()
	if got := drive(p, time.Second, 2*time.Second); got != "a" {
		t.Errorf("%s", got)
	}
}

// TestDigitsSound: digits that the carrier sends begin once what was said before them is heard,
// and what comes behind them waits until they have sounded.
func TestDigitsSound(t *testing.T) {
	r := newRig(t, func(s *Settings) { s.NativeDigits = true })
	begin := r.now
	r.p.Push(r.now, ramp(1, 300*ms))
	r.p.SendDigits(Item{Digits: "12w", ID: "d", Tone: 100 * ms, Gap: 50 * ms}, false)
	r.p.Push(r.now, ramp(1, 100*ms))
	at := func(kind providers.CommandKind) (at time.Duration) {
		for steps := len(r.commands); ; {
			r.until(r.now + 5*ms)
			for _, cmd := range r.commands[steps:] {
				if cmd.Kind == kind {
					return r.now - begin
				}
			}
			if steps = len(r.commands); r.now > begin+10*time.Second {
				t.Fatalf("nothing of kind %v", kind)
			}
		}
	}
	if d := at(providers.CommandDigits); d < 300*ms || d > 310*ms {
		t.Errorf("the digits were sent after %v, want 300 ms", d)
	}
	frames := len(r.frames)
	r.p.Confirm()
	r.until(begin + 2*time.Second)
	if d := r.frames[frames] - begin; d < 1100*ms || d > 1120*ms { // 2 x 150 ms, and half a second
		t.Errorf("audio went on after %v, want 1.1 s", d)
	}
	if r.stats.Gaps != 0 {
		t.Error("digits are no gap")
	}
}

// TestTransferHeard: a transfer begins once what was said before it is heard, not when the carrier
// has got it.
func TestTransferHeard(t *testing.T) {
	r := newRig(t, nil)
	begin := r.now
	r.p.Push(r.now, ramp(1, 500*ms))
	r.p.Transfer(Item{ID: "t", Transfer: &calls.TransferRequest{}}, false)
	r.until(begin + 490*ms)
	if due := r.p.TakeTransfers(); len(due) != 0 {
		t.Errorf("it begins 10 ms before the last word is heard")
	}
	r.until(begin + 510*ms)
	if due := r.p.TakeTransfers(); len(due) != 1 || due[0].ID != "t" {
		t.Errorf("%+v", due)
	}
}

// TestDigitsBounded: neither too many, nor any behind the end.
func TestDigitsBounded(t *testing.T) {
	p, _ := dialled(false)
	n := 0
	for p.SendDigits(one, n%2 == 0) {
		n++
	}
	if n != maxDigitsQueue {
		t.Errorf("%d were taken", n)
	}
	p, _ = dialled(false)
	p.Hangup("", &calls.End{Cause: calls.AgentHangup})
	if p.SendDigits(one, false) {
		t.Error("digits behind the end were taken")
	}
	for s, want := range map[string]bool{"": false, "1": true, "0123456789*#ABCDwW": true, "1 ": false, "e": false,
		strings.Repeat("1", 64): true, strings.Repeat("1", 65): false} {
		if agent.ValidDigits(s) != want {
			t.Errorf("%q: %v", s, !want)
		}
	}
}

// TestRetuneInbound: an agent that chooses another rate gets what waits for it at
// that rate, as long as it was; also one that takes the place of another.
func TestRetuneInbound(t *testing.T) {
	f := func(rate int) codec.Format { return codec.Format{Encoding: codec.L16LE, Rate: rate} }
	for _, heard := range []int{0, 2} {
		for _, to := range codec.Rates {
			in := NewInbound(f(8000), f(16000), 400*time.Millisecond, &Stats{})
			var ev agent.Event
			buf := make([]byte, 0, 4096)
			for i := range 10 + heard {
				now := time.Duration(i) * 20 * time.Millisecond
				if in.Push(now, ones(1), 0); i < heard {
					if ok, _ := in.Next(now, buf, &ev); !ok {
						t.Fatal("nothing is heard by the first")
					}
				}
			}
			in.Retune(f(to))
			frames := 0
			for ; ; frames++ {
				ok, _ := in.Next(200*time.Millisecond, buf, &ev)
				if !ok {
					break
				}
				if len(ev.Audio) != f(to).FrameBytes() {
					t.Fatalf("%d Hz: a frame of %d bytes", to, len(ev.Audio))
				}
			}
			if frames < 9 || ev.In != time.Duration(frames+heard)*codec.FrameTime {
				t.Errorf("%d Hz, after %d frames: %d frames, to %v", to, heard, frames, ev.In)
			}
		}
	}
}

// TestDigitsPaused: an agent that has paused still sends digits.
func TestDigitsPaused(t *testing.T) {
	p, _ := dialled(false)
	p.Push(0, ones(3))
	p.Pause(true)
	p.SendDigits(one, true)
	if got := drive(p, 0, time.Second); got != "tttttttt" {
		t.Errorf("%s", got)
	}
}

// TestClearKeepsTones: a clear after digits have been acknowledged does not take
// them back from the carrier.
func TestClearKeepsTones(t *testing.T) {
	p, told := dialled(false)
	p.SendDigits(one, true)
	got := drive(p, 0, 1) // all are with the carrier
	if acks(*told) != "d" {
		t.Fatal("not acknowledged")
	}
	p.Clear(10*time.Millisecond, agent.ClearByAgent, "c")
	p.Push(10*time.Millisecond, ones(1))
	got += " " + drive(p, 10*time.Millisecond, time.Second)
	p.Clear(2*time.Second, agent.ClearByAgent, "c")
	got += " " + drive(p, 2*time.Second, 3*time.Second)
	if got != "tttttttt a c" {
		t.Errorf("%s", got)
	}
}

// TestDigitsCost: long tones are not made before their time.
func TestDigitsCost(t *testing.T) {
	p, _ := dialled(false)
	long := Item{Digits: strings.Repeat("D", 64), Tone: 2 * time.Second, Gap: 2 * time.Second}
	bytes := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for p.SendDigits(long, true) {
		}
	}).MemBytes
	if bytes > 100<<10 {
		t.Errorf("%d bytes for tones that nobody hears yet", bytes)
	}
	if got := drive(p, 0, 8*time.Second); len(got) < 400 || strings.Trim(got, "ta") != "" {
		t.Errorf("%d frames in 8 s", len(got))
	}
}

// TestDigitsNativeOrder: digits go to the carrier one command after the other, and
// before the end.
func TestDigitsNativeOrder(t *testing.T) {
	p, _ := dialled(true)
	p.SendDigits(Item{Digits: "1"}, true)
	p.SendDigits(Item{Digits: "2"}, false)
	p.Hangup("", &calls.End{Cause: calls.AgentHangup})
	got := drive(p, 0, time.Second)
	if p.end != nil {
		t.Error("the call ended before the digits were sent")
	}
	p.signalling = false
	got += " " + drive(p, time.Second, 2*time.Second)
	p.signalling = false
	got += " " + drive(p, 2*time.Second, 3*time.Second)
	if got != "<1> <2> " || p.end == nil {
		t.Errorf("%s, end %v", got, p.end)
	}
}

// TestDigitsUnknown: digits that the carrier does not know become tones, and those
// after them wait for these.
func TestDigitsUnknown(t *testing.T) {
	p, _ := dialled(true)
	p.SendDigits(Item{Digits: "A", Tone: agent.DefaultTone, Gap: agent.DefaultToneGap}, true)
	p.SendDigits(Item{Digits: "5"}, true)
	got := drive(p, 0, time.Second)
	p.signalling = false // as signalDone does with errors.ErrUnsupported
	p.tones = append(p.tones, tones{Item: p.signalled})
	if got += " " + drive(p, time.Second, 2*time.Second); got != "<A> tttttttt<5>" {
		t.Errorf("%s", got)
	}
}

// TestHold: music in place of the agent, whose audio waits and goes on after it;
// tones still come through, and the music keeps to the lead.
func TestHold(t *testing.T) {
	p, told := dialled(false)
	p.Push(0, ones(3))
	p.Mark("end")
	if !p.Hold(make([]byte, 2*320+7)) || len(p.held) != 2*320 {
		t.Fatal("not held, or not by whole frames")
	}
	got := drive(p, 0, 1)
	p.SendDigits(one, true)
	got += " " + drive(p, 10*time.Millisecond, 200*time.Millisecond)
	if got != "tttttttt tttttttt"+"t" || acks(*told) != "d" { // music, then the digit, then music again
		t.Errorf("%s", got)
	}
	for _, ev := range *told {
		if ev.Kind == agent.EventMark {
			t.Error("the mark was reached on hold")
		}
	}
	p.Hold(nil)
	if got := drive(p, 200*time.Millisecond, 3*time.Second); got != "aaa" {
		t.Errorf("after it %s", got)
	}
	if h := p.Heard(3 * time.Second); h != 60*time.Millisecond || p.stats.Gaps != 0 {
		t.Errorf("heard %v, %d gaps", h, p.stats.Gaps)
	}
}

// TestTransferInLine: a transfer comes when what was said before it has been handed
// out, at once with a clear, and can be withdrawn.
func TestTransferInLine(t *testing.T) {
	p, _ := dialled(false)
	p.Push(0, ones(20))
	p.items = append(p.items, Item{at: p.pushed, ID: "t1", Transfer: &calls.TransferRequest{}},
		Item{at: p.pushed, ID: "t2", Transfer: &calls.TransferRequest{}})
	drive(p, 0, 100*time.Millisecond)
	if len(p.transfers) > 0 {
		t.Error("too early")
	}
	if !p.Cancel("t2") {
		t.Error("not withdrawn")
	}
	drive(p, 100*time.Millisecond, time.Second)
	if len(p.transfers) != 1 || p.transfers[0].ID != "t1" {
		t.Errorf("%+v", p.transfers)
	}
	p, _ = dialled(false)
	p.Push(0, ones(20))
	p.items = append(p.items, Item{at: p.pushed, ID: "t1", Transfer: &calls.TransferRequest{}})
	p.Clear(0, agent.ClearByAgent, "")
	if len(p.transfers) != 1 {
		t.Error("a clear does not let it fall due")
	}
}

// TestBehindDigits: digits that the carrier sends sound one command after the other; what stands
// behind them, said or asked for, waits until they have sounded, and so it does after a clear.
func TestBehindDigits(t *testing.T) {
	for _, clear := range []bool{false, true} {
		p, _ := dialled(true)
		p.SendDigits(Item{Digits: "1", Tone: agent.DefaultTone, Gap: agent.DefaultToneGap}, false)
		p.SendDigits(Item{Digits: "22", Tone: agent.DefaultTone, Gap: agent.DefaultToneGap}, false)
		p.Transfer(Item{Transfer: &calls.TransferRequest{}}, false)
		if !clear {
			p.Push(0, ones(1))
		}
		p.Hangup("", &calls.End{Cause: calls.AgentHangup})
		if clear {
			p.Clear(0, agent.ClearByAgent, "")
		}
		got := ""
		at := time.Duration(0)
		for ; at < 100*time.Millisecond; at += 10 * time.Millisecond { // each is confirmed soon
			got += drive(p, at, at+10*time.Millisecond)
			p.Confirm()
		}
		got += drive(p, at, 470*time.Millisecond) // three digits take 480 ms
		if !strings.HasSuffix(got, "<1><22>") || len(p.transfers) > 0 || p.end != nil {
			t.Errorf("clear %v: %s, %d transfers, end %v", clear, got, len(p.transfers), p.end)
		}
		got = drive(p, 470*time.Millisecond, time.Second)
		if want := map[bool]string{false: "a", true: ""}[clear]; got != want || len(p.transfers) != 1 || p.end == nil {
			t.Errorf("clear %v: after them %q, %d transfers, end %v", clear, got, len(p.transfers), p.end)
		}
	}
}
