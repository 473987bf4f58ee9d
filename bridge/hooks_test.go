package bridge_test

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"encoding/xml"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"voicebridge/agent"
	"voicebridge/agent/link"
	"voicebridge/calls"
	"voicebridge/control"
	"voicebridge/providers"
	"voicebridge/providers/twilio"
	"voicebridge/sim"
	"voicebridge/sim/stream"
)

const (
	publicURL  = "https://bridge.example.com/voice" // behind a proxy that takes /voice away
	accountSID = "AC00000000000000000000000000000001"
	authToken  = "a secret of Twilio's"
)

// startHooked is a bridge with a Twilio account named main.
func startHooked(t *testing.T, agentURL string, change func(*options)) *running {
	t.Helper()
	account, err := twilio.Spec.NewAccount(providers.Setup{Decode: func(c any) error {
		*c.(*twilio.Config) = twilio.Config{AccountSID: accountSID, AuthToken: authToken}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	return startBridge(t, agentURL, func(o *options) {
		o.public = publicURL
		o.accounts = map[string]control.Account{"main": {Spec: twilio.Spec, Account: account}}
		if change != nil {
			change(o)
		}
	})
}

// sign is Twilio's signature of a form.
func sign(url string, form url.Values) string {
	var names []string
	for n := range form {
		names = append(names, n)
	}
	slices.Sort(names)
	mac := hmac.New(sha1.New, []byte(authToken))
	io.WriteString(mac, url)
	for _, n := range names {
		io.WriteString(mac, n+form.Get(n))
	}
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// handshake is Twilio's signature of a media connection to a path.
func handshake(path string) http.Header {
	return http.Header{"X-Twilio-Signature": {sign("wss"+strings.TrimPrefix(publicURL, "https")+path, nil)}}
}

// answered is a caller who connects as the answer to a webhook said.
func (b *running) answered(t *testing.T, path string) *stream.Caller {
	t.Helper()
	c := b.caller(t, "twilio", 5*time.Second)
	c.URL, c.Header, c.Start.Account = b.url+path, handshake(path), accountSID
	return c
}

func inboundForm(call string) url.Values {
	return url.Values{"AccountSid": {accountSID}, "CallSid": {call}, "CallStatus": {"ringing"},
		"From": {"+15550001111"}, "To": {"+15550002222"}}
}

// post sends a webhook as the proxy passes it on.
func (b *running) post(t *testing.T, path string, form url.Values, signature string) (int, string) {
	t.Helper()
	req, err := http.NewRequest("POST", "http"+strings.TrimPrefix(b.url, "ws")+path, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("X-Twilio-Signature", signature)
	req.Header.Set("X-Forwarded-Host", "evil.example") // must mean nothing
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// inbound asks what to do with a call and gives the path of the media URL.
func (b *running) inbound(t *testing.T, call string) string {
	t.Helper()
	return b.inboundTo(t, call, "+15550002222")
}

func (b *running) inboundTo(t *testing.T, call, to string) string {
	t.Helper()
	form := inboundForm(call)
	form.Set("To", to)
	code, body := b.post(t, "/hooks/twilio/main/inbound", form, sign(publicURL+"/hooks/twilio/main/inbound", form))
	var doc struct {
		Stream struct {
			URL string `xml:"url,attr"`
		} `xml:"Connect>Stream"`
	}
	if err := xml.Unmarshal([]byte(body), &doc); err != nil || code != 200 {
		t.Fatalf("%d, %v: %s", code, err, body)
	}
	path, ok := strings.CutPrefix(doc.Stream.URL, "wss://bridge.example.com/voice")
	if !ok || strings.ContainsAny(path, "?#") || strings.Contains(path, "0001111") {
		t.Fatalf("the media URL is %s", doc.Stream.URL)
	}
	return path
}

// TestInboundCall: webhook, answer document, media connection, agent.
func TestInboundCall(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T) {
		s, agentURL := newScript(t)
		b := startHooked(t, agentURL, nil)
		path := b.inbound(t, "CA1")

		c := b.answered(t, path)
		wait := background(t, c)
		a := <-s.conn
		for _, want := range []string{`"direction":"inbound"`, `"from":"+15550001111"`, `"to":"+15550002222"`,
			`"id":"CA1"`} {
			if !strings.Contains(string(a.Start), want) {
				t.Errorf("the agent is not told %s: %s", want, a.Start)
			}
		}
		if err := a.Command(map[string]string{"type": "hangup", "when": "now"}); err != nil {
			t.Fatal(err)
		}
		wait()
		b.ended(t, calls.AgentHangup)

		if _, resp, err := websocket.DefaultDialer.Dial(b.url+path, handshake(path)); err == nil ||
			resp.StatusCode != 403 {
			t.Errorf("a token was taken twice: %v", err)
		}
		form := inboundForm("CA1")
		form.Set("CallStatus", "completed")
		if code, body := b.post(t, "/hooks/twilio/main/status", form,
			sign(publicURL+"/hooks/twilio/main/status", form)); code != 204 {
			t.Errorf("status callback: %d %s", code, body)
		}
		_, metrics := get(t, b.admin+"/metrics")
		if want := `voicebridge_hook_requests_total{provider="twilio",result="ok"} 2`; !strings.Contains(metrics,
			want) {
			t.Errorf("no %s", want)
		}
	})
}

// TestTokenOfAnotherCall: a token opens the door to its own call only.
func TestTokenOfAnotherCall(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T) {
		_, agentURL := newScript(t)
		b := startHooked(t, agentURL, nil)
		path := b.inbound(t, "CA2")
		conn, _, err := websocket.DefaultDialer.Dial(b.url+path, handshake(path))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if err := conn.WriteMessage(websocket.TextMessage, []byte(startText)); err != nil { // of CA1
			t.Fatal(err)
		}
		if code := closed(t, conn); code != 4400 {
			t.Errorf("closed with %d, want 4400", code)
		}
		b.ended(t, calls.ProtocolError)
	})
}

// TestDoors knocks as a stranger would.
func TestDoors(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T) {
		_, agentURL := newScript(t)
		b := startHooked(t, agentURL, nil)
		const inbound, status = "/hooks/twilio/main/inbound", "/hooks/twilio/main/status"
		form := inboundForm("CA1")
		foreign := inboundForm("CA1")
		foreign.Set("AccountSid", "AC2")
		huge := inboundForm("CA1")
		huge.Set("x", strings.Repeat("x", 70<<10))
		for name, tt := range map[string]struct {
			path, signature string
			form            url.Values
			want            int
		}{
			"unsigned":                {inbound, "", form, 403},
			"forged":                  {inbound, sign(publicURL+inbound+"x", form), form, 403},
			"signed for the listener": {inbound, sign("http"+b.url[2:]+inbound, form), form, 403},
			"signed for X-Forwarded":  {inbound, sign("https://evil.example"+inbound, form), form, 403},
			"status unsigned":         {status, "", form, 403},
			"status, other's sign":    {status, sign(publicURL+inbound, form), form, 403},
			"unknown account":         {"/hooks/twilio/other/inbound", "", form, 404},
			"account of another":      {"/hooks/vonage/main/inbound", "", form, 404},
			"unknown carrier":         {"/hooks/nobody/main/inbound", "", form, 404},
			"unknown hook":            {"/hooks/twilio/main/else", "", form, 404},
			"other account's call":    {inbound, sign(publicURL+inbound, foreign), foreign, 403},
			"too large":               {inbound, sign(publicURL+inbound, huge), huge, 413},
		} {
			if code, body := b.post(t, tt.path, tt.form, tt.signature); code != tt.want ||
				strings.Contains(body, authToken) {
				t.Errorf("%s: %d %s, want %d", name, code, body, tt.want)
			}
		}
		path := b.inbound(t, "CA1")
		token := path[strings.LastIndex(path, "/")+1:]
		for name, p := range map[string]string{
			"no token":        "/media/twilio",
			"a guess":         "/media/twilio/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
			"another carrier": "/media/vonage/" + token,
			"changed":         "/media/twilio/" + token[:20] + other(token[20:21]) + token[21:],
			"cut":             path[:len(path)-2],
			"longer":          path + "A",
		} {
			if _, resp, err := websocket.DefaultDialer.Dial(b.url+p, handshake(p)); err == nil ||
				resp.StatusCode != 403 {
				t.Errorf("%s: %v, want 403", name, err)
			}
		}
		for name, header := range map[string]http.Header{
			"unsigned":         nil,
			"signed as https":  {"X-Twilio-Signature": {sign(publicURL+path, nil)}},
			"signed elsewhere": handshake(path + "x"),
		} {
			if _, resp, err := websocket.DefaultDialer.Dial(b.url+path, header); err == nil || resp.StatusCode != 403 {
				t.Errorf("handshake %s: %v, want 403", name, err)
			}
		}
		conn, _, err := websocket.DefaultDialer.Dial(b.url+path, handshake(path)) // none of this has used it up
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	})
}

