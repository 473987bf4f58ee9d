package gate

import (
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"voicebridge/providers"
)

// once is a carrier whose signature is a token that is good once.
type once struct{ providers.Webhooks }

// Authenticate implements providers.Webhooks.
func (once) Authenticate(h *providers.Hook, _ time.Time) (string, error) {
	if token := h.Header.Get("Token"); token != "" {
		return token, nil
	}
	return "", providers.ErrSignature
}

func hook(token string) *providers.Hook {
	return &providers.Hook{Method: "POST", URL: "https://x", Header: http.Header{"Token": {token}}}
}

// TestOnce: a token is good once for an account, unless what it was for was not done.
func TestOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(nil)
		forget, err := g.Check("main", once{}, hook("a"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := g.Check("main", once{}, hook("a")); !errors.Is(err, providers.ErrReplayed) ||
			!errors.Is(err, providers.ErrSignature) {
			t.Errorf("a replay: %v", err)
		}
		if _, err := g.Check("other", once{}, hook("a")); err != nil {
			t.Errorf("another account: %v", err)
		}
		forget()
		if _, err := g.Check("main", once{}, hook("a")); err != nil {
			t.Errorf("what was not done may come again: %v", err)
		}
		time.Sleep(onceTime + time.Second)
		if _, err := g.Check("main", once{}, hook("a")); err != nil {
			t.Errorf("it is remembered for ever: %v", err)
		}
	})
}

// TestRefused: the last requests that were refused are kept, the newest first.
func TestRefused(t *testing.T) {
	g := New(nil)
	for range keepRefused + 3 {
		_, _ = g.Check("main", once{}, hook(""))
	}
	h := hook("")
	h.Method = "GET"
	_, _ = g.Check("main", once{}, h)
	list := g.Refused("main")
	if len(list) != keepRefused || list[0].Hook.Method != "GET" || !errors.Is(list[0].Err, providers.ErrSignature) ||
		len(g.Refused("other")) != 0 {
		t.Errorf("%d kept, first %+v", len(list), list[0])
	}
}

// shared is what several gates know together.
type shared struct{ once providers.Once }

func (s *shared) First(name string, until time.Time) bool {
	return s.once.First(name, time.Now(), until)
}
func (s *shared) Unused(name string) { s.once.Forget(name) }

// TestOthers: what was used at one instance is not good at another, unless its effect has
// failed.
func TestOthers(t *testing.T) {
	all := new(shared)
	a, b := New(all), New(all)
	h := hook("a")
	forget, err := a.Check("main", once{}, h)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Check("main", once{}, h); !errors.Is(err, providers.ErrReplayed) {
		t.Errorf("used twice: %v", err)
	}
	forget()
	if _, err := b.Check("main", once{}, h); err != nil {
		t.Errorf("sent again after a failure: %v", err)
	}
}
