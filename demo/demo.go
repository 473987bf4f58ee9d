// Package demo makes one simulated call through a bridge and judges what was heard: an
// inbound call, one that is placed through the API, or one that is transferred.
package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	dialects "voicebridge/agent/all"
	"voicebridge/agent/link"
	"voicebridge/bridge"
	"voicebridge/codec"
	"voicebridge/config"
	"voicebridge/control"
	"voicebridge/progress"
	"voicebridge/providers"
	"voicebridge/providers/all"
	"voicebridge/session"
	"voicebridge/sim"
	"voicebridge/sim/ear"
	"voicebridge/wav"
)

// ErrFailed is the error of a demo in which the audio did not come through; what went
// wrong has been printed.
var ErrFailed = errors.New("demo: the audio did not come through intact")

// Command is a demo. Its fields are the flags of the command.
type Command struct {
	Carrier   string        `help:"Carrier to simulate: ${enum} (default ${default})." enum:"${carriers}" default:"${carrier}"`
	Rate      int           `help:"Sample rate of the carrier's audio, where it has a choice; see voicebridge providers." placeholder:"HZ"`
	Agent     string        `help:"Agent to call instead of the built-in echo (a WebSocket URL)." placeholder:"URL"`
	Echo      bool          `help:"The agent of --agent echoes: measure it as the built-in one."`
	Input     string        `help:"What the caller says instead of the built-in speech: a WAV of 16-bit PCM or G.711 at 8000, 16000, 24000 or 48000 Hz." type:"existingfile" placeholder:"WAV"`
	Length    time.Duration `help:"Talk for so long, as into a microphone in a room: with pauses, noise and hum." placeholder:"DURATION"`
	Prebuffer time.Duration `help:"Audio to hold back at the start of an utterance: rides out jitter, adds to the delay." placeholder:"DURATION"`
	Out       string        `help:"Folder for caller.wav, heard.wav and summary.json (default ${default})." default:"demo-out" placeholder:"DIR"`
	Outbound  bool          `help:"Place the call through the bridge's API, at a simulated carrier with REST API and webhooks, and show the events."`
	Transfer  bool          `help:"Let the caller ask the agent for a human, move the call to a simulated one, and show the transfer."`
	Verbose   bool          `help:"Show the bridge's log."`
}

// Summary is summary.json. Times are milliseconds.
type Summary struct {
	Carrier        string   `json:"carrier"`
	CarrierFormat  string   `json:"carrier_format"`
	AgentFormat    string   `json:"agent_format"`
	Agent          string   `json:"agent"`
	CallMS         int64    `json:"call_ms"`
	FramesSent     int      `json:"frames_sent"`
	FramesReceived int      `json:"frames_received"`
	FramesLost     int      `json:"frames_lost"`
	Gaps           int      `json:"gaps"`
	GapMS          int64    `json:"gap_ms"`
	AddedMedianMS  float64  `json:"added_delay_median_ms,omitempty"`
	AddedP99MS     float64  `json:"added_delay_p99_ms,omitempty"`
	HeardLagMS     float64  `json:"heard_lag_ms,omitempty"`
	SNR            float64  `json:"snr_db,omitempty"`
	BridgeInP99MS  float64  `json:"bridge_in_p99_ms"`
	BridgeOutP99MS float64  `json:"bridge_out_p99_ms"`
	Warnings       []string `json:"carrier_warnings"`
	Intact         bool     `json:"intact"`
	Failures       []string `json:"failures"`
}

const (
	// after is how long the call goes on when the caller has spoken, for the
	// echo to come back.
	after = 300 * time.Millisecond
	// intactSNR is what an echo must reach: G.711 twice over gives 30 dB or more
	// in the telephone band.
	intactSNR = 25
	// lostFrames are those under way when the caller hangs up.
	lostFrames = 3
)

// Run makes the call.
func (c *Command) Run(ctx context.Context, out io.Writer) error {
	spec := all.Lookup(c.Carrier)
	format, err := c.format(spec)
	if err != nil {
		return err
	}
	voice, err := c.voice(format.Rate)
	if err != nil {
		return err
	}
	if c.Length != 0 && (c.Length < time.Second || c.Length > time.Hour) {
		return errors.New("--length: must be between 1s and 1h")
	}
	if c.Prebuffer < 0 || c.Prebuffer > time.Second {
		return errors.New("--prebuffer: must be between 0s and 1s")
	}
	if c.Transfer {
		return c.transfer(ctx, out, spec, format, voice)
	}
	result, hears, err := c.call(ctx, out, spec, format, voice)
	if err != nil {
		return err
	}
	s := c.summarize(spec, hears, result)
	if err := c.write(&s, result); err != nil {
		return err
	}
	c.print(out, &s)
	if !s.Intact {
		return ErrFailed
	}
	return nil
}

