package models

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	"voicebridge/codec"
	"voicebridge/ws"
)

// OpenAI is a model behind OpenAI's Realtime API. It implements http.Handler.
type OpenAI struct{ *Script }

// realtime is one of its connections.
type realtime struct {
	*Script
	conn     *ws.Conn
	session  map[string]any
	updated  bool
	in, out  codec.Format
	detector detector
	sent     time.Duration // by the caller
	broken   bool
	serial   int
	response string // that is being made; empty: none
	item     string
	voice    *voice
	answer   Answer
	said     map[string]time.Duration // of each item
	calls    map[string]bool          // tools without a result
	caller   string                   // the item of the caller's turn
}

// ServeHTTP takes a call.
func (o OpenAI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if o.Key != "" && r.Header.Get("Authorization") != "Bearer "+o.Key {
		http.Error(w, `{"error":{"code":"invalid_api_key"}}`, http.StatusUnauthorized)
		return
	}
	if r.URL.Query().Get("model") == "" {
		o.complain("no model in the URL")
	}
	if r.Header.Get("OpenAI-Beta") != "" {
		o.complain("the header of the beta")
	}
	conn, err := accept(w, r, []string{"realtime"})
	if err != nil {
		o.complain("%v", err)
		return
	}
	pcm := codec.Format{Encoding: codec.L16LE, Rate: Rate}
	c := &realtime{Script: o.Script, conn: conn, in: pcm, out: pcm, said: map[string]time.Duration{},
		calls: map[string]bool{}}
	format := map[string]any{"type": "audio/pcm", "rate": Rate}
	c.session = map[string]any{"type": "realtime", "object": "realtime.session", "id": "sess_1",
		"model": r.URL.Query().Get("model"), "output_modalities": []string{"audio"}, "tools": []any{},
		"audio": map[string]any{"input": map[string]any{"format": format}, "output": map[string]any{"format": format}}}
	c.send("session.created", map[string]any{"session": c.session})
	part(o.Script, conn, c.serve())
}

func (c *realtime) serve() error {
	for {
		binary, data, err := c.conn.Read()
		if err != nil {
			return err
		}
		var m map[string]any
		if binary || json.Unmarshal(data, &m) != nil {
			c.complain("not a JSON object: %.100q", data)
			continue
		}
		kind, _ := m["type"].(string)
		do, known := realtimeEvents[kind]
		if !known {
			c.fail("invalid_event", "unknown type "+kind)
			continue
		}
		for name := range m {
			if !slices.Contains(append(do.fields, "type", "event_id"), name) {
				c.complain("%s with %s", kind, name)
			}
		}
		c.note(kind, m)
		do.do(c, m)
		if c.broken {
			return errBroken
		}
		if c.Expire > 0 && c.sent >= c.Expire {
			c.fail("session_expired", "Your session hit the maximum duration of 60 minutes.")
			return fmt.Errorf("expired")
		}
	}
}

// realtimeEvents are what clients may send.
var realtimeEvents map[string]struct {
	fields []string
	do     func(*realtime, map[string]any)
}

func init() { // they refer to each other
	realtimeEvents = map[string]struct {
		fields []string
		do     func(*realtime, map[string]any)
	}{
		"session.update":             {[]string{"session"}, (*realtime).update},
		"input_audio_buffer.append":  {[]string{"audio"}, (*realtime).hear},
		"conversation.item.create":   {[]string{"item", "previous_item_id"}, (*realtime).add},
		"conversation.item.truncate": {[]string{"item_id", "content_index", "audio_end_ms"}, (*realtime).truncate},
		"conversation.item.retrieve": {[]string{"item_id"}, (*realtime).retrieve},
		"response.create":            {[]string{"response"}, (*realtime).respond},
		"response.cancel":            {[]string{"response_id"}, (*realtime).cancel},
	}
}

