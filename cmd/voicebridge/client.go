package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"voicebridge/api/client"
	"voicebridge/calls"
	"voicebridge/providers"
)

type callCmd struct {
	client.Client
	Account string            `help:"Account to call with: a name of accounts in the bridge's configuration." required:"" placeholder:"NAME"`
	To      string            `help:"Number to call, in E.164." required:"" placeholder:"+1..."`
	From    string            `help:"Caller id (default: the account's)." placeholder:"+1..."`
	Agent   string            `help:"Agent that talks: a name of agents (default: the one of agent)." placeholder:"NAME"`
	Meta    map[string]string `help:"Told to the agent as call.custom." placeholder:"KEY=VALUE"`
	Ring    int               `help:"Seconds to let it ring (default ${default})." default:"30"`
	Detect  string            `help:"What to do about answering machines: ${enum} (default ${default})." enum:"off,report,hangup" default:"off"`
	Digits  string            `help:"Digits to send when the call is answered; w waits for half a second."`
	Key     string            `help:"Idempotency key: a repeated request with it places no second call." placeholder:"KEY"`
	Wait    bool              `help:"Show what becomes of the call until it ends. The exit status is 1 unless it was answered and ended in good order."`
}

// Run places a call.
func (c *callCmd) Run(ctx context.Context, out output) error {
	body := map[string]any{"account": c.Account, "to": c.To, "ring_timeout": c.Ring, "machine_detection": c.Detect}
	for k, v := range map[string]string{"from": c.From, "agent": c.Agent, "digits": c.Digits} {
		if v != "" {
			body[k] = v
		}
	}
	if len(c.Meta) > 0 {
		body["metadata"] = c.Meta
	}
	header := map[string]string{}
	if c.Key != "" {
		header["Idempotency-Key"] = c.Key
	}
	resp, err := c.Open(ctx, "POST", "/v1/calls", body, header)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var call calls.Call
	if err := json.NewDecoder(resp.Body).Decode(&call); err != nil {
		return fmt.Errorf("answer of the bridge: %w", err)
	}
	fmt.Fprintln(out, call.ID)
	if !c.Wait {
		return nil
	}
	if err := c.follow(ctx, out, call.ID); err != nil {
		return err
	}
	var end calls.Call
	if err := c.Do(ctx, "GET", "/v1/calls/"+url.PathEscape(call.ID), nil, &end); err != nil {
		return err
	}
	fmt.Fprintln(out, strings.TrimSpace(fmt.Sprintln("ended:", end.Status, end.Cause, end.Error)))
	if end.Status != providers.StatusCompleted || calls.Cause(end.Cause).Fault() && end.Cause != "" {
		return exitCode(exitFailed)
	}
	return nil
}

// follow shows the events of a call up to its end, which may have come already.
func (c *callCmd) follow(ctx context.Context, out io.Writer, id string) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var now calls.Call
	var failed error
	ready := func() {
		if failed = c.Do(ctx, "GET", "/v1/calls/"+url.PathEscape(id), nil, &now); failed != nil || now.Status.Final() {
			stop()
		}
	}
	err := c.Listen(ctx, id, ready, func(ev *calls.Event) (bool, error) {
		fmt.Fprintln(out, client.Line(ev))
		return ev.Type == calls.EventEnded, nil
	})
	if now.Status.Final() || errors.Is(err, context.Canceled) {
		err = nil
	}
	return errors.Join(failed, err)
}

type callsCmd struct {
	client.Client
	Live  bool `help:"Only those that have not ended."`
	Limit int  `help:"The most to show (default ${default})." default:"100"`
	JSON  bool `help:"As JSON." name:"json"`
}

// Run lists calls.
func (c *callsCmd) Run(ctx context.Context, out output) error {
	path := "/v1/calls?limit=" + strconv.Itoa(c.Limit)
	if c.Live {
		path += "&live=true"
	}
	var list struct{ Calls []calls.Call }
	if err := c.Do(ctx, "GET", path, nil, &list); err != nil {
		return err
	}
	if c.JSON {
		return printJSON(out, list.Calls)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tSTATUS\tDIRECTION\tACCOUNT\tFROM\tTO\tAGE\tCAUSE")
	for _, call := range list.Calls {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%v\t%s\n", call.ID, call.Status, call.Direction, call.Account,
			call.From, call.To,
			time.Since(call.CreatedAt).Round(time.Second), strings.TrimSpace(call.Cause+" "+call.Error))
	}
	return w.Flush()
}

