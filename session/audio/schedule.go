package audio

import (
	"time"

	"voicebridge/codec"
	"voicebridge/session/timing"
)

// schedule says when frames go out to the carrier, by lead on an absolute clock: a run
// begins when audio goes out after silence, at time t0, and its n-th frame is due at
// t0 + (n+1)*20 ms - lead. So the carrier holds a lead of audio at most, the error of
// one tick does not add up, and a clear has little to take back. The run begins anew
// when the carrier has run dry.
type schedule struct {
	timeline
	lead  time.Duration // audio that the carrier holds ahead of time
	slack time.Duration // how late a frame of a run may go out where nothing else calls for it

	run  bool
	t0   time.Duration // when the run began
	base int64         // position at t0
	lag  time.Duration // how much later than expected the carrier plays what it has got
	high int64         // the furthest playhead: it never goes back
	mine uint64        // which of the last frames that the carrier got are the agent's: a bit each

	followed time.Duration // see Follow

	trips timing.Lately // of marks to the carrier and back, with nothing before them
	lates timing.Lately // by which other marks were late, the trip included
}

const (
	// maxLag bounds how much the carrier is taken to be late.
	maxLag = 300 * time.Millisecond
	// idleTime is how long the carrier must have been dry for a mark to measure the trip alone.
	idleTime = 500 * time.Millisecond
	// unmeasured is how late a carrier may be that has told nothing lately: what they buffer.
	unmeasured = 120 * time.Millisecond
)

// idle reports whether the carrier has had nothing to play for a while.
func (s *schedule) idle(now time.Duration) bool { return !s.run || now > s.dry()+s.lag+idleTime }

// dry returns when the carrier has played, or will have played, all that it was given.
func (s *schedule) dry() time.Duration { return s.t0 + s.duration(s.taken-s.base) }

// playing reports whether the carrier still has something to play.
func (s *schedule) playing(now time.Duration) bool { return s.run && now <= s.dry() }

// start begins a run, unless one goes on.
func (s *schedule) start(now time.Duration) {
	if !s.playing(now) {
		s.run, s.t0, s.base = true, now, s.taken
	}
}

// hand takes note of a frame of the agent's that the carrier gets.
func (s *schedule) hand(now time.Duration) {
	s.start(now)
	s.taken += int64(s.format.FrameSamples())
	s.mine = s.mine<<1 | 1
}

// insert makes room for one frame that is not the agent's: it is handed out without a
// place on the timeline, so that the run seems to have begun a frame earlier, and the
// carrier runs dry a frame later.
func (s *schedule) insert(now time.Duration) {
	s.start(now)
	s.base -= int64(s.format.FrameSamples())
	s.mine <<= 1
}

// due returns when the next frame of a run is to be sent.
func (s *schedule) due() time.Duration { return s.dry() - s.lead + codec.FrameTime }

// latest returns when a frame must go out that is due: one of a run has the slack.
func (s *schedule) latest(now, due time.Duration) time.Duration {
	if s.playing(now) {
		return due + s.slack
	}
	return due
}

// playhead returns the position that the caller is estimated to have heard: without those of the
// agent's frames that the carrier still has.
func (s *schedule) playhead(now time.Duration) int64 {
	left := int64(0)
	if s.run {
		left = max(0, s.samples(s.dry()+s.lag-now))
	}
	frame := int64(s.format.FrameSamples())
	head := s.taken
	for mine := s.mine; left > 0 && mine != 0; mine >>= 1 {
		if mine&1 == 1 {
			head -= min(left, frame)
		}
		left -= frame
	}
	s.high = max(s.high, head)
	return s.high
}

// Heard returns the playhead on the agent's timeline.
func (s *schedule) Heard(now time.Duration) time.Duration { return s.on(s.playhead(now)) }

// accuracy is how far the playhead may be from what the caller has heard: by a frame where the
// carrier's marks agree, by more where they do not, where no two marks at different times have told
// the trip alone, and where none came lately.
func (s *schedule) accuracy(now time.Duration) time.Duration {
	if s.idle(now) {
		return 0 // all of it has been heard
	}
	off := unmeasured
	if least, most, measured := s.lates.Within(now); measured {
		off = most - least + (s.late(now, least) - s.lag).Abs()   // it is believed by and by
		if _, apart := s.lates.Apart(); apart < timing.LookTime { // another utterance may be late by more
			off = max(off, unmeasured)
		}
	}
	switch trip, apart := s.trips.Apart(); {
	case !s.trips.Any():
		off += s.lag
	case apart < timing.LookTime: // it may be one stall that they tell of
		off += trip
	}
	return off + codec.FrameTime
}

// confirmed takes note that the carrier has played what it should have by the time due. The time by
// which it is late is its own, but for the trip back of what tells so. The least that was
// measured lately is believed at once, more than before only by and by.
func (s *schedule) confirmed(now, due time.Duration) {
	s.lates.Add(now, now-due)
	least := s.late(now, s.lates.Least(now))
	if least > s.lag {
		least = s.lag + (least-s.lag)/4
	}
	s.lag = least
}

// late is the part of the carrier in the time by which a mark was late.
func (s *schedule) late(now, mark time.Duration) time.Duration {
	return min(max(0, mark-s.trips.Least(now)), maxLag)
}

// Follow keeps the schedule on the carrier's clock, which is so much behind ours.
func (s *schedule) Follow(behind time.Duration) {
	if s.run {
		s.t0 += behind - s.followed
	}
	s.followed = behind
}
