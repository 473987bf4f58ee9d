package ultravox

import (
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"voicebridge/agent"
	"voicebridge/agent/model"
	"voicebridge/agent/model/modeltest"
	"voicebridge/calls"
	"voicebridge/providers"
)

func fixture(t testing.TB, name string) string { return modeltest.Fixture(t, name+".json") }

func newTest(t testing.TB, own options) agent.Protocol {
	t.Helper()
	return modeltest.Protocol(t, Dialect, own)
}

func begun(t testing.TB) *modeltest.Peer {
	t.Helper()
	peer := modeltest.New(t, newTest(t, options{}), modeltest.PCMU, agent.Known{})
	peer.Read(fixture(t, "call_started"))
	if !peer.Talk.Ready() {
		t.Fatal("it is not ready")
	}
	peer.Take()
	return peer
}

// TestLocate: a call is made as the vendor has it, and its URL is where the agent is.
func TestLocate(t *testing.T) {
	var asked map[string]any
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-API-Key") != "sk-1" || r.Method != "POST" || r.URL.Path != "/api/calls" {
			http.Error(w, `{"detail":"no"}`, http.StatusForbidden)
			return
		}
		if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
			t.Error(err)
		}
		w.WriteHeader(http.StatusCreated)
		io.WriteString(w, fixture(t, "http.calls.response"))
	}))
	defer srv.Close()
	u, err := url.Parse("ws" + strings.TrimPrefix(srv.URL, "http") + "/api/calls")
	if err != nil {
		t.Fatal(err)
	}
	own := options{Options: model.Options{Key: "sk-1", Instructions: "You answer the phone for Example Bakery. Be brief.",
		Model: "ultravox-v0.7", Voice: "Mark", Greeting: "Example Bakery, how can I help?",
		Session: map[string]any{"maxDuration": "1800s", "joinTimeout": "30s", "recordingEnabled": false}}}
	call := &agent.Call{Transfers: []string{"conference"}, Start: &providers.Start{In: modeltest.PCMU, Out: modeltest.PCMU}}
	at, err := newTest(t, own).(*protocol).Locate(t.Context(), u, call)
	if err != nil || !strings.HasPrefix(at, "wss://voice.ultravox.ai/calls/") {
		t.Errorf("%s, %v", at, err)
	}
	var want map[string]any
	if err := json.Unmarshal([]byte(fixture(t, "http.calls.request")), &want); err != nil {
		t.Fatal(err)
	}
	for name, value := range want {
		if name != "selectedTools" && modeltest.JSON(t, asked[name]) != modeltest.JSON(t, value) {
			t.Errorf("%s is %s, want %s", name, modeltest.JSON(t, asked[name]), modeltest.JSON(t, value))
		}
	}
	if n := len(asked["selectedTools"].([]any)); n != 3 || len(asked) != len(want) {
		t.Errorf("asked is %v", asked)
	}
	for _, part := range []string{`"modelToolName":"transfer_call"`, `"required":true`, `"required":false`,
		`"location":"PARAMETER_LOCATION_BODY"`, `"enum":["billing"]`, `"client":{}`} {
		if text := modeltest.JSON(t, asked["selectedTools"]); !strings.Contains(text, part) {
			t.Errorf("%s is not in %s", part, text)
		}
	}
	own.Key = "sk-2"
	if _, err := newTest(t, own).(*protocol).Locate(t.Context(), u, call); err == nil ||
		strings.Contains(err.Error(), "sk-2") || !strings.Contains(err.Error(), "403") {
		t.Errorf("%v", err)
	}
}

