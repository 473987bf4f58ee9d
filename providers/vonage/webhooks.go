package vonage

import (
	"cmp"
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
// JWT with HS256 that holds the SHA-256 of the body. Its id may be used once.
func (w *webhooks) Authenticate(h *providers.Hook, now time.Time) (once string, err error) {
	c, err := w.verify(h, now)
	if err != nil {
		return "", err
	}
	return c.ID, nil
}

// verify checks a signed request, but not whether it is a repetition.
func (w *webhooks) verify(h *providers.Hook, now time.Time) (*claims, error) {
	wrong := func(format string, args ...any) (*claims, error) {
		return nil, fmt.Errorf("vonage: %w: %s", providers.ErrSignature, fmt.Sprintf(format, args...))
	}
	raw, ok := strings.CutPrefix(h.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return nil, fmt.Errorf("vonage: %w: no bearer token: are signed webhooks on for the application?",
			providers.ErrUnsigned)
	}
	var c claims
	_, err := jwt.ParseWithClaims(raw, &c, func(*jwt.Token) (any, error) { return []byte(w.cfg.SignatureSecret), nil },
		jwt.WithValidMethods([]string{"HS256"}), jwt.WithTimeFunc(func() time.Time { return now }),
		jwt.WithLeeway(maxAge))
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
	case h.Method == "POST" && subtle.ConstantTimeCompare([]byte(strings.ToLower(c.PayloadHash)),
		[]byte(hex.EncodeToString(sum[:]))) != 1:
		return wrong("payload_hash does not fit the body")
	case c.ID == "":
		return wrong("the token has no id")
	}
	return &c, nil
}

// hook is the body of the answer and event webhooks.
type hook struct {
	UUID         string `json:"uuid"`
	Conversation word   `json:"conversation_uuid"`
	From         word   `json:"from"`
	User         word   `json:"from_user"` // of the caller, where that is an app
	To           word   `json:"to"`
	Status       word   `json:"status"`
	Detail       word   `json:"detail"`
	Reason       word   `json:"reason"` // of an NCCO that Vonage could not carry out
	Began        word   `json:"start_time"`
	Duration     word   `json:"duration"`
	// Events of answering machine detection name the call so in some versions.
	CallUUID string `json:"call_uuid"`
	// A leg that has come into another conversation is told of by type, or only by
	// that conversation.
	Type word   `json:"type"`
	Into word   `json:"conversation_uuid_to"`
	DTMF digits `json:"dtmf"`
}

// word is a text that some events have as a number, and others as an object: nobody needs that
// one.
type word string

// UnmarshalJSON implements json.Unmarshaler.
func (w *word) UnmarshalJSON(b []byte) error {
	switch b[0] {
	case '"':
		return json.Unmarshal(b, (*string)(w))
	case '{', '[', 'n':
	default:
		*w = word(b)
	}
	return nil
}

// digits are those of an input, or a key that was pressed.
type digits string

// UnmarshalJSON implements json.Unmarshaler.
func (d *digits) UnmarshalJSON(b []byte) error {
	if b[0] != '{' {
		return (*word)(d).UnmarshalJSON(b)
	}
	var input struct {
		Digits word `json:"digits"`
	}
	err := json.Unmarshal(b, &input)
	*d = digits(input.Digits)
	return err
}

// ofSocket reports whether the event is of the leg to our own socket.
func (b *hook) ofSocket() bool { return strings.Contains(string(b.To), "://") }

// moved reports whether the leg has come into another conversation.
func (b *hook) moved() bool { return b.Status == "" && (b.Type == "transfer" || b.Into != "") }

func (w *webhooks) body(h *providers.Hook) (*hook, error) {
	if h.Method != "POST" {
		return nil, errors.New("vonage: set the method of the webhook to POST: only then is what it says signed")
	}
	var body hook
	if err := json.Unmarshal(h.Body, &body); err != nil {
		return nil, fmt.Errorf("vonage: body: %w", err)
	}
	body.UUID = cmp.Or(body.UUID, body.CallUUID)
	if body.UUID == "" && (h.Purpose == providers.ForAnswer || body.Conversation+body.Reason+body.Into == "") {
		return nil, errors.New("vonage: body without uuid")
	}
	return &body, nil
}

// Read implements providers.Webhooks.
func (w *webhooks) Read(h *providers.Hook) ([]providers.CallEvent, error) {
	body, err := w.body(h)
	if err != nil {
		return nil, err
	}
	ev := providers.CallEvent{Leg: body.UUID, Raw: string(cmp.Or(body.Status, body.Type))}
	switch {
	case h.Purpose == providers.ForAnswer:
		ev.Kind, ev.Wants = providers.CallAsked, true
		ev.From, ev.To = cmp.Or(e164(string(body.From)), string(body.User)), e164(string(body.To))
	case h.Purpose == providers.ForKey:
		ev.Kind, ev.Wants, ev.Digit = providers.CallKey, true, string(body.DTMF)
	case h.Purpose == providers.ForNext:
		return next(ev, body), nil
	case body.Status == "" && body.Reason != "": // of a whole conversation
		ev.Kind, ev.Raw = providers.CallNotice, string(body.Reason)
	case body.UUID == "": // a recording is there, or the like
		return nil, nil
	case body.moved(): // who leaves is told only by the end of its call
		ev.Kind, ev.Joined = providers.CallRoom, true
	case h.Purpose == providers.ForRoom:
		return nil, nil
	case body.Status == "human" || body.Status == "machine":
		ev.Kind, ev.AnsweredBy = providers.CallDetected, providers.AnsweredBy(body.Status)
	default:
		ev.Kind = providers.CallProgress
		if !body.ofSocket() {
			ev.Status = status(string(body.Status), string(body.Detail))
			ev.Unanswered = unanswered(string(body.Status), string(body.Began), string(body.Duration))
		}
	}
	return []providers.CallEvent{ev}, nil
}

// next returns the event of the leg to our socket, or to a number: those that end it
// before the other leg ask what comes next, the others say nothing.
func next(ev providers.CallEvent, body *hook) []providers.CallEvent {
	switch body.Status {
	case "disconnected", "failed", "unanswered", "timeout", "busy", "rejected", "cancelled":
	default:
		return nil
	}
	ev.Kind, ev.Wants = providers.CallStepDone, true
	if s := status(string(body.Status), string(body.Detail)); !body.ofSocket() && s.Final() {
		ev.Status = s
	}
	return []providers.CallEvent{ev}
}

// e164 puts the plus before a number, which Vonage leaves out; not before what is none that can
// be dialled, such as an extension.
func e164(s string) string {
	if providers.ValidNumber("+" + s) {
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

// unanswered reports whether a leg has completed that was never answered: it lasted no time.
// Vonage tells so of some before it tells why.
func unanswered(raw, began, duration string) bool {
	return raw == "completed" && began == "" && (duration == "" || duration == "0")
}

func status(raw, detail string) providers.Status {
	if s, ok := statuses[raw]; !ok {
		return providers.StatusError
	} else if raw != "rejected" || detail != "declined" {
		return s
	}
	return providers.StatusBusy
}
