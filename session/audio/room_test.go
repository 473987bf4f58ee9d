package audio

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"

	"voicebridge/agent"
	"voicebridge/calls"
	"voicebridge/codec"
	"voicebridge/providers"
)

// meeting is a rig with a party in it, which says a level that counts its frames.
type meeting struct {
	*rig
	room  *Room
	said  int             // frames of the party's
	steps []time.Duration // when each frame was said
}

// level is what the party says in its n-th frame: loud, and its own.
func level(n int) int16 { return int16(1000 + 10*(n%1000)) }

func newMeeting(t *testing.T, mute bool) *meeting {
	r := newRig(t, nil)
	f := codec.Format{Encoding: codec.L16LE, Rate: 8000}
	in := NewInbound(f, f, 400*ms, &Stats{})
	m := &meeting{rig: r}
	m.room = NewRoom(r.now, &in, &r.p, mute)
	// The party's rate is that of the call here, so that its samples can be followed.
	m.room.partyToCaller = codec.NewTranscoder(f, f)
	return m
}

// talk has the party say a frame every 20 ms up to a time.
func (m *meeting) talk(end time.Duration) {
	m.t.Helper()
	for m.now < end && m.p.end == nil {
		frame := make([]byte, 0, 320)
		for range 160 {
			frame = binary.LittleEndian.AppendUint16(frame, uint16(level(m.said)))
		}
		m.steps = append(m.steps, m.now)
		m.said++
		m.room.out.party.live(m.p.format, func(b []byte) []byte { return append(b, frame...) })
		m.until(m.now + 20*ms)
	}
}

// heard is which frames of the party's were heard in what was sent, and when; the agent said
// nothing meanwhile, or silence.
func (m *meeting) heard() (numbers []int) {
	for at := 0; at+320 <= len(m.sent); at += 320 {
		v := int16(binary.LittleEndian.Uint16(m.sent[at:]))
		numbers = append(numbers, int(v-1000)/10)
	}
	return numbers
}

// TestPartyTail: what the agent says ends although the party goes on speaking: its odd last frame
// is played, its mark answered, its hang-up carried out, and its end told.
func TestPartyTail(t *testing.T) {
	m := newMeeting(t, false)
	begin := m.now
	m.talk(begin + 200*ms)
	m.p.Push(m.now, make([]byte, 16*1010)) // 1,010 ms
	m.p.Mark("last")
	m.talk(begin + 1600*ms)
	if got := m.rig.said(agent.EventMark, agent.EventPlayback); got != "started, last played, idle" {
		t.Errorf("told: %s", got)
	}
	m.p.Push(m.now, make([]byte, 16*30))
	m.p.Hangup("h", &calls.End{Cause: calls.AgentHangup})
	m.talk(m.now + 400*ms)
	if m.p.end == nil {
		t.Error("the hang-up is not carried out")
	}
}

// TestPartyBurst: an answer that comes in one burst neither delays the party nor makes holes in
// what it says, and a clear takes hardly any of it along.
func TestPartyBurst(t *testing.T) {
	m := newMeeting(t, false)
	begin := m.now
	m.talk(begin + 500*ms)
	m.p.Push(m.now, make([]byte, 16*4000))
	m.talk(begin + 1500*ms)
	m.p.Clear(m.now, agent.ClearByAgent, "")
	m.talk(begin + 2500*ms)
	numbers := m.heard()
	missing, twice := 0, 0
	for i := 1; i < len(numbers); i++ {
		switch d := numbers[i] - numbers[i-1]; {
		case d > 1:
			missing += d - 1
		case d < 1:
			twice++
		}
	}
	if missing > 0 || twice > 0 || m.holes > 0 {
		t.Errorf("%d of the party's frames are missing, %d come twice, %d holes: %v", missing, twice, m.holes, numbers)
	}
	// Each frame left the bridge soon after it was said.
	for i, at := range m.frames {
		if i < len(numbers) {
			if late := at - m.steps[numbers[i]]; late > 60*ms {
				t.Fatalf("frame %d of the party's was sent %v after it was said", numbers[i], late)
			}
		}
	}
	if m.most > partyLead {
		t.Errorf("the carrier held %v", m.most)
	}
}

// TestPartyCatchesUp: what made the party late, digits here, is caught up with in its pauses.
func TestPartyCatchesUp(t *testing.T) {
	m := newMeeting(t, false)
	begin := m.now
	m.talk(begin + 300*ms)
	m.p.SendDigits(Item{Digits: "12", Tone: 100 * ms, Gap: 50 * ms}, true)
	m.talk(begin + 1000*ms)
	before := m.p.party.len()
	for range 20 { // 400 ms of silence
		m.room.out.party.live(m.p.format, func(b []byte) []byte { return append(b, make([]byte, 320)...) })
		m.until(m.now + 20*ms)
	}
	if after := m.p.party.len(); before < 6*320 || after > 4*320 {
		t.Errorf("%d frames waited, %d after a pause", before/320, after/320)
	}
}

