package runner

// The bridges that bench starts: this one, and the yardsticks.

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
)

// child is a bridge that was started.
type child struct {
	cmd     *exec.Cmd
	said    bytes.Buffer
	url     string // {carrier} stands for the carrier's name
	metrics string
	done    chan error
	remove  string // a folder
}

func (c *child) stop() {
	_ = c.cmd.Process.Kill() // it may be gone already
	<-c.done
	if c.remove != "" {
		_ = os.RemoveAll(c.remove)
	}
}

// startChild starts a bridge, and waits until ready says that it is.
func startChild(ctx context.Context, c *child, args []string, ready func() bool) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c.cmd = exec.Command(self, args...)
	c.cmd.Stdout, c.cmd.Stderr = &c.said, &c.said
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	c.done = make(chan error, 1)
	go func() { c.done <- c.cmd.Wait() }()
	for end := time.Now().Add(10 * time.Second); !ready(); {
		select {
		case err := <-c.done:
			c.done <- err
			c.stop()
			return nil, fmt.Errorf("%s ended at once: %w: %s", args[0], err, strings.TrimSpace(c.said.String()))
		case <-ctx.Done():
			c.stop()
			return nil, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(end) {
			c.stop()
			return nil, fmt.Errorf("%s is not ready after 10 s: %s", args[0], strings.TrimSpace(c.said.String()))
		}
	}
	return c, nil
}

// serveChild runs this bridge. loops are its event loops; -1: as it comes.
func serveChild(loops int) func(context.Context, *run, string, int, *transferLoad) (*child, error) {
	return func(ctx context.Context, b *run, address string, calls int, moved *transferLoad) (*child, error) {
		admin, err := freeAddress()
		if err != nil {
			return nil, err
		}
		dir, err := os.MkdirTemp("", "voicebridge-bench")
		if err != nil {
			return nil, err
		}
		token := rand.Text()
		m := map[string]any{"token": token}
		if loops >= 0 {
			m["event_loops"] = loops
		}
		settings := map[string]any{
			"listen": address, "admin": admin, "media": m,
			"agent":  b.agentBlock(),
			"limits": map[string]any{"calls": calls + 100, "handshakes_per_second": 100000},
			"log":    map[string]any{"level": "warn"},
		}
		if moved != nil {
			moved.configure(settings)
		}
		config, err := yaml.Marshal(settings)
		path := filepath.Join(dir, "serve.yaml")
		if err == nil {
			err = os.WriteFile(path, config, 0o600)
		}
		if err != nil {
			return nil, errors.Join(err, os.RemoveAll(dir))
		}
		c := &child{url: "ws://" + address + "/media/{carrier}/" + token, metrics: "http://" + admin + "/metrics",
			remove: dir}
		return startChild(ctx, c, []string{"serve", "--config", path}, func() bool {
			resp, err := http.Get("http://" + admin + "/readyz")
			if err != nil {
				return false
			}
			resp.Body.Close()
			return resp.StatusCode == http.StatusOK
		})
	}
}

func yardstickChild(name string) func(context.Context, *run, string, int, *transferLoad) (*child, error) {
	return func(ctx context.Context, b *run, address string, _ int, _ *transferLoad) (*child, error) {
		c := &child{url: "ws://" + address + "/"}
		return startChild(ctx, c, []string{"yardstick", name, address, b.agentURL(true)}, func() bool {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				return false
			}
			conn.Close()
			return true
		})
	}
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
