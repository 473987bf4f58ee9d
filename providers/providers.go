// Package providers is the contract between the bridge and a phone carrier.
//
// A carrier lives in one folder below this one and is described by a Spec:
//
//   - Stream translates one media connection between the carrier's messages and the
//     events and commands defined here; Peer is the carrier's own end of the same
//     connection, from which simulated carriers are made. Both are pure translation:
//     no I/O, no clock, no goroutine.
//   - Webhooks read what the carrier says about calls into CallEvents, and write
//     Answers as documents. Commands do the same over the carrier's REST API.
//     Exchange is the carrier's own end of both.
//
// What several carriers share is in providers/internal, the conformance suite that
// every carrier passes in providertest, the list of carriers in providers/all.
package providers

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"voicebridge/codec"
)

// Message is one message of a media connection: binary, or text in UTF-8.
type Message struct {
	Binary bool
	Data   []byte
}

// Messages collects messages to be sent. Its memory is used again after Reset, so
// that sending audio allocates nothing. The zero value is ready.
type Messages struct {
	list []Message
	n    int
}

// Reset empties m.
func (m *Messages) Reset() { m.n = 0 }

// Add adds an empty message and returns it, to have its Data appended to. The
// pointer is good until the next Add.
func (m *Messages) Add(binary bool) *Message {
	if m.n == len(m.list) {
		m.list = append(m.list, Message{})
	}
	msg := &m.list[m.n]
	m.n++
	msg.Binary, msg.Data = binary, msg.Data[:0]
	return msg
}

// All returns the messages; they are good until the next Reset.
func (m *Messages) All() []Message { return m.list[:m.n] }

// EventKind says what an Event is.
type EventKind uint8

// The events that a carrier's media connection sends.
const (
	EventUnknown   EventKind = iota // a valid message without meaning for a bridge: count it and go on
	EventConnected                  // a greeting before the start, for carriers that have one
	EventStart                      // the stream begins
	EventAudio
	EventDigit
	EventMark    // playout has reached a mark, or a clear has discarded it (see Abilities)
	EventCleared // the carrier confirms a clear
	EventStop    // the stream ends; the connection closes next
)

// String returns the kind's name, for logs.
func (k EventKind) String() string {
	return [...]string{"unknown", "connected", "start", "audio", "digit", "mark", "cleared", "stop"}[k]
}

// Event is something that the carrier's media connection says. Only the fields of
// its kind are set.
type Event struct {
	Kind EventKind

	Start *Start // EventStart

	// Audio is the payload of an EventAudio in the format Start.In. It aliases
	// the message or the Stream and is valid until the next Decode.
	Audio []byte
	// At is the carrier's media time at the beginning of Audio, counted from the
	// start of the stream, in whole milliseconds; -1 where the carrier gives none.
	At time.Duration
	// Missing is how many audio messages the carrier's own numbering says were
	// lost just before this one.
	Missing int

	Digit    byte          // EventDigit: one of 0-9 * # A-D
	Duration time.Duration // EventDigit: how long it was held; 0 where the carrier does not say

	Mark string // EventMark: the name given in the CommandMark
}

// Start is what a carrier tells about a stream when it begins.
type Start struct {
	Account string // the carrier's account id
	Call    string // the carrier's call id
	Stream  string // the carrier's id of this media connection
	In      codec.Format
	Out     codec.Format
	// Params are custom values from an answer document that the bridge has not
	// written. Metadata of the bridge's own calls travels in its media token.
	Params map[string]string
	// OneWay tells that nothing that is sent on the connection is heard.
	OneWay bool
}

// CommandKind says what a Command is.
type CommandKind uint8

// The commands that the bridge sends over a media connection.
const (
	CommandAudio  CommandKind = iota + 1
	CommandMark               // ask for an EventMark when the audio sent so far has been played
	CommandClear              // discard what has not been played
	CommandDigits             // send tones to the other party
	CommandHangup             // end the call, where the media connection can
)

// String returns the kind's name, for logs.
func (k CommandKind) String() string {
	return [...]string{"", "audio", "mark", "clear", "digits", "hangup"}[k]
}

