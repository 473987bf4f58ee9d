// Package modeltest holds what models are told, and what they make the bridge do, for the tests of
// their dialects: without a session, and without a network.
package modeltest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"voicebridge/agent"
	"voicebridge/agent/tools"
	"voicebridge/calls"
	"voicebridge/codec"
	"voicebridge/providers"
)

// Peer is the bridge as a Talk sees it. It implements agent.Beside.
type Peer struct {
	T    testing.TB
	Talk agent.Talk

	Sent     []map[string]any // messages to the model since Take
	Binary   [][]byte         // those that are no text
	Commands []agent.Command  // since Take; audio is copied
	Audio    []byte           // all of it
	Lines    []calls.Line
	Usage    calls.Usage
	Troubles []string
	Kept     any
	Renewals int
	Still    func() bool // of the last renewal

	began time.Duration // where on the agent's timeline the audio begins
}

// New begins a talk in a call with a carrier's audio.
func New(t testing.TB, p agent.Protocol, f codec.Format, known agent.Known) *Peer {
	t.Helper()
	return Resume(t, p, f, known, nil)
}

// Resume goes on with one.
func Resume(t testing.TB, p agent.Protocol, f codec.Format, known agent.Known, at *agent.Resume) *Peer {
	t.Helper()
	peer := &Peer{T: t, Talk: p.NewTalk(nil), Usage: calls.Usage{}}
	talker := peer.Talk.(agent.Talker)
	talker.Attach(peer)
	if at != nil {
		peer.began = at.Sent
	}
	t.Cleanup(talker.Release)
	var out providers.Messages
	call := &agent.Call{Session: "cs_1", Carrier: "acme", Known: known, Transfers: []string{"conference"}, Resume: at,
		Start: &providers.Start{Call: "1", In: f, Out: f}}
	if err := peer.Talk.Start(&out, call, true); err != nil {
		t.Fatal(err)
	}
	peer.take(&out)
	return peer
}

func (p *Peer) take(out *providers.Messages) {
	for _, m := range out.All() {
		if m.Binary {
			p.Binary = append(p.Binary, append([]byte(nil), m.Data...))
			continue
		}
		var v map[string]any
		if err := json.Unmarshal(m.Data, &v); err != nil {
			p.T.Fatalf("%s: %v", m.Data, err)
		}
		p.Sent = append(p.Sent, v)
	}
}

// Read gives the talk a message of the model.
func (p *Peer) Read(text string) { p.message(providers.Message{Data: []byte(text)}) }

// ReadBinary gives it one that is no text.
func (p *Peer) ReadBinary(b []byte) { p.message(providers.Message{Binary: true, Data: b}) }

func (p *Peer) message(m providers.Message) {
	p.Talk.Decode(m, func(cmd *agent.Command) {
		c := *cmd
		c.Audio = append([]byte(nil), c.Audio...)
		p.Audio = append(p.Audio, c.Audio...)
		p.Commands = append(p.Commands, c)
	})
}

// Event tells the talk of an event. All audio so far came before a clear.
func (p *Peer) Event(ev agent.Event) {
	p.T.Helper()
	if _, speaks := p.Talk.Formats(); ev.Kind == agent.EventCleared {
		ev.Sent = p.began + speaks.Duration(len(p.Audio))
	}
	var out providers.Messages
	if err := p.Talk.Encode(&out, &ev); err != nil {
		p.T.Fatal(err)
	}
	p.take(&out)
}

// Hears has the caller's audio told, up to a call time.
func (p *Peer) Hears(in, out time.Duration) {
	hears, _ := p.Talk.Formats()
	p.Event(agent.Event{Kind: agent.EventAudio, In: in, Out: out,
		Audio: hears.Encoding.AppendSilence(nil, hears.FrameBytes())})
}

// Take returns what the model was told since, without the caller's audio, and what was wanted of the bridge.
func (p *Peer) Take() (sent []map[string]any, commands []agent.Command) {
	sent, commands = p.Sent, p.Commands
	p.Sent, p.Commands = nil, nil
	return sent, commands
}

// Do implements agent.Beside.
func (p *Peer) Do(cmd *agent.Command) { p.Commands = append(p.Commands, *cmd) }

// Reply implements agent.Beside.
func (p *Peer) Reply(add func(*providers.Messages) error) {
	p.Event(agent.Event{Kind: agent.EventReply, Reply: add})
}

// Said implements agent.Beside.
func (p *Peer) Said(l calls.Line) { p.Lines = append(p.Lines, l) }

// Used implements agent.Beside.
func (p *Peer) Used(u calls.Usage) { p.Usage.Add(u) }

// Renew implements agent.Beside.
func (p *Peer) Renew(still func() bool) { p.Renewals, p.Still = p.Renewals+1, still }

// Keep implements agent.Beside.
func (p *Peer) Keep(state any) { p.Kept = state }

// Trouble implements agent.Beside.
func (p *Peer) Trouble(code, message string) { p.Troubles = append(p.Troubles, code+": "+message) }

// Fixture returns a message of testdata/fixtures.
func Fixture(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "fixtures", name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// JSON writes a value, or an object that is JSON already, with sorted names, to be compared.
func JSON(t testing.TB, v any) string {
	t.Helper()
	if text, is := v.(string); is && strings.HasPrefix(text, "{") {
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if m, is := v.(map[string]any); is {
			if _, own := m["event_id"].(string); own { // theirs to choose
				delete(m, "event_id")
			}
		}
	}
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// PCMU is what most carriers have.
var PCMU = codec.Format{Encoding: codec.PCMU, Rate: 8000}

// Tools are those that the tests use: the bridge's own, with billing as the only destination.
func Tools(t testing.TB) *tools.Set {
	t.Helper()
	s, err := tools.New(tools.Config{EndCall: true, SendDigits: true,
		Destinations: map[string]calls.TransferRequest{"billing": {To: "name:billing"}}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Protocol makes that of a dialect, with its own options.
func Protocol[T any](t testing.TB, d *agent.Dialect, own T) agent.Protocol {
	t.Helper()
	p, err := d.New(agent.Options{Tools: Tools(t), Decode: func(c any) error { *c.(*T) = own; return nil }})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Fuzz gives a talk whatever there is, beginning with the fixtures: it must go on.
func Fuzz(f *testing.F, begun func(testing.TB) *Peer) {
	dir, err := os.ReadDir(filepath.Join("testdata", "fixtures"))
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range dir {
		f.Add(Fixture(f, file.Name()), strings.HasSuffix(file.Name(), ".hex"))
	}
	f.Fuzz(func(t *testing.T, text string, binary bool) {
		peer := begun(t)
		for range 2 {
			if binary {
				peer.ReadBinary([]byte(text))
			} else {
				peer.Read(text)
			}
			_, speaks := peer.Talk.Formats()
			said := speaks.Duration(len(peer.Audio))
			for _, heard := range []time.Duration{0, said / 2, said} {
				peer.Event(agent.Event{Kind: agent.EventCleared, Out: heard})
			}
		}
		for i, cmd := range peer.Commands {
			if cmd.Kind == agent.CommandAudio && len(cmd.Audio) == 0 {
				t.Errorf("command %d has no audio", i)
			}
		}
		peer.Event(agent.Event{Kind: agent.EventStop})
		if len(peer.Sent) > 100 {
			t.Errorf("one message has it say %d", len(peer.Sent))
		}
	})
}
