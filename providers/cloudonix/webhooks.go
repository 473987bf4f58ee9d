package cloudonix

import (
	"cmp"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"voicebridge/providers"
)

// webhooks are those of one domain.
type webhooks struct{ cfg Config }

// Authenticate implements providers.Webhooks. Nothing is signed: a header shows a secret.
func (w *webhooks) Authenticate(h *providers.Hook, _ time.Time) (once string, err error) {
	given := sha256.Sum256([]byte(h.Header.Get(w.cfg.WebhookHeader)))
	want := sha256.Sum256([]byte(w.cfg.WebhookSecret))
	if subtle.ConstantTimeCompare(given[:], want[:]) == 1 {
		return "", nil
	}
	why := "is not the domain's: check api_key, or webhook_secret"
	if h.Header.Get(w.cfg.WebhookHeader) == "" {
		why = "is missing"
	}
	return "", fmt.Errorf("cloudonix: %w: the header %s %s", providers.ErrSignature, w.cfg.WebhookHeader, why)
}

// Explain implements providers.Webhooks.
func (w *webhooks) Explain(h *providers.Hook, now time.Time) []string {
	_, err := w.Authenticate(h, now)
	if err == nil {
		return []string{"The secret is good. Nothing else is signed."}
	}
	lines := []string{"Refused: " + err.Error()}
	if h.Header.Get(w.cfg.WebhookHeader) == "" {
		return append(lines, fmt.Sprintf("Cloudonix shows the domain's API key in the header %s. A proxy may have "+
			"removed it, or the request is not Cloudonix'; where your domain shows another header, set webhook_header "+
			"and webhook_secret.", w.cfg.WebhookHeader))
	}
	if domain := h.Header.Get("x-cx-domain"); domain != "" && domain != w.cfg.Domain {
		return append(lines, fmt.Sprintf("It is of the domain %.60q, but domain is %s: each domain has a key of "+
			"its own.",
			domain, w.cfg.Domain))
	}
	return append(lines, "The secret is another one. Has the domain's API key been changed?")
}

// hook is what any webhook says: a voice application's request and what is like it, a
// session, or a call's record.
type hook struct {
	CallSid    string
	Session    string
	From, To   string
	CallStatus string
	Digits     string
	Event      string `json:"StatusCallbackEvent"`

	Token    string          `json:"token"` // of a session
	Status   string          `json:"status"`
	Ended    json.RawMessage `json:"callEndTime"`
	Answered json.RawMessage `json:"callAnswerTime"`

	Disposition string `json:"disposition"` // of a record
	Of          struct {
		Token string `json:"token"`
	} `json:"session"`
}

// body reads a webhook: JSON, of which sessions may come as a list of one, or a form, or
// parameters of the URL.
func body(h *providers.Hook) (*hook, error) {
	text := strings.TrimSpace(string(h.Body))
	var b hook
	switch {
	case strings.HasPrefix(text, "["):
		var list []hook
		if err := json.Unmarshal([]byte(text), &list); err != nil || len(list) != 1 {
			return nil, fmt.Errorf("cloudonix: a list that is not of one session: %d, %w", len(list), err)
		}
		b = list[0]
	case strings.HasPrefix(text, "{"):
		if err := json.Unmarshal([]byte(text), &b); err != nil {
			return nil, fmt.Errorf("cloudonix: body: %w", err)
		}
	default:
		if h.Method == "GET" {
			_, text, _ = strings.Cut(h.URL, "?")
		}
		form, err := url.ParseQuery(text)
		if err != nil {
			return nil, fmt.Errorf("cloudonix: form: %w", err)
		}
		b = hook{CallSid: form.Get("CallSid"), Session: form.Get("Session"), From: form.Get("From"), To: form.Get("To"),
			CallStatus: form.Get("CallStatus"), Digits: form.Get("Digits"), Event: form.Get("StatusCallbackEvent")}
	}
	if b.leg() == "" {
		return nil, errors.New("cloudonix: no session")
	}
	return &b, nil
}

func (b *hook) leg() string { return cmp.Or(b.Session, b.Token, b.Of.Token) }

// Read implements providers.Webhooks.
func (w *webhooks) Read(h *providers.Hook) ([]providers.CallEvent, error) {
	b, err := body(h)
	if err != nil {
		return nil, err
	}
	ev := providers.CallEvent{Leg: b.leg(), Raw: cmp.Or(b.Disposition, b.Status, b.CallStatus)}
	if b.CallSid != "" {
		ev.Aliases = []string{b.CallSid}
	}
	switch {
	case b.Event != "":
		return room(ev, b.Event), nil
	case b.Disposition != "":
		ev.Kind, ev.Status = providers.CallProgress, status(strings.ToLower(b.Disposition))
	case b.Token != "":
		ev.Kind, ev.Status = providers.CallProgress, b.status()
	case h.Purpose == providers.ForAnswer:
		ev.Kind, ev.Wants, ev.From, ev.To = providers.CallAsked, true, e164(b.From), e164(b.To)
	case h.Purpose == providers.ForKey:
		ev.Kind, ev.Wants, ev.Digit = providers.CallKey, true, b.Digits
	case h.Purpose == providers.ForNext:
		ev.Kind, ev.Wants = providers.CallStepDone, true
		if s := status(b.CallStatus); s.Final() { // how the call to a number went
			ev.Status = s
		}
	case h.Purpose == providers.ForStatus:
		ev.Kind, ev.Status = providers.CallProgress, status(b.CallStatus)
	default:
		return nil, nil
	}
	return []providers.CallEvent{ev}, nil
}

// e164 puts the plus before a number, which some webhooks leave out.
func e164(s string) string {
	if providers.ValidNumber("+" + s) {
		return "+" + s
	}
	return s
}

// room returns the events of a report on a conference.
func room(ev providers.CallEvent, name string) []providers.CallEvent {
	switch name {
	case "participant-join":
		ev.Joined = true
	case "participant-leave":
	default:
		return nil
	}
	ev.Kind, ev.Raw = providers.CallRoom, name
	return []providers.CallEvent{ev}
}

// status is that of a session. One that was connected and has ended is still called
// connected.
func (b *hook) status() providers.Status {
	s := status(b.Status)
	if s == providers.StatusInProgress && len(b.Ended) > 0 && string(b.Ended) != "null" {
		return providers.StatusCompleted
	}
	return s
}

// statuses are those of sessions, of requests and, in lower case, of records.
var statuses = map[string]providers.Status{
	"new": providers.StatusInitiated, "processing": providers.StatusInitiated, "initiated": providers.StatusInitiated,
	"queued": providers.StatusInitiated, "ringing": providers.StatusRinging,
	"connected": providers.StatusInProgress, "answered": providers.StatusInProgress,
	"in-progress": providers.StatusInProgress,
	"answer":      providers.StatusCompleted, "completed": providers.StatusCompleted,
	"busy": providers.StatusBusy, "noanswer": providers.StatusNoAnswer, "no-answer": providers.StatusNoAnswer,
	"cancel": providers.StatusCanceled, "canceled": providers.StatusCanceled,
	"failed": providers.StatusFailed, "congestion": providers.StatusFailed, "nocredit": providers.StatusFailed,
	"error": providers.StatusFailed, // of a session: it has not come about
}

func status(raw string) providers.Status {
	if s, ok := statuses[raw]; ok {
		return s
	}
	return providers.StatusError
}
