package rest

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"voicebridge/providers"
)

// do answers one request with a handler, without a network.
type do http.HandlerFunc

// RoundTrip implements http.RoundTripper.
func (d do) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	d(w, r)
	return w.Result(), nil
}

func client(h http.HandlerFunc) *Client {
	base, _ := url.Parse("https://api.example.com/v1")
	return &Client{Carrier: "x", Base: base, HTTP: do(h),
		Authorize: func(r *http.Request) error { r.Header.Set("Authorization", "Bearer secret"); return nil },
		Fault:     func(int, []byte) (string, string) { return "17", strings.Repeat("w", 300) }}
}

// TestDo: a request carries its credentials and its body, and the reply is read.
func TestDo(t *testing.T) {
	c := client(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.Method != "POST" || r.URL.String() != "https://api.example.com/v1/calls" ||
			r.Header.Get("Authorization") != "Bearer secret" ||
			r.Header.Get("Content-Type") != "application/json" || string(body) != `{"to":"+1"}` {
			t.Errorf("%s %s %v %s", r.Method, r.URL, r.Header, body)
		}
		WriteJSON(w, map[string]string{"id": "7"})
	})
	var reply struct{ ID string }
	if err := c.Do(t.Context(), "dial", "POST", "/calls", map[string]string{"to": "+1"}, &reply); err != nil ||
		reply.ID != "7" {
		t.Errorf("%+v, %v", reply, err)
	}
}

// TestErrors: what a carrier refuses is told in the contract's words, and no redirect is
// followed.
func TestErrors(t *testing.T) {
	for status, kind := range map[int]providers.CallErrorKind{401: providers.ErrCredentials, 404: providers.ErrNoCall,
		422: providers.ErrRejected,
		429: providers.ErrRate, 500: providers.ErrUnavailable, 302: providers.ErrUnavailable} {
		n := 0
		c := client(func(w http.ResponseWriter, _ *http.Request) {
			n++
			w.Header().Set("Retry-After", "3")
			w.Header().Set("Location", "https://elsewhere.example.com")
			w.WriteHeader(status)
		})
		err := c.Do(t.Context(), "dial", "GET", "/calls", nil, nil)
		var e *providers.CallError
		if !errors.As(err, &e) || e.Status != status || e.Retry != 3*time.Second || e.Code != "17" ||
			len(e.Detail) != 200 || n != 1 || e.Op != "x: dial" {
			t.Errorf("%d: %+v after %d requests", status, err, n)
		}
		if status != 302 && e != nil && e.Kind != kind {
			t.Errorf("%d: %s, want %s", status, e.Kind, kind)
		}
	}
	c := client(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })
	var e *providers.CallError
	if err := c.Do(t.Context(), "get", "GET", "/", nil, &struct{}{}); !errors.As(err, &e) ||
		e.Kind != providers.ErrUnavailable {
		t.Errorf("a reply that is no JSON: %v", err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	c.HTTP = nil
	c.Base, _ = url.Parse("http://127.0.0.1:1")
	if err := c.Do(ctx, "get", "GET", "/", nil, nil); !errors.As(err, &e) || e.Kind != providers.ErrUnavailable ||
		strings.Contains(err.Error(), "secret") {
		t.Errorf("no answer: %v", err)
	}
}

// TestURLs: credentials go over TLS, or to this machine.
func TestURLs(t *testing.T) {
	for u, good := range map[string]bool{"https://api.example.com": true, "http://127.0.0.1:80": true,
		"http://localhost": true, "http://example.com": false,
		"https://u:p@example.com": false, "https://example.com?x": false, "ftp://example.com": false, "": false,
		"https://": false, "https://example.com#x": false} {
		if _, err := CheckBaseURL(u); (err == nil) != good {
			t.Errorf("%q: %v", u, err)
		}
	}
	for u, good := range map[string]bool{"wss://h/x": true, "ws://127.0.0.1/x": true, "ws://h/x": false,
		"https://h": false, ":": false} {
		if Secure(u, "wss") != good {
			t.Errorf("%q: %v", u, !good)
		}
	}
}

// TestStrict: simulated carriers take one value without unknown fields.
func TestStrict(t *testing.T) {
	for text, good := range map[string]bool{`{"a":1}`: true, `{"a":1}{}`: false, `{"b":1}`: false, ``: false,
		`{"a":1} x`: false} {
		var v struct{ A int }
		if err := Strict([]byte(text), &v); (err == nil) != good {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestRetryAfter: what makes no sense is no wait.
func TestRetryAfter(t *testing.T) {
	for text, want := range map[string]time.Duration{"": 0, "2": 2 * time.Second, "-1": 0, "x": 0, "99999999": 0} {
		if got := RetryAfter(http.Header{"Retry-After": {text}}); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}
