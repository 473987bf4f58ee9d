// Package notify tells and asks the user's own application: JSON by HTTP POST,
// signed. docs/api.md says how to verify the signature.
package notify

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
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
)

// Target is where requests go.
type Target struct {
	URL    string
	Secret string // signs; empty: not signed
	// Timeout is for one request.
	Timeout time.Duration
}

// Check tells what is wrong with a target, naming the field.
func (t *Target) Check() error {
	u, err := url.Parse(t.URL)
	if err != nil || u.Host == "" || u.User != nil {
		return errors.New("url: must be a URL without user and password")
	}
	ip := net.ParseIP(u.Hostname())
	if u.Scheme != "https" && !(u.Scheme == "http" && (u.Hostname() == "localhost" || ip != nil && ip.IsLoopback())) {
		return errors.New("url: must begin with https://, or be of this machine")
	}
	if t.Secret != "" && len(t.Secret) < 16 {
		return errors.New("secret: must have at least 16 characters: make one with 'openssl rand -hex 32'")
	}
	return nil
}

// maxReply bounds what is read of a reply.
const maxReply = 64 << 10

// client follows no redirects: what is sent is for the configured URL.
var client = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

// StatusError is the error of a reply other than 2xx.
type StatusError int

func (e StatusError) Error() string { return "answered with HTTP " + strconv.Itoa(int(e)) }

// Post sends v and, if reply is not nil, reads the reply into it.
func (t *Target) Post(ctx context.Context, v, reply any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("notify: %w", err)
	}
	return t.post(ctx, body, nil, reply)
}

func (t *Target) post(ctx context.Context, body []byte, header map[string]string, reply any) error {
	ctx, stop := context.WithTimeout(ctx, t.Timeout)
	defer stop()
	req, err := http.NewRequestWithContext(ctx, "POST", t.URL, bytes.NewReader(body))
	if err != nil {
		return errors.New("notify: not a URL")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "voicebridge")
	for k, v := range header {
		req.Header.Set(k, v)
	}
	if t.Secret != "" {
		req.Header.Set("Voicebridge-Signature", Signature(t.Secret, time.Now(), body))
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("notify: %s: %w", req.URL.Host, withoutURL(err))
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxReply))
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return fmt.Errorf("notify: %s %w", req.URL.Host, StatusError(resp.StatusCode))
	}
	if reply == nil {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(data, reply)
	}
	if err != nil {
		return fmt.Errorf("notify: reply of %s: %w", req.URL.Host, err)
	}
	return nil
}

// withoutURL leaves the URL out, whose query may be secret.
func withoutURL(err error) error {
	var e *url.Error
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

// Signature is the value of the header Voicebridge-Signature: the time, and the
// HMAC-SHA256 of time and body under the secret.
func Signature(secret string, t time.Time, body []byte) string {
	unix := strconv.FormatInt(t.Unix(), 10)
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(unix + "."))
	mac.Write(body)
	return "t=" + unix + ",v1=" + hex.EncodeToString(mac.Sum(nil))
}

// maxAge is how old a signature may be.
const maxAge = 5 * time.Minute

// Verify checks a signature as an application should.
func Verify(secret, header string, now time.Time, body []byte) error {
	first, rest, _ := strings.Cut(header, ",")
	unix, err := strconv.ParseInt(strings.TrimPrefix(first, "t="), 10, 64)
	if err != nil || !strings.HasPrefix(first, "t=") {
		return errors.New("notify: signature without a time")
	}
	t := time.Unix(unix, 0)
	if now.Sub(t).Abs() > maxAge {
		return errors.New("notify: signature is too old")
	}
	_, want, _ := strings.Cut(Signature(secret, t, body), ",")
	for v := range strings.SplitSeq(rest, ",") {
		if hmac.Equal([]byte(v), []byte(want)) {
			return nil
		}
	}
	return errors.New("notify: signature is wrong")
}
