package bridge_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
	"github.com/gorilla/websocket"

	"voicebridge/agent"
	"voicebridge/agent/link"
	"voicebridge/api"
	"voicebridge/calls"
	"voicebridge/codec"
	"voicebridge/control"
	"voicebridge/notify"
	"voicebridge/providers"
	"voicebridge/providers/twilio"
	"voicebridge/providers/vonage"
	"voicebridge/sim"
	"voicebridge/sim/ear"
)

const apiToken = "a token of the API"

var apiTokens = []api.Token{{Name: "test", SHA256: sha256.Sum256([]byte(apiToken))}}

// exchange is a bridge with an account at a simulated carrier.
type testbed struct {
	*running
	exchange *sim.Exchange
	spec     *providers.Spec
	router   routers.Router
	t        *testing.T
}

// carriers runs a test with each carrier, in virtual time.
func carriers(t *testing.T, test func(t *testing.T, spec *providers.Spec)) {
	eachCarrier(t, func(t *testing.T, spec *providers.Spec) {
		virtual(t, func(t *testing.T) { test(t, spec) })
	})
}

// eachCarrier runs a test with each carrier.
func eachCarrier(t *testing.T, test func(t *testing.T, spec *providers.Spec)) {
	for _, spec := range specs {
		t.Run(spec.Name, func(t *testing.T) {
			t.Parallel()
			test(t, spec)
		})
	}
}

// phone rings for a moment, then speaks for half a second.
func phone(spec *providers.Spec) sim.Phone {
	voice, err := ear.Speech(spec.Formats[0].Rate)
	if err != nil {
		panic(err)
	}
	return sim.Phone{Ring: 20 * time.Millisecond, Voice: voice, Length: 500 * time.Millisecond}
}

// startTestbed makes a bridge and a carrier that talk to each other, as through
// the public URL.
func startTestbed(t *testing.T, spec *providers.Spec, agentURL string, change func(*options, *sim.Exchange)) *testbed {
	t.Helper()
	return startTestbedIn(t, spec, spec.Formats[0], agentURL, change)
}

// startTestbedIn is startTestbed with a format of its own.
func startTestbedIn(t *testing.T, spec *providers.Spec, format codec.Format, agentURL string,
	change func(*options, *sim.Exchange)) *testbed {
	t.Helper()
	exchange := &sim.Exchange{Spec: spec, Dialer: network,
		Phone: func(providers.ExchangeCall) sim.Phone { return phone(spec) }}
	rest := newServer(exchange)
	account, err := exchange.Open(rest.URL, format)
	if err != nil {
		t.Fatal(err)
	}
	x := &testbed{exchange: exchange, spec: spec, t: t}
	x.running = startBridge(t, agentURL, func(o *options) {
		o.public = publicURL
		o.accounts = map[string]control.Account{"main": {Spec: spec, Account: account, From: "+15550100999"}}
		o.tokens = apiTokens
		if change != nil {
			change(o, exchange)
		}
	})
	exchange.Reach = func(u string) string {
		if rest, ok := strings.CutPrefix(u, publicURL); ok {
			return "http" + strings.TrimPrefix(x.url, "ws") + rest
		}
		return strings.Replace(u, "wss"+strings.TrimPrefix(publicURL, "https"), x.url, 1)
	}
	t.Cleanup(func() { // before the bridge's, after the test's own
		exchange.Wait()
		rest.Close()
	})
	if x.router, err = openAPI(); err != nil {
		t.Fatal(err)
	}
	if err := exchange.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	return x
}

// openAPI reads the document of the API.
var openAPI = sync.OnceValues(func() (routers.Router, error) {
	b, err := os.ReadFile("../api/openapi.yaml")
	if err != nil {
		return nil, err
	}
	doc, err := openapi3.NewLoader().LoadFromData(b)
	if err == nil {
		err = doc.Validate(context.Background())
	}
	if err != nil {
		return nil, err
	}
	return gorillamux.NewRouter(doc)
})

// api makes a request to the control API and checks the answer, and a request
// that is accepted, against the OpenAPI document.
func (x *testbed) api(method, path, body string, header ...string) (status int, answer map[string]any) {
	x.t.Helper()
	req, err := http.NewRequest(method, "http"+strings.TrimPrefix(x.url, "ws")+path, strings.NewReader(body))
	if err != nil {
		x.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+apiToken)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		x.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		x.t.Fatal(err)
	}
	if len(data) > 0 {
		if err := json.Unmarshal(data, &answer); err != nil {
			x.t.Fatalf("%s %s: %s", method, path, data)
		}
	}
	again, _ := http.NewRequest(method, path, strings.NewReader(body))
	again.Header = req.Header
	route, params, err := x.router.FindRoute(again)
	if err != nil {
		if resp.StatusCode != 404 {
			x.t.Errorf("%s %s is not in the document, but answered with %d", method, path, resp.StatusCode)
		}
		return resp.StatusCode, answer
	}
	in := &openapi3filter.RequestValidationInput{Request: again, PathParams: params, Route: route,
		Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc}}
	if resp.StatusCode < 300 {
		if err := openapi3filter.ValidateRequest(context.Background(), in); err != nil {
			x.t.Errorf("%s %s %s was accepted, but the document says: %v", method, path, body, err)
		}
	}
	out := &openapi3filter.ResponseValidationInput{RequestValidationInput: in, Status: resp.StatusCode,
		Header: resp.Header}
	if err := openapi3filter.ValidateResponse(context.Background(), out.SetBodyBytes(data)); err != nil {
		x.t.Errorf("%s %s: %d %s: %v", method, path, resp.StatusCode, data, err)
	}
	return resp.StatusCode, answer
}

const dialBody = `{"account":"main","to":"+15550100123"}`

// place places a call and gives our id and the carrier's call.
func (x *testbed) place(body string) (id string, exchange *sim.SimCall) {
	x.t.Helper()
	status, call := x.api("POST", "/v1/calls", body)
	if status != 201 {
		x.t.Fatalf("%d %v", status, call)
	}
	exchange = x.exchange.Find(call["carrier_id"].(string))
	if exchange == nil {
		x.t.Fatalf("the carrier knows nothing of %v", call)
	}
	return call["id"].(string), exchange
}

// events listens from now on, or after an id.
func (x *testbed) events(after string) func() calls.Event {
	x.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	x.t.Cleanup(stop)
	req, err := http.NewRequestWithContext(ctx, "GET", "http"+strings.TrimPrefix(x.url, "ws")+"/v1/events", nil)
	if err != nil {
		x.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+apiToken)
	req.Header.Set("Last-Event-ID", after)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		x.t.Fatal(err)
	}
	x.t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" {
		x.t.Fatalf("%s %s", resp.Status, resp.Header.Get("Content-Type"))
	}
	lines := bufio.NewScanner(resp.Body)
	if !lines.Scan() || !strings.HasPrefix(lines.Text(), ":") { // the feed has begun
		x.t.Fatalf("%q, %v", lines.Text(), lines.Err())
	}
	return func() calls.Event {
		x.t.Helper()
		late := time.AfterFunc(15*time.Second, stop)
		defer late.Stop()
		for lines.Scan() {
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				var ev calls.Event
				if err := json.Unmarshal([]byte(data), &ev); err != nil {
					x.t.Fatal(err)
				}
				return ev
			}
		}
		x.t.Fatalf("no event came: %v", lines.Err())
		return calls.Event{}
	}
}

// until reads events up to the end of a call and gives their types.
func until(next func() calls.Event, id string) (types []string, last calls.Event) {
	for {
		ev := next()
		if ev.Call.ID != id {
			continue
		}
		types = append(types, ev.Type)
		if last = ev; ev.Type == calls.EventEnded {
			return types, last
		}
	}
}

