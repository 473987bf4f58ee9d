package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"voicebridge/calls"
)

// apiFlags say where the bridge's API is.
type apiFlags struct {
	API   string `help:"URL of the bridge (default ${default})." env:"VOICEBRIDGE_API" default:"http://127.0.0.1:9001" placeholder:"URL"`
	Token string `help:"Token of the API." env:"VOICEBRIDGE_TOKEN" placeholder:"TOKEN"`
}

// problem is an error as the API tells it.
type problem struct {
	Status int
	Code   string
	Detail string
}

func (p *problem) Error() string { return fmt.Sprintf("%s (HTTP %d, %s)", p.Detail, p.Status, p.Code) }

// open makes a request; the answer is good, and its body is to be closed.
func (f *apiFlags) open(ctx context.Context, method, path string, body any, header map[string]string) (*http.Response,
	error) {
	if f.Token == "" {
		return nil, errors.New("--token, or VOICEBRIDGE_TOKEN, must be a token of the API: make one with " +
			"'voicebridge token'")
	}
	var b []byte
	if body != nil {
		var err error
		if b, err = json.Marshal(body); err != nil {
			return nil, fmt.Errorf("request: %w", err)
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(f.API, "/")+path, bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("--api: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+f.Token)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("the bridge does not answer: is it running, and --api right? %w", err)
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	p := &problem{Status: resp.StatusCode}
	if json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(p) != nil || p.Code == "" {
		return nil, fmt.Errorf("HTTP %d: there is no API here: are api.tokens set, and is --api the bridge's URL?",
			resp.StatusCode)
	}
	return nil, p
}

// do makes a request and reads the answer.
func (f *apiFlags) do(ctx context.Context, method, path string, body, answer any) error {
	ctx, stop := context.WithTimeout(ctx, 30*time.Second)
	defer stop()
	resp, err := f.open(ctx, method, path, body, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if answer == nil {
		return nil
	}
	if err := json.NewDecoder(resp.Body).Decode(answer); err != nil {
		return fmt.Errorf("answer of the bridge: %w", err)
	}
	return nil
}

// listen gives the events from now on to each, until it is done or fails.
func (f *apiFlags) listen(ctx context.Context, call string, ready func(),
	each func(*calls.Event) (done bool, err error)) error {
	path := "/v1/events"
	if call != "" {
		path += "?call=" + url.QueryEscape(call)
	}
	last := ""
	for {
		header := map[string]string{}
		if last != "" {
			header["Last-Event-ID"] = last
		}
		resp, err := f.open(ctx, "GET", path, nil, header)
		var refused *problem
		if err != nil && (last == "" || errors.As(err, &refused)) {
			return err
		}
		if err == nil {
			if ready != nil {
				ready()
				ready = nil
			}
			done, err := read(resp.Body, &last, each)
			resp.Body.Close()
			if done || err != nil {
				return err
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		select { // the connection was lost: what comes meanwhile is kept
		case <-time.After(time.Second):
		case <-ctx.Done():
			return nil
		}
	}
}

// read reads server-sent events up to their end.
func read(body io.Reader, last *string, each func(*calls.Event) (bool, error)) (done bool, err error) {
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, 1<<20)
	var id, data string
	for lines.Scan() {
		text := lines.Text()
		if s, ok := strings.CutPrefix(text, "id: "); ok {
			id = s
		}
		if s, ok := strings.CutPrefix(text, "data: "); ok {
			data = s
		}
		if text != "" { // only an empty line ends an event
			continue
		}
		var ev calls.Event
		if data != "" {
			if err := json.Unmarshal([]byte(data), &ev); err != nil {
				return false, fmt.Errorf("event: %w", err)
			}
		}
		if ev.ID != "" { // not a gap
			if done, err := each(&ev); done || err != nil {
				return done, err
			}
		}
		if id != "" {
			*last = id
		}
		id, data = "", ""
	}
	return false, nil
}

// line is an event for people.
func line(ev *calls.Event) string {
	c := &ev.Call
	what := []string{ev.Time.Local().Format("15:04:05.000"), c.ID, fmt.Sprintf("%-17s", ev.Type)}
	switch ev.Type {
	case calls.EventCreated:
		what = append(what, c.Direction, c.Provider, c.From, "->", c.To)
	case calls.EventDetected:
		what = append(what, "answered by", string(c.Answered))
	case calls.EventTransfer:
		what = append(what, ev.Transfer.State, ev.Transfer.Mode, "->", ev.Transfer.To, ev.Transfer.Reason)
	case calls.EventStreamEnd:
		what = append(what, c.Cause)
	case calls.EventEnded:
		what = append(what, string(c.Status), c.Cause, c.Error)
	}
	return strings.TrimRight(strings.Join(what, "  "), " ")
}

type callCmd struct {
	apiFlags
	Account string            `help:"Account to call with: a name of accounts in the bridge's configuration." required:"" placeholder:"NAME"`
	To      string            `help:"Number to call, in E.164." required:"" placeholder:"+1..."`
	From    string            `help:"Caller id (default: the account's)." placeholder:"+1..."`
	Agent   string            `help:"Agent that talks: a name of agents (default: the one of agent)." placeholder:"NAME"`
	Meta    map[string]string `help:"Told to the agent as call.custom." placeholder:"KEY=VALUE"`
	Ring    int               `help:"Seconds to let it ring (default ${default})." default:"30"`
	Detect  string            `help:"What to do about answering machines: ${enum} (default ${default})." enum:"off,report,hangup" default:"off"`
	Digits  string            `help:"Digits to send when the call is answered; w waits for half a second."`
	Key     string            `help:"Idempotency key: a repeated request with it places no second call." placeholder:"KEY"`
	Wait    bool              `help:"Show what becomes of the call until it ends."`
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
	resp, err := c.open(ctx, "POST", "/v1/calls", body, header)
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
	if err := c.do(ctx, "GET", "/v1/calls/"+url.PathEscape(call.ID), nil, &end); err != nil {
		return err
	}
	fmt.Fprintln(out, "ended:", end.Status, end.Cause, end.Error)
	return nil
}

// follow shows the events of a call up to its end, which may have come already.
func (f *apiFlags) follow(ctx context.Context, out io.Writer, id string) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var now calls.Call
	var failed error
	ready := func() {
		if failed = f.do(ctx, "GET", "/v1/calls/"+url.PathEscape(id), nil, &now); failed != nil || now.Status.Final() {
			stop()
		}
	}
	err := f.listen(ctx, id, ready, func(ev *calls.Event) (bool, error) {
		fmt.Fprintln(out, line(ev))
		return ev.Type == calls.EventEnded, nil
	})
	if now.Status.Final() || errors.Is(err, context.Canceled) {
		err = nil
	}
	return errors.Join(failed, err)
}

type callsCmd struct {
	apiFlags
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
	if err := c.do(ctx, "GET", path, nil, &list); err != nil {
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
	apiFlags
	ID            string `arg:"" help:"The call's id."`
	AfterPlayback bool   `help:"Once what the agent has said so far is heard."`
}

// Run ends a call.
func (c *hangupCmd) Run(ctx context.Context) error {
	when := "now"
	if c.AfterPlayback {
		when = "after_playback"
	}
	return c.do(ctx, "POST", "/v1/calls/"+url.PathEscape(c.ID)+"/hangup", map[string]string{"when": when}, nil)
}

type digitsCmd struct {
	apiFlags
	ID     string `arg:"" help:"The call's id."`
	Digits string `arg:"" help:"0-9 * # A-D; w waits for half a second, W for a whole one."`
}

// Run sends digits.
func (c *digitsCmd) Run(ctx context.Context) error {
	return c.do(ctx, "POST", "/v1/calls/"+url.PathEscape(c.ID)+"/digits", map[string]string{"digits": c.Digits}, nil)
}

type transferCmd struct {
	apiFlags
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
		if err := c.do(ctx, method, "/v1/transfers/"+url.PathEscape(c.ID), nil, &t); err != nil {
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
	if err := c.do(ctx, "POST", "/v1/calls/"+url.PathEscape(c.ID)+"/transfers", body, &t); err != nil {
		return err
	}
	fmt.Fprintln(out, t.ID)
	for last := ""; !c.NoFollow; { // from whatever instance: its events may be another one's
		if err := c.do(ctx, "GET", "/v1/transfers/"+t.ID, nil, &t); err != nil {
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
	apiFlags
	Call string `help:"Only this call's." placeholder:"ID"`
	JSON bool   `help:"As JSON, one a line." name:"json"`
}

// Run shows what becomes of calls, until it is interrupted.
func (c *eventsCmd) Run(ctx context.Context, out output) error {
	err := c.listen(ctx, c.Call, func() { fmt.Fprintln(os.Stderr, "waiting for events") },
		func(ev *calls.Event) (bool, error) {
			if c.JSON {
				return false, json.NewEncoder(out).Encode(ev)
			}
			_, err := fmt.Fprintln(out, line(ev))
			return false, err
		})
	if ctx.Err() != nil { // that is how it ends
		return nil
	}
	return err
}
