// Package bridge puts the rooms together: what carriers, agents and operators reach
// behind two listeners, and the order in which it begins and ends.
package bridge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"path"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/time/rate"

	"voicebridge/api"
	"voicebridge/cluster"
	"voicebridge/control"
	"voicebridge/control/directory"
	"voicebridge/control/transfers"
	"voicebridge/hooks"
	"voicebridge/hooks/gate"
	"voicebridge/hooks/operators"
	"voicebridge/journal"
	"voicebridge/media"
	"voicebridge/notify"
	"voicebridge/providers"
	"voicebridge/wav"
	"voicebridge/ws"
)

// Limits of a bridge. Every field must be set; Defaults has the usual ones.
type Limits struct {
	media.Limits
	Calls     int           // live at the same time
	Header    int           // bytes of a request's header
	Handshake time.Duration // for a request to come in whole
	Drain     time.Duration // for live calls to end when the bridge stops
}

// Defaults are limits for a small machine.
var Defaults = Limits{
	Limits:    media.Defaults,
	Calls:     1000,
	Header:    16 << 10,
	Handshake: 5 * time.Second,
	Drain:     60 * time.Second,
}

// Config of a Bridge.
type Config struct {
	Providers []*providers.Spec
	Accounts  map[string]control.Account // those whose webhooks are answered, by name
	Agents    map[string]control.Agent   // see control.Config
	Route     func(account, from, to string) (control.Route, bool)
	Router    *notify.Target
	// Words are what is said; those that are empty are the usual ones.
	Words directory.Words
	// Events, if not nil, is told what becomes of calls.
	Events *notify.Target
	// Tokens open the API; without any it is not there.
	Tokens []api.Token
	// Insecure lets every media connection in, Token those that show it; see
	// media.Config.
	Insecure bool
	Token    string
	// Transfers, if not nil, lets calls be moved.
	Transfers *transfers.Config
	// Cluster, if not nil, are the other instances.
	Cluster *cluster.Cluster
	// PublicURL, InstanceURL and Secret are those of control.Config.
	PublicURL, InstanceURL, Secret string
	// Loops is how many event loops serve the connections of calls; see media.Config.
	Loops  int
	Limits Limits
	Log    *slog.Logger
	// LostLines, if not nil, is how many lines of the log were lost because nobody read it.
	LostLines func() uint64
}

// Bridge is all rooms together.
type Bridge struct {
	cfg       Config
	control   *control.Controller
	transfers *transfers.Transfers // nil: none
	media     *media.Server
	journal   *journal.Journal
	api       *api.Server
	events    *notify.Queue // to the user's application; nil: none
	doors     map[string]http.HandlerFunc
	desk      *operators.Desk
	mux       atomic.Pointer[http.ServeMux] // what is public
	metrics   *prometheus.Registry
	strays    *rate.Limiter // of complaints about requests for what is not there
}

