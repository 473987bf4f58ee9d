package cloudonix

import (
	"bytes"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"voicebridge/codec"
	"voicebridge/providers"
	"voicebridge/providers/internal/rest"
	"voicebridge/providers/internal/twiliomedia"
	"voicebridge/providers/internal/xmldoc"
)

// exchange is Cloudonix' own end of a domain.
type exchange struct{ cfg Config }

// NewExchange implements providers.Spec.
func NewExchange(setup providers.Setup) (providers.Exchange, error) {
	cfg, _, err := readConfig(setup)
	return &exchange{cfg}, err
}

// simulated is how many requests a simulated Cloudonix takes in ten seconds.
const simulated = 1_000_000

// Sample implements providers.Spec.
func Sample(baseURL string, _ codec.Format) func(any) error {
	cfg := Config{Domain: "acme" + domains, APIKey: "XI-" + rand.Text(), BaseURL: baseURL, Requests: simulated}
	return func(c any) error {
		*c.(*Config) = cfg
		return nil
	}
}

func newID(prefix string) string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return prefix + hex.EncodeToString(b[:])
}

// NewCall implements providers.Exchange. The alias is the CallSid of webhooks.
func (*exchange) NewCall() providers.Leg {
	return providers.Leg{ID: newID("a"), Aliases: []string{newID("c")}}
}

// words are the statuses of sessions.
var words = map[providers.Status]string{
	providers.StatusInitiated: "new", providers.StatusRinging: "ringing", providers.StatusInProgress: "connected",
	providers.StatusCompleted: "connected", providers.StatusBusy: "busy", providers.StatusNoAnswer: "noanswer",
	providers.StatusFailed: "failed", providers.StatusCanceled: "cancel",
}

// dispositions are those of records.
var dispositions = map[providers.Status]string{
	providers.StatusCompleted: "ANSWER", providers.StatusBusy: "BUSY", providers.StatusNoAnswer: "NOANSWER",
	providers.StatusFailed: "FAILED", providers.StatusCanceled: "CANCEL",
}

