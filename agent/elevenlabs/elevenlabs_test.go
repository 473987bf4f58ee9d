package elevenlabs

import (
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
	"voicebridge/codec"
)

func fixture(t testing.TB, name string) string { return modeltest.Fixture(t, name+".json") }

func newTest(t testing.TB, own options) agent.Protocol {
	t.Helper()
	return modeltest.Protocol(t, Dialect, own)
}

func begun(t testing.TB) *modeltest.Peer {
	t.Helper()
	peer := modeltest.New(t, newTest(t, options{AgentID: "a"}), modeltest.PCMU, agent.Known{})
	peer.Read(fixture(t, "conversation_initiation_metadata.ulaw"))
	if !peer.Talk.Ready() {
		t.Fatal("it is not ready")
	}
	peer.Take()
	return peer
}

// TestInitiation: the agent is told of the call, and of what is configured.
func TestInitiation(t *testing.T) {
	own := options{AgentID: "a", Options: model.Options{Greeting: "Example Bakery, how can I help?", Language: "en",
		Voice: "v0123456789", Session: map[string]any{"user_id": "+12025550123"}}}
	peer := modeltest.New(t, newTest(t, own), modeltest.PCMU, agent.Known{From: "+12025550123", To: "+12025550100"})
	sent, _ := peer.Take()
	var want map[string]any
	if err := json.Unmarshal([]byte(fixture(t, "conversation_initiation_client_data")), &want); err != nil {
		t.Fatal(err)
	}
	want["dynamic_variables"] = map[string]any{"from_number": "+12025550123", "to_number": "+12025550100", "call_id": "cs_1"}
	if len(sent) != 1 || modeltest.JSON(t, sent[0]) != modeltest.JSON(t, want) {
		t.Errorf("it is told\n%s\nwant\n%s", modeltest.JSON(t, sent), modeltest.JSON(t, want))
	}
	peer = modeltest.New(t, newTest(t, options{AgentID: "a"}), modeltest.PCMU, agent.Known{})
	if sent, _ := peer.Take(); sent[0]["conversation_config_override"] != nil {
		t.Errorf("nothing is configured, and it is told %v", sent)
	}
}

// TestLocate: with a key the URL is signed for each call; the key does not get elsewhere.
func TestLocate(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("xi-api-key") != "sk-1" || r.URL.Query().Get("agent_id") != "agent_0123456789" {
			http.Error(w, `{"detail":{"status":"invalid_api_key"}}`, http.StatusUnauthorized)
			return
		}
		io.WriteString(w, fixture(t, "http.get-signed-url.response"))
	}))
	defer srv.Close()
	u, err := url.Parse("ws" + strings.TrimPrefix(srv.URL, "http") + "/v1/convai/conversation")
	if err != nil {
		t.Fatal(err)
	}
	locate := func(own options) (string, error) {
		return newTest(t, own).(*protocol).Locate(t.Context(), u, nil)
	}
	at, err := locate(options{AgentID: "agent_0123456789", Options: model.Options{Key: "sk-1"}})
	if err != nil || !strings.HasPrefix(at, "wss://api.elevenlabs.io/v1/convai/conversation?agent_id=agent_0123456789&conv") {
		t.Errorf("%s, %v", at, err)
	}
	if at, err := locate(options{AgentID: "b"}); err != nil || at != u.String()+"?agent_id=b" {
		t.Errorf("%s, %v", at, err)
	}
	_, err = locate(options{AgentID: "b", Options: model.Options{Key: "sk-2"}})
	if err == nil || strings.Contains(err.Error(), "sk-2") || !strings.Contains(err.Error(), "401") {
		t.Errorf("%v", err)
	}
}

// TestFormats: they are those of the agent.
func TestFormats(t *testing.T) {
	peer := modeltest.New(t, newTest(t, options{AgentID: "a"}), modeltest.PCMU, agent.Known{})
	peer.Read(fixture(t, "conversation_initiation_metadata.pcm"))
	hears, speaks := peer.Talk.Formats()
	if hears.Rate != 16000 || speaks.Rate != 24000 || hears.Encoding != codec.L16LE || !peer.Talk.Ready() {
		t.Errorf("%v, %v", hears, speaks)
	}
	peer = modeltest.New(t, newTest(t, options{AgentID: "a"}), modeltest.PCMU, agent.Known{})
	peer.Read(strings.ReplaceAll(fixture(t, "conversation_initiation_metadata.pcm"), "pcm_24000", "pcm_44100"))
	if _, commands := peer.Take(); peer.Talk.Ready() || len(commands) != 1 || !commands[0].Fatal ||
		!strings.Contains(commands[0].Message, "pcm_44100") {
		t.Errorf("a format that cannot be had does %v", commands)
	}
}