func (c *realtime) send(kind string, fields map[string]any) {
	c.serial++
	fields["type"], fields["event_id"] = kind, fmt.Sprintf("event_%d", c.serial)
	c.note(Sent, fields)
	if b, err := json.Marshal(fields); err != nil {
		c.complain("%v", err)
	} else {
		_ = c.conn.Write(false, b) // a failure shows in Read
	}
}

func (c *realtime) fail(code, message string) {
	if code != "session_expired" && code != "conversation_already_has_active_response" {
		c.complain("%s: %s", code, message)
	}
	c.send("error", map[string]any{"error": map[string]any{"type": "invalid_request_error", "code": code,
		"message": message, "param": nil, "event_id": nil}})
}

// sessionFields are those of a session that may be set.
var sessionFields = []string{"type", "output_modalities", "instructions", "audio", "tools", "tool_choice",
	"max_output_tokens", "tracing", "truncation", "reasoning", "parallel_tool_calls", "prompt", "include"}

func (c *realtime) update(m map[string]any) {
	s, _ := m["session"].(map[string]any)
	if s["type"] != "realtime" {
		c.fail("missing_required_parameter", "session.type")
		return
	}
	for name, v := range s {
		if name == "model" && v == c.session["model"] { // it cannot be changed
			continue
		}
		if !slices.Contains(sessionFields, name) {
			c.fail("unknown_parameter", "session."+name)
			return
		}
		c.session[name] = v
	}
	audio, _ := s["audio"].(map[string]any)
	for side, f := range map[string]*codec.Format{"input": &c.in, "output": &c.out} {
		half, _ := audio[side].(map[string]any)
		if half["format"] == nil { // as it was
			continue
		}
		var err error
		if *f, err = realtimeFormat(half["format"]); err != nil {
			c.fail("invalid_value", err.Error())
			return
		}
	}
	for _, tool := range list(s["tools"]) {
		if tool["type"] != "function" || tool["name"] == "" || tool["parameters"] == nil {
			c.fail("invalid_value", fmt.Sprint("session.tools: ", tool))
		}
	}
	c.updated = true
	c.send("session.updated", map[string]any{"session": c.session})
}

func list(v any) (all []map[string]any) {
	l, _ := v.([]any)
	for _, e := range l {
		o, _ := e.(map[string]any)
		all = append(all, o)
	}
	return all
}

// realtimeFormat reads a format, which has a rate only where it is PCM.
func realtimeFormat(v any) (codec.Format, error) {
	f, _ := v.(map[string]any)
	_, rate := f["rate"]
	switch {
	case f["type"] == "audio/pcmu" && !rate:
		return codec.Format{Encoding: codec.PCMU, Rate: 8000}, nil
	case f["type"] == "audio/pcma" && !rate:
		return codec.Format{Encoding: codec.PCMA, Rate: 8000}, nil
	case f["type"] == "audio/pcm" && f["rate"] == 24000.0:
		return codec.Format{Encoding: codec.L16LE, Rate: 24000}, nil
	}
	return codec.Format{}, fmt.Errorf("format: %v", v)
}

// hear takes the caller's audio, and goes on with what is being said.
func (c *realtime) hear(m map[string]any) {
	text, _ := m["audio"].(string)
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(b) == 0 {
		c.fail("invalid_value", "audio")
		return
	}
	if !c.updated {
		c.complain("audio before session.updated")
		return
	}
	pcm := c.in.Encoding.AppendDecode(nil, b)
	if c.Heard != nil {
		c.Heard(pcm)
	}
	c.sent += c.in.Duration(len(b))
	if c.broken = c.broken || c.breaks(c.in.Duration(len(b))); c.broken {
		return
	}
	c.detector.pause = c.Pause
	switch began, paused := c.detector.hear(pcm, c.in.Rate); {
	case began:
		c.caller = c.id("item_caller")
		c.send("input_audio_buffer.speech_started", map[string]any{
			"audio_start_ms": (c.sent - speechTime).Milliseconds(), "item_id": c.caller})
		c.interrupt("turn_detected")
	case paused:
		c.send("input_audio_buffer.speech_stopped", map[string]any{
			"audio_end_ms": (c.sent - pauseTime).Milliseconds(), "item_id": c.caller})
		c.send("input_audio_buffer.committed", map[string]any{"previous_item_id": nil, "item_id": c.caller})
		c.transcribe()
		c.begin()
	default:
		c.goOn()
	}
}

