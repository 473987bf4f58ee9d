// Package transfer moves live calls to other people, and never loses anyone on the
// way. It is one state machine (machine.go, as data), a Store that keeps every
// transfer where all instances see it, and a Manager that acts for the transfers
// it owns.
//
// A move is one compare-and-set in the store: the transfer's record, the index by
// call and the log change together or not at all. Webhooks and commands may land
// on any instance and only make moves. What is to be done follows from the record
// alone (duty), and only the owner does it, under a lease: when the owner dies,
// another instance takes the transfer over where it is.
package transfer

import (
	"maps"
	"slices"
	"time"
)

// Mode is how a call is transferred.
type Mode string

// The modes.
const (
	Blind      Mode = "blind"      // the carrier connects the caller to the number; the bridge leaves
	Conference Mode = "conference" // the agent talks on until the destination answers
	Attended   Mode = "attended"   // the destination is told first, and accepts
)

// Modes lists them.
var Modes = []Mode{Blind, Conference, Attended}

// Request asks for a transfer. It does not change afterwards.
type Request struct {
	Call     string // our id of the call
	Account  string
	Provider string
	Caller   string // the carrier's id of the caller's leg
	To, From string // E.164: the destination, and who seems to call it
	// Own is the bridge's number of the call, for a carrier that does not let it seem to be
	// somebody else's; Forward is what lets it (providers.Dial).
	Own, Forward string
	Name         string // of the destination, if it has one
	Mode         Mode
	Agent        string // AgentListens, AgentStays; empty: it leaves
	Host         string // where the destination is streamed to, if the agent does not leave
	Whisper      string // attended: what the destination is told
	Language     string // of Whisper
	Voice        string
	Brief        string // attended: the agent that tells it instead of a whisper
	Accept       string // attended: AcceptDigit, AcceptStay
	Digits       string // sent when the destination answers: an extension
	Detect       bool   // look out for answering machines
	Ring         time.Duration
	Hold         string // what the caller hears meanwhile; see media
	// OnFail says what becomes of the caller when the transfer fails: Resume, Hangup
	// or a number; by reason, "" for all others. OnEnd says it for when the
	// destination leaves first.
	OnFail  map[string]string
	OnEnd   string
	Context map[string]string // for the destination's side
	By      string            // ReasonAgent, ReasonAPI: who has asked
	Ref     string            // the agent's id of its command
	Returns int64             // how often the call had come back to an agent before
	Place   string            // blind: what the carrier calls where the caller is, if it tells
}

// What an agent may do instead of leaving. Caller, agent and destination then meet
// in the bridge, not in a conference of the carrier's.
const (
	AgentListens = "listen" // it hears both, and is not heard
	AgentStays   = "stay"
)

// How a destination accepts a call.
const (
	AcceptDigit = "digit" // by pressing 1
	AcceptStay  = "stay"  // by not hanging up
)

// Record is a transfer.
type Record struct {
	ID string
	Request
	Room  string // the name of the conference: of this attempt alone
	Nonce string // in the URLs of its webhooks

	State   State
	Want    State  // Compensating: how it ends
	Reason  string // why it failed, was canceled, or ended
	Detail  string
	Version int64 // counts the moves and notes
	Fence   int64 // counts the owners
	Owner   string
	Due     int64 // until when State may last, Unix milliseconds of the store's clock; 0: any time
	Created int64
	Updated int64

	Dialed     bool   // the carrier is being, or has been, asked to call the destination
	Leg        string // its id of the destination's leg
	Picked     int64  // when it was answered, Unix milliseconds of the store's clock
	LegIn      bool   // the carrier has told that it is in the room
	LegDown    bool
	Human      bool
	At         Place
	CallerIn   bool // the carrier has told that the caller is in the room
	CallerGone bool
	Settled    bool

	Now int64 // the time of the store's clock when the record was read; it is not kept
}

func (r *Record) copy() *Record {
	c := *r
	c.OnFail, c.Context = maps.Clone(r.OnFail), maps.Clone(r.Context)
	return &c
}

// facts are the events that have made the record know what it does. All but the news
// among them change nothing in a record that knows them.
func (r *Record) facts() (evs []Event) {
	for _, f := range []struct {
		is bool
		ev Event
	}{
		{r.Leg != "", Event{Kind: Placed, Leg: r.Leg}}, {r.Human, Event{Kind: Human}}, {r.LegIn, Event{Kind: LegIn}},
		{r.CallerIn, Event{Kind: CallerIn}}, {r.LegDown, Event{Kind: LegDown, Reason: r.Reason}},
		{r.CallerGone, Event{Kind: CallerLeft}},
	} {
		if f.is {
			evs = append(evs, f.ev)
		}
	}
	return evs
}

// behind reports whether r does not know what another record of the same transfer does: a
// store that went back in time, even if it has gone on since.
func (r *Record) behind(known *Record) bool {
	lost := func(was, is bool) bool { return was && !is }
	return r.Version < known.Version || slices.Index(States, r.State) < slices.Index(States, known.State) ||
		lost(known.Dialed, r.Dialed) || lost(known.Human, r.Human) || lost(known.LegIn, r.LegIn) ||
		lost(known.LegDown, r.LegDown) || lost(known.CallerGone, r.CallerGone) || lost(known.Settled, r.Settled) ||
		lost(known.At != AtAgent, r.At != AtAgent)
}

// Entry is one line of a transfer's log: a move or a note, and what it led to.
type Entry struct {
	Version int64
	Kind    Kind
	State   State
	Reason  string
	Fence   int64
	At      int64 // Unix milliseconds of the store's clock
}

// Move reports whether the entry is a move to its State, not a note.
func (e Entry) Move() bool { return !slices.Contains(notes, e.Kind) }
