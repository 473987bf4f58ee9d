package demo

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"voicebridge/agent"
	dialects "voicebridge/agent/all"
	"voicebridge/agent/link"
	"voicebridge/api"
	"voicebridge/api/client"
	"voicebridge/bridge"
	"voicebridge/calls"
	"voicebridge/codec"
	"voicebridge/control"
	"voicebridge/control/transfers"
	"voicebridge/logs"
	"voicebridge/providers"
	"voicebridge/providers/all"
	"voicebridge/session"
	"voicebridge/sim"
	"voicebridge/sim/ear"
	"voicebridge/transfer"
	"voicebridge/wav"
)

const (
	humanNumber = "+12025550188"
	// askAfter is when the caller of the demo asks for a human.
	askAfter = 2 * time.Second
	// humanRate makes another voice of the same speech: it is spoken so much slower
	// and deeper.
	humanRate = 0.8
	// likeness is how alike what was said and what was heard must be.
	likeness = 0.9
)

// transferDemo is a call in which the caller asks the agent for a human.
type transferDemo struct {
	*Command
	out           io.Writer
	spec          *providers.Spec
	format        codec.Format
	speech, human []int16 // what the caller and the human say
	exchange      *sim.Exchange
	log           *slog.Logger

	running sync.WaitGroup
	closers []func()
	client  *client.Client
	states  []string // of the transfer, so far
}

func (c *Command) transfer(ctx context.Context, out io.Writer, spec *providers.Spec, format codec.Format,
	speech []int16) error {
	d := &transferDemo{Command: c, out: out, spec: spec, format: format, speech: speech,
		human: slower(speech, humanRate),
		log:   slog.New(slog.DiscardHandler)}
	if c.Verbose {
		d.log = logs.Direct(os.Stderr, slog.LevelInfo, false)
	}
	length := time.Duration(len(d.human)) * time.Second / time.Duration(format.Rate)
	d.exchange = &sim.Exchange{Spec: spec, Log: d.log, Phone: func(providers.ExchangeCall) sim.Phone {
		return sim.Phone{Ring: 2 * time.Second, Voice: d.human, Length: length + time.Second}
	}}
	defer d.close()
	if err := d.start(ctx); err != nil {
		return err
	}
	fmt.Fprintf(out, "%s, %v  ->  bridge  ->  agent, which passes the call on to a human\n", spec.Title, format)
	heard, err := d.call(ctx, ear.Microphone(speech, format.Rate, askAfter+5*time.Second+length))
	if err != nil {
		return err
	}
	return d.judge(heard)
}

// serve answers requests at the address.
func (d *transferDemo) serve(name string, h http.Handler) (address string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: time.Second}
	d.running.Go(func() { _ = srv.Serve(l) }) // ends with Close
	d.closers = append(d.closers, func() { srv.Close() })
	return l.Addr().String(), nil
}

func (d *transferDemo) close() {
	for _, c := range slices.Backward(d.closers) {
		c()
	}
	d.running.Wait()
}

// start starts carrier, agent and bridge.
func (d *transferDemo) start(ctx context.Context) error {
	rest, err := d.serve("carrier", d.exchange)
	if err != nil {
		return err
	}
	account, err := d.exchange.Open("http://"+rest, d.format)
	if err != nil {
		return err
	}
	asking, err := d.serve("agent", &sim.Agent{Talk: askForHuman, Log: d.log})
	if err != nil {
		return err
	}
	dialer, err := dialects.NewDialer(link.Config{URL: "ws://" + asking + "/"})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("bridge: %w", err)
	}
	d.client = &client.Client{API: "http://" + l.Addr().String(), Token: rand.Text()}
	d.exchange.Status = d.hooks("status")
	server := bridge.New(d.settings(account, dialer))
	serving, stop := context.WithCancel(ctx)
	d.closers = append(d.closers, stop)
	d.running.Go(func() {
		if err := server.Serve(serving, l, nil); err != nil {
			d.log.Error("bridge", "err", err)
		}
	})
	return nil
}

// hooks is the URL of a webhook.
func (d *transferDemo) hooks(what string) string {
	return d.client.API + "/hooks/" + d.spec.Name + "/demo/" + what
}

// settings are those of the bridge.
func (d *transferDemo) settings(account *providers.Account, dialer agent.Dialer) bridge.Config {
	limits := bridge.Defaults
	limits.Drain = 2 * time.Second
	times := transfer.Defaults
	times.Instance = "demo"
	return bridge.Config{
		Providers: all.Specs, Loops: 1, Limits: limits, Log: d.log, PublicURL: d.client.API, Secret: rand.Text(),
		Agents:   map[string]control.Agent{"": {Dialer: dialer, Session: session.Defaults}},
		Accounts: map[string]control.Account{"demo": {Spec: d.spec, Account: account, From: callerNumber}},
		Tokens:   []api.Token{{Name: "demo", SHA256: sha256.Sum256([]byte(d.client.Token))}},
		Transfers: &transfers.Config{Store: transfer.NewMemory(time.Now, transfer.Tombstone), Manager: times,
			Destinations: map[string]transfers.Destination{"human": {To: humanNumber}}, Ring: transfers.DefaultRing,
			Hold: transfers.HoldMusic},
	}
}

