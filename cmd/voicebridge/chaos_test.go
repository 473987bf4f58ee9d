package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/redis/go-redis/v9"

	"voicebridge/calls"
	"voicebridge/codec"
	"voicebridge/logs"
	"voicebridge/providers"
	"voicebridge/providers/all"
	"voicebridge/sim"
	"voicebridge/sim/ear"
	"voicebridge/sim/outage"
	"voicebridge/transfer"
)

// The chaos runs: three bridges as processes of their own, a real redis-server, and
// carriers whose calls are transferred while all of these die. VOICEBRIDGE_CHAOS is
// short (some of it, as in CI) or long.

const (
	chaosPublic = "http://127.0.0.1:1" // nothing is there: the carrier goes to a live instance
	chaosHuman  = "+15550100700"
	chaosBusy   = "+15550100701"
	chaosAway   = "+15550100702"
	humanTone   = 1000
	chaosKeep   = 2 * time.Second
)

// chaos is the whole arrangement.
type chaos struct {
	t         *testing.T
	spec      *providers.Spec
	redis     *outage.Redis // one server, behind a proxy for each instance
	group     *outage.Group // or several
	db        redis.UniversalClient
	exchange  *sim.Exchange
	token     string
	instances []*instance
	agents    agentDesk
	app       appDesk
	turn      atomic.Uint64
}

// instance is one bridge.
type instance struct {
	name, addr, config string
	proxy              *outage.Proxy // to the database; nil: it is reached directly
	mu                 sync.Mutex
	cmd                *exec.Cmd // nil: dead
}

func (i *instance) live() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.cmd != nil
}

// agentDesk knows which calls have come to an agent, and how often.
type agentDesk struct {
	mu    sync.Mutex
	calls map[string]int // by session
	live  map[string]int
	told  map[string]string // the last that was said of a transfer
	named chan string       // sessions, as they come
}

func (d *agentDesk) talk(_ context.Context, c *sim.AgentConn) error {
	d.mu.Lock()
	d.calls[c.Session]++
	d.live[c.Session]++
	delete(d.told, c.Session) // a call that comes back says why at its start
	first := d.calls[c.Session] == 1
	d.mu.Unlock()
	if first {
		d.named <- c.Session
	}
	defer func() {
		d.mu.Lock()
		d.live[c.Session]--
		d.mu.Unlock()
	}()
	for {
		binary, data, err := c.Read()
		if err != nil {
			return nil
		}
		if binary {
			if err := c.Audio(data); err != nil {
				return nil
			}
			continue
		}
		var m struct{ Type, State string }
		if json.Unmarshal(data, &m) == nil && m.Type == "transfer_status" {
			d.mu.Lock()
			d.told[c.Session] = m.State
			d.mu.Unlock()
		}
	}
}

// waits reports whether the agent of a live call has been told of a transfer, and not of
// its end.
func (d *agentDesk) waits(session string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	state := d.told[session]
	return d.live[session] > 0 && state != "" && !transfer.State(state).Final()
}

func (d *agentDesk) has(session string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.live[session] > 0
}

// appDesk is the user's application, which is told what becomes of calls.
type appDesk struct {
	mu   sync.Mutex
	told map[[2]string]map[string]bool // by call and type: the ids of the events
}

// ServeHTTP implements http.Handler.
func (d *appDesk) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var ev calls.Event
	if err := json.NewDecoder(r.Body).Decode(&ev); err != nil || ev.ID == "" {
		http.Error(w, "no event", http.StatusBadRequest)
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	key := [2]string{ev.Call.ID, ev.Type}
	if d.told[key] == nil {
		d.told[key] = map[string]bool{}
	}
	d.told[key][ev.ID] = true
}

// times is how many different events of a type were told of a call.
func (d *appDesk) times(call, kind string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.told[[2]string{call, kind}])
}

// check waits until the application has been told of the ends of all calls, and that of
// each, and its begin, was told once.
func (x *chaos) check(all []trial) {
	x.t.Helper()
	limit := time.Now().Add(30 * time.Second)
	for k := range all {
		for x.app.times(all[k].session, calls.EventEnded) == 0 && time.Now().Before(limit) {
			time.Sleep(50 * time.Millisecond)
		}
		for _, kind := range []string{calls.EventCreated, calls.EventEnded} {
			if n := x.app.times(all[k].session, kind); n != 1 {
				x.t.Errorf("the application is told of %s of %s %d times", kind, all[k].session, n)
			}
		}
	}
}

