package bridge_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"voicebridge/agent"
	"voicebridge/agent/link"
	"voicebridge/calls"
	"voicebridge/codec"
	"voicebridge/control/transfers"
	"voicebridge/providers"
	"voicebridge/providers/twilio"
	"voicebridge/sim"
	"voicebridge/sim/ear"
	"voicebridge/transfer"
)

// The people of these tests, by their voices: each is a tone of its own.
const (
	callerHz = 440
	humanHz  = 1000
	human    = "+15550100777"
	busyLine = "+15550100778"
)

// quickTimes are those of transfers, for tests.
func quickTimes(instance string) transfer.Config {
	return transfer.Config{Instance: instance, Lease: time.Second, Poll: 200 * time.Millisecond,
		Look: 50 * time.Millisecond, Retry: 50 * time.Millisecond}
}

func voice(spec *providers.Spec, hz float64, length time.Duration) []int16 {
	return ear.Sine(spec.Formats[0].Rate, hz, length)
}

// callerPhone calls, and talks for so long.
func callerPhone(spec *providers.Spec, length time.Duration) sim.Phone {
	return sim.Phone{Voice: voice(spec, callerHz, length), Length: length}
}

// desk is a bridge whose calls can be transferred, and a carrier whose phones are
// answered as the test says.
func desk(t *testing.T, spec *providers.Spec, agentURL string, phones map[string]sim.Phone,
	change func(*options, *sim.Exchange)) *testbed {
	t.Helper()
	return deskIn(t, spec, spec.Formats[0], agentURL, phones, change)
}

// deskIn is desk with a format of its own.
func deskIn(t *testing.T, spec *providers.Spec, format codec.Format, agentURL string, phones map[string]sim.Phone,
	change func(*options, *sim.Exchange)) *testbed {
	t.Helper()
	return startTestbedIn(t, spec, format, agentURL, func(o *options, exchange *sim.Exchange) {
		exchange.Status = publicURL + "/hooks/" + spec.Name + "/main/status"
		exchange.Phone = func(c providers.ExchangeCall) sim.Phone { return phones[c.To] }
		o.transfers = &transfers.Config{Store: transfer.NewMemory(time.Now, transfer.Tombstone),
			Manager:      quickTimes("a"),
			Destinations: map[string]transfers.Destination{"billing": {To: human}}, Allow: []string{"+1555010*"},
			Ring: 20 * time.Second, Hold: transfers.HoldAgent}
		if change != nil {
			change(o, exchange)
		}
	})
}

// states are those that the agent was told of, and why it ended.
func (s *script) states(t *testing.T, until string) (all []string, reason string) {
	t.Helper()
	for {
		m := s.wait("transfer_status")
		all = append(all, m["state"].(string))
		if r, ok := m["reason"].(string); ok {
			reason = r
		}
		if m["state"] == until {
			return all, reason
		}
	}
}

// legTo is the destination's call at the carrier.
func (x *testbed) legTo(number string) *sim.SimCall {
	for _, c := range x.exchange.Calls() {
		if call := c.Call(); call.To == number && !call.Inbound {
			return c
		}
	}
	return nil
}

// settled checks that nothing of a transfer is left.
func (x *testbed) settled(t *testing.T) {
	t.Helper()
	x.exchange.Wait()
	if rooms := x.exchange.Rooms(); len(rooms) > 0 {
		t.Errorf("somebody is left in a room: %v", rooms)
	}
	for _, c := range x.exchange.Calls() {
		if out := c.Wait(); out.Fault != nil || !out.Call.Status.Final() {
			t.Errorf("%+v: %v", out.Call, out.Fault)
		}
	}
}