// TestOutbound: a call is placed, answered, bridged and ended; whatever disorder
// the carrier's reports come in, the events are in order and none comes twice.
func TestOutbound(t *testing.T) {
	t.Parallel()
	for name, faults := range map[string]sim.Faults{"orderly": {}, "twice": {Duplicate: true},
		"disorder": {Duplicate: true, Reorder: true}} {
		t.Run(name, func(t *testing.T) {
			carriers(t, func(t *testing.T, spec *providers.Spec) {
				s, agentURL := newScript(t)
				x := startTestbed(t, spec, agentURL,
					func(_ *options, exchange *sim.Exchange) { exchange.Faults = faults })
				next := x.events("")
				id, exchange := x.place(`{"account":"main","to":"+15550100123","metadata":{"campaign":"renewal"},"ring_timeout":20}`)
				a := <-s.conn
				for _, want := range []string{`"session_id":"` + id, `"direction":"outbound"`, `"from":"+15550100999"`,
					`"to":"+15550100123"`, `"campaign":"renewal"`, `"id":"` + exchange.Call().ID} {
					if !strings.Contains(string(a.Start), want) {
						t.Errorf("the agent is not told %s: %s", want, a.Start)
					}
				}
				out := exchange.Wait()
				if out.Fault != nil || len(out.Streams) != 1 || out.Streams[0].Complaints > 0 ||
					out.Call.Status != providers.StatusCompleted {
					t.Errorf("%+v", out)
				}
				types, last := until(next, id)
				allowed := []string{calls.EventCreated, calls.EventRinging, calls.EventAnswered, calls.EventStreaming,
					calls.EventStreamEnd, calls.EventEnded}
				if !slices.IsSortedFunc(types,
					func(a, b string) int { return slices.Index(allowed, a) - slices.Index(allowed, b) }) ||
					len(slices.Compact(slices.Clone(types))) != len(types) {
					t.Errorf("the events are %v", types)
				}
				if c := last.Call; c.Status != providers.StatusCompleted || c.Cause != "caller_hangup" || c.Streaming ||
					c.CarrierID != out.Call.ID {
					t.Errorf("%+v", c)
				}
				status, call := x.api("GET", "/v1/calls/"+id, "")
				if status != 200 || call["status"] != "completed" || call["answered_at"] == nil ||
					call["ended_at"] == nil {
					t.Errorf("%d %v", status, call)
				}
				if status, list := x.api("GET", "/v1/calls?account=main&live=false&status=completed&limit=1",
					""); status != 200 || len(list["calls"].([]any)) != 1 {
					t.Errorf("%d %v", status, list)
				}
				if status, list := x.api("GET", "/v1/calls?live=true", ""); status != 200 ||
					len(list["calls"].([]any)) != 0 {
					t.Errorf("%d %v", status, list)
				}
			})
		})
	}
}

// TestNotAnswered: what becomes of a call that nobody answers.
func TestNotAnswered(t *testing.T) {
	t.Parallel()
	carriers(t, func(t *testing.T, spec *providers.Spec) {
		var want providers.Status
		_, agentURL := newScript(t)
		x := startTestbed(t, spec, agentURL, func(_ *options, exchange *sim.Exchange) {
			exchange.Phone = func(providers.ExchangeCall) sim.Phone { return sim.Phone{Reject: want} }
		})
		next := x.events("")
		for _, want = range []providers.Status{providers.StatusBusy, providers.StatusNoAnswer, providers.StatusFailed} {
			id, _ := x.place(dialBody)
			if types, last := until(next, id); last.Call.Status != want || slices.Contains(types, calls.EventAnswered) {
				t.Errorf("%v, %+v, want %s", types, last.Call, want)
			}
		}
	})
}

// TestHangup: whoever ends the call, it is over at the carrier, and once what the
// agent has said is heard where that was asked for.
func TestHangup(t *testing.T) {
	t.Parallel()
	long := func(spec *providers.Spec) func(providers.ExchangeCall) sim.Phone {
		p := phone(spec)
		p.Length = 30 * time.Second
		return func(providers.ExchangeCall) sim.Phone { return p }
	}
	carriers(t, func(t *testing.T, spec *providers.Spec) {
		s, agentURL := newScript(t)
		x := startTestbed(t, spec, agentURL, func(_ *options, exchange *sim.Exchange) { exchange.Phone = long(spec) })
		next := x.events("")
		goodbye := codec.L16LE.AppendEncode(nil, ear.Sine(16000, 440, 400*time.Millisecond))
		for name, tt := range map[string]struct {
			do    func(id string, a *sim.AgentConn) error
			cause calls.Cause
			heard bool
		}{
			"agent": {func(_ string, a *sim.AgentConn) error { return a.Command(map[string]string{"type": "hangup"}) },
				calls.AgentHangup, true},
			"agent now": {func(_ string, a *sim.AgentConn) error {
				return a.Command(map[string]string{"type": "hangup", "when": "now"})
			}, calls.AgentHangup, false},
			"API": {func(id string, _ *sim.AgentConn) error {
				s.wait("playback") // the audio has come
				return x.hangup(id, `{"when":"after_playback"}`)
			}, calls.APIHangup, true},
			"API now": {func(id string, _ *sim.AgentConn) error { return x.hangup(id, "") }, calls.APIHangup, false},
		} {
			id, exchange := x.place(dialBody)
			a := <-s.conn
			if err := a.Audio(goodbye); err != nil {
				t.Fatal(err)
			}
			if err := tt.do(id, a); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			out := exchange.Wait()
			heard := len(out.Streams) == 1 && len(out.Streams[0].Received) >= spec.Formats[0].Rate*4/10
			if out.Fault != nil || out.Call.Status != providers.StatusCompleted || tt.heard && !heard {
				t.Errorf("%s: heard %v, %+v", name, heard, out.Call)
			}
			if _, last := until(next, id); last.Call.Cause != string(tt.cause) ||
				last.Call.Status != providers.StatusCompleted {
				t.Errorf("%s: %+v", name, last.Call)
			}
			if err := x.hangup(id, ""); err != nil {
				t.Errorf("%s: again: %v", name, err)
			}
			for range s.said { // up to the end
			}
			s.said = make(chan map[string]any, 2000)
		}
	})
	carriers(t, func(t *testing.T, spec *providers.Spec) { // while it rings
		_, agentURL := newScript(t)
		x := startTestbed(t, spec, agentURL, func(_ *options, exchange *sim.Exchange) {
			exchange.Phone = func(providers.ExchangeCall) sim.Phone { return sim.Phone{Ring: time.Minute} }
		})
		next := x.events("")
		id, exchange := x.place(dialBody)
		if err := x.hangup(id, ""); err != nil {
			t.Fatal(err)
		}
		if out := exchange.Wait(); out.Call.Status != providers.StatusCanceled {
			t.Errorf("%+v", out)
		}
		if _, last := until(next, id); last.Call.Status != providers.StatusCanceled {
			t.Errorf("%+v", last.Call)
		}
	})
}

func (x *testbed) hangup(id, body string) error {
	if status, answer := x.api("POST", "/v1/calls/"+id+"/hangup", body); status != 204 {
		return fmt.Errorf("%d %v", status, answer)
	}
	return nil
}

// inboundCall makes a call to the bridge.
func (x *testbed) inboundCall(p sim.Phone) *sim.SimCall {
	return x.exchange.Call("+15550001111", "+15550002222", publicURL+"/hooks/"+x.spec.Name+"/main/inbound", p)
}

