package mediajson

import (
	"time"

	"voicebridge/providers"
)

// window is how many frames are waited for one that comes late.
const window = 5

// Order puts the frames of a carrier that sends them in any order into theirs, by their
// numbers, which begin with 1 or so. The zero value is ready.
type Order struct {
	next    uint64
	missing int // frames before it that will not come
	early   [window]frame
	spare   []byte
}

// frame is one that has come. Its audio is used again.
type frame struct {
	number uint64 // 0: none
	at     time.Duration
	audio  []byte
}

// Buffer is where the audio of the frame that is given next is to be decoded to.
func (o *Order) Buffer() []byte { return o.spare[:0] }

// Take takes frame n, whose audio has been appended to Buffer, and appends the frames that
// are due: this one, those that have waited for it, or none where one before it is still to
// come. Their audio is good until the next Take.
func (o *Order) Take(evs []providers.Event, n uint64, at time.Duration, audio []byte) []providers.Event {
	o.spare = audio
	switch {
	case o.next == 0 && n <= window: // the first ones may have been overtaken
		o.next = 1
	case o.next == 0:
		o.next = n
	case n < o.next: // twice, or too late
		return evs
	case n >= o.next+maxLost: // another numbering
		o.next, o.missing = n, 0
		for i := range o.early {
			o.early[i].number = 0
		}
	}
	for n >= o.next+window { // those before are given up: they would be waited for too long
		evs = o.due(evs, true)
	}
	// The audio that the place had may be given out just now: it is used again later.
	slot := &o.early[n%window]
	o.spare = slot.audio
	*slot = frame{n, at, audio}
	for o.early[o.next%window].number == o.next {
		evs = o.due(evs, false)
	}
	return evs
}

// due appends the next frame, if it is there, and goes on to the one behind it.
func (o *Order) due(evs []providers.Event, givenUp bool) []providers.Event {
	if f := &o.early[o.next%window]; f.number == o.next {
		evs = append(evs, providers.Event{Kind: providers.EventAudio, Audio: f.audio, At: f.at, Missing: o.missing})
		o.missing = 0
	} else if givenUp {
		o.missing++
	}
	o.next++
	return evs
}
