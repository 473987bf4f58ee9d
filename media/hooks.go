package media

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"voicebridge/providers"
)

// Account is one account at a carrier.
type Account struct {
	Spec     *providers.Spec
	Webhooks providers.Webhooks
}

// maxHook bounds the body of a webhook.
const maxHook = 64 << 10

// hookResults are what can become of a webhook, for the metric.
var hookResults = []string{"ok", "account", "size", "signature", "malformed", "refused", "error"}

// accountHook is a webhook that has been authenticated.
type accountHook struct {
	*providers.Hook
	Account
	name string // of the account
	log  *slog.Logger
}

// authentic lets through what the account's carrier has signed, and answers
// everything else. next says what became of the request; nothing is read from it
// before.
func (s *Server) authentic(next func(http.ResponseWriter, *accountHook) (result string)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		provider, name := r.PathValue("provider"), r.PathValue("account")
		refuse := func(result string, status int) {
			s.totals.hook(provider, result)
			http.Error(w, result, status)
		}
		account, known := s.cfg.Accounts[name]
		if !known || account.Spec.Name != provider {
			refuse("account", http.StatusNotFound)
			return
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxHook))
		if err != nil {
			refuse("size", http.StatusRequestEntityTooLarge)
			return
		}
		h := &accountHook{Account: account, name: name, log: s.cfg.Log.With("provider", provider, "account", name)}
		h.Hook = &providers.Hook{
			Method: r.Method, Header: r.Header, Body: body,
			URL: strings.TrimSuffix(s.cfg.PublicURL, "/") + r.RequestURI,
		}
		if err := account.Webhooks.Authenticate(h.Hook, time.Now()); err != nil {
			if s.complaints.Allow() {
				h.log.Warn("webhook refused", "err", err)
			}
			refuse("signature", http.StatusForbidden)
			return
		}
		s.totals.hook(provider, next(w, h))
	}
}

// malformed answers a webhook that is signed but makes no sense.
func malformed(w http.ResponseWriter, h *accountHook, err error) string {
	h.log.Warn("webhook makes no sense", "err", err)
	http.Error(w, "malformed", http.StatusBadRequest)
	return "malformed"
}

// status takes a report on a call.
func (s *Server) status(w http.ResponseWriter, h *accountHook) string {
	report, err := h.Webhooks.Status(h.Hook)
	if err != nil {
		return malformed(w, h, err)
	}
	if report.Status != "" {
		h.log.Info("call status", "call", report.Call, "status", report.Status, "raw", report.Raw)
	}
	w.WriteHeader(http.StatusNoContent)
	return "ok"
}

// inbound answers what to do with a call.
func (s *Server) inbound(w http.ResponseWriter, h *accountHook) string {
	call, err := h.Webhooks.Inbound(h.Hook)
	if err != nil {
		return malformed(w, h, err)
	}
	doc, result, err := s.answer(h, call)
	if err != nil {
		h.log.Error("answer", "call", call.ID, "err", err)
		http.Error(w, "error", http.StatusInternalServerError)
		return "error"
	}
	h.log.Info("call comes in", "call", call.ID, "from", mask(call.From), "to", mask(call.To), "result", result)
	w.Header().Set("Content-Type", doc.ContentType)
	_, _ = w.Write(doc.Body) // a carrier that is gone needs no answer
	return result
}

// answer connects a call to a media URL of its own, or tells the caller why not.
func (s *Server) answer(h *accountHook, call *providers.InboundCall) (doc providers.Document, result string, err error) {
	if s.draining.Load() || s.registry.Len() >= s.cfg.Limits.Calls {
		doc, err = h.Webhooks.Refuse("All lines are busy. Please call again later.")
		return doc, "refused", err
	}
	agent, ok := "", true
	if s.cfg.Route != nil {
		agent, ok = s.cfg.Route(h.name, call.To)
	}
	if !ok {
		doc, err = h.Webhooks.Refuse("This number is not in service.")
		return doc, "refused", err
	}
	token, err := s.tokens.make(ticket{
		Provider: h.Spec.Name, Account: h.name, Agent: agent, Call: call.ID, From: call.From, To: call.To,
	}, time.Now())
	if err != nil {
		return doc, "", err
	}
	base, ok := strings.CutPrefix(s.cfg.PublicURL, "http") // https becomes wss
	if !ok {
		return doc, "", errors.New("media: the public URL is no http URL")
	}
	doc, err = h.Webhooks.Connect("ws" + strings.TrimSuffix(base, "/") + "/media/" + h.Spec.Name + "/" + token)
	return doc, "ok", err
}

// mask keeps the last two digits of a number.
func mask(number string) string {
	if len(number) <= 2 {
		return number
	}
	return strings.Repeat("*", len(number)-2) + number[len(number)-2:]
}
