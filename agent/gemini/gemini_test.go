package gemini

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"voicebridge/agent"
	"voicebridge/agent/model"
	"voicebridge/agent/model/modeltest"
	"voicebridge/calls"
)

func fixture(t testing.TB, name string) string { return modeltest.Fixture(t, name+".json") }

func newTest(t testing.TB, own model.Options) agent.Protocol {
	t.Helper()
	return modeltest.Protocol(t, Dialect, options{own})
}

func begun(t testing.TB) *modeltest.Peer {
	t.Helper()
	peer := modeltest.New(t, newTest(t, model.Options{Model: "gemini-3.8-live"}), modeltest.PCMU, agent.Known{})
	peer.Read(fixture(t, "setupComplete"))
	if !peer.Talk.Ready() {
		t.Fatal("it is not ready")
	}
	peer.Take()
	return peer
}

// TestSetup: a session is set up as the vendor has it.
func TestSetup(t *testing.T) {
	var want struct{ Setup map[string]any }
	if err := json.Unmarshal([]byte(fixture(t, "setup")), &want); err != nil {
		t.Fatal(err)
	}
	p := newTest(t, model.Options{Model: "gemini-3.8-live", Voice: "Puck",
		Instructions: "You answer the phone for Example Bakery. Be brief.",
		Session:      map[string]any{"realtimeInputConfig": want.Setup["realtimeInputConfig"]}}).(*protocol)
	got := p.setup(nil)
	for name, value := range want.Setup {
		if name != "tools" && modeltest.JSON(t, got[name]) != modeltest.JSON(t, value) {
			t.Errorf("%s is %s, want %s", name, modeltest.JSON(t, got[name]), modeltest.JSON(t, value))
		}
	}
	declared := modeltest.JSON(t, p.setup(p.all.Tools.List(true))["tools"])
	for _, part := range []string{`"behavior":"BLOCKING"`, `"type":"OBJECT"`, `"type":"STRING"`, `"enum":["billing"]`} {
		if !strings.Contains(declared, part) {
			t.Errorf("%s is not in %s", part, declared)
		}
	}
	if strings.Contains(declared, `"type":"object"`) {
		t.Errorf("a type has small letters: %s", declared)
	}
}

// TestCall: a call as the vendor's messages have it, one by one, in either kind of message.
func TestCall(t *testing.T) {
	peer := modeltest.New(t, newTest(t, model.Options{Model: "m", Greeting: "Greet the caller."}), modeltest.PCMU, agent.Known{})
	if sent, _ := peer.Take(); len(sent) != 1 || sent[0]["setup"] == nil {
		t.Fatalf("it is told %v", sent)
	}
	peer.ReadBinary([]byte(fixture(t, "setupComplete")))
	sent, _ := peer.Take()
	if len(sent) != 1 || modeltest.JSON(t, sent[0]) != modeltest.JSON(t, fixture(t, "clientContent.greeting")) {
		t.Fatalf("it is told %v", sent)
	}
	for _, name := range []string{"serverContent.modelTurn.audio", "serverContent.outputTranscription",
		"sessionResumptionUpdate", "serverContent.generationComplete", "serverContent.turnComplete", "goAway"} {
		peer.ReadBinary([]byte(fixture(t, name)))
	}
	sent, commands := peer.Take()
	var audio struct {
		ServerContent content
	}
	if err := json.Unmarshal([]byte(fixture(t, "serverContent.modelTurn.audio")), &audio); err != nil {
		t.Fatal(err)
	}
	if len(sent) > 0 || len(commands) != 2 || commands[1].Kind != agent.CommandMark ||
		!slices.Equal(commands[0].Audio, audio.ServerContent.ModelTurn.Parts[0].InlineData.Data) {
		t.Fatalf("it wants %v, and is told %v", commands, sent)
	}
	peer.Event(agent.Event{Kind: agent.EventMark, Mark: commands[1].Mark, MarkStatus: agent.MarkPlayed, In: time.Second})
	peer.Read(fixture(t, "serverContent.inputTranscription"))
	peer.Hears(2*time.Second, 0)
	peer.Read(fixture(t, "serverContent.modelTurn.last-with-turnComplete"))
	want := []calls.Line{{Role: calls.Agent, Text: "Happy to help", From: 1000, To: 1000},
		{Role: calls.Caller, Text: "I need a cake", From: 1000, To: 1000}}
	if !slices.Equal(peer.Lines, want) {
		t.Errorf("said is %+v", peer.Lines)
	}
	if peer.Usage["input_tokens"] != 132 || peer.Usage["output_tokens"] != 91 {
		t.Errorf("used are %v", peer.Usage)
	}
	if sent, _ := peer.Take(); modeltest.JSON(t, sent[0]["realtimeInput"].(map[string]any)["audio"].(map[string]any)["mimeType"]) !=
		`"audio/pcm;rate=16000"` {
		t.Errorf("it hears %v", sent[0])
	}
	peer.Event(agent.Event{Kind: agent.EventGap, Duration: time.Second}) // as long, in silence
	sent, _ = peer.Take()
	bytes := 0
	for _, m := range sent {
		b, err := base64.StdEncoding.DecodeString(m["realtimeInput"].(map[string]any)["audio"].(map[string]any)["data"].(string))
		if err != nil {
			t.Fatal(err)
		}
		bytes += len(b)
	}
	if bytes != 32000 {
		t.Errorf("a second that is missing has %d bytes", bytes)
	}
}

