package media

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"voicebridge/calls"
	"voicebridge/providers"
	"voicebridge/session"
	"voicebridge/transfer"
)

// Account is one account at a carrier.
type Account struct {
	Spec *providers.Spec
	*providers.Account
	// From is the caller id of placed calls for which none is asked for; without
	// it the Numbers take turns.
	From    string
	Numbers []string
	// UnsignedMedia takes media connections whose handshake the carrier has not
	// signed: their token alone must do.
	UnsignedMedia bool
}

// maxHook bounds the body of a webhook.
const maxHook = 64 << 10

// hookResults are what can become of a webhook, for the metric.
var hookResults = []string{"ok", "account", "size", "signature", "malformed", "refused", "unknown", "token", "strangers", "error"}

// accountHook is a webhook that has been authenticated.
type accountHook struct {
	*providers.Hook
	Account
	request *http.Request
	name    string // of the account
	log     *slog.Logger
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
		h := &accountHook{Account: account, request: r, name: name, log: s.cfg.Log.With("provider", provider, "account", name)}
		h.Hook = &providers.Hook{Method: r.Method, Host: r.Host, Header: r.Header, Body: body, URL: s.hookURL(r.RequestURI)}
		if err := account.Webhooks.Authenticate(h.Hook, time.Now()); err != nil {
			if !s.strangers.Allow() {
				w.Header().Set("Retry-After", "1")
				refuse("strangers", http.StatusTooManyRequests)
				return
			}
			s.refused.add(name, h.Hook, err)
			if s.complaints.Allow() {
				h.log.Warn("webhook refused; 'voicebridge check webhook' explains", "err", err)
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

// status takes a report on a call: of the id in the path, or of the carrier's.
func (s *Server) status(w http.ResponseWriter, h *accountHook) string {
	report, err := h.Webhooks.Status(h.Hook)
	if err != nil {
		return malformed(w, h, err)
	}
	call, known := s.book.Get(h.request.PathValue("call"))
	if !known {
		call, known = s.book.Find(h.name, report.Call)
	}
	if report.Joined && known && s.transfers != nil {
		r, err := s.transfers.manager.ByCall(h.request.Context(), call.ID)
		if err == nil && r != nil {
			err = s.meeting(h.request.Context(), r, &providers.RoomReport{Call: report.Call, Joined: true})
		}
		if err != nil {
			return unstored(w, h, err)
		}
	}
	if !known && s.passStatus(h.request.Context(), h, h.request.PathValue("call"), report) {
		w.WriteHeader(http.StatusNoContent)
		return "ok"
	}
	w.WriteHeader(http.StatusNoContent) // also for what is not ours: it would only be sent again
	if !known || call.Account != h.name || call.CarrierID != "" && call.CarrierID != report.Call {
		h.log.Debug("status of an unknown call", "call", report.Call, "raw", report.Raw)
		return "unknown"
	}
	unwanted := call.Error != "" || call.Cause == string(session.APIHangup) && call.Status.Final()
	if unwanted && report.Status != "" && !report.Status.Final() && h.Calls != nil {
		// The carrier has placed it after all, although it did not say so: nobody
		// waits for it any more.
		s.endAtCarrier(h.Account, call.ID, report.Call)
	}
	if s.report(call.ID, report) {
		h.log.Info("call status", "session", call.ID, "call", report.Call, "status", report.Status, "raw", report.Raw, "answered_by", report.AnsweredBy)
	}
	return "ok"
}

// inbound answers what to do with a call that comes in.
func (s *Server) inbound(w http.ResponseWriter, h *accountHook) string {
	in, err := h.Webhooks.Inbound(h.Hook)
	if err != nil {
		return malformed(w, h, err)
	}
	log := h.log.With("call", in.ID, "from", mask(in.From), "to", mask(in.To))
	refuse := func(why, words string) string {
		log.Info("call refused", "why", why)
		return s.write(w, h, &providers.Answer{Say: words}, "refused")
	}
	const busy = "All lines are busy. Please call again later."
	switch {
	case s.draining.Load():
		return refuse("the bridge stops", busy)
	case s.registry.Len() >= s.cfg.Limits.Calls:
		return refuse("limits.calls is reached", busy)
	}
	// A carrier that asks twice about a call is told the same.
	call, known := s.book.Find(h.name, in.ID)
	if !known {
		route, refusal := s.route(h, in)
		switch refusal {
		case "":
		case notInService:
			return refuse("no route fits, and there is no agent for all others", refusal)
		default:
			return refuse("the router says so", refusal)
		}
		call = s.book.Add(calls.Call{
			Account: h.name, Provider: h.Spec.Name, CarrierID: in.ID, Direction: calls.Inbound, Status: providers.StatusRinging,
			From: in.From, To: in.To, Agent: route.Agent, Metadata: route.Metadata,
		})
	}
	log.Info("call comes in", "session", call.ID, "agent", call.Agent)
	return s.write(w, h, s.stream(&call), "ok")
}

// ticketOf is what a token says of a call.
func ticketOf(use string, call *calls.Call) ticket {
	tk := ticket{
		Use: use, Provider: call.Provider, Account: call.Account, ID: call.ID, Agent: call.Agent, Call: call.CarrierID,
		From: call.From, To: call.To, Outbound: call.Direction == calls.Outbound, Returned: call.Returned, Returns: call.Returns,
	}
	if use == useNext {
		tk.Metadata = call.Metadata
	}
	return tk
}

// stream tells the carrier to stream a call to a media URL of its own.
func (s *Server) stream(call *calls.Call) *providers.Answer {
	return &providers.Answer{
		Media:  s.socketURL("/media/" + call.Provider + "/" + s.tokens.make(ticketOf(useMedia, call), time.Now())),
		Params: call.Metadata,
		Next:   s.nextURL(call),
	}
}

// nextURL is asked what comes once a call's stream, or a number, is over. It says
// all that any instance needs to know of the call.
func (s *Server) nextURL(call *calls.Call) string {
	return s.hookURL("/hooks/" + call.Provider + "/" + call.Account + "/next/" + s.tokens.make(ticketOf(useNext, call), time.Now()))
}

// write answers in the carrier's language.
func (s *Server) write(w http.ResponseWriter, h *accountHook, a *providers.Answer, result string) string {
	doc, err := h.Webhooks.Document(a)
	if err != nil {
		h.log.Error("answer", "err", err)
		http.Error(w, "error", http.StatusInternalServerError)
		return "error"
	}
	if len(doc.Body) == 0 {
		w.WriteHeader(http.StatusNoContent)
		return result
	}
	w.Header().Set("Content-Type", doc.ContentType)
	_, _ = w.Write(doc.Body) // a carrier that is gone needs no answer
	return result
}

// placedAnswer answers what to do with a call that was placed and picked up.
func (s *Server) placedAnswer(w http.ResponseWriter, h *accountHook) string {
	tk, err := s.tokens.read(h.request.PathValue("token"), useAnswer, h.Spec.Name, time.Now())
	if err != nil || tk.Account != h.name {
		h.log.Warn("answer for a call that was not placed here", "err", err)
		http.Error(w, "token", http.StatusForbidden)
		return "token"
	}
	in, err := h.Webhooks.Inbound(h.Hook)
	if err != nil {
		return malformed(w, h, err)
	}
	call, known := s.book.Get(tk.ID)
	if !known { // another instance has placed it
		call = s.book.Add(tk.record())
	}
	if call.Status.Final() { // it was hung up meanwhile
		return s.write(w, h, &providers.Answer{}, "refused")
	}
	s.book.Bind(call.ID, in.ID)
	call.CarrierID = in.ID
	return s.write(w, h, s.stream(&call), "ok")
}

// record is what a ticket says of a call.
func (tk *ticket) record() calls.Call {
	c := calls.Call{ID: tk.ID, Account: tk.Account, Provider: tk.Provider, CarrierID: tk.Call, Agent: tk.Agent,
		Direction: calls.Inbound, From: tk.From, To: tk.To, Metadata: tk.Metadata, Returned: tk.Returned, Returns: tk.Returns}
	if tk.Outbound {
		c.Direction = calls.Outbound
	}
	return c
}

// next answers what to do with a call whose stream, or number, is over: what its
// transfer wants, if it has one; the fallback where its agent has failed; the agent
// again where its instance has gone; otherwise nothing more.
func (s *Server) next(w http.ResponseWriter, h *accountHook) string {
	report, err := h.Webhooks.Next(h.Hook)
	if err != nil {
		return malformed(w, h, err)
	}
	tk, err := s.tokens.read(h.request.PathValue("token"), useNext, h.Spec.Name, time.Now())
	if err != nil || tk.Account != h.name {
		h.log.Warn("what comes next is asked about a call of another bridge", "err", err)
		http.Error(w, "token", http.StatusForbidden)
		return "token"
	}
	if !report.Ended {
		w.WriteHeader(http.StatusNoContent)
		return "ok"
	}
	ctx := h.request.Context()
	cause, here := "", false
	if report.Dial == "" {
		if cause, here = s.streamEnded(ctx, tk.ID, tk.Returns); cause == string(session.Transferred) {
			s.awaitMove(ctx, tk.ID)
			return s.write(w, h, &providers.Answer{}, "ok") // it has been taken elsewhere
		}
	}
	call := s.book.Add(tk.record())
	wish, stop := context.WithTimeout(ctx, clearTime)
	has := s.transfers.decided(wish, tk.ID) // known where the stream was, without asking anybody
	stop()
	if s.transfers != nil && (has || !here) && cause != string(session.CallerHangup) && cause != string(session.APIHangup) {
		look, stop := context.WithTimeout(ctx, byCallTime)
		r, err := s.transfers.manager.ByCall(look, tk.ID)
		stop()
		if err != nil {
			h.log.Warn("transfers cannot be looked for: the call goes on without", "session", tk.ID, "err", err)
			if report.Dial != "" { // it was connected to a number, and is alone again
				call.Returned, call.Returns = transfer.ReasonLost, tk.Returns+1
				return s.write(w, h, s.stream(&call), "ok")
			}
		}
		if r != nil {
			answer, err := s.afterStream(ctx, r, report)
			if err != nil {
				return unstored(w, h, err)
			}
			return s.write(w, h, answer, "ok")
		}
	}
	if call.Cause = cause; cause == "" { // the stream was never there, or its instance is not any more
		if s.cfg.Cluster != nil && report.Dial == "" && tk.Returns < maxReturns && !call.Status.Final() {
			call.Returned, call.Returns = instanceLost, tk.Returns+1
			h.log.Warn("a call comes back", "session", tk.ID)
			return s.write(w, h, s.stream(&call), "ok")
		}
		call.Cause = string(session.StartTimeout)
	}
	answer := &providers.Answer{}
	if report.Dial == "" {
		answer = s.fallback(&call)
	}
	if answer.Empty() {
		s.book.StreamEnded(call.ID, call.Cause, true)
	}
	return s.write(w, h, answer, "ok")
}

// byCallTime is how long a call waits for word of its transfers.
const byCallTime = 500 * time.Millisecond

// maxReturns is how often a call comes back whose instance has gone.
const maxReturns = 3

// streamEnd is how long a session may take to learn that its stream has ended.
const streamEnd = 2 * time.Second

// await waits for the end of a session whose stream has ended at the carrier.
func (s *Server) await(sess *session.Session) {
	late := time.AfterFunc(streamEnd, sess.StreamOver)
	defer late.Stop()
	<-sess.Done()
}

// moveTime is how long a carrier may wait for an answer while it is asked to take the
// call elsewhere: less than it gives a webhook.
const moveTime = 10 * time.Second

// awaitMove waits for the end of such a request: what is answered before would count.
func (s *Server) awaitMove(ctx context.Context, call string) {
	done, moving := s.moves.Load(call)
	if !moving {
		return
	}
	ctx, stop := context.WithTimeout(ctx, moveTime)
	defer stop()
	select {
	case <-done.(chan struct{}):
	case <-ctx.Done():
	}
}

// mask keeps the last two digits of a number.
func mask(number string) string {
	if len(number) <= 2 {
		return number
	}
	return strings.Repeat("*", len(number)-2) + number[len(number)-2:]
}

// refusedHooks keeps the last requests of each account that were not signed as
// they should be, for an operator who wants to know why.
type refusedHooks struct {
	mu        sync.Mutex
	byAccount map[string][]refusedHook
}

type refusedHook struct {
	hook *providers.Hook
	at   time.Time
	err  error
}

const keepRefused = 8 // per account

func (r *refusedHooks) add(account string, h *providers.Hook, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byAccount == nil {
		r.byAccount = map[string][]refusedHook{}
	}
	list := r.byAccount[account]
	if len(list) == keepRefused {
		list = slices.Delete(list, 0, 1)
	}
	h.Header = h.Header.Clone()
	r.byAccount[account] = append(list, refusedHook{h, time.Now(), err})
}

// list gives those of an account, the newest first.
func (r *refusedHooks) list(account string) []refusedHook {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := slices.Clone(r.byAccount[account])
	slices.Reverse(list)
	return list
}
