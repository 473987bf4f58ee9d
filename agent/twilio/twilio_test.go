package twilio

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"voicebridge/agent"
	"voicebridge/providers"
)

func fixture(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "fixtures", name))
	if err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSuffix(b, []byte("\n"))
}

func newTalk(t testing.TB, own options) (*talk, *protocol) {
	t.Helper()
	p, err := newProtocol(agent.Options{Decode: func(c any) error { *c.(*options) = own; return nil }})
	if err != nil {
		t.Fatal(err)
	}
	return p.NewTalk(nil).(*talk), p.(*protocol)
}

// shape is what a message is made of: its names, and the kinds of their values. Those of custom
// parameters are free.
func shape(t *testing.T, b []byte) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	var of func(v any) any
	of = func(v any) any {
		switch v := v.(type) {
		case map[string]any:
			m := map[string]any{}
			for name, value := range v {
				if m[name] = of(value); name == "customParameters" {
					m[name] = "an object"
				}
			}
			return m
		case []any:
			return "a list"
		case string:
			if _, err := strconv.ParseUint(v, 10, 64); err == nil {
				return "digits"
			}
			return "text"
		case float64:
			return v
		}
		return v
	}
	return of(v)
}

// TestToAgent: all that the bridge says has the names and the kinds of values of what Twilio says.
func TestToAgent(t *testing.T) {
	talk, _ := newTalk(t, options{AccountSID: "AC0123456789abcdef0123456789abcdef"})
	var out providers.Messages
	call := &agent.Call{Session: "cs_1", Start: &providers.Start{}, Known: agent.Known{From: "+12025550123",
		To: "+12025550100", Direction: "inbound", Metadata: map[string]string{"campaign": "x",
			"long": strings.Repeat("x", 600)}}}
	if err := talk.Start(&out, call, false); err != nil {
		t.Fatal(err)
	}
	said := [][]byte{bytes.Clone(out.All()[0].Data), bytes.Clone(out.All()[1].Data)}
	say := func(ev agent.Event) {
		t.Helper()
		out.Reset()
		if err := talk.Encode(&out, &ev); err != nil {
			t.Fatal(err)
		}
		for _, m := range out.All() {
			said = append(said, bytes.Clone(m.Data))
		}
	}
	frame := make([]byte, 160)
	say(agent.Event{Kind: agent.EventAudio, Audio: frame})
	say(agent.Event{Kind: agent.EventGap, Duration: 300 * time.Millisecond})
	say(agent.Event{Kind: agent.EventAudio, Audio: frame})
	say(agent.Event{Kind: agent.EventDigit, Digit: '1'})
	say(agent.Event{Kind: agent.EventMark, Mark: "responsePart"})
	for _, untold := range []agent.EventKind{agent.EventPlayback, agent.EventBuffer, agent.EventCleared,
		agent.EventFault,
		agent.EventHold, agent.EventTransfer, agent.EventAck} {
		say(agent.Event{Kind: untold})
	}
	say(agent.Event{Kind: agent.EventStop})
	for i, name := range []string{"connected", "start", "media.1", "media.1", "dtmf", "mark.echo", "stop"} {
		if i >= len(said) || !reflect.DeepEqual(shape(t, said[i]), shape(t, fixture(t, name+".json"))) {
			t.Fatalf("message %d of %q is not as %s", i, said, name)
		}
	}
	if len(said) != 7 {
		t.Errorf("%d messages more", len(said)-7)
	}
	var start struct {
		StreamSid string
		Start     struct {
			CallSid, AccountSid string
			CustomParameters    map[string]string
		}
	}
	var second struct {
		SequenceNumber string
		Media          struct{ Timestamp string }
	}
	if json.Unmarshal(said[1], &start) != nil || json.Unmarshal(said[3], &second) != nil {
		t.Fatal("no JSON")
	}
	want := map[string]string{"from_number": "+12025550123", "to_number": "+12025550100", "direction": "inbound",
		"call_id": "cs_1", "campaign": "x"}
	if !maps.Equal(start.Start.CustomParameters, want) {
		t.Errorf("the custom parameters are %v", start.Start.CustomParameters)
	}
	if !strings.HasPrefix(start.Start.CallSid, "CA") || len(start.Start.CallSid) != 34 ||
		!strings.HasPrefix(start.StreamSid, "MZ") || start.Start.AccountSid != "AC0123456789abcdef0123456789abcdef" {
		t.Errorf("%+v", start)
	}
	if second.Media.Timestamp != "320" || second.SequenceNumber != "3" {
		t.Errorf("behind a gap of 300 ms: %+v", second)
	}
	// A call that comes back is the same call, and another stream.
	call.Known.Returns = 1
	out.Reset()
	if err := talk.Start(&out, call, false); err != nil {
		t.Fatal(err)
	}
	again := string(out.All()[1].Data)
	if !strings.Contains(again, start.Start.CallSid) || strings.Contains(again, start.StreamSid) {
		t.Errorf("the call comes back as %s", again)
	}
}

