// Package model is what the dialects of speech models have in common: which reply the caller hears
// and how much of it, transcripts, tools, keys, and silence where the model must not hear the caller.
// What a vendor's messages look like is a Vendor, in a folder of its own.
//
// Locks: Talk.mu is held while a Vendor's methods run. What they want done outside, commands and
// reports, is collected meanwhile and done when it is given up.
package model

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"voicebridge/agent"
	"voicebridge/agent/tools"
	"voicebridge/calls"
	"voicebridge/codec"
	"voicebridge/providers"
)

// Vendor is what differs between models: their messages. Its methods are called one at a time.
type Vendor interface {
	// Start adds what is said first, where it is not the model that speaks first.
	Start(out *providers.Messages) error
	// Read does what a message says, with the Talk's methods.
	Read(m providers.Message)
	// Audio adds a message with the caller's audio.
	Audio(out *providers.Messages, audio []byte)
	// Tell adds what the model is told in words: keys that the caller has pressed, or a notice. With answer
	// it is to say something about it.
	Tell(out *providers.Messages, text string, answer bool)
	// Cut adds that only the beginning of an interrupted reply was heard.
	Cut(out *providers.Messages, reply string, heard time.Duration)
	// Result adds what has come of a tool.
	Result(out *providers.Messages, c tools.Call, r Result)
	// Stop adds what is said at the end of the call.
	Stop(out *providers.Messages)
}

// Result is what has come of a tool.
type Result struct {
	Output json.RawMessage // JSON
	Failed bool
	Quiet  bool // there is nothing to be said about it
}

const (
	// keysPause is how long after a key no other may come for the keys to be told.
	keysPause = 1500 * time.Millisecond
	maxKeys   = 64
	// maxSilence bounds what is filled in for audio that the model did not get.
	maxSilence = 10 * time.Second
	maxReplies = 256 // that are not settled; the oldest go
	maxCalls   = 1000
	maxText    = 16 << 10 // of a reply
	// MaxID bounds the ids and names that a model gives to its replies and tools.
	MaxID = 256
	// calm is how long nobody must have spoken for the connection to be replaced: an answer may be on its way.
	calm = 3 * time.Second
	// renewAgain is how long after a renewal that has not come about it is tried again.
	renewAgain = 20 * time.Second
)

// Talk is what is said in one call with a model; it implements agent.Talk and agent.Talker.
type Talk struct {
	set    *tools.Set
	beside agent.Beside
	ctx    context.Context // of the tools; ends with Release
	stop   context.CancelFunc
	asked  sync.WaitGroup // webhooks under way

	mu            sync.Mutex // guards what follows
	vendor        Vendor
	call          *agent.Call
	hears, speaks codec.Format
	ready         bool
	received      int64 // bytes of the model's audio
	replies       []*reply
	keys          []byte
	keysAt        time.Duration // when the last one was pressed
	held, muted   bool          // the model must not hear the caller
	in            time.Duration // call time of the caller's audio
	open          map[string]*work
	begun         int // tools
	turns         turns
	began         time.Duration // call time when it was ready
	renewAt       time.Duration // when the connection is to be replaced; 0: it is not
	renewBy       time.Duration // and when at the latest
	busyAt        time.Duration // when somebody spoke last, or was about to
	callerSpeaks  bool
	making        bool          // the model makes a reply
	spoke         bool          // it has said something since the caller has
	out           time.Duration // how far the caller has heard, on the agent's timeline
	caller        callerWords
	ending        string        // the tool by which the model ends the call; empty: it does not
	endingAt      time.Duration // since when
	hung          bool          // and does: what it says now is not heard
	spokeAt       time.Duration // when its audio came last

	// What is to be done once mu is given up.
	commands []agent.Command
	after    []func()
	audio    []byte
}

// work is a tool under way.
type work struct {
	call   tools.Call
	cancel context.CancelFunc // of a webhook; nil: it is a command
	told   bool               // the model has its result
	over   bool               // and nothing more is told of it
}

// reply is one of the model's, as far as the caller has not heard it.
type reply struct {
	id         string
	begin, end time.Duration // on the agent's timeline
	from       time.Duration // call time when it was heard first; negative: it was not
	text       string
	textDone   bool
	heard      bool // all of it
	cut        bool // before anything of it was heard
	to         time.Duration
}

