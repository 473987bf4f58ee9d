package vonage

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"voicebridge/providers"
	"voicebridge/providers/providertest"
)

const (
	secret = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUV"
	body   = `{"status":"answered","uuid":"63f61863-4a51-4f6b-86e1-46edebcf9356","conversation_uuid":"CON-0001","from":"15550001111","to":"15550002222","direction":"inbound","timestamp":"2026-01-01T00:00:00.000Z"}`
	vector = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpYXQiOjE3NjcyMjU2MDAsImp0aSI6ImM1YmE4ZjI0LTFhMTQtNGMxMC1iZmR" +
		"mLTNmYmU4Y2U1MTFiNSIsImlzcyI6IlZvbmFnZSIsInBheWxvYWRfaGFzaCI6IjcyNmQ3Y2ExZjdlNmI2ODhmOWE2ZjEyNTBiYjI" +
		"4YTA1YTI3MmU4NmNhNDI1OTFjZjY0YzBiYWUyMDNiMGFmNjciLCJhcGlfa2V5IjoiYTFiMmMzZDQiLCJhcHBsaWNhdGlvbl9pZCI" +
		"6ImFhYWFhYWFhLWJiYmItY2NjYy1kZGRkLTAxMjM0NTY3ODlhYiJ9.TMRGWetybYL0JEUK-wMHCLSJu3RMYMRrFo-jDGQJr8Y"
)

// issued is when the vector was.
var issued = time.Unix(1767225600, 0)

