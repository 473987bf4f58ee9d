// Package media is the WebSocket server to which carriers stream calls: it decides who
// may connect, and hands connections to control as sessions' media.
package media

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"voicebridge/control"
	"voicebridge/hooks/gate"
	"voicebridge/providers"
	"voicebridge/ws"
)

// Limits of the server. Every field must be set; Defaults has the usual ones.
type Limits struct {
	Handshakes float64       // a second
	Message    int64         // bytes of a carrier's message
	Idle       time.Duration // until the carrier's next message, or sign of life
	Write      time.Duration // for a message to be taken by the carrier
}

// Defaults are limits for a small machine.
var Defaults = Limits{Handshakes: 100, Message: 64 << 10, Idle: 60 * time.Second, Write: 5 * time.Second}

// Config of a Server.
type Config struct {
	Providers []*providers.Spec
	Control   *control.Controller
	Gate      *gate.Gate
	// Insecure lets everyone in. Otherwise a token must follow the provider's name
	// in the path, /media/twilio/TOKEN: Token, if it is not empty, or one that an
	// answer to a call has given out.
	Insecure bool
	Token    string
	// Loops is how many event loops serve the connections of calls; 0, or where the
	// system has none: goroutines of their own do.
	Loops  int
	Limits Limits
	Log    *slog.Logger
}

// Server takes the carriers' connections.
type Server struct {
	cfg        Config
	specs      map[string]*providers.Spec
	handshakes *rate.Limiter
	refused    *prometheus.CounterVec
	loops      []*ws.Loop // while the server runs
}

// reasons are those for which a handshake is refused.
var reasons = []string{"provider", "draining", "rate", "token", "signature", "strangers", "calls", "agent", "upgrade",
	"handshake"}

// New makes a server.
func New(cfg Config) *Server {
	s := &Server{
		cfg: cfg, specs: map[string]*providers.Spec{},
		handshakes: rate.NewLimiter(rate.Limit(cfg.Limits.Handshakes), max(1, int(cfg.Limits.Handshakes))),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "voicebridge_handshakes_refused_total", Help: "Media connections that were not let in, by reason.",
		}, []string{"reason"}),
	}
	for _, p := range cfg.Providers {
		s.specs[p.Name] = p
	}
	for _, r := range reasons {
		s.refused.WithLabelValues(r)
	}
	return s
}

var (
	lagDesc = prometheus.NewDesc("voicebridge_event_loop_lag_seconds",
		"How late an event loop came to what waited for it, at most, in the last 5 to 10 seconds.", []string{"loop"},
		nil)
	loadDesc = prometheus.NewDesc("voicebridge_event_loop_load",
		"How busy an event loop is: 1 is all the time.", []string{"loop"}, nil)
)

// Describe implements prometheus.Collector.
func (s *Server) Describe(ch chan<- *prometheus.Desc) {
	s.refused.Describe(ch)
	ch <- lagDesc
	ch <- loadDesc
}

// Collect implements prometheus.Collector.
func (s *Server) Collect(ch chan<- prometheus.Metric) {
	s.refused.Collect(ch)
	for i, l := range s.loops {
		name := strconv.Itoa(i)
		ch <- prometheus.MustNewConstMetric(lagDesc, prometheus.GaugeValue, l.Lag().Seconds(), name)
		ch <- prometheus.MustNewConstMetric(loadDesc, prometheus.GaugeValue, l.Load(), name)
	}
}

// Doors are what the server answers, by pattern.
func (s *Server) Doors() map[string]http.HandlerFunc {
	return map[string]http.HandlerFunc{
		"GET /media/{provider}":                  s.connect,
		"GET /media/{provider}/{token...}":       s.connect,
		"GET /media/{provider}/events/{account}": s.events,
	}
}

// Start starts the event loops, before any call comes. stop ends them.
func (s *Server) Start() (stop func(), err error) {
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

// connect takes a carrier's connection, or refuses it.
func (s *Server) connect(w http.ResponseWriter, r *http.Request) {
	ad, no := s.admit(r)
	if no != nil {
		s.refuse(w, r, no)
		return
	}
	c, err := ws.Accept(w, r, ad.Spec.Subprotocols(), ws.Limits{
		Text: s.cfg.Limits.Message, Binary: s.cfg.Limits.Message,
		// A caller who is muted, or silent, is still there.
		Idle: s.cfg.Limits.Idle, Signs: true, Write: s.cfg.Limits.Write,
		AnyOrigin: !s.cfg.Insecure, // some WebSocket libraries send one, and no web page has a token
	})
	if err != nil { // answered by Accept
		s.refused.WithLabelValues("handshake").Inc()
		s.complain(r, ad, "handshake", err, "The handshake is not that of a WebSocket (RFC 6455): it is not the "+
			"carrier's, or something in between has changed it.")
		return
	}
	loop := s.loop()
	if !s.cfg.Control.Begin(ws.WithLoop(context.Background(), loop), ad, newConn(c, loop)) {
		s.refused.WithLabelValues("calls").Inc()
		c.Close(ws.CloseTryLater, "too many calls")
		c.Release()
	}
}

// errUpgrade is the error of a handshake that is none.
var errUpgrade = errors.New("no Upgrade: websocket in the request")

// noUpgrade is what to do about handshakes that come without what makes them ones.
const noUpgrade = "The request does not ask for a WebSocket: a proxy has removed Upgrade and Connection. Have it " +
	"pass them on, as examples/nginx.conf does for /media/, with HTTP/1.1."

// complain tells an operator of a handshake of a call that has failed, and of the mend.
func (s *Server) complain(r *http.Request, ad *control.Admission, reason string, err error, mend string) {
	if tk := ad.Ticket; tk != nil {
		h := &providers.Hook{Method: r.Method, Host: r.Host, Header: r.Header,
			URL: s.cfg.Control.SocketURL(r.RequestURI)}
		s.cfg.Gate.Note(tk.Account, h, err, mend)
	}
	if s.cfg.Gate.Complain() {
		s.cfg.Log.Warn("media connection refused", "provider", ad.Spec.Name, "reason", reason, "remote", r.RemoteAddr,
			"err", err, "mend", mend)
	}
}

// refusal is a handshake that is not let through, as the carrier and the metric see it.
type refusal struct {
	status int
	reason string
}

func (s *Server) refuse(w http.ResponseWriter, r *http.Request, no *refusal) {
	if no.status == http.StatusForbidden && !s.cfg.Gate.Stranger() {
		no = &refusal{http.StatusTooManyRequests, "strangers"}
	}
	s.refused.WithLabelValues(no.reason).Inc()
	if no.reason != "upgrade" && s.cfg.Gate.Complain() { // without the path, which may hold a token
		s.cfg.Log.Warn("media connection refused", "provider", r.PathValue("provider"), "reason", no.reason, "remote",
			r.RemoteAddr)
	}
	if no.status == http.StatusTooManyRequests || no.status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	http.Error(w, no.reason, no.status)
}

// events takes the connection of a carrier that tells of calls.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	account, known := s.cfg.Control.Account(r.PathValue("account"))
	if !known || account.Spec.Name != r.PathValue("provider") || account.Accepter() == nil {
		s.refuse(w, r, &refusal{http.StatusNotFound, "provider"})
		return
	}
	if err := account.Accepter().Accept(w, r); err != nil {
		s.refuse(w, r, &refusal{http.StatusForbidden, "signature"})
	}
}

