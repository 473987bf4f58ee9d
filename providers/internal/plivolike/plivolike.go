// Package plivolike is the voice API that Plivo has and others have copied: documents in
// XML, forms by webhook, JSON by REST, and streams of audio as base64 in JSON. A carrier
// of this kind says in a Dialect what it does in its own way. Sources: Plivo's "Voice
// API", "Audio Streaming" and "Signature validation"; Vobiz' "XML" and "Audio streams".
package plivolike

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"voicebridge/codec"
	"voicebridge/providers"
	"voicebridge/providers/internal/plivomedia"
	"voicebridge/providers/internal/rest"
)

// Dialect is what a carrier of this kind does in its own way.
type Dialect struct {
	Name      string // as in its Spec
	Title     string // for people: Plivo
	Abilities providers.Abilities
	// BaseURL is that of the REST API, up to the account.
	BaseURL string
	// Authorize adds the credentials to a request, Authorized checks them.
	Authorize  func(r *http.Request, id, token string)
	Authorized func(r *http.Request, id, token string) bool
	// Signature begins the names of the headers with signatures: X-Plivo-Signature.
	Signature string
	// Signed are the texts of which one is signed, followed by "." and the nonce.
	Signed func(method, url string, body []byte) []string

	Media plivomedia.Dialect
	// Plus writes numbers in documents with their plus.
	Plus bool
	// Question is the element that asks for a key, Quiet what keeps a conference from
	// announcing who comes and goes.
	Question string
	Quiet    Quiet
	// Numbers is where the account's numbers are listed.
	Numbers NumberList
	// DialActs is true where word of the end of a Dial does not name the call, but only
	// its leg.
	DialActs bool
	// HidesRooms is true where the REST API does not tell of a running conference; for its
	// simulated end.
	HidesRooms bool
}

// NumberList is how numbers are listed: the path, what the parameter of a page is called,
// and whether it says how many numbers are left out rather than which page it is.
type NumberList struct {
	Path, Page, Size string
	Offset           bool
}

// Quiet are the attributes of a conference that is not to announce anybody.
type Quiet struct {
	Beep       string  `xml:"beep,attr,omitempty"`
	EnterSound *string `xml:"enterSound,attr"`
	ExitSound  *string `xml:"exitSound,attr"`
}

// Config is an account's block of the configuration.
type Config struct {
	AuthID    string `yaml:"auth_id"`
	AuthToken string `yaml:"auth_token"`
	// Encoding is that of the audio: mulaw or l16; Rate of l16 is 8000 or 16000.
	Encoding string `yaml:"encoding"`
	Rate     int    `yaml:"rate"`
	BaseURL  string `yaml:"base_url"` // of the REST API; empty: the carrier's
	// Calls and Requests are how many new calls, and other requests, the carrier takes
	// from the account in a second; 0: any number.
	Calls    int `yaml:"calls_per_second"`
	Requests int `yaml:"requests_per_second"`
}

// Encodings, as the configuration names them.
const (
	mulaw = "mulaw"
	l16   = "l16"
)

// Spec describes the carrier.
func (d *Dialect) Spec(title string) *providers.Spec {
	return &providers.Spec{
		Name: d.Name, Title: title, Formats: plivomedia.Formats, Abilities: d.Abilities,
		NewStream: func() providers.Stream { return d.Media.NewStream() },
		NewPeer:   func() providers.Peer { return d.Media.NewPeer() },
		NewAccount: func(s providers.Setup) (*providers.Account, error) {
			cfg, f, base, err := d.read(s)
			if err != nil {
				return nil, err
			}
			w := &Webhooks{d, cfg, f}
			account := providers.NewAccount("", d.Abilities, w, d.newCommands(cfg, base, s.HTTP))
			account.Limit(cfg.Calls, cfg.Requests)
			return account, nil
		},
		NewExchange: func(s providers.Setup) (providers.Exchange, error) {
			cfg, _, _, err := d.read(s)
			return &Exchange{d, cfg}, err
		},
		Heard:  d.Media.Heard,
		Sample: d.sample,
	}
}

// read reads and checks the configuration.
func (d *Dialect) read(s providers.Setup) (cfg Config, f codec.Format, base *url.URL, err error) {
	cfg = Config{Encoding: mulaw}
	if err = s.Decode(&cfg); err != nil {
		return cfg, f, nil, err
	}
	f = codec.Format{Encoding: codec.PCMU, Rate: cmp.Or(cfg.Rate, 8000)}
	if cfg.Encoding == l16 {
		f.Encoding = codec.L16LE
	}
	switch {
	case cfg.AuthID == "":
		err = errors.New("auth_id: must be the account's auth ID")
	case cfg.AuthToken == "":
		err = errors.New("auth_token: must be the account's auth token: webhooks are signed with it")
	case cfg.Encoding != mulaw && cfg.Encoding != l16:
		err = fmt.Errorf("encoding: %.40q must be %s or %s", cfg.Encoding, mulaw, l16)
	case !slices.Contains(plivomedia.Formats, f):
		err = fmt.Errorf("rate: %d must be 8000, or 16000 with encoding %s", cfg.Rate, l16)
	case cfg.Calls < 0 || cfg.Requests < 0:
		err = errors.New("calls_per_second, requests_per_second: must be 0, for any number, or more")
	default:
		base, err = rest.CheckBaseURL(cmp.Or(cfg.BaseURL, d.BaseURL))
	}
	return cfg, f, base, err
}

// national leaves the plus of a number out.
func national(number string) string {
	if providers.ValidNumber(number) {
		return number[1:]
	}
	return number
}

// e164 puts the plus before a number.
func e164(s string) string {
	if providers.ValidNumber("+" + s) {
		return "+" + s
	}
	return s
}

// written is a number as documents of the dialect have it.
func (d *Dialect) written(number string) string {
	if d.Plus {
		return number
	}
	return national(number)
}

func seconds(d time.Duration) int { return int(d / time.Second) }
