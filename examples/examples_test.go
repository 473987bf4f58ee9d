// Package examples_test runs the examples, and the real binary, as their users
// would: as processes that talk over TCP.
package examples_test

import (
	"bufio"
	"context"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"voicebridge/sim/ear"
)

// binary builds voicebridge.
func binary(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "voicebridge")
	if out, err := exec.Command("go", "build", "-o", path, "voicebridge/cmd/voicebridge").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return path
}

// need skips the test where a program is missing, unless VOICEBRIDGE_E2E says
// that all must run, as 'make test' does.
func need(t *testing.T, what string, err error) {
	t.Helper()
	if err == nil {
		return
	}
	if os.Getenv("VOICEBRIDGE_E2E") != "" {
		t.Fatalf("%s is missing: %v", what, err)
	}
	t.Skipf("%s is missing: %v ('make test' installs it)", what, err)
}

// python is an interpreter that has the package websockets.
func python(t *testing.T) string {
	t.Helper()
	var err error
	for _, p := range []string{"python3", "/usr/bin/python3"} {
		if err = exec.Command(p, "-c", "import websockets").Run(); err == nil {
			return p
		}
	}
	need(t, "python3 with the package websockets", err)
	return ""
}

func node(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("node")
	need(t, "node", err)
	_, err = os.Stat("node/node_modules/ws")
	need(t, "the npm package ws (npm install in examples/node)", err)
	return path
}

// freePort finds a port for a program that must be told one.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// start runs a program until the end of the test, and returns once it has
// printed ready.
func start(t *testing.T, ready string, name string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	up, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for s, seen := bufio.NewScanner(r), false; s.Scan(); {
			t.Log(name, s.Text())
			if !seen && strings.Contains(s.Text(), ready) {
				seen = true
				close(up)
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		_ = cmd.Wait() // killed
		r.Close()
	})
	select {
	case <-up:
	case <-done:
		t.Fatalf("%s ended", name)
	case <-time.After(30 * time.Second):
		t.Fatalf("%s did not start", name)
	}
}

// TestAgents: a call through the bridge to each of the example agents comes back
// intact.
func TestAgents(t *testing.T) {
	vb := binary(t)
	for name, begin := range map[string]func(t *testing.T, port string){
		"python": func(t *testing.T, port string) { start(t, "waiting", python(t), "python/echo.py", port) },
		"node":   func(t *testing.T, port string) { start(t, "waiting", node(t), "node/echo.js", port) },
		"go": func(t *testing.T, port string) {
			path := filepath.Join(t.TempDir(), "echo")
			if out, err := exec.Command("go", "build", "-o", path, "./go").CombinedOutput(); err != nil {
				t.Fatalf("build: %v\n%s", err, out)
			}
			start(t, "waiting", path, "127.0.0.1:"+port)
		},
		"voicebridge agent echo": func(t *testing.T, port string) {
			start(t, "waiting", vb, "agent", "echo", "--listen", "127.0.0.1:"+port)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			port := freePort(t)
			begin(t, port)
			dir := t.TempDir()
			out, ran := exec.Command(vb, "demo", "--agent", "ws://127.0.0.1:"+port+"/", "--echo", "--prebuffer", "1s",
				"--out", dir).CombinedOutput()
			if ran != nil && !strings.Contains(string(out), "did not come through intact") {
				t.Fatalf("%v\n%s", ran, out)
			}
			whole, err := ear.WholeFile(filepath.Join(dir, "caller.wav"), filepath.Join(dir, "heard.wav"), 25)
			if err != nil {
				t.Fatal(err)
			}
			// A machine that has others' work to do makes holes, which the verdict counts.
			if whole < 0.6 {
				t.Errorf("%.2f of the echo came back\n%s", whole, out)
			}
		})
	}
}

// TestTwilioClient: a client written from Twilio's documentation places a call
// on 'serve --insecure', with and without a query string.
func TestTwilioClient(t *testing.T) {
	vb, js := binary(t), node(t)
	agentPort, port := freePort(t), freePort(t)
	start(t, "waiting", vb, "agent", "echo", "--listen", "127.0.0.1:"+agentPort)
	start(t, "agent", vb, "serve", "--insecure", "--listen", "127.0.0.1:"+port, "--agent",
		"ws://127.0.0.1:"+agentPort+"/")
	for _, query := range []string{"", "?foo=bar"} {
		out, err := exec.Command(js, "testdata/twilio-client.js", "ws://127.0.0.1:"+port+"/media/twilio"+query).Output()
		if err != nil {
			t.Fatal(err)
		}
		var r struct {
			Media, Bytes, Close int
			Wrong               []string
		}
		if err := json.Unmarshal(out, &r); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if r.Media < 50 || r.Media > 52 || r.Bytes != 160*r.Media || r.Close != 1000 || len(r.Wrong) > 0 {
			t.Errorf("50 frames were sent: %s", out)
		}
	}
}