// New makes what is said in a call. The formats are those until Format.
func New(set *tools.Set, hears, speaks codec.Format) *Talk {
	t := &Talk{set: set, hears: hears, speaks: speaks, open: map[string]*work{}}
	t.ctx, t.stop = context.WithCancel(context.Background())
	return t
}

// Use gives the Talk its vendor.
func (t *Talk) Use(v Vendor) { t.vendor = v }

// Attach implements agent.Talker.
func (t *Talk) Attach(b agent.Beside) { t.beside = b }

// Release implements agent.Talker. What waits to be heard of a broken connection will be.
func (t *Talk) Release() {
	t.stop()
	t.asked.Wait()
	t.mu.Lock()
	defer t.unlock()
	t.CallerDone()
	for len(t.replies) > 0 {
		r := t.replies[0]
		if r.end == r.begin {
			r.cut = true
		} else if !r.heard {
			r.heard, r.to = true, t.in
		}
		t.settle(r, r.end)
	}
}

// Formats implements agent.Talk.
func (t *Talk) Formats() (hears, speaks codec.Format) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.hears, t.speaks
}

// Ready implements agent.Talk.
func (t *Talk) Ready() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ready
}

// Start implements agent.Talk.
func (t *Talk) Start(out *providers.Messages, call *agent.Call, _ bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.call = call
	t.renewAt = 0
	if r := call.Resume; r != nil {
		t.in, t.out = r.In, r.Out
	}
	return t.vendor.Start(out)
}

// Decode implements agent.Talk.
func (t *Talk) Decode(m providers.Message, do func(*agent.Command)) {
	t.mu.Lock()
	t.commands, t.audio = t.commands[:0], t.audio[:0]
	t.vendor.Read(m)
	t.unlock()                  // what was said is told before the call is moved
	for i := range t.commands { // owned by whoever reads
		do(&t.commands[i])
	}
}

// unlock gives mu up, and does what was wanted meanwhile.
func (t *Talk) unlock() {
	after := t.after
	t.after = nil
	t.mu.Unlock()
	for _, do := range after {
		do()
	}
}

// Encode implements agent.Talk.
func (t *Talk) Encode(out *providers.Messages, ev *agent.Event) error {
	t.mu.Lock()
	defer t.unlock()
	return t.encode(out, ev)
}

func (t *Talk) encode(out *providers.Messages, ev *agent.Event) error {
	t.in = max(t.in, ev.In) // what is said before all else has none
	switch ev.Kind {
	case agent.EventAudio:
		t.progress(ev)
		t.tellKeys(out, false)
		t.renew()
		t.hangUp()
		if t.held || t.muted {
			t.silence(out, t.hears.Duration(len(ev.Audio)))
			return nil
		}
		t.vendor.Audio(out, ev.Audio)
	case agent.EventGap:
		t.silence(out, min(ev.Duration, maxSilence))
	case agent.EventDigit:
		t.keys = append(t.keys[:min(len(t.keys), maxKeys)], ev.Digit)
		t.keysAt = ev.In
		t.tellKeys(out, ev.Digit == '#')
	case agent.EventMark:
		t.marked(ev)
	case agent.EventCleared:
		t.cut(out, ev)
	case agent.EventHold:
		switch ev.Hold {
		case agent.Held, agent.Resumed:
			t.held = ev.Hold == agent.Held
		case agent.Muted, agent.Unmuted:
			t.muted = ev.Hold == agent.Muted
		}
	case agent.EventAck:
		if w := t.open[ev.Ref]; w != nil && !w.told {
			t.tell(w, Result{Output: json.RawMessage(`{"status":"sent"}`)})
		}
	case agent.EventFault:
		t.refused(out, ev)
	case agent.EventTransfer:
		t.transferred(out, ev)
	case agent.EventReply:
		return ev.Reply(out)
	case agent.EventStop:
		t.progress(ev)
		t.CallerDone()
		for len(t.replies) > 0 && !ev.GoesOn { // otherwise they are heard to their end
			t.settle(t.replies[0], ev.Out)
		}
		t.vendor.Stop(out)
	}
	return nil
}