// TestFallback: a caller whose agent cannot be reached, says nothing, or breaks
// down, gets words and another number, and the record says why.
func TestFallback(t *testing.T) {
	t.Parallel()
	carriers(t, func(t *testing.T, spec *providers.Spec) {
		gone := newServer(nil)
		gone.Close()
		silent := startAgent(t, sim.Record(t.TempDir(), func(string, []byte) {}))
		rude := startAgent(t, func(_ context.Context, c *sim.AgentConn) error {
			for {
				if err := c.Command("no object"); err != nil {
					return nil
				}
				time.Sleep(21 * time.Millisecond)
			}
		})
		for agentURL, cause := range map[string]calls.Cause{
			"ws" + strings.TrimPrefix(gone.URL, "http"): calls.AgentUnreachable,
			silent: calls.AgentSilent,
			rude:   calls.AgentProtocol,
		} {
			x := startTestbed(t, spec, agentURL, func(o *options, _ *sim.Exchange) {
				o.session.Greeting = time.Second
				o.fallback = control.Fallback{Say: "Our agents are asleep.", Dial: "+15550100777"}
			})
			p := phone(spec)
			p.Length = 20 * time.Second
			out := x.inboundCall(p).Wait()
			if out.Fault != nil || !slices.Equal(out.Said, []string{"Our agents are asleep."}) ||
				!slices.Equal(out.Dialled, []string{"+15550100777"}) {
				t.Errorf("%s: %+v", cause, out)
			}
			_, list := x.api("GET", "/v1/calls", "")
			if call := list["calls"].([]any)[0].(map[string]any); call["cause"] != string(cause) ||
				call["direction"] != "inbound" || call["answered_at"] == nil {
				t.Errorf("%v, want %s", call, cause)
			}
		}
	})
}

// TestRedirect takes a call away from its agent.
func TestRedirect(t *testing.T) {
	t.Parallel()
	carriers(t, func(t *testing.T, spec *providers.Spec) {
		s, agentURL := newScript(t)
		x := startTestbed(t, spec, agentURL, nil)
		p := phone(spec)
		p.Length = 20 * time.Second
		exchange := x.inboundCall(p)
		a := <-s.conn
		if status, answer := x.api("POST", "/v1/calls/"+a.Session+"/redirect",
			`{"say":"One moment.","dial":"+15550100777"}`); status != 204 {
			t.Fatalf("%d %v", status, answer)
		}
		if stop := s.wait("stop"); stop["reason"] != "transferred" {
			t.Errorf("%v", stop)
		}
		if _, call := x.api("GET", "/v1/calls/"+a.Session, ""); call["cause"] != "transferred" ||
			call["streaming"] != false {
			t.Errorf("%v", call)
		}
		if out := exchange.Wait(); out.Fault != nil || !slices.Equal(out.Said, []string{"One moment."}) ||
			!slices.Equal(out.Dialled, []string{"+15550100777"}) {
			t.Errorf("%+v", out)
		}
	})
}

// TestIdempotency: a repeated request places no second call.
func TestIdempotency(t *testing.T) {
	t.Parallel()
	carriers(t, func(t *testing.T, spec *providers.Spec) {
		dials := 0
		var fail error
		x := startTestbed(t, spec, startAgent(t, sim.Echo), func(_ *options, exchange *sim.Exchange) {
			exchange.Faults.Fail = func(kind providers.OperationKind, _ int) error {
				if kind == providers.OpDial {
					dials++
					return fail
				}
				return nil
			}
		})
		status, first := x.api("POST", "/v1/calls", dialBody, "Idempotency-Key", "k1")
		again, second := x.api("POST", "/v1/calls", dialBody, "Idempotency-Key", "k1")
		if status != 201 || again != 201 || first["id"] != second["id"] || dials != 1 {
			t.Errorf("%d %v, then %d %v; %d calls", status, first, again, second, dials)
		}
		if status, answer := x.api("POST", "/v1/calls", `{"account":"main","to":"+15550100124"}`, "Idempotency-Key",
			"k1"); status != 422 {
			t.Errorf("another request with the key: %d %v", status, answer)
		}
		// The carrier may have placed the call: it must not be placed again.
		fail = errors.New("oops")
		status, _ = x.api("POST", "/v1/calls", dialBody, "Idempotency-Key", "k2")
		again, _ = x.api("POST", "/v1/calls", dialBody, "Idempotency-Key", "k2")
		if status != 502 || again != 502 || dials != 2 {
			t.Errorf("%d, then %d; %d calls", status, again, dials)
		}
		// The carrier surely has not.
		fail = &providers.CallError{Kind: providers.ErrRejected, Status: 400, Code: "1", Detail: "no"}
		status, _ = x.api("POST", "/v1/calls", dialBody, "Idempotency-Key", "k3")
		fail = nil
		again, _ = x.api("POST", "/v1/calls", dialBody, "Idempotency-Key", "k3")
		if status != 422 || again != 201 {
			t.Errorf("%d, then %d", status, again)
		}
		x.exchange.Wait()
	})
}

// TestCarrierErrors: a carrier that fails is told apart from a request that is
// wrong, and never waited for without end.
func TestCarrierErrors(t *testing.T) {
	t.Parallel()
	carriers(t, func(t *testing.T, spec *providers.Spec) {
		var fail error
		x := startTestbed(t, spec, startAgent(t, sim.Echo), func(_ *options, exchange *sim.Exchange) {
			exchange.Faults.Fail = func(providers.OperationKind, int) error { return fail }
		})
		for _, tt := range []struct {
			fail   error
			status int
			code   string
		}{
			{errors.New("oops"), 502, "carrier_unavailable"},
			{&providers.CallError{Kind: providers.ErrCredentials, Status: 401, Code: "20003"}, 502,
				"carrier_credentials"},
			{&providers.CallError{Kind: providers.ErrRejected, Status: 400, Code: "21211", Detail: "not valid"}, 422,
				"carrier_rejected"},
			{&providers.CallError{Kind: providers.ErrRate, Status: 429, Code: "20429", Retry: time.Hour}, 429,
				"carrier_rate_limited"},
		} {
			fail = tt.fail
			status, answer := x.api("POST", "/v1/calls", dialBody)
			if status != tt.status || answer["code"] != tt.code {
				t.Errorf("%v: %d %v", tt.fail, status, answer)
			}
			_, list := x.api("GET", "/v1/calls?limit=1", "")
			if call := list["calls"].([]any)[0].(map[string]any); call["status"] != "failed" || call["error"] == nil {
				t.Errorf("%v", call)
			}
		}
	})
}

// TestPlacedInSecret: a call that the carrier has placed, although its reply was
// lost, is ended: nobody waits for it.
func TestPlacedInSecret(t *testing.T) {
	t.Parallel()
	carriers(t, func(t *testing.T, spec *providers.Spec) {
		var exchange *sim.Exchange
		x := startTestbed(t, spec, startAgent(t, sim.Echo), func(_ *options, s *sim.Exchange) {
			exchange = s
			s.Phone = func(providers.ExchangeCall) sim.Phone { return sim.Phone{Ring: time.Minute} }
			s.Faults.Lose = func(kind providers.OperationKind, _ int) bool { return kind == providers.OpDial }
		})
		status, answer := x.api("POST", "/v1/calls", dialBody)
		if status != 502 || answer["code"] != "carrier_unavailable" {
			t.Errorf("%d %v", status, answer)
		}
		exchange.Wait() // does not ring for a minute
		for _, c := range exchange.Calls() {
			if out := c.Wait(); out.Call.Status != providers.StatusCanceled || out.Fault != nil {
				t.Errorf("%+v", out)
			}
		}
		if _, list := x.api("GET", "/v1/calls", ""); list["calls"].([]any)[0].(map[string]any)["status"] != "failed" {
			t.Errorf("%v", list)
		}
	})
}

// TestRateLimited: a carrier that has no time for a call gets it again when it
// said, and no sooner.
func TestRateLimited(t *testing.T) {
	t.Parallel()
	carriers(t, func(t *testing.T, spec *providers.Spec) {
		x := startTestbed(t, spec, startAgent(t, sim.Echo),
			func(_ *options, exchange *sim.Exchange) { exchange.Faults.Rate = 1 })
		x.place(dialBody)
		began := time.Now()
		x.place(dialBody)
		if d := time.Since(began); d < 900*time.Millisecond {
			t.Errorf("the second call was placed after %v", d)
		}
		x.exchange.Wait()
		if _, metrics := get(t, x.admin+"/metrics"); !strings.Contains(metrics,
			`voicebridge_calls_placed_total{provider="`+spec.Name+`",result="ok"} 2`) {
			t.Error("the metrics do not say so")
		}
	})
}

