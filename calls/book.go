// Package calls keeps a record of every call, from the moment it is known until
// a while after its end, and tells those who listen what becomes of it. Media
// connections, webhooks and the API meet here; none of them knows the others.
package calls

import (
	"crypto/rand"
	"encoding/hex"
	"maps"
	"slices"
	"sync"
	"time"

	"voicebridge/providers"
)

// Call is the record of a call. Numbers are E.164 where they are numbers.
type Call struct {
	ID        string               `json:"id"` // ours; also that of its session
	Account   string               `json:"account,omitempty"`
	Provider  string               `json:"provider"`
	CarrierID string               `json:"carrier_id,omitempty"` // the carrier's id
	Direction string               `json:"direction,omitempty"`  // inbound, outbound
	From      string               `json:"from,omitempty"`
	To        string               `json:"to,omitempty"`
	Agent     string               `json:"agent,omitempty"` // the name of its block; empty: the default one
	Metadata  map[string]string    `json:"metadata,omitempty"`
	Status    providers.Status     `json:"status"`
	Streaming bool                 `json:"streaming"`                   // audio flows to an agent
	Detect    string               `json:"machine_detection,omitempty"` // what to do about answering machines
	Answered  providers.AnsweredBy `json:"answered_by,omitempty"`
	Cause     string               `json:"cause,omitempty"` // how the stream ended
	Error     string               `json:"error,omitempty"` // why the call could not be made
	CreatedAt time.Time            `json:"created_at"`
	BeganAt   time.Time            `json:"answered_at,omitzero"`
	EndedAt   time.Time            `json:"ended_at,omitzero"`
	Usage     Usage                `json:"usage,omitempty"` // of the agent so far

	// Returned says why the call has come back to an agent, Returns how often it has.
	Returned string `json:"-"`
	Returns  int    `json:"-"`
	// Forward is providers.Dial.Forward for the caller's number.
	Forward string `json:"-"`

	aliases []string         // the carrier's other ids of it, former ones too
	heard   time.Time        // when something was last heard of it, or asked
	final   providers.Status // how the call has ended, while its stream is still to end
	lines   []Line           // what was said
}

// Is reports whether id is one of the carrier's ids of the call.
func (c *Call) Is(id string) bool { return c.CarrierID == id || slices.Contains(c.aliases, id) }

// CarrierIDs returns all of the carrier's ids of the call.
func (c *Call) CarrierIDs() []string { return c.aliases }

// Direction of a call, seen from the bridge.
const (
	Inbound  = "inbound"
	Outbound = "outbound"
)

// Event is something that has become of a call.
type Event struct {
	ID   string    `json:"id"` // unique; in the order of their making
	Type string    `json:"type"`
	Time time.Time `json:"time"`
	Call Call      `json:"call"` // as it was then
	// Transfer is what has become of a transfer, in EventTransfer.
	Transfer *Transfer `json:"transfer,omitempty"`
	// Said is what was said, in EventTranscript.
	Said *Line `json:"transcript,omitempty"`

	serial uint64
}

// The types of events. A call has at most one of each of created, ringing,
// answered and ended, in this order; ended is the last.
const (
	EventCreated   = "call.created"
	EventRinging   = "call.ringing"
	EventAnswered  = "call.answered"
	EventStreaming = "call.streaming" // audio flows to an agent
	EventStreamEnd = "call.stream_ended"
	EventDetected  = "call.detected" // answered_by
	EventTransfer  = "call.transfer" // how a transfer of it is: transfer
	// EventTranscript tells what somebody has said: transcript.
	EventTranscript = "call.transcript"
	EventEnded      = "call.ended"
)

// Transfer is how a transfer of a call is.
type Transfer struct {
	ID     string `json:"id"`
	Mode   string `json:"mode"`
	To     string `json:"to"` // the number, or name:NAME
	State  string `json:"state"`
	Reason string `json:"reason,omitempty"`
}

// EventTypes lists them.
var EventTypes = []string{EventCreated, EventRinging, EventAnswered, EventStreaming, EventStreamEnd, EventDetected,
	EventTransfer, EventTranscript, EventEnded}

// Limits of a Book.
const (
	keepEnded  = 10 * time.Minute // records of ended calls
	keepCalls  = 20000            // records in all; the oldest ended ones go first
	keepEvents = 4096             // for those who come back
	feedQueue  = 1024             // events that wait for a slow listener
)

// Book holds the records. Its methods may be called at the same time.
type Book struct {
	now  func() time.Time
	boot string // begins the ids of events, so that those of another process are told

	mu        sync.Mutex
	calls     map[string]*Call
	byCarrier map[[2]string]string // account and any of the carrier's ids
	ended     []string             // in the order of their end
	events    []Event              // the last ones
	serial    uint64
	feeds     map[*Feed]struct{}
}

// New makes an empty book.
func New(now func() time.Time) *Book {
	return &Book{now: now, boot: randomHex(4), calls: map[string]*Call{}, byCarrier: map[[2]string]string{},
		feeds: map[*Feed]struct{}{}}
}