// TestTransferConference: the agent asks for a human, who answers; caller and human
// hear each other, and the agent leaves.
func TestTransferConference(t *testing.T) {
	t.Parallel()
	for name, faults := range map[string]sim.Faults{"orderly": {},
		"disorder": {Duplicate: true, Reorder: true, Delay: 30 * time.Millisecond}} {
		t.Run(name, func(t *testing.T) {
			carriers(t, func(t *testing.T, spec *providers.Spec) {
				s, agentURL := newScript(t)
				x := desk(t, spec, agentURL, map[string]sim.Phone{human: {Ring: 100 * time.Millisecond,
					Voice: voice(spec, humanHz, 2*time.Second), Length: 2 * time.Second}},
					func(_ *options, exchange *sim.Exchange) { exchange.Faults = faults })
				next := x.events("")
				exchange := x.inboundCall(callerPhone(spec, 20*time.Second))
				a := <-s.conn
				if !strings.Contains(string(a.Start), `"transfer":["blind","conference","attended"]`) {
					t.Errorf("%s", a.Start)
				}
				if err := a.Command(map[string]any{"type": "transfer", "id": "t1", "to": "name:billing",
					"context": map[string]string{"why": "refund"}}); err != nil {
					t.Fatal(err)
				}
				if all, _ := s.states(t, "bridging"); !slices.Contains(all, "dialing") ||
					!slices.Contains(all, "answered") {
					t.Errorf("the agent is told of %v", all)
				}
				if stop := s.wait("stop"); stop["reason"] != "transferred" {
					t.Errorf("%v", stop)
				}
				out := exchange.Wait() // the human hangs up, and that ends it
				leg := x.legTo(human).Wait()
				rate := spec.Formats[0].Rate
				if !ear.Hears(out.Heard, rate, humanHz) || !ear.Hears(leg.Heard, rate, callerHz) {
					t.Errorf("the caller hears the human: %v, the human the caller: %v",
						ear.Hears(out.Heard, rate, humanHz), ear.Hears(leg.Heard, rate, callerHz))
				}
				var states []string
				id := ""
				for len(states) == 0 || states[len(states)-1] != "ended" {
					if ev := next(); ev.Type == calls.EventTransfer {
						states, id = append(states, ev.Transfer.State), ev.Transfer.ID
					}
				}
				order := []string{"requested", "dialing", "ringing", "answered", "bridging", "bridged", "ended"}
				if !slices.IsSortedFunc(states,
					func(a, b string) int { return slices.Index(order, a) - slices.Index(order, b) }) {
					t.Errorf("told of %v", states)
				}
				status, tr := x.api("GET", "/v1/transfers/"+id, "")
				if status != 200 || tr["state"] != "ended" || tr["reason"] != "destination_left" ||
					tr["to"] != "name:billing" || tr["context"].(map[string]any)["why"] != "refund" {
					t.Errorf("%d %v", status, tr)
				}
				if status, answer := x.api("DELETE", "/v1/transfers/"+id, ""); status != 409 {
					t.Errorf("%d %v", status, answer)
				}
				x.settled(t)
				if n := len(x.exchange.Calls()); n != 2 {
					t.Errorf("%d calls", n)
				}
			})
		})
	}
}

