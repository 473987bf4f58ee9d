package twilio

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"mime"
	"net/url"
	"slices"
	"strings"
	"time"

	"voicebridge/providers"
)

// webhooks are those of one account.
type webhooks struct{ cfg Config }

// Authenticate implements providers.Webhooks, after Twilio's "Security" page: the
// header X-Twilio-Signature is the HMAC-SHA1 of the URL, followed for forms by
// all parameters in order of their names. There is no time in it.
func (w *webhooks) Authenticate(h *providers.Hook, _ time.Time) error {
	given := h.Header.Get("X-Twilio-Signature")
	if given == "" {
		return fmt.Errorf("twilio: %w: no X-Twilio-Signature header", providers.ErrSignature)
	}
	data := ""
	switch kind := contentType(h); {
	case h.Method != "POST":
	case kind == "application/x-www-form-urlencoded":
		form, err := url.ParseQuery(string(h.Body))
		if err != nil {
			return fmt.Errorf("twilio: %w: the body is not a form", providers.ErrSignature)
		}
		if sid := form.Get("AccountSid"); sid != w.cfg.AccountSID && sid != "" {
			return fmt.Errorf("twilio: %w: AccountSid is not this account's", providers.ErrSignature)
		}
		data = formData(form)
	default: // JSON: its hash is in the query of the URL, which is signed
		if err := bodyHash(h); err != nil {
			return err
		}
	}
	want, err := base64.StdEncoding.DecodeString(given)
	if err != nil {
		return fmt.Errorf("twilio: %w: not base64", providers.ErrSignature)
	}
	if w.signed(want, data, urls(h.URL)) != "" {
		return nil
	}
	// Without the URL, which may hold a token.
	return fmt.Errorf("twilio: %w: does not fit: is public_url what Twilio calls, and auth_token this account's?", providers.ErrSignature)
}

// signed gives the first of the URLs that the signature fits; empty: none.
func (w *webhooks) signed(signature []byte, data string, urls []string) string {
	for _, u := range urls {
		mac := hmac.New(sha1.New, []byte(w.cfg.AuthToken))
		mac.Write([]byte(u + data))
		if hmac.Equal(mac.Sum(nil), signature) {
			return u
		}
	}
	return ""
}

func contentType(h *providers.Hook) string {
	kind, _, _ := mime.ParseMediaType(h.Header.Get("Content-Type"))
	return kind
}

// formData is name and value of each parameter, a repeated one with each of its
// different values, all in order.
func formData(form url.Values) string {
	var names []string
	for n := range form {
		names = append(names, n)
	}
	slices.Sort(names)
	var b strings.Builder
	for _, n := range names {
		values := slices.Clone(form[n])
		slices.Sort(values)
		for _, v := range slices.Compact(values) {
			b.WriteString(n + v)
		}
	}
	return b.String()
}

func bodyHash(h *providers.Hook) error {
	u, err := url.Parse(h.URL)
	if err != nil {
		return fmt.Errorf("twilio: %w: URL: %w", providers.ErrSignature, err)
	}
	sum := sha256.Sum256(h.Body)
	given := strings.ToLower(u.Query().Get("bodySHA256"))
	if subtle.ConstantTimeCompare([]byte(given), []byte(hex.EncodeToString(sum[:]))) != 1 {
		return fmt.Errorf("twilio: %w: bodySHA256 does not fit the body", providers.ErrSignature)
	}
	return nil
}

// urls are the forms of the URL that Twilio may have signed: as it is, with or
// without the default port, and of a media connection with a slash at its end.
func urls(s string) []string {
	all := []string{s}
	u, err := url.Parse(s)
	if err != nil {
		return all
	}
	if u.Scheme == "wss" || u.Scheme == "ws" {
		all = append(all, s+"/")
	}
	port := map[string]string{"https": "443", "http": "80", "wss": "443"}[u.Scheme]
	rest := s[len(u.Scheme)+len("://")+len(u.Host):]
	switch {
	case u.Port() == "" && port != "":
		all = append(all, u.Scheme+"://"+u.Host+":"+port+rest)
	case u.Port() == port:
		all = append(all, u.Scheme+"://"+strings.TrimSuffix(u.Host, ":"+port)+rest)
	}
	return all
}

