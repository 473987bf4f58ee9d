package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/goccy/go-yaml"

	"voicebridge/logs"
	"voicebridge/sim"
	"voicebridge/sim/models"
)

type agentCmd struct {
	Echo     echoCmd     `cmd:"" help:"Say what is heard."`
	Tone     toneCmd     `cmd:"" help:"Play a tone, then hang up."`
	Simulate simulateCmd `cmd:"" help:"Play a model behind its vendor's protocol, which greets, uses a tool and ends the call."`
	Record   recordCmd   `cmd:"" help:"Write what is heard to a WAV file a call, and print the bridge's messages."`
}

type agentFlags struct {
	Listen string `help:"Address to listen on (default ${default})." default:"127.0.0.1:9100" placeholder:"HOST:PORT"`
	Bearer string `help:"Bearer token that the bridge must show." env:"AGENT_BEARER" placeholder:"TOKEN"`
	Secret string `help:"Secret that the bridge must sign with." env:"AGENT_SECRET" placeholder:"SECRET"`
}

type echoCmd struct{ agentFlags }

// Run serves an echo agent.
func (c *echoCmd) Run(ctx context.Context) error { return c.serve(ctx, sim.Echo) }

type toneCmd struct {
	agentFlags
	Hz     float64       `help:"Frequency (default ${default})." default:"440"`
	Length time.Duration `help:"How long (default ${default})." default:"5s"`
}

// Run serves a tone agent.
func (c *toneCmd) Run(ctx context.Context) error {
	if c.Hz <= 0 || c.Length <= 0 || c.Length > time.Minute {
		return errors.New("--hz must be more than 0, and --length between 0 and 1m")
	}
	return c.serve(ctx, sim.Tone(c.Hz, c.Length))
}

type recordCmd struct {
	agentFlags
	Dir string `help:"Folder for the recordings." default:"." type:"existingdir"`
}

// Run serves a recording agent.
func (c *recordCmd) Run(ctx context.Context, out output) error {
	var mu sync.Mutex
	return c.serve(ctx, sim.Record(c.Dir, func(session string, message []byte) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(out, "%s %s\n", session, message)
	}))
}

type simulateCmd struct {
	Listen   string `help:"Address to listen on (default ${default})." default:"127.0.0.1:9100" placeholder:"HOST:PORT"`
	Protocol string `help:"Whose: ${enum} (default ${default})." enum:"${models}" default:"openai"`
}

// Run serves a simulated model, and prints what is said to it but the caller's audio.
func (c *simulateCmd) Run(ctx context.Context, out output) error {
	voice, err := models.Voice()
	if err != nil {
		return err
	}
	kind := models.List[slices.IndexFunc(models.List, func(k models.Kind) bool { return k.Dialect == c.Protocol })]
	var mu sync.Mutex
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { // each connection has a talk of its own
		script := models.Conversation(voice)
		script.Note = func(what string, v any) {
			if b, err := json.Marshal(v); err == nil && !strings.Contains(what, "audio") && what != "" &&
				what != "realtimeInput" && len(b) < 4<<10 {
				mu.Lock()
				defer mu.Unlock()
				fmt.Fprintf(out, "%s %s\n", what, b)
			}
		}
		model := kind.New(script)
		model.ServeHTTP(w, r)
		mu.Lock()
		defer mu.Unlock()
		for _, complaint := range model.Complaints() {
			fmt.Fprintf(out, "complaint: %s\n", complaint)
		}
	})
	l, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	srv := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	options, err := yaml.Marshal(map[string]any{"agent": map[string]any{"protocol": c.Protocol,
		"url": "ws://" + l.Addr().String() + "/", "options": kind.Options}})
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s\n", options)
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

func (f *agentFlags) serve(ctx context.Context, talk func(context.Context, *sim.AgentConn) error) error {
	log := logs.Direct(os.Stderr, slog.LevelInfo, false)
	l, err := net.Listen("tcp", f.Listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	a := &sim.Agent{Talk: talk, Log: log, Bearer: f.Bearer, Secret: f.Secret}
	srv := &http.Server{Handler: a, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	log.Info("waiting for the bridge", "url", "ws://"+l.Addr().String()+"/", "bearer_required", f.Bearer != "",
		"signature_required", f.Secret != "")
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}
