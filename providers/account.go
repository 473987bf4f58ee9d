package providers

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Account is one account at a carrier. It holds what is the same for all carriers:
// when a request is made again, and what is done where the carrier cannot do it. A
// nil account can do nothing.
type Account struct {
	// ID is the carrier's own id of the account, as media connections tell it;
	// empty where they do not.
	ID string
	// Webhooks is nil for carriers that have none.
	Webhooks Webhooks

	commands Commands
	digits   int // the most that one request sends; 0: any number
	pace     pace
}

// NewAccount makes an account. Commands is nil where the configuration has no
// credentials for the carrier's REST API, w where the carrier has no webhooks.
func NewAccount(id string, a Abilities, w Webhooks, c Commands) *Account {
	return &Account{ID: id, Webhooks: w, commands: c, digits: a.DigitsAtOnce}
}

// Webhooks are what a carrier says to an account over HTTP. Methods may be called at
// the same time.
type Webhooks interface {
	// Authenticate checks that the carrier sent the request, at the time now. once
	// is what may be used a single time, for carriers whose signatures have that.
	// An error that is ErrSignature says why not, without telling secrets. It also
	// checks the handshake of a media connection, a GET of a wss URL.
	Authenticate(h *Hook, now time.Time) (once string, err error)
	// Explain tells, for an operator, what a request that Authenticate refuses
	// lacks: what was signed, what was expected, which setting is wrong. It tells
	// no secrets.
	Explain(h *Hook, now time.Time) []string
	// Read reads a request that Authenticate has let through. No events: what it
	// says has no meaning for the bridge.
	Read(h *Hook) ([]CallEvent, error)
	// Document writes an answer in the carrier's own language. One without a body
	// means that there is nothing more to be done with the call.
	Document(a *Answer) (Document, error)
}

// ErrSignature is the error of a request that the carrier has not signed, ErrReplayed
// of one whose signature has been used before.
var (
	ErrSignature = errors.New("signature")
	// ErrUnsigned is of one that has no signature at all, with carriers that send such by a fault of theirs, and again
	// where they are told that it failed.
	ErrUnsigned = fmt.Errorf("%w: there is none", ErrSignature)
	ErrReplayed = fmt.Errorf("%w: the token has been used before", ErrSignature)
)

// Hook is a request of the carrier's.
type Hook struct {
	Method string
	// URL is the one that the carrier was given, rebuilt from the configured
	// public URL and never from the Host header, with path and query.
	URL string
	// Purpose is what that URL was given for. Carriers that send everything to one
	// URL do not look at it.
	Purpose Purpose
	// Host is what the request says that it was sent to: for Explain only, since
	// anyone can write anything there.
	Host   string
	Header http.Header
	Body   []byte
}

// Purpose is what a URL was given to a carrier for.
type Purpose uint8

// The purposes.
const (
	ForAnswer Purpose = iota + 1 // to ask what to do with a call
	ForStatus                    // to tell what becomes of a call
	ForNext                      // Answer.Next
	ForKey                       // Question.URL
	ForRoom                      // Room.Events
)

// Leg names a leg of a call: by the id that commands take, and its other ids.
type Leg struct {
	ID      string
	Aliases []string
}

// Dial is a call to be placed.
type Dial struct {
	// To is a number in E.164; with Abilities.DialStrings, also whatever the account allows.
	To   string
	From string // E.164
	// Forward is what lets the carrier show From where that is a caller's number, as it
	// was told with the call (CallEvent.Forward).
	Forward string
	Answer  string // URL asked what to do when the call is answered
	Status  string // URL for reports
	// Ring is how long to let it ring, in whole seconds.
	Ring time.Duration
	// Detect asks for answering machine detection beside the call, reported to
	// Status.
	Detect bool
	// Digits are sent when the call is answered: 0-9 * # A-D, w waits half a
	// second.
	Digits string
}

// Commands control an account's calls over the carrier's REST API. Each method makes
// one request, which Account repeats where that is safe, and returns when ctx ends.
// Errors are *CallError. Methods may be called at the same time. More abilities are
// found by type assertion: DigitSender, RoomLooker, EventSource, Opener,
// Speaker, Accepter.
type Commands interface {
	// Dial places a call.
	Dial(ctx context.Context, d *Dial) (Leg, error)
	// Do replaces what the carrier does with a call; a media stream ends. a is not
	// Empty.
	Do(ctx context.Context, leg string, a *Answer) error
	// Hangup ends a call, also one that still rings.
	Hangup(ctx context.Context, leg string) error
	// Get asks how a call is: CallProgress, and CallDetected where that is told.
	Get(ctx context.Context, leg string) ([]CallEvent, error)
}

