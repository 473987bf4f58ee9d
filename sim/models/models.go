// Package models simulates speech models behind their vendors' sockets: strictly, so that what the
// real one would not take is a complaint. They speak when the caller pauses, and are interrupted
// when the caller speaks.
package models

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"sync"
	"time"

	"voicebridge/codec"
	"voicebridge/ws"
)

// Answer is what a model does in one turn.
type Answer struct {
	PCM  []int16 // what it says, at Rate
	Text string  // the same in words
	Tool *Tool   // what it wants done then
	// Fail has the turn fail with this code.
	Fail string
}

// Tool is a call of one.
type Tool struct {
	Name, Arguments string
}

// Sent notes what the model says.
const Sent = "sent"

// Rate is that of an Answer's audio, in Hz.
const Rate = 24000

// Script is what a simulated model says, and notes of what it is told. It is for one connection at a time.
type Script struct {
	Key    string                // what the bridge must show; empty: anything
	Answer func(turn int) Answer // the greeting, if one is asked for, is turn 0
	Expire time.Duration         // the session ends after so much of the caller's audio; 0: it does not
	Pause  time.Duration         // of the caller, after which it answers; 0: half a second
	// Break is after how much of the caller's audio the first connection breaks; 0: it does not.
	Break time.Duration
	// GoAway is after how much of the caller's audio the first connection is announced to end, where the vendor
	// does that; 0: it is not.
	GoAway time.Duration
	Heard  func(caller []int16)     // the caller's audio; may be nil
	Note   func(what string, v any) // each message, by its type, or Sent, in order; may be nil

	turn  int           // that comes next
	heard time.Duration // of the caller, in the first connection

	mu         sync.Mutex
	complaints []string
}

// Complaints are what the real model would not have taken.
func (s *Script) Complaints() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.complaints...)
}

func (s *Script) complain(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.complaints = append(s.complaints, fmt.Sprintf(format, args...))
}

func (s *Script) note(what string, v any) {
	if s.Note != nil {
		s.Note(what, v)
	}
}

// breaks takes note of the caller's audio, and reports whether the connection breaks now.
func (s *Script) breaks(heard time.Duration) bool {
	before := s.heard
	s.heard += heard
	return s.Break > 0 && before < s.Break && s.heard >= s.Break
}

// accept takes a connection, whose limits are those of models.
func accept(w http.ResponseWriter, r *http.Request, subprotocols []string) (*ws.Conn, error) {
	return ws.Accept(w, r, subprotocols, ws.Limits{Text: 16 << 20, Binary: 1 << 20, Write: 10 * time.Second})
}

// errBroken is why a connection ends that is to break.
var errBroken = errors.New("models: it breaks")

// part ends a connection, as it has ended.
func part(s *Script, conn *ws.Conn, err error) {
	s.note("closed", err)
	if errors.Is(err, errBroken) {
		leave(conn, ws.CloseInternal, "")
		return
	}
	leave(conn, ws.CloseNormal, "")
}

// leave closes a connection, and waits for its end.
func leave(conn *ws.Conn, code int, reason string) {
	conn.Close(code, reason)
	for err := error(nil); err == nil; {
		_, _, err = conn.Read()
	}
	conn.Release()
}

const (
	// loud is the level above which the caller speaks.
	loud       = 700
	speechTime = 80 * time.Millisecond  // of loud audio until that counts
	pauseTime  = 500 * time.Millisecond // of silence until a turn ends
)

// detector tells when the caller speaks.
type detector struct {
	speaking     bool
	loudFor, off time.Duration
	pause        time.Duration // that ends a turn
}

// hear takes audio, and reports whether the caller has begun, or ceased, to speak.
func (d *detector) hear(pcm []int16, rate int) (began, paused bool) {
	length := time.Duration(len(pcm)) * time.Second / time.Duration(rate)
	if rms(pcm) > loud {
		d.loudFor, d.off = d.loudFor+length, 0
	} else {
		d.off += length
		if d.off > codec.FrameTime {
			d.loudFor = 0
		}
	}
	switch {
	case !d.speaking && d.loudFor >= speechTime:
		d.speaking = true
		return true, false
	case d.speaking && d.off >= cmp.Or(d.pause, pauseTime):
		d.speaking = false
		return false, true
	}
	return false, false
}

func rms(pcm []int16) float64 {
	sum := 0.0
	for _, v := range pcm {
		sum += float64(v) * float64(v)
	}
	return math.Sqrt(sum / float64(max(1, len(pcm))))
}

