package asteriskmedia

import (
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"voicebridge/providers"
)

// fixture is one of Asterisk's messages, without the line feed that ends the file.
func fixture(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../../asterisk/testdata/fixtures", name))
	if err != nil {
		t.Fatal(err)
	}
	return []byte(strings.TrimSuffix(string(b), "\n"))
}

// begun is a stream that has begun with a fixture.
func begun(t testing.TB, name string) *Stream {
	t.Helper()
	s := &Stream{}
	if evs, err := s.Decode(nil, providers.Message{Data: fixture(t, name)}); err != nil || len(evs) != 1 {
		t.Fatalf("%s: %v, %v", name, evs, err)
	}
	return s
}

// TestStart: a stream begins in both formats, with every encoding that there is.
func TestStart(t *testing.T) {
	for name, want := range map[string]string{"media-start.txt": "ulaw", "media-start-nocodec.txt": "slin",
		"media-start-ulaw.json": "ulaw", "media-start-alaw.json": "alaw", "media-start-slin.json": "slin",
		"media-start-slin16.json": "slin16", "media-start-slin24.json": "slin24", "media-start-slin48.json": "slin48",
		"media-start-incoming.json": "slin16"} {
		evs, err := new(Stream).Decode(nil, providers.Message{Data: fixture(t, name)})
		if err != nil || len(evs) != 1 || evs[0].Kind != providers.EventStart || NameOf(evs[0].Start.In) != want ||
			evs[0].Start.Out != evs[0].Start.In || evs[0].Start.Stream == "" {
			t.Errorf("%s: %+v, %v", name, evs, err)
		}
	}
	for _, name := range []string{"media-start-g722.json", "media-start-opus.json"} {
		if _, err := new(Stream).Decode(nil, providers.Message{Data: fixture(t, name)}); !errors.Is(err,
			providers.ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestEvents: what each message of Asterisk's means, in both formats.
func TestEvents(t *testing.T) {
	mark := func(name string) providers.Event { return providers.Event{Kind: providers.EventMark, Mark: name} }
	digit := func(d byte) providers.Event { return providers.Event{Kind: providers.EventDigit, Digit: d} }
	for name, want := range map[string]providers.Event{
		"media-mark-processed": mark("mark-1"), "media-mark-processed-noid": mark(""),
		"media-dtmf": digit('1'), "media-dtmf-star": digit('*'), "media-dtmf-hash": digit('#'),
		"media-xoff": {}, "media-xon": {}, "media-status": {}, "media-status-full": {}, "media-status-paused": {},
		"media-queue-drained": {}, "media-buffering-completed": {}, "media-error-direction": {},
	} {
		want.At = -1
		for _, format := range []string{".txt", ".json"} {
			s := begun(t, "media-start"+map[string]string{".txt": ".txt", ".json": "-ulaw.json"}[format])
			evs, err := s.Decode(nil, providers.Message{Data: fixture(t, name+format)})
			if err != nil || len(evs) != 1 || evs[0].Kind != want.Kind || evs[0].Mark != want.Mark ||
				evs[0].Digit != want.Digit || evs[0].At != want.At {
				t.Errorf("%s%s: %+v, %v", name, format, evs, err)
			}
		}
	}
}

// TestCommands: what is sent is what Asterisk takes, in the format in which it has begun.
func TestCommands(t *testing.T) {
	for _, tt := range []struct {
		name string
		cmd  providers.Command
	}{
		{"media-send-mark", providers.Command{Kind: providers.CommandMark, Mark: "mark-1"}},
		{"media-send-flush", providers.Command{Kind: providers.CommandClear}},
	} {
		for start, format := range map[string]string{"media-start.txt": ".txt", "media-start-ulaw.json": ".json"} {
			s, out := begun(t, start), &providers.Messages{}
			if err := s.Encode(out, &tt.cmd); err != nil || len(out.All()) != 1 {
				t.Fatalf("%v, %v", out.All(), err)
			}
			if got, want := out.All()[0].Data, fixture(t, tt.name+format); string(got) != string(want) {
				t.Errorf("sent %s, want %s", got, want)
			}
			var cmd providers.Command
			if err := new(Peer).Decode(out.All()[0], &cmd); err != nil || cmd.Kind != tt.cmd.Kind || cmd.Mark != tt.cmd.Mark {
				t.Errorf("%s%s: the simulated Asterisk takes %+v, %v", tt.name, format, cmd, err)
			}
		}
	}
	for _, name := range []string{"answer", "continue", "get-status", "hangup", "pause", "report-drained",
		"start-buffering", "stop-buffering"} {
		for _, format := range []string{".txt", ".json"} {
			if err := new(Peer).Decode(providers.Message{Data: fixture(t, "media-send-"+name+format)},
				&providers.Command{}); err != nil {
				t.Errorf("%s%s: %v", name, format, err)
			}
		}
	}
}

// TestAudio: frames pass as they are; the last one of a file may be shorter.
func TestAudio(t *testing.T) {
	for start, name := range map[string]string{"media-start-ulaw.json": "media-audio-ulaw.hex",
		"media-start-slin16.json": "media-audio-slin16.hex", "media-start-slin24.json": "media-audio-slin24.hex",
		"media-start-slin.json": "media-audio-slin.hex"} {
		audio, err := hex.DecodeString(string(fixture(t, name)))
		if err != nil {
			t.Fatal(err)
		}
		s := begun(t, start)
		if len(audio) != s.format.FrameBytes() {
			t.Errorf("%s: %d bytes", name, len(audio))
		}
		for _, n := range []int{len(audio), len(audio) / 2 / 2 * 2} {
			evs, err := s.Decode(nil, providers.Message{Binary: true, Data: audio[:n]})
			if err != nil || len(evs) != 1 || string(evs[0].Audio) != string(audio[:n]) {
				t.Errorf("%s: %v, %v", name, evs, err)
			}
		}
	}
}

// TestFull: while Asterisk's queue is full, no audio is sent, but commands are.
func TestFull(t *testing.T) {
	s, out := begun(t, "media-start-ulaw.json"), &providers.Messages{}
	send := func(want int) {
		t.Helper()
		out.Reset()
		if err := s.Encode(out, &providers.Command{Kind: providers.CommandAudio, Audio: make([]byte, 160)}); err != nil ||
			len(out.All()) != want {
			t.Errorf("%d messages, %v", len(out.All()), err)
		}
	}
	tell := func(name string) {
		t.Helper()
		if _, err := s.Decode(nil, providers.Message{Data: fixture(t, name)}); err != nil {
			t.Fatal(err)
		}
	}
	send(1)
	tell("media-xoff.json")
	send(0)
	tell("media-xon.json")
	send(1)
	tell("media-xoff.json")
	out.Reset()
	if err := s.Encode(out, &providers.Command{Kind: providers.CommandClear}); err != nil || len(out.All()) != 1 {
		t.Errorf("%v, %v", out.All(), err)
	}
	send(1) // the queue is empty
}

// TestLong: what Asterisk would leave out without a word is not sent.
func TestLong(t *testing.T) {
	s := begun(t, "media-start-ulaw.json")
	if err := s.Encode(&providers.Messages{}, &providers.Command{Kind: providers.CommandMark,
		Mark: strings.Repeat("x", 100)}); err == nil {
		t.Error("a command of more than 128 bytes was sent")
	}
	p, cmd := &Peer{}, providers.Command{}
	var out providers.Messages
	start := providers.Event{Kind: providers.EventStart, Start: &providers.Start{In: s.format, Out: s.format}}
	if err := p.Encode(&out, &start); err != nil {
		t.Fatal(err)
	}
	for n, good := range map[int]bool{160: true, 320: true, 80: false, 240: false, 65600: false} {
		if err := p.Decode(providers.Message{Binary: true, Data: make([]byte, n)}, &cmd); (err == nil) != good {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

// FuzzDecode: whatever comes is read or refused, on both ends.
func FuzzDecode(f *testing.F) {
	names, _ := filepath.Glob("../../asterisk/testdata/fixtures/media-*")
	for _, name := range names {
		f.Add(fixture(f, filepath.Base(name)), false)
	}
	f.Fuzz(func(t *testing.T, data []byte, binary bool) {
		for _, start := range []string{"media-start.txt", "media-start-slin16.json"} {
			s := begun(t, start)
			if evs, err := s.Decode(nil, providers.Message{Binary: binary, Data: data}); err != nil && len(evs) > 0 {
				t.Errorf("%q: %+v, %v", data, evs, err)
			}
		}
		_, _ = new(Stream).Decode(nil, providers.Message{Binary: binary, Data: data})
		p := &Peer{format: begun(t, "media-start.txt").format}
		_ = p.Decode(providers.Message{Binary: binary, Data: data}, &providers.Command{})
	})
}