// DigitSender is a carrier that sends tones to the other party beside the stream.
type DigitSender interface {
	// SendDigits sends digits and pauses, in order, at most Abilities.DigitsAtOnce.
	// It is errors.ErrUnsupported, and nothing is sent, where the carrier does not
	// know one of them.
	SendDigits(ctx context.Context, leg, digits string) error
}

// RoomLooker is a carrier that tells who is in a room.
type RoomLooker interface {
	// InRoom reports of each leg whether it is there. False may mean that it is not known.
	InRoom(ctx context.Context, room string, legs []string) ([]bool, error)
}

// Publisher is a carrier that takes an answer by the URL of a document only, or one step
// after the other: it needs a place where an answer can be asked for.
type Publisher interface {
	// Publish gives it that place before it is used: what is asked at the URL of an
	// answer, or with that URL as a CallEvent's Ref, is answered with it.
	Publish(url func(*Answer) string)
}

// Speaker is a carrier that plays files and does not speak, whose account has something that
// does.
type Speaker interface {
	// Speaks gives it the URL of a WAV file with what an answer says, before it is used.
	Speaks(url func(a *Answer) string)
	// Speak makes that file.
	Speak(ctx context.Context, a *Answer) ([]byte, error)
}

// Holder is Webhooks of a carrier that fetches a document for who waits in a room, where
// others fetch the audio itself.
type Holder interface {
	// HoldDocument has audio played again and again.
	HoldDocument(audioURL string) (Document, error)
}

// EventSource is a carrier that tells of calls over a connection that the bridge
// holds, instead of webhooks.
type EventSource interface {
	// Listen gives all events to handle until ctx ends. It connects again by itself.
	Listen(ctx context.Context, handle func(context.Context, *CallEvent)) error
}

// Opener is a carrier whose media connections do not come to the bridge's media server by
// themselves: the account makes them, or takes them elsewhere.
type Opener interface {
	// Opens gives it where they are handed over before it is used, with the Media of the
	// Answer that each is for. An error means that the connection is not wanted.
	Opens(take func(media string, c MediaConn) error)
}

// Accepter is a carrier that connects to the bridge to tell of calls.
type Accepter interface {
	// Accept serves such a connection, and answers it. An error, ErrSignature, means that it
	// has not: the credentials are wrong.
	Accept(w http.ResponseWriter, r *http.Request) error
}

// MediaConn is a media connection: the messages of the carrier's Stream, whatever carries them.
// Its life has three steps: Serve, Close, Release.
type MediaConn interface {
	// Serve gives what comes from now on to h.
	Serve(h MediaHandler)
	// Put sends a message without waiting; m.Data may be used again once it returns. Where
	// more is false, h's Writable tells when more can be sent.
	Put(m Message) (more bool, err error)
	// Close ends the connection; code and why are those of a WebSocket (RFC 6455 section
	// 7.4). It may be called before Serve, and more than once.
	Close(code int, why string)
	// Release returns when the connection has ended.
	Release()
}

// MediaHandler is given what comes over a media connection. Message and Closed are called one
// at a time.
type MediaHandler interface {
	Message(m Message)
	Writable()
	// Closed is the last call; err is nil where the connection has ended in good order.
	Closed(err error)
}

// HasCommands reports whether calls of the account can be controlled.
func (a *Account) HasCommands() bool { return a != nil && a.commands != nil }

// Publish gives a carrier that needs it the place where answers can be asked for.
func (a *Account) Publish(url func(*Answer) string) {
	if a.HasCommands() {
		if p, ok := a.commands.(Publisher); ok {
			p.Publish(url)
		}
	}
}

// Speaks gives a carrier that plays files the URL of one with words.
func (a *Account) Speaks(url func(*Answer) string) {
	if a.HasCommands() {
		if s, ok := a.commands.(Speaker); ok {
			s.Speaks(url)
		}
	}
}

