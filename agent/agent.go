// Package agent is the contract of AI agents: what a session tells one and is asked for
// (Conn, Event, Command), and what a Dialect makes of that in messages. Package link has
// the connections on which it is said; the dialects are one folder each below this one,
// listed in agent/all.
package agent

import (
	"context"
	"time"

	"voicebridge/calls"
	"voicebridge/codec"
	"voicebridge/providers"
)

// Call is what is known of a call when its agent is dialled.
type Call struct {
	Session   string // our id
	Carrier   string // the name of the carrier's Spec
	Known     Known
	Start     *providers.Start
	Abilities providers.Abilities
	// NativeDigits tells that the carrier sends digits itself; otherwise they are
	// tones in the audio.
	NativeDigits bool
	// Transfers are the modes in which the call can be transferred.
	Transfers []string
	// Resume is where a talk goes on whose connection has broken, or that is taken over from another agent; nil:
	// it is new.
	Resume *Resume
	// Told are custom parameters that a Locator was told, which the agent expects.
	Told map[string]string
}

// Resume is where a talk goes on.
type Resume struct {
	// In and Out are the clocks of an Event, Sent is how much audio the agent had sent: what was not heard of it
	// yet is still played. Each counts on from there.
	In, Out, Sent time.Duration
	Lines         []calls.Line // what was said so far, as far as it is kept
	Kept          any          // what the Talk before gave to Keep
	// From is the agent whose talk is taken over, and Context what it hands on; nil: it is the same agent.
	From    *string
	Context map[string]string
}

// Custom returns the custom values of the call: its metadata, and the parameters that
// the carrier tells of a call that somebody else has answered.
func (c *Call) Custom() map[string]string {
	if len(c.Known.Metadata) > 0 {
		return c.Known.Metadata
	}
	return c.Start.Params
}

// CallInfo is a call as agents and applications are told of it.
type CallInfo struct {
	ID        string            `json:"id,omitempty"`
	Carrier   string            `json:"carrier"`
	Direction string            `json:"direction,omitempty"`
	From      string            `json:"from,omitempty"`
	To        string            `json:"to,omitempty"`
	Account   string            `json:"account,omitempty"`
	Stream    string            `json:"stream,omitempty"`
	Codec     string            `json:"codec"`
	Custom    map[string]string `json:"custom,omitempty"`
	Answered  string            `json:"answered_by,omitempty"`
	Returned  string            `json:"returned,omitempty"`
}

// Info returns what is told of a call.
func Info(call *Call) CallInfo {
	return CallInfo{
		ID: call.Start.Call, Carrier: call.Carrier, Account: call.Start.Account,
		Direction: call.Known.Direction, From: call.Known.From, To: call.Known.To,
		Stream: call.Start.Stream, Codec: call.Start.In.String(), Custom: call.Custom(),
		Answered: string(call.Known.AnsweredBy), Returned: call.Known.Returned,
	}
}

// Known is what is known of a call from elsewhere than its media connection. All
// may be empty.
type Known struct {
	Call      string // the carrier's call id
	Account   string // the carrier's account id
	Direction string // inbound, outbound
	From, To  string // E.164 where they are numbers
	Metadata  map[string]string
	// AnsweredBy is who has picked up a call that was placed, if that is known.
	AnsweredBy providers.AnsweredBy
	// Returned says why the call has come back to an agent: the reason of a
	// transfer, or of the end of its first stream; empty: it is new.
	Returned string
	// Returns is how often it has.
	Returns int
}

// Dialer reaches the agent of a call.
type Dialer interface {
	// Formats are what the agent is taken to hear and to speak before it is
	// dialled. Where one is the carrier's own format, the bytes pass untouched.
	Formats() (hears, speaks codec.Format)
	// Dial connects and introduces the call. It returns when ctx ends.
	Dial(ctx context.Context, call *Call) (Conn, error)
}

