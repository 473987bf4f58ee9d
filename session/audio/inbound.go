package audio

import (
	"bytes"
	"math"
	"time"

	"voicebridge/agent"
	"voicebridge/codec"
	"voicebridge/session/timing"
)

// Inbound is the caller's audio on its way to the agent: transcoded, cut into
// frames of 20 ms, held for as long as the agent is slow up to a bound, and kept
// going with silence when the carrier sends nothing, so that the agent can take
// it as a clock. It has no clock of its own: times are given, counted from the
// start of the session.
type Inbound struct {
	stats *Stats
	limit int // frames held for a slow agent
	from  codec.Format
	to    codec.Format
	frame int // bytes
	tc    *codec.Transcoder
	queue fifo
	// source is what has come, in the carrier's format, before the agent got anything.
	source fifo
	times  []time.Duration // arrival of each whole frame in queue

	sent  time.Duration // audio delivered to the agent, reported gaps included
	gap   time.Duration // audio dropped since the last report
	lost  time.Duration // audio that the carrier has lost, and that was not filled in, since the last report
	begun bool
	zero  time.Duration // when the first audio began
	last  time.Duration // when audio last came
	debt  time.Duration // silence inserted for audio that may only be late
	taken time.Duration // arrival of the frame that next returned last

	clock timing.Clock
	watch time.Duration // when the time by which the agent's clock is behind was last looked at
	least time.Duration // the least of it since
	floor int32         // the caller's background noise, as the peak of its softest frames
}

const (
	// fillAfter is how long nothing must have come before silence is inserted.
	// Anything shorter is late, not lost, and will come as a burst.
	fillAfter = 200 * time.Millisecond
	// behindMost is how far the agent's clock may be behind all of a watchTime although audio
	// comes: what is missing then is not late, but lost, be it little by little.
	behindMost = 100 * time.Millisecond
	watchTime  = time.Second
	// aheadMost is how far ahead the clock may be of a carrier whose own is fast.
	aheadMost = 60 * time.Millisecond
	// noiseMost is the loudest background noise that may be left out: -20 dBFS.
	noiseMost = 3277
)

// NewInbound makes one that holds at most so much for a slow agent.
func NewInbound(from, to codec.Format, limit time.Duration, stats *Stats) Inbound {
	return Inbound{
		stats: stats,
		limit: int(limit / codec.FrameTime),
		from:  from,
		to:    to,
		frame: to.FrameBytes(),
		tc:    codec.NewTranscoder(from, to),
	}
}

// Retune goes on with another format for the agent: what waits is made anew, from what came where no agent has
// got anything yet.
func (in *Inbound) Retune(to codec.Format) {
	if to == in.to {
		return
	}
	waits, tc := in.source.bytes(), codec.NewTranscoder(in.from, to)
	in.tc = tc
	if in.sent > 0 {
		waits, tc = bytes.Clone(in.queue.bytes()), codec.NewTranscoder(in.to, to)
	}
	in.to, in.frame = to, to.FrameBytes()
	in.queue.reset()
	in.queue.grow(func(b []byte) []byte { return tc.Append(b, waits) })
	frames := in.queue.len() / in.frame
	for len(in.times) < frames && len(in.times) > 0 {
		in.times = append(in.times, in.times[len(in.times)-1])
	}
	in.times = in.times[:min(frames, len(in.times))]
}

// keep keeps what came until the agent has got something: its format may change before.
func (in *Inbound) keep(add func(b []byte) []byte) {
	if in.sent > 0 {
		return
	}
	in.source.grow(add)
	if n := in.source.len() - in.limit*in.from.FrameBytes(); n > 0 {
		in.source.drop(n)
	}
}

// Push takes a message from the carrier.
func (in *Inbound) Push(now time.Duration, payload []byte, missing int) {
	in.stats.FramesIn++
	in.stats.Missing += uint64(missing)
	length := in.from.Duration(len(payload))
	if !in.begun {
		in.begun, in.zero = true, now-length
	}
	in.last = now
	in.clock.Tick(now, length)
	in.replace(now, missing, length)
	before := in.queue.len()
	in.keep(func(b []byte) []byte { return append(b, payload...) })
	in.queue.grow(func(b []byte) []byte { return in.tc.Append(b, payload) })
	calm := in.quietSince(before) // looks at all frames: it learns what quiet is
	if calm && (in.debt > 0 && in.ahead(now, codec.FrameTime) || in.ahead(now, aheadMost)) {
		in.queue.truncate(before)
		in.debt = max(0, in.debt-length)
	}
	in.arrived(now)
	in.keepTime(now)
}

// keepTime puts silence where audio has been lost without a word of the carrier: the agent counts
// the time by what it gets.
func (in *Inbound) keepTime(now time.Duration) {
	in.least = min(in.least, now-in.zero-in.given())
	if now < in.watch+watchTime {
		return
	}
	if behind := in.least; in.watch > 0 && behind > behindMost {
		in.fill(now, behind)
		in.debt += behind // it may come after all
	}
	in.watch, in.least = now, time.Duration(math.MaxInt64)
}