// silence adds so much of it.
func (t *Talk) silence(out *providers.Messages, d time.Duration) {
	for frame := t.hears.Encoding.AppendSilence(nil, t.hears.FrameBytes()); d > 0; d -= codec.FrameTime {
		t.vendor.Audio(out, frame)
	}
}

// tellKeys adds the keys that the caller has pressed, once no more come.
func (t *Talk) tellKeys(out *providers.Messages, now bool) {
	if len(t.keys) > 0 && (now || t.in-t.keysAt >= keysPause) {
		t.vendor.Tell(out, "[Keypad: "+string(t.keys)+"]", true)
		t.keys = t.keys[:0]
	}
}

// What a Vendor calls, in its methods.

// Call is the call, since Start.
func (t *Talk) Call() *agent.Call { return t.call }

// Tools are those of the agent in this call.
func (t *Talk) Tools() []tools.Declaration { return Tools(t.set, t.call) }

// Tools are those of a set that an agent has in a call: not all can be transferred.
func Tools(set *tools.Set, call *agent.Call) []tools.Declaration {
	return set.List(len(call.Transfers) > 0)
}

// Keep has something kept for the connection after this one, see agent.Resume.
func (t *Talk) Keep(state any) { t.later(func() { t.beside.Keep(state) }) }

// History is what was said before this connection.
func (t *Talk) History() []calls.Line { return History(t.call) }

// History is what was said in a call before its agent was dialled again, as it was heard.
func History(call *agent.Call) (lines []calls.Line) {
	if call.Resume == nil {
		return nil
	}
	for _, l := range call.Resume.Lines {
		if l.Interrupted {
			l.Text = l.Heard
		}
		if l.Text != "" {
			lines = append(lines, l)
		}
	}
	return lines
}

// Since returns the call time of what the model counts from the beginning of this connection.
func (t *Talk) Since(d time.Duration) time.Duration {
	if t.call.Resume != nil {
		d += t.call.Resume.In
	}
	return d
}

// Opening is how a model begins: with a greeting, with a notice that the caller has come back, or going on where
// it was, where the caller may wait for an answer.
type Opening struct {
	Greet   string
	Notice  string
	Answer  bool
	Resumes bool
}

// Opening is how the model begins this connection, where a greeting is configured.
func (t *Talk) Opening(greeting string) Opening { return OpeningOf(t.call, greeting) }

// OpeningOf is how a model begins.
func OpeningOf(call *agent.Call, greeting string) Opening {
	switch {
	case call.Resume != nil && call.Resume.From != nil:
		text := "[You take the call over from another agent, and have been told what was said. "
		if why := call.Resume.Context["summary"]; why != "" {
			text += "It hands on: " + why + ". "
		}
		return Opening{Resumes: true, Notice: text + "Greet the caller, and go on.]"}
	case call.Resume != nil:
		lines := History(call)
		return Opening{Resumes: true, Answer: len(lines) > 0 && lines[len(lines)-1].Role == calls.Caller}
	case call.Known.Returned != "":
		return Opening{Notice: "[The caller is with you again: " + strings.ReplaceAll(call.Known.Returned, "_", " ") +
			". Tell them, and go on.]"}
	}
	return Opening{Greet: greeting}
}

// Format sets what the model hears and speaks, before Begin.
func (t *Talk) Format(hears, speaks codec.Format) { t.hears, t.speaks = hears, speaks }

// Begin notes that the model is ready.
func (t *Talk) Begin() { t.ready, t.began = true, t.in }

// Renew has the connection replaced by a new one after a time from Begin, or from now if that is later, once nobody
// speaks; or within grace, whoever does.
func (t *Talk) Renew(after, grace time.Duration) {
	t.renewAt = max(t.began+after, t.in, 1)
	t.renewBy = t.renewAt + grace
}

// CallerSpeaks notes whether the caller does, where the model tells.
func (t *Talk) CallerSpeaks(does bool) {
	if t.callerSpeaks = does; does {
		t.CallersTurn()
	}
}

// CallersTurn notes that the caller speaks, or has: what the model says next answers that.
func (t *Talk) CallersTurn() { t.spoke = false }

// Making notes whether the model makes a reply, where it tells.
func (t *Talk) Making(does bool) { t.making = does }

