package directory

import (
	"cmp"

	"voicebridge/providers"
)

// Words are what callers and destinations are told by the bridge itself, and how it is spoken.
type Words struct {
	// Language (BCP 47) and Voice are those of all that names none; empty: the carrier's own.
	Language, Voice string
	Busy            string // no more calls are taken
	NotInService    string // no route fits
	NoAnswer        string // of a number that a caller was being connected to
	NotConnected    string // a transfer has left a caller whom nobody can be given back to
	Accept          string // to a destination that must accept a call
}

// DefaultWords are what is said where nothing else is configured.
var DefaultWords = Words{
	Busy:         "All lines are busy. Please call again later.",
	NotInService: "This number is not in service.",
	NoAnswer:     "We are sorry, nobody answers there. Please call again later.",
	NotConnected: "We are sorry, your call cannot be connected. Please call again later.",
	Accept:       "You have a call. Press 1 to take it.",
}

// or is w, and where it says nothing what others say.
func (w Words) or(o Words) Words {
	return Words{cmp.Or(w.Language, o.Language), cmp.Or(w.Voice, o.Voice), cmp.Or(w.Busy, o.Busy),
		cmp.Or(w.NotInService, o.NotInService), cmp.Or(w.NoAnswer, o.NoAnswer), cmp.Or(w.NotConnected, o.NotConnected),
		cmp.Or(w.Accept, o.Accept)}
}

// Words are those of now.
func (d *Directory) Words() *Words { return &d.now.Load().Words }

// Say is an answer that says a text, in a language and with a voice, or those of all others.
func (d *Directory) Say(text, language, voice string) *providers.Answer {
	if text == "" {
		return &providers.Answer{}
	}
	w := d.Words()
	return &providers.Answer{Say: text, Language: cmp.Or(language, w.Language), Voice: cmp.Or(voice, w.Voice)}
}
