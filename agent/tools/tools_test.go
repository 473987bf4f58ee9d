package tools

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"voicebridge/calls"
	"voicebridge/notify"
)

const secret = "a secret of some length"

func testSet(t testing.TB, url string) *Set {
	t.Helper()
	s, err := New(Config{EndCall: true, SendDigits: true,
		Destinations: map[string]calls.TransferRequest{"sales": {To: "name:sales"}, "billing": {To: "name:billing"}},
		Own: []Own{{Name: "find_order", Description: "Finds an order.",
			Parameters: map[string]any{"type": "object", "properties": map[string]any{}},
			Webhook:    notify.Target{URL: url, Secret: secret, Timeout: 200 * time.Millisecond}}}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestList: models are told of the names that they may use, and of nothing that is switched off.
func TestList(t *testing.T) {
	b, err := json.Marshal(testSet(t, "https://x.example/").List(true))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"Name":"end_call"`, `"enum":["billing","sales"]`, `"required":["destination"]`,
		`"required":["digits"]`, `"Name":"find_order"`} {
		if !strings.Contains(string(b), want) {
			t.Errorf("%s is not in %s", want, b)
		}
	}
	in, err := New(Config{Destinations: map[string]calls.TransferRequest{"sales": {To: "name:sales"},
		"night": {To: "agent:night"}}})
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := json.Marshal(in.List(false)); !strings.Contains(string(b), `"enum":["night"]`) {
		t.Errorf("where no call can be transferred there are %s", b)
	}
	s, err := New(Config{})
	if err != nil || len(s.List(true)) != 0 {
		t.Errorf("%v, %v", s.List(true), err)
	}
	var none *Set
	if none.List(true) != nil {
		t.Error("no set has tools")
	}
	if _, err := none.Action(Call{Name: EndCall}); err == nil {
		t.Error("no set ends calls")
	}
}

// TestAction: what models want is held to what they were told.
func TestAction(t *testing.T) {
	s := testSet(t, "https://x.example/")
	for _, tt := range []struct {
		name, arguments string
		want            Action
		wrong           string
	}{
		{EndCall, ``, Action{End: true}, ""},
		{EndCall, `{"reason":"done"}`, Action{End: true}, ""},
		{SendDigits, `{"digits":"12#"}`, Action{Digits: "12#"}, ""},
		{TransferCall, `{"destination":"sales"}`, Action{Transfer: &calls.TransferRequest{To: "name:sales"}}, ""},
		{TransferCall, `{"destination":"billing","summary":"Refund"}`, Action{Transfer: &calls.TransferRequest{
			To: "name:billing", Context: map[string]string{"summary": "Refund"}}}, ""},
		{TransferCall, `{"destination":"+15550100"}`, Action{}, "must be one of billing, sales"},
		{TransferCall, `{}`, Action{}, "must be one of"},
		{TransferCall, `{"destination":7}`, Action{}, "not as declared"},
		{TransferCall, `[`, Action{}, "not as declared"},
		{"rm", `{}`, Action{}, "no tool"},
		{"find_order", `{"n":1}`, Action{Own: &s.cfg.Own[0]}, ""},
		{"find_order", `3`, Action{}, "not as declared"},
		{EndCall, `{"reason":"` + strings.Repeat("x", maxArguments) + `"}`, Action{}, "too long"},
	} {
		got, err := s.Action(Call{Name: tt.name, Arguments: json.RawMessage(tt.arguments)})
		if !reflect.DeepEqual(got, tt.want) || (err == nil) != (tt.wrong == "") ||
			err != nil && !strings.Contains(err.Error(), tt.wrong) {
			t.Errorf("%s(%.80s): %+v, %v", tt.name, tt.arguments, got, err)
		}
	}
	if len(s.cfg.Destinations["billing"].Context) > 0 {
		t.Error("what one call says stays with the destination")
	}
}

// TestNew: what is wrong names the field.
func TestNew(t *testing.T) {
	target := notify.Target{URL: "https://x.example/"}
	for want, own := range map[string]Own{
		"own[0].name":        {Name: "a b", Description: "x", Webhook: target},
		"own[0].name: \"end": {Name: EndCall, Description: "x", Webhook: target},
		"own[0].description": {Name: "a", Webhook: target},
		"own[0].parameters":  {Name: "a", Description: "x", Webhook: target, Parameters: map[string]any{"type": "string"}},
		"own[0].url":         {Name: "a", Description: "x", Webhook: notify.Target{URL: "http://x.example/"}},
		"own[0].secret":      {Name: "a", Description: "x", Webhook: notify.Target{URL: "https://x.example/", Secret: "s"}},
	} {
		if _, err := New(Config{Own: []Own{own}}); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	twice := Own{Name: "a", Description: "x", Webhook: target}
	if _, err := New(Config{Own: []Own{twice, twice}}); err == nil {
		t.Error("two tools have one name")
	}
}

// TestAsk: the user's webhook is asked, signed, and does not hold anything up.
func TestAsk(t *testing.T) {
	asked := make(chan map[string]any, 4)
	hang := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var got map[string]any
		b, err := io.ReadAll(r.Body)
		if err == nil {
			err = notify.Verify(secret, r.Header.Get("Voicebridge-Signature"), time.Now(), b)
		}
		if err == nil {
			err = json.Unmarshal(b, &got)
		}
		if err != nil {
			t.Error(err)
		}
		asked <- got
		switch got["tool_call_id"] {
		case "late":
			<-hang
		case "bad":
			w.WriteHeader(http.StatusTeapot)
		case "text":
			io.WriteString(w, "found")
		default:
			io.WriteString(w, `{"state": "sent"}`)
		}
	}))
	defer srv.Close()
	defer close(hang)
	own := testSet(t, srv.URL).cfg.Own[0]
	about := &About{Session: "cs_1", Carrier: "acme", From: "+15550100"}
	answer, err := own.Ask(context.Background(), Call{"1", "find_order", json.RawMessage(`{"n":12}`)}, about)
	want := map[string]any{"tool_call_id": "1", "name": "find_order", "arguments": map[string]any{"n": 12.0},
		"call": map[string]any{"session_id": "cs_1", "carrier": "acme", "from": "+15550100"}}
	got := <-asked
	if err != nil || string(answer) != `{"state": "sent"}` || !reflect.DeepEqual(got, want) {
		t.Errorf("%v is asked, %s, %v", got, answer, err)
	}
	for _, id := range []string{"late", "bad", "text"} {
		if answer, err := own.Ask(context.Background(), Call{ID: id, Name: "find_order"}, about); err == nil {
			t.Errorf("%s: %s", id, answer)
		}
	}
}

// FuzzAction: arguments are a model's, and may be anything.
func FuzzAction(f *testing.F) {
	f.Add("transfer_call", []byte(`{"destination":"sales","summary":"x"}`))
	f.Add("send_digits", []byte(`{"digits":"1"}`))
	f.Fuzz(func(t *testing.T, name string, arguments []byte) {
		a, err := testSet(t, "https://x.example/").Action(Call{"1", name, arguments})
		if err == nil && a == (Action{}) && name != SendDigits {
			t.Errorf("%s(%s) is nothing", name, arguments)
		}
		if a.Transfer != nil && a.Transfer.To != "name:sales" && a.Transfer.To != "name:billing" {
			t.Errorf("it reaches %s", a.Transfer.To)
		}
	})
}
