package control

import (
	"context"
	"errors"
	"fmt"

	"voicebridge/providers"
)

// Route is what is done with an inbound call.
type Route struct {
	Agent    string            // its name in Config.Agents
	Metadata map[string]string // told to the agent; see providers.CheckMetadata
}

// MaxSay bounds the words that a caller is told, in bytes.
const MaxSay = 1000

// notInService is what a caller hears whose number nobody answers.
const notInService = "This number is not in service."

// routerCall is what the user's application is asked.
type routerCall struct {
	Type     string `json:"type"` // call.inbound
	Account  string `json:"account"`
	Provider string `json:"provider"`
	Carrier  string `json:"carrier_id"`
	From     string `json:"from"`
	To       string `json:"to"`
	// Metadata is what the carrier tells with the call.
	Metadata map[string]string `json:"metadata,omitempty"`
}

// routerReply is what it may answer.
type routerReply struct {
	Agent    string            `json:"agent"`
	Metadata map[string]string `json:"metadata"`
	Refuse   string            `json:"refuse"` // words for the caller
}

// route decides about an inbound call. refusal is what the caller is told instead.
func (c *Controller) route(ctx context.Context, t *told) (r Route, refusal string) {
	if c.cfg.Router != nil {
		reply, err := c.askRouter(ctx, t)
		if err == nil {
			return Route{reply.Agent, reply.Metadata}, reply.Refuse
		}
		t.log.Warn("the router gave no route: the configured ones decide", "call", t.Leg, "err", err)
	}
	ok := true
	if c.cfg.Route != nil {
		r, ok = c.cfg.Route(t.name, t.From, t.To)
	}
	if !ok {
		return r, notInService
	}
	return r, ""
}

// askRouter asks the user's application, and checks what it says.
func (c *Controller) askRouter(ctx context.Context, t *told) (*routerReply, error) {
	var reply routerReply
	asked := routerCall{"call.inbound", t.name, t.account.Spec.Name, t.Leg, t.From, t.To, t.Metadata}
	if err := c.cfg.Router.Post(ctx, &asked, &reply); err != nil {
		return nil, err
	}
	switch {
	case len(reply.Refuse) > MaxSay:
		return nil, fmt.Errorf("refuse: has more than %d bytes", MaxSay)
	case reply.Refuse != "":
		return &routerReply{Refuse: reply.Refuse}, nil
	}
	return &reply, c.CheckRoute(Route{reply.Agent, reply.Metadata})
}

// CheckRoute returns what is wrong with a route.
func (c *Controller) CheckRoute(r Route) error {
	if c.cfg.Agents[r.Agent].Dialer == nil {
		return fmt.Errorf("agent: there is none named %.64q", r.Agent)
	}
	if err := providers.CheckMetadata(r.Metadata); err != nil {
		return errors.New("metadata: " + err.Error())
	}
	return nil
}
