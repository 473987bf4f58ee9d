// Package providertest is the conformance suite that every carrier passes.
package providertest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"voicebridge/codec"
	"voicebridge/providers"
)

// Harness is what the suite needs to know of a carrier.
type Harness struct {
	Spec *providers.Spec
	// Start is a start event for the given format with all that this carrier's
	// start can tell.
	Start func(f codec.Format) *providers.Start
	// Documented are messages in the wording of the carrier's documents, in the
	// order of one connection, with the events they mean.
	Documented []Documented
	// Malformed are messages that must be refused once the stream has started.
	Malformed []providers.Message
	// Unknown are valid messages without meaning for a bridge.
	Unknown []providers.Message
	// BadFormat is a first message with audio that the bridge does not know.
	BadFormat providers.Message
}

// Documented is a message and what it means.
type Documented struct {
	Message providers.Message
	Event   providers.Event
}

// Event makes an event of a kind, as Decode begins it.
func Event(kind providers.EventKind) providers.Event { return providers.Event{Kind: kind, At: -1} }

// Text makes a text message.
func Text(s string) providers.Message { return providers.Message{Data: []byte(s)} }

// Run runs the suite.
func Run(t *testing.T, h Harness) {
	t.Run("Spec", h.testSpec)
	t.Run("Documented", h.testDocumented)
	t.Run("Start", h.testStart)
	t.Run("Order", h.testOrder)
	t.Run("Audio", h.testAudio)
	t.Run("RoundTrip", h.testRoundTrip)
	t.Run("Abilities", h.testAbilities)
	t.Run("Malformed", h.testMalformed)
	t.Run("Retention", h.testRetention)
	t.Run("Allocations", h.testAllocations)
}

// fataler is a *testing.T or a *rapid.T.
type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

// encode returns the one message that the carrier makes of an event.
func encode(p providers.Peer, ev *providers.Event) (providers.Message, error) {
	var out providers.Messages
	if err := p.Encode(&out, ev); err != nil {
		return providers.Message{}, err
	}
	if n := len(out.All()); n != 1 {
		return providers.Message{}, fmt.Errorf("%d messages for a %v", n, ev.Kind)
	}
	return out.All()[0], nil
}

// decode returns the one event that a message means.
func decode(s providers.Stream, m providers.Message) (providers.Event, error) {
	evs, err := s.Decode(nil, m)
	if err != nil {
		return providers.Event{}, err
	}
	if len(evs) != 1 {
		return providers.Event{}, fmt.Errorf("%d events in %.100s", len(evs), m.Data)
	}
	return evs[0], nil
}

// connect makes a stream and its peer, started with the format.
func (h Harness) connect(t fataler, f codec.Format) (providers.Stream, providers.Peer) {
	t.Helper()
	s, p := h.Spec.NewStream(), h.Spec.NewPeer()
	start := &providers.Event{Kind: providers.EventStart, At: -1, Start: h.Start(f)}
	h.event(t, s, p, start)
	return s, p
}

// event sends ev from the peer to the stream and checks that it arrives as it was.
func (h Harness) event(t fataler, s providers.Stream, p providers.Peer, ev *providers.Event) {
	t.Helper()
	m, err := encode(p, ev)
	if err != nil {
		t.Fatalf("Peer.Encode %v: %v", ev.Kind, err)
	}
	got, err := decode(s, m)
	if err != nil {
		t.Fatalf("Stream.Decode %.200s: %v", m.Data, err)
	}
	if !reflect.DeepEqual(got, *ev) {
		t.Fatalf("%.200s\n became %+v\nwant %+v", m.Data, got, *ev)
	}
}

// command sends cmd from the stream to the peer and checks that it arrives as it was.
func (h Harness) command(t fataler, s providers.Stream, p providers.Peer, cmd *providers.Command) {
	t.Helper()
	var out providers.Messages
	out.Add(true).Data = []byte("kept")
	if err := s.Encode(&out, cmd); err != nil {
		t.Fatalf("Stream.Encode %v: %v", cmd.Kind, err)
	}
	all := out.All()
	if string(all[0].Data) != "kept" || len(all) < 2 {
		t.Fatalf("Stream.Encode does not add: %q", all[0].Data)
	}
	var got providers.Command
	for _, m := range all[1:] {
		var one providers.Command
		if err := p.Decode(m, &one); err != nil {
			t.Fatalf("Peer.Decode %.200s: %v", m.Data, err)
		}
		if one.Kind != 0 {
			got = one
		}
	}
	if !reflect.DeepEqual(got, *cmd) {
		t.Fatalf("%.200s\n became %+v\nwant %+v", all[len(all)-1].Data, got, *cmd)
	}
}

