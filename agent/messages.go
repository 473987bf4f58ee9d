package agent

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	"voicebridge/session"
	"voicebridge/ws"
)

// header is what every JSON message to an agent has. Times are milliseconds.
type header struct {
	Type string `json:"type"`
	Seq  uint64 `json:"seq"`
	TS   int64  `json:"ts"`
	In   int64  `json:"in_ms"`
	Out  int64  `json:"out_ms"`
}

type startMessage struct {
	header
	Protocol     string       `json:"protocol"`
	SessionID    string       `json:"session_id"`
	Call         callInfo     `json:"call"`
	Audio        audioInfo    `json:"audio"`
	Capabilities capabilities `json:"capabilities"`
	AwaitReady   bool         `json:"await_ready"`
	BargeIn      string       `json:"barge_in"`
}

type callInfo struct {
	ID        string            `json:"id,omitempty"`
	Carrier   string            `json:"carrier"`
	Direction string            `json:"direction,omitempty"`
	From      string            `json:"from,omitempty"`
	To        string            `json:"to,omitempty"`
	Account   string            `json:"account,omitempty"`
	Stream    string            `json:"stream,omitempty"`
	Codec     string            `json:"codec"`
	Custom    map[string]string `json:"custom,omitempty"`
	Answered  string            `json:"answered_by,omitempty"`
	Returned  string            `json:"returned,omitempty"`
}

type audioInfo struct {
	Encoding string   `json:"encoding"`
	Channels int      `json:"channels"`
	Input    rateInfo `json:"input"`
	Output   rateInfo `json:"output"`
	FrameMS  int      `json:"frame_ms"`
}

type rateInfo struct {
	SampleRate int `json:"sample_rate"`
}

type capabilities struct {
	Clear    string   `json:"clear"`
	Mark     string   `json:"mark"`
	DTMFIn   bool     `json:"dtmf_in"`
	DTMFOut  string   `json:"dtmf_out"`
	Transfer []string `json:"transfer"`
}

// eventMessage is any other JSON message.
type eventMessage struct {
	header
	Digit       string `json:"digit,omitempty"`
	DurationMS  *int64 `json:"duration_ms,omitempty"`
	Name        string `json:"name,omitempty"`
	Status      string `json:"status,omitempty"`
	State       string `json:"state,omitempty"`
	Cause       string `json:"cause,omitempty"`
	Reason      string `json:"reason,omitempty"`
	DiscardedMS *int64 `json:"discarded_ms,omitempty"`
	SentMS      *int64 `json:"sent_ms,omitempty"`
	QueuedMS    *int64 `json:"queued_ms,omitempty"`
	CarrierMS   *int64 `json:"carrier_ms,omitempty"`
	MS          *int64 `json:"ms,omitempty"`
	Code        string `json:"code,omitempty"`
	Message     string `json:"message,omitempty"`
	Fatal       *bool  `json:"fatal,omitempty"`
	Ref         string `json:"ref,omitempty"`
	AnsweredBy  string `json:"answered_by,omitempty"`
	ID          string `json:"id,omitempty"`
	Transfer    string `json:"transfer,omitempty"`
}

// start introduces the call.
func (c *Conn) start(call *session.Call) error {
	return c.text(c.introduction(call))
}

func (c *Conn) introduction(call *session.Call) startMessage {
	hears, speaks := c.Formats()
	return startMessage{
		header:    c.header("start", 0, 0),
		Protocol:  Protocol,
		SessionID: call.Session,
		Call:      information(call),
		Audio: audioInfo{
			Encoding: "pcm_s16le", Channels: 1, FrameMS: 20,
			Input: rateInfo{hears.Rate}, Output: rateInfo{speaks.Rate},
		},
		Capabilities: abilities(call),
		AwaitReady:   c.awaiting.Load(),
		BargeIn:      "agent",
	}
}

func information(call *session.Call) callInfo {
	return callInfo{
		ID: call.Start.Call, Carrier: call.Carrier, Account: call.Start.Account,
		Direction: call.Known.Direction, From: call.Known.From, To: call.Known.To,
		Stream: call.Start.Stream, Codec: call.Start.In.String(), Custom: call.Start.Params,
		Answered: string(call.Known.AnsweredBy), Returned: call.Known.Returned,
	}
}

