package media

import (
	"testing"
	"time"
)

func TestTokens(t *testing.T) {
	now := time.Now()
	a, b, stranger := newTokens("shared"), newTokens("shared"), newTokens("other")
	want := ticket{Use: useMedia, ID: "cs_1", Provider: "twilio", Account: "main", Call: "CA1", From: "+15550001111", To: "sip:x"}
	token := a.make(want, now)
	if a.make(want, now) == token {
		t.Error("two tokens are equal")
	}
	got, err := b.read(token, useMedia, "twilio", now) // another instance
	if err != nil || got.Call != "CA1" || got.From != "+15550001111" || got.To != "sip:x" || got.Account != "main" {
		t.Fatalf("%+v, %v", got, err)
	}
	if !b.take(got, now) || b.take(got, now) {
		t.Error("a token is not taken just once")
	}
	if _, err := b.read(token, useMedia, "twilio", now.Add(ticketTime-time.Second)); err != nil {
		t.Errorf("in time: %v", err)
	}
	for name, err := range map[string]error{
		"expired":            second(b.read(token, useMedia, "twilio", now.Add(ticketTime+2*time.Second))),
		"for something else": second(b.read(token, useAnswer, "twilio", now)),
		"other carrier":      second(b.read(token, useMedia, "vonage", now)),
		"other secret":       second(stranger.read(token, useMedia, "twilio", now)),
		"empty":              second(b.read("", useMedia, "twilio", now)),
		"trailing bits":      second(b.read(token+"=", useMedia, "twilio", now)),
		"not base64":         second(b.read("!", useMedia, "twilio", now)),
		"only the nonce":     second(b.read(token[:16], useMedia, "twilio", now)),
		"one letter less":    second(b.read(token[:len(token)-1], useMedia, "twilio", now)),
	} {
		if err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	later := a.make(want, now.Add(2*ticketTime))
	tk, err := b.read(later, useMedia, "twilio", now.Add(2*ticketTime))
	if err != nil || !b.take(tk, now.Add(2*ticketTime)) {
		t.Error(err)
	}
}

func second(_ *ticket, err error) error { return err }

func FuzzToken(f *testing.F) {
	tokens := newTokens("secret")
	now := time.Now()
	good := tokens.make(ticket{Use: useMedia, Provider: "twilio", Call: "CA1"}, now)
	f.Add("AAAA")
	f.Add(good[:20])
	f.Fuzz(func(t *testing.T, s string) {
		if _, err := tokens.read(s, useMedia, "twilio", now); err == nil && s != good {
			t.Fatalf("%q was taken", s)
		}
	})
}
