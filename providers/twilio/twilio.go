// Package twilio speaks Twilio Media Streams, the bidirectional kind that
// <Connect><Stream> opens: text messages of JSON, G.711 mu-law at 8 kHz in
// base64. Source: Twilio's "Media Streams - WebSocket messages".
package twilio

import (
	"voicebridge/codec"
	"voicebridge/providers"
	"voicebridge/providers/internal/mediajson"
)

// Spec describes Twilio.
var Spec = &providers.Spec{
	Name:        "twilio",
	Title:       "Twilio Media Streams",
	Formats:     []codec.Format{format},
	Abilities:   abilities,
	NewStream:   func() providers.Stream { return &Stream{} },
	NewPeer:     func() providers.Peer { return &Peer{} },
	NewAccount:  NewAccount,
	NewExchange: NewExchange,
	Sample:      Sample,
}

// abilities are what Twilio can do.
var abilities = providers.Abilities{
	Marks:          true,
	Clear:          true,
	Digits:         true,
	ClearMarks:     true,
	Greets:         true,
	RoomLeft:       true,
	RoomEnds:       true,
	Detects:        true,
	DetectsHumans:  true,
	SignsBodies:    true,
	SignsHandshake: true,
}

// format is the only one that Twilio has.
var format = codec.Format{Encoding: codec.PCMU, Rate: 8000}

// mediaFormat is format as the start message writes it.
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
	AccountSid       string            `json:"accountSid"`
	StreamSid        string            `json:"streamSid"`
	CallSid          string            `json:"callSid"`
	Tracks           []string          `json:"tracks"`
	CustomParameters map[string]string `json:"customParameters"`
	MediaFormat      startFormat       `json:"mediaFormat"`
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
}
