package vonage

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"voicebridge/codec"
	"voicebridge/providers"
)

// Config is an account's block of the configuration.
type Config struct {
	APIKey          string `yaml:"api_key"`
	ApplicationID   string `yaml:"application_id"`
	SignatureSecret string `yaml:"signature_secret"`
	Rate            int    `yaml:"rate"` // of the audio, Hz; 0: 16000
}

// Webhooks are those of one Vonage application.
type Webhooks struct {
	cfg    Config
	format codec.Format
	seen   providers.Once // ids of tokens, until they are too old anyway
}

// maxAge is how old, or how far in the future, a signed request may be: Vonage's
// tokens do not expire by themselves.
const maxAge = 5 * time.Minute

// NewWebhooks implements providers.Spec.
func NewWebhooks(decode func(any) error) (providers.Webhooks, error) {
	w := &Webhooks{cfg: Config{Rate: 16000}}
	if err := decode(&w.cfg); err != nil {
		return nil, err
	}
	for _, f := range formats {
		if f.Rate == w.cfg.Rate {
			w.format = f
		}
	}
	switch {
	case w.cfg.APIKey == "":
		return nil, errors.New("api_key: must be the account's API key")
	case w.cfg.ApplicationID == "":
		return nil, errors.New("application_id: must be the application's id")
	case len(w.cfg.SignatureSecret) < 16:
		return nil, errors.New("signature_secret: must be the account's signature secret: webhooks are signed with it")
	case w.format.Rate == 0:
		return nil, fmt.Errorf("rate: %d must be 8000, 16000 or 24000", w.cfg.Rate)
	}
	return w, nil
}

// claims of a signed webhook.
type claims struct {
	jwt.RegisteredClaims
	PayloadHash   string `json:"payload_hash"`
	APIKey        string `json:"api_key"`
	ApplicationID string `json:"application_id"`
}

// Authenticate implements providers.Webhooks, after Vonage's "Signed webhooks": a
// JWT with HS256 that holds the SHA-256 of the body. Each is taken once.
func (w *Webhooks) Authenticate(h *providers.Hook, now time.Time) error {
	wrong := func(format string, args ...any) error {
		return fmt.Errorf("vonage: %w: %s", providers.ErrSignature, fmt.Sprintf(format, args...))
	}
	raw, ok := strings.CutPrefix(h.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return wrong("no bearer token: are signed webhooks on for the application?")
	}
	var c claims
	_, err := jwt.ParseWithClaims(raw, &c, func(*jwt.Token) (any, error) { return []byte(w.cfg.SignatureSecret), nil },
		jwt.WithValidMethods([]string{"HS256"}), jwt.WithTimeFunc(func() time.Time { return now }), jwt.WithLeeway(maxAge))
	sum := sha256.Sum256(h.Body)
	switch {
	case err != nil:
		return wrong("%v", err)
	case c.IssuedAt == nil || now.Sub(c.IssuedAt.Time).Abs() > maxAge:
		return wrong("the token is older than %v, or has no time", maxAge)
	case c.Issuer != "Vonage":
		return wrong("the issuer is not Vonage")
	case c.APIKey != w.cfg.APIKey || c.ApplicationID != w.cfg.ApplicationID:
		return wrong("it is of another account or application: check api_key and application_id")
	case h.Method == "POST" && subtle.ConstantTimeCompare([]byte(strings.ToLower(c.PayloadHash)), []byte(hex.EncodeToString(sum[:]))) != 1:
		return wrong("payload_hash does not fit the body")
	case c.ID == "" || !w.seen.First(c.ID, now, now.Add(2*maxAge)):
		return wrong("the token has been used before, or has no id")
	}
	return nil
}

// hook is the body of the answer and event webhooks.
type hook struct {
	UUID   string `json:"uuid"`
	From   string `json:"from"`
	To     string `json:"to"`
	Status string `json:"status"`
	Detail string `json:"detail"`
}

func (w *Webhooks) read(h *providers.Hook) (*hook, error) {
	if h.Method != "POST" {
		return nil, errors.New("vonage: set the method of the webhook to POST: only then is what it says signed")
	}
	var body hook
	if err := json.Unmarshal(h.Body, &body); err != nil {
		return nil, fmt.Errorf("vonage: body: %w", err)
	}
	if body.UUID == "" {
		return nil, errors.New("vonage: body without uuid")
	}
	return &body, nil
}

// Inbound implements providers.Webhooks.
func (w *Webhooks) Inbound(h *providers.Hook) (*providers.InboundCall, error) {
	body, err := w.read(h)
	if err != nil {
		return nil, err
	}
	return &providers.InboundCall{ID: body.UUID, From: e164(body.From), To: e164(body.To)}, nil
}

// e164 puts the plus before a number, which Vonage leaves out.
func e164(s string) string {
	if s != "" && strings.Trim(s, "0123456789") == "" {
		return "+" + s
	}
	return s
}

// statuses are the values of status. Those that are empty say nothing about the
// state of a call.
var statuses = map[string]providers.Status{
	"started":      providers.StatusInitiated,
	"ringing":      providers.StatusRinging,
	"answered":     providers.StatusInProgress,
	"completed":    providers.StatusCompleted,
	"busy":         providers.StatusBusy,
	"timeout":      providers.StatusNoAnswer,
	"unanswered":   providers.StatusNoAnswer,
	"cancelled":    providers.StatusCanceled,
	"rejected":     providers.StatusFailed,
	"failed":       providers.StatusFailed,
	"disconnected": "", // the WebSocket leg, not the call
	"human":        "",
	"machine":      "",
	"record":       "",
	"input":        "",
	"":             "", // transfers have a type instead
}

// Status implements providers.Webhooks.
func (w *Webhooks) Status(h *providers.Hook) (*providers.StatusReport, error) {
	body, err := w.read(h)
	if err != nil {
		return nil, err
	}
	status, ok := statuses[body.Status]
	switch {
	case !ok:
		status = providers.StatusError
	case body.Status == "rejected" && body.Detail == "declined":
		status = providers.StatusBusy
	case strings.Contains(body.To, "://"): // the leg to our own socket
		status = ""
	}
	return &providers.StatusReport{Call: body.UUID, Status: status, Raw: body.Status}, nil
}

func document(actions ...any) (providers.Document, error) {
	b, err := json.Marshal(actions)
	if err != nil {
		return providers.Document{}, fmt.Errorf("vonage: ncco: %w", err)
	}
	return providers.Document{ContentType: "application/json", Body: b}, nil
}

// Connect implements providers.Webhooks. Nothing follows, so the call ends with
// the stream.
func (w *Webhooks) Connect(media string) (providers.Document, error) {
	return document(map[string]any{
		"action": "connect",
		"endpoint": []any{map[string]any{
			"type": "websocket", "uri": media, "content-type": contentType(w.format),
		}},
	})
}

// Refuse implements providers.Webhooks: the call ends when the list does.
func (w *Webhooks) Refuse(text string) (providers.Document, error) {
	return document(map[string]string{"action": "talk", "text": text})
}
