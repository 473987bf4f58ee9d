package pipecat

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"voicebridge/agent"
	"voicebridge/agent/model/modeltest"
	"voicebridge/calls"
	"voicebridge/codec"
	"voicebridge/providers"
)

func frameOf(t testing.TB, name string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(modeltest.Fixture(t, name+".hex")), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func begun(t testing.TB, rtvi bool) *modeltest.Peer {
	t.Helper()
	p, err := newProtocol(agent.Options{Decode: func(c any) error { *c.(*options) = options{rtvi}; return nil }})
	if err != nil {
		t.Fatal(err)
	}
	return modeltest.New(t, p, codec.Format{Encoding: codec.PCMU, Rate: 8000}, agent.Known{From: "+12025550123",
		To: "+12025550100"})
}

// messages are the RTVI messages that were sent, without their ids.
func messages(t *testing.T, peer *modeltest.Peer) (all []map[string]any) {
	t.Helper()
	for _, b := range peer.Binary {
		f, err := readFrame(b)
		if err != nil {
			t.Fatal(err)
		}
		if f.kind == messageFrame {
			var m map[string]any
			if err := json.Unmarshal(f.data, &m); err != nil {
				t.Fatal(err)
			}
			delete(m, "id")
			all = append(all, m)
		}
	}
	peer.Binary = nil
	return all
}

func want(t *testing.T, name string) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(modeltest.Fixture(t, name+".json")), &m); err != nil {
		t.Fatal(err)
	}
	delete(m, "id")
	return m
}

// TestFrames: frames are written as the reference compiler writes them, and read.
func TestFrames(t *testing.T) {
	if b := appendAudio(nil, []byte{1, 0, 0xff, 0xff}, 16000); hex.EncodeToString(b) !=
		modeltest.Fixture(t, "audio.two-samples.hex") {
		t.Errorf("audio is %x", b)
	}
	if b := appendMessage(nil, []byte("{}")); hex.EncodeToString(b) != "22040a027b7d" {
		t.Errorf("a message is %x", b)
	}
	f, err := readFrame(frameOf(t, "message.client-ready"))
	if err != nil || string(f.data) != string(compact(t, "rtvi.client-ready")) {
		t.Errorf("%s, %v", f.data, err)
	}
	whole := frameOf(t, "audio.in.16000")
	if f, err := readFrame(whole); err != nil || string(appendAudio(nil, f.audio, f.rate)) != string(whole) {
		t.Errorf("20 ms come back otherwise: %v", err)
	}
}

func compact(t *testing.T, name string) []byte {
	return []byte(strings.NewReplacer(": ", ":", ", ", ",").Replace(modeltest.Fixture(t, name+".json")))
}

// TestAudio: audio is played at whatever rate it is, without headers, of one or two channels.
func TestAudio(t *testing.T) {
	for name, samples := range map[string]int{"audio.out.24000": 960, "audio.two-samples": 3, "audio.client-js": 3,
		"audio.stereo-pts": 2, "audio.wav-header": 480} {
		peer := begun(t, false)
		b := frameOf(t, name)
		f, err := readFrame(b)
		if err != nil {
			t.Fatal(err)
		}
		for range 20 { // the resampler holds some back at first
			peer.ReadBinary(b)
		}
		if got := len(peer.Audio) / 2 / 20; got < samples*9/10 || got > samples {
			t.Errorf("%s at %d Hz: %d samples, want %d", name, f.rate, got, samples)
		}
	}
	peer := begun(t, false)
	peer.ReadBinary(frameOf(t, "unknown-field"))
	peer.ReadBinary(frameOf(t, "text"))
	peer.ReadBinary([]byte{0xff})
	peer.Read("hello")
	_, commands := peer.Take()
	if len(commands) != 3 || commands[0].Kind != agent.CommandUnknown || commands[1].Kind != agent.CommandFault ||
		commands[2].Kind != agent.CommandFault {
		t.Errorf("%v", commands)
	}
}

