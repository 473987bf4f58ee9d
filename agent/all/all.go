// Package all is the list of dialects. A new dialect adds one line.
package all

import (
	"voicebridge/agent"
	"voicebridge/agent/voicebridge"
)

// Dialects lists every dialect; the first is the one where none is named.
var Dialects = []*agent.Dialect{
	voicebridge.Dialect,
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
