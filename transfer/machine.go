package transfer

import (
	"slices"
	"time"
)

// State is how far a transfer is.
type State string

// The states, in the order in which they are gone through; some are skipped. The
// last four are final.
const (
	Requested    State = "requested"    // stored, nothing done yet
	Dialing      State = "dialing"      // the carrier is asked to call the destination
	Ringing      State = "ringing"      // its phone rings
	Answered     State = "answered"     // somebody, or something, has picked up
	Briefing     State = "briefing"     // the destination hears what the call is about
	Accepted     State = "accepted"     // and wants it
	Bridging     State = "bridging"     // the caller is being moved
	Bridged      State = "bridged"      // caller and destination talk
	Compensating State = "compensating" // legs are cleared, the caller is taken care of
	Ended        State = "ended"        // after bridged: somebody has hung up
	Failed       State = "failed"
	Canceled     State = "canceled"
	TimedOut     State = "timed_out"
)

// States lists them.
var States = []State{Requested, Dialing, Ringing, Answered, Briefing, Accepted, Bridging, Bridged, Compensating, Ended,
	Failed, Canceled, TimedOut}

// Final reports whether a state is never left.
func (s State) Final() bool { return s == Ended || s == Failed || s == Canceled || s == TimedOut }

// Kind says what an Event is.
type Kind string

// The events. The second group are notes: they tell a fact without a move.
const (
	Begin      Kind = "begin"       // to call the destination
	Divert     Kind = "divert"      // blind: to have the carrier connect the caller
	Rang       Kind = "rang"        // the destination's phone rings
	Picked     Kind = "picked"      // it has been answered
	Brief      Kind = "brief"       // the destination is being told
	Accept     Kind = "accept"      // it takes the call
	Decline    Kind = "decline"     // it does not
	Machine    Kind = "machine"     // an answering machine has answered
	Bridge     Kind = "bridge"      // to move the caller
	Joined     Kind = "joined"      // caller and destination are together
	LegDown    Kind = "leg_down"    // the destination's leg has ended, or never was: Reason
	Refused    Kind = "refused"     // the carrier does not do what it was asked to: Reason
	CallerLeft Kind = "caller_left" // the caller has hung up
	Cancel     Kind = "cancel"      // somebody wants no transfer any more: Reason says who
	Timeout    Kind = "timeout"     // the state has lasted too long
	Cleared    Kind = "cleared"     // nothing is left to be cleared

	Placed   Kind = "placed"    // the carrier calls the destination: Leg
	Human    Kind = "human"     // a human has answered
	Unsure   Kind = "unsure"    // nobody knows whether the carrier calls the destination
	Moved    Kind = "moved"     // the caller has been taken to Place
	CallerIn Kind = "caller_in" // the caller is in the room
	LegIn    Kind = "leg_in"    // the destination's leg is in the room
	Settled  Kind = "settled"   // the caller has been taken care of
	dialing  Kind = "dialing"   // the carrier is about to be asked to call the destination
)

// notes are the kinds of entries that are no moves.
var notes = []Kind{Placed, Human, Unsure, Moved, CallerIn, LegIn, Settled, dialing, Claimed, Restored}

// claimed is the entry of a new owner, create that of the request, restored that of a
// record that a store had lost or had an older version of.
const (
	Claimed  Kind = "claim"
	Create   Kind = "create"
	Restored Kind = "restore"
)

