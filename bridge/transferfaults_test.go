package bridge_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"voicebridge/agent"
	"voicebridge/control"
	"voicebridge/providers"
	"voicebridge/providers/twilio"
	"voicebridge/providers/vonage"
	"voicebridge/sim"
	"voicebridge/sim/ear"
	"voicebridge/transfer"
)

// oddStore is a store that is slow, forgetful, or stuck.
type oddStore struct {
	transfer.Store
	create time.Duration
	away   atomic.Int64 // so many notes that the caller is away are lost
	hangs  atomic.Bool  // questions by call are not answered
}

func (o *oddStore) Create(ctx context.Context, r *transfer.Record) error {
	time.Sleep(o.create)
	return o.Store.Create(ctx, r)
}

func (o *oddStore) Move(ctx context.Context, before, after *transfer.Record, kind transfer.Kind) error {
	if kind == transfer.Moved && after.At == transfer.Away && o.away.Add(-1) >= 0 {
		return errors.New("the store is away")
	}
	return o.Store.Move(ctx, before, after, kind)
}

func (o *oddStore) ByCall(ctx context.Context, call string) (string, error) {
	if o.hangs.Load() {
		<-ctx.Done()
		return "", ctx.Err()
	}
	return o.Store.ByCall(ctx, call)
}

// downDialer reaches no agent while it is down.
type downDialer struct {
	agent.Dialer
	down atomic.Bool
}

func (d *downDialer) Dial(ctx context.Context, c *agent.Call) (agent.Conn, error) {
	if d.down.Load() {
		return nil, errors.New("down")
	}
	return d.Dialer.Dial(ctx, c)
}

// begin begins a transfer to the human through the API.
func (x *testbed) begin(t *testing.T, call, more string) (id string) {
	t.Helper()
	status, tr := x.api("POST", "/v1/calls/"+call+"/transfers", `{"to":"`+human+`"`+more+`}`)
	if status != 201 {
		t.Fatalf("%d %v", status, tr)
	}
	return tr["id"].(string)
}

// returns waits until a call is with an agent again.
func (s *script) returns(t *testing.T) *sim.AgentConn {
	t.Helper()
	select {
	case a := <-s.conn:
		return a
	case <-time.After(10 * time.Second):
		t.Fatal("the caller is not back with an agent")
		return nil
	}
}

// TestTransferCancelBridged: who cancels a transfer that is bridged gets the caller
// back, whatever should become of it when the destination leaves.
func TestTransferCancelBridged(t *testing.T) {
	t.Parallel()
	carriers(t, func(t *testing.T, spec *providers.Spec) {
		s, agentURL := newScript(t)
		s.many = true
		x := desk(t, spec, agentURL, map[string]sim.Phone{human: {Length: 20 * time.Second}}, nil)
		next := x.events("")
		exchange := x.inboundCall(callerPhone(spec, 20*time.Second))
		a := <-s.conn
		id := x.begin(t, a.Session, "")
		for ev := next(); ev.Transfer == nil || ev.Transfer.State != "bridged"; {
			ev = next()
		}
		if status, answer := x.api("DELETE", "/v1/transfers/"+id, ""); status != 200 {
			t.Fatalf("%d %v", status, answer)
		}
		s.returns(t)
		exchange.Hangup()
		x.settled(t)
		x.ends(t, id, "canceled", "api")
	})
}

// TestTransferMachineInRoom: a caller who waits in the room, because its agent has
// left, comes back when a machine answers.
func TestTransferMachineInRoom(t *testing.T) {
	t.Parallel()
	carriers(t, func(t *testing.T, spec *providers.Spec) {
		if !spec.Abilities.Detects {
			t.Skip("the carrier detects no machines")
		}
		s, agentURL := newScript(t)
		s.many = true
		x := desk(t, spec, agentURL, map[string]sim.Phone{human: {Ring: time.Second,
			AnsweredBy: providers.AnsweredByMachine, Length: 20 * time.Second}}, nil)
		exchange := x.inboundCall(callerPhone(spec, 20*time.Second))
		a := <-s.conn
		id := x.begin(t, a.Session, `,"machine_detection":true`)
		s.states(t, "ringing")
		if err := a.Command(map[string]any{"type": "hangup"}); err != nil {
			t.Fatal(err)
		}
		if b := s.returns(t); !strings.Contains(string(b.Start), `"returned":"machine"`) {
			t.Errorf("%s", b.Start)
		}
		exchange.Hangup()
		x.settled(t)
		x.ends(t, id, "failed", "machine")
	})
}