// pieceTime is how much a model says at once; it makes one while it hears 20 ms.
const pieceTime = 200 * time.Millisecond

// voice is the answer that is being made, in the format of the connection.
type voice struct {
	rest   []int16
	tc     *codec.Resampler
	format codec.Format
}

func newVoice(pcm []int16, f codec.Format) *voice {
	v := &voice{rest: pcm, format: f}
	if f.Rate != Rate {
		v.tc = codec.NewResampler(Rate, f.Rate)
	}
	return v
}

// piece returns the next one; none: there is no more.
func (v *voice) piece(length time.Duration) []byte {
	n := min(len(v.rest), int(length*Rate/time.Second))
	pcm := v.rest[:n]
	v.rest = v.rest[n:]
	if v.tc != nil {
		pcm = v.tc.Append(nil, pcm)
	}
	return v.format.Encoding.AppendEncode(nil, pcm)
}

// mouth is how a vendor's model says what happens.
type mouth interface {
	began()              // the caller has begun to speak
	late()               // and what was late has been said
	paused(turn int)     // the caller has paused: the answer of this turn comes next
	answering(a *Answer) // an answer begins
	audio(b []byte)      // a piece of it
	spoken()             // all of it is said
	call(id string, t *Tool)
	failed(code string)
}

// speaker is a model that speaks when the caller pauses, and is interrupted when the caller speaks.
type speaker struct {
	*Script
	conn     *ws.Conn
	mouth    mouth
	in, out  codec.Format
	detector detector
	voice    *voice
	answer   Answer
	calls    map[string]bool // tools without a result
	broken   bool
	serial   int
	pace     time.Duration // how much it says while it hears 20 ms; 0: pieceTime
}

// send says something in JSON.
func (s *speaker) send(binary bool, m map[string]any) {
	s.note(Sent, m)
	if b, err := json.Marshal(m); err != nil {
		s.complain("%v", err)
	} else {
		_ = s.conn.Write(binary, b) // a failure shows in Read
	}
}

// say says something of a type.
func (s *speaker) say(kind string, fields map[string]any) {
	fields["type"] = kind
	s.send(false, fields)
}

// hear takes the caller's audio, and goes on with what is being said.
func (s *speaker) hear(b []byte) {
	pcm := s.in.Encoding.AppendDecode(nil, b)
	if s.Heard != nil {
		s.Heard(pcm)
	}
	if s.broken = s.broken || s.breaks(s.in.Duration(len(b))); s.broken {
		return
	}
	s.detector.pause = s.Pause
	switch began, paused := s.detector.hear(pcm, s.in.Rate); {
	case began:
		s.mouth.began()
		if s.piece() {
			s.mouth.late()
		}
		s.voice = nil
	case paused:
		s.mouth.paused(s.turn)
		s.begin()
	case s.voice != nil && !s.piece():
		s.voice = nil
		s.mouth.spoken()
		s.call()
	}
}

// piece says the next one. It is false where there is none.
func (s *speaker) piece() bool {
	if s.voice == nil {
		return false
	}
	b := s.voice.piece(cmp.Or(s.pace, pieceTime))
	if len(b) > 0 {
		s.mouth.audio(b)
	}
	return len(b) > 0
}

// begin begins an answer.
func (s *speaker) begin() {
	s.answer = s.Answer(s.turn)
	s.turn++
	if s.answer.Fail != "" {
		s.mouth.failed(s.answer.Fail)
		return
	}
	if len(s.answer.PCM) == 0 {
		s.call()
		return
	}
	s.mouth.answering(&s.answer)
	s.voice = newVoice(s.answer.PCM, s.out)
	s.piece()
}

// call calls the tool of the answer.
func (s *speaker) call() {
	if s.answer.Tool == nil {
		return
	}
	if s.calls == nil {
		s.calls = map[string]bool{}
	}
	s.serial++
	id := fmt.Sprintf("call_%d", s.serial)
	s.calls[id] = true
	s.mouth.call(id, s.answer.Tool)
}

// result takes that of a tool, and reports whether it was called.
func (s *speaker) result(id string) bool {
	known := s.calls[id]
	delete(s.calls, id)
	return known
}

// words are what the caller is taken to have said.
func words(turn int) string { return fmt.Sprintf("Words of the caller before turn %d.", turn) }