var chaosBinary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "voicebridge")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "voicebridge")
	out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, out)
	}
	return path, err
})

// The databases that the instances share.
const (
	oneRedis = "one"
	cluster3 = "cluster"
	sentinel = "sentinel"
)

// database starts one.
func (x *chaos) database(kind string) error {
	dir, err := outage.Dir()
	if err != nil {
		return err
	}
	x.t.Cleanup(func() { os.RemoveAll(dir) })
	switch kind {
	case cluster3:
		if x.group, err = outage.StartCluster(x.t.Context(), dir, 3); err == nil {
			x.db = redis.NewClusterClient(&redis.ClusterOptions{Addrs: x.group.Entry})
		}
	case sentinel:
		if x.group, err = outage.StartSentinel(x.t.Context(), dir); err == nil {
			x.db = redis.NewFailoverClient(&redis.FailoverOptions{MasterName: outage.MasterName,
				SentinelAddrs: x.group.Entry})
		}
	default:
		if x.redis, err = outage.StartRedis(x.t.Context(), dir); err == nil {
			x.db = redis.NewClient(&redis.Options{Addr: x.redis.Addr})
		}
	}
	if err != nil {
		return err
	}
	x.t.Cleanup(func() {
		x.db.Close()
		if x.group != nil {
			_ = x.group.Stop()
			return
		}
		_ = x.redis.Stop()
	})
	return nil
}

// shared is what an instance's configuration says of the database.
func (x *chaos) shared(i *instance) (map[string]any, error) {
	c := map[string]any{"lease": "2s"}
	switch {
	case x.group == nil:
		var err error
		if i.proxy, err = outage.NewProxy(x.redis.Addr); err != nil {
			return nil, err
		}
		x.t.Cleanup(i.proxy.Close)
		c["addresses"] = []string{i.proxy.Addr}
	case x.group.Masters == 1:
		c["addresses"], c["master"] = x.group.Entry, outage.MasterName
	default:
		c["addresses"], c["cluster"] = x.group.Entry, true
	}
	return c, nil
}

// cut cuts all instances off the database, mend ends that.
func (x *chaos) cut() {
	for _, i := range x.instances {
		i.proxy.Cut()
	}
}

func (x *chaos) mend() {
	for _, i := range x.instances {
		i.proxy.Mend()
	}
}

