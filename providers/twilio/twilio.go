// Package twilio speaks Twilio Media Streams, the bidirectional kind that
// <Connect><Stream> opens: text messages of JSON, G.711 mu-law at 8 kHz in
// base64. Source: Twilio's "Media Streams - WebSocket messages".
package twilio

import (
	"time"

	"voicebridge/codec"
	"voicebridge/providers"
	"voicebridge/providers/internal/twiliomedia"
)

// Spec describes Twilio.
var Spec = &providers.Spec{
	Name:        "twilio",
	Title:       "Twilio Media Streams",
	Formats:     []codec.Format{twiliomedia.Format},
	Abilities:   abilities,
	NewStream:   func() providers.Stream { return dialect.NewStream() },
	NewPeer:     func() providers.Peer { return dialect.NewPeer() },
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
	Rings:          true,
	RoomHold:       true,
	Detects:        true,
	DetectsHumans:  true,
	SignsBodies:    true,
	SignsHandshake: true,
	AnswerWait:     15 * time.Second,
}

var dialect = &twiliomedia.Dialect{Name: "twilio"}
