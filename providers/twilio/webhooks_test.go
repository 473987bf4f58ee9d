package twilio

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"voicebridge/providers"
)

func account(t testing.TB) providers.Webhooks {
	t.Helper()
	w, err := NewWebhooks(func(c any) error {
		*c.(*Config) = Config{AccountSID: "AC00000000000000000000000000000001", AuthToken: "12345"}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

const form = "AccountSid=AC00000000000000000000000000000001&CallSid=CA00000000000000000000000000000001&CallStatus=ringing&Direction=inbound&From=%2B15550001111&To=%2B15550002222"

func hook(url, kind, signature, body string) *providers.Hook {
	return &providers.Hook{Method: "POST", URL: url, Body: []byte(body),
		Header: http.Header{"Content-Type": {kind}, "X-Twilio-Signature": {signature}}}
}

// TestSignatureVectors: the signatures were computed by other programs, and
// accepted by Twilio's Node SDK 6.2.0.
func TestSignatureVectors(t *testing.T) {
	const formType, jsonType = "application/x-www-form-urlencoded; charset=utf-8", "application/json"
	const voice = "https://bridge.example.com/twilio/voice?tenant=acme"
	const jsonURL = "https://bridge.example.com/twilio/json?bodySHA256=9069c7d7adf1d9386fde3667b96c019ec1764d66a5d1ba7d08eaf4b8a62f8f77"
	get := hook("wss://bridge.example.com/twilio/media/abc123", "", "4hkiIMV1yWStSSx7nhG0SjH9nsw=", "")
	get.Method = "GET"
	asHTTPS := hook("wss://bridge.example.com/twilio/media/abc123", "", "/T79giQr0mFjCh86Bznp+oBJRrk=", "")
	asHTTPS.Method = "GET"
	for name, tt := range map[string]struct {
		hook *providers.Hook
		good bool
	}{
		"form":              {hook(voice, formType, "Du3rGnBMTDNUmIkbWlI887Ui1XA=", form), true},
		"with a port":       {hook(strings.Replace(voice, ".com/", ".com:443/", 1), formType, "Du3rGnBMTDNUmIkbWlI887Ui1XA=", form), true},
		"of the vendor":     {hook("https://mycompany.com/myapp.php?foo=1&bar=2", formType, "RSOYDt4T1cUTdK1PDd93/VVr8B8=", "CallSid=CA1234567890ABCDE&Caller=%2B14158675309&Digits=1234&From=%2B14158675309&To=%2B18005551212"), true},
		"JSON":              {hook(jsonURL, jsonType, "zbCAE6jDR6FGaJHGK359YFgNsI0=", `{"property":"value","n":1}`), true},
		"socket":            {get, true},
		"socket as https":   {asHTTPS, false},
		"JSON changed":      {hook(jsonURL, jsonType, "zbCAE6jDR6FGaJHGK359YFgNsI0=", `{"property":"value","n":2}`), false},
		"form changed":      {hook(voice, formType, "Du3rGnBMTDNUmIkbWlI887Ui1XA=", form+"&x=y"), false},
		"form as JSON":      {hook(voice, jsonType, "Du3rGnBMTDNUmIkbWlI887Ui1XA=", form), false},
		"other URL":         {hook(voice+"&x", formType, "Du3rGnBMTDNUmIkbWlI887Ui1XA=", form), false},
		"other port":        {hook(strings.Replace(voice, ".com/", ".com:8443/", 1), formType, "Du3rGnBMTDNUmIkbWlI887Ui1XA=", form), false},
		"plain http":        {hook(strings.Replace(voice, "https", "http", 1), formType, "Du3rGnBMTDNUmIkbWlI887Ui1XA=", form), false},
		"none":              {hook(voice, formType, "", form), false},
		"not base64":        {hook(voice, formType, "?", form), false},
		"broken form":       {hook(voice, formType, "Du3rGnBMTDNUmIkbWlI887Ui1XA=", "%"), false},
		"of an empty token": {hook(voice, formType, "Zm9v", form), false},
	} {
		err := account(t).Authenticate(tt.hook, time.Now())
		if (err == nil) != tt.good || err != nil && (!errors.Is(err, providers.ErrSignature) || strings.Contains(err.Error(), "12345")) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFormData(t *testing.T) {
	if got := formData(map[string][]string{"b": {"2", "1", "2"}, "a": {""}, "B": {"x"}}); got != "Bxab1b2" {
		t.Errorf("%q: each different value of a repeated name counts, in order", got)
	}
}

func TestInbound(t *testing.T) {
	w := account(t)
	call, err := w.Inbound(hook("", "", "", form))
	if err != nil || *call != (providers.InboundCall{ID: "CA00000000000000000000000000000001", From: "+15550001111", To: "+15550002222"}) {
		t.Errorf("%+v, %v", call, err)
	}
	for _, bad := range []string{"", "%", "CallSid=CA1", strings.Replace(form, "AC0", "AC1", 1), form + "&CallSid=CA2", strings.Replace(form, "CallStatus=ringing", "CallStatus=", 1)} {
		if _, err := w.Inbound(hook("", "", "", bad)); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}

func TestStatus(t *testing.T) {
	w := account(t)
	for raw, want := range map[string]providers.Status{
		"queued": "initiated", "initiated": "initiated", "ringing": "ringing", "in-progress": "in-progress", "completed": "completed",
		"busy": "busy", "no-answer": "no-answer", "failed": "failed", "canceled": "canceled", "whatever": "error",
	} {
		r, err := w.Status(hook("", "", "", strings.Replace(form, "CallStatus=ringing", "CallStatus="+raw, 1)))
		if err != nil || r.Status != want || r.Raw != raw || r.Call != "CA00000000000000000000000000000001" {
			t.Errorf("%s: %+v, %v", raw, r, err)
		}
	}
}

func TestDocuments(t *testing.T) {
	w := account(t)
	const head = `<?xml version="1.0" encoding="UTF-8"?>` + "\n"
	doc, err := w.Connect("wss://bridge.example.com/media/twilio/abc")
	if want := head + `<Response><Connect><Stream url="wss://bridge.example.com/media/twilio/abc"></Stream></Connect></Response>`; err != nil || string(doc.Body) != want {
		t.Errorf("%s, %v\nwant %s", doc.Body, err, want)
	}
	doc, err = w.Refuse("Sorry, <all> lines & operators are busy.")
	if want := head + `<Response><Say>Sorry, &lt;all&gt; lines &amp; operators are busy.</Say><Hangup></Hangup></Response>`; err != nil || string(doc.Body) != want {
		t.Errorf("%s, %v\nwant %s", doc.Body, err, want)
	}
}

func FuzzWebhook(f *testing.F) {
	f.Add([]byte(form))
	f.Add([]byte("CallSid=CA1&CallSid=CA2"))
	f.Fuzz(func(t *testing.T, body []byte) {
		w := account(t)
		h := hook("https://bridge.example.com/x", "application/x-www-form-urlencoded", "Zm9v", string(body))
		if w.Authenticate(h, time.Now()) == nil {
			t.Fatal("a forged signature was taken")
		}
		if call, err := w.Inbound(h); err == nil && call.ID == "" {
			t.Fatal("a call without id")
		}
		_, _ = w.Status(h)
	})
}
