// Package hooks takes the carriers' webhooks: it bounds them, checks their signature,
// has the carrier's package read them, hands what they say to control, and replies in
// the carrier's language.
package hooks

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"voicebridge/control"
	"voicebridge/control/urls"
	"voicebridge/hooks/gate"
	"voicebridge/providers"
	"voicebridge/wav"
)

// Config of a Server.
type Config struct {
	Providers []*providers.Spec
	Control   Control
	Gate      *gate.Gate
	// Music is what callers hear who wait in a carrier's room; nil: there is none.
	Music *wav.Music
	Log   *slog.Logger
}

// Control decides about what carriers say; *control.Controller is one.
type Control interface {
	Account(name string) (control.Account, bool)
	PublicURL(path string) string
	WordsOf(account, token string) (*providers.Answer, error)
	Handle(ctx context.Context, account string, ev *providers.CallEvent) (control.Outcome, error)
}

// maxHook bounds the body of a webhook.
const maxHook = 64 << 10

// What can become of a webhook, for the metric, beside control's results.
const (
	resultAccount   = "account"
	resultSize      = "size"
	resultSignature = "signature"
	resultStrangers = "strangers"
	resultMalformed = "malformed"
	resultToken     = "token"
	resultError     = "error"
)

var results = []string{string(control.ResultOK), resultAccount, resultSize, resultSignature, resultMalformed,
	string(control.ResultRefused),
	string(control.ResultUnknown), string(control.ResultLater), resultToken, resultStrangers, resultError}

// Server takes webhooks.
type Server struct {
	cfg      Config
	known    map[string]bool // carriers
	requests *prometheus.CounterVec
}

// New makes a server.
func New(cfg Config) *Server {
	s := &Server{
		cfg: cfg, known: map[string]bool{},
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "voicebridge_hook_requests_total", Help: "Webhooks, by what became of them.",
		}, []string{"provider", "result"}),
	}
	for _, p := range cfg.Providers {
		s.known[p.Name] = true
		for _, r := range results {
			s.requests.WithLabelValues(p.Name, r)
		}
	}
	return s
}

// Describe implements prometheus.Collector.
func (s *Server) Describe(ch chan<- *prometheus.Desc) { s.requests.Describe(ch) }

// Collect implements prometheus.Collector.
func (s *Server) Collect(ch chan<- prometheus.Metric) { s.requests.Collect(ch) }

// Doors are what the server answers, by pattern.
func (s *Server) Doors() map[string]http.HandlerFunc {
	doors := map[string]http.HandlerFunc{"GET " + control.MusicPath: s.music}
	doors["/hooks/{provider}/{account}/"+urls.Hold] = s.hold
	doors["GET /hooks/{provider}/{account}/"+urls.Words+"/{token}"] = s.words
	for _, ref := range []string{"inbound", "status", "status/{call}", "answer/{token}", "next/{token}", "do/{token}",
		"transfer/{transfer}/{nonce}/{what}"} {
		doors["/hooks/{provider}/{account}/"+ref] = s.hook
	}
	return doors
}

// music is the hold audio as a file, for callers who wait in a carrier's room. It is no
// secret.
func (s *Server) music(w http.ResponseWriter, r *http.Request) {
	if s.cfg.Music == nil {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "audio/wav")
	w.Header().Set("Cache-Control", "public, max-age=3600")
	_, _ = w.Write(s.cfg.Music.File()) // a carrier that is gone needs no audio
}