// moves are all that are legal. What is not here changes nothing: it is late, has
// come twice, or makes no sense.
var moves = map[State]map[Kind]State{
	Requested: {Begin: Dialing, Divert: Bridging, Refused: Compensating, CallerLeft: Compensating, Cancel: Compensating,
		Timeout: Compensating},
	Dialing: {Rang: Ringing, Picked: Answered,
		LegDown: Compensating, Refused: Compensating, CallerLeft: Compensating, Cancel: Compensating,
		Timeout: Compensating, Machine: Compensating},
	Ringing: {Picked: Answered,
		LegDown: Compensating, Refused: Compensating, CallerLeft: Compensating, Cancel: Compensating,
		Timeout: Compensating, Machine: Compensating},
	Answered: {Brief: Briefing, Bridge: Bridging, Decline: Compensating, Machine: Compensating,
		LegDown: Compensating, Refused: Compensating, CallerLeft: Compensating, Cancel: Compensating,
		Timeout: Compensating},
	Briefing: {Accept: Accepted, Decline: Compensating, Machine: Compensating,
		LegDown: Compensating, Refused: Compensating, CallerLeft: Compensating, Cancel: Compensating,
		Timeout: Compensating},
	Accepted: {Bridge: Bridging, Machine: Compensating, LegDown: Compensating, Refused: Compensating,
		CallerLeft: Compensating,
		Cancel:     Compensating, Timeout: Compensating},
	Bridging: {Joined: Bridged, Machine: Compensating, LegDown: Compensating, Refused: Compensating,
		CallerLeft: Compensating, Cancel: Compensating, Timeout: Compensating},
	Bridged:      {Machine: Compensating, LegDown: Compensating, CallerLeft: Compensating, Cancel: Compensating},
	Compensating: {Cleared: ""}, // to Want
}

// times bound the states; Dialing and Ringing last as long as the destination may
// ring, and a little longer, so that the carrier's own limit comes first.
var times = map[State]time.Duration{
	Requested:    10 * time.Second,
	Answered:     15 * time.Second,
	Briefing:     3 * time.Minute,
	Accepted:     10 * time.Second,
	Bridging:     20 * time.Second,
	Compensating: 60 * time.Second,
}

const (
	ringSlack = 8 * time.Second
	// unsureTime is how long a leg is waited for of which nobody knows whether the
	// carrier has made it.
	unsureTime = 8 * time.Second
	// humanTime is how long answering machine detection may take.
	humanTime = 6 * time.Second
)

// Event is something that happens to a transfer.
type Event struct {
	Kind   Kind
	Reason string // LegDown, Refused, Cancel
	Detail string // for people
	Leg    string // the carrier's id of the destination's leg, where it is known
	// Aliases are its other ids: one that was known as one of them is Leg from now on.
	Aliases []string
	Place   Place // Moved
	// Settled: whoever tells of the event takes care of the caller, too.
	Settled bool
}

// The reasons for which a transfer does not come about, or ends.
const (
	ReasonBusy        = "busy"
	ReasonNoAnswer    = "no_answer"
	ReasonDeclined    = "declined"
	ReasonMachine     = "machine"
	ReasonInvalid     = "invalid_destination"
	ReasonCarrier     = "carrier_error"
	ReasonTimeout     = "timeout"
	ReasonCaller      = "caller_left"
	ReasonDestination = "destination_left"
	ReasonAgent       = "agent"    // canceled by it
	ReasonAPI         = "api"      // canceled by it
	ReasonLost        = "lost"     // the record has gone
	ReasonShutdown    = "shutdown" // the bridge stops
)

// Reasons lists them.
var Reasons = []string{ReasonBusy, ReasonNoAnswer, ReasonDeclined, ReasonMachine, ReasonInvalid, ReasonCarrier,
	ReasonTimeout,
	ReasonCaller, ReasonDestination, ReasonAgent, ReasonAPI, ReasonLost, ReasonShutdown}

// Place is where the caller is.
type Place string

// The places.
const (
	AtAgent Place = "agent"  // on the media stream
	Moving  Place = "moving" // the carrier is being asked to take it away
	Here    Place = "here"   // with its agent and the destination
	InRoom  Place = "room"   // in the conference
	Away    Place = "away"   // the carrier connects it to a number, or has ended it
)

