package voicebridge

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"voicebridge/agent"
	"voicebridge/calls"
	"voicebridge/codec"
	"voicebridge/providers"
)

// Limits of what an agent may say.
const (
	maxCommands = 50   // a second, and in a row
	floodRate   = 500  // beyond them, a second: more end the call
	floodBurst  = 1000 // in a row
	maxQuotes   = 1000 // in a text message: what a parser takes long for
	maxBadJSON  = 20   // in a row
	maxID       = 64
	maxName     = 128
	keptIDs     = 64  // a command whose id is among the last ones is a repetition
	minReport   = 100 // ms
	maxReport   = 3600000
	minTone     = 40 // ms: shorter ones are not told by all exchanges (ITU-T Q.24)
	maxTone     = 2000
)

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

// reading is one text message on its way to a command. data is all of it.
type reading struct {
	request
	data []byte
	cmd  *agent.Command
}

// fault has the message answered with an error. It returns true: there is something
// to do.
func (r *reading) fault(code, message string, args ...any) bool {
	*r.cmd = agent.Command{Kind: agent.CommandFault, ID: clip(r.ID), Code: code,
		Message: fmt.Sprintf(message, args...), Fatal: r.cmd.Fatal}
	return true
}

func clip(s string) string { return s[:min(len(s), maxID)] }

// Decode implements agent.Talk.
func (t *talk) Decode(m providers.Message, do func(*agent.Command)) {
	t.cmd = agent.Command{}
	if m.Binary {
		t.samples(m.Data, do)
		return
	}
	if !t.command(m.Data, &t.cmd) {
		return
	}
	if t.cmd.Kind == agent.CommandAudio {
		t.samples(t.cmd.Audio, do)
		return
	}
	do(&t.cmd)
}

// samples hands audio on. Agents that read it from WAV files are told, once, that headers are
// none: they would be a click at full scale.
func (t *talk) samples(b []byte, do func(*agent.Command)) {
	if n := WAVHeader(b); n > 0 {
		b = b[n:]
		if !t.headed {
			t.headed = true
			t.cmd = agent.Command{Kind: agent.CommandFault, Code: "bad_field",
				Message: "audio begins with the header of a WAV file, which is left out, as later ones: " +
					"send the samples alone"}
			do(&t.cmd)
		}
	}
	t.cmd = agent.Command{Kind: agent.CommandAudio, Audio: b}
	do(&t.cmd)
}

// WAVHeader is how long the header of a WAV file is that audio begins with; 0: there is none.
func WAVHeader(b []byte) int {
	if len(b) < 12 || b[0] != 'R' || string(b[:4]) != "RIFF" || string(b[8:12]) != "WAVE" {
		return 0
	}
	for at := 12; at+8 <= len(b); {
		size := int64(binary.LittleEndian.Uint32(b[at+4:]))
		if string(b[at:at+4]) == "data" {
			return at + 8
		}
		if size > int64(len(b)-at-8) {
			break
		}
		at += 8 + int(size+size&1)
	}
	return min(len(b), 44) // the usual length
}

// command reads a text message. False means that there is nothing to do. What is beyond the limit
// is not even looked at.
func (t *talk) command(data []byte, cmd *agent.Command) bool {
	r := &reading{data: data, cmd: cmd}
	if t.json {
		if audio, ok := audioOf(data); ok {
			return t.audio(r, audio)
		}
	}
	switch {
	case !t.commands.Allow():
		return t.tooMany(r)
	case len(data) > MaxText:
		return r.fault("bad_field", "a text message of more than %d bytes must have type and audio, and little else",
			MaxText)
	case bytes.Count(data, []byte{'"'}) > maxQuotes:
		return r.fault("bad_field", "more than %d quotes: no command has so many fields", maxQuotes)
	}
	var env envelope
	err := json.Unmarshal(data, &env)
	if err == nil && env.Type == "audio" && t.json {
		if json.Unmarshal(data, &r.request) != nil {
			r.ID = ""
			return r.fault("bad_field", "audio must be a string")
		}
		return t.audio(r, []byte(r.Audio))
	}
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.As(err, &wrong) && wrong.Field != "":
		return r.fault("bad_field", "type must be a string")
	case err != nil || string(data) == "null":
		t.bad++
		cmd.Fatal = t.bad >= maxBadJSON
		return r.fault("bad_json", "not a JSON object")
	}
	t.bad = 0
	switch {
	case env.Type == "pong":
		return false
	case env.Type == "":
		return r.fault("bad_field", "type is missing")
	case readers[env.Type] == nil:
		cmd.Kind, cmd.Type = agent.CommandUnknown, clip(env.Type)
		return true
	}
	return t.known(r)
}