// call makes the call, shows what becomes of it up to the last, and returns what the
// caller went through.
func (d *transferDemo) call(ctx context.Context, voice []int16) (*sim.Outcome, error) {
	ctx, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	ready, told := make(chan struct{}), make(chan error, 1)
	go func() { told <- d.client.Listen(ctx, "", func() { close(ready) }, d.show()) }()
	select {
	case <-ready:
	case err := <-told:
		return nil, err
	}
	if err := d.exchange.Ready(ctx); err != nil {
		return nil, err
	}
	caller := d.exchange.Call(calledNumber, callerNumber, d.hooks("inbound"), sim.Phone{Voice: voice})
	if err := <-told; err != nil {
		return nil, err
	}
	heard := caller.Wait()
	d.exchange.Wait()
	return heard, nil
}

// show returns what prints events, until call and transfer are over.
func (d *transferDemo) show() func(ev *calls.Event) (bool, error) {
	ended, over := false, false
	return func(ev *calls.Event) (bool, error) {
		fmt.Fprintln(d.out, client.Line(ev))
		if ev.Transfer != nil {
			d.states = append(d.states, ev.Transfer.State)
			over = transfer.State(ev.Transfer.State).Final()
		}
		ended = ended || ev.Type == calls.EventEnded
		return ended && over, nil
	}
}

// judge writes what was heard, and says whether it is what was said.
func (d *transferDemo) judge(heard *sim.Outcome) error {
	var leg *sim.Outcome
	for _, call := range d.exchange.Calls() {
		if call.Call().To == humanNumber {
			leg = call.Wait()
		}
	}
	if leg == nil {
		return errors.New("the human was never called")
	}
	err := errors.Join(wav.Write(filepath.Join(d.Out, heardFile), heard.Heard, d.format.Rate),
		wav.Write(filepath.Join(d.Out, humanFile), leg.Heard, d.format.Rate))
	if err != nil {
		return err
	}
	at8 := func(s []int16) []int16 { return ear.Resample(s, d.format.Rate, 8000) }
	toCaller, toHuman := ear.Find(at8(d.human), at8(heard.Heard)), ear.Find(at8(d.speech), at8(leg.Heard))
	fmt.Fprintf(d.out, "\n  the caller heard the human  %.2f alike (1 is the same)\n", toCaller)
	fmt.Fprintf(d.out, "  the human heard the caller  %.2f alike\n", toHuman)
	fmt.Fprintf(d.out, "  written                     %s\n", filepath.Join(d.Out, "{heard.wav,human.wav}"))
	switch err := errors.Join(heard.Fault, leg.Fault); {
	case err != nil:
		fmt.Fprintf(d.out, "\nThe simulated carrier complains: %v\n", err)
	case !slices.Contains(d.states, string(transfer.Bridged)) || toCaller < likeness || toHuman < likeness:
		fmt.Fprintf(d.out, "\nCaller and human did not talk: %s\n", strings.Join(d.states, ", "))
	default:
		fmt.Fprintln(d.out, "\nCaller and human talked to each other.")
		return nil
	}
	return ErrFailed
}

// slower plays samples at a part of their speed.
func slower(s []int16, speed float64) []int16 {
	out := make([]int16, int(float64(len(s)-1)/speed))
	for i := range out {
		at := float64(i) * speed
		n := int(at)
		out[i] = int16(float64(s[n])*(1-at+float64(n)) + float64(s[n+1])*(at-float64(n)))
	}
	return out
}

// askForHuman is an agent that greets, and passes the call on when it is asked to.
func askForHuman(_ context.Context, c *sim.AgentConn) error {
	if err := c.Audio(codec.L16LE.AppendEncode(nil, ear.Sine(c.Speaks.Rate, 440, time.Second))); err != nil {
		return err
	}
	var asked time.Duration
	for {
		binary, data, err := c.Read()
		if err != nil {
			return nil
		}
		if !binary || asked > askAfter {
			continue
		}
		if asked += c.Hears.Duration(len(data)); asked > askAfter { // this is where a real one would have understood
			if err := c.Command(map[string]any{"type": "transfer", "id": "t1", "to": "name:human"}); err != nil {
				return err
			}
		}
	}
}
