// Package telnyxmedia is the media connection of Telnyx: text messages of JSON that hold
// audio in base64, in a format of its own for each direction. Source: Telnyx' "Media
// streaming over WebSockets".
package telnyxmedia

import (
	"voicebridge/codec"
	"voicebridge/providers"
)

// Media is such a connection.
type Media struct {
	// Format is that of the audio to the caller, as the client_state of the start tells;
	// State is the reverse.
	Format func(clientState string) codec.Format
	State  func(f codec.Format) string
}

// NewStream makes the bridge's end of a connection.
func (m *Media) NewStream() *Stream { return &Stream{media: m} }

// NewPeer makes the carrier's end of a connection.
func (m *Media) NewPeer() *Peer { return &Peer{media: m} }

// Formats are those of the streams, the usual one first. The order of the bytes of L16 is
// nowhere said: see Stream.
var Formats = []codec.Format{
	{Encoding: codec.PCMU, Rate: 8000},
	{Encoding: codec.PCMA, Rate: 8000},
	{Encoding: codec.L16BE, Rate: 16000},
	{Encoding: codec.L16BE, Rate: 8000},
	{Encoding: codec.L16BE, Rate: 24000},
}

// Names of the encodings.
var Names = map[codec.Encoding]string{codec.PCMU: "PCMU", codec.PCMA: "PCMA", codec.L16BE: "L16"}

// FormatOf returns the format with a name.
func FormatOf(encoding string, rate, channels int) (codec.Format, error) {
	for _, f := range Formats {
		if Names[f.Encoding] == encoding && f.Rate == rate && channels <= 1 {
			return f, nil
		}
	}
	return codec.Format{}, providers.FormatError("telnyx", encoding, rate, channels)
}
