// Package audio is the audio of one call on its two ways: Inbound, from the caller to
// the agent, and Playout, from the agent to the caller, with what stands in line with
// it. A Room mixes a third party in.
//
// Nothing here has a clock, a lock or a connection of its own: times are given, counted
// from the start of the session, which says when (Next) and takes what is due.
package audio

import (
	"math"
	"slices"
	"time"

	"voicebridge/agent"
	"voicebridge/calls"
	"voicebridge/codec"
	"voicebridge/providers"
)

// Playout is the agent's audio on its way to the caller. It holds what the agent
// has said, already encoded for the carrier, and says what to send when. Its parts
// can be read alone: the timeline (positions), the schedule (when), what the agent
// queues in line with its audio, the voice (the audio that waits), the digits, and what
// the caller hears instead of the agent or beside it (the insertions).
type Playout struct {
	schedule
	inline
	voice
	digits
	insertions

	stats     *Stats
	tell      func(agent.Event) // queues an event for the agent
	can       providers.Abilities
	limit     int64         // samples that may wait
	prebuffer time.Duration // audio to wait for before an utterance begins

	live      time.Duration // the most that waits of audio that must not be late; 0: any
	spoken    time.Duration // when the carrier has played the last frame of the agent's
	sounds    time.Duration // until when digits of the carrier's sound
	clear     bool          // a clear is to be sent
	paused    bool          // the agent has paused its audio
	finishing bool          // a hang-up is queued: later audio is ignored
	speaking  bool          // playback has been reported as started
	transfers []Item        // transfers whose time has come
	end       *calls.End    // a hang-up has been reached: the call is to end

	fresh   bool          // what comes next begins an utterance: silence before it is no hole
	padding time.Duration // silence that was added since the last frame without

	level    agent.BufferLevel // last reported
	overflow bool              // an overflow episode is going on
	report   time.Duration     // report the buffer this often; 0: on change
	reported time.Duration
}

// Settings are those of a Playout.
type Settings struct {
	Lead         time.Duration // audio that the carrier holds ahead of time
	Slack        time.Duration // how late a frame of a run may go out where nothing else calls for it
	Prebuffer    time.Duration // audio to wait for before an utterance begins
	Queue        time.Duration // the most audio that waits
	Live         time.Duration // of audio that must not be late: beyond so much the oldest goes; 0: any
	NativeDigits bool          // the carrier sends digits, they are not tones in the audio
}

const (
	// Forever is a time that never comes.
	Forever = time.Duration(math.MaxInt64)
	// markLate is how long after its time a mark is waited for.
	markLate = 2 * time.Second
	// A silence of gapMin to gapMax between frames is a hole that the caller
	// hears; a longer one is a pause of the agent's, and of a shorter one the
	// carrier's own buffering leaves nothing.
	gapMin, gapMax = 10 * time.Millisecond, 500 * time.Millisecond
)

// NewPlayout makes one from the format that the agent speaks to the carrier's. tell
// queues an event for the agent.
func NewPlayout(from, to codec.Format, can providers.Abilities, set Settings, stats *Stats,
	tell func(agent.Event)) Playout {
	p := Playout{stats: stats, tell: tell, can: can, prebuffer: set.Prebuffer, level: agent.BufferOK}
	p.timeline = timeline{format: to, agent: from, jump: true}
	p.lead, p.slack = set.Lead, set.Slack
	p.voice = newVoice(from, to)
	p.digits.native, p.live = set.NativeDigits, set.Live
	p.limit = p.samples(set.Queue)
	return p
}

// Retune goes on with an agent that has another format, or has been dialled again: what was said so
// far is played to its end.
func (p *Playout) Retune(from codec.Format) {
	p.voice.retune(from)
	p.timeline.retune(from)
}

// Adapt goes on with an agent whose audio is waited for, and kept, as long as this. What is queued stays.
func (p *Playout) Adapt(prebuffer, queue time.Duration) {
	p.prebuffer, p.limit = prebuffer, p.samples(queue)
}

// Sent is how much audio the agent has sent.
func (p *Playout) Sent() time.Duration { return p.sent() }

// Push takes audio of the agent's, at most as much as the queue holds. It returns
// the duration of what was discarded.
func (p *Playout) Push(now time.Duration, audio []byte) (discarded time.Duration) {
	p.whole(audio, func(samples []byte) { discarded += p.take(now, samples) })
	p.levels(now)
	return discarded
}

