// Package asteriskmedia is the media connection of Asterisk's chan_websocket: audio as it is,
// and events and commands as plain text or JSON. Sources: its documentation and source, and what
// a running Asterisk says.
package asteriskmedia

import (
	"crypto/rand"
	"strings"

	"voicebridge/codec"
)

// MaxQueue is what Asterisk's queue holds, 900 frames, before it asks for a pause.
const MaxQueue = 900 * codec.FrameTime

// names are Asterisk's for formats of audio. Its signed linear is that of the machine, which
// is little-endian on all that it is packaged for.
var names = []struct {
	name   string
	format codec.Format
}{
	{"ulaw", codec.Format{Encoding: codec.PCMU, Rate: 8000}},
	{"alaw", codec.Format{Encoding: codec.PCMA, Rate: 8000}},
	{"slin", codec.Format{Encoding: codec.L16LE, Rate: 8000}},
	{"slin16", codec.Format{Encoding: codec.L16LE, Rate: 16000}},
	{"slin24", codec.Format{Encoding: codec.L16LE, Rate: 24000}},
	{"slin48", codec.Format{Encoding: codec.L16LE, Rate: 48000}},
}

// FormatOf is the format that Asterisk calls so.
func FormatOf(name string) (f codec.Format, known bool) {
	for _, n := range names {
		if n.name == name {
			return n.format, true
		}
	}
	return f, false
}

// NameOf is Asterisk's name of a format.
func NameOf(f codec.Format) string {
	for _, n := range names {
		if n.format == f {
			return n.name
		}
	}
	return ""
}

// Channels that the bridge makes for the audio of a leg have the leg's id, then this, then
// something of their own. So whoever sees one knows what it is for.
const mediaMark = ".media-"

// ChannelOf makes the id of a channel with the audio of a leg.
func ChannelOf(leg string) string { return leg + mediaMark + strings.ToLower(rand.Text()[:12]) }

// IsChannel reports whether an id is that of a channel with the audio of a leg.
func IsChannel(id string) bool { return strings.Contains(id, mediaMark) }

// LegOf is the leg that a channel with audio belongs to.
func LegOf(channel string) string {
	if i := strings.LastIndex(channel, mediaMark); i > 0 {
		return channel[:i]
	}
	return channel
}
