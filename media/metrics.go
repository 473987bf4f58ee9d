package media

import (
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"voicebridge/codec"
	"voicebridge/providers"
	"voicebridge/session"
)

// refusals are the reasons for which a handshake is refused.
var refusals = []string{"provider", "draining", "rate", "token", "signature", "strangers", "calls", "agent", "handshake"}

// totals collect what ended sessions leave behind. What live ones have counted
// is read from them when somebody asks, so that counting costs nothing.
type totals struct {
	mu        sync.Mutex
	byCarrier map[string]*carrierTotals
	refused   map[string]uint64
	hooks     map[[2]string]uint64       // by provider and result
	placed    map[[2]string]uint64       // by provider and result
	transfers map[[2]string]uint64       // by provider and state
	events    func() (sent, lost uint64) // to the user's application; nil: none
}

type carrierTotals struct {
	stats session.Stats
	ends  map[session.Cause]uint64
}

func (t *totals) init(specs []*providers.Spec) {
	t.byCarrier = map[string]*carrierTotals{}
	t.refused = map[string]uint64{}
	for _, s := range specs {
		c := &carrierTotals{ends: map[session.Cause]uint64{}}
		for _, cause := range session.Causes {
			c.ends[cause] = 0
		}
		t.byCarrier[s.Name] = c
	}
	t.placed = map[[2]string]uint64{}
	t.hooks = map[[2]string]uint64{}
	t.transfers = map[[2]string]uint64{}
	for _, s := range specs {
		for _, r := range placeResults {
			t.placed[[2]string{s.Name, r}] = 0
		}
		for _, r := range hookResults {
			t.hooks[[2]string{s.Name, r}] = 0
		}
	}
	for _, r := range refusals {
		t.refused[r] = 0
	}
}

func (t *totals) refuse(reason string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refused[reason]++
}

// placeResults are what can become of a request to place a call.
var placeResults = []string{"ok", string(providers.ErrCredentials), string(providers.ErrNoCall), string(providers.ErrRejected),
	string(providers.ErrRate), string(providers.ErrUnavailable), "error"}

// place counts a request to place a call.
func (t *totals) place(provider string, err error) {
	result := "ok"
	var e *providers.CallError
	switch {
	case errors.As(err, &e):
		result = string(e.Kind)
	case err != nil:
		result = "error"
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.placed[[2]string{provider, result}]++
}

// transfer counts a transfer that has come to a state.
func (t *totals) transfer(provider, state string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.transfers[[2]string{provider, state}]++
}

// hook counts a webhook; those of no known provider are not told apart.
func (t *totals) hook(provider, result string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, known := t.byCarrier[provider]; !known {
		provider = "unknown"
	}
	t.hooks[[2]string{provider, result}]++
}

// ended is called with mu held.
func (t *totals) ended(s *session.Session, cause session.Cause) {
	stats := s.Stats()
	c := t.byCarrier[s.Spec().Name]
	c.stats.Add(&stats)
	c.ends[cause]++
}

// Admin is what operators may reach: metrics and health.
func (s *Server) Admin() http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), s)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	doors := map[string]http.HandlerFunc{}
	s.health(doors)
	for pattern, h := range doors {
		mux.HandleFunc(pattern, h)
	}
	return mux
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("voicebridge_"+name, help, labels, nil)
}

var (
	callsDesc   = desc("calls", "Live calls.", "provider")
	endedDesc   = desc("calls_ended_total", "Calls that have ended, by cause.", "provider", "cause")
	refusedDesc = desc("handshakes_refused_total", "Media connections that were not let in, by reason.", "reason")
	hooksDesc   = desc("hook_requests_total", "Webhooks, by what became of them.", "provider", "result")
	placedDesc  = desc("calls_placed_total", "Requests to a carrier to place a call, by what became of them.", "provider", "result")
	movesDesc   = desc("transfers_total", "Transfers that have come to a state, told by the instance that acts for them.", "provider", "state")
	ownedDesc   = desc("transfers", "Live transfers that this instance acts for.")
	parkedDesc  = desc("pool_agents", "Agents that wait for calls.", "pool")
	framesDesc  = desc("frames_total", "Audio messages: in from the carrier, agent to the agent, out to the carrier.", "provider", "direction")
	droppedDesc = desc("dropped_audio_seconds_total", "Audio that was discarded: slow_agent is the caller's, overflow the agent's, missing what the carrier lost.", "provider", "reason")
	filledDesc  = desc("filled_audio_seconds_total", "Silence given to agents while the carrier sent nothing.", "provider")
	badDesc     = desc("bad_messages_total", "Messages that made no sense (malformed), had no meaning (unknown), or were refused (agent).", "provider", "kind")
	gapsDesc    = desc("playout_gaps_total", "Holes that callers heard in the middle of speech.", "provider")
	gapTimeDesc = desc("playout_gap_seconds_total", "Length of these holes.", "provider")
	eventsDesc  = desc("events_total", "Digits, marks and clears.", "provider", "kind")
	tellDesc    = desc("events_sent_total", "Events for the user's application: taken by it, or lost.", "result")
	delayDesc   = desc("delay_seconds", "Time from a frame's arrival to its delivery: in is caller to agent, out agent to caller for audio that can be played at once.", "provider", "direction")
)

