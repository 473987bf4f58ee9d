package audio

import "time"

// Stats count what happened in a session. Durations are of audio.
type Stats struct {
	FramesIn    uint64 // audio messages from the carrier
	Missing     uint64 // audio messages that the carrier's numbering says were lost
	Digits      uint64
	Malformed   uint64 // messages from the carrier that made no sense
	Unknown     uint64 // messages from the carrier without meaning for us
	LateMarks   uint64 // marks of the carrier's that were no longer waited for
	AgentFrames uint64 // frames sent to the agent, silence included

	Filled  time.Duration // silence sent to the agent while the carrier sent nothing
	Dropped time.Duration // caller audio that a slow agent did not get

	AgentAudio time.Duration // audio received from the agent
	Overflow   time.Duration // of it, discarded because the queue was full
	Commands   uint64        // from the agent
	Faults     uint64        // commands and messages of the agent's that were refused
	Ignored    uint64        // messages of the agent's of an unknown type
	FramesOut  uint64        // frames sent to the carrier
	Marks      uint64
	Clears     uint64

	Gaps    uint64        // times the caller heard a hole in the middle of speech
	GapTime time.Duration // their length

	// In is the time from the arrival of a caller frame to its delivery to the
	// agent, Out from the arrival of agent audio that can be played at once to
	// its delivery to the carrier. Both without the filters' delay.
	In, Out Delays
}

// Delays is a histogram of durations.
type Delays struct {
	Counts [len(DelayBounds) + 1]uint64 // the last one is of those beyond all bounds
	Sum    time.Duration
}

// DelayBounds are the upper bounds of the classes of Delays.
var DelayBounds = [...]time.Duration{
	100 * time.Microsecond, 200 * time.Microsecond, 500 * time.Microsecond,
	1 * time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond,
	15 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond,
	200 * time.Millisecond, 500 * time.Millisecond, 1 * time.Second,
}

// Add counts a duration.
func (d *Delays) Add(v time.Duration) {
	i := 0
	for i < len(DelayBounds) && v > DelayBounds[i] {
		i++
	}
	d.Counts[i]++
	d.Sum += v
}

// Count is how many durations were added.
func (d *Delays) Count() (n uint64) {
	for _, c := range d.Counts {
		n += c
	}
	return n
}

// Quantile is the upper bound of the class that holds the quantile q, 0 to 1.
func (d *Delays) Quantile(q float64) time.Duration {
	rank := uint64(q * float64(d.Count()))
	for i, c := range d.Counts {
		if rank < c {
			return DelayBounds[min(i, len(DelayBounds)-1)]
		}
		rank -= c
	}
	return 0
}

// Add adds the numbers of another session.
func (s *Stats) Add(o *Stats) {
	s.FramesIn += o.FramesIn
	s.Missing += o.Missing
	s.Digits += o.Digits
	s.Malformed += o.Malformed
	s.Unknown += o.Unknown
	s.LateMarks += o.LateMarks
	s.AgentFrames += o.AgentFrames
	s.Filled += o.Filled
	s.Dropped += o.Dropped
	s.AgentAudio += o.AgentAudio
	s.Overflow += o.Overflow
	s.Commands += o.Commands
	s.Faults += o.Faults
	s.Ignored += o.Ignored
	s.FramesOut += o.FramesOut
	s.Marks += o.Marks
	s.Clears += o.Clears
	s.Gaps += o.Gaps
	s.GapTime += o.GapTime
	s.In.merge(&o.In)
	s.Out.merge(&o.Out)
}

func (d *Delays) merge(o *Delays) {
	for i := range d.Counts {
		d.Counts[i] += o.Counts[i]
	}
	d.Sum += o.Sum
}
