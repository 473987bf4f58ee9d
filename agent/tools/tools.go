// Package tools is what models may do in a call: the bridge's own tools, and those of the user,
// which a webhook carries out.
package tools

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"voicebridge/calls"
	"voicebridge/notify"
)

// The bridge's own tools.
const (
	EndCall      = "end_call"
	TransferCall = "transfer_call"
	SendDigits   = "send_digits"
)

// DefaultTimeout is how long a webhook may take.
const DefaultTimeout = 10 * time.Second

// Limits of a set.
const (
	maxTools     = 64
	maxArguments = 64 << 10 // bytes that a model may give a tool
	maxCalls     = 1000     // of a model in one call
)

// Config are the tools of an agent.
type Config struct {
	EndCall, SendDigits bool
	// Destinations are whom transfer_call may reach, by the name that the model gives; none: there is no
	// such tool.
	Destinations map[string]calls.TransferRequest
	Own          []Own
}

// Own is a tool of the user's, which a webhook carries out.
type Own struct {
	Name, Description string
	Parameters        map[string]any // a JSON Schema; nil: none
	Webhook           notify.Target
}

// Declaration is a tool as models are told of it.
type Declaration struct {
	Name, Description string
	Parameters        map[string]any // a JSON Schema of an object
}

// Set is what an agent may do. A nil one has no tools.
type Set struct {
	cfg  Config
	list []Declaration
	// inside are those of a call that cannot be transferred at the carrier.
	inside []Declaration
}

