package main

// What is configured of transfers, and of several instances.

import (
	"crypto/tls"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"voicebridge/media"
	"voicebridge/providers"
	"voicebridge/transfer"
	"voicebridge/wav"
)

// transfersConfig says where calls may be moved to.
type transfersConfig struct {
	Destinations map[string]destinationConfig `yaml:"destinations"`
	Allow        []string                     `yaml:"allow"`
	Ring         duration                     `yaml:"timeout"`
	CallerID     string                       `yaml:"caller_id"`
	Hold         string                       `yaml:"hold"`
	Music        string                       `yaml:"music"`
	Keep         duration                     `yaml:"keep"`
}

type destinationConfig struct {
	To     string `yaml:"to"`
	Digits string `yaml:"digits"`
}

// redisConfig is the database that several instances share.
type redisConfig struct {
	Addresses        []string `yaml:"addresses"`
	Master           string   `yaml:"master"` // of Sentinel, whose addresses they are then
	Cluster          bool     `yaml:"cluster"`
	Username         string   `yaml:"username"`
	Password         string   `yaml:"password"`
	SentinelPassword string   `yaml:"sentinel_password"`
	DB               whole    `yaml:"db"`
	TLS              bool     `yaml:"tls"`
	Prefix           string   `yaml:"prefix"`
	Lease            duration `yaml:"lease"`
}

// checkTransfers checks what is needed to move calls, and to be several.
func (c *config) checkTransfers(wrong func(field, format string, args ...any)) {
	t := &c.Transfers
	for name, d := range t.Destinations {
		if !providers.ValidNumber(d.To) {
			wrong("transfers.destinations."+name+".to", "%q must be a number in E.164, such as \"+15550100\" in quotes", d.To)
		}
		if len(d.Digits) > 32 || strings.Trim(d.Digits, "0123456789*#w") != "" {
			wrong("transfers.destinations."+name+".digits", "%q must be at most 32 of 0-9 * # w", d.Digits)
		}
	}
	for i, p := range t.Allow {
		number, open := strings.CutSuffix(p, "*")
		if !strings.HasPrefix(number, "+") || strings.Trim(number[1:], "0123456789") != "" || !open && !providers.ValidNumber(number) {
			wrong(fmt.Sprintf("transfers.allow[%d]", i), "%q must be a number in E.164, or how numbers begin and a '*', such as \"+1555*\" in quotes", p)
		}
	}
	if d := time.Duration(t.Ring); d < 5*time.Second || d > 2*time.Minute {
		wrong("transfers.timeout", "%v must be between 5s and 2m", d)
	}
	if d := time.Duration(t.Keep); d < time.Second || d > 24*time.Hour {
		wrong("transfers.keep", "%v must be between 1s and 24h", d)
	}
	if d := time.Duration(c.Redis.Lease); d < time.Second || d > time.Minute {
		wrong("redis.lease", "%v must be between 1s and 1m", d)
	}
	if t.CallerID != "own" && t.CallerID != "caller" {
		wrong("transfers.caller_id", "%q must be own or caller", t.CallerID)
	}
	if t.Hold != media.HoldAgent && t.Hold != media.HoldMusic {
		wrong("transfers.hold", "%q must be agent or music", t.Hold)
	}
	if t.Music != "" {
		if _, _, err := wav.Read(t.Music); err != nil {
			wrong("transfers.music", "must be a WAV file of 16-bit PCM: %v", err)
		}
	}
	if c.InstanceURL != "" && !publicURL(c.InstanceURL) {
		wrong("instance_url", "must be the https:// URL at which carriers reach this very instance")
	}
	r := &c.Redis
	for i, a := range r.Addresses {
		if !address(a) {
			wrong(fmt.Sprintf("redis.addresses[%d]", i), "%q must be an address such as 127.0.0.1:6379", a)
		}
	}
	if open := strings.IndexByte(r.Prefix, '{'); open < 0 || strings.IndexByte(r.Prefix[open:], '}') < 2 {
		wrong("redis.prefix", "%q must hold a hash tag, as in \"{voicebridge}:\", so that one slot of a cluster holds all keys", r.Prefix)
	}
	if r.Cluster && (r.Master != "" || r.DB != 0) {
		wrong("redis.cluster", "excludes redis.master and redis.db")
	}
	if len(r.Addresses) == 0 && (r.Master != "" || r.Cluster || r.Password != "") {
		wrong("redis.addresses", "must be set")
	}
	if len(r.Addresses) > 0 && c.TokenSecret == "" {
		wrong("token_secret", "must be set with redis: the instances share it; make one with 'openssl rand -hex 32'")
	}
}

// database connects to the one that instances share; nil: this one is alone.
func (c *config) database() redis.UniversalClient {
	r := &c.Redis
	if len(r.Addresses) == 0 {
		return nil
	}
	opt := &redis.UniversalOptions{
		Addrs: r.Addresses, MasterName: r.Master, IsClusterMode: r.Cluster, DB: int(r.DB),
		Username: r.Username, Password: r.Password, SentinelPassword: r.SentinelPassword,
		DialTimeout: time.Second, ReadTimeout: time.Second, WriteTimeout: time.Second, MaxRetries: 1, ContextTimeoutEnabled: true,
	}
	if r.TLS {
		opt.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	return redis.NewUniversalClient(opt)
}

// transfers are nil where no account can move calls.
func (c *config) transfers(db redis.UniversalClient, instance string) (*media.Transfers, error) {
	if len(c.Accounts) == 0 {
		return nil, nil
	}
	t := &media.Transfers{
		Manager: transfer.Defaults, Allow: c.Transfers.Allow, Ring: time.Duration(c.Transfers.Ring), ShowCaller: c.Transfers.CallerID == "caller",
		Hold: c.Transfers.Hold, Destinations: map[string]media.Destination{},
	}
	t.Manager.Instance, t.Manager.Lease = instance, time.Duration(c.Redis.Lease)
	keep := time.Duration(c.Transfers.Keep)
	for name, d := range c.Transfers.Destinations {
		t.Destinations[name] = media.Destination(d)
	}
	if db == nil {
		t.Store = transfer.NewMemory(time.Now, keep)
	} else {
		t.Store = transfer.NewRedis(db, c.Redis.Prefix, keep)
	}
	if c.Transfers.Music != "" {
		var err error
		if t.Music, t.MusicRate, err = wav.Read(c.Transfers.Music); err != nil {
			return nil, fmt.Errorf("transfers.music: %w", err)
		}
	}
	return t, nil
}
