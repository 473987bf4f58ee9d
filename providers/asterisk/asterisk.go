// Package asterisk speaks to one's own Asterisk: ARI, its REST API and event socket, for the
// control of calls, and chan_websocket for their audio. Sources: the documentation and source
// of Asterisk, and what a running one says (testdata/README.md).
package asterisk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

	"voicebridge/codec"
	"voicebridge/providers"
	"voicebridge/providers/internal/asteriskmedia"
	"voicebridge/providers/internal/rest"
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
	NewExchange: NewExchange,
	Sample:      Sample,
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
	Rings:         true,
	RoomLeft:      true,
	PressesDigits: true,
	KeyWait:       0,
	SignsBodies:   true, // events come over a connection that the bridge has made
}

// Config is an account's block of the configuration.
type Config struct {
	URL      string `yaml:"url"` // of ARI, such as http://127.0.0.1:8088/ari
	Username string `yaml:"username"`
	Password string `yaml:"password"`
	App      string `yaml:"app"` // of Stasis, one for each bridge
	// Media is the section of websocket_client.conf with the URL of the bridge's media.
	Media  string `yaml:"media"`
	Format string `yaml:"format"` // of the audio: slin16, ulaw, alaw, slin, slin24 or slin48
	// Endpoint is how a number is dialled; {number} is its place, {digits} that of the number
	// without its plus.
	Endpoint string `yaml:"endpoint"`
	// Speech is the URL of a WAV file with what is to be said, which Asterisk fetches; {text}
	// is the place of the words. Prompts are sounds of Asterisk for words.
	Speech  string            `yaml:"speech"`
	Prompts map[string]string `yaml:"prompts"`
}

// NewAccount implements providers.Spec.
func NewAccount(setup providers.Setup) (*providers.Account, error) {
	cfg, base, err := readConfig(setup)
	if err != nil {
		return nil, err
	}
	return providers.NewAccount("", abilities, nil, newCommands(cfg, base, setup.HTTP)), nil
}

// readConfig reads and checks the configuration.
func readConfig(setup providers.Setup) (cfg Config, base *url.URL, err error) {
	if err = setup.Decode(&cfg); err != nil {
		return cfg, nil, err
	}
	cfg.App = cmp.Or(cfg.App, "voicebridge")
	cfg.Media = cmp.Or(cfg.Media, "voicebridge")
	cfg.Format = cmp.Or(cfg.Format, "slin16")
	base, wrong := url.Parse(cfg.URL)
	switch _, known := asteriskmedia.FormatOf(cfg.Format); {
	case wrong != nil || base.Host == "" || base.User != nil || base.Scheme != "http" && base.Scheme != "https":
		err = errors.New("url: must be the URL of ARI without user and password, such as http://127.0.0.1:8088/ari")
	case cfg.Username == "" || cfg.Password == "":
		err = errors.New("username, password: must be those of a user in ari.conf")
	case strings.ContainsAny(cfg.App, ", "):
		err = fmt.Errorf("app: %.40q must be the name of one Stasis application", cfg.App)
	case !known:
		err = fmt.Errorf("format: %.40q must be slin16, ulaw, alaw, slin, slin24 or slin48", cfg.Format)
	case cfg.Endpoint != "" && !strings.Contains(cfg.Endpoint, "{number}") &&
		!strings.Contains(cfg.Endpoint, "{digits}"):
		err = errors.New("endpoint: must have {number} or {digits} where the number goes, such as PJSIP/{number}@trunk")
	case cfg.Speech != "" && !(strings.Contains(cfg.Speech, "{text}") && rest.Secure(cfg.Speech, "https")):
		err = errors.New("speech: must be an https URL with {text} where the words go, such as " +
			"https://tts.example.com/say.wav?text={text}")
	}
	return cfg, base, err
}

// endpoint is how a number is dialled.
func (c *Config) endpoint(number string) string {
	return strings.NewReplacer("{number}", number, "{digits}", strings.TrimPrefix(number, "+")).Replace(c.Endpoint)
}

// sound is what Asterisk plays to say words; empty: nothing.
func (c *Config) sound(text string) string {
	if s := c.Prompts[text]; s != "" {
		return s
	}
	if c.Speech == "" {
		return ""
	}
	return "sound:" + strings.ReplaceAll(c.Speech, "{text}", url.QueryEscape(text))
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
