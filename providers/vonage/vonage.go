// Package vonage speaks the WebSocket endpoint of Vonage's Voice API: binary
// messages of 16-bit little-endian PCM, one frame of 20 ms each, and text
// messages of JSON. Source: Vonage's "WebSockets in the Voice API".
package vonage

import (
	"fmt"
	"mime"
	"strconv"
	"strings"
	"time"

	"voicebridge/codec"
	"voicebridge/providers"
)

// Spec describes Vonage.
var Spec = &providers.Spec{
	Name:        "vonage",
	Title:       "Vonage Voice API WebSocket",
	Formats:     formats,
	Abilities:   abilities,
	NewStream:   func() providers.Stream { return &Stream{} },
	NewPeer:     func() providers.Peer { return &Peer{} },
	NewAccount:  NewAccount,
	NewExchange: NewExchange,
	Sample:      Sample,
}

// abilities are what Vonage can do.
var abilities = providers.Abilities{
	Marks:       true, // notify
	StreamStays: true,
	Clear:       true,
	Digits:      true,
	FixedFrames: true,
	Clears:      true,
	Queue:       3072 * codec.FrameTime,

	CompletesFirst: true,
	AnswerWait:     5 * time.Second,
	RoomAtLeg:      true,
	DetectDigits:   true,
	DigitsAtOnce:   digitsAtOnce,
	RoomEnds:       true,
	Rings:          true,
	RoomHold:       true,
	PressesDigits:  true,
	Detects:        true,
	DetectsHumans:  true,
	SignsBodies:    true,
	SignsHandshake: true,
}

// formats are the values of content-type, the usual one first.
var formats = []codec.Format{
	{Encoding: codec.L16LE, Rate: 16000},
	{Encoding: codec.L16LE, Rate: 8000},
	{Encoding: codec.L16LE, Rate: 24000},
}

// The events that Vonage sends as text.
const (
	eventConnected = "websocket:connected"
	eventDTMF      = "websocket:dtmf"
	eventCleared   = "websocket:cleared"
	eventNotify    = "websocket:notify"
)

// parseContentType reads audio/l16;rate=16000.
func parseContentType(s string) (codec.Format, error) {
	kind, params, err := mime.ParseMediaType(s)
	rate, _ := strconv.Atoi(params["rate"])
	for _, f := range formats {
		if err == nil && strings.EqualFold(kind, "audio/l16") && f.Rate == rate {
			return f, nil
		}
	}
	return codec.Format{}, providers.FormatError("vonage", s, rate, 1)
}

func contentType(f codec.Format) string { return fmt.Sprintf("audio/l16;rate=%d", f.Rate) }

// action is a text message to Vonage.
type action struct {
	Action  string   `json:"action"`
	Payload *payload `json:"payload,omitempty"`
}

// payload of a notify. Vonage echoes any object; ours holds a mark.
type payload struct {
	Mark string `json:"mark"`
}

// maxDigit is the longest time a digit is taken to have been held.
const maxDigit = time.Minute
