// Package cloudonix speaks CXML, the REST API and the media streams of Cloudonix. The
// streams are Twilio's. Sources: Cloudonix' developer documentation for documents,
// webhooks and REST; for the messages of streams only code of others is known.
package cloudonix

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"voicebridge/codec"
	"voicebridge/providers"
	"voicebridge/providers/internal/rest"
	"voicebridge/providers/internal/twiliomedia"
)

// Spec describes Cloudonix.
var Spec = &providers.Spec{
	Name: "cloudonix", Title: "Cloudonix CXML streams",
	Formats:     []codec.Format{twiliomedia.Format},
	Abilities:   abilities,
	NewStream:   func() providers.Stream { return dialect.NewStream() },
	NewPeer:     func() providers.Peer { return dialect.NewPeer() },
	NewAccount:  NewAccount,
	NewExchange: NewExchange,
	Sample:      Sample,
}

// dialect: its callSid is good for nothing, the session is.
var dialect = &twiliomedia.Dialect{Name: "cloudonix", Session: true}

// abilities are what Cloudonix can do.
var abilities = providers.Abilities{
	Marks:      true,
	Clear:      true,
	Digits:     true,
	ClearMarks: true,
	Greets:     true,
	RoomLeft:   true,
	RoomEnds:   true,
	Rings:      true,
}

// Config is an account's block of the configuration.
type Config struct {
	Domain string `yaml:"domain"` // acme, or acme.cloudonix.net
	APIKey string `yaml:"api_key"`
	// WebhookHeader is the header that shows that a webhook is Cloudonix', WebhookSecret
	// what stands in it; empty: x-cx-apikey, and the domain's API key.
	WebhookHeader string `yaml:"webhook_header"`
	WebhookSecret string `yaml:"webhook_secret"`
	Trunk         string `yaml:"trunk"`    // that placed calls take; empty: any
	BaseURL       string `yaml:"base_url"` // of the REST API; empty: Cloudonix'
	// Requests are how many requests Cloudonix takes from the domain in ten seconds; 0:
	// any number.
	Requests int `yaml:"requests_per_ten_seconds"`
}

// What holds where the configuration says nothing.
const (
	defaultHeader   = "x-cx-apikey"
	defaultBaseURL  = "https://api.cloudonix.io"
	defaultRequests = 10
	requestsTime    = 10 * time.Second
	domains         = ".cloudonix.net"
)

// NewAccount implements providers.Spec.
func NewAccount(setup providers.Setup) (*providers.Account, error) {
	cfg, base, err := readConfig(setup)
	if err != nil {
		return nil, err
	}
	a := providers.NewAccount(cfg.Domain, abilities, &webhooks{cfg}, newCommands(cfg, base, setup.HTTP))
	a.LimitAll(cfg.Requests, requestsTime)
	return a, nil
}

// readConfig reads and checks the configuration.
func readConfig(setup providers.Setup) (cfg Config, base *url.URL, err error) {
	cfg = Config{Requests: defaultRequests}
	if err = setup.Decode(&cfg); err != nil {
		return cfg, nil, err
	}
	cfg.WebhookHeader = cmp.Or(cfg.WebhookHeader, defaultHeader)
	cfg.WebhookSecret = cmp.Or(cfg.WebhookSecret, cfg.APIKey)
	switch {
	case cfg.Domain == "" || strings.ContainsAny(cfg.Domain, "/?# "):
		return cfg, nil, errors.New("domain: must be the domain's name, such as acme or acme.cloudonix.net")
	case cfg.APIKey == "":
		return cfg, nil, errors.New("api_key: must be the domain's API key: webhooks show it, too")
	case cfg.Requests < 0:
		return cfg, nil, fmt.Errorf("requests_per_ten_seconds: %d must be 0, for any number, or more", cfg.Requests)
	}
	if !strings.Contains(cfg.Domain, ".") {
		cfg.Domain += domains
	}
	base, err = rest.CheckBaseURL(cmp.Or(cfg.BaseURL, defaultBaseURL))
	return cfg, base, err
}
