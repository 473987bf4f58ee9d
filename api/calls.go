package api

import (
	"net/http"
	"slices"
	"strconv"
	"time"

	"voicebridge/agent"
	"voicebridge/calls"
	"voicebridge/control"
	"voicebridge/control/transfers"
	"voicebridge/providers"
	"voicebridge/transfer"
)

// dialRequest is a call to be placed.
type dialRequest struct {
	Account  string            `json:"account"`
	To       string            `json:"to"`
	From     string            `json:"from"`
	Agent    string            `json:"agent"`
	Metadata map[string]string `json:"metadata"`
	Ring     int               `json:"ring_timeout"` // seconds
	Detect   string            `json:"machine_detection"`
	Digits   string            `json:"digits"`
}

// dial places a call. A request that is repeated with its Idempotency-Key is answered
// as the first was.
func (s *Server) dial(a *request) (reply, error) {
	r := dialRequest{Ring: int(providers.DefaultRing.Seconds()), Detect: control.DetectOff}
	if err := a.read(&r); err != nil {
		return reply{}, err
	}
	if err := s.checkDial(a, &r); err != nil {
		return reply{}, err
	}
	return s.once(a, func() (reply, error) {
		if s.control.Draining() || s.control.Crowded() {
			return reply{}, &apiError{http.StatusServiceUnavailable, "busy", "no more calls are taken now",
				5 * time.Second}
		}
		call, err := s.control.Dial(a.Context(),
			&control.Dial{Account: r.Account, To: r.To, From: r.From, Agent: r.Agent, Metadata: r.Metadata,
				Ring: time.Duration(r.Ring) * time.Second, Detect: r.Detect, Digits: r.Digits})
		return reply{http.StatusCreated, call}, err
	})
}

// checkDial checks a request, and chooses the caller id where none is asked for.
func (s *Server) checkDial(a *request, r *dialRequest) error {
	account, known := s.control.Account(r.Account)
	if r.From == "" {
		r.From = s.control.CallerID(&account)
	}
	ring := time.Duration(r.Ring) * time.Second
	switch {
	case !known || !a.token.sees(r.Account):
		return wrong("account: %.64q is not one of the configured accounts", r.Account)
	case !account.HasCommands():
		return control.ErrNoCommands
	case !providers.ValidNumber(r.To):
		return wrong("to: must be a number in E.164, such as +15550100123")
	case !providers.ValidNumber(r.From):
		return wrong("from: must be a number in E.164; it may be left out where the account has from or numbers")
	case !account.Owns(r.From):
		return wrong("from: %s is not one of the account's: set accounts.%s.from or numbers", calls.Mask(r.From),
			r.Account)
	case ring < control.MinRing || ring > control.MaxRing:
		return wrong("ring_timeout: must be %v to %v seconds", control.MinRing.Seconds(), control.MaxRing.Seconds())
	case !slices.Contains([]string{control.DetectOff, control.DetectReport, control.DetectHangup}, r.Detect):
		return wrong("machine_detection: must be off, report or hangup")
	case r.Detect != control.DetectOff && !account.Spec.Abilities.Detects:
		return wrong("machine_detection: the account's carrier has none")
	case !control.ValidDialDigits(r.Digits):
		return wrong("digits: must be at most %d of 0-9 * # w", control.MaxDialDigits)
	case r.Digits != "" && r.Detect != control.DetectOff && !account.Spec.Abilities.DetectDigits:
		return wrong("digits: cannot be sent by a call with machine_detection: send them later, or let the agent")
	}
	if err := s.control.CheckRoute(control.Route{Agent: r.Agent, Metadata: r.Metadata}); err != nil {
		return wrong("%v", err)
	}
	return nil
}

const (
	defaultList = 100
	maxList     = 1000
)

// list lists calls, the newest first.
func (s *Server) list(a *request) (reply, error) {
	q := a.URL.Query()
	limit := defaultList
	if l := q.Get("limit"); l != "" {
		n, err := strconv.Atoi(l)
		if err != nil || n < 1 || n > maxList {
			return reply{}, wrong("limit: must be 1 to %d", maxList)
		}
		limit = n
	}
	live, status := q.Get("live"), providers.Status(q.Get("status"))
	begun := []providers.Status{"", providers.StatusInitiated, providers.StatusRinging, providers.StatusInProgress}
	switch {
	case live != "" && live != "true" && live != "false":
		return reply{}, wrong("live: must be true or false")
	case !slices.Contains(begun, status) && !status.Final():
		return reply{}, wrong("status: %.64q is none", status)
	}
	want := &wanted{Account: q.Get("account"), Status: status, Live: live, Limit: limit, Accounts: a.token.Accounts}
	list, err := s.everywhere(a.Context(), want)
	if err != nil {
		return reply{}, err
	}
	if list == nil {
		list = []calls.Call{}
	}
	return reply{http.StatusOK, map[string]any{"calls": list}}, nil
}

