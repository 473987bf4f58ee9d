package openailive

import (
	"encoding/json"
	"fmt"
	"reflect"
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

func newTest(t testing.TB, own options) agent.Protocol {
	t.Helper()
	return modeltest.Protocol(t, Dialect, own)
}

func begun(t testing.TB) *modeltest.Peer {
	t.Helper()
	peer := modeltest.New(t, newTest(t, options{model.Options{Model: "gpt-live-1"}, "gpt-5.5"}), modeltest.PCMU, agent.Known{})
	peer.Read(fixture(t, "session.started"))
	if !peer.Talk.Ready() {
		t.Fatal("it is not ready")
	}
	peer.Take()
	return peer
}

// TestStart: a session is begun as the vendor has it.
func TestStart(t *testing.T) {
	own := options{model.Options{Model: "gpt-live-1", Voice: "marin",
		Instructions: "You answer the phone for Example Bakery. Be brief."}, "gpt-5.5"}
	peer := modeltest.New(t, newTest(t, own), modeltest.PCMU, agent.Known{})
	sent, _ := peer.Take()
	var want map[string]any
	if err := json.Unmarshal([]byte(fixture(t, "session.start.responses")), &want); err != nil {
		t.Fatal(err)
	}
	got, is := sent[0]["session"].(map[string]any), want["session"].(map[string]any)
	for _, name := range []string{"model", "instructions", "audio"} {
		if !reflect.DeepEqual(got[name], is[name]) {
			t.Errorf("%s is %v, want %v", name, got[name], is[name])
		}
	}
	names := func(s map[string]any) (all []string) {
		for _, tool := range s["delegation"].(map[string]any)["responses"].(map[string]any)["tools"].([]any) {
			m := tool.(map[string]any)
			all = append(all, m["name"].(string))
			for _, name := range []string{"type", "description", "parameters", "strict"} {
				if _, has := m[name]; !has {
					t.Errorf("a tool has no %s: %v", name, m)
				}
			}
		}
		return all
	}
	if !slices.Equal(names(got), names(is)) {
		t.Errorf("the tools are %v, want those of %v", names(got), names(is))
	}
	if _, err := newProtocol(agent.Options{Tools: newTest(t, own).(*protocol).all.Tools,
		Decode: func(c any) error { *c.(*options) = options{}; return nil }}); err == nil ||
		!strings.HasPrefix(err.Error(), "options.delegate") {
		t.Errorf("tools without a delegate: %v", err)
	}
}

// TestCall: a call as the vendor's messages have it, one by one.
func TestCall(t *testing.T) {
	peer := modeltest.New(t, newTest(t, options{model.Options{Model: "m", Greeting: "Greet the caller."}, "m"}), modeltest.PCMU,
		agent.Known{})
	peer.Take()
	peer.Read(fixture(t, "session.started"))
	sent, _ := peer.Take()
	if len(sent) != 1 || modeltest.JSON(t, sent[0]) != modeltest.JSON(t, fixture(t, "session.commentary.append")) {
		t.Fatalf("it is told %v", sent)
	}
	for _, name := range []string{"session.commentary.appended", "session.output_audio.delta",
		"session.output_transcript.delta", "session.input_transcript.delta", "session.delegation.created",
		"session.output_audio.delta", "session.usage.updated"} {
		peer.Read(fixture(t, name))
	}
	_, commands := peer.Take()
	if len(commands) != 3 || commands[0].Kind != agent.CommandAudio || commands[1].Kind != agent.CommandMark ||
		!slices.Equal(commands[0].Audio, commands[2].Audio) || len(commands[0].Audio) == 0 {
		t.Fatalf("it wants %v", commands)
	}
	peer.Event(agent.Event{Kind: agent.EventMark, Mark: commands[1].Mark, MarkStatus: agent.MarkPlayed, In: time.Second})
	want := []calls.Line{{Role: calls.Caller, Text: "I need a cake", From: 4180, To: 5020},
		{Role: calls.Agent, Text: "Happy to help", From: 1000, To: 1000}}
	if !slices.Equal(peer.Lines, want) || peer.Usage["seconds"] != 15 {
		t.Errorf("said is %+v, used %v", peer.Lines, peer.Usage)
	}
	peer.Read(fixture(t, "response.event.function_call"))
	sent, commands = peer.Take()
	if len(sent) != 2 || sent[1]["type"] != "response.create" ||
		modeltest.JSON(t, sent[0]) != modeltest.JSON(t, fixture(t, "response.item.create.function_call_output")) ||
		len(commands) != 1 || commands[0].Transfer.To != "name:billing" {
		t.Errorf("a tool does %v, %v", sent, commands)
	}
	peer.Hears(2*time.Second, 0)
	sent, _ = peer.Take()
	if len(sent) != 1 || sent[0]["type"] != "session.input_audio.append" {
		t.Errorf("it hears %v", sent)
	}
	peer.Event(agent.Event{Kind: agent.EventDigit, Digit: '#'})
	if sent, _ := peer.Take(); len(sent) != 1 || sent[0]["type"] != "session.thinking.append" {
		t.Errorf("of keys it is told %v", sent)
	}
	peer.Read(fixture(t, "session.closed.expired"))
	if peer.Usage["seconds"] != 3600 || len(peer.Troubles) != 1 {
		t.Errorf("used are %v, troubles %v", peer.Usage, peer.Troubles)
	}
	peer.Event(agent.Event{Kind: agent.EventStop})
	if sent, _ := peer.Take(); len(sent) != 1 || modeltest.JSON(t, sent[0]) != `{"type":"session.close"}` {
		t.Errorf("at the end it is told %v", sent)
	}
}

// TestErrors: one while the session begins is the end.
func TestErrors(t *testing.T) {
	peer := modeltest.New(t, newTest(t, options{model.Options{Model: "m"}, "m"}), modeltest.PCMU, agent.Known{})
	peer.Read(fixture(t, "error.unknown_parameter"))
	if _, commands := peer.Take(); len(commands) != 1 || !commands[0].Fatal {
		t.Errorf("it does %v", commands)
	}
	peer = begun(t)
	peer.Read(fixture(t, "error.unknown_parameter"))
	if _, commands := peer.Take(); len(commands) > 0 || len(peer.Troubles) != 1 {
		t.Errorf("it does %v, tells %v", commands, peer.Troubles)
	}
}

// FuzzRead: whatever the model says, the talk goes on.
// TestRenewed: a session is renewed before it expires.
func TestRenewed(t *testing.T) {
	peer := modeltest.New(t, newTest(t, options{model.Options{Model: "gpt-live-1"}, "gpt-5.5"}), modeltest.PCMU, agent.Known{})
	peer.Read(fmt.Sprintf(`{"type":"session.started","session":{"expires_at":%d}}`, time.Now().Add(time.Hour).Unix()))
	hears := func(from, to time.Duration, renewals int) {
		t.Helper()
		for in := from; in < to; in += 500 * time.Millisecond {
			peer.Hears(in, 0)
		}
		if peer.Renewals != renewals {
			t.Errorf("%d renewals at %v", peer.Renewals, to)
		}
	}
	const due = 57 * time.Minute
	hears(0, due-5*time.Second, 0)
	hears(due-5*time.Second, due+5*time.Second, 1)
}

func FuzzRead(f *testing.F) { modeltest.Fuzz(f, begun) }
