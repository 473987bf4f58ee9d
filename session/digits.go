package session

// Digits to the other party: tones in the audio, or the carrier's own.

import (
	"strings"
	"time"

	"voicebridge/codec"
	"voicebridge/providers"
)

// The usual length of a tone, and of the silence after it.
const (
	DefaultTone    = 100 * time.Millisecond
	DefaultToneGap = 60 * time.Millisecond
)

const (
	maxDigits      = 64 // of one command
	maxDigitsQueue = 32 // commands that wait
)

// ValidDigits tells whether s may be sent: 1 to 64 of 0-9 * # A-D, and w and W,
// which wait for half a second and a second.
func ValidDigits(s string) bool {
	return s != "" && len(s) <= maxDigits && strings.Trim(s, "0123456789*#ABCDwW") == ""
}

// tones are digits under way. They are made one by one.
type tones struct {
	item
	audio []byte // of those begun, in the carrier's format
}

// digits queues digits behind the audio so far, or sends them at once. It is
// false where too many wait or the call is about to end.
func (p *playout) digits(it item, now bool) bool {
	waiting := len(p.tones) + len(p.signals)
	for _, other := range p.items {
		if other.digits != "" {
			waiting++
		}
	}
	if waiting >= maxDigitsQueue || p.finishing {
		return false
	}
	if now {
		p.dial(it)
		return true
	}
	it.at = p.pushed
	p.items = append(p.items, it)
	return true
}

// dial begins to send digits whose time has come.
func (p *playout) dial(it item) {
	if p.native {
		p.signals = append(p.signals, it)
		return
	}
	p.tones = append(p.tones, tones{item: it})
}

// signal gives the digits that the carrier is to send. Those after them wait until
// they are sent.
func (p *playout) signal(cmd *providers.Command) {
	p.signalled, p.signalling = p.signals[0], true
	p.signals = p.signals[1:]
	*cmd = providers.Command{Kind: providers.CommandDigits, Digits: p.signalled.digits}
}

// digitsLeft tells whether digits are on their way that a hang-up must not cut.
func (p *playout) digitsLeft() bool { return p.signalling || len(p.signals) > 0 || len(p.tones) > 0 }

// source is who a frame is of that is not the agent's.
type source uint8

const (
	nobody source = iota
	ofTones
	ofHold
	ofParty
)

// beside gives whose frame comes before the agent's, if any does.
func (p *playout) beside() source {
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

// sendBeside hands one frame to the carrier that is not the agent's. It takes no
// place on the agent's timeline: what was handed out before only seems to have begun
// earlier.
func (p *playout) sendBeside(now time.Duration, from source, buf []byte, cmd *providers.Command) {
	if !p.run || now > p.dry() {
		p.run, p.t0, p.base = true, now, p.taken
	}
	p.base -= p.step
	p.stats.FramesOut++
	p.fresh = true // the silence around it is no hole
	*cmd = providers.Command{Kind: providers.CommandAudio}
	switch from {
	case ofTones:
		cmd.Audio = p.tone(now, buf)
	case ofHold:
		cmd.Audio = append(buf[:0], p.held[p.heldAt:p.heldAt+p.frame]...)
		p.heldAt = (p.heldAt + p.frame) % len(p.held)
	case ofParty:
		cmd.Audio = p.mixParty(nil, buf)
	}
}

// tone gives the next frame of tones.
func (p *playout) tone(now time.Duration, buf []byte) []byte {
	t := &p.tones[0]
	for len(t.audio) < p.frame && t.digits != "" {
		t.audio = codec.AppendDTMF(t.audio, p.format, t.digits[:1], t.tone, t.gap)
		t.digits = t.digits[1:]
	}
	if missing := p.frame - len(t.audio); missing > 0 {
		t.audio = p.format.Encoding.AppendSilence(t.audio, missing)
	}
	frame := append(buf[:0], t.audio[:p.frame]...)
	p.toned = p.dry()
	if t.audio = t.audio[p.frame:]; len(t.audio) == 0 && t.digits == "" {
		if t.id != "" {
			p.tell(AgentEvent{Kind: AgentAck, Ref: t.id, Out: p.heard(now)})
		}
		p.tones = p.tones[1:]
	}
	return frame
}

// hold plays frames over and over in place of the agent's audio; nil ends that. It
// tells whether the caller is held.
func (p *playout) hold(frames []byte) bool {
	p.held, p.heldAt = frames[:len(frames)/p.frame*p.frame], 0
	if len(p.held) == 0 {
		p.held = nil
	}
	return p.held != nil
}
