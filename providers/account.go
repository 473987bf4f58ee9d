package providers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"voicebridge/codec"
)

// Account is one account at a carrier.
type Account struct {
	// ID is the carrier's own id of the account, as media connections tell it;
	// empty where they do not.
	ID       string
	Webhooks Webhooks
	// Calls is nil where the configuration has no credentials for it.
	Calls Calls
}

// Webhooks are what a carrier asks an account over HTTP: what to do with a call,
// and what becomes of it. Methods may be called at the same time. Parsers are
// given only what Authenticate has let through.
type Webhooks interface {
	// Authenticate checks that the carrier sent the request, at the time now. An
	// error that is ErrSignature says why not, without telling secrets. It also
	// checks the handshake of a media connection, a GET of a wss URL.
	Authenticate(h *Hook, now time.Time) error
	// Explain tells, for an operator, what a request that Authenticate refuses
	// lacks: what was signed, what was expected, which setting is wrong. It tells
	// no secrets, and does not use a request up.
	Explain(h *Hook, now time.Time) []string
	// Inbound reads the question what to do with a call.
	Inbound(h *Hook) (*InboundCall, error)
	// Status reads a report on a call.
	Status(h *Hook) (*StatusReport, error)
	// Next reads what the carrier says at Answer.Next.
	Next(h *Hook) (*NextReport, error)
	// Digit reads the answer to an Answer.Ask; empty: no key was pressed in time.
	Digit(h *Hook) (string, error)
	// Room reads a report on who comes and goes, sent to Room.Events.
	Room(h *Hook) (*RoomReport, error)
	// Document writes an answer in the carrier's own language. One without a body
	// means that there is nothing more to be done with the call.
	Document(a *Answer) (Document, error)
}

// ErrSignature is the error of a request that the carrier has not signed.
var ErrSignature = errors.New("signature")

// Hook is a request of the carrier's.
type Hook struct {
	Method string
	// URL is the one that the carrier was given, rebuilt from the configured
	// public URL and never from the Host header, with path and query.
	URL string
	// Host is what the request says that it was sent to: for Explain only, since
	// anyone can write anything there.
	Host   string
	Header http.Header
	Body   []byte
}

// InboundCall is a call that comes in. Numbers are E.164 where they are numbers.
type InboundCall struct {
	ID, From, To string
}

// Status is what has become of a call.
type Status string

// The statuses. A call goes through the first three in this order, and ends with
// one of the others.
const (
	StatusInitiated  Status = "initiated"
	StatusRinging    Status = "ringing"
	StatusInProgress Status = "in-progress"
	StatusCompleted  Status = "completed"
	StatusBusy       Status = "busy"
	StatusNoAnswer   Status = "no-answer"
	StatusFailed     Status = "failed"
	StatusCanceled   Status = "canceled"
	StatusError      Status = "error" // a word that the carrier does not document: no change
)

// Final tells whether the call has ended.
func (s Status) Final() bool {
	return s == StatusCompleted || s == StatusBusy || s == StatusNoAnswer || s == StatusFailed || s == StatusCanceled
}

// StatusReport is a report on a call. Reports may come twice, late and in any
// order.
type StatusReport struct {
	Call   string
	Status Status // empty: no change of status, the report is about something else
	Raw    string // the carrier's own word
	// AnsweredBy is who picked up, in a report of answering machine detection.
	AnsweredBy AnsweredBy
	// Joined tells that the call has come into a room.
	Joined bool
}

// NextReport is what a carrier says once it has done an Answer that has a Next.
type NextReport struct {
	// Ended is false where what was to be done still goes on: the carrier wants no
	// answer.
	Ended bool
	// Dial is how the call to Answer.Dial went; empty: it was no such answer.
	Dial Status
}

// RoomReport is a report on who comes and goes in a room.
type RoomReport struct {
	Call         string // the carrier's id of the leg
	Joined, Left bool   // neither: it is about something else
}

// AnsweredBy is who picked up a call.
type AnsweredBy string

// What answering machine detection can tell.
const (
	AnsweredByHuman   AnsweredBy = "human"
	AnsweredByMachine AnsweredBy = "machine"
	AnsweredByFax     AnsweredBy = "fax"
	AnsweredByUnknown AnsweredBy = "unknown"
)

// Answer is what a carrier is told to do with a call: stream it to Media until
// the stream ends; or say Say, then ask for a key, or put it into a Room until it
// leaves, or connect it to the number Dial until one of them hangs up. After a
// stream, a room or a number it asks at Next; without Next, or anything else, the
// call ends.
type Answer struct {
	Media  string            // ws:// or wss:// URL
	Params map[string]string // told in the stream's start
	Next   string            // URL
	Ask    *Question
	Room   *Room
	// Format is the stream's, where an Exchange has read the answer. Accounts
	// choose it by themselves.
	Format codec.Format

	Say    string // spoken text
	Dial   string // E.164
	Caller string // E.164: who seems to call Dial; empty: the carrier chooses
	// Ring is how long Dial may ring, in whole seconds; 0: DefaultRing.
	Ring time.Duration
}

// DefaultRing is how long the number of an Answer rings.
const DefaultRing = 30 * time.Second

// RingTime is how long Dial may ring, in seconds.
func (a *Answer) RingTime() int {
	if a.Ring == 0 {
		return int(DefaultRing / time.Second)
	}
	return int(a.Ring / time.Second)
}

