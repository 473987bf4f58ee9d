// Package runner measures bridges by turns: it starts this one and the yardsticks as
// processes, puts the load of a plan on each, and prints and writes the report.
package runner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"voicebridge/bench"
	"voicebridge/bench/report"
	"voicebridge/progress"
	"voicebridge/providers"
)

type Command struct {
	Scenario string        `help:"File that describes the load (YAML); see docs/performance.md. Flags beside it count more." type:"existingfile" placeholder:"FILE"`
	Calls    []int         `help:"How many calls at a time; each number is measured by itself (default 50,100,200)." placeholder:"N"`
	Carrier  string        `help:"Carrier of all calls (default ${carrier})." placeholder:"NAME"`
	Rate     int           `help:"Sample rate of the carrier's audio, where it has a choice." placeholder:"HZ"`
	Agent    string        `help:"What all agents do: ${behaviours} (default echo)." placeholder:"WHAT"`
	Protocol string        `help:"Put the agents behind this protocol: ${enum}; they echo." name:"agent-protocol" enum:"openai," default:"" placeholder:"PROTOCOL"`
	Idle     bool          `help:"The carriers send no audio: what calls cost while nothing happens."`
	Duration time.Duration `help:"Of each measurement (default 10s)." placeholder:"DURATION"`
	Rounds   int           `help:"How often each is measured (default 3)." placeholder:"N"`
	Arrivals float64       `help:"Calls begun in a second (default 100)." placeholder:"N"`
	Against  []string      `help:"Measure by turns: relay, a plain relay of messages; floor, the least that Go can do; portable, this bridge without event loops." enum:"relay,floor,portable" placeholder:"WHAT"`
	AtMost   float64       `help:"Fail where the bridge needs more than so much of the relay's CPU, in the median of the rounds." placeholder:"RATIO"`
	Capacity bool          `help:"Search the most calls with --p99 and no gap heard, instead of --calls."`
	P99      time.Duration `name:"p99" help:"Added delay at the 99th percentile that --capacity allows (default ${default})." default:"15ms" placeholder:"DURATION"`
	Most     int           `help:"The most calls that --capacity tries (default ${default})." default:"10000" placeholder:"N"`

	URL         string `help:"Measure another bridge: its media socket; {carrier} stands for the carrier's name. Default: start 'voicebridge serve' as it comes." placeholder:"URL"`
	PID         int    `help:"With --url: its process on this machine, to measure what it uses." placeholder:"PID"`
	Metrics     string `help:"With --url: its Prometheus metrics, for allocations and goroutines." placeholder:"URL"`
	Name        string `help:"With --url: what to call it in the report (default ${default})." default:"bridge" placeholder:"NAME"`
	AgentListen string `help:"Where the bridge of --url finds the agents (default ${default}); the exact URL is printed." default:"127.0.0.1:9100" placeholder:"HOST:PORT"`
	Mirror      bool   `help:"The bridge of --url passes the carrier's messages on as they are: the agents speak the carrier's protocol."`

	Out string `help:"Folder for report.html and report.json (default ${default})." default:"bench-out" placeholder:"DIR"`
}

// Run measures.
func (c *Command) Run(ctx context.Context, out io.Writer) error {
	plan, err := c.plan()
	if err != nil {
		return err
	}
	most := slices.Max(plan.Calls)
	if c.Capacity {
		most = plan.Calls[0]
	}
	if err := bench.CheckDescriptors(most); err != nil {
		return err
	}
	if c.URL == "" && (c.PID != 0 || c.Metrics != "" || c.Mirror) {
		return errors.New("--pid, --metrics and --mirror are of the bridge of --url")
	}
	if c.URL != "" && plan.Transfers > 0 {
		return errors.New("transfers_per_minute: only for the bridge that bench starts itself, not with --url")
	}
	listen := "127.0.0.1:0"
	if c.URL != "" {
		listen = c.AgentListen
	}
	g, err := bench.NewGenerator(listen)
	if err != nil {
		return err
	}
	defer g.Close()
	b := &run{Command: c, plan: plan, g: g, out: out, show: progress.New(out, time.Second),
		report: report.New(plan.describe())}
	contestants := b.contestants()
	if c.URL != "" {
		fmt.Fprintf(out, "agents are at %s\n", b.agentURL(c.Mirror))
	}
	if c.Capacity {
		err = b.capacity(ctx, contestants[0])
	} else {
		err = b.rounds(ctx, contestants)
	}
	if len(b.report.Measurements) > 0 {
		b.print()
		err = errors.Join(err, b.write())
	}
	if err == nil {
		err = b.atMost()
	}
	return err
}

