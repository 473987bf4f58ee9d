// Package promises is an agent that knows what docs/agent-protocol.md promises, and nothing of
// how the bridge keeps it: it notes what the agent does and is told, and says what does not fit
// with that and with what the caller has heard.
package promises

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"
)

// Rate is that of what the agent says, and of what the caller hears, in Hz: they must be the
// same, and nothing may change the samples on the way.
const Rate = 16000

const (
	// slot is how many samples carry one number: 10 ms.
	slot = Rate / 100
	// slots is how many numbers there are: more than any call has.
	slots = 30000
	// late is how far what the bridge tells of the playhead may be off: two frames.
	late = 40
	// stops is how much may still be heard after a clear: two frames, and one under way.
	stops = 60
	// held is how much the carrier may hold that it plays if it is let.
	held = 160
)

// Model is one call, seen by its agent. The zero value is ready.
type Model struct {
	// Away is how long what the bridge sends takes to the carrier.
	Away time.Duration
	// Began is when the carrier began to play, Slow by how much its clock is slow, in parts per
	// million. They must be known when something is told.
	Began time.Time
	Slow  int

	sent   int // samples
	said   []said
	moves  bool // the call is to be transferred
	byMute bool // what was not heard is taken back, since the agent is to listen only
	muted  *cut // the agent only listens
	marks  []mark
	cuts   []cut
	asked  []int      // samples that had been sent at each clear that is not answered yet
	ended  bool       // it has asked for the end of the call
	over   bool       // the end has been told
	digits string     // of the caller
	mu     sync.Mutex // of dials, and of faults while the call lasts
	dials  []dial
	rung   int // of dials, those that were dialled
	faults []string
}

// said is when the agent has said something, and how much it had said then, in samples.
type said struct {
	at    time.Time
	until int
}

type mark struct {
	name string
	at   int // samples before it
	when time.Time
}

// dial is digits that the agent has sent.
type dial struct {
	digits string
	behind int           // samples before them
	at     time.Duration // when the carrier got them
}

// cut is what was taken back: from what was heard to what had been sent, in ms. sure is how far
// the first may be off, at when the carrier gets to know. What came at the very moment at which
// it ended, up to most, may be taken back or not.
type cut struct {
	heard, sent, most, sure int
	at                      time.Duration
}

func (m *Model) fault(format string, args ...any) {
	m.faults = append(m.faults, fmt.Sprintf(format, args...))
}

func ms(samples int) int { return samples * 1000 / Rate }

// Say returns the next n samples that the agent says, each with the number of its place.
func (m *Model) Say(n int) (audio []byte) {
	for range n {
		audio = binary.LittleEndian.AppendUint16(audio, uint16(1+m.sent/slot))
		m.sent++
	}
	m.said = append(m.said, said{time.Now(), m.sent})
	return audio
}

// sentBy returns how much had been said at a time, in ms: without, and with what was said at that
// very moment.
func (m *Model) sentBy(at time.Time) (least, most int) {
	for _, s := range m.said {
		if s.at.Before(at) {
			least = ms(s.until)
		}
		if !s.at.After(at) {
			most = ms(s.until)
		}
	}
	return least, most
}

// carriers turns a time of ours into one of the carrier's playout.
func (m *Model) carriers(at time.Time) time.Duration {
	return at.Sub(m.Began) * 1e6 / time.Duration(1e6+m.Slow)
}

// Mark, Clear, Hangup and Transfer note what the agent asks for.
func (m *Model) Mark(name string) { m.marks = append(m.marks, mark{name, m.sent, time.Now()}) }
func (m *Model) Clear()           { m.asked = append(m.asked, m.sent) }
func (m *Model) Hangup()          { m.ended = true }
func (m *Model) Transfer()        { m.moves = true }

// Dial notes digits that the agent sends, each to sound for 100 ms with 60 ms behind it.
func (m *Model) Dial(digits string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dials = append(m.dials, dial{digits: digits, behind: m.sent})
}

