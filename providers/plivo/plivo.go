// Package plivo speaks Plivo's voice API and its audio streams. What is alike at carriers
// that have copied it is in package plivolike.
package plivo

import (
	"crypto/subtle"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"voicebridge/codec"
	"voicebridge/providers"
	"voicebridge/providers/internal/plivolike"
	"voicebridge/providers/internal/plivomedia"
)

// Spec describes Plivo.
var Spec = dialect.Spec("Plivo Audio Streams")

var silent = ""

var dialect = &plivolike.Dialect{
	Name: "plivo", Title: "Plivo",
	Abilities: providers.Abilities{
		Marks:      true, // checkpoint
		Clear:      true,
		Clears:     true,
		Digits:     true,
		SendDigits: true,

		RoomLeft:       true,
		RoomEnds:       true,
		Rings:          true,
		RoomHold:       true,
		PressesDigits:  true,
		Detects:        true,
		DetectDigits:   true,
		DigitsAtOnce:   50,
		KeyWait:        plivolike.KeyWait,
		SignsBodies:    true,
		SignsHandshake: true,
	},
	BaseURL:   "https://api.plivo.com/v1",
	Authorize: func(r *http.Request, id, token string) { r.SetBasicAuth(id, token) },
	Authorized: func(r *http.Request, id, token string) bool {
		u, p, _ := r.BasicAuth()
		return subtle.ConstantTimeCompare([]byte(u+":"+p), []byte(id+":"+token)) == 1
	},
	Signature: "X-Plivo-Signature",
	Signed:    signed,
	Media:     plivomedia.Dialect{Name: "plivo", L16In: codec.L16LE, SendsDigits: true},
	Numbers:   plivolike.NumberList{Path: "Number/", Page: "offset", Size: "limit", Offset: true},
	Question:  "GetInput",
	Quiet:     plivolike.Quiet{EnterSound: &silent, ExitSound: &silent},
}

// signed are the texts that Plivo may have signed, after "Signature validation", version
// 3: the URL without its query, then the parameters of the query in order, decoded, then
// those of the form in order, without anything between them. Of the handshake of a media
// connection it is not sure whether its URL begins with wss or https.
func signed(method, address string, body []byte) []string {
	u, err := url.Parse(address)
	if err != nil {
		return []string{address}
	}
	tail := ""
	if query := pairs(u.Query(), "=", "&"); query != "" {
		tail = "?" + query
	}
	if method == "POST" && len(body) > 0 {
		if tail == "" {
			tail = "?"
		} else {
			tail += "."
		}
		form, _ := url.ParseQuery(string(body)) // what is no form fits no signature
		tail += pairs(form, "", "")
	}
	var texts []string
	for _, scheme := range schemes[u.Scheme] {
		texts = append(texts, scheme+"://"+u.Host+u.EscapedPath()+tail)
	}
	return texts
}

var schemes = map[string][]string{"https": {"https"}, "http": {"http"}, "wss": {"wss", "https"},
	"ws": {"ws", "http"}}

// pairs writes parameters in the order of their names, then their values.
func pairs(params url.Values, equals, between string) string {
	var all []string
	for name, values := range params {
		for _, v := range values {
			all = append(all, name+"\x00"+v)
		}
	}
	slices.Sort(all)
	for i, p := range all {
		all[i] = strings.Replace(p, "\x00", equals, 1)
	}
	return strings.Join(all, between)
}
