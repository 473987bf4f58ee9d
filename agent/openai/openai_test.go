package openai

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
	"voicebridge/agent/tools"
	"voicebridge/calls"
	"voicebridge/codec"
	"voicebridge/providers"
)

var (
	pcmu = codec.Format{Encoding: codec.PCMU, Rate: 8000}
	pcma = codec.Format{Encoding: codec.PCMA, Rate: 8000}
	wide = codec.Format{Encoding: codec.L16LE, Rate: 16000}
)

func newTest(t testing.TB, own options, set tools.Config) agent.Protocol {
	t.Helper()
	s, err := tools.New(set)
	if err != nil {
		t.Fatal(err)
	}
	p, err := newProtocol(agent.Options{Tools: s, Decode: func(c any) error { *c.(*options) = own; return nil }})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// begun is a talk that is ready.
func begun(t testing.TB, own options, set tools.Config) *modeltest.Peer {
	t.Helper()
	peer := modeltest.New(t, newTest(t, own, set), pcmu, agent.Known{})
	peer.Read(modeltest.Fixture(t, "session.created.json"))
	peer.Read(modeltest.Fixture(t, "session.updated.json"))
	if !peer.Talk.Ready() {
		t.Fatal("it is not ready")
	}
	peer.Take()
	return peer
}

func wants(t *testing.T, peer *modeltest.Peer, sent ...string) {
	t.Helper()
	got, _ := peer.Take()
	if len(got) != len(sent) {
		t.Fatalf("the model is told %v, want %v", got, sent)
	}
	for i, want := range sent {
		if g := modeltest.JSON(t, got[i]); g != modeltest.JSON(t, want) {
			t.Errorf("the model is told\n%s\nwant\n%s", g, modeltest.JSON(t, want))
		}
	}
}

// TestCall: a call as the vendor's messages have it, one by one.
func TestCall(t *testing.T) {
	fixture := func(name string) string { return modeltest.Fixture(t, name+".json") }
	own := options{Transcription: "gpt-transcribe"}
	own.Greeting = "Greet the caller: Example Bakery, how can I help?"
	peer := modeltest.New(t, newTest(t, own, tools.Config{
		Destinations: map[string]calls.TransferRequest{"billing": {To: "name:billing"}}}), pcmu, agent.Known{})
	wants(t, peer)
	peer.Read(fixture("session.created"))
	sent, _ := peer.Take()
	session := sent[0]["session"].(map[string]any)
	if sent[0]["type"] != "session.update" || session["type"] != "realtime" ||
		modeltest.JSON(t, session["audio"]) != `{"input":{"format":{"type":"audio/pcmu"},`+
			`"transcription":{"model":"gpt-transcribe"}},"output":{"format":{"type":"audio/pcmu"}}}` {
		t.Errorf("the session is %v", session)
	}
	if peer.Talk.Ready() {
		t.Error("it is ready before the session is")
	}
	peer.Read(fixture("session.updated"))
	wants(t, peer, fixture("response.create.greeting"))
	for _, name := range []string{"response.created", "response.output_item.added.message",
		"response.content_part.added.audio", "response.output_audio.delta", "response.output_audio_transcript.delta",
		"response.output_audio.done", "response.output_audio_transcript.done", "response.content_part.done.audio",
		"response.output_item.done.message", "response.done.completed", "rate_limits.updated"} {
		peer.Read(fixture(name))
	}
	_, commands := peer.Take()
	var delta struct{ Delta []byte }
	if err := json.Unmarshal([]byte(fixture("response.output_audio.delta")), &delta); err != nil {
		t.Fatal(err)
	}
	if len(commands) != 2 || string(commands[0].Audio) != string(delta.Delta) || commands[1].Kind != agent.CommandMark {
		t.Fatalf("it wants %v", commands)
	}
	peer.Hears(20*time.Millisecond, 0)
	peer.Hears(80*time.Millisecond, 20*time.Millisecond)
	peer.Event(agent.Event{Kind: agent.EventMark, Mark: commands[1].Mark, MarkStatus: agent.MarkPlayed,
		In: 300 * time.Millisecond, Out: pcmu.Duration(len(delta.Delta))})
	for _, name := range []string{"input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped",
		"input_audio_buffer.committed", "conversation.item.added.user", "conversation.item.done.user",
		"conversation.item.input_audio_transcription.delta", "conversation.item.input_audio_transcription.completed"} {
		peer.Read(fixture(name))
	}
	want := []calls.Line{{Role: calls.Agent, Text: "Happy to help with a cake for Friday.", From: 80, To: 300},
		{Role: calls.Caller, Text: "I need a cake for Friday.", From: 4180, To: 6020}}
	if !slices.Equal(peer.Lines, want) {
		t.Errorf("said is %v, want %v", peer.Lines, want)
	}
	if _, commands := peer.Take(); len(commands) > 0 {
		t.Errorf("the caller speaks after the model, who is interrupted by %v", commands)
	}
	if peer.Usage["input_tokens"] == 0 || peer.Usage["transcription_input_tokens"] != 22 {
		t.Errorf("used are %v", peer.Usage)
	}
	tool(t, peer)
}

// tool goes on with a tool.
func tool(t *testing.T, peer *modeltest.Peer) {
	t.Helper()
	fixture := func(name string) string { return modeltest.Fixture(t, name+".json") }
	for _, name := range []string{"response.output_item.added.function_call", "response.function_call_arguments.delta",
		"response.function_call_arguments.done", "response.output_item.done.function_call.incomplete"} {
		peer.Read(fixture(name))
	}
	if sent, commands := peer.Take(); len(sent)+len(commands) > 0 {
		t.Fatalf("a call of a tool that is not complete is run: %v, %v", sent, commands)
	}
	for range 2 { // it is run once
		peer.Read(fixture("response.output_item.done.function_call"))
	}
	sent, commands := peer.Take()
	if len(sent) != 1 || modeltest.JSON(t, sent[0]) !=
		modeltest.JSON(t, fixture("conversation.item.create.function_call_output")) {
		t.Errorf("the model is told %v", sent)
	}
	if len(commands) != 1 || commands[0].Kind != agent.CommandTransfer || commands[0].Transfer.To != "name:billing" ||
		commands[0].Transfer.Context["summary"] != "Refund for order 12" {
		t.Fatalf("it wants %v", commands)
	}
	peer.Event(agent.Event{Kind: agent.EventTransfer, Ref: commands[0].ID,
		Transfer: agent.TransferStatus{State: "failed", Reason: "no_answer"}})
	sent, _ = peer.Take()
	if len(sent) != 2 || !strings.Contains(fmt.Sprint(sent[0]), "The transfer failed: no answer") ||
		sent[1]["type"] != "response.create" {
		t.Errorf("of a transfer that failed it is told %v", sent)
	}
}

// TestInterrupted: the model is told where each of its replies was cut, late audio is not played, and the
// transcript has what was heard.
func TestInterrupted(t *testing.T) {
	peer := begun(t, options{}, tools.Config{})
	delta := func(response, item string, d time.Duration) {
		peer.Read(fmt.Sprintf(`{"type":"response.output_audio.delta","event_id":"e","response_id":%q,"item_id":%q,`+
			`"output_index":0,"content_index":0,"delta":%q}`, response, item,
			base64.StdEncoding.EncodeToString(make([]byte, d.Milliseconds()*8))))
	}
	words := func(item, text string) {
		peer.Read(fmt.Sprintf(`{"type":"response.output_audio_transcript.done","item_id":%q,"transcript":%q}`, item, text))
	}
	peer.Read(`{"type":"response.created","response":{"id":"r1"}}`)
	delta("r1", "a", time.Second)
	words("a", "one two three four five")
	peer.Read(`{"type":"response.output_audio.done","item_id":"a"}`)
	delta("r1", "b", time.Second)
	words("b", "six seven")
	peer.Hears(time.Second, 400*time.Millisecond)
	peer.Take()
	peer.Read(modeltest.Fixture(t, "input_audio_buffer.speech_started.json"))
	sent, commands := peer.Take()
	if len(sent) > 0 || len(commands) != 1 || commands[0].Kind != agent.CommandClear {
		t.Fatalf("an interruption does %v, %v", sent, commands)
	}
	delta("r1", "b", time.Second) // late
	if _, commands := peer.Take(); len(commands) > 0 {
		t.Errorf("late audio is played: %v", commands)
	}
	peer.Event(agent.Event{Kind: agent.EventMark, Mark: "a", MarkStatus: agent.MarkCleared, Out: 499 * time.Millisecond})
	peer.Event(agent.Event{Kind: agent.EventCleared, Out: 499999 * time.Microsecond, Sent: 2 * time.Second,
		In: 1100 * time.Millisecond})
	wants(t, peer, `{"type":"conversation.item.truncate","item_id":"a","content_index":0,"audio_end_ms":499}`,
		`{"type":"conversation.item.truncate","item_id":"b","content_index":0,"audio_end_ms":0}`)
	want := []calls.Line{
		{Role: calls.Agent, Text: "one two three four five", Heard: "one two", Interrupted: true, From: 1000, To: 1100},
		{Role: calls.Agent, Text: "six seven", Interrupted: true, From: 1100, To: 1100}}
	if !slices.Equal(peer.Lines, want) {
		t.Errorf("said is %+v, want %+v", peer.Lines, want)
	}
	peer.Read(`{"type":"response.done","response":{"id":"r1","status":"cancelled"}}`)
	peer.Read(`{"type":"response.created","response":{"id":"r2"}}`)
	delta("r2", "c", time.Second)
	if _, commands := peer.Take(); len(commands) != 1 {
		t.Errorf("what it says next is played as %v", commands)
	}
}

// TestFormats: the model has the carrier's audio where it can, or the one that is configured.
func TestFormats(t *testing.T) {
	for _, tt := range []struct {
		own     string
		carrier codec.Format
		want    string
	}{
		{"", pcmu, `{"type":"audio/pcmu"}`}, {"", pcma, `{"type":"audio/pcma"}`},
		{"", wide, `{"rate":24000,"type":"audio/pcm"}`},
		{"", codec.Format{Encoding: codec.L16LE, Rate: 8000}, `{"type":"audio/pcmu"}`},
		{"pcma", wide, `{"type":"audio/pcma"}`},
	} {
		peer := modeltest.New(t, newTest(t, options{Format: tt.own}, tools.Config{}), tt.carrier, agent.Known{})
		peer.Read(modeltest.Fixture(t, "session.created.json"))
		sent, _ := peer.Take()
		audio := sent[0]["session"].(map[string]any)["audio"].(map[string]any)
		for _, side := range []string{"input", "output"} {
			if got := modeltest.JSON(t, audio[side].(map[string]any)["format"]); got != tt.want {
				t.Errorf("%v, %q: %s is %s", tt.carrier, tt.own, side, got)
			}
		}
	}
}

// TestKeys: keys are told together, once the caller has pressed the last.
func TestKeys(t *testing.T) {
	peer := begun(t, options{}, tools.Config{})
	for i, key := range "4421#" {
		peer.Event(agent.Event{Kind: agent.EventDigit, Digit: byte(key), In: time.Duration(i) * time.Second})
	}
	wants(t, peer, modeltest.Fixture(t, "conversation.item.create.keypad.json"), `{"type":"response.create"}`)
	peer.Event(agent.Event{Kind: agent.EventDigit, Digit: '7', In: 10 * time.Second})
	peer.Hears(11*time.Second, 0)
	wants(t, peer, modeltest.JSON(t, map[string]any{"type": "input_audio_buffer.append",
		"audio": base64.StdEncoding.EncodeToString(pcmu.Encoding.AppendSilence(nil, 160))}))
	peer.Hears(12*time.Second, 0)
	if sent, _ := peer.Take(); len(sent) != 3 || !strings.Contains(fmt.Sprint(sent[0]), "[Keypad: 7]") {
		t.Errorf("it is told %v", sent)
	}
}

// TestHeld: a model whose caller is held hears silence, and what is missing is silence, too.
func TestHeld(t *testing.T) {
	peer := begun(t, options{}, tools.Config{})
	loud := slices.Repeat([]byte{0x10}, 160)
	hears := func() string {
		peer.Event(agent.Event{Kind: agent.EventAudio, Audio: loud})
		sent, _ := peer.Take()
		return fmt.Sprint(sent[len(sent)-1]["audio"])
	}
	silence := base64.StdEncoding.EncodeToString(pcmu.Encoding.AppendSilence(nil, 160))
	if hears() == silence {
		t.Error("it does not hear the caller")
	}
	for _, state := range [][2]agent.HoldState{{agent.Held, agent.Resumed}, {agent.Muted, agent.Unmuted}} {
		peer.Event(agent.Event{Kind: agent.EventHold, Hold: state[0]})
		if hears() != silence {
			t.Errorf("%s, it hears the caller", state[0])
		}
		peer.Event(agent.Event{Kind: agent.EventHold, Hold: state[1]})
		if hears() == silence {
			t.Errorf("%s, it does not hear the caller", state[1])
		}
	}
	peer.Event(agent.Event{Kind: agent.EventGap, Duration: time.Minute})
	if sent, _ := peer.Take(); len(sent) != 500 || sent[0]["audio"] != silence {
		t.Errorf("of a minute that is missing it hears %d frames", len(sent))
	}
}

// TestBusy: the model is not asked to speak while it does, but after that.
func TestBusy(t *testing.T) {
	peer := begun(t, options{}, tools.Config{})
	peer.Read(modeltest.Fixture(t, "response.created.json"))
	peer.Event(agent.Event{Kind: agent.EventDigit, Digit: '#'})
	if sent, _ := peer.Take(); len(sent) != 1 {
		t.Errorf("while it speaks it is told %v", sent)
	}
	peer.Read(modeltest.Fixture(t, "response.done.completed.json"))
	wants(t, peer, `{"type":"response.create"}`)
	peer.Read(modeltest.Fixture(t, "error.conversation_already_has_active_response.json"))
	peer.Read(`{"type":"response.done","response":{"id":"another"}}`)
	wants(t, peer, `{"type":"response.create"}`)
}

// TestErrors: those that the talk survives are told, and those that it does not end it.
func TestErrors(t *testing.T) {
	for name, fatal := range map[string]bool{"error.invalid_event": false, "error.truncate-too-long": false,
		"error.response_cancel_not_active": false, "error.session_expired": false, "error.beta_api_shape_disabled": true,
		"response.done.failed": true} {
		peer := begun(t, options{}, tools.Config{})
		peer.Read(modeltest.Fixture(t, name+".json"))
		_, commands := peer.Take()
		ends := len(commands) == 1 && commands[0].Fatal && commands[0].Cause == calls.AgentUnreachable
		if ends != fatal || !fatal && len(commands) > 0 {
			t.Errorf("%s does %v", name, commands)
		}
		if told := len(peer.Troubles) > 0; told == (fatal || name == "error.response_cancel_not_active") {
			t.Errorf("%s is told as %v", name, peer.Troubles)
		}
	}
	peer := modeltest.New(t, newTest(t, options{}, tools.Config{}), pcmu, agent.Known{})
	peer.Read(modeltest.Fixture(t, "error.invalid_event.json"))
	if _, commands := peer.Take(); len(commands) != 1 || !commands[0].Fatal {
		t.Errorf("an error while the session is set up does %v", commands)
	}
}

// delta is audio of an item, so long.
func delta(item string, d time.Duration) string {
	return fmt.Sprintf(`{"type":"response.output_audio.delta","response_id":"r_%[1]s","item_id":%[1]q,"output_index":0,`+
		`"content_index":0,"delta":%[2]q}`, item, base64.StdEncoding.EncodeToString(make([]byte, d.Milliseconds()*8)))
}

// TestWordsAlone: a reply that has words, and never audio, is interrupted like others, of which the caller has heard
// more. What came behind the clear is not cut.
func TestWordsAlone(t *testing.T) {
	peer := begun(t, options{}, tools.Config{})
	peer.Read(delta("a", time.Second))
	peer.Read(`{"type":"response.output_audio_transcript.delta","response_id":"r_b","item_id":"b","delta":"Never said."}`)
	peer.Read(delta("c", 2*time.Second))
	peer.Take()
	var out providers.Messages
	if err := peer.Talk.Encode(&out, &agent.Event{Kind: agent.EventCleared, Out: 2 * time.Second, Sent: 3 * time.Second,
		In: 5 * time.Second}); err != nil || len(out.All()) != 1 || !strings.Contains(string(out.All()[0].Data), `"c"`) {
		t.Errorf("the model is told %v, %v", out.All(), err)
	}
	if want := []calls.Line{{Role: calls.Agent, Text: "Never said.", Interrupted: true, From: 5000, To: 5000}}; !slices.Equal(peer.Lines, want) {
		t.Errorf("said is %v", peer.Lines)
	}
	peer.Read(delta("d", time.Second))
	out.Reset()
	if err := peer.Talk.Encode(&out, &agent.Event{Kind: agent.EventCleared, Out: 3 * time.Second, Sent: 3 * time.Second,
		In: 6 * time.Second}); err != nil || len(out.All()) != 0 {
		t.Errorf("of what came behind the clear the model is told %v, %v", out.All(), err)
	}
}

// TestRenewals: a connection is renewed three minutes before its end, and again where that does not come about, while
// nobody speaks and nothing is under way; each counts from its own beginning.
func TestRenewals(t *testing.T) {
	for name, at := range map[string]*agent.Resume{"the first": nil, "the second": {In: 57 * time.Minute}} {
		began := time.Duration(0)
		if at != nil {
			began = at.In
		}
		peer := modeltest.Resume(t, newTest(t, options{}, tools.Config{}), pcmu, agent.Known{}, at)
		peer.Read(`{"type":"session.created","event_id":"e","session":{}}`)
		peer.Read(`{"type":"session.updated","event_id":"e","session":{}}`)
		hears := func(in time.Duration, renewals int) {
			t.Helper()
			for ; began < in; began += 500 * time.Millisecond {
				peer.Hears(began, 0)
			}
			if peer.Renewals != renewals {
				t.Errorf("%s: %d renewals at %v, want %d", name, peer.Renewals, in, renewals)
			}
		}
		due := began + lifetime - renewEarly
		hears(due-time.Second, 0)
		peer.Read(`{"type":"input_audio_buffer.speech_started","item_id":"u","audio_start_ms":0}`)
		hears(due+10*time.Second, 0)
		peer.Read(`{"type":"input_audio_buffer.speech_stopped","item_id":"u","audio_end_ms":10}`)
		peer.Read(`{"type":"response.created","response":{"id":"r"}}`)
		hears(due+20*time.Second, 0)
		peer.Read(`{"type":"response.done","response":{"id":"r","status":"completed"}}`)
		hears(due+22*time.Second, 0)
		hears(due+24*time.Second, 1)
		if !peer.Still() {
			t.Errorf("%s: it is not renewed though all is quiet", name)
		}
		peer.Read(`{"type":"input_audio_buffer.speech_started","item_id":"u2","audio_start_ms":0}`)
		if peer.Still() {
			t.Errorf("%s: it is renewed though the caller speaks", name)
		}
		hears(due+renewEarly/2-time.Second, 1)
		hears(due+renewEarly/2+time.Second, 2)
		if !peer.Still() {
			t.Errorf("%s: it is not renewed whoever speaks", name)
		}
	}
}

// TestLongIDs: ids without measure are not kept.
func TestLongIDs(t *testing.T) {
	peer := begun(t, options{}, tools.Config{EndCall: true})
	long := strings.Repeat("x", model.MaxID+1)
	peer.Read(delta(long, time.Second))
	peer.Read(`{"type":"response.output_audio.done","response_id":"r","item_id":"` + long + `"}`)
	peer.Read(`{"type":"response.output_item.done","item":{"type":"function_call","status":"completed","name":"end_call",` +
		`"call_id":"` + long + `","arguments":"{}"}}`)
	sent, commands := peer.Take()
	if len(sent) > 0 || len(peer.Audio) > 0 || len(commands) != 1 || commands[0].Code != "bad_message" {
		t.Errorf("the model is told %v, and wants %v", sent, commands)
	}
}

// TestForeignTransfer: a transfer that fails which was begun on a connection before is told.
func TestForeignTransfer(t *testing.T) {
	peer := begun(t, options{}, tools.Config{})
	for ref, n := range map[string]int{"tool:call_9": 2, "t1": 0} {
		peer.Event(agent.Event{Kind: agent.EventTransfer, Ref: ref, Transfer: agent.TransferStatus{State: "failed", Reason: "busy"}})
		if sent, _ := peer.Take(); len(sent) != n {
			t.Errorf("%s: the model is told %v", ref, sent)
		}
	}
}

// TestReturned: a caller who has come back is not greeted.
func TestReturned(t *testing.T) {
	own := options{}
	own.Greeting = "Hello"
	peer := modeltest.New(t, newTest(t, own, tools.Config{}), pcmu, agent.Known{Returned: "no_answer"})
	peer.Read(modeltest.Fixture(t, "session.created.json"))
	peer.Read(modeltest.Fixture(t, "session.updated.json"))
	if sent, _ := peer.Take(); len(sent) != 3 || !strings.Contains(fmt.Sprint(sent[1]), "no answer") ||
		strings.Contains(fmt.Sprint(sent), "Hello") {
		t.Errorf("it is told %v", sent)
	}
}

// TestOptions: what is wrong names the field.
func TestOptions(t *testing.T) {
	for _, tt := range []struct {
		own  options
		want string
	}{
		{options{Format: "opus"}, "options.format"},
		{options{Options: sessionOf(`{"tools":[]}`)}, "options.session.tools"},
		{options{Options: sessionOf(`{"audio":{"input":{"format":{"type":"audio/pcm"}}}}`)},
			"options.session.audio.input.format"},
		{options{Options: sessionOf(`{"audio":3}`)}, "options.session.audio"},
	} {
		_, err := newProtocol(agent.Options{Decode: func(c any) error { *c.(*options) = tt.own; return nil }})
		if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%+v: %v", tt.own, err)
		}
	}
	p := newTest(t, options{Options: sessionOf(`{"audio":{"input":{"turn_detection":{"type":"semantic_vad"}}},` +
		`"reasoning":{"effort":"low"}}`)}, tools.Config{}).(*protocol)
	if got := modeltest.JSON(t, p.session("pcmu", "pcma", []any{})); got != `{"audio":{"input":{"format":{"type":`+
		`"audio/pcmu"},"turn_detection":{"type":"semantic_vad"}},"output":{"format":{"type":"audio/pcma"}}},`+
		`"output_modalities":["audio"],"reasoning":{"effort":"low"},"tools":[],"type":"realtime"}` {
		t.Errorf("the session is %s", got)
	}
	for configured, want := range map[string]string{"": "wss://api.openai.com/v1/realtime?model=m",
		"wss://x.example/v1?model=y": "wss://x.example/v1?model=y", "wss://x.example/v1?a=b": "wss://x.example/v1?a=b&model=m"} {
		p.Model = "m"
		if got, err := p.Address(configured); err != nil || got != want {
			t.Errorf("%q: %s, %v", configured, got, err)
		}
	}
}

func sessionOf(text string) (o model.Options) {
	if err := json.Unmarshal([]byte(text), &o.Session); err != nil {
		panic(err)
	}
	return o
}

// FuzzRead: whatever the model says, the talk goes on.
func FuzzRead(f *testing.F) {
	modeltest.Fuzz(f, func(t testing.TB) *modeltest.Peer {
		return begun(t, options{}, tools.Config{EndCall: true, SendDigits: true})
	})
}

// TestAllocs: audio costs no memory, either way.
func TestAllocs(t *testing.T) {
	peer := begun(t, options{}, tools.Config{})
	m := providers.Message{Data: []byte(modeltest.Fixture(t, "response.output_audio.delta.json"))}
	var out providers.Messages
	ev := &agent.Event{Kind: agent.EventAudio, Audio: make([]byte, 160)}
	do := func(*agent.Command) {}
	if n := testing.AllocsPerRun(100, func() {
		out.Reset()
		peer.Talk.Decode(m, do)
		if err := peer.Talk.Encode(&out, ev); err != nil {
			t.Error(err)
		}
	}); n > 0 {
		t.Errorf("a frame each way costs %v allocations", n)
	}
}
