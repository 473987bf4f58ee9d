package twilio

import (
	"errors"
	"net/url"
	"regexp"

	"voicebridge/providers"
	"voicebridge/providers/internal/rest"
)

// Config is an account's block of the configuration.
type Config struct {
	AccountSID string `yaml:"account_sid"`
	AuthToken  string `yaml:"auth_token"`
	// APIKey and APISecret, where set, are used for REST instead of the account's
	// SID and auth token.
	APIKey    string `yaml:"api_key"`
	APISecret string `yaml:"api_secret"`
	// Edge and Region choose where REST requests go, such as dublin and ie1.
	Edge    string `yaml:"edge"`
	Region  string `yaml:"region"`
	BaseURL string `yaml:"base_url"` // of the REST API; empty: Twilio's
}

// NewAccount implements providers.Spec.
func NewAccount(setup providers.Setup) (*providers.Account, error) {
	cfg, base, err := readConfig(setup)
	if err != nil {
		return nil, err
	}
	return providers.NewAccount(cfg.AccountSID, abilities, &webhooks{cfg},
		&commands{cfg: cfg, base: base, http: setup.HTTP}), nil
}

// accountSID is the form of an account's SID.
var accountSID = regexp.MustCompile(`^AC[0-9a-fA-F]{32}$`)

// readConfig reads and checks the configuration. base is nil where Twilio's own URL is
// meant.
func readConfig(setup providers.Setup) (cfg Config, base *url.URL, err error) {
	if err := setup.Decode(&cfg); err != nil {
		return cfg, nil, err
	}
	switch {
	case !accountSID.MatchString(cfg.AccountSID):
		return cfg, nil, errors.New("account_sid: must be the SID of the account: AC and 32 hexadecimal digits")
	case cfg.AuthToken == "":
		return cfg, nil, errors.New("auth_token: must be the account's auth token: webhooks are signed with it")
	case (cfg.APIKey == "") != (cfg.APISecret == ""):
		return cfg, nil, errors.New("api_secret: must be set where api_key is, and only there")
	case (cfg.Edge == "") != (cfg.Region == ""):
		return cfg, nil, errors.New("region: must be set where edge is, and only there")
	}
	if cfg.BaseURL != "" {
		base, err = rest.CheckBaseURL(cfg.BaseURL)
	}
	return cfg, base, err
}