func (h Harness) testSpec(t *testing.T) {
	s := h.Spec
	if s.Name == "" || s.Title == "" || len(s.Formats) == 0 || s.NewStream == nil || s.NewPeer == nil {
		t.Errorf("incomplete: %+v", s)
	}
	for _, f := range s.Formats {
		if !f.Valid() {
			t.Errorf("format %v is not one that codec knows", f)
		}
	}
}

func (h Harness) testDocumented(t *testing.T) {
	s := h.Spec.NewStream()
	for _, d := range h.Documented {
		if ev, err := decode(s, d.Message); err != nil {
			t.Errorf("%s: %v", d.Message.Data, err)
		} else if !reflect.DeepEqual(ev, d.Event) {
			t.Errorf("%s\n is %+v\nwant %+v", d.Message.Data, ev, d.Event)
		}
	}
	if len(h.Documented) == 0 {
		t.Error("no documented messages")
	}
}

func (h Harness) testStart(t *testing.T) {
	for _, f := range h.Spec.Formats {
		h.connect(t, f)
	}
	if _, err := h.Spec.NewStream().Decode(nil, h.BadFormat); !errors.Is(err, providers.ErrFormat) {
		t.Errorf("%s: %v, want ErrFormat", h.BadFormat.Data, err)
	}
}

// testOrder: nothing means anything before the start, and there is one start.
func (h Harness) testOrder(t *testing.T) {
	f := h.Spec.Formats[0]
	start := &providers.Event{Kind: providers.EventStart, At: -1, Start: h.Start(f)}
	for _, ev := range h.events(f) {
		s, p := h.Spec.NewStream(), h.Spec.NewPeer()
		first, err := encode(p, start)
		if err != nil {
			t.Fatal(err)
		}
		m, err := encode(p, &ev)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := decode(s, m); err == nil {
			t.Errorf("%v before start was taken as %v", ev.Kind, got.Kind)
		}
		if _, err := decode(s, first); err != nil {
			t.Errorf("start after an early %v: %v", ev.Kind, err)
		}
		if _, err := s.Decode(nil, first); err == nil {
			t.Error("a second start was taken")
		}
		if got, err := decode(s, m); err != nil || got.Kind != ev.Kind {
			t.Errorf("%v after a second start: %v, %v", ev.Kind, got.Kind, err)
		}
	}
}

// events is one of each kind that the carrier says it sends after the start.
func (h Harness) events(f codec.Format) []providers.Event {
	evs := []providers.Event{h.audio(make([]byte, f.FrameBytes()), 0)}
	if h.Spec.Abilities.Digits {
		evs = append(evs, providers.Event{Kind: providers.EventDigit, At: -1, Digit: '5'})
	}
	if h.Spec.Abilities.Marks {
		evs = append(evs, providers.Event{Kind: providers.EventMark, At: -1, Mark: "m"})
	}
	if h.Spec.Abilities.Clears {
		evs = append(evs, providers.Event{Kind: providers.EventCleared, At: -1})
	}
	return evs
}

// audio makes an audio event with the media time, where the carrier has one.
func (h Harness) audio(b []byte, at time.Duration) providers.Event {
	ev := providers.Event{Kind: providers.EventAudio, Audio: b, At: at}
	s, p := h.Spec.NewStream(), h.Spec.NewPeer()
	var got providers.Event
	first := h.Spec.Formats[0]
	for _, e := range []*providers.Event{{Kind: providers.EventStart, Start: h.Start(first)},
		{Kind: providers.EventAudio, Audio: make([]byte, first.FrameBytes()), At: at}} {
		m, err := encode(p, e)
		if err == nil {
			got, err = decode(s, m)
		}
		if err != nil {
			return ev // the test that uses it will say what is wrong
		}
	}
	if got.At < 0 {
		ev.At = -1
	}
	return ev
}

