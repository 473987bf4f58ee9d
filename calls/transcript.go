package calls

import (
	"maps"
	"slices"
	"time"
)

// Line is what somebody has said in a call.
type Line struct {
	Role Role   `json:"role"`
	Text string `json:"text"`
	// Heard is the part of an agent's text that the caller has heard, where the agent was interrupted:
	// an estimate where nobody tells when which word is said.
	Heard       string `json:"heard,omitempty"`
	Interrupted bool   `json:"interrupted,omitempty"`
	// From and To are when it was said, in call time.
	From Milliseconds `json:"start_ms"`
	To   Milliseconds `json:"end_ms"`
}

// Role is who has said something.
type Role string

// The roles.
const (
	Caller Role = "caller"
	Agent  Role = "agent"
)

// Milliseconds is a time in milliseconds.
type Milliseconds int64

// MS returns a time in milliseconds.
func MS(d time.Duration) Milliseconds { return Milliseconds(d.Milliseconds()) }

// Usage is what an agent has used up, by the name of the unit, such as input_tokens.
type Usage map[string]float64

// Add adds what was used since.
func (u Usage) Add(more Usage) {
	for unit, n := range more {
		u[unit] += n
	}
}

// Bounds of what is kept of a call.
const (
	maxLines = 2000 // the oldest go
	maxText  = 16 << 10
	maxUnits = 32
)

// Said notes what was said in a call, and tells it.
func (b *Book) Said(id string, l Line) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.calls[id]
	if c == nil {
		return
	}
	l.Text, l.Heard = l.Text[:min(len(l.Text), maxText)], l.Heard[:min(len(l.Heard), maxText)]
	if len(c.lines) == maxLines {
		c.lines = slices.Delete(c.lines, 0, maxLines/4)
	}
	c.lines = append(c.lines, l)
	b.announce(Event{Type: EventTranscript, Call: c.copy(), Said: &l})
}

// Used notes what the agent of a call has used up.
func (b *Book) Used(id string, u Usage) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.calls[id]
	if c == nil {
		return
	}
	usage := maps.Clone(c.Usage) // copies of the call have the one before
	if usage == nil {
		usage = Usage{}
	}
	usage.Add(u)
	if len(usage) <= maxUnits {
		c.Usage = usage
	}
}

// Transcript returns what was said in a call so far.
func (b *Book) Transcript(id string) (lines []Line, known bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.calls[id]
	if c == nil {
		return nil, false
	}
	return append([]Line{}, c.lines...), true
}
