package vonage

import (
	"crypto/rsa"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/golang-jwt/jwt/v5"

	"voicebridge/providers"
	"voicebridge/providers/internal/rest"
)

// Config is an account's block of the configuration.
type Config struct {
	APIKey          string `yaml:"api_key"`
	ApplicationID   string `yaml:"application_id"`
	SignatureSecret string `yaml:"signature_secret"`
	// PrivateKey is that of the application, in PEM: without it no calls are
	// placed or ended over the REST API.
	PrivateKey string `yaml:"private_key"`
	// APISecret is that of the account: without it its numbers are not listed.
	APISecret string `yaml:"api_secret"`
	Rate      int    `yaml:"rate"`     // of the audio, Hz; 0: 16000
	BaseURL   string `yaml:"base_url"` // of the REST API, such as a region's; empty: Vonage's
	// Calls and Requests are how many new calls, and other requests, Vonage takes from the
	// account in a second; 0: any number.
	Calls    int `yaml:"calls_per_second"`
	Requests int `yaml:"requests_per_second"`
}

// What holds where the configuration says nothing: the address of all regions, and what
// Vonage takes from an account by default.
const (
	vonageHost      = "api.nexmo.com"
	defaultBaseURL  = "https://" + vonageHost
	defaultCalls    = 3
	defaultRequests = 15
)

// NewAccount implements providers.Spec.
func NewAccount(setup providers.Setup) (*providers.Account, error) {
	w, key, base, err := readConfig(setup)
	if err != nil {
		return nil, err
	}
	if key == nil {
		return providers.NewAccount("", abilities, w, nil), nil
	}
	account := providers.NewAccount("", abilities, w, newCommands(w.cfg, base, key, w, setup.HTTP))
	account.Limit(w.cfg.Calls, w.cfg.Requests)
	return account, nil
}

// readConfig reads and checks the configuration. key is nil where there is none.
func readConfig(setup providers.Setup) (w *webhooks, key *rsa.PrivateKey, base *url.URL, err error) {
	cfg := Config{Rate: 16000, BaseURL: defaultBaseURL, Calls: defaultCalls, Requests: defaultRequests}
	if err := setup.Decode(&cfg); err != nil {
		return nil, nil, nil, err
	}
	w = &webhooks{cfg: cfg}
	for _, f := range formats {
		if f.Rate == cfg.Rate {
			w.format = f
		}
	}
	switch {
	case cfg.APIKey == "":
		err = errors.New("api_key: must be the account's API key")
	case cfg.ApplicationID == "":
		err = errors.New("application_id: must be the application's id")
	case len(cfg.SignatureSecret) < 16:
		err = errors.New("signature_secret: must be the account's signature secret: webhooks are signed with it")
	case cfg.Calls < 0 || cfg.Requests < 0:
		err = errors.New("calls_per_second, requests_per_second: must be 0, for any number, or more")
	case w.format.Rate == 0:
		err = fmt.Errorf("rate: %d must be 8000, 16000 or 24000", cfg.Rate)
	default:
		base, err = rest.CheckBaseURL(cfg.BaseURL)
	}
	if err == nil && cfg.PrivateKey != "" {
		// In an environment variable line breaks are often written as \n.
		key, err = jwt.ParseRSAPrivateKeyFromPEM([]byte(strings.ReplaceAll(cfg.PrivateKey, `\n`, "\n")))
		if err != nil {
			err = errors.New("private_key: must be the application's private key in PEM")
		}
	}
	return w, key, base, err
}