// testAudio: every byte passes as it is, in both directions, and inbound audio
// may be any number of samples.
func (h Harness) testAudio(t *testing.T) {
	for _, f := range h.Spec.Formats {
		s, p := h.connect(t, f)
		frame := make([]byte, f.FrameBytes())
		for i := range 256 {
			for j := range frame {
				frame[j] = byte(i + j*(i&1))
			}
			h.command(t, s, p, &providers.Command{Kind: providers.CommandAudio, Audio: frame})
			ev := h.audio(frame, time.Duration(i)*codec.FrameTime)
			h.event(t, s, p, &ev)
		}
		for _, n := range []int{1, 2, 3, 159, 161, 8000} {
			ev := h.audio(make([]byte, n*f.Encoding.SampleBytes()), time.Hour)
			h.event(t, s, p, &ev)
		}
		if !h.Spec.Abilities.FixedFrames {
			continue
		}
		for _, n := range []int{0, f.FrameBytes() - 1, f.FrameBytes() + 1, 2 * f.FrameBytes()} {
			if err := s.Encode(&providers.Messages{},
				&providers.Command{Kind: providers.CommandAudio, Audio: make([]byte, n)}); err == nil {
				t.Errorf("%v: a frame of %d bytes was encoded", f, n)
			}
		}
	}
}

// testRoundTrip drives random conversations.
func (h Harness) testRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := rapid.SampledFrom(h.Spec.Formats).Draw(t, "format")
		s, p := h.connect(t, f)
		numbered := false
		at := time.Duration(0)
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"audio", "digit", "mark", "cleared", "send", "sendMark", "clear"}).Draw(t,
				"step") {
			case "audio":
				payload := rapid.SliceOfN(rapid.Byte(), 2, 2000).Draw(t, "payload")
				ev := h.audio(payload[:len(payload)/2*2], at)
				if ev.At >= 0 && numbered && !h.Spec.Abilities.Reorders {
					ev.Missing = rapid.SampledFrom([]int{0, 0, 0, 1, 7}).Draw(t, "missing")
				}
				numbered = true
				at += codec.FrameTime
				h.event(t, s, p, &ev)
			case "digit":
				if h.Spec.Abilities.Digits {
					h.event(t, s, p, &providers.Event{Kind: providers.EventDigit, At: -1,
						Digit: rapid.SampledFrom([]byte("0123456789*#ABCD")).Draw(t, "digit")})
				}
			case "mark":
				if h.Spec.Abilities.Marks {
					h.event(t, s, p, &providers.Event{Kind: providers.EventMark, At: -1,
						Mark: markName.Draw(t, "name")})
				}
			case "cleared":
				if h.Spec.Abilities.Clears {
					h.event(t, s, p, &providers.Event{Kind: providers.EventCleared, At: -1})
				}
			case "send":
				n := f.FrameBytes()
				h.command(t, s, p, &providers.Command{Kind: providers.CommandAudio,
					Audio: rapid.SliceOfN(rapid.Byte(), n, n).Draw(t, "frame")})
			case "sendMark":
				if h.Spec.Abilities.Marks {
					h.command(t, s, p, &providers.Command{Kind: providers.CommandMark, Mark: markName.Draw(t, "name")})
				}
			case "clear":
				if h.Spec.Abilities.Clear {
					h.command(t, s, p, &providers.Command{Kind: providers.CommandClear})
				}
			}
		}
	})
}

var markName = rapid.StringMatching(`[ -~äλ日]{1,40}`)

// testAbilities: what the Spec does not claim is unsupported, and only that.
func (h Harness) testAbilities(t *testing.T) {
	a := h.Spec.Abilities
	s, p := h.connect(t, h.Spec.Formats[0])
	for kind, can := range map[providers.CommandKind]bool{
		providers.CommandMark:   a.Marks,
		providers.CommandClear:  a.Clear,
		providers.CommandDigits: a.SendDigits,
		providers.CommandHangup: a.Hangup,
	} {
		err := s.Encode(&providers.Messages{}, &providers.Command{Kind: kind, Mark: "m", Digits: "1"})
		if can != !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("Abilities says %v of %v, Stream.Encode says %v", can, kind, err)
		}
	}
	for kind, can := range map[providers.EventKind]bool{
		providers.EventConnected: a.Greets,
		providers.EventMark:      a.Marks,
		providers.EventDigit:     a.Digits,
		providers.EventCleared:   a.Clears,
	} {
		err := p.Encode(&providers.Messages{}, &providers.Event{Kind: kind, Mark: "m", Digit: '1'})
		if can != !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("Abilities says %v of %v, Peer.Encode says %v", can, kind, err)
		}
	}
	if err := s.Encode(&providers.Messages{}, &providers.Command{}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a command of no kind: %v", err)
	}
}