func (c *Command) format(spec *providers.Spec) (codec.Format, error) {
	if c.Rate == 0 {
		return spec.Formats[0], nil
	}
	for _, f := range spec.Formats {
		if f.Rate == c.Rate {
			return f, nil
		}
	}
	return codec.Format{}, fmt.Errorf("--rate: %s has no audio at %d Hz, only %v", spec.Title, c.Rate, spec.Formats)
}

func (c *Command) voice(rate int) ([]int16, error) {
	speech, err := c.speech(rate)
	if err == nil && c.Length > 0 {
		speech = ear.Microphone(speech, rate, c.Length)
	}
	return speech, err
}

func (c *Command) speech(rate int) ([]int16, error) {
	if c.Input == "" {
		return ear.Speech(rate)
	}
	s, from, err := wav.Read(c.Input)
	if err != nil {
		return nil, fmt.Errorf("--input: %w", err)
	}
	if len(s) < from/2 {
		return nil, fmt.Errorf("--input: %s is shorter than half a second", c.Input)
	}
	return ear.Resample(s, from, rate), nil
}

// call runs the agent, the bridge and the carrier over TCP.
func (c *Command) call(ctx context.Context, out io.Writer, spec *providers.Spec, format codec.Format,
	voice []int16) (*result, codec.Format, error) {
	ended := &endLog{Handler: slog.DiscardHandler, end: map[string]slog.Value{}}
	if c.Verbose {
		ended.Handler = config.NewLogger(os.Stderr, slog.LevelInfo, false).Handler()
	}
	log := slog.New(ended)
	var group sync.WaitGroup
	defer group.Wait()

	url := c.Agent
	if url == "" {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, format, fmt.Errorf("agent: %w", err)
		}
		srv := &http.Server{Handler: &sim.Agent{Talk: sim.Echo, Log: log}, ReadHeaderTimeout: time.Second}
		group.Go(func() { _ = srv.Serve(l) }) // ends with Close
		defer srv.Close()
		url = "ws://" + l.Addr().String() + "/"
	}
	dialer, err := dialects.NewDialer(link.Config{URL: url, Plaintext: true})
	if err != nil {
		return nil, format, fmt.Errorf("--agent: %w", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, format, fmt.Errorf("bridge: %w", err)
	}
	limits := bridge.Defaults
	limits.Drain = 2 * time.Second
	audio := session.Defaults
	audio.Prebuffer = c.Prebuffer
	settings := bridge.Config{Providers: all.Specs, Loops: 1, Limits: limits,
		Agents: map[string]control.Agent{"": {Dialer: dialer, Session: audio}}, Log: log}
	length := time.Duration(len(voice))*time.Second/time.Duration(format.Rate) + after + c.Prebuffer
	show := progress.New(out, length)
	fmt.Fprintf(out, "%s, %v  ->  bridge  ->  agent %s\n", spec.Title, format, agentName(c.Agent))

	var carry func(context.Context) (*sim.Result, error)
	if c.Outbound {
		carry, err = outbound(&settings, out, l.Addr().String(), spec, format,
			sim.Phone{Ring: time.Second, Voice: voice, Length: length}, show)
		if err != nil {
			return nil, format, err
		}
	} else {
		settings.Insecure = true
		caller := &sim.Caller{
			Spec: spec, URL: "ws://" + l.Addr().String() + "/media/" + spec.Name,
			Start: spec.Start(format), Voice: voice, Length: length, Progress: show.At,
		}
		caller.Start.Account, caller.Start.Call = "AC00000000000000000000000000000000",
			"CA00000000000000000000000000000001"
		caller.Start.Stream, caller.Start.Params = "MZ00000000000000000000000000000001",
			map[string]string{"demo": "yes"}
		carry = caller.Run
	}
	server := bridge.New(settings)
	serving, stop := context.WithCancel(ctx)
	defer stop()
	served := make(chan struct{})
	group.Go(func() {
		defer close(served)
		if err := server.Serve(serving, l, nil); err != nil {
			log.Error("bridge", "err", err)
		}
	})
	r, err := carry(ctx)
	show.Done()
	if err != nil {
		return nil, format, err
	}
	hears, _ := dialer.Formats()
	stop()
	<-served
	return &result{Result: r, end: ended.end}, hears, nil
}

// result adds what the bridge said at the end of the call.
type result struct {
	*sim.Result
	end map[string]slog.Value
}

// why is the cause of the end, with the error behind it if there is one.
func (r *result) why() string {
	why := r.end["cause"].String()
	if err, ok := r.end["err"]; ok {
		why += ": " + err.String()
	}
	return why
}

// p99 is one of the bridge's own delays.
func (r *result) p99(attr string) float64 {
	if v := r.end[attr]; v.Kind() == slog.KindDuration {
		return toMS(v.Duration())
	}
	return 0 // there was no call
}

