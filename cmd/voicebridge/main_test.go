package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"voicebridge/demo"
	"voicebridge/providers/all"
	"voicebridge/sim/ear"
	"voicebridge/wav"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// command runs the program in this process.
func command(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	err := run(ctx, args, &out, &out)
	return out.String(), err
}

func TestHelp(t *testing.T) {
	out, err := command(t, "--help")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []string{"serve", "demo", "agent", "call", "calls", "hangup", "digits", "transfer", "events",
		"check", "token", "providers", "version"} {
		if !strings.Contains(out, c) {
			t.Errorf("--help does not show %s:\n%s", c, out)
		}
	}
	if out, err := command(t, "providers"); err != nil || !strings.Contains(out, "Vonage Voice API WebSocket") ||
		!strings.Contains(out, "clear_marks      yes     no") {
		t.Errorf("providers: %s, %v", out, err)
	}
	for _, args := range [][]string{{}, {"help"}, {"help", "call"}, {"call", "--help"}} {
		if out, err := command(t, args...); err != nil || !strings.Contains(out, "Usage: voicebridge") {
			t.Errorf("%v: %s, %v", args, out, err)
		}
	}
	if out, err := command(t, "--version"); err != nil || !strings.HasPrefix(out, "voicebridge ") {
		t.Errorf("--version: %s, %v", out, err)
	}
	if out, err := command(t, "version"); err != nil || !strings.HasPrefix(out, "voicebridge ") {
		t.Errorf("version: %s, %v", out, err)
	}
	for _, args := range [][]string{{"sing"}, {"serve"}, {"serve", "--insecure"},
		{"serve", "--insecure", "--agent", "http://x"},
		{"serve", "--config", "nowhere.yaml"},
		{"serve", "--config", "../../examples/voicebridge.yaml", "--listen", "127.0.0.1:1"},
		{"demo", "--carrier", "nobody"}, {"demo", "--rate", "1"}, {"demo", "--input", "nowhere.wav"},
		{"demo", "--input", "main.go", "--out", t.TempDir()}, {"agent", "tone", "--hz", "0"}} {
		if out, err := command(t, args...); err == nil {
			t.Errorf("%v: no error\n%s", args, out)
		}
	}
}

// TestDemo: for each carrier the audio comes through, and the files tell so.
func TestDemo(t *testing.T) {
	t.Parallel()
	speech, err := ear.Speech(16000)
	if err != nil {
		t.Fatal(err)
	}
	input := filepath.Join(t.TempDir(), "in.wav")
	if err := wav.Write(input, speech[:24000], 16000); err != nil {
		t.Fatal(err)
	}
	tests := [][]string{{"--carrier", "vonage", "--rate", "24000"}}
	for _, spec := range all.Specs {
		tests = append(tests, []string{"--carrier", spec.Name})
	}
	for _, args := range tests {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			out, err := command(t, append([]string{"demo", "--input", input, "--prebuffer", "1s", "--out", dir}, args...)...)
			checkIntact(t, dir, out, err)
		})
	}
}

// checkIntact compares what a demo has written. Its own verdict counts the holes and the frames, too, which a machine
// makes that has others' work to do: these are for tests in virtual time.
func checkIntact(t *testing.T, dir, out string, ran error) {
	t.Helper()
	var code exitCode
	if ran != nil && !errors.As(ran, &code) {
		t.Fatalf("%v\n%s", ran, out)
	}
	var s demo.Summary
	b, err := os.ReadFile(filepath.Join(dir, "summary.json"))
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	whole, err := ear.WholeFile(filepath.Join(dir, "caller.wav"), filepath.Join(dir, "heard.wav"), 25)
	if err != nil {
		t.Fatal(err)
	}
	wrong := slices.DeleteFunc(s.Failures, func(f string) bool {
		return strings.Contains(f, " gaps of ") || strings.Contains(f, "signal to noise") ||
			strings.Contains(f, "frames did not come back")
	})
	if whole < 0.6 || len(wrong) > 0 {
		t.Errorf("%.2f of the echo came back, %q\n%s", whole, wrong, out)
	}
}

// TestDemoModel: the talk with a simulated model goes as it should.
func TestDemoModel(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"openai"}, {"ultravox", "--carrier", "vonage"}} {
		t.Run(args[0], func(t *testing.T) {
			t.Parallel()
			out, err := command(t, append([]string{"demo", "--out", t.TempDir(), "--agent-protocol"}, args...)...)
			if err != nil || !strings.Contains(out, "agent   Let me look that up.") {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// TestDemoFails: a demo whose agent is not there, or does not echo, says so with
// its exit code.
func TestDemoFails(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	var code exitCode
	out, err := command(t, "demo", "--agent", "ws://"+l.Addr().String(), "--echo", "--out", t.TempDir())
	if !errors.As(err, &code) || code != 1 || !strings.Contains(out, "The caller heard nothing.") ||
		!strings.Contains(out, "1011: agent_unreachable") || !strings.Contains(out, "refused") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestServeCheck(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(path, []byte("agent: {url: 'ws://127.0.0.1:1/'}\nmedia: {insecure: true}\n"),
		0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := command(t, "serve", "--config", path, "--check"); err != nil || !strings.Contains(out, "good") {
		t.Errorf("%s, %v", out, err)
	}
}
