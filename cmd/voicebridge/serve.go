package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"voicebridge/cluster"
	"voicebridge/media"
	"voicebridge/providers/all"
)

type serveCmd struct {
	Config   string `help:"Configuration file (YAML); see docs/configuration.md." type:"path" placeholder:"FILE"`
	Check    bool   `help:"Check the configuration and exit."`
	Insecure bool   `help:"Development: take every media connection, without token. Needs --agent."`
	Listen   string `help:"Address for carriers, with --insecure (default 127.0.0.1:9001)." placeholder:"HOST:PORT"`
	Admin    string `help:"Address for metrics and health, with --insecure." placeholder:"HOST:PORT"`
	Agent    string `help:"The agent's WebSocket URL, with --insecure." placeholder:"URL"`
}

// Run serves until a signal.
func (c *serveCmd) Run(ctx context.Context, out output) error {
	cfg, err := c.load()
	if err != nil {
		return err
	}
	agents, err := cfg.agents()
	if err != nil {
		return err
	}
	if c.Check {
		_, err := fmt.Fprintln(out, "the configuration is good")
		return err
	}
	accounts, err := cfg.accounts()
	if err != nil {
		return err
	}
	tokens, err := cfg.tokens()
	if err != nil {
		return err
	}
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + int(cfg.Media.Loops)) // see ws.Loop
	log := cfg.logger(os.Stderr)
	instance := cfg.Instance
	if instance == "" {
		instance = strings.ToLower(rand.Text()[:8])
	}
	redis.SetLogger(redisLog{log})
	db := cfg.database()
	var others *cluster.Cluster
	if db != nil {
		defer db.Close()
		others = cluster.New(db, cfg.Redis.Prefix, instance, time.Duration(cfg.Redis.Lease), log)
		log.Info("one of several instances", "instance", instance, "redis", cfg.Redis.Addresses)
	}
	transfers, err := cfg.transfers(db, instance)
	if err != nil {
		return err
	}
	server := media.New(media.Config{
		Providers:   all.Specs,
		Agents:      agents,
		Route:       cfg.route,
		Router:      cfg.Router.target(),
		Events:      cfg.Events.target(),
		Tokens:      tokens,
		Insecure:    cfg.Media.Insecure,
		Token:       cfg.Media.Token,
		Accounts:    accounts,
		Transfers:   transfers,
		Cluster:     others,
		PublicURL:   cfg.PublicURL,
		InstanceURL: cfg.InstanceURL,
		Secret:      cfg.secret(),
		Loops:       int(cfg.Media.Loops),
		Limits:      cfg.limits(),
		Log:         log,
	})
	public, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	var admin net.Listener
	if cfg.Admin != "" {
		if admin, err = net.Listen("tcp", cfg.Admin); err != nil {
			return errors.Join(fmt.Errorf("admin: %w", err), public.Close())
		}
		log.Info("metrics and health", "url", "http://"+admin.Addr().String()+"/metrics")
	}
	for name, a := range accounts {
		if a.UnsignedMedia {
			log.Warn("media connections of this account need no signature: their token alone must do", "account", name)
		}
		hooks := strings.TrimSuffix(cfg.PublicURL, "/") + "/hooks/" + a.Spec.Name + "/" + name
		log.Info("webhooks", "provider", a.Spec.Name, "account", name, "places_calls", a.Calls != nil,
			"inbound", hooks+"/inbound", "status", hooks+"/status")
	}
	if len(tokens) > 0 {
		log.Info("control API", "url", "http://"+public.Addr().String()+"/v1/", "tokens", len(tokens))
	}
	path := ""
	if cfg.Media.Token != "" {
		path = "/TOKEN"
	}
	for _, s := range all.Specs {
		log.Info("waiting for calls", "provider", s.Name, "url", "ws://"+public.Addr().String()+"/media/"+s.Name+path,
			"formats", s.Formats, "abilities", s.Abilities)
	}
	if cfg.Media.Insecure {
		log.Warn("every media connection is taken: for development only")
	}
	for name, a := range agents {
		hears, speaks := a.Dialer.Formats()
		log.Info("agent", "block", block(name), "hears", hears, "speaks", speaks)
	}
	err = server.Serve(ctx, public, admin)
	log.Info("stopped")
	return err
}

// redisLog takes what the Redis client complains of.
type redisLog struct{ log *slog.Logger }

// Printf implements the client's logger.
func (l redisLog) Printf(_ context.Context, format string, args ...any) {
	l.log.Debug("redis", "says", fmt.Sprintf(format, args...))
}

func (c *serveCmd) load() (*config, error) {
	switch {
	case c.Config != "" && (c.Insecure || c.Agent+c.Listen+c.Admin != ""):
		return nil, errors.New("--config excludes --insecure, --agent, --listen and --admin: set them in the file")
	case c.Config != "":
		return loadConfig(c.Config, os.Getenv)
	case !c.Insecure:
		return nil, errors.New("either --config FILE, or for development --insecure --agent URL")
	case c.Agent == "":
		return nil, errors.New("--insecure needs --agent URL, for example --agent ws://127.0.0.1:9100/")
	}
	cfg := defaultConfig()
	if c.Listen != "" {
		cfg.Listen = c.Listen
	}
	cfg.Admin, cfg.Media.Insecure = c.Admin, true
	cfg.Agent.URL, cfg.Agent.Plaintext = c.Agent, true
	cfg.Agent.complete()
	return cfg, nil
}
