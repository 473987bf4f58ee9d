package providers

import (
	"context"
	"errors"
	"net/http"
	"time"
)

// Exchange is the carrier's own end of an account: the inverse of Webhooks and
// Commands, as Peer is of Stream. Simulated carriers are made from it. It is as
// strict as the carrier: a document, parameter or signature that the carrier
// would refuse is an error. Methods may be called at the same time.
type Exchange interface {
	// NewCall makes the ids of a new leg.
	NewCall() Leg
	// Ask makes the signed request with which the carrier asks, or tells, about a
	// call. It is ErrNotAsked where the carrier never does.
	Ask(a *Ask, now time.Time) (*http.Request, error)
	// Answer reads what the other side replied to an Ask that wants an answer. nil:
	// the reply says nothing, a command does.
	Answer(contentType string, body []byte) (*Answer, error)
	// Handshake makes the signed header of a media connection to a URL.
	Handshake(url string, now time.Time) (http.Header, error)
	// Start is what the carrier tells at the beginning of a stream.
	Start(call *ExchangeCall, a *Answer) *Start
	// Operation reads a REST request. Its error is a *CallError.
	Operation(r *http.Request, body []byte, now time.Time) (*Operation, error)
	// Reply answers a REST request: with the call, or the *CallError.
	Reply(w http.ResponseWriter, op *Operation, call *ExchangeCall, err error)
}

// Teller is an Exchange of a carrier that has no webhooks, but tells all over a connection
// that the bridge has made, and is told by commands what to do.
type Teller interface {
	// Tell tells what others ask and tell by webhooks. The URL may be empty.
	Tell(a *Ask) error
	// Feed serves a connection for events, and reports whether a request is for one.
	Feed(w http.ResponseWriter, r *http.Request) bool
	// Heard reports whether somebody is connected.
	Heard() bool
}

// Streamer is an Exchange of a carrier whose media connections are not all made to the media
// server of the bridge.
type Streamer interface {
	// Stream returns the carrier's end of the connection for an Answer's Media; nil: it is
	// made to that URL.
	Stream(ctx context.Context, media string) (PeerConn, error)
}

// PeerConn is the carrier's end of a media connection: the messages of its Peer.
type PeerConn interface {
	Read() (binary bool, data []byte, err error)
	Write(binary bool, data []byte) error
	Close(code int, why string)
	Release()
}

// ExchangeCall is a call as the carrier sees it.
type ExchangeCall struct {
	ID       string
	Aliases  []string
	From, To string
	Inbound  bool // seen from the bridge
	Status   Status
	Answered bool // whatever it is now
	// AnsweredBy is what machine detection has found, Room the name of the room that the
	// call is in; both may be empty.
	AnsweredBy AnsweredBy
	Room       string
	Members    []string // ids of all calls in that room
	Moves      int      // how often it was taken elsewhere
}

// AskKind says what an Ask is about.
type AskKind uint8

// What a carrier asks and tells.
const (
	AskAnswer     AskKind = iota + 1 // what to do with a call
	AskNext                          // the stream, the room or the number is over: what now?
	AskDigit                         // a Question has been answered: Digit
	TellStatus                       // Call.Status
	TellDetection                    // AnsweredBy
	TellRoom                         // Joined the room, or left it
)

// Ask is a webhook.
type Ask struct {
	Kind       AskKind
	URL        string
	Call       ExchangeCall
	AnsweredBy AnsweredBy
	Sequence   int    // of the reports on a call, from 0
	Dial       Status // AskNext: how the call to a number went
	Digit      string // AskDigit; empty: none was pressed
	Room       string // TellRoom: its name
	Joined     bool   // TellRoom
}

// ErrNotAsked is the error of an Ask that the carrier never makes.
var ErrNotAsked = errors.New("the carrier has no such webhook")

// OperationKind says what an Operation is.
type OperationKind uint8

// What REST requests ask for.
const (
	OpDial OperationKind = iota + 1
	OpHangup
	OpGet
	OpDo
	OpDigits
	OpRoom   // whether a room is there
	OpMember // whether Call is in a room
	OpNumbers
	OpCalls // all calls: Calls
	OpOther // something that the Exchange does by itself; for a live call, where Call is set
)

// Operation is a REST request.
type Operation struct {
	Kind   OperationKind
	Call   string  // all but OpDial: one of its ids
	Dial   *Dial   // OpDial
	Leg    string  // OpDial: the id, where the bridge chooses it; Call is to be connected to it then
	Answer *Answer // OpDo
	Digits string  // OpDigits
	Room   string  // OpRoom: its name; OpMember: the carrier's id of it
	// Numbers are all of the account's, for the reply to OpNumbers; Page is the one that is
	// asked for, and Size how many it has at most. What the carrier says of an application
	// comes with Page -1, and its id in Call.
	Numbers    []Number
	Page, Size int
	Calls      []ExchangeCall // for the reply to OpCalls
	// Once is the request's own id, for carriers that do not carry out again what comes a
	// second time; Done, which may be nil, is called when it is carried out.
	Once string
	Done func() `json:"-"`
	Note any    // of the Exchange's own, for its reply
}

// PageOf returns the numbers of the page that is asked for, counted from 0, and whether
// there are more.
func (op *Operation) PageOf(page int) (list []Number, more bool) {
	from := min(max(page, 0)*op.Size, len(op.Numbers))
	to := min(from+op.Size, len(op.Numbers))
	return op.Numbers[from:to], to < len(op.Numbers)
}
