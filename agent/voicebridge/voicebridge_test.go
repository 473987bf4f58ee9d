package voicebridge

import (
	"encoding/json"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/time/rate"

	"voicebridge/agent"
	"voicebridge/calls"
	"voicebridge/codec"
)

// TestFormats: the rates and the encoding, and whose word counts more.
func TestFormats(t *testing.T) {
	for _, tt := range []struct {
		o             agent.Options
		encoding, url string
		hears, speaks codec.Format
		err           string
	}{
		{agent.Options{}, "", "ws://h/", codec.Format{Encoding: codec.L16LE, Rate: 16000},
			codec.Format{Encoding: codec.L16LE, Rate: 16000}, ""},
		{agent.Options{}, "", "ws://h/?in_rate=8000&out_rate=24000", codec.Format{Encoding: codec.L16LE, Rate: 8000},
			codec.Format{Encoding: codec.L16LE, Rate: 24000}, ""},
		{agent.Options{InputRate: 48000}, "", "ws://h/?in_rate=8000", codec.Format{Encoding: codec.L16LE, Rate: 48000},
			codec.Format{Encoding: codec.L16LE, Rate: 16000}, ""},
		{agent.Options{InputRate: 48000, Incoming: true}, "", "/?in_rate=8000",
			codec.Format{Encoding: codec.L16LE, Rate: 8000}, codec.Format{Encoding: codec.L16LE, Rate: 16000}, ""},
		{agent.Options{}, "pcmu", "ws://h/", codec.Format{Encoding: codec.PCMU, Rate: 8000},
			codec.Format{Encoding: codec.PCMU, Rate: 8000}, ""},
		{agent.Options{}, "", "ws://h/?encoding=pcma", codec.Format{Encoding: codec.PCMA, Rate: 8000},
			codec.Format{Encoding: codec.PCMA, Rate: 8000}, ""},
		{agent.Options{}, "opus", "ws://h/", codec.Format{}, codec.Format{}, "options.encoding"},
		{agent.Options{}, "", "ws://h/?encoding=opus", codec.Format{}, codec.Format{}, "url: encoding=opus"},
		{agent.Options{}, "", "ws://h/?in_rate=x", codec.Format{}, codec.Format{}, "url: in_rate=x"},
	} {
		if tt.encoding != "" {
			tt.o.Decode = func(c any) error {
				c.(*options).Encoding = tt.encoding
				return nil
			}
		}
		u, err := url.Parse(tt.url)
		if err != nil {
			t.Fatal(err)
		}
		p, err := Dialect.New(tt.o)
		var hears, speaks codec.Format
		if err == nil {
			hears, speaks, err = p.Formats(u)
		}
		if tt.err != "" {
			if err == nil || !strings.HasPrefix(err.Error(), tt.err) {
				t.Errorf("%s: %v, want %s", tt.url, err, tt.err)
			}
			continue
		}
		if err != nil || hears != tt.hears || speaks != tt.speaks {
			t.Errorf("%s: %v, %v, %v", tt.url, hears, speaks, err)
		}
	}
}

func newTestTalk() *talk {
	f := codec.Format{Encoding: codec.L16LE, Rate: 16000}
	return &talk{json: true, hears: f, speaks: f, commands: rate.NewLimiter(rate.Inf, 0),
		flood: rate.NewLimiter(rate.Inf, 0)}
}