// TestInterrupted: late audio is dropped until the turn is complete, and an interruption between turns drops
// nothing of the next.
func TestInterrupted(t *testing.T) {
	peer := begun(t)
	audio := fixture(t, "serverContent.modelTurn.audio")
	peer.Read(audio)
	peer.Take()
	peer.Read(fixture(t, "serverContent.interrupted"))
	peer.Read(audio)
	peer.Read(fixture(t, "serverContent.outputTranscription"))
	if _, commands := peer.Take(); len(commands) != 1 || commands[0].Kind != agent.CommandClear {
		t.Errorf("an interruption does %v", commands)
	}
	peer.Event(agent.Event{Kind: agent.EventCleared})
	peer.Read(fixture(t, "serverContent.turnComplete"))
	peer.Read(fixture(t, "serverContent.interrupted"))
	peer.Read(audio)
	if _, commands := peer.Take(); len(commands) != 1 || commands[0].Kind != agent.CommandAudio {
		t.Errorf("what it says next does %v", commands)
	}
}

// TestTools: they are run, and taken back.
func TestTools(t *testing.T) {
	peer := begun(t)
	peer.Read(fixture(t, "toolCall"))
	sent, commands := peer.Take()
	if len(commands) != 1 || commands[0].Transfer == nil || commands[0].Transfer.To != "name:billing" {
		t.Fatalf("a tool does %v", commands)
	}
	if got := modeltest.JSON(t, sent[0]); got != `{"toolResponse":{"functionResponses":[{"id":"fc-11",`+
		`"name":"transfer_call","response":{"output":{"status":"dialing"}}}]}}` {
		t.Errorf("it is told %s", got)
	}
	peer.Read(fixture(t, "toolCallCancellation"))
	if _, cancels := peer.Take(); len(cancels) != 1 || cancels[0].Kind != agent.CommandCancel {
		t.Errorf("it is taken back by %v", cancels)
	}
	peer.Read(strings.ReplaceAll(strings.ReplaceAll(fixture(t, "toolCall"), "billing", "nobody"), "fc-11", "fc-12"))
	if sent, commands := peer.Take(); len(commands) > 0 || !strings.Contains(fmt.Sprint(sent), "must be one of billing") {
		t.Errorf("of a destination that there is not it is told %v", sent)
	}
	peer.Event(agent.Event{Kind: agent.EventDigit, Digit: '#'})
	if sent, _ := peer.Take(); modeltest.JSON(t, sent[0]) != `{"realtimeInput":{"text":"[Keypad: #]"}}` {
		t.Errorf("of keys it is told %v", sent)
	}
	peer.Read(fixture(t, "serverContent.turnComplete.rejected"))
	if len(peer.Troubles) != 1 {
		t.Errorf("it is told %v", peer.Troubles)
	}
}

// FuzzRead: whatever the model says, the talk goes on.
// TestGoodbye: a model that ends the call before it has said anything says goodbye, once; what the caller said last
// is told before the call is moved.
func TestGoodbye(t *testing.T) {
	peer := begun(t)
	peer.Read(fixture(t, "serverContent.inputTranscription"))
	peer.Read(`{"toolCall":{"functionCalls":[{"id":"1","name":"end_call","args":{}}]}}`)
	if len(peer.Lines) != 1 || peer.Lines[0].Role != calls.Caller {
		t.Errorf("said is %v", peer.Lines)
	}
	for range 2 {
		peer.Read(fixture(t, "serverContent.modelTurn.audio"))
		peer.Read(fixture(t, "serverContent.turnComplete"))
	}
	if _, commands := peer.Take(); len(commands) != 2 || commands[0].Kind != agent.CommandAudio ||
		commands[1].Kind != agent.CommandMark {
		t.Errorf("a goodbye, and more, does %v", commands)
	}
}

func FuzzRead(f *testing.F) { modeltest.Fuzz(f, begun) }
