package ari

import (
	"encoding/json"
	"strings"
)

// State is what a channel is doing for the bridge: the URLs, in the words of
// providers.Answer, that its events belong to. It stands in a variable of the channel, so
// that every instance knows it, also one that has just begun.
type State struct {
	Answer string `json:"a,omitempty"` // a placed call is answered
	Status string `json:"s,omitempty"` // its reports; it stays
	Digits string `json:"g,omitempty"` // pressed when it is answered
	Next   string `json:"n,omitempty"` // the step is over
	Key    string `json:"k,omitempty"` // a key is pressed
	Do     string `json:"d,omitempty"` // what comes after words
	Room   string `json:"r,omitempty"` // who comes into the room and leaves it
	// Bridge is the one that the channel is in, Left the Room of the one that it has been taken
	// out of last.
	Bridge string `json:"b,omitempty"`
	Left   string `json:"l,omitempty"`
	Wait   bool   `json:"w,omitempty"` // it hears music in the room until somebody else is there
	Play   string `json:"p,omitempty"` // the playback whose end counts
	Media  string `json:"m,omitempty"` // the channel with its audio
	Dialed string `json:"t,omitempty"` // the channel of the number that it is being connected to
	For    string `json:"f,omitempty"` // the channel that this one is for, or to be connected to
	URL    string `json:"u,omitempty"` // of a channel with audio: where it is streamed to
}

// Variable is the channel variable with the state.
const Variable = "VOICEBRIDGE"

func (st State) Encode() string {
	b, _ := json.Marshal(st) // strings always can
	return string(b)
}

// DecodeState reads a state; what is none is the zero one.
func DecodeState(s string) (st State) {
	if json.Unmarshal([]byte(s), &st) != nil {
		return State{}
	}
	return st
}

// RefOf is the part of a URL behind the account's own; see providers.CallEvent.
func RefOf(u string) string {
	_, rest, _ := strings.Cut(u, "/hooks/asterisk/")
	_, ref, _ := strings.Cut(rest, "/")
	return ref
}