// atMost fails where the bridge needs too much.
func (b *run) atMost() error {
	if b.AtMost == 0 {
		return nil
	}
	compared := false
	for _, r := range b.report.Ratios() {
		if r.Of != b.report.Measurements[0].Target || r.To != "relay" {
			continue
		}
		compared = true
		if r.Median > b.AtMost {
			return fmt.Errorf("--at-most: with %d calls %s needs %.2f times the CPU of the relay, more than %.2f",
				r.Calls, r.Of, r.Median, b.AtMost)
		}
	}
	if !compared {
		return errors.New("--at-most: nothing was compared with the relay; it needs --against relay, and Linux")
	}
	return nil
}

// run is a run under way.
type run struct {
	*Command
	plan   *plan
	g      *bench.Generator
	out    io.Writer
	show   *progress.Bar
	report *report.Report
}

// contestant is a bridge to be measured.
type contestant struct {
	name   string
	mirror bool
	// start runs it at an address, for so many calls; nil: it runs already.
	start func(ctx context.Context, b *run, address string, calls int, moved *transferLoad) (*child, error)
}

func (b *run) contestants() []contestant {
	own := contestant{name: "voicebridge", start: serveChild(-1)}
	if b.URL != "" {
		own = contestant{name: b.Name, mirror: b.Mirror}
	}
	list := []contestant{own}
	for _, name := range b.plan.Against {
		switch name {
		case "portable":
			list = append(list, contestant{name: "portable", start: serveChild(0)})
		default:
			list = append(list, contestant{name: name, mirror: true, start: yardstickChild(name)})
		}
	}
	return list
}

// agentBlock is the agent of a bridge's configuration.
func (b *run) agentBlock() map[string]any {
	if b.Protocol == "" {
		return map[string]any{"url": b.agentURL(false)}
	}
	return map[string]any{"protocol": b.Protocol, "url": b.g.ModelURL(), "options": map[string]any{"key": "bench"}}
}

func (b *run) agentURL(mirror bool) string {
	if mirror {
		return b.g.AgentURL(&b.plan.lines[0].Of)
	}
	return b.g.AgentURL(nil)
}

// measure measures one bridge under one number of calls.
func (b *run) measure(ctx context.Context, c contestant, calls, round int) (*bench.Measurement, error) {
	t := &bench.Target{Name: c.name, PID: b.PID, Metrics: b.Metrics}
	url := b.URL
	var running *child
	transfers := func() *bench.Transfers { return nil }
	if c.start != nil {
		address, err := freeAddress()
		if err != nil {
			return nil, err
		}
		var moved *transferLoad
		if b.plan.Transfers > 0 {
			if moved, err = newTransferLoad(b.plan.lines[0].Of, address); err != nil {
				return nil, err
			}
		}
		if running, err = c.start(ctx, b, address, calls, moved); err != nil {
			return nil, err
		}
		defer running.stop()
		if moved != nil {
			moving, stop := context.WithCancel(ctx)
			became := make(chan bench.Transfers, 1)
			go func() { became <- moved.run(moving, b.plan.Transfers) }()
			transfers = func() *bench.Transfers {
				stop()
				t := <-became
				return &t
			}
		}
		t.PID, t.Metrics, url = running.cmd.Process.Pid, running.metrics, running.url
	}
	t.URL = func(s *providers.Spec) string { return strings.ReplaceAll(url, "{carrier}", s.Name) }
	l := b.plan.load(calls)
	l.Progress = func(what string, part float64) {
		b.show.Part(fmt.Sprintf("%s, %d calls, round %d: %s", c.name, calls, round, what), part)
	}
	m, err := b.g.Measure(ctx, t, l)
	b.show.Clear()
	moved := transfers()
	if err != nil {
		if running != nil {
			select {
			case e := <-running.done:
				running.done <- e
				err = fmt.Errorf("%w; its process has ended: %v: %s", err, e, tail(running.said.String()))
			default:
			}
		}
		return nil, err
	}
	m.Round, m.Transfers = round, moved
	b.report.Add(m)
	fmt.Fprintln(b.out, shortly(m))
	for _, note := range m.Notes {
		fmt.Fprintf(b.out, "  %s\n", note)
	}
	return m, nil
}

