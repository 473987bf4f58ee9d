// Package all is the list of dialects. A new dialect adds one line.
package all

import (
	"fmt"
	"strings"

	"voicebridge/agent"
	"voicebridge/agent/deepgram"
	"voicebridge/agent/elevenlabs"
	"voicebridge/agent/gemini"
	"voicebridge/agent/link"
	"voicebridge/agent/openai"
	"voicebridge/agent/openailive"
	"voicebridge/agent/pipecat"
	"voicebridge/agent/twilio"
	"voicebridge/agent/ultravox"
	"voicebridge/agent/voicebridge"
)

// Dialects lists every dialect; the first is the one where none is named.
var Dialects = []*agent.Dialect{
	voicebridge.Dialect,
	twilio.Dialect,
	pipecat.Dialect,
	openai.Dialect,
	openailive.Dialect,
	gemini.Dialect,
	deepgram.Dialect,
	elevenlabs.Dialect,
	ultravox.Dialect,
}

// Lookup finds a dialect by its name; nil if there is none.
func Lookup(name string) *agent.Dialect {
	for _, d := range Dialects {
		if d.Name == name {
			return d
		}
	}
	return nil
}

// Names lists the names of the dialects.
func Names() (names []string) {
	for _, d := range Dialects {
		names = append(names, d.Name)
	}
	return names
}

// NewDialer makes what dials an agent that speaks the first dialect, as it comes.
func NewDialer(cfg link.Config) (*link.Dialer, error) {
	var err error
	cfg.Dialect = Dialects[0]
	if cfg.Protocol, err = cfg.Dialect.New(agent.Options{}); err != nil {
		return nil, err
	}
	return link.New(cfg)
}

// Table lists the dialects and what their agents can do, in Markdown.
func Table() string {
	var b strings.Builder
	b.WriteString("| protocol | for | audio | is told what was heard by | ends the call | presses keys | transfers | " +
		"your own tools | tells what was said | connects itself |\n" + strings.Repeat("| --- ", 10) + "|\n")
	yes := map[bool]string{true: "yes", false: "no"}
	for _, d := range Dialects {
		can := &d.Can
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", d.Name, d.Title, can.Formats, can.Marks,
			yes[can.Hangup], yes[can.Digits], yes[can.Transfers], yes[can.Tools], yes[can.Words], yes[can.Incoming])
	}
	return b.String()
}
