package agent

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

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
)

// Conn is the connection to an agent for one call; it implements session.Agent.
type Conn struct {
	ws    *ws.Conn
	json  bool
	ping  time.Duration
	alive *time.Timer // runs keepalive
	// hears and speaks are the agent's sample rates.
	hears, speaks int

	mu   sync.Mutex // guards dead and done, and that alive is not set anew after done
	dead bool       // the agent does not answer pings
	done bool

	// Owned by Send.
	seq uint64
	out []byte

	// Owned by Receive.
	pcm      []byte
	bad      int
	ids      []string
	commands *rate.Limiter
	limited  time.Time // when the agent was last told that it sends too much
}

func newConn(conn *ws.Conn, d *Dialer) *Conn {
	c := &Conn{
		ws: conn, json: d.json, ping: d.cfg.Ping, hears: d.hears.Rate, speaks: d.speaks.Rate,
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

// Receive implements session.Agent.
func (c *Conn) Receive(cmd *session.AgentCommand) error {
	for {
		binary, data, err := c.ws.Read()
		if err != nil {
			return c.lost(err)
		}
		*cmd = session.AgentCommand{}
		if binary {
			cmd.Kind, cmd.Audio = session.CommandAudio, data
			return nil
		}
		if c.command(data, cmd) {
			return nil
		}
	}
}

// lost says how the connection ended.
func (c *Conn) lost(err error) error {
	cause := session.AgentLost
	switch code := ws.CloseCode(err); {
	case code == ws.CloseNormal || code == ws.CloseGoingAway || code == 1005:
		cause = session.AgentHangup
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
	Speech     bool   `json:"speech"`
	ReportMS   *int64 `json:"report_ms"`
}

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
	some := c.typed(&r, cmd)
	if r.ID != "" && cmd.Kind != session.CommandFault { // one that was refused may come again, mended
		if len(c.ids) == keptIDs {
			c.ids = c.ids[:copy(c.ids, c.ids[1:])]
		}
		c.ids = append(c.ids, r.ID)
	}
	return some
}

func (c *Conn) typed(r *request, cmd *session.AgentCommand) bool {
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
	case "hangup":
		if r.When != "" && r.When != "now" && r.When != "after_playback" {
			return fault(cmd, r.ID, "bad_field", "when must be now or after_playback")
		}
		cmd.Kind, cmd.Now = session.CommandHangup, r.When == "now"
	case "cancel":
		if r.Ref == "" {
			return fault(cmd, r.ID, "bad_field", "ref must be the id of the command to withdraw")
		}
		cmd.Kind, cmd.Ref = session.CommandCancel, r.Ref
	case "ready":
		return ready(r, cmd)
	case "ping":
		cmd.Kind = session.CommandPing
	default:
		return fault(cmd, r.ID, "unsupported", r.Type+" is not supported here")
	}
	return true
}

func ready(r *request, cmd *session.AgentCommand) bool {
	switch {
	case r.InputRate != 0 || r.OutputRate != 0:
		return fault(cmd, r.ID, "unsupported", "the rates are chosen in the agent's URL: in_rate and out_rate")
	case r.BargeIn != "" && r.BargeIn != "agent":
		return fault(cmd, r.ID, "unsupported", "barge_in must be agent")
	case r.Speech:
		return fault(cmd, r.ID, "unsupported", "speech detection is not supported")
	case r.ReportMS == nil:
		return false
	}
	if n := *r.ReportMS; n != 0 && (n < minReport || n > maxReport) {
		return fault(cmd, r.ID, "bad_field", fmt.Sprintf("report_ms must be 0, or %d to %d", minReport, maxReport))
	}
	cmd.Kind, cmd.Every = session.CommandReport, time.Duration(*r.ReportMS)*time.Millisecond
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
	cmd.Kind, cmd.ID, cmd.Code, cmd.Message = session.CommandFault, clip(ref), code, message
	return true
}

func clip(s string) string { return s[:min(len(s), maxID)] }
