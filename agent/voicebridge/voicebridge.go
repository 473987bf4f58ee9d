// Package voicebridge is the bridge's own dialect, voicebridge.v1: raw audio as binary
// messages, and JSON for all else. docs/agent-protocol.md is the reference.
package voicebridge

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"voicebridge/agent"
	"voicebridge/codec"
)

// Name is the dialect's, and its WebSocket subprotocol.
const Name = "voicebridge.v1"

// Dialect describes it.
var Dialect = &agent.Dialect{Name: Name, Title: "voicebridge.v1", Subprotocols: []string{Name}, Samples: true,
	Can: agent.Features{Formats: "16-bit PCM at 8, 16, 24 or 48 kHz, or G.711, untouched",
		Marks: "positions, and how sure they are", Hangup: true, Words: true, Digits: true, Transfers: true,
		Incoming: true},
	New: newProtocol}

// Limits of what an agent may send, in bytes.
const (
	MaxText  = 64 << 10
	MaxAudio = 1 << 20 // of a text message, where audio travels in JSON
)

// piece is about how much of a binary message is taken at once: half a second at 16 kHz.
const piece = 16 << 10

// options are the dialect's own.
type options struct {
	Encoding string `yaml:"encoding"`
}

// encodings are the encodings of audio, by the names that agents are told.
var encodings = map[string]codec.Encoding{"pcm_s16le": codec.L16LE, "pcmu": codec.PCMU, "pcma": codec.PCMA}

// protocol is that of one configured agent.
type protocol struct {
	input, output int // Hz; 0: not configured
	incoming      bool
	encoding      string
}

func newProtocol(o agent.Options) (agent.Protocol, error) {
	own := options{Encoding: "pcm_s16le"}
	if o.Decode != nil {
		if err := o.Decode(&own); err != nil {
			return nil, err
		}
	}
	if _, known := encodings[own.Encoding]; !known {
		return nil, fmt.Errorf("options.encoding: %q must be pcm_s16le, pcmu or pcma", own.Encoding)
	}
	return &protocol{o.InputRate, o.OutputRate, o.Incoming, own.Encoding}, nil
}

// Formats implements agent.Protocol: the query of the URL may choose in_rate, out_rate,
// encoding and audio.
func (p *protocol) Formats(u *url.URL) (hears, speaks codec.Format, err error) {
	q := u.Query()
	if a := q.Get("audio"); a != "" && a != "binary" && a != "json" {
		return hears, speaks, fmt.Errorf("url: audio=%s must be binary or json", a)
	}
	name := p.encoding
	if e := q.Get("encoding"); e != "" {
		name = e
	}
	encoding, known := encodings[name]
	if !known {
		return hears, speaks, fmt.Errorf("url: encoding=%.40s must be pcm_s16le, pcmu or pcma", name)
	}
	if hears, err = p.format(encoding, "in_rate", "input_rate", q, p.input); err == nil {
		speaks, err = p.format(encoding, "out_rate", "output_rate", q, p.output)
	}
	return hears, speaks, err
}

// format reads one direction's rate: from the configuration or from the query,
// whichever counts more.
func (p *protocol) format(e codec.Encoding, query, field string, q url.Values, rate int) (codec.Format, error) {
	if asked := q.Get(query); asked != "" && (rate == 0 || p.incoming) {
		n, err := strconv.Atoi(asked)
		if err != nil {
			return codec.Format{}, fmt.Errorf("url: %s=%s is not a number", query, asked)
		}
		field, rate = "url: "+query, n
	}
	f := codec.Format{Encoding: e, Rate: rate}
	if rate == 0 {
		f.Rate = agent.DefaultRate
		if e != codec.L16LE { // G.711 is 8 kHz
			f.Rate = 8000
		}
	}
	if !slices.Contains(codec.Rates, f.Rate) {
		return f, fmt.Errorf("%s: %d must be one of %v", field, f.Rate, codec.Rates)
	}
	return f, nil
}

// Limits implements agent.Protocol.
func (p *protocol) Limits(u *url.URL) (text, binary int64) {
	if inJSON(u) {
		return MaxAudio, piece
	}
	return MaxText, piece
}

// inJSON reports whether audio travels as base64 in JSON.
func inJSON(u *url.URL) bool { return u.Query().Get("audio") == "json" }

// NewTalk implements agent.Protocol.
func (p *protocol) NewTalk(u *url.URL) agent.Talk {
	t := &talk{json: inJSON(u), commands: rate.NewLimiter(maxCommands, maxCommands),
		flood: rate.NewLimiter(floodRate, floodBurst)}
	t.hears, t.speaks, _ = p.Formats(u) // checked before
	return t
}

// talk is what is said in one call. It implements agent.Talk and agent.Waiter.
type talk struct {
	json   bool // audio travels in JSON
	beside agent.Beside

	mu            sync.Mutex // guards what follows
	hears, speaks codec.Format
	awaiting      bool // the agent has to say that it is ready, and may choose the rates
	ready         bool // it has

	// Owned by whoever sends.
	seq uint64

	// Owned by whoever reads.
	cmd      agent.Command
	pcm      []byte
	bad      int // messages in a row that were no JSON
	ids      []string
	commands *rate.Limiter
	flood    *rate.Limiter // of those beyond
	headed   bool          // the header of a WAV file has been complained of
	limited  time.Time     // when the agent was last told that it sends too much
}

// Formats implements agent.Talk.
func (t *talk) Formats() (hears, speaks codec.Format) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.hears, t.speaks
}

// Ready implements agent.Talk.
func (t *talk) Ready() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ready
}
