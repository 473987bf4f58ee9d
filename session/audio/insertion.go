package audio

import (
	"time"

	"voicebridge/agent"
	"voicebridge/codec"
	"voicebridge/providers"
)

// insertions are what the caller hears instead of the agent, or beside it: tones, music
// on hold, a third party. They take no place on the agent's timeline.
type insertions struct {
	held   []byte // what is played over and over; nil: the caller is not held
	heldAt int
	away   []byte             // what is played over and over once nobody speaks; nil: nothing is
	awayAt time.Duration      // not before
	party  *fifo              // a third party's audio, as samples at the carrier's rate; nil: there is none
	tap    func(frame []byte) // is given each frame of the agent's; nil: nobody wants them
	muted  bool               // the agent is not heard: what it says is discarded
	// cleared is called when the agent interrupts itself; nil: nobody wants to know.
	cleared func()
	mixer   mixer
}

// Held reports whether the caller is held.
func (p *Playout) Held() bool { return p.held != nil }

// Hold plays frames over and over in place of the agent's audio; nil ends that. It
// reports whether the caller is held.
func (p *Playout) Hold(frames []byte) bool {
	p.held, p.heldAt = frames[:len(frames)/p.frame*p.frame], 0
	if len(p.held) == 0 {
		p.held = nil
	}
	return p.held != nil
}

// Away plays frames over and over from a time on, once all that the agent has said was heard and until it
// says more; nil ends that.
func (p *Playout) Away(frames []byte, from time.Duration) {
	p.away, p.awayAt, p.heldAt = frames[:len(frames)/p.frame*p.frame], from, 0
}

// fillsFrom returns from when on the caller hears what is played while the agent is away.
func (p *Playout) fillsFrom() time.Duration {
	if len(p.away) == 0 || p.party != nil || p.speaking || p.queue.len() >= p.frame || !p.voice.empty() {
		return Forever
	}
	return p.awayAt
}

// source is who a frame is of that is not the agent's.
type source uint8

const (
	nobody source = iota
	ofTones
	ofHold
	ofParty
	ofAway
	ofNothing
)

// insertion returns whose frame comes before the agent's, if any does.
func (p *Playout) insertion(now time.Duration) source {
	switch {
	case len(p.tones) > 0:
		return ofTones
	case p.held != nil:
		return ofHold
	case p.partyReady(now) && (p.paused || p.queue.len() < p.frame): // otherwise both are mixed
		return ofParty
	case now >= p.fillsFrom():
		return ofAway
	}
	return nobody
}

// partyReady reports whether a frame of the party's waits: two at the beginning of a run, so
// that one is there at each later time, though it does not come evenly.
func (p *Playout) partyReady(now time.Duration) bool {
	frames := 2
	if p.playing(now) {
		frames = 1
	}
	return p.party != nil && p.party.len() >= frames*2*p.format.FrameSamples()
}

// sendInsertion hands one frame to the carrier that is not the agent's. It takes no
// place on the agent's timeline.
func (p *Playout) sendInsertion(now time.Duration, from source, buf []byte, cmd *providers.Command) {
	p.insert(now)
	p.stats.FramesOut++
	p.fresh = true // the silence around it is no hole
	*cmd = providers.Command{Kind: providers.CommandAudio}
	switch from {
	case ofTones:
		var done *Item
		cmd.Audio, done = p.nextTone(p.format, buf)
		p.toned = p.dry()
		if done != nil && done.ID != "" {
			p.tell(agent.Event{Kind: agent.EventAck, Ref: done.ID, Out: p.Heard(now)})
		}
	case ofHold:
		cmd.Audio = p.over(p.held, buf)
	case ofAway:
		cmd.Audio = p.over(p.away, buf)
	case ofParty, ofNothing:
		cmd.Audio = p.format.Encoding.AppendSilence(buf[:0], p.frame)
		if from == ofParty {
			p.mixer.add(p.format, cmd.Audio, p.party)
		}
	}
}

// over returns the next frame of what is played over and over.
func (p *Playout) over(frames, buf []byte) []byte {
	at := p.heldAt % len(frames)
	p.heldAt = at + p.frame
	return append(buf[:0], frames[at:at+p.frame]...)
}

// stretches reports whether a pause of the agent's is to be made a frame longer: an agent that paces
// itself, by a clock that is slow, has used up half of the reserve that it was given. The lead bounds
// what the carrier ever holds when a frame is due.
func (p *Playout) stretches(now time.Duration) bool {
	if p.prebuffer == 0 || p.party != nil || !p.playing(now) || p.queue.len() >= 2*p.frame ||
		p.dry()-now >= min(p.prebuffer, p.lead-codec.FrameTime)/2 {
		return false
	}
	return quietIn(p.format, p.queue.bytes()[:p.frame])
}
