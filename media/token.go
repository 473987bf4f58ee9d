package media

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

// ticket is what a token says: which call it is for, what for, and what is known
// of the call, so that any instance can take it. Tokens are encrypted, since they
// stand in URLs and hold numbers.
type ticket struct {
	Use      string            `json:"u"`
	ID       string            `json:"i"`
	Provider string            `json:"p"`
	Account  string            `json:"a"`
	Agent    string            `json:"g"`
	Call     string            `json:"c"`
	From     string            `json:"f"`
	To       string            `json:"t"`
	Outbound bool              `json:"o,omitempty"`
	Metadata map[string]string `json:"m,omitempty"` // not in that for media: the carrier tells it
	Returned string            `json:"r,omitempty"` // why the call comes back to an agent
	Returns  int               `json:"n,omitempty"` // how often it has
	Brief    bool              `json:"b,omitempty"` // it is the destination's of a transfer, which is told about it
	Party    string            `json:"d,omitempty"` // or joins this call of ours, whose agent stays
	Listen   bool              `json:"l,omitempty"` // or only listens
	Transfer string            `json:"x,omitempty"`
	Own      bool              `json:"w,omitempty"` // for this instance, by Config.InstanceURL
	Expires  int64             `json:"e"`           // Unix seconds
	nonce    string            // of the token that it was read from
}

// What a token is for.
const (
	useMedia  = "media"  // to connect the stream
	useAnswer = "answer" // to ask what to do with a call that was placed
	useNext   = "next"   // to ask what to do once a stream or a number is over
)

// A carrier connects at once, but a phone may ring for long.
const (
	ticketTime = time.Minute
	answerTime = 15 * time.Minute
)

// tokens makes and takes media tokens: AES-GCM under a key that all instances
// share, so that any of them can take what another has made. Each is taken once
// by an instance.
type tokens struct {
	seal cipher.AEAD
	used providers.Once // by nonce
}

func newTokens(secret string) *tokens {
	key := sha256.Sum256([]byte("voicebridge media token\x00" + secret))
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err) // the key has the right length
	}
	seal, err := cipher.NewGCM(block)
	if err != nil {
		panic(err) // AES has the right block size
	}
	return &tokens{seal: seal}
}

// make gives the token of a ticket, for a URL's path.
func (t *tokens) make(tk ticket, now time.Time) string {
	tk.Expires = now.Add(ticketTime).Unix()
	switch tk.Use {
	case useAnswer:
		tk.Expires = now.Add(answerTime).Unix()
	case useNext:
		tk.Expires = now.Add(mostTime).Unix()
	}
	plain, err := json.Marshal(tk)
	if err != nil {
		panic(err) // strings and numbers always can
	}
	nonce := make([]byte, t.seal.NonceSize())
	_, _ = rand.Read(nonce) // never fails
	return base64.RawURLEncoding.EncodeToString(t.seal.Seal(nonce, nonce, plain, nil))
}

// read checks a token for a use at a provider. It is taken with take.
func (t *tokens) read(token, use, provider string, now time.Time) (*ticket, error) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(token)
	n := t.seal.NonceSize()
	if err != nil || len(raw) < n {
		return nil, errors.New("media: not a token")
	}
	plain, err := t.seal.Open(nil, raw[:n], raw[n:], nil)
	if err != nil {
		return nil, errors.New("media: forged token, or one of another secret")
	}
	var tk ticket
	if err := json.Unmarshal(plain, &tk); err != nil {
		return nil, fmt.Errorf("media: token: %w", err)
	}
	tk.nonce = string(raw[:n])
	switch {
	case tk.Use != use:
		return nil, errors.New("media: token for something else")
	case tk.Provider != provider:
		return nil, errors.New("media: token of another carrier")
	case now.After(time.Unix(tk.Expires, 0)):
		return nil, errors.New("media: token has expired")
	}
	return &tk, nil
}

// nonceText names a token to other instances.
func (tk *ticket) nonceText() string { return base64.RawURLEncoding.EncodeToString([]byte(tk.nonce)) }

// take uses a token up. It is false where that has been done before.
func (t *tokens) take(tk *ticket, now time.Time) bool {
	return t.used.First(tk.nonce, now, time.Unix(tk.Expires, 0))
}
