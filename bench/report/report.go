// Package report makes tables, a page and JSON of what bench has measured.
package report

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"voicebridge/bench"
)

// Report is all that a run has measured.
type Report struct {
	Title        string               `json:"title"`
	Begun        time.Time            `json:"begun"`
	Machine      string               `json:"machine"`
	Capacity     string               `json:"capacity,omitempty"`
	Measurements []*bench.Measurement `json:"measurements"`
}

// New begins a report.
func New(title string) *Report {
	return &Report{Title: title, Begun: time.Now(), Machine: machine()}
}

// machine says what this one is.
func machine() string {
	s := fmt.Sprintf("%d processors, %s/%s, %s", runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version())
	b, _ := os.ReadFile("/proc/cpuinfo") // where there is none, nothing more is said
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value) + ", " + s
		}
	}
	return s
}

// Add adds a measurement.
func (r *Report) Add(m *bench.Measurement) { r.Measurements = append(r.Measurements, m) }

// Spread is a figure of several rounds; nothing is known of it where N is 0.
type Spread struct {
	N      int     `json:"n"`
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

func spread(v []float64) Spread {
	if len(v) == 0 {
		return Spread{}
	}
	v = slices.Sorted(slices.Values(v))
	median := v[len(v)/2]
	if len(v)%2 == 0 {
		median = (v[len(v)/2-1] + v[len(v)/2]) / 2
	}
	return Spread{len(v), median, v[0], v[len(v)-1]}
}

// Short is the median, or a dash.
func (s Spread) Short(digits int) string {
	if s.N == 0 {
		return "-"
	}
	return fmt.Sprintf("%.*f", digits, s.Median)
}

// Summary is what the rounds of one bridge and number of calls have in common.
type Summary struct {
	Target      string `json:"target"`
	Calls       int    `json:"calls"`
	CPU         Spread `json:"cpu"`
	Generator   Spread `json:"generator_cpu"`
	MemoryKB    Spread `json:"memory_kb"`
	Allocations Spread `json:"allocations"`
	DelayP50    Spread `json:"delay_p50"`
	DelayP90    Spread `json:"delay_p90"`
	DelayP99    Spread `json:"delay_p99"`
	DelayP999   Spread `json:"delay_p99_9"`
	JitterP99   Spread `json:"jitter_p99"`
	ClearP99    Spread `json:"clear_p99"`
	SetupP99    Spread `json:"setup_p99"`
	Gaps        uint64 `json:"gaps"`
	Lost        uint64 `json:"markers_lost"`
	Dropped     uint64 `json:"dropped"`
	Refused     uint64 `json:"refused"`
}

// Summaries are in the order of calls and first appearance.
func (r *Report) Summaries() []Summary {
	var list []Summary
	for _, first := range r.Measurements {
		if slices.ContainsFunc(list, func(s Summary) bool {
			return s.Target == first.Target &&
				s.Calls == first.Calls
		}) {
			continue
		}
		s := Summary{Target: first.Target, Calls: first.Calls}
		var rounds []*bench.Measurement
		for _, m := range r.Measurements {
			if m.Target == first.Target && m.Calls == first.Calls {
				rounds = append(rounds, m)
				s.Gaps += m.Gaps
				s.Lost += m.MarkersLost
				s.Dropped += m.Dropped
				s.Refused += m.Refused
			}
		}
		of := func(f func(*bench.Measurement) *float64) Spread {
			var v []float64
			for _, m := range rounds {
				if p := f(m); p != nil {
					v = append(v, *p)
				}
			}
			return spread(v)
		}
		some := func(f func(*bench.Measurement) (bench.Quantiles, float64)) Spread {
			return of(func(m *bench.Measurement) *float64 {
				if q, v := f(m); q.Count > 0 {
					return &v
				}
				return nil
			})
		}
		s.CPU = of(func(m *bench.Measurement) *float64 { return m.CPU })
		s.Generator = of(func(m *bench.Measurement) *float64 { return m.GeneratorCPU })
		s.MemoryKB = of(func(m *bench.Measurement) *float64 { return m.MemoryKB })
		s.Allocations = of(func(m *bench.Measurement) *float64 { return m.Allocations })
		s.DelayP50 = some(func(m *bench.Measurement) (bench.Quantiles, float64) { return m.Delay, m.Delay.P50 })
		s.DelayP90 = some(func(m *bench.Measurement) (bench.Quantiles, float64) { return m.Delay, m.Delay.P90 })
		s.DelayP99 = some(func(m *bench.Measurement) (bench.Quantiles, float64) { return m.Delay, m.Delay.P99 })
		s.DelayP999 = some(func(m *bench.Measurement) (bench.Quantiles, float64) { return m.Delay, m.Delay.P999 })
		s.JitterP99 = some(func(m *bench.Measurement) (bench.Quantiles, float64) { return m.Jitter, m.Jitter.P99 })
		s.ClearP99 = some(func(m *bench.Measurement) (bench.Quantiles, float64) { return m.Clear, m.Clear.P99 })
		s.SetupP99 = some(func(m *bench.Measurement) (bench.Quantiles, float64) { return m.Setup, m.Setup.P99 })
		list = append(list, s)
	}
	slices.SortStableFunc(list, func(a, b Summary) int { return a.Calls - b.Calls })
	return list
}

// Ratio is the processor time of one bridge as a share of another's, both in the
// same round.
type Ratio struct {
	Of    string `json:"of"`
	To    string `json:"to"`
	Calls int    `json:"calls"`
	Spread
}

// Ratios compare the first bridge of the report, and the portable one, with the
// yardsticks.
func (r *Report) Ratios() []Ratio {
	var list []Ratio
	if len(r.Measurements) == 0 {
		return nil
	}
	first := r.Measurements[0].Target
	for _, s := range r.Summaries() {
		if s.Target == first || s.Target == "portable" {
			for _, to := range []string{"relay", "floor", "portable"} {
				if to == s.Target {
					continue
				}
				var v []float64
				for _, a := range r.Measurements {
					for _, b := range r.Measurements {
						if a.Target == s.Target && b.Target == to && a.Calls == s.Calls && b.Calls == s.Calls &&
							a.Round == b.Round &&
							a.CPU != nil && b.CPU != nil && *b.CPU > 0 {
							v = append(v, *a.CPU / *b.CPU)
						}
					}
				}
				if len(v) > 0 {
					list = append(list, Ratio{s.Target, to, s.Calls, spread(v)})
				}
			}
		}
	}
	return list
}

// Untrustworthy is how many measurements are not to be trusted.
func (r *Report) Untrustworthy() (n int) {
	for _, m := range r.Measurements {
		if !m.Trustworthy {
			n++
		}
	}
	return n
}

// JSON writes the report for programs.
func (r *Report) JSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", " ")
	if err := e.Encode(r.page()); err != nil {
		return fmt.Errorf("bench: report: %w", err)
	}
	return nil
}

// page is the report with what follows from it.
func (r *Report) page() any {
	return struct {
		*Report
		SummaryList []Summary `json:"summaries"`
		RatioList   []Ratio   `json:"ratios"`
	}{r, r.Summaries(), r.Ratios()}
}

//go:embed report.html
var reportHTML string

var reportPage = template.Must(template.New("report").Parse(reportHTML))

// HTML writes the report as one page, with pictures, that needs nothing else.
func (r *Report) HTML(w io.Writer) error {
	if err := reportPage.Execute(w, r.page()); err != nil {
		return fmt.Errorf("bench: report: %w", err)
	}
	return nil
}
