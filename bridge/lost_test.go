package bridge_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"voicebridge/providers"
	"voicebridge/sim"
	"voicebridge/sim/ear"
	"voicebridge/transfer"
)

// awayStore is a store that is away at times.
type awayStore struct {
	transfer.Store
	until atomic.Pointer[time.Time]
}

var errStoreAway = errors.New("the store is away")

func (s *awayStore) away() error {
	if until := s.until.Load(); until != nil && time.Now().Before(*until) {
		return errStoreAway
	}
	return nil
}

// leave has the store be away for a while.
func (s *awayStore) leave(d time.Duration) {
	until := time.Now().Add(d)
	s.until.Store(&until)
}

func (s *awayStore) Load(ctx context.Context, id string) (*transfer.Record, int64, error) {
	if err := s.away(); err != nil {
		return nil, 0, err
	}
	return s.Store.Load(ctx, id)
}

func (s *awayStore) Move(ctx context.Context, before, after *transfer.Record, kind transfer.Kind) error {
	if err := s.away(); err != nil {
		return err
	}
	return s.Store.Move(ctx, before, after, kind)
}

func (s *awayStore) ByCall(ctx context.Context, call string) (string, error) {
	if err := s.away(); err != nil {
		return "", err
	}
	return s.Store.ByCall(ctx, call)
}

// fault is something that goes wrong amid a transfer.
type fault struct {
	faults sim.Faults
	// away is how long the store is away from when the destination picks up.
	away  time.Duration
	modes []string // empty: all
	// back tells that the caller and the human need not meet: the caller is back with the
	// agent instead.
	back bool
}

// odd loses the replies of requests of a kind, every other one.
func odd(kinds ...providers.OperationKind) func(providers.OperationKind, int) bool {
	return func(kind providers.OperationKind, n int) bool { return slices.Contains(kinds, kind) && n%2 == 1 }
}

// first drops the first webhooks of a kind.
func first(kind providers.AskKind, most int) func(providers.AskKind, int) bool {
	return func(k providers.AskKind, n int) bool { return k == kind && n <= most }
}

// TestNobodyLost: whatever is lost amid a transfer, caller and human talk, or the caller
// is with its agent; and no phone rings twice.
func TestNobodyLost(t *testing.T) {
	t.Parallel()
	eachCarrier(t, func(t *testing.T, spec *providers.Spec) {
		alike(t, spec.Name)
		for name, f := range map[string]fault{
			"replies to redirects": {faults: sim.Faults{Lose: odd(providers.OpDo)}},
			"replies to questions": {faults: sim.Faults{Lose: odd(providers.OpGet, providers.OpRoom,
				providers.OpMember)}},
			"the reply to the dial": {faults: sim.Faults{Lose: odd(providers.OpDial)},
				modes: []string{"conference", "attended"}},
			"replies to hang-ups": {faults: sim.Faults{Lose: odd(providers.OpHangup)}},
			"all replies once": {faults: sim.Faults{Lose: func(_ providers.OperationKind, n int) bool { return n == 1 }},
				modes: []string{"conference", "attended"}},
			"one in the room":  {faults: sim.Faults{Drop: first(providers.TellRoom, 1)}},
			"both in the room": {faults: sim.Faults{Drop: first(providers.TellRoom, 2)}},
			"statuses": {faults: sim.Faults{Drop: func(k providers.AskKind, n int) bool {
				return k == providers.TellStatus && n%2 == 0
			}}},
			"a store that is away when the human picks up": {away: 3 * time.Second,
				modes: []string{"conference", "attended"}},
			"the document of the destination": {modes: []string{"conference", "attended"}, back: true,
				faults: sim.Faults{Drop: func(k providers.AskKind, n int) bool {
					return k == providers.AskAnswer && n == 2
				}}},
		} {
			modes := f.modes
			if modes == nil {
				modes = []string{"conference", "attended", "blind"}
			}
			for _, mode := range modes {
				run(t, mode+", "+name, func(t *testing.T) { survive(t, spec, mode, &f) })
			}
		}
	})
}

// survive has a call transferred while something goes wrong.
func survive(t *testing.T, spec *providers.Spec, mode string, f *fault) {
	s, agentURL := newScript(t)
	s.many = true
	phone := sim.Phone{Ring: time.Second, Voice: voice(spec, humanHz, 15*time.Second), Length: 15 * time.Second,
		Press: '1', After: time.Second}
	store := &awayStore{}
	x := desk(t, spec, agentURL, map[string]sim.Phone{human: phone}, func(o *options, exchange *sim.Exchange) {
		exchange.Faults = f.faults
		store.Store, o.transfers.Store = o.transfers.Store, store
		o.transfers.Manager = transfer.Defaults
		o.transfers.Manager.Instance = "a"
	})
	caller := x.inboundCall(callerPhone(spec, 3*time.Minute))
	a := <-s.conn
	id := x.begin(t, a.Session, `,"mode":"`+mode+`"`)
	time.Sleep(1100 * time.Millisecond) // it is picked up
	if f.away > 0 {
		store.leave(f.away)
	}
	time.Sleep(45 * time.Second) // the human has hung up
	rate := spec.Formats[0].Rate
	_, tr := x.api("GET", "/v1/transfers/"+id, "")
	over := caller.Call().Status.Final()
	if !over {
		caller.Hangup()
	}
	out := caller.Wait()
	var leg *sim.Outcome
	legs := 0
	for _, c := range x.exchange.Calls() {
		if c.Call().To == human && !c.Call().Inbound {
			leg = c.Wait()
			legs++
		}
	}
	met := leg != nil && ear.Hears(out.Heard, rate, humanHz) && ear.Hears(leg.Heard, rate, callerHz)
	withAgent := !over && !met
	if !met && !withAgent || met == f.back || legs > 1 {
		t.Errorf("they met: %t, the caller is with its agent: %t, the phone rang %d times; said %q; %v", met, withAgent,
			legs,
			out.Said, tr)
	}
	if f.back && len(x.exchange.Rooms()) > 0 {
		t.Errorf("rooms: %v", x.exchange.Rooms())
	}
	x.exchange.Wait()
	for _, c := range x.exchange.Calls() {
		err := c.Wait().Fault
		// Reports that come while the store is away are refused for so long.
		if err != nil && !strings.Contains(err.Error(), "could not be fetched") &&
			!(f.away > 0 && strings.Contains(err.Error(), "503")) {
			t.Errorf("%+v: %v", c.Call(), err)
		}
	}
}