// TestCall: a call as the vendor's messages have it, one by one.
func TestCall(t *testing.T) {
	peer := begun(t)
	audio, err := hex.DecodeString(strings.Join(strings.Fields(modeltest.Fixture(t, "user-audio.s16le-8000.hex")), ""))
	if err != nil {
		t.Fatal(err)
	}
	peer.Read(fixture(t, "state.speaking"))
	peer.Read(fixture(t, "transcript.agent.delta"))
	peer.ReadBinary(audio)
	peer.Read(fixture(t, "transcript.agent.final"))
	peer.Read(fixture(t, "state.listening"))
	_, commands := peer.Take()
	if len(commands) != 2 || !slices.Equal(commands[0].Audio, audio) || commands[1].Kind != agent.CommandMark {
		t.Fatalf("it wants %v", commands)
	}
	peer.Event(agent.Event{Kind: agent.EventMark, Mark: commands[1].Mark, MarkStatus: agent.MarkPlayed, In: time.Second})
	peer.Hears(2*time.Second, 0)
	peer.Read(fixture(t, "transcript.user.final"))
	for _, name := range []string{"state.thinking", "state.idle", "pong", "debug"} {
		peer.Read(fixture(t, name))
	}
	want := []calls.Line{{Role: calls.Agent, Text: "Happy to help.", From: 1000, To: 1000},
		{Role: calls.Caller, Text: "I need a cake for Friday.", From: 0, To: 2000}}
	if !slices.Equal(peer.Lines, want) {
		t.Errorf("said is %+v", peer.Lines)
	}
	if sent, commands := peer.Take(); len(sent)+len(commands) > 0 || len(peer.Binary) != 1 || len(peer.Binary[0]) != 320 {
		t.Errorf("%v, %v, it hears %d messages", sent, commands, len(peer.Binary))
	}
}

// TestInterrupted: late audio is dropped until the agent speaks again.
func TestInterrupted(t *testing.T) {
	peer := begun(t)
	peer.Read(fixture(t, "state.speaking"))
	peer.ReadBinary(make([]byte, 3200))
	peer.Take()
	peer.Read(fixture(t, "playback_clear_buffer"))
	peer.ReadBinary(make([]byte, 3200))
	peer.Read(fixture(t, "transcript.agent.delta"))
	if _, commands := peer.Take(); len(commands) != 1 || commands[0].Kind != agent.CommandClear {
		t.Errorf("an interruption does %v", commands)
	}
	peer.Event(agent.Event{Kind: agent.EventCleared})
	peer.Read(fixture(t, "state.listening"))
	peer.Read(fixture(t, "state.speaking"))
	peer.ReadBinary(make([]byte, 3200))
	if _, commands := peer.Take(); len(commands) != 1 || commands[0].Kind != agent.CommandAudio {
		t.Errorf("what it says next does %v", commands)
	}
}

// TestTools: they are run, and answered so that the agent says something where there is something to be said.
func TestTools(t *testing.T) {
	peer := begun(t)
	peer.Read(fixture(t, "client_tool_invocation"))
	sent, commands := peer.Take()
	if len(commands) != 1 || commands[0].Transfer.To != "name:billing" || len(sent) != 1 {
		t.Fatalf("a tool does %v, %v", sent, commands)
	}
	want := strings.Replace(fixture(t, "client_tool_result"), "speaks", "listens", 1)
	if modeltest.JSON(t, sent[0]) != modeltest.JSON(t, want) {
		t.Errorf("it is told %v", sent)
	}
	peer.Read(strings.NewReplacer("billing", "nobody", "inv-3f6c", "inv-2").Replace(fixture(t, "client_tool_invocation")))
	if sent, _ := peer.Take(); sent[0]["agentReaction"] != "speaks" ||
		!strings.Contains(sent[0]["result"].(string), "must be one of") {
		t.Errorf("of a destination that there is not it is told %v", sent)
	}
	for _, key := range "4421#" {
		peer.Event(agent.Event{Kind: agent.EventDigit, Digit: byte(key)})
	}
	if sent, _ := peer.Take(); modeltest.JSON(t, sent[0]) != modeltest.JSON(t, fixture(t, "user_text_message.keypad")) {
		t.Errorf("of keys it is told %v", sent)
	}
}

// FuzzRead: whatever the agent says, the talk goes on.
func FuzzRead(f *testing.F) { modeltest.Fuzz(f, begun) }
