package plivolike

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"voicebridge/codec"
	"voicebridge/providers"
)

// Webhooks are those of one account.
type Webhooks struct {
	*Dialect
	cfg    Config
	format codec.Format
}

// Sign returns the signature of a text and a nonce: base64 of the HMAC-SHA256 with the
// account's token.
func Sign(token, text, nonce string) string {
	mac := hmac.New(sha256.New, []byte(token))
	mac.Write([]byte(text + "." + nonce))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// nonceHeader has what makes each signature another one.
func (d *Dialect) nonceHeader() string { return d.Signature + "-V3-Nonce" }

// given are the signatures of a request: by the account's token and, where that is of
// another account, by the main account's. A header may hold several.
func (d *Dialect) given(h http.Header) (all []string) {
	for _, name := range []string{"-V3", "-Ma-V3"} {
		for s := range strings.SplitSeq(h.Get(d.Signature+name), ",") {
			if s = strings.TrimSpace(s); s != "" {
				all = append(all, s)
			}
		}
	}
	return all
}

// Authenticate implements providers.Webhooks. A nonce may be used once.
func (w *Webhooks) Authenticate(h *providers.Hook, _ time.Time) (once string, err error) {
	if err := w.verify(h); err != nil {
		return "", err
	}
	return h.Header.Get(w.nonceHeader()), nil
}

func (w *Webhooks) verify(h *providers.Hook) error {
	given, nonce := w.given(h.Header), h.Header.Get(w.nonceHeader())
	switch {
	case len(given) == 0 || nonce == "":
		return fmt.Errorf("%s: %w: no %s-V3 header, or no nonce", w.Name, providers.ErrSignature, w.Signature)
	case !w.signs(h.Method, h.URL, h.Body, given, nonce): // without the URL, which may hold a token
		return fmt.Errorf("%s: %w: does not fit: is public_url what %s calls, and auth_token this account's?", w.Name,
			providers.ErrSignature, w.Title)
	}
	return nil
}

// signs reports whether one of the signatures is that of a request to the URL.
func (w *Webhooks) signs(method, url string, body []byte, given []string, nonce string) bool {
	for _, text := range w.Signed(method, url, body) {
		want := []byte(Sign(w.cfg.AuthToken, text, nonce))
		for _, s := range given {
			if hmac.Equal([]byte(s), want) {
				return true
			}
		}
	}
	return false
}

// Explain implements providers.Webhooks.
func (w *Webhooks) Explain(h *providers.Hook, _ time.Time) []string {
	err := w.verify(h)
	if err == nil {
		return []string{"The signature is good."}
	}
	lines := []string{"Refused: " + err.Error()}
	say := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	given, nonce := w.given(h.Header), h.Header.Get(w.nonceHeader())
	if len(given) == 0 || nonce == "" {
		say("%s signs its requests with the headers %s-V3 and %s. This one is not signed, or a proxy has removed "+
			"them.", w.Title, w.Signature, w.nonceHeader())
		return lines
	}
	say("Expected: base64 of the HMAC-SHA256 with auth_token over %q, a dot and the nonce.",
		clip(w.Signed(h.Method, h.URL, h.Body)[0]))
	for _, u := range h.OtherURLs() {
		if w.signs(h.Method, u, h.Body, given, nonce) {
			say("The signature fits %s instead: that is the URL that %s was given.", u, w.Title)
			if fix := providers.PublicURLOf(u); strings.HasPrefix(fix, "https") {
				say("Set public_url: %s", fix)
			} else {
				say("Give %s the https URL, and set public_url to it.", w.Title)
			}
			return lines
		}
	}
	say("The signature fits no URL that this request may have been sent to. So either auth_token is not that of "+
		"auth_id %s, or the application has a URL of which public_url knows nothing, or a proxy changes the form; or "+
		"the request is not %s's.", w.cfg.AuthID, w.Title)
	return lines
}

// clip shortens a text for people, and hides what it says about the call.
func clip(s string) string {
	if before, _, form := strings.Cut(s, "?"); form {
		return before + "?…"
	}
	return s
}

// once are the parameters that a webhook must not have twice.
var once = []string{"CallUUID", "CallStatus", "Event", "Digits", "DialStatus", "ConferenceAction", "Machine", "From",
	"To"}

// form reads the parameters.
func (w *Webhooks) form(h *providers.Hook) (url.Values, error) {
	if h.Method != "POST" {
		return nil, fmt.Errorf("%s: set the method of the webhook to POST", w.Name)
	}
	form, err := url.ParseQuery(string(h.Body))
	if err != nil {
		return nil, fmt.Errorf("%s: form: %w", w.Name, err)
	}
	for _, name := range once {
		if len(form[name]) > 1 {
			return nil, fmt.Errorf("%s: %s is there more than once", w.Name, name)
		}
	}
	if cmp.Or(form.Get("CallUUID"), form.Get("DialALegUUID")) == "" {
		return nil, fmt.Errorf("%s: no CallUUID", w.Name)
	}
	return form, nil
}

// Read implements providers.Webhooks. Where the application has no hangup URL, what it
// would be told comes to the answer URL: the event counts, not the URL.
func (w *Webhooks) Read(h *providers.Hook) ([]providers.CallEvent, error) {
	form, err := w.form(h)
	if err != nil {
		return nil, err
	}
	ev := providers.CallEvent{Leg: cmp.Or(form.Get("CallUUID"), form.Get("DialALegUUID")), Raw: form.Get("CallStatus")}
	for _, name := range []string{"RequestUUID", "ALegRequestUUID"} {
		if id := form.Get(name); id != "" && !ev.Is(id) {
			ev.Aliases = append(ev.Aliases, id)
		}
	}
	switch name := form.Get("Event"); {
	case form.Get("ConferenceAction") != "":
		return room(ev, form.Get("ConferenceAction")), nil
	case name == "MachineDetection" || form.Get("Machine") != "":
		ev.Kind, ev.Raw, ev.AnsweredBy = providers.CallDetected, "Machine="+form.Get("Machine"),
			providers.AnsweredByMachine
		if form.Get("Machine") == "false" {
			ev.AnsweredBy = providers.AnsweredByHuman
		}
	case name == "Hangup" || name == "Ring" || h.Purpose == providers.ForStatus && !ofStream(name):
		if ev.Raw == "" {
			return nil, fmt.Errorf("%s: no CallStatus", w.Name)
		}
		ev.Kind, ev.Status = providers.CallProgress, status(form)
	case ofStream(name) || form.Get("DialAction") != "":
		return nil, nil // of the stream as such, or of the other leg of a Dial
	case h.Purpose == providers.ForKey:
		ev.Kind, ev.Wants, ev.Digit = providers.CallKey, true, form.Get("Digits")
	case h.Purpose == providers.ForNext:
		ev.Kind, ev.Wants, ev.Raw = providers.CallStepDone, true, form.Get("DialStatus")
		ev.Status = dialStatuses[ev.Raw]
	case h.Purpose == providers.ForAnswer:
		return w.asked(ev, form)
	default:
		return nil, nil
	}
	return []providers.CallEvent{ev}, nil
}

// asked returns the events of a request for a document. That it is asked tells that a
// placed call has been answered: nothing else does.
func (w *Webhooks) asked(ev providers.CallEvent, form url.Values) ([]providers.CallEvent, error) {
	answered := ev
	ev.Kind, ev.Wants, ev.From, ev.To = providers.CallAsked, true, e164(form.Get("From")), e164(form.Get("To"))
	if ev.From == "" && ev.To == "" {
		return nil, errors.New(w.Name + ": neither From nor To")
	}
	evs := []providers.CallEvent{ev}
	if form.Get("Direction") == "outbound" && ev.Raw == "in-progress" {
		answered.Kind, answered.Status = providers.CallProgress, providers.StatusInProgress
		evs = append(evs, answered)
	}
	return evs, nil
}

// ofStream reports whether an event is of a stream as such, by one of its two names.
func ofStream(event string) bool {
	return slices.Contains([]string{"StartStream", "StopStream", "DroppedStream", "DegradedStream", "PlayedStream",
		"ClearedAudio", "started", "stopped", "failed"}, event)
}

// room returns the events of a report on a conference.
func room(ev providers.CallEvent, action string) []providers.CallEvent {
	switch action {
	case "enter":
		ev.Joined = true
	case "exit":
	default:
		return nil
	}
	ev.Kind, ev.Raw = providers.CallRoom, action
	return []providers.CallEvent{ev}
}

// statuses are the values of CallStatus.
var statuses = map[string]providers.Status{
	"queued":      providers.StatusInitiated,
	"ringing":     providers.StatusRinging,
	"in-progress": providers.StatusInProgress,
	"completed":   providers.StatusCompleted,
	"busy":        providers.StatusBusy,
	"no-answer":   providers.StatusNoAnswer,
	"timeout":     providers.StatusNoAnswer,
	"failed":      providers.StatusFailed,
	"cancel":      providers.StatusCanceled,
}

// status returns what CallStatus means. A time-out after the answer is the end of a call
// that may not last longer.
func status(form url.Values) providers.Status {
	raw := form.Get("CallStatus")
	if raw == "timeout" && form.Get("AnswerTime") != "" {
		return providers.StatusCompleted
	}
	return statusOf(raw)
}

func statusOf(raw string) providers.Status {
	if s, ok := statuses[raw]; ok {
		return s
	}
	return providers.StatusError
}

// dialStatuses are the values of DialStatus, which tells how the call to a number went.
var dialStatuses = map[string]providers.Status{
	"":          "",
	"completed": providers.StatusCompleted,
	"busy":      providers.StatusBusy,
	"no-answer": providers.StatusNoAnswer,
	"timeout":   providers.StatusNoAnswer,
	"failed":    providers.StatusFailed,
	"cancel":    providers.StatusCanceled,
}
