package sweep

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"voicebridge/calls"
	"voicebridge/control/directory"
)

// TestElsewhere: a call whose stream another instance has is forgotten. One of which that is not known stays.
func TestElsewhere(t *testing.T) {
	now := time.Unix(1000, 0)
	book := calls.New(func() time.Time { return now })
	left := map[string]bool{}
	s := Sweeper{Book: book, Directory: directory.New(directory.Entries{}), Log: slog.New(slog.DiscardHandler),
		Left:  func(call *calls.Call) { left[call.CarrierID] = true },
		Later: func(do func(context.Context)) { do(t.Context()) }}
	there := map[string]string{}
	s.Elsewhere = func(_ context.Context, id string) (string, error) {
		if where := there[id]; where != "?" {
			return where, nil
		}
		return "", errors.New("the database is away")
	}
	ids := map[string]string{}
	for leg, where := range map[string]string{"CA1": "b", "CA2": "", "CA3": "?"} {
		id := book.Add(calls.Call{CarrierID: leg}).ID
		ids[leg], there[id] = id, where
	}
	if s.Sweep(); len(left) > 0 {
		t.Errorf("at once %v are forgotten", left)
	}
	now = now.Add(Quiet)
	s.Sweep()
	if len(left) != 1 || !left["CA1"] {
		t.Errorf("%v are forgotten", left)
	}
	for leg, id := range ids {
		if _, known := book.Get(id); known != (leg != "CA1") {
			t.Errorf("%s is known: %v", leg, known)
		}
	}
}
