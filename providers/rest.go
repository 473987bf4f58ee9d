package providers

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// Limits of a request to a carrier's REST API.
const (
	restAttempt = 5 * time.Second // for one attempt
	restTries   = 4
	restFirst   = 200 * time.Millisecond // before the second try, about; it doubles
	restLonger  = 10 * time.Second       // a carrier that wants to be left alone for longer is not asked again
	// MaxReply bounds what is read of a carrier's reply.
	MaxReply = 1 << 20
)

// Attempt carries out a REST request, and again, with growing and random pauses,
// where that may help and is safe: always after ErrRate and where no connection
// was made, and after other ErrUnavailable where the request may be repeated.
func Attempt[T any](ctx context.Context, repeat bool, do func(ctx context.Context) (T, error)) (T, error) {
	var last error
	v, err := backoff.Retry(ctx, func() (T, error) {
		one, cancel := context.WithTimeout(ctx, restAttempt)
		defer cancel()
		v, err := do(one)
		last = err
		var e *CallError
		if err == nil || !errors.As(err, &e) {
			return v, permanent(err)
		}
		again := e.Kind == ErrRate || e.Kind == ErrUnavailable && (repeat || e.Unsent())
		switch {
		case !again || e.Retry > restLonger:
			return v, permanent(err)
		case e.Retry > 0:
			return v, errors.Join(&backoff.RetryAfterError{Duration: e.Retry}, err)
		}
		return v, err
	}, backoff.WithBackOff(&backoff.ExponentialBackOff{
		InitialInterval: restFirst, RandomizationFactor: 0.5, Multiplier: 2, MaxInterval: 2 * time.Second,
	}), backoff.WithMaxTries(restTries))
	if err != nil && last != nil {
		err = last // rather than the end of ctx, or how it was wrapped
	}
	return v, err
}

// permanent is nil for nil.
func permanent(err error) error {
	if err == nil {
		return nil
	}
	return backoff.Permanent(err)
}

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

// Secure tells whether s is a URL with the scheme, https or wss, or with its plain
// form to this machine, where nobody listens in.
func Secure(s, scheme string) bool {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Scheme == scheme || u.Scheme+"s" == scheme && (u.Hostname() == "localhost" || ip != nil && ip.IsLoopback())
}
