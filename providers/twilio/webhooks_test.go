package twilio

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"voicebridge/providers"
	"voicebridge/providers/providertest"
)

func account(t testing.TB) providers.Webhooks {
	t.Helper()
	w, err := NewAccount(providers.Setup{Decode: config("")})
	if err != nil {
		t.Fatal(err)
	}
	return w.Webhooks
}

const form = "AccountSid=AC00000000000000000000000000000001&CallSid=CA00000000000000000000000000000001" +
	"&CallStatus=ringing&Direction=inbound&From=%2B15550001111&To=%2B15550002222"

func hook(url, kind, signature, body string) *providers.Hook {
	return &providers.Hook{Method: "POST", URL: url, Body: []byte(body),
		Header: http.Header{"Content-Type": {kind}, "X-Twilio-Signature": {signature}}}
}

// TestSignatureVectors: the signatures were computed by other programs, and
// accepted by Twilio's Node SDK 6.2.0.
func TestSignatureVectors(t *testing.T) {
	const formType, jsonType = "application/x-www-form-urlencoded; charset=utf-8", "application/json"
	const voice = "https://bridge.example.com/twilio/voice?tenant=acme"
	const jsonURL = "https://bridge.example.com/twilio/json?bodySHA256=" +
		"9069c7d7adf1d9386fde3667b96c019ec1764d66a5d1ba7d08eaf4b8a62f8f77"
	get := hook("wss://bridge.example.com/twilio/media/abc123", "", "4hkiIMV1yWStSSx7nhG0SjH9nsw=", "")
	get.Method = "GET"
	asHTTPS := hook("wss://bridge.example.com/twilio/media/abc123", "", "/T79giQr0mFjCh86Bznp+oBJRrk=", "")
	asHTTPS.Method = "GET"
	for name, tt := range map[string]struct {
		hook *providers.Hook
		good bool
	}{
		"form": {hook(voice, formType, "Du3rGnBMTDNUmIkbWlI887Ui1XA=", form), true},
		"with a port": {hook(strings.Replace(voice, ".com/", ".com:443/", 1), formType,
			"Du3rGnBMTDNUmIkbWlI887Ui1XA=", form), true},
		"of the vendor": {hook("https://mycompany.com/myapp.php?foo=1&bar=2", formType,
			"RSOYDt4T1cUTdK1PDd93/VVr8B8=", "CallSid=CA1234567890ABCDE&Caller=%2B14158675309&Digits=1234"+
				"&From=%2B14158675309&To=%2B18005551212"), true},
		"JSON": {hook(jsonURL, jsonType, "zbCAE6jDR6FGaJHGK359YFgNsI0=", `{"property":"value","n":1}`),
			true},
		"socket":          {get, true},
		"socket as https": {asHTTPS, false},
		"JSON changed": {hook(jsonURL, jsonType, "zbCAE6jDR6FGaJHGK359YFgNsI0=", `{"property":"value","n":2}`),
			false},
		"form changed": {hook(voice, formType, "Du3rGnBMTDNUmIkbWlI887Ui1XA=", form+"&x=y"), false},
		"form as JSON": {hook(voice, jsonType, "Du3rGnBMTDNUmIkbWlI887Ui1XA=", form), false},
		"other URL":    {hook(voice+"&x", formType, "Du3rGnBMTDNUmIkbWlI887Ui1XA=", form), false},
		"without the port of the URL": {hook(strings.Replace(voice, ".com/", ".com:8443/", 1), formType,
			"Du3rGnBMTDNUmIkbWlI887Ui1XA=", form), true},
		"with another port": {hook(strings.Replace(voice, ".com/", ".com:8443/", 1), formType,
			"Zr3rGnBMTDNUmIkbWlI887Ui1XA=", form), false},
		"plain http": {hook(strings.Replace(voice, "https", "http", 1), formType, "Du3rGnBMTDNUmIkbWlI887Ui1XA=",
			form), false},
		"none":              {hook(voice, formType, "", form), false},
		"not base64":        {hook(voice, formType, "?", form), false},
		"broken form":       {hook(voice, formType, "Du3rGnBMTDNUmIkbWlI887Ui1XA=", "%"), false},
		"of an empty token": {hook(voice, formType, "Zm9v", form), false},
	} {
		_, err := account(t).Authenticate(tt.hook, time.Now())
		if (err == nil) != tt.good || err != nil &&
			(!errors.Is(err, providers.ErrSignature) || strings.Contains(err.Error(), "12345")) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFormData(t *testing.T) {
	if got := formData(map[string][]string{"b": {"2", "1", "2"}, "a": {""}, "B": {"x"}}); got != "Bxab1b2" {
		t.Errorf("%q: each different value of a repeated name counts, in order", got)
	}
}

// read reads a form as the request of a URL that was given for a purpose.
func read(t *testing.T, body string, purpose providers.Purpose) ([]providers.CallEvent, error) {
	h := hook("", "", "", body)
	h.Purpose = purpose
	return account(t).Read(h)
}

func TestAsked(t *testing.T) {
	for _, bad := range []string{"", "%", "CallSid=CA1", strings.Replace(form, "AC0", "AC1", 1),
		form + "&CallSid=CA2"} {
		if evs, err := read(t, bad, providers.ForAnswer); err == nil {
			t.Errorf("%s was taken: %+v", bad, evs)
		}
	}
}

func TestStatus(t *testing.T) {
	for raw, want := range map[string]providers.Status{
		"queued": "initiated", "initiated": "initiated", "ringing": "ringing", "in-progress": "in-progress",
		"completed": "completed",
		"busy":      "busy", "no-answer": "no-answer", "failed": "failed", "canceled": "canceled", "whatever": "error",
	} {
		evs, err := read(t, strings.Replace(form, "CallStatus=ringing", "CallStatus="+raw, 1), providers.ForStatus)
		if err != nil || len(evs) != 1 || evs[0].Status != want || evs[0].Raw != raw ||
			evs[0].Leg != "CA00000000000000000000000000000001" {
			t.Errorf("%s: %+v, %v", raw, evs, err)
		}
	}
}

// TestDocuments holds the wording.
func TestDocuments(t *testing.T) {
	w := account(t)
	const head = `<?xml version="1.0" encoding="UTF-8"?>` + "\n"
	for want, a := range map[string]providers.Answer{
		`<Response><Connect><Stream url="wss://b.example/media/twilio/abc"></Stream></Connect><Redirect method="POST">https://b.example/next#rc=3&amp;rp=5xx,ct</Redirect></Response>`: {
			Media: "wss://b.example/media/twilio/abc", Next: "https://b.example/next"},
		`<Response><Say>Sorry &amp; bye.</Say><Hangup></Hangup></Response>`:                                                     {Say: "Sorry & bye."},
		`<Response><Dial callerId="+15550100999" timeout="30"><Number>+15550100123</Number></Dial><Hangup></Hangup></Response>`: {Dial: "+15550100123", Caller: "+15550100999"},
		`<Response><Hangup></Hangup></Response>`:                                                                                {},
	} {
		doc, err := w.Document(&a)
		if err != nil || string(doc.Body) != head+want || doc.ContentType != "application/xml" {
			t.Errorf("%s, %v\nwant %s", doc.Body, err, want)
		}
	}
}

// TestRetries: Twilio is asked to make requests again, whether or not it signs that; what
// it would not understand it does not take.
func TestRetries(t *testing.T) {
	w, x := account(t).(*webhooks), &exchange{cfg: Config{AuthToken: "12345"}}
	const u = "https://bridge.example.com/hooks/twilio/main/next/abc"
	params, err := url.ParseQuery(form)
	if err != nil {
		t.Fatal(err)
	}
	for signed, good := range map[string]bool{u: true, u + retries: true, u + "#rc=1": false, u + "/x": false} {
		h := hook(u, "application/x-www-form-urlencoded", x.sign(signed+formData(params)), form)
		if _, err := w.Authenticate(h, time.Now()); (err == nil) != good {
			t.Errorf("signed as %s: %v", signed, err)
		}
	}
	for given, want := range map[string]bool{u: true, retried(u): true, u + "#rc=9&rp=ct": false,
		u + "#rc=3&rp=6xx": false,
		u + "#top":         false, "http://bridge.example.com/": false} {
		if plain, ok := webhook(given); ok != want || ok && plain != u {
			t.Errorf("%s: %s, %v", given, plain, ok)
		}
	}
}

func config(base string) func(any) error {
	return func(c any) error {
		*c.(*Config) = Config{AccountSID: "AC00000000000000000000000000000001", AuthToken: "12345", BaseURL: base}
		return nil
	}
}

func TestControl(t *testing.T) {
	providertest.RunControl(t, providertest.Control{Spec: Spec, Config: config, Secret: "12345"})
}

// TestExplain: the setting that is wrong is named.
func TestExplain(t *testing.T) {
	w := account(t)
	x := &exchange{Config{AccountSID: "AC00000000000000000000000000000001", AuthToken: "12345"}}
	ask := func(x *exchange, url string) *providers.Hook {
		r, err := x.Ask(&providers.Ask{Kind: providers.AskAnswer, URL: url, Call: providers.ExchangeCall{ID: "CA1"}},
			time.Now())
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		return &providers.Hook{Method: "POST", URL: "https://bridge.example.com/voice/hooks/twilio/main/inbound",
			Host: "internal:9001", Header: r.Header, Body: body}
	}
	proxied := ask(x, "https://new.tunnel.example/hooks/twilio/main/inbound")
	proxied.Header.Set("X-Forwarded-Host", "new.tunnel.example")
	for name, tt := range map[string]struct {
		hook *providers.Hook
		want string
	}{
		"other host": {proxied, "Set public_url: https://new.tunnel.example"},
		"other path": {ask(x, "https://bridge.example.com/hooks/twilio/main/inbound"),
			"Set public_url: https://bridge.example.com"},
		"plain http": {ask(x, "http://bridge.example.com/voice/hooks/twilio/main/inbound"),
			"Give Twilio the https URL"},
		"other token": {ask(&exchange{Config{AccountSID: "AC00000000000000000000000000000001", AuthToken: "67890"}},
			"https://bridge.example.com/voice/hooks/twilio/main/inbound"), "auth_token is not the one"},
		"other account": {ask(&exchange{Config{AccountSID: "AC00000000000000000000000000000002", AuthToken: "67890"}},
			"https://bridge.example.com/voice/hooks/twilio/main/inbound"), "AC00000000000000000000000000000002"},
	} {
		if got := strings.Join(w.Explain(tt.hook, time.Now()), "\n"); !strings.Contains(got, tt.want) ||
			strings.Contains(got, "12345") {
			t.Errorf("%s:\n%s\nwant %s", name, got, tt.want)
		}
	}
}

// TestConfig: what is wrong is named.
func TestConfig(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"account_sid": func(c *Config) { c.AccountSID = "x" },
		"auth_token":  func(c *Config) { c.AuthToken = "" },
		"api_secret":  func(c *Config) { c.APIKey = "SK1" },
		"region":      func(c *Config) { c.Edge = "dublin" },
		"base_url":    func(c *Config) { c.BaseURL = "http://api.example.com" },
	} {
		_, err := NewAccount(providers.Setup{Decode: func(c any) error {
			*c.(*Config) = Config{AccountSID: "AC00000000000000000000000000000001", AuthToken: "t"}
			change(c.(*Config))
			return nil
		}})
		if err == nil || !strings.HasPrefix(err.Error(), want+":") {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// TestRegion: edge and region choose the host, base_url replaces it.
func TestRegion(t *testing.T) {
	var host string
	transport := roundTripper(func(r *http.Request) (*http.Response, error) {
		host = r.URL.Scheme + "://" + r.URL.Host
		return nil, errors.New("no network")
	})
	for want, cfg := range map[string]Config{
		"https://api.twilio.com":            {},
		"https://api.dublin.ie1.twilio.com": {Edge: "dublin", Region: "ie1"},
		"https://proxy.example:8443":        {BaseURL: "https://proxy.example:8443"},
	} {
		cfg.AccountSID, cfg.AuthToken = "AC00000000000000000000000000000001", "t"
		a, err := NewAccount(providers.Setup{Decode: func(c any) error { *c.(*Config) = cfg; return nil },
			HTTP: transport})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(context.Background())
		stop() // one try is enough
		if err := a.Hangup(ctx, "CA1"); err == nil || host != want {
			t.Errorf("%+v: %s, %v", cfg, host, err)
		}
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// FuzzExchange: a document of any kind is read or refused.
func FuzzExchange(f *testing.F) {
	f.Add(`<Response><Connect><Stream url="wss://b.example/x"/></Connect></Response>`)
	f.Add(`<Response><Dial>+15550100123</Dial></Response>`)
	x := &exchange{}
	f.Fuzz(func(t *testing.T, doc string) {
		a, err := x.Answer("text/xml", []byte(doc))
		if err == nil && strings.Contains(a.Media, "?") {
			t.Fatalf("a query in %s", a.Media)
		}
	})
}

func FuzzWebhook(f *testing.F) {
	f.Add([]byte(form))
	f.Add([]byte("CallSid=CA1&CallSid=CA2"))
	f.Add([]byte("AccountSid=AC00000000000000000000000000000001&ConferenceSid=CF1" +
		"&StatusCallbackEvent=participant-leave"))
	for _, name := range providertest.FixtureNames(f, "*.form") {
		f.Add(providertest.Fixture(f, name))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		w := account(t)
		h := hook("https://bridge.example.com/x", "application/x-www-form-urlencoded", "Zm9v", string(body))
		if _, err := w.Authenticate(h, time.Now()); err == nil {
			t.Fatal("a forged signature was taken")
		}
		for h.Purpose = providers.ForAnswer; h.Purpose <= providers.ForRoom; h.Purpose++ {
			evs, err := w.Read(h)
			for _, ev := range evs {
				if err != nil || ev.Leg == "" {
					t.Fatalf("%+v, %v", ev, err)
				}
			}
		}
		if lines := w.Explain(h, time.Now()); len(lines) == 0 {
			t.Fatal("nothing is explained")
		}
	})
}

// TestPorts: Twilio signs a port in some requests and leaves it out of others.
func TestPorts(t *testing.T) {
	for u, want := range map[string][]string{
		"https://b.example/h":          {"https://b.example/h", "https://b.example:443/h"},
		"https://b.example:443/h":      {"https://b.example:443/h", "https://b.example/h"},
		"https://b.example:8443/h?x=1": {"https://b.example:8443/h?x=1", "https://b.example/h?x=1"},
		"https://[::1]:8443/h":         {"https://[::1]:8443/h", "https://[::1]/h"},
		"https://[::1]/h":              {"https://[::1]/h", "https://[::1]:443/h"},
		"wss://b.example:8443/m": {"wss://b.example:8443/m", "wss://b.example:8443/m/", "wss://b.example/m",
			"wss://b.example/m/"},
	} {
		got := urls(u)
		for _, w := range want {
			if !slices.Contains(got, w) {
				t.Errorf("%s: %v lacks %s", u, got, w)
			}
		}
	}
}

// TestOtherReports: what Twilio says of streams and recordings is taken, and what is wrong told.
func TestOtherReports(t *testing.T) {
	for body, want := range map[string]string{
		"StreamEvent=stream-started&StreamSid=MZ1": "", "RecordingStatus=completed&RecordingSid=RE1": "",
		"StreamEvent=stream-error&StreamError=no+handshake": "no handshake",
	} {
		h := &providers.Hook{Method: "POST", Purpose: providers.ForStatus,
			Body: []byte("CallSid=CA1&AccountSid=AC00000000000000000000000000000001&" + body)}
		got, err := account(t).Read(h)
		if err != nil || (want == "") != (len(got) == 0) || want != "" && (got[0].Kind != providers.CallNotice ||
			got[0].Raw != want) {
			t.Errorf("%s: %+v, %v", body, got, err)
		}
	}
}

// TestBasePath: a base URL keeps its path.
func TestBasePath(t *testing.T) {
	var asked []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.Path)
		http.Error(w, `{"code":20404,"message":"gone","status":404}`, http.StatusNotFound)
	}))
	defer srv.Close()
	for _, path := range []string{"", "/proxy/twilio/"} {
		a, err := NewAccount(providers.Setup{Decode: Sample(srv.URL+path, Spec.Formats[0])})
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Hangup(t.Context(), "CA00000000000000000000000000000001"); err != nil {
			t.Errorf("%q: %v", path, err)
		}
	}
	if len(asked) != 2 || !strings.HasPrefix(asked[0], "/2010-04-01/Accounts/AC") ||
		!strings.HasPrefix(asked[1], "/proxy/twilio/2010-04-01/Accounts/AC") {
		t.Errorf("asked %v", asked)
	}
}