func (c *realtime) id(kind string) string {
	c.serial++
	return fmt.Sprintf("%s_%d", kind, c.serial)
}

// transcribe tells what the caller has said.
func (c *realtime) transcribe() {
	audio, _ := c.session["audio"].(map[string]any)
	input, _ := audio["input"].(map[string]any)
	if input["transcription"] != nil {
		c.send("conversation.item.input_audio_transcription.completed", map[string]any{"item_id": c.caller,
			"content_index": 0, "transcript": fmt.Sprintf("Words of the caller before turn %d.", c.turn),
			"usage": map[string]any{"type": "duration", "seconds": 1}})
	}
}

// begin begins a response.
func (c *realtime) begin() {
	c.answer = c.Answer(c.turn)
	c.turn++
	c.response, c.item = c.id("resp"), c.id("item")
	c.send("response.created", map[string]any{"response": map[string]any{"object": "realtime.response",
		"id": c.response, "status": "in_progress", "output": []any{}}})
	if c.answer.Fail != "" {
		c.done("failed", map[string]any{"type": "failed",
			"error": map[string]any{"type": c.answer.Fail, "code": c.answer.Fail, "message": "It fails."}})
		return
	}
	c.voice = nil
	if len(c.answer.PCM) > 0 {
		c.voice = newVoice(c.answer.PCM, c.out)
		c.send("response.output_item.added", map[string]any{"response_id": c.response, "output_index": 0,
			"item": c.message("in_progress")})
		c.send("response.output_audio_transcript.delta", c.part(map[string]any{"delta": c.answer.Text}))
	}
	c.goOn()
}

func (c *realtime) message(status string) map[string]any {
	return map[string]any{"id": c.item, "object": "realtime.item", "type": "message", "status": status,
		"role": "assistant", "content": []any{}}
}

// part adds the ids of what is said to an event's fields.
func (c *realtime) part(fields map[string]any) map[string]any {
	fields["response_id"], fields["item_id"], fields["output_index"], fields["content_index"] = c.response, c.item, 0, 0
	return fields
}

// piece says the next one. It is false where there is none.
func (c *realtime) piece() bool {
	if c.voice == nil {
		return false
	}
	b := c.voice.piece(pieceTime)
	if len(b) > 0 {
		c.said[c.item] += c.out.Duration(len(b))
		c.send("response.output_audio.delta", c.part(map[string]any{
			"delta": base64.StdEncoding.EncodeToString(b)}))
	}
	return len(b) > 0
}

// goOn goes on with the response.
func (c *realtime) goOn() {
	if c.response == "" || c.piece() {
		return
	}
	if c.voice != nil {
		c.spoken("completed")
	}
	if tool := c.answer.Tool; tool != nil {
		c.tool(tool)
	}
	c.done("completed", nil)
}

// spoken ends what is said.
func (c *realtime) spoken(status string) {
	c.send("response.output_audio.done", c.part(map[string]any{}))
	c.send("response.output_audio_transcript.done", c.part(map[string]any{"transcript": c.answer.Text}))
	c.send("response.output_item.done", map[string]any{"response_id": c.response, "output_index": 0,
		"item": c.message(status)})
	c.voice = nil
}

// tool calls one: first as it would be if it were interrupted.
func (c *realtime) tool(tool *Tool) {
	id := c.id("call")
	item := map[string]any{"id": c.id("item"), "object": "realtime.item", "type": "function_call",
		"status": "incomplete", "name": tool.Name, "call_id": id, "arguments": tool.Arguments[:len(tool.Arguments)/2]}
	event := map[string]any{"response_id": c.response, "output_index": 1, "item": item}
	c.send("response.output_item.done", event)
	item["status"], item["arguments"] = "completed", tool.Arguments
	c.calls[id] = true
	c.send("response.output_item.done", event)
}

