package model

import (
	"encoding/json"
	"strconv"

	"voicebridge/providers"
)

// turns are the replies of models that give them no names.
type turns struct {
	n     int  // of the last one
	open  bool // it goes on
	stale bool // what comes of it is late: it was interrupted
}

func (u *turns) id() string { return "turn " + strconv.Itoa(u.n) }

// Turn is the reply that goes on, or a new one.
func (t *Talk) Turn() string {
	if !t.turns.open {
		t.turns.n++
		t.turns.open, t.turns.stale = true, false
	}
	return t.turns.id()
}

// LastTurn is the reply that goes on, or that has ended last.
func (t *Talk) LastTurn() string { return t.turns.id() }

// EndTurn notes that the reply that goes on is whole.
func (t *Talk) EndTurn() {
	if !t.turns.open {
		return
	}
	t.turns.open = false
	t.Spoken(t.turns.id())
	t.whole(t.turns.id())
}

// InterruptTurn takes back what the caller has not heard. What still comes of the reply is Late.
func (t *Talk) InterruptTurn() {
	t.CallersTurn()
	if t.turns.open || t.Unheard() {
		t.turns.open, t.turns.stale = false, t.turns.stale || t.turns.open
		t.Interrupt()
	}
}

// Late reports whether a reply was interrupted, and no other has begun since.
func (t *Talk) Late() bool { return t.turns.stale && !t.turns.open }

// AddJSON adds a message in JSON.
func AddJSON(out *providers.Messages, v any) {
	b, err := json.Marshal(v)
	if err != nil { // what is configured comes from YAML, all else is ours
		b = []byte("{}")
	}
	m := out.Add(false)
	m.Data = append(m.Data, b...)
}

// Fresh notes that nothing late comes any more.
func (t *Talk) Fresh() { t.turns.stale = false }
