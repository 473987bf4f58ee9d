// Package ari has what both ends of ARI know: the configuration of an account, the names of
// channels and bridges, and the state that a channel carries.
package ari

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os/exec"
	"regexp"
	"slices"
	"strings"

	"voicebridge/providers"
	"voicebridge/providers/internal/asteriskmedia"
	"voicebridge/providers/internal/rest"
)

// Config is an account's block of the configuration.
type Config struct {
	URL string `yaml:"url"` // of ARI, such as http://127.0.0.1:8088/ari
	// Incoming tells that Asterisk connects to the bridge instead (type=outbound_websocket in
	// ari.conf), with Username and Password; there is no URL then.
	Incoming bool   `yaml:"incoming"`
	Username string `yaml:"username"`
	Password string `yaml:"password"`
	App      string `yaml:"app"` // of Stasis, one for each bridge
	// Media is the section of websocket_client.conf with the URL of the bridge's media.
	Media  string `yaml:"media"`
	Format string `yaml:"format"` // of the audio: slin16, ulaw, alaw, slin, slin24 or slin48
	// Transport is how audio comes: websocket, which Asterisk opens; dial, a WebSocket that the
	// bridge opens; rtp; audiosocket.
	Transport string `yaml:"transport"`
	// Address is that of the bridge for RTP and AudioSocket, as Asterisk reaches it, Ports the
	// range that it listens at.
	Address string `yaml:"address"`
	Ports   string `yaml:"ports"`
	// Endpoint is how a number is dialled; {number} is its place, {digits} that of the number
	// without its plus.
	Endpoint string `yaml:"endpoint"`
	// Dial are what else may be dialled, such as PJSIP/* and Local/*@queues; * is any text.
	Dial []string `yaml:"dial"`
	// Detect is the context of the dialplan that calls with machine detection go through: AMD,
	// and then Stasis.
	Detect string `yaml:"detect"`
	// Speech makes sound of words. Prompts are sounds of Asterisk for words.
	Speech  Speech            `yaml:"speech"`
	Prompts map[string]string `yaml:"prompts"`
}

// Speech is how words become sound: one of the two.
type Speech struct {
	// URL is that of a WAV file, which Asterisk fetches; {text} is the place of the words,
	// {language} and {voice} those of what is said about how.
	URL string `yaml:"url"`
	// Command reads words from its standard input and writes a WAV file. Asterisk fetches that
	// from the bridge.
	Command []string `yaml:"command"`
}

// ReadConfig reads and checks the configuration.
func ReadConfig(setup providers.Setup) (cfg Config, base *url.URL, err error) {
	if err = setup.Decode(&cfg); err != nil {
		return cfg, nil, err
	}
	cfg.App = cmp.Or(cfg.App, "voicebridge")
	cfg.Media = cmp.Or(cfg.Media, "voicebridge")
	cfg.Format = cmp.Or(cfg.Format, "slin16")
	cfg.Transport = cmp.Or(cfg.Transport, OverWebSocket)
	cfg.Ports = cmp.Or(cfg.Ports, "20000-20999")
	at := cfg.URL
	if cfg.Incoming {
		at = "http://asterisk" // of requests that never leave their connection
	}
	base, wrong := url.Parse(at)
	switch _, known := asteriskmedia.FormatOf(cfg.Format); {
	case cfg.Incoming && cfg.URL != "":
		err = errors.New("url: must be left out where incoming has Asterisk connect to the bridge")
	case cfg.Incoming && cfg.Transport == OverDialed:
		err = fmt.Errorf("transport: %s needs the url of Asterisk, which incoming has none of", OverDialed)
	case wrong != nil || base.Host == "" || base.User != nil || base.Scheme != "http" && base.Scheme != "https":
		err = errors.New("url: must be the URL of ARI without user and password, such as http://127.0.0.1:8088/ari")
	case cfg.Username == "" || cfg.Password == "":
		err = errors.New("username, password: must be those of a user in ari.conf")
	case strings.ContainsAny(cfg.App, ", "):
		err = fmt.Errorf("app: %.40q must be the name of one Stasis application", cfg.App)
	case !known:
		err = fmt.Errorf("format: %.40q must be slin16, ulaw, alaw, slin, slin24 or slin48", cfg.Format)
	case !slices.Contains(transports, cfg.Transport):
		err = fmt.Errorf("transport: %.40q must be one of %s", cfg.Transport, strings.Join(transports, ", "))
	case cfg.listens() && net.ParseIP(cfg.Address) == nil:
		err = fmt.Errorf("address: must be the IP address at which Asterisk reaches the bridge, for %s", cfg.Transport)
	case cfg.listens() && !cfg.hasPorts():
		err = fmt.Errorf("ports: %.40q must be a range such as 20000-20999", cfg.Ports)
	case cfg.Transport == OverAudioSocket && !strings.HasPrefix(cfg.Format, "slin"):
		err = fmt.Errorf("format: %.40q must be slin16, slin, slin24 or slin48 for %s", cfg.Format, OverAudioSocket)
	case cfg.Endpoint != "" && !strings.Contains(cfg.Endpoint, "{number}") &&
		!strings.Contains(cfg.Endpoint, "{digits}"):
		err = errors.New("endpoint: must have {number} or {digits} where the number goes, such as PJSIP/{number}@trunk")
	case cfg.Speech.URL != "" && len(cfg.Speech.Command) > 0:
		err = errors.New("speech: must have url or command, not both")
	case cfg.Speech.URL != "" && !(strings.Contains(cfg.Speech.URL, "{text}") && rest.Secure(cfg.Speech.URL, "https")):
		err = errors.New("speech.url: must be an https URL with {text} where the words go, such as " +
			"https://tts.example.com/say.wav?text={text}")
	case len(cfg.Speech.Command) > 0 && !runs(cfg.Speech.Command[0]):
		err = fmt.Errorf("speech.command: there is no program %.60q", cfg.Speech.Command[0])
	case slices.ContainsFunc(cfg.Dial, func(p string) bool { return !strings.Contains(p, "/") }):
		err = errors.New("dial: must be dial strings such as PJSIP/alice or Local/*@queues")
	}
	return cfg, base, err
}

