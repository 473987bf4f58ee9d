package twiliomedia

import (
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"voicebridge/providers"
	"voicebridge/providers/internal/mediajson"
	"voicebridge/providers/providertest"
)

var dialect = &Dialect{Name: "twilio"}

// TestWire holds the exact text of what is sent to Twilio.
func TestWire(t *testing.T) {
	s := started(t)
	for _, tt := range []struct {
		cmd  providers.Command
		want string
	}{
		{providers.Command{Kind: providers.CommandAudio, Audio: []byte{0xFF, 0x7F, 0}},
			`{"event":"media","streamSid":"MZ1","media":{"payload":"/38A"}}`},
		{providers.Command{Kind: providers.CommandMark, Mark: "u-17"},
			`{"event":"mark","streamSid":"MZ1","mark":{"name":"u-17"}}`},
		{providers.Command{Kind: providers.CommandClear}, `{"event":"clear","streamSid":"MZ1"}`},
	} {
		if got := providertest.Encode(t, s, tt.cmd); string(got) != tt.want {
			t.Errorf("%s\nwant %s", got, tt.want)
		}
	}
	p := dialect.NewPeer()
	for _, tt := range []struct {
		ev   providers.Event
		want string
	}{
		{providers.Event{Kind: providers.EventConnected}, `{"event":"connected","protocol":"Call","version":"1.0.0"}`},
		{providers.Event{Kind: providers.EventStart,
			Start: &providers.Start{Account: "AC1", Call: "CA1", Stream: "MZ1"}},
			`{"event":"start","sequenceNumber":"1","streamSid":"MZ1","start":{"accountSid":"AC1","streamSid":"MZ1","callSid":"CA1","tracks":["inbound"],"customParameters":{},"mediaFormat":{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":1}}}`},
		{providers.Event{Kind: providers.EventAudio, Audio: []byte{0}, At: 20 * time.Millisecond},
			`{"event":"media","sequenceNumber":"2","streamSid":"MZ1","media":{"track":"inbound","chunk":"1","timestamp":"20","payload":"AA=="}}`},
		{providers.Event{Kind: providers.EventDigit, Digit: '#'},
			`{"event":"dtmf","sequenceNumber":"3","streamSid":"MZ1","dtmf":{"track":"inbound_track","digit":"#"}}`},
		{providers.Event{Kind: providers.EventStop},
			`{"event":"stop","sequenceNumber":"4","streamSid":"MZ1","stop":{"accountSid":"AC1","callSid":"CA1"}}`},
	} {
		var out providers.Messages
		if err := p.Encode(&out, &tt.ev); err != nil || string(out.All()[0].Data) != tt.want {
			t.Errorf("%s, %v\nwant %s", out.All()[0].Data, err, tt.want)
		}
	}
}

// TestPeerIsStrict: what Twilio answers with warning 31951.
func TestPeerIsStrict(t *testing.T) {
	p := &Peer{dialect: dialect, start: &providers.Start{Stream: "MZ1"}}
	for _, bad := range []string{
		``, `{`, `{"event":"media","streamSid":"MZ1"}`, `{"event":"clear"}`, `{"event":"clear","streamSid":"MZ2"}`,
		`{"event":"media","streamSid":"MZ1","media":{"payload":"!"}}`, `{"event":"media","streamSid":"MZ1","media":{}}`,
		`{"event":"media","streamSid":"MZ1","media":{"payload":"AAAA","track":"outbound"}}`,
		`{"event":"clear","streamSid":"MZ1","extra":1}`, `{"event":"clear","streamSid":"MZ1"} {}`,
		`{"event":"mark","streamSid":"MZ1"}`, `{"event":"dtmf","streamSid":"MZ1"}`,
	} {
		var cmd providers.Command
		if err := p.Decode(providertest.Text(bad), &cmd); err == nil || cmd.Kind != 0 {
			t.Errorf("%s was taken as %v", bad, cmd.Kind)
		}
	}
	var cmd providers.Command
	if err := p.Decode(providers.Message{Binary: true}, &cmd); err == nil {
		t.Error("a binary message was taken")
	}
}

