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
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
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
	Name     string // of the destination, if it has one
	Mode     Mode
	Agent    string // AgentListens, AgentStays; empty: it leaves
	Host     string // where the destination is streamed to, if the agent does not leave
	Whisper  string // attended: what the destination is told
	Brief    string // attended: the agent that tells it instead of a whisper
	Accept   string // attended: AcceptDigit, AcceptStay
	Digits   string // sent when the destination answers: an extension
	Detect   bool   // look out for answering machines
	Ring     time.Duration
	Hold     string // what the caller hears meanwhile; see media
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

// Schema is the version of the records' fields. Fields of later versions are kept.
const schema = "1"

// field is how one field of a record is stored.
type field struct {
	name string
	get  func(*Record) string
	set  func(*Record, string) error
}

func text[T ~string](name string, at func(*Record) *T) field {
	return field{name, func(r *Record) string { return string(*at(r)) },
		func(r *Record, s string) error { *at(r) = T(s); return nil }}
}

func number[T ~int64](name string, at func(*Record) *T) field {
	return field{name, func(r *Record) string { return strconv.FormatInt(int64(*at(r)), 10) },
		func(r *Record, s string) error {
			n, err := strconv.ParseInt(s, 10, 64)
			*at(r) = T(n)
			return err
		}}
}

func flag(name string, at func(*Record) *bool) field {
	return field{name, func(r *Record) string {
		if *at(r) {
			return "1"
		}
		return ""
	}, func(r *Record, s string) error { *at(r) = s == "1"; return nil }}
}

func words(name string, at func(*Record) *map[string]string) field {
	return field{name, func(r *Record) string {
		if len(*at(r)) == 0 {
			return ""
		}
		b, _ := json.Marshal(*at(r)) // strings always can
		return string(b)
	}, func(r *Record, s string) error {
		if s == "" {
			return nil
		}
		return json.Unmarshal([]byte(s), at(r))
	}}
}

var fields = []field{
	text("id", func(r *Record) *string { return &r.ID }),
	text("call", func(r *Record) *string { return &r.Call }),
	text("account", func(r *Record) *string { return &r.Account }),
	text("provider", func(r *Record) *string { return &r.Provider }),
	text("caller", func(r *Record) *string { return &r.Caller }),
	text("to", func(r *Record) *string { return &r.To }),
	text("from", func(r *Record) *string { return &r.From }),
	text("name", func(r *Record) *string { return &r.Name }),
	text("mode", func(r *Record) *Mode { return &r.Mode }),
	text("agent", func(r *Record) *string { return &r.Agent }),
	text("host", func(r *Record) *string { return &r.Host }),
	text("whisper", func(r *Record) *string { return &r.Whisper }),
	text("brief", func(r *Record) *string { return &r.Brief }),
	text("accept", func(r *Record) *string { return &r.Accept }),
	text("digits", func(r *Record) *string { return &r.Digits }),
	flag("detect", func(r *Record) *bool { return &r.Detect }),
	number("ring", func(r *Record) *time.Duration { return &r.Ring }),
	text("hold", func(r *Record) *string { return &r.Hold }),
	words("on_fail", func(r *Record) *map[string]string { return &r.OnFail }),
	text("on_end", func(r *Record) *string { return &r.OnEnd }),
	words("context", func(r *Record) *map[string]string { return &r.Context }),
	text("by", func(r *Record) *string { return &r.By }),
	number("returns", func(r *Record) *int64 { return &r.Returns }),
	text("place", func(r *Record) *string { return &r.Place }),
	text("ref", func(r *Record) *string { return &r.Ref }),
	text("room", func(r *Record) *string { return &r.Room }),
	text("nonce", func(r *Record) *string { return &r.Nonce }),
	text("state", func(r *Record) *State { return &r.State }),
	text("want", func(r *Record) *State { return &r.Want }),
	text("reason", func(r *Record) *string { return &r.Reason }),
	text("detail", func(r *Record) *string { return &r.Detail }),
	number("version", func(r *Record) *int64 { return &r.Version }),
	number("fence", func(r *Record) *int64 { return &r.Fence }),
	text("owner", func(r *Record) *string { return &r.Owner }),
	number("due", func(r *Record) *int64 { return &r.Due }),
	number("created", func(r *Record) *int64 { return &r.Created }),
	number("updated", func(r *Record) *int64 { return &r.Updated }),
	flag("dialed", func(r *Record) *bool { return &r.Dialed }),
	text("leg", func(r *Record) *string { return &r.Leg }),
	number("picked", func(r *Record) *int64 { return &r.Picked }),
	flag("leg_in", func(r *Record) *bool { return &r.LegIn }),
	flag("leg_down", func(r *Record) *bool { return &r.LegDown }),
	flag("human", func(r *Record) *bool { return &r.Human }),
	text("at", func(r *Record) *Place { return &r.At }),
	flag("caller_in", func(r *Record) *bool { return &r.CallerIn }),
	flag("caller_gone", func(r *Record) *bool { return &r.CallerGone }),
	flag("settled", func(r *Record) *bool { return &r.Settled }),
}

// Fields returns the record as a store keeps it.
func (r *Record) Fields() map[string]string {
	m := map[string]string{"schema": schema}
	for _, f := range fields {
		m[f.name] = f.get(r)
	}
	return m
}

// Parse reads a record that a store has kept. Fields that are not known are left to whoever knows them.
func Parse(m map[string]string) (*Record, error) {
	r := &Record{}
	for _, f := range fields {
		if s, there := m[f.name]; there {
			if err := f.set(r, s); err != nil {
				return nil, fmt.Errorf("transfer: field %s: %w", f.name, err)
			}
		}
	}
	return r, nil
}

// Changes returns the fields in which two records differ.
func Changes(before, after *Record) map[string]string {
	m := map[string]string{}
	for _, f := range fields {
		if s := f.get(after); s != f.get(before) {
			m[f.name] = s
		}
	}
	return m
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
