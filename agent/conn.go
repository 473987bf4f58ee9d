package agent

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"voicebridge/codec"
	"voicebridge/session"
	"voicebridge/ws"
)

// Limits of what an agent may say.
const (
	maxCommands = 50 // a second, and in a row
	maxBadJSON  = 20 // in a row
	maxID       = 64
	maxName     = 128
	keptIDs     = 64  // a command whose id is among the last ones is a repetition
	minReport   = 100 // ms
	maxReport   = 3600000
	minTone     = 40 // ms: shorter ones are not told by all exchanges (ITU-T Q.24)
	maxTone     = 2000
)

// Conn is the connection to an agent for one call; it implements session.Agent.
type Conn struct {
	ws       *ws.Conn
	json     bool
	ping     time.Duration
	alive    *time.Timer // runs keepalive
	awaiting atomic.Bool // ready is, and may choose the rates

	mu sync.Mutex // guards what follows, and that alive is not set anew after done
	// hears and speaks change only while ready is awaited.
	hears, speaks codec.Format
	dead          bool // the agent does not answer pings
	done          bool

	// Owned by Send.
	seq uint64
	out []byte

	// Owned by who reads.
	handler  session.AgentHandler
	cmd      session.AgentCommand
	pcm      []byte
	bad      int
	ids      []string
	commands *rate.Limiter
	limited  time.Time // when the agent was last told that it sends too much
}

func newConn(conn *ws.Conn, hears, speaks codec.Format, ping time.Duration) *Conn {
	c := &Conn{
		ws: conn, ping: ping, hears: hears, speaks: speaks,
		commands: rate.NewLimiter(maxCommands, maxCommands),
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.alive = time.AfterFunc(c.ping, c.keepalive)
	return c
}

// keepalive pings, and ends a connection from which nothing comes back.
func (c *Conn) keepalive() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done {
		return
	}
	if c.ws.Quiet() > 2*c.ping {
		c.dead = true
		c.ws.Close(ws.ClosePolicy, "no answer to pings")
		return
	}
	_ = c.ws.Ping() // a failure shows in Quiet, or in Receive
	c.alive.Reset(c.ping)
}

// Formats implements session.Agent.
func (c *Conn) Formats() (hears, speaks codec.Format) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hears, c.speaks
}

// awaitReady waits for the agent's ready, and discards what comes before. When
// the time is over the connection ends.
func (c *Conn) awaitReady(limit time.Duration) error {
	late := time.AfterFunc(limit, func() { c.ws.Close(ws.CloseNotReady, "no ready in time") })
	defer late.Stop()
	for {
		if err := c.receive(); err != nil {
			return err
		}
		if c.cmd.Kind == session.CommandReady {
			if !late.Stop() {
				return fmt.Errorf("agent: no ready within %v", limit)
			}
			c.awaiting.Store(false)
			return nil
		}
	}
}

// Release implements session.Agent.
func (c *Conn) Release() {
	c.mu.Lock()
	c.done = true
	c.alive.Stop()
	c.mu.Unlock()
	c.ws.Release()
}

// Close implements session.Agent.
func (c *Conn) Close(cause session.Cause) {
	code := ws.CloseNormal
	switch cause {
	case session.AgentTimeout:
		code = ws.ClosePolicy
	case session.AgentProtocol:
		code = ws.CloseProtocol
	}
	c.ws.Close(code, string(cause))
}

// receive waits for the next command, before Serve.
func (c *Conn) receive() error {
	for {
		binary, data, err := c.ws.Read()
		if err != nil {
			return c.lost(err)
		}
		if c.understand(binary, data) {
			return nil
		}
	}
}

// understand reads a message into c.cmd. It is false where there is nothing to do.
func (c *Conn) understand(binary bool, data []byte) bool {
	c.cmd = session.AgentCommand{}
	if binary {
		c.cmd.Kind, c.cmd.Audio = session.CommandAudio, data
		return true
	}
	return c.command(data, &c.cmd)
}

// Serve implements session.Agent.
func (c *Conn) Serve(loop *ws.Loop, h session.AgentHandler) {
	c.handler = h
	c.ws.Serve(loop, served{c})
}

// served is the agent's end of the connection.
type served struct{ *Conn }

// Message implements ws.Handler.
func (c served) Message(binary bool, data []byte) {
	if c.understand(binary, data) {
		c.handler.Command(&c.cmd)
	}
}

// Writable implements ws.Handler.
func (c served) Writable() { c.handler.Writable() }

// Closed implements ws.Handler.
func (c served) Closed(err error) { c.handler.Gone(c.lost(err)) }

