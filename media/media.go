// Package media is everything that listens: the WebSocket server to which
// carriers stream calls, health checks and metrics.
package media

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"voicebridge/calls"
	"voicebridge/cluster"
	"voicebridge/notify"
	"voicebridge/providers"
	"voicebridge/session"
	"voicebridge/transfer"
	"voicebridge/ws"
)

// Limits of the server. Every field must be set; Defaults has the usual ones.
type Limits struct {
	Calls      int           // live at the same time
	Handshakes float64       // a second
	Header     int           // bytes of a request's header
	Handshake  time.Duration // for a request to come in whole
	Message    int64         // bytes of a carrier's message
	Idle       time.Duration // until the carrier's next message
	Write      time.Duration // for a message to be taken by the carrier
	Drain      time.Duration // for live calls to end when the server stops
}

// Defaults are limits for a small machine.
var Defaults = Limits{
	Calls:      1000,
	Handshakes: 100,
	Header:     16 << 10,
	Handshake:  5 * time.Second,
	Message:    64 << 10,
	Idle:       60 * time.Second,
	Write:      5 * time.Second,
	Drain:      60 * time.Second,
}

// Agent is who answers a call, and how the call is carried.
type Agent struct {
	Dialer  session.Dialer
	Session session.Config
	// Fallback is what is done with a call whose agent cannot be reached, or
	// fails.
	Fallback Fallback
}

// Fallback is what a caller gets instead of an agent: words, then another number.
// Both may be empty.
type Fallback struct {
	Say, Dial string
}

// Config of a Server.
type Config struct {
	Providers []*providers.Spec
	// Agents answer the calls, by name; the one named "" those that no route
	// names one for.
	Agents map[string]Agent
	// Route chooses what is done with an inbound call. False means that nobody
	// answers there. nil chooses the agent "".
	Route func(account, from, to string) (Route, bool)
	// Router, if not nil, is asked instead; Route decides where it does not answer.
	Router *notify.Target
	// Events, if not nil, is told what becomes of calls.
	Events *notify.Target
	// Tokens open the control API; without any it is not there.
	Tokens []APIToken
	// Insecure lets everyone in. Otherwise a token must follow the provider's name
	// in the path, /media/twilio/TOKEN: Token, if it is not empty, or one that an
	// answer to an inbound call has given out.
	Insecure bool
	Token    string
	// Accounts are those whose webhooks are answered, by name.
	Accounts map[string]Account
	// Transfers, if not nil, lets calls be moved.
	Transfers *Transfers
	// Cluster, if not nil, are the other instances.
	Cluster *cluster.Cluster
	// PublicURL is how carriers reach Public: https://host, perhaps with a path.
	PublicURL string
	// InstanceURL is how carriers reach this very instance, where there are several;
	// empty: they cannot.
	InstanceURL string
	// Secret makes the tokens; instances that share it take each other's.
	Secret string
	// Loops is how many event loops serve the connections of calls; 0, or where the
	// system has none: goroutines of their own do.
	Loops  int
	Limits Limits
	Log    *slog.Logger
}

// Server takes the carriers' connections.
type Server struct {
	cfg        Config
	handshakes *rate.Limiter
	complaints *rate.Limiter // of refused requests, in the log
	tokens     *tokens
	registry   session.Registry
	book       *calls.Book
	turn       atomic.Uint64 // of the numbers of accounts, as caller ids
	refused    refusedHooks
	answers    answers
	strangers  *rate.Limiter // of those who show wrong tokens
	totals     totals
	transfers  *transfers     // nil: none
	moves      sync.Map       // calls that the carrier is being asked to take elsewhere, with a channel that is closed then
	background sync.WaitGroup // REST requests and the like, bounded by time

	loops    []*ws.Loop      // while Serve runs
	ctx      context.Context // of all sessions
	cancel   context.CancelCauseFunc
	draining atomic.Bool

	gate     sync.Mutex // no session is added to the group once it is waited for
	closed   bool
	stopped  bool // nothing begins in the background any more
	sessions sync.WaitGroup
}

// New makes a server; it listens nowhere yet.
func New(cfg Config) *Server {
	s := &Server{
		cfg:        cfg,
		handshakes: rate.NewLimiter(rate.Limit(cfg.Limits.Handshakes), max(1, int(cfg.Limits.Handshakes))),
		complaints: rate.NewLimiter(1, 1),
		tokens:     newTokens(cfg.Secret),
		book:       calls.New(time.Now),
		strangers:  rate.NewLimiter(10, 20),
	}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	s.totals.init(cfg.Providers)
	if t := cfg.Transfers; t != nil {
		music, rate := t.Music, t.MusicRate
		if music == nil {
			music, rate = chime(16000), 16000
		}
		s.transfers = &transfers{
			manager: transfer.NewManager(t.Store, hands{s}, t.Manager, cfg.Log),
			hold:    holdAudio{pcm: music, rate: rate}, byCall: map[string]*noted{}, queues: map[string][]transferChange{},
		}
	}
	return s
}