// tooMany refuses a message beyond the limit, and ends the call of an agent that goes on for long.
func (t *talk) tooMany(r *reading) bool {
	if !t.flood.Allow() {
		r.cmd.Fatal = true
		return r.fault("rate_limited", "far more than %d commands a second", maxCommands)
	}
	if time.Since(t.limited) < time.Second {
		return false
	}
	t.limited = time.Now()
	return r.fault("rate_limited", "more than %d commands a second: some were ignored", maxCommands)
}

// known reads a message of a type that is known.
func (t *talk) known(r *reading) bool {
	if err := json.Unmarshal(r.data, &r.request); err != nil {
		return r.fault("bad_field", "%s is of the wrong type", fieldOf(err))
	}
	if len(r.ID) > maxID {
		r.ID = ""
		return r.fault("bad_field", "id is longer than %d bytes", maxID)
	}
	if r.ID != "" && slices.Contains(t.ids, r.ID) {
		return false
	}
	r.cmd.ID = r.ID
	some := readers[r.Type](t, r)
	if r.ID != "" && r.cmd.Kind != agent.CommandFault { // one that was refused may come again, mended
		if len(t.ids) == keptIDs {
			t.ids = t.ids[:copy(t.ids, t.ids[1:])]
		}
		t.ids = append(t.ids, r.ID)
	}
	return some
}

// fieldOf names the field that an error is about.
func fieldOf(err error) string {
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) && wrong.Field != "" {
		return wrong.Field
	}
	return "a field"
}

// readers read the messages of each type.
var readers = map[string]func(*talk, *reading) bool{
	"mark":       (*talk).readMark,
	"transcript": (*talk).readTranscript,
	"clear":      simple(agent.CommandClear),
	"interrupt":  simple(agent.CommandClear),
	"pause":      simple(agent.CommandPause),
	"unpause":    simple(agent.CommandUnpause),
	"ping":       simple(agent.CommandPing),
	"hangup":     (*talk).readHangup,
	"dtmf":       (*talk).readDigits,
	"cancel":     (*talk).readCancel,
	"ready":      (*talk).readReady,
	"transfer":   (*talk).readTransfer,
	"audio":      (*talk).readAudio,
}

// simple reads a message that is all in its type.
func simple(kind agent.CommandKind) func(*talk, *reading) bool {
	return func(_ *talk, r *reading) bool {
		r.cmd.Kind = kind
		return true
	}
}

func (t *talk) readMark(r *reading) bool {
	if r.Name == "" || len(r.Name) > maxName {
		return r.fault("bad_field", "name must have 1 to %d bytes", maxName)
	}
	r.cmd.Kind, r.cmd.Mark = agent.CommandMark, r.Name
	return true
}

// readTranscript reads what was said. There is nothing to do.
func (t *talk) readTranscript(r *reading) bool {
	var l calls.Line
	switch err := json.Unmarshal(r.data, &l); {
	case err != nil:
		return r.fault("bad_field", "role, text and heard must be strings, start_ms and end_ms integers")
	case l.Role != calls.Caller && l.Role != calls.Agent:
		return r.fault("bad_field", "role must be caller or agent")
	case l.Text == "" || l.From < 0 || l.To < l.From:
		return r.fault("bad_field", "text must be set, and start_ms not be after end_ms")
	}
	if t.beside != nil {
		t.beside.Said(l)
	}
	return false
}

// Attach implements agent.Talker.
func (t *talk) Attach(b agent.Beside) { t.beside = b }

// Release implements agent.Talker: nothing was begun.
func (t *talk) Release() {}

// when reads whether the command is for now; a false answer means that it is neither
// for now nor for after playback, and was refused.
func (r *reading) when() bool {
	if r.When != "" && r.When != "now" && r.When != "after_playback" {
		r.fault("bad_field", "when must be now or after_playback")
		return false
	}
	r.cmd.Now = r.When == "now"
	return true
}

