package model

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// client follows no redirects: what is shown is for the configured host.
var client = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

// maxReply bounds what is read of a reply.
const maxReply = 1 << 20

// Ask asks a vendor's API, at the URL of which a socket's scheme stands for that of HTTP, and reads its reply. body
// is nil for GET. Errors have neither the URL nor the reply, which may be secret, but for what the vendor says is
// wrong.
func Ask(ctx context.Context, c *http.Client, u *url.URL, header http.Header, body, reply any) error {
	if c == nil {
		c = client
	}
	at := *u
	at.Scheme = map[string]string{"ws": "http", "wss": "https"}[u.Scheme]
	method, text := "GET", []byte(nil)
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			return fmt.Errorf("model: %w", err)
		}
		method = "POST"
		header.Set("Content-Type", "application/json")
	}
	req, err := http.NewRequestWithContext(ctx, method, at.String(), bytes.NewReader(text))
	if err != nil {
		return errors.New("model: not a URL")
	}
	req.Header = header
	resp, err := c.Do(req)
	if err != nil {
		var e *url.Error
		if errors.As(err, &e) {
			err = e.Err
		}
		return fmt.Errorf("model: %s: %w", u.Host, err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxReply))
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return fmt.Errorf("model: %s answered with HTTP %d: %.200q", u.Host, resp.StatusCode, data)
	}
	if err == nil {
		err = json.Unmarshal(data, reply)
	}
	if err != nil {
		return fmt.Errorf("model: reply of %s: %w", u.Host, err)
	}
	return nil
}
