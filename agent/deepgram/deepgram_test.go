package deepgram

import (
	"encoding/hex"
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

func newTest(t testing.TB, own options) agent.Protocol {
	t.Helper()
	return modeltest.Protocol(t, Dialect, own)
}

func fixture(t testing.TB, name string) string { return modeltest.Fixture(t, name+".json") }

func begun(t testing.TB) *modeltest.Peer {
	t.Helper()
	peer := modeltest.New(t, newTest(t, options{Options: model.Options{Model: "gpt-4o-mini"}}), modeltest.PCMU, agent.Known{})
	peer.Read(fixture(t, "Welcome"))
	peer.Read(fixture(t, "SettingsApplied"))
	if !peer.Talk.Ready() {
		t.Fatal("it is not ready")
	}
	peer.Take()
	return peer
}

// TestSettings: what the agent is told to be is as the vendor has it.
func TestSettings(t *testing.T) {
	own := options{Options: model.Options{Model: "gpt-4o-mini", Instructions: "You answer the phone.", Greeting: "Hi.",
		Voice: "aura-2-thalia-en", Session: map[string]any{"flags": map[string]any{"history": true},
			"agent": map[string]any{"listen": map[string]any{"provider": map[string]any{"smart_format": false}}}}},
		Transcription: "nova-3"}
	p := newTest(t, own).(*protocol)
	want := `{"agent":{"greeting":"Hi.","listen":{"provider":{"model":"nova-3","smart_format":false,"type":"deepgram",` +
		`"version":"v1"}},"speak":{"provider":{"model":"aura-2-thalia-en","type":"deepgram"}},"think":{"functions":[],` +
		`"prompt":"You answer the phone.","provider":{"model":"gpt-4o-mini","type":"open_ai"}}},"audio":{"input":` +
		`{"encoding":"alaw","sample_rate":8000},"output":{"container":"none","encoding":"linear16","sample_rate":16000}},` +
		`"flags":{"history":true},"type":"Settings"}`
	got := p.settings(codec.Format{Encoding: codec.PCMA, Rate: 8000}, codec.Format{Encoding: codec.L16LE, Rate: 16000},
		[]any{}, "Hi.", nil)
	if modeltest.JSON(t, got) != want {
		t.Errorf("the settings are\n%s\nwant\n%s", modeltest.JSON(t, got), want)
	}
	for field, own := range map[string]options{
		"options.session.audio.output.container": {Options: model.Options{Session: map[string]any{
			"audio": map[string]any{"output": map[string]any{"container": "wav"}}}}},
		"options.session.agent.think.functions": {Options: model.Options{Session: map[string]any{
			"agent": map[string]any{"think": map[string]any{"functions": 1}}}}},
	} {
		_, err := newProtocol(agent.Options{Decode: func(c any) error { *c.(*options) = own; return nil }})
		if err == nil || !strings.HasPrefix(err.Error(), field) {
			t.Errorf("%v, want %s", err, field)
		}
	}
}

// TestCall: a call as the vendor's messages have it, one by one.
func TestCall(t *testing.T) {
	peer := modeltest.New(t, newTest(t, options{Options: model.Options{Model: "m", Greeting: "Hi."}}), modeltest.PCMU, agent.Known{})
	peer.Read(fixture(t, "Welcome"))
	if sent, _ := peer.Take(); len(sent) != 1 || sent[0]["type"] != "Settings" {
		t.Fatalf("it is told %v", sent)
	}
	peer.Read(fixture(t, "SettingsApplied"))
	audio, err := hex.DecodeString(strings.TrimSpace(modeltest.Fixture(t, "agent-audio.ulaw.hex")))
	if err != nil {
		t.Fatal(err)
	}
	peer.Read(fixture(t, "AgentThinking"))
	peer.Read(fixture(t, "ConversationText.assistant"))
	peer.Read(fixture(t, "AgentStartedSpeaking"))
	peer.ReadBinary(audio)
	peer.Read(fixture(t, "AgentAudioDone"))
	sent, commands := peer.Take()
	if len(sent) > 0 || len(commands) != 2 || !slices.Equal(commands[0].Audio, audio) ||
		commands[1].Kind != agent.CommandMark {
		t.Fatalf("it wants %v, and is told %v", commands, sent)
	}
	peer.Hears(time.Second, time.Millisecond)
	peer.Event(agent.Event{Kind: agent.EventMark, Mark: commands[1].Mark, MarkStatus: agent.MarkPlayed, In: 2 * time.Second})
	peer.Read(fixture(t, "UserStartedSpeaking"))
	if _, commands := peer.Take(); len(commands) > 0 {
		t.Errorf("nothing is interrupted by %v", commands)
	}
	peer.Hears(4*time.Second, time.Second)
	peer.Read(fixture(t, "ConversationText.user"))
	want := []calls.Line{{Role: calls.Agent, Text: "Happy to help.", From: 1000, To: 2000},
		{Role: calls.Caller, Text: "I need a cake for Friday.", From: 2000, To: 4000}}
	if !slices.Equal(peer.Lines, want) {
		t.Errorf("said is %+v", peer.Lines)
	}
	hears := peer.Binary[len(peer.Binary)-1]
	if !slices.Equal(hears, modeltest.PCMU.Encoding.AppendSilence(nil, 160)) {
		t.Errorf("it hears %x", hears)
	}
}

// TestInterrupted: late audio is dropped until the next turn.
func TestInterrupted(t *testing.T) {
	peer := begun(t)
	peer.ReadBinary(make([]byte, 8000))
	peer.Take()
	peer.Read(fixture(t, "UserStartedSpeaking"))
	peer.ReadBinary(make([]byte, 8000)) // late
	peer.Read(fixture(t, "AgentAudioDone"))
	peer.Read(fixture(t, "ConversationText.user"))
	peer.ReadBinary(make([]byte, 8000))
	sent, commands := peer.Take()
	if len(commands) != 1 || commands[0].Kind != agent.CommandClear || len(sent) > 0 {
		t.Errorf("an interruption does %v, %v", commands, sent)
	}
	peer.Event(agent.Event{Kind: agent.EventCleared, Out: 100 * time.Millisecond})
	peer.Read(fixture(t, "ConversationText.assistant"))
	peer.ReadBinary(make([]byte, 8000))
	if _, commands := peer.Take(); len(commands) != 1 {
		t.Errorf("what it says next is played as %v", commands)
	}
}

// TestTools: those that are for the client are run, and their results told, unless they were cancelled.
func TestTools(t *testing.T) {
	peer := begun(t)
	peer.Read(fixture(t, "FunctionCallRequest.server-side"))
	if sent, commands := peer.Take(); len(sent)+len(commands) > 0 {
		t.Errorf("what the server runs itself does %v, %v", sent, commands)
	}
	peer.Read(fixture(t, "FunctionCallRequest"))
	sent, commands := peer.Take()
	if len(sent) != 1 || modeltest.JSON(t, sent[0]) != modeltest.JSON(t, fixture(t, "FunctionCallResponse")) ||
		len(commands) != 1 || commands[0].Transfer.To != "name:billing" {
		t.Fatalf("a tool does %v, %v", sent, commands)
	}
	peer.Read(fixture(t, "FunctionCallCancelled"))
	if _, cancels := peer.Take(); len(cancels) != 1 || cancels[0].Kind != agent.CommandCancel ||
		cancels[0].Ref != commands[0].ID {
		t.Errorf("a tool is cancelled by %v", cancels)
	}
	peer.Event(agent.Event{Kind: agent.EventTransfer, Ref: commands[0].ID,
		Transfer: agent.TransferStatus{State: "canceled"}})
	if sent, _ := peer.Take(); len(sent) > 0 {
		t.Errorf("of a tool that was cancelled it is told %v", sent)
	}
}

// TestGoodbye: a goodbye whose audio comes behind end_call is heard, the call ends a second after it, and goes on
// where the caller speaks meanwhile.
func TestGoodbye(t *testing.T) {
	const end = `{"type":"FunctionCallRequest","functions":[{"id":"fc_1","name":"end_call","arguments":"{}","client_side":true}]}`
	ends := func(peer *modeltest.Peer, in time.Duration) bool {
		peer.Hears(in, 0)
		_, commands := peer.Take()
		return slices.ContainsFunc(commands, func(c agent.Command) bool { return c.Kind == agent.CommandHangup })
	}
	peer := begun(t)
	peer.Read(fixture(t, "ConversationText.assistant"))
	peer.Read(end)
	peer.Hears(500*time.Millisecond, 0)
	peer.ReadBinary(make([]byte, 800))
	if len(peer.Audio) != 800 || ends(peer, 1400*time.Millisecond) || !ends(peer, 1520*time.Millisecond) {
		t.Errorf("%d bytes of the goodbye are played", len(peer.Audio))
	}
	peer.Read(fixture(t, "AgentAudioDone"))
	peer.ReadBinary(make([]byte, 800))
	if len(peer.Audio) != 800 {
		t.Error("what is said after the goodbye is played")
	}
	peer = begun(t)
	peer.ReadBinary(make([]byte, 8000))
	peer.Read(end)
	peer.Read(fixture(t, "UserStartedSpeaking"))
	if ends(peer, 20*time.Second) {
		t.Error("the call ends though the caller speaks")
	}
	peer.Read(strings.ReplaceAll(end, "fc_1", "fc_2"))
	if ends(peer, 20*time.Second) || !ends(peer, 23*time.Second) {
		t.Error("the call does not end the second time")
	}
	peer = begun(t) // of a model that has said nothing before
	peer.Read(fixture(t, "ConversationText.user"))
	peer.Read(end)
	peer.Read(fixture(t, "ConversationText.assistant"))
	for range 2 {
		peer.Hears(2*time.Second, 0)
		peer.ReadBinary(make([]byte, 800))
		peer.Read(fixture(t, "AgentAudioDone"))
	}
	if len(peer.Audio) != 800 || !ends(peer, 3100*time.Millisecond) {
		t.Errorf("%d bytes of the goodbye are played", len(peer.Audio))
	}
}

// TestWords: keys, warnings, errors.
func TestWords(t *testing.T) {
	peer := begun(t)
	for _, key := range "4421#" {
		peer.Event(agent.Event{Kind: agent.EventDigit, Digit: byte(key)})
	}
	sent, _ := peer.Take()
	if len(sent) != 1 || modeltest.JSON(t, sent[0]) != modeltest.JSON(t, fixture(t, "InjectUserMessage.keypad")) {
		t.Errorf("of keys it is told %v", sent)
	}
	for _, name := range []string{"Warning", "InjectionRefused", "LatencyReport", "PromptUpdated", "History.text",
		"History.function_calls", "FunctionCallResponse.server"} {
		peer.Read(fixture(t, name))
	}
	if _, commands := peer.Take(); len(commands) > 0 || len(peer.Troubles) != 2 {
		t.Errorf("they do %v, and tell %v", commands, peer.Troubles)
	}
	peer.Read(fixture(t, "Error"))
	if _, commands := peer.Take(); len(commands) != 1 || !commands[0].Fatal || commands[0].Cause != calls.AgentLost {
		t.Errorf("an error does %v", commands)
	}
}

// FuzzRead: whatever the agent says, the talk goes on.
func FuzzRead(f *testing.F) { modeltest.Fuzz(f, begun) }
