package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"voicebridge/logs"
	"voicebridge/sim"
)

type agentCmd struct {
	Echo   echoCmd   `cmd:"" help:"Say what is heard."`
	Tone   toneCmd   `cmd:"" help:"Play a tone, then hang up."`
	Record recordCmd `cmd:"" help:"Write what is heard to a WAV file a call, and print the bridge's messages."`
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