// Apply returns the record after an event, at the time now in Unix milliseconds. It
// is false where the event changes nothing. r is left as it is.
func (r *Record) Apply(ev Event, now int64) (*Record, bool) {
	if r.State.Final() {
		return r, false
	}
	next := *r
	next.Version++
	next.Updated = now
	noted := next.note(ev, now)
	to, legal := moves[r.State][ev.Kind]
	if !legal {
		return &next, noted
	}
	switch {
	case r.State == Bridged && ev.Kind == Machine && r.Agent == "":
		return &next, noted // nobody is left to come back to at once
	case ev.Kind == Cleared:
		to = r.Want
	case ev.Kind == Timeout && now < r.Due:
		return r, false // another has been quicker, or a clock is wrong
	case to == Compensating:
		next.Want, next.Reason = r.outcome(ev)
		next.Detail = ev.Detail
	}
	next.State = to
	if to == Answered {
		next.Picked = now
	}
	next.Due = 0
	if limit, ok := times[to]; ok {
		next.Due = now + limit.Milliseconds()
	}
	switch {
	case to == Dialing:
		next.Due = now + (r.Ring + ringSlack).Milliseconds()
	case to == Ringing:
		next.Due = max(r.Due, now+(r.Ring+ringSlack).Milliseconds())
	}
	return &next, true
}

// note takes what an event tells beside its move. It is false where that is
// nothing new.
func (r *Record) note(ev Event, now int64) (news bool) {
	before := *r
	if ev.Leg != "" && (r.Leg == "" || slices.Contains(ev.Aliases, r.Leg)) {
		r.Leg = ev.Leg
	}
	r.Settled = r.Settled || ev.Settled
	switch ev.Kind {
	case Placed:
		if r.State == Dialing { // the time of Unsure does not count any more
			r.Due = max(r.Due, now+(r.Ring+ringSlack).Milliseconds())
		}
	case Unsure:
		if r.State == Dialing && r.Leg == "" {
			r.Due = min(r.Due, now+unsureTime.Milliseconds())
		}
	case dialing:
		r.Dialed = r.Dialed || r.State == Dialing
	case Human:
		r.Human = true
	case LegDown:
		r.LegDown = true
	case CallerLeft:
		r.CallerGone = true
	case Moved:
		r.At = ev.Place
		r.CallerIn = r.CallerIn && ev.Place == InRoom
	case CallerIn:
		r.At, r.CallerIn = InRoom, true
	case LegIn:
		r.LegIn = true
	case Settled:
		r.Settled = true
	}
	return r.Leg != before.Leg || r.Due != before.Due || r.Dialed != before.Dialed || r.Human != before.Human ||
		r.LegDown != before.LegDown ||
		r.CallerGone != before.CallerGone || r.At != before.At || r.CallerIn != before.CallerIn ||
		r.LegIn != before.LegIn || r.Settled != before.Settled
}

// outcome is what a transfer comes to by an event that ends it.
func (r *Record) outcome(ev Event) (State, string) {
	from := r.State
	switch ev.Kind {
	case CallerLeft:
		if from == Bridged {
			return Ended, ReasonCaller
		}
		return Canceled, ReasonCaller
	case Cancel:
		return Canceled, ev.Reason
	case Timeout:
		return TimedOut, ReasonTimeout
	case Decline:
		return Failed, ReasonDeclined
	case Machine:
		return Failed, ReasonMachine
	case LegDown:
		if r.Mode == Blind && ev.Reason != "" && ev.Reason != ReasonDestination {
			return Failed, ev.Reason // the carrier has bridged nobody
		}
		if from == Bridged {
			return Ended, ReasonDestination
		}
		if from == Answered || from == Briefing || from == Accepted || from == Bridging {
			return Failed, ReasonDestination
		}
		if ev.Reason == ReasonDestination { // gone, as far as the carrier knows; but it has not answered
			return Failed, ReasonNoAnswer
		}
	}
	return Failed, ev.Reason
}

// Duty is what is to be done next.
type Duty string

// The duties. Those of the first group are moves, the others ask something of the
// carrier.
const (
	DoBegin  Duty = "begin"
	DoBridge Duty = "bridge"
	DoMeet   Duty = "meet"
	DoClear  Duty = "clear"

	DoDial   Duty = "dial"   // call the destination
	DoJoin   Duty = "join"   // move the caller to the destination
	DoHangup Duty = "hangup" // end the destination's leg
	DoSettle Duty = "settle" // take care of the caller
)

