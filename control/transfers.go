package control

import (
	"context"
	"errors"

	"voicebridge/calls"
	"voicebridge/providers"
	"voicebridge/session"
	"voicebridge/ticket"
)

// Transfers move calls to somebody else; see control/transfers. None of the methods
// blocks that has no context.
type Transfers interface {
	// Modes are those in which calls can be transferred; none: they cannot.
	Modes() []string
	// Handle takes an event of a transfer's own legs. ref is what follows "transfer/".
	Handle(ctx context.Context, account, ref string, ev *providers.CallEvent) (Outcome, error)
	// InRoom takes word that a call has come into a room, or has left it.
	InRoom(ctx context.Context, call string, ev *providers.CallEvent) error
	// Next says what a call does whose step is over; nil: it has no transfer.
	Next(ctx context.Context, step *Step) (*providers.Answer, error)
	// Begin begins a transfer that the agent of a session wants, and tells it where
	// that is refused. Cancel withdraws it; false: there is none.
	Begin(sess *session.Session, ref string, t *calls.TransferRequest)
	// Ask begins a transfer of which its agent is told no more than whether it has begun.
	Ask(ctx context.Context, call string, t *calls.TransferRequest) error
	Cancel(call, ref string) bool
	// Has reports whether a call has a live transfer, or soon may have one.
	Has(call string) bool
	// Left tells that the caller has hung up; sure is false where only its stream
	// has ended.
	Left(call string, sure bool)
	// Forget tells that a call's session has ended.
	Forget(call string)
	// Party is who a transfer's destination talks to that joins a call of ours; the
	// zero Agent: that call has ended, or is another instance's. PartyLeft tells that
	// the destination has hung up.
	Party(tk *ticket.Ticket) Agent
	PartyLeft(transfer string)
}

// Transfers returns what moves calls.
func (c *Controller) Transfers() Transfers { return c.transfers }

// UseTransfers lets calls be transferred.
func (c *Controller) UseTransfers(t Transfers) { c.transfers = t }

// noTransfers is for a bridge without transfers.
type noTransfers struct{}

func (noTransfers) Modes() []string { return nil }

func (noTransfers) Handle(context.Context, string, string, *providers.CallEvent) (Outcome, error) {
	return Outcome{}, ErrNoTransfer
}

func (noTransfers) InRoom(context.Context, string, *providers.CallEvent) error { return nil }

func (noTransfers) Next(context.Context, *Step) (*providers.Answer, error) { return nil, nil }

func (noTransfers) Begin(sess *session.Session, ref string, _ *calls.TransferRequest) {
	sess.Refuse(ref, "unsupported", "the bridge has no transfers")
}

func (noTransfers) Ask(context.Context, string, *calls.TransferRequest) error {
	return errors.ErrUnsupported
}

func (noTransfers) Cancel(string, string) bool { return false }

func (noTransfers) Has(string) bool { return false }

func (noTransfers) Left(string, bool) {}

func (noTransfers) Forget(string) {}

func (noTransfers) Party(*ticket.Ticket) Agent { return Agent{} }

func (noTransfers) PartyLeft(string) {}