// Registry holds the live sessions.
func (s *Server) Registry() *session.Registry { return &s.registry }

// Public is what carriers, agents and the users of the API may reach.
func (s *Server) Public() http.Handler {
	mux := http.NewServeMux()
	for pattern, h := range s.doors() {
		mux.HandleFunc(pattern, h)
	}
	return mux
}

// doors are all that is public, by pattern; docs/configuration.md lists each.
func (s *Server) doors() map[string]http.HandlerFunc {
	doors := map[string]http.HandlerFunc{
		"GET /media/{provider}":                                          s.media,
		"GET /media/{provider}/{token...}":                               s.media,
		"/hooks/{provider}/{account}/inbound":                            s.authentic(s.inbound),
		"/hooks/{provider}/{account}/status":                             s.authentic(s.status),
		"/hooks/{provider}/{account}/status/{call}":                      s.authentic(s.status),
		"/hooks/{provider}/{account}/answer/{token}":                     s.authentic(s.placedAnswer),
		"/hooks/{provider}/{account}/next/{token}":                       s.authentic(s.next),
		"/hooks/{provider}/{account}/transfer/{transfer}/{nonce}/{what}": s.authentic(s.transferHooks),
		"GET /hold.wav":              s.holdWAV,
		"GET /v1/calls/{call}/agent": s.attend,
		"GET /v1/pools/{pool}/agent": s.park,
	}
	s.health(doors)
	s.api(doors)
	return doors
}