// TestTransferFails: a caller whose transfer does not come about is with its agent,
// or where the request wants it.
func TestTransferFails(t *testing.T) {
	t.Parallel()
	eachCarrier(t, func(t *testing.T, spec *providers.Spec) {
		alike(t, spec.Name)
		rejected := &providers.CallError{Kind: providers.ErrRejected, Status: 400, Code: "1", Detail: "no"}
		for name, tt := range map[string]struct {
			phone  sim.Phone
			fail   error
			extra  string
			reason string
			where  string
		}{
			"busy":      {sim.Phone{Reject: providers.StatusBusy}, nil, ``, "busy", "agent"},
			"no answer": {sim.Phone{Ring: time.Minute}, nil, `,"timeout_s":5`, "no_answer", "agent"},
			"refused":   {sim.Phone{}, rejected, ``, "invalid_destination", "agent"},
			"machine": {sim.Phone{AnsweredBy: providers.AnsweredByMachine, Length: 10 * time.Second}, nil,
				`,"machine_detection":true`, "machine", "agent"},
			"machine, stay": {sim.Phone{AnsweredBy: providers.AnsweredByMachine, Length: 10 * time.Second}, nil,
				`,"machine_detection":true,"agent":"stay"`, "machine", "agent"},
			"busy, hang up": {sim.Phone{Reject: providers.StatusBusy}, nil, `,"on_fail":"hangup"`, "busy", "gone"},
			"busy, number": {sim.Phone{Reject: providers.StatusBusy}, nil,
				`,"on_fail":{"busy":"+15550100779","default":"hangup"}`, "busy", "number"},
			"declined": {sim.Phone{Press: '2', Length: 10 * time.Second}, nil,
				`,"mode":"attended","whisper":"A call."`, "declined", "agent"},
			"no key pressed": {sim.Phone{Length: 20 * time.Second}, nil, `,"mode":"attended"`, "declined", "agent"},
		} {
			run(t, name, func(t *testing.T) {
				if strings.Contains(tt.extra, "machine_detection") && !spec.Abilities.Detects {
					t.Skip("the carrier detects no machines")
				}
				s, agentURL := newScript(t)
				x := desk(t, spec, agentURL, map[string]sim.Phone{busyLine: tt.phone,
					"+15550100779": {Length: 300 * time.Millisecond}}, func(_ *options, exchange *sim.Exchange) {
					exchange.Faults.Fail = func(kind providers.OperationKind, _ int) error {
						if kind == providers.OpDial {
							return tt.fail
						}
						return nil
					}
				})
				exchange := x.inboundCall(callerPhone(spec, 25*time.Second))
				a := <-s.conn
				status, tr := x.api("POST", "/v1/calls/"+a.Session+"/transfers", `{"to":"`+busyLine+`"`+tt.extra+`}`)
				if status != 201 || tr["state"] != "requested" {
					t.Fatalf("%d %v", status, tr)
				}
				if tt.where == "agent" {
					if _, reason := s.states(t, "failed"); reason != tt.reason {
						t.Errorf("the agent is told %s", reason)
					}
					if err := a.Audio(make([]byte, 6400)); err != nil { // it goes on talking
						t.Error(err)
					}
					s.wait("playback")
					exchange.Hangup()
				}
				out := exchange.Wait()
				switch tt.where {
				case "number":
					if !slices.Equal(out.Dialled, []string{"+15550100779"}) {
						t.Errorf("%+v", out.Dialled)
					}
				default:
					if len(out.Dialled) > 0 || len(out.Streams) != 1 {
						t.Errorf("%+v", out)
					}
				}
				x.ends(t, tr["id"].(string), "failed", tt.reason)
				x.settled(t)
			})
		}
	})
}

// TestTransferCallerLeaves: a caller who hangs up while the destination's phone
// rings ends that, too.
func TestTransferCallerLeaves(t *testing.T) {
	t.Parallel()
	carriers(t, func(t *testing.T, spec *providers.Spec) {
		s, agentURL := newScript(t)
		x := desk(t, spec, agentURL, map[string]sim.Phone{human: {Ring: time.Minute}}, nil)
		exchange := x.inboundCall(callerPhone(spec, 20*time.Second))
		a := <-s.conn
		_, tr := x.api("POST", "/v1/calls/"+a.Session+"/transfers", `{"to":"`+human+`","timeout_s":60}`)
		s.states(t, "ringing")
		began := time.Now()
		exchange.Hangup()
		if out := x.legTo(human).Wait(); out.Call.Status != providers.StatusCanceled ||
			time.Since(began) > 5*time.Second {
			t.Errorf("%+v after %v", out.Call, time.Since(began))
		}
		x.settled(t)
		x.ends(t, tr["id"].(string), "canceled", "caller_left")
	})
}

// ends waits for the end of a transfer.
func (x *testbed) ends(t *testing.T, id, state, reason string) {
	t.Helper()
	var tr map[string]any
	for limit := time.Now().Add(15 * time.Second); time.Now().Before(limit); time.Sleep(20 * time.Millisecond) {
		if _, tr = x.api("GET", "/v1/transfers/"+id, ""); transfer.State(tr["state"].(string)).Final() {
			break
		}
	}
	if tr["state"] != state || tr["reason"] != reason {
		t.Errorf("%v, want %s %s", tr, state, reason)
	}
}

