package providers

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"time"

	"voicebridge/codec"
)

// Answer is what a carrier is told to do with a call: stream it to Media until
// the stream ends; or say Say, then ask for a key, or put it into a Room until it
// leaves, or connect it to the number Dial until one of them hangs up. After a
// stream, a room or a number it asks at Next; without Next, or anything else, the
// call ends. An Answer is given in the reply to a CallEvent that Wants one, otherwise
// by Commands.Do.
type Answer struct {
	Media string // ws:// or wss:// URL
	// Next is a URL, as are Question.URL and Room.Events. Where the carrier takes no
	// URLs for these, it must be made to give them back: see CallEvent.Ref.
	Next string
	Ask  *Question
	Room *Room
	// Format is the stream's, where an Exchange has read the answer. Accounts
	// choose it by themselves.
	Format codec.Format

	Say string // spoken text
	// Language (BCP 47) and Voice are those of Say; empty: the carrier's own. Voices have the
	// carrier's names.
	Language, Voice string

	Dial   string // E.164
	Caller string // E.164: who seems to call Dial; empty: the carrier chooses
	// Ring is how long Dial may ring, in whole seconds; 0: DefaultRing.
	Ring time.Duration
	// Unanswered tells that the call comes in and is still to be picked up, for
	// carriers that must be told so.
	Unanswered bool
}

// DefaultRing is how long the number of an Answer rings.
const DefaultRing = 30 * time.Second

// RingSeconds returns how long Dial may ring, in seconds.
func (a *Answer) RingSeconds() int {
	if a.Ring == 0 {
		return int(DefaultRing / time.Second)
	}
	return int(a.Ring / time.Second)
}

// Question asks the other party to press one key.
type Question struct {
	URL  string        // told the key: CallKey
	Wait time.Duration // for the key, in whole seconds, once Say is said
}

// Room is a conference: whoever is told the same name is in it.
type Room struct {
	Name   string
	End    bool   // it ends when this call leaves
	Wait   bool   // this call waits for the other one: it does not begin with it
	Events string // URL told who comes and goes: CallRoom; empty: nobody is told
	Hold   string // URL of the audio that one hears who is alone; empty: the carrier's
}

// Empty reports whether there is nothing to be done: the call ends.
func (a *Answer) Empty() bool {
	return a.Media == "" && a.Next == "" && a.Say == "" && a.Dial == "" && a.Ask == nil && a.Room == nil
}

// Equal reports whether two answers ask for the same.
func (a *Answer) Equal(b *Answer) bool {
	x, y := *a, *b
	for _, p := range []*Answer{&x, &y} {
		p.Ask, p.Room, p.Format, p.Unanswered = nil, nil, codec.Format{}, false
		if p.Ring = time.Duration(p.RingSeconds()) * time.Second; p.Dial == "" {
			p.Ring = 0
		}
	}
	return x == y && equal(a.Ask, b.Ask) && equal(a.Room, b.Room)
}

// equal compares what two pointers point to.
func equal[T comparable](a, b *T) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

// Document is an answer in the carrier's own language.
type Document struct {
	ContentType string
	Body        []byte
}

// e164 is a number as ITU-T E.164 has it.
var e164 = regexp.MustCompile(`^\+[1-9][0-9]{6,14}$`)

// ValidNumber reports whether s is a number in E.164, with its plus.
func ValidNumber(s string) bool { return e164.MatchString(s) }

// MaxMetadata bounds the metadata of a call, in bytes as JSON. It travels in tokens
// that stand in URLs, of which two must fit into the shortest document that a carrier
// takes inline.
const MaxMetadata = 768

// CheckMetadata returns what is wrong with the metadata of a call.
func CheckMetadata(m map[string]string) error {
	for k, v := range m {
		if k == "" || strings.ContainsFunc(k+v, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd }) {
			return fmt.Errorf("%.40q: names must not be empty, and no control characters", k)
		}
	}
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if len(m) > 0 && len(b) > MaxMetadata {
		return fmt.Errorf("%d bytes as JSON are more than the %d that a call takes along", len(b), MaxMetadata)
	}
	return nil
}