// New makes a bridge; it listens nowhere yet.
func New(cfg Config) *Bridge {
	if most := callsFor(openFiles()); most > 0 && most < cfg.Limits.Calls {
		cfg.Log.Warn("there are not enough descriptors for limits.calls: raise ulimit -n", "limits.calls",
			cfg.Limits.Calls, "descriptors", openFiles(), "calls", most)
		cfg.Limits.Calls = most
	}
	b := &Bridge{cfg: cfg, strays: rate.NewLimiter(1, 1), control: control.New(control.Config{
		Providers: cfg.Providers, Entries: cfg.entries(),
		Cluster:   cfg.Cluster,
		PublicURL: cfg.PublicURL, InstanceURL: cfg.InstanceURL, Secret: cfg.Secret, MaxCalls: cfg.Limits.Calls,
		Log: cfg.Log,
	})}
	b.journal = b.newJournal()
	var music *wav.Music
	if cfg.Transfers != nil {
		b.transfers = transfers.New(b.control, *cfg.Transfers, cfg.Log)
		music = b.transfers.Music()
	}
	if cfg.Events != nil {
		b.events = notify.NewQueue(cfg.Events, cfg.Log)
	}
	checks := gate.New(cfg.Cluster)
	webhooks := hooks.New(hooks.Config{Providers: cfg.Providers, Control: b.control, Gate: checks, Music: music,
		Log: cfg.Log})
	b.media = media.New(media.Config{Providers: cfg.Providers, Control: b.control, Gate: checks, Insecure: cfg.Insecure,
		Token: cfg.Token,
		Loops: cfg.Loops, Limits: cfg.Limits.Limits, Log: cfg.Log})
	b.api = api.New(api.Config{Tokens: cfg.Tokens, Providers: cfg.Providers, Control: b.control,
		Transfers: b.transfers, Journal: b.journal, Gate: checks, Log: cfg.Log})

	b.doors = b.health()
	b.control.UseMedia(b.media.Take)
	for _, doors := range []map[string]http.HandlerFunc{webhooks.Doors(), b.media.Doors(), b.api.Doors()} {
		maps.Copy(b.doors, doors)
	}
	b.desk = operators.New(b.control, checks)
	b.open()
	b.metrics = prometheus.NewRegistry()
	b.metrics.MustRegister(buildInfo(), collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		b.control.Totals(), webhooks, b.media)
	if cfg.LostLines != nil {
		b.metrics.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "voicebridge_log_lines_lost_total",
			Help: "Lines of the log that were lost because nobody read it.",
		}, func() float64 { return float64(cfg.LostLines()) }))
	}
	if b.transfers != nil {
		b.metrics.MustRegister(b.transfers)
	}
	if c := b.control.Cluster(); c != nil {
		b.metrics.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "voicebridge_redis_up",
			Help: "1 while Redis answers."}, func() float64 {
			if c.Up() {
				return 1
			}
			return 0
		}))
	}
	if b.events != nil {
		b.metrics.MustRegister(b.eventCounts("taken", 0), b.eventCounts("lost", 1), b.eventCounts("not_taken", 2))
	}
	return b
}

// buildInfo says what the program was built from.
func buildInfo() prometheus.Collector {
	version, revision, tool := "", "", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		version, tool = info.Main.Version, info.GoVersion
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				revision = s.Value
			}
		}
	}
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "voicebridge_build_info",
		Help:        "1; the labels tell what the program was built from.",
		ConstLabels: prometheus.Labels{"version": version, "revision": revision, "goversion": tool},
	}, func() float64 { return 1 })
}

// eventCounts counts the events for the user's application.
func (b *Bridge) eventCounts(result string, which int) prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name:        "voicebridge_application_events_total",
		Help:        "Events for the user's application: taken by it, lost, or not_taken and sent again.",
		ConstLabels: prometheus.Labels{"result": result},
	}, func() float64 {
		taken, lost, again := b.events.Counts()
		return float64([]uint64{taken, lost, again}[which])
	})
}

// entries are whom the bridge begins with.
func (c *Config) entries() directory.Entries {
	return directory.Entries{Accounts: c.Accounts, Agents: c.Agents, Route: c.Route, Router: c.Router,
		Words: c.Words}
}

// Reload takes accounts, agents, routes and tokens from another configuration, while calls are
// live.
func (b *Bridge) Reload(cfg *Config) {
	b.control.Reload(cfg.entries())
	b.api.SetTokens(cfg.Tokens)
	b.open()
}

// open opens the doors that there are now: agents may bring some.
func (b *Bridge) open() {
	mux := http.NewServeMux()
	for _, doors := range []map[string]http.HandlerFunc{b.doors, b.desk.Doors()} {
		for pattern, h := range doors {
			mux.HandleFunc(pattern, h)
		}
	}
	b.mux.Store(mux)
}

// Control returns what decides about calls.
func (b *Bridge) Control() *control.Controller { return b.control }

// Public is what carriers, agents and the users of the API may reach.
func (b *Bridge) Public() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mux := b.mux.Load()
		if _, pattern := mux.Handler(r); (pattern == "" || r.URL.Path != path.Clean(r.URL.Path)) && ws.Asked(r) &&
			b.strays.Allow() {
			b.cfg.Log.Warn("a WebSocket is asked for where there is none: does a proxy change the path, by a slash "+
				"that is missing in a location, say?", "begins_with", r.URL.Path[:min(len(r.URL.Path), 8)], "remote",
				r.RemoteAddr)
		}
		mux.ServeHTTP(w, r)
	})
}

