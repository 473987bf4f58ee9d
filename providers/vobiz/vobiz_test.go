package vobiz

import (
	"testing"
	"time"

	"voicebridge/providers"
	"voicebridge/providers/internal/plivolike"
	"voicebridge/providers/internal/plivolike/plivoliketest"
	"voicebridge/providers/providertest"
)

func TestVobiz(t *testing.T) {
	plivoliketest.Run(t, plivoliketest.Carrier{Spec: Spec, Dialect: dialect,
		Account: "MA_XXXXXXXX", Token: "token0000000000000000000000000001",
		Inbound: "20000002-0000-4000-8000-000000000001", Outbound: "20000002-0000-4000-8000-000000000002",
		Stream: "20000004-0000-4000-8000-000000000001"})
}

// TestFixturesSignatures: a webhook as Vobiz signs it, whose body could be another one: its
// nonce may be used once.
func TestFixturesSignatures(t *testing.T) {
	a, err := Spec.NewAccount(providers.Setup{Decode: func(c any) error {
		*c.(*plivolike.Config) = plivolike.Config{AuthID: "MA_1", AuthToken: "ZmFrZVBsaXZvQXV0aFRva2Vu", Encoding: "mulaw"}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	r, body := providertest.FixtureRequest(t, "webhook-headers.http")
	h := &providers.Hook{Method: "POST", URL: "https://bridge.example.com/vobiz/answer?tenant=acme", Header: r.Header,
		Body: body}
	if once, err := a.Webhooks.Authenticate(h, time.Now()); err != nil || once != "05429567804466091622" {
		t.Errorf("%q, %v", once, err)
	}
}

// TestHiddenRoom: who is in a running conference may not be told.
func TestHiddenRoom(t *testing.T) {
	plivoliketest.HiddenRoom(t, Spec, "rest-conference-get-live-failed.json", "rest-conference-get-ended.json")
}

// FuzzDecode: whatever comes over a media connection neither panics nor sticks.
func FuzzDecode(f *testing.F) { plivoliketest.FuzzDecode(f, Spec) }

// FuzzWebhook: nor does what comes to a webhook, or is answered or asked over REST.
func FuzzWebhook(f *testing.F) { plivoliketest.FuzzWebhook(f, Spec) }