func startChaos(t *testing.T, spec *providers.Spec, kind string, phone func(providers.ExchangeCall) sim.Phone) *chaos {
	t.Helper()
	dir := t.TempDir()
	x := &chaos{t: t, spec: spec, token: "a token of the API for chaos"}
	x.agents = agentDesk{calls: map[string]int{}, live: map[string]int{}, told: map[string]string{},
		named: make(chan string, 1000)}
	var err error
	must := func(what string) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	err = x.database(kind)
	must("database")
	x.exchange = &sim.Exchange{Spec: spec, Phone: phone, Status: chaosPublic + "/hooks/" + spec.Name + "/main/status"}
	rest := httptest.NewServer(x.exchange)
	t.Cleanup(func() { rest.Close(); http.DefaultClient.CloseIdleConnections() })
	account, err := x.exchange.Settings(rest.URL, spec.Formats[0], "+15550100999")
	must("account")
	x.app.told = map[[2]string]map[string]bool{}
	app := httptest.NewServer(&x.app)
	t.Cleanup(app.Close)
	desk := &sim.Agent{Talk: x.agents.talk, Log: logs.Direct(io.Discard, slog.LevelInfo, false)}
	agents := httptest.NewServer(desk)
	t.Cleanup(func() { agents.Close(); desk.Wait() })
	x.exchange.Reach = func(u string) string {
		i := x.pick()
		u = strings.Replace(u, "ws"+strings.TrimPrefix(chaosPublic, "http"), "ws://"+i.addr, 1)
		return strings.Replace(u, chaosPublic, "http://"+i.addr, 1)
	}
	sum := sha256Hex(x.token)
	for n := range 3 {
		l, lerr := net.Listen("tcp", "127.0.0.1:0")
		err = lerr
		must("port")
		i := &instance{name: fmt.Sprint("i", n), addr: l.Addr().String(),
			config: filepath.Join(dir, fmt.Sprint("i", n, ".yaml"))}
		l.Close()
		var shared map[string]any
		shared, err = x.shared(i)
		must("database")
		var b []byte
		b, err = yaml.Marshal(map[string]any{
			"listen": i.addr, "public_url": chaosPublic, "instance": i.name, "token_secret": "a secret that all share",
			"accounts":  map[string]any{"main": account},
			"agent":     map[string]any{"url": "ws" + strings.TrimPrefix(agents.URL, "http")},
			"api":       map[string]any{"tokens": []any{map[string]any{"name": "t", "sha256": sum}}},
			"transfers": map[string]any{"allow": []string{"+1555010*"}, "keep": chaosKeep.String(), "timeout": "8s"},
			"redis":     shared,
			"events":    map[string]any{"url": app.URL},
			"log":       map[string]any{"level": "debug"},
			"limits":    map[string]any{"handshakes_per_second": 1000},
		})
		must("config")
		err = os.WriteFile(i.config, b, 0o600)
		must("config")
		x.instances = append(x.instances, i)
		x.start(i)
		t.Cleanup(func() { x.kill(i) })
	}
	t.Cleanup(func() {
		if os.Getenv("VOICEBRIDGE_CHAOS_LOGS") != "" {
			for _, i := range x.instances {
				b, _ := os.ReadFile(i.config + ".log")
				_ = os.WriteFile(filepath.Join(os.Getenv("VOICEBRIDGE_CHAOS_LOGS"), i.name+".log"), b, 0o600)
			}
		}
	})
	return x
}

// pick gives a live instance, each in turn, as a load balancer does.
func (x *chaos) pick() *instance {
	for {
		if i := x.instances[x.turn.Add(1)%3]; i.live() {
			return i
		}
	}
}

func (x *chaos) start(i *instance) {
	x.t.Helper()
	bin, err := chaosBinary()
	if err != nil {
		x.t.Fatal(err)
	}
	log, err := os.OpenFile(i.config+".log", os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		x.t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(bin, "serve", "--config", i.config)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		x.t.Fatal(err)
	}
	for limit := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if resp, err := http.Get("http://" + i.addr + "/readyz"); err == nil {
			resp.Body.Close()
			break
		}
		if time.Now().After(limit) {
			b, _ := os.ReadFile(i.config + ".log")
			x.t.Fatalf("%s does not start: %s", i.name, b)
		}
	}
	i.mu.Lock()
	i.cmd = cmd
	i.mu.Unlock()
}

// kill ends an instance as a power cut does.
func (x *chaos) kill(i *instance) {
	i.mu.Lock()
	cmd := i.cmd
	i.cmd = nil
	i.mu.Unlock()
	if cmd != nil {
		_ = cmd.Process.Signal(syscall.SIGKILL)
		_ = cmd.Wait() // it says that it was killed
	}
}

// api asks an instance.
func (x *chaos) api(i *instance, method, path string, body any) (int, map[string]any) {
	var b []byte
	if body != nil {
		b, _ = json.Marshal(body)
	}
	ctx, stop := context.WithTimeout(context.Background(), 10*time.Second)
	defer stop()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+i.addr+path, bytes.NewReader(b))
	if err != nil {
		x.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+x.token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil
	}
	defer resp.Body.Close()
	var answer map[string]any
	_ = json.NewDecoder(resp.Body).Decode(&answer)
	return resp.StatusCode, answer
}

// has gives the instance that has the session of a call.
func (x *chaos) has(session string) *instance {
	for limit := time.Now().Add(5 * time.Second); time.Now().Before(limit); time.Sleep(10 * time.Millisecond) {
		v, err := x.db.Get(context.Background(), "voicebridge:call:{session:"+session+"}").Result()
		name, _, _ := strings.Cut(v, ".") // of the process
		for _, i := range x.instances {
			if err == nil && i.name == name {
				return i
			}
		}
	}
	return nil
}

