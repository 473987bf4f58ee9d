package twilio

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"strings"
	"time"

	"voicebridge/providers"
)

// Explain implements providers.Webhooks.
func (w *webhooks) Explain(h *providers.Hook, _ time.Time) []string {
	err := w.verify(h)
	if err == nil {
		return []string{"The signature is good."}
	}
	lines := []string{"Refused: " + err.Error()}
	say := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	given := h.Header.Get("X-Twilio-Signature")
	if given == "" {
		say("Twilio signs every request. This one is not Twilio's, or a proxy has removed the header " +
			"X-Twilio-Signature.")
		return lines
	}
	signature, err := base64.StdEncoding.DecodeString(given)
	if err != nil || len(signature) != 20 {
		say("X-Twilio-Signature is not the base64 of 20 bytes: something has changed it, or it is not Twilio's.")
		return lines
	}
	data := ""
	switch kind := contentType(h); {
	case h.Method != "POST":
		say("Expected: HMAC-SHA1 with auth_token over the URL alone, %s", h.URL)
	case kind == "application/x-www-form-urlencoded":
		form, err := url.ParseQuery(string(h.Body))
		if err != nil {
			say("The body is no form, although Content-Type says so: a proxy may have changed it.")
			return lines
		}
		data = formData(form)
		say("Expected: HMAC-SHA1 with auth_token over %s and the %d parameters of the form.", h.URL, len(form))
		if sid := form.Get("AccountSid"); sid != w.cfg.AccountSID {
			say("The form is of account %.40q, but account_sid is %s: give the number the webhook of its own "+
				"account, or correct account_sid and auth_token.", sid, w.cfg.AccountSID)
			return lines
		}
	default:
		say("Expected: HMAC-SHA1 with auth_token over %s, and bodySHA256 in its query to be the hash of the body (%s).",
			h.URL, kind)
		if bodyHash(h) != nil {
			say("bodySHA256 does not fit the body: a proxy has changed the body, or cut the query off.")
			return lines
		}
	}
	var others []string
	for _, u := range h.OtherURLs() {
		others = append(others, urls(u)...)
	}
	if u := w.signed(signature, data, others); u != "" {
		say("The signature fits %s instead: that is the URL that Twilio was given.", u)
		if fix := providers.PublicURLOf(u); strings.HasPrefix(fix, "https") {
			say("Set public_url: %s", fix)
		} else {
			say("Give Twilio the https URL, and set public_url to it.")
		}
		return lines
	}
	say("The signature fits no URL that this request may have been sent to. So either auth_token is not the one of "+
		"%s (the primary token of the console; it changes when it is rotated), "+
		"or the webhook at Twilio has a URL of which public_url knows nothing, or a proxy changes the form; or the "+
		"request is not Twilio's.", w.cfg.AccountSID)
	return lines
}