// TestFromAgent: what agents send is taken, as laxly as Twilio takes it.
func TestFromAgent(t *testing.T) {
	talk, _ := newTalk(t, options{})
	read := func(b []byte) (cmd agent.Command) {
		talk.Decode(providers.Message{Data: b}, func(c *agent.Command) { cmd = *c })
		return cmd
	}
	for _, name := range []string{"agent.media.json", "agent.media.no-streamSid.json",
		"agent.media.null-streamSid.json"} {
		var m struct{ Media struct{ Payload string } }
		if err := json.Unmarshal(fixture(t, name), &m); err != nil {
			t.Fatal(err)
		}
		want, err := base64.StdEncoding.DecodeString(m.Media.Payload)
		if cmd := read(fixture(t, name)); err != nil || cmd.Kind != agent.CommandAudio ||
			!bytes.Equal(cmd.Audio, want) {
			t.Errorf("%s: %+v %v", name, cmd, err)
		}
	}
	marks, err := filepath.Glob(filepath.Join("testdata", "fixtures", "agent.mark.*.json"))
	if err != nil || len(marks) < 5 {
		t.Fatalf("%v %v", marks, err)
	}
	for _, name := range marks {
		var m struct{ Mark struct{ Name string } }
		b := fixture(t, filepath.Base(name))
		if err := json.Unmarshal(b, &m); err != nil {
			t.Fatal(err)
		}
		if cmd := read(b); cmd.Kind != agent.CommandMark || cmd.Mark != m.Mark.Name || cmd.Mark == "" {
			t.Errorf("%s: %+v", name, cmd)
		}
	}
	if cmd := read(fixture(t, "agent.clear.json")); cmd.Kind != agent.CommandClear {
		t.Errorf("clear: %+v", cmd)
	}
	for text, want := range map[string]agent.Command{
		string(fixture(t, "agent.rtvi-message.json")): {Kind: agent.CommandUnknown},
		`{"event":"hello"}`:                           {Kind: agent.CommandUnknown, Type: "hello"},
		`nonsense`:                                    {Kind: agent.CommandFault, Code: "bad_json"},
		`[]`:                                          {Kind: agent.CommandFault, Code: "bad_json"},
		`{"event":"media"}`:                           {Kind: agent.CommandFault, Code: "bad_field"},
		`{"event":"media","media":{"payload":"!"}}`: {Kind: agent.CommandFault, Code: "bad_field"},
		`{"event":"mark"}`:                          {Kind: agent.CommandFault, Code: "bad_field"},
		`{"event":"mark","mark":{"name":"` + strings.Repeat("x", 2000) + `"}}`: {Kind: agent.CommandFault,
			Code: "bad_field"},
	} {
		cmd := read([]byte(text))
		cmd.Message = ""
		if !reflect.DeepEqual(cmd, want) {
			t.Errorf("%.60s: %+v, want %+v", text, cmd, want)
		}
	}
	for n := range commandsBurst + 2*maxCommands { // real time passes: a second of it at the most
		cmd := read(fixture(t, "agent.clear.json"))
		if cmd.Fatal != (cmd.Kind == agent.CommandFault) || cmd.Fatal && n < 8000 {
			t.Fatalf("command %d: %+v", n, cmd)
		}
		if cmd.Fatal {
			return
		}
	}
	t.Error("a flood of clears goes on")
}

// TestHandshake: it is signed as Twilio signs it, and has no header of the bridge's own.
func TestHandshake(t *testing.T) {
	r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(append(bytes.TrimSpace(fixture(t, "handshake.txt")),
		"\r\n\r\n"...))))
	if err != nil {
		t.Fatal(err)
	}
	_, p := newTalk(t, options{AccountSID: "AC0123456789abcdef0123456789abcdef", AuthToken: "12345"})
	u, err := url.Parse("wss://agent.example.com/media")
	if err != nil {
		t.Fatal(err)
	}
	h := http.Header{}
	if err := p.Handshake(u, h); err != nil || h.Get("X-Twilio-Signature") != r.Header.Get("X-Twilio-Signature") {
		t.Errorf("%v %v, want %s", h, err, r.Header.Get("X-Twilio-Signature"))
	}
	_, p = newTalk(t, options{})
	h = http.Header{}
	if err := p.Handshake(u, h); err != nil || len(h) != 0 {
		t.Errorf("without a token: %v %v", h, err)
	}
}

// TestOptions: what cannot be is refused, with the field.
func TestOptions(t *testing.T) {
	for name, o := range map[string]agent.Options{
		"input_rate": {InputRate: 16000}, "output_rate": {OutputRate: 24000}, "url": {Incoming: true},
		"options.account_sid": {Decode: func(c any) error {
			*c.(*options) = options{AccountSID: "AC1", AuthToken: "x"}
			return nil
		}},
	} {
		if _, err := newProtocol(o); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzDecode: whatever an agent sends neither panics nor becomes more than one command.
func FuzzDecode(f *testing.F) {
	names, _ := filepath.Glob(filepath.Join("testdata", "fixtures", "agent.*.json"))
	for _, name := range names {
		f.Add(fixture(f, filepath.Base(name)), false)
	}
	f.Add([]byte(`{"event":null,"media":{"payload":null}}`), true)
	f.Fuzz(func(t *testing.T, b []byte, binary bool) {
		talk, _ := newTalk(t, options{})
		var kinds []agent.CommandKind
		talk.Decode(providers.Message{Binary: binary, Data: b},
			func(c *agent.Command) { kinds = append(kinds, c.Kind) })
		if len(kinds) != 1 || !slices.Contains([]agent.CommandKind{agent.CommandAudio, agent.CommandMark,
			agent.CommandClear, agent.CommandUnknown, agent.CommandFault}, kinds[0]) {
			t.Errorf("%q: %v", b, kinds)
		}
	})
}
