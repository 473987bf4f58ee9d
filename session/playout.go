package session

import (
	"math"
	"time"

	"voicebridge/codec"
	"voicebridge/providers"
)

// playout is the agent's audio on its way to the caller. It holds what the agent
// has said, already encoded for the carrier, and says what to send when.
//
// Frames go out by lead on an absolute schedule: a run begins when audio goes
// out after silence, at time t0, and its n-th frame is due at t0 + (n+1)*20 ms -
// lead. So the carrier holds a lead of audio at most, the error of one tick does
// not add up, and a clear has little to take back. The run begins anew when the
// carrier has run dry.
//
// Positions count samples of the carrier's rate from the start of the call.
// playout has no clock of its own: times are given, from the start of the
// session.
type playout struct {
	stats     *Stats
	tell      func(AgentEvent) // queues an event for the agent
	can       providers.Abilities
	format    codec.Format // the carrier's
	agent     codec.Format
	frame     int   // bytes of a frame
	step      int64 // samples of a frame
	limit     int64 // samples
	lead      time.Duration
	slack     time.Duration // how late a frame of a run may go out where nothing else calls for it
	prebuffer time.Duration
	native    bool // the carrier sends digits, they are not tones in the audio

	tc     *codec.Transcoder
	queue  fifo
	pushed int64 // position behind the last sample in queue
	taken  int64 // position behind the last sample handed to the carrier
	tail   bool  // the transcoder holds the end of the audio back
	padded bool  // the last frame in queue ends in padding
	came   time.Duration
	first  time.Duration // when the first audio after idle came

	half     []byte    // the first byte of a sample that was split
	received int64     // samples of agent audio received, at the agent's rate
	segments []segment // positions where the agent's timeline jumps
	jump     bool      // the next audio begins a segment

	run     bool
	fresh   bool          // what comes next begins an utterance: silence before it is no hole
	padding time.Duration // silence that was added since the last frame without
	t0      time.Duration
	base    int64         // position at t0
	lag     time.Duration // how much later than expected the carrier played the last mark
	high    int64         // the furthest playhead: it never goes back

	items      []item        // waiting to be reached by taken
	inflight   []item        // sent to the carrier or waiting for the playhead
	serial     uint64        // of the last mark sent
	generation uint64        // of clears: marks of an older one are not ours any more
	tones      []tones       // digits under way as audio
	toned      time.Duration // until when the carrier plays those it has got
	signals    []item        // digits that the carrier is to send
	signalled  item          // the last of them that was given out
	signalling bool          // the carrier is still to confirm it
	held       []byte        // what the caller hears instead of the agent, over and over; nil: it is not held
	heldAt     int
	party      *fifo              // audio of a third party, as samples at the carrier's rate; nil: there is none
	tap        func(frame []byte) // is given each frame of the agent's; nil: nobody wants them
	muted      bool               // the agent is not heard: what it says is discarded
	mixed      []byte
	samplesBuf []int16
	ready      []item // transfers whose time has come
	clear      bool   // a clear is to be sent
	paused     bool
	finishing  bool // a hang-up is queued: later audio is ignored
	speaking   bool // playback has been reported as started
	end        *End // the call is to end: a hang-up has been reached

	level    string        // last reported buffer state
	overflow bool          // an overflow episode is going on
	report   time.Duration // report the buffer this often; 0: on change
	reported time.Duration
}

// segment maps positions to the agent's timeline: sample at of the carrier's is
// sample from of the agent's, and so on up to the next segment. What lies
// between is padding, or was discarded.
type segment struct{ at, from int64 }

const (
	forever = time.Duration(math.MaxInt64)
	// flushAfter is how long nothing must have come from the agent before an
	// incomplete frame is padded and sent.
	flushAfter = 40 * time.Millisecond
	// flushEarly is how long before the carrier runs dry that frame is sent.
	flushEarly = 5 * time.Millisecond
	// A silence of gapMin to gapMax between frames is a hole that the caller
	// hears; a longer one is a pause of the agent's, and of a shorter one the
	// carrier's own buffering leaves nothing.
	gapMin, gapMax = 10 * time.Millisecond, 500 * time.Millisecond
)

