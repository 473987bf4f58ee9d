// Package vobiz speaks the voice API and the audio streams of Vobiz, which are made after
// Plivo's: what is alike is in package plivolike. Sources: Vobiz' "Agent skills" and its
// SDKs.
package vobiz

import (
	"crypto/subtle"
	"net/http"
	"net/url"

	"voicebridge/codec"
	"voicebridge/providers"
	"voicebridge/providers/internal/plivolike"
	"voicebridge/providers/internal/plivomedia"
)

// Spec describes Vobiz.
var Spec = dialect.Spec("Vobiz Audio Streams")

var dialect = &plivolike.Dialect{
	Name: "vobiz", Title: "Vobiz",
	Abilities: providers.Abilities{
		Marks:  true, // checkpoint
		Clear:  true,
		Clears: true,
		Digits: true, // known from peers' code only

		RoomLeft:      true,
		RoomEnds:      true,
		Rings:         true,
		RoomHold:      true,
		PressesDigits: true,
		Detects:       true,
		DetectDigits:  true,
		DigitsAtOnce:  50,
		KeyWait:       plivolike.KeyWait,
	},
	BaseURL: "https://api.vobiz.ai/api/v1",
	Authorize: func(r *http.Request, id, token string) {
		r.Header.Set("X-Auth-ID", id)
		r.Header.Set("X-Auth-Token", token)
	},
	Authorized: func(r *http.Request, id, token string) bool {
		return subtle.ConstantTimeCompare([]byte(r.Header.Get("X-Auth-ID")+":"+r.Header.Get("X-Auth-Token")),
			[]byte(id+":"+token)) == 1
	},
	Signature: "X-Vobiz-Signature",
	Signed:    signed,
	Media: plivomedia.Dialect{Name: "vobiz", NamesStream: true,
		L16In: codec.L16BE}, // what is played is little-endian all the same
	Plus:       true,
	Numbers:    plivolike.NumberList{Path: "numbers", Page: "page", Size: "per_page"},
	Question:   "Gather",
	Quiet:      plivolike.Quiet{Beep: "false"}, // announces everybody otherwise
	DialActs:   true,
	HidesRooms: true,
}

// signed is the URL without its query: neither that nor the body is signed.
func signed(_, address string, _ []byte) []string {
	u, err := url.Parse(address)
	if err != nil {
		return []string{address}
	}
	return []string{u.Scheme + "://" + u.Host + u.EscapedPath()}
}