func started(t testing.TB) *Stream {
	t.Helper()
	s := dialect.NewStream()
	_, err := s.Decode(nil, providertest.Text(`{"event":"start","streamSid":"MZ1","start":{"streamSid":"MZ1","callSid":"CA1","mediaFormat":{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":1}}}`))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// FuzzDecode holds that the fast scan and encoding/json agree on every message
// that the scan accepts, and that nothing panics.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`{"event":"media","sequenceNumber":"3","streamSid":"MZ1","media":{"track":"inbound","chunk":"1","timestamp":"5","payload":"////"}}`,
		`{"media":{"payload":"AAAA","chunk":"7"},"event":"media"}`,
		`{"event":"media","event":"stop","media":{"payload":"AAAA"}}`,
		`{"event":"media","streamSid":"MZ1","media":{"track":"outbound","payload":"AAAA"}}`,
		`{"event":"media","streamSid":"MZ2","media":{"payload":"AAAA"}}`,
		`{"event":"media","media":{"payload":"A\/AA","chunk":"18446744073709551615"}}`,
		` { "event" : "media" , "media" : { "payload" : "" , "timestamp" : "99999999999999" } } `,
		`{"event":"mark","streamSid":"MZ1","mark":{"name":"e1-2"}}`,
		`{"event":"dtmf","streamSid":"MZ1","dtmf":{"digit":"#"}}`,
		`{"event":"stop"}`, `{}`, `null`, "{\"event\":\"media\",\"media\":{\"payload\":\"\xff\"}}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		fast, slow := started(t), started(t)
		for range 2 { // twice, for the counters that are kept
			var b providers.Event
			a, errA := fast.Decode(nil, providers.Message{Data: data})
			errB := slow.decodeJSON(data, &b)
			if (errA == nil) != (errB == nil) || errA == nil && !reflect.DeepEqual(a, []providers.Event{b}) {
				t.Fatalf("%q\nscan %+v, %v\njson %+v, %v", data, a, errA, b, errB)
			}
		}
	})
}

func FuzzPeerDecode(f *testing.F) {
	f.Add([]byte(`{"event":"media","streamSid":"MZ1","media":{"payload":"AAAA"}}`))
	f.Add([]byte(`{"event":"mark","streamSid":"MZ1","mark":{"name":"a"}}`))
	f.Add([]byte(`{"event":"clear","streamSid":"MZ1"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p := &Peer{dialect: dialect, start: &providers.Start{Stream: "MZ1"}}
		var cmd providers.Command
		if err := p.Decode(providers.Message{Data: data}, &cmd); (err == nil) == (cmd.Kind == 0) {
			t.Fatalf("%q: %v with %v", data, err, cmd.Kind)
		}
	})
}

func TestScanIsUsed(t *testing.T) {
	var f mediajson.Fields
	if !mediaKeys.Scan([]byte(`{"event":"media","sequenceNumber":"3","streamSid":"MZ1","media":{"track":"inbound","chunk":"1","timestamp":"5","payload":"////"}}`), &f) {
		t.Error("the scan gives up on the documented media message")
	}
	if err := started(t).Encode(&providers.Messages{},
		&providers.Command{Kind: providers.CommandDigits, Digits: "1"}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("digits: %v", err)
	}
}

func BenchmarkDecode(b *testing.B) {
	s := started(b)
	p := &Peer{dialect: dialect, start: &providers.Start{Stream: "MZ1"}, quotedSid: []byte(`"MZ1"`)}
	var out providers.Messages
	_ = p.Encode(&out, &providers.Event{Kind: providers.EventAudio, Audio: make([]byte, 160)})
	m := out.All()[0]
	var evs []providers.Event
	var ev providers.Event
	b.Run("scan", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			evs, _ = s.Decode(evs[:0], m)
		}
	})
	b.Run("json", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_ = s.decodeJSON(m.Data, &ev)
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	s := started(b)
	cmd := providers.Command{Kind: providers.CommandAudio, Audio: make([]byte, 160)}
	var out providers.Messages
	b.ReportAllocs()
	for b.Loop() {
		out.Reset()
		_ = s.Encode(&out, &cmd)
	}
}

// TestLookAlikes: parameters that are no texts, and a stream that nothing is heard on.
func TestLookAlikes(t *testing.T) {
	const text = `{"event":"start","streamSid":"MZ1","start":{"streamSid":"MZ1","callSid":"CA1","tracks":[%s],` +
		`"customParameters":{"a":"x","n":1.10,"b":true,"o":{"k":1},"z":null},` +
		`"mediaFormat":{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":1}}}`
	for tracks, oneWay := range map[string]bool{`"inbound"`: false, `"inbound","outbound"`: true, ``: false} {
		s := &Stream{dialect: &Dialect{Name: "x"}}
		evs, err := s.Decode(nil, providers.Message{Data: fmt.Appendf(nil, text, tracks)})
		if err != nil || evs[0].Start.OneWay != oneWay || !reflect.DeepEqual(evs[0].Start.Params,
			map[string]string{"a": "x", "n": "1.10", "b": "true", "o": `{"k":1}`, "z": ""}) {
			t.Errorf("%s: %+v, %v", tracks, evs, err)
		}
	}
}