func newPlayout(from, to codec.Format, can providers.Abilities, cfg *Config, stats *Stats, tell func(AgentEvent)) playout {
	p := playout{
		stats: stats, tell: tell, can: can, format: to, agent: from, frame: to.FrameBytes(), step: int64(to.FrameSamples()),
		lead: cfg.Lead, prebuffer: cfg.Prebuffer, jump: true, level: "ok",
		tc: codec.NewTranscoder(from, to),
	}
	p.limit = p.samples(cfg.AgentQueue)
	return p
}

// retune goes on with another format of the agent's, which has said nothing yet.
func (p *playout) retune(from codec.Format) {
	p.agent, p.tc = from, codec.NewTranscoder(from, p.format)
}

func (p *playout) samples(d time.Duration) int64 {
	return int64(d) * int64(p.format.Rate) / int64(time.Second)
}

func (p *playout) duration(samples int64) time.Duration {
	return time.Duration(samples) * time.Second / time.Duration(p.format.Rate)
}

// toAgent converts a number of samples to the agent's rate.
func (p *playout) toAgent(n int64) int64 { return n * int64(p.agent.Rate) / int64(p.format.Rate) }

func (p *playout) agentTime(samples int64) time.Duration {
	return time.Duration(samples) * time.Second / time.Duration(p.agent.Rate)
}

// sent is how much audio the agent has sent.
func (p *playout) sent() time.Duration { return p.agentTime(p.received) }

// dry is when the carrier has played, or will have played, all that it was given.
func (p *playout) dry() time.Duration { return p.t0 + p.duration(p.taken-p.base) }

// playhead is the position that the caller is estimated to have heard.
func (p *playout) playhead(now time.Duration) int64 {
	if !p.run {
		p.high = p.taken
		return p.high
	}
	p.high = max(p.high, min(p.taken, p.base+p.samples(now-p.t0-p.lag)))
	return p.high
}

// heard is the playhead on the agent's timeline.
func (p *playout) heard(now time.Duration) time.Duration {
	at := p.playhead(now)
	for len(p.segments) > 1 && p.segments[1].at <= at {
		p.segments = p.segments[:copy(p.segments, p.segments[1:])]
	}
	if len(p.segments) == 0 || at == p.pushed {
		return p.sent()
	}
	next := p.received
	if len(p.segments) > 1 {
		next = p.segments[1].from
	}
	s := p.segments[0]
	return p.agentTime(min(max(s.from, s.from+p.toAgent(at-s.at)), next))
}

// push takes audio of the agent's, at most as much as the queue holds. It gives
// the duration of what was discarded.
func (p *playout) push(now time.Duration, pcm []byte) (discarded time.Duration) {
	if len(p.half) == 1 && len(pcm) > 0 {
		p.half = append(p.half, pcm[0])
		discarded = p.whole(now, p.half)
		p.half = p.half[:0]
		pcm = pcm[1:]
	}
	if n := len(pcm); n%2 == 1 {
		p.half = append(p.half, pcm[n-1])
		pcm = pcm[:n-1]
	}
	if len(pcm) > 0 {
		discarded += p.whole(now, pcm)
	}
	p.levels(now)
	return discarded
}

// whole takes whole samples.
func (p *playout) whole(now time.Duration, pcm []byte) (discarded time.Duration) {
	samples := int64(len(pcm) / 2)
	fits := min(samples, p.toAgent(max(0, p.limit-(p.pushed-p.taken))))
	if p.finishing || p.muted {
		fits = 0
	}
	if fits > 0 {
		if p.jump {
			p.segments = append(p.segments, segment{p.pushed, p.received})
			p.jump = false
		}
		if p.pushed == p.taken && !p.tail {
			p.first = now
		}
		before := p.queue.len()
		p.queue.grow(func(b []byte) []byte { return p.tc.Append(b, pcm[:2*fits]) })
		p.pushed += int64((p.queue.len() - before) / p.format.Encoding.SampleBytes())
		p.tail = p.tail || p.tc.Delay() > 0
		p.padded = false
		p.came = now
	}
	p.received += samples
	p.stats.AgentAudio += p.agentTime(samples)
	if fits == samples {
		return 0
	}
	p.jump = true
	if p.finishing || p.muted {
		return 0
	}
	discarded = p.agentTime(samples - fits)
	p.stats.Overflow += discarded
	if !p.overflow {
		p.overflow = true
		p.stats.Faults++
		p.tell(AgentEvent{Kind: AgentFault, Code: "buffer_overflow", Out: p.heard(now),
			Message: "more audio than the queue holds: the newest was discarded"})
	}
	return discarded
}