func (t *talk) readHangup(r *reading) bool {
	if r.when() {
		r.cmd.Kind = agent.CommandHangup
	}
	return true
}

func (t *talk) readCancel(r *reading) bool {
	if r.Ref == "" {
		return r.fault("bad_field", "ref must be the id of the command to withdraw")
	}
	r.cmd.Kind, r.cmd.Ref = agent.CommandCancel, r.Ref
	return true
}

// readAudio is for audio in JSON where it is not expected.
func (t *talk) readAudio(r *reading) bool {
	return r.fault("unsupported", "audio is not supported here")
}

// readTransfer reads a transfer. What it wants is checked by who carries it out.
func (t *talk) readTransfer(r *reading) bool {
	var want calls.TransferRequest
	err := json.Unmarshal(r.data, &want)
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.As(err, &wrong) && wrong.Field != "":
		return r.fault("bad_field", "%s is of the wrong type", wrong.Field)
	case err != nil:
		return r.fault("bad_field", "on_fail must be resume, hangup or a number, or an object of these by reason")
	case !r.when():
		return true
	case !want.ContextFits():
		return r.fault("bad_field", "context must have at most %d bytes", calls.MaxContext)
	}
	r.cmd.Kind, r.cmd.Transfer = agent.CommandTransfer, &want
	return true
}

// readDigits reads digits to be sent.
func (t *talk) readDigits(r *reading) bool {
	if !r.when() {
		return true
	}
	r.cmd.Kind, r.cmd.Digits = agent.CommandDigits, r.Digits
	r.cmd.Tone, r.cmd.Gap = agent.DefaultTone, agent.DefaultToneGap
	for _, f := range []struct {
		ms *int64
		d  *time.Duration
	}{{r.ToneMS, &r.cmd.Tone}, {r.GapMS, &r.cmd.Gap}} {
		if f.ms == nil {
			continue
		}
		if *f.ms < minTone || *f.ms > maxTone {
			return r.fault("bad_field", "duration_ms and gap_ms must be %d to %d", minTone, maxTone)
		}
		*f.d = time.Duration(*f.ms) * time.Millisecond
	}
	if !agent.ValidDigits(r.Digits) {
		return r.fault("bad_field", "digits must be 1 to 64 of 0-9 * # A-D w W")
	}
	return true
}

// readReady reads that the agent is ready. Where that is awaited, it may choose the
// rates.
func (t *talk) readReady(r *reading) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	hears, speaks := t.hears, t.speaks
	if r.InputRate != 0 {
		hears.Rate = r.InputRate
	}
	if r.OutputRate != 0 {
		speaks.Rate = r.OutputRate
	}
	switch {
	case (hears != t.hears || speaks != t.speaks) && !t.awaiting:
		return r.fault("unsupported", "ready chooses the rates only where it is awaited: use in_rate and out_rate in "+
			"the URL")
	case !hears.Valid() || !speaks.Valid():
		return r.fault("bad_field", "the rates must be one of %v", codec.Rates)
	case r.BargeIn != "" && r.BargeIn != "agent":
		return r.fault("unsupported", "barge_in must be agent")
	case r.Speech:
		return r.fault("unsupported", "speech detection is not supported")
	}
	r.cmd.Kind, r.cmd.Every = agent.CommandReady, -1
	if r.ReportMS != nil {
		n := *r.ReportMS
		if n != 0 && (n < minReport || n > maxReport) {
			return r.fault("bad_field", "report_ms must be 0, or %d to %d", minReport, maxReport)
		}
		r.cmd.Every = time.Duration(n) * time.Millisecond
	}
	t.hears, t.speaks = hears, speaks
	t.awaiting, t.ready = false, true
	return true
}

// audio reads the audio of a message of the JSON profile.
func (t *talk) audio(r *reading, text []byte) bool {
	var err error
	t.pcm, err = base64.StdEncoding.AppendDecode(t.pcm[:0], text)
	if err != nil {
		return r.fault("bad_field", "audio is not base64")
	}
	r.cmd.Kind, r.cmd.Audio = agent.CommandAudio, t.pcm
	return true
}
