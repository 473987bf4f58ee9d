package control

import (
	"errors"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"voicebridge/calls"
	"voicebridge/providers"
	"voicebridge/session"
	"voicebridge/session/audio"
)

// metrics collect what ended sessions leave behind. What live ones have counted is
// read from them when somebody asks, so that counting costs nothing.
type metrics struct {
	placed *prometheus.CounterVec
	panics prometheus.Counter

	mu        *sync.Mutex
	byCarrier map[string]*carrierTotals
}

type carrierTotals struct {
	stats audio.Stats
	ends  map[calls.Cause]uint64
}

// placeResults are what can become of a request to place a call.
var placeResults = []string{"ok", string(providers.ErrCredentials), string(providers.ErrNoCall),
	string(providers.ErrRejected),
	string(providers.ErrRate), string(providers.ErrUnavailable), "error"}

func newMetrics(specs []*providers.Spec) metrics {
	m := metrics{
		placed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "voicebridge_calls_placed_total",
			Help: "Requests to a carrier to place a call, by what became of them.",
		}, []string{"provider", "result"}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{Name: "voicebridge_panics_total",
			Help: "Faults of the bridge's own that have ended one call, or one piece of work, and not the program."}),
		mu: new(sync.Mutex), byCarrier: map[string]*carrierTotals{},
	}
	for _, s := range specs {
		totals := &carrierTotals{ends: map[calls.Cause]uint64{}}
		for _, cause := range calls.Causes {
			totals.ends[cause] = 0
		}
		m.byCarrier[s.Name] = totals
		for _, r := range placeResults {
			m.placed.WithLabelValues(s.Name, r)
		}
	}
	return m
}

// placedCall counts a request to place a call.
func (m *metrics) placedCall(provider string, err error) {
	result := "ok"
	var e *providers.CallError
	switch {
	case errors.As(err, &e):
		result = string(e.Kind)
	case err != nil:
		result = "error"
	}
	m.placed.WithLabelValues(provider, result).Inc()
}

// ended is called with mu held.
func (m *metrics) ended(s *session.Session, cause calls.Cause) {
	stats := s.Stats()
	c := m.byCarrier[s.Spec.Name]
	c.stats.Add(&stats)
	c.ends[cause]++
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("voicebridge_"+name, help, labels, nil)
}

var (
	callsDesc  = desc("calls", "Live calls.", "provider")
	endedDesc  = desc("calls_ended_total", "Calls that have ended, by cause.", "provider", "cause")
	parkedDesc = desc("pool_agents", "Agents that wait for calls.", "pool")
)

// Describe implements prometheus.Collector.
func (c *Controller) Describe(ch chan<- *prometheus.Desc) {
	c.metrics.placed.Describe(ch)
	c.metrics.panics.Describe(ch)
	for _, d := range []*prometheus.Desc{callsDesc, endedDesc, parkedDesc} {
		ch <- d
	}
	audio.Describe(ch)
}

// Collect implements prometheus.Collector.
func (c *Controller) Collect(ch chan<- prometheus.Metric) {
	c.metrics.placed.Collect(ch)
	c.metrics.panics.Collect(ch)
	for name, a := range c.cfg.Agents {
		if p, ok := a.Dialer.(interface{ Parked() int }); ok {
			ch <- prometheus.MustNewConstMetric(parkedDesc, prometheus.GaugeValue, float64(p.Parked()), name)
		}
	}
	live, sums := map[string]int{}, map[string]*audio.Stats{}
	c.metrics.mu.Lock() // over both, so that no call is counted twice or not at all
	for name, totals := range c.metrics.byCarrier {
		stats := totals.stats
		sums[name], live[name] = &stats, 0
		for cause, n := range totals.ends {
			ch <- prometheus.MustNewConstMetric(endedDesc, prometheus.CounterValue, float64(n), name, string(cause))
		}
	}
	for _, sess := range c.sessions.All() {
		stats := sess.Stats()
		sums[sess.Spec.Name].Add(&stats)
		live[sess.Spec.Name]++
	}
	c.metrics.mu.Unlock()
	for name, st := range sums {
		ch <- prometheus.MustNewConstMetric(callsDesc, prometheus.GaugeValue, float64(live[name]), name)
		st.Collect(ch, name)
	}
}
