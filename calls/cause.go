package calls

// Cause is why a session ended: the same word in the log, in metrics, in the
// stop message to the agent and in the API.
type Cause string

// The causes.
const (
	CallerHangup     Cause = "caller_hangup"     // the carrier ended the stream in good order
	Transferred      Cause = "transferred"       // the carrier has taken the call elsewhere, as it was told
	CarrierLost      Cause = "carrier_lost"      // the carrier's connection broke
	CarrierTimeout   Cause = "carrier_timeout"   // the carrier does not read what is sent
	StartTimeout     Cause = "start_timeout"     // no start message in time
	MediaTimeout     Cause = "media_timeout"     // nothing from the carrier for too long
	ProtocolError    Cause = "protocol_error"    // the carrier's messages make no sense
	AgentHangup      Cause = "agent_hangup"      // the agent ended the call
	APIHangup        Cause = "api_hangup"        // the call was ended through the API
	AgentUnreachable Cause = "agent_unreachable" // the agent could not be dialled
	AgentLost        Cause = "agent_lost"        // the agent's connection broke
	AgentTimeout     Cause = "agent_timeout"     // the agent does not read, or does not answer
	AgentSilent      Cause = "agent_silent"      // the agent was connected but said nothing
	AgentProtocol    Cause = "agent_protocol"    // the agent's messages make no sense, or too much of them
	MaxDuration      Cause = "max_duration"      // the limit on the length of a call
	Shutdown         Cause = "shutdown"          // the bridge is stopping
	BridgeFault      Cause = "bridge_fault"      // a fault of the bridge's own: the log has more
)

// Causes lists all of them, for metrics and documents.
var Causes = []Cause{CallerHangup, Transferred, CarrierLost, CarrierTimeout, StartTimeout, MediaTimeout, ProtocolError,
	AgentHangup, APIHangup, AgentUnreachable, AgentLost, AgentTimeout, AgentSilent, AgentProtocol, MaxDuration,
	Shutdown, BridgeFault}

// AgentFailed reports whether the caller is left without an agent that should be
// there.
func (c Cause) AgentFailed() bool {
	switch c {
	case AgentUnreachable, AgentLost, AgentTimeout, AgentSilent, AgentProtocol, BridgeFault:
		return true
	}
	return false
}

// Fault reports whether somebody has to look after it: the agent's, the carrier's, the bridge's.
func (c Cause) Fault() bool {
	switch c {
	case CallerHangup, Transferred, AgentHangup, APIHangup, MaxDuration, Shutdown:
		return false
	}
	return true
}

// ByCarrier reports whether the carrier knows of the end already.
func (c Cause) ByCarrier() bool {
	return c == CallerHangup || c == Transferred || c == CarrierLost || c == CarrierTimeout
}

// End is how a session ended: its cause, and the error behind it if there is one.
type End struct {
	Cause Cause
	Err   error
}

// Error makes an End the cause of a cancelled context.
func (e *End) Error() string {
	if e.Err == nil {
		return string(e.Cause)
	}
	return string(e.Cause) + ": " + e.Err.Error()
}

// Unwrap returns the error behind it.
func (e *End) Unwrap() error { return e.Err }
