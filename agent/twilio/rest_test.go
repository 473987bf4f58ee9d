package twilio

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"voicebridge/agent"
	"voicebridge/calls"
	"voicebridge/providers"
)

const (
	testAccount = "AC0123456789abcdef0123456789abcdef"
	testToken   = "0123456789abcdef0123456789abcdef"
)

// operations note what is done to one call.
type operations struct {
	call calls.Call
	did  []string
	err  error
}

func (o *operations) Find(is func(string) bool) (calls.Call, bool) {
	if !is(o.call.ID) {
		return calls.Call{}, false
	}
	return o.call, true
}

func (o *operations) Hangup(id string) error {
	o.did = append(o.did, "hang up "+id)
	return o.err
}

func (o *operations) Digits(id, digits string) error {
	o.did = append(o.did, "digits "+digits)
	return o.err
}

func (o *operations) Transfer(id string, t *calls.TransferRequest) error {
	o.did = append(o.did, "transfer "+t.To+" "+t.Mode)
	return o.err
}

// rest serves the API of one agent.
func rest(t testing.TB, o *operations, at string) *http.ServeMux {
	t.Helper()
	_, p := newTalk(t, options{AccountSID: testAccount, AuthToken: testToken})
	if _, err := p.Address(at); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	for _, door := range p.Doors() {
		mux.HandleFunc(door, func(w http.ResponseWriter, r *http.Request) {
			if !p.Knows(r) {
				p.Refuse(w)
				return
			}
			p.Serve(w, r, o)
		})
	}
	return mux
}

func ask(h http.Handler, method, call, form, token string) (int, map[string]any) {
	r := httptest.NewRequest(method, prefix+testAccount+"/Calls/"+call+".json", strings.NewReader(form))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth(testAccount, token)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	var m map[string]any
	_ = json.Unmarshal(w.Body.Bytes(), &m)
	return w.Code, m
}

// TestREST: agents end their calls, move them and press keys as they would at Twilio, and are refused as there.
func TestREST(t *testing.T) {
	live := calls.Call{ID: "cs_1", From: "+12025550123", To: "+12025550100", Direction: calls.Inbound,
		Status: providers.StatusInProgress, BeganAt: time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)}
	over := live
	over.Status, over.EndedAt = providers.StatusCompleted, live.BeganAt.Add(3*time.Minute)
	twiml := func(name string) string { return "Twiml=" + escape(string(fixture(t, name))) }
	id := sid("CA", "cs_1")
	for name, tt := range map[string]struct {
		call         calls.Call
		method, form string
		err          error
		status, code int
		did          string
	}{
		"completed": {live, "POST", string(fixture(t, "rest.update-call.completed.request.txt")), nil, 200, 0,
			"[hang up cs_1]"},
		"completed, over": {over, "POST", "Status=completed", nil, 404, 20404, "[]"},
		"dial": {live, "POST", string(fixture(t, "rest.update-call.twiml.request.txt")), nil, 200, 0,
			"[transfer +12025550123 blind]"},
		"say, then number": {live, "POST", twiml("twiml.transfer-dial.xml"), nil, 200, 0,
			"[transfer +12025550123 blind]"},
		"TwiML, over": {over, "POST", twiml("twiml.transfer-dial.xml"), nil, 400, 21220, "[]"},
		"keys":        {live, "POST", twiml("twiml.play-digits.xml"), nil, 200, 0, "[digits ww1234#]"},
		"hang up":     {live, "POST", twiml("twiml.hangup.xml"), nil, 200, 0, "[hang up cs_1]"},
		"stream":      {live, "POST", twiml("twiml.connect-stream.xml"), nil, 200, 0, "[]"},
		"words only": {live, "POST", "Twiml=" + escape("<Response><Say>Bye</Say></Response>"), nil, 200, 0,
			"[hang up cs_1]"},
		"a conference": {live, "POST", "Twiml=" +
			escape("<Response><Dial><Conference>x</Conference></Dial></Response>"), nil, 400, 12200, "[]"},
		"a record": {live, "POST", "Twiml=" + escape("<Response><Record/></Response>"), nil, 400, 12200, "[]"},
		"no number": {live, "POST", "Twiml=" + escape("<Response><Dial>client:joe</Dial></Response>"), nil, 400,
			12200, "[]"},
		"no TwiML":         {live, "POST", "Twiml=hello", nil, 400, 12200, "[]"},
		"another status":   {live, "POST", "Status=busy", nil, 400, 21218, "[]"},
		"elsewhere":        {live, "POST", "Url=http://169.254.169.254/latest", nil, 400, 12200, "[]"},
		"it does not work": {live, "POST", "Status=completed", errors.New("no"), 400, 21220, "[hang up cs_1]"},
		"nothing":          {live, "POST", "", nil, 200, 0, "[]"},
		"get":              {live, "GET", "", nil, 200, 0, "[]"},
		"get, over":        {over, "GET", "", nil, 200, 0, "[]"},
	} {
		o := &operations{call: tt.call, err: tt.err}
		status, m := ask(rest(t, o, "wss://agent.example.com/media"), tt.method, id, tt.form, testToken)
		code, _ := m["code"].(float64)
		if status != tt.status || int(code) != tt.code || fmt.Sprint(o.did) != tt.did {
			t.Errorf("%s: %d, %v, %v", name, status, m, o.did)
		}
		if status == 200 && (m["sid"] != id || m["status"] == "") {
			t.Errorf("%s: the call is %v", name, m)
		}
	}
	o := &operations{call: over}
	_, m := ask(rest(t, o, "wss://agent.example.com/"), "GET", id, "", testToken)
	var want map[string]any
	if err := json.Unmarshal(fixture(t, "rest.update-call.response.json"), &want); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"from", "to", "status", "direction", "api_version", "start_time", "end_time",
		"duration"} {
		if !reflect.DeepEqual(m[name], want[name]) {
			t.Errorf("%s is %v, want %v", name, m[name], want[name])
		}
	}
	for name, want := range map[string]struct {
		call, token string
	}{"rest.error-20404.response.json": {"CA0123456789abcdef0123456789abcdef", testToken},
		"rest.error-20003.response.json": {id, "wrong"}} {
		status, m := ask(rest(t, o, "wss://agent.example.com/"), "GET", want.call, "", want.token)
		var is map[string]any
		if err := json.Unmarshal(fixture(t, name), &is); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(m, is) || float64(status) != is["status"] {
			t.Errorf("%s: %d, %v", name, status, m)
		}
	}
}