// name is what all vendors take.
var name = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_-]{0,63}$`)

// New checks the tools. Its errors name the field.
func New(cfg Config) (*Set, error) {
	s := &Set{cfg: cfg}
	if err := s.declareAll(); err != nil {
		return nil, err
	}
	inside := &Set{cfg: cfg}
	inside.cfg.Destinations = map[string]calls.TransferRequest{}
	for name, to := range cfg.Destinations {
		if strings.HasPrefix(to.To, Agent) {
			inside.cfg.Destinations[name] = to
		}
	}
	if err := inside.declareAll(); err != nil {
		return nil, err
	}
	s.inside = inside.list
	return s, nil
}

// Agent begins a destination that is another agent, not a phone.
const Agent = "agent:"

func (s *Set) declareAll() error {
	cfg := &s.cfg
	if cfg.EndCall {
		s.declare(EndCall, "Ends the phone call. Say goodbye first: what you have said is played to its end.",
			property{"reason", "why, in a few words", nil})
	}
	if names := slices.Sorted(maps.Keys(cfg.Destinations)); len(names) > 0 {
		s.declare(TransferCall, "Hands the caller over to somebody else. Tell the caller before. If it fails, you are "+
			"told why, and the caller is still with you.",
			property{"destination", "to whom", names}, property{"summary", "what they should know of the call", nil})
	}
	if cfg.SendDigits {
		s.declare(SendDigits, "Presses keys on the phone, as for the menu of a machine that has answered.",
			property{"digits", "the keys: 0-9, * and #; w waits half a second, W a whole one", nil})
	}
	for i, own := range cfg.Own {
		field := fmt.Sprintf("own[%d]", i)
		switch {
		case !name.MatchString(own.Name):
			return fmt.Errorf("%s.name: %q must be letters, digits, '_' or '-', at most 64, a letter first", field,
				own.Name)
		case s.has(own.Name) || slices.Contains([]string{EndCall, TransferCall, SendDigits}, own.Name):
			return fmt.Errorf("%s.name: %q is taken", field, own.Name)
		case own.Description == "":
			return fmt.Errorf("%s.description: must be set: it tells the model when to use the tool", field)
		}
		if err := own.Webhook.Check(); err != nil {
			return fmt.Errorf("%s.%w", field, err)
		}
		parameters := own.Parameters
		if parameters == nil {
			parameters = object(nil, nil)
		}
		if parameters["type"] != "object" {
			return fmt.Errorf("%s.parameters: must be a JSON Schema with type: object", field)
		}
		s.list = append(s.list, Declaration{own.Name, own.Description, parameters})
	}
	if len(s.list) > maxTools {
		return fmt.Errorf("own: there must be at most %d tools", maxTools)
	}
	return nil
}

// property is one of a tool's parameters: a text.
type property struct {
	name, description string
	values            []string // that it may have; nil: any
}

// declare adds a tool of the bridge's own. The first parameter must be given, but for a reason.
func (s *Set) declare(name, description string, properties ...property) {
	all, required := map[string]any{}, []string{}
	for i, p := range properties {
		is := map[string]any{"type": "string", "description": p.description}
		if p.values != nil {
			is["enum"] = p.values
		}
		all[p.name] = is
		if i == 0 && p.name != "reason" {
			required = append(required, p.name)
		}
	}
	s.list = append(s.list, Declaration{name, description, object(all, required)})
}

func object(properties map[string]any, required []string) map[string]any {
	if properties == nil {
		properties = map[string]any{}
	}
	o := map[string]any{"type": "object", "properties": properties}
	if len(required) > 0 {
		o["required"] = required
	}
	return o
}

func (s *Set) has(name string) bool {
	return slices.ContainsFunc(s.list, func(d Declaration) bool { return d.Name == name })
}

// List returns the tools, for the model. Where the call cannot be transferred, those that are left.
func (s *Set) List(transfers bool) []Declaration {
	switch {
	case s == nil:
		return nil
	case transfers:
		return s.list
	}
	return s.inside
}

// Call is what a model wants done.
type Call struct {
	ID, Name  string
	Arguments json.RawMessage // an object; empty: none
}

// Action is what a call of a tool comes to; one of the fields is set.
type Action struct {
	End      bool
	Transfer *calls.TransferRequest
	Digits   string
	Own      *Own
}

// Action reads a call. Its error is for the model: it says what to do otherwise.
func (s *Set) Action(c Call) (Action, error) {
	if s == nil || !s.has(c.Name) {
		return Action{}, fmt.Errorf("there is no tool %.64q", c.Name)
	}
	if len(c.Arguments) > maxArguments {
		return Action{}, errors.New("the arguments are too long")
	}
	var args struct {
		Destination, Summary, Digits string
	}
	own := slices.IndexFunc(s.cfg.Own, func(o Own) bool { return o.Name == c.Name })
	var into any = &args
	if own >= 0 {
		into = &map[string]any{}
	}
	if len(c.Arguments) > 0 && json.Unmarshal(c.Arguments, into) != nil {
		return Action{}, errors.New("the arguments are not as declared")
	}
	switch {
	case own >= 0:
		return Action{Own: &s.cfg.Own[own]}, nil
	case c.Name == EndCall:
		return Action{End: true}, nil
	case c.Name == SendDigits:
		return Action{Digits: args.Digits}, nil
	}
	to, known := s.cfg.Destinations[args.Destination]
	if !known {
		return Action{}, fmt.Errorf("the destination must be one of %s",
			strings.Join(slices.Sorted(maps.Keys(s.cfg.Destinations)), ", "))
	}
	if args.Summary != "" {
		to.Context = maps.Clone(to.Context)
		if to.Context == nil {
			to.Context = map[string]string{}
		}
		to.Context["summary"] = args.Summary[:min(len(args.Summary), calls.MaxContext/2)]
	}
	return Action{Transfer: &to}, nil
}

// About is what a webhook is told of the call.
type About struct {
	Session   string            `json:"session_id"`
	Carrier   string            `json:"carrier"`
	Direction string            `json:"direction,omitempty"`
	From      string            `json:"from,omitempty"`
	To        string            `json:"to,omitempty"`
	Metadata  map[string]string `json:"metadata,omitempty"`
}

// request is what a webhook is asked.
type request struct {
	ID        string          `json:"tool_call_id"`
	Name      string          `json:"name"`
	Arguments json.RawMessage `json:"arguments"`
	Call      About           `json:"call"`
}

// Ask has the webhook carry out a call, and returns its answer as JSON.
func (o *Own) Ask(ctx context.Context, c Call, about *About) (json.RawMessage, error) {
	args := c.Arguments
	if len(args) == 0 {
		args = json.RawMessage("{}")
	}
	target := o.Webhook
	if target.Timeout == 0 {
		target.Timeout = DefaultTimeout
	}
	var answer json.RawMessage
	if err := target.Post(ctx, request{c.ID, c.Name, args, *about}, &answer); err != nil {
		return nil, fmt.Errorf("tool %s: %w", o.Name, err)
	}
	return answer, nil
}
