package telnyx

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"

	"voicebridge/codec"
	"voicebridge/providers/internal/telnyxmedia"
)

// state is what Telnyx gives back with the events of a leg, as client_state: the URLs of
// what it may ask and tell, in the words of providers.Answer. The account uses the part of
// each behind its own.
type state struct {
	Answer string `json:"a,omitempty"` // a placed call is answered
	Status string `json:"s,omitempty"`
	Next   string `json:"n,omitempty"` // the step is over
	Key    string `json:"k,omitempty"`
	Room   string `json:"r,omitempty"`
	Do     string `json:"d,omitempty"` // what comes after words, or after picking up
	Format string `json:"f,omitempty"` // of a stream, where it is not the usual one
	// Conference is the id of the one that the leg is in; Number the leg that was connected
	// to a number, in the state of the number's own leg.
	Conference string `json:"c,omitempty"`
	Number     string `json:"l,omitempty"`
}

func (st state) encode() string {
	if st == (state{}) {
		return ""
	}
	b, _ := json.Marshal(st) // strings always can
	return base64.StdEncoding.EncodeToString(b)
}

// decodeState reads a state. It is the zero one where somebody else has set it.
func decodeState(s string) (st state, err error) {
	b, err := base64.StdEncoding.DecodeString(s)
	if err == nil && len(b) > 0 {
		err = json.Unmarshal(b, &st)
	}
	if err != nil {
		return state{}, fmt.Errorf("telnyx: client_state: %w", err)
	}
	return st, nil
}

// refOf is the part of a URL behind the account's own; see providers.CallEvent.
func refOf(u string) string {
	_, rest, _ := strings.Cut(u, "/hooks/telnyx/")
	_, ref, _ := strings.Cut(rest, "/")
	return ref
}

// nextParam of a stream's URL has what is asked once the stream is over: the event that
// tells of that has no client_state, but this URL.
const nextParam = "next"

// streamURL returns the URL of a stream that asks at next.
func streamURL(media, next string) string {
	if next == "" {
		return media
	}
	separator := "?"
	if strings.Contains(media, "?") {
		separator = "&"
	}
	return media + separator + nextParam + "=" + url.QueryEscape(next)
}

// nextOf is the reverse of streamURL.
func nextOf(stream string) (media, next string) {
	for _, separator := range []string{"?", "&"} {
		if i := strings.LastIndex(stream, separator+nextParam+"="); i >= 0 {
			next, err := url.QueryUnescape(stream[i+len(separator+nextParam+"="):])
			if err == nil {
				return stream[:i], next
			}
		}
	}
	return stream, ""
}

// stateOf is the state of a stream of a format: the usual one needs none.
func stateOf(f codec.Format) (st state) {
	if f != telnyxmedia.Formats[0] {
		st.Format = f.String()
	}
	return st
}

// format of a stream, as its state tells.
func (st *state) format() codec.Format {
	for _, f := range telnyxmedia.Formats {
		if st.Format == f.String() {
			return f
		}
	}
	return telnyxmedia.Formats[0]
}