// TestPartyMute: an agent that only listens from now on is not heard any more, whatever it has
// said before, and is told so.
func TestPartyMute(t *testing.T) {
	r := newRig(t, nil)
	r.p.Push(r.now, ramp(1, 4*time.Second))
	r.p.Mark("m")
	r.until(r.now + 200*ms)
	in := NewInbound(r.p.format, r.p.format, 400*ms, &Stats{})
	NewRoom(r.now, &in, &r.p, true)
	sent := len(r.sent)
	r.p.Push(r.now, ramp(1, time.Second))
	r.until(r.now + 5*time.Second)
	if got := r.said(agent.EventMark, agent.EventCleared); got != "m cleared, agent_muted" || len(r.sent) != sent {
		t.Errorf("told %s, %d bytes are still sent", got, len(r.sent)-sent)
	}
	if r.commands[len(r.commands)-1].Kind != providers.CommandClear {
		t.Error("the carrier still plays what it has")
	}
}

// TestPartyCleared: what the agent has taken back is taken back from the party, too.
func TestPartyCleared(t *testing.T) {
	m := newMeeting(t, false)
	m.p.Push(m.now, ramp(1, time.Second))
	m.until(m.now + 100*ms)
	if m.room.agentSaid.len() == 0 {
		t.Fatal("the party hears nothing of the agent")
	}
	m.p.Clear(m.now, agent.ClearByAgent, "")
	if n := m.room.agentSaid.len(); n > 0 {
		t.Errorf("%d bytes of what was taken back are still to be heard", n)
	}
}

// TestLive: audio that must not be late is late by no more than the bound, and less after a pause.
func TestLive(t *testing.T) {
	r := newRig(t, func(s *Settings) { s.Live = 200 * ms })
	r.p.Push(r.now, ramp(1, 100*ms))
	r.until(r.now + 2*time.Second)
	r.p.Push(r.now, ramp(1, 2*time.Second)) // what a stall has held up
	if waits := r.p.duration(r.p.pushed - r.p.taken); waits > 200*ms {
		t.Errorf("%v wait after a stall", waits)
	}
	loud := ramp(20000, 20*ms)
	for range 10 {
		r.p.Push(r.now, loud)
		r.until(r.now + 20*ms)
	}
	for range 20 {
		r.p.Push(r.now, make([]byte, 320))
		r.until(r.now + 20*ms)
	}
	if waits := r.p.duration(r.p.pushed - r.p.taken); waits > 80*ms {
		t.Errorf("%v wait after a pause", waits)
	}
}

// TestPartyHistories: whatever the agent does, the party is heard whole, in order and not late, and
// what the agent has asked for is done.
func TestPartyHistories(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 3))
		m := newMeeting(t, false)
		begin := m.now
		m.talk(begin + 200*ms)
		marks := 0
		for range 3 + rng.IntN(12) {
			switch rng.IntN(6) {
			case 0, 1: // silence, so that the party's numbers can be read
				m.p.Push(m.now, make([]byte, 2*(1+rng.IntN(16000))))
			case 2:
				marks++
				m.p.Mark("m")
			case 3:
				m.p.Clear(m.now, agent.ClearByAgent, "")
			case 4:
				m.p.Pause(rng.IntN(2) == 0)
			case 5:
				m.talk(m.now + time.Duration(rng.IntN(800))*ms)
			}
		}
		m.p.Pause(false)
		asked := m.now
		m.p.Hangup("h", &calls.End{Cause: calls.AgentHangup})
		left := m.p.duration(m.p.pushed - m.p.taken)
		m.talk(m.now + left + time.Second)
		if m.p.end == nil {
			t.Fatalf("seed %d: %v after the hang-up, behind %v of audio, it is not carried out", seed, m.now-asked, left)
		}
		answered := 0
		for _, ev := range m.events {
			if ev.Kind == agent.EventMark {
				answered++
			}
		}
		if answered != marks {
			t.Errorf("seed %d: %d of %d marks are answered", seed, answered, marks)
		}
		numbers := m.heard()
		for i := 1; i < len(numbers); i++ {
			if numbers[i] != numbers[i-1]+1 {
				t.Fatalf("seed %d: after the party's frame %d comes %d: %v", seed, numbers[i-1], numbers[i], numbers)
			}
			if late := m.frames[i] - m.steps[numbers[i]]; late > 80*ms {
				t.Fatalf("seed %d: frame %d was sent %v after it was said", seed, numbers[i], late)
			}
		}
	}
}
