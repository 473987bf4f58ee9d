package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime"

	"voicebridge/bridge"
	"voicebridge/certificate"
	"voicebridge/config"
	"voicebridge/control"
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
func (c *serveCmd) Run(ctx context.Context, out output) (err error) {
	cfg, err := c.load()
	if err != nil {
		return err
	}
	if c.Check {
		_, err := fmt.Fprintln(out, "the configuration is good")
		return err
	}
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + int(cfg.Media.Loops)) // see ws.Loop
	logger := cfg.Logger(os.Stderr)
	defer logger.Close()
	log := logger.Logger
	settings, closeAll, err := cfg.Bridge(log)
	defer func() { err = errors.Join(err, closeAll()) }()
	if err != nil {
		return err
	}
	settings.LostLines = logger.Lost
	server := bridge.New(settings)
	cert, err := certificate.New(cfg.TLS, log)
	if err != nil {
		return err
	}
	public, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	if cert != nil {
		public = tls.NewListener(public, &tls.Config{GetCertificate: cert.Get, MinVersion: tls.VersionTLS12,
			NextProtos: []string{"http/1.1"}})
	}
	var admin net.Listener
	if cfg.Admin != "" {
		if admin, err = net.Listen("tcp", cfg.Admin); err != nil {
			return errors.Join(fmt.Errorf("admin: %w", err), public.Close())
		}
		log.Info("metrics and health", "url", "http://"+admin.Addr().String()+"/metrics")
	}
	describe(log, server.Control(), &settings, public.Addr().String())
	r := &reloader{path: c.Config, server: server, now: cfg, running: settings, level: logger.Level,
		certificate: cert, log: log}
	stop := r.follow(ctx)
	err = server.Serve(ctx, public, admin)
	stop()
	log.Info("stopped")
	return err
}

// describe logs what the bridge does at an address.
func describe(log *slog.Logger, c *control.Controller, b *bridge.Config, address string) {
	for name, a := range b.Accounts {
		if a.UnsignedMedia {
			log.Warn("media connections of this account need no signature: their token alone must do", "account", name)
		}
		log.Info("webhooks", "provider", a.Spec.Name, "account", name, "places_calls", a.HasCommands(),
			"inbound", c.HookURL(a.Spec.Name, name, "inbound"), "status", c.HookURL(a.Spec.Name, name, "status"))
	}
	if len(b.Tokens) > 0 {
		log.Info("control API", "url", "http://"+address+"/v1/", "tokens", len(b.Tokens))
	}
	path := ""
	if b.Token != "" {
		path = "/TOKEN"
	}
	for _, s := range b.Providers {
		log.Info("waiting for calls", "provider", s.Name, "url", "ws://"+address+"/media/"+s.Name+path,
			"formats", s.Formats, "abilities", s.Abilities)
	}
	if b.Insecure {
		log.Warn("every media connection is taken: for development only")
	}
	for name, a := range b.Agents {
		hears, speaks := a.Dialer.Formats()
		log.Info("agent", "block", config.AgentField(name), "hears", hears, "speaks", speaks)
	}
}

func (c *serveCmd) load() (*config.Config, error) {
	switch {
	case c.Config != "" && (c.Insecure || c.Agent+c.Listen+c.Admin != ""):
		return nil, errors.New("--config excludes --insecure, --agent, --listen and --admin: set them in the file")
	case c.Config != "":
		return config.Load(c.Config, os.Getenv)
	case !c.Insecure:
		return nil, errors.New("either --config FILE, or for development --insecure --agent URL")
	case c.Agent == "":
		return nil, errors.New("--insecure needs --agent URL, for example --agent ws://127.0.0.1:9100/")
	}
	return config.Development(c.Agent, c.Listen, c.Admin)
}