func printJSON(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

type hangupCmd struct {
	client.Client
	ID            string `arg:"" help:"The call's id."`
	AfterPlayback bool   `help:"Once what the agent has said so far is heard."`
}

// Run ends a call.
func (c *hangupCmd) Run(ctx context.Context) error {
	when := "now"
	if c.AfterPlayback {
		when = "after_playback"
	}
	return c.Do(ctx, "POST", "/v1/calls/"+url.PathEscape(c.ID)+"/hangup", map[string]string{"when": when}, nil)
}

type digitsCmd struct {
	client.Client
	ID     string `arg:"" help:"The call's id."`
	Digits string `arg:"" help:"0-9 * # A-D; w waits for half a second, W for a whole one."`
}

// Run sends digits.
func (c *digitsCmd) Run(ctx context.Context) error {
	return c.Do(ctx, "POST", "/v1/calls/"+url.PathEscape(c.ID)+"/digits", map[string]string{"digits": c.Digits}, nil)
}

type transferCmd struct {
	client.Client
	ID       string            `arg:"" help:"The call's id; with --cancel or --show the transfer's."`
	To       string            `arg:"" optional:"" help:"A number in E.164, or name:NAME of transfers.destinations."`
	Mode     string            `help:"${enum} (default ${default})." enum:"blind,conference,attended" default:"conference"`
	Agent    string            `help:"What the agent does once the destination has answered: ${enum} (default ${default})." enum:"leave,listen,stay" default:"leave"`
	Whisper  string            `help:"attended: what the destination is told." placeholder:"TEXT"`
	Brief    string            `help:"attended: an agent that tells it instead, by its name in agents." placeholder:"NAME"`
	Detect   bool              `help:"An answering machine counts as a failure." name:"machine-detection"`
	Accept   string            `help:"attended: digit (by pressing 1) or stay (by not hanging up)." placeholder:"HOW"`
	Ring     int               `help:"Seconds to let it ring." placeholder:"SECONDS"`
	From     string            `help:"Who seems to call the destination." placeholder:"+1..."`
	Digits   string            `help:"Digits to send when the destination answers; w waits for half a second."`
	Hold     string            `help:"What the caller hears meanwhile: agent or music." placeholder:"WHAT"`
	OnFail   map[string]string `help:"What becomes of the caller: resume, hangup or a number, by reason or default." placeholder:"REASON=WHAT"`
	OnEnd    string            `help:"What becomes of the caller when the destination leaves first: hangup or resume." placeholder:"WHAT"`
	Context  map[string]string `help:"For the destination's side." placeholder:"KEY=VALUE"`
	Cancel   bool              `help:"Cancel a transfer."`
	Show     bool              `help:"Show a transfer."`
	NoFollow bool              `help:"Do not show what becomes of it."`
}

// Run moves a call, and shows what becomes of that.
func (c *transferCmd) Run(ctx context.Context, out output) error {
	if c.Cancel || c.Show {
		method := "GET"
		if c.Cancel {
			method = "DELETE"
		}
		var t calls.Transfer
		if err := c.Do(ctx, method, "/v1/transfers/"+url.PathEscape(c.ID), nil, &t); err != nil {
			return err
		}
		_, err := fmt.Fprintln(out, strings.TrimSpace(strings.Join([]string{t.ID, t.Mode, t.To, t.State, t.Reason},
			"  ")))
		return err
	}
	if c.To == "" {
		return errors.New("TO is missing: a number in E.164, or name:NAME")
	}
	body := map[string]any{"to": c.To, "mode": c.Mode, "agent": c.Agent}
	for k, v := range map[string]string{"whisper": c.Whisper, "brief": c.Brief, "accept": c.Accept, "from": c.From,
		"digits": c.Digits, "hold": c.Hold, "on_end": c.OnEnd} {
		if v != "" {
			body[k] = v
		}
	}
	if c.Detect {
		body["machine_detection"] = true
	}
	if c.Ring > 0 {
		body["timeout_s"] = c.Ring
	}
	if len(c.OnFail) > 0 {
		body["on_fail"] = c.OnFail
	}
	if len(c.Context) > 0 {
		body["context"] = c.Context
	}
	var t calls.Transfer
	if err := c.Do(ctx, "POST", "/v1/calls/"+url.PathEscape(c.ID)+"/transfers", body, &t); err != nil {
		return err
	}
	fmt.Fprintln(out, t.ID)
	for last := ""; !c.NoFollow; { // from whatever instance: its events may be another one's
		if err := c.Do(ctx, "GET", "/v1/transfers/"+t.ID, nil, &t); err != nil {
			return err
		}
		if t.State != last {
			fmt.Fprintln(out, strings.TrimSpace(t.State+"  "+t.Reason))
			last = t.State
		}
		if slices.Contains([]string{"ended", "failed", "canceled", "timed_out"}, t.State) {
			return nil
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

type eventsCmd struct {
	client.Client
	Call string `help:"Only this call's." placeholder:"ID"`
	JSON bool   `help:"As JSON, one a line." name:"json"`
}

// Run shows what becomes of calls, until it is interrupted.
func (c *eventsCmd) Run(ctx context.Context, out output) error {
	err := c.Listen(ctx, c.Call, func() { fmt.Fprintln(os.Stderr, "waiting for events") },
		func(ev *calls.Event) (bool, error) {
			if c.JSON {
				return false, json.NewEncoder(out).Encode(ev)
			}
			_, err := fmt.Fprintln(out, client.Line(ev))
			return false, err
		})
	if ctx.Err() != nil { // that is how it ends
		return nil
	}
	return err
}