// TestTransferAttended: the destination is told, takes the call, or is told by an
// agent of its own.
func TestTransferAttended(t *testing.T) {
	t.Parallel()
	eachCarrier(t, func(t *testing.T, spec *providers.Spec) {
		for name, tt := range map[string]struct {
			extra string
			phone sim.Phone
		}{
			"digit": {`,"whisper":"Ann, about a refund. Press 1."`,
				sim.Phone{Press: '1', After: 700 * time.Millisecond}},
			"stay":  {`,"whisper":"Ann, about a refund.","accept":"stay"`, sim.Phone{}},
			"agent": {`,"brief":"briefer","context":{"who":"Ann"}`, sim.Phone{}},
		} {
			run(t, name, func(t *testing.T) {
				talks := 5*time.Second + spec.Abilities.KeyWait
				tt.phone.Voice, tt.phone.Length = voice(spec, humanHz, talks), talks
				s, agentURL := newScript(t)
				briefer := startAgent(t, sim.Tone(1500, 300*time.Millisecond)) // tells, and hangs up
				x := desk(t, spec, agentURL, map[string]sim.Phone{human: tt.phone}, func(o *options, _ *sim.Exchange) {
					o.transfers.Hold = transfers.HoldMusic
					o.agents = map[string]agent.Dialer{"briefer": dialer(t, link.Config{URL: briefer})}
				})
				exchange := x.inboundCall(callerPhone(spec, 30*time.Second))
				a := <-s.conn
				if status, answer := x.api("POST", "/v1/calls/"+a.Session+"/transfers",
					`{"to":"`+human+`","mode":"attended"`+tt.extra+`}`); status != 201 {
					t.Fatalf("%d %v", status, answer)
				}
				if held := s.wait("call"); held["state"] != "held" {
					t.Errorf("%v", held)
				}
				if all, _ := s.states(t, "bridging"); !slices.Contains(all, "briefing") ||
					!slices.Contains(all, "accepted") {
					t.Errorf("%v", all)
				}
				out, leg := exchange.Wait(), x.legTo(human).Wait()
				rate := spec.Formats[0].Rate
				if !ear.Hears(out.Heard, rate, humanHz) || !ear.Hears(leg.Heard, rate, callerHz) ||
					!ear.Hears(out.Heard, rate, 523.25) {
					t.Errorf("caller and human do not hear each other, or there was no music: %v %v %v",
						ear.Hears(out.Heard, rate, humanHz), ear.Hears(leg.Heard, rate, callerHz),
						ear.Hears(out.Heard, rate, 523.25))
				}
				if told := ear.Hears(leg.Heard, rate, 1500); told != (name == "agent") {
					t.Errorf("the agent has told the human: %v", told)
				}
				if name != "agent" && (len(leg.Said) != 1 || !strings.Contains(leg.Said[0], "refund")) {
					t.Errorf("the human is told %q", leg.Said)
				}
				x.settled(t)
			})
		}
	})
}

// TestTransferBlind: the carrier connects the caller; if it cannot, the caller is
// back with the agent, who is told why.
func TestTransferBlind(t *testing.T) {
	t.Parallel()
	carriers(t, func(t *testing.T, spec *providers.Spec) {
		s, agentURL := newScript(t)
		s.many = true
		x := desk(t, spec, agentURL, map[string]sim.Phone{
			human:    {Voice: voice(spec, humanHz, time.Second), Length: time.Second},
			busyLine: {Reject: providers.StatusBusy}}, nil)
		exchange := x.inboundCall(callerPhone(spec, 20*time.Second))
		a := <-s.conn
		if err := a.Command(map[string]any{"type": "transfer", "to": human, "mode": "blind",
			"when": "now"}); err != nil {
			t.Fatal(err)
		}
		if stop := s.wait("stop"); stop["reason"] != "transferred" {
			t.Errorf("%v", stop)
		}
		if out := exchange.Wait(); !ear.Hears(out.Heard, spec.Formats[0].Rate, humanHz) ||
			!slices.Equal(out.Dialled, []string{human}) {
			t.Errorf("%+v", out.Dialled)
		}
		exchange = x.inboundCall(callerPhone(spec, 20*time.Second))
		a = <-s.conn
		if err := a.Command(map[string]any{"type": "transfer", "to": busyLine, "mode": "blind"}); err != nil {
			t.Fatal(err)
		}
		b := <-s.conn
		if b.Session != a.Session || !strings.Contains(string(b.Start), `"returned":"busy"`) {
			t.Errorf("the call comes back as %s", b.Start)
		}
		exchange.Hangup()
		if out := exchange.Wait(); len(out.Streams) != 2 || out.Fault != nil {
			t.Errorf("%d streams, %v", len(out.Streams), out.Fault)
		}
		x.settled(t)
	})
}