// Command is something that the bridge asks of the carrier's media connection. Only
// the fields of its kind are set.
type Command struct {
	Kind   CommandKind
	Audio  []byte // CommandAudio: one frame of 20 ms in the format Start.Out
	Mark   string // CommandMark
	Digits string // CommandDigits: without pauses
}

// Stream translates one media connection. It is used from two goroutines: one
// calls Decode, another Encode, and Encode is not called before Decode has
// returned an EventStart. Neither may block, keep what it was given, or allocate
// for audio.
type Stream interface {
	// Decode appends to evs what one message from the carrier means: usually one
	// event, none or several where frames come out of order. An error means that
	// the message is malformed or out of place and has been ignored; an error that
	// is ErrFormat means that the stream cannot go on.
	Decode(evs []Event, m Message) ([]Event, error)
	// Encode adds the carrier's form of cmd to out: usually one message. It is
	// errors.ErrUnsupported if the carrier has no such thing.
	Encode(out *Messages, cmd *Command) error
}

// Peer is the carrier's own end of a media connection, the inverse of Stream:
// what Peer.Encode makes of an event, Stream.Decode turns into the same event,
// and likewise for commands. It is as strict as the carrier.
type Peer interface {
	// Encode is errors.ErrUnsupported for events that the carrier never sends.
	Encode(out *Messages, ev *Event) error
	// Decode reads one message. It fails on what the carrier would refuse or
	// complain about. Where the carrier would act on a part of the message
	// nevertheless, cmd holds it. Otherwise, and where a message is only a part of
	// a command, cmd.Kind is 0.
	Decode(m Message, cmd *Command) error
}

// ErrFormat is the error of a start that names audio the bridge does not know.
var ErrFormat = errors.New("unknown audio format")

// FormatError returns an error that is ErrFormat and names what was received.
func FormatError(provider, encoding string, rate, channels int) error {
	return fmt.Errorf("%s: encoding %.40q at %d Hz, %d channels: %w", provider, encoding, rate, channels, ErrFormat)
}

// Spec describes a carrier.
type Spec struct {
	Name      string // in URLs, configuration, logs and metrics: lower case
	Title     string // for people
	Formats   []codec.Format
	Abilities Abilities
	// Subprotocol is that of its WebSockets (RFC 6455 section 1.9); empty: none.
	Subprotocol string
	NewStream   func() Stream
	NewPeer     func() Peer
	// NewAccount makes an account from its configuration. Errors name the field.
	NewAccount func(s Setup) (*Account, error)
	// NewExchange makes the carrier's own end of the account with the same
	// configuration.
	NewExchange func(s Setup) (Exchange, error)
	// Heard is the format of what the caller says on a stream whose audio to the carrier
	// has another one; nil: the same.
	Heard func(played codec.Format) codec.Format
	// Sample decodes a configuration with made-up credentials, whose REST API is at
	// the URL and whose audio has the format: for simulated carriers.
	Sample func(baseURL string, f codec.Format) func(config any) error
}

// Subprotocols are those to be offered or chosen.
func (s *Spec) Subprotocols() []string {
	if s.Subprotocol == "" {
		return nil
	}
	return []string{s.Subprotocol}
}

// Start is a start of a stream whose audio to the carrier has the format.
func (s *Spec) Start(played codec.Format) Start {
	if s.Heard == nil {
		return Start{In: played, Out: played}
	}
	return Start{In: s.Heard(played), Out: played}
}

// Setup is what an account is made from.
type Setup struct {
	// Decode puts the account's block of the configuration into a struct of the
	// carrier's.
	Decode func(config any) error
	// HTTP carries the requests to the carrier's REST API; nil: http.DefaultTransport.
	HTTP http.RoundTripper
}

// ValidDigit reports whether d is a DTMF digit: 0-9, *, #, A-D.
func ValidDigit(d byte) bool {
	return d >= '0' && d <= '9' || d == '*' || d == '#' || d >= 'A' && d <= 'D'
}