func account(t testing.TB) *webhooks {
	t.Helper()
	w, err := NewAccount(providers.Setup{Decode: func(c any) error {
		cfg := c.(*Config)
		cfg.APIKey, cfg.ApplicationID, cfg.SignatureSecret = "a1b2c3d4", "aaaaaaaa-bbbb-cccc-dddd-0123456789ab", secret
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	return w.Webhooks.(*webhooks)
}

func post(token, body string) *providers.Hook {
	return &providers.Hook{Method: "POST", Body: []byte(body),
		Header: http.Header{"Authorization": {"Bearer " + token}}}
}

// TestSignatureVector: made by other programs, and accepted by Vonage's own
// @vonage/jwt 1.14.0.
func TestSignatureVector(t *testing.T) {
	w := account(t)
	first, err := w.Authenticate(post(vector, body), issued.Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	if again, err := w.Authenticate(post(vector, body), issued.Add(time.Minute)); err != nil || again != first ||
		first == "" {
		t.Errorf("a replay: %q, %v, want the same id %q", again, err, first)
	}
	if _, err := w.Authenticate(post(vector, body), issued.Add(2*time.Hour)); !errors.Is(err, providers.ErrSignature) {
		t.Errorf("stale: %v", err)
	}
}

// TestSignature: tokens that are wrong in one thing.
func TestSignature(t *testing.T) {
	sum := sha256.Sum256([]byte(body))
	good := func() jwt.MapClaims {
		return jwt.MapClaims{"iat": issued.Unix(), "jti": "j", "iss": "Vonage",
			"payload_hash": hex.EncodeToString(sum[:]),
			"api_key":      "a1b2c3d4", "application_id": "aaaaaaaa-bbbb-cccc-dddd-0123456789ab"}
	}
	sign := func(method jwt.SigningMethod, key any, change func(jwt.MapClaims)) string {
		c := good()
		change(c)
		s, err := jwt.NewWithClaims(method, c).SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	set := func(k string, v any) func(jwt.MapClaims) { return func(c jwt.MapClaims) { c[k] = v } }
	unset := func(k string) func(jwt.MapClaims) { return func(c jwt.MapClaims) { delete(c, k) } }
	hs := jwt.SigningMethodHS256
	for name, tt := range map[string]struct {
		hook *providers.Hook
		good bool
	}{
		"good": {post(sign(hs, []byte(secret), func(jwt.MapClaims) {}), body), true},
		"hash in capitals": {post(sign(hs, []byte(secret),
			set("payload_hash", strings.ToUpper(hex.EncodeToString(sum[:])))), body), true},
		"other secret":    {post(sign(hs, []byte("other"), func(jwt.MapClaims) {}), body), false},
		"other algorithm": {post(sign(jwt.SigningMethodHS512, []byte(secret), func(jwt.MapClaims) {}), body), false},
		"no algorithm": {post(sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType,
			func(jwt.MapClaims) {}), body), false},
		"other body":        {post(sign(hs, []byte(secret), func(jwt.MapClaims) {}), body+" "), false},
		"no hash":           {post(sign(hs, []byte(secret), unset("payload_hash")), body), false},
		"other issuer":      {post(sign(hs, []byte(secret), set("iss", "Nexmo")), body), false},
		"other key":         {post(sign(hs, []byte(secret), set("api_key", "x")), body), false},
		"other application": {post(sign(hs, []byte(secret), set("application_id", "x")), body), false},
		"no time":           {post(sign(hs, []byte(secret), unset("iat")), body), false},
		"from tomorrow":     {post(sign(hs, []byte(secret), set("iat", issued.Add(24*time.Hour).Unix())), body), false},
		"expired":           {post(sign(hs, []byte(secret), set("exp", issued.Add(-time.Hour).Unix())), body), false},
		"no id":             {post(sign(hs, []byte(secret), unset("jti")), body), false},
		"no token":          {post("", body), false},
		"no header":         {&providers.Hook{Method: "POST", Body: []byte(body), Header: http.Header{}}, false},
	} {
		_, err := account(t).Authenticate(tt.hook, issued)
		if (err == nil) != tt.good || err != nil &&
			(!errors.Is(err, providers.ErrSignature) || strings.Contains(err.Error(), secret)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// read reads a body as the request of a URL that was given for a purpose.
func read(t *testing.T, body string, purpose providers.Purpose) ([]providers.CallEvent, error) {
	h := post("", body)
	h.Purpose = purpose
	return account(t).Read(h)
}

func TestAsked(t *testing.T) {
	for _, bad := range []string{"", "[]", "{}", `{"uuid":7}`, `{"conversation_uuid":"CON-1"}`} {
		if evs, err := read(t, bad, providers.ForAnswer); err == nil {
			t.Errorf("%s was taken: %+v", bad, evs)
		}
	}
	get := post("", body)
	get.Method, get.Purpose = "GET", providers.ForAnswer
	if _, err := account(t).Read(get); err == nil {
		t.Error("a GET, whose content is not signed, was taken")
	}
}

func TestStatus(t *testing.T) {
	for event, want := range map[string]providers.Status{
		`"status":"started"`: "initiated", `"status":"ringing"`: "ringing", `"status":"answered"`: "in-progress",
		`"status":"completed"`: "completed", `"status":"busy"`: "busy", `"status":"timeout"`: "no-answer",
		`"status":"unanswered"`: "no-answer",
		`"status":"cancelled"`:  "canceled", `"status":"rejected"`: "failed",
		`"status":"rejected","detail":"declined"`: "busy",
		`"status":"failed"`:                       "failed", `"status":"disconnected"`: "", `"status":"human"`: "",
		`"type":"transfer"`: "", `"status":"new"`: "error",
		`"status":"completed","to":"wss://bridge.example.com/media"`: "",
	} {
		evs, err := read(t, `{"uuid":"u",`+event+`}`, providers.ForStatus)
		if err != nil || len(evs) != 1 || evs[0].Status != want || evs[0].Leg != "u" {
			t.Errorf("%s: %+v, %v, want %q", event, evs, err, want)
		}
	}
}

// TestDocuments holds the wording.
func TestDocuments(t *testing.T) {
	w := account(t)
	for want, a := range map[string]providers.Answer{
		`[{"action":"connect","eventType":"synchronous","eventUrl":["https://b.example/next"],"eventMethod":"POST","endpoint":[{"type":"websocket","uri":"wss://b.example/media","content-type":"audio/l16;rate=16000","authorization":{"type":"vonage"}}]}]`: {
			Media: "wss://b.example/media", Next: "https://b.example/next"},
		`[{"action":"talk","text":"Sorry."}]`: {Say: "Sorry."},
		`[{"action":"connect","from":"15550100999","timeout":30,"endpoint":[{"type":"phone","number":"15550100123"}]}]`: {Dial: "+15550100123", Caller: "+15550100999"},
		"": {},
	} {
		doc, err := w.Document(&a)
		if err != nil || string(doc.Body) != want || want != "" && doc.ContentType != "application/json" {
			t.Errorf("%s, %v\nwant %s", doc.Body, err, want)
		}
	}
}

// testKey is an RSA key of the test run.
var testKey = sync.OnceValue(func() string {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
})

func config(base string) func(any) error {
	return func(c any) error {
		*c.(*Config) = Config{APIKey: "a1b2c3d4", ApplicationID: "aaaaaaaa-bbbb-cccc-dddd-0123456789ab",
			SignatureSecret: secret, APISecret: "an API secret",
			PrivateKey: strings.ReplaceAll(testKey(), "\n", `\n`), Rate: 16000, BaseURL: base}
		return nil
	}
}

func TestControl(t *testing.T) {
	providertest.RunControl(t, providertest.Control{Spec: Spec, Config: config, Secret: secret})
}

// TestBearer: the application's token is signed anew shortly before it expires.
func TestBearer(t *testing.T) {
	w, key, base, err := readConfig(providers.Setup{Decode: config("https://api.example.com")})
	if err != nil {
		t.Fatal(err)
	}
	c, now := newCommands(w.cfg, base, key, w, nil), time.Now()
	first, err := c.bearer(now)
	if err != nil {
		t.Fatal(err)
	}
	for after, same := range map[time.Duration]bool{0: true, tokenTime - tokenSpare - time.Second: true,
		tokenTime - tokenSpare + time.Second: false} {
		c.token, c.expires = first, now.Add(tokenTime)
		if again, err := c.bearer(now.Add(after)); err != nil || (again == first) != same {
			t.Errorf("after %v: same %v, %v", after, again == first, err)
		}
	}
}

// TestExplain: the setting that is wrong is named.
func TestExplain(t *testing.T) {
	w := account(t)
	good := Config{APIKey: "a1b2c3d4", ApplicationID: "aaaaaaaa-bbbb-cccc-dddd-0123456789ab", SignatureSecret: secret}
	now := time.Now()
	for want, change := range map[string]func(*exchange, *providers.Hook){
		"signature_secret is wrong": func(x *exchange,
			_ *providers.Hook) {
			x.cfg.SignatureSecret = "another secret of some length"
		},
		"api_key is":        func(x *exchange, _ *providers.Hook) { x.cfg.APIKey = "other" },
		"application_id is": func(x *exchange, _ *providers.Hook) { x.cfg.ApplicationID = "other" },
		"clock":             nil,
		"changed the body":  func(_ *exchange, h *providers.Hook) { h.Body = append(h.Body, ' ') },
	} {
		x, h, at := &exchange{cfg: good}, &providers.Hook{Method: "POST"}, now
		if change == nil {
			at = now.Add(-time.Hour)
		} else {
			change(x, h)
		}
		r, err := x.Ask(&providers.Ask{Kind: providers.AskAnswer, URL: "https://b.example/hook"}, at)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		h.Header, h.Body = r.Header, append(body, h.Body...)
		if got := strings.Join(w.Explain(h, now), "\n"); !strings.Contains(got, want) || strings.Contains(got, secret) {
			t.Errorf("%s\nwant %s", got, want)
		}
	}
}

// TestConfig: what is wrong is named.
func TestConfig(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"api_key":          func(c *Config) { c.APIKey = "" },
		"application_id":   func(c *Config) { c.ApplicationID = "" },
		"signature_secret": func(c *Config) { c.SignatureSecret = "short" },
		"private_key":      func(c *Config) { c.PrivateKey = "no key" },
		"rate":             func(c *Config) { c.Rate = 44100 },
		"base_url":         func(c *Config) { c.BaseURL = "ftp://x" },
	} {
		_, err := NewAccount(providers.Setup{Decode: func(c any) error {
			if err := config("https://api.example.com")(c); err != nil {
				return err
			}
			change(c.(*Config))
			return nil
		}})
		if err == nil || !strings.HasPrefix(err.Error(), want+":") {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// FuzzExchange: a document of any kind is read or refused.
func FuzzExchange(f *testing.F) {
	f.Add(`[{"action":"talk","text":"x"}]`)
	f.Add(`[{"action":"connect","endpoint":[{"type":"websocket","uri":"wss://b.example/x","content-type":"audio/l16;rate=16000"}]}]`)
	x := &exchange{}
	f.Fuzz(func(t *testing.T, doc string) {
		a, err := x.Answer("application/json", []byte(doc))
		if err == nil && a.Media != "" && !a.Format.Valid() {
			t.Fatalf("%+v", a)
		}
	})
}

func FuzzWebhook(f *testing.F) {
	f.Add([]byte(body), vector)
	f.Add([]byte(`{"uuid":"u","status":"rejected"}`), "a.b.c")
	for _, name := range providertest.FixtureNames(f, "webhook-*.json") {
		f.Add(providertest.Fixture(f, name), vector)
	}
	f.Fuzz(func(t *testing.T, data []byte, token string) {
		w := account(t)
		h := post(token, string(data))
		if _, err := w.Authenticate(h, issued); err == nil && (token != vector || string(data) != body) {
			t.Fatalf("%q was taken for %q", token, data)
		}
		for h.Purpose = providers.ForAnswer; h.Purpose <= providers.ForRoom; h.Purpose++ {
			evs, err := w.Read(h)
			for _, ev := range evs {
				if err != nil || ev.Leg == "" && ev.Kind == providers.CallAsked {
					t.Fatalf("%+v, %v", ev, err)
				}
			}
		}
		if lines := w.Explain(h, time.Now()); len(lines) == 0 {
			t.Fatal("nothing is explained")
		}
	})
}

// TestOddEvents: what Vonage says of other things than calls is taken, and its reason is told.
func TestOddEvents(t *testing.T) {
	progress := func(s providers.Status, unanswered bool, raw string) []providers.CallEvent {
		return []providers.CallEvent{{Kind: providers.CallProgress, Leg: "u", Raw: raw, Status: s,
			Unanswered: unanswered}}
	}
	for body, want := range map[string][]providers.CallEvent{
		`{"reason":"No such NCCO","conversation_uuid":"CON-1"}`: {{Kind: providers.CallNotice,
			Raw: "No such NCCO"}},
		`{"conversation_uuid":"CON-1","recording_url":"https://x","size":12222}`: nil,
		`{"uuid":"u","dtmf":"5","from":15550100123,"timestamp":"2026-01-01"}`:    progress("", false, ""),
		`{"uuid":"u","status":"rejected","detail":{"code":5},"duration":0,"to":null}`: progress("failed", false,
			"rejected"),
		`{"uuid":"u","status":"completed"}`: progress("completed", true,
			"completed"),
		`{"uuid":"u","status":"completed","duration":"0","start_time":null}`: progress("completed", true,
			"completed"),
		`{"uuid":"u","status":"completed","duration":2,"start_time":"2026-01-01T12:00Z"}`: progress("completed", false,
			"completed"),
		`{"conversation_uuid_from":"CON-1","conversation_uuid_to":"CON-2"}`: nil, // of no leg
	} {
		h := &providers.Hook{Method: "POST", Purpose: providers.ForStatus, Body: []byte(body)}
		if got, err := account(t).Read(h); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v\nwant %+v", body, got, err, want)
		}
	}
	h := &providers.Hook{Method: "POST", Purpose: providers.ForKey, Body: []byte(`{"uuid":"u","dtmf":"5"}`)}
	if got, err := account(t).Read(h); err != nil || len(got) != 1 || got[0].Digit != "5" {
		t.Errorf("a key as a text: %+v, %v", got, err)
	}
}

// TestCallers: who calls is a number in E.164, or what Vonage calls it.
func TestCallers(t *testing.T) {
	for from, want := range map[string]string{`"15550100123"`: "+15550100123", `15550100123`: "+15550100123",
		`"07700900123"`: "07700900123", `"1001"`: "1001", `"0"`: "0", `"alice"`: "alice"} {
		h := &providers.Hook{Method: "POST", Purpose: providers.ForAnswer,
			Body: []byte(`{"uuid":"u","from":` + from + `}`)}
		if got, err := account(t).Read(h); err != nil || got[0].From != want {
			t.Errorf("%s: %+v, %v", from, got, err)
		}
	}
	h := &providers.Hook{Method: "POST", Purpose: providers.ForAnswer, Body: []byte(`{"uuid":"u","from_user":"alice"}`)}
	if got, err := account(t).Read(h); err != nil || got[0].From != "alice" {
		t.Errorf("of an app: %+v, %v", got, err)
	}
}