// TestTransferBack: when the destination leaves first, or the transfer is taken
// back, the caller is with an agent again.
func TestTransferBack(t *testing.T) {
	t.Parallel()
	eachCarrier(t, func(t *testing.T, spec *providers.Spec) {
		for _, cancel := range []bool{false, true} {
			run(t, fmt.Sprint("cancel ", cancel), func(t *testing.T) {
				s, agentURL := newScript(t)
				s.many = true
				p := sim.Phone{Length: 1500 * time.Millisecond}
				if cancel {
					p.Length = 20 * time.Second
				}
				x := desk(t, spec, agentURL, map[string]sim.Phone{human: p}, nil)
				next := x.events("")
				exchange := x.inboundCall(callerPhone(spec, 25*time.Second))
				a := <-s.conn
				status, tr := x.api("POST", "/v1/calls/"+a.Session+"/transfers", `{"to":"`+human+`","on_end":"resume"}`)
				if status != 201 {
					t.Fatal(tr)
				}
				for ev := next(); ev.Transfer == nil || ev.Transfer.State != "bridged"; {
					ev = next()
				}
				reason := "destination_left"
				if cancel {
					reason = "api"
					if status, answer := x.api("DELETE", "/v1/transfers/"+tr["id"].(string), ""); status != 200 {
						t.Fatalf("%d %v", status, answer)
					}
				}
				b := <-s.conn
				if b.Session != a.Session || !strings.Contains(string(b.Start), `"returned":"`+reason+`"`) {
					t.Errorf("the call comes back as %s", b.Start)
				}
				// And again: a second transfer of the same call.
				if status, answer := x.api("POST", "/v1/calls/"+a.Session+"/transfers",
					`{"to":"`+human+`","on_end":"hangup"}`); status != 201 {
					t.Fatalf("%d %v", status, answer)
				}
				for ev := next(); ev.Transfer == nil || ev.Transfer.State != "bridged"; {
					ev = next()
				}
				exchange.Hangup()
				x.settled(t)
			})
		}
	})
}

