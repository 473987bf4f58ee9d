// Package telnyx speaks Telnyx' Call Control and its media streams. Telnyx takes no
// documents: it tells what happens, and each step of a call is a command. Sources: Telnyx'
// "Media streaming over WebSockets", "Webhook fundamentals", "Call Control" and the types
// of its SDKs.
package telnyx

import (
	"cmp"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"voicebridge/codec"
	"voicebridge/providers"
	"voicebridge/providers/internal/rest"
	"voicebridge/providers/internal/telnyxmedia"
)

// Spec describes Telnyx.
var Spec = &providers.Spec{
	Name: "telnyx", Title: "Telnyx Call Control",
	Formats:     telnyxmedia.Formats,
	Abilities:   abilities,
	NewStream:   func() providers.Stream { return media.NewStream() },
	NewPeer:     func() providers.Peer { return media.NewPeer() },
	NewAccount:  NewAccount,
	NewExchange: NewExchange,
	Sample:      Sample,
}

// media is the media connection. The format of the audio to the caller is told in the state
// that is given with the stream.
var media = &telnyxmedia.Media{
	Format: func(clientState string) codec.Format {
		st, _ := decodeState(clientState) // whatever else it may be, it is not ours
		return st.format()
	},
	State: func(f codec.Format) string { return stateOf(f).encode() },
}

// abilities are what Telnyx can do. Only who joins a conference can end it, not the one
// that it is begun with.
var abilities = providers.Abilities{
	Marks:       true,
	Clear:       true,
	ClearMarks:  true,
	Digits:      true,
	Greets:      true,
	Reorders:    true,
	StreamStays: true,

	Commanded:     true,
	RoomLeft:      true,
	RoomHold:      true,
	PressesDigits: true,
	Detects:       true,
	DetectsHumans: true,
	DetectDigits:  true,
	SignsBodies:   true,
}

// Config is an account's block of the configuration.
type Config struct {
	APIKey string `yaml:"api_key"`
	// PublicKey checks the signatures of webhooks: base64 of 32 bytes.
	PublicKey    string `yaml:"public_key"`
	ConnectionID string `yaml:"connection_id"` // of the Call Control application
	// Encoding is that of the audio to the caller: pcmu, pcma or l16; Rate of l16 is 8000,
	// 16000 or 24000. What the caller says comes as its phone has it.
	Encoding string `yaml:"encoding"`
	Rate     int    `yaml:"rate"`
	Voice    string `yaml:"voice"`    // that says texts; empty: female
	Language string `yaml:"language"` // of texts; empty: en-US
	BaseURL  string `yaml:"base_url"` // of the REST API; empty: Telnyx'

	signer ed25519.PrivateKey // of a simulated Telnyx
}

const defaultBaseURL = "https://api.telnyx.com/v2"

// NewAccount implements providers.Spec.
func NewAccount(setup providers.Setup) (*providers.Account, error) {
	cfg, f, key, base, err := readConfig(setup)
	if err != nil {
		return nil, err
	}
	return providers.NewAccount("", abilities, &webhooks{key}, newCommands(cfg, f, base, setup.HTTP)), nil
}

// readConfig reads and checks the configuration.
func readConfig(setup providers.Setup) (cfg Config, f codec.Format, key ed25519.PublicKey, base *url.URL, err error) {
	cfg = Config{Encoding: "pcmu", Voice: "female", Language: "en-US"}
	if err = setup.Decode(&cfg); err != nil {
		return cfg, f, nil, nil, err
	}
	key, err = base64.StdEncoding.DecodeString(cfg.PublicKey)
	f, unknown := telnyxmedia.FormatOf(strings.ToUpper(cfg.Encoding), cmp.Or(cfg.Rate, 8000), 1)
	switch {
	case cfg.APIKey == "":
		err = errors.New("api_key: must be an API key of the account")
	case err != nil || len(key) != ed25519.PublicKeySize:
		err = errors.New("public_key: must be the account's public key, base64 of 32 bytes: it checks webhooks")
	case cfg.ConnectionID == "":
		err = errors.New("connection_id: must be the id of the Call Control application")
	case unknown != nil:
		err = fmt.Errorf("encoding, rate: %.40q at %d Hz must be pcmu or pcma at 8000, or l16 at 8000, 16000 or 24000",
			cfg.Encoding, cfg.Rate)
	default:
		base, err = rest.CheckBaseURL(cmp.Or(cfg.BaseURL, defaultBaseURL))
	}
	return cfg, f, key, base, err
}