func TestCommands(t *testing.T) {
	ms := time.Millisecond
	for text, want := range map[string]agent.Command{
		`{"type":"clear"}`:                                 {Kind: agent.CommandClear},
		`{"type":"interrupt","id":"a"}`:                    {Kind: agent.CommandClear, ID: "a"},
		`{"type":"mark","name":"m"}`:                       {Kind: agent.CommandMark, Mark: "m"},
		`{"type":"pause"}`:                                 {Kind: agent.CommandPause},
		`{"type":"unpause"}`:                               {Kind: agent.CommandUnpause},
		`{"type":"hangup"}`:                                {Kind: agent.CommandHangup},
		`{"type":"hangup","when":"now","reason":"done"}`:   {Kind: agent.CommandHangup, Now: true},
		`{"type":"hangup","when":"after_playback"}`:        {Kind: agent.CommandHangup},
		`{"type":"cancel","ref":"h"}`:                      {Kind: agent.CommandCancel, Ref: "h"},
		`{"type":"ping","id":"p"}`:                         {Kind: agent.CommandPing, ID: "p"},
		`{"type":"ready","report_ms":250}`:                 {Kind: agent.CommandReady, Every: 250 * ms},
		`{"type":"ready","report_ms":0,"last_seq":3}`:      {Kind: agent.CommandReady},
		`{"type":"tomorrow","id":"t"}`:                     {Kind: agent.CommandUnknown, Type: "tomorrow"},
		`{"type":"audio","audio":"AAEC"}`:                  {Kind: agent.CommandAudio, Audio: []byte{0, 1, 2}},
		`{"type":"pong"}`:                                  {},
		`{"type":"ready"}`:                                 {Kind: agent.CommandReady, Every: -1},
		`{"type":"ready","input_rate":16000}`:              {Kind: agent.CommandReady, Every: -1},
		`{"type":"ready","input_rate":11025}`:              {Kind: agent.CommandFault, Code: "unsupported"},
		`{"type":"ready","input_rate":8000}`:               {Kind: agent.CommandFault, Code: "unsupported"},
		`{"type":"ready","barge_in":"bridge"}`:             {Kind: agent.CommandFault, Code: "unsupported"},
		`{"type":"ready","speech":true}`:                   {Kind: agent.CommandFault, Code: "unsupported"},
		`{"type":"sentiment","name":{"a":1},"id":7}`:       {Kind: agent.CommandUnknown, Type: "sentiment"},
		`{"type":"pong","id":7}`:                           {},
		`{"type":7}`:                                       {Kind: agent.CommandFault, Code: "bad_field"},
		`null`:                                             {Kind: agent.CommandFault, Code: "bad_json"},
		`{"type":"ready","report_ms":9223372036854775807}`: {Kind: agent.CommandFault, Code: "bad_field"},
		`{"type":"ready","report_ms":5}`:                   {Kind: agent.CommandFault, Code: "bad_field"},
		`{"type":"transfer","to":"x","id":"t1"}`: {Kind: agent.CommandTransfer, ID: "t1",
			Transfer: &calls.TransferRequest{To: "x"}},
		`{"type":"transfer","to":"x","when":"now","on_fail":"hangup","context":{"a":"b"}}`: {Kind: agent.CommandTransfer, Now: true,
			Transfer: &calls.TransferRequest{To: "x", OnFail: map[string]string{"": "hangup"},
				Context: map[string]string{"a": "b"}}},
		`{"type":"transfer","to":"x","on_fail":{"busy":"resume","default":"hangup"}}`: {Kind: agent.CommandTransfer,
			Transfer: &calls.TransferRequest{To: "x", OnFail: map[string]string{"": "hangup", "busy": "resume"}}},
		`{"type":"transfer","to":7}`: {Kind: agent.CommandFault,
			Code: "bad_field"},
		`{"type":"transfer","to":"x","on_fail":7}`: {Kind: agent.CommandFault,
			Code: "bad_field"},
		`{"type":"transfer","to":"x","when":"soon"}`: {Kind: agent.CommandFault,
			Code: "bad_field"},
		`{"type":"transfer","context":{"a":"` + strings.Repeat("x", 4096) + `"}}`: {Kind: agent.CommandFault,
			Code: "bad_field"},
		`{"type":"dtmf","digits":"1w#D"}`: {Kind: agent.CommandDigits,
			Digits: "1w#D", Tone: 100 * ms, Gap: 60 * ms},
		`{"type":"dtmf","digits":"1","id":"d","when":"now","duration_ms":200,"gap_ms":40}`: {Kind: agent.CommandDigits,
			ID: "d", Digits: "1", Now: true, Tone: 200 * ms, Gap: 40 * ms},
		`{"type":"dtmf"}`:                                            {Kind: agent.CommandFault, Code: "bad_field"},
		`{"type":"dtmf","digits":"12e"}`:                             {Kind: agent.CommandFault, Code: "bad_field"},
		`{"type":"dtmf","digits":"1","duration_ms":5}`:               {Kind: agent.CommandFault, Code: "bad_field"},
		`{"type":"dtmf","digits":"1","gap_ms":50000}`:                {Kind: agent.CommandFault, Code: "bad_field"},
		`{"type":"dtmf","digits":"1","when":"then"}`:                 {Kind: agent.CommandFault, Code: "bad_field"},
		`{"type":"dtmf","digits":"` + strings.Repeat("1", 65) + `"}`: {Kind: agent.CommandFault, Code: "bad_field"},
		`{"type":"mark"}`:                                            {Kind: agent.CommandFault, Code: "bad_field"},
		`{"type":"mark","name":7,"id":"m"}`: {Kind: agent.CommandFault, Code: "bad_field",
			ID: "m"},
		`{"type":"transcript","role":"bot","text":"x"}`: {Kind: agent.CommandFault, Code: "bad_field"},
		`{"type":"transcript","role":"agent"}`:          {Kind: agent.CommandFault, Code: "bad_field"},
		`{"type":"hangup","when":"soon"}`:               {Kind: agent.CommandFault, Code: "bad_field"},
		`{"type":"cancel"}`:                             {Kind: agent.CommandFault, Code: "bad_field"},
		`{"type":"audio","audio":"?"}`:                  {Kind: agent.CommandFault, Code: "bad_field"},
		`{}`:                                            {Kind: agent.CommandFault, Code: "bad_field"},
		`[]`:                                            {Kind: agent.CommandFault, Code: "bad_json"},
		`{`:                                             {Kind: agent.CommandFault, Code: "bad_json"},
		`{"type":"mark","name":"` + strings.Repeat("x", 129) + `"}`: {Kind: agent.CommandFault, Code: "bad_field"},
		`{"type":"clear","id":"` + strings.Repeat("x", 65) + `"}`:   {Kind: agent.CommandFault, Code: "bad_field"},
	} {
		var got agent.Command
		ok := newTestTalk().command([]byte(text), &got)
		if got.Kind == agent.CommandFault {
			if got.Message == "" {
				t.Errorf("%s: a fault without words", text)
			}
			got.Message, want.ID = "", got.ID
		}
		if !ok {
			got = agent.Command{}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s\n is %+v\nwant %+v", text, got, want)
		}
	}
}