// TestAPIBadInput: each is answered with what is wrong, and reaches nothing.
func TestAPIBadInput(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T) {
		spec := twilio.Spec
		x := startTestbed(t, spec, startAgent(t, sim.Echo), func(o *options, exchange *sim.Exchange) {
			exchange.Phone = func(providers.ExchangeCall) sim.Phone { t.Error("a call was placed"); return sim.Phone{} }
		})
		for _, tt := range []struct {
			method, path, body string
			status             int
			code, about        string
		}{
			{"POST", "/v1/calls", "{", 400, "bad_json", ""},
			{"POST", "/v1/calls", "", 400, "bad_json", ""},
			{"POST", "/v1/calls", "[]", 400, "bad_json", ""},
			{"POST", "/v1/calls", strings.Repeat(`{"metadata":`, 5000), 400, "bad_json", ""},
			{"POST", "/v1/calls", dialBody + "{}", 400, "bad_json", "more than one"},
			{"POST", "/v1/calls", `{"account":"main","to":"+15550100123","colour":"red"}`, 400, "bad_json", "colour"},
			{"POST", "/v1/calls", `{"account":"main","to":5550100123}`, 400, "bad_json", "to"},
			{"POST", "/v1/calls", `{"account":"other","to":"+15550100123"}`, 422, "invalid", "account"},
			{"POST", "/v1/calls", `{"account":"main","to":"5550100123"}`, 422, "invalid", "to:"},
			{"POST", "/v1/calls", `{"account":"main","to":"+15550100123","from":"me"}`, 422, "invalid", "from:"},
			{"POST", "/v1/calls", `{"account":"main","to":"+15550100123","agent":"nobody"}`, 422, "invalid", "agent"},
			{"POST", "/v1/calls", `{"account":"main","to":"+15550100123","ring_timeout":1}`, 422, "invalid",
				"ring_timeout"},
			{"POST", "/v1/calls", `{"account":"main","to":"+15550100123","machine_detection":"maybe"}`, 422, "invalid",
				"machine_detection"},
			{"POST", "/v1/calls", `{"account":"main","to":"+15550100123","digits":"x"}`, 422, "invalid", "digits"},
			{"POST", "/v1/calls", `{"account":"main","to":"+15550100123","metadata":{"k":"` + strings.Repeat("x", 800) +
				`"}}`, 422, "invalid", "metadata"},
			{"POST", "/v1/calls", strings.Repeat(" ", 70<<10), 413, "too_large", ""},
			{"GET", "/v1/calls?limit=0", "", 422, "invalid", "limit"},
			{"GET", "/v1/calls?limit=x", "", 422, "invalid", "limit"},
			{"GET", "/v1/calls?live=maybe", "", 422, "invalid", "live"},
			{"GET", "/v1/calls?status=error", "", 422, "invalid", "status"},
			{"POST", "/v1/calls", `{"account":"main","to":"+15550100123","digits":"1","machine_detection":"report"}`,
				422, "invalid", "digits"},
			{"GET", "/v1/calls/cs_nobody", "", 404, "not_found", ""},
			{"POST", "/v1/calls/cs_nobody/hangup", "", 404, "not_found", ""},
			{"POST", "/v1/calls/cs_nobody/hangup", `{"when":"later"}`, 422, "invalid", "when"},
			{"POST", "/v1/calls/cs_nobody/digits", `{"digits":"1"}`, 404, "not_found", ""},
			{"POST", "/v1/calls/cs_nobody/digits", `{"digits":"e"}`, 422, "invalid", "digits"},
			{"POST", "/v1/calls/cs_nobody/redirect", `{}`, 422, "invalid", ""},
			{"POST", "/v1/calls/cs_nobody/redirect", `{"dial":"1"}`, 422, "invalid", "dial"},
			{"POST", "/v1/calls/cs_nobody/redirect", `{"say":"x"}`, 404, "not_found", ""},
			{"GET", "/v1/events?call=cs_nobody", "", 404, "not_found", ""},
			{"GET", "/v1/accounts/other/refused-webhooks", "", 404, "not_found", ""},
			{"POST", "/v1/pools/nobody/tokens", "", 404, "not_found", ""},
			{"DELETE", "/v1/calls", "", 404, "not_found", ""},
			{"GET", "/v1/else", "", 404, "not_found", ""},
			{"GET", "/v1/calls/cs_nobody/agent", "", 404, "not_found", ""},
			{"GET", "/v1/pools/nobody/agent", "", 404, "not_found", ""},
		} {
			status, answer := x.api(tt.method, tt.path, tt.body)
			if detail, _ := answer["detail"].(string); status != tt.status || answer["code"] != tt.code ||
				!strings.Contains(detail, tt.about) {
				t.Errorf("%s %s %.80s: %d %v, want %d %s about %q", tt.method, tt.path, tt.body, status, answer,
					tt.status, tt.code, tt.about)
			}
		}
		if status, answer := x.api("POST", "/v1/calls", dialBody, "Content-Type", "text/plain"); status != 415 ||
			answer["code"] != "media_type" {
			t.Errorf("%d %v", status, answer)
		}
		if status, answer := x.api("POST", "/v1/calls", dialBody, "Idempotency-Key",
			strings.Repeat("k", 256)); status != 422 {
			t.Errorf("%d %v", status, answer)
		}
		for _, header := range []string{"", "Bearer", "Bearer ", "Bearer wrong", "Basic " + apiToken,
			"bearer" + apiToken, apiToken} {
			for _, path := range []string{"/v1/calls", "/v1/events", "/v1/providers"} {
				if status, answer := x.api("GET", path, "", "Authorization", header); status != 401 && status != 429 ||
					answer["code"] != "unauthorized" && answer["code"] != "rate_limited" {
					t.Errorf("%s with %q: %d %v", path, header, status, answer)
				}
			}
		}
		for _, path := range []string{"/v1/providers", "/v1/accounts", "/v1/accounts/main/refused-webhooks"} {
			if status, answer := x.api("GET", path, ""); status != 200 ||
				strings.Contains(fmt.Sprint(answer), "secret") {
				t.Errorf("%s: %d %v", path, status, answer)
			}
		}
	})
}

// TestRouter: the user's application decides; where it does not, the configured
// routes do.
func TestRouter(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T) {
		const secret = "the router's secret"
		var reply atomic.Pointer[func(http.ResponseWriter)]
		app := newServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err == nil {
				err = notify.Verify(secret, r.Header.Get("Voicebridge-Signature"), time.Now(), body)
			}
			if want := `"from":"+15550001111","to":"+15550002222"`; err != nil || !bytes.Contains(body, []byte(want)) {
				t.Errorf("%s, %v", body, err)
			}
			(*reply.Load())(w)
		}))
		t.Cleanup(app.Close)
		text := func(s string) func(http.ResponseWriter) {
			return func(w http.ResponseWriter) { _, _ = io.WriteString(w, s) }
		}
		def, defURL := newScript(t)
		sales, salesURL := newScript(t)
		x := startTestbed(t, twilio.Spec, defURL, func(o *options, _ *sim.Exchange) {
			o.agents = map[string]agent.Dialer{"sales": dialer(t, link.Config{URL: salesURL})}
			o.router = &notify.Target{URL: app.URL, Secret: secret, Timeout: 200 * time.Millisecond}
		})
		for _, tt := range []struct {
			name  string
			reply func(http.ResponseWriter)
			agent *script
			said  string
			told  string
		}{
			{"agent", text(`{"agent":"sales","metadata":{"customer":"42"}}`), sales, "", `"customer":"42"`},
			{"refusal", text(`{"refuse":"We are closed."}`), nil, "We are closed.", ""},
			{"default", text(`{}`), def, "", ""},
			{"500", func(w http.ResponseWriter) { http.Error(w, "", 500) }, def, "", ""},
			{"garbage", text("<html>"), def, "", ""},
			{"unknown agent", text(`{"agent":"nobody"}`), def, "", ""},
			{"too much metadata", text(`{"agent":"sales","metadata":{"k":"` + strings.Repeat("x", 800) + `"}}`), sales,
				"", ""},
			{"too slow", func(http.ResponseWriter) { time.Sleep(400 * time.Millisecond) }, def, "", ""},
			{"redirect", func(w http.ResponseWriter) { w.Header().Set("Location", "/x"); w.WriteHeader(302) }, def, "",
				""},
		} {
			reply.Store(&tt.reply)
			exchange := x.inboundCall(phone(twilio.Spec))
			if tt.agent != nil {
				select {
				case a := <-tt.agent.conn:
					if !strings.Contains(string(a.Start), tt.told) {
						t.Errorf("%s: %s", tt.name, a.Start)
					}
				case <-time.After(10 * time.Second):
					t.Fatalf("%s: no agent", tt.name)
				}
			}
			out := exchange.Wait()
			if tt.said != "" && !slices.Equal(out.Said, []string{tt.said}) || out.Fault != nil {
				t.Errorf("%s: %+v", tt.name, out)
			}
			for tt.agent != nil {
				if _, ok := <-tt.agent.said; !ok {
					tt.agent.said = make(chan map[string]any, 2000)
					break
				}
			}
		}
	})
}

