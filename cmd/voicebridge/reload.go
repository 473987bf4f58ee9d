package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"voicebridge/bridge"
	"voicebridge/certificate"
	"voicebridge/config"
)

// reloader has a running bridge follow its configuration file when it is told to.
type reloader struct {
	path        string // empty: there is no file
	server      *bridge.Bridge
	now         *config.Config
	running     bridge.Config
	level       *slog.LevelVar
	certificate *certificate.Certificate // nil: there is none
	log         *slog.Logger
}

// follow reloads at each SIGHUP, and tells the service manager how the bridge is, until stop.
func (r *reloader) follow(ctx context.Context) (stop func()) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	group.Go(func() {
		_, _ = daemon.SdNotify(false, daemon.SdNotifyReady) // without a service manager it does nothing
		for {
			select {
			case <-hup:
				began := time.Now()
				_, _ = daemon.SdNotify(false, daemon.SdNotifyReloading)
				r.reload()
				r.log.Debug("reloaded", "took", time.Since(began))
				_, _ = daemon.SdNotify(false, daemon.SdNotifyReady)
			case <-ctx.Done():
				_, _ = daemon.SdNotify(false, daemon.SdNotifyStopping)
				return
			}
		}
	})
	return func() {
		signal.Stop(hup)
		cancel()
		group.Wait()
	}
}

// reload takes what has changed in the file. One that is wrong changes nothing.
func (r *reloader) reload() {
	if r.path == "" {
		r.log.Warn("SIGHUP: there is no configuration file to be read again")
		return
	}
	next, err := config.Load(r.path, os.Getenv)
	var cfg bridge.Config
	if err == nil {
		cfg, err = r.now.Next(next, &r.running)
	}
	if err == nil && r.certificate != nil && next.TLS.Set() {
		err = r.certificate.Read(next.TLS)
	}
	if err != nil {
		r.log.Error("the configuration is not reloaded: all stays as it was", "err", err)
		return
	}
	if keys := r.now.Fixed(next); len(keys) > 0 {
		r.log.Warn("these changes take effect when the bridge is started again", "keys", keys)
	}
	r.server.Reload(&cfg)
	r.log.Info("the configuration is reloaded", "changes", r.now.Difference(next))
	next.SetLevel(r.level)
	r.now, r.running = next, cfg
}
