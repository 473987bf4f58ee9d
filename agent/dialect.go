package agent

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"

	"voicebridge/agent/tools"
	"voicebridge/calls"
	"voicebridge/codec"
	"voicebridge/providers"
)

// DefaultRate is the sample rate where none is asked for, in Hz.
const DefaultRate = 16000

// Dialect is a protocol that agents speak.
type Dialect struct {
	Name  string // in configuration
	Title string // for people
	// Subprotocols are offered to the agent, and taken from one that connects.
	Subprotocols []string
	// Samples tells that binary messages hold samples and nothing else: they may be taken in
	// pieces.
	Samples bool
	Can     Features
	// Attempt is how long such agents may take to accept a connection; 0: as usual.
	Attempt time.Duration
	// Ready is how long they may take to be ready, where they always have to say so; 0: see Talk.
	Ready time.Duration
	// Prebuffer is audio to wait for before an utterance begins, of agents that pace themselves.
	Prebuffer time.Duration
	// Stays tells that they end no call by closing the connection in good order: it is lost then, too.
	Stays bool
	// Service tells that they are at a vendor's, whose address is known: see Addresser.
	Service bool
	// New makes the protocol of one configured agent. Errors name the field.
	New func(o Options) (Protocol, error)
}

// Features are what agents of a dialect can do.
type Features struct {
	Formats   string `json:"formats"`   // what they hear and speak
	Marks     string `json:"marks"`     // what they are told of how much was heard
	Hangup    bool   `json:"hangup"`    // end the call
	Digits    bool   `json:"digits"`    // press keys
	Transfers bool   `json:"transfers"` // move the call
	Tools     bool   `json:"tools"`     // have the user's own tools
	Words     bool   `json:"words"`     // tell what was said
	Incoming  bool   `json:"incoming"`  // connect to the bridge, for a call or into a pool
}

// Options are what a protocol is made from.
type Options struct {
	// InputRate and OutputRate are what the agent hears and speaks, in Hz; 0 leaves
	// it to the agent's URL, and then to DefaultRate.
	InputRate, OutputRate int
	// Incoming tells that the agent connects to the bridge: what its URL asks for
	// counts more than the rates.
	Incoming bool
	// Decode puts the dialect's own options into a struct; nil: there are none.
	Decode func(config any) error
	// Tools are what the agent may do, where it is a model that has to be told; nil: nothing.
	Tools *tools.Set
	// HTTP asks the vendor's API; nil: as usual.
	HTTP *http.Client
}

// Protocol is how one configured agent is spoken to. Its methods may be called at the
// same time.
type Protocol interface {
	// Formats are what the agent at the URL hears and speaks, whose query may choose.
	// Errors name the field.
	Formats(u *url.URL) (hears, speaks codec.Format, err error)
	// Limits bound what the agent may send, in bytes of a text and a binary message.
	Limits(u *url.URL) (text, binary int64)
	// NewTalk makes what is said in one call with the agent at the URL, whose
	// Formats are good.
	NewTalk(u *url.URL) Talk
}

// Handshaker is a Protocol whose handshake is its own: it has none of the bridge's headers, but those
// that Handshake sets for an agent that is dialled at the URL.
type Handshaker interface {
	Handshake(u *url.URL, h http.Header) error
}

// Addresser is a Protocol of agents at a vendor's.
type Addresser interface {
	// Address is the URL of the agent: the vendor's usual one, or the configured one with what it needs.
	Address(configured string) (string, error)
}

// Locator is a Protocol that has to ask for the URL of each call, where the configured one is the vendor's API.
// The URL is secret. Of the call it may set Told.
type Locator interface {
	Locate(ctx context.Context, configured *url.URL, call *Call) (string, error)
}

// Operator is a Protocol whose agents ask for things over HTTP as well, as they would of their carrier.
type Operator interface {
	// Doors are the patterns of their requests, as http.ServeMux has them: the same for all agents.
	Doors() []string
	// Knows reports whether the credentials of a request are this agent's.
	Knows(r *http.Request) bool
	// Serve answers a request that it knows.
	Serve(w http.ResponseWriter, r *http.Request, o Operations)
	// Refuse answers a request that is of no agent.
	Refuse(w http.ResponseWriter)
}

// ErrRefused is of what may not be done to a call that is there.
var ErrRefused = errors.New("refused")

// Operations are what may be done to the calls of the agents that know a request.
type Operations interface {
	// Find returns the call for whose id is is true.
	Find(is func(id string) bool) (calls.Call, bool)
	// Hangup ends a call once what was said in it is heard.
	Hangup(id string) error
	Digits(id, digits string) error
	// Transfer begins to move a call. What becomes of it is not told, but the error is ErrRefused where it may not be
	// moved so.
	Transfer(id string, t *calls.TransferRequest) error
}

// Talker is a Talk that says things by itself.
type Talker interface {
	// Attach gives it whom to tell, before Start.
	Attach(b Beside)
	// Release ends what it has begun, and returns once that has ended.
	Release()
}

// Talk is what is said in one call: it turns what happens into messages, and the
// agent's messages into commands. It makes no connections. Start and Encode are called
// from one goroutine, Decode from another.
type Talk interface {
	// Formats are what the agent hears and speaks. They change only until Ready.
	Formats() (hears, speaks codec.Format)
	// Start adds the messages that introduce the call. Where await is true, the
	// agent has to say that it is ready before it hears anything.
	Start(out *providers.Messages, call *Call, await bool) error
	// Ready reports whether the agent has said so since Start.
	Ready() bool
	// Encode adds the messages of an event.
	Encode(out *providers.Messages, ev *Event) error
	// Decode reads a message, and gives each command in it to do. A message that
	// makes no sense is a CommandFault.
	Decode(m providers.Message, do func(*Command))
}

// Waiter is a Talk of agents that wait in a pool, before any call.
type Waiter interface {
	// Wait adds what an agent is told that waits in the pool.
	Wait(out *providers.Messages, pool string) error
}
