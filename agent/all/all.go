// Package all is the list of dialects. A new dialect adds one line.
package all

import (
	"voicebridge/agent"
	"voicebridge/agent/link"
	"voicebridge/agent/twilio"
	"voicebridge/agent/voicebridge"
)

// Dialects lists every dialect; the first is the one where none is named.
var Dialects = []*agent.Dialect{
	voicebridge.Dialect,
	twilio.Dialect,
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
