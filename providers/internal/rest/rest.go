// Package rest is what carriers' REST clients share: limits, JSON, and errors in the
// contract's words. It makes one request; when to make it again is decided by
// providers.Account.
package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"voicebridge/providers"
)

// MaxReply bounds what is read of a carrier's reply, in bytes.
const MaxReply = 1 << 20

// Client makes requests to one account's REST API. Every field but HTTP and Gone must be set.
type Client struct {
	Carrier string // begins what errors say
	Base    *url.URL
	// HTTP carries the requests; nil: http.DefaultTransport.
	HTTP http.RoundTripper
	// Authorize adds the credentials to a request.
	Authorize func(r *http.Request) error
	// Fault reads an error's body: the carrier's code, and its words. It may be
	// given anything; whatever it makes of it, the HTTP status counts.
	Fault func(status int, body []byte) (code, detail string)
	// Gone reports whether a code means that there is no such live call, whatever the HTTP
	// status; nil: none does.
	Gone func(code string) bool
}

// Do makes a request with body as JSON, if it is not nil, and reads the reply into
// reply, if that is not nil. op says what is being done. Redirects are not followed:
// requests carry credentials. Errors are *providers.CallError.
func (c *Client) Do(ctx context.Context, op, method, path string, body, reply any) error {
	fail := func(e providers.CallError) error {
		e.Op = c.Carrier + ": " + op
		return &e
	}
	req, err := c.request(ctx, method, path, body)
	if err != nil {
		return fmt.Errorf("%s: %s: %w", c.Carrier, op, err)
	}
	client := &http.Client{Transport: c.HTTP,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return fail(providers.CallError{Kind: providers.ErrUnavailable, Err: err})
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, MaxReply))
	switch kind := providers.KindOf(resp.StatusCode); {
	case kind != "":
		code, detail := c.Fault(resp.StatusCode, data)
		if c.Gone != nil && c.Gone(code) {
			kind = providers.ErrNoCall
		}
		return fail(providers.CallError{Kind: kind, Status: resp.StatusCode, Code: clip(code), Detail: clip(detail),
			Retry: RetryAfter(resp.Header)})
	case err == nil && reply != nil:
		err = json.Unmarshal(data, reply)
	}
	if err != nil {
		return fail(providers.CallError{Kind: providers.ErrUnavailable, Status: resp.StatusCode,
			Err: fmt.Errorf("reply: %w", err)})
	}
	return nil
}

func (c *Client) request(ctx context.Context, method, path string, body any) (*http.Request, error) {
	var b []byte
	if body != nil {
		var err error
		if b, err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	path, query, _ := strings.Cut(path, "?")
	u := c.Base.JoinPath(path)
	u.RawQuery = query
	req, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return req, c.Authorize(req)
}

func clip(s string) string { return s[:min(len(s), 200)] }

// RetryAfter reads the header Retry-After in seconds; 0 where there is none.
func RetryAfter(h http.Header) time.Duration {
	n, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil || n < 0 || n > 86400 {
		return 0
	}
	return time.Duration(n) * time.Second
}

// CheckBaseURL checks the URL of a REST API: credentials are sent to it.
func CheckBaseURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("base_url: must be a URL without user and query, such as https://api.example.com")
	}
	if !Secure(s, "https") {
		return nil, errors.New("base_url: must begin with https://: credentials are sent to it")
	}
	return u, nil
}

// Secure reports whether s is a URL with the scheme, https or wss, or with its plain
// form to this machine, where nobody listens in.
func Secure(s, scheme string) bool {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Scheme == scheme || u.Scheme+"s" == scheme && (u.Hostname() == "localhost" || ip != nil && ip.IsLoopback())
}

// Strict decodes JSON that must be one value without unknown fields, as simulated
// carriers take it.
func Strict(data []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("more than one value")
	}
	return nil
}

// Read is Strict for a value of its own.
func Read[T any](data []byte) (v T, err error) {
	err = Strict(data, &v)
	return v, err
}

// WriteJSON writes a simulated carrier's reply.
func WriteJSON(w http.ResponseWriter, v any) {
	_ = json.NewEncoder(w).Encode(v) // a client that is gone needs no reply
}
