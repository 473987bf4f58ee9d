package audio

import (
	"time"

	"voicebridge/codec"
)

// timeline maps positions in what the carrier is given to the agent's own audio.
//
// A position counts samples of the carrier's rate from the start of the call. The
// agent counts what it has sent, at its own rate. The two run apart where audio is
// padded, or discarded: there a new segment begins.
type timeline struct {
	format codec.Format // the carrier's
	agent  codec.Format // what the agent speaks

	pushed   int64     // position behind the last sample that waits here
	taken    int64     // position behind the last sample handed to the carrier
	received int64     // samples of agent audio received, at the agent's rate
	segments []segment // positions where the agent's timeline jumps
	jump     bool      // the next audio begins a segment
}

// segment maps positions to the agent's timeline: sample at of the carrier's is
// sample from of the agent's, and so on up to the next segment. What lies
// between is padding, or was discarded.
type segment struct{ at, from int64 }

// samples returns how many of the carrier's last so long.
func (t *timeline) samples(d time.Duration) int64 {
	return int64(d) * int64(t.format.Rate) / int64(time.Second)
}

// duration returns how long so many samples of the carrier's last.
func (t *timeline) duration(samples int64) time.Duration {
	return time.Duration(samples) * time.Second / time.Duration(t.format.Rate)
}

// toAgent converts a number of samples to the agent's rate.
func (t *timeline) toAgent(n int64) int64 { return n * int64(t.agent.Rate) / int64(t.format.Rate) }

// agentTime returns how long so many samples of the agent's last.
func (t *timeline) agentTime(samples int64) time.Duration {
	return time.Duration(samples) * time.Second / time.Duration(t.agent.Rate)
}

// sent returns how much audio the agent has sent.
func (t *timeline) sent() time.Duration { return t.agentTime(t.received) }

// retune counts in samples of another format of the agent's from now on.
func (t *timeline) retune(from codec.Format) {
	scaled := func(n int64) int64 { return n * int64(from.Rate) / int64(t.agent.Rate) }
	t.received = scaled(t.received)
	for i := range t.segments {
		t.segments[i].from = scaled(t.segments[i].from)
	}
	t.agent = from
}

// begin notes that audio follows which begins a segment, if it does.
func (t *timeline) begin() {
	if t.jump {
		t.segments = append(t.segments, segment{t.pushed, t.received})
		t.jump = false
	}
}

// discard forgets what waits: the next audio begins a segment.
func (t *timeline) discard() {
	t.pushed = t.taken
	t.segments, t.jump = t.segments[:0], true
}

// on returns a position on the agent's timeline. Positions asked for never go back.
func (t *timeline) on(at int64) time.Duration {
	for len(t.segments) > 1 && t.segments[1].at <= at {
		t.segments = t.segments[:copy(t.segments, t.segments[1:])]
	}
	if len(t.segments) == 0 || at == t.pushed {
		return t.sent()
	}
	next := t.received
	if len(t.segments) > 1 {
		next = t.segments[1].from
	}
	s := t.segments[0]
	return t.agentTime(min(max(s.from, s.from+t.toAgent(at-s.at)), next))
}
