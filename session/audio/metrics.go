package audio

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"voicebridge/codec"
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("voicebridge_"+name, help, labels, nil)
}

var (
	framesDesc = desc("frames_total", "Audio messages: in from the carrier, agent to the agent, out to the carrier.",
		"provider", "direction")
	droppedDesc = desc("dropped_audio_seconds_total",
		"Audio that was discarded: slow_agent is the caller's, overflow the agent's, missing what the carrier lost.",
		"provider", "reason")
	filledDesc = desc("filled_audio_seconds_total", "Silence given to agents while the carrier sent nothing.",
		"provider")
	badDesc = desc("bad_messages_total", "Messages that made no sense (malformed), had no meaning (unknown), or "+
		"were refused (agent); agent_unknown: of a type that is not known.", "provider", "kind")
	gapsDesc    = desc("playout_gaps_total", "Holes that callers heard in the middle of speech.", "provider")
	gapTimeDesc = desc("playout_gap_seconds_total", "Length of these holes.", "provider")
	eventsDesc  = desc("media_events_total", "Digits, marks and clears.", "provider", "kind")
	delayDesc   = desc("delay_seconds",
		"Time from a frame's arrival to its delivery: in is caller to agent, out agent to caller for audio that can "+
			"be played at once.",
		"provider", "direction")
)

// Describe gives what Collect gives the numbers of.
func Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{framesDesc, droppedDesc, filledDesc, badDesc, gapsDesc, gapTimeDesc,
		eventsDesc,
		delayDesc} {
		ch <- d
	}
}

// Collect gives the numbers of a carrier's sessions.
func (st *Stats) Collect(ch chan<- prometheus.Metric, name string) {
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
	count(ch, badDesc, float64(st.Ignored), name, "agent_unknown")
	count(ch, gapsDesc, float64(st.Gaps), name)
	count(ch, gapTimeDesc, st.GapTime.Seconds(), name)
	count(ch, eventsDesc, float64(st.Digits), name, "digit")
	count(ch, eventsDesc, float64(st.Marks), name, "mark")
	count(ch, eventsDesc, float64(st.Clears), name, "clear")
	histogram(ch, &st.In, name, "in")
	histogram(ch, &st.Out, name, "out")
}

func count(ch chan<- prometheus.Metric, d *prometheus.Desc, v float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
}

func histogram(ch chan<- prometheus.Metric, d *Delays, labels ...string) {
	buckets := map[float64]uint64{}
	var sum uint64
	for i, bound := range DelayBounds {
		sum += d.Counts[i]
		buckets[bound.Seconds()] = sum
	}
	ch <- prometheus.MustNewConstHistogram(delayDesc, d.Count(), d.Sum.Seconds(), buckets, labels...)
}
