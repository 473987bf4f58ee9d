package session

import (
	"context"
	"encoding/json"
	"time"

	"voicebridge/codec"
	"voicebridge/providers"
	"voicebridge/ws"
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

// Known is what is known of a call from elsewhere than its media connection. All
// may be empty.
type Known struct {
	Call      string // the carrier's call id
	Account   string // the carrier's account id
	Direction string // inbound, outbound
	From, To  string // E.164 where they are numbers
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
	// dialled: 16-bit little-endian PCM.
	Formats() (hears, speaks codec.Format)
	// Dial connects and introduces the call. It returns when ctx ends.
	Dial(ctx context.Context, call *Call) (Agent, error)
}

// Agent is the connection to an agent for one call.
type Agent interface {
	// Formats are what this agent hears and speaks, whatever the Dialer thought.
	Formats() (hears, speaks codec.Format)
	// Serve gives what the agent wants from now on to h; see ws.Conn.
	Serve(loop *ws.Loop, h AgentHandler)
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

// Unwrap gives the underlying error.
func (e *AgentError) Unwrap() error { return e.Err }

// AgentEventKind says what an AgentEvent is.
type AgentEventKind uint8

// What an agent is told.
const (
	AgentAudio      AgentEventKind = iota + 1 // one frame of the caller's audio
	AgentDigit                                // the caller pressed a key
	AgentMark                                 // a mark was played or cleared
	AgentCleared                              // a clear is done
	AgentPlayback                             // State: started, idle
	AgentBuffer                               // State: ok, high, full
	AgentGap                                  // caller audio that the agent did not get
	AgentAck                                  // a command with an id is done
	AgentFault                                // a command was refused
	AgentPong                                 // answer to a ping of the agent's
	AgentStop                                 // the call is over
	AgentAnsweredBy                           // State: human, machine, fax, unknown
	AgentHeld                                 // State: held, resumed
	AgentTransfer                             // how a transfer is: Ref, Name, State, Cause
)

// AgentEvent is something an agent is told. Only the fields of its kind are set,
// and the two clocks.
type AgentEvent struct {
	Kind AgentEventKind

	// In is the call time of the caller audio sent to the agent so far, reported
	// gaps included. Out is the playhead on the agent's own timeline: how much of
	// the audio received from it the caller has heard or will never hear.
	In, Out time.Duration

	Audio    []byte        // AgentAudio, valid during Send
	Digit    byte          // AgentDigit
	Duration time.Duration // AgentDigit: 0 if unknown; AgentGap; AgentStop: of the call
	Name     string        // AgentMark
	State    string        // AgentMark: played, cleared; AgentPlayback; AgentBuffer
	Cause    string        // AgentCleared, AgentGap, AgentStop
	Ref      string        // id of the command that this answers
	// AgentCleared: audio discarded, and received from the agent so far.
	Discarded, Sent time.Duration
	// AgentBuffer: audio waiting here, and estimated to wait at the carrier.
	Queued, Carrier time.Duration
	Code, Message   string // AgentFault
	Fatal           bool   // AgentFault: the connection closes next
}

// AgentCommandKind says what an AgentCommand is.
type AgentCommandKind uint8

// What an agent may ask for.
const (
	CommandUnknown AgentCommandKind = iota // a type that this version does not know, in Name
	CommandAudio                           // audio for the caller
	CommandMark                            // report when the audio so far is played
	CommandClear                           // discard what the caller has not heard
	CommandPause                           // stop playing, keep the queue
	CommandUnpause                         // go on
	CommandHangup                          // end the call
	CommandCancel                          // withdraw a queued command
	CommandReady                           // the agent is ready; report the buffer every Every, if it is not negative
	CommandPing
	CommandDigits   // send digits to the other party
	CommandTransfer // move the call to somebody else
	CommandFault    // the agent's message was refused: answer with Code and Message
)

// Transfer is a wish to move the call to somebody else. It is passed on as it is.
type Transfer struct {
	To      string            `json:"to"`
	From    string            `json:"from"`
	Mode    string            `json:"mode"`
	Agent   string            `json:"agent"`
	Timeout int               `json:"timeout_s"` // to let it ring; 0: the usual time
	Whisper string            `json:"whisper"`
	Brief   string            `json:"brief"`
	Accept  string            `json:"accept"`
	Digits  string            `json:"digits"`
	Detect  bool              `json:"machine_detection"`
	Hold    string            `json:"hold"`
	OnFail  OnFail            `json:"on_fail"`
	OnEnd   string            `json:"on_end"`
	Context map[string]string `json:"context"`
}

// OnFail says what becomes of the caller by the reason of a failure; "" is for all
// others. As JSON it may also be one string, for all.
type OnFail map[string]string

// UnmarshalJSON implements json.Unmarshaler.
func (o *OnFail) UnmarshalJSON(b []byte) error {
	var all string
	if json.Unmarshal(b, &all) == nil {
		*o = OnFail{"": all}
		return nil
	}
	var by map[string]string
	if err := json.Unmarshal(b, &by); err != nil {
		return err
	}
	*o = by
	if d, ok := by["default"]; ok {
		by[""] = d
		delete(by, "default")
	}
	return nil
}

// AgentCommand is something an agent asks for. Only the fields of its kind are set.
type AgentCommand struct {
	Kind          AgentCommandKind
	Audio         []byte        // CommandAudio: any length, a sample may be split
	ID            string        // echoed as Ref
	Name          string        // CommandMark, CommandUnknown
	Ref           string        // CommandCancel: the ID of the command to withdraw
	Now           bool          // CommandHangup, CommandDigits, CommandTransfer: at once, not after playback
	Transfer      *Transfer     // CommandTransfer
	Digits        string        // CommandDigits; see ValidDigits
	Tone, Gap     time.Duration // CommandDigits: of a tone, and of the silence after it
	Every         time.Duration // CommandReady: 0 stops
	Code, Message string        // CommandFault
	Fatal         bool          // CommandFault: end the call
}
