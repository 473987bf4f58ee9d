// Package transfers moves calls to somebody else. It checks who may be moved where,
// does at the carrier what the state machine of package transfer wants done, and takes
// what carriers say about the legs.
package transfers

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"voicebridge/agent"
	"voicebridge/calls"
	"voicebridge/control"
	"voicebridge/transfer"
	"voicebridge/wav"
)

// Config says where calls may be moved to, and how.
type Config struct {
	// Store keeps the transfers; instances that share it take each other's over.
	Store transfer.Store
	// Manager has the times, and the name of this instance.
	Manager transfer.Config
	// Destinations are those that have a name.
	Destinations map[string]Destination
	// Allow are the numbers that may be called: E.164, with a * at the end all that
	// begin so. Those of Destinations may be called anyway.
	Allow []string
	// Ring is how long a destination may ring, unless the request says otherwise.
	Ring time.Duration
	// ShowCaller has destinations see the caller's number, not the bridge's own.
	ShowCaller bool
	// Hold is what a caller hears meanwhile, HoldAgent or HoldMusic, unless the
	// request says otherwise; Music is that of HoldMusic; nil: a chime.
	Hold  string
	Music *wav.Music
	// Limits bound how often.
	Limits Limits
}

// Destination is where calls may be moved to.
type Destination struct {
	To     string // E.164
	Digits string // sent when it answers: an extension
}

// What a caller hears until it is moved.
const (
	HoldAgent = "agent" // its agent
	HoldMusic = "music"
)

// DefaultRing is how long a destination may ring.
const DefaultRing = 30 * time.Second

// Transfers are those that this instance has to do with.
type Transfers struct {
	cfg     Config
	control *control.Controller
	manager *transfer.Manager
	states  *prometheus.CounterVec
	log     *slog.Logger

	tries tries
	begun chan *entry // live transfers of calls whose session is here, to be followed

	mu     sync.Mutex
	byCall map[string]*entry // of calls whose session is here
}

// New makes the transfers of a controller, which uses them from then on.
func New(c *control.Controller, cfg Config, log *slog.Logger) *Transfers {
	if cfg.Music == nil {
		cfg.Music = wav.Chime()
	}
	t := &Transfers{
		cfg: cfg, control: c, log: log, byCall: map[string]*entry{}, begun: make(chan *entry, 1024),
		states: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "voicebridge_transfers_total",
			Help: "Transfers that have come to a state, told by the instance that acts for them.",
		}, []string{"provider", "state"}),
	}
	t.manager = transfer.NewManager(cfg.Store, carrier{t}, cfg.Manager, log)
	c.UseTransfers(t)
	c.OnRemote("change", func(_ context.Context, _ string, body json.RawMessage) (any, error) {
		var ch change
		if err := json.Unmarshal(body, &ch); err != nil {
			return nil, err
		}
		t.changed(ch)
		return nil, nil
	})
	return t
}

// Music is what callers hear who wait.
func (t *Transfers) Music() *wav.Music { return t.cfg.Music }

// Run moves transfers on until ctx ends.
func (t *Transfers) Run(ctx context.Context) {
	var group sync.WaitGroup
	group.Go(func() {
		for {
			select {
			case e := <-t.begun:
				group.Go(func() { t.follow(ctx, e) })
			case <-ctx.Done():
				return
			}
		}
	})
	t.manager.Run(ctx)
	group.Wait()
}

// followEvery is how often the transfer of a call is looked at whose session is here. Its
// owner tells of changes at once; this is for what that could not tell.
const followEvery = 5 * time.Second

// follow looks how a transfer is, until it is over or the call's session is. Whoever owns
// it then, wherever that is: the agent hears of the end.
func (t *Transfers) follow(ctx context.Context, e *entry) {
	sess := t.control.Session(e.call)
	if sess == nil {
		return
	}
	every := time.NewTicker(followEvery)
	defer every.Stop()
	for {
		select {
		case <-every.C:
		case <-sess.Done():
			return
		case <-ctx.Done():
			return
		}
		r, err := t.manager.Get(ctx, e.id)
		switch {
		case errors.Is(err, transfer.ErrNotFound): // it has been over for long
			r = &transfer.Record{ID: e.id, Version: 1 << 62, State: transfer.Failed, Reason: transfer.ReasonLost,
				Request: transfer.Request{Call: e.call}}
		case err != nil:
			continue
		}
		if r.State != transfer.Compensating {
			t.changed(changeOf(r, r.Version, r.State, r.Reason, true))
		}
		if r.State.Final() {
			return
		}
	}
}

