// Package sweep looks after calls of which nothing is heard: those that have gone on without a stream, since not all
// carriers report the end, and those whose stream another instance has.
package sweep

import (
	"context"
	"log/slog"
	"time"

	"voicebridge/calls"
	"voicebridge/control/directory"
	"voicebridge/providers"
)

const (
	// Every is how often calls are looked after.
	Every = 15 * time.Second
	// Quiet is how long nothing has been heard of a live call before it is.
	Quiet = 2 * time.Minute
	// most bounds the calls that are looked for at once, maxAsked those that a carrier is asked about.
	most, maxAsked = 500, 20
)

// Sweeper looks after calls.
type Sweeper struct {
	Book      *calls.Book
	Directory *directory.Directory
	Log       *slog.Logger
	// Elsewhere returns the other instance that has the stream of a call; empty: none. Left is told of such a
	// call, which is forgotten here.
	Elsewhere func(ctx context.Context, id string) (string, error)
	Left      func(call *calls.Call)
	// Report is given what a carrier says of a call, Later what takes time.
	Report func(id string, ev *providers.CallEvent)
	Later  func(func(context.Context))
}

// Sweep looks after the calls of which nothing has been heard for a while.
func (s *Sweeper) Sweep() {
	quiet := s.Book.Quiet(Quiet, most)
	if len(quiet) == 0 {
		return
	}
	s.Later(func(ctx context.Context) {
		asked := 0
		for _, call := range quiet {
			if s.elsewhere(ctx, &call) {
				continue
			}
			account, _ := s.Directory.Account(call.Account)
			switch {
			case !account.HasCommands(): // nobody can be asked
			case asked == maxAsked:
				continue // it has its turn the next time
			default:
				asked++
				s.Later(func(ctx context.Context) { s.ask(ctx, account, &call) })
			}
			s.Book.LookedAfter(call.ID)
		}
	})
}

// elsewhere forgets a call whose stream another instance has: that tells what becomes of it.
func (s *Sweeper) elsewhere(ctx context.Context, call *calls.Call) bool {
	where, err := s.Elsewhere(ctx, call.ID)
	if err != nil || where == "" {
		return false
	}
	if s.Book.Forget(call.ID) {
		s.Left(call)
	}
	return true
}

// ask asks the carrier how a call is.
func (s *Sweeper) ask(ctx context.Context, account directory.Account, call *calls.Call) {
	evs, err := account.State(ctx, call.CarrierID)
	if err != nil {
		s.Log.Warn("the carrier does not say how a call is", "session", call.ID, "err", err)
		return
	}
	for _, ev := range evs {
		s.Report(call.ID, &ev)
	}
}
