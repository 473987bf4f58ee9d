package providers

import (
	"fmt"
	"reflect"
	"strings"
	"time"
)

// Abilities are what a carrier can do and how it behaves, as data: the core knows
// no carrier by name. The tags say the same to people.
type Abilities struct {
	// The media connection.
	Marks       bool `json:"marks" means:"reports when playout reaches a mark"`
	Clear       bool `json:"clear" means:"can discard queued audio"`
	ClearMarks  bool `json:"clear_marks" means:"reports the marks that a clear discards"`
	Clears      bool `json:"clears" means:"confirms a clear"` // with an EventCleared
	Digits      bool `json:"digits" means:"reports digits that the caller presses"`
	SendDigits  bool `json:"send_digits" means:"takes digits to send on the media connection"`
	Hangup      bool `json:"hangup" means:"can end the call on the media connection"`
	FixedFrames bool `json:"fixed_frames" means:"audio messages hold exactly 20 ms"`
	Greets      bool `json:"greets" means:"greets before the start"`    // with an EventConnected
	Reorders    bool `json:"reorders" means:"audio comes in any order"` // the Stream puts it in order
	Silent      bool `json:"silent" means:"sends nothing while the caller is silent"`
	StreamStays bool `json:"stream_stays" means:"the stream goes on when its call is taken elsewhere"`
	// Queue is how much audio the carrier holds for playing before it discards
	// what comes; 0 where no limit is known.
	Queue time.Duration `json:"queue_ns" means:"holds at most so much audio for playing"`

	// The control of calls.
	Commanded      bool `json:"commanded" means:"takes commands, not answers"`
	DialStrings    bool `json:"dial_strings" means:"dials what is no number, as its account allows"`
	Rings          bool `json:"rings" means:"tells that a placed call rings"`
	CompletesFirst bool `json:"completes_first" means:"may tell of an end before it tells why"`
	RoomAtLeg      bool `json:"room_at_leg" means:"tells who comes into a conference at the leg's own URL"`
	RoomLeft       bool `json:"room_left" means:"tells who leaves a conference"`
	RoomEnds       bool `json:"room_ends" means:"can end a conference when a certain leg leaves it"`
	RoomHold       bool `json:"room_hold" means:"plays given audio to who waits in a conference"`
	Detects        bool `json:"detects" means:"detects answering machines"`
	DetectsHumans  bool `json:"detects_humans" means:"tells of humans, not of machines only"`
	DetectDigits   bool `json:"detect_digits" means:"machine detection and digits at the answer go together"`
	PressesDigits  bool `json:"presses_digits" means:"sends digits to the other party on request"`
	// 0: any number
	DigitsAtOnce   int           `json:"digits_at_once" means:"sends at most so many digits in a request"`
	KeyWait        time.Duration `json:"key_wait_ns" means:"waits at least so long for a key"`
	AnswerWait     time.Duration `json:"answer_wait_ns" means:"waits at most so long for an answer"`
	SignsBodies    bool          `json:"signs_bodies" means:"signs the body of a webhook"`
	SignsHandshake bool          `json:"signs_handshake" means:"signs the handshake of a media connection"`
}

// Ability is one of them, for people.
type Ability struct {
	Name  string // as in JSON
	Means string
	Has   string // "yes", "no" or a figure; "any" where there is no limit
}

// List returns all of them, in order.
func (a Abilities) List() (list []Ability) {
	for field, value := range reflect.ValueOf(a).Fields() {
		has := fmt.Sprint(value.Interface())
		switch {
		case value.Kind() == reflect.Bool && value.Bool():
			has = "yes"
		case value.Kind() == reflect.Bool:
			has = "no"
		case value.IsZero():
			has = "any"
		}
		list = append(list, Ability{field.Tag.Get("json"), field.Tag.Get("means"), has})
	}
	return list
}

// String lists what the media connection can do, for logs.
func (a Abilities) String() string {
	var can []string
	for _, x := range []struct {
		is   bool
		name string
	}{{a.Marks, "marks"}, {a.Clear, "clear"}, {a.Digits, "digits"}, {a.SendDigits, "send-digits"}} {
		if x.is {
			can = append(can, x.name)
		}
	}
	return strings.Join(can, ",")
}
