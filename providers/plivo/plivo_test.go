package plivo

import (
	"testing"
	"time"

	"voicebridge/providers"
	"voicebridge/providers/internal/plivolike"
	"voicebridge/providers/internal/plivolike/plivoliketest"
	"voicebridge/providers/providertest"
)

// vectorToken and vectorNonce are those of the fixtures with signatures, which Plivo's
// Node SDK accepts.
const (
	vectorToken = "ZmFrZVBsaXZvQXV0aFRva2Vu"
	vectorNonce = "05429567804466091622"
)

func TestPlivo(t *testing.T) {
	plivoliketest.Run(t, plivoliketest.Carrier{Spec: Spec, Dialect: dialect,
		Account: "MAXXXXXXXXXXXXXXXXXX", Token: "token",
		Inbound: "10000001-0000-4000-8000-000000000001", Outbound: "10000001-0000-4000-8000-000000000002",
		Stream: "20170ada-0000-4000-8000-000000000001"})
}

func account(t testing.TB, token string) providers.Webhooks {
	t.Helper()
	a, err := Spec.NewAccount(providers.Setup{Decode: func(c any) error {
		*c.(*plivolike.Config) = plivolike.Config{AuthID: "MA1", AuthToken: token, Encoding: "mulaw"}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	return a.Webhooks
}

// TestSignatureVectors: signatures that Plivo's own SDKs make.
func TestSignatureVectors(t *testing.T) {
	w := account(t, vectorToken)
	const form = "CallStatus=ringing&CallUUID=eac94337-b1cd-499b-82d1-b39bca50dc31&Direction=inbound&Event=StartApp&" +
		"From=15550001111&To=15550002222"
	for _, tt := range []struct{ method, url, body, signature string }{
		{"POST", "https://bridge.example.com/plivo/answer", form, "76rR1PDGSSrIU04EL4g6g8Syj9pklMybsuEviqtw/KE="},
		{"POST", "https://bridge.example.com/plivo/answer?tenant=acme&run=7", form,
			"AFdpStB8+ys3JYALUi8B69irYG9zGu7hHBFarOXsyvc="},
		{"GET", "https://bridge.example.com/plivo/media/abc123", "", "EHUxesAnINaYDToLIqzHTDgCQRCe+1tijYSQXRUzkM4="},
		{"GET", "https://bridge.example.com/plivo/media/abc123?tenant=acme&run=7", "",
			"kak8Yenfy3U7GKJKk2Ug9pTWJpwcVns3hN3ngB6pF+E="},
		{"GET", "wss://bridge.example.com/plivo/media/abc123", "", "ZJDZsiyHWgzfbh88ogNsPD8GFBXNuNdJZMmmwUWX0es="},
		{"GET", "wss://bridge.example.com/plivo/media/abc123", "", "EHUxesAnINaYDToLIqzHTDgCQRCe+1tijYSQXRUzkM4="},
		{"POST", "https://bridge.example.com/plivo/answer", form, "xxx, 76rR1PDGSSrIU04EL4g6g8Syj9pklMybsuEviqtw/KE="},
	} {
		h := &providers.Hook{Method: tt.method, URL: tt.url, Body: []byte(tt.body), Header: map[string][]string{
			"X-Plivo-Signature-V3": {tt.signature}, "X-Plivo-Signature-V3-Nonce": {vectorNonce}}}
		if once, err := w.Authenticate(h, time.Now()); err != nil || once != vectorNonce {
			t.Errorf("%s %s: %q, %v", tt.method, tt.url, once, err)
		}
	}
}

// TestFixturesSignatures: a webhook and a handshake as Plivo signs them.
func TestFixturesSignatures(t *testing.T) {
	w := account(t, vectorToken)
	for name, u := range map[string]string{
		"handshake.http":       "wss://bridge.example.com/plivo/media/abc123",
		"webhook-headers.http": "https://bridge.example.com/plivo/answer",
	} {
		r, body := providertest.FixtureRequest(t, name)
		h := &providers.Hook{Method: r.Method, URL: u, Header: r.Header, Body: body}
		if _, err := w.Authenticate(h, time.Now()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzDecode: whatever comes over a media connection neither panics nor sticks.
func FuzzDecode(f *testing.F) { plivoliketest.FuzzDecode(f, Spec) }

// FuzzWebhook: nor does what comes to a webhook, or is answered or asked over REST.
func FuzzWebhook(f *testing.F) { plivoliketest.FuzzWebhook(f, Spec) }
