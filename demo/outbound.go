package demo

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"voicebridge/api"
	"voicebridge/api/client"
	"voicebridge/bridge"
	"voicebridge/calls"
	"voicebridge/codec"
	"voicebridge/control"
	"voicebridge/progress"
	"voicebridge/providers"
	"voicebridge/sim"
	"voicebridge/sim/stream"
)

// The numbers of the demo are of those that are kept for fiction.
const (
	callerNumber = "+12025550100"
	calledNumber = "+12025550123"
)

// outbound adds to the configuration of a bridge at the address an account at a
// simulated carrier. What it returns places a call through the bridge's API.
func outbound(settings *bridge.Config, out io.Writer, address string, spec *providers.Spec, format codec.Format,
	phone sim.Phone, show *progress.Bar) (func(context.Context) (*stream.Result, error), error) {
	exchange := &sim.Exchange{Spec: spec, Phone: func(providers.ExchangeCall) sim.Phone { return phone },
		Progress: show.At, Log: settings.Log}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("carrier: %w", err)
	}
	account, err := exchange.Open("http://"+l.Addr().String(), format)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	token := rand.Text()
	settings.PublicURL, settings.Secret = "http://"+address, rand.Text()
	settings.Accounts = map[string]control.Account{"demo": {Spec: spec, Account: account, From: callerNumber}}
	settings.Tokens = []api.Token{{Name: "demo", SHA256: sha256.Sum256([]byte(token))}}
	client := &client.Client{API: settings.PublicURL, Token: token}
	return func(ctx context.Context) (*stream.Result, error) {
		srv := &http.Server{Handler: exchange, ReadHeaderTimeout: time.Second}
		served := make(chan struct{})
		go func() {
			defer close(served)
			_ = srv.Serve(l) // ends with Close
		}()
		defer func() {
			srv.Close()
			<-served
		}()
		return place(ctx, client, out, exchange, show)
	}, nil
}

// place makes the call and shows its events up to the last.
func place(ctx context.Context, api *client.Client, out io.Writer, exchange *sim.Exchange,
	show *progress.Bar) (*stream.Result,
	error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- api.Listen(ctx, "", func() { close(ready) }, func(ev *calls.Event) (bool, error) {
			show.Line(out, client.Line(ev))
			return ev.Type == calls.EventEnded, nil
		})
	}()
	select {
	case <-ready:
	case err := <-ended:
		return nil, err
	}
	if err := exchange.Ready(ctx); err != nil {
		stop()
		<-ended
		return nil, err
	}
	fmt.Fprintf(out, "POST /v1/calls {\"account\":\"demo\",\"to\":%q,\"metadata\":{\"demo\":\"yes\"}}\n", calledNumber)
	var call calls.Call
	err := api.Do(ctx, "POST", "/v1/calls", map[string]any{"account": "demo", "to": calledNumber,
		"metadata": map[string]string{"demo": "yes"}}, &call)
	if err != nil {
		stop()
		<-ended
		return nil, fmt.Errorf("place the call: %w", err)
	}
	if err := <-ended; err != nil {
		return nil, err
	}
	o := exchange.Find(call.CarrierID).Wait()
	switch {
	case o.Fault != nil:
		return nil, fmt.Errorf("the simulated carrier: %w", o.Fault)
	case len(o.Streams) != 1:
		return nil, fmt.Errorf("the call ended as %s, without audio", o.Call.Status)
	}
	return o.Streams[0], nil
}