// TestEventsTold: the user's application is told everything, in order, signed, and
// again until it takes it.
func TestEventsTold(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T) {
		const secret = "the events' secret"
		var mu sync.Mutex
		var got []calls.Event
		tries := map[string]int{}
		ended := make(chan struct{})
		app := newServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err == nil {
				err = notify.Verify(secret, r.Header.Get("Voicebridge-Signature"), time.Now(), body)
			}
			var ev calls.Event
			if err == nil {
				err = json.Unmarshal(body, &ev)
			}
			if err != nil || ev.ID == "" || ev.ID != r.Header.Get("Voicebridge-Event") {
				t.Errorf("%s: %v", body, err)
			}
			mu.Lock()
			defer mu.Unlock()
			if tries[ev.ID]++; tries[ev.ID] == 1 && len(tries)%2 == 0 {
				http.Error(w, "not now", http.StatusServiceUnavailable)
				return
			}
			if got = append(got, ev); ev.Type == calls.EventEnded {
				close(ended)
			}
		}))
		t.Cleanup(app.Close)
		x := startTestbed(t, vonage.Spec, startAgent(t, sim.Echo), func(o *options, _ *sim.Exchange) {
			o.events = &notify.Target{URL: app.URL, Secret: secret, Timeout: time.Second}
		})
		id, _ := x.place(dialBody)
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			t.Fatal("the end was not told")
		}
		var types []string
		mu.Lock()
		defer mu.Unlock()
		for _, ev := range got {
			types = append(types, ev.Type)
			if ev.Call.ID != id {
				t.Errorf("%+v", ev)
			}
		}
		if want := []string{calls.EventCreated, calls.EventRinging, calls.EventAnswered, calls.EventStreaming,
			calls.EventStreamEnd, calls.EventEnded}; !slices.Equal(types, want) {
			t.Errorf("%v, want %v", types, want)
		}
	})
}

// TestEventsResume: who comes back is told what was missed, once.
func TestEventsResume(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T) {
		x := startTestbed(t, twilio.Spec, startAgent(t, sim.Echo), nil)
		next := x.events("")
		id, exchange := x.place(dialBody)
		first := next()
		exchange.Wait()
		types, _ := until(next, id)
		later, _ := until(x.events(first.ID), id)
		if first.Type != calls.EventCreated || !slices.Equal(types, later) {
			t.Errorf("after %s: %v, then %v", first.Type, types, later)
		}
		if ev := x.events("another-17")(); ev.Type != "" { // the gap has no call
			t.Errorf("%+v", ev)
		}
	})
}

// TestEventsLast: a feed outlives the limits that requests have.
func TestEventsLast(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T) {
		x := startTestbed(t, twilio.Spec, startAgent(t, sim.Echo),
			func(o *options, _ *sim.Exchange) { o.limits.Handshake = 200 * time.Millisecond })
		next := x.events("")
		time.Sleep(time.Second) // the limit for a whole request is 400 ms
		id, _ := x.place(dialBody)
		if ev := next(); ev.Type != calls.EventCreated || ev.Call.ID != id {
			t.Errorf("%+v", ev)
		}
		x.exchange.Wait()
	})
}

// TestMachineDetection: who has picked up is told to the API and the agent, and a
// machine is hung up on where that was asked for.
func TestMachineDetection(t *testing.T) {
	t.Parallel()
	carriers(t, func(t *testing.T, spec *providers.Spec) {
		s, agentURL := newScript(t)
		if !spec.Abilities.Detects { // and says so
			x := startTestbed(t, spec, agentURL, nil)
			status, _ := x.api("POST", "/v1/calls", `{"account":"main","to":"+15550100123","machine_detection":"report"}`)
			if status != 422 {
				t.Errorf("%d", status)
			}
			return
		}
		x := startTestbed(t, spec, agentURL, func(_ *options, exchange *sim.Exchange) {
			exchange.Faults.Duplicate = true
			exchange.Phone = func(c providers.ExchangeCall) sim.Phone {
				p := phone(spec)
				p.AnsweredBy, p.Length = providers.AnsweredByHuman, 2*time.Second
				if c.To == "+15550100666" {
					p.AnsweredBy, p.Length = providers.AnsweredByMachine, time.Minute
				}
				return p
			}
		})
		next := x.events("")
		id, _ := x.place(`{"account":"main","to":"+15550100123","machine_detection":"report"}`)
		types, last := until(next, id)
		tells := spec.Abilities.DetectsHumans
		if (last.Call.Answered == providers.AnsweredByHuman) != tells ||
			slices.Contains(types, calls.EventDetected) != tells || last.Call.Cause != "caller_hangup" {
			t.Errorf("%v %+v", types, last.Call)
		}
		<-s.conn
		for range s.said {
		}
		s.said = make(chan map[string]any, 2000)
		id, exchange := x.place(`{"account":"main","to":"+15550100666","machine_detection":"hangup"}`)
		if out := exchange.Wait(); out.Fault != nil || !out.Call.Status.Final() {
			t.Errorf("%+v", out)
		}
		if _, last := until(next, id); last.Call.Answered != providers.AnsweredByMachine {
			t.Errorf("%+v", last.Call)
		}
	})
}

// longCalls has calls whose destination stays for 20 s.
func longCalls(t *testing.T, spec *providers.Spec) (*script, *testbed) {
	s, agentURL := newScript(t)
	return s, startTestbed(t, spec, agentURL, func(_ *options, exchange *sim.Exchange) {
		exchange.Phone = func(providers.ExchangeCall) sim.Phone {
			p := phone(spec)
			p.Length = 20 * time.Second
			return p
		}
	})
}

// TestDigitsOut: by the carrier where it can, otherwise as tones.
func TestDigitsOut(t *testing.T) {
	t.Parallel()
	carriers(t, func(t *testing.T, spec *providers.Spec) {
		s, x := longCalls(t, spec)
		id, exchange := x.place(dialBody)
		a := <-s.conn
		if err := a.Command(map[string]string{"type": "dtmf", "digits": "1w2", "id": "d"}); err != nil {
			t.Fatal(err)
		}
		if ack := s.wait("ack"); ack["ref"] != "d" {
			t.Errorf("%v", ack)
		}
		if status, answer := x.api("POST", "/v1/calls/"+id+"/digits", `{"digits":"3#"}`); status != 204 {
			t.Errorf("%d %v", status, answer)
		}
		_, accounts := x.api("GET", "/v1/accounts", "")
		native := accounts["accounts"].([]any)[0].(map[string]any)["dtmf_out"] == "native"
		if want := `"dtmf_out":"inband"`; strings.Contains(string(a.Start), want) == native {
			t.Errorf("native %v, but the agent is told %s", native, a.Start)
		}
		if native { // those of the API may still be on their way
			deadline := time.Now().Add(10 * time.Second)
			for exchange.Digits() != "1w23#" && time.Now().Before(deadline) {
				time.Sleep(5 * time.Millisecond)
			}
		} else {
			time.Sleep(400 * time.Millisecond) // in real time
		}
		exchange.Hangup()
		out := exchange.Wait()
		f := spec.Formats[0]
		want := codec.L16LE.AppendDecode(nil,
			codec.AppendDTMF(nil, codec.Format{Encoding: codec.L16LE, Rate: f.Rate}, "1w2", 100*time.Millisecond,
				60*time.Millisecond))
		switch {
		case native && out.Digits != "1w23#":
			t.Errorf("the carrier sent %q", out.Digits)
		case native && len(out.Streams[0].Received) > 0:
			t.Error("there are tones, too")
		case !native:
			heard := out.Streams[0].Received
			if len(heard) < len(want) {
				t.Fatalf("%d samples of tones, want %d", len(heard), len(want))
			}
			if snr := ear.SNR(want, heard, 0); snr < 25 {
				t.Errorf("the tones are %.1f dB off", snr)
			}
		}
	})
}