func escape(s string) string {
	return strings.NewReplacer("%", "%25", "&", "%26", "+", "%2B", "#", "%23", ";", "%3B", "\n", "%0A").Replace(s)
}

// TestURL: TwiML is fetched from the agent's own host, with a signature.
func TestURL(t *testing.T) {
	var signed []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		signed = append(signed, r.Method+" "+r.Form.Get("CallSid")+" "+r.Header.Get("X-Twilio-Signature"))
		if r.URL.Path == "/none" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		io.WriteString(w, `<Response><Dial>+12025550199</Dial></Response>`)
	}))
	defer srv.Close()
	o := &operations{call: calls.Call{ID: "cs_1", Status: providers.StatusInProgress}}
	h := rest(t, o, "ws"+strings.TrimPrefix(srv.URL, "http")+"/media")
	for _, tt := range []struct {
		form   string
		status int
	}{{"Url=" + escape(srv.URL+"/transfer") + "&Method=POST", 200},
		{"Url=" + escape(srv.URL+"/transfer?a=b") + "&Method=GET", 200},
		{"Url=" + escape(srv.URL+"/none"), 400}} {
		if status, m := ask(h, "POST", sid("CA", "cs_1"), tt.form, testToken); status != tt.status {
			t.Errorf("%s: %d, %v", tt.form, status, m)
		}
	}
	if fmt.Sprint(o.did) != "[transfer +12025550199 blind transfer +12025550199 blind]" || len(signed) != 3 ||
		!strings.HasPrefix(signed[0], "POST CA") || !strings.HasPrefix(signed[1], "GET CA") ||
		len(strings.Fields(signed[0])) != 3 {
		t.Errorf("%v, %v", o.did, signed)
	}
}

// FuzzTwiML: whatever an agent sends, it does no more than it may.
func FuzzTwiML(f *testing.F) {
	for _, name := range []string{"twiml.connect-stream.xml", "twiml.transfer-dial.xml", "twiml.play-digits.xml"} {
		f.Add(fixture(f, name))
	}
	f.Fuzz(func(t *testing.T, twiml []byte) {
		o := &operations{call: calls.Call{ID: "cs_1", Status: providers.StatusInProgress}}
		_, p := newTalk(t, options{AccountSID: testAccount, AuthToken: testToken})
		err := p.follow(o, &o.call, twiml)
		for _, did := range o.did {
			if number, is := strings.CutPrefix(did, "transfer "); is &&
				!providers.ValidNumber(strings.TrimSuffix(number, " blind")) {
				t.Errorf("it is moved to %s", number)
			}
		}
		if err != nil && len(o.did) > 100 {
			t.Error(err)
		}
	})
}

var _ agent.Operator = (*protocol)(nil)

// TestVoiceURL: the agent's own webhook tells its stream, and what that is to be told.
func TestVoiceURL(t *testing.T) {
	var asked []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.FormValue("CallSid")+" "+r.FormValue("From")+" "+r.FormValue("CallStatus")+" "+
			r.Header.Get("X-Twilio-Signature"))
		if r.URL.Path == "/none" {
			io.WriteString(w, "<Response><Say>Bye</Say></Response>")
			return
		}
		w.Write(fixture(t, "twiml.connect-stream.xml"))
	}))
	defer srv.Close()
	locate := func(path string) (string, *agent.Call, error) {
		_, p := newTalk(t, options{AccountSID: testAccount, AuthToken: testToken, VoiceURL: srv.URL + path})
		call := &agent.Call{Session: "cs_1", Known: agent.Known{From: "+12025550123"}, Start: &providers.Start{}}
		at, err := p.Locate(t.Context(), nil, call)
		return at, call, err
	}
	at, call, err := locate("/voice")
	if err != nil || at != "wss://agent.example.com/ws" || parameters(call)["run"] != "42" ||
		parameters(call)["call_id"] != "cs_1" {
		t.Errorf("%s, %v, %v", at, call.Told, err)
	}
	if want := sid("CA", "cs_1") + " +12025550123 ringing "; len(asked) != 1 || !strings.HasPrefix(asked[0], want) ||
		len(asked[0]) < len(want)+20 {
		t.Errorf("asked are %q", asked)
	}
	if at, _, err := locate("/none"); err == nil {
		t.Errorf("without a stream it is at %s", at)
	}
}
