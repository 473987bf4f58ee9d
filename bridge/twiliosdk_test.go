package bridge_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"voicebridge/agent/tools"
	"voicebridge/calls"
)

// TestTwilioSDK: what an agent asks for with Twilio's own library is understood, and so are the answers. In real time.
func TestTwilioSDK(t *testing.T) {
	const account, token = "AC0123456789abcdef0123456789abcdef", "0123456789abcdef0123456789abcdef"
	in, read := sdkAgent(t, "twilio.mjs", account, token)
	type answer struct {
		What, Status, SID string
		Port, HTTP, Code  int
	}
	next := func() (m answer) {
		t.Helper()
		if !read(&m) {
			t.Fatal("it has ended")
		}
		return m
	}
	b := startBridge(t, "", func(o *options) {
		o.sockets = true
		o.dialer = modelDialer(t, "twilio", fmt.Sprintf("ws://127.0.0.1:%d/", next().Port),
			map[string]any{"account_sid": account, "auth_token": token}, tools.Config{})
	})
	if _, err := fmt.Fprintln(in, "http"+strings.TrimPrefix(b.url, "ws")); err != nil {
		t.Fatal(err)
	}
	call(t, b.caller(t, "vonage", 30*time.Second))
	b.ended(t, calls.APIHangup)
	id := next().SID
	for _, want := range []answer{
		{What: "fetch", Status: "in-progress", SID: id},
		{What: "wrong token", HTTP: 401, Code: 20003},
		{What: "no such call", HTTP: 404, Code: 20404},
		{What: "bad TwiML", HTTP: 400, Code: 12200},
		{What: "completed", Status: "completed", SID: id},
	} {
		if got := next(); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
}