// TestInterrupted: an interruption that is told in two ways is one.
func TestInterrupted(t *testing.T) {
	peer := begun(t, true)
	audio := frameOf(t, "audio.out.24000")
	for _, name := range []string{"interruption", "message.bot-interrupted"} {
		peer.ReadBinary(audio)
		peer.Take()
		peer.ReadBinary(frameOf(t, name))
		peer.ReadBinary(frameOf(t, "interruption.labelled"))
		if _, commands := peer.Take(); len(commands) != 1 || commands[0].Kind != agent.CommandClear {
			t.Errorf("%s does %v", name, commands)
		}
	}
}

// TestRTVI: the call, keys, requests, what was said and the end, where the pipeline takes them.
func TestRTVI(t *testing.T) {
	peer := begun(t, true)
	call := want(t, "rtvi.client-message.call")
	call["data"].(map[string]any)["d"].(map[string]any)["call_id"] = "cs_1"
	ready := want(t, "rtvi.client-ready")
	if got := messages(t, peer); !reflect.DeepEqual(got, []map[string]any{ready, call}) {
		t.Errorf("it is told %v, want %v", got, []map[string]any{ready, call})
	}
	read := func(name string) { peer.ReadBinary(appendMessage(nil, compact(t, name))) }
	peer.Event(agent.Event{Kind: agent.EventDigit, Digit: '4'})
	if got := messages(t, peer); len(got) != 1 || modeltest.JSON(t, got[0]["data"]) != `{"buttons":["4"]}` {
		t.Errorf("of a key it is told %v", got)
	}
	read("rtvi.server-message.transfer")
	read("rtvi.server-message.hangup")
	_, commands := peer.Take()
	if len(commands) != 2 || commands[0].Transfer == nil || commands[0].Transfer.To != "name:billing" ||
		commands[1].Kind != agent.CommandHangup {
		t.Errorf("it asks for %v", commands)
	}
	peer.Event(agent.Event{Kind: agent.EventTransfer, Transfer: agent.TransferStatus{ID: "tr_1", State: "failed"}})
	got := messages(t, peer)
	if len(got) != 1 || got[0]["type"] != "client-message" || !strings.Contains(modeltest.JSON(t, got[0]["data"]),
		`"state":"failed"`) || !strings.Contains(modeltest.JSON(t, got[0]["data"]), `"t":"voicebridge"`) {
		t.Errorf("of the transfer it is told %v", got)
	}
	peer.Hears(time.Second, 0)
	for _, name := range []string{"rtvi.user-transcription", "rtvi.bot-ready", "rtvi.bot-started-speaking", "rtvi.error.fatal"} {
		read(name)
	}
	if len(peer.Lines) != 1 || peer.Lines[0] != (calls.Line{Role: calls.Caller, Text: "I need a cake.", From: 1000, To: 1000}) ||
		len(peer.Troubles) != 1 {
		t.Errorf("said is %v, troubles %v", peer.Lines, peer.Troubles)
	}
	peer.Binary = nil
	peer.Event(agent.Event{Kind: agent.EventStop})
	if got := messages(t, peer); !reflect.DeepEqual(got, []map[string]any{want(t, "rtvi.disconnect-bot")}) {
		t.Errorf("at the end it is told %v", got)
	}
	quiet := begun(t, false)
	quiet.Event(agent.Event{Kind: agent.EventDigit, Digit: '4'})
	quiet.Event(agent.Event{Kind: agent.EventStop})
	if len(quiet.Binary) > 0 {
		t.Errorf("a pipeline without RTVI is told %x", quiet.Binary)
	}
}

// TestAllocs: audio costs no memory, either way.
func TestAllocs(t *testing.T) {
	peer := begun(t, false)
	m := providers.Message{Binary: true, Data: frameOf(t, "audio.out.24000")}
	var out providers.Messages
	ev := &agent.Event{Kind: agent.EventAudio, Audio: make([]byte, 640)}
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

// FuzzRead: whatever the agent says, the talk goes on.
func FuzzRead(f *testing.F) {
	dir, err := os.ReadDir("testdata/fixtures")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range dir {
		if name, is := strings.CutSuffix(file.Name(), ".hex"); is {
			f.Add(frameOf(f, name))
		} else {
			f.Add(appendMessage(nil, []byte(modeltest.Fixture(f, file.Name()))))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		peer := begun(t, true)
		peer.ReadBinary(b)
		if len(peer.Audio) > 8*len(b)+64 {
			t.Errorf("%d bytes of audio are made of %d", len(peer.Audio), len(b))
		}
	})
}