// renew asks for another connection when it is time, and again where that does not come about.
func (t *Talk) renew() {
	if t.renewAt == 0 || t.in < t.renewAt-calm {
		return
	}
	if !t.quiet() {
		t.busyAt = t.in
	}
	urgent := t.in >= t.renewBy
	if t.in < t.renewAt || t.in < t.busyAt+calm && !urgent {
		return
	}
	t.renewAt = t.in + renewAgain
	t.later(func() {
		t.beside.Renew(func() bool {
			t.mu.Lock()
			defer t.mu.Unlock()
			return urgent || t.quiet()
		})
	})
}

// quiet reports whether nobody speaks, and nothing is known that will be answered.
func (t *Talk) quiet() bool {
	if t.callerSpeaks || t.making || t.caller.text != "" || t.out < t.base() {
		return false
	}
	for _, w := range t.open {
		if !w.told {
			return false
		}
	}
	return !slices.ContainsFunc(t.replies, func(r *reply) bool { return r.end > r.begin && !r.heard && r.to == 0 })
}

// Begun reports whether it is.
func (t *Talk) Begun() bool { return t.ready }

// Say has messages sent to the model, in order with all else.
func (t *Talk) Say(add func(out *providers.Messages)) {
	t.later(func() {
		t.beside.Reply(func(out *providers.Messages) error {
			add(out)
			return nil
		})
	})
}

// later has something done when mu is given up.
func (t *Talk) later(do func()) { t.after = append(t.after, do) }

// Do has a command carried out.
func (t *Talk) Do(cmd agent.Command) { t.commands = append(t.commands, cmd) }

// Unknown notes a message that has no meaning here.
func (t *Talk) Unknown(kind string) {
	t.Do(agent.Command{Kind: agent.CommandUnknown, Type: kind[:min(len(kind), 64)]})
}

// Bad notes a message that makes no sense.
func (t *Talk) Bad(why string) {
	t.Do(agent.Command{Kind: agent.CommandFault, Code: "bad_message", Message: why})
}

// Fail ends the connection, since the model has nothing more to say. A new one may go on, unless it is hopeless.
func (t *Talk) Fail(code, message string, hopeless bool) {
	cause := calls.AgentLost
	if hopeless {
		cause = calls.AgentUnreachable
	}
	t.Do(agent.Command{Kind: agent.CommandFault, Code: code[:min(len(code), 64)],
		Message: message[:min(len(message), 512)], Fatal: true, Cause: cause})
}

// Trouble notes that the model reports an error.
func (t *Talk) Trouble(code, message string) {
	code, message = code[:min(len(code), 64)], message[:min(len(message), 512)]
	t.later(func() { t.beside.Trouble(code, message) })
}

// PlayText has audio of a reply played that is in base64, of which it may be none.
func (t *Talk) PlayText(id string, audio []byte) {
	begin := len(t.audio)
	var err error
	if t.audio, err = base64.StdEncoding.AppendDecode(t.audio, audio); err != nil {
		t.audio = t.audio[:begin]
		t.Bad("audio that is not base64")
		return
	}
	t.Play(id, t.audio[begin:])
}

// Play has audio of a reply played, which is read until the end of the message.
func (t *Talk) Play(id string, audio []byte) {
	if len(audio) == 0 || t.dropped(id) {
		return
	}
	r := t.reply(id)
	t.spokeAt, t.busyAt, t.spoke = t.in, t.in, true
	t.received += int64(len(audio))
	r.end = t.at()
	t.Do(agent.Command{Kind: agent.CommandAudio, Audio: audio})
}

// reply returns one, which is begun if it is not there.
func (t *Talk) reply(id string) *reply {
	if i := t.find(id); i >= 0 {
		return t.replies[i]
	}
	r := &reply{id: id, begin: t.at(), end: t.at(), from: -1}
	if len(t.replies) == maxReplies {
		t.replies = slices.Delete(t.replies, 0, 1)
	}
	t.replies = append(t.replies, r)
	return r
}

// mark begins the names of this connection's marks.
func (t *Talk) mark() string { return strconv.FormatInt(t.base().Milliseconds(), 10) + " " }

// base is where on the agent's timeline the audio of this connection begins.
func (t *Talk) base() time.Duration {
	if t.call == nil || t.call.Resume == nil {
		return 0
	}
	return t.call.Resume.Sent
}

