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
func Begin(sess *session.Session, ref string, t *calls.TransferRequest, agents map[string]directory.Agent) bool {
	name, is := strings.CutPrefix(t.To, prefix)
	if !is {
		return false
	}
	to := other(name, agents)
	if to == nil {
		sess.Refuse(ref, "invalid_destination", "to: there is no agent of this name")
		return true
	}
	to.Fallback = Fallback(name, agents)
	done := func(err error) {
		if err != nil {
			sess.TransferStatus(ref, agent.TransferStatus{State: "failed", Reason: string(calls.AgentUnreachable)})
		}
	}
	if !sess.HandOver(to, t.Context, done) {
		sess.Refuse(ref, "busy", "the call is about to go to another agent, or to a new connection of this one")
	}
	return true
}

// Fallback returns the agent that takes calls over from an agent that fails; nil: none does.
func Fallback(name string, agents map[string]directory.Agent) *session.Other {
	return other(agents[name].Fallback.Agent, agents)
}

// other returns an agent without its fallback; nil: there is none of this name.
func other(name string, agents map[string]directory.Agent) *session.Other {
	a := agents[name]
	if name == "" || a.Dialer == nil {
		return nil
	}
	return &session.Other{Name: name, Dialer: a.Dialer, Config: a.Session}
}
