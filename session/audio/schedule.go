package audio

import (
	"time"

	"voicebridge/codec"
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
}

// maxLag bounds how much the carrier is taken to be late.
const maxLag = 300 * time.Millisecond

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

// insert makes room for one frame that is not the agent's: it is handed out without a
// place on the timeline, so that the run seems to have begun a frame earlier, and the
// carrier runs dry a frame later.
func (s *schedule) insert(now time.Duration) {
	s.start(now)
	s.base -= int64(s.format.FrameSamples())
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

// playhead returns the position that the caller is estimated to have heard.
func (s *schedule) playhead(now time.Duration) int64 {
	if !s.run {
		s.high = s.taken
		return s.high
	}
	s.high = max(s.high, min(s.taken, s.base+s.samples(now-s.t0-s.lag)))
	return s.high
}

// Heard returns the playhead on the agent's timeline.
func (s *schedule) Heard(now time.Duration) time.Duration { return s.on(s.playhead(now)) }

// confirmed takes note that the carrier has played all up to a position. The time by
// which it is late is its own, or the network's: the least that was seen is believed
// at once, more only by and by.
func (s *schedule) confirmed(now time.Duration, at int64) {
	if !s.run || at <= s.base {
		return
	}
	late := min(max(0, now-(s.t0+s.duration(at-s.base))), maxLag)
	if late > s.lag {
		late = s.lag + (late-s.lag)/4
	}
	s.lag = late
}
