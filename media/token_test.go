package media

import (
	"testing"
	"time"
)

func TestTokens(t *testing.T) {
	now := time.Now()
	a, b, stranger := newTokens("shared"), newTokens("shared"), newTokens("other")
	want := ticket{Provider: "twilio", Account: "main", Call: "CA1", From: "+15550001111", To: "sip:x"}
	token, err := a.make(want, now)
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := a.make(want, now); again == token {
		t.Error("two tokens are equal")
	}
	got, err := b.read(token, "twilio", now) // another instance
	if err != nil || got.Call != "CA1" || got.From != "+15550001111" || got.To != "sip:x" || got.Account != "main" {
		t.Fatalf("%+v, %v", got, err)
	}
	if !b.take(got, now) || b.take(got, now) {
		t.Error("a token is not taken just once")
	}
	if _, err := b.read(token, "twilio", now.Add(ticketTime-time.Second)); err != nil {
		t.Errorf("in time: %v", err)
	}
	for name, err := range map[string]error{
		"expired":         second(b.read(token, "twilio", now.Add(ticketTime+2*time.Second))),
		"other carrier":   second(b.read(token, "vonage", now)),
		"other secret":    second(stranger.read(token, "twilio", now)),
		"empty":           second(b.read("", "twilio", now)),
		"trailing bits":   second(b.read(token+"=", "twilio", now)),
		"not base64":      second(b.read("!", "twilio", now)),
		"only the nonce":  second(b.read(token[:16], "twilio", now)),
		"one letter less": second(b.read(token[:len(token)-1], "twilio", now)),
	} {
		if err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	later, err := a.make(want, now.Add(2*ticketTime))
	if err != nil {
		t.Fatal(err)
	}
	tk, err := b.read(later, "twilio", now.Add(2*ticketTime))
	if err != nil || !b.take(tk, now.Add(2*ticketTime)) {
		t.Error(err)
	}
}

func second(_ *ticket, err error) error { return err }

func FuzzToken(f *testing.F) {
	tokens := newTokens("secret")
	now := time.Now()
	good, err := tokens.make(ticket{Provider: "twilio", Call: "CA1"}, now)
	if err != nil {
		f.Fatal(err)
	}
	f.Add("AAAA")
	f.Add(good[:20])
	f.Fuzz(func(t *testing.T, s string) {
		if _, err := tokens.read(s, "twilio", now); err == nil && s != good {
			t.Fatalf("%q was taken", s)
		}
	})
}
