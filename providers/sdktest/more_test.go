package sdktest

import (
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"voicebridge/providers"
	"voicebridge/providers/internal/plivolike"
	"voicebridge/providers/plivo"
	"voicebridge/providers/telnyx"
	"voicebridge/sim"
)

// office is a simulated carrier with a REST API, and somewhere to send webhooks.
type office struct {
	rest, hooks string
	exchange    *sim.Exchange
	account     *providers.Account
	settings    map[string]any
}

func open(t *testing.T, spec *providers.Spec) *office {
	t.Helper()
	x := &sim.Exchange{Spec: spec, Phone: func(providers.ExchangeCall) sim.Phone { return sim.Phone{Ring: time.Minute} }}
	srv := httptest.NewServer(http.StripPrefix("/v1", x))
	hooks := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }))
	t.Cleanup(func() {
		x.Wait()
		srv.Close()
		hooks.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	settings, err := x.Settings(srv.URL+"/v1", spec.Formats[0], "+15550100999")
	if err != nil {
		t.Fatal(err)
	}
	account, err := spec.NewAccount(providers.Setup{Decode: func(c any) error {
		b, err := yaml.Marshal(settings)
		if err != nil {
			return err
		}
		return yaml.Unmarshal(b, c)
	}})
	if err != nil {
		t.Fatal(err)
	}
	return &office{srv.URL + "/v1", hooks.URL, x, account, settings}
}

// signed is a webhook that the simulated carrier signs.
func (o *office) signed(t *testing.T) (*http.Request, string) {
	t.Helper()
	leg := o.exchange.Office.NewCall()
	r, err := o.exchange.Office.Ask(&providers.Ask{Kind: providers.AskAnswer,
		URL: "https://bridge.example.com/hooks/x/y/inbound?b=2&a=x%20y",
		Call: providers.ExchangeCall{ID: leg.ID, Aliases: leg.Aliases, Inbound: true, From: "+15550100123",
			To: "+15550100999", Status: providers.StatusRinging}}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r, string(body)
}

// TestTelnyx: what our simulated Telnyx signs, the SDK accepts, and nothing else; calls that
// the SDK places, asks for and ends are, at our simulated Telnyx.
func TestTelnyx(t *testing.T) {
	s, o := start(t), open(t, telnyx.Spec)
	settings := o.settings
	r, body := o.signed(t)
	for said, want := range map[string]bool{body: true, body + " ": false} {
		var good bool
		s.ask(map[string]any{"do": "telnyxVerify", "key": settings["public_key"], "body": said, "headers": map[string]string{
			"telnyx-signature-ed25519": r.Header.Get("Telnyx-Signature-Ed25519"),
			"telnyx-timestamp":         r.Header.Get("Telnyx-Timestamp")}}, &good)
		if good != want {
			t.Errorf("the SDK says %v, want %v", good, want)
		}
	}
	var call struct {
		Leg    string `json:"call_control_id"`
		Alive  bool   `json:"is_alive"`
		Result string
		Status int
		Code   string
	}
	ask := func(what string, more map[string]any) {
		t.Helper()
		call.Result, call.Status, call.Code = "", 0, ""
		more["do"], more["base"], more["key"] = what, o.rest, settings["api_key"]
		s.ask(more, &call)
	}
	// the URLs of the answer and of reports, which Telnyx gives back with each event
	state := base64.StdEncoding.EncodeToString([]byte(`{"a":"` + o.hooks + `/a","s":"` + o.hooks + `/s"}`))
	params := map[string]any{"connection_id": settings["connection_id"], "to": "+15550100123", "from": "+15550100999",
		"timeout_secs": 30, "webhook_url": o.hooks + "/s", "webhook_url_method": "POST", "send_silence_when_idle": true,
		"client_state": state, "command_id": "one"}
	ask("telnyxDial", map[string]any{"params": params})
	leg := call.Leg
	if !strings.HasPrefix(leg, "v3:") {
		t.Fatalf("%+v", call)
	}
	if ask("telnyxHangup", map[string]any{"id": leg, "command": "two"}); call.Result != "ok" {
		t.Errorf("%+v", call)
	}
	o.exchange.Wait()
	if ask("telnyxHangup", map[string]any{"id": leg, "command": "three"}); call.Code != "90018" {
		t.Errorf("a call that has ended: %+v", call)
	}
	params["to"] = "5550100123"
	if ask("telnyxDial", map[string]any{"params": params}); call.Status != 422 {
		t.Errorf("no number: %+v", call)
	}
	settings["api_key"] = "wrong"
	if ask("telnyxGet", map[string]any{"id": leg}); call.Status != 401 || call.Code != "10009" {
		t.Errorf("wrong key: %+v", call)
	}
}

// TestPlivoSignatures: what our simulated Plivo signs, the SDK accepts, and what one refuses
// the other does.
func TestPlivoSignatures(t *testing.T) {
	s, o := start(t), open(t, plivo.Spec)
	settings := o.settings
	r, body := o.signed(t)
	form, err := url.ParseQuery(body)
	if err != nil {
		t.Fatal(err)
	}
	params := map[string]string{}
	for k := range form {
		params[k] = form.Get(k)
	}
	header, err := o.exchange.Office.Handshake("https://bridge.example.com/media/plivo/T", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		method, url string
		header      http.Header
		params      map[string]string
		good        bool
	}{
		"webhook":         {"POST", r.URL.String(), r.Header, params, true},
		"another webhook": {"POST", r.URL.String() + "x", r.Header, params, false},
		"another form":    {"POST", r.URL.String(), r.Header, map[string]string{"CallUUID": "x"}, false},
		"handshake":       {"GET", "https://bridge.example.com/media/plivo/T", header, nil, true},
	} {
		signature, nonce := tt.header.Get("X-Plivo-Signature-V3"), tt.header.Get("X-Plivo-Signature-V3-Nonce")
		var theirs bool
		s.ask(map[string]any{"do": "plivoVerify", "method": tt.method, "url": tt.url, "nonce": nonce,
			"token": settings["auth_token"], "signature": signature, "params": tt.params}, &theirs)
		said := url.Values{}
		for k, v := range tt.params {
			said.Set(k, v)
		}
		h := &providers.Hook{Method: tt.method, URL: tt.url, Header: tt.header, Body: []byte(said.Encode())}
		if _, ours := o.account.Webhooks.Authenticate(h, time.Now()); theirs != tt.good || (ours == nil) != tt.good {
			t.Errorf("%s: the SDK says %v, we say %v", name, theirs, ours)
		}
	}
}

// TestPlivoXML: documents that Plivo's builder writes mean at our simulated Plivo what ours
// do.
func TestPlivoXML(t *testing.T) {
	s, o := start(t), open(t, plivo.Spec)
	for what, want := range map[string]providers.Answer{
		"stream":   {Media: "wss://b.example/m", Next: "https://b.example/n"},
		"question": {Say: "Press 1.", Ask: &providers.Question{URL: "https://b.example/k", Wait: 10 * time.Second}},
		"number":   {Dial: "+15550100123", Caller: "+15550100999", Ring: 30 * time.Second, Next: "https://b.example/n"},
		"room": {Room: &providers.Room{Name: "xfer", End: true, Events: "https://b.example/e",
			Hold: "https://b.example/h"}},
	} {
		var theirs string
		s.ask(map[string]any{"do": "plivoXML", "what": what}, &theirs)
		ours, err := o.account.Webhooks.Document(&want)
		if err != nil {
			t.Fatal(err)
		}
		for whose, doc := range map[string]string{"theirs": theirs, "ours": string(ours.Body)} {
			got, err := o.exchange.Office.Answer("application/xml", []byte(doc))
			if err != nil || !got.Equal(&want) {
				t.Errorf("%s, %s: %s means %+v, %v", what, whose, doc, got, err)
			}
		}
	}
	var theirs string
	s.ask(map[string]any{"do": "plivoXML", "what": "hold"}, &theirs)
	ours, err := o.account.Webhooks.(*plivolike.Webhooks).HoldDocument("https://b.example/hold.wav")
	if err != nil || !strings.HasSuffix(string(ours.Body), theirs) {
		t.Errorf("%s, want %s, %v", ours.Body, theirs, err)
	}
}

// TestPlivoREST: calls that the SDK places, asks for and ends are, at our simulated Plivo.
func TestPlivoREST(t *testing.T) {
	s, o := start(t), open(t, plivo.Spec)
	settings := o.settings
	var got struct{ ID, Status, Message, Error string }
	ask := func(op string, args ...any) {
		t.Helper()
		got.ID, got.Status, got.Message, got.Error = "", "", "", ""
		s.ask(map[string]any{"do": "plivo", "base": o.rest, "id": settings["auth_id"], "token": settings["auth_token"],
			"op": op, "args": args}, &got)
	}
	more := map[string]any{"answerMethod": "POST", "hangupUrl": o.hooks + "/s", "hangupMethod": "POST",
		"ringUrl": o.hooks + "/s", "ringMethod": "POST", "ringTimeout": 30}
	ask("create", "15550100999", "15550100123", o.hooks+"/a", more)
	if got.ID == "" || got.Message != "call fired" {
		t.Fatalf("%+v", got)
	}
	request := got.ID
	id := o.exchange.Find(request).Call().ID
	if ask("getLiveCall", id); got.ID != id || got.Status == "" {
		t.Errorf("%+v", got)
	}
	if ask("sendDigits", id, "1w2#", map[string]any{"leg": "aleg"}); got.Error != "" {
		t.Errorf("%+v", got)
	}
	if ask("transfer", id, map[string]any{"legs": "aleg", "alegUrl": o.hooks + "/a", "alegMethod": "POST"}); got.Error != "" {
		t.Errorf("%+v", got)
	}
	if ask("hangup", id); got.Error != "" {
		t.Errorf("%+v", got)
	}
	o.exchange.Wait()
	if ask("hangup", id); got.Error == "" {
		t.Errorf("a call that has ended: %+v", got)
	}
}
