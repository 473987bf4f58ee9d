package control

import "errors"

// The errors of what is asked about calls.
var (
	ErrNoAccount  = errors.New("no such account")
	ErrNoCall     = errors.New("no such call")
	ErrOver       = errors.New("the call has ended")
	ErrNoCommands = errors.New("the account has no credentials for the carrier's REST API")
	ErrNotStarted = errors.New("the call has no audio yet")
	ErrBusy       = errors.New("too many digits wait to be sent, or the call is about to end")
	// ErrToken is the error of an event whose token is not one of the bridge's.
	ErrToken = errors.New("the token is not good")
	// ErrNoTransfer is the error of an event of a transfer that is not known.
	ErrNoTransfer = errors.New("no such transfer")
)