// TestTransferRefused: what is not allowed, or makes no sense, is refused, to agent
// and API alike, and nothing is dialled.
func TestTransferRefused(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T) {
		s, agentURL := newScript(t)
		spec := twilio.Spec
		x := desk(t, spec, agentURL, map[string]sim.Phone{human: {Ring: time.Minute}}, nil)
		exchange := x.inboundCall(callerPhone(spec, 30*time.Second))
		a := <-s.conn
		path := "/v1/calls/" + a.Session + "/transfers"
		for body, want := range map[string]string{
			// not on the list
			`{"to":"+15551112222"}`:                                                      "403 not_allowed",
			`{"to":"name:sales"}`:                                                        "422 invalid_destination",
			`{"to":"sip:x@y.example"}`:                                                   "422 invalid_destination",
			`{"to":"` + human + `","mode":"warm"}`:                                       "422 invalid",
			`{"to":"` + human + `","agent":"sing"}`:                                      "422 invalid",
			`{"to":"` + human + `","agent":"stay","mode":"blind"}`:                       "422 invalid",
			`{"to":"` + human + `","on_fail":"+15551112222"}`:                            "422 invalid",
			`{"to":"` + human + `","on_fail":{"rain":"hangup"}}`:                         "422 invalid",
			`{"to":"` + human + `","whisper":"x"}`:                                       "422 invalid",
			`{"to":"` + human + `","mode":"attended","brief":"nobody"}`:                  "422 invalid",
			`{"to":"` + human + `","timeout_s":1}`:                                       "422 invalid",
			`{"to":"` + human + `","hold":"jazz"}`:                                       "422 invalid",
			`{"to":"` + human + `","digits":"A"}`:                                        "422 invalid",
			`{"to":"` + human + `","context":{"a":1}}`:                                   "400 bad_json",
			`{"to":"` + human + `","colour":"green"}`:                                    "400 bad_json",
			`{"to":"` + human + `","context":{"a":"` + strings.Repeat("x", 4096) + `"}}`: "422 invalid",
		} {
			if status, answer := x.api("POST", path, body); fmt.Sprint(status, " ", answer["code"]) != want {
				t.Errorf("%.80s: %d %v, want %s", body, status, answer, want)
			}
		}
		if status, answer := x.api("POST", "/v1/calls/cs_nobody/transfers", `{"to":"`+human+`"}`); status != 404 {
			t.Errorf("%d %v", status, answer)
		}
		if status, answer := x.api("GET", "/v1/transfers/tr_nobody", ""); status != 404 {
			t.Errorf("%d %v", status, answer)
		}
		if err := a.Command(map[string]any{"type": "transfer", "id": "t0", "to": "+15551112222",
			"when": "now"}); err != nil {
			t.Fatal(err)
		}
		if m := s.wait("error"); m["code"] != "not_allowed" || m["ref"] != "t0" {
			t.Errorf("%v", m)
		}
		if n := len(x.exchange.Calls()); n != 1 {
			t.Errorf("%d calls", n)
		}
		status, first := x.api("POST", path, `{"to":"`+human+`"}`)
		if status != 201 {
			t.Fatalf("%d %v", status, first)
		}
		if status, answer := x.api("POST", path, `{"to":"`+human+`"}`); status != 409 || answer["code"] != "busy" ||
			!strings.Contains(answer["detail"].(string), first["id"].(string)) {
			t.Errorf("a second transfer: %d %v", status, answer)
		}
		s.states(t, "ringing")
		if status, answer := x.api("DELETE", "/v1/transfers/"+first["id"].(string), ""); status != 200 {
			t.Errorf("%d %v", status, answer)
		}
		if _, reason := s.states(t, "canceled"); reason != "api" {
			t.Errorf("canceled by %s", reason)
		}
		// The agent withdraws its own.
		if err := a.Command(map[string]any{"type": "transfer", "id": "t1", "to": human, "when": "now"}); err != nil {
			t.Fatal(err)
		}
		s.states(t, "ringing")
		if err := a.Command(map[string]any{"type": "cancel", "ref": "t1", "id": "c1"}); err != nil {
			t.Fatal(err)
		}
		if _, reason := s.states(t, "canceled"); reason != "agent" {
			t.Errorf("canceled by %s", reason)
		}
		exchange.Hangup()
		x.settled(t)
	})
}

// TestTransferAgentLeaves: an agent that hangs up while the destination's phone
// rings leaves the caller to the destination.
func TestTransferAgentLeaves(t *testing.T) {
	t.Parallel()
	carriers(t, func(t *testing.T, spec *providers.Spec) {
		s, agentURL := newScript(t)
		x := desk(t, spec, agentURL, map[string]sim.Phone{human: {Ring: 1500 * time.Millisecond,
			Voice: voice(spec, humanHz, 2*time.Second), Length: 2 * time.Second}}, nil)
		exchange := x.inboundCall(callerPhone(spec, 20*time.Second))
		a := <-s.conn
		if status, answer := x.api("POST", "/v1/calls/"+a.Session+"/transfers", `{"to":"`+human+`"}`); status != 201 {
			t.Fatalf("%d %v", status, answer)
		}
		s.states(t, "ringing")
		if err := a.Command(map[string]any{"type": "hangup"}); err != nil {
			t.Fatal(err)
		}
		if out := exchange.Wait(); !ear.Hears(out.Heard, spec.Formats[0].Rate, humanHz) {
			t.Errorf("the caller never hears the human: %+v", out.Call)
		}
		x.settled(t)
	})
}