// lost says how the connection ended.
func (c *Conn) lost(err error) error {
	cause := session.AgentLost
	switch code := ws.CloseCode(err); {
	case code == ws.CloseNormal || code == ws.CloseGoingAway || code == 1005:
		cause = session.AgentHangup
	case errors.Is(err, ws.ErrSlow):
		cause = session.AgentTimeout
	case code == 0 && !ws.IsTimeout(err):
		cause = session.AgentProtocol
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		return &session.AgentError{Cause: session.AgentLost, Err: errors.New("agent: no answer to pings")}
	}
	return &session.AgentError{Cause: cause, Err: fmt.Errorf("agent: %w", err)}
}

// envelope is what every text message has.
type envelope struct {
	Type string          `json:"type"`
	ID   json.RawMessage `json:"id"`
}

// request has the fields of the commands that are known.
type request struct {
	Type       string `json:"type"`
	ID         string `json:"id"`
	Audio      string `json:"audio"`
	Name       string `json:"name"`
	Ref        string `json:"ref"`
	When       string `json:"when"`
	InputRate  int    `json:"input_rate"`
	OutputRate int    `json:"output_rate"`
	BargeIn    string `json:"barge_in"`
	Digits     string `json:"digits"`
	ToneMS     *int64 `json:"duration_ms"`
	GapMS      *int64 `json:"gap_ms"`
	Speech     bool   `json:"speech"`
	ReportMS   *int64 `json:"report_ms"`
}

// maxContext bounds what a transfer hands on, in bytes as JSON.
const maxContext = 4 << 10

// known are the types that are read further.
var known = []string{"mark", "clear", "interrupt", "pause", "unpause", "hangup", "cancel", "ready", "ping", "dtmf", "transfer", "audio"}

// command reads a text message. False means that there is nothing to do.
func (c *Conn) command(data []byte, cmd *session.AgentCommand) bool {
	var env envelope
	err := json.Unmarshal(data, &env)
	if err == nil && env.Type == "audio" && c.json {
		var r request
		if json.Unmarshal(data, &r) != nil {
			return fault(cmd, "", "bad_field", "audio must be a string")
		}
		return c.audio(&r, cmd)
	}
	if !c.commands.Allow() {
		if time.Since(c.limited) < time.Second {
			return false
		}
		c.limited = time.Now()
		return fault(cmd, "", "rate_limited", fmt.Sprintf("more than %d commands a second: some were ignored", maxCommands))
	}
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.As(err, &wrong) && wrong.Field != "":
		return fault(cmd, "", "bad_field", "type must be a string")
	case err != nil || string(data) == "null":
		c.bad++
		cmd.Fatal = c.bad >= maxBadJSON
		return fault(cmd, "", "bad_json", "not a JSON object")
	}
	c.bad = 0
	switch {
	case env.Type == "pong":
		return false
	case env.Type == "":
		return fault(cmd, "", "bad_field", "type is missing")
	case !slices.Contains(known, env.Type):
		cmd.Kind, cmd.Name = session.CommandUnknown, clip(env.Type)
		return true
	}
	var r request
	if err := json.Unmarshal(data, &r); err != nil {
		field := "a field"
		if errors.As(err, &wrong) && wrong.Field != "" {
			field = wrong.Field
		}
		return fault(cmd, r.ID, "bad_field", field+" is of the wrong type")
	}
	if len(r.ID) > maxID {
		return fault(cmd, "", "bad_field", fmt.Sprintf("id is longer than %d bytes", maxID))
	}
	if r.ID != "" && slices.Contains(c.ids, r.ID) {
		return false
	}
	cmd.ID = r.ID
	some := c.typed(&r, data, cmd)
	if r.ID != "" && cmd.Kind != session.CommandFault { // one that was refused may come again, mended
		if len(c.ids) == keptIDs {
			c.ids = c.ids[:copy(c.ids, c.ids[1:])]
		}
		c.ids = append(c.ids, r.ID)
	}
	return some
}

func (c *Conn) typed(r *request, data []byte, cmd *session.AgentCommand) bool {
	switch r.Type {
	case "mark":
		if r.Name == "" || len(r.Name) > maxName {
			return fault(cmd, r.ID, "bad_field", fmt.Sprintf("name must have 1 to %d bytes", maxName))
		}
		cmd.Kind, cmd.Name = session.CommandMark, r.Name
	case "clear", "interrupt":
		cmd.Kind = session.CommandClear
	case "pause":
		cmd.Kind = session.CommandPause
	case "unpause":
		cmd.Kind = session.CommandUnpause
	case "hangup", "dtmf":
		if r.When != "" && r.When != "now" && r.When != "after_playback" {
			return fault(cmd, r.ID, "bad_field", "when must be now or after_playback")
		}
		cmd.Kind, cmd.Now = session.CommandHangup, r.When == "now"
		if r.Type == "dtmf" {
			return digits(r, cmd)
		}
	case "cancel":
		if r.Ref == "" {
			return fault(cmd, r.ID, "bad_field", "ref must be the id of the command to withdraw")
		}
		cmd.Kind, cmd.Ref = session.CommandCancel, r.Ref
	case "ready":
		return c.ready(r, cmd)
	case "ping":
		cmd.Kind = session.CommandPing
	case "transfer":
		return transfer(r, data, cmd)
	default:
		return fault(cmd, r.ID, "unsupported", r.Type+" is not supported here")
	}
	return true
}

