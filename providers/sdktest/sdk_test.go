// Package sdktest holds our verification of webhooks against the carriers' own
// SDKs, run by Node: what they sign we accept, and what we accept they accept.
package sdktest

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"voicebridge/providers"
	"voicebridge/providers/twilio"
	"voicebridge/providers/vonage"
	"voicebridge/sim"
)

// sdk is the running script.
type sdk struct {
	t   *testing.T
	in  io.Writer
	out *bufio.Scanner
}

func start(t *testing.T) *sdk {
	t.Helper()
	_, err := exec.LookPath("node")
	if err == nil {
		_, err = os.Stat("node_modules/twilio")
	}
	if err != nil {
		if os.Getenv("VOICEBRIDGE_E2E") != "" {
			t.Fatal(err)
		}
		t.Skipf("%v ('make test' installs it)", err)
	}
	cmd := exec.Command("node", "sdk.js")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	return &sdk{t, in, bufio.NewScanner(out)}
}

// ask sends a request and reads its answer.
func (s *sdk) ask(request map[string]any, answer any) {
	s.t.Helper()
	b, err := json.Marshal(request)
	if err == nil {
		_, err = s.in.Write(append(b, '\n'))
	}
	if err != nil {
		s.t.Fatal(err)
	}
	if !s.out.Scan() {
		s.t.Fatalf("no answer to %s: %v", b, s.out.Err())
	}
	if err := json.Unmarshal(s.out.Bytes(), answer); err != nil {
		s.t.Fatal(err)
	}
}

