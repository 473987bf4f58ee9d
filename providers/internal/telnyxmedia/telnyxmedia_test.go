package telnyxmedia

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"voicebridge/codec"
	"voicebridge/providers"
	"voicebridge/providers/providertest"
)

// plain: the state of a stream is the name of its format.
var plain = &Media{
	Format: func(s string) codec.Format {
		for _, f := range Formats {
			if f.String() == s {
				return f
			}
		}
		return Formats[0]
	},
	State: codec.Format.String,
}

// started is a stream that has begun.
func started(t testing.TB, f codec.Format) *Stream {
	t.Helper()
	s := plain.NewStream()
	_, err := s.Decode(nil, providertest.Text(fmt.Sprintf(`{"event":"start","stream_id":"S1","start":{`+
		`"call_control_id":"1","client_state":%q,"media_format":{"encoding":%q,"sample_rate":%d,"channels":1}}}`,
		plain.State(f), Names[f.Encoding], f.Rate)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestOrder: frames that come out of order are given in order, those that are lost are
// counted, and none is given twice.
func TestOrder(t *testing.T) {
	for _, tt := range []struct{ chunks, want string }{
		{"1 2 3", "1 2 3"},
		{"2 1 3", "1 2 3"},
		{"3 2 1 4", "1 2 3 4"},
		{"1 1 2 2 1", "1 2"},
		{"1 3 4 2", "1 2 3 4"},
		{"1 2 4 5 6 7 8 9", "1 2 4(-1) 5 6 7 8 9"},
		{"1 2 4 5 6 7 3 8", "1 2 3 4 5 6 7 8"},
		{"1 3 12", "1 3(-1)"}, // 12 waits for 8 to 11, which may come
		{"1 3 12 13 14 15 16", "1 3(-1) 12(-8) 13 14 15 16"},
		{"1 2 9000 9001", "1 2 9000 9001"}, // another numbering
		{"500 502 501", "500 501 502"},
	} {
		s := started(t, Formats[0])
		var got []string
		for _, chunk := range strings.Fields(tt.chunks) {
			evs, err := s.Decode(nil, providertest.Text(fmt.Sprintf(`{"event":"media","media":{"chunk":%q,`+
				`"timestamp":%q,"payload":"1dXV"}}`, chunk, chunk)))
			if err != nil {
				t.Fatal(err)
			}
			for _, ev := range evs {
				name := fmt.Sprint(ev.At.Milliseconds())
				if ev.Missing > 0 {
					name += fmt.Sprintf("(-%d)", ev.Missing)
				}
				got = append(got, name)
			}
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: given %v, want %s", tt.chunks, got, tt.want)
		}
	}
}

// TestAnyOrder: whatever the order within the window, all comes once, in order and whole.
func TestAnyOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		s, last := started(t, Formats[0]), 0
		for block := 1; block < 100; block += 5 {
			for _, i := range r.Perm(5) {
				n := block + i
				p := &Peer{media: plain, start: &providers.Start{Stream: "S1"}, quotedID: []byte(`"S1"`), chunk: uint64(n - 1)}
				var out providers.Messages
				ev := &providers.Event{Kind: providers.EventAudio, Audio: []byte{byte(n), byte(n), byte(n)}}
				if err := p.Encode(&out, ev); err != nil {
					t.Fatal(err)
				}
				evs, err := s.Decode(nil, out.All()[0])
				if err != nil {
					t.Fatal(err)
				}
				for _, ev := range evs {
					if last++; ev.Audio[0] != byte(last) || ev.Audio[2] != byte(last) || ev.Missing > 0 {
						t.Fatalf("%+v after %d", ev, last-1)
					}
				}
			}
		}
		if last != 100 {
			t.Fatalf("%d frames", last)
		}
	}
}

// sine is a tone in an order of bytes, in frames.
func sine(e codec.Encoding, from, samples int) []byte {
	pcm := make([]int16, samples)
	for i := range pcm {
		pcm[i] = int16(8000 * math.Sin(2*math.Pi*400*float64(from+i)/16000))
	}
	return e.AppendEncode(nil, pcm)
}

// TestByteOrder: after some 200 ms of sound the order of the bytes is known, whatever it
// is, in both directions; silence says nothing.
func TestByteOrder(t *testing.T) {
	f := codec.Format{Encoding: codec.L16BE, Rate: 16000}
	for name, e := range map[string]codec.Encoding{"big": codec.L16BE, "little": codec.L16LE} {
		s := started(t, f)
		p := &Peer{media: plain, start: &providers.Start{Stream: "S1"}, quotedID: []byte(`"S1"`)}
		give := func(audio []byte) []byte {
			t.Helper()
			var out providers.Messages
			if err := p.Encode(&out, &providers.Event{Kind: providers.EventAudio, Audio: audio}); err != nil {
				t.Fatal(err)
			}
			evs, err := s.Decode(nil, out.All()[0])
			if err != nil || len(evs) != 1 {
				t.Fatalf("%+v, %v", evs, err)
			}
			return evs[0].Audio
		}
		for range 100 {
			give(make([]byte, 640))
		}
		for i := range 15 {
			give(sine(e, i*320, 320))
		}
		if got, want := string(give(sine(e, 4800, 320))), string(sine(codec.L16BE, 4800, 320)); got != want {
			t.Errorf("%s: the caller is noise", name)
		}
		var out providers.Messages
		if err := s.Encode(&out, &providers.Command{Kind: providers.CommandAudio,
			Audio: sine(codec.L16BE, 0, 320)}); err != nil {
			t.Fatal(err)
		}
		var want providers.Messages
		plain := started(t, f)
		_ = plain.Encode(&want, &providers.Command{Kind: providers.CommandAudio, Audio: sine(e, 0, 320)})
		if string(out.All()[0].Data) != string(want.All()[0].Data) {
			t.Errorf("%s: the agent is noise", name)
		}
	}
}

// TestPeerIsStrict: what Telnyx complains about.
func TestPeerIsStrict(t *testing.T) {
	p := &Peer{media: plain, start: &providers.Start{Stream: "S1", Out: Formats[0]}}
	short := `{"event":"media","media":{"payload":"AAAA"}}`
	for _, bad := range []string{``, `{`, short, `{"event":"media"}`, `{"event":"media","media":{"payload":"!"}}`,
		`{"event":"clear","extra":1}`, `{"event":"mark"}`, `{"event":"dtmf"}`, `{"event":"clear"} {}`} {
		var cmd providers.Command
		if err := p.Decode(providertest.Text(bad), &cmd); err == nil || cmd.Kind != 0 {
			t.Errorf("%s was taken as %v", bad, cmd.Kind)
		}
	}
}

// FuzzDecode: whatever comes neither panics nor sticks, and audio comes in order.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"event":"media","media":{"chunk":"4","payload":"AAAA"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := started(t, Formats[0])
		for _, m := range []string{`{"event":"media","media":{"chunk":"3","payload":"AAAA"}}`, string(data),
			string(data),
			`{"event":"media","media":{"chunk":"2","payload":"AAAA"}}`} {
			evs, err := s.Decode(nil, providertest.Text(m))
			for _, ev := range evs {
				if err != nil && ev.Kind != providers.EventAudio {
					t.Errorf("%q: %+v with %v", data, ev, err)
				}
			}
		}
		var cmd providers.Command
		_ = (&Peer{media: plain, start: &providers.Start{Out: Formats[0]}}).Decode(providertest.Text(string(data)), &cmd)
	})
}
