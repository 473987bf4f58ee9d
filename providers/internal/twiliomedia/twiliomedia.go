// Package twiliomedia is the media connection of Twilio Media Streams, the bidirectional
// kind that <Connect><Stream> opens, and of carriers that speak it, too: text messages of
// JSON, G.711 mu-law at 8 kHz in base64. Source: Twilio's "Media Streams - WebSocket
// messages".
package twiliomedia

import (
	"voicebridge/codec"
	"voicebridge/providers/internal/mediajson"
)

// Dialect is how a carrier speaks it.
type Dialect struct {
	Name string // of the carrier
	// Session is true where commands do not know a call by its callSid, but by a session
	// that the start names, too.
	Session bool
}

// NewStream makes the bridge's end of a connection.
func (d *Dialect) NewStream() *Stream { return &Stream{dialect: d} }

// NewPeer makes the carrier's end of a connection.
func (d *Dialect) NewPeer() *Peer { return &Peer{dialect: d} }

// Format is the only one.
var Format = codec.Format{Encoding: codec.PCMU, Rate: 8000}

// mediaFormat is Format as the start message writes it.
var mediaFormat = startFormat{Encoding: "audio/x-mulaw", SampleRate: 8000, Channels: 1}

// message is any message in either direction. Counters and times are decimal
// strings on the wire.
type message struct {
	Event          string            `json:"event"`
	Protocol       string            `json:"protocol,omitempty"`
	Version        string            `json:"version,omitempty"`
	SequenceNumber mediajson.Counter `json:"sequenceNumber,omitzero"`
	StreamSid      string            `json:"streamSid,omitempty"`
	Start          *start            `json:"start,omitempty"`
	Media          *media            `json:"media,omitempty"`
	DTMF           *dtmf             `json:"dtmf,omitempty"`
	Mark           *mark             `json:"mark,omitempty"`
	Stop           *stop             `json:"stop,omitempty"`
}

type start struct {
	AccountSid       string          `json:"accountSid"`
	StreamSid        string          `json:"streamSid"`
	CallSid          string          `json:"callSid"`
	Tracks           []string        `json:"tracks"`
	CustomParameters mediajson.Texts `json:"customParameters"`
	MediaFormat      startFormat     `json:"mediaFormat"`
	Session          string          `json:"session,omitempty"` // see Dialect
	From             string          `json:"from,omitempty"`
	To               string          `json:"to,omitempty"`
	Context          string          `json:"context,omitempty"`
}

type startFormat struct {
	Encoding   string `json:"encoding"`
	SampleRate int    `json:"sampleRate"`
	Channels   int    `json:"channels"`
}

type media struct {
	Track     string            `json:"track,omitempty"`
	Chunk     mediajson.Counter `json:"chunk,omitzero"`
	Timestamp mediajson.Counter `json:"timestamp,omitzero"`
	Payload   string            `json:"payload"`
}

type dtmf struct {
	Track string `json:"track,omitempty"`
	Digit string `json:"digit"`
}

type mark struct {
	Name string `json:"name"`
}

type stop struct {
	AccountSid string `json:"accountSid"`
	CallSid    string `json:"callSid"`
	Session    string `json:"session,omitempty"`
}
