package session

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
}

// Custom returns the custom values of the call: its metadata, and the parameters that
// the carrier tells of a call that somebody else has answered.
func (c *Call) Custom() map[string]string {
	if len(c.Known.Metadata) > 0 {
		return c.Known.Metadata
	}
	return c.Start.Params
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
	Dial(ctx context.Context, call *Call) (Agent, error)
}

// Agent is the connection to an agent for one call.
type Agent interface {
	// Formats are what this agent hears and speaks, whatever the Dialer thought.
	Formats() (hears, speaks codec.Format)
	// Serve gives what the agent wants from now on to h.
	Serve(h AgentHandler)
	// Send delivers an event without waiting; it is called from one goroutine at a
	// time. Where more is false, h's Writable tells when more can be sent. A failure
	// ends the connection, which Gone tells.
	Send(ev *AgentEvent) (more bool, err error)
	// Close says goodbye, so that Gone is called soon after. It may be called at
	// any time, and more than once.
	Close(cause Cause)
	// Release returns when the connection has ended.
	Release()
}

// AgentHandler is given what an agent says. Command and Gone are called one at a
// time; Writable may be called at any time.
type AgentHandler interface {
	// Command is what the agent wants; cmd.Audio is valid until it returns.
	Command(cmd *AgentCommand)
	// Writable tells that what Send had to keep has gone.
	Writable()
	// Gone is the last call of Command and Gone; err is an *AgentError where the
	// agent's side is to blame.
	Gone(err error)
}

// AgentError tells how an agent's connection ended.
type AgentError struct {
	Cause Cause // AgentHangup for an orderly end, AgentLost, AgentTimeout, AgentProtocol
	Err   error
}

func (e *AgentError) Error() string { return e.Err.Error() }

// Unwrap returns the underlying error.
func (e *AgentError) Unwrap() error { return e.Err }

// AgentEventKind says what an AgentEvent is.
type AgentEventKind uint8

// What an agent is told.
const (
	AgentAudio      AgentEventKind = iota + 1 // one frame of the caller's audio
	AgentDigit                                // the caller pressed a key
	AgentMark                                 // a mark was played or cleared
	AgentCleared                              // a clear is done
	AgentPlayback                             // the caller begins, or ceases, to hear the agent
	AgentBuffer                               // how full the queue of the agent's audio is
	AgentGap                                  // caller audio that the agent did not get
	AgentAck                                  // a command with an id is done
	AgentFault                                // a command was refused
	AgentPong                                 // answer to a ping of the agent's
	AgentStop                                 // the call is over
	AgentAnsweredBy                           // who has picked up
	AgentHold                                 // the caller, or the agent, is held
	AgentTransfer                             // how a transfer is
)

// AgentEvent is something an agent is told. Only the fields of its kind are set,
// and the two clocks.
type AgentEvent struct {
	Kind AgentEventKind

	// In is the call time of the caller audio sent to the agent so far, reported
	// gaps included. Out is the playhead on the agent's own timeline: how much of
	// the audio received from it the caller has heard or will never hear.
	In, Out time.Duration

	Audio    []byte        // AgentAudio, in the format that the agent hears; valid during Send
	Digit    byte          // AgentDigit
	Duration time.Duration // AgentDigit: 0 if unknown; AgentGap; AgentStop: of the call
	Ref      string        // id of the command that this answers

	Mark       string     // AgentMark: its name
	MarkStatus MarkStatus // AgentMark
	Playback   Playback   // AgentPlayback
	GapCause   GapCause   // AgentGap
	AnsweredBy providers.AnsweredBy
	Hold       HoldState
	Transfer   TransferStatus
	End        Cause // AgentStop

	ClearedBy ClearCause // AgentCleared
	// Discarded is audio that a clear took back, Sent all received from the agent so
	// far.
	Discarded, Sent time.Duration

	Buffer BufferLevel // AgentBuffer
	// Queued is audio waiting here, Carrier what is estimated to wait at the carrier.
	Queued, Carrier time.Duration

	Code, Message string // AgentFault
	Fatal         bool   // AgentFault: the connection closes next
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

// GapSlowReader is for an agent that did not read in time.
const GapSlowReader GapCause = "slow_reader"

// ClearCause is who has asked for a clear.
type ClearCause string

// ClearByAgent is for an agent that interrupts itself.
const ClearByAgent ClearCause = "agent"

// HoldState tells who is held.
type HoldState string

// The states: the caller hears music instead of the agent, or the agent only listens
// while a third party is there.
const (
	Held         HoldState = "held"
	Resumed      HoldState = "resumed"
	AgentMuted   HoldState = "agent_muted"
	AgentUnmuted HoldState = "agent_unmuted"
)

// TransferStatus is how a transfer of the call is.
type TransferStatus struct {
	ID, State, Reason string
}

// AgentCommandKind says what an AgentCommand is.
type AgentCommandKind uint8

// What an agent may ask for.
const (
	CommandUnknown  AgentCommandKind = iota // a type that this version does not know
	CommandAudio                            // audio for the caller
	CommandMark                             // report when the audio so far is played
	CommandClear                            // discard what the caller has not heard
	CommandPause                            // stop playing, keep the queue
	CommandUnpause                          // go on
	CommandHangup                           // end the call
	CommandCancel                           // withdraw a queued command
	CommandReady                            // the agent is ready
	CommandPing                             // answer with AgentPong
	CommandDigits                           // send digits to the other party
	CommandTransfer                         // move the call to somebody else
	CommandFault                            // the agent's message was refused: answer with Code and Message
)

// AgentCommand is something an agent asks for. Only the fields of its kind are set.
type AgentCommand struct {
	Kind AgentCommandKind
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
}