// take takes whole samples.
func (p *Playout) take(now time.Duration, audio []byte) (discarded time.Duration) {
	size := p.agent.Encoding.SampleBytes()
	samples := int64(len(audio) / size)
	fits := min(samples, p.toAgent(max(0, p.limit-(p.pushed-p.taken))))
	if p.finishing || p.muted {
		fits = 0
	}
	if p.live > 0 && p.duration(p.pushed-p.taken) > keepUp && quietIn(p.agent, audio) {
		fits = 0 // what was late is caught up with
	}
	if fits > 0 {
		p.timeline.begin()
		p.pushed += p.voice.add(now, audio[:int(fits)*size])
		p.fall()
	}
	p.received += samples
	p.stats.AgentAudio += p.agentTime(samples)
	if fits == samples {
		return 0
	}
	p.jump = true
	if p.finishing || p.muted || p.live > 0 {
		return 0
	}
	discarded = p.agentTime(samples - fits)
	p.stats.Overflow += discarded
	if !p.overflow {
		p.overflow = true
		p.stats.Faults++
		p.tell(agent.Event{Kind: agent.EventFault, Code: "buffer_overflow", Out: p.Heard(now),
			Message: "more audio than the queue holds: the newest was discarded"})
	}
	return discarded
}

// fall leaves out the oldest of audio that must not be late.
func (p *Playout) fall() {
	late := p.pushed - p.taken - p.samples(p.live)
	if p.live == 0 || late <= 0 {
		return
	}
	p.queue.drop(int(late) * p.format.Encoding.SampleBytes())
	p.taken += late
	p.base += late // it is not played
	p.stats.Overflow += p.duration(late)
}

// levels reports the buffer when it passes one of its levels, or its time has come.
func (p *Playout) levels(now time.Duration) {
	queued := p.pushed - p.taken
	level := p.level
	switch {
	case queued >= p.limit-int64(p.format.FrameSamples()):
		level = agent.BufferFull
	case queued > p.limit*3/4 && level == agent.BufferFull: // not with each frame that is played
	case queued >= p.limit/2:
		level = agent.BufferHigh
	case queued <= p.limit/6:
		level = agent.BufferOK
		p.overflow = false
	case level == agent.BufferFull:
		level = agent.BufferHigh
	}
	if level != p.level || p.report > 0 && now >= p.reported+p.report {
		p.level, p.reported = level, now
		p.tell(agent.Event{Kind: agent.EventBuffer, Buffer: level, Out: p.Heard(now),
			Queued: p.duration(queued), Carrier: p.duration(p.taken - p.playhead(now))})
	}
}

// Format is the carrier's.
func (p *Playout) Format() codec.Format { return p.format }

// Came is when audio of the agent's last came.
func (p *Playout) Came() time.Duration { return p.came }

// Ending reports whether a hang-up is queued: what the agent says after it is ignored.
func (p *Playout) Ending() bool { return p.finishing }

// End returns the end of the call once a queued hang-up is reached; nil: it is not.
func (p *Playout) End() *calls.End { return p.end }

// TakeTransfers returns the transfers whose time has come, once.
func (p *Playout) TakeTransfers() []Item {
	due := p.transfers
	p.transfers = nil
	return due
}

// Report has the buffer reported that often, from now on; 0: on change.
func (p *Playout) Report(now, every time.Duration) { p.report, p.reported = every, now }

// Pause stops or continues the output. It is false where a hang-up is queued,
// which a pause would put off for ever.
func (p *Playout) Pause(on bool) bool {
	if on && p.finishing {
		return false
	}
	p.fresh = p.fresh || p.paused
	p.paused = on
	return true
}

// Clear is a barge-in: the agent interrupts itself. Nothing that came before it is
// sent after it.
func (p *Playout) Clear(now time.Duration, by agent.ClearCause, ref string) {
	p.stats.Clears++
	heard := p.Heard(now)
	for _, it := range p.inline.empty() {
		p.flushItem(now, it, heard)
	}
	p.tell(agent.Event{Kind: agent.EventCleared, ClearedBy: by, Ref: ref, Out: heard, Discarded: p.sent() - heard,
		Sent: p.sent(), Accuracy: p.accuracy(now)})
	p.voice.reset()
	if p.cleared != nil {
		p.cleared()
	}
	p.discard()
	for i := range p.items {
		p.items[i].at = p.taken
	}
	// Otherwise the carrier goes on with what it has, at most the lead: digits that were
	// acknowledged must not be lost, nor what a third party says.
	if p.can.Clear && now >= p.toned && p.party == nil {
		p.run, p.clear = false, true
	}
	p.speaking, p.paused, p.fresh = false, false, true
	p.levels(now)
}

