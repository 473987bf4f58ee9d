package control

import (
	"context"
	"io"
	"log/slog"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"voicebridge/calls"
	"voicebridge/cluster"
	"voicebridge/control/background"
	"voicebridge/control/directory"
	"voicebridge/control/registry"
	"voicebridge/control/router"
	"voicebridge/control/sweep"
	"voicebridge/control/totals"
	"voicebridge/control/urls"
	"voicebridge/providers"
	"voicebridge/ticket"
)

// What the directory has is spoken of here, too.
type (
	Account  = directory.Account
	Agent    = directory.Agent
	Fallback = directory.Fallback
	Route    = directory.Route
)

// Config of a Controller.
type Config struct {
	Providers []*providers.Spec
	// Entries are whom it begins with.
	directory.Entries
	// Cluster, if not nil, are the other instances.
	Cluster *cluster.Cluster
	// PublicURL is how carriers reach the bridge: https://host, perhaps with a path.
	PublicURL string
	// InstanceURL is how carriers reach this very instance, where there are several;
	// empty: they cannot.
	InstanceURL string
	// Secret makes the tokens; instances that share it take each other's.
	Secret string
	// MaxCalls is how many calls are live at the same time.
	MaxCalls int
	Log      *slog.Logger
}

// Controller decides about the calls of all accounts. Its methods may be called at
// the same time.
type Controller struct {
	*urls.URLs
	*directory.Directory
	*background.Work // REST requests and the like, of which no call waits for the end

	cfg       Config
	events    providers.Once // what carriers have told, by account and event id
	sessions  registry.Sessions
	book      *calls.Book
	totals    *totals.Totals
	transfers Transfers
	orphan    Orphan
	remote    map[string]cluster.Handler // what other instances ask, by kind
	// calls that the carrier is being asked to take elsewhere, with a channel that is closed then
	moves sync.Map

	ctx      context.Context // of all sessions, which no single request begins or ends
	cancel   context.CancelCauseFunc
	draining atomic.Bool

	router    atomic.Pointer[router.Router] // nil: there is none
	listening background.Tasks
	take      func(media string, c providers.MediaConn) error // see UseMedia
	coming    sync.Mutex                                      // see comes

	gate    sync.Mutex // nothing is added to the groups once they are waited for
	closed  bool       // no session begins any more
	former  []Agent    // that have been replaced
	running sync.WaitGroup
	sweeper sweep.Sweeper
}

// Orphan is told of the end of a call that no instance knows: by our id or the carrier's.
type Orphan func(ctx context.Context, account, id string, legs []string, s providers.Status) error

// OnOrphan tells of such ends.
func (c *Controller) OnOrphan(tell Orphan) { c.orphan = tell }

// New makes a controller. UseTransfers, OnRemote and OnOrphan complete it before Run.
func New(cfg Config) *Controller {
	c := &Controller{
		cfg: cfg, book: calls.New(time.Now), transfers: noTransfers{},
		orphan: func(context.Context, string, string, []string, providers.Status) error { return nil },
	}
	c.URLs = &urls.URLs{Public: cfg.PublicURL, Instance: cfg.InstanceURL, Alone: cfg.Cluster == nil,
		Office: ticket.New(cfg.Secret)}
	c.totals = totals.New(cfg.Providers, &c.sessions, cfg.MaxCalls, c.parked)
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	c.Work = background.New(c.Guard)
	c.Directory = directory.New(cfg.Entries)
	c.introduce(nil, cfg.Entries)
	c.sweeper = sweep.Sweeper{Book: c.book, Directory: c.Directory, Log: cfg.Log, Elsewhere: c.SessionElsewhere,
		Left: c.left, Report: c.stated, Later: c.Later}
	c.remote = map[string]cluster.Handler{
		"event": handler(c.remoteEvent),
		"move":  handler(c.remoteMove),
		"end":   handler(c.remoteEnd),
		"has":   handler(c.remoteHas),
	}
	return c
}

// UseMedia gives where connections are handed over that accounts make.
func (c *Controller) UseMedia(take func(media string, c providers.MediaConn) error) { c.take = take }

// OnRemote answers requests of a kind that other instances make.
func (c *Controller) OnRemote(kind string, handle cluster.Handler) { c.remote[kind] = handle }

// Calls returns the record of all calls.
func (c *Controller) Calls() *calls.Book { return c.book }

// Sessions returns the live sessions.
func (c *Controller) Sessions() *registry.Sessions { return &c.sessions }

// Cluster returns the other instances; nil: there are none.
func (c *Controller) Cluster() *cluster.Cluster { return c.cfg.Cluster }

// Totals returns the numbers of all calls, for metrics.
func (c *Controller) Totals() prometheus.Collector { return c.totals }

// parked returns how many agents wait for calls, by pool.
func (c *Controller) parked() map[string]int {
	n := map[string]int{}
	for name, a := range c.Agents() {
		if p, ok := a.Dialer.(interface{ Parked() int }); ok {
			n[name] = p.Parked()
		}
	}
	return n
}

