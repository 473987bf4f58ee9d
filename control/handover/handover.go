// Package handover has a call go on with another agent: without another leg at the carrier.
package handover

import (
	"strings"

	"voicebridge/agent"
	"voicebridge/calls"
	"voicebridge/control/directory"
	"voicebridge/session"
)

// prefix begins the destination of a transfer that is an agent.
const prefix = "agent:"

// Begin hands a call over to the agent of a transfer, if it is one. What becomes of it is told as of a transfer:
// ref is the agent's id of the command.
func Begin(sess *session.Session, ref string, t *calls.TransferRequest, agents map[string]directory.Agent,
	book *calls.Book) bool {
	name, is := strings.CutPrefix(t.To, prefix)
	if !is {
		return false
	}
	to, known := agents[name]
	if !known || to.Dialer == nil {
		sess.Refuse(ref, "invalid_destination", "to: there is no agent of this name")
		return true
	}
	call, _ := book.Get(sess.ID)
	done := func(err error) {
		if err != nil {
			sess.TransferStatus(ref, agent.TransferStatus{State: "failed", Reason: string(calls.AgentUnreachable)})
			return
		}
		book.Reassign(sess.ID, name)
	}
	if !sess.HandOver(to.Dialer, to.Session, call.Agent, t.Context, done) {
		sess.Refuse(ref, "busy", "the call is about to go to another agent, or to a new connection of this one")
	}
	return true
}
