package plivoliketest

import (
	"errors"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"voicebridge/codec"
	"voicebridge/providers"
	"voicebridge/providers/providertest"
)

// sample makes an account with made-up credentials, and its other end.
func sample(t testing.TB, spec *providers.Spec) (*providers.Account, providers.Exchange) {
	t.Helper()
	setup := providers.Setup{Decode: spec.Sample("https://127.0.0.1:1", codec.Format{Encoding: codec.PCMU, Rate: 8000})}
	a, err := spec.NewAccount(setup)
	if err != nil {
		t.Fatal(err)
	}
	x, err := spec.NewExchange(setup)
	if err != nil {
		t.Fatal(err)
	}
	return a, x
}

// seed adds all fixtures whose names end so.
func seed(f *testing.F, endings ...string) {
	for _, e := range endings {
		names, err := filepath.Glob(filepath.Join("testdata", "fixtures", "*"+e))
		if err != nil {
			f.Fatal(err)
		}
		for _, name := range names {
			f.Add(providertest.Fixture(f, filepath.Base(name)))
		}
	}
}

// FuzzDecode gives anything to both ends of a media connection. What is read fast means
// the same when other messages come between.
func FuzzDecode(f *testing.F, spec *providers.Spec) {
	seed(f, ".json")
	begin := providertest.Fixture(f, "media-start.json")
	f.Fuzz(func(t *testing.T, data []byte) {
		s, other := spec.NewStream(), spec.NewStream()
		for _, s := range []providers.Stream{s, other} {
			if _, err := s.Decode(nil, providers.Message{Data: begin}); err != nil {
				t.Fatal(err)
			}
		}
		evs, err := s.Decode(nil, providers.Message{Data: data})
		spaced, err2 := other.Decode(nil, providers.Message{Data: append([]byte("\n \t"), data...)})
		if (err == nil) != (err2 == nil) || err == nil && !reflect.DeepEqual(evs, spaced) {
			t.Errorf("%q: %+v, %v; after white space %+v, %v", data, evs, err, spaced, err2)
		}
		var cmd providers.Command
		_ = spec.NewPeer().Decode(providers.Message{Data: data}, &cmd)
	})
}

// FuzzWebhook gives anything to an account's webhooks and to the carrier's end.
func FuzzWebhook(f *testing.F, spec *providers.Spec) {
	seed(f, ".form", ".xml", ".json")
	f.Fuzz(func(t *testing.T, data []byte) {
		a, x := sample(t, spec)
		for purpose := providers.ForAnswer; purpose <= providers.ForRoom; purpose++ {
			evs, err := a.Webhooks.Read(&providers.Hook{Method: "POST", Purpose: purpose, Body: data})
			for _, ev := range evs {
				if err != nil || ev.Kind == 0 || ev.Leg == "" {
					t.Errorf("%q: %+v, %v", data, ev, err)
				}
			}
		}
		_, _ = x.Answer("application/xml", data)
		for _, path := range []string{"Call/", "Call/1/", "Call/1/DTMF/"} {
			r := httptest.NewRequest("POST", "/Account/MA1/"+path, strings.NewReader(string(data)))
			_, _ = x.Operation(r, data, time.Now())
		}
	})
}

// HiddenRoom is for a carrier that does not tell who is in a running conference, with one
// reply, and tells with another that nobody is.
func HiddenRoom(t *testing.T, spec *providers.Spec, hidden, ended string) {
	c := Carrier{Spec: spec, Account: "MA_1", Token: "t"}
	rt := &roundTrip{t: t, status: 200, reply: hidden}
	if _, err := c.account(t, rt).InRoom(t.Context(), "xfer-0001", "a"); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("%s: %v", hidden, err)
	}
	for _, status := range []int{200, 404} {
		rt.status, rt.reply = status, ended
		if in, err := c.account(t, rt).InRoom(t.Context(), "xfer-0001", "a"); err != nil || in[0] {
			t.Errorf("%s: %v, %v", ended, in, err)
		}
	}
}