// NewID makes the id of a call: unguessable and unique.
func NewID() string { return "cs_" + randomHex(12) }

func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// Add puts a call in and returns its record. A call with a carrier's id that is
// known already is left as it is: carriers ask twice. aliases are the carrier's other
// ids of it.
func (b *Book) Add(c Call, aliases ...string) Call {
	b.mu.Lock()
	defer b.mu.Unlock()
	if known := b.find(c.Account, c.CarrierID); known != nil {
		return known.copy()
	}
	if c.ID == "" {
		c.ID = NewID()
	}
	if known := b.calls[c.ID]; known != nil {
		return known.copy()
	}
	if c.Status == "" {
		c.Status = providers.StatusInitiated
	}
	c.CreatedAt, c.heard = b.now(), b.now()
	r := &c
	b.calls[c.ID] = r
	b.bind(r, c.CarrierID, aliases)
	b.prune()
	b.tell(EventCreated, r)
	if c.Status == providers.StatusRinging {
		b.tell(EventRinging, r)
	}
	return r.copy()
}

func (c *Call) copy() Call {
	d := *c
	d.Metadata = maps.Clone(c.Metadata)
	d.aliases = slices.Clone(c.aliases)
	d.lines = nil // see Transcript
	return d
}

// find returns the call with one of the carrier's ids; nil: there is none.
func (b *Book) find(account string, ids ...string) *Call {
	for _, id := range ids {
		if c := b.calls[b.byCarrier[[2]string{account, id}]]; c != nil && id != "" {
			return c
		}
	}
	return nil
}

// bind notes the carrier's ids of a call. One that takes the place of an id known so
// far is the one that commands take from now on.
func (b *Book) bind(c *Call, carrierID string, aliases []string) {
	if carrierID == "" {
		return
	}
	former := c.CarrierID
	for _, id := range append([]string{carrierID}, aliases...) {
		b.byCarrier[[2]string{c.Account, id}] = c.ID
		if !slices.Contains(c.aliases, id) {
			c.aliases = append(c.aliases, id)
		}
	}
	if former == "" || slices.Contains(aliases, former) {
		c.CarrierID = carrierID
	}
}

// Bind notes the carrier's ids of a call that the bridge has placed: the one that
// commands take, and others.
func (b *Book) Bind(id, carrierID string, aliases ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c := b.calls[id]; c != nil && (c.CarrierID == "" || c.CarrierID == carrierID ||
		slices.Contains(aliases, c.CarrierID)) {
		b.bind(c, carrierID, aliases)
	}
}

// Get returns a call.
func (b *Book) Get(id string) (Call, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c := b.calls[id]; c != nil {
		return c.copy(), true
	}
	return Call{}, false
}

// Find returns the call with one of the carrier's ids.
func (b *Book) Find(account string, ids ...string) (Call, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c := b.find(account, ids...); c != nil {
		return c.copy(), true
	}
	return Call{}, false
}

// List returns the calls for which keep is true, the newest first, at most limit.
func (b *Book) List(limit int, keep func(*Call) bool) []Call {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := []Call{}
	for _, c := range b.calls {
		if keep(c) {
			all = append(all, c.copy())
		}
	}
	slices.SortFunc(all, func(x, y Call) int { return y.CreatedAt.Compare(x.CreatedAt) })
	return all[:min(limit, len(all))]
}

// Live counts the calls that have not ended.
func (b *Book) Live() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.calls) - len(b.ended)
}

// rank orders the statuses of a live call.
var rank = map[providers.Status]int{providers.StatusInitiated: 1, providers.StatusRinging: 2,
	providers.StatusInProgress: 3}

// Report takes what a carrier says of a call: its progress, or who has answered. Late
// and repeated reports change nothing: a status never goes back, and the first that
// ends a call stays. changed is false then. A call that has a stream ends with it.
func (b *Book) Report(id string, ev *providers.CallEvent) (changed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.calls[id]
	if c == nil {
		return false
	}
	c.heard = b.now()
	if c.CarrierID == "" || ev.Is(c.CarrierID) {
		b.bind(c, ev.Leg, ev.Aliases)
	}
	if ev.Kind == providers.CallDetected && c.Answered == "" {
		c.Answered, changed = ev.AnsweredBy, true
		if !c.Status.Final() {
			b.tell(EventDetected, c)
		}
	}
	return b.advance(c, ev.Status) || changed
}

// advance moves a call to a status, if that is forward.
func (b *Book) advance(c *Call, s providers.Status) bool {
	switch {
	case c.Status.Final() || c.final != "":
		return false
	case s.Final() && c.Streaming: // the stream ends next, and says why
		c.final = s
		return true
	case s.Final():
		b.end(c, s)
		return true
	case rank[s] <= rank[c.Status]:
		return false
	}
	c.Status = s
	switch s {
	case providers.StatusRinging:
		b.tell(EventRinging, c)
	case providers.StatusInProgress:
		c.BeganAt = b.now()
		b.tell(EventAnswered, c)
	}
	return true
}