// TestLetterKeys: keys that a carrier does not send itself, A to D with some, are tones, and the call goes on.
func TestLetterKeys(t *testing.T) {
	t.Parallel()
	carriers(t, func(t *testing.T, spec *providers.Spec) {
		s, x := longCalls(t, spec)
		_, exchange := x.place(dialBody)
		a := <-s.conn
		if err := a.Command(map[string]string{"type": "dtmf", "digits": "A", "id": "d"}); err != nil {
			t.Fatal(err)
		}
		if ack := s.wait("ack"); ack["ref"] != "d" {
			t.Errorf("%v", ack)
		}
		if err := a.Command(map[string]string{"type": "hangup"}); err != nil {
			t.Fatal(err)
		}
		out := exchange.Wait()
		f := codec.Format{Encoding: codec.L16LE, Rate: spec.Formats[0].Rate}
		want := codec.L16LE.AppendDecode(nil, codec.AppendDTMF(nil, f, "A", 100*time.Millisecond, 60*time.Millisecond))
		heard := out.Streams[0].Received
		if out.Digits != "A" && (len(heard) < len(want) || ear.SNR(want, heard, 0) < 25) {
			t.Errorf("sent is %q, and %d samples", out.Digits, len(heard))
		}
		x.ended(t, calls.AgentHangup)
	})
}

// TestUnknownStatus: a report on a call that nobody knows is taken, and ignored.
func TestUnknownStatus(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T) {
		b := startHooked(t, startAgent(t, sim.Echo), nil)
		form := inboundForm("CA-nobody")
		form.Set("CallStatus", "completed")
		for _, path := range []string{"/hooks/twilio/main/status", "/hooks/twilio/main/status/cs_nobody"} {
			if code, body := b.post(t, path, form, sign(publicURL+path, form)); code != 204 || body != "" {
				t.Errorf("%s: %d %s", path, code, body)
			}
		}
		for _, path := range []string{"/hooks/twilio/main/next/AAAA", "/hooks/twilio/main/answer/AAAA"} {
			if code, body := b.post(t, path, form, sign(publicURL+path, form)); code != 403 || body != "token\n" {
				t.Errorf("%s: %d %s", path, code, body)
			}
		}
		if _, metrics := get(t, b.admin+"/metrics"); !strings.Contains(metrics,
			`voicebridge_hook_requests_total{provider="twilio",result="unknown"} 2`) {
			t.Error("the metrics do not say so")
		}
	})
}

// TestRefusedExplained: an operator learns why webhooks are refused, and no secret.
func TestRefusedExplained(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T) {
		x := startTestbed(t, twilio.Spec, startAgent(t, sim.Echo), nil)
		form := inboundForm("CA1")
		x.post(t, "/hooks/twilio/main/inbound", form, sign("https://elsewhere.example/hooks/twilio/main/inbound", form))
		out := x.inboundCall(phone(twilio.Spec)).Wait() // and a good one
		if out.Fault != nil {
			t.Error(out.Fault)
		}
		_, answer := x.api("GET", "/v1/accounts/main/refused-webhooks", "")
		list := answer["refused"].([]any)
		if text := fmt.Sprint(list); len(list) != 1 || !strings.Contains(text, "account_sid") ||
			strings.Contains(text, "+1555") {
			t.Errorf("%v", list)
		}
	})
}

// TestAttended: agents that connect for a call they are told of.
func TestAttended(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T) {
		const secret = "the announcement's secret"
		type announced struct {
			SessionID string `json:"session_id"`
			URL       string `json:"url"`
			Token     string `json:"token"`
			Call      struct{ From string }
		}
		told := make(chan announced, 10)
		app := newServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err == nil {
				err = notify.Verify(secret, r.Header.Get("Voicebridge-Signature"), time.Now(), body)
			}
			var a announced
			if err == nil {
				err = json.Unmarshal(body, &a)
			}
			if err != nil {
				t.Error(err)
			}
			told <- a
		}))
		t.Cleanup(app.Close)
		attended, err := link.NewAttended(incoming(t, link.Incoming{Wait: 5 * time.Second}),
			notify.Target{URL: app.URL, Secret: secret, Timeout: time.Second}, publicURL)
		if err != nil {
			t.Fatal(err)
		}
		x := startTestbed(t, twilio.Spec, "", func(o *options, _ *sim.Exchange) { o.dialer = attended })
		p := phone(twilio.Spec)
		p.Length = 2 * time.Second
		exchange := x.inboundCall(p)
		a := <-told
		if a.Call.From != "+15550001111" || !strings.HasPrefix(a.URL,
			"wss://bridge.example.com/voice/v1/calls/"+a.SessionID) {
			t.Errorf("%+v", a)
		}
		u := x.exchange.Reach(a.URL)
		for name, h := range map[string]http.Header{"none": nil, "wrong": {"Authorization": {"Bearer x"}}} {
			if _, status, err := dialAgent(u, h); err == nil || status != 401 {
				t.Errorf("token %s: %d, %v", name, status, err)
			}
		}
		if _, status, err := dialAgent(strings.Replace(u, a.SessionID, "cs_nobody", 1),
			http.Header{"Authorization": {"Bearer " + a.Token}}); err == nil || status != 404 {
			t.Errorf("another call: %d, %v", status, err)
		}
		if _, status, err := dialAgent(u+"?in_rate=11025",
			http.Header{"Authorization": {"Bearer " + a.Token}}); err == nil || status != 400 {
			t.Errorf("wrong rate: %d, %v", status, err)
		}
		conn, _, err := dialAgent(u+"?in_rate=8000&out_rate=24000&token="+a.Token,
			http.Header{"Origin": {"https://app.example"}})
		if err != nil {
			t.Fatal(err)
		}
		_, data, err := conn.ReadMessage()
		if want := `"input":{"sample_rate":8000},"output":{"sample_rate":24000}`; err != nil ||
			!strings.Contains(string(data), want) {
			t.Errorf("%s, %v", data, err)
		}
		if _, status, err := dialAgent(u+"?token="+a.Token, nil); err == nil || status != 409 && status != 404 {
			t.Errorf("a second agent: %d, %v", status, err)
		}
		echo(conn)
		// What comes at 8 kHz is sent back as if it were at 24.
		if out := exchange.Wait(); out.Fault != nil || len(out.Streams) != 1 || len(out.Streams[0].Received) < 4000 {
			t.Errorf("%+v", out)
		}
	})
}

