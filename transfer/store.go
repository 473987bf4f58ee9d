package transfer

import (
	"context"
	"errors"
	"time"
)

// Store keeps the transfers. Every method is atomic, and returns when ctx ends.
// Times are of the store's own clock, so that those of the instances do not
// matter.
type Store interface {
	// Create stores a new record, its index by call and the first entry of its log.
	// Where the call has a live transfer, nothing is stored, and the error is a
	// *BusyError. It sets the record's times.
	Create(ctx context.Context, r *Record) error
	// Load returns a record, and the time. ErrNotFound: there is none.
	Load(ctx context.Context, id string) (r *Record, now int64, err error)
	// ByCall returns the id of a call's live transfer; empty: it has none.
	ByCall(ctx context.Context, call string) (id string, err error)
	// Move replaces before by after, and adds to the log. ErrConflict: the record
	// has changed since, or has another owner. A final record leaves the index, if
	// that is still its own, and is forgotten after a while.
	Move(ctx context.Context, before, after *Record, kind Kind) error
	// Restore writes a record as its owner knows it, where the store has none or an older
	// one. ErrConflict: it has not.
	Restore(ctx context.Context, r *Record) error
	// Log returns the entries after a version.
	Log(ctx context.Context, id string, after int64) ([]Entry, error)
	// Step notes that a step is done that must not be done twice. It is false where
	// that has been noted before, and ErrConflict where r has another owner.
	Step(ctx context.Context, r *Record, step string) (first bool, err error)
	// Renew keeps with an owner all that it has for the time of the lease. Nothing is
	// written for a transfer at rest. Release gives it up.
	Renew(ctx context.Context, owner string, lease time.Duration) error
	Release(ctx context.Context, owner string) error
	// Finished tells that an owner does not act for a transfer any more, which is over or
	// another owner's.
	Finished(ctx context.Context, owner, id string)
	// Claim takes over transfers of owners whose lease is over, at most limit.
	Claim(ctx context.Context, owner string, limit int) ([]*Record, error)
	// Wake tells the owner of a transfer of a change that somebody else has made. It may
	// be lost: whoever waits for a change must also look from time to time.
	Wake(ctx context.Context, r *Record)
	// Wakes returns the ids of transfers of an owner that change, until ctx ends.
	Wakes(ctx context.Context, owner string) <-chan string
}

// The steps that must not be done twice: a phone would ring twice, that of the destination, or that of a number which
// a caller is connected to whom nobody else could be.
const (
	StepDial   = "dial"
	StepSettle = "settle"
)

// Errors of a Store.
var (
	ErrNotFound = errors.New("transfer: there is none")
	ErrConflict = errors.New("transfer: it has changed meanwhile")
)

// BusyError is the error of a second transfer of a call.
type BusyError struct{ ID string } // of the first

func (e *BusyError) Error() string { return "the call has a transfer already: " + e.ID }

// How long records are kept.
const (
	// KeepLive is how long a record outlives its last change: longer than any call.
	KeepLive = 26 * time.Hour
	// KeepNew is how long a record is kept that nothing has ever happened to. An owner that
	// got no answer to its Create, and finds none, is done with it; a network may carry the
	// request out after that.
	KeepNew = 30 * time.Second
	// Tombstone is how long a final record is kept, so that what comes late is told
	// from what is unknown.
	Tombstone = 10 * time.Minute
)
