package vonage

import (
	"errors"
	"fmt"
	"strings"

	"github.com/golang-jwt/jwt/v5"

	"voicebridge/providers"
)

// Config is an account's block of the configuration.
type Config struct {
	APIKey          string `yaml:"api_key"`
	ApplicationID   string `yaml:"application_id"`
	SignatureSecret string `yaml:"signature_secret"`
	// PrivateKey is that of the application, in PEM: without it no calls are
	// placed or ended over the REST API.
	PrivateKey string `yaml:"private_key"`
	Rate       int    `yaml:"rate"`     // of the audio, Hz; 0: 16000
	BaseURL    string `yaml:"base_url"` // of the REST API, such as a region's; empty: Vonage's
}

// defaultBaseURL is the one of all regions.
const defaultBaseURL = "https://api.nexmo.com"

// NewAccount implements providers.Spec.
func NewAccount(decode func(any) error) (*providers.Account, error) {
	cfg := Config{Rate: 16000, BaseURL: defaultBaseURL}
	if err := decode(&cfg); err != nil {
		return nil, err
	}
	w := &webhooks{cfg: cfg}
	for _, f := range formats {
		if f.Rate == cfg.Rate {
			w.format = f
		}
	}
	switch {
	case cfg.APIKey == "":
		return nil, errors.New("api_key: must be the account's API key")
	case cfg.ApplicationID == "":
		return nil, errors.New("application_id: must be the application's id")
	case len(cfg.SignatureSecret) < 16:
		return nil, errors.New("signature_secret: must be the account's signature secret: webhooks are signed with it")
	case w.format.Rate == 0:
		return nil, fmt.Errorf("rate: %d must be 8000, 16000 or 24000", cfg.Rate)
	}
	base, err := providers.CheckBaseURL(cfg.BaseURL)
	if err != nil {
		return nil, err
	}
	a := &providers.Account{Webhooks: w}
	if cfg.PrivateKey != "" {
		// In an environment variable line breaks are often written as \n.
		key, err := jwt.ParseRSAPrivateKeyFromPEM([]byte(strings.ReplaceAll(cfg.PrivateKey, `\n`, "\n")))
		if err != nil {
			return nil, errors.New("private_key: must be the application's private key in PEM")
		}
		a.Calls = &calls{hooks: w, base: base, application: cfg.ApplicationID, key: key}
	}
	return a, nil
}
