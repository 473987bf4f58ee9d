// Package operators answers agents that ask for things over HTTP, as they would of their carrier.
package operators

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"voicebridge/agent"
	"voicebridge/calls"
	"voicebridge/control"
	"voicebridge/hooks/gate"
)

// Doors are what is public, of the agents that there are.
func Doors(c *control.Controller, g *gate.Gate) map[string]http.HandlerFunc {
	doors := map[string]http.HandlerFunc{}
	for _, a := range c.Agents() {
		if o := operator(a); o != nil {
			for _, pattern := range o.Doors() {
				doors[pattern] = func(w http.ResponseWriter, r *http.Request) { serve(c, g, o, w, r) }
			}
		}
	}
	return doors
}

// operator is how an agent asks for things; nil: it does not.
func operator(a control.Agent) agent.Operator {
	d, has := a.Dialer.(interface{ Protocol() agent.Protocol })
	if !has {
		return nil
	}
	o, _ := d.Protocol().(agent.Operator)
	return o
}

// serve gives a request to the agents whose it is: several may have the same credentials.
func serve(c *control.Controller, g *gate.Gate, any agent.Operator, w http.ResponseWriter, r *http.Request) {
	var names []string
	for name, a := range c.Agents() {
		if o := operator(a); o != nil && o.Knows(r) {
			names, any = append(names, name), o
		}
	}
	switch {
	case len(names) > 0:
		any.Serve(w, r, operations{r.Context(), c, names})
	case !g.Stranger():
		http.Error(w, "too many", http.StatusTooManyRequests)
	default:
		any.Refuse(w)
	}
}

// operations are what agents may do to their calls.
type operations struct {
	ctx    context.Context
	c      *control.Controller
	agents []string
}

// Find implements agent.Operations.
func (o operations) Find(is func(id string) bool) (calls.Call, bool) {
	list := o.c.Calls().List(1, func(c *calls.Call) bool { return slices.Contains(o.agents, c.Agent) && is(c.ID) })
	if len(list) == 0 {
		return calls.Call{}, false
	}
	return list[0], true
}

// Hangup implements agent.Operations.
func (o operations) Hangup(id string) error { return o.c.Hangup(o.ctx, id, true) }

// Digits implements agent.Operations.
func (o operations) Digits(id, digits string) error { return o.c.Digits(o.ctx, id, digits) }

// errNoStream is of a call whose agent is not there.
var errNoStream = errors.New("operators: the call has no stream, or cannot be transferred")

// Transfer implements agent.Operations.
func (o operations) Transfer(id string, t *calls.TransferRequest) error {
	sess := o.c.Session(id)
	if sess == nil || sess.Control.Transfer == nil {
		return errNoStream
	}
	sess.Control.Transfer("", t)
	return nil
}