// call makes a call; it is with its agent when this returns.
func (x *chaos) call() (exchange *sim.SimCall, session string) {
	rate := x.spec.Formats[0].Rate
	if err := x.exchange.Ready(x.t.Context()); err != nil {
		x.t.Fatal(err)
	}
	exchange = x.exchange.Call("+15550001111", "+15550002222", chaosPublic+"/hooks/"+x.spec.Name+"/main/inbound",
		sim.Phone{Voice: ear.Sine(rate, 440, time.Second), Length: 10 * time.Minute})
	return exchange, <-x.agents.named
}

// state asks for a transfer at any live instance.
func (x *chaos) state(id string) (state, reason string) {
	status, tr := x.api(x.pick(), "GET", "/v1/transfers/"+id, nil)
	if status != 200 {
		return "", ""
	}
	state, _ = tr["state"].(string)
	reason, _ = tr["reason"].(string)
	return state, reason
}

// until waits for one of some states, or the end.
func (x *chaos) until(id string, limit time.Duration, want ...transfer.State) string {
	last := ""
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if s, _ := x.state(id); s != "" {
			last = s
			if slices.Contains(want, transfer.State(s)) || transfer.State(s).Final() {
				return s
			}
		}
	}
	return last
}

// tally is what became of transfers.
type tally struct {
	states              map[string]int
	orphans, lost, keys int
	twice, untold       int // calls beyond the first, agents that were not told of the end
}

// settle waits until nothing goes on any more, and counts what is left.
func (x *chaos) settle(sums *tally) {
	x.t.Helper()
	done := make(chan struct{})
	go func() { x.exchange.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(45 * time.Second):
		for _, c := range x.exchange.Calls() {
			if call := c.Call(); !call.Status.Final() {
				sums.orphans++
				x.t.Errorf("still live: %+v", call)
				c.Hangup()
			}
		}
		<-done
	}
	if rooms := x.exchange.Rooms(); len(rooms) > 0 {
		x.t.Errorf("rooms are left: %v", rooms)
	}
	for limit := time.Now().Add(chaosKeep + transfer.KeepNew + 10*time.Second); ; time.Sleep(100 * time.Millisecond) {
		keys, err := x.keys()
		if err == nil && len(keys) == 0 {
			break
		}
		if time.Now().After(limit) {
			sums.keys += len(keys)
			x.t.Errorf("keys are left: %v", keys)
			break
		}
	}
}

// keys are those of transfers that are left in the database.
func (x *chaos) keys() (keys []string, err error) {
	const pattern = "voicebridge:transfer:*"
	c, is := x.db.(*redis.ClusterClient)
	if !is {
		return x.db.Keys(context.Background(), pattern).Result()
	}
	var mu sync.Mutex
	err = c.ForEachMaster(context.Background(), func(ctx context.Context, one *redis.Client) error {
		some, err := one.Keys(ctx, pattern).Result()
		mu.Lock()
		defer mu.Unlock()
		keys = append(keys, some...)
		return err
	})
	return keys, err
}

// fate tells whether the caller has talked to the human, or is with an agent. A
// caller who is neither within a while is lost.
func (x *chaos) fate(exchange *sim.SimCall, session string) (human, agent bool) {
	for limit := time.Now().Add(15 * time.Second); time.Now().Before(limit); time.Sleep(20 * time.Millisecond) {
		switch {
		case x.agents.has(session):
			return false, true
		case exchange.Call().Status.Final():
			return ear.Hears(exchange.Wait().Heard, x.spec.Formats[0].Rate, humanTone), false
		}
	}
	return false, false
}

func humanPhone(spec *providers.Spec, talk time.Duration) sim.Phone {
	return sim.Phone{Ring: 700 * time.Millisecond, Voice: ear.Sine(spec.Formats[0].Rate, humanTone, talk), Length: talk,
		Press: '1', After: 500 * time.Millisecond}
}

// mode gives how the chaos runs, or skips.
func chaosMode(t *testing.T) (long bool) {
	t.Helper()
	switch os.Getenv("VOICEBRIDGE_CHAOS") {
	case "long":
		return true
	case "short":
		return false
	}
	t.Skip("set VOICEBRIDGE_CHAOS to short or long, as make chaos does")
	return false
}

