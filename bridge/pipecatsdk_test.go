package bridge_test

import (
	"encoding/json"
	"fmt"
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
	type message struct {
		Type, Label string
		Port        int
		Data        json.RawMessage
	}
	_, read := sdkAgent(t, "pipecat.mjs")
	next := func() (m message) {
		read(&m)
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