// wanted are the calls that a list is of; empty fields do not matter.
type wanted struct {
	Account  string
	Status   providers.Status
	Live     string // true or false
	Limit    int
	Accounts []string // of the token
}

func (w *wanted) fits(c *calls.Call) bool {
	return (w.Account == "" || w.Account == c.Account) && (w.Status == "" || w.Status == c.Status) &&
		(w.Live == "" || w.Live == strconv.FormatBool(!c.Status.Final())) &&
		(len(w.Accounts) == 0 || slices.Contains(w.Accounts, c.Account))
}

func (s *Server) get(a *request) (reply, error) {
	call, known := s.control.Calls().Get(a.PathValue("call"))
	if !known {
		return reply{}, control.ErrNoCall
	}
	return reply{http.StatusOK, call}, nil
}

// transcript tells what was said in a call so far.
func (s *Server) transcript(a *request) (reply, error) {
	lines, known := s.control.Calls().Transcript(a.PathValue("call"))
	if !known {
		return reply{}, control.ErrNoCall
	}
	return reply{http.StatusOK, map[string]any{"transcript": lines}}, nil
}

func (s *Server) hangup(a *request) (reply, error) {
	r := struct {
		When string `json:"when"`
	}{"now"}
	if len(a.body) > 0 {
		if err := a.read(&r); err != nil {
			return reply{}, err
		}
	}
	if r.When != "now" && r.When != "after_playback" {
		return reply{}, wrong("when: must be now or after_playback")
	}
	return reply{http.StatusNoContent, nil}, s.control.Hangup(a.Context(), a.PathValue("call"),
		r.When == "after_playback")
}

func (s *Server) digits(a *request) (reply, error) {
	var r struct {
		Digits string `json:"digits"`
	}
	if err := a.read(&r); err != nil {
		return reply{}, err
	}
	if !agent.ValidDigits(r.Digits) {
		return reply{}, wrong("digits: must be 1 to 64 of 0-9 * # A-D w W")
	}
	return reply{http.StatusNoContent, nil}, s.control.Digits(a.Context(), a.PathValue("call"), r.Digits)
}

func (s *Server) redirect(a *request) (reply, error) {
	var r struct {
		Say      string `json:"say"`
		Language string `json:"language"`
		Voice    string `json:"voice"`
		Dial     string `json:"dial"`
	}
	if err := a.read(&r); err != nil {
		return reply{}, err
	}
	switch {
	case r.Say == "" && r.Dial == "":
		return reply{}, wrong("say or dial must be set")
	case len(r.Say) > control.MaxSay:
		return reply{}, wrong("say: must have at most %d bytes", control.MaxSay)
	case r.Dial != "" && !providers.ValidNumber(r.Dial):
		return reply{}, wrong("dial: must be a number in E.164, such as +15550100123")
	}
	return reply{http.StatusNoContent, nil}, s.control.Redirect(a.Context(), a.PathValue("call"),
		&control.Fallback{Say: r.Say, Dial: r.Dial, Language: r.Language, Voice: r.Voice})
}

// beginTransfer begins to move a call.
func (s *Server) beginTransfer(a *request) (reply, error) {
	var r calls.TransferRequest
	if err := a.read(&r); err != nil {
		return reply{}, err
	}
	switch {
	case !r.ContextFits():
		return reply{}, wrong("context: must have at most %d bytes as JSON", calls.MaxContext)
	case s.cfg.Transfers == nil:
		return reply{}, &apiError{http.StatusConflict, "unsupported", "the bridge has no transfers", 0}
	}
	info, err := s.cfg.Transfers.Start(a.Context(), a.PathValue("call"), &r, transfer.ReasonAPI, "")
	return reply{http.StatusCreated, info}, err
}

func (s *Server) getTransfer(a *request) (reply, error) {
	if s.cfg.Transfers == nil {
		return reply{}, transfers.ErrNotFound
	}
	info, err := s.cfg.Transfers.Get(a.Context(), a.PathValue("transfer"))
	if err == nil && !a.token.sees(info.Account) {
		err = transfers.ErrNotFound
	}
	return reply{http.StatusOK, info}, err
}

// endTransfer cancels a transfer; one that is bridged is taken back.
func (s *Server) endTransfer(a *request) (reply, error) {
	if s.cfg.Transfers == nil {
		return reply{}, transfers.ErrNotFound
	}
	if len(a.token.Accounts) > 0 {
		if _, err := s.getTransfer(a); err != nil {
			return reply{}, err
		}
	}
	info, err := s.cfg.Transfers.End(a.Context(), a.PathValue("transfer"))
	return reply{http.StatusOK, info}, err
}
