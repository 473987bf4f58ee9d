package calls

import (
	"encoding/json"
	"time"
)

// Stamp is a time as the API tells it: UTC, with milliseconds.
type Stamp struct{ time.Time }

// MarshalJSON implements json.Marshaler.
func (s Stamp) MarshalJSON() ([]byte, error) {
	return s.UTC().AppendFormat(nil, `"2006-01-02T15:04:05.000Z"`), nil
}

// MarshalJSON implements json.Marshaler.
func (c Call) MarshalJSON() ([]byte, error) {
	type plain Call
	return json.Marshal(struct {
		plain
		CreatedAt Stamp `json:"created_at"`
		BeganAt   Stamp `json:"answered_at,omitzero"`
		EndedAt   Stamp `json:"ended_at,omitzero"`
	}{plain(c), Stamp{c.CreatedAt}, Stamp{c.BeganAt}, Stamp{c.EndedAt}})
}

// MarshalJSON implements json.Marshaler.
func (e Event) MarshalJSON() ([]byte, error) {
	type plain Event
	return json.Marshal(struct {
		plain
		Time Stamp `json:"time"`
	}{plain(e), Stamp{e.Time}})
}
