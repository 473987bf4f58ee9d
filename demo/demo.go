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
	"time"

	dialects "voicebridge/agent/all"
	"voicebridge/agent/link"
	"voicebridge/bridge"
	"voicebridge/codec"
	"voicebridge/control"
	"voicebridge/logs"
	"voicebridge/progress"
	"voicebridge/providers"
	"voicebridge/providers/all"
	"voicebridge/session"
	"voicebridge/sim"
	"voicebridge/sim/ear"
	"voicebridge/sim/stream"
	"voicebridge/wav"
)

// ErrFailed is the error of a demo in which the audio did not come through; what went
// wrong has been printed.
var ErrFailed = errors.New("the audio did not come through")

// Command is a demo. Its fields are the flags of the command.
type Command struct {
	Carrier   string        `help:"Carrier to simulate: ${enum} (default ${default})." enum:"${carriers}" default:"${carrier}"`
	Rate      int           `help:"Sample rate of the carrier's audio, where it has a choice; see voicebridge providers." placeholder:"HZ"`
	Agent     string        `help:"Agent to call instead of the built-in echo (a WebSocket URL)." placeholder:"URL"`
	Protocol  string        `help:"Call a simulated model behind this protocol instead, which is interrupted and uses a tool: ${enum}." name:"agent-protocol" enum:"${models}," default:"" placeholder:"PROTOCOL"`
	Echo      bool          `help:"The agent of --agent echoes: measure it as the built-in one."`
	Input     string        `help:"What the caller says instead of the built-in speech: a WAV file of any rate and encoding." type:"existingfile" placeholder:"WAV"`
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
	GeneratorMS    float64  `json:"generator_late_ms"` // how late the caller's own frames were at most
	Intact         bool     `json:"intact"`            // an echo came back as it was
	Verdict        string   `json:"verdict"`
	Failures       []string `json:"failures"`
}

// after is how long the call goes on when the caller has spoken, for the echo to come
// back.
const after = 300 * time.Millisecond

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
	if err := c.prepare(); err != nil {
		return err
	}
	if c.Transfer {
		return c.transfer(ctx, out, spec, format, voice)
	}
	if c.Protocol != "" {
		return c.model(ctx, out, spec, format, voice)
	}
	result, hears, err := c.call(ctx, out, spec, format, voice)
	if err != nil {
		return err
	}
	s := c.judge(spec, hears, result)
	if err := c.write(&s, result); err != nil {
		return err
	}
	c.print(out, &s)
	if len(s.Failures) > 0 {
		return ErrFailed
	}
	return nil
}

// prepare makes the folder for what is written, before any call, without what an earlier demo
// has left there. A demo of a transfer takes no flags that mean nothing to it.
func (c *Command) prepare() error {
	for name, given := range map[string]bool{"--agent": c.Agent != "", "--echo": c.Echo, "--length": c.Length != 0,
		"--prebuffer": c.Prebuffer != 0, "--outbound": c.Outbound} {
		if c.Transfer && given {
			return fmt.Errorf("%s: has no meaning with --transfer, whose agent is its own", name)
		}
		if c.Protocol != "" && (given || c.Transfer) {
			return fmt.Errorf("%s: has no meaning with --agent-protocol, whose call is its own",
				map[bool]string{true: name, false: "--transfer"}[given])
		}
	}
	err := os.MkdirAll(c.Out, 0o755)
	for _, name := range []string{callerFile, heardFile, humanFile, summaryFile} {
		if err == nil {
			if err = os.Remove(filepath.Join(c.Out, name)); errors.Is(err, os.ErrNotExist) {
				err = nil
			}
		}
	}
	if err == nil { // what comes after the call must not be lost
		err = os.WriteFile(filepath.Join(c.Out, summaryFile), nil, 0o644)
	}
	if err == nil && (c.Transfer || c.Protocol != "") {
		err = os.Remove(filepath.Join(c.Out, summaryFile))
	}
	if err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	return nil
}

// The files that are written.
const (
	callerFile  = "caller.wav"
	heardFile   = "heard.wav"
	humanFile   = "human.wav"
	summaryFile = "summary.json"
)

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

// serve serves an agent, in the group until stop.
func serve(group *sync.WaitGroup, h http.Handler) (url string, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, fmt.Errorf("agent: %w", err)
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: time.Second}
	group.Go(func() { _ = srv.Serve(l) }) // ends with Close
	return "http://" + l.Addr().String(), func() { srv.Close() }, nil
}

// call runs the agent, the bridge and the carrier over TCP.
func (c *Command) call(ctx context.Context, out io.Writer, spec *providers.Spec, format codec.Format,
	voice []int16) (*result, codec.Format, error) {
	ended := &endLog{Handler: slog.DiscardHandler, end: map[string]slog.Value{}}
	if c.Verbose {
		ended.Handler = logs.Direct(os.Stderr, slog.LevelInfo, false).Handler()
	}
	log := slog.New(ended)
	var group sync.WaitGroup
	defer group.Wait()

	url := c.Agent
	if url == "" {
		echo, stop, err := serve(&group, &sim.Agent{Talk: sim.Echo, Log: log})
		if err != nil {
			return nil, format, err
		}
		defer stop()
		url = "ws" + strings.TrimPrefix(echo, "http") + "/"
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
	// A phone sends its silence, too; some carriers would not.
	voice = append(voice[:len(voice):len(voice)],
		make([]int16, int(length.Seconds()*float64(format.Rate))-len(voice))...)
	show := progress.New(out, length)
	fmt.Fprintf(out, "%s, %v  ->  bridge  ->  agent %s\n", spec.Title, format, agentName(c.Agent))

	var carry func(context.Context) (*stream.Result, error)
	if c.Outbound {
		carry, err = outbound(&settings, out, l.Addr().String(), spec, format,
			sim.Phone{Ring: time.Second, Voice: voice, Length: length}, show)
		if err != nil {
			return nil, format, err
		}
	} else {
		settings.Insecure = true
		caller := &stream.Caller{
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
	*stream.Result
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

func toMS(d time.Duration) float64 {
	return float64(d.Round(10*time.Microsecond)) / float64(time.Millisecond)
}

func (c *Command) write(s *Summary, r *result) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("summary: %w", err)
	}
	return errors.Join(
		wav.Write(filepath.Join(c.Out, callerFile), r.Said, r.Format.Rate),
		wav.Write(filepath.Join(c.Out, heardFile), r.Heard, r.Format.Rate),
		os.WriteFile(filepath.Join(c.Out, summaryFile), append(b, '\n'), 0o644),
	)
}
