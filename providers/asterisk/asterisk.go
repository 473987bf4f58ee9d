// Package asterisk speaks to one's own Asterisk: ARI, its REST API and event socket, for the
// control of calls, and chan_websocket for their audio. Sources: the documentation and source
// of Asterisk, and what a running one says (testdata/README.md).
package asterisk

import (
	"context"
	"net"
	"net/http"

	"voicebridge/codec"
	"voicebridge/providers"
	"voicebridge/providers/asterisk/ari"
	"voicebridge/providers/asterisk/pbx"
	"voicebridge/providers/internal/asteriskmedia"
)

// Spec describes Asterisk.
var Spec = &providers.Spec{
	Name: "asterisk", Title: "Asterisk ARI and chan_websocket",
	Formats: []codec.Format{
		{Encoding: codec.L16LE, Rate: 16000}, {Encoding: codec.PCMU, Rate: 8000}, {Encoding: codec.PCMA, Rate: 8000},
		{Encoding: codec.L16LE, Rate: 8000}, {Encoding: codec.L16LE, Rate: 24000}, {Encoding: codec.L16LE, Rate: 48000},
	},
	Abilities:   abilities,
	Subprotocol: "media",
	NewStream:   func() providers.Stream { return new(asteriskmedia.Stream) },
	NewPeer:     func() providers.Peer { return new(asteriskmedia.Peer) },
	NewAccount:  NewAccount,
	NewExchange: pbx.New,
	Sample:      pbx.Sample,
}

// abilities are what Asterisk can do. It says what is to be said only where somebody makes
// speech of words.
var abilities = providers.Abilities{
	Marks:         true,
	Clear:         true,
	Digits:        true,
	FixedFrames:   true,
	Silent:        true,
	Queue:         asteriskmedia.MaxQueue,
	Commanded:     true,
	DialStrings:   true,
	Detects:       true,
	DetectsHumans: true,
	DetectDigits:  true,
	Rings:         true,
	RoomLeft:      true,
	PressesDigits: true,
	KeyWait:       0,
	SignsBodies:   true, // events come over a connection that the bridge has made
}

// NewAccount implements providers.Spec.
func NewAccount(setup providers.Setup) (*providers.Account, error) {
	cfg, base, err := ari.ReadConfig(setup)
	if err != nil {
		return nil, err
	}
	return providers.NewAccount("", abilities, nil, newCommands(cfg, base, setup.HTTP)), nil
}

// dialFunc is how a RoundTripper makes connections; nil: as usual.
func dialFunc(t http.RoundTripper) func(ctx context.Context, network, address string) (net.Conn, error) {
	if t == nil {
		t = http.DefaultTransport
	}
	if t, ok := t.(*http.Transport); ok {
		return t.DialContext
	}
	return nil
}