// eachCarrier runs a test with every carrier, or with one of them.
func eachCarrier(t *testing.T, long bool, test func(t *testing.T, spec *providers.Spec)) {
	for _, spec := range all.Specs {
		if long || spec.Name == "twilio" {
			t.Run(spec.Name, func(t *testing.T) { test(t, spec) })
		}
	}
}

// TestChaosKill kills the instance that has the call and owns its transfer, at each
// step: the transfer goes on elsewhere, the caller comes back or meets the human.
func TestChaosKill(t *testing.T) {
	long := chaosMode(t)
	eachCarrier(t, long, func(t *testing.T, spec *providers.Spec) {
		x := startChaos(t, spec, oneRedis, func(providers.ExchangeCall) sim.Phone {
			return humanPhone(spec,
				6*time.Second)
		})
		sums := tally{states: map[string]int{}}
		steps := []transfer.State{transfer.Requested, transfer.Dialing, transfer.Ringing, transfer.Answered,
			transfer.Briefing, transfer.Accepted, transfer.Bridging, transfer.Bridged}
		if !long {
			steps = []transfer.State{transfer.Dialing, transfer.Ringing, transfer.Bridged}
		}
		for _, step := range steps {
			for _, mode := range []transfer.Mode{transfer.Conference, transfer.Attended} {
				if (mode == transfer.Attended) != (step == transfer.Briefing || step == transfer.Accepted) &&
					step != transfer.Bridged {
					continue
				}
				exchange, session := x.call()
				owner := x.has(session)
				if owner == nil {
					t.Fatal("nobody has the call")
				}
				other := x.pick()
				for other == owner {
					other = x.pick()
				}
				status, tr := x.api(other, "POST", "/v1/calls/"+session+"/transfers",
					map[string]any{"to": chaosHuman, "mode": mode})
				if status != 201 {
					t.Fatalf("%d %v", status, tr)
				}
				id := tr["id"].(string)
				reached := x.until(id, 10*time.Second, append(steps[slices.Index(steps, step):], step)...)
				x.kill(owner)
				killed := time.Now()
				end := x.until(id, 40*time.Second)
				took := time.Since(killed)
				if !transfer.State(end).Final() {
					t.Errorf("killed at %s: the transfer is still %s", reached, end)
				}
				human, back := x.fate(exchange, session)
				if !human && !back {
					sums.lost++
					t.Errorf("killed at %s: the caller is lost", reached)
				}
				exchange.Hangup()
				sums.states[end]++
				t.Logf("%s, killed at %s (wanted %s): %s after %.1f s; human %v, agent again %v", mode, reached, step,
					end, took.Seconds(), human, back)
				x.start(owner)
			}
		}
		x.settle(&sums)
		t.Logf("killed: %+v", sums)
	})
}

// TestChaosRedis stops, restarts and partitions the database in the middle of
// transfers.
func TestChaosRedis(t *testing.T) {
	long := chaosMode(t)
	eachCarrier(t, long, func(t *testing.T, spec *providers.Spec) {
		x := startChaos(t, spec, oneRedis, func(providers.ExchangeCall) sim.Phone {
			return humanPhone(spec,
				6*time.Second)
		})
		sums := tally{states: map[string]int{}}
		for _, how := range []string{"restart", "partition"} {
			for _, step := range []transfer.State{transfer.Dialing, transfer.Ringing, transfer.Bridged} {
				exchange, session := x.call()
				status, tr := x.api(x.pick(), "POST", "/v1/calls/"+session+"/transfers",
					map[string]any{"to": chaosHuman})
				if status != 201 {
					t.Fatalf("%d %v", status, tr)
				}
				id := tr["id"].(string)
				x.until(id, 10*time.Second, transfer.States[slices.Index(transfer.States, step):]...)
				away, mend := x.cut, x.mend
				if how == "restart" {
					away = func() { _ = x.redis.Stop() }
					mend = func() {
						if err := x.redis.Start(context.Background()); err != nil {
							t.Error(err)
						}
					}
				}
				away()
				began := time.Now()
				if status, _ := x.api(x.pick(), "POST", "/v1/calls/"+session+"/transfers",
					map[string]any{"to": chaosHuman}); status == 201 {
					t.Error("a transfer was begun without a store")
				}
				if d := time.Since(began); d > 8*time.Second {
					t.Errorf("the refusal took %v", d)
				}
				time.Sleep(max(0, 3*time.Second-time.Since(began)))
				mend()
				end := x.until(id, 40*time.Second)
				if !transfer.State(end).Final() {
					t.Errorf("%s at %s: the transfer is still %s", how, step, end)
				}
				human, back := x.fate(exchange, session)
				if !human && !back {
					sums.lost++
					t.Errorf("%s at %s: the caller is lost", how, step)
				}
				exchange.Hangup()
				sums.states[end]++
				t.Logf("%s at %s: %s; human %v, agent again %v", how, step, end, human, back)
			}
		}
		x.settle(&sums)
		t.Logf("redis away: %+v", sums)
	})
}