// TestReturnedFallback: a call that comes back to an agent that cannot be reached
// gets the fallback.
func TestReturnedFallback(t *testing.T) {
	t.Parallel()
	carriers(t, func(t *testing.T, spec *providers.Spec) {
		s, agentURL := newScript(t)
		s.many = true
		var d *downDialer
		x := desk(t, spec, agentURL, map[string]sim.Phone{human: {Length: 1500 * time.Millisecond}},
			func(o *options, _ *sim.Exchange) {
				d = &downDialer{Dialer: o.dialer}
				o.dialer = d
				o.fallback = control.Fallback{Say: "Our agents are asleep."}
			})
		next := x.events("")
		exchange := x.inboundCall(callerPhone(spec, 12*time.Second))
		a := <-s.conn
		x.begin(t, a.Session, `,"on_end":"resume"`)
		for ev := next(); ev.Transfer == nil || ev.Transfer.State != "bridged"; {
			ev = next()
		}
		d.down.Store(true)
		if out := exchange.Wait(); !slices.Equal(out.Said, []string{"Our agents are asleep."}) {
			t.Errorf("the caller is told %q", out.Said)
		}
		x.settled(t)
	})
}

// TestTransferAgentLeavesAtOnce: an agent that hangs up right behind its wish leaves
// the caller to the destination, however slow the store is.
func TestTransferAgentLeavesAtOnce(t *testing.T) {
	t.Parallel()
	carriers(t, func(t *testing.T, spec *providers.Spec) {
		s, agentURL := newScript(t)
		x := desk(t, spec, agentURL, map[string]sim.Phone{human: {Ring: 500 * time.Millisecond,
			Voice: voice(spec, humanHz, 2*time.Second), Length: 2 * time.Second}},
			func(o *options, _ *sim.Exchange) {
				o.transfers.Store = &oddStore{Store: o.transfers.Store, create: 50 * time.Millisecond}
			})
		exchange := x.inboundCall(callerPhone(spec, 20*time.Second))
		a := <-s.conn
		for _, command := range []map[string]any{{"type": "transfer", "id": "t1", "to": human}, {"type": "hangup"}} {
			if err := a.Command(command); err != nil {
				t.Fatal(err)
			}
		}
		if out := exchange.Wait(); !ear.Hears(out.Heard, spec.Formats[0].Rate, humanHz) {
			t.Errorf("the caller never hears the human: %+v", out.Call)
		}
		x.settled(t)
	})
}

// TestTransferBlindOnce: a number is not called twice because the store has lost
// that it was.
func TestTransferBlindOnce(t *testing.T) {
	t.Parallel()
	carriers(t, func(t *testing.T, spec *providers.Spec) {
		s, agentURL := newScript(t)
		x := desk(t, spec, agentURL, map[string]sim.Phone{human: {Voice: voice(spec, humanHz, 3*time.Second),
			Length: 3 * time.Second}}, func(o *options, _ *sim.Exchange) {
			store := &oddStore{Store: o.transfers.Store}
			store.away.Store(2)
			o.transfers.Store = store
		})
		exchange := x.inboundCall(callerPhone(spec, 20*time.Second))
		a := <-s.conn
		x.begin(t, a.Session, `,"mode":"blind"`)
		if out := exchange.Wait(); !slices.Equal(out.Dialled, []string{human}) ||
			!ear.Hears(out.Heard, spec.Formats[0].Rate, humanHz) {
			t.Errorf("%v was called", out.Dialled)
		}
		x.settled(t)
	})
}

// TestFallbackWithoutStore: a call without a transfer does not wait for a store that
// does not answer.
func TestFallbackWithoutStore(t *testing.T) {
	t.Parallel()
	carriers(t, func(t *testing.T, spec *providers.Spec) {
		_, agentURL := newScript(t)
		x := desk(t, spec, agentURL, nil, func(o *options, _ *sim.Exchange) {
			store := &oddStore{Store: o.transfers.Store}
			store.hangs.Store(true)
			o.transfers.Store = store
			d := &downDialer{Dialer: o.dialer}
			d.down.Store(true)
			o.dialer = d
			o.fallback = control.Fallback{Say: "Our agents are asleep."}
		})
		began := time.Now()
		out := x.inboundCall(callerPhone(spec, 20*time.Second)).Wait()
		if d := time.Since(began); len(out.Said) != 1 || d > 400*time.Millisecond {
			t.Errorf("the caller is told %q after %v: %v", out.Said, d, out.Fault)
		}
	})
}