// tail is the last kilobyte of s.
func tail(s string) string {
	s = strings.TrimSpace(s)
	return s[max(0, len(s)-1024):]
}

// shortly is a measurement in a line.
func shortly(m *bench.Measurement) string {
	s := fmt.Sprintf("%-12s %5d calls", m.Target, m.Calls)
	if m.CPU != nil {
		s += fmt.Sprintf("   %5.2f ms CPU a call-second, %4.0f KB a call", *m.CPU, *m.MemoryKB)
	}
	if m.Delay.Count > 0 {
		s += fmt.Sprintf("   delay %5.2f ms, p99 %6.2f", m.Delay.P50, m.Delay.P99)
	}
	if m.Clear.Count > 0 {
		s += fmt.Sprintf("   clear p99 %.2f ms", m.Clear.P99)
	}
	s += fmt.Sprintf("   %d gaps", m.Gaps)
	if lost := m.MarkersLost + m.Dropped + m.Refused; lost > 0 {
		s += fmt.Sprintf(", %d markers lost, %d calls dropped, %d refused", m.MarkersLost, m.Dropped, m.Refused)
	}
	if t := m.Transfers; t != nil {
		s += fmt.Sprintf("   %d transfers, %d bridged, %d failed, %d talked", t.Begun, t.Bridged, t.Failed, t.Talked)
		if n := len(t.TimesMS); n > 0 {
			s += fmt.Sprintf(", %.0f ms in the median", slices.Sorted(slices.Values(t.TimesMS))[n/2])
		}
	}
	if !m.Trustworthy {
		s += "   NOT TRUSTWORTHY"
	}
	return s
}

