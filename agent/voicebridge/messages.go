package voicebridge

import (
	"encoding/base64"
	"encoding/json"
	"time"

	"voicebridge/agent"
	"voicebridge/codec"
	"voicebridge/providers"
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
	Protocol     string         `json:"protocol"`
	SessionID    string         `json:"session_id"`
	Call         agent.CallInfo `json:"call"`
	Audio        audioInfo      `json:"audio"`
	Capabilities capabilities   `json:"capabilities"`
	AwaitReady   bool           `json:"await_ready"`
	BargeIn      string         `json:"barge_in"`
	Resume       *resumeInfo    `json:"resume,omitempty"`
}

// resumeInfo is where a talk goes on whose connection has broken. Its clocks are those of the header.
type resumeInfo struct {
	SentMS  int64             `json:"sent_ms"`
	From    *string           `json:"from,omitempty"`
	Context map[string]string `json:"context,omitempty"`
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
	AccuracyMS  *int64 `json:"accuracy_ms,omitempty"`
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

// Start implements agent.Talk.
func (t *talk) Start(out *providers.Messages, call *agent.Call, await bool) error {
	t.mu.Lock()
	t.awaiting, t.ready = await, false
	hears, speaks := t.hears, t.speaks
	t.mu.Unlock()
	var at agent.Resume
	var resume *resumeInfo
	if call.Resume != nil {
		at = *call.Resume
		resume = &resumeInfo{at.Sent.Milliseconds(), at.From, at.Context}
	}
	return addJSON(out, startMessage{
		header:    t.header("start", at.In, at.Out),
		Resume:    resume,
		Protocol:  Name,
		SessionID: call.Session,
		Call:      agent.Info(call),
		Audio: audioInfo{
			Encoding: nameOf(hears.Encoding), Channels: 1, FrameMS: int(codec.FrameTime / time.Millisecond),
			Input: rateInfo{hears.Rate}, Output: rateInfo{speaks.Rate},
		},
		Capabilities: abilities(call),
		AwaitReady:   await,
		BargeIn:      "agent",
	})
}

// nameOf returns the name of an encoding as agents are told it.
func nameOf(e codec.Encoding) string {
	for name, known := range encodings {
		if known == e {
			return name
		}
	}
	return e.String()
}

func abilities(call *agent.Call) capabilities {
	a := call.Abilities
	c := capabilities{Clear: "paced", Mark: "estimated", DTMFIn: a.Digits, DTMFOut: "inband",
		Transfer: append([]string{}, call.Transfers...)}
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

// Wait implements agent.Waiter.
func (t *talk) Wait(out *providers.Messages, pool string) error {
	return addJSON(out, struct {
		header
		Pool string `json:"pool"`
	}{t.header("waiting", 0, 0), pool})
}

func (t *talk) header(kind string, in, out time.Duration) header {
	t.seq++
	return header{Type: kind, Seq: t.seq, TS: time.Now().UnixMilli(), In: in.Milliseconds(), Out: out.Milliseconds()}
}

func addJSON(out *providers.Messages, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	m := out.Add(false)
	m.Data = append(m.Data, b...)
	return nil
}

// Encode implements agent.Talk.
func (t *talk) Encode(out *providers.Messages, ev *agent.Event) error {
	switch {
	case ev.Kind != agent.EventAudio:
		return addJSON(out, t.message(ev))
	case !t.json:
		m := out.Add(true)
		m.Data = append(m.Data, ev.Audio...)
	default:
		m := out.Add(false)
		m.Data = append(m.Data, `{"type":"audio","audio":"`...)
		m.Data = base64.StdEncoding.AppendEncode(m.Data, ev.Audio)
		m.Data = append(m.Data, `"}`...)
	}
	return nil
}

func millis(d time.Duration) *int64 {
	n := d.Milliseconds()
	return &n
}

// eventTypes are the wire names of the events.
var eventTypes = map[agent.EventKind]string{
	agent.EventDigit:      "dtmf",
	agent.EventMark:       "mark",
	agent.EventCleared:    "cleared",
	agent.EventPlayback:   "playback",
	agent.EventBuffer:     "buffer",
	agent.EventGap:        "gap",
	agent.EventAck:        "ack",
	agent.EventFault:      "error",
	agent.EventPong:       "pong",
	agent.EventStop:       "stop",
	agent.EventAnsweredBy: "call",
	agent.EventHold:       "call",
	agent.EventTransfer:   "transfer_status",
}

func (t *talk) message(ev *agent.Event) eventMessage {
	m := eventMessage{header: t.header(eventTypes[ev.Kind], ev.In, ev.Out)}
	switch ev.Kind {
	case agent.EventDigit:
		m.Digit = string(ev.Digit)
		if ev.Duration > 0 {
			m.DurationMS = millis(ev.Duration)
		}
	case agent.EventMark:
		m.Name, m.Status = ev.Mark, string(ev.MarkStatus)
	case agent.EventCleared:
		m.Cause, m.Ref, m.DiscardedMS, m.SentMS = string(ev.ClearedBy), ev.Ref, millis(ev.Discarded), millis(ev.Sent)
		m.AccuracyMS = millis(ev.Accuracy)
	case agent.EventPlayback:
		m.State = string(ev.Playback)
	case agent.EventBuffer:
		m.State, m.QueuedMS, m.CarrierMS = string(ev.Buffer), millis(ev.Queued), millis(ev.Carrier)
	case agent.EventGap:
		m.MS, m.Cause = millis(ev.Duration), string(ev.GapCause)
	case agent.EventAck:
		m.Ref = ev.Ref
	case agent.EventFault:
		m.Code, m.Message, m.Ref, m.Fatal = ev.Code, ev.Message, ev.Ref, &ev.Fatal
	case agent.EventPong:
		m.ID = ev.Ref
	case agent.EventAnsweredBy:
		m.AnsweredBy = string(ev.AnsweredBy)
	case agent.EventHold:
		m.State = string(ev.Hold)
	case agent.EventTransfer:
		m.Ref, m.Transfer, m.State, m.Reason = ev.Ref, ev.Transfer.ID, ev.Transfer.State, ev.Transfer.Reason
	case agent.EventStop:
		m.Reason, m.DurationMS = string(ev.End), millis(ev.Duration)
	}
	return m
}
