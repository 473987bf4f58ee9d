// Package providertest is the conformance suite that every carrier passes.
package providertest

import (
	"errors"
	"math/rand/v2"
	"reflect"
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
	m, err := p.Encode(nil, ev)
	if err != nil {
		t.Fatalf("Peer.Encode %v: %v", ev.Kind, err)
	}
	var got providers.Event
	if err := s.Decode(m, &got); err != nil {
		t.Fatalf("Stream.Decode %.200s: %v", m.Data, err)
	}
	if !reflect.DeepEqual(got, *ev) {
		t.Fatalf("%.200s\n became %+v\nwant %+v", m.Data, got, *ev)
	}
}

// command sends cmd from the stream to the peer and checks that it arrives as it was.
func (h Harness) command(t fataler, s providers.Stream, p providers.Peer, cmd *providers.Command) {
	t.Helper()
	prefix := []byte("kept")
	m, err := s.Encode(prefix, cmd)
	if err != nil {
		t.Fatalf("Stream.Encode %v: %v", cmd.Kind, err)
	}
	if string(m.Data[:4]) != "kept" {
		t.Fatalf("Stream.Encode does not append: %.200s", m.Data)
	}
	m.Data = m.Data[4:]
	var got providers.Command
	if err := p.Decode(m, &got); err != nil {
		t.Fatalf("Peer.Decode %.200s: %v", m.Data, err)
	}
	if !reflect.DeepEqual(got, *cmd) {
		t.Fatalf("%.200s\n became %+v\nwant %+v", m.Data, got, *cmd)
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
		var ev providers.Event
		if err := s.Decode(d.Message, &ev); err != nil {
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
	var ev providers.Event
	if err := h.Spec.NewStream().Decode(h.BadFormat, &ev); !errors.Is(err, providers.ErrFormat) {
		t.Errorf("%s: %v, want ErrFormat", h.BadFormat.Data, err)
	}
}

// testOrder: nothing means anything before the start, and there is one start.
func (h Harness) testOrder(t *testing.T) {
	f := h.Spec.Formats[0]
	start := &providers.Event{Kind: providers.EventStart, At: -1, Start: h.Start(f)}
	for _, ev := range h.events(f) {
		s, p := h.Spec.NewStream(), h.Spec.NewPeer()
		first, err := p.Encode(nil, start)
		if err != nil {
			t.Fatal(err)
		}
		m, err := p.Encode(nil, &ev)
		if err != nil {
			t.Fatal(err)
		}
		var got providers.Event
		if err := s.Decode(m, &got); err == nil {
			t.Errorf("%v before start was taken as %v", ev.Kind, got.Kind)
		}
		if err := s.Decode(first, &got); err != nil {
			t.Errorf("start after an early %v: %v", ev.Kind, err)
		}
		if err := s.Decode(first, &got); err == nil {
			t.Error("a second start was taken")
		}
		if err := s.Decode(m, &got); err != nil || got.Kind != ev.Kind {
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
	for _, e := range []*providers.Event{{Kind: providers.EventStart, Start: h.Start(h.Spec.Formats[0])}, &ev} {
		if m, err := p.Encode(nil, e); err != nil || s.Decode(m, &got) != nil {
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
			if _, err := s.Encode(nil, &providers.Command{Kind: providers.CommandAudio, Audio: make([]byte, n)}); err == nil {
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
			switch rapid.SampledFrom([]string{"audio", "digit", "mark", "cleared", "send", "sendMark", "clear"}).Draw(t, "step") {
			case "audio":
				payload := rapid.SliceOfN(rapid.Byte(), 2, 2000).Draw(t, "payload")
				ev := h.audio(payload[:len(payload)/2*2], at)
				if ev.At >= 0 && numbered {
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
					h.event(t, s, p, &providers.Event{Kind: providers.EventMark, At: -1, Mark: markName.Draw(t, "name")})
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
	} {
		_, err := s.Encode(nil, &providers.Command{Kind: kind, Mark: "m", Digits: "1"})
		if can != !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("Abilities says %v of %v, Stream.Encode says %v", can, kind, err)
		}
	}
	for kind, can := range map[providers.EventKind]bool{
		providers.EventMark:    a.Marks,
		providers.EventDigit:   a.Digits,
		providers.EventCleared: a.Clears,
	} {
		_, err := p.Encode(nil, &providers.Event{Kind: kind, Mark: "m", Digit: '1'})
		if can != !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("Abilities says %v of %v, Peer.Encode says %v", can, kind, err)
		}
	}
	if _, err := s.Encode(nil, &providers.Command{}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a command of no kind: %v", err)
	}
}

// testMalformed: bad messages are refused, unknown ones pass as unknown, and the
// stream goes on after each.
func (h Harness) testMalformed(t *testing.T) {
	f := h.Spec.Formats[0]
	s, p := h.connect(t, f)
	var ev providers.Event
	next := func(after []byte) {
		t.Helper()
		m, err := p.Encode(nil, &providers.Event{Kind: providers.EventAudio, Audio: make([]byte, f.FrameBytes())})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Decode(m, &ev); err != nil || ev.Kind != providers.EventAudio {
			t.Fatalf("audio after %.100s: %v, %v", after, ev.Kind, err)
		}
	}
	malformed := append([]providers.Message{
		Text(""), Text(" "), Text("{"), Text("[]"), Text("null"), Text("0"), Text(`"start"`), Text("{}"),
		Text(`{"event":1}`), Text(`{"event":"`), Text("\xff\xfe"), Text(`{"event":"x"}{"event":"x"}`),
	}, h.Malformed...)
	for _, m := range malformed {
		if err := s.Decode(m, &ev); err == nil {
			t.Errorf("%.200q was taken as %v", m.Data, ev.Kind)
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
		_ = s.Decode(providers.Message{Data: garbage}, &ev)
	}
	next([]byte("garbage"))
	for _, m := range h.Unknown {
		if err := s.Decode(m, &ev); err != nil || ev.Kind != providers.EventUnknown {
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
		m, err := p.Encode(nil, &want)
		if err != nil {
			t.Fatal(err)
		}
		var got providers.Event
		if err := s.Decode(m, &got); err != nil {
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

func (h Harness) testAllocations(t *testing.T) {
	for _, f := range h.Spec.Formats {
		s, p := h.connect(t, f)
		ev := providers.Event{Kind: providers.EventAudio, Audio: make([]byte, f.FrameBytes())}
		m, err := p.Encode(nil, &ev)
		if err != nil {
			t.Fatal(err)
		}
		cmd := providers.Command{Kind: providers.CommandAudio, Audio: make([]byte, f.FrameBytes())}
		out, err := s.Encode(nil, &cmd)
		if err != nil {
			t.Fatal(err)
		}
		buf := out.Data
		if err := s.Decode(m, &ev); err != nil {
			t.Fatal(err)
		}
		if n := testing.AllocsPerRun(100, func() { _ = s.Decode(m, &ev) }); n != 0 {
			t.Errorf("%v: Decode of audio allocates %g times", f, n)
		}
		if n := testing.AllocsPerRun(100, func() { _, _ = s.Encode(buf[:0], &cmd) }); n != 0 {
			t.Errorf("%v: Encode of audio allocates %g times", f, n)
		}
	}
}