// Over answers the marks that are open when the agent's connection is over. all tells that the call is: nobody
// waits for anything else any more.
func (p *Playout) Over(now time.Duration, all bool) {
	for _, it := range p.inline.empty() {
		switch {
		case it.mark != "":
			p.tell(agent.Event{Kind: agent.EventMark, Mark: it.mark, MarkStatus: agent.MarkCleared, Out: p.Heard(now)})
		case !all:
			p.inline.add(it)
		}
	}
}

// flushItem deals with an item that a clear has taken out of its line: a mark is
// cleared, and what is no audio falls due now.
func (p *Playout) flushItem(now time.Duration, it Item, heard time.Duration) {
	switch {
	case it.Digits != "":
		p.digits.begin(it)
	case it.mark == "" && p.dialling(now): // once they have sounded
		p.inline.add(it)
	case it.Transfer != nil:
		p.transfers = append(p.transfers, it)
	case it.end != nil:
		p.end = it.end
	default:
		p.tell(agent.Event{Kind: agent.EventMark, Mark: it.mark, MarkStatus: agent.MarkCleared, Out: heard})
	}
}

// Mark queues a mark. It is false where there are too many.
func (p *Playout) Mark(name string) bool {
	if p.open() >= MaxMarks {
		return false
	}
	p.stats.Marks++
	p.inline.add(Item{at: p.pushed, mark: name})
	return true
}

// Hangup queues the end of the call behind the audio that came before it.
func (p *Playout) Hangup(id string, end *calls.End) {
	p.finishing, p.paused = true, false
	p.inline.add(Item{at: p.pushed, ID: id, end: end})
}

// Cancel withdraws a queued hang-up, digits or transfer. It is false where there is
// none of that id.
func (p *Playout) Cancel(id string) bool {
	if !p.inline.cancel(id) {
		return false
	}
	p.finishing = p.hasHangup()
	return true
}

// Withdraw takes a hang-up back, though it has been reached. end is its own.
func (p *Playout) Withdraw(end *calls.End) {
	p.inline.withdraw(end)
	if p.end == end {
		p.end = nil
	}
	p.finishing = p.hasHangup()
}