// testMalformed: bad messages are refused, unknown ones pass as unknown, and the
// stream goes on after each.
func (h Harness) testMalformed(t *testing.T) {
	f := h.Spec.Formats[0]
	s, p := h.connect(t, f)
	next := func(after []byte) {
		t.Helper()
		m, err := encode(p, &providers.Event{Kind: providers.EventAudio, Audio: make([]byte, f.FrameBytes())})
		if err != nil {
			t.Fatal(err)
		}
		if ev, err := decode(s, m); err != nil || ev.Kind != providers.EventAudio {
			t.Fatalf("audio after %.100s: %v, %v", after, ev.Kind, err)
		}
	}
	malformed := append([]providers.Message{
		Text(""), Text(" "), Text("{"), Text("[]"), Text("null"), Text("0"), Text(`"start"`), Text("{}"),
		Text(`{"event":1}`), Text(`{"event":"`), Text("\xff\xfe"), Text(`{"event":"x"}{"event":"x"}`),
	}, h.Malformed...)
	for _, m := range malformed {
		if evs, err := s.Decode(nil, m); err == nil {
			t.Errorf("%.200q was taken as %v", m.Data, evs)
		} else if errors.Is(err, providers.ErrFormat) {
			t.Errorf("%.200q: %v would end the call", m.Data, err)
		}
		next(m.Data)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 { // whatever it says, it must not panic or stick
		garbage := make([]byte, rng.IntN(60))
		for i := range garbage {
			garbage[i] = byte(rng.Uint32())
		}
		_, _ = s.Decode(nil, providers.Message{Data: garbage})
	}
	next([]byte("garbage"))
	for _, m := range h.Unknown {
		if ev, err := decode(s, m); err != nil || ev.Kind != providers.EventUnknown {
			t.Errorf("%s: %v, %v, want unknown", m.Data, ev.Kind, err)
		}
		next(m.Data)
	}
}

// testRetention: what an event or a command said stays true when the message's
// memory is used again.
func (h Harness) testRetention(t *testing.T) {
	f := h.Spec.Formats[0]
	p, s := h.Spec.NewPeer(), h.Spec.NewStream()
	evs := append([]providers.Event{{Kind: providers.EventStart, At: -1, Start: h.Start(f)}}, h.events(f)...)
	for _, want := range evs {
		m, err := encode(p, &want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := decode(s, m)
		if err != nil {
			t.Fatal(err)
		}
		if want.Kind == providers.EventAudio {
			continue // documented to alias
		}
		for i := range m.Data {
			m.Data[i] = 'x'
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%v changed with the memory of its message: %+v", want.Kind, got)
		}
	}
}

// testAllocations: audio allocates nothing, once the buffers have grown.
func (h Harness) testAllocations(t *testing.T) {
	for _, f := range h.Spec.Formats {
		s, p := h.Spec.NewStream(), h.Spec.NewPeer()
		start := *h.Start(f)
		start.Stream = strings.Repeat("an id as long as those of carriers ", 3)
		first, err := encode(p, &providers.Event{Kind: providers.EventStart, At: -1, Start: &start})
		if err == nil {
			_, err = s.Decode(nil, first)
		}
		if err != nil {
			t.Fatal(err)
		}
		const runs = 100
		var in [runs + 12]providers.Message // each its own, since they are numbered
		for i := range in {
			m, err := encode(p, &providers.Event{Kind: providers.EventAudio, Audio: make([]byte, f.FrameBytes())})
			if err != nil {
				t.Fatal(err)
			}
			in[i] = m
		}
		var evs []providers.Event
		var out providers.Messages
		next := 0
		receive := func() {
			evs, _ = s.Decode(evs[:0], in[next])
			next++
		}
		cmd := providers.Command{Kind: providers.CommandAudio, Audio: make([]byte, f.FrameBytes())}
		send := func() {
			out.Reset()
			_ = s.Encode(&out, &cmd)
		}
		for range 10 {
			receive()
			send()
		}
		if len(evs) != 1 || evs[0].Kind != providers.EventAudio || len(out.All()) == 0 {
			t.Fatalf("%v: %+v, %d messages", f, evs, len(out.All()))
		}
		if n := testing.AllocsPerRun(runs, receive); n != 0 {
			t.Errorf("%v: Decode of audio allocates %g times", f, n)
		}
		if n := testing.AllocsPerRun(runs, send); n != 0 {
			t.Errorf("%v: Encode of audio allocates %g times", f, n)
		}
	}
}