// Describe implements prometheus.Collector.
func (s *Server) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{callsDesc, endedDesc, refusedDesc, hooksDesc, placedDesc, movesDesc, ownedDesc, parkedDesc, framesDesc, droppedDesc, filledDesc,
		badDesc, gapsDesc, gapTimeDesc, eventsDesc, tellDesc, delayDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (s *Server) Collect(ch chan<- prometheus.Metric) {
	live := map[string]int{}
	sums := map[string]*session.Stats{}
	s.totals.mu.Lock() // over both, so that no call is counted twice or not at all
	defer s.totals.mu.Unlock()
	for name, c := range s.totals.byCarrier {
		stats := c.stats
		sums[name] = &stats
		live[name] = 0
		for cause, n := range c.ends {
			count(ch, endedDesc, float64(n), name, string(cause))
		}
	}
	if s.totals.events != nil {
		sent, lost := s.totals.events()
		count(ch, tellDesc, float64(sent), "taken")
		count(ch, tellDesc, float64(lost), "lost")
	}
	for reason, n := range s.totals.refused {
		count(ch, refusedDesc, float64(n), reason)
	}
	for k, n := range s.totals.hooks {
		count(ch, hooksDesc, float64(n), k[0], k[1])
	}
	for k, n := range s.totals.placed {
		count(ch, placedDesc, float64(n), k[0], k[1])
	}
	for k, n := range s.totals.transfers {
		count(ch, movesDesc, float64(n), k[0], k[1])
	}
	if s.transfers != nil {
		ch <- prometheus.MustNewConstMetric(ownedDesc, prometheus.GaugeValue, float64(s.transfers.manager.Owned()))
	}
	for name, a := range s.cfg.Agents {
		if p, ok := a.Dialer.(interface{ Parked() int }); ok {
			ch <- prometheus.MustNewConstMetric(parkedDesc, prometheus.GaugeValue, float64(p.Parked()), name)
		}
	}
	for _, sess := range s.registry.All() {
		stats := sess.Stats()
		sums[sess.Spec().Name].Add(&stats)
		live[sess.Spec().Name]++
	}
	for name, n := range live {
		ch <- prometheus.MustNewConstMetric(callsDesc, prometheus.GaugeValue, float64(n), name)
	}
	for name, st := range sums {
		count(ch, framesDesc, float64(st.FramesIn), name, "in")
		count(ch, framesDesc, float64(st.AgentFrames), name, "agent")
		count(ch, framesDesc, float64(st.FramesOut), name, "out")
		count(ch, droppedDesc, st.Dropped.Seconds(), name, "slow_agent")
		count(ch, droppedDesc, st.Overflow.Seconds(), name, "overflow")
		count(ch, droppedDesc, (time.Duration(st.Missing) * codec.FrameTime).Seconds(), name, "missing")
		count(ch, filledDesc, st.Filled.Seconds(), name)
		count(ch, badDesc, float64(st.Malformed), name, "malformed")
		count(ch, badDesc, float64(st.Unknown), name, "unknown")
		count(ch, badDesc, float64(st.Faults), name, "agent")
		count(ch, gapsDesc, float64(st.Gaps), name)
		count(ch, gapTimeDesc, st.GapTime.Seconds(), name)
		count(ch, eventsDesc, float64(st.Digits), name, "digit")
		count(ch, eventsDesc, float64(st.Marks), name, "mark")
		count(ch, eventsDesc, float64(st.Clears), name, "clear")
		histogram(ch, &st.In, name, "in")
		histogram(ch, &st.Out, name, "out")
	}
}

func count(ch chan<- prometheus.Metric, d *prometheus.Desc, v float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
}

func histogram(ch chan<- prometheus.Metric, d *session.Delays, labels ...string) {
	buckets := map[float64]uint64{}
	var sum uint64
	for i, bound := range session.DelayBounds {
		sum += d.Counts[i]
		buckets[bound.Seconds()] = sum
	}
	ch <- prometheus.MustNewConstHistogram(delayDesc, d.Count(), d.Sum.Seconds(), buckets, labels...)
}