// endLog is a log that keeps what is said at the end of the call.
type endLog struct {
	slog.Handler
	end map[string]slog.Value // written before Serve returns
}

func (l *endLog) Enabled(context.Context, slog.Level) bool { return true }
func (l *endLog) WithGroup(string) slog.Handler            { return l }
func (l *endLog) WithAttrs([]slog.Attr) slog.Handler       { return l }

// Handle implements slog.Handler.
func (l *endLog) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == "call ended" {
		r.Attrs(func(a slog.Attr) bool { l.end[a.Key] = a.Value; return true })
	}
	return l.Handler.Handle(ctx, r)
}

func agentName(url string) string {
	if url == "" {
		return "echo"
	}
	return url
}

// echoes reports whether the agent is known to echo.
func (c *Command) echoes() bool { return c.Agent == "" || c.Echo }

func toMS(d time.Duration) float64 {
	return float64(d.Round(10*time.Microsecond)) / float64(time.Millisecond)
}

func (c *Command) summarize(spec *providers.Spec, hears codec.Format, r *result) Summary {
	s := Summary{
		Carrier: spec.Name, CarrierFormat: r.Format.String(), AgentFormat: hears.String(), Agent: agentName(c.Agent),
		CallMS: r.Duration.Milliseconds(), FramesSent: len(r.SentAt), FramesReceived: len(r.ReceivedAt),
		Gaps: r.Gaps, GapMS: r.GapTime.Milliseconds(),
		BridgeInP99MS: r.p99("delay_in_p99"), BridgeOutP99MS: r.p99("delay_out_p99"),
		Warnings: append([]string{}, r.Warnings...), Failures: []string{},
	}
	fail := func(ok bool, format string, args ...any) {
		if !ok {
			s.Failures = append(s.Failures, fmt.Sprintf(format, args...))
		}
	}
	fail(r.Complaints == 0, "the carrier complained %d times", r.Complaints)
	fail(r.CloseCode == 0 || !c.echoes() && r.CloseCode == 1000, "the bridge closed the connection with code %d: %s",
		r.CloseCode, r.why())
	fail(s.FramesReceived > 0, "the caller heard nothing")
	if c.echoes() && s.FramesReceived > 0 {
		s.FramesLost = max(0, s.FramesSent-s.FramesReceived)
		added := r.AddedDelay()
		s.AddedMedianMS, s.AddedP99MS = toMS(ear.Quantile(added, 0.5)), toMS(ear.Quantile(added, 0.99))
		said := r.Said[:len(r.Said)-int(after*time.Duration(r.Format.Rate)/time.Second)]
		s.HeardLagMS = float64(ear.Align(said, r.Heard, r.Format.Rate/2)) * 1000 / float64(r.Format.Rate)
		// In what came from the bridge, so that a gap of the carrier's playout,
		// which is counted as such, does not spoil the comparison of all that follows.
		s.SNR = ear.SNR(said, r.Received, ear.Align(said, r.Received, r.Format.Rate/2))
		fail(s.FramesLost <= lostFrames+int(c.Prebuffer/codec.FrameTime), "%d frames did not come back", s.FramesLost)
		fail(s.Gaps == 0, "the caller heard %d gaps of %d ms in all", s.Gaps, s.GapMS)
		fail(s.SNR >= intactSNR, "the audio came back with %.1f dB signal to noise, less than %d", s.SNR, intactSNR)
	}
	s.Intact = len(s.Failures) == 0
	return s
}

func (c *Command) write(s *Summary, r *result) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("summary: %w", err)
	}
	if err := os.MkdirAll(c.Out, 0o755); err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	return errors.Join(
		wav.Write(filepath.Join(c.Out, "caller.wav"), r.Said, r.Format.Rate),
		wav.Write(filepath.Join(c.Out, "heard.wav"), r.Heard, r.Format.Rate),
		os.WriteFile(filepath.Join(c.Out, "summary.json"), append(b, '\n'), 0o644),
	)
}

func (c *Command) print(out io.Writer, s *Summary) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(w, "  %s\t"+format+"\n", append([]any{name}, args...)...)
	}
	fmt.Fprintln(w)
	row("call", "%.1f s, carrier %s, agent %s", float64(s.CallMS)/1000, s.CarrierFormat, s.AgentFormat)
	if c.echoes() {
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
	row("written", "%s", filepath.Join(c.Out, "{caller.wav,heard.wav,summary.json}"))
	w.Flush()
	if s.Intact {
		fmt.Fprintln(out, "\nThe audio came through intact.")
		return
	}
	fmt.Fprintf(out, "\nThe audio did not come through intact:\n  %s\n", strings.Join(s.Failures, "\n  "))
}
