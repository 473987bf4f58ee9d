package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
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
	"voicebridge/api"
	"voicebridge/bridge"
	"voicebridge/calls"
	"voicebridge/codec"
	"voicebridge/config"
	"voicebridge/control"
	"voicebridge/control/transfers"
	"voicebridge/providers"
	"voicebridge/providers/all"
	"voicebridge/session"
	"voicebridge/sim"
	"voicebridge/transfer"
	"voicebridge/wav"
)

const (
	demoHuman = "+12025550188"
	// askAfter is when the caller of the demo asks for a human.
	askAfter = 2 * time.Second
	// humanRate makes another voice of the same speech: it is spoken so much slower
	// and deeper.
	humanRate = 0.8
	// demoLikeness is how alike what was said and what was heard must be.
	demoLikeness = 0.9
)

// transfer is a call in which the caller asks the agent for a human.
func (c *demoCmd) transfer(ctx context.Context, out output, spec *providers.Spec, format codec.Format, speech []int16) error {
	log := slog.New(slog.DiscardHandler)
	if c.Verbose {
		log = config.NewLogger(os.Stderr, slog.LevelInfo, false)
	}
	human := slower(speech, humanRate)
	length := time.Duration(len(human)) * time.Second / time.Duration(format.Rate)
	voice := sim.Microphone(speech, format.Rate, askAfter+5*time.Second+length)
	exchange := &sim.Exchange{Spec: spec, Log: log, Phone: func(providers.ExchangeCall) sim.Phone {
		return sim.Phone{Ring: 2 * time.Second, Voice: human, Length: length + time.Second}
	}}
	var group sync.WaitGroup
	defer group.Wait()
	serve := func(name string, h http.Handler) (string, func(), error) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", nil, fmt.Errorf("%s: %w", name, err)
		}
		srv := &http.Server{Handler: h, ReadHeaderTimeout: time.Second}
		group.Go(func() { _ = srv.Serve(l) }) // ends with Close
		return l.Addr().String(), func() { srv.Close() }, nil
	}
	rest, closeREST, err := serve("carrier", exchange)
	if err != nil {
		return err
	}
	defer closeREST()
	account, err := exchange.Open("http://"+rest, format)
	if err != nil {
		return err
	}
	asking, closeAgent, err := serve("agent", &sim.Agent{Talk: askForHuman, Log: log})
	if err != nil {
		return err
	}
	defer closeAgent()
	dialer, err := dialects.NewDialer(agent.Config{URL: "ws://" + asking + "/"})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("bridge: %w", err)
	}
	token := rand.Text()
	limits := bridge.Defaults
	limits.Drain = 2 * time.Second
	public := "http://" + l.Addr().String()
	times := transfer.Defaults
	times.Instance = "demo"
	exchange.Status = public + "/hooks/" + spec.Name + "/demo/status"
	server := bridge.New(bridge.Config{
		Providers: all.Specs, Loops: 1, Limits: limits, Log: log, PublicURL: public, Secret: rand.Text(),
		Agents:   map[string]control.Agent{"": {Dialer: dialer, Session: session.Defaults}},
		Accounts: map[string]control.Account{"demo": {Spec: spec, Account: account, From: demoFrom}},
		Tokens:   []api.Token{{Name: "demo", SHA256: sha256.Sum256([]byte(token))}},
		Transfers: &transfers.Config{Store: transfer.NewMemory(time.Now, transfer.Tombstone), Manager: times,
			Destinations: map[string]transfers.Destination{"human": {To: demoHuman}}, Ring: transfers.DefaultRing, Hold: transfers.HoldMusic},
	})
	serving, stop := context.WithCancel(ctx)
	defer stop()
	group.Go(func() {
		if err := server.Serve(serving, l, nil); err != nil {
			log.Error("bridge", "err", err)
		}
	})
	fmt.Fprintf(out, "%s, %v  ->  bridge  ->  agent, which passes the call on to a human\n", spec.Title, format)

	client := &apiFlags{API: public, Token: token}
	listening, hush := context.WithTimeout(ctx, time.Minute)
	defer hush()
	ready, told := make(chan struct{}), make(chan error, 1)
	states := []string{}
	go func() {
		ended, over := false, false
		told <- client.listen(listening, "", func() { close(ready) }, func(ev *calls.Event) (bool, error) {
			fmt.Fprintln(out, line(ev))
			if ev.Transfer != nil {
				states = append(states, ev.Transfer.State)
				over = transfer.State(ev.Transfer.State).Final()
			}
			ended = ended || ev.Type == calls.EventEnded
			return ended && over, nil
		})
	}()
	select {
	case <-ready:
	case err := <-told:
		return err
	}
	caller := exchange.Call(demoTo, demoFrom, public+"/hooks/"+spec.Name+"/demo/inbound", sim.Phone{Voice: voice})
	if err := <-told; err != nil {
		return err
	}
	heard := caller.Wait()
	exchange.Wait()
	var leg *sim.Outcome
	for _, call := range exchange.Calls() {
		if call.Call().To == demoHuman {
			leg = call.Wait()
		}
	}
	if leg == nil {
		return errors.New("the human was never called")
	}
	if err := os.MkdirAll(c.Out, 0o755); err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	err = errors.Join(wav.Write(filepath.Join(c.Out, "heard.wav"), heard.Heard, format.Rate),
		wav.Write(filepath.Join(c.Out, "human.wav"), leg.Heard, format.Rate))
	if err != nil {
		return err
	}
	at8 := func(s []int16) []int16 { return sim.Resample(s, format.Rate, 8000) }
	toCaller, toHuman := sim.Find(at8(human), at8(heard.Heard)), sim.Find(at8(speech), at8(leg.Heard))
	fmt.Fprintf(out, "\n  the caller heard the human  %.2f alike (1 is the same)\n  the human heard the caller  %.2f alike\n  written                     %s\n",
		toCaller, toHuman, filepath.Join(c.Out, "{heard.wav,human.wav}"))
	switch err := errors.Join(heard.Fault, leg.Fault); {
	case err != nil:
		fmt.Fprintf(out, "\nThe simulated carrier complains: %v\n", err)
	case !slices.Contains(states, string(transfer.Bridged)) || toCaller < demoLikeness || toHuman < demoLikeness:
		fmt.Fprintf(out, "\nCaller and human did not talk: %s\n", strings.Join(states, ", "))
	default:
		fmt.Fprintln(out, "\nCaller and human talked to each other.")
		return nil
	}
	return exitCode(1)
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
	if err := c.Audio(codec.L16LE.AppendEncode(nil, sim.Sine(c.Speaks.Rate, 440, time.Second))); err != nil {
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