// form reads the parameters, each of those named once, and checks whose they are.
func (w *webhooks) form(h *providers.Hook) (url.Values, error) {
	if h.Method != "POST" {
		return nil, errors.New("twilio: set the method of the webhook to HTTP POST")
	}
	form, err := url.ParseQuery(string(h.Body))
	if err != nil {
		return nil, fmt.Errorf("twilio: form: %w", err)
	}
	for _, name := range []string{"CallSid", "AccountSid", "CallStatus", "AnsweredBy", "DialCallStatus", "Digits", "StatusCallbackEvent", "From", "To"} {
		if len(form[name]) > 1 {
			return nil, fmt.Errorf("twilio: %s is there more than once", name)
		}
	}
	if form.Get("CallSid") == "" {
		return nil, errors.New("twilio: no CallSid")
	}
	if form.Get("AccountSid") != w.cfg.AccountSID {
		return nil, errors.New("twilio: AccountSid is not this account's")
	}
	return form, nil
}

// Inbound implements providers.Webhooks.
func (w *webhooks) Inbound(h *providers.Hook) (*providers.InboundCall, error) {
	form, err := w.form(h)
	if err != nil {
		return nil, err
	}
	return &providers.InboundCall{ID: form.Get("CallSid"), From: form.Get("From"), To: form.Get("To")}, nil
}

// Next implements providers.Webhooks: Twilio asks when the stream has ended, and at
// the action of a Dial, where DialCallStatus says how that went. Of a conference it
// is "answered".
func (w *webhooks) Next(h *providers.Hook) (*providers.NextReport, error) {
	form, err := w.form(h)
	if err != nil {
		return nil, err
	}
	r := &providers.NextReport{Ended: true}
	switch raw := form.Get("DialCallStatus"); raw {
	case "":
	case "answered":
		r.Dial = providers.StatusCompleted
	default:
		r.Dial = status(raw)
	}
	return r, nil
}

// Digit implements providers.Webhooks.
func (w *webhooks) Digit(h *providers.Hook) (string, error) {
	form, err := w.form(h)
	return form.Get("Digits"), err
}

// Room implements providers.Webhooks.
func (w *webhooks) Room(h *providers.Hook) (*providers.RoomReport, error) {
	if h.Method == "POST" && !bytes.Contains(h.Body, []byte("CallSid=")) { // of the conference, not of one in it
		return &providers.RoomReport{}, nil
	}
	form, err := w.form(h)
	if err != nil {
		return nil, err
	}
	event := form.Get("StatusCallbackEvent")
	return &providers.RoomReport{Call: form.Get("CallSid"), Joined: event == "participant-join", Left: event == "participant-leave"}, nil
}

// statuses are the values of CallStatus.
var statuses = map[string]providers.Status{
	"queued":      providers.StatusInitiated,
	"initiated":   providers.StatusInitiated,
	"ringing":     providers.StatusRinging,
	"in-progress": providers.StatusInProgress,
	"completed":   providers.StatusCompleted,
	"busy":        providers.StatusBusy,
	"no-answer":   providers.StatusNoAnswer,
	"failed":      providers.StatusFailed,
	"canceled":    providers.StatusCanceled,
}

// answeredBy are the values of AnsweredBy.
var answeredBy = map[string]providers.AnsweredBy{
	"human":               providers.AnsweredByHuman,
	"machine_start":       providers.AnsweredByMachine,
	"machine_end_beep":    providers.AnsweredByMachine,
	"machine_end_silence": providers.AnsweredByMachine,
	"machine_end_other":   providers.AnsweredByMachine,
	"fax":                 providers.AnsweredByFax,
	"unknown":             providers.AnsweredByUnknown,
}

// Status implements providers.Webhooks. The report of answering machine detection
// has no CallStatus.
func (w *webhooks) Status(h *providers.Hook) (*providers.StatusReport, error) {
	form, err := w.form(h)
	if err != nil {
		return nil, err
	}
	r := &providers.StatusReport{Call: form.Get("CallSid"), Raw: form.Get("CallStatus")}
	if by := form.Get("AnsweredBy"); by != "" {
		var ok bool
		if r.AnsweredBy, ok = answeredBy[by]; !ok {
			r.AnsweredBy = providers.AnsweredByUnknown
		}
		if r.Raw == "" {
			r.Raw = by
			return r, nil
		}
	}
	if r.Raw == "" {
		return nil, errors.New("twilio: neither CallStatus nor AnsweredBy")
	}
	r.Status = status(r.Raw)
	return r, nil
}

func status(raw string) providers.Status {
	if s, ok := statuses[raw]; ok {
		return s
	}
	return providers.StatusError
}