// Doors lists the patterns of what is public; docs/configuration.md tells of each.
func (b *Bridge) Doors() (patterns []string) {
	return slices.AppendSeq(slices.Collect(maps.Keys(b.doors)), maps.Keys(b.desk.Doors()))
}

// Admin is what operators may reach: metrics and health.
func (b *Bridge) Admin() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(b.metrics, promhttp.HandlerOpts{}))
	for pattern, h := range b.health() {
		mux.HandleFunc(pattern, h)
	}
	return mux
}

// health answers on both listeners.
func (b *Bridge) health() map[string]http.HandlerFunc {
	return map[string]http.HandlerFunc{
		"GET /healthz": func(w http.ResponseWriter, _ *http.Request) {
			if err := b.media.Healthy(); err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
			fmt.Fprintln(w, "ok")
		},
		"GET /readyz": func(w http.ResponseWriter, _ *http.Request) {
			if b.control.Draining() {
				http.Error(w, "draining", http.StatusServiceUnavailable)
				return
			}
			fmt.Fprintln(w, "ready")
			if c := b.control.Cluster(); c != nil && !c.Up() { // calls go on without
				fmt.Fprintln(w, "redis does not answer")
			}
		},
	}
}

// Serve answers on the listeners until ctx ends, then drains: new calls are refused,
// live ones may end by themselves within Limits.Drain, and the rest are ended. admin
// may be nil.
func (b *Bridge) Serve(ctx context.Context, public, admin net.Listener) error {
	stopLoops, err := b.media.Start()
	if err != nil {
		return err
	}
	defer stopLoops()
	servers := map[*http.Server]net.Listener{b.server(b.Public()): public}
	if admin != nil {
		servers[b.server(b.Admin())] = admin
	}
	failed := make(chan error, len(servers))
	var group sync.WaitGroup
	for srv, listener := range servers {
		group.Go(func() {
			if err := srv.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
				failed <- fmt.Errorf("bridge: serve %s: %w", listener.Addr(), err)
			}
		})
	}
	stopWork := b.work(&group)
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	b.drain()
	stopWork()
	for srv := range servers {
		srv.Close()
	}
	group.Wait()
	return err
}

// work does what goes on beside the requests, until it is stopped.
func (b *Bridge) work(group *sync.WaitGroup) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var working sync.WaitGroup
	working.Go(func() { b.control.Run(ctx) })
	if b.transfers != nil {
		working.Go(func() { b.transfers.Run(ctx) })
	}
	stopTelling := b.tell(group)
	group.Go(working.Wait)
	return func() {
		cancel()
		working.Wait()
		stopTelling()
	}
}

// drain waits for the live calls; the listeners stay open, so that health checks and
// metrics are answered and new calls are refused in good order.
func (b *Bridge) drain() {
	b.control.Refuse()
	ctx, stop := context.WithTimeout(context.Background(), b.cfg.Limits.Drain)
	defer stop()
	sessions := b.control.Sessions()
	if n := sessions.Len(); n > 0 {
		b.cfg.Log.Info("draining", "calls", n, "limit", b.cfg.Limits.Drain)
	}
	select {
	case <-sessions.Empty():
	case <-ctx.Done():
		b.cfg.Log.Warn("ending the calls that are left", "calls", sessions.Len())
	}
	if b.transfers != nil {
		b.transfers.Finish(ctx)
	}
	b.control.End()
}

func (b *Bridge) server(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: b.cfg.Limits.Handshake,
		ReadTimeout:       2 * b.cfg.Limits.Handshake,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       30 * time.Second,
		MaxHeaderBytes:    b.cfg.Limits.Header,
		ErrorLog:          slog.NewLogLogger(b.cfg.Log.Handler(), slog.LevelDebug),
		ConnState:         (&waiting{most: mayWait(openFiles())}).state,
	}
}