// transfer reads a transfer command. What it wants is checked by who carries it out.
func transfer(r *request, data []byte, cmd *session.AgentCommand) bool {
	var t session.Transfer
	err := json.Unmarshal(data, &t)
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.As(err, &wrong) && wrong.Field != "":
		return fault(cmd, r.ID, "bad_field", wrong.Field+" is of the wrong type")
	case err != nil:
		return fault(cmd, r.ID, "bad_field", "on_fail must be resume, hangup or a number, or an object of these by reason")
	case r.When != "" && r.When != "now" && r.When != "after_playback":
		return fault(cmd, r.ID, "bad_field", "when must be now or after_playback")
	}
	if b, err := json.Marshal(t.Context); err != nil || len(b) > maxContext {
		return fault(cmd, r.ID, "bad_field", fmt.Sprintf("context must have at most %d bytes", maxContext))
	}
	cmd.Kind, cmd.Transfer, cmd.Now = session.CommandTransfer, &t, r.When == "now"
	return true
}

// digits reads a dtmf command.
func digits(r *request, cmd *session.AgentCommand) bool {
	cmd.Kind, cmd.Digits = session.CommandDigits, r.Digits
	cmd.Tone, cmd.Gap = session.DefaultTone, session.DefaultToneGap
	for _, f := range []struct {
		ms *int64
		d  *time.Duration
	}{{r.ToneMS, &cmd.Tone}, {r.GapMS, &cmd.Gap}} {
		if f.ms == nil {
			continue
		}
		if *f.ms < minTone || *f.ms > maxTone {
			return fault(cmd, r.ID, "bad_field", fmt.Sprintf("duration_ms and gap_ms must be %d to %d", minTone, maxTone))
		}
		*f.d = time.Duration(*f.ms) * time.Millisecond
	}
	if !session.ValidDigits(r.Digits) {
		return fault(cmd, r.ID, "bad_field", "digits must be 1 to 64 of 0-9 * # A-D w W")
	}
	return true
}

func (c *Conn) ready(r *request, cmd *session.AgentCommand) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	hears, speaks := c.hears, c.speaks
	if r.InputRate != 0 {
		hears.Rate = r.InputRate
	}
	if r.OutputRate != 0 {
		speaks.Rate = r.OutputRate
	}
	switch {
	case (hears != c.hears || speaks != c.speaks) && !c.awaiting.Load():
		return fault(cmd, r.ID, "unsupported", "ready chooses the rates only where it is awaited: use in_rate and out_rate in the URL")
	case !hears.Valid() || !speaks.Valid():
		return fault(cmd, r.ID, "bad_field", fmt.Sprintf("the rates must be one of %v", codec.Rates))
	case r.BargeIn != "" && r.BargeIn != "agent":
		return fault(cmd, r.ID, "unsupported", "barge_in must be agent")
	case r.Speech:
		return fault(cmd, r.ID, "unsupported", "speech detection is not supported")
	}
	cmd.Kind, cmd.Every = session.CommandReady, -1
	if r.ReportMS != nil {
		n := *r.ReportMS
		if n != 0 && (n < minReport || n > maxReport) {
			return fault(cmd, r.ID, "bad_field", fmt.Sprintf("report_ms must be 0, or %d to %d", minReport, maxReport))
		}
		cmd.Every = time.Duration(n) * time.Millisecond
	}
	c.hears, c.speaks = hears, speaks
	return true
}

// audio is a message of the JSON profile.
func (c *Conn) audio(r *request, cmd *session.AgentCommand) bool {
	var err error
	c.pcm, err = base64.StdEncoding.AppendDecode(c.pcm[:0], []byte(r.Audio))
	if err != nil {
		return fault(cmd, r.ID, "bad_field", "audio is not base64")
	}
	cmd.Kind, cmd.Audio = session.CommandAudio, c.pcm
	return true
}

func fault(cmd *session.AgentCommand, ref, code, message string) bool {
	*cmd = session.AgentCommand{Kind: session.CommandFault, ID: clip(ref), Code: code, Message: message, Fatal: cmd.Fatal}
	return true
}

func clip(s string) string { return s[:min(len(s), maxID)] }