// Ask implements providers.Exchange.
func (x *exchange) Ask(a *providers.Ask, now time.Time) (*http.Request, error) {
	said, err := x.says(a, now)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(said)
	if err != nil {
		return nil, fmt.Errorf("cloudonix: ask: %w", err)
	}
	req, err := http.NewRequest("POST", a.URL, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("cloudonix: ask: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "cloudonix")
	req.Header.Set("x-cx-domain", x.cfg.Domain)
	req.Header.Set(x.cfg.WebhookHeader, x.cfg.WebhookSecret)
	return req, nil
}

// says returns what a webhook says, for JSON.
func (x *exchange) says(a *providers.Ask, now time.Time) (any, error) {
	if a.Kind == providers.TellStatus {
		return x.status(a, now)
	}
	sid := a.Call.ID
	if len(a.Call.Aliases) > 0 {
		sid = a.Call.Aliases[0]
	}
	said := map[string]any{"CallSid": sid, "Session": a.Call.ID, "Domain": x.cfg.Domain, "AccountSid": x.cfg.Domain,
		"From": a.Call.From, "To": a.Call.To, "CallerName": "", "Direction": direction(&a.Call),
		"CallStatus": string(a.Call.Status)}
	switch a.Kind {
	case providers.TellDetection:
		return nil, providers.ErrNotAsked
	case providers.AskNext:
		said["CallStatus"] = string(providers.StatusInProgress)
		if a.Dial != "" && a.Room == "" {
			said["CallStatus"] = string(a.Dial)
		}
	case providers.AskDigit:
		if a.Digit != "" { // without one it goes on behind the Gather
			said["Digits"] = a.Digit
		}
	case providers.TellRoom:
		said = map[string]any{"StatusCallbackEvent": "participant-leave", "Session": a.Call.ID,
			"ConferenceName": a.Room,
			"Domain":         x.cfg.Domain}
		if a.Joined {
			said["StatusCallbackEvent"] = "participant-join"
		}
	}
	return said, nil
}

// status is what is told of a call's progress: of placed calls the session, now and then in
// a list; of others only the record, at the end.
func (x *exchange) status(a *providers.Ask, now time.Time) (any, error) {
	if a.Call.Inbound {
		if !a.Call.Status.Final() {
			return nil, providers.ErrNotAsked
		}
		return map[string]any{"domain": x.cfg.Domain, "from": a.Call.From, "to": a.Call.To, "duration": 0, "billsec": 0,
			"disposition": dispositions[a.Call.Status], "session": x.session(&a.Call, now)}, nil
	}
	if s := x.session(&a.Call, now); a.Sequence%2 == 0 {
		return s, nil
	} else {
		return []any{s}, nil
	}
}

// session is a session, for JSON.
func (x *exchange) session(c *providers.ExchangeCall, now time.Time) map[string]any {
	var ended any
	if c.Status == providers.StatusCompleted {
		ended = now.UnixMilli()
	}
	return map[string]any{"token": c.ID, "domainId": 123, "subscriberId": nil, "status": words[c.Status],
		"destination": strings.TrimPrefix(c.To, "+"), "callerId": strings.TrimPrefix(c.From, "+"),
		"direction": direction(c), "callEndTime": ended}
}

func direction(c *providers.ExchangeCall) string {
	if c.Inbound {
		return "inbound"
	}
	return "outbound-api"
}

// Handshake implements providers.Exchange.
func (*exchange) Handshake(string, time.Time) (http.Header, error) { return http.Header{}, nil }

// Start implements providers.Exchange.
func (x *exchange) Start(c *providers.ExchangeCall, _ *providers.Answer) *providers.Start {
	return &providers.Start{Account: x.cfg.Domain, Call: c.ID, Stream: newID("5"), In: twiliomedia.Format,
		Out: twiliomedia.Format}
}

// schema has the verbs that are simulated.
var schema = xmldoc.Schema{
	"Response": {}, "Say": {"voice", "language"}, "Hangup": {}, "Pause": {"length"}, "Redirect": {"method"},
	"Gather": {"numDigits", "timeout", "action"}, "Connect": {}, "Parameter": {"name", "value"},
	"Stream": {"url", "name", "track", "statusCallback", "statusCallbackMethod"},
	"Dial":   {"callerId", "timeout", "action"}, "Number": {},
	"Conference": {"beep", "dtmf", "holdMusic", "muted", "startConferenceOnEnter", "endConferenceOnExit",
		"maxParticipants", "statusCallback", "statusCallbackMethod", "statusCallbackEvent"},
}

// maxDocument is the size of a document in bytes.
const maxDocument = 64 << 10

// Answer implements providers.Exchange.
func (x *exchange) Answer(kind string, body []byte) (*providers.Answer, error) {
	if k, _, _ := strings.Cut(kind, ";"); k != "application/xml" && k != "text/xml" {
		return nil, fmt.Errorf("cloudonix: content type %.40q", kind)
	}
	root, err := xmldoc.Read(body, maxDocument, schema)
	if err != nil {
		return nil, fmt.Errorf("cloudonix: cxml: %w", err)
	}
	var a providers.Answer
	for i := range root.Children {
		if err := verb(&a, &root.Children[i]); err != nil {
			return nil, fmt.Errorf("cloudonix: cxml: %w", err)
		}
	}
	if a.Ask != nil && a.Next == a.Ask.URL {
		a.Next = ""
	}
	return &a, nil
}

func verb(a *providers.Answer, e *xmldoc.Element) error {
	text := strings.TrimSpace(e.Text)
	switch e.Name() {
	case "Say":
		a.Say, a.Language, a.Voice = text, e.Attr("language"), e.Attr("voice")
	case "Gather":
		return gather(a, e)
	case "Connect":
		if len(e.Children) != 1 || !rest.Secure(e.Children[0].Attr("url"), "wss") {
			return errors.New("a Connect must hold one Stream to wss://")
		}
		a.Media, a.Format = e.Children[0].Attr("url"), twiliomedia.Format
	case "Redirect":
		if !rest.Secure(text, "https") {
			return fmt.Errorf("a Redirect to %.100q", text)
		}
		a.Next = text
	case "Dial":
		return dial(a, e)
	case "Hangup", "Pause":
	default:
		return fmt.Errorf("%s is no verb", e.Name())
	}
	return nil
}

func gather(a *providers.Answer, e *xmldoc.Element) error {
	wait, err := strconv.Atoi(e.Attr("timeout"))
	if err != nil || wait < 1 || e.Attr("numDigits") != "1" || !rest.Secure(e.Attr("action"), "https") {
		return errors.New("a Gather for one digit with a timeout and an action is all that is simulated")
	}
	a.Ask = &providers.Question{URL: e.Attr("action"), Wait: time.Duration(wait) * time.Second}
	for i := range e.Children {
		if err := verb(a, &e.Children[i]); err != nil {
			return err
		}
	}
	return nil
}

func dial(a *providers.Answer, e *xmldoc.Element) error {
	if len(e.Children) != 1 {
		return errors.New("Dial must hold one noun")
	}
	n := &e.Children[0]
	text := strings.TrimSpace(n.Text)
	if n.Name() == "Conference" {
		a.Room = &providers.Room{Name: text, End: n.Attr("endConferenceOnExit") == "true",
			Wait: n.Attr("startConferenceOnEnter") == "false", Events: n.Attr("statusCallback")}
		if text == "" || a.Room.Events != "" && (!rest.Secure(a.Room.Events, "https") ||
			n.Attr("statusCallbackEvent") != "join leave") {
			return errors.New("a Conference without a name, or with a bad statusCallback")
		}
		return nil
	}
	ring, err := strconv.Atoi(e.Attr("timeout"))
	a.Dial, a.Caller, a.Ring, a.Next = text, e.Attr("callerId"), time.Duration(ring)*time.Second, e.Attr("action")
	if err != nil || ring < 1 || !providers.ValidNumber(text) || a.Next != "" && !rest.Secure(a.Next, "https") {
		return fmt.Errorf("Dial to %.40q", text)
	}
	return nil
}

var (
	digitsSent = regexp.MustCompile(`^[0-9*#wW]{1,64}$`)
	apiPath    = regexp.MustCompile(`^(?:/customers/self/domains|/calls)/([^/]+)(?:/sessions/([^/]+))?(/application)?$`)
)

func fail(status int, detail string) error {
	return &providers.CallError{Kind: providers.KindOf(status), Status: status, Detail: detail}
}

// Operation implements providers.Exchange.
func (x *exchange) Operation(r *http.Request, body []byte, _ time.Time) (op *providers.Operation, err error) {
	key := []byte("Bearer " + x.cfg.APIKey)
	if r.URL.Path == "/customers/self/domains/"+x.cfg.Domain+"/dnids" && r.Method == "GET" &&
		r.Header.Get("Authorization") == string(key) {
		return &providers.Operation{Kind: providers.OpNumbers}, nil
	}
	m := apiPath.FindStringSubmatch(r.URL.Path)
	switch {
	case subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), key) != 1:
		return nil, fail(401, "Unauthorized")
	case m == nil || m[1] != x.cfg.Domain:
		return nil, fail(404, "Not found")
	case strings.HasPrefix(m[2], "c"): // a CallSid is no session
		return nil, fail(404, "Session not found")
	}
	op = &providers.Operation{Call: m[2]}
	switch has := m[2] != ""; {
	case r.Method == "POST" && !has && m[3] != "":
		op.Kind = providers.OpDial
		op.Dial, err = dialled(body)
	case r.Method == "POST" && has && m[3] != "":
		var b switchBody
		if err := rest.Strict(body, &b); err != nil {
			return nil, fail(400, err.Error())
		}
		op.Kind = providers.OpDo
		if op.Answer, err = x.Answer("application/xml", []byte(b.CXML)); err != nil {
			return nil, fail(400, err.Error())
		}
	case r.Method == "GET" && has && m[3] == "":
		op.Kind = providers.OpGet
	case r.Method == "DELETE" && has && m[3] == "":
		op.Kind = providers.OpHangup
	default:
		return nil, fail(405, "Method not allowed")
	}
	return op, err
}