// changeOf is how a transfer is.
func changeOf(r *transfer.Record, version int64, state transfer.State, reason string, move bool) change {
	return change{Version: version, Call: r.Call, Ref: r.Ref, Hold: r.Hold, Move: move, Final: state.Final(),
		Info: calls.Transfer{ID: r.ID, Mode: string(r.Mode), To: destination(r), State: string(state), Reason: reason}}
}

// takeBack is how long it may take to cancel transfers when the bridge stops.
const takeBack = 5 * time.Second

// Finish waits, until ctx ends, for the transfers that this instance acts for. Then the
// rest are another instance's; one alone takes them back.
func (t *Transfers) Finish(ctx context.Context) {
	if t.manager.WaitSettled(ctx) == nil || t.control.Cluster() != nil {
		return
	}
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), takeBack)
	defer stop()
	for _, id := range t.manager.Unsettled() {
		if _, _, err := t.manager.Cancel(ctx, id, transfer.ReasonShutdown); err != nil {
			t.log.Error("transfer is not canceled", "transfer", id, "err", err)
		}
	}
	if err := t.manager.WaitSettled(ctx); err != nil {
		t.log.Error("transfers are left behind", "transfers", t.manager.Unsettled(), "err", err)
	}
}

var ownedDesc = prometheus.NewDesc("voicebridge_transfers", "Live transfers that this instance acts for.", nil, nil)

// Describe implements prometheus.Collector.
func (t *Transfers) Describe(ch chan<- *prometheus.Desc) {
	t.states.Describe(ch)
	ch <- ownedDesc
}

// Collect implements prometheus.Collector.
func (t *Transfers) Collect(ch chan<- prometheus.Metric) {
	t.states.Collect(ch)
	ch <- prometheus.MustNewConstMetric(ownedDesc, prometheus.GaugeValue, float64(t.manager.Owned()))
}

// Info is a transfer as the API tells it.
type Info struct {
	Account   string            `json:"-"`
	ID        string            `json:"id"`
	Call      string            `json:"call"`
	Mode      string            `json:"mode"`
	To        string            `json:"to"`
	State     string            `json:"state"`
	Reason    string            `json:"reason,omitempty"`
	Detail    string            `json:"detail,omitempty"`
	Context   map[string]string `json:"context,omitempty"`
	CreatedAt time.Time         `json:"created_at"`
	UpdatedAt time.Time         `json:"updated_at"`
}

func infoOf(r *transfer.Record) Info {
	return Info{Account: r.Account, ID: r.ID, Call: r.Call, Mode: string(r.Mode), To: destination(r),
		State:  string(r.State),
		Reason: r.Reason, Detail: r.Detail,
		Context: r.Context, CreatedAt: time.UnixMilli(r.Created).UTC(), UpdatedAt: time.UnixMilli(r.Updated).UTC()}
}

// destination is the name of where a call is moved to, or the number.
func destination(r *transfer.Record) string {
	if r.Name != "" {
		return "name:" + r.Name
	}
	return r.To
}

// Modes implements control.Transfers.
func (t *Transfers) Modes() []string {
	var modes []string
	for _, m := range transfer.Modes {
		modes = append(modes, string(m))
	}
	return modes
}

// entry is the last transfer of a call, as it is known here.
type entry struct {
	call     string
	id       string
	version  int64
	live     bool
	requests int           // of the agent that are being looked at
	changed  chan struct{} // closed when one of these changes, and made anew
}

func (e *entry) tell() {
	close(e.changed)
	e.changed = make(chan struct{})
}

func (t *Transfers) entry(call string) *entry {
	e := t.byCall[call]
	if e == nil {
		e = &entry{call: call, changed: make(chan struct{})}
		t.byCall[call] = e
	}
	return e
}

// request notes, before all else, that the agent wants a transfer: a call that it
// leaves now is not over. done takes that back.
func (t *Transfers) request(call string) (done func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.entry(call)
	e.requests++
	return func() {
		t.mu.Lock()
		e.requests--
		e.tell()
		t.mu.Unlock()
		if t.control.Session(call) == nil {
			t.Forget(call)
		}
	}
}