// admit decides on a handshake. Strangers are turned away first: they learn nothing,
// and use up nothing.
func (s *Server) admit(r *http.Request) (*control.Admission, *refusal) {
	spec := s.specs[r.PathValue("provider")]
	if spec == nil {
		return nil, &refusal{http.StatusNotFound, "provider"}
	}
	ad, unsign := &control.Admission{Spec: spec}, func() {}
	token := r.PathValue("token")
	if token == "" { // of a carrier whose URL is the same for all calls
		token = r.URL.Query().Get("token")
	}
	if !s.cfg.Insecure && !sameToken(token, s.cfg.Token) {
		var err error
		if ad, err = s.cfg.Control.ReadMedia(spec, token); err != nil {
			s.cfg.Log.Debug("token refused", "provider", spec.Name, "err", err)
			return nil, &refusal{http.StatusForbidden, "token"}
		}
		if unsign, err = s.signed(r, ad); err != nil {
			s.cfg.Log.Debug("handshake refused", "account", ad.Ticket.Account, "err", err)
			return nil, &refusal{http.StatusForbidden, "signature"}
		}
	}
	if !ws.Asked(r) { // before what is good once is used
		unsign()
		s.complain(r, ad, "upgrade", errUpgrade, noUpgrade)
		return nil, &refusal{http.StatusUpgradeRequired, "upgrade"}
	}
	no := s.admitSigned(ad)
	if no != nil {
		unsign()
		return nil, no
	}
	return ad, nil
}

// admitSigned decides on a handshake that is no stranger's.
func (s *Server) admitSigned(ad *control.Admission) *refusal {
	if !s.cfg.Control.Draining() && !s.cfg.Control.Full() && !s.handshakes.Allow() {
		return &refusal{http.StatusTooManyRequests, "rate"}
	}
	switch err := s.cfg.Control.Admit(ad); {
	case err == nil:
		return nil
	case errors.Is(err, control.ErrUsed):
		return &refusal{http.StatusForbidden, err.Error()}
	default:
		return &refusal{http.StatusServiceUnavailable, err.Error()}
	}
}

// sameToken reports whether a token is the one of the configuration, in a time that
// tells nothing: hashes have one length, whatever was sent.
func sameToken(shown, wanted string) bool {
	a, b := sha256.Sum256([]byte(shown)), sha256.Sum256([]byte(wanted))
	return wanted != "" && subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// signed checks whether the carrier has signed the handshake of a call's stream, as it
// does for calls of the account's webhooks. unsign takes back that it has come.
func (s *Server) signed(r *http.Request, ad *control.Admission) (unsign func(), err error) {
	account := ad.Account
	if account.UnsignedMedia || !ad.Spec.Abilities.SignsHandshake {
		return func() {}, nil
	}
	h := &providers.Hook{Method: r.Method, Host: r.Host, Header: r.Header, URL: s.cfg.Control.SocketURL(r.RequestURI)}
	if ad.Ticket.Own {
		h.URL = s.cfg.Control.InstanceSocketURL(r.RequestURI)
	}
	return s.cfg.Gate.Check(ad.Ticket.Account, account.Webhooks, h)
}

// fullLoop is how busy a loop becomes before the next one is used: the more it has to do, the less
// each call costs, as long as it is far from busy.
const fullLoop = 0.25

// loop is the event loop for another call; nil: there is none.
func (s *Server) loop() *ws.Loop {
	var least *ws.Loop
	little := 0.
	for _, l := range s.loops {
		load := l.Load()
		if load < fullLoop {
			return l
		}
		if least == nil || load < little {
			least, little = l, load
		}
	}
	return least
}

// stuckLoop is for how long a loop may not come round before the instance is not healthy.
var stuckLoop = 5 * time.Second

// Healthy returns an error where an event loop does not come round.
func (s *Server) Healthy() error {
	for i, l := range s.loops {
		if d := l.Stuck(); d > stuckLoop {
			return fmt.Errorf("event loop %d does not come round since %v", i, d.Round(time.Second))
		}
	}
	return nil
}
