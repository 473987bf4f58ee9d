package media

import (
	"errors"
	"io"
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

// hook answers the carriers' webhooks: /hooks/{provider}/{account}/inbound and
// .../status. Nothing is read from a request before it is authenticated.
func (s *Server) hook(w http.ResponseWriter, r *http.Request) {
	provider := r.PathValue("provider")
	done := func(result string, status int) {
		s.totals.hook(provider, result)
		if status != http.StatusOK {
			http.Error(w, result, status)
		}
	}
	account, known := s.cfg.Accounts[r.PathValue("account")]
	if !known || account.Spec.Name != provider {
		done("account", http.StatusNotFound)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxHook))
	if err != nil {
		done("size", http.StatusRequestEntityTooLarge)
		return
	}
	h := &providers.Hook{
		Method: r.Method, Header: r.Header, Body: body,
		URL: strings.TrimSuffix(s.cfg.PublicURL, "/") + r.RequestURI,
	}
	log := s.cfg.Log.With("provider", provider, "account", r.PathValue("account"))
	if err := account.Webhooks.Authenticate(h, time.Now()); err != nil {
		if s.complaints.Allow() {
			log.Warn("webhook refused", "err", err)
		}
		done("signature", http.StatusForbidden)
		return
	}
	if r.PathValue("what") == "status" {
		report, err := account.Webhooks.Status(h)
		if err != nil {
			log.Warn("webhook", "err", err)
			done("malformed", http.StatusBadRequest)
			return
		}
		if report.Status != "" {
			log.Info("call status", "call", report.Call, "status", report.Status, "raw", report.Raw)
		}
		s.totals.hook(provider, "ok")
		w.WriteHeader(http.StatusNoContent)
		return
	}
	call, err := account.Webhooks.Inbound(h)
	if err != nil {
		log.Warn("webhook", "err", err)
		done("malformed", http.StatusBadRequest)
		return
	}
	doc, result, err := s.answer(account, r.PathValue("account"), call)
	if err != nil {
		log.Error("answer", "call", call.ID, "err", err)
		done("error", http.StatusInternalServerError)
		return
	}
	log.Info("call comes in", "call", call.ID, "from", mask(call.From), "to", mask(call.To), "result", result)
	s.totals.hook(provider, result)
	w.Header().Set("Content-Type", doc.ContentType)
	_, _ = w.Write(doc.Body) // a carrier that is gone needs no answer
}

// answer connects a call to a media URL of its own, or tells the caller why not.
func (s *Server) answer(account Account, name string, call *providers.InboundCall) (providers.Document, string, error) {
	if s.draining.Load() || s.registry.Len() >= s.cfg.Limits.Calls {
		doc, err := account.Webhooks.Refuse("All lines are busy. Please call again later.")
		return doc, "refused", err
	}
	agent, ok := "", true
	if s.cfg.Route != nil {
		agent, ok = s.cfg.Route(name, call.To)
	}
	if !ok {
		doc, err := account.Webhooks.Refuse("This number is not in service.")
		return doc, "refused", err
	}
	token, err := s.tokens.make(ticket{
		Provider: account.Spec.Name, Account: name, Agent: agent, Call: call.ID, From: call.From, To: call.To,
	}, time.Now())
	if err != nil {
		return providers.Document{}, "", err
	}
	base, ok := strings.CutPrefix(s.cfg.PublicURL, "http") // https becomes wss
	if !ok {
		return providers.Document{}, "", errors.New("media: the public URL is no http URL")
	}
	doc, err := account.Webhooks.Connect("ws" + strings.TrimSuffix(base, "/") + "/media/" + account.Spec.Name + "/" + token)
	return doc, "ok", err
}

// mask keeps the last two digits of a number.
func mask(number string) string {
	if len(number) <= 2 {
		return number
	}
	return strings.Repeat("*", len(number)-2) + number[len(number)-2:]
}