// HoldURL returns what who waits in a room of an account's carrier is told to hear.
func (c *Controller) HoldURL(provider, account string) string {
	a := c.Accounts()[account].Account
	if a == nil {
		return c.PublicURL(MusicPath)
	}
	if _, fetches := a.Webhooks.(providers.Holder); fetches {
		return c.HookURL(provider, account, urls.Hold)
	}
	return c.PublicURL(MusicPath)
}

// MusicPath is where the audio is that callers hear who wait.
const MusicPath = "/hooks/hold.wav"

// Draining reports whether no new calls are taken any more.
func (c *Controller) Draining() bool { return c.draining.Load() }

// Full reports whether no more calls fit.
func (c *Controller) Full() bool { return c.sessions.Len() >= c.cfg.MaxCalls }

// Crowded reports whether as many calls are known as may be live.
func (c *Controller) Crowded() bool { return c.book.Live() >= c.cfg.MaxCalls }

// Guard is deferred where something begins that must not end the program: a panic is
// counted and logged, with its stack.
func (c *Controller) Guard(what string) {
	if v := recover(); v != nil {
		c.panicked(what, v, debug.Stack())
	}
}

func (c *Controller) panicked(what string, v any, stack []byte) {
	c.totals.Panicked()
	c.cfg.Log.Error("panic", "in", what, "panic", v, "stack", string(stack))
}

// mostTime is the longest that a call lasts of which only the carrier knows, as
// after a fallback.
const mostTime = 24 * time.Hour

// Run listens to the carriers that have event sockets and to the other instances,
// and gives up lost calls, until ctx ends.
func (c *Controller) Run(ctx context.Context) {
	var group sync.WaitGroup
	c.listening.Run(ctx)
	defer c.listening.Wait()
	for name, a := range c.Accounts() {
		c.listening.Begin(name, func(ctx context.Context) { c.listen(ctx, name, a) })
	}
	if c.cfg.Cluster != nil {
		last := c.book.Last()
		group.Go(func() { c.cfg.Cluster.Run(ctx, c.handleRemote) })
		group.Go(func() { c.book.Follow(ctx, last, c.directory) })
	}
	tick := time.NewTicker(sweep.Every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			c.sweeper.Sweep()
			c.book.Sweep(ticket.AnswerTime, mostTime)
		case <-ctx.Done():
			group.Wait()
			return
		}
	}
}

// listen takes the events of a carrier that tells them over a connection of its own, those of
// each leg in order. One instance at a time does.
func (c *Controller) listen(ctx context.Context, name string, a Account) {
	if !a.TellsItself() {
		return
	}
	c.cfg.Cluster.Hold(ctx, "events:"+name, func(ctx context.Context) {
		for ctx.Err() == nil {
			err := a.Listen(ctx, func(_ context.Context, ev *providers.CallEvent) {
				told := *ev // its owner may use it again
				c.InOrder("event:"+name+":"+ev.Leg, func(ctx context.Context) {
					if err := c.heard(ctx, name, &told); err != nil {
						c.cfg.Log.Warn("call event", "account", name, "event", told.Kind, "call", told.Leg, "err", err)
					}
				})
			})
			if ctx.Err() != nil {
				return
			}
			c.cfg.Log.Error("the carrier's events are not heard", "account", name, "err", err)
			select {
			case <-time.After(listenAgain):
			case <-ctx.Done():
			}
		}
	})
}

// listenAgain is after what time a carrier's events are listened to again that it refuses.
const listenAgain = 10 * time.Second

// How often an event is tried again that nobody tells a second time, and after what time,
// which doubles up to a second.
const (
	heardTries = 12
	heardPause = 100 * time.Millisecond
)

// heard handles an event of a carrier that tells each of them once.
func (c *Controller) heard(ctx context.Context, account string, ev *providers.CallEvent) error {
	for try := 0; ; try++ {
		_, err := c.Handle(ctx, account, ev)
		if err == nil || final(err) || try == heardTries {
			return err
		}
		select {
		case <-time.After(min(heardPause<<try, time.Second)):
		case <-ctx.Done():
			return err
		}
	}
}

// Refuse begins to stop: no more calls are taken, and agents that wait for one are
// sent away: they may wait elsewhere.
func (c *Controller) Refuse() {
	c.draining.Store(true)
	for _, a := range c.Agents() {
		closeAgent(a)
	}
}

// closeAgent sends those away that wait for a call.
func closeAgent(a Agent) {
	if closer, ok := a.Dialer.(io.Closer); ok {
		_ = closer.Close() // it cannot fail
	}
}

// End ends the sessions that are left, and returns once nothing is under way.
func (c *Controller) End() {
	c.gate.Lock()
	c.closed = true
	c.gate.Unlock()
	c.cancel(&calls.End{Cause: calls.Shutdown})
	c.running.Wait()
	for _, a := range slices.AppendSeq(c.former, maps.Values(c.Agents())) {
		if j, ok := a.Dialer.(interface{ Join() }); ok {
			j.Join()
		}
	}
	c.Work.Stop()
}

// Stopped is closed when the sessions are being ended.
func (c *Controller) Stopped() <-chan struct{} { return c.ctx.Done() }
