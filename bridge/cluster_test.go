package bridge_test

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"voicebridge/calls"
	"voicebridge/cluster"
	"voicebridge/control"
	"voicebridge/control/transfers"
	"voicebridge/providers"
	"voicebridge/sim"
	"voicebridge/sim/ear"
	"voicebridge/sim/outage"
	"voicebridge/transfer"
	"voicebridge/transfer/redisstore"
)

// realRedis is a redis-server for all tests, and stopRedis ends it if it was started.
var (
	stopRedis = func() {}
	realRedis = sync.OnceValues(func() (server *outage.Redis, err error) {
		server, stop, err := outage.Temporary(context.Background())
		if err == nil {
			stopRedis = stop
		}
		return server, err
	})
)

// TestInstances: a webhook lands on one instance, the media connection on another,
// the request on a third; all act as one.
func TestInstances(t *testing.T) {
	t.Parallel()
	server, err := realRedis()
	if err != nil {
		t.Fatal(err)
	}
	eachCarrier(t, func(t *testing.T, spec *providers.Spec) {
		alike(t, spec.Name)
		db := redis.NewClient(&redis.Options{Addr: server.Addr, ContextTimeoutEnabled: true})
		t.Cleanup(func() { db.Close() })
		prefix := strings.ReplaceAll(t.Name(), "/", "-") + ":"
		s, agentURL := newScript(t)
		s.many = true
		var account *providers.Account
		member := func(o *options, name string) {
			members := cluster.NewMembers(db, prefix, name, 20*time.Second, slog.New(slog.DiscardHandler))
			o.transfers = &transfers.Config{Store: redisstore.New(db, prefix, time.Minute, members),
				Manager: quickTimes(members.Self()), Allow: []string{"+1555010*"},
				Ring: 20 * time.Second, Hold: transfers.HoldAgent}
			o.cluster = cluster.New(members, prefix)
			o.fallback = control.Fallback{Say: "Our agents are asleep."}
		}
		a := startTestbed(t, spec, agentURL, func(o *options, exchange *sim.Exchange) {
			member(o, "a")
			account = o.accounts["main"].Account
			exchange.Status = publicURL + "/hooks/" + spec.Name + "/main/status"
			exchange.Phone = func(providers.ExchangeCall) sim.Phone {
				return sim.Phone{Ring: 3 * time.Second, // long enough that it is told, whatever else the machine does
					Voice: voice(spec, humanHz, time.Minute)}
			}
		})
		others := []*running{}
		for _, name := range []string{"b", "c"} {
			others = append(others, startBridge(t, agentURL, func(o *options) {
				member(o, name)
				o.public, o.tokens = publicURL, apiTokens
				o.accounts = map[string]control.Account{"main": {Spec: spec, Account: account, From: "+15550100999"}}
			}))
		}
		b, c := others[0], others[1]
		var sockets, hooks atomic.Pointer[running] // where the carrier goes
		sockets.Store(b)
		hooks.Store(a.running)
		a.exchange.Reach = func(u string) string {
			if rest, ok := strings.CutPrefix(u, publicURL); ok {
				return "http" + strings.TrimPrefix(hooks.Load().url, "ws") + rest
			}
			return strings.Replace(u, "wss"+strings.TrimPrefix(publicURL, "https"), sockets.Load().url, 1)
		}
		third := &testbed{running: c, exchange: a.exchange, spec: spec, router: a.router, t: t}

		// An agent that hangs up in good order: whoever is asked what comes next knows.
		exchange := a.inboundCall(callerPhone(spec, time.Minute))
		agent := <-s.conn
		within := func(what string, is func() bool) {
			t.Helper()
			for limit := time.Now().Add(15 * time.Second); !is(); time.Sleep(50 * time.Millisecond) {
				if time.Now().After(limit) {
					t.Fatal(what)
				}
			}
		}
		known := func(session string) { // that it streams, at the third
			t.Helper()
			within("the third does not know that it streams", func() bool {
				status, call := third.api("GET", "/v1/calls/"+session, "")
				return status == 200 && call["streaming"] == true
			})
		}
		known(agent.Session)
		if err := agent.Command(map[string]any{"type": "hangup", "when": "now"}); err != nil {
			t.Fatal(err)
		}
		if out := exchange.Wait(); len(out.Said) > 0 || out.Fault != nil {
			t.Errorf("the caller is told %q, %v", out.Said, out.Fault)
		}
		// Hung up at the third.
		exchange = a.inboundCall(callerPhone(spec, time.Minute))
		agent = <-s.conn
		if err := third.hangup(agent.Session, ""); err != nil {
			t.Error(err)
		}
		if out := exchange.Wait(); out.Fault != nil || out.Call.Status != providers.StatusCompleted {
			t.Errorf("%+v", out)
		}
		// Transferred from the third, with the carrier's reports at the first. What becomes of
		// the call is told at any of them, once.
		next := third.events("")
		exchange = a.inboundCall(callerPhone(spec, time.Minute))
		agent = <-s.conn
		known(agent.Session)
		status, tr := third.api("POST", "/v1/calls/"+agent.Session+"/transfers", `{"to":"`+human+`"}`)
		if status != 201 {
			t.Fatalf("%d %v", status, tr)
		}
		if all, _ := s.states(t, "bridging"); spec.Abilities.Rings && !slices.Contains(all, "ringing") {
			t.Errorf("the agent is told of %v", all)
		}
		within("the caller does not hear the human", func() bool {
			return ear.Hears(exchange.Heard(), spec.Formats[0].Rate, humanHz)
		})
		within("nobody is told that they have met", func() bool { // one who leaves before has not talked
			_, now := third.api("GET", "/v1/transfers/"+tr["id"].(string), "")
			return now["state"] == string(transfer.Bridged)
		})
		third.legTo(human).Hangup()
		exchange.Wait()
		third.ends(t, tr["id"].(string), "ended", reasonOf(t, third, tr["id"].(string)))
		types, last := until(next, agent.Session)
		for _, once := range []string{calls.EventCreated, calls.EventAnswered, calls.EventStreamEnd, calls.EventEnded} {
			if n := count(types, once); n != 1 {
				t.Errorf("%s is told %d times: %v", once, n, types)
			}
		}
		if last.Call.Status != providers.StatusCompleted {
			t.Errorf("%+v", last)
		}
		// A token is good once on all of them.
		used := make(chan string, 1)
		reach := a.exchange.Reach
		a.exchange.Reach = func(u string) string {
			if strings.HasPrefix(u, "ws") {
				select {
				case used <- u:
				default:
				}
			}
			return reach(u)
		}
		exchange = a.inboundCall(callerPhone(spec, time.Minute))
		<-s.conn
		u := <-used
		header, err := a.exchange.Office.Handshake(u, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		sockets.Store(c)
		if _, status, err := dialAgent(reach(u), header); err == nil || status != 403 {
			t.Errorf("a used token at another instance: %d, %v", status, err)
		}
		exchange.Hangup()
		exchange.Wait()
	})
}

func count(list []string, of string) (n int) {
	for _, s := range list {
		if s == of {
			n++
		}
	}
	return n
}

// reasonOf is the reason of a transfer that is over.
func reasonOf(t *testing.T, x *testbed, id string) string {
	t.Helper()
	for limit := time.Now().Add(10 * time.Second); time.Now().Before(limit); time.Sleep(10 * time.Millisecond) {
		status, tr := x.api("GET", "/v1/transfers/"+id, "")
		if status != 200 {
			t.Fatalf("the transfer: %d %v", status, tr)
		}
		if transfer.State(tr["state"].(string)).Final() {
			return tr["reason"].(string)
		}
	}
	t.Fatal("the transfer does not end")
	return ""
}