// TestCall: a call as the vendor's messages have it, one by one.
func TestCall(t *testing.T) {
	peer := begun(t)
	peer.Read(fixture(t, "agent_response"))
	peer.Read(fixture(t, "audio"))
	peer.Read(fixture(t, "audio.alignment"))
	peer.Read(fixture(t, "ping"))
	sent, commands := peer.Take()
	var audio message
	if err := json.Unmarshal([]byte(fixture(t, "audio")), &audio); err != nil {
		t.Fatal(err)
	}
	if len(sent) != 1 || modeltest.JSON(t, sent[0]) != modeltest.JSON(t, fixture(t, "pong")) ||
		len(commands) != 2 || !slices.Equal(commands[0].Audio, audio.Audio.Audio) {
		t.Fatalf("it wants %v, and is told %v", commands, sent)
	}
	for _, name := range []string{"vad_score", "tentative_user_transcript", "guardrail_triggered", "agent_tool_request",
		"agent_response_correction"} {
		peer.Read(fixture(t, name))
	}
	peer.Hears(time.Second, 10*time.Millisecond)
	sent, _ = peer.Take()
	if text, _ := sent[0]["user_audio_chunk"].(string); len(sent) != 1 || len(sent[0]) != 1 || text == "" {
		t.Errorf("it hears %v", sent)
	}
	peer.Read(fixture(t, "user_transcript"))
	_, commands = peer.Take()
	if len(commands) != 1 || commands[0].Kind != agent.CommandMark {
		t.Fatalf("the end of a reply does %v", commands)
	}
	peer.Event(agent.Event{Kind: agent.EventMark, Mark: commands[0].Mark, MarkStatus: agent.MarkPlayed, In: 2 * time.Second})
	want := []calls.Line{{Role: calls.Caller, Text: "I need a cake for Friday.", From: 0, To: 1000},
		{Role: calls.Agent, Text: "Happy to help with a cake for Friday.", From: 1000, To: 2000}}
	if !slices.Equal(peer.Lines, want) {
		t.Errorf("said is %+v", peer.Lines)
	}
}

// TestInterrupted: audio of events up to the interrupted one is late.
func TestInterrupted(t *testing.T) {
	peer := begun(t)
	peer.Read(fixture(t, "audio"))
	peer.Take()
	peer.Read(fixture(t, "interruption"))    // 14
	peer.Read(fixture(t, "audio.alignment")) // 13
	if _, commands := peer.Take(); len(commands) != 1 || commands[0].Kind != agent.CommandClear {
		t.Errorf("an interruption does %v", commands)
	}
	peer.Event(agent.Event{Kind: agent.EventCleared})
	peer.Read(strings.Replace(fixture(t, "audio.alignment"), `"event_id": 13`, `"event_id": 15`, 1))
	if _, commands := peer.Take(); len(commands) != 1 || commands[0].Kind != agent.CommandAudio {
		t.Errorf("what it says next does %v", commands)
	}
}

// TestTools: the client's are run, and the vendor's own end of a call ends this one.
func TestTools(t *testing.T) {
	peer := begun(t)
	peer.Read(fixture(t, "client_tool_call"))
	sent, commands := peer.Take()
	if len(sent) != 1 || modeltest.JSON(t, sent[0]) != modeltest.JSON(t, fixture(t, "client_tool_result")) ||
		len(commands) != 1 || commands[0].Transfer.To != "name:billing" {
		t.Fatalf("a tool does %v, %v", sent, commands)
	}
	for _, key := range "4421#" {
		peer.Event(agent.Event{Kind: agent.EventDigit, Digit: byte(key)})
	}
	if sent, _ := peer.Take(); modeltest.JSON(t, sent[0]) != modeltest.JSON(t, fixture(t, "user_message.keypad")) {
		t.Errorf("of keys it is told %v", sent)
	}
	peer.Read(fixture(t, "agent_tool_response.end_call"))
	if _, commands := peer.Take(); len(commands) != 1 || commands[0].Kind != agent.CommandHangup || commands[0].Now {
		t.Errorf("its own end of the call does %v", commands)
	}
	for _, name := range []string{"error.max_duration_exceeded", "error.override_error"} {
		peer := begun(t)
		peer.Read(fixture(t, name))
		if _, commands := peer.Take(); len(commands) != 1 || !commands[0].Fatal || commands[0].Cause != calls.AgentLost {
			t.Errorf("%s does %v", name, commands)
		}
	}
}

// FuzzRead: whatever the agent says, the talk goes on.
func FuzzRead(f *testing.F) { modeltest.Fuzz(f, begun) }
