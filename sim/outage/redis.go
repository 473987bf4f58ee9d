// Package outage has real servers that can die, and lines that can be cut.
package outage

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Redis is a real redis-server that a test can stop, kill and start again.
type Redis struct {
	Addr string
	dir  string
	cmd  *exec.Cmd
}

// StartRedis starts a redis-server on a port of its own; what it is told it writes
// to dir, so that it is there again after a restart.
func StartRedis(ctx context.Context, dir string) (*Redis, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("sim: redis: %w", err)
	}
	r := &Redis{Addr: l.Addr().String(), dir: dir}
	if err := l.Close(); err != nil {
		return nil, fmt.Errorf("sim: redis: %w", err)
	}
	return r, r.Start(ctx)
}

// Start starts a server that was stopped.
func (r *Redis) Start(ctx context.Context) error {
	_, port, _ := net.SplitHostPort(r.Addr)
	path, err := exec.LookPath("redis-server")
	if err != nil {
		return fmt.Errorf("sim: redis-server is not installed (Debian package redis-server): %w", err)
	}
	r.cmd = exec.Command(path, "--port", port, "--bind", "127.0.0.1", "--dir", r.dir, "--save", "", "--appendonly",
		"yes", "--appendfsync", "always")
	if err := r.cmd.Start(); err != nil {
		return fmt.Errorf("sim: redis: %w", err)
	}
	ctx, stop := context.WithTimeout(ctx, 20*time.Second)
	defer stop()
	for {
		if r.ping() {
			return nil
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("sim: redis does not answer: %w", ctx.Err()), r.Stop())
		}
	}
}

func (r *Redis) ping() bool {
	c, err := net.DialTimeout("tcp", r.Addr, time.Second)
	if err != nil {
		return false
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Second)) // a failure shows in what follows
	if _, err := c.Write([]byte("PING\r\n")); err != nil {
		return false
	}
	answer, err := bufio.NewReader(c).ReadString('\n')
	return err == nil && strings.HasPrefix(answer, "+PONG")
}

// Stop ends the server at once.
func (r *Redis) Stop() error {
	if err := r.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		return fmt.Errorf("sim: redis: %w", err)
	}
	_ = r.cmd.Wait() // it says that it was killed
	return nil
}