// hold tells a carrier that fetches a document what callers hear who wait. It is no
// secret.
func (s *Server) hold(w http.ResponseWriter, r *http.Request) {
	account, known := s.cfg.Control.Account(r.PathValue("account"))
	holder, fetches := account.Webhooks.(providers.Holder)
	if !known || !fetches || s.cfg.Music == nil || account.Spec.Name != r.PathValue("provider") {
		http.NotFound(w, r)
		return
	}
	doc, err := holder.HoldDocument(s.cfg.Control.PublicURL(control.MusicPath))
	if err != nil {
		s.cfg.Log.Error("hold document", "err", err)
		http.Error(w, resultError, http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", doc.ContentType)
	_, _ = w.Write(doc.Body) // a carrier that is gone needs no audio
}

// wordsRate is that of files that any PBX plays.
const wordsRate = 8000

// words is a file with words, for a carrier that plays files: whoever has the token was given
// its URL.
func (s *Server) words(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("account")
	words, err := s.cfg.Control.WordsOf(name, r.PathValue("token"))
	if err != nil {
		http.Error(w, resultSignature, http.StatusForbidden)
		return
	}
	account, _ := s.cfg.Control.Account(name)
	file, err := account.Speak(r.Context(), words)
	var pcm []int16
	var rate int
	if err == nil {
		pcm, rate, err = wav.Parse(file)
	}
	if err != nil {
		s.cfg.Log.Warn("words could not be made a file", "account", name, "err", err)
		http.Error(w, resultError, http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "audio/wav")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(wav.NewMusic(pcm, rate).At(wordsRate)) // a carrier that is gone needs no audio
}

// hook takes a webhook. Nothing is read from it before its signature is known to be
// good.
func (s *Server) hook(w http.ResponseWriter, r *http.Request) {
	provider, name := r.PathValue("provider"), r.PathValue("account")
	refuse := func(result string, status int) {
		s.count(provider, result)
		http.Error(w, result, status)
	}
	account, known := s.cfg.Control.Account(name)
	if !known || account.Spec.Name != provider || account.Webhooks == nil {
		refuse(resultAccount, http.StatusNotFound)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxHook))
	if err != nil {
		refuse(resultSize, http.StatusRequestEntityTooLarge)
		return
	}
	ref := strings.TrimPrefix(r.URL.Path, "/hooks/"+provider+"/"+name+"/")
	h := &providers.Hook{Method: r.Method, Host: r.Host, Header: r.Header, Body: body,
		URL:     s.cfg.Control.PublicURL(r.RequestURI),
		Purpose: urls.PurposeOf(ref)}
	log := s.cfg.Log.With("provider", provider, "account", name)
	forget, err := s.cfg.Gate.Check(name, account.Webhooks, h)
	if err != nil {
		if !s.cfg.Gate.Stranger() {
			w.Header().Set("Retry-After", "1")
			refuse(resultStrangers, http.StatusTooManyRequests)
			return
		}
		if s.cfg.Gate.Complain() {
			log.Warn("webhook refused; 'voicebridge check webhook' explains", "err", err)
		}
		status := http.StatusForbidden
		if errors.Is(err, providers.ErrUnsigned) {
			status = http.StatusServiceUnavailable
			w.Header().Set("Retry-After", "1")
		}
		refuse(resultSignature, status)
		return
	}
	result, status := s.handle(w, r, &request{h, account, name, ref, log})
	s.count(provider, result)
	if status >= 400 {
		forget()
		if status == http.StatusServiceUnavailable {
			w.Header().Set("Retry-After", "1")
		}
		http.Error(w, result, status)
	}
}

// count counts a webhook; those of no known carrier are not told apart.
func (s *Server) count(provider, result string) {
	if !s.known[provider] {
		provider = "unknown"
	}
	s.requests.WithLabelValues(provider, result).Inc()
}

// request is a webhook that has been authenticated.
type request struct {
	*providers.Hook
	account control.Account
	name    string // of the account
	ref     string // what its URL was given for
	log     *slog.Logger
}

// handle has the events of a webhook decided about, and replies. A status of 400 and
// more is still to be answered.
func (s *Server) handle(w http.ResponseWriter, r *http.Request, h *request) (result string, status int) {
	evs, err := h.account.Webhooks.Read(h.Hook)
	if err != nil {
		h.log.Warn("webhook makes no sense", "err", err)
		return resultMalformed, http.StatusBadRequest
	}
	result = string(control.ResultOK)
	var answer *providers.Answer
	for i := range evs {
		ev := &evs[i]
		if ev.Ref == "" {
			ev.Ref = h.ref
		}
		out, err := s.cfg.Control.Handle(r.Context(), h.name, ev)
		if err != nil {
			return refusal(h, ev, err)
		}
		result = string(out.Result)
		if ev.Wants {
			answer = out.Answer
		}
	}
	return s.reply(w, h, answer, result)
}

// refusal is how an event is answered that control does not take.
func refusal(h *request, ev *providers.CallEvent, err error) (result string, status int) {
	log := h.log.With("event", ev.Kind, "err", err)
	switch {
	case errors.Is(err, control.ErrToken):
		log.Warn("event of a call of another bridge")
		return resultToken, http.StatusForbidden
	case errors.Is(err, control.ErrNoTransfer):
		return string(control.ResultUnknown), http.StatusNotFound
	}
	log.Warn("event is not carried out: the carrier is to send it again")
	return resultError, http.StatusServiceUnavailable
}

// reply answers in the carrier's language.
func (s *Server) reply(w http.ResponseWriter, h *request, a *providers.Answer, result string) (string, int) {
	var doc providers.Document
	if a != nil {
		var err error
		if doc, err = h.account.Webhooks.Document(a); err != nil {
			h.log.Error("answer", "err", err)
			return resultError, http.StatusInternalServerError
		}
	}
	if len(doc.Body) == 0 {
		w.WriteHeader(http.StatusNoContent)
		return result, http.StatusNoContent
	}
	w.Header().Set("Content-Type", doc.ContentType)
	_, _ = w.Write(doc.Body) // a carrier that is gone needs no answer
	return result, http.StatusOK
}
