package twilio

import (
	"cmp"
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
// all parameters in order of their names. There is no time in it, and nothing that
// could be used once.
func (w *webhooks) Authenticate(h *providers.Hook, _ time.Time) (once string, err error) {
	return "", w.verify(h)
}

func (w *webhooks) verify(h *providers.Hook) error {
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
	return fmt.Errorf("twilio: %w: does not fit: is public_url what Twilio calls, and auth_token this account's?",
		providers.ErrSignature)
}

// signed returns the first of the URLs that the signature fits; empty: none.
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

// defaultPorts are those of schemes.
var defaultPorts = map[string]string{"https": "443", "http": "80", "wss": "443", "ws": "80"}

// urls are the forms of the URL that Twilio may have signed: as it is, without its port or with
// the default one, and of a media connection with a slash at its end. Twilio signs a port in
// some requests and leaves it out of others, as its own validators know.
func urls(s string) []string {
	all := []string{s}
	u, err := url.Parse(s)
	if err != nil {
		return all
	}
	rest := s[len(u.Scheme)+len("://")+len(u.Host):]
	if port := u.Port(); port != "" {
		all = append(all, u.Scheme+"://"+strings.TrimSuffix(u.Host, ":"+port)+rest)
	} else if port = defaultPorts[u.Scheme]; port != "" {
		all = append(all, u.Scheme+"://"+u.Host+":"+port+rest)
	}
	if u.Scheme == "wss" || u.Scheme == "ws" {
		for _, s := range all {
			all = append(all, s+"/")
		}
	}
	for _, u := range all { // nothing says whether what follows '#' is signed
		all = append(all, u+retries)
	}
	return all
}

// once are the parameters that a webhook must not have twice.
var once = []string{"CallSid", "AccountSid", "CallStatus", "AnsweredBy", "DialCallStatus", "Digits",
	"StatusCallbackEvent", "From", "To"}

// form reads the parameters and checks whose they are.
func (w *webhooks) form(h *providers.Hook) (url.Values, error) {
	if h.Method != "POST" {
		return nil, errors.New("twilio: set the method of the webhook to HTTP POST")
	}
	form, err := url.ParseQuery(string(h.Body))
	if err != nil {
		return nil, fmt.Errorf("twilio: form: %w", err)
	}
	for _, name := range once {
		if len(form[name]) > 1 {
			return nil, fmt.Errorf("twilio: %s is there more than once", name)
		}
	}
	// Reports on a conference as such are of no call.
	if form.Get("CallSid") == "" && !(h.Purpose == providers.ForRoom && form.Get("ConferenceSid") != "") {
		return nil, errors.New("twilio: no CallSid")
	}
	if form.Get("AccountSid") != w.cfg.AccountSID {
		return nil, errors.New("twilio: AccountSid is not this account's")
	}
	return form, nil
}

// Read implements providers.Webhooks: requests of all kinds are alike, so the purpose
// of the URL tells what one is about.
func (w *webhooks) Read(h *providers.Hook) ([]providers.CallEvent, error) {
	form, err := w.form(h)
	if err != nil {
		return nil, err
	}
	ev := providers.CallEvent{Leg: form.Get("CallSid")}
	switch h.Purpose {
	case providers.ForAnswer:
		ev.Kind, ev.Wants = providers.CallAsked, true
		ev.From, ev.To, ev.Forward = caller(form.Get("From")), form.Get("To"), form.Get("CallToken")
	case providers.ForNext:
		ev.Kind, ev.Wants, ev.Raw = providers.CallStepDone, true, form.Get("DialCallStatus")
		ev.Status = dialStatus(ev.Raw)
	case providers.ForKey:
		ev.Kind, ev.Wants, ev.Digit = providers.CallKey, true, form.Get("Digits")
	case providers.ForRoom:
		return room(ev, form.Get("StatusCallbackEvent")), nil
	default:
		if why := cmp.Or(form.Get("StreamError"), form.Get("ErrorMessage")); why != "" {
			ev.Kind, ev.Raw = providers.CallNotice, why
			return []providers.CallEvent{ev}, nil
		}
		// Of recordings, and streams that begin and end, nothing is said.
		return progress(ev.Leg, form.Get("CallStatus"), form.Get("AnsweredBy")), nil
	}
	return []providers.CallEvent{ev}, nil
}

// withheld are the numbers that Twilio shows for callers who show none.
var withheld = map[string]bool{"+266696687": true, "+7378742833": true, "+2562533": true, "+8656696": true,
	"+86282452253": true}

// caller returns who calls; anonymous where the number is withheld.
func caller(from string) string {
	if withheld[from] {
		return "anonymous"
	}
	return from
}

// dialStatus returns how the call to a number went, as the action of a Dial is told.
// Of a conference it is "answered".
func dialStatus(raw string) providers.Status {
	switch raw {
	case "":
		return ""
	case "answered":
		return providers.StatusCompleted
	}
	return status(raw)
}

// room returns the events of a report on a conference; other reports than those of who
// comes and goes say nothing.
func room(ev providers.CallEvent, name string) []providers.CallEvent {
	if ev.Leg == "" { // of the conference as such
		return nil
	}
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

// progress returns what a report tells: a status, who has answered, or both. The
// report of answering machine detection has no status.
func progress(leg, raw, by string) (list []providers.CallEvent) {
	if by != "" {
		who, ok := answeredBy[by]
		if !ok {
			who = providers.AnsweredByUnknown
		}
		list = append(list, providers.CallEvent{Kind: providers.CallDetected, Leg: leg, Raw: by, AnsweredBy: who})
	}
	if raw != "" {
		list = append(list, providers.CallEvent{Kind: providers.CallProgress, Leg: leg, Raw: raw, Status: status(raw)})
	}
	return list
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

func status(raw string) providers.Status {
	if s, ok := statuses[raw]; ok {
		return s
	}
	return providers.StatusError
}