func dialled(body []byte) (*providers.Dial, error) {
	var b dialBody
	if err := rest.Strict(body, &b); err != nil {
		return nil, fail(400, err.Error())
	}
	d := &providers.Dial{To: b.To, From: b.From, Answer: b.URL, Status: b.Callback, Digits: b.Digits,
		Ring: time.Duration(b.Ring) * time.Second}
	switch {
	case !providers.ValidNumber(d.To):
		return nil, fail(400, "destination is not valid")
	case d.From == "":
		return nil, fail(400, "caller-id is required")
	case !rest.Secure(d.Answer, "https") || !rest.Secure(d.Status, "https"):
		return nil, fail(400, "url and callback must be URLs")
	case d.Digits != "" && !digitsSent.MatchString(d.Digits):
		return nil, fail(400, "send-digits is not valid")
	}
	return d, nil
}

// Reply implements providers.Exchange.
func (x *exchange) Reply(w http.ResponseWriter, op *providers.Operation, c *providers.ExchangeCall, err error) {
	w.Header().Set("Content-Type", "application/json")
	var e *providers.CallError
	if errors.As(err, &e) {
		if e.Retry > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int(e.Retry/time.Second)))
		}
		w.WriteHeader(e.Status)
		rest.WriteJSON(w, map[string]any{"error": e.Detail})
		return
	}
	switch op.Kind {
	case providers.OpNumbers:
		list := []any{}
		for _, n := range op.Numbers {
			list = append(list, map[string]any{"dnid": strings.TrimPrefix(n.Number, "+"),
				"application": map[string]any{"url": n.Webhook}})
		}
		rest.WriteJSON(w, list)
	case providers.OpHangup:
		w.WriteHeader(http.StatusNoContent)
	case providers.OpDo:
		w.WriteHeader(http.StatusAccepted)
		rest.WriteJSON(w, map[string]any{})
	default:
		rest.WriteJSON(w, x.session(c, time.Now()))
	}
}