// rounds measures all by turns, so that what else happens on the machine meets all
// of them.
func (b *run) rounds(ctx context.Context, list []contestant) error {
	for _, calls := range b.plan.Calls {
		for round := range b.plan.Rounds {
			for i := range list {
				if _, err := b.measure(ctx, list[(i+round)%len(list)], calls, round+1); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// capacity doubles the calls until it is too much, then closes in on the limit.
func (b *run) capacity(ctx context.Context, c contestant) error {
	good, bad := 0, 0
	for calls := b.plan.Calls[0]; ; {
		carried, err := b.carries(ctx, c, calls)
		if err != nil {
			return err
		}
		if carried {
			good = calls
		} else {
			bad = calls
		}
		switch {
		case bad == 0 && good >= b.Most:
			b.report.Capacity = fmt.Sprintf("%d calls, the most that was tried, with an added delay of at most %v at "+
				"the 99th percentile and no gap heard", good, b.P99)
			return nil
		case bad == 0:
			calls = min(2*good, b.Most)
			if err := bench.CheckDescriptors(calls); err != nil {
				return err
			}
		case good == 0 && bad <= 10:
			return fmt.Errorf("%s does not even carry %d calls", c.name, bad)
		case bad-good <= max(10, good/10):
			b.report.Capacity = fmt.Sprintf("%d calls, but not %d, with an added delay of at most %v at the 99th "+
				"percentile and no gap heard", good, bad, b.P99)
			return nil
		default:
			calls = (good + bad) / 2
		}
	}
}

// carries reports whether so many calls are not too much. Where they were, the machine
// may have had a bad moment: they are measured twice more, and must be carried then.
func (b *run) carries(ctx context.Context, c contestant, calls int) (bool, error) {
	failed := 0
	for round := 1; ; round++ {
		m, err := b.measure(ctx, c, calls, round)
		if errors.Is(err, bench.ErrBridge) {
			fmt.Fprintln(b.out, err)
		} else if err != nil {
			return false, err
		}
		if why := b.tooMuch(m); why != "" {
			fmt.Fprintf(b.out, "  too much: %s\n", why)
			if failed++; failed == 2 {
				return false, nil
			}
		}
		if round == 3 || failed == 0 {
			return true, nil
		}
	}
}

// tooMuch says why a load was too much; empty: it was not.
func (b *run) tooMuch(m *bench.Measurement) string {
	switch {
	case m == nil:
		return "the bridge failed"
	case m.Refused+m.Dropped > 0:
		return fmt.Sprintf("%d calls were refused, %d dropped", m.Refused, m.Dropped)
	case m.Gaps > 0:
		return fmt.Sprintf("%d gaps were heard", m.Gaps)
	case m.Delay.Count > 0 && m.Delay.P99 > bench.Milliseconds(b.P99):
		return fmt.Sprintf("the added delay is %.1f ms at the 99th percentile", m.Delay.P99)
	case m.MarkersLost > 0:
		return fmt.Sprintf("%d markers were lost", m.MarkersLost)
	case !m.Trustworthy:
		return "the machine, generator included, is too busy: a bridge on a machine of its own may carry more"
	}
	return ""
}

// print shows the medians and the ratios.
func (b *run) print() {
	w := tabwriter.NewWriter(b.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(b.out)
	fmt.Fprintln(w, "calls\tbridge\tCPU ms\tKB a call\tallocs a message\tdelay ms\tp99\tp99.9\tgaps\t")
	for _, s := range b.report.Summaries() {
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t\n", s.Calls, s.Target, s.CPU.Short(2), s.MemoryKB.Short(0),
			s.Allocations.Short(2),
			s.DelayP50.Short(2), s.DelayP99.Short(2), s.DelayP999.Short(2), s.Gaps)
	}
	w.Flush()
	if ratios := b.report.Ratios(); len(ratios) > 0 {
		fmt.Fprintln(b.out, "\nCPU as a share of another's, in the same round: median (least to most)")
		for _, r := range ratios {
			fmt.Fprintf(b.out, "  %5d calls  %s / %s  %.2f (%.2f to %.2f)\n", r.Calls, r.Of, r.To, r.Median, r.Min,
				r.Max)
		}
	}
	if b.report.Capacity != "" {
		fmt.Fprintf(b.out, "\ncapacity: %s\n", b.report.Capacity)
	}
	if n := b.report.Untrustworthy(); n > 0 {
		fmt.Fprintf(b.out, "\n%d of %d measurements are not to be trusted: the machine was too busy for the "+
			"generator.\n", n, len(b.report.Measurements))
	}
}

func (b *run) write() error {
	if err := os.MkdirAll(b.Out, 0o755); err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	for name, write := range map[string]func(*os.File) error{
		"report.json": func(f *os.File) error { return b.report.JSON(f) },
		"report.html": func(f *os.File) error { return b.report.HTML(f) },
	} {
		f, err := os.Create(filepath.Join(b.Out, name))
		if err != nil {
			return fmt.Errorf("--out: %w", err)
		}
		if err := errors.Join(write(f), f.Close()); err != nil {
			return fmt.Errorf("--out: %w", err)
		}
	}
	fmt.Fprintf(b.out, "\nwritten: %s\n", filepath.Join(b.Out, "{report.html,report.json}"))
	return nil
}

// numbers makes a list readable.
func numbers(list []int) string {
	s := make([]string, len(list))
	for i, n := range list {
		s[i] = strconv.Itoa(n)
	}
	return strings.Join(s, ", ")
}
