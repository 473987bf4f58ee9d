package session

import (
	"voicebridge/calls"
	"voicebridge/providers"
)

// Media is the carrier's media connection of one call: a WebSocket, or whatever else
// carries audio. Its life has three steps: Serve, Close, Release.
type Media interface {
	// Serve gives what comes from now on to h.
	Serve(h MediaHandler)
	// Put sends a message without waiting; m.Data may be used again once it returns.
	// Where more is false, h's Writable tells when more can be sent. A failure ends
	// the connection, which Closed tells.
	Put(m providers.Message) (more bool, err error)
	// Close ends the connection and tells the carrier why. It may be called before
	// Serve, and more than once.
	Close(end calls.End)
	// Release returns when the connection has ended.
	Release()
}

// MediaHandler is given what comes over a media connection. Message and Closed are
// called one at a time; Writable may be called at any time.
type MediaHandler interface {
	// Message is a whole message; m.Data is valid until it returns.
	Message(m providers.Message)
	// Writable tells that what Put had to keep has gone.
	Writable()
	// Closed is the last call of Message and Closed. end says how the connection
	// ended, as far as the carrier's side is to blame: CallerHangup for an orderly
	// end, CarrierLost, CarrierTimeout, MediaTimeout, ProtocolError.
	Closed(end calls.End)
}
