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
	"slices"

	"voicebridge/codec"
	"voicebridge/providers"
	"voicebridge/providers/internal/rest"
)

// Spec describes Telnyx.
var Spec = &providers.Spec{
	Name: "telnyx", Title: "Telnyx Call Control",
	Formats:     formats,
	Abilities:   abilities,
	NewStream:   func() providers.Stream { return &Stream{} },
	NewPeer:     func() providers.Peer { return &Peer{} },
	NewAccount:  NewAccount,
	NewExchange: NewExchange,
	Sample:      Sample,
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
	Detects:       true,
	DetectsHumans: true,
	DetectDigits:  true,
	SignsBodies:   true,
}

// formats are those of the streams, the usual one first. The order of the bytes of L16 is
// nowhere said: see Stream.
var formats = []codec.Format{
	{Encoding: codec.PCMU, Rate: 8000},
	{Encoding: codec.PCMA, Rate: 8000},
	{Encoding: codec.L16BE, Rate: 16000},
	{Encoding: codec.L16BE, Rate: 8000},
	{Encoding: codec.L16BE, Rate: 24000},
}

// names of the encodings.
var names = map[codec.Encoding]string{codec.PCMU: "PCMU", codec.PCMA: "PCMA", codec.L16BE: "L16"}

// formatOf returns the format with a name.
func formatOf(encoding string, rate, channels int) (codec.Format, error) {
	for _, f := range formats {
		if names[f.Encoding] == encoding && f.Rate == rate && channels <= 1 {
			return f, nil
		}
	}
	return codec.Format{}, providers.FormatError("telnyx", encoding, rate, channels)
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

// encodings, as the configuration names them.
var encodings = map[string]codec.Encoding{"pcmu": codec.PCMU, "pcma": codec.PCMA, "l16": codec.L16BE}

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
	f = codec.Format{Encoding: encodings[cfg.Encoding], Rate: cmp.Or(cfg.Rate, 8000)}
	switch {
	case cfg.APIKey == "":
		err = errors.New("api_key: must be an API key of the account")
	case err != nil || len(key) != ed25519.PublicKeySize:
		err = errors.New("public_key: must be the account's public key, base64 of 32 bytes: it checks webhooks")
	case cfg.ConnectionID == "":
		err = errors.New("connection_id: must be the id of the Call Control application")
	case encodings[cfg.Encoding] == 0 && cfg.Encoding != "pcmu":
		err = fmt.Errorf("encoding: %.40q must be pcmu, pcma or l16", cfg.Encoding)
	case !slices.Contains(formats, f):
		err = fmt.Errorf("rate: %d must be 8000, or 8000, 16000 or 24000 with encoding l16", cfg.Rate)
	default:
		base, err = rest.CheckBaseURL(cmp.Or(cfg.BaseURL, defaultBaseURL))
	}
	return cfg, f, key, base, err
}
