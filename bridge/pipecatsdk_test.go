package bridge_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"voicebridge/agent"
	dialects "voicebridge/agent/all"
	"voicebridge/agent/link"
	"voicebridge/calls"
	"voicebridge/sim/ear"
)

// TestPipecatSDK: an agent with the frames of pipecat's own client understands the bridge's, is told of the call by
// RTVI, is heard, and ends the call. In real time.
func TestPipecatSDK(t *testing.T) {
	node := sdkNode(t)
	cmd := exec.Command(node, sdkDir+"pipecat.mjs")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill() // it serves until then
		_ = cmd.Wait()
	}()
	type message struct {
		Type, Label string
		Port        int
		Data        json.RawMessage
	}
	lines := bufio.NewScanner(out)
	next := func() (m message) {
		if lines.Scan() {
			if err := json.Unmarshal(lines.Bytes(), &m); err != nil {
				t.Errorf("%s: %v", lines.Bytes(), err)
			}
		}
		return m
	}
	b := startBridge(t, "", func(o *options) {
		dialect := dialects.Lookup("pipecat")
		protocol, err := dialect.New(agent.Options{Decode: func(v any) error {
			return json.Unmarshal([]byte(`{"RTVI":true}`), v)
		}})
		if err != nil {
			t.Fatal(err)
		}
		o.sockets = true
		o.dialer, err = link.New(link.Config{Dialect: dialect, Protocol: protocol, Dialer: network,
			URL: fmt.Sprintf("ws://127.0.0.1:%d/", next().Port)})
		if err != nil {
			t.Fatal(err)
		}
	})
	c := b.caller(t, "twilio", 20*time.Second)
	c.Voice = ear.Sine(c.Start.In.Rate, firstHz, 20*time.Second)
	r := call(t, c)
	b.ended(t, calls.AgentHangup)
	if !ear.Hears(r.Heard, r.Format.Rate, firstHz) {
		t.Error("the caller does not hear the echo")
	}
	var told []string
	for m := next(); m.Type != "closed"; m = next() {
		if m.Type == "" || m.Type == "error" || m.Label != "rtvi-ai" {
			t.Fatalf("after %q it tells %+v", told, m)
		}
		told = append(told, m.Type)
	}
	if len(told) < 2 || told[0] != "client-ready" || told[1] != "client-message" {
		t.Errorf("it is told %q", told)
	}
}