// Conn is the connection to an agent for one call.
type Conn interface {
	// Formats are what this agent hears and speaks, whatever the Dialer thought.
	Formats() (hears, speaks codec.Format)
	// Serve gives what the agent wants from now on to h.
	Serve(h Handler)
	// Send delivers an event without waiting; it is called from one goroutine at a
	// time. Where more is false, h's Writable tells when more can be sent. A failure
	// ends the connection, which Gone tells.
	Send(ev *Event) (more bool, err error)
	// Close says goodbye, so that Gone is called soon after. It may be called at
	// any time, and more than once.
	Close(cause calls.Cause)
	// Release returns when the connection has ended.
	Release()
}

// Handler is given what an agent says. Command and Gone are called one at a
// time; Writable may be called at any time.
type Handler interface {
	// Command is what the agent wants; cmd.Audio is valid until it returns.
	Command(cmd *Command)
	// Writable tells that what Send had to keep has gone.
	Writable()
	// Gone is the last call of Command and Gone; err is an *Error where the
	// agent's side is to blame.
	Gone(err error)
	Beside
}

// Beside takes what a dialect does by itself. Its methods may be called at any time.
type Beside interface {
	// Do carries a command out that is no audio.
	Do(cmd *Command)
	// Reply has something said to the agent: it comes back to the Talk as an EventReply, in order with all
	// other events.
	Reply(add func(*providers.Messages) error)
	// Said tells what somebody has said in the call.
	Said(l calls.Line)
	// Used tells what the agent has used up since it was told last.
	Used(u calls.Usage)
	// Renew wants the connection replaced by a new one, since the vendor ends it soon, if still is true once that is
	// ready.
	Renew(still func() bool)
	// Keep has something kept for the Talk that goes on where this one's connection breaks.
	Keep(state any)
	// Trouble tells of an error that the agent, or a tool of its, reports, and that the call survives.
	Trouble(code, message string)
}