// note keeps how a transfer is. It is false for what is older than what is known.
func (t *Transfers) note(c *change) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.entry(c.Call)
	if e.id == c.Info.ID && c.Version <= e.version {
		return false
	}
	if e.id != c.Info.ID && !c.Final {
		one := &entry{call: c.Call, id: c.Info.ID}
		select {
		case t.begun <- one:
		default: // so many begin that their owners' word must do
		}
	}
	e.id, e.version, e.live = c.Info.ID, c.Version, !c.Final
	e.tell()
	return true
}

// Forget implements control.Transfers.
func (t *Transfers) Forget(call string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.byCall[call]; e != nil && !e.live && e.requests == 0 {
		delete(t.byCall, call)
	}
}

// of returns the live transfer of a call, as far as it is known here, and whether there
// is one or soon may be; changed is closed when that changes.
func (t *Transfers) of(call string) (id string, has bool, changed <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.byCall[call]
	switch {
	case e == nil:
		return "", false, nil
	case e.live:
		return e.id, true, e.changed
	}
	return "", e.requests > 0, e.changed
}

// Has implements control.Transfers.
func (t *Transfers) Has(call string) bool {
	_, has, _ := t.of(call)
	return has
}

// decided waits until what the agent of a call wants is a transfer, or refused. It
// reports whether it wanted anything.
func (t *Transfers) decided(ctx context.Context, call string) (wanted bool) {
	for {
		id, has, changed := t.of(call)
		if id != "" || !has {
			return wanted || has
		}
		wanted = true
		select {
		case <-changed:
		case <-ctx.Done():
			return wanted
		}
	}
}

// change tells the instance that has the call's session how its transfer is.
type change struct {
	Version         int64
	Call, Ref, Hold string
	Move, Final     bool
	Info            calls.Transfer
}

// Changed implements transfer.Carrier.
func (c carrier) Changed(r *transfer.Record, e transfer.Entry) {
	move := e.Move() && e.State != transfer.Compensating
	ch := changeOf(r, e.Version, e.State, e.Reason, move)
	if move {
		c.log.Info("transfer", "transfer", r.ID, "session", r.Call, "state", e.State, "reason", e.Reason, "detail",
			r.Detail)
		c.control.Calls().Transferred(r.Call, ch.Info)
		c.states.WithLabelValues(r.Provider, string(e.State)).Inc()
	}
	if c.control.Session(r.Call) == nil {
		c.tellOther(ch)
	}
	c.changed(ch) // what is known here is kept, too
}

// tellOther tells the instance that has the session of a call, if there is one, how its
// transfer is.
func (t *Transfers) tellOther(ch change) {
	if t.control.Cluster() == nil {
		return
	}
	t.control.InOrder("change:"+ch.Info.ID, func(ctx context.Context) {
		tries := 0
		err := again(ctx, func() error {
			where, err := t.control.SessionElsewhere(ctx, ch.Call)
			if err == nil && where != "" {
				err = t.control.Cluster().Ask(ctx, where, "change", ch, nil)
			}
			if tries++; tries == tellTries && err != nil {
				t.log.Warn("the instance that has the call is not told of its transfer", "transfer", ch.Info.ID, "err",
					err)
				return nil
			}
			return err
		})
		if err != nil {
			t.log.Debug("a change is not told", "transfer", ch.Info.ID, "err", err) // the program ends
		}
	})
}

// tellTries is how often another instance is told of a change, a second apart.
const tellTries = 3

// changed tells the agent how a transfer of its call is, and holds the call
// meanwhile.
func (t *Transfers) changed(ch change) {
	if !t.note(&ch) {
		return
	}
	sess := t.control.Session(ch.Call)
	if sess == nil {
		t.Forget(ch.Call)
		return
	}
	if ch.Move {
		sess.TransferStatus(ch.Ref, agent.TransferStatus{ID: ch.Info.ID, State: ch.Info.State,
			Reason: ch.Info.Reason})
	}
	switch {
	case ch.Final, ch.Info.State == string(transfer.Bridged):
		sess.Hold(nil)
	case ch.Move && ch.Info.State == string(transfer.Dialing) && ch.Hold == HoldMusic:
		sess.Hold(t.cfg.Music.In)
	}
}

// again does something each second until it is done or ctx ends.
func again(ctx context.Context, do func() error) (err error) {
	for err = do(); err != nil && ctx.Err() == nil; err = do() {
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
	return err
}

// legID is our id of the destination's leg with a prefix.
func legID(prefix string, r *transfer.Record) string { return prefix + strings.TrimPrefix(r.ID, "tr_") }