// Question asks the other party to press one key.
type Question struct {
	URL  string        // asked what to do then; see Webhooks.Digit
	Wait time.Duration // for the key, in whole seconds, once Say is said
}

// Room is a conference: whoever is told the same name is in it.
type Room struct {
	Name   string
	End    bool   // it ends when this call leaves
	Wait   bool   // this call waits for the other one: it does not begin with it
	Events string // URL told who comes and goes; empty: nobody is told
	Hold   string // URL of the audio that one hears who is alone; empty: the carrier's
}

// e164 is a number as ITU-T E.164 has it.
var e164 = regexp.MustCompile(`^\+[1-9][0-9]{6,14}$`)

// ValidNumber tells whether s is a number in E.164, with its plus.
func ValidNumber(s string) bool { return e164.MatchString(s) }

// Every carrier must take Answer.Params: Vonage at most MaxParams bytes of JSON,
// Twilio a name and value of less than maxParam characters.
const (
	MaxParams = 512
	maxParam  = 500
)

// CheckParams tells what is wrong with parameters of a stream.
func CheckParams(params map[string]string) error {
	for k, v := range params {
		if k == "" || strings.ContainsFunc(k+v, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd }) {
			return fmt.Errorf("%.40q: names must not be empty, and no control characters", k)
		}
		if slices.Contains([]string{"event", "content-type"}, strings.ToLower(k)) {
			return fmt.Errorf("%q is a name of the carriers'", k)
		}
		if len(k)+len(v) >= maxParam {
			return fmt.Errorf("%.40q: name and value must have less than %d bytes", k, maxParam)
		}
	}
	b, err := json.Marshal(params)
	if err != nil {
		return err
	}
	if len(params) > 0 && len(b) > MaxParams {
		return fmt.Errorf("%d bytes as JSON are more than the %d that carriers take along", len(b), MaxParams)
	}
	return nil
}

// Empty tells whether there is nothing to be done: the call ends.
func (a *Answer) Empty() bool {
	return a.Media == "" && a.Next == "" && a.Say == "" && a.Dial == "" && a.Ask == nil && a.Room == nil
}

// Equal tells whether two answers are the same.
func (a *Answer) Equal(b *Answer) bool {
	same := (a.Ask == nil) == (b.Ask == nil) && (a.Room == nil) == (b.Room == nil)
	return same && a.Media == b.Media && a.Next == b.Next && a.Say == b.Say && a.Dial == b.Dial && a.Caller == b.Caller && (a.Dial == "" || a.RingTime() == b.RingTime()) && maps.Equal(a.Params, b.Params) &&
		(a.Ask == nil || *a.Ask == *b.Ask) && (a.Room == nil || *a.Room == *b.Room)
}

// Document is an answer in the carrier's own language.
type Document struct {
	ContentType string
	Body        []byte
}

// Calls is the control of an account's calls over the carrier's REST API. Errors
// are *CallError. All methods return when ctx ends, try again by themselves where
// that is safe, and may be called at the same time.
type Calls interface {
	// Dial places a call and returns the carrier's id of it. It is not tried
	// again where the carrier may have placed the call already.
	Dial(ctx context.Context, d *Dial) (id string, err error)
	// Hangup ends a call. One that has ended already is no error.
	Hangup(ctx context.Context, id string) error
	// Get asks how a call is.
	Get(ctx context.Context, id string) (*StatusReport, error)
	// Redirect replaces what the carrier does with a call; a media stream ends.
	Redirect(ctx context.Context, id string, a *Answer) error
	// Digits sends tones to the other party beside the stream, in order. It is
	// errors.ErrUnsupported, and nothing is sent, where SendsDigits is false or the
	// carrier does not know one of them.
	Digits(ctx context.Context, id, digits string) error
	// SendsDigits tells whether the carrier can.
	SendsDigits() bool
}

// Dial is a call to be placed.
type Dial struct {
	To, From string // E.164
	Answer   string // URL asked what to do when the call is answered
	Status   string // URL for reports
	// Ring is how long to let it ring, in whole seconds.
	Ring time.Duration
	// Detect asks for answering machine detection beside the call, reported to
	// Status.
	Detect bool
	// Digits are sent when the call is answered: 0-9 * # A-D, w waits half a
	// second.
	Digits string
}

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

// Error says what was done, what came back and what to do.
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
		fmt.Fprintf(&b, ": %q", e.Detail)
	}
	if e.Err != nil {
		why := e.Err
		var u *url.Error
		if errors.As(why, &u) { // without the URL, which says nothing new
			why = u.Err
		}
		fmt.Fprintf(&b, ": %v", why)
	}
	if e.Kind == ErrUnavailable && e.Status == 0 {
		return b.String() + ": the carrier's API was not reached, or did not answer in time: check base_url and the network"
	}
	return b.String() + ": " + advice[e.Kind]
}

// Unsent tells whether the carrier has surely got nothing: no connection was made.
func (e *CallError) Unsent() bool {
	var op *net.OpError
	return errors.As(e.Err, &op) && op.Op == "dial"
}

// Unwrap gives the reason for no answer.
func (e *CallError) Unwrap() error { return e.Err }

// KindOf is the kind of error that an HTTP status means; empty for 2xx.
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

// IsNoCall tells whether an error means that the call has ended, or never was.
func IsNoCall(err error) bool {
	var e *CallError
	return errors.As(err, &e) && e.Kind == ErrNoCall
}
