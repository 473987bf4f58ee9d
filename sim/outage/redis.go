// Package outage has real servers that can die, and lines that can be cut.
package outage

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Redis is a real redis-server that a test can stop, kill and start again.
type Redis struct {
	Addr string
	dir  string
	args []string
	cmd  *exec.Cmd
}

// StartRedis starts a redis-server on a port of its own; what it is told it writes
// to dir, so that it is there again after a restart. More arguments may follow.
func StartRedis(ctx context.Context, dir string, args ...string) (*Redis, error) {
	addr, err := freeAddress()
	if err != nil {
		return nil, err
	}
	r := &Redis{Addr: addr, dir: dir, args: args}
	return r, r.Start(ctx)
}

// Temporary starts a redis-server that leaves nothing behind once it is stopped.
func Temporary(ctx context.Context) (r *Redis, stop func(), err error) {
	dir, err := Dir()
	if err != nil {
		return nil, nil, err
	}
	r, err = StartRedis(ctx, dir)
	if err != nil {
		return nil, nil, errors.Join(err, os.RemoveAll(dir))
	}
	return r, func() {
		_ = r.Stop() // what there is of either is of no use any more
		_ = os.RemoveAll(dir)
	}, nil
}

// Dir makes a directory for what servers write. It is in memory where the system has such a
// place: a server writes before it answers, and must not wait for a disk that others keep busy.
func Dir() (string, error) {
	dir, err := os.MkdirTemp("/dev/shm", "redis")
	if err != nil {
		dir, err = os.MkdirTemp("", "redis")
	}
	if err != nil {
		return "", fmt.Errorf("outage: redis: %w", err)
	}
	return dir, nil
}

// freeAddress is one that nobody listens at.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("outage: port: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// port is that of an address.
func port(addr string) string {
	_, p, _ := net.SplitHostPort(addr)
	return p
}

// Start starts a server that was stopped.
func (r *Redis) Start(ctx context.Context) error {
	path, err := exec.LookPath("redis-server")
	if err != nil {
		return fmt.Errorf("outage: redis-server is not installed (Debian package redis-server): %w", err)
	}
	args := append([]string{"--port", port(r.Addr), "--bind", "127.0.0.1", "--dir", r.dir, "--save", "", "--appendonly",
		"yes", "--appendfsync", "always"}, r.args...)
	r.cmd = exec.Command(path, args...)
	dieWithParent(r.cmd)
	if err := r.cmd.Start(); err != nil {
		return fmt.Errorf("outage: redis: %w", err)
	}
	if err := r.await(ctx, "PING", "PONG"); err != nil {
		return errors.Join(err, r.Stop())
	}
	return nil
}

// await waits until a command is answered with some word.
func (r *Redis) await(ctx context.Context, command, word string) error {
	ctx, stop := context.WithTimeout(ctx, 30*time.Second)
	defer stop()
	for !strings.Contains(r.ask(command), word) {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("outage: redis at %s: %s is not answered with %s", r.Addr, command, word)
		}
	}
	return nil
}

// ask makes one request; empty: there was no answer.
func (r *Redis) ask(command string) string {
	c, err := net.DialTimeout("tcp", r.Addr, time.Second)
	if err != nil {
		return ""
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Second)) // a failure shows in what follows
	if _, err := c.Write([]byte(command + "\r\n")); err != nil {
		return ""
	}
	buf := make([]byte, 16<<10)
	n, _ := c.Read(buf) // what there is must do
	return string(buf[:n])
}

// Figure sums what the server tells of itself in a section of INFO, by the names of the
// figures.
func (r *Redis) Figure(section string, names ...string) (sum float64, err error) {
	info := r.ask("INFO " + section)
	for _, name := range names {
		_, rest, _ := strings.Cut(info, "\n"+name+":")
		text, _, _ := strings.Cut(rest, "\r\n")
		n, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return 0, fmt.Errorf("outage: redis at %s: %s: %w", r.Addr, name, err)
		}
		sum += n
	}
	return sum, nil
}

// Stop ends the server at once.
func (r *Redis) Stop() error {
	if err := r.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		return fmt.Errorf("outage: redis: %w", err)
	}
	_ = r.cmd.Wait() // it says that it was killed
	return nil
}
