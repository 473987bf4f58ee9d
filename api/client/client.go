// Package client is a client of the bridge's REST API and its event stream.
package client

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
	"strings"
	"time"

	"voicebridge/calls"
)

// Client is the API of a running bridge. Its fields are flags of the commands that use
// one.
type Client struct {
	API   string `help:"URL of the bridge (default ${default})." env:"VOICEBRIDGE_API" default:"http://127.0.0.1:9001" placeholder:"URL"`
	Token string `help:"Token of the API." env:"VOICEBRIDGE_TOKEN" placeholder:"TOKEN"`
}

// Problem is an error as the API tells it.
type Problem struct {
	Status int
	Code   string
	Detail string
}

func (p *Problem) Error() string { return fmt.Sprintf("%s (HTTP %d, %s)", p.Detail, p.Status, p.Code) }

// Open makes a request; the answer is good, and its body is to be closed.
func (c *Client) Open(ctx context.Context, method, path string, body any, header map[string]string) (*http.Response,
	error) {
	if c.Token == "" {
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
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.API, "/")+path, bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("--api: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+c.Token)
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
	p := &Problem{Status: resp.StatusCode}
	if json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(p) != nil || p.Code == "" {
		return nil, fmt.Errorf("HTTP %d: there is no API here: are api.tokens set, and is --api the bridge's URL?",
			resp.StatusCode)
	}
	return nil, p
}

// Do makes a request and reads the answer.
func (c *Client) Do(ctx context.Context, method, path string, body, answer any) error {
	ctx, stop := context.WithTimeout(ctx, 30*time.Second)
	defer stop()
	resp, err := c.Open(ctx, method, path, body, nil)
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

// Listen gives the events from now on to each, until it is done or fails.
func (c *Client) Listen(ctx context.Context, call string, ready func(),
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
		resp, err := c.Open(ctx, "GET", path, nil, header)
		var refused *Problem
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

// Line is an event for people.
func Line(ev *calls.Event) string {
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