// TestPool: agents that wait get the calls, the one that waits longest first; one
// that is not ready is passed over; tokens for one time are.
func TestPool(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T) {
		const bearer = "the pool's bearer token"
		pool, err := link.NewPool("desk", incoming(t,
			link.Incoming{Wait: 10 * time.Second, Ready: 300 * time.Millisecond}), bearer)
		if err != nil {
			t.Fatal(err)
		}
		x := startTestbed(t, twilio.Spec, "", func(o *options, _ *sim.Exchange) {
			o.dialer = pool
			o.agents = map[string]agent.Dialer{"desk": pool}
		})
		u := x.url + "/v1/pools/desk/agent"
		if _, status, err := dialAgent(u, nil); err == nil || status != 401 {
			t.Errorf("without a token: %d, %v", status, err)
		}
		if _, status, err := dialAgent(u, http.Header{"Authorization": {"Bearer " + bearer},
			"Sec-WebSocket-Protocol": {"other"}}); err == nil || status != 426 {
			t.Errorf("another subprotocol: %d, %v", status, err)
		}
		status, answer := x.api("POST", "/v1/pools/desk/tokens", "")
		if status != 201 {
			t.Fatalf("%d %v", status, answer)
		}
		once := x.exchange.Reach(answer["url"].(string)) + "?token=" + url.QueryEscape(answer["token"].(string))
		lazy, _, err := dialAgent(once, nil) // does not answer
		if err != nil {
			t.Fatal(err)
		}
		defer lazy.Close()
		if _, data, err := lazy.ReadMessage(); err != nil || !strings.Contains(string(data), `"type":"waiting"`) ||
			!strings.Contains(string(data), `"pool":"desk"`) {
			t.Fatalf("%s, %v", data, err)
		}
		if _, status, err := dialAgent(once, nil); err == nil || status != 401 {
			t.Errorf("a token for one time, again: %d, %v", status, err)
		}
		quick, _, err := dialAgent(u, http.Header{"Sec-WebSocket-Protocol": {"voicebridge.v1, bearer." +
			url.PathEscape("the-wrong-one")}})
		if err == nil {
			quick.Close()
			t.Error("a wrong token as subprotocol was taken")
		}
		quick, _, err = dialAgent(u, http.Header{"Authorization": {"Bearer " + bearer}})
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := quick.ReadMessage(); err != nil { // waiting
			t.Fatal(err)
		}
		p := phone(twilio.Spec)
		p.Length = 2 * time.Second
		exchange := x.inboundCall(p)
		if _, data, err := lazy.ReadMessage(); err != nil || !strings.Contains(string(data), `"await_ready":true`) {
			t.Fatalf("%s, %v", data, err)
		}
		if code := closed(t, lazy); code != 4008 {
			t.Errorf("the lazy one was closed with %d", code)
		}
		if _, data, err := quick.ReadMessage(); err != nil || !strings.Contains(string(data), `"type":"start"`) {
			t.Fatalf("%s, %v", data, err)
		}
		// the second is too late
		for _, text := range []string{`{"type":"ready","input_rate":8000,"output_rate":8000}`,
			`{"type":"ready","input_rate":48000}`} {
			if err := quick.WriteMessage(1, []byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		first := echo(quick)
		if first != 320 {
			t.Errorf("the first frame has %d bytes, want those of 8 kHz", first)
		}
		if out := exchange.Wait(); out.Fault != nil || len(out.Streams) != 1 || len(out.Streams[0].Received) < 4000 {
			t.Errorf("%+v", out)
		}
	})
}

// dialAgent connects as an agent.
func dialAgent(u string, h http.Header) (*websocket.Conn, int, error) {
	conn, resp, err := websocket.DefaultDialer.Dial(u, h)
	status := 0
	if resp != nil {
		status = resp.StatusCode
	}
	return conn, status, err
}

// echo says what it hears until the call is over, and gives the size of the first
// frame.
func echo(conn *websocket.Conn) (first int) {
	defer conn.Close()
	for {
		kind, data, err := conn.ReadMessage()
		if err != nil {
			return first
		}
		if kind == websocket.BinaryMessage {
			if first == 0 {
				first = len(data)
			}
			if conn.WriteMessage(kind, data) != nil {
				return first
			}
		}
	}
}

// TestStrangersCostNothing: those who knock at the agents' doors without a token
// are turned away, and no carrier is.
func TestStrangersCostNothing(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T) {
		pool, err := link.NewPool("desk", incoming(t, link.Incoming{}), "the pool's bearer token")
		if err != nil {
			t.Fatal(err)
		}
		x := startTestbed(t, twilio.Spec, startAgent(t, sim.Echo), func(o *options, _ *sim.Exchange) {
			o.agents = map[string]agent.Dialer{"desk": pool}
			o.limits.Handshakes = 1
		})
		counts := map[int]int{}
		for range 30 {
			for _, path := range []string{"/v1/calls/cs_1/agent", "/v1/pools/desk/agent"} {
				_, status, err := dialAgent(x.url+path, http.Header{"Authorization": {"Bearer x"}})
				if err == nil {
					t.Fatal("let in")
				}
				counts[status]++
			}
		}
		if counts[404] == 0 || counts[401] == 0 || counts[429] == 0 || counts[404]+counts[401]+counts[429] != 60 {
			t.Errorf("%v", counts)
		}
		if out := x.inboundCall(phone(twilio.Spec)).Wait(); out.Fault != nil || len(out.Streams) != 1 {
			t.Errorf("a carrier's call: %+v", out)
		}
	})
}

// TestRedirectBesideEnd: an agent that leaves while its call is taken elsewhere
// does not end it, unless it is not taken elsewhere after all.
func TestRedirectBesideEnd(t *testing.T) {
	t.Parallel()
	refused := &providers.CallError{Kind: providers.ErrRejected, Status: 400, Code: "1", Detail: "no"}
	for name, fail := range map[string]error{"taken": nil, "refused": refused} {
		t.Run(name, func(t *testing.T) {
			carriers(t, func(t *testing.T, spec *providers.Spec) {
				s, agentURL := newScript(t)
				left := make(chan struct{})
				redirect := 1 // the first command, unless it answers the call
				if spec.Abilities.Commanded {
					redirect = 2
				}
				x := startTestbed(t, spec, agentURL, func(_ *options, exchange *sim.Exchange) {
					exchange.Faults.Fail = func(kind providers.OperationKind, n int) error {
						if kind == providers.OpDo && n == redirect {
							if err := (<-s.conn).Command(map[string]string{"type": "hangup",
								"when": "now"}); err != nil {
								t.Error(err)
							}
							<-left
							return fail
						}
						return nil
					}
				})
				next := x.events("")
				p := phone(spec)
				p.Length = 20 * time.Second
				exchange := x.inboundCall(p)
				known := make(chan string, 1)
				go func() {
					for ev := next(); ; ev = next() {
						switch ev.Type {
						case calls.EventStreaming:
							go x.post2("/v1/calls/"+ev.Call.ID+"/redirect", `{"dial":"+15550100777"}`)
						case calls.EventStreamEnd:
							close(left)
							known <- ev.Call.ID
							return
						}
					}
				}()
				out, id := exchange.Wait(), <-known
				if len(out.Dialled) != btoi(fail == nil) || fail != nil &&
					out.Call.Status != providers.StatusCompleted {
					t.Errorf("%+v", out)
				}
				_, call := x.api("GET", "/v1/calls/"+id, "")
				if call["cause"] != "transferred" || call["streaming"] != false {
					t.Errorf("%v", call)
				}
			})
		})
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// post2 makes a request whose answer does not matter.
func (x *testbed) post2(path, body string) {
	req, err := http.NewRequest("POST", "http"+strings.TrimPrefix(x.url, "ws")+path, strings.NewReader(body))
	if err != nil {
		x.t.Error(err)
		return
	}
	req.Header.Set("Authorization", "Bearer "+apiToken)
	req.Header.Set("Content-Type", "application/json")
	if resp, err := http.DefaultClient.Do(req); err == nil {
		resp.Body.Close()
	}
}

// TestNextBeforeEnd: a carrier that asks what comes after the stream before the
// session knows of its end is not told that there has been none.
func TestNextBeforeEnd(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T) {
		s, agentURL := newScript(t)
		x := startTestbed(t, twilio.Spec, agentURL, func(o *options, _ *sim.Exchange) {
			o.fallback = control.Fallback{Say: "Our agents are asleep."}
		})
		p := phone(twilio.Spec)
		p.Length = 20 * time.Second
		exchange := x.inboundCall(p)
		<-s.conn
		call := exchange.Call()
		req, err := x.exchange.Office.Ask(&providers.Ask{Kind: providers.AskNext, URL: exchange.Next(), Call: call},
			time.Now())
		if err != nil {
			t.Fatal(err)
		}
		req.URL, err = url.Parse(x.exchange.Reach(req.URL.String()))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if body, _ := io.ReadAll(resp.Body); strings.Contains(string(body), "asleep") ||
			!strings.Contains(string(body), "Hangup") {
			t.Errorf("%s", body)
		}
		if stop := s.wait("stop"); stop["reason"] != "carrier_lost" {
			t.Errorf("%v", stop)
		}
		exchange.Wait()
	})
}

