package models

import (
	"net/http"
	"time"

	"voicebridge/sim/ear"
)

// Model is a simulated model.
type Model interface {
	http.Handler
	Complaints() []string
}

// Kind is a simulated model of a dialect.
type Kind struct {
	Dialect string
	// Options are those of an agent that reaches it, beside its greeting.
	Options map[string]any
	// Greets tells that a greeting has to be configured, otherwise it always begins.
	Greets bool
	// Duplex tells that it speaks in real time, and falls silent by itself without telling so.
	Duplex bool
	New    func(*Script) Model
}

// List are those that there are.
var List = []Kind{
	{"openai", map[string]any{"key": Key, "model": "simulated", "transcription": "simulated"}, true, false,
		func(s *Script) Model { return OpenAI{s} }},
	{"openai_live", map[string]any{"key": Key, "model": "simulated", "delegate": "simulated"}, true, true,
		func(s *Script) Model { return OpenAILive{s} }},
	{"gemini", map[string]any{"key": Key, "model": "simulated"}, true, false,
		func(s *Script) Model { return Gemini{s} }},
	{"deepgram", map[string]any{"key": Key, "model": "simulated"}, true, false,
		func(s *Script) Model { return Deepgram{s} }},
	{"elevenlabs", map[string]any{"key": Key, "agent_id": "simulated"}, false, false,
		func(s *Script) Model { return ElevenLabs{s} }},
	{"ultravox", map[string]any{"key": Key}, true, false,
		func(s *Script) Model { return Ultravox{s} }},
}

// Key is what Options show.
const Key = "simulated-key"

// Names are the dialects that there are.
func Names() (names []string) {
	for _, m := range List {
		names = append(names, m.Dialect)
	}
	return names
}

// Conversation is the script of a model that greets at length, looks something up when it is asked, tells it, and
// ends the call.
func Conversation(speech []int16) *Script {
	return &Script{Key: Key, Pause: time.Second, Answer: func(turn int) Answer {
		switch turn {
		case 0:
			var long []int16
			for range 3 {
				long = append(append(long, speech...), make([]int16, Rate/5)...)
			}
			return Answer{PCM: long, Text: "Good day, this is the railway. All our lines run today. There is much to " +
				"be said about each of them, and it will be said now, one after the other."}
		case 1:
			return Answer{PCM: speech[:len(speech)/4], Text: "Let me look that up.",
				Tool: &Tool{"find_train", `{"to":"Amsterdam"}`}}
		}
		return Answer{PCM: speech, Text: "The next train to Amsterdam leaves at ten past nine. Goodbye.",
			Tool: &Tool{"end_call", `{"reason":"answered"}`}}
	}}
}

// Voice is how a simulated model speaks: the caller's words, higher, so that the two can be told apart.
func Voice() ([]int16, error) {
	speech, err := ear.Speech(Rate * 4 / 5)
	return speech, err
}

// ConversationTime is how long a call with a Conversation may take.
const ConversationTime = 20 * time.Second
