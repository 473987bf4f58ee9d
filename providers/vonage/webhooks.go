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

// webhooks are those of one application.
type webhooks struct {
	cfg    Config
	format codec.Format
	seen   providers.Once // ids of tokens, until they are too old anyway
}

// maxAge is how old, or how far in the future, a signed request may be: Vonage's
// tokens do not expire by themselves.
const maxAge = 5 * time.Minute

// claims of a signed webhook.
type claims struct {
	jwt.RegisteredClaims
	PayloadHash   string `json:"payload_hash"`
	APIKey        string `json:"api_key"`
	ApplicationID string `json:"application_id"`
}

// Authenticate implements providers.Webhooks, after Vonage's "Signed webhooks": a
// JWT with HS256 that holds the SHA-256 of the body. Each is taken once.
func (w *webhooks) Authenticate(h *providers.Hook, now time.Time) error {
	c, err := w.verify(h, now)
	if err == nil && !w.seen.First(c.ID, now, now.Add(2*maxAge)) {
		return fmt.Errorf("vonage: %w: the token has been used before", providers.ErrSignature)
	}
	return err
}

// verify checks a signed request, but not whether it is a repetition.
func (w *webhooks) verify(h *providers.Hook, now time.Time) (*claims, error) {
	wrong := func(format string, args ...any) (*claims, error) {
		return nil, fmt.Errorf("vonage: %w: %s", providers.ErrSignature, fmt.Sprintf(format, args...))
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
	case c.ID == "":
		return wrong("the token has no id")
	}
	return &c, nil
}

// hook is the body of the answer and event webhooks.
type hook struct {
	UUID   string `json:"uuid"`
	From   string `json:"from"`
	To     string `json:"to"`
	Status string `json:"status"`
	Detail string `json:"detail"`
	// Events of answering machine detection name the call so in some versions.
	CallUUID string `json:"call_uuid"`
	Type     string `json:"type"` // transfer: the leg has come into another conversation
	DTMF     struct {
		Digits string `json:"digits"`
	} `json:"dtmf"`
}

func (w *webhooks) read(h *providers.Hook) (*hook, error) {
	if h.Method != "POST" {
		return nil, errors.New("vonage: set the method of the webhook to POST: only then is what it says signed")
	}
	var body hook
	if err := json.Unmarshal(h.Body, &body); err != nil {
		return nil, fmt.Errorf("vonage: body: %w", err)
	}
	if body.UUID == "" {
		body.UUID = body.CallUUID
	}
	if body.UUID == "" {
		return nil, errors.New("vonage: body without uuid")
	}
	return &body, nil
}

// Inbound implements providers.Webhooks.
func (w *webhooks) Inbound(h *providers.Hook) (*providers.InboundCall, error) {
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
func (w *webhooks) Status(h *providers.Hook) (*providers.StatusReport, error) {
	body, err := w.read(h)
	if err != nil {
		return nil, err
	}
	r := &providers.StatusReport{Call: body.UUID, Raw: body.Status, Status: status(body.Status, body.Detail)}
	switch {
	case body.Type == "transfer" && body.Status == "":
		r.Joined, r.Raw = true, body.Type
	case strings.Contains(body.To, "://"): // the leg to our own socket
		r.Status = ""
	case body.Status == "human" || body.Status == "machine":
		r.AnsweredBy = providers.AnsweredBy(body.Status)
	}
	return r, nil
}

func status(raw, detail string) providers.Status {
	if s, ok := statuses[raw]; !ok {
		return providers.StatusError
	} else if raw != "rejected" || detail != "declined" {
		return s
	}
	return providers.StatusBusy
}

// Next implements providers.Webhooks: of the events of the leg to our socket, or to
// a number, those that end it before the other leg ask what comes next.
func (w *webhooks) Next(h *providers.Hook) (*providers.NextReport, error) {
	body, err := w.read(h)
	if err != nil {
		return nil, err
	}
	r := &providers.NextReport{}
	switch body.Status {
	case "disconnected", "failed", "unanswered", "timeout", "busy", "rejected", "cancelled":
		r.Ended = true
	}
	if s := status(body.Status, body.Detail); !strings.Contains(body.To, "://") && s.Final() {
		r.Dial = s
	}
	return r, nil
}

// Digit implements providers.Webhooks.
func (w *webhooks) Digit(h *providers.Hook) (string, error) {
	body, err := w.read(h)
	if err != nil {
		return "", err
	}
	return body.DTMF.Digits, nil
}

// Room implements providers.Webhooks: Vonage tells of those who come, and of those
// who go only by the end of their call.
func (w *webhooks) Room(h *providers.Hook) (*providers.RoomReport, error) {
	body, err := w.read(h)
	if err != nil {
		return nil, err
	}
	return &providers.RoomReport{Call: body.UUID, Joined: body.Type == "transfer"}, nil
}
