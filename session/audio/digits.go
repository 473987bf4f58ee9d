package audio

import (
	"time"

	"voicebridge/codec"
)

// maxDigitsQueue bounds the commands with digits that wait.
const maxDigitsQueue = 32

// digits are those to the other party whose time has come: as tones in the audio, or
// sent by the carrier itself.
type digits struct {
	native bool // the carrier sends digits, they are not tones in the audio

	tones []tones       // under way as audio; the first one is being played
	toned time.Duration // until when the carrier plays those it has got

	signals    []Item // that the carrier is to send
	signalled  Item   // the last of them that was given out
	signalling bool   // the carrier is still to confirm it
}

// tones are the digits of one command under way. They are made one by one.
type tones struct {
	Item
	audio []byte // of those begun, in the carrier's format
}

// begin takes digits whose time has come.
func (d *digits) begin(it Item) {
	if d.native {
		d.signals = append(d.signals, it)
		return
	}
	d.tones = append(d.tones, tones{Item: it})
}

// length is how long the digits of a command sound.
func (it *Item) length() (d time.Duration) {
	for _, digit := range it.Digits {
		switch digit {
		case 'w':
			d += time.Second / 2
		case 'W':
			d += time.Second
		default:
			d += it.Tone + it.Gap
		}
	}
	return d
}

// waiting counts the commands that wait here.
func (d *digits) waiting() int { return len(d.tones) + len(d.signals) }

// left reports whether digits are on their way that a hang-up must not cut.
func (d *digits) left() bool { return d.signalling || d.waiting() > 0 }

// signal returns the digits that the carrier is to send; ok is false where there are
// none, or the last ones are not confirmed yet: those after them wait.
func (d *digits) signal() (digits string, ok bool) {
	if len(d.signals) == 0 || d.signalling || len(d.tones) > 0 {
		return "", false
	}
	d.signalled, d.signalling = d.signals[0], true
	d.signals = d.signals[1:]
	return d.signalled.Digits, true
}

// nextTone moves the next frame of tones into buf, in the carrier's format. done is the
// command that ends with it; nil: it goes on.
func (d *digits) nextTone(f codec.Format, buf []byte) (frame []byte, done *Item) {
	t := &d.tones[0]
	size := f.FrameBytes()
	for len(t.audio) < size && t.Digits != "" {
		t.audio = codec.AppendDTMF(t.audio, f, t.Digits[:1], t.Tone, t.Gap)
		t.Digits = t.Digits[1:]
	}
	if missing := size - len(t.audio); missing > 0 {
		t.audio = f.Encoding.AppendSilence(t.audio, missing)
	}
	frame = append(buf[:0], t.audio[:size]...)
	if t.audio = t.audio[size:]; len(t.audio) == 0 && t.Digits == "" {
		done = &t.Item
		d.tones = d.tones[1:]
	}
	return frame, done
}

// NativeDigits reports whether the carrier sends digits itself.
func (d *digits) NativeDigits() bool { return d.native }

// Signalled are the digits that Next gave out last, of those that the carrier sends.
func (d *digits) Signalled() Item { return d.signalled }

// Confirm takes note that the carrier has sent the digits of Signalled, or never will:
// those after them are next.
func (d *digits) Confirm() { d.signalling = false }

// Unknown takes note that the carrier does not know these digits: they become tones.
func (d *digits) Unknown(it Item) {
	d.tones = append(d.tones, tones{Item: it})
}
