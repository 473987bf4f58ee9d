package runner

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"voicebridge/bench"
	"voicebridge/config"
	"voicebridge/providers/all"
)

// plan is a scenario file.
type plan struct {
	Carriers map[string]float64          `yaml:"carriers"` // weights by NAME or NAME/RATE
	Agents   map[bench.Behaviour]float64 `yaml:"agents"`
	Calls    []int                       `yaml:"calls"`
	Arrivals float64                     `yaml:"arrivals_per_second"`
	Length   config.Duration             `yaml:"call_length"`
	Settle   config.Duration             `yaml:"settle"`
	Duration config.Duration             `yaml:"duration"`
	Rounds   int                         `yaml:"rounds"`
	Digits   float64                     `yaml:"digits_per_call_second"`
	Idle     bool                        `yaml:"idle"`
	// Hostile are calls beside the others that send all that is taken.
	Hostile map[bench.Behaviour]int `yaml:"hostile"`
	// Transfers are calls beside the others that are transferred to a human.
	Transfers float64  `yaml:"transfers_per_minute"`
	Against   []string `yaml:"against"`

	lines  []bench.Share[bench.Line]
	agents []bench.Share[bench.Behaviour]
}

// plan reads the scenario and checks it. Flags count more.
func (c *Command) plan() (*plan, error) {
	p := &plan{}
	if c.Scenario != "" {
		text, err := os.ReadFile(c.Scenario)
		if err != nil {
			return nil, fmt.Errorf("--scenario: %w", err)
		}
		if err := yaml.UnmarshalWithOptions(text, p, yaml.Strict()); err != nil {
			return nil, fmt.Errorf("--scenario: %s: %w", c.Scenario, err)
		}
	}
	if c.Carrier != "" || len(p.Carriers) == 0 {
		name := c.Carrier
		name = cmp.Or(name, all.Specs[0].Name)
		if c.Rate != 0 {
			name = fmt.Sprintf("%s/%d", name, c.Rate)
		}
		p.Carriers = map[string]float64{name: 1}
	}
	if c.Agent != "" || len(p.Agents) == 0 {
		kind := c.Agent
		kind = cmp.Or(kind, string(bench.EchoAgent))
		p.Agents = map[bench.Behaviour]float64{bench.Behaviour(kind): 1}
	}
	if len(c.Calls) > 0 {
		p.Calls = c.Calls
	}
	if len(p.Calls) == 0 {
		p.Calls = []int{50, 100, 200}
	}
	if c.Duration != 0 {
		p.Duration = config.Duration(c.Duration)
	}
	if c.Rounds != 0 {
		p.Rounds = c.Rounds
	}
	p.Idle = p.Idle || c.Idle
	if c.Arrivals != 0 {
		p.Arrivals = c.Arrivals
	}
	if len(c.Against) > 0 {
		p.Against = c.Against
	}
	p.Duration = cmp.Or(p.Duration, config.Duration(10*time.Second))
	p.Settle = cmp.Or(p.Settle, config.Duration(2*time.Second))
	p.Rounds = cmp.Or(p.Rounds, 3)
	p.Arrivals = cmp.Or(p.Arrivals, 100)
	errs := p.resolve()
	echoes := len(p.agents) == 1 && p.agents[0].Of == bench.EchoAgent
	if c.Protocol != "" && (!echoes || p.Transfers > 0 || c.URL != "") {
		errs = append(errs, errors.New("agent-protocol: its agents echo, with the bridge that bench starts itself, "+
			"and transfer nothing"))
	}
	return p, errors.Join(errs...)
}

// planComplaint takes what is wrong with a field.
type planComplaint func(field, format string, args ...any)

// resolve checks what the plan says. Errors name the field.
func (p *plan) resolve() (errs []error) {
	wrong := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: "+format, append([]any{field}, args...)...))
	}
	for _, name := range slices.Sorted(maps.Keys(p.Carriers)) {
		p.carrier(name, wrong)
	}
	p.behaviours(wrong)
	if len(errs) == 0 && (len(p.lines) == 0 || len(p.agents) == 0) {
		wrong("carriers, agents", "at least one of each must have a weight")
	}
	p.numbers(wrong)
	for kind, n := range p.Hostile {
		if !slices.Contains(bench.HostileKinds, kind) {
			wrong("hostile", "%q must be one of %v", kind, bench.HostileKinds)
		} else if n < 0 || n > 1000 {
			wrong("hostile."+string(kind), "%d must be between 0 and 1000", n)
		}
	}
	for _, a := range p.Against {
		switch {
		case !slices.Contains([]string{"relay", "floor", "portable"}, a):
			wrong("against", "%q must be relay, floor or portable", a)
		case a != "portable" && p.Transfers > 0:
			wrong("against", "%s has no transfers", a)
		case a != "portable" && (len(p.lines) > 1 || len(p.agents) > 1 || len(p.agents) == 1 &&
			p.agents[0].Of != bench.EchoAgent):
			wrong("against", "%s passes the messages of one carrier to agents that echo: it cannot carry this load", a)
		}
	}
	return errs
}

