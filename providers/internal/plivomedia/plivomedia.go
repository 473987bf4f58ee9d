// Package plivomedia is the media connection of Plivo's Audio Streams, and of carriers that
// have copied it: text messages of JSON, mu-law or 16-bit samples in base64. Sources:
// Plivo's "Stream event protocol", Vobiz' "Audio streams".
package plivomedia

import (
	"fmt"

	"voicebridge/codec"
	"voicebridge/providers"
)

// Dialect is how a carrier speaks it.
type Dialect struct {
	Name string // of the carrier
	// L16In is the order of the bytes of what the caller says; what is played to it is
	// little-endian.
	L16In codec.Encoding
	// NamesStream puts the stream's id into audio that is sent, and leaves it out of the
	// marks that come back.
	NamesStream bool
	SendsDigits bool // sendDTMF
}

// NewStream makes the bridge's end of a connection.
func (d *Dialect) NewStream() *Stream { return &Stream{dialect: d} }

// NewPeer makes the carrier's end of a connection.
func (d *Dialect) NewPeer() *Peer { return &Peer{dialect: d} }

// Formats are those of the streams, the usual one first. Those of 16 bits are named by
// how they are sent to the carrier.
var Formats = []codec.Format{
	{Encoding: codec.PCMU, Rate: 8000},
	{Encoding: codec.L16LE, Rate: 8000},
	{Encoding: codec.L16LE, Rate: 16000},
}

// EncodingName is how the carrier names an encoding.
func EncodingName(e codec.Encoding) string {
	if e == codec.PCMU {
		return "audio/x-mulaw"
	}
	return "audio/x-l16"
}

// ContentType is how a document names a format.
func ContentType(f codec.Format) string {
	return fmt.Sprintf("%s;rate=%d", EncodingName(f.Encoding), f.Rate)
}

// FormatOf returns the format that a carrier names.
func (d *Dialect) FormatOf(encoding string, rate int) (codec.Format, error) {
	for _, f := range Formats {
		if EncodingName(f.Encoding) == encoding && f.Rate == rate {
			return f, nil
		}
	}
	return codec.Format{}, providers.FormatError(d.Name, encoding, rate, 1)
}

// Heard is the format of what the caller says.
func (d *Dialect) Heard(f codec.Format) codec.Format {
	if f.Encoding == codec.L16LE {
		f.Encoding = d.L16In
	}
	return f
}

// Start is a start of a stream whose audio to the carrier has the format.
func (d *Dialect) Start(f codec.Format) *providers.Start {
	return &providers.Start{In: d.Heard(f), Out: f}
}
