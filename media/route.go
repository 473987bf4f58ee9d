package media

import (
	"context"
	"fmt"

	"voicebridge/providers"
)

// Route is what is done with an inbound call.
type Route struct {
	Agent    string            // its name in Config.Agents
	Metadata map[string]string // told to the agent; see providers.CheckParams
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
}

// routerReply is what it may answer.
type routerReply struct {
	Agent    string            `json:"agent"`
	Metadata map[string]string `json:"metadata"`
	Refuse   string            `json:"refuse"` // words for the caller
}

// route decides about an inbound call. refusal is what the caller is told instead.
func (s *Server) route(h *accountHook, in *providers.InboundCall) (r Route, refusal string) {
	if s.cfg.Router != nil {
		var reply routerReply
		err := s.cfg.Router.Post(h.request.Context(), &routerCall{"call.inbound", h.name, h.Spec.Name, in.ID, in.From, in.To}, &reply)
		if err == nil {
			switch {
			case len(reply.Refuse) > MaxSay:
				err = errRoute(fmt.Sprintf("refuse: has more than %d bytes", MaxSay))
			case reply.Refuse != "":
				return r, reply.Refuse
			}
		}
		if err == nil {
			if err = s.checkRoute(Route{reply.Agent, reply.Metadata}); err == nil {
				return Route{reply.Agent, reply.Metadata}, ""
			}
		}
		h.log.Warn("the router gave no route: the configured ones decide", "call", in.ID, "err", err)
	}
	ok := true
	if s.cfg.Route != nil {
		r, ok = s.cfg.Route(h.name, in.From, in.To)
	}
	if !ok {
		return r, notInService
	}
	return r, ""
}

// errRoute is what is wrong with a route.
type errRoute string

func (e errRoute) Error() string { return "media: route: " + string(e) }

func (s *Server) checkRoute(r Route) error {
	if s.cfg.Agents[r.Agent].Dialer == nil {
		return errRoute("there is no agent " + clip(r.Agent))
	}
	if err := providers.CheckParams(r.Metadata); err != nil {
		return errRoute("metadata: " + err.Error())
	}
	return nil
}

func clip(s string) string { return s[:min(len(s), 64)] }

// later does something beside the calls that the server waits for when it stops.
func (s *Server) later(do func(ctx context.Context)) {
	s.gate.Lock()
	defer s.gate.Unlock()
	if s.stopped {
		return
	}
	s.background.Go(func() {
		ctx, stop := context.WithTimeout(context.Background(), restTime)
		defer stop()
		do(ctx)
	})
}
