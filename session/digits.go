package session

import (
	"strings"
	"time"

	"voicebridge/codec"
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

// ValidDigits reports whether s may be sent: 1 to 64 of 0-9 * # A-D, and w and W,
// which wait for half a second and a second.
func ValidDigits(s string) bool {
	return s != "" && len(s) <= maxDigits && strings.Trim(s, "0123456789*#ABCDwW") == ""
}

// digits are those to the other party whose time has come: as tones in the audio, or
// sent by the carrier itself.
type digits struct {
	native bool // the carrier sends digits, they are not tones in the audio

	tones []tones       // under way as audio; the first one is being played
	toned time.Duration // until when the carrier plays those it has got

	signals    []item // that the carrier is to send
	signalled  item   // the last of them that was given out
	signalling bool   // the carrier is still to confirm it
}

// tones are the digits of one command under way. They are made one by one.
type tones struct {
	item
	audio []byte // of those begun, in the carrier's format
}

// begin takes digits whose time has come.
func (d *digits) begin(it item) {
	if d.native {
		d.signals = append(d.signals, it)
		return
	}
	d.tones = append(d.tones, tones{item: it})
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
	return d.signalled.digits, true
}

// nextTone moves the next frame of tones into buf, in the carrier's format. done is the
// command that ends with it; nil: it goes on.
func (d *digits) nextTone(f codec.Format, buf []byte) (frame []byte, done *item) {
	t := &d.tones[0]
	size := f.FrameBytes()
	for len(t.audio) < size && t.digits != "" {
		t.audio = codec.AppendDTMF(t.audio, f, t.digits[:1], t.tone, t.gap)
		t.digits = t.digits[1:]
	}
	if missing := size - len(t.audio); missing > 0 {
		t.audio = f.Encoding.AppendSilence(t.audio, missing)
	}
	frame = append(buf[:0], t.audio[:size]...)
	if t.audio = t.audio[size:]; len(t.audio) == 0 && t.digits == "" {
		done = &t.item
		d.tones = d.tones[1:]
	}
	return frame, done
}