func (c *realtime) done(status string, details any) {
	c.send("response.done", map[string]any{"response": map[string]any{"object": "realtime.response", "id": c.response,
		"status": status, "status_details": details, "output": []any{},
		"usage": map[string]any{"total_tokens": 30, "input_tokens": 20, "output_tokens": 10,
			"input_token_details": map[string]any{"audio_tokens": 15, "cached_tokens": 5}}}})
	c.response, c.voice = "", nil
}

// interrupt ends the response, with audio that comes late.
func (c *realtime) interrupt(reason string) {
	if c.response == "" {
		return
	}
	c.piece()
	if c.voice != nil {
		c.spoken("incomplete")
	}
	c.done("cancelled", map[string]any{"type": "cancelled", "reason": reason})
}

func (c *realtime) cancel(map[string]any) {
	if c.response == "" {
		c.send("error", map[string]any{"error": map[string]any{"type": "invalid_request_error",
			"code": "response_cancel_not_active", "message": "Cancellation failed: no active response found"}})
		return
	}
	c.interrupt("client_cancelled")
}

// add takes an item: words, or the result of a tool.
func (c *realtime) add(m map[string]any) {
	item, _ := m["item"].(map[string]any)
	switch item["type"] {
	case "function_call_output":
		id, _ := item["call_id"].(string)
		if !c.calls[id] {
			c.fail("invalid_value", "no open call "+id)
			return
		}
		if _, is := item["output"].(string); !is {
			c.fail("invalid_value", "output")
		}
		delete(c.calls, id)
	case "message":
		content := list(item["content"])
		want := map[string]string{"user": "input_text", "system": "input_text", "assistant": "output_text"}
		role, _ := item["role"].(string)
		if len(content) != 1 || content[0]["type"] != want[role] || content[0]["text"] == "" {
			c.fail("invalid_value", fmt.Sprint("item: ", item))
		}
	default:
		c.fail("invalid_value", fmt.Sprint("item: ", item))
	}
	item["id"] = c.id("item")
	c.send("conversation.item.added", map[string]any{"item": item, "previous_item_id": nil})
}

// retrieve tells what is known of an item.
func (c *realtime) retrieve(m map[string]any) {
	c.send("conversation.item.retrieved", map[string]any{"item": map[string]any{"id": m["item_id"],
		"object": "realtime.item", "type": "message", "status": "completed", "role": "user",
		"content": []any{map[string]any{"type": "input_audio", "transcript": "words", "audio": ""}}}})
}

func (c *realtime) truncate(m map[string]any) {
	id, _ := m["item_id"].(string)
	end, isNumber := m["audio_end_ms"].(float64)
	said, known := c.said[id]
	switch {
	case !known || m["content_index"] != 0.0 || !isNumber || end < 0:
		c.fail("invalid_value", fmt.Sprint("truncate: ", m))
	case int64(end) > said.Milliseconds():
		c.fail("invalid_value", fmt.Sprintf("Audio content of %dms is already shorter than %vms",
			said.Milliseconds(), end))
	default:
		c.said[id] = time.Duration(end) * time.Millisecond
		c.send("conversation.item.truncated", map[string]any{"item_id": id, "content_index": 0, "audio_end_ms": end})
	}
}

func (c *realtime) respond(m map[string]any) {
	if c.response != "" {
		c.fail("conversation_already_has_active_response", "Conversation already has an active response in progress: "+
			c.response+". Wait until the response is finished before creating a new one.")
		return
	}
	if r, _ := m["response"].(map[string]any); len(r) > 1 || len(r) == 1 && r["instructions"] == nil {
		c.fail("invalid_value", fmt.Sprint("response: ", r))
	}
	if len(c.calls) > 0 {
		c.complain("response.create before the results of %d tools", len(c.calls))
	}
	c.begin()
}