// levels reports the buffer when it passes one of its levels, or its time has come.
func (p *playout) levels(now time.Duration) {
	queued := p.pushed - p.taken
	level := p.level
	switch {
	case queued >= p.limit-p.step:
		level = "full"
	case queued >= p.limit/2:
		level = "high"
	case queued <= p.limit/6:
		level = "ok"
		p.overflow = false
	case level == "full":
		level = "high"
	}
	if level != p.level || p.report > 0 && now >= p.reported+p.report {
		p.level, p.reported = level, now
		p.tell(AgentEvent{Kind: AgentBuffer, State: level, Out: p.heard(now),
			Queued: p.duration(queued), Carrier: p.duration(p.taken - p.playhead(now))})
	}
}

// pause stops or continues the output. It is false where a hang-up is queued,
// which a pause would put off for ever.
func (p *playout) pause(on bool) bool {
	if on && p.finishing {
		return false
	}
	p.fresh = p.fresh || p.paused
	p.paused = on
	return true
}

// flush is a clear: the agent interrupts itself. Nothing that came before it is
// sent after it.
func (p *playout) flush(now time.Duration, cause, ref string) {
	p.stats.Clears++
	heard := p.heard(now)
	var kept []item
	for _, list := range [][]item{p.inflight, p.items} {
		for _, it := range list {
			switch { // what is not audio falls due now
			case it.digits != "":
				p.dial(it)
				continue
			case it.transfer != nil:
				p.ready = append(p.ready, it)
				continue
			case it.end != nil && p.digitsLeft(): // once they are sent
				kept = append(kept, it)
				continue
			case it.end != nil:
				p.end = it.end
				continue
			}
			p.tell(AgentEvent{Kind: AgentMark, Name: it.name, State: "cleared", Out: heard})
		}
	}
	p.tell(AgentEvent{Kind: AgentCleared, Cause: cause, Ref: ref, Out: heard,
		Discarded: p.sent() - heard, Sent: p.sent()})
	p.items, p.inflight = append(p.items[:0], kept...), p.inflight[:0]
	p.queue.reset()
	p.tc.Reset()
	p.half = p.half[:0]
	p.tail, p.padded = false, false
	p.pushed = p.taken
	for i := range p.items {
		p.items[i].at = p.taken
	}
	p.segments, p.jump = p.segments[:0], true
	// Otherwise the carrier goes on with what it has, at most the lead: digits that
	// were acknowledged must not be lost.
	if p.can.Clear && now >= p.toned {
		p.run, p.clear = false, true
	}
	p.speaking, p.paused, p.fresh = false, false, true
	p.generation++
	p.levels(now)
}