// at is where on the agent's timeline the next audio begins.
func (t *Talk) at() time.Duration { return t.base() + t.speaks.Duration(int(t.received)) }

func (t *Talk) find(id string) int {
	return slices.IndexFunc(t.replies, func(r *reply) bool { return r.id == id })
}

// Unheard reports whether there is audio that the caller may not have heard.
func (t *Talk) Unheard() bool {
	return t.out < t.base() || // of the connection before this
		slices.ContainsFunc(t.replies, func(r *reply) bool { return r.end > r.begin && !r.heard })
}

// Spoken notes that a reply has no more audio.
func (t *Talk) Spoken(id string) {
	if t.find(id) >= 0 {
		t.Do(agent.Command{Kind: agent.CommandMark, Mark: t.mark() + id})
	}
}

// Words adds to the text of a reply.
func (t *Talk) Words(id, more string) {
	if t.dropped(id) {
		return
	}
	r := t.reply(id)
	r.text = clip(r.text + more[:min(len(more), maxText)])
	t.busyAt = t.in
}

// Text is the whole text of a reply.
func (t *Talk) Text(id, text string) {
	if i := t.find(id); i >= 0 { // otherwise it was interrupted, and is told
		t.replies[i].text = clip(text)
	}
	t.whole(id)
}

// clip bounds a text.
func clip(text string) string { return text[:min(len(text), maxText)] }

// whole notes that the text of a reply is.
func (t *Talk) whole(id string) {
	i := t.find(id)
	if i < 0 {
		return
	}
	r := t.replies[i]
	if r.textDone = true; r.heard || r.to > 0 && r.end > r.begin { // to its end, so far
		r.heard = true
		t.settle(r, r.end)
	}
}

// Interrupt takes back what the caller has not heard; Cut follows for replies that it cuts. A caller who speaks
// while the model says goodbye is still there: the call does not end then.
func (t *Talk) Interrupt() {
	if t.ending != "" {
		if t.hung {
			t.Do(agent.Command{Kind: agent.CommandCancel, Ref: t.ending})
		}
		t.ending, t.hung = "", false
	}
	t.Do(agent.Command{Kind: agent.CommandClear})
}

const (
	// farewell is how long nothing may come from a model that ends the call: vendors send the goodbye before
	// or after that.
	farewell = time.Second
	// lateFarewell is how long where it has said nothing since the caller has.
	lateFarewell = 3 * time.Second
	// farewells is how long it may talk on.
	farewells = 10 * time.Second
)

// hangUp ends the call of a model that wants that, once it has said all. What was said is played to its end.
func (t *Talk) hangUp() {
	wait := farewell
	if !t.spoke {
		wait = lateFarewell
	}
	if t.ending == "" || t.hung || t.in < min(max(t.endingAt, t.spokeAt)+wait, t.endingAt+farewells) {
		return
	}
	t.hung = true
	id := t.ending
	t.later(func() { t.beside.Do(&agent.Command{Kind: agent.CommandHangup, ID: id}) })
}

// dropped reports whether a reply is not heard any more: one that a model begins that has ended the call, unless it
// is the goodbye.
func (t *Talk) dropped(id string) bool {
	return len(id) > MaxID || t.hung || t.ending != "" && t.spoke && t.find(id) < 0
}

// callerWords are what the caller says, as far as it was told.
type callerWords struct {
	text     string
	from, to time.Duration
}

// CallerWords adds to what the caller says.
func (t *Talk) CallerWords(more string, from, to time.Duration) {
	c := &t.caller
	if c.text == "" {
		c.from = from
	}
	c.text, c.to = clip(c.text+more[:min(len(more), maxText)]), to
	t.CallersTurn()
}

// CallerDone notes that the caller has said it.
func (t *Talk) CallerDone() {
	t.CallerSaid(t.caller.text, t.caller.from, t.caller.to)
	t.caller = callerWords{}
}

// CallerSaid notes what the caller has said, in call time.
func (t *Talk) CallerSaid(text string, from, to time.Duration) {
	if text = strings.TrimSpace(clip(text)); text != "" {
		t.said(calls.Line{Role: calls.Caller, Text: text, From: calls.MS(from), To: calls.MS(to)})
	}
}

