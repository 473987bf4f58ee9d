package runner

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"voicebridge/api/client"
	"voicebridge/bench"
	"voicebridge/calls"
	"voicebridge/providers"
	"voicebridge/sim"
	"voicebridge/sim/ear"
	"voicebridge/transfer"
)

const (
	benchNumber = "+12025550150" // whose calls are transferred
	benchHuman  = "+12025550177"
	benchTalk   = 6 * time.Second // of a call that is transferred
	callerTone  = 700
	personTone  = 1100
)

// transferLoad is calls that are transferred to a human while a bridge is under load:
// a simulated carrier with REST API, webhooks and conferences, and an agent that
// passes each call on.
type transferLoad struct {
	line     bench.Line
	exchange *sim.Exchange
	token    string
	public   string
	agent    string
	account  map[string]any
	servers  []*http.Server
	desk     *sim.Agent
	group    sync.WaitGroup

	mu      sync.Mutex
	asked   map[string]time.Time // transfers under way
	outcome bench.Transfers
}

// newTransferLoad prepares calls of a line to a bridge at an address.
func newTransferLoad(line bench.Line, address string) (*transferLoad, error) {
	x := &transferLoad{line: line, token: rand.Text(), public: "http://" + address, asked: map[string]time.Time{}}
	x.exchange = &sim.Exchange{Spec: line.Spec, Status: x.public + "/hooks/" + line.Spec.Name + "/bench/status",
		Phone: func(providers.ExchangeCall) sim.Phone {
			return sim.Phone{Ring: 200 * time.Millisecond, Voice: ear.Sine(line.Format.Rate, personTone, time.Minute)}
		}}
	rest, err := x.serve(x.exchange)
	if err != nil {
		return nil, err
	}
	x.desk = &sim.Agent{Talk: passOn, Log: slog.New(slog.DiscardHandler)}
	if x.agent, err = x.serve(x.desk); err != nil {
		return nil, err
	}
	x.account, err = x.exchange.Settings("http://"+rest, line.Format, benchNumber)
	return x, err
}

func (x *transferLoad) serve(h http.Handler) (address string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	x.servers = append(x.servers, srv)
	x.group.Go(func() { _ = srv.Serve(l) }) // ends with Close
	return l.Addr().String(), nil
}

// configure adds to a bridge's configuration what the calls need.
func (x *transferLoad) configure(settings map[string]any) {
	sum := sha256.Sum256([]byte(x.token))
	settings["public_url"] = x.public
	settings["token_secret"] = x.token
	settings["accounts"] = map[string]any{"bench": x.account}
	settings["agents"] = map[string]any{"desk": map[string]any{"url": "ws://" + x.agent + "/"}}
	settings["routes"] = []any{map[string]any{"to": benchNumber, "agent": "desk"}}
	settings["api"] = map[string]any{"tokens": []any{map[string]any{"name": "bench",
		"sha256": hex.EncodeToString(sum[:])}}}
	settings["transfers"] = map[string]any{"allow": []string{benchHuman}, "keep": "1s"}
}

// passOn is an agent that passes its call on at once.
func passOn(_ context.Context, c *sim.AgentConn) error {
	if err := c.Command(map[string]any{"type": "transfer", "id": "t", "to": benchHuman, "when": "now"}); err != nil {
		return err
	}
	return sim.Echo(context.Background(), c)
}

// run has calls come in and be transferred, so many a minute, until ctx ends and they
// have ended. It gives what became of them.
func (x *transferLoad) run(ctx context.Context, perMinute float64) bench.Transfers {
	listening, hush := context.WithCancel(context.Background())
	ready := make(chan struct{})
	var feed, talks sync.WaitGroup
	feed.Go(func() {
		api := &client.Client{API: x.public, Token: x.token}
		// It ends with hush, or with the bridge, whose end shows elsewhere.
		_ = api.Listen(listening, "", func() { close(ready) }, func(ev *calls.Event) (bool, error) {
			x.event(ev)
			return false, nil
		})
	})
	select {
	case <-ready:
	case <-ctx.Done():
	}
	every := time.NewTicker(time.Duration(float64(time.Minute) / perMinute))
	defer every.Stop()
	for ctx.Err() == nil {
		if x.exchange.Ready(ctx) != nil { // it is over
			break
		}
		x.mu.Lock()
		x.outcome.Begun++
		x.mu.Unlock()
		caller := x.exchange.Call("+12025550101", benchNumber, x.public+"/hooks/"+x.line.Spec.Name+"/bench/inbound",
			sim.Phone{Voice: ear.Sine(x.line.Format.Rate, callerTone, benchTalk)})
		talks.Go(func() {
			heard := caller.Wait()
			x.mu.Lock()
			defer x.mu.Unlock()
			if heard.Fault != nil {
				x.outcome.Faults++
			}
			if ear.Hears(heard.Heard, x.line.Format.Rate, personTone) {
				x.outcome.Talked++
			}
		})
		select {
		case <-every.C:
		case <-ctx.Done():
		}
	}
	talks.Wait()
	x.exchange.Wait()
	hush()
	feed.Wait()
	for _, srv := range x.servers {
		srv.Close()
	}
	x.group.Wait()
	x.desk.Wait()
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.outcome
}

// event takes note of how a transfer is.
func (x *transferLoad) event(ev *calls.Event) {
	if ev.Transfer == nil {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	begun, known := x.asked[ev.Transfer.ID]
	state := transfer.State(ev.Transfer.State)
	switch {
	case !known:
		x.asked[ev.Transfer.ID] = ev.Time
	case state == transfer.Bridged:
		x.outcome.Bridged++
		x.outcome.TimesMS = append(x.outcome.TimesMS, bench.Milliseconds(ev.Time.Sub(begun)))
	case state.Final() && state != transfer.Ended:
		x.outcome.Failed++
	}
}