// TestAnnouncedLate: an agent that connects before the application has answered
// the announcement gets the call.
func TestAnnouncedLate(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T) {
		var x *testbed
		app := newServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			var a struct{ URL, Token string }
			if err := json.NewDecoder(r.Body).Decode(&a); err != nil {
				t.Error(err)
			}
			conn, _, err := dialAgent(x.exchange.Reach(a.URL), http.Header{"Authorization": {"Bearer " + a.Token}})
			if err != nil {
				t.Error(err)
				return
			}
			echo(conn) // the whole call
		}))
		t.Cleanup(app.Close)
		attended, err := link.NewAttended(incoming(t, link.Incoming{Wait: 5 * time.Second}),
			notify.Target{URL: app.URL, Timeout: 400 * time.Millisecond}, publicURL)
		if err != nil {
			t.Fatal(err)
		}
		x = startTestbed(t, twilio.Spec, "", func(o *options, _ *sim.Exchange) { o.dialer = attended })
		p := phone(twilio.Spec)
		p.Length = time.Second
		if out := x.inboundCall(p).Wait(); out.Fault != nil || len(out.Streams) != 1 ||
			len(out.Streams[0].Received) < 4000 {
			t.Errorf("%+v", out)
		}
	})
}

// TestPoolCallerLeaves: a caller who hangs up before an agent is ready costs no
// other agent its place.
func TestPoolCallerLeaves(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T) {
		const bearer = "the pool's bearer token"
		pool, err := link.NewPool("desk", incoming(t, link.Incoming{Wait: 10 * time.Second, Ready: 10 * time.Second}),
			bearer)
		if err != nil {
			t.Fatal(err)
		}
		x := startTestbed(t, twilio.Spec, "", func(o *options, _ *sim.Exchange) {
			o.dialer = pool
			o.agents = map[string]agent.Dialer{"desk": pool}
		})
		var agents []*websocket.Conn
		for range 3 {
			conn, _, err := dialAgent(x.url+"/v1/pools/desk/agent", http.Header{"Authorization": {"Bearer " + bearer}})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, _, err := conn.ReadMessage(); err != nil { // waiting
				t.Fatal(err)
			}
			agents = append(agents, conn)
		}
		p := phone(twilio.Spec)
		p.Length = 20 * time.Second
		exchange := x.inboundCall(p)
		if _, data, err := agents[0].ReadMessage(); err != nil || !strings.Contains(string(data), `"type":"start"`) {
			t.Fatalf("%s, %v", data, err)
		}
		exchange.Hangup()
		exchange.Wait()
		closed(t, agents[0])
		if n := pool.Parked(); n != 2 {
			t.Errorf("%d agents still wait, want 2", n)
		}
	})
}

// TestHangupInTail: a call in its fallback ends at once when it is hung up, however
// long its agent takes to say goodbye.
func TestHangupInTail(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T) {
		leave := make(chan struct{})
		frozen := startAgent(t, func(context.Context, *sim.AgentConn) error { <-leave; return nil })
		hangups := make(chan struct{}, 10)
		x := startTestbed(t, twilio.Spec, frozen, func(o *options, exchange *sim.Exchange) {
			o.session.Greeting = 300 * time.Millisecond
			o.fallback = control.Fallback{Say: "Our agents are asleep.", Dial: "+15550100777"}
			exchange.Faults.Fail = func(kind providers.OperationKind, _ int) error {
				if kind == providers.OpHangup {
					hangups <- struct{}{}
				}
				return nil
			}
		})
		t.Cleanup(func() { close(leave) })
		next := x.events("")
		p := phone(twilio.Spec)
		p.Length = 20 * time.Second
		x.inboundCall(p)
		ev := next()
		for ev.Type != calls.EventStreamEnd {
			ev = next()
		}
		if err := x.hangup(ev.Call.ID, ""); err != nil {
			t.Fatal(err)
		}
		select {
		case <-hangups:
		default:
			t.Error("the carrier was not asked")
		}
	})
}

// TestUnwantedCall: a call that was hung up while nobody knew whether it is placed
// is ended at the carrier as soon as it is heard of.
func TestUnwantedCall(t *testing.T) {
	t.Parallel()
	carriers(t, func(t *testing.T, spec *providers.Spec) {
		var x *testbed
		x = startTestbed(t, spec, startAgent(t, sim.Echo), func(_ *options, exchange *sim.Exchange) {
			exchange.Phone = func(providers.ExchangeCall) sim.Phone {
				return sim.Phone{Ring: time.Minute}
			}
			exchange.Faults = sim.Faults{Lose: func(kind providers.OperationKind,
				_ int) bool {
				return kind == providers.OpDial
			}, Fail: func(kind providers.OperationKind, _ int) error {
				if kind != providers.OpDial {
					return nil
				}
				_, list := x.api("GET", "/v1/calls?live=true", "")
				return x.hangup(list["calls"].([]any)[0].(map[string]any)["id"].(string), "")
			}}
		})
		if status, answer := x.api("POST", "/v1/calls", dialBody); status != 502 {
			t.Errorf("%d %v", status, answer)
		}
		for _, c := range x.exchange.Calls() {
			if out := c.Wait(); out.Call.Status != providers.StatusCanceled {
				t.Errorf("%+v", out.Call)
			}
		}
	})
}

// TestMadeUp: an inbound call whose webhook anybody could have written, since its body is not
// signed, ends where the carrier's REST API does not know it; the others are not asked for.
func TestMadeUp(t *testing.T) {
	t.Parallel()
	for name, known := range map[string]bool{"known": true, "made up": false} {
		t.Run(name, func(t *testing.T) {
			carriers(t, func(t *testing.T, spec *providers.Spec) {
				s, agentURL := newScript(t)
				x := startTestbed(t, spec, agentURL, nil)
				asked := make(chan struct{}, 10)
				x.exchange.Faults.Fail = func(kind providers.OperationKind, _ int) error {
					if kind != providers.OpGet {
						return nil
					}
					asked <- struct{}{}
					if known {
						return nil
					}
					return &providers.CallError{Kind: providers.ErrNoCall, Status: 404}
				}
				exchange := x.inboundCall(sim.Phone{Voice: phone(spec).Voice, Length: 10 * time.Second})
				<-s.conn
				attrs := x.ended(t, calls.CallerHangup)
				exchange.Hangup()
				lasted, unsigned := attrs["duration"].Duration(), !spec.Abilities.SignsBodies
				if short := lasted < 5*time.Second; short != (unsigned && !known) {
					t.Errorf("the call lasted %v", lasted)
				}
				if (len(asked) > 0) != unsigned {
					t.Errorf("the carrier was asked %d times", len(asked))
				}
			})
		})
	}
}

// TestAnsweredOnce: a call is streamed once where the reply to the command is lost, and the
// carrier tells of it again.
func TestAnsweredOnce(t *testing.T) {
	t.Parallel()
	carriers(t, func(t *testing.T, spec *providers.Spec) {
		s, agentURL := newScript(t)
		x := startTestbed(t, spec, agentURL, nil)
		x.exchange.Faults = sim.Faults{Lose: func(kind providers.OperationKind, n int) bool {
			return kind == providers.OpDo && n == 1
		}}
		exchange := x.inboundCall(sim.Phone{Voice: phone(spec).Voice, Length: 2 * time.Second})
		<-s.conn
		x.ended(t, calls.CallerHangup)
		if out := exchange.Wait(); out.Call.Moves > 1 || out.Fault != nil {
			t.Errorf("it was told %d times what to do; %v", out.Call.Moves, out.Fault)
		}
	})
}
