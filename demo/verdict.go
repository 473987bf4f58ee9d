package demo

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"voicebridge/codec"
	"voicebridge/providers"
	"voicebridge/sim/ear"
)

const (
	// intactSNR is what an echo must reach: G.711 twice over gives 30 dB or more
	// in the telephone band.
	intactSNR = 25
	// lostFrames are those under way when the caller hangs up.
	lostFrames = 3
	// echoLike is how like what was said something must be to be taken for its echo.
	echoLike = 0.8
	// busyMachine is how late the caller's own frames are on a machine that has no time for
	// them.
	busyMachine = 15 * time.Millisecond
)

// judge says what was found: an echo and how good it is, speech and how much, or nothing to
// compare.
func (c *Command) judge(spec *providers.Spec, hears codec.Format, r *result) Summary {
	s := Summary{
		Carrier: spec.Name, CarrierFormat: r.Format.String(), AgentFormat: hears.String(), Agent: agentName(c.Agent),
		CallMS: r.Duration.Milliseconds(), FramesSent: len(r.SentAt), FramesReceived: len(r.ReceivedAt),
		Gaps: r.Gaps, GapMS: r.GapTime.Milliseconds(),
		BridgeInP99MS: r.p99("delay_in_p99"), BridgeOutP99MS: r.p99("delay_out_p99"),
		GeneratorMS: toMS(lateness(r.SentAt)),
		Warnings:    append([]string{}, r.Warnings...), Failures: []string{},
	}
	said := r.Said[:max(0, len(r.Said)-int(after*time.Duration(r.Format.Rate)/time.Second))]
	own := c.Agent == "" || c.Echo // it is known to echo
	at8 := func(pcm []int16) []int16 { return ear.Resample(pcm, r.Format.Rate, 8000) }
	echo := own || heard(said, r.Format.Rate) > 0 && ear.Find(at8(said), at8(r.Heard)) > echoLike
	s.fail(r.Complaints == 0, "the carrier complained %d times", r.Complaints)
	s.fail(r.CloseCode == 0 || !own && r.CloseCode == 1000, "the bridge closed the connection with code %d: %s",
		r.CloseCode, r.why())
	s.fail(s.FramesReceived > 0, "the caller heard nothing at all")
	spoken := heard(r.Heard, r.Format.Rate)
	switch {
	case s.FramesReceived == 0:
		s.Verdict = "The caller heard nothing."
	case heard(said, r.Format.Rate) == 0:
		s.Verdict = "The caller said nothing, so there is nothing to compare."
		if spoken > 0 {
			s.Verdict += fmt.Sprintf(" The agent was heard for %.1f s.", spoken.Seconds())
		}
	case echo:
		s.measure(c, r, said)
	case spoken == 0:
		s.Verdict = "The agent was connected, but the caller heard only silence."
		s.fail(false, "the agent said nothing")
	default:
		s.Verdict = fmt.Sprintf("The agent was heard for %.1f s. It is no echo, so there is nothing to compare that "+
			"with.",
			spoken.Seconds())
	}
	return s
}

func (s *Summary) fail(ok bool, format string, args ...any) {
	if !ok {
		s.Failures = append(s.Failures, fmt.Sprintf(format, args...))
	}
}

// measure compares an echo with what was said.
func (s *Summary) measure(c *Command, r *result, said []int16) {
	s.FramesLost = max(0, s.FramesSent-s.FramesReceived)
	added := r.AddedDelay()
	s.AddedMedianMS, s.AddedP99MS = toMS(ear.Quantile(added, 0.5)), toMS(ear.Quantile(added, 0.99))
	s.HeardLagMS = float64(ear.Align(said, r.Heard, r.Format.Rate/2)) * 1000 / float64(r.Format.Rate)
	// In what came from the bridge, so that a gap of the carrier's playout,
	// which is counted as such, does not spoil the comparison of all that follows.
	s.SNR = ear.SNR(said, r.Received, ear.Align(said, r.Received, r.Format.Rate/2))
	s.fail(s.FramesLost <= lostFrames+int(c.Prebuffer/codec.FrameTime), "%d frames did not come back", s.FramesLost)
	s.fail(s.Gaps == 0, "the caller heard %d gaps of %d ms in all", s.Gaps, s.GapMS)
	s.fail(s.SNR >= intactSNR, "the audio came back with %.1f dB signal to noise, less than %d", s.SNR, intactSNR)
	s.Intact, s.Verdict = len(s.Failures) == 0, "The echo came through intact."
	if !s.Intact {
		s.Verdict = "The echo did not come through intact."
	}
}

// heard is how much of audio is more than silence: above -40 dBFS in 20 ms.
func heard(pcm []int16, rate int) (spoken time.Duration) {
	n := rate / 50
	for ; len(pcm) >= n; pcm = pcm[n:] {
		var energy float64
		for _, v := range pcm[:n] {
			energy += float64(v) * float64(v)
		}
		if energy/float64(n) > 328*328 {
			spoken += codec.FrameTime
		}
	}
	return spoken
}

// lateness is how late frames were sent at most, by their own schedule.
func lateness(sentAt []time.Duration) (most time.Duration) {
	for i, at := range sentAt {
		most = max(most, at-time.Duration(i)*codec.FrameTime)
	}
	return most
}

func (c *Command) print(out io.Writer, s *Summary) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(w, "  %s\t"+format+"\n", append([]any{name}, args...)...)
	}
	fmt.Fprintln(w)
	row("call", "%.1f s, carrier %s, agent %s", float64(s.CallMS)/1000, s.CarrierFormat, s.AgentFormat)
	if s.AddedMedianMS != 0 {
		row("frames", "%d sent, %d came back, %d lost", s.FramesSent, s.FramesReceived, s.FramesLost)
	} else {
		row("frames", "%d sent, %d heard", s.FramesSent, s.FramesReceived)
	}
	row("gaps heard", "%d (%d ms)", s.Gaps, s.GapMS)
	if s.AddedMedianMS != 0 {
		row("added delay", "%.2f ms median, %.2f ms p99 (caller to agent and back, filters included)", s.AddedMedianMS,
			s.AddedP99MS)
		row("signal to noise", "%.1f dB after aligning; the caller hears the echo after %.1f ms", s.SNR, s.HeardLagMS)
	}
	row("written", "%s", filepath.Join(c.Out, "{"+callerFile+","+heardFile+","+summaryFile+"}"))
	w.Flush()
	fmt.Fprintf(out, "\n%s\n", s.Verdict)
	if len(s.Failures) > 0 {
		fmt.Fprintf(out, "  %s\n", strings.Join(s.Failures, "\n  "))
	}
	if late := time.Duration(s.GeneratorMS * float64(time.Millisecond)); late > busyMachine {
		fmt.Fprintf(out, "This machine was busy: the simulated caller itself was up to %.0f ms late, which no bridge "+
			"mends. Try again, or with --prebuffer 100ms.\n", s.GeneratorMS)
	}
}