func (b *Book) end(c *Call, s providers.Status) {
	c.Status, c.EndedAt, c.Streaming = s, b.now(), false
	b.ended = append(b.ended, c.ID)
	b.tell(EventEnded, c)
}

// Answered notes that the other party has been connected, whatever the carrier has
// yet to report.
func (b *Book) Answered(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c := b.calls[id]; c != nil {
		b.advance(c, providers.StatusInProgress)
	}
}

// Began notes that audio flows to the call's agent.
func (b *Book) Began(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.calls[id]
	if c == nil || c.Status.Final() {
		return
	}
	b.advance(c, providers.StatusInProgress) // whatever the carrier has yet to report
	c.Streaming = true
	b.tell(EventStreaming, c)
}

// StreamEnded notes that audio no longer flows, and why. over tells that the call
// ends with it.
func (b *Book) StreamEnded(id, cause string, over bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.calls[id]
	if c == nil {
		return
	}
	if c.Status.Final() {
		if c.Cause == "" {
			c.Cause = cause
		}
		return
	}
	news := c.Streaming || c.Cause != cause // a call that has come back has several streams
	c.Cause, c.Streaming, c.heard = cause, false, b.now()
	if news {
		b.tell(EventStreamEnd, c)
	}
	switch {
	case c.final != "":
		b.end(c, c.final)
	case over:
		b.advance(c, providers.StatusCompleted)
	}
}

// Reassign notes that another agent has a call.
func (b *Book) Reassign(id, agent string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c := b.calls[id]; c != nil {
		c.Agent = agent
	}
}

// Transferred tells how a transfer of a call is.
func (b *Book) Transferred(id string, t Transfer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c := b.calls[id]; c != nil {
		b.announce(Event{Type: EventTransfer, Call: c.copy(), Transfer: &t})
	}
}

// Return notes that a call comes back to an agent, and why, and returns it.
func (b *Book) Return(id, why string) Call {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.calls[id]
	if c == nil {
		return Call{}
	}
	c.Returned, c.Cause = why, ""
	c.Returns++
	return c.copy()
}

// Fail ends a call that could not be made.
func (b *Book) Fail(id string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c := b.calls[id]; c != nil && !c.Status.Final() && !c.Streaming {
		c.Error = err.Error()
		b.end(c, providers.StatusFailed)
	}
}

// Quiet returns live calls of the carrier's that have no stream and of which nothing
// has been heard for the time, at most limit. Until LookedAfter they are returned again.
func (b *Book) Quiet(after time.Duration, limit int) []Call {
	b.mu.Lock()
	defer b.mu.Unlock()
	var quiet []Call
	now := b.now()
	for _, c := range b.calls {
		if len(quiet) < limit && !c.Status.Final() && !c.Streaming && c.CarrierID != "" && now.Sub(c.heard) >= after {
			quiet = append(quiet, c.copy())
		}
	}
	return quiet
}

// LookedAfter notes that a quiet call was looked after: it has its turn again once the time has passed anew.
func (b *Book) LookedAfter(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c := b.calls[id]; c != nil {
		c.heard = b.now()
	}
}

// Sweep gives up calls of which nothing has been heard: those that were not
// answered within quiet, and all others within most. It forgets ended ones.
func (b *Book) Sweep(quiet, most time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	for _, c := range b.calls {
		age := now.Sub(c.CreatedAt)
		if !c.Status.Final() && !c.Streaming && (age > quiet && c.BeganAt.IsZero() || age > most) {
			c.Error = "nothing was heard of the call"
			b.end(c, providers.StatusFailed)
		}
	}
	b.prune()
}

// prune forgets calls that ended long ago, or are too many.
func (b *Book) prune() {
	now := b.now()
	for len(b.ended) > 0 {
		c := b.calls[b.ended[0]]
		if now.Sub(c.EndedAt) < keepEnded && len(b.calls) <= keepCalls {
			return
		}
		b.leaveOut(c)
		b.ended = b.ended[1:]
	}
}

func (b *Book) leaveOut(c *Call) {
	delete(b.calls, c.ID)
	for _, id := range c.aliases {
		if key := [2]string{c.Account, id}; b.byCarrier[key] == c.ID {
			delete(b.byCarrier, key)
		}
	}
}

// Forget leaves a live call out that has no stream here. It is false where there is none.
func (b *Book) Forget(id string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.calls[id]
	if c == nil || c.Status.Final() || c.Streaming {
		return false
	}
	b.leaveOut(c)
	return true
}

// Canceled ends a call that was hung up before it had a stream, and returns it.
func (b *Book) Canceled(id, cause string) Call {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.calls[id]
	switch {
	case c == nil:
		return Call{}
	case c.Status.Final() || c.Streaming: // the stream tells how it ends
	case c.Status == providers.StatusInProgress:
		c.Cause = cause
		b.end(c, providers.StatusCompleted)
	default:
		c.Cause = cause
		b.end(c, providers.StatusCanceled)
	}
	return c.copy()
}