// TestTransferForged: nobody but the carrier can say anything about a transfer, and
// nothing about another one.
func TestTransferForged(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T) {
		s, agentURL := newScript(t)
		spec := twilio.Spec
		x := desk(t, spec, agentURL, map[string]sim.Phone{human: {Ring: time.Minute}}, nil)
		exchange := x.inboundCall(callerPhone(spec, 20*time.Second))
		a := <-s.conn
		_, tr := x.api("POST", "/v1/calls/"+a.Session+"/transfers", `{"to":"`+human+`","timeout_s":60}`)
		s.states(t, "ringing")
		id := tr["id"].(string)
		leg := x.legTo(human).Call()
		leg.Status = providers.StatusInProgress
		for path, want := range map[string]int{
			"/transfer/" + id + "/wrong/status": 404, "/transfer/tr_nobody/x/status": 404,
			"/transfer/" + id + "/wrong/answer": 404, "/transfer/" + id + "/wrong/else": 404,
		} {
			u := publicURL + "/hooks/twilio/main" + path
			req, err := x.exchange.Office.Ask(&providers.Ask{Kind: providers.TellStatus, URL: u, Call: leg}, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			form := formOf(t, req)
			if code, body := x.post(t, "/hooks/twilio/main"+path, form,
				req.Header.Get("X-Twilio-Signature")); code != want {
				t.Errorf("%s: %d %s", path, code, body)
			}
			if code, _ := x.post(t, "/hooks/twilio/main"+path, form, "AAAA"); code != 403 {
				t.Errorf("%s, forged: %d", path, code)
			}
		}
		if _, tr = x.api("GET", "/v1/transfers/"+id, ""); tr["state"] != "ringing" {
			t.Errorf("%v", tr)
		}
		exchange.Hangup()
		x.settled(t)
	})
}

func formOf(t *testing.T, r *http.Request) url.Values {
	t.Helper()
	if err := r.ParseForm(); err != nil {
		t.Fatal(err)
	}
	return r.PostForm
}

// TestTransferAgentStays: caller, agent and human are together; when the human
// leaves, caller and agent are alone again, over the same connection.
func TestTransferAgentStays(t *testing.T) {
	t.Parallel()
	const agentHz = 1600
	for _, how := range []string{"stay", "listen"} {
		t.Run(how, func(t *testing.T) {
			carriers(t, func(t *testing.T, spec *providers.Spec) {
				s, agentURL := newScript(t)
				x := desk(t, spec, agentURL, map[string]sim.Phone{human: {Ring: 300 * time.Millisecond, Press: '1',
					After: 100 * time.Millisecond,
					Voice: voice(spec, humanHz, 3*time.Second), Length: 3 * time.Second}}, nil)
				exchange := x.inboundCall(callerPhone(spec, 20*time.Second))
				a := <-s.conn
				status, tr := x.api("POST", "/v1/calls/"+a.Session+"/transfers",
					`{"to":"`+human+`","mode":"attended","agent":"`+how+`"}`)
				if status != 201 {
					t.Fatalf("%d %v", status, tr)
				}
				s.states(t, "bridged")
				if err := a.Audio(codec.L16LE.AppendEncode(nil,
					ear.Sine(16000, agentHz, 1500*time.Millisecond))); err != nil {
					t.Fatal(err)
				}
				if _, reason := s.states(t, "ended"); reason != "destination_left" {
					t.Errorf("ended by %s", reason)
				}
				s.mu.Lock()
				heard := codec.L16LE.AppendDecode(nil, s.pcm)
				s.mu.Unlock()
				rate := spec.Formats[0].Rate
				leg := x.legTo(human).Wait()
				if !ear.Hears(heard, 16000, humanHz) || !ear.Hears(leg.Heard, rate, callerHz) {
					t.Errorf("the agent hears the human: %v, the human the caller: %v",
						ear.Hears(heard, 16000, humanHz), ear.Hears(leg.Heard, rate, callerHz))
				}
				if told := ear.Hears(leg.Heard, rate, agentHz); told != (how == "stay") {
					t.Errorf("the human hears the agent: %v", told)
				}
				// alone again
				if err := a.Audio(codec.L16LE.AppendEncode(nil,
					ear.Sine(16000, 2500, 500*time.Millisecond))); err != nil {
					t.Error(err)
				}
				s.wait("playback")
				time.Sleep(800 * time.Millisecond) // in real time
				exchange.Hangup()
				out := exchange.Wait()
				if !ear.Hears(out.Heard, rate, humanHz) || ear.Hears(out.Heard, rate, agentHz) != (how == "stay") ||
					!ear.Hears(out.Heard, rate, 2500) || len(out.Streams) != 1 {
					t.Errorf("the caller hears the human: %v, the agent meanwhile: %v, and after: %v",
						ear.Hears(out.Heard, rate, humanHz), ear.Hears(out.Heard, rate, agentHz),
						ear.Hears(out.Heard, rate, 2500))
				}
				x.settled(t)
			})
		})
	}
}
