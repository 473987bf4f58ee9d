package providers

import (
	"slices"
)

// Whatever a carrier says about a call, by webhook, by an event socket or in a reply
// of its REST API, becomes a few CallEvents; one function in package control takes
// them all.

// CallEventKind says what a CallEvent is.
type CallEventKind uint8

// The kinds of call events.
const (
	// CallAsked: the carrier asks what to do with a call: one that comes in, or a
	// placed one that has been answered.
	CallAsked CallEventKind = iota + 1
	// CallProgress: the call has come to Status.
	CallProgress
	// CallDetected: machine detection has found AnsweredBy.
	CallDetected
	// CallStepDone: the stream, the room or the number of an Answer is over. Status
	// tells how the call to a number went; empty: it was no number.
	CallStepDone
	// CallKey: Digit is the answer to a Question; empty: no key was pressed in time.
	CallKey
	// CallRoom: the leg has Joined a room, or left it.
	CallRoom
	// CallNotice: something that only people can do something about, in Raw: an answer that
	// the carrier could not carry out, a stream that failed.
	CallNotice
)

// String returns the kind's name, for logs.
func (k CallEventKind) String() string {
	return [...]string{"", "asked", "progress", "detected", "step done", "key", "room", "notice"}[k]
}

// CallEvent is something that a carrier says about one leg of a call. It may come
// twice, late and in any order. Only the fields of its kind are set, beside those
// that say which leg is meant.
type CallEvent struct {
	Kind CallEventKind
	// ID is the carrier's own id of the event, the same when it is sent again; empty
	// where there is none.
	ID string
	// Ref is the part of a URL that the event belongs to, behind the account's own
	// part: see Answer.Next. Carriers that send everything to one URL have it from
	// what they were given with the command; empty: the URL that it came to tells.
	Ref string
	// Leg is the id of the call's leg that commands take, Aliases its other ids.
	Leg     string
	Aliases []string
	// Wants tells that the answer is given in the reply, so that there must be one.
	Wants bool

	From, To string // CallAsked, where they are told: E.164 where they are numbers
	// Metadata is what comes along with an inbound call, CallAsked; see CheckMetadata.
	Metadata map[string]string
	Forward  string // CallAsked: Dial.Forward for this caller's number
	Status   Status
	// Unanswered tells that a call with StatusCompleted was never answered. A better word for
	// how it went may follow.
	Unanswered bool
	Raw        string // the carrier's own word for it
	AnsweredBy AnsweredBy
	Digit      string
	Joined     bool
	// Place is what the carrier calls where the leg is, in what Commands.Get returns: it
	// changes when the call is taken elsewhere. Empty: it does not tell.
	Place string
}

// Is reports whether id is one of the leg's.
func (e *CallEvent) Is(id string) bool { return e.Leg == id || slices.Contains(e.Aliases, id) }

// Status is what has become of a call.
type Status string

// The statuses. A call goes through the first three in this order, and ends with
// one of the others.
const (
	StatusInitiated  Status = "initiated"
	StatusRinging    Status = "ringing"
	StatusInProgress Status = "in-progress"
	StatusCompleted  Status = "completed"
	StatusBusy       Status = "busy"
	StatusNoAnswer   Status = "no-answer"
	StatusFailed     Status = "failed"
	StatusCanceled   Status = "canceled"
	StatusError      Status = "error" // a word that the carrier does not document: no change
)

// Final reports whether the call has ended.
func (s Status) Final() bool {
	return s == StatusCompleted || s == StatusBusy || s == StatusNoAnswer || s == StatusFailed || s == StatusCanceled
}

// AnsweredBy is who picked up a call.
type AnsweredBy string

// What answering machine detection can tell.
const (
	AnsweredByHuman   AnsweredBy = "human"
	AnsweredByMachine AnsweredBy = "machine"
	AnsweredByFax     AnsweredBy = "fax"
	AnsweredByUnknown AnsweredBy = "unknown"
)