// The transports.
const (
	OverWebSocket = "websocket"
	OverDialed    = "dial"
	OverRTP       = "rtp"

	OverAudioSocket = "audiosocket"
)

var transports = []string{OverWebSocket, OverDialed, OverRTP, OverAudioSocket}

// listens reports whether the bridge listens at a port for each call.
func (c *Config) listens() bool { return c.Transport == OverRTP || c.Transport == OverAudioSocket }

// PortRange is the first and the last one for RTP.
func (c *Config) PortRange() (first, last int) {
	_, _ = fmt.Sscanf(c.Ports, "%d-%d", &first, &last) // checked before
	return first, last
}

func (c *Config) hasPorts() bool {
	first, last := c.PortRange()
	return 0 < first && first <= last && last < 1<<16 && c.Ports == fmt.Sprintf("%d-%d", first, last)
}

// runs reports whether there is a program.
func runs(program string) bool {
	_, err := exec.LookPath(program)
	return err == nil
}

// EndpointOf is how something is dialled: a number, or a dial string that is allowed. Empty: it
// is not.
func (c *Config) EndpointOf(to string) string {
	if !providers.ValidNumber(to) {
		if slices.ContainsFunc(c.Dial, func(pattern string) bool { return fits(pattern, to) }) {
			return to
		}
		return ""
	}
	return strings.NewReplacer("{number}", to, "{digits}", strings.TrimPrefix(to, "+")).Replace(c.Endpoint)
}

// fits reports whether text is a pattern's; a star stands for anything but what would name
// another channel.
func fits(pattern, text string) bool {
	parts := strings.Split(pattern, "*")
	for i, p := range parts {
		parts[i] = regexp.QuoteMeta(p)
	}
	is, err := regexp.MatchString("^"+strings.Join(parts, `[^/&\s]*`)+"$", text)
	return err == nil && is
}

// Sound is what Asterisk plays to say words; empty: nothing. published is the URL of a WAV file
// with words that the bridge makes.
func (c *Config) Sound(a *providers.Answer, published func(a *providers.Answer) string) string {
	switch {
	case c.Prompts[a.Say] != "":
		return c.Prompts[a.Say]
	case c.Speech.URL != "":
		return "sound:" + strings.NewReplacer("{text}", url.QueryEscape(a.Say), "{language}",
			url.QueryEscape(a.Language),
			"{voice}", url.QueryEscape(a.Voice)).Replace(c.Speech.URL)
	case len(c.Speech.Command) > 0:
		return "sound:" + published(a)
	}
	return ""
}