func (t *Talk) said(l calls.Line) { t.later(func() { t.beside.Said(l) }) }

// In is the call time of the caller's audio that the model has got.
func (t *Talk) In() time.Duration { return t.in }

// Used notes what the model has used up.
func (t *Talk) Used(u calls.Usage) {
	if len(u) > 0 {
		t.later(func() { t.beside.Used(u) })
	}
}

// What is heard.

// progress notes which replies the caller has begun to hear.
func (t *Talk) progress(ev *agent.Event) {
	t.out = ev.Out
	for _, r := range t.replies {
		if r.begin >= ev.Out {
			return
		}
		if r.from < 0 {
			r.from = ev.In
		}
		switch {
		case r.heard:
		case ev.Out < r.end:
			r.to = 0
		case r.to == 0:
			r.to = ev.In
		}
	}
}

// marked takes the mark at the end of a reply.
func (t *Talk) marked(ev *agent.Event) {
	id, own := strings.CutPrefix(ev.Mark, t.mark())
	i := t.find(id)
	if !own || i < 0 || ev.MarkStatus != agent.MarkPlayed {
		return // EventCleared tells, or it is of another connection
	}
	r := t.replies[i]
	r.heard, r.to = true, ev.In
	if r.from < 0 {
		r.from = ev.In
	}
	if r.textDone {
		t.settle(r, r.end)
	}
}

// cut takes back what was not heard of all replies.
func (t *Talk) cut(out *providers.Messages, ev *agent.Event) {
	t.progress(ev)
	for _, r := range slices.Clone(t.replies) {
		if r.end > r.begin && r.begin >= ev.Sent { // it came behind the clear
			continue
		}
		if r.end > ev.Out && !r.heard {
			t.vendor.Cut(out, r.id, max(0, ev.Out-r.begin))
		}
		r.cut = r.end == r.begin // it was to be said, and is not
		t.settle(r, ev.Out)
	}
}

// settle tells of a reply that nothing more is heard of; out is how far the caller has heard.
func (t *Talk) settle(r *reply, out time.Duration) {
	t.replies = slices.DeleteFunc(t.replies, func(o *reply) bool { return o == r })
	text := strings.TrimSpace(r.text)
	if text == "" {
		return
	}
	l := calls.Line{Role: calls.Agent, Text: text, From: calls.MS(max(r.from, 0)), To: calls.MS(t.in)}
	switch {
	case r.heard:
		l.To = calls.MS(r.to)
	case out < r.end || r.cut:
		l.Interrupted = true
		if out > r.begin && r.end > r.begin {
			l.Heard = beginning(text, float64(out-r.begin)/float64(r.end-r.begin))
		}
	}
	if r.from < 0 {
		l.From = l.To
	}
	t.said(l)
}

// beginning returns the words in the first part of a text.
func beginning(text string, part float64) string {
	all := []rune(text)
	n := int(part * float64(len(all)))
	if n < len(all) && all[n] != ' ' { // a word that was begun was not heard
		for n > 0 && all[n-1] != ' ' {
			n--
		}
	}
	return strings.TrimSpace(string(all[:n]))
}

// refused takes the refusal of a command.
func (t *Talk) refused(out *providers.Messages, ev *agent.Event) {
	switch w := t.open[ev.Ref]; {
	case w == nil || w.over:
	case w.told:
		w.over = true
		t.vendor.Tell(out, "[The transfer failed: "+ev.Message+". Tell the caller, and go on.]", true)
	default:
		t.tell(w, failure(ev.Message))
	}
}

// transferred takes how a transfer is. One that works out ends the model's part of the call.
func (t *Talk) transferred(out *providers.Messages, ev *agent.Event) {
	switch ev.Transfer.State {
	case "failed", "canceled", "timed_out":
		w := t.open[ev.Ref]
		if w == nil && strings.HasPrefix(ev.Ref, toolPrefix) { // of a connection before this one
			w = &work{}
		}
		if w != nil && !w.over {
			w.over = true
			t.vendor.Tell(out, "[The transfer failed: "+strings.ReplaceAll(ev.Transfer.Reason, "_", " ")+
				". The caller is with you again: tell them, and go on.]", true)
		}
	}
}