// TestRoutes: the called number decides who answers, or that nobody does.
func TestRoutes(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T) {
		def, defURL := newScript(t)
		sales, salesURL := newScript(t)
		b := startHooked(t, defURL, func(o *options) {
			o.agents = map[string]agent.Dialer{"sales": dialer(t, link.Config{URL: salesURL})}
			o.route = func(account, _, to string) (control.Route, bool) {
				return control.Route{Agent: map[string]string{"+15550002222": "sales"}[to]}, account == "main" &&
					to != "+15559999999"
			}
		})
		for to, s := range map[string]*script{"+15550002222": sales, "+15550003333": def} {
			c := b.answered(t, b.inboundTo(t, "CA-"+to, to))
			c.Start.Call = "CA-" + to
			wait := background(t, c)
			a := <-s.conn
			if err := a.Command(map[string]string{"type": "hangup", "when": "now"}); err != nil {
				t.Fatal(err)
			}
			wait()
			b.ended(t, calls.AgentHangup)
		}
		form := inboundForm("CA1")
		form.Set("To", "+15559999999")
		code, body := b.post(t, "/hooks/twilio/main/inbound", form, sign(publicURL+"/hooks/twilio/main/inbound", form))
		if code != 200 || !strings.Contains(body, "<Say>This number is not in service") {
			t.Errorf("%d %s", code, body)
		}
	})
}

