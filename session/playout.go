package session

import (
	"math"
	"time"

	"voicebridge/codec"
	"voicebridge/providers"
)

// playout is the agent's audio on its way to the caller. It holds what the agent
// has said, already encoded for the carrier, and says what to send when. Its parts
// can be read alone: the timeline (positions), the schedule (when), what the agent
// queues in line with its audio, the voice (the audio that waits), and the digits.
//
// playout has no clock of its own: times are given, from the start of the session.
type playout struct {
	schedule
	inline
	voice
	digits

	stats     *Stats
	tell      func(AgentEvent) // queues an event for the agent
	can       providers.Abilities
	limit     int64         // samples that may wait
	prebuffer time.Duration // audio to wait for before an utterance begins

	clear     bool   // a clear is to be sent
	paused    bool   // the agent has paused its audio
	finishing bool   // a hang-up is queued: later audio is ignored
	speaking  bool   // playback has been reported as started
	transfers []item // transfers whose time has come
	end       *End   // a hang-up has been reached: the call is to end

	fresh   bool          // what comes next begins an utterance: silence before it is no hole
	padding time.Duration // silence that was added since the last frame without

	held   []byte // what the caller hears instead of the agent, over and over; nil: it is not held
	heldAt int
	party  *fifo              // a third party's audio, as samples at the carrier's rate; nil: there is none
	tap    func(frame []byte) // is given each frame of the agent's; nil: nobody wants them
	muted  bool               // the agent is not heard: what it says is discarded
	mixer  mixer

	level    BufferLevel   // last reported
	overflow bool          // an overflow episode is going on
	report   time.Duration // report the buffer this often; 0: on change
	reported time.Duration
}

const (
	forever = time.Duration(math.MaxInt64)
	// markLate is how long after its time a mark is waited for.
	markLate = 2 * time.Second
	// A silence of gapMin to gapMax between frames is a hole that the caller
	// hears; a longer one is a pause of the agent's, and of a shorter one the
	// carrier's own buffering leaves nothing.
	gapMin, gapMax = 10 * time.Millisecond, 500 * time.Millisecond
)

func newPlayout(from, to codec.Format, can providers.Abilities, cfg *Config, stats *Stats,
	tell func(AgentEvent)) playout {
	p := playout{stats: stats, tell: tell, can: can, prebuffer: cfg.Prebuffer, level: BufferOK}
	p.timeline = timeline{format: to, agent: from, jump: true}
	p.lead = cfg.Lead
	p.voice = newVoice(from, to)
	p.limit = p.samples(cfg.AgentQueue)
	return p
}

// retune goes on with another format of the agent's, which has said nothing yet.
func (p *playout) retune(from codec.Format) {
	p.agent, p.voice = from, newVoice(from, p.format)
}

// push takes audio of the agent's, at most as much as the queue holds. It returns
// the duration of what was discarded.
func (p *playout) push(now time.Duration, audio []byte) (discarded time.Duration) {
	p.whole(audio, func(samples []byte) { discarded += p.take(now, samples) })
	p.levels(now)
	return discarded
}