func TestTwilio(t *testing.T) {
	s := start(t)
	const token = "a token with ünïcode"
	account, err := twilio.NewAccount(providers.Setup{Decode: func(c any) error {
		*c.(*twilio.Config) = twilio.Config{AccountSID: "AC00000000000000000000000000000001", AuthToken: token}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	w := account.Webhooks
	sign := func(url string, params url.Values) (signature string) {
		t.Helper()
		// A repeated parameter is an array to the SDK.
		p := map[string]any{}
		for k, v := range params {
			p[k] = v[0]
			if len(v) > 1 {
				p[k] = v
			}
		}
		s.ask(map[string]any{"do": "sign", "token": token, "url": url, "params": p}, &signature)
		return signature
	}
	for _, u := range []string{"https://bridge.example.com/hooks/twilio/main/inbound",
		"https://bridge.example.com:8443/x?tenant=a%20b&y=", "https://bridge.example.com/ü"} {
		for _, form := range []url.Values{
			{},
			{"CallSid": {"CA1"}, "From": {"+15550001111"}, "CallerName": {"Jörg & Søn"}},
			{"b": {"2"}, "B": {"1"}, "a": {""}, "_": {"x y"}},
			{"Digits": {"2", "1", "2"}, "To": {"sip:a@b"}},
		} {
			h := &providers.Hook{Method: "POST", URL: u, Body: []byte(form.Encode()), Header: http.Header{
				"Content-Type": {"application/x-www-form-urlencoded"}, "X-Twilio-Signature": {sign(u, form)}}}
			if _, err := w.Authenticate(h, time.Now()); err != nil {
				t.Errorf("%s %v: %v", u, form, err)
			}
			h.Body = append(h.Body, "&more=1"...)
			if _, err := w.Authenticate(h, time.Now()); err == nil {
				t.Errorf("%s %v: a changed form was taken", u, form)
			}
		}
	}
	const body = `{"event":"ü"}`
	var hash string
	s.ask(map[string]any{"do": "bodyHash", "body": body}, &hash)
	u := "https://bridge.example.com/json?a=b&bodySHA256=" + hash
	h := &providers.Hook{Method: "POST", URL: u, Body: []byte(body), Header: http.Header{
		"Content-Type": {"application/json"}, "X-Twilio-Signature": {sign(u, nil)}}}
	if _, err := w.Authenticate(h, time.Now()); err != nil {
		t.Errorf("JSON: %v", err)
	}
	ws := "wss://bridge.example.com/media/twilio/abc"
	h = &providers.Hook{Method: "GET", URL: ws, Header: http.Header{"X-Twilio-Signature": {sign(ws, nil)}}}
	if _, err := w.Authenticate(h, time.Now()); err != nil {
		t.Errorf("socket: %v", err)
	}
}

// TestVonage: a webhook signed as documented is accepted by the SDK and by us,
// one signed with another secret by neither.
func TestVonage(t *testing.T) {
	s := start(t)
	const secret, body = "0123456789abcdef0123456789abcdef", `{"uuid":"u","status":"ringing"}`
	account, err := vonage.NewAccount(providers.Setup{Decode: func(c any) error {
		cfg := c.(*vonage.Config)
		cfg.APIKey, cfg.ApplicationID, cfg.SignatureSecret = "key", "app", secret
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	w := account.Webhooks
	sum := sha256.Sum256([]byte(body))
	now := time.Now()
	for i, key := range []string{secret, "another secret of that length...."} {
		token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
			"iat": now.Unix(), "jti": key, "iss": "Vonage", "payload_hash": hex.EncodeToString(sum[:]),
			"api_key": "key", "application_id": "app",
		}).SignedString([]byte(key))
		if err != nil {
			t.Fatal(err)
		}
		var theirs bool
		s.ask(map[string]any{"do": "verify", "token": token, "secret": secret}, &theirs)
		_, ours := w.Authenticate(&providers.Hook{Method: "POST", Body: []byte(body),
			Header: http.Header{"Authorization": {"Bearer " + token}}}, now)
		if good := i == 0; theirs != good || (ours == nil) != good {
			t.Errorf("signed with %q: the SDK says %v, we say %v", key, theirs, ours)
		}
	}
}

// TestVonageExchange: what our simulated Vonage signs, the SDK accepts, and what
// the SDK signs for the REST API, our simulated Vonage accepts.
func TestVonageExchange(t *testing.T) {
	s := start(t)
	var cfg vonage.Config
	decode := vonage.Sample("https://127.0.0.1:1", vonage.Spec.Formats[0])
	if err := decode(&cfg); err != nil {
		t.Fatal(err)
	}
	x, err := vonage.NewExchange(providers.Setup{Decode: decode})
	if err != nil {
		t.Fatal(err)
	}
	header, err := x.Handshake("wss://bridge.example.com/media/vonage/abc", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	var good bool
	s.ask(map[string]any{"do": "verify", "token": strings.TrimPrefix(header.Get("Authorization"), "Bearer "),
		"secret": cfg.SignatureSecret}, &good)
	if !good {
		t.Error("the SDK does not accept the handshake")
	}
	for id, want := range map[string]bool{cfg.ApplicationID: true, "aaaaaaaa-bbbb-cccc-dddd-0123456789ab": false} {
		var token string
		s.ask(map[string]any{"do": "application", "id": id, "key": cfg.PrivateKey}, &token)
		r := httptest.NewRequest("GET", "/v1/calls/63f61863", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		if op, err := x.Operation(r, nil, time.Now()); (err == nil) != want {
			t.Errorf("application %s: %+v, %v", id, op, err)
		}
	}
}

// TestTwilioExchange: Twilio's own client places and ends calls at our simulated
// Twilio, and is refused as it would be.
func TestTwilioExchange(t *testing.T) {
	s := start(t)
	exchange := &sim.Exchange{Spec: twilio.Spec,
		Phone: func(providers.ExchangeCall) sim.Phone { return sim.Phone{Ring: time.Minute} }}
	srv := httptest.NewServer(exchange)
	defer srv.Close()
	hooks := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }))
	defer hooks.Close()
	defer http.DefaultClient.CloseIdleConnections()
	var cfg twilio.Config
	decode := twilio.Sample(srv.URL, twilio.Spec.Formats[0])
	if err := decode(&cfg); err != nil {
		t.Fatal(err)
	}
	var err error
	if exchange.Office, err = twilio.NewExchange(providers.Setup{Decode: decode}); err != nil {
		t.Fatal(err)
	}
	request := func(do string, more map[string]any) (answer struct {
		SID    string
		Status any
		Code   int
	}) {
		t.Helper()
		r := map[string]any{"do": do, "base": srv.URL, "account": cfg.AccountSID, "token": cfg.AuthToken}
		maps.Copy(r, more)
		s.ask(r, &answer)
		return answer
	}
	params := map[string]any{"to": "+15550100123", "from": "+15550100999", "url": hooks.URL + "/a",
		"statusCallback":      hooks.URL + "/s",
		"statusCallbackEvent": []string{"initiated", "answered"}, "timeout": 20, "machineDetection": "Enable",
		"asyncAmd": "true", "asyncAmdStatusCallback": hooks.URL + "/s"}
	call := request("call", map[string]any{"params": params})
	if !strings.HasPrefix(call.SID, "CA") || call.Status != "queued" {
		t.Fatalf("%+v", call)
	}
	if got := request("hangup", map[string]any{"sid": call.SID}); got.SID != call.SID {
		t.Errorf("%+v", got)
	}
	exchange.Wait()
	if got := request("hangup", map[string]any{"sid": call.SID}); got.Code != 21220 {
		t.Errorf("a call that has ended: %+v", got)
	}
	if got := request("hangup", map[string]any{"sid": "CA404"}); got.Code != 20404 {
		t.Errorf("a call that never was: %+v", got)
	}
	if got := request("call", map[string]any{"params": params, "token": "wrong"}); got.Code != 20003 {
		t.Errorf("wrong token: %+v", got)
	}
	params["to"] = "5550100123"
	if got := request("call", map[string]any{"params": params}); got.Code != 21211 {
		t.Errorf("no number: %+v", got)
	}
	params["to"], params["statusCallbackEvent"] = "+15550100123", []string{"busy"}
	if got := request("call", map[string]any{"params": params}); got.Code != 21626 {
		t.Errorf("an event that there is not: %+v", got)
	}
}