func abilities(call *session.Call) capabilities {
	a := call.Abilities
	c := capabilities{Clear: "paced", Mark: "estimated", DTMFIn: a.Digits, DTMFOut: "inband", Transfer: append([]string{}, call.Transfers...)}
	if call.NativeDigits {
		c.DTMFOut = "native"
	}
	if a.Clear {
		c.Clear = "native"
	}
	if a.Marks {
		c.Mark = "native"
	}
	return c
}

func (c *Conn) header(kind string, in, out time.Duration) header {
	c.seq++
	return header{Type: kind, Seq: c.seq, TS: time.Now().UnixMilli(), In: in.Milliseconds(), Out: out.Milliseconds()}
}

// Send implements session.Agent.
func (c *Conn) Send(ev *session.AgentEvent) (more bool, err error) {
	switch {
	case ev.Kind != session.AgentAudio:
		b, err := json.Marshal(c.message(ev))
		if err != nil {
			return false, fmt.Errorf("agent: encode: %w", err)
		}
		more, err = c.ws.Put(false, b)
		return more, sendError(err)
	case !c.json:
		more, err = c.ws.Put(true, ev.Audio)
		return more, sendError(err)
	}
	c.out = append(c.out[:0], `{"type":"audio","audio":"`...)
	c.out = base64.StdEncoding.AppendEncode(c.out, ev.Audio)
	c.out = append(c.out, `"}`...)
	more, err = c.ws.Put(false, c.out)
	return more, sendError(err)
}

// text sends a message before Serve.
func (c *Conn) text(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("agent: encode: %w", err)
	}
	return sendError(c.ws.Write(false, b))
}

func sendError(err error) error {
	if err == nil {
		return nil
	}
	cause := session.AgentLost
	if ws.IsTimeout(err) {
		cause = session.AgentTimeout
	}
	return &session.AgentError{Cause: cause, Err: fmt.Errorf("agent: %w", err)}
}

func millis(d time.Duration) *int64 {
	n := d.Milliseconds()
	return &n
}

// eventTypes are the wire names of the events.
var eventTypes = map[session.AgentEventKind]string{
	session.AgentDigit:      "dtmf",
	session.AgentMark:       "mark",
	session.AgentCleared:    "cleared",
	session.AgentPlayback:   "playback",
	session.AgentBuffer:     "buffer",
	session.AgentGap:        "gap",
	session.AgentAck:        "ack",
	session.AgentFault:      "error",
	session.AgentPong:       "pong",
	session.AgentStop:       "stop",
	session.AgentAnsweredBy: "call",
	session.AgentHeld:       "call",
	session.AgentTransfer:   "transfer_status",
}

func (c *Conn) message(ev *session.AgentEvent) eventMessage {
	m := eventMessage{header: c.header(eventTypes[ev.Kind], ev.In, ev.Out)}
	switch ev.Kind {
	case session.AgentDigit:
		m.Digit = string(ev.Digit)
		if ev.Duration > 0 {
			m.DurationMS = millis(ev.Duration)
		}
	case session.AgentMark:
		m.Name, m.Status = ev.Name, ev.State
	case session.AgentCleared:
		m.Cause, m.Ref, m.DiscardedMS, m.SentMS = ev.Cause, ev.Ref, millis(ev.Discarded), millis(ev.Sent)
	case session.AgentPlayback:
		m.State = ev.State
	case session.AgentBuffer:
		m.State, m.QueuedMS, m.CarrierMS = ev.State, millis(ev.Queued), millis(ev.Carrier)
	case session.AgentGap:
		m.MS, m.Cause = millis(ev.Duration), ev.Cause
	case session.AgentAck:
		m.Ref = ev.Ref
	case session.AgentFault:
		m.Code, m.Message, m.Ref, m.Fatal = ev.Code, ev.Message, ev.Ref, &ev.Fatal
	case session.AgentPong:
		m.ID = ev.Ref
	case session.AgentAnsweredBy:
		m.AnsweredBy = ev.State
	case session.AgentHeld:
		m.State = ev.State
	case session.AgentTransfer:
		m.Ref, m.Transfer, m.State, m.Reason = ev.Ref, ev.Name, ev.State, ev.Cause
	case session.AgentStop:
		m.Reason, m.DurationMS = ev.Cause, millis(ev.Duration)
	}
	return m
}