// SendDigits queues digits behind the audio so far, or sends them at once. It is
// false where too many wait or the call is about to end.
func (p *Playout) SendDigits(it Item, now bool) bool {
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

// Transfer queues a transfer behind the audio so far, or lets it be at once. It is
// false where too many commands wait.
func (p *Playout) Transfer(it Item, now bool) bool {
	switch {
	case now:
		p.transfers = append(p.transfers, it)
	case p.open() >= MaxMarks:
		return false
	default:
		it.at = p.pushed
		p.inline.add(it)
	}
	return true
}

// Next returns what is to be sent to the carrier now, audio into buf. ok is false
// where there is nothing before the time wait.
func (p *Playout) Next(now time.Duration, buf []byte, cmd *providers.Command) (ok bool, wait time.Duration) {
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
func (p *Playout) nextInLine(now time.Duration, cmd *providers.Command) bool {
	for {
		if digits, ok := p.signal(); ok {
			p.sounds, p.fresh = max(p.sounds, now)+p.signalled.length(), true // behind those before them
			*cmd = providers.Command{Kind: providers.CommandDigits, Digits: digits}
			return true
		}
		if len(p.items) == 0 || p.items[0].at > p.taken || len(p.tones) > 0 {
			return false
		}
		switch it := p.items[0]; {
		case it.Digits != "" && !p.native: // tones stand in line by themselves
			p.digits.begin(p.pop())
		case it.Digits == "" && p.dialling(now):
			return false
		default:
			plays := time.Duration(0)
			if p.playing(now) {
				plays = p.dry()
			}
			serial := p.inline.send(now, plays, p.playedBy(now), p.schedule.idle(now))
			if p.can.Marks {
				*cmd = providers.Command{Kind: providers.CommandMark, Mark: p.wireName(serial)}
				return true
			}
		}
	}
}

// playedBy returns when all that the carrier has got is taken as played.
func (p *Playout) playedBy(now time.Duration) time.Duration {
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
func (p *Playout) nextFrame(now time.Duration, buf []byte, cmd *providers.Command) (ok bool, wait time.Duration) {
	wait = Forever
	if p.party != nil && !p.paused && p.queue.len() < p.frame {
		p.flushTail(now, &wait) // it would wait for as long as the party speaks
	}
	if p.speaking && p.party != nil {
		if idle := p.spoken + p.lag; now < idle {
			wait = min(wait, idle)
		} else {
			p.idle(now)
		}
	}
	if from := p.insertion(now); from != nobody {
		due := now
		if p.playing(now) {
			due = p.schedule.due()
		}
		if now < due {
			return false, min(wait, p.latest(now, due))
		}
		p.sendInsertion(now, from, buf, cmd)
		return true, 0
	}
	if at := p.signals(now); at > now { // the carrier's own digits come before what was said behind them
		return false, min(wait, at)
	}
	if !p.paused && (p.queue.len() >= p.frame || p.flushTail(now, &wait)) {
		due := p.due(now)
		switch {
		case now < due:
			return false, min(wait, p.latest(now, due))
		case p.stretches(now):
			p.sendInsertion(now, ofNothing, buf, cmd)
		default:
			p.send(now, buf, cmd)
		}
		return true, 0
	}
	if p.run && p.queue.len() < p.frame { // idle once the carrier has played it all
		if idle := p.dry() + p.lag; now < idle {
			return false, min(wait, idle)
		}
		p.idle(now)
	}
	return false, min(wait, p.fillsFrom())
}

// idle tells that all that the agent has said has been heard, if that is so.
func (p *Playout) idle(now time.Duration) {
	if p.speaking && p.pushed == p.taken && !p.tail && p.open() == 0 {
		p.speaking = false
		p.tell(agent.Event{Kind: agent.EventPlayback, Playback: agent.PlaybackIdle, Out: p.Heard(now)})
	}
}

// signals returns until when audio waits for digits that the carrier sends: until all that was
// said before them is heard, they are sent, and have sounded.
func (p *Playout) signals(now time.Duration) time.Duration {
	if p.signalling || len(p.digits.signals) > 0 || slices.ContainsFunc(p.inflight, func(it Item) bool {
		return it.Digits != ""
	}) {
		return Forever
	}
	return p.sounds
}

// dialling reports whether what stands behind digits must wait for them.
func (p *Playout) dialling(now time.Duration) bool { return p.digits.left() || p.signals(now) > now }

// due returns when the next frame of the agent's is to be sent.
func (p *Playout) due(now time.Duration) time.Duration {
	if p.playing(now) {
		if p.party != nil && !p.partyReady(now) { // both go into one frame, as long as there is time for that
			return max(p.schedule.due(), p.dry()-partyWait)
		}
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
func (p *Playout) flushTail(now time.Duration, wait *time.Duration) bool {
	if p.voice.empty() {
		return false
	}
	at := p.came + flushAfter
	if p.playing(now) && p.party == nil { // which keeps the carrier playing
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
func (p *Playout) send(now time.Duration, buf []byte, cmd *providers.Command) {
	late := max(0, now-p.dry())
	if !p.padded || p.queue.len() > p.frame { // not the padding itself
		if hole := late + p.padding; p.run && !p.fresh && hole >= gapMin && hole < gapMax {
			p.stats.Gaps++
			p.stats.GapTime += hole
		}
		p.fresh, p.padding = false, 0
	}
	p.hand(now)
	if !p.speaking {
		p.speaking = true
		p.tell(agent.Event{Kind: agent.EventPlayback, Playback: agent.PlaybackStarted, Out: p.Heard(now)})
	}
	*cmd = providers.Command{Kind: providers.CommandAudio, Audio: p.queue.take(buf, p.frame)}
	if p.tap != nil {
		p.tap(cmd.Audio)
	}
	if p.partyReady(now) {
		p.mixer.add(p.format, cmd.Audio, p.party)
	}
	p.spoken = p.dry()
	p.stats.FramesOut++
	p.levels(now)
}

// expire reports what counts as played although the carrier has not said so.
func (p *Playout) expire(now time.Duration) {
	for len(p.inflight) > 0 && p.inflight[0].due <= now {
		p.played(now, 1)
	}
}

// played reports the first n items in flight.
func (p *Playout) played(now time.Duration, n int) {
	for _, it := range p.land(n) {
		switch {
		case it.end != nil:
			p.end = it.end
		case it.Transfer != nil:
			p.transfers = append(p.transfers, it)
		case it.Digits != "":
			p.digits.begin(it)
		default:
			p.tell(agent.Event{Kind: agent.EventMark, Mark: it.mark, MarkStatus: agent.MarkPlayed, Out: p.Heard(now)})
		}
	}
}

// MarkPlayed takes a mark that came back from the carrier. Marks come back in order:
// those before it were lost. One that comes in a stall tells nothing about time.
func (p *Playout) MarkPlayed(now time.Duration, wire string, stalled bool) error {
	i, err := p.find(wire)
	switch {
	case err != nil:
		return err
	case i < 0:
		p.stats.LateMarks++
		return nil
	}
	it := p.inflight[i]
	switch {
	case stalled:
	case it.alone:
		p.trips.Add(now, now-it.sent)
	case it.plays > 0:
		p.confirmed(now, it.plays)
	}
	p.high = max(p.high, it.at)
	p.played(now, i+1)
	return nil
}
