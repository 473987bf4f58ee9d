// Package ticket makes and reads the tokens that the bridge gives to carriers, to be
// shown again: in the URL of a media connection, and in those of webhooks. A ticket
// says all that any instance needs to know of the call. Tickets are encrypted, since
// they stand in URLs and hold numbers.
package ticket

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"voicebridge/providers"
)

// Ticket is what a token says: what it is for, which call it is of, and what is known
// of the call.
type Ticket struct {
	Use      Use               `json:"u"`
	ID       string            `json:"i"` // ours, of the call
	Provider string            `json:"p"`
	Account  string            `json:"a"`
	Agent    string            `json:"g"`
	Call     string            `json:"c"` // the carrier's id of the call
	From     string            `json:"f"`
	To       string            `json:"t"`
	Outbound bool              `json:"o,omitempty"`
	Metadata map[string]string `json:"m,omitempty"`
	Returned string            `json:"r,omitempty"` // why the call comes back to an agent
	Returns  int               `json:"n,omitempty"` // how often it has
	Brief    bool              `json:"b,omitempty"` // it is the destination's of a transfer, which is told about it
	Party    string            `json:"d,omitempty"` // or joins this call of ours, whose agent stays
	Listen   bool              `json:"l,omitempty"` // or only listens
	Transfer string            `json:"x,omitempty"`
	Detect   string            `json:"h,omitempty"` // what to do where a machine picks up
	Own      bool              `json:"w,omitempty"` // for this instance, by its own URL
	Do       *providers.Answer `json:"s,omitempty"` // to be given to who asks
	Expires  int64             `json:"e"`           // Unix seconds
	nonce    string            // of the token that it was read from
}

// Use is what a token is for.
type Use string

// The uses.
const (
	Media  Use = "media"  // to connect the stream
	Answer Use = "answer" // to ask what to do with a call that was placed
	Next   Use = "next"   // to ask what to do once a stream or a number is over
	Do     Use = "do"     // to ask for an answer that was decided before
)

// How long tokens are good: a carrier connects at once, but a phone may ring for
// long, and a call that only the carrier knows of may last a day.
const (
	mediaTime  = time.Minute
	AnswerTime = 15 * time.Minute
	NextTime   = 24 * time.Hour
)

// Office makes and reads tokens: AES-GCM under a key that all instances share, so that
// any of them can take what another has made. Each is taken once by an instance.
type Office struct {
	seal cipher.AEAD
	used providers.Once // by nonce
}

// New makes an office; those with the same secret read each other's tokens.
func New(secret string) *Office {
	key := sha256.Sum256([]byte("voicebridge media token\x00" + secret))
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err) // the key has the right length
	}
	seal, err := cipher.NewGCM(block)
	if err != nil {
		panic(err) // AES has the right block size
	}
	return &Office{seal: seal}
}

// Make returns the token of a ticket, for a URL's path.
func (o *Office) Make(t Ticket, now time.Time) string {
	good := mediaTime
	switch t.Use {
	case Answer, Do:
		good = AnswerTime
	case Next:
		good = NextTime
	}
	t.Expires = now.Add(good).Unix()
	plain, err := json.Marshal(t)
	if err != nil {
		panic(err) // strings and numbers always can
	}
	nonce := make([]byte, o.seal.NonceSize())
	_, _ = rand.Read(nonce) // never fails
	return base64.RawURLEncoding.EncodeToString(o.seal.Seal(nonce, nonce, plain, nil))
}

// Read checks a token for a use at a provider. It is used up with Take.
func (o *Office) Read(token string, use Use, provider string, now time.Time) (*Ticket, error) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(token)
	n := o.seal.NonceSize()
	if err != nil || len(raw) < n {
		return nil, errors.New("ticket: not a token")
	}
	plain, err := o.seal.Open(nil, raw[:n], raw[n:], nil)
	if err != nil {
		return nil, errors.New("ticket: forged token, or one of another secret")
	}
	var t Ticket
	if err := json.Unmarshal(plain, &t); err != nil {
		return nil, fmt.Errorf("ticket: token: %w", err)
	}
	t.nonce = string(raw[:n])
	switch {
	case t.Use != use:
		return nil, errors.New("ticket: token for something else")
	case t.Provider != provider:
		return nil, errors.New("ticket: token of another carrier")
	case now.After(time.Unix(t.Expires, 0)):
		return nil, errors.New("ticket: token has expired")
	}
	return &t, nil
}

// Nonce names the token that a ticket was read from, to other instances.
func (t *Ticket) Nonce() string { return base64.RawURLEncoding.EncodeToString([]byte(t.nonce)) }

// Take uses a token up. It is false where that has been done before.
func (o *Office) Take(t *Ticket, now time.Time) bool {
	return o.used.First(t.nonce, now, time.Unix(t.Expires, 0))
}
