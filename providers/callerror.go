package providers

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"
)

// CallError is a REST request that a carrier has not carried out.
type CallError struct {
	Op     string // what was being done
	Kind   CallErrorKind
	Status int           // of HTTP; 0: no answer
	Code   string        // the carrier's own
	Detail string        // in the carrier's words
	Retry  time.Duration // how long the carrier wants to be left alone; 0: it does not say
	Err    error         // why there was no answer
}

// CallErrorKind is the kind of a CallError.
type CallErrorKind string

// The kinds of errors.
const (
	ErrCredentials CallErrorKind = "credentials" // 401, 403
	ErrNoCall      CallErrorKind = "no_call"     // 404, or the call has ended
	ErrRejected    CallErrorKind = "rejected"    // other 4xx: the request is wrong, or not allowed
	ErrRate        CallErrorKind = "rate_limited"
	ErrUnavailable CallErrorKind = "unavailable" // 5xx, time-out, or nonsense
)

// advice says what to do about an error.
var advice = map[CallErrorKind]string{
	ErrCredentials: "check the account's credentials in the configuration",
	ErrNoCall:      "the carrier knows no such live call",
	ErrRejected:    "the carrier refuses this request: see its code",
	ErrRate:        "the carrier takes no more requests now: try again later, or have its limit raised",
	ErrUnavailable: "the carrier did not answer as it should: try again, and see its status page",
}

// Error says what was done, what came back and what to do. Numbers are masked, which
// carriers repeat.
func (e *CallError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s", e.Op, e.Kind)
	if e.Status != 0 {
		fmt.Fprintf(&b, " (HTTP %d", e.Status)
		if e.Code != "" {
			fmt.Fprintf(&b, ", code %s", e.Code)
		}
		b.WriteString(")")
	}
	if e.Detail != "" {
		fmt.Fprintf(&b, ": %q", MaskNumbers(e.Detail))
	}
	if e.Err != nil {
		why := e.Err
		var u *url.Error
		if errors.As(why, &u) { // without the URL, which says nothing new
			why = u.Err
		}
		fmt.Fprintf(&b, ": %s", MaskNumbers(why.Error()))
	}
	if e.Kind == ErrUnavailable && e.Status == 0 {
		return b.String() + ": the carrier's API was not reached, or did not answer in time: check base_url and the " +
			"network"
	}
	return b.String() + ": " + advice[e.Kind]
}

// Unsent reports whether the carrier has surely got nothing: no connection was made.
func (e *CallError) Unsent() bool {
	var op *net.OpError
	return errors.As(e.Err, &op) && op.Op == "dial"
}

// Unwrap returns the reason for no answer.
func (e *CallError) Unwrap() error { return e.Err }

// KindOf returns the kind of error that an HTTP status means; empty for 2xx.
func KindOf(status int) CallErrorKind {
	switch {
	case status >= 200 && status < 300:
		return ""
	case status == 401 || status == 403:
		return ErrCredentials
	case status == 404:
		return ErrNoCall
	case status == 429:
		return ErrRate
	case status >= 400 && status < 500:
		return ErrRejected
	}
	return ErrUnavailable
}

// IsNoCall reports whether an error means that the call has ended, or never was.
func IsNoCall(err error) bool {
	var e *CallError
	return errors.As(err, &e) && e.Kind == ErrNoCall
}