// TestTransferOtherRoom: an event that the caller has come into another
// conversation says nothing about this transfer.
func TestTransferOtherRoom(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T) {
		spec := vonage.Spec
		s, agentURL := newScript(t)
		x := desk(t, spec, agentURL, map[string]sim.Phone{human: {Ring: 800 * time.Millisecond,
			Voice: voice(spec, humanHz, 2*time.Second), Length: 2 * time.Second}}, nil)
		exchange := x.inboundCall(callerPhone(spec, 20*time.Second))
		a := <-s.conn
		x.begin(t, a.Session, "")
		s.states(t, "ringing")
		req, err := x.exchange.Office.Ask(&providers.Ask{Kind: providers.TellRoom,
			URL: publicURL + "/hooks/vonage/main/status", Call: exchange.Call(), Joined: true}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		again, err := http.NewRequest("POST", x.exchange.Reach(req.URL.String()), req.Body)
		if err != nil {
			t.Fatal(err)
		}
		again.Header = req.Header
		resp, err := http.DefaultClient.Do(again)
		if err != nil || resp.StatusCode != 204 {
			t.Fatalf("%v, %v", resp, err)
		}
		resp.Body.Close()
		if out := exchange.Wait(); !ear.Hears(out.Heard, spec.Formats[0].Rate, humanHz) {
			t.Error("caller and human did not meet")
		}
		x.settled(t)
	})
}

// TestTransferMovedByOther: where another instance has the caller moved, the one
// that has its stream does not take it for gone.
func TestTransferMovedByOther(t *testing.T) {
	t.Parallel()
	carriers(t, func(t *testing.T, spec *providers.Spec) {
		s, agentURL := newScript(t)
		var store *transfer.Memory
		var account *providers.Account
		x := desk(t, spec, agentURL, nil, func(o *options, _ *sim.Exchange) {
			store = o.transfers.Store.(*transfer.Memory)
			account = o.accounts["main"].Account
		})
		exchange := x.inboundCall(callerPhone(spec, 20*time.Second))
		a := <-s.conn
		r := &transfer.Record{ID: "tr_x", Room: "vb-x", Nonce: "n", Owner: "other",
			Request: transfer.Request{Call: a.Session, Account: "main", Provider: spec.Name,
				Caller: exchange.Call().ID, To: human, Mode: transfer.Conference, OnEnd: transfer.Hangup,
				Ring: 20 * time.Second}}
		if err := store.Create(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		before := *r
		r.State, r.At, r.Dialed, r.Leg, r.Version = transfer.Bridging, transfer.Moving, true, "L1", 2
		if err := store.Move(t.Context(), &before, r, transfer.Bridge); err != nil {
			t.Fatal(err)
		}
		err := account.Do(t.Context(), exchange.Call().ID,
			&providers.Answer{Room: &providers.Room{Name: "vb-x", End: true,
				Events: publicURL + "/hooks/" + spec.Name + "/main/transfer/tr_x/n/room"}})
		if err != nil {
			t.Fatal(err)
		}
		for limit := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			got, _, err := store.Load(t.Context(), "tr_x")
			if err != nil || got.CallerGone || got.State == transfer.Compensating {
				t.Fatalf("the caller is taken for gone: %+v, %v", got, err)
			}
			if got.CallerIn {
				break
			}
			if time.Now().After(limit) {
				t.Fatalf("the caller's coming is not noted: %+v", got)
			}
		}
		time.Sleep(300 * time.Millisecond) // for the end of the stream to be told, too
		if got, _, err := store.Load(t.Context(), "tr_x"); err != nil || got.CallerGone {
			t.Errorf("%+v, %v", got, err)
		}
		exchange.Hangup()
		x.settled(t)
	})
}

// TestTransferStop: a bridge that is stopped finishes its transfers, or takes them
// back.
func TestTransferStop(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		ring, drain time.Duration
		leave       bool // the agent leaves: the caller waits in the room
	}{
		"finished":    {time.Second, 10 * time.Second, true},
		"taken back":  {10 * time.Second, time.Second, false},
		"in the room": {10 * time.Second, time.Second, true},
	} {
		run(t, name, func(t *testing.T) {
			s, agentURL := newScript(t)
			s.many = true
			x := desk(t, twilio.Spec, agentURL, map[string]sim.Phone{human: {Ring: tt.ring, Length: 20 * time.Second}},
				func(o *options, _ *sim.Exchange) {
					o.limits.Drain = tt.drain
				})
			exchange := x.inboundCall(callerPhone(twilio.Spec, 40*time.Second))
			a := <-s.conn
			x.begin(t, a.Session, "")
			s.states(t, "ringing")
			if tt.leave {
				if err := a.Command(map[string]any{"type": "hangup"}); err != nil {
					t.Fatal(err)
				}
				for limit := time.Now().Add(10 * time.Second); len(x.exchange.Rooms()) == 0; time.Sleep(10 * time.Millisecond) {
					if time.Now().After(limit) {
						t.Fatal("the caller does not wait in the room")
					}
				}
			}
			x.stop()
			synctest.Wait()
			leg := x.legTo(human).Call()
			for room, n := range x.exchange.Rooms() {
				if n < 2 {
					t.Errorf("somebody is alone in %s", room)
				}
			}
			if finished := name == "finished"; finished != (leg.Status == providers.StatusInProgress) {
				t.Errorf("the destination's call is %s", leg.Status)
			}
			exchange.Hangup()
			x.legTo(human).Hangup()
			x.exchange.Wait()
		})
	}
}