// carrier adds the line of a carrier, NAME or NAME/RATE.
func (p *plan) carrier(name string, wrong planComplaint) {
	weight := p.Carriers[name]
	carrier, rate, _ := strings.Cut(name, "/")
	spec := all.Lookup(carrier)
	if spec == nil {
		wrong("carriers", "%q is not a carrier; see voicebridge providers", carrier)
		return
	}
	line := bench.Line{Spec: spec, Format: spec.Formats[0]}
	known := rate == ""
	for _, f := range spec.Formats {
		if fmt.Sprint(f.Rate) == rate && !known {
			line.Format, known = f, true
		}
	}
	if !known {
		wrong("carriers", "%s has no audio at %s Hz, only %v", spec.Title, rate, spec.Formats)
	}
	if weight < 0 || weight > 1e6 {
		wrong("carriers."+name, "%v must be a weight, 0 or more", weight)
	}
	if weight > 0 {
		p.lines = append(p.lines, bench.Share[bench.Line]{Of: line, Weight: weight})
	}
}

// Behaviours adds the agents.
func (p *plan) behaviours(wrong planComplaint) {
	for _, kind := range bench.Behaviours {
		if weight := p.Agents[kind]; weight > 0 && weight <= 1e6 {
			p.agents = append(p.agents, bench.Share[bench.Behaviour]{Of: kind, Weight: weight})
		}
	}
	for kind, weight := range p.Agents {
		if !slices.Contains(bench.Behaviours, kind) {
			wrong("agents", "%q must be one of %v", kind, bench.Behaviours)
		} else if !(weight >= 0 && weight <= 1e6) {
			wrong("agents."+string(kind), "%v must be a weight, 0 or more", weight)
		}
	}
}

// numbers checks times and counts.
func (p *plan) numbers(wrong planComplaint) {
	for _, n := range p.Calls {
		if n < 1 || n > 100000 {
			wrong("calls", "%d must be between 1 and 100000", n)
		}
	}
	for _, f := range []struct {
		name     string
		v        config.Duration
		min, max time.Duration
	}{
		{"duration", p.Duration, time.Second, 24 * time.Hour},
		{"settle", p.Settle, 0, time.Hour},
	} {
		if v := time.Duration(f.v); v < f.min || v > f.max {
			wrong(f.name, "%v must be between %v and %v", v, f.min, f.max)
		}
	}
	if l := time.Duration(p.Length); l != 0 && l < time.Second {
		wrong("call_length", "%v must be at least 1s, or 0 for calls that last", l)
	}
	if p.Rounds < 1 || p.Rounds > 1000 {
		wrong("rounds", "%d must be between 1 and 1000", p.Rounds)
	}
	if !(p.Arrivals > 0 && p.Arrivals <= 10000) {
		wrong("arrivals_per_second", "%v must be more than 0 and at most 10000", p.Arrivals)
	}
	if !(p.Digits >= 0 && p.Digits <= 10) {
		wrong("digits_per_call_second", "%v must be between 0 and 10", p.Digits)
	}
	if !(p.Transfers >= 0 && p.Transfers <= 6000) {
		wrong("transfers_per_minute", "%v must be between 0 and 6000", p.Transfers)
	}
}

func (p *plan) load(calls int) *bench.Load {
	return &bench.Load{
		Lines: p.lines, Agents: p.agents, Calls: calls, Arrivals: p.Arrivals, Length: time.Duration(p.Length),
		Settle: time.Duration(p.Settle), Duration: time.Duration(p.Duration), Digits: p.Digits, Idle: p.Idle,
		Hostile: p.Hostile,
	}
}

// describe says in a line what is measured.
func (p *plan) describe() string {
	var parts []string
	for _, l := range p.lines {
		parts = append(parts, fmt.Sprintf("%s %v (%g)", l.Of.Spec.Title, l.Of.Format, l.Weight))
	}
	var agents []string
	for _, a := range p.agents {
		agents = append(agents, fmt.Sprintf("%s (%g)", a.Of, a.Weight))
	}
	s := fmt.Sprintf("%s; agents: %s; %s calls, %v for each measurement, %d rounds", strings.Join(parts, ", "),
		strings.Join(agents, ", "),
		numbers(p.Calls), time.Duration(p.Duration), p.Rounds)
	if p.Transfers > 0 {
		s += fmt.Sprintf("; %g transfers a minute", p.Transfers)
	}
	for _, kind := range slices.Sorted(maps.Keys(p.Hostile)) {
		s += fmt.Sprintf("; hostile: %d %s", p.Hostile[kind], kind)
	}
	if p.Idle {
		s += "; the carriers send no audio"
	}
	if p.Length > 0 {
		s += fmt.Sprintf("; calls of %v", time.Duration(p.Length))
	}
	if p.Digits > 0 {
		s += fmt.Sprintf("; %g digits a call-second", p.Digits)
	}
	return s
}

// Behaviours lists what agents can do.
func Behaviours() string {
	var s []string
	for _, b := range bench.Behaviours {
		s = append(s, string(b))
	}
	return strings.Join(s, ", ")
}
