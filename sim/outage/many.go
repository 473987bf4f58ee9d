package outage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Group are several servers that make one database: a Redis Cluster, or a primary with a
// replica under Sentinel.
type Group struct {
	Servers []*Redis // masters or the primary first, then replicas, then Sentinels
	Masters int
	// Entry are the addresses that a client is given: any of a Cluster, or the Sentinels.
	Entry []string
}

// MasterName is what Sentinel calls the primary.
const MasterName = "voicebridge"

// add starts one more server.
func (g *Group) add(ctx context.Context, dir, name string, args ...string) (*Redis, error) {
	own := filepath.Join(dir, name)
	if err := os.MkdirAll(own, 0o755); err != nil {
		return nil, fmt.Errorf("outage: %w", err)
	}
	r, err := StartRedis(ctx, own, args...)
	if err == nil {
		g.Servers = append(g.Servers, r)
	}
	return r, err
}

// StartCluster starts a Redis Cluster of masters with a replica each.
func StartCluster(ctx context.Context, dir string, masters int) (*Group, error) {
	g := &Group{Masters: masters}
	var addresses []string
	for i := range 2 * masters {
		// Not written to a file: who is killed comes back empty, as a replica.
		r, err := g.add(ctx, dir, fmt.Sprint("node", i), "--cluster-enabled", "yes", "--cluster-node-timeout", "1500",
			"--appendonly", "no", "--repl-diskless-sync-delay", "0")
		if err != nil {
			return nil, errors.Join(err, g.Stop())
		}
		addresses = append(addresses, r.Addr)
	}
	args := append([]string{"--cluster", "create"}, addresses...)
	out, err := exec.CommandContext(ctx, "redis-cli",
		append(args, "--cluster-replicas", "1", "--cluster-yes")...).CombinedOutput()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("outage: cluster: %w: %s", err, out), g.Stop())
	}
	for _, r := range g.Servers {
		if err := r.await(ctx, "CLUSTER INFO", "cluster_state:ok"); err != nil {
			return nil, errors.Join(err, g.Stop())
		}
	}
	for _, r := range g.Servers[:masters] { // each has its replica
		if err := r.await(ctx, "INFO replication", "state=online"); err != nil {
			return nil, errors.Join(err, g.Stop())
		}
	}
	g.Entry = addresses
	return g, nil
}

// StartSentinel starts a primary and a replica, and three Sentinels that watch them.
func StartSentinel(ctx context.Context, dir string) (*Group, error) {
	g := &Group{Masters: 1}
	primary, err := g.add(ctx, dir, "primary", "--appendonly", "no", "--repl-diskless-sync-delay", "0")
	if err == nil {
		_, err = g.add(ctx, dir, "replica", "--appendonly", "no", "--replicaof", "127.0.0.1", port(primary.Addr))
	}
	if err != nil {
		return nil, errors.Join(err, g.Stop())
	}
	if err := primary.await(ctx, "INFO replication", "state=online"); err != nil {
		return nil, errors.Join(err, g.Stop())
	}
	for i := range 3 {
		if err := g.sentinel(ctx, dir, i, port(primary.Addr)); err != nil {
			return nil, errors.Join(err, g.Stop())
		}
	}
	for _, s := range g.Servers[2:] { // they know each other, and the replica
		for _, what := range []string{"num-other-sentinels\r\n$1\r\n2", "num-slaves\r\n$1\r\n1"} {
			if err := s.await(ctx, "SENTINEL MASTER "+MasterName, what); err != nil {
				return nil, errors.Join(err, g.Stop())
			}
		}
		g.Entry = append(g.Entry, s.Addr)
	}
	return g, nil
}

// sentinel starts one Sentinel.
func (g *Group) sentinel(ctx context.Context, dir string, n int, primary string) error {
	addr, err := freeAddress()
	if err != nil {
		return err
	}
	path := filepath.Join(dir, fmt.Sprint("sentinel", n, ".conf"))
	text := strings.Join([]string{"port " + port(addr), "bind 127.0.0.1", "dir " + dir,
		"sentinel monitor " + MasterName + " 127.0.0.1 " + primary + " 2",
		"sentinel down-after-milliseconds " + MasterName + " 1000", "sentinel failover-timeout " + MasterName + " 5000",
		""}, "\n")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return fmt.Errorf("outage: %w", err)
	}
	r := &Redis{Addr: addr, dir: dir, cmd: exec.Command("redis-server", path, "--sentinel")}
	dieWithParent(r.cmd)
	if err := r.cmd.Start(); err != nil {
		return fmt.Errorf("outage: sentinel: %w", err)
	}
	g.Servers = append(g.Servers, r)
	return r.await(ctx, "PING", "PONG")
}

// Kill ends a master at once, as a power cut does.
func (g *Group) Kill(n int) error { return g.Servers[n].Stop() }

// Stop ends all servers.
func (g *Group) Stop() error {
	var errs []error
	for _, r := range g.Servers {
		if r.cmd.ProcessState == nil {
			errs = append(errs, r.Stop())
		}
	}
	return errors.Join(errs...)
}

// Failover waits until another server has taken over from a master that was killed.
func (g *Group) Failover(ctx context.Context, n int) error {
	ctx, stop := context.WithTimeout(ctx, 30*time.Second)
	defer stop()
	for {
		for i, r := range g.Servers[:2*g.Masters] {
			if i != n && i >= g.Masters && strings.Contains(r.ask("INFO replication"), "role:master") {
				return nil
			}
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return errors.New("outage: nobody has taken over")
		}
	}
}