// take takes whole samples.
func (p *playout) take(now time.Duration, audio []byte) (discarded time.Duration) {
	size := p.agent.Encoding.SampleBytes()
	samples := int64(len(audio) / size)
	fits := min(samples, p.toAgent(max(0, p.limit-(p.pushed-p.taken))))
	if p.finishing || p.muted {
		fits = 0
	}
	if fits > 0 {
		p.timeline.begin()
		p.pushed += p.voice.add(now, audio[:int(fits)*size])
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
	case queued >= p.limit-int64(p.format.FrameSamples()):
		level = BufferFull
	case queued >= p.limit/2:
		level = BufferHigh
	case queued <= p.limit/6:
		level = BufferOK
		p.overflow = false
	case level == BufferFull:
		level = BufferHigh
	}
	if level != p.level || p.report > 0 && now >= p.reported+p.report {
		p.level, p.reported = level, now
		p.tell(AgentEvent{Kind: AgentBuffer, Buffer: level, Out: p.heard(now),
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

// hold plays frames over and over in place of the agent's audio; nil ends that. It
// reports whether the caller is held.
func (p *playout) hold(frames []byte) bool {
	p.held, p.heldAt = frames[:len(frames)/p.frame*p.frame], 0
	if len(p.held) == 0 {
		p.held = nil
	}
	return p.held != nil
}

// flush is a clear: the agent interrupts itself. Nothing that came before it is
// sent after it.
func (p *playout) flush(now time.Duration, by ClearCause, ref string) {
	p.stats.Clears++
	heard := p.heard(now)
	for _, it := range p.inline.empty() {
		p.flushItem(it, heard)
	}
	p.tell(AgentEvent{Kind: AgentCleared, ClearedBy: by, Ref: ref, Out: heard, Discarded: p.sent() - heard,
		Sent: p.sent()})
	p.voice.reset()
	p.discard()
	for i := range p.items {
		p.items[i].at = p.taken
	}
	// Otherwise the carrier goes on with what it has, at most the lead: digits that
	// were acknowledged must not be lost.
	if p.can.Clear && now >= p.toned {
		p.run, p.clear = false, true
	}
	p.speaking, p.paused, p.fresh = false, false, true
	p.levels(now)
}

// flushItem deals with an item that a clear has taken out of its line: a mark is
// cleared, and what is no audio falls due now.
func (p *playout) flushItem(it item, heard time.Duration) {
	switch {
	case it.digits != "":
		p.digits.begin(it)
	case it.transfer != nil:
		p.transfers = append(p.transfers, it)
	case it.end != nil && p.digits.left(): // once they are sent
		p.inline.add(it)
	case it.end != nil:
		p.end = it.end
	default:
		p.tell(AgentEvent{Kind: AgentMark, Mark: it.mark, MarkStatus: MarkCleared, Out: heard})
	}
}

// mark queues a mark. It is false where there are too many.
func (p *playout) mark(name string) bool {
	if p.open() >= maxMarks {
		return false
	}
	p.stats.Marks++
	p.inline.add(item{at: p.pushed, mark: name})
	return true
}

// hangup queues the end of the call behind the audio that came before it.
func (p *playout) hangup(id string, end *End) {
	p.finishing, p.paused = true, false
	p.inline.add(item{at: p.pushed, id: id, end: end})
}

// cancel withdraws a queued hang-up, digits or transfer. It is false where there is
// none of that id.
func (p *playout) cancel(id string) bool {
	if !p.inline.cancel(id) {
		return false
	}
	p.finishing = p.hasHangup()
	return true
}

// dial queues digits behind the audio so far, or sends them at once. It is
// false where too many wait or the call is about to end.
func (p *playout) dial(it item, now bool) bool {
	switch {
	case p.digits.waiting()+p.waitingDigits() >= maxDigitsQueue || p.finishing:
		return false
	case now:
		p.digits.begin(it)
	default:
		it.at = p.pushed
		p.inline.add(it)
	}
	return true
}

// transfer queues a transfer behind the audio so far, or lets it be at once. It is
// false where too many commands wait.
func (p *playout) transfer(it item, now bool) bool {
	switch {
	case now:
		p.transfers = append(p.transfers, it)
	case len(p.items) >= maxMarks:
		return false
	default:
		it.at = p.pushed
		p.inline.add(it)
	}
	return true
}

// next returns what is to be sent to the carrier now, audio into buf. ok is false
// where there is nothing before the time wait.
func (p *playout) next(now time.Duration, buf []byte, cmd *providers.Command) (ok bool, wait time.Duration) {
	if p.clear {
		p.clear = false
		*cmd = providers.Command{Kind: providers.CommandClear}
		return true, 0
	}
	p.expire(now)
	if p.nextInLine(now, cmd) {
		return true, 0
	}
	p.expire(now)
	wait = p.inline.next()
	if p.report > 0 {
		p.levels(now)
		wait = min(wait, p.reported+p.report)
	}
	ok, due := p.nextFrame(now, buf, cmd)
	return ok, min(wait, due)
}

// nextInLine returns the digits, or the mark, whose time has come, and carries out
// what else is reached. It is false where audio is next.
func (p *playout) nextInLine(now time.Duration, cmd *providers.Command) bool {
	for {
		if digits, ok := p.signal(); ok {
			*cmd = providers.Command{Kind: providers.CommandDigits, Digits: digits}
			return true
		}
		if len(p.items) == 0 || p.items[0].at > p.taken || len(p.tones) > 0 {
			return false
		}
		switch it := p.items[0]; {
		case it.transfer != nil:
			p.transfers = append(p.transfers, p.pop())
		case it.digits != "":
			p.digits.begin(p.pop())
		case it.end != nil && p.digits.left():
			return false
		default:
			serial := p.inline.send(p.taken, p.playedBy(now))
			if p.can.Marks {
				*cmd = providers.Command{Kind: providers.CommandMark, Mark: p.wireName(serial)}
				return true
			}
		}
	}
}

// playedBy returns when all that the carrier has got is taken as played.
func (p *playout) playedBy(now time.Duration) time.Duration {
	due := now
	if at := p.dry() + p.lag; p.run && at > now {
		due = at
	}
	if p.can.Marks {
		due += markLate
	}
	return due
}

// nextFrame returns the next frame of audio. ok is false where none is due before the
// time wait.
func (p *playout) nextFrame(now time.Duration, buf []byte, cmd *providers.Command) (ok bool, wait time.Duration) {
	if from := p.insertion(); from != nobody {
		due := now
		if p.playing(now) {
			due = p.schedule.due()
		}
		if now < due {
			return false, p.latest(now, due)
		}
		p.sendInsertion(now, from, buf, cmd)
		return true, 0
	}
	wait = forever
	if !p.paused && (p.queue.len() >= p.frame || p.flushTail(now, &wait)) {
		due := p.due(now)
		if now >= due {
			p.send(now, buf, cmd)
			return true, 0
		}
		return false, min(wait, p.latest(now, due))
	}
	if p.run && p.queue.len() < p.frame { // idle once the carrier has played it all
		if idle := p.dry() + p.lag; now < idle {
			return false, min(wait, idle)
		}
		if p.speaking && p.pushed == p.taken && !p.tail && p.open() == 0 {
			p.speaking = false
			p.tell(AgentEvent{Kind: AgentPlayback, Playback: PlaybackIdle, Out: p.heard(now)})
		}
	}
	return false, wait
}

// due returns when the next frame of the agent's is to be sent.
func (p *playout) due(now time.Duration) time.Duration {
	if p.playing(now) {
		return p.schedule.due()
	}
	if p.prebuffer > 0 && p.duration(p.pushed-p.taken) < p.prebuffer && !p.padded {
		return p.first + p.prebuffer
	}
	return now
}

// flushTail completes the last frame once the agent has been silent for a while, but
// not before the carrier needs it: more may come. It reports whether there is a frame
// now; otherwise wait is not later than the time for that.
func (p *playout) flushTail(now time.Duration, wait *time.Duration) bool {
	if p.voice.empty() {
		return false
	}
	at := p.came + flushAfter
	if p.playing(now) {
		at = max(at, p.dry()-flushEarly)
	}
	if now < at {
		*wait = min(*wait, at)
		return false
	}
	padding := p.pad(p.toAgent)
	p.pushed += padding
	p.padding = p.duration(padding)
	p.jump = true
	return true
}

// send hands one frame of the agent's to the carrier.
func (p *playout) send(now time.Duration, buf []byte, cmd *providers.Command) {
	late := max(0, now-p.dry())
	if !p.padded || p.queue.len() > p.frame { // not the padding itself
		if hole := late + p.padding; p.run && !p.fresh && hole >= gapMin && hole < gapMax {
			p.stats.Gaps++
			p.stats.GapTime += hole
		}
		p.fresh, p.padding = false, 0
	}
	p.start(now)
	if !p.speaking {
		p.speaking = true
		p.tell(AgentEvent{Kind: AgentPlayback, Playback: PlaybackStarted, Out: p.heard(now)})
	}
	*cmd = providers.Command{Kind: providers.CommandAudio, Audio: p.queue.take(buf, p.frame)}
	if p.tap != nil {
		p.tap(cmd.Audio)
	}
	if p.partyReady() {
		p.mixer.add(p.format, cmd.Audio, p.party)
	}
	p.taken += int64(p.format.FrameSamples())
	p.stats.FramesOut++
	p.levels(now)
}

// source is who a frame is of that is not the agent's.
type source uint8

const (
	nobody source = iota
	ofTones
	ofHold
	ofParty
)

// insertion returns whose frame comes before the agent's, if any does.
func (p *playout) insertion() source {
	switch {
	case len(p.tones) > 0:
		return ofTones
	case p.held != nil:
		return ofHold
	case p.partyReady() && (p.paused || p.queue.len() < p.frame): // otherwise both are mixed
		return ofParty
	}
	return nobody
}

// partyReady reports whether a frame of the party's waits.
func (p *playout) partyReady() bool {
	return p.party != nil && p.party.len() >= 2*p.format.FrameSamples()
}

// sendInsertion hands one frame to the carrier that is not the agent's. It takes no
// place on the agent's timeline.
func (p *playout) sendInsertion(now time.Duration, from source, buf []byte, cmd *providers.Command) {
	p.insert(now)
	p.stats.FramesOut++
	p.fresh = true // the silence around it is no hole
	*cmd = providers.Command{Kind: providers.CommandAudio}
	switch from {
	case ofTones:
		var done *item
		cmd.Audio, done = p.nextTone(p.format, buf)
		p.toned = p.dry()
		if done != nil && done.id != "" {
			p.tell(AgentEvent{Kind: AgentAck, Ref: done.id, Out: p.heard(now)})
		}
	case ofHold:
		cmd.Audio = append(buf[:0], p.held[p.heldAt:p.heldAt+p.frame]...)
		p.heldAt = (p.heldAt + p.frame) % len(p.held)
	case ofParty:
		cmd.Audio = p.format.Encoding.AppendSilence(buf[:0], p.frame)
		p.mixer.add(p.format, cmd.Audio, p.party)
	}
}

// expire reports what counts as played although the carrier has not said so.
func (p *playout) expire(now time.Duration) {
	for len(p.inflight) > 0 && p.inflight[0].due <= now {
		p.played(now, 1)
	}
}

// played reports the first n items in flight.
func (p *playout) played(now time.Duration, n int) {
	for _, it := range p.land(n) {
		if it.end != nil {
			p.end = it.end
			continue
		}
		p.tell(AgentEvent{Kind: AgentMark, Mark: it.mark, MarkStatus: MarkPlayed, Out: p.heard(now)})
	}
}

// markPlayed takes a mark that came back from the carrier. Marks come back in order:
// those before it were lost.
func (p *playout) markPlayed(now time.Duration, wire string) error {
	i, err := p.find(wire)
	switch {
	case err != nil:
		return err
	case i < 0:
		p.stats.LateMarks++
		return nil
	}
	it := p.inflight[i]
	p.confirmed(now, it.behind)
	p.high = max(p.high, it.at)
	p.played(now, i+1)
	return nil
}
