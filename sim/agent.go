package sim

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"voicebridge/agent/link"
	"voicebridge/agent/voicebridge"
	"voicebridge/codec"
	"voicebridge/sim/ear"
	"voicebridge/wav"
	"voicebridge/ws"
)

// AgentConn is the agent's end of a call.
type AgentConn struct {
	Session       string
	Start         json.RawMessage // the start message as it came
	Hears, Speaks codec.Format
	conn          *ws.Conn
}

// Agent is a reference agent: an http.Handler that answers the bridge.
type Agent struct {
	// Talk is the agent's part of a call: it must read until Read fails.
	Talk   func(ctx context.Context, c *AgentConn) error
	Log    *slog.Logger
	Bearer string // if not empty, what the bridge must show
	Secret string // if not empty, what the bridge must have signed with
	live   sync.WaitGroup
}

// Wait returns once no call is live.
func (a *Agent) Wait() { a.live.Wait() }

// ServeHTTP takes one call.
func (a *Agent) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := r.Header.Get("Voicebridge-Session")
	if a.Bearer != "" && r.Header.Get("Authorization") != "Bearer "+a.Bearer {
		a.refuse(w, "wrong or missing bearer token")
		return
	}
	if a.Secret != "" {
		if err := link.VerifySignature(a.Secret, r.Header.Get("Voicebridge-Signature"), time.Now(), id,
			r.URL.RequestURI()); err != nil {
			a.refuse(w, err.Error())
			return
		}
	}
	a.live.Add(1)
	defer a.live.Done()
	conn, err := ws.Accept(w, r, []string{voicebridge.Name},
		ws.Limits{Text: voicebridge.MaxText, Binary: voicebridge.MaxAudio, Write: link.DefaultWrite})
	if err != nil {
		a.Log.Warn("handshake", "err", err)
		return
	}
	c := &AgentConn{Session: id, conn: conn}
	if err = c.begin(); err == nil {
		a.Log.Info("call", "session", id, "hears", c.Hears, "speaks", c.Speaks)
		err = a.Talk(r.Context(), c)
	}
	conn.Close(ws.CloseNormal, "")
	for e := error(nil); e == nil; {
		_, _, e = conn.Read()
	}
	conn.Release()
	a.Log.Info("call over", "session", id, "err", err)
}

func (a *Agent) refuse(w http.ResponseWriter, why string) {
	a.Log.Warn("call refused", "why", why)
	http.Error(w, why, http.StatusUnauthorized)
}

// begin reads the start message.
func (c *AgentConn) begin() error {
	binary, data, err := c.conn.Read()
	if err != nil {
		return err
	}
	var start struct {
		Type  string
		Audio struct {
			Input, Output struct {
				Rate int `json:"sample_rate"`
			}
		}
	}
	if binary || json.Unmarshal(data, &start) != nil || start.Type != "start" {
		return fmt.Errorf("simulated carrier: agent: the first message is not a start: %.100q", data)
	}
	c.Start = append(c.Start, data...)
	c.Hears = codec.Format{Encoding: codec.L16LE, Rate: start.Audio.Input.Rate}
	c.Speaks = codec.Format{Encoding: codec.L16LE, Rate: start.Audio.Output.Rate}
	if !c.Hears.Valid() || !c.Speaks.Valid() {
		return fmt.Errorf("simulated carrier: agent: unknown rates: %s", data)
	}
	return nil
}

// Read returns the next message; data is valid until the next call.
func (c *AgentConn) Read() (binary bool, data []byte, err error) { return c.conn.Read() }

// Audio speaks.
func (c *AgentConn) Audio(pcm []byte) error { return c.conn.Write(true, pcm) }

// Break ends the connection as one that is lost.
func (c *AgentConn) Break() { c.conn.Close(ws.CloseInternal, "") }

// Command sends a JSON message.
func (c *AgentConn) Command(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("simulated carrier: agent: %w", err)
	}
	return c.conn.Write(false, b)
}

// Echo says what it hears.
func Echo(_ context.Context, c *AgentConn) error {
	tc := codec.NewTranscoder(c.Hears, c.Speaks)
	var out []byte
	for {
		binary, data, err := c.Read()
		if err != nil {
			return nil
		}
		if binary {
			out = tc.Append(out[:0], data)
			if err := c.Audio(out); err != nil {
				return err
			}
		}
	}
}

// Tone returns an agent that plays a tone of the given frequency and length,
// sent at once, and then hangs up.
func Tone(hz float64, length time.Duration) func(context.Context, *AgentConn) error {
	return func(_ context.Context, c *AgentConn) error {
		pcm := codec.L16LE.AppendEncode(nil, ear.Sine(c.Speaks.Rate, hz, length))
		for len(pcm) > 0 {
			n := min(len(pcm), voicebridge.MaxAudio)
			if err := c.Audio(pcm[:n]); err != nil {
				return err
			}
			pcm = pcm[n:]
		}
		if err := c.Command(map[string]string{"type": "hangup"}); err != nil {
			return err
		}
		return listen(c, func([]byte) {}, func([]byte) {})
	}
}

// unsafeName is what must not become part of a file's name.
var unsafeName = regexp.MustCompile(`[^A-Za-z0-9_-]`)

// Record returns an agent that writes what it hears to DIR/SESSION.wav and gives
// the bridge's JSON messages to said.
func Record(dir string, said func(session string, message []byte)) func(context.Context, *AgentConn) error {
	return func(_ context.Context, c *AgentConn) error {
		var pcm []byte
		said(c.Session, c.Start)
		err := listen(c, func(b []byte) { pcm = append(pcm, b...) }, func(b []byte) { said(c.Session, b) })
		name := filepath.Join(dir, unsafeName.ReplaceAllString(c.Session, "_")+".wav")
		if e := wav.Write(name, c.Hears.Encoding.AppendDecode(nil, pcm), c.Hears.Rate); e != nil {
			return e
		}
		return err
	}
}

// listen reads until the call is over.
func listen(c *AgentConn, audio, text func([]byte)) error {
	for {
		binary, data, err := c.Read()
		switch {
		case err != nil:
			return nil
		case binary:
			audio(data)
		default:
			text(data)
		}
	}
}