// health answers on both listeners.
func (s *Server) health(doors map[string]http.HandlerFunc) {
	doors["GET /healthz"] = func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") }
	doors["GET /readyz"] = func(w http.ResponseWriter, _ *http.Request) {
		if s.draining.Load() {
			http.Error(w, "draining", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
	}
}

// refusal is a handshake that is not let through, as the carrier and the metric
// see it.
type refusal struct {
	status int
	reason string
}

func (s *Server) media(w http.ResponseWriter, r *http.Request) {
	spec, tk, no := s.admit(r)
	if no != nil {
		if no.status == http.StatusForbidden && !s.strangers.Allow() {
			no = &refusal{http.StatusTooManyRequests, "strangers"}
		}
		s.totals.refuse(no.reason)
		if s.complaints.Allow() { // without the path, which may hold a token
			s.cfg.Log.Warn("media connection refused", "provider", r.PathValue("provider"), "reason", no.reason, "remote", r.RemoteAddr)
		}
		if no.status == http.StatusTooManyRequests || no.status == http.StatusServiceUnavailable {
			w.Header().Set("Retry-After", "1")
		}
		http.Error(w, no.reason, no.status)
		return
	}
	conn, err := ws.Accept(w, r, "", ws.Limits{
		Text: s.cfg.Limits.Message, Binary: s.cfg.Limits.Message,
		Idle: s.cfg.Limits.Idle, Write: s.cfg.Limits.Write,
	})
	if err != nil { // answered by Accept
		s.totals.refuse("handshake")
		s.cfg.Log.Debug("media connection refused", "provider", spec.Name, "remote", r.RemoteAddr, "err", err)
		return
	}
	s.serve(spec, conn, tk) // its goroutine is its own: that of the request holds more
}

// admit decides on a handshake. The ticket is nil where the token tells nothing.
func (s *Server) admit(r *http.Request) (*providers.Spec, *ticket, *refusal) {
	var spec *providers.Spec
	for _, p := range s.cfg.Providers {
		if p.Name == r.PathValue("provider") {
			spec = p
		}
	}
	if spec == nil {
		return nil, nil, &refusal{http.StatusNotFound, "provider"}
	}
	var tk *ticket // strangers are turned away first: they learn nothing, and use up nothing
	if token := r.PathValue("token"); !s.cfg.Insecure && !s.isToken(token) {
		var err error
		if tk, err = s.tokens.read(token, useMedia, spec.Name, time.Now()); err != nil {
			s.cfg.Log.Debug("token refused", "provider", spec.Name, "err", err)
			return nil, nil, &refusal{http.StatusForbidden, "token"}
		}
		if !s.signed(r, tk) {
			return nil, nil, &refusal{http.StatusForbidden, "signature"}
		}
	}
	switch {
	case s.draining.Load():
		return nil, nil, &refusal{http.StatusServiceUnavailable, "draining"}
	case s.registry.Len() >= s.cfg.Limits.Calls:
		return nil, nil, &refusal{http.StatusServiceUnavailable, "calls"}
	case !s.handshakes.Allow():
		return nil, nil, &refusal{http.StatusTooManyRequests, "rate"}
	case s.agent(tk).Dialer == nil: // the token is of an instance with other agents
		return nil, nil, &refusal{http.StatusServiceUnavailable, "agent"}
	case tk != nil && !(s.tokens.take(tk, time.Now()) && s.cfg.Cluster.First(tk.nonceText(), time.Unix(tk.Expires, 0))):
		return nil, nil, &refusal{http.StatusForbidden, "token"}
	}
	return spec, tk, nil
}

// agent is who answers a call with this ticket, or with none.
func (s *Server) agent(tk *ticket) Agent {
	switch {
	case tk == nil:
		return s.cfg.Agents[""]
	case tk.Party != "":
		main := s.session(tk.Party)
		if main == nil { // it has ended, or is another instance's
			return Agent{}
		}
		return Agent{Dialer: &partyLine{main.NewParty(tk.Listen), s, tk.Transfer}, Session: session.Defaults}
	}
	return s.cfg.Agents[tk.Agent]
}

// isToken tells whether token is the one of the configuration.
func (s *Server) isToken(token string) bool {
	// Hashes have one length, whatever was sent.
	a, b := sha256.Sum256([]byte(token)), sha256.Sum256([]byte(s.cfg.Token))
	return s.cfg.Token != "" && subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// signed tells whether the carrier has signed the handshake of a call's stream, as
// it does for calls of the account's webhooks.
func (s *Server) signed(r *http.Request, tk *ticket) bool {
	account, known := s.cfg.Accounts[tk.Account]
	if !known || account.UnsignedMedia {
		return known
	}
	h := &providers.Hook{Method: r.Method, Host: r.Host, Header: r.Header, URL: s.socketURL(r.RequestURI)}
	if tk.Own {
		h.URL = socketURL(s.cfg.InstanceURL, r.RequestURI)
	}
	err := account.Webhooks.Authenticate(h, time.Now())
	if err != nil {
		s.refused.add(tk.Account, h, err)
		s.cfg.Log.Debug("handshake refused", "account", tk.Account, "err", err)
	}
	return err == nil
}

// hookURL is the public URL of a path.
func (s *Server) hookURL(path string) string { return strings.TrimSuffix(s.cfg.PublicURL, "/") + path }

// socketURL is the public URL of a path for WebSockets: https becomes wss.
func (s *Server) socketURL(path string) string { return socketURL(s.cfg.PublicURL, path) }

func socketURL(base, path string) string {
	return "ws" + strings.TrimPrefix(strings.TrimSuffix(base, "/"), "http") + path
}

// serve begins to carry a call.
func (s *Server) serve(spec *providers.Spec, conn *ws.Conn, tk *ticket) {
	agent, id := s.agent(tk), calls.NewID()
	if tk != nil {
		id = tk.ID
	}
	sess := session.New(id, spec, agent.Session, conn, agent.Dialer, s.cfg.Log)
	record := s.prepare(sess, tk)
	if before := s.session(id); before != nil { // the carrier has left its stream alone, and begun a new one
		before.StreamOver()
		<-before.Done()
	}
	if !s.enter(sess) { // the last place went to another, the call is here already, or the server stops
		s.totals.refuse("calls")
		conn.Close(ws.CloseTryLater, "too many calls")
		conn.Release()
		return
	}
	s.book.Add(record)
	s.cfg.Cluster.Has(sessionKey(id), "")
	s.book.Answered(id)                 // there is a stream
	if call, ok := s.book.Get(id); ok { // what was reported before the session could be told
		if call.Answered != "" {
			sess.AnsweredBy(call.Answered)
		}
		if call.Status.Final() {
			sess.Over()
		}
	}
	sess.In(s.loop())
	go func() {
		defer s.sessions.Done()
		end := sess.Run(s.ctx)
		s.leave(sess, end.Cause)
	}()
}

// fullLoop is how many connections a loop gets before the next one is used: the more
// it has, the less each costs, as long as it is far from busy.
const fullLoop = 512

// loop is the event loop for another call; nil: there is none.
func (s *Server) loop() *ws.Loop {
	var least *ws.Loop
	few := 0
	for _, l := range s.loops {
		n := l.Len()
		if n < fullLoop {
			return l
		}
		if least == nil || n < few {
			least, few = l, n
		}
	}
	return least
}

func (s *Server) enter(sess *session.Session) bool {
	s.gate.Lock()
	defer s.gate.Unlock()
	if s.closed || !s.registry.Add(sess, s.cfg.Limits.Calls) {
		return false
	}
	s.sessions.Add(1)
	return true
}

// leave moves a session's numbers to the totals in one step.
func (s *Server) leave(sess *session.Session, cause session.Cause) {
	s.totals.mu.Lock()
	defer s.totals.mu.Unlock()
	s.totals.ended(sess, cause)
	s.registry.Remove(sess)
}

// Serve answers on the listeners until ctx ends, then drains: new calls are
// refused, live ones may end by themselves within Limits.Drain, and the rest are
// ended. admin may be nil.
func (s *Server) Serve(ctx context.Context, public, admin net.Listener) error {
	servers := []*http.Server{s.http(s.Public())}
	listeners := []net.Listener{public}
	if admin != nil {
		servers = append(servers, s.http(s.Admin()))
		listeners = append(listeners, admin)
	}
	stopLoops, err := s.startLoops()
	if err != nil {
		return err
	}
	defer stopLoops()
	failed := make(chan error, len(servers))
	var group sync.WaitGroup
	for i, srv := range servers {
		group.Go(func() {
			if err := srv.Serve(listeners[i]); !errors.Is(err, http.ErrServerClosed) {
				failed <- fmt.Errorf("media: serve %s: %w", listeners[i].Addr(), err)
			}
		})
	}
	stopWorking := s.work(&group)
	stopTelling := s.tell(&group)
	stopSweeping := s.sweep(&group)
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	s.drain()
	stopWorking()
	stopTelling()
	stopSweeping()
	for _, srv := range servers {
		srv.Close()
	}
	group.Wait()
	return err
}

// startLoops starts the event loops, before any call comes.
func (s *Server) startLoops() (stop func(), err error) {
	stop = func() {
		for _, l := range s.loops {
			l.Close()
		}
	}
	for range s.cfg.Loops {
		l, err := ws.NewLoop()
		if errors.Is(err, errors.ErrUnsupported) {
			s.cfg.Log.Info("no event loops here: each connection has a goroutine")
			break
		}
		if err != nil {
			stop()
			return nil, fmt.Errorf("media: %w", err)
		}
		s.loops = append(s.loops, l)
	}
	return stop, nil
}

// finishTransfers waits for the transfers that this instance acts for, up to the
// limit. Then the rest are another instance's; one alone takes them back.
func (s *Server) finishTransfers(limit *time.Timer) {
	if s.transfers == nil {
		return
	}
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for canceled := false; len(s.transfers.manager.Unsettled()) > 0; {
		select {
		case <-look.C:
		case <-limit.C:
			if s.cfg.Cluster != nil || canceled {
				return
			}
			canceled = true
			for _, id := range s.transfers.manager.Unsettled() {
				if _, _, err := s.transfers.manager.Cancel(context.Background(), id, transfer.ReasonShutdown); err != nil {
					s.cfg.Log.Error("transfer is not canceled", "transfer", id, "err", err)
				}
			}
			limit.Reset(takeBack)
		}
	}
}

// takeBack is how long it may take to cancel transfers when the bridge stops.
const takeBack = 5 * time.Second

// work moves transfers on, and listens to the other instances, until it is stopped.
func (s *Server) work(group *sync.WaitGroup) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var working sync.WaitGroup
	if s.transfers != nil {
		working.Go(func() { s.transfers.manager.Run(ctx) })
	}
	if s.cfg.Cluster != nil {
		feed, _ := s.book.Listen("")
		working.Go(func() { s.cfg.Cluster.Run(ctx, s.handle) })
		working.Go(func() { s.follow(ctx, feed) })
	}
	group.Go(working.Wait)
	return func() {
		cancel()
		working.Wait()
	}
}

// drain waits for the live calls; the listeners stay open, so that health checks
// and metrics are answered and new calls are refused in good order.
func (s *Server) drain() {
	s.draining.Store(true)
	if n := s.registry.Len(); n > 0 {
		s.cfg.Log.Info("draining", "calls", n, "limit", s.cfg.Limits.Drain)
	}
	for _, a := range s.cfg.Agents {
		if c, ok := a.Dialer.(io.Closer); ok {
			_ = c.Close() // agents that wait may wait elsewhere; it cannot fail
		}
	}
	limit := time.NewTimer(s.cfg.Limits.Drain)
	defer limit.Stop()
	select {
	case <-s.registry.Empty():
	case <-limit.C:
		s.cfg.Log.Warn("ending the calls that are left", "calls", s.registry.Len())
		limit.Reset(0)
	}
	s.finishTransfers(limit)
	s.gate.Lock()
	s.closed = true
	s.gate.Unlock()
	s.cancel(&session.End{Cause: session.Shutdown})
	s.sessions.Wait()
	for _, a := range s.cfg.Agents {
		if j, ok := a.Dialer.(interface{ Join() }); ok {
			j.Join()
		}
	}
	s.gate.Lock()
	s.stopped = true
	s.gate.Unlock()
	s.background.Wait()
}

func (s *Server) http(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: s.cfg.Limits.Handshake,
		ReadTimeout:       2 * s.cfg.Limits.Handshake,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       30 * time.Second,
		MaxHeaderBytes:    s.cfg.Limits.Header,
		ErrorLog:          slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
	}
}