// Speak makes a WAV file with words, for a carrier that plays files.
func (a *Account) Speak(ctx context.Context, said *Answer) ([]byte, error) {
	if a.HasCommands() {
		if s, ok := a.commands.(Speaker); ok {
			return s.Speak(ctx, said)
		}
	}
	return nil, errors.New("the carrier plays no files")
}

// Accepter is what takes the carrier's own connections; nil: it makes none.
func (a *Account) Accepter() Accepter {
	if !a.HasCommands() {
		return nil
	}
	accepter, _ := a.commands.(Accepter)
	return accepter
}

// Opens gives a carrier that makes media connections where they are handed over.
func (a *Account) Opens(take func(media string, c MediaConn) error) {
	if a.HasCommands() {
		if o, ok := a.commands.(Opener); ok {
			o.Opens(take)
		}
	}
}

// SendsDigits reports whether SendDigits can.
func (a *Account) SendsDigits() bool {
	if !a.HasCommands() {
		return false
	}
	_, can := a.commands.(DigitSender)
	return can
}

// Dial places a call. It is not tried again where the carrier may have placed the
// call already.
func (a *Account) Dial(ctx context.Context, d *Dial) (Leg, error) {
	return attempt(ctx, a.pace, newCall, false,
		func(ctx context.Context) (Leg, error) { return a.commands.Dial(ctx, d) })
}

// Do replaces what the carrier does with a call; a media stream ends. A call that has
// nothing left to do is hung up. It is not tried again where the carrier may have done it
// already: a call would leave the room that it has just come into, or a phone ring twice.
func (a *Account) Do(ctx context.Context, leg string, answer *Answer) error {
	if answer.Empty() {
		return a.Hangup(ctx, leg)
	}
	_, err := attempt(ctx, a.pace, command, false, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, a.commands.Do(ctx, leg, answer)
	})
	return err
}

// Hangup ends a call. One that has ended already is no error.
func (a *Account) Hangup(ctx context.Context, leg string) error {
	_, err := attempt(ctx, a.pace, command, true, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, a.commands.Hangup(ctx, leg)
	})
	if IsNoCall(err) {
		return nil
	}
	return err
}

// Get asks how a call is.
func (a *Account) Get(ctx context.Context, leg string) ([]CallEvent, error) {
	return attempt(ctx, a.pace, question, true,
		func(ctx context.Context) ([]CallEvent, error) { return a.commands.Get(ctx, leg) })
}

// InRoom asks whether legs are in a room. It is errors.ErrUnsupported where the carrier
// does not tell.
func (a *Account) InRoom(ctx context.Context, room string, legs ...string) ([]bool, error) {
	if a.HasCommands() {
		if looker, ok := a.commands.(RoomLooker); ok {
			return attempt(ctx, a.pace, question, true, func(ctx context.Context) ([]bool, error) {
				return looker.InRoom(ctx, room, legs)
			})
		}
	}
	return nil, fmt.Errorf("who is in a room: %w", errors.ErrUnsupported)
}

// SendDigits sends tones to the other party beside the stream, in order. It is
// errors.ErrUnsupported, and nothing is sent, where the carrier cannot, or does not
// know one of the digits.
func (a *Account) SendDigits(ctx context.Context, leg, digits string) error {
	if !a.SendsDigits() {
		return fmt.Errorf("digits: %w", errors.ErrUnsupported)
	}
	sender := a.commands.(DigitSender)
	for digits != "" {
		n := len(digits)
		if a.digits > 0 {
			n = min(n, a.digits)
		}
		_, err := attempt(ctx, a.pace, command, false, func(ctx context.Context) (struct{}, error) {
			return struct{}{}, sender.SendDigits(ctx, leg, digits[:n])
		})
		if err != nil {
			return err
		}
		digits = digits[n:]
	}
	return nil
}

// TellsItself reports whether the carrier tells of calls over a connection of its own.
func (a *Account) TellsItself() bool {
	if !a.HasCommands() {
		return false
	}
	_, is := a.commands.(EventSource)
	return is
}

// Listen gives the events of a carrier that tells them over a connection of its own
// to handle, until ctx ends. It is errors.ErrUnsupported, at once, for other carriers.
func (a *Account) Listen(ctx context.Context, handle func(context.Context, *CallEvent)) error {
	if a.HasCommands() {
		if source, ok := a.commands.(EventSource); ok {
			return source.Listen(ctx, handle)
		}
	}
	return fmt.Errorf("events: %w", errors.ErrUnsupported)
}