// Dialled takes digits that the carrier has got, at that time of the call. It may be called while
// the agent goes on.
func (m *Model) Dialled(digits string, at time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.rung == len(m.dials) || m.dials[m.rung].digits != digits {
		m.fault("%s is dialled, of %v the first %d were", digits, m.dials, m.rung)
		return
	}
	m.dials[m.rung].at = at
	m.rung++
}

// Told takes a message of the bridge's, that came at that time.
func (m *Model) Told(msg map[string]any, at time.Time) {
	number := func(key string) int { v, _ := msg[key].(float64); return int(v) }
	text := func(key string) string { v, _ := msg[key].(string); return v }
	out := number("out_ms")
	if out > ms(m.sent) {
		m.fault("%s: %d ms are said to be heard of %d", text("type"), out, ms(m.sent))
	}
	switch text("type") {
	case "mark":
		m.answered(text("name"), text("status"), out)
	case "cleared":
		if _, told := msg["accuracy_ms"]; !told || number("accuracy_ms") < 0 {
			m.fault("cleared does not tell how sure it is: %v", msg)
		}
		sent := number("sent_ms")
		if d := number("discarded_ms") - (sent - out); d < -1 || d > 1 {
			m.fault("cleared: %d ms discarded of %d sent and %d heard", number("discarded_ms"), sent, out)
		}
		if least, most := m.clearedAt(text("cause"), at); sent < least || sent > most {
			m.fault("cleared tells %d ms sent, it was %d to %d", sent, least, most)
		}
		heard := m.carriers(at) + m.Away
		if m.muted != nil {
			heard = Forever // of what nobody hears, the playhead is at the end
		}
		m.cuts = append(m.cuts, cut{out, sent, sent, number("accuracy_ms"), heard})
	case "call":
		m.mute(text("state"), at)
	case "dtmf":
		m.digits += text("digit")
	case "error":
		m.fault("error: %v", msg)
	case "stop":
		m.marks = slices.DeleteFunc(m.marks, func(x mark) bool { return !x.when.Before(at) })
		if m.over = true; text("reason") != "agent_hangup" { // what was not heard yet is not heard any more
			least, most := m.sentBy(at)
			sure := held + 2*int(m.Away.Milliseconds()) // what the carrier had is lost
			m.cuts = append(m.cuts, cut{out, least, max(most, ms(m.sent)), sure, Forever})
			m.ended, m.asked = true, nil
		}
		if m.muted != nil {
			m.mute("agent_unmuted", at)
		}
	}
}

// Forever is a time that does not come.
const Forever = time.Duration(math.MaxInt64)

// clearedAt returns how much had been sent when a clear was that the bridge tells of.
func (m *Model) clearedAt(cause string, at time.Time) (least, most int) {
	switch {
	case cause == "agent_muted":
		least, most = m.sentBy(at)
		m.byMute = true
	case len(m.asked) == 0:
		m.fault("a clear that nobody asked for")
	default:
		least, m.asked = ms(m.asked[0]), m.asked[1:]
		most = least
	}
	return least, most
}

// mute takes note that the agent is not heard, or is again.
func (m *Model) mute(state string, at time.Time) {
	least, most := m.sentBy(at)
	switch {
	case state == "agent_muted":
		if !m.byMute {
			m.fault("the agent is muted, and what was not heard is not taken back")
			return
		}
		// What had come by then was taken back; what is under way since is not heard.
		m.muted = &cut{heard: m.cuts[len(m.cuts)-1].sent, at: Forever}
	case state == "agent_unmuted" && m.muted != nil:
		m.muted.sent, m.muted.most = least, most
		m.cuts, m.muted, m.byMute = append(m.cuts, *m.muted), nil, false
	}
}

// answered takes the answer to a mark.
func (m *Model) answered(name, status string, out int) {
	if len(m.marks) == 0 || m.marks[0].name != name {
		m.fault("mark %s is answered, open are %v", name, m.marks)
		return
	}
	at := ms(m.marks[0].at)
	m.marks = m.marks[1:]
	if status == "played" && out < at-late {
		m.fault("mark %s is played at %d ms, it stands at %d", name, out, at)
	}
	if status == "cleared" && len(m.asked) == 0 && !m.ended && !m.moves {
		m.fault("mark %s is cleared by nobody", name)
	}
}