func TestRepeatedIDs(t *testing.T) {
	c := newTestTalk()
	var cmd agent.Command
	for i := range 200 {
		text, _ := json.Marshal(map[string]string{"type": "clear", "id": strings.Repeat("i", 1+i%60)})
		if ok := c.command(text, &cmd); ok != (i < 60) {
			t.Fatalf("command %d: %v", i, ok)
		}
	}
	if len(c.ids) > keptIDs {
		t.Errorf("%d ids are kept", len(c.ids))
	}
}

// TestMendedCommand: a command that was refused may come again under its id.
func TestMendedCommand(t *testing.T) {
	c := newTestTalk()
	var cmd agent.Command
	c.command([]byte(`{"type":"mark","id":"m"}`), &cmd)
	if cmd.Kind != agent.CommandFault {
		t.Fatalf("%+v", cmd)
	}
	cmd = agent.Command{}
	if !c.command([]byte(`{"type":"mark","id":"m","name":"x"}`), &cmd) || cmd.Kind != agent.CommandMark {
		t.Errorf("%+v", cmd)
	}
}

func TestBadJSONEnds(t *testing.T) {
	c := newTestTalk()
	for i := range maxBadJSON {
		var cmd agent.Command
		c.command([]byte("{"), &cmd)
		if cmd.Fatal != (i == maxBadJSON-1) {
			t.Errorf("bad message %d: fatal %v", i+1, cmd.Fatal)
		}
	}
}

