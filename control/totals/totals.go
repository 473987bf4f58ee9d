// Package totals counts the calls of a bridge: what ended sessions leave behind, and what
// live ones have counted so far.
package totals

import (
	"errors"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"voicebridge/calls"
	"voicebridge/control/registry"
	"voicebridge/providers"
	"voicebridge/session"
	"voicebridge/session/audio"
)

// Totals collect what ended sessions leave behind. What live ones have counted is
// read from them when somebody asks, so that counting costs nothing.
type Totals struct {
	placed   *prometheus.CounterVec
	panics   prometheus.Counter
	lengths  *prometheus.HistogramVec // of calls
	connects *prometheus.HistogramVec // of agents
	ends     *prometheus.CounterVec   // by account and agent
	limit    float64                  // of calls
	sessions *registry.Sessions
	parked   func() map[string]int

	mu        sync.Mutex // guards byCarrier, and that a session is counted either as live or as ended
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

// New makes totals of the carriers' calls, of which so many may be live. parked tells how many
// agents wait, by pool.
func New(specs []*providers.Spec, sessions *registry.Sessions, limit int, parked func() map[string]int) *Totals {
	t := &Totals{
		placed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "voicebridge_calls_placed_total",
			Help: "Requests to a carrier to place a call, by what became of them.",
		}, []string{"provider", "result"}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{Name: "voicebridge_panics_total",
			Help: "Faults of the bridge's own that have ended one call, or one piece of work, and not the program."}),
		lengths: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "voicebridge_call_duration_seconds",
			Help: "Length of calls' streams.", Buckets: []float64{5, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200},
		}, []string{"provider"}),
		connects: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "voicebridge_agent_connect_seconds",
			Help:    "Time from the start of a stream until its agent was connected.",
			Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"agent"}),
		ends: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "voicebridge_account_calls_ended_total",
			Help: "Calls that have ended, by account and agent of the configuration, and cause.",
		}, []string{"account", "agent", "cause"}),
		limit:    float64(limit),
		sessions: sessions, parked: parked, byCarrier: map[string]*carrierTotals{},
	}
	for _, s := range specs {
		sum := &carrierTotals{ends: map[calls.Cause]uint64{}}
		for _, cause := range calls.Causes {
			sum.ends[cause] = 0
		}
		t.byCarrier[s.Name] = sum
		for _, r := range placeResults {
			t.placed.WithLabelValues(s.Name, r)
		}
	}
	return t
}

// Placed counts a request to place a call.
func (t *Totals) Placed(provider string, err error) {
	result := "ok"
	var e *providers.CallError
	switch {
	case errors.As(err, &e):
		result = string(e.Kind)
	case err != nil:
		result = "error"
	}
	t.placed.WithLabelValues(provider, result).Inc()
}

// Panicked counts a fault of the bridge's own.
func (t *Totals) Panicked() { t.panics.Inc() }

// Connected counts an agent that was connected, by its name.
func (t *Totals) Connected(agent string, took time.Duration) {
	t.connects.WithLabelValues(agent).Observe(took.Seconds())
}

// Ended moves a session's numbers to the totals in one step, and out of the registry.
func (t *Totals) Ended(s *session.Session, account, agent string, cause calls.Cause) {
	t.lengths.WithLabelValues(s.Spec.Name).Observe(s.Length().Seconds())
	t.ends.WithLabelValues(account, agent, string(cause)).Inc()
	t.mu.Lock()
	defer t.mu.Unlock()
	stats := s.Stats()
	c := t.byCarrier[s.Spec.Name]
	c.stats.Add(&stats)
	c.ends[cause]++
	t.sessions.Remove(s)
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("voicebridge_"+name, help, labels, nil)
}

var (
	callsDesc  = desc("calls", "Live calls.", "provider")
	endedDesc  = desc("calls_ended_total", "Calls that have ended, by cause.", "provider", "cause")
	limitDesc  = desc("calls_limit", "How many calls may be live: limits.calls.")
	parkedDesc = desc("pool_agents", "Agents that wait for calls.", "pool")
)

// Describe implements prometheus.Collector.
func (t *Totals) Describe(ch chan<- *prometheus.Desc) {
	t.placed.Describe(ch)
	t.panics.Describe(ch)
	t.lengths.Describe(ch)
	t.connects.Describe(ch)
	t.ends.Describe(ch)
	for _, d := range []*prometheus.Desc{callsDesc, endedDesc, parkedDesc, limitDesc} {
		ch <- d
	}
	audio.Describe(ch)
}

// Collect implements prometheus.Collector.
func (t *Totals) Collect(ch chan<- prometheus.Metric) {
	t.placed.Collect(ch)
	t.panics.Collect(ch)
	t.lengths.Collect(ch)
	t.connects.Collect(ch)
	t.ends.Collect(ch)
	ch <- prometheus.MustNewConstMetric(limitDesc, prometheus.GaugeValue, t.limit)
	for pool, n := range t.parked() {
		ch <- prometheus.MustNewConstMetric(parkedDesc, prometheus.GaugeValue, float64(n), pool)
	}
	live, sums := map[string]int{}, map[string]*audio.Stats{}
	t.mu.Lock() // over both, so that no call is counted twice or not at all
	for name, sum := range t.byCarrier {
		stats := sum.stats
		sums[name], live[name] = &stats, 0
		for cause, n := range sum.ends {
			ch <- prometheus.MustNewConstMetric(endedDesc, prometheus.CounterValue, float64(n), name, string(cause))
		}
	}
	for _, sess := range t.sessions.All() {
		stats := sess.Stats()
		sums[sess.Spec.Name].Add(&stats)
		live[sess.Spec.Name]++
	}
	t.mu.Unlock()
	for name, st := range sums {
		ch <- prometheus.MustNewConstMetric(callsDesc, prometheus.GaugeValue, float64(live[name]), name)
		st.Collect(ch, name)
	}
}