// fill puts so much silence into the queue, as far as it takes it; the rest is told as lost.
func (in *Inbound) fill(now, d time.Duration) {
	room := time.Duration(in.limit-1-len(in.times)) * codec.FrameTime
	fits := max(0, min(d, room))
	in.silence(now, fits)
	in.lost += (d - fits) / codec.FrameTime * codec.FrameTime
}

// replace puts silence where the carrier says that messages were lost: no more
// than there was time for, than has not been filled in already, and than the
// agent's queue takes.
func (in *Inbound) replace(now time.Duration, missing int, length time.Duration) {
	if missing == 0 || length <= 0 {
		return
	}
	d := now - length - in.zero - in.given() // there was time for
	if d <= 0 {
		return
	}
	if int64(missing) < int64(d/length)+1 {
		d = min(d, time.Duration(missing)*length)
	}
	repaid := min(d, in.debt)
	in.debt -= repaid
	in.fill(now, d-repaid)
}

// given returns how much audio the agent has got or will get.
func (in *Inbound) given() time.Duration {
	return in.sent + in.gap + in.lost + time.Duration(in.queue.len())*codec.FrameTime/time.Duration(in.frame)
}

// ahead reports whether the agent has been given so much more audio than time has passed.
func (in *Inbound) ahead(now, by time.Duration) bool { return in.given() > now-in.zero+by }

// quietSince reports whether nothing but the caller's background noise can be heard in what is
// queued behind n bytes. What that is like is learnt from the softest frames of the last second
// or two.
func (in *Inbound) quietSince(n int) bool {
	peak := peakOf(in.to, in.queue.bytes()[n:])
	if in.floor += in.floor/64 + 1; peak < in.floor {
		in.floor = peak
	}
	return peak <= quiet || peak <= noiseMost && peak <= in.floor*3/2
}

func (in *Inbound) silence(now, d time.Duration) {
	if d <= 0 {
		return
	}
	samples := int(d * time.Duration(in.from.Rate) / time.Second)
	in.keep(func(b []byte) []byte {
		return in.from.Encoding.AppendSilence(b, samples*in.from.Encoding.SampleBytes())
	})
	in.queue.grow(func(b []byte) []byte { return in.tc.AppendSilence(b, samples) })
	in.arrived(now)
}

// arrived notes the time of the frames that are now whole, and drops the oldest
// beyond the limit: what an agent hears late should still be fresh.
func (in *Inbound) arrived(now time.Duration) {
	for len(in.times) < in.queue.len()/in.frame {
		in.times = append(in.times, now)
	}
	if n := len(in.times) - in.limit; n > 0 {
		in.queue.drop(n * in.frame)
		in.times = in.times[:copy(in.times, in.times[n:])]
		in.gap += time.Duration(n) * codec.FrameTime
		in.stats.Dropped += time.Duration(n) * codec.FrameTime
	}
}

// Next returns what is to be sent to the agent now: a gap report, or a frame into
// buf. ok is false where there is nothing before the time wait.
func (in *Inbound) Next(now time.Duration, buf []byte, ev *agent.Event) (ok bool, wait time.Duration) {
	if in.gap > 0 {
		in.sent += in.gap
		*ev = agent.Event{Kind: agent.EventGap, Duration: in.gap, GapCause: agent.GapSlowReader, In: in.sent}
		in.gap = 0
		return true, 0
	}
	if in.lost > 0 {
		in.sent += in.lost
		*ev = agent.Event{Kind: agent.EventGap, Duration: in.lost, GapCause: agent.GapLost, In: in.sent}
		in.lost = 0
		return true, 0
	}
	if len(in.times) == 0 {
		if !in.begun {
			return false, Forever
		}
		// Silence is due where nothing has come for a while and the agent has
		// been given less than the time that has passed since.
		due := max(in.last+fillAfter, in.zero+in.sent+fillAfter)
		if now < due {
			return false, due
		}
		in.silence(now, codec.FrameTime)
		in.stats.Filled += codec.FrameTime
		in.debt += codec.FrameTime
		if len(in.times) == 0 {
			return false, now + codec.FrameTime
		}
	}
	in.sent += codec.FrameTime
	in.source = fifo{}
	in.stats.AgentFrames++
	*ev = agent.Event{Kind: agent.EventAudio, Audio: in.queue.take(buf, in.frame), In: in.sent}
	in.taken = in.times[0]
	in.times = in.times[:copy(in.times, in.times[1:])]
	return true, 0
}

// Sent is how much audio the agent has got, reported gaps included.
func (in *Inbound) Sent() time.Duration { return in.sent }

// Taken is when the frame came that Next returned last.
func (in *Inbound) Taken() time.Duration { return in.taken }

// Stalled reports whether what the carrier sends is later at this moment than it was before.
func (in *Inbound) Stalled(now time.Duration) bool { return in.clock.Stalled(now) }

// Behind is how much longer the carrier's time has taken than ours: see timing.Clock.
func (in *Inbound) Behind() time.Duration { return in.clock.Behind() }
