package ticket

import (
	"testing"
	"time"
)

func TestTokens(t *testing.T) {
	now := time.Now()
	a, b, stranger := New("shared"), New("shared"), New("other")
	want := Ticket{Use: Media, ID: "cs_1", Provider: "twilio", Account: "main", Call: "CA1", From: "+15550001111",
		To: "sip:x"}
	token := a.Make(want, now)
	if a.Make(want, now) == token {
		t.Error("two tokens are equal")
	}
	got, err := b.Read(token, Media, "twilio", now) // another instance
	if err != nil || got.Call != "CA1" || got.From != "+15550001111" || got.To != "sip:x" || got.Account != "main" {
		t.Fatalf("%+v, %v", got, err)
	}
	if !b.Take(got, now) || b.Take(got, now) {
		t.Error("a token is not taken just once")
	}
	if _, err := b.Read(token, Media, "twilio", now.Add(mediaTime-time.Second)); err != nil {
		t.Errorf("in time: %v", err)
	}
	for name, err := range map[string]error{
		"expired":            second(b.Read(token, Media, "twilio", now.Add(mediaTime+2*time.Second))),
		"for something else": second(b.Read(token, Answer, "twilio", now)),
		"other carrier":      second(b.Read(token, Media, "vonage", now)),
		"other secret":       second(stranger.Read(token, Media, "twilio", now)),
		"empty":              second(b.Read("", Media, "twilio", now)),
		"trailing bits":      second(b.Read(token+"=", Media, "twilio", now)),
		"not base64":         second(b.Read("!", Media, "twilio", now)),
		"only the nonce":     second(b.Read(token[:16], Media, "twilio", now)),
		"one letter less":    second(b.Read(token[:len(token)-1], Media, "twilio", now)),
	} {
		if err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	later := a.Make(want, now.Add(2*mediaTime))
	tk, err := b.Read(later, Media, "twilio", now.Add(2*mediaTime))
	if err != nil || !b.Take(tk, now.Add(2*mediaTime)) {
		t.Error(err)
	}
}

func second(_ *Ticket, err error) error { return err }

func FuzzToken(f *testing.F) {
	tokens := New("secret")
	now := time.Now()
	good := tokens.Make(Ticket{Use: Media, Provider: "twilio", Call: "CA1"}, now)
	f.Add("AAAA")
	f.Add(good[:20])
	f.Fuzz(func(t *testing.T, s string) {
		if _, err := tokens.Read(s, Media, "twilio", now); err == nil && s != good {
			t.Fatalf("%q was taken", s)
		}
	})
}
