package twilio

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"mime"
	"net/url"
	"slices"
	"strings"
	"time"

	"voicebridge/providers"
)

// Config is an account's block of the configuration.
type Config struct {
	AccountSID string `yaml:"account_sid"`
	AuthToken  string `yaml:"auth_token"`
}

// Webhooks are those of one Twilio account.
type Webhooks struct{ cfg Config }

// NewWebhooks implements providers.Spec.
func NewWebhooks(decode func(any) error) (providers.Webhooks, error) {
	var cfg Config
	if err := decode(&cfg); err != nil {
		return nil, err
	}
	if !strings.HasPrefix(cfg.AccountSID, "AC") {
		return nil, errors.New("account_sid: must be the SID of the account, which begins with AC")
	}
	if cfg.AuthToken == "" {
		return nil, errors.New("auth_token: must be the account's auth token: webhooks are signed with it")
	}
	return &Webhooks{cfg}, nil
}

// Authenticate implements providers.Webhooks, after Twilio's "Security" page: the
// header X-Twilio-Signature is the HMAC-SHA1 of the URL, followed for forms by
// all parameters in order of their names. There is no time in it.
func (w *Webhooks) Authenticate(h *providers.Hook, _ time.Time) error {
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
	for _, u := range urls(h.URL) {
		mac := hmac.New(sha1.New, []byte(w.cfg.AuthToken))
		mac.Write([]byte(u + data))
		if hmac.Equal(mac.Sum(nil), want) {
			return nil
		}
	}
	return fmt.Errorf("twilio: %w: does not fit %s: is public_url what Twilio calls, and auth_token this account's?", providers.ErrSignature, h.URL)
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

// urls are the forms of the URL that Twilio may have signed: as it is, and with
// or without the default port.
func urls(s string) []string {
	all := []string{s}
	u, err := url.Parse(s)
	if err != nil {
		return all
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

// form reads the parameters, each once, and checks whose they are.
func (w *Webhooks) form(h *providers.Hook) (url.Values, error) {
	form, err := url.ParseQuery(string(h.Body))
	if err != nil {
		return nil, fmt.Errorf("twilio: form: %w", err)
	}
	for _, name := range []string{"CallSid", "AccountSid", "CallStatus"} {
		if len(form[name]) != 1 || form[name][0] == "" {
			return nil, fmt.Errorf("twilio: %s must be there once", name)
		}
	}
	if form.Get("AccountSid") != w.cfg.AccountSID {
		return nil, errors.New("twilio: AccountSid is another account's")
	}
	return form, nil
}

// Inbound implements providers.Webhooks.
func (w *Webhooks) Inbound(h *providers.Hook) (*providers.InboundCall, error) {
	form, err := w.form(h)
	if err != nil {
		return nil, err
	}
	return &providers.InboundCall{ID: form.Get("CallSid"), From: form.Get("From"), To: form.Get("To")}, nil
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

// Status implements providers.Webhooks.
func (w *Webhooks) Status(h *providers.Hook) (*providers.StatusReport, error) {
	form, err := w.form(h)
	if err != nil {
		return nil, err
	}
	raw := form.Get("CallStatus")
	status, ok := statuses[raw]
	if !ok {
		status = providers.StatusError
	}
	return &providers.StatusReport{Call: form.Get("CallSid"), Status: status, Raw: raw}, nil
}

// The answer documents, in TwiML.
type (
	twiml struct {
		XMLName xml.Name `xml:"Response"`
		Connect *connect
		Say     string    `xml:",omitempty"`
		Hangup  *struct{} `xml:"Hangup"`
	}
	connect struct{ Stream streamElement }
	// streamElement has no query in its URL: Twilio drops it.
	streamElement struct {
		URL string `xml:"url,attr"`
	}
)

func document(t twiml) (providers.Document, error) {
	var b bytes.Buffer
	b.WriteString(xml.Header)
	if err := xml.NewEncoder(&b).Encode(t); err != nil {
		return providers.Document{}, fmt.Errorf("twilio: twiml: %w", err)
	}
	return providers.Document{ContentType: "application/xml", Body: b.Bytes()}, nil
}

// Connect implements providers.Webhooks. Nothing follows the stream, so the call
// ends with it.
func (w *Webhooks) Connect(media string) (providers.Document, error) {
	return document(twiml{Connect: &connect{streamElement{media}}})
}

// Refuse implements providers.Webhooks.
func (w *Webhooks) Refuse(text string) (providers.Document, error) {
	return document(twiml{Say: text, Hangup: &struct{}{}})
}
