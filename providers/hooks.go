package providers

import (
	"errors"
	"net/http"
	"time"
)

// Webhooks is the ability of an account whose carrier asks over HTTP what to do
// with a call and reports what becomes of it. Methods may be called at the same
// time. Parsers are given only what Authenticate has let through.
type Webhooks interface {
	// Authenticate checks that the carrier sent the request, at the time now. An
	// error that is ErrSignature says why not, without telling secrets.
	Authenticate(h *Hook, now time.Time) error
	// Inbound reads the question what to do with a call that comes in.
	Inbound(h *Hook) (*InboundCall, error)
	// Status reads a report on a call.
	Status(h *Hook) (*StatusReport, error)
	// Connect answers an inbound call: stream it to the media URL.
	Connect(media string) (Document, error)
	// Refuse answers an inbound call: say the text and end it.
	Refuse(text string) (Document, error)
}

// ErrSignature is the error of a request that the carrier has not signed.
var ErrSignature = errors.New("signature")

// Hook is a request of the carrier's.
type Hook struct {
	Method string
	// URL is the one that the carrier was given, rebuilt from the configured
	// public URL and never from the Host header, with path and query.
	URL    string
	Header http.Header
	Body   []byte
}

// InboundCall is a call that comes in. Numbers are E.164 where they are numbers.
type InboundCall struct {
	ID, From, To string
}

// Status is what has become of a call.
type Status string

// The statuses, in the order in which they follow; the last six end a call.
const (
	StatusInitiated  Status = "initiated"
	StatusRinging    Status = "ringing"
	StatusInProgress Status = "in-progress"
	StatusCompleted  Status = "completed"
	StatusBusy       Status = "busy"
	StatusNoAnswer   Status = "no-answer"
	StatusFailed     Status = "failed"
	StatusCanceled   Status = "canceled"
	StatusError      Status = "error" // one that the carrier does not document
)

// StatusReport is a report on a call. Reports may come twice, late and in any
// order.
type StatusReport struct {
	Call   string
	Status Status // empty: no change of status, the report is about something else
	Raw    string // the carrier's own word
}

// Document is an answer in the carrier's own language.
type Document struct {
	ContentType string
	Body        []byte
}