// Error tells how an agent's connection ended.
type Error struct {
	Cause calls.Cause // AgentHangup for an orderly end, AgentLost, AgentTimeout, AgentProtocol
	Err   error
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the underlying error.
func (e *Error) Unwrap() error { return e.Err }

// EventKind says what an Event is.
type EventKind uint8

// What an agent is told.
const (
	EventAudio      EventKind = iota + 1 // one frame of the caller's audio
	EventDigit                           // the caller pressed a key
	EventMark                            // a mark was played or cleared
	EventCleared                         // a clear is done
	EventPlayback                        // the caller begins, or ceases, to hear the agent
	EventBuffer                          // how full the queue of the agent's audio is
	EventGap                             // caller audio that the agent did not get
	EventAck                             // a command with an id is done
	EventFault                           // a command was refused
	EventPong                            // answer to a ping of the agent's
	EventStop                            // the call is over
	EventAnsweredBy                      // who has picked up
	EventHold                            // the caller, or the agent, is held
	EventTransfer                        // how a transfer is
	EventReply                           // what the Talk itself wanted to say
)

// Event is something an agent is told. Only the fields of its kind are set,
// and the two clocks.
type Event struct {
	Kind EventKind

	// In is the call time of the caller audio sent to the agent so far, reported
	// gaps included. Out is the playhead on the agent's own timeline: how much of
	// the audio received from it the caller has heard or will never hear.
	In, Out time.Duration

	Audio    []byte        // EventAudio, in the format that the agent hears; valid during Send
	Digit    byte          // EventDigit
	Duration time.Duration // EventDigit: 0 if unknown; EventGap; EventStop: of the call
	Ref      string        // id of the command that this answers

	Mark       string     // EventMark: its name
	MarkStatus MarkStatus // EventMark
	Playback   Playback   // EventPlayback
	GapCause   GapCause   // EventGap
	AnsweredBy providers.AnsweredBy
	Hold       HoldState
	Transfer   TransferStatus
	End        calls.Cause // EventStop
	GoesOn     bool        // EventStop: the call does, with another connection

	ClearedBy ClearCause // EventCleared
	// Discarded is audio that a clear took back, Sent all received from the agent so
	// far.
	Discarded, Sent time.Duration
	Accuracy        time.Duration // of Out, at a clear: how far it may be off

	Buffer BufferLevel // EventBuffer
	// Queued is audio waiting here, Carrier what is estimated to wait at the carrier.
	Queued, Carrier time.Duration

	Code, Message string // EventFault
	Fatal         bool   // EventFault: the connection closes next

	Reply func(*providers.Messages) error // EventReply: adds what is said
}

// MarkStatus is what has become of a mark.
type MarkStatus string

// What becomes of marks.
const (
	MarkPlayed  MarkStatus = "played"
	MarkCleared MarkStatus = "cleared"
)

// Playback reports whether the caller hears the agent.
type Playback string

// The states of playback.
const (
	PlaybackStarted Playback = "started"
	PlaybackIdle    Playback = "idle"
)

// BufferLevel is how full the queue of the agent's audio is.
type BufferLevel string

// The levels: full is where no more fits, high at least a half, ok less than a sixth.
const (
	BufferOK   BufferLevel = "ok"
	BufferHigh BufferLevel = "high"
	BufferFull BufferLevel = "full"
)

// GapCause is why caller audio did not reach the agent.
type GapCause string

// The causes: an agent that did not read in time, and audio that never came from the carrier.
const (
	GapSlowReader GapCause = "slow_reader"
	GapLost       GapCause = "lost"
)

// ClearCause is who has asked for a clear.
type ClearCause string

// The causes: an agent that interrupts itself, and one that only listens from now on.
const (
	ClearByAgent ClearCause = "agent"
	ClearByMute  ClearCause = "agent_muted"
)

// HoldState tells who is held.
type HoldState string

// The states: the caller hears music instead of the agent, or the agent only listens
// while a third party is there.
const (
	Held    HoldState = "held"
	Resumed HoldState = "resumed"
	Muted   HoldState = "agent_muted"
	Unmuted HoldState = "agent_unmuted"
)

// TransferStatus is how a transfer of the call is.
type TransferStatus struct {
	ID, State, Reason string
}

// CommandKind says what an Command is.
type CommandKind uint8

// What an agent may ask for.
const (
	CommandUnknown  CommandKind = iota // a type that this version does not know
	CommandAudio                       // audio for the caller
	CommandMark                        // report when the audio so far is played
	CommandClear                       // discard what the caller has not heard
	CommandPause                       // stop playing, keep the queue
	CommandUnpause                     // go on
	CommandHangup                      // end the call
	CommandCancel                      // withdraw a queued command
	CommandReady                       // the agent is ready
	CommandPing                        // answer with EventPong
	CommandDigits                      // send digits to the other party
	CommandTransfer                    // move the call to somebody else
	CommandFault                       // the agent's message was refused: answer with Code and Message
)

// Command is something an agent asks for. Only the fields of its kind are set.
type Command struct {
	Kind CommandKind
	// CommandAudio, in the format that the agent speaks: any length, a sample may be split
	Audio    []byte
	ID       string                 // echoed as Ref
	Mark     string                 // CommandMark: its name
	Type     string                 // CommandUnknown: what the agent calls it
	Ref      string                 // CommandCancel: the ID of the command to withdraw
	Now      bool                   // CommandHangup, CommandDigits, CommandTransfer: at once, not after playback
	Transfer *calls.TransferRequest // CommandTransfer
	Digits   string                 // CommandDigits; see ValidDigits
	Tone     time.Duration          // CommandDigits: length of a tone
	Gap      time.Duration          // CommandDigits: length of the silence after it
	// Every is how often CommandReady wants the buffer reported; 0: on change only;
	// negative: as it was.
	Every         time.Duration
	Code, Message string // CommandFault
	Fatal         bool   // CommandFault: end the call
	// Cause is that of a fatal CommandFault; empty: AgentProtocol. With AgentLost the agent may be dialled again, and
	// with any what was queued is heard.
	Cause calls.Cause
}