// duties say what is to be done now, each of it whether or not the others succeed. They
// depend on the record alone, so that whoever takes a transfer over goes on where it is.
func (r *Record) duties(now int64) []Duty {
	switch r.State {
	case Requested:
		return []Duty{DoBegin}
	case Dialing:
		if !r.Dialed {
			return []Duty{DoDial}
		}
	case Answered:
		if r.Mode == Conference && r.Agent == "" && r.wanted(now) {
			return []Duty{DoBridge}
		}
	case Accepted:
		if r.Agent == "" && r.wanted(now) {
			return []Duty{DoBridge}
		}
	case Bridging:
		return r.bridging(now)
	case Compensating:
		return r.compensating(now)
	}
	return nil
}

func (r *Record) bridging(now int64) []Duty {
	switch {
	case now >= r.Due: // it has been tried for long enough
	case r.Agent != "" && r.At != InRoom: // the destination comes to the bridge
	case r.At == AtAgent || r.At == Moving:
		return []Duty{DoJoin}
	case r.CallerIn && r.LegIn: // both, by the carrier's word
		return []Duty{DoMeet}
	}
	return nil
}

func (r *Record) compensating(now int64) []Duty {
	if now >= r.Due { // the carrier does not do what it is asked to
		return []Duty{DoClear}
	}
	var list []Duty
	if !r.Settled {
		list = append(list, DoSettle)
	}
	if r.Leg != "" && !r.LegDown {
		list = append(list, DoHangup)
	}
	entered := r.Due - times[Compensating].Milliseconds()
	waiting := r.Dialed && r.Leg == "" && !r.LegDown && now < entered+unsureTime.Milliseconds()
	if len(list) == 0 && !waiting {
		return []Duty{DoClear}
	}
	if len(list) == 2 && r.At == AtAgent { // the caller is not alone: the destination comes first
		list[0], list[1] = list[1], list[0]
	}
	return list
}

// wanted reports whether a destination that has answered is who is looked for: a human,
// or who machine detection has said nothing of in its time.
func (r *Record) wanted(now int64) bool {
	return !r.Detect || r.Human || now >= r.Due-(times[r.State]-humanTime).Milliseconds()
}

// Meets reports whether caller and destination are in the room, by the carrier's word,
// and want to be: whoever sees that may say so, without waiting for the owner.
func (r *Record) Meets() bool {
	human := !r.Detect || r.Human
	return r.CallerIn && r.LegIn && (r.State == Answered && r.Mode == Conference && human ||
		r.State == Accepted && human || r.State == Bridging)
}

// Undetected reports whether machine detection still has time to say who has answered.
func (r *Record) Undetected() bool {
	return (r.State == Answered || r.State == Briefing || r.State == Accepted) && r.Detect && !r.Human &&
		r.Now < r.Picked+humanTime.Milliseconds()
}

// What becomes of the caller in the end: one of these, or a number in E.164.
const (
	Resume = "resume" // back to the agent
	Hangup = "hangup"
)

// Disposition says what becomes of the caller; empty: nothing is to be done.
func (r *Record) Disposition() string {
	d := Resume
	switch {
	case r.CallerGone:
		return ""
	case r.Want == Ended:
		d = r.OnEnd
	case r.Want == Failed || r.Want == TimedOut:
		var known bool
		if d, known = r.OnFail[r.Reason]; !known {
			d = r.OnFail[""]
		}
	}
	if d == "" {
		d = Resume
	}
	if d == Resume && (r.At == AtAgent || r.At == Here) {
		return ""
	}
	return d
}

// Leads reports whether an event is legal in a state, and where it leads: to Want where
// that is empty.
func (s State) Leads(k Kind) (to State, legal bool) {
	to, legal = moves[s][k]
	return to, legal
}
