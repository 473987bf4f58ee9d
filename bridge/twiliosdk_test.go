package bridge_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"voicebridge/agent/tools"
	"voicebridge/calls"
)

// TestTwilioSDK: what an agent asks for with Twilio's own library is understood, and so are the answers. In real time.
func TestTwilioSDK(t *testing.T) {
	const account, token = "AC0123456789abcdef0123456789abcdef", "0123456789abcdef0123456789abcdef"
	cmd := exec.Command(sdkNode(t), sdkDir+"twilio.mjs", account, token)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
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
	type answer struct {
		What, Status, SID string
		Port, HTTP, Code  int
	}
	lines := bufio.NewScanner(out)
	next := func() (m answer) {
		t.Helper()
		if !lines.Scan() {
			t.Fatal("it has ended")
		}
		if err := json.Unmarshal(lines.Bytes(), &m); err != nil {
			t.Fatalf("%s: %v", lines.Bytes(), err)
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