// next gives what is to be sent to the carrier now, audio into buf. ok is false
// where there is nothing before the time wait.
func (p *playout) next(now time.Duration, buf []byte, cmd *providers.Command) (ok bool, wait time.Duration) {
	if p.clear {
		p.clear = false
		*cmd = providers.Command{Kind: providers.CommandClear}
		return true, 0
	}
	p.expire(now)
	if len(p.signals) > 0 && !p.signalling && len(p.tones) == 0 {
		p.signal(cmd)
		return true, 0
	}
	for len(p.items) > 0 && p.items[0].at <= p.taken && len(p.tones) == 0 {
		if p.items[0].transfer != nil {
			p.ready = append(p.ready, p.items[0])
			p.items = p.items[:copy(p.items, p.items[1:])]
			continue
		}
		if p.items[0].end != nil && p.digitsLeft() {
			break
		}
		if it := p.items[0]; it.digits != "" {
			p.items = p.items[:copy(p.items, p.items[1:])]
			p.dial(it)
			return p.next(now, buf, cmd)
		}
		if serial := p.reach(now); p.can.Marks {
			*cmd = providers.Command{Kind: providers.CommandMark, Mark: p.wireName(serial)}
			return true, 0
		}
	}
	p.expire(now)
	wait = forever
	if len(p.inflight) > 0 {
		wait = p.inflight[0].due
	}
	if p.report > 0 {
		p.levels(now)
		wait = min(wait, p.reported+p.report)
	}
	if from := p.beside(); from != nobody {
		due := now
		if p.run && now <= p.dry() {
			due = p.dry() - p.lead + codec.FrameTime
		}
		if now < due {
			return false, min(wait, p.slacken(now, due))
		}
		p.sendBeside(now, from, buf, cmd)
		return true, 0
	}
	if !p.paused {
		if p.queue.len() >= p.frame || p.flushTail(now, &wait) {
			due := p.due(now)
			if now >= due {
				p.send(now, buf, cmd)
				return true, 0
			}
			return false, min(wait, p.slacken(now, due))
		}
	}
	if p.run && p.queue.len() < p.frame { // idle once the carrier has played it all
		idle := p.dry() + p.lag
		if now < idle {
			return false, min(wait, idle)
		}
		if p.speaking && p.pushed == p.taken && !p.tail && len(p.items)+len(p.inflight) == 0 {
			p.speaking = false
			p.tell(AgentEvent{Kind: AgentPlayback, State: "idle", Out: p.heard(now)})
		}
	}
	return false, wait
}

// slacken is when a frame of a run must go out that is due.
func (p *playout) slacken(now, due time.Duration) time.Duration {
	if p.run && now <= p.dry() {
		return due + p.slack
	}
	return due
}

// due is when the next frame is to be sent.
func (p *playout) due(now time.Duration) time.Duration {
	if p.run && now <= p.dry() {
		return p.dry() - p.lead + codec.FrameTime
	}
	if p.prebuffer > 0 && p.duration(p.pushed-p.taken) < p.prebuffer && !p.padded {
		return p.first + p.prebuffer
	}
	return now
}

// flushTail pads an incomplete frame, and gets out what the resampler holds
// back, once the agent has been silent for a while. It tells whether there is a
// frame now.
func (p *playout) flushTail(now time.Duration, wait *time.Duration) bool {
	if p.queue.len() == 0 && !p.tail {
		return false
	}
	at := p.came + flushAfter
	if p.run && now <= p.dry() { // not before the carrier needs it: more may come
		at = max(at, p.dry()-flushEarly)
	}
	if now < at {
		*wait = min(*wait, at)
		return false
	}
	size := p.format.Encoding.SampleBytes()
	before := p.queue.len()
	missing := (p.frame - before) / size
	if p.tail && missing < p.tc.Delay() {
		missing += int(p.step)
	}
	p.queue.grow(func(b []byte) []byte {
		b = p.tc.AppendSilence(b, int(p.toAgent(int64(missing))))
		// Where the agent's samples do not fill a group of the resampler's, a few
		// are missing still.
		return p.format.Encoding.AppendSilence(b, before+missing*size-(len(b)-p.queue.head))
	})
	p.tc.Reset()
	p.pushed += int64(missing)
	p.padding = p.duration(int64(missing))
	p.tail, p.padded, p.jump = false, true, true
	return true
}

// send hands one frame to the carrier.
func (p *playout) send(now time.Duration, buf []byte, cmd *providers.Command) {
	late := max(0, now-p.dry())
	if !p.padded || p.queue.len() > p.frame { // not the padding itself
		if hole := late + p.padding; p.run && !p.fresh && hole >= gapMin && hole < gapMax {
			p.stats.Gaps++
			p.stats.GapTime += hole
		}
		p.fresh, p.padding = false, 0
	}
	if !p.run || late > 0 {
		p.run, p.t0, p.base = true, now, p.taken
	}
	if !p.speaking {
		p.speaking = true
		p.tell(AgentEvent{Kind: AgentPlayback, State: "started", Out: p.heard(now)})
	}
	*cmd = providers.Command{Kind: providers.CommandAudio, Audio: p.queue.take(buf, p.frame)}
	if p.tap != nil {
		p.tap(cmd.Audio)
	}
	if p.partyReady() {
		cmd.Audio = p.mixParty(cmd.Audio, buf)
	}
	p.taken += p.step
	p.stats.FramesOut++
	p.levels(now)
}
