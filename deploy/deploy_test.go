// Package deploy tests what the bridge is run with: as far as it can be without a container
// engine, the parts are started as the files say.
package deploy

import (
	"debug/elf"
	"encoding/json"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"voicebridge/config"
)

// build makes the program as the image does: static, and small.
func build(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	command := regexp.MustCompile(`(?m)^RUN (CGO_ENABLED=0 go build .*) -o /voicebridge (.*)$`).FindSubmatch(text)
	if command == nil {
		t.Fatal("the Dockerfile builds nothing")
	}
	path := filepath.Join(t.TempDir(), "voicebridge")
	cmd := exec.Command("sh", "-c", string(command[1])+" -o "+path+" "+string(command[2]))
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}

// TestImage: the program needs nothing that the image does not have, and the image starts it with
// arguments that it knows.
func TestImage(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program")
	}
	path := build(t)
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if libs, err := f.ImportedLibraries(); err != nil || len(libs) > 0 {
		t.Errorf("the program needs %v, %v", libs, err)
	}
	text, err := os.ReadFile("Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`CMD (\[.*\])`).FindAllSubmatch(text, -1) {
		var args []string
		if err := json.Unmarshal(m[1], &args); err != nil {
			t.Fatal(err)
		}
		if args[0] == "/voicebridge" {
			args = args[1:]
		}
		out, err := exec.Command(path, append(args, "--help")...).CombinedOutput()
		if err != nil {
			t.Errorf("%v: %v, %s", args, err, out)
		}
	}
}

// TestCompose: what is started together fits together.
func TestCompose(t *testing.T) {
	text, err := os.ReadFile("compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var c struct {
		Services map[string]struct {
			Image       string
			Build       struct{ Context, Dockerfile string }
			Command     []string
			Ports       []string
			Environment []string
			Volumes     []string
			DependsOn   []string `yaml:"depends_on"`
		}
	}
	if err := yaml.Unmarshal(text, &c); err != nil {
		t.Fatal(err)
	}
	bridge := c.Services["bridge"]
	env := map[string]string{}
	for _, name := range bridge.Environment {
		env[name] = "0123456789abcdef0123456789abcdef"
	}
	cfg, err := config.Load("voicebridge.yaml", func(name string) string { return env[name] })
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{cfg.Listen, cfg.Admin} {
		_, port, err := net.SplitHostPort(want)
		if err != nil || !strings.Contains(strings.Join(bridge.Ports, " "), ":"+port+":"+port) {
			t.Errorf("%s is not reached by %v", want, bridge.Ports)
		}
	}
	for _, on := range append([]string{strings.Split(cfg.Redis.Addresses[0], ":")[0]}, bridge.DependsOn...) {
		if _, there := c.Services[on]; !there {
			t.Errorf("there is no %s", on)
		}
	}
	u, err := url.Parse(cfg.Agent.URL)
	agent := strings.Join(c.Services[u.Hostname()].Command, " ")
	if err != nil || !strings.Contains(agent, "0.0.0.0:"+u.Port()) {
		t.Errorf("%q does not listen for %s", agent, cfg.Agent.URL)
	}
	for name, s := range c.Services {
		if s.Build.Dockerfile != "" {
			if _, err := os.Stat(filepath.Join(s.Build.Context, s.Build.Dockerfile)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// TestService: the unit is good, and the program says to a service manager what that waits for.
func TestService(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program")
	}
	path, dir := build(t), t.TempDir()
	unit, err := os.ReadFile("voicebridge.service")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := exec.LookPath("systemd-analyze"); err == nil {
		own := filepath.Join(dir, "voicebridge.service")
		text := strings.ReplaceAll(string(unit), "/usr/local/bin/voicebridge", path)
		if err := os.WriteFile(own, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("systemd-analyze", "verify", own).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	} else if os.Getenv("VOICEBRIDGE_E2E") != "" {
		t.Error(err)
	}
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	admin := free(t)
	file := filepath.Join(dir, "voicebridge.yaml")
	if err := os.WriteFile(file, []byte("listen: "+free(t)+"\nadmin: "+admin+"\nmedia: {insecure: true}\n"+
		"agent: {url: 'ws://127.0.0.1:1/'}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	bridge := exec.Command(path, "serve", "--config", file)
	bridge.Env = append(os.Environ(), "NOTIFY_SOCKET="+filepath.Join(dir, "notify"))
	if err := bridge.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = bridge.Process.Kill() })
	told := func(want string) {
		t.Helper()
		buf := make([]byte, 1000)
		_ = socket.SetReadDeadline(time.Now().Add(30 * time.Second))
		n, err := socket.Read(buf)
		if err != nil || string(buf[:n]) != want {
			t.Fatalf("told %q, %v; want %q", buf[:n], err, want)
		}
	}
	told("READY=1")
	if out, err := exec.Command(path, "check", "health", "--url", "http://"+admin+"/healthz").CombinedOutput(); err != nil {
		t.Errorf("health: %v, %s", err, out)
	}
	_ = bridge.Process.Signal(syscall.SIGHUP)
	told("RELOADING=1")
	told("READY=1")
	_ = bridge.Process.Signal(syscall.SIGTERM)
	told("STOPPING=1")
	if err := bridge.Wait(); err != nil {
		t.Errorf("the end: %v", err)
	}
	if out, err := exec.Command(path, "check", "health", "--url", "http://"+admin+"/healthz").CombinedOutput(); err == nil {
		t.Errorf("the health of what has ended: %s", out)
	}
}

// free is an address that nobody listens at.
func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