func FuzzCommand(f *testing.F) {
	for _, s := range []string{
		`{"type":"clear","id":"a"}`, `{"type":"mark","name":"m"}`, `{"type":"hangup","when":"now"}`,
		`{"type":"audio","audio":"AAAA"}`,
		`{"type":"ready","report_ms":100}`, `{"type":1}`, `[]`, `{"type":"cancel","ref":"x"}`, `{"type":"\u0000"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var cmd agent.Command
		if newTestTalk().command(data, &cmd) && cmd.Kind == agent.CommandFault && cmd.Code == "" {
			t.Fatalf("%q: a fault without a code", data)
		}
		if len(cmd.ID) > maxID || len(cmd.Mark) > maxName {
			t.Fatalf("%q: %+v", data, cmd)
		}
	})
}

// TestAudioOf: audio in JSON is found in the usual ways to write it.
func TestAudioOf(t *testing.T) {
	for text, want := range map[string]string{
		`{"type":"audio","audio":"AAAA"}`:                         "AAAA",
		` { "audio" : "AA==" , "type" : "audio" } `:               "AA==",
		`{"type":"audio","audio":"","n":-1.5e3,"x":null,"y":"z"}`: "",
	} {
		if got, ok := audioOf([]byte(text)); !ok || string(got) != want {
			t.Errorf("%s: %q %v", text, got, ok)
		}
	}
	for _, text := range []string{``, `{}`, `[]`, `{"type":"audio"}`, `{"audio":"AAAA"}`, `{"type":"mark","audio":"AAAA"}`,
		`{"type":"audio","audio":"AA\u0041A"}`, `{"type":"audio","audio":["AAAA"]}`, `{"type":"audio","audio":"AAAA","x":{}}`,
		`{"type":"audio","audio":"AAAA"`, `{"type":"audio","audio":"AA` + "\n" + `AA"}`, `{"type":"audio","audio":"AAAA",}`,
		`{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1,"type":"audio","audio":"AAAA"}`, `{"type":"audio","audio":"AAAA","x":1x}`} {
		if got, ok := audioOf([]byte(text)); ok {
			t.Errorf("%s: %q", text, got)
		}
	}
}

// FuzzAudioOf: what the fast way reads, encoding/json reads the same.
func FuzzAudioOf(f *testing.F) {
	f.Add([]byte(`{"type":"audio","audio":"AAAA","n":12,"s":"x"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		audio, ok := audioOf(b)
		if !ok {
			return
		}
		var m struct{ Type, Audio string }
		if err := json.Unmarshal(b, &m); err != nil || m.Type != "audio" ||
			m.Audio != strings.ToValidUTF8(string(audio), "\ufffd") && utf8.Valid(audio) {
			t.Errorf("%q: %q, %+v, %v", b, audio, m, err)
		}
	})
}

// TestLongText: a text of more than the limit is audio, or is not looked at.
func TestLongText(t *testing.T) {
	talk, cmd := newTestTalk(), agent.Command{}
	keys := `{"type":"audio","audio":"AAAA"` + strings.Repeat(`,"k":{}`, 20000) + `}`
	if !talk.command([]byte(keys), &cmd) || cmd.Code != "bad_field" {
		t.Errorf("%+v", cmd)
	}
	long := `{"type":"audio","audio":"` + strings.Repeat("AAAA", 50000) + `"}`
	if cmd = (agent.Command{}); !talk.command([]byte(long), &cmd) || len(cmd.Audio) != 150000 {
		t.Errorf("%v, %d bytes", cmd.Kind, len(cmd.Audio))
	}
}

// BenchmarkAudioJSON is a second of audio at 16 kHz in a message.
func BenchmarkAudioJSON(b *testing.B) {
	talk, cmd := newTestTalk(), agent.Command{}
	text := []byte(`{"type":"audio","audio":"` + strings.Repeat("AAAA", 32000/3) + `"}`)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		talk.command(text, &cmd)
	}
}
