package control

import (
	"context"
	"errors"
	"fmt"

	routing "voicebridge/control/router"
	"voicebridge/providers"
)

// MaxSay bounds the words that a caller is told, in bytes.
const MaxSay = 1000

// route decides about an inbound call. refusal is what the caller is told instead. The error is
// that of a question to the application that goes on: the carrier asks again.
func (c *Controller) route(ctx context.Context, t *told) (r Route, refusal *providers.Answer, err error) {
	if router := c.router.Load(); router != nil {
		reply, err := router.Ask(ctx, &routing.Call{Type: "call.inbound", Account: t.name,
			Provider: t.account.Spec.Name, Carrier: t.Leg, From: t.From, To: t.To, Metadata: t.Metadata})
		if ctx.Err() != nil {
			return r, nil, ctx.Err()
		}
		if err == nil {
			if r, err = c.routed(reply); err == nil {
				if reply.Refuse != "" {
					refusal = c.Say(reply.Refuse, reply.Language, reply.Voice)
				}
				return r, refusal, nil
			}
			r = Route{}
		}
		t.log.Warn("the router gave no route: the configured ones decide", "call", t.Leg, "err", err)
	}
	ok := true
	if route := c.Entries().Route; route != nil {
		r, ok = route(t.name, t.From, t.To)
	}
	if !ok {
		return r, c.Say(c.Words().NotInService, "", ""), nil
	}
	return r, nil, nil
}

// routed checks what the application has answered.
func (c *Controller) routed(reply *routing.Reply) (Route, error) {
	if len(reply.Refuse) > MaxSay {
		return Route{}, fmt.Errorf("refuse: has more than %d bytes", MaxSay)
	}
	r := Route{Agent: reply.Agent, Metadata: reply.Metadata}
	if reply.Refuse != "" {
		return r, nil
	}
	return r, c.CheckRoute(r)
}

// CheckRoute returns what is wrong with a route.
func (c *Controller) CheckRoute(r Route) error {
	if c.Agents()[r.Agent].Dialer == nil {
		return fmt.Errorf("agent: there is none named %.64q", r.Agent)
	}
	if err := providers.CheckMetadata(r.Metadata); err != nil {
		return errors.New("metadata: " + err.Error())
	}
	return nil
}
