package sweep

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"voicebridge/calls"
	"voicebridge/control/directory"
	"voicebridge/providers"
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

// asked is a carrier that notes which calls it is asked about.
type asked struct {
	providers.Commands
	about []string
}

func (a *asked) Get(_ context.Context, leg string) ([]providers.CallEvent, error) {
	a.about = append(a.about, leg)
	return nil, nil
}

// TestTurns: the carrier is asked about so many calls at once, and about the others the next time; then about none
// until they have been quiet again.
func TestTurns(t *testing.T) {
	now := time.Unix(1000, 0)
	book := calls.New(func() time.Time { return now })
	carrier := &asked{}
	account := directory.Account{Account: providers.NewAccount("", providers.Abilities{}, nil, carrier)}
	s := Sweeper{Book: book, Log: slog.New(slog.DiscardHandler),
		Directory: directory.New(directory.Entries{Accounts: map[string]directory.Account{"main": account}}),
		Elsewhere: func(context.Context, string) (string, error) { return "", nil },
		Later:     func(do func(context.Context)) { do(t.Context()) }}
	for i := range maxAsked + 5 {
		book.Add(calls.Call{Account: "main", CarrierID: fmt.Sprint("CA", i)})
	}
	book.Add(calls.Call{Account: "nobody to ask", CarrierID: "CB"})
	now = now.Add(Quiet)
	for _, want := range []int{maxAsked, maxAsked + 5, maxAsked + 5} {
		if s.Sweep(); len(carrier.about) != want {
			t.Errorf("asked %d times, want %d", len(carrier.about), want)
		}
		now = now.Add(Every)
	}
	slices.Sort(carrier.about)
	if n := len(slices.Compact(carrier.about)); n != maxAsked+5 {
		t.Errorf("about %d calls", n)
	}
}