// TestChaosMany transfers many calls at once, to people who answer, are busy, or do
// not answer, while reports come twice and in disorder, and something dies among them.
func TestChaosMany(t *testing.T) {
	long := chaosMode(t)
	storm := sim.Faults{Duplicate: true, Reorder: true, Delay: 50 * time.Millisecond}
	for _, tt := range []struct {
		name   string
		kind   string
		faults sim.Faults
		amid   func(x *chaos) // while the transfers are under way
		always bool           // also in the short form
	}{
		{"an instance is killed", oneRedis, storm, func(x *chaos) {
			x.kill(x.instances[0])
			x.start(x.instances[0])
		}, false},
		{"a master of the Cluster is killed", cluster3, storm, func(x *chaos) { x.failover() }, true},
		{"the primary of Sentinel is killed", sentinel, storm, func(x *chaos) { x.failover() }, false},
		{"an instance is cut off for twice its lease", oneRedis, storm, func(x *chaos) {
			x.instances[1].proxy.Cut()
			time.Sleep(4 * time.Second)
			x.instances[1].proxy.Mend()
		}, false},
		{"one in twenty replies and webhooks is lost", oneRedis, sim.Faults{Duplicate: true, Reorder: true,
			Delay: 50 * time.Millisecond,
			Lose:  func(providers.OperationKind, int) bool { return rand.IntN(20) == 0 },
			Drop: func(kind providers.AskKind, _ int) bool {
				// What to do with a call is asked again where Twilio is told to in the URL.
				return (kind == providers.TellStatus || kind == providers.TellRoom) && rand.IntN(20) == 0
			}}, func(*chaos) {}, true},
	} {
		if !long && !tt.always {
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			eachCarrier(t, long, func(t *testing.T, spec *providers.Spec) {
				n, talk := 30, 4*time.Second
				if long {
					n, talk = 300, 15*time.Second
				}
				x := startChaos(t, spec, tt.kind, func(c providers.ExchangeCall) sim.Phone {
					switch c.To {
					case chaosBusy:
						return sim.Phone{Ring: 300 * time.Millisecond, Reject: providers.StatusBusy}
					case chaosAway:
						return sim.Phone{Ring: time.Minute}
					}
					return humanPhone(spec, talk)
				})
				x.exchange.Faults = tt.faults
				x.many(n, tt.amid)
			})
		})
	}
}

// failover kills the first master, and waits until another one has taken over.
func (x *chaos) failover() {
	if err := x.group.Kill(0); err != nil {
		x.t.Error(err)
	}
	if err := x.group.Failover(context.Background(), 0); err != nil {
		x.t.Error(err)
	}
}

// trial is one call that is transferred.
type trial struct {
	exchange    *sim.SimCall
	session, id string
}

// begin begins the transfer of a call, at any instance.
func (x *chaos) begin(o *trial) {
	to := []string{chaosHuman, chaosHuman, chaosBusy, chaosAway}[rand.IntN(4)]
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for limit := time.Now().Add(20 * time.Second); time.Now().Before(limit); <-again.C {
		status, tr := x.api(x.pick(), "POST", "/v1/calls/"+o.session+"/transfers", map[string]any{"to": to})
		switch {
		case status == 201:
			o.id = tr["id"].(string)
			return
		case status == 409 && tr["code"] == "busy": // begun, although the answer was lost
			detail, _ := tr["detail"].(string)
			o.id = detail[strings.LastIndex(detail, " ")+1:]
			return
		}
	}
}

