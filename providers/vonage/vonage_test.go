package vonage

import (
	"testing"
	"time"

	"voicebridge/codec"
	"voicebridge/providers"
	"voicebridge/providers/providertest"
)

func TestConformance(t *testing.T) {
	text := providertest.Text
	start := providertest.Event(providers.EventStart)
	f := codec.Format{Encoding: codec.L16LE, Rate: 16000}
	start.Start = &providers.Start{In: f, Out: f, Params: map[string]string{"run": "42", "tenant": "acme", "n": "7"}}
	audio := providertest.Event(providers.EventAudio)
	audio.Audio = make([]byte, 640)
	digit := providertest.Event(providers.EventDigit)
	digit.Digit, digit.Duration = '5', 260*time.Millisecond
	short := providertest.Event(providers.EventDigit)
	short.Digit = '#'
	mark := providertest.Event(providers.EventMark)
	mark.Mark = "u-17"

	providertest.Run(t, providertest.Harness{
		Spec: Spec,
		Start: func(f codec.Format) *providers.Start {
			return &providers.Start{In: f, Out: f, Params: map[string]string{"a": "b", "quote": `"\`}}
		},
		Documented: []providertest.Documented{
			{Message: text(` {"event":"websocket:connected","content-type":"audio/l16;rate=16000","run":"42","tenant":"acme","n":7}`), Event: start},
			{Message: providers.Message{Binary: true, Data: make([]byte, 640)}, Event: audio},
			{Message: text(`{"event":"websocket:dtmf","digit":"5","duration":260}`), Event: digit},
			{Message: text(`{"digit":"5","duration":260}`), Event: digit},
			{Message: text(`{"event":"websocket:dtmf","dtmf":{"digit":"5","duration":"260"}}`), Event: digit},
			{Message: text(`{"event":"websocket:dtmf","digit":"#"}`), Event: short},
			{Message: text(`{"event":"websocket:cleared"}`), Event: providertest.Event(providers.EventCleared)},
			{Message: text(`{"event":"websocket:notify","payload":{"mark":"u-17"}}`), Event: mark},
			{Message: text(`{"event":"websocket:media:update","method":"update","active":false}`),
				Event: providertest.Event(providers.EventUnknown)},
		},
		Malformed: []providers.Message{
			text(`{"event":"websocket:dtmf"}`), text(`{"event":"websocket:dtmf","digit":"x"}`), text(`{"digit":"12"}`),
			text(`{"digit":12}`),
			text(`{"event":"websocket:dtmf","digit":"5","duration":[]}`), {Binary: true, Data: make([]byte, 639)},
		},
		Unknown: []providers.Message{
			text(`{"event":"websocket:weather"}`),
			text(`{"event":"websocket:notify","payload":{"custom":"other"}}`),
			text(`{"event":"websocket:notify"}`),
		},
		BadFormat: text(`{"event":"websocket:connected","content-type":"audio/l16;rate=44100"}`),
	})
}

// TestCustomValues: the first message's own keys must not be taken for others.
func TestCustomValues(t *testing.T) {
	evs, err := (&Stream{}).Decode(nil, providertest.Text(`{"event":"websocket:connected","content-type":"audio/l16;rate=8000",
		"duration":"30 minutes","dtmf":"rfc2833","Event":"webinar","Content-Type":"x","payload":[1],"digit":{}}`))
	if err != nil || len(evs) != 1 {
		t.Fatalf("%+v, %v", evs, err)
	}
	if ev := evs[0]; ev.Kind != providers.EventStart || ev.Start.In.Rate != 8000 || len(ev.Start.Params) != 6 ||
		ev.Start.Params["Event"] != "webinar" || ev.Start.Params["payload"] != "[1]" {
		t.Errorf("%+v, %+v", ev, ev.Start)
	}
}

func TestContentType(t *testing.T) {
	for in, rate := range map[string]int{
		"audio/l16;rate=8000": 8000, "audio/l16; rate=16000": 16000, "audio/L16;rate=24000": 24000,
		"": 0, "audio/l16": 0, "audio/pcmu;rate=8000": 0, "audio/l16;rate=48000": 0, ";;;": 0,
	} {
		f, err := parseContentType(in)
		if f.Rate != rate || (err == nil) != (rate != 0) {
			t.Errorf("%q: %v, %v", in, f, err)
		}
	}
}

// TestWire holds the exact form of what is sent to Vonage.
func TestWire(t *testing.T) {
	s := &Stream{format: Spec.Formats[0]}
	for _, tt := range []struct {
		cmd  providers.Command
		want string
	}{
		{providers.Command{Kind: providers.CommandMark, Mark: "u-17"}, `{"action":"notify","payload":{"mark":"u-17"}}`},
		{providers.Command{Kind: providers.CommandClear}, `{"action":"clear"}`},
	} {
		if got := providertest.Encode(t, s, tt.cmd); string(got) != tt.want {
			t.Errorf("%s\nwant %s", got, tt.want)
		}
	}
}

// TestPeerFrames: Vonage plays the first 20 ms of a longer message and nothing
// of a shorter one.
func TestPeerFrames(t *testing.T) {
	p := &Peer{format: Spec.Formats[0]}
	for n, played := range map[int]int{0: 0, 320: 0, 639: 0, 640: 640, 641: 640, 1280: 640} {
		var cmd providers.Command
		err := p.Decode(providers.Message{Binary: true, Data: make([]byte, n)}, &cmd)
		if len(cmd.Audio) != played || (err == nil) != (n == 640) {
			t.Errorf("%d bytes: %d played, %v", n, len(cmd.Audio), err)
		}
	}
	var cmd providers.Command
	for _, bad := range []string{``, `{}`, `{"action":"hangup"}`, `{"action":"notify"}`} {
		if err := p.Decode(providertest.Text(bad), &cmd); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`{"event":"websocket:connected","content-type":"audio/l16;rate=16000","a":{}}`,
		`{"event":"websocket:dtmf","digit":"5","duration":260}`,
		`{"digit":5}`, `{"event":"websocket:dtmf","dtmf":{"digit":"5"}}`,
		`{"event":"websocket:notify","payload":{"mark":"x"}}`, `{"event":"websocket:cleared"}`, `null`, ``,
	} {
		f.Add([]byte(seed), false)
	}
	f.Add(make([]byte, 640), true)
	for _, name := range providertest.FixtureNames(f, "media-*.json") {
		f.Add(providertest.Fixture(f, name), false)
	}
	f.Fuzz(func(t *testing.T, data []byte, binary bool) {
		for _, s := range []*Stream{{}, {format: Spec.Formats[0]}} {
			evs, err := s.Decode(nil, providers.Message{Binary: binary, Data: data})
			if err != nil && len(evs) > 0 {
				t.Fatalf("%q: %v with %v", data, err, evs)
			}
			for _, ev := range evs {
				if ev.Kind == providers.EventDigit && !providers.ValidDigit(ev.Digit) {
					t.Fatalf("%q: digit %q", data, ev.Digit)
				}
			}
		}
		var cmd providers.Command
		p := &Peer{format: Spec.Formats[0]}
		_ = p.Decode(providers.Message{Binary: binary, Data: data}, &cmd)
	})
}