// Check returns what does not fit, once the call is over, the caller has heard pcm and pressed
// these digits, or has meant to, had the call gone on.
func (m *Model) Check(pcm []int16, pressed string) []string {
	if !strings.HasPrefix(pressed, m.digits) {
		m.fault("the digits %s are told as %s", pressed, m.digits)
	}
	if !m.over {
		m.fault("no stop was told")
	}
	if len(m.marks) > 0 || len(m.asked) > 0 {
		m.fault("not answered: marks %v, %d clears", m.marks, len(m.asked))
	}
	m.positions(pcm)
	m.dialling(pcm)
	heard := make([]bool, slots)
	last := 0
	for i, v := range pcm {
		if v == 0 {
			continue
		}
		n := int(v) - 1
		if n < last {
			m.fault("at %d ms of the call, %d ms is heard after %d ms", ms(i), n*10, last*10)
			break
		}
		if n >= slots || n > m.sent/slot {
			m.fault("at %d ms, a sample that was never said: %d", ms(i), v)
			break
		}
		last, heard[n] = n, true
	}
	for n := 0; n <= (m.sent-1)/slot && m.sent > 0; n++ {
		if at := n * 10; heard[n] {
			for _, c := range m.cuts {
				if at > c.heard+stops+c.sure+int(m.Away.Milliseconds()) && at < c.sent-10 {
					m.fault("%d ms is heard, which a clear took back from %d to %d ms", at, c.heard, c.sent)
					return m.faults
				}
			}
		} else if !m.taken(at) {
			m.fault("%d ms is not heard, and no clear took it back: %v", at, m.cuts)
			return m.faults
		}
	}
	return m.faults
}

// positions compares what clears have told with what the caller had heard by then.
func (m *Model) positions(pcm []int16) {
	done, last := 0, 0
	for i, c := range m.cuts {
		if c.at == Forever {
			continue
		}
		for n := min(len(pcm), int(c.at.Milliseconds())*Rate/1000); done < n; done++ {
			if v := int(pcm[done]); v > 0 {
				last = v * 10
			}
		}
		if i > 0 {
			last = max(last, m.cuts[i-1].most)
		}
		if off := c.heard - last; off < -c.sure-late/2 || off > c.sure+late/2 {
			m.fault("cleared at %v: %d ms are heard, told as %d, sure to %d", c.at, last, c.heard, c.sure)
		}
	}
}

// dialling checks that digits come behind what was said before them, and before what was said
// behind them, but where a clear has let them go.
func (m *Model) dialling(pcm []int16) {
	if m.rung != len(m.dials) {
		m.fault("of the dialling of %v only %d were", m.dials, m.rung)
	}
	for _, d := range m.dials[:m.rung] {
		behind := ms(d.behind)
		cut := func(c cut) bool { return c.sent >= behind && c.heard-c.sure < behind }
		if slices.ContainsFunc(m.cuts, cut) {
			continue
		}
		sounds := d.at + time.Duration(len(d.digits))*160*time.Millisecond
		for i, v := range pcm {
			at := time.Duration(i) * time.Second / Rate
			switch place := (int(v) - 1) * 10; {
			case v == 0:
			case at > d.at+late*time.Millisecond && place+10 < behind:
				m.fault("at %v %d ms is heard, %s was dialled at %v, behind %d ms", at, place, d.digits, d.at,
					behind)
				return
			case at < sounds-late*time.Millisecond && place > behind+late/2: // after the frame that they stand in
				m.fault("at %v %d ms is heard, %s sounds from %v to %v, behind %d ms", at, place, d.digits, d.at,
					sounds, behind)
				return
			}
		}
	}
}

// taken reports whether a clear has taken a place back.
func (m *Model) taken(at int) bool {
	for _, c := range m.cuts {
		if at >= c.heard-late-c.sure && at <= c.most {
			return true
		}
	}
	return false
}