// end waits for the end of a transfer, and says what it was.
func (x *chaos) end(o *trial) (end string) {
	if o.id == "" {
		return "not begun"
	}
	again := time.NewTicker(200 * time.Millisecond)
	defer again.Stop()
	for limit, silent := time.Now().Add(90*time.Second), 0; time.Now().Before(limit); <-again.C {
		s, reason := x.state(o.id)
		if silent++; s != "" {
			silent = 0
		}
		switch {
		case silent > 150: // longer than any database is away
			return cmp.Or(end, "forgotten")
		case transfer.State(s).Final():
			return s + " " + reason
		case s == "" && end != "": // the tombstone has gone already
			return end
		case s != "":
			end = s
		}
	}
	return end
}

// many transfers calls at once while something happens, and counts what became of them.
func (x *chaos) many(n int, amid func(*chaos)) {
	x.t.Helper()
	sums := tally{states: map[string]int{}}
	all := make([]trial, n)
	for k := range all {
		all[k].exchange, all[k].session = x.call()
	}
	var group sync.WaitGroup
	places := make(chan struct{}, 32)
	for k := range all {
		group.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			x.begin(&all[k])
		})
	}
	if n <= 30 {
		group.Wait()
	}
	amid(x)
	group.Wait()
	var mu sync.Mutex
	for k := range all {
		o := &all[k]
		group.Go(func() {
			end := x.end(o)
			human, back := x.fate(o.exchange, o.session)
			untold := false
			for range 100 { // whoever looks for itself does so each few seconds
				if untold = x.agents.waits(o.session); !untold {
					break
				}
				time.Sleep(100 * time.Millisecond)
			}
			o.exchange.Hangup()
			mu.Lock()
			defer mu.Unlock()
			sums.states[end]++
			if !human && !back {
				sums.lost++
				x.t.Errorf("the caller of %s (%s) is lost: %s, %+v", o.session, o.id, end, o.exchange.Call())
			}
			if untold {
				sums.untold++
				x.t.Errorf("the agent of %s was not told of the end of %s: %s", o.session, o.id, end)
			}
		})
	}
	group.Wait()
	sums.twice = x.dialledTwice(n)
	x.settle(&sums)
	x.check(all)
	x.t.Logf("%d transfers at once: %+v", n, sums)
}

// dialledTwice counts the calls to destinations beyond one for each transfer.
func (x *chaos) dialledTwice(most int) int {
	legs := 0
	for _, c := range x.exchange.Calls() {
		if call := c.Call(); !call.Inbound {
			legs++
		}
	}
	if legs > most {
		x.t.Errorf("%d calls to destinations for %d transfers", legs, most)
	}
	return max(0, legs-most)
}

// TestChaosCalls: calls without transfers do not notice that the database goes away.
func TestChaosCalls(t *testing.T) {
	chaosMode(t)
	spec := all.Lookup("twilio")
	x := startChaos(t, spec, oneRedis, nil)
	voice, err := ear.Speech(spec.Formats[0].Rate)
	if err != nil {
		t.Fatal(err)
	}
	delays := func() (median, p99 time.Duration) {
		var all []time.Duration
		for range 4 {
			exchange := x.exchange.Call("+15550001111", "+15550002222", chaosPublic+"/hooks/twilio/main/inbound",
				sim.Phone{Voice: voice, Length: 4 * time.Second})
			out := exchange.Wait()
			if out.Fault != nil || len(out.Streams) != 1 {
				t.Fatalf("%+v", out)
			}
			r := out.Streams[0]
			if lost := len(r.SentAt) - len(r.ReceivedAt); lost > 3 {
				t.Errorf("%d frames lost", lost)
			}
			all = append(all, r.AddedDelay()...)
		}
		return ear.Quantile(all, 0.5), ear.Quantile(all, 0.99)
	}
	m0, p0 := delays()
	x.cut()
	m1, p1 := delays()
	x.mend()
	t.Logf("added delay: with the database %v median, %v p99; without %v, %v", m0, p0, m1, p1)
	if m1 > m0+codec.FrameTime/4 {
		t.Errorf("calls notice: %v median, was %v", m1, m0)
	}
}

func sha256Hex(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}