// TestBusy: a bridge that is full answers in words.
func TestBusy(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T) {
		_, agentURL := newScript(t)
		b := startHooked(t, agentURL, func(o *options) { o.limits.Calls = 0 })
		form := inboundForm("CA1")
		code, body := b.post(t, "/hooks/twilio/main/inbound", form, sign(publicURL+"/hooks/twilio/main/inbound", form))
		if code != 200 || !strings.Contains(body, "<Say>All lines are busy") {
			t.Errorf("%d %s", code, body)
		}
	})
}

// other gives another letter.
func other(s string) string {
	if s == "A" {
		return "B"
	}
	return "A"
}

// TestBadProxies: a handshake that a proxy has spoilt is refused with the mend, and uses up no
// token.
func TestBadProxies(t *testing.T) {
	virtual(t, func(t *testing.T) {
		b := startHooked(t, startAgent(t, sim.Echo), func(o *options) { o.tokens = apiTokens })
		path := b.inbound(t, "CA1")
		req, err := http.NewRequest("GET", "http"+strings.TrimPrefix(b.url, "ws")+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header = handshake(path)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusUpgradeRequired {
			t.Errorf("without Upgrade: %d", resp.StatusCode)
		}
		req, err = http.NewRequest("GET", "http"+strings.TrimPrefix(b.url, "ws")+"/v1/accounts/main/refused-webhooks",
			nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+apiToken)
		if resp, err = http.DefaultClient.Do(req); err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil || !strings.Contains(string(body), "a proxy has removed Upgrade") ||
			strings.Contains(string(body), path) {
			t.Errorf("%s, %v", body, err)
		}
		c := b.answered(t, path)
		c.Start.Call, c.Length = "CA1", time.Second
		intact(t, call(t, c))
	})
}
