package twilio

import (
	"errors"
	"strings"

	"voicebridge/providers"
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
func NewAccount(decode func(any) error) (*providers.Account, error) {
	var cfg Config
	if err := decode(&cfg); err != nil {
		return nil, err
	}
	switch {
	case !strings.HasPrefix(cfg.AccountSID, "AC"):
		return nil, errors.New("account_sid: must be the SID of the account, which begins with AC")
	case cfg.AuthToken == "":
		return nil, errors.New("auth_token: must be the account's auth token: webhooks are signed with it")
	case (cfg.APIKey == "") != (cfg.APISecret == ""):
		return nil, errors.New("api_secret: must be set where api_key is, and only there")
	case (cfg.Edge == "") != (cfg.Region == ""):
		return nil, errors.New("region: must be set where edge is, and only there")
	}
	c := &calls{cfg: cfg}
	if cfg.BaseURL != "" {
		var err error
		if c.base, err = providers.CheckBaseURL(cfg.BaseURL); err != nil {
			return nil, err
		}
	}
	return &providers.Account{ID: cfg.AccountSID, Webhooks: &webhooks{cfg}, Calls: c}, nil
}
