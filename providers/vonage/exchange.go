package vonage

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"voicebridge/codec"
	"voicebridge/providers"
	"voicebridge/providers/internal/rest"
)

// exchange is Vonage's own end of an application.
type exchange struct {
	cfg Config
	key *rsa.PublicKey // nil: the application has none here
}

// NewExchange implements providers.Spec.
func NewExchange(setup providers.Setup) (providers.Exchange, error) {
	w, key, _, err := readConfig(setup)
	if err != nil {
		return nil, err
	}
	x := &exchange{cfg: w.cfg}
	if key != nil {
		x.key = &key.PublicKey
	}
	return x, nil
}

// simulated is how many requests a simulated Vonage takes in a second.
const simulated = 100_000

// Sample implements providers.Spec.
func Sample(baseURL string, f codec.Format) func(any) error {
	cfg := Config{APIKey: rand.Text()[:8], ApplicationID: rand.Text(), SignatureSecret: rand.Text(),
		APISecret: rand.Text(),
		Rate:      f.Rate,
		BaseURL:   baseURL, Calls: simulated, Requests: simulated}
	return func(c any) error {
		var err error
		cfg.PrivateKey, err = sampleKey()
		*c.(*Config) = cfg
		return err
	}
}

// sampleKey is the private key of all made-up accounts: it takes long to make one.
var sampleKey = sync.OnceValues(func() (string, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return "", err
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})), nil
})

// NewCall implements providers.Exchange.
func (*exchange) NewCall() providers.Leg { return providers.Leg{ID: newUUID()} }

func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// words are the statuses as Vonage tells them.
var words = map[providers.Status]string{
	providers.StatusInitiated: "started", providers.StatusRinging: "ringing", providers.StatusInProgress: "answered",
	providers.StatusCompleted: "completed", providers.StatusBusy: "busy", providers.StatusNoAnswer: "timeout",
	providers.StatusFailed: "failed", providers.StatusCanceled: "cancelled",
}

// Ask implements providers.Exchange.
func (x *exchange) Ask(a *providers.Ask, now time.Time) (*http.Request, error) {
	if a.Kind == providers.TellRoom && !a.Joined { // only of those who come
		return nil, providers.ErrNotAsked
	}
	body, err := json.Marshal(x.event(a, now))
	if err != nil {
		return nil, fmt.Errorf("vonage: ask: %w", err)
	}
	req, err := http.NewRequest("POST", a.URL, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("vonage: ask: %w", err)
	}
	sum := sha256.Sum256(body)
	token, err := x.sign(jwt.MapClaims{"payload_hash": hex.EncodeToString(sum[:])}, now)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+token)
	return req, nil
}

// event returns the body of a webhook.
func (x *exchange) event(a *providers.Ask, now time.Time) map[string]any {
	direction := "outbound"
	if a.Call.Inbound {
		direction = "inbound"
	}
	event := map[string]any{
		"uuid": a.Call.ID, "conversation_uuid": "CON-" + a.Call.ID, "from": national(a.Call.From),
		"to":        national(a.Call.To),
		"timestamp": now.UTC().Format("2006-01-02T15:04:05.000Z"), "direction": direction,
	}
	switch a.Kind {
	case providers.AskAnswer:
		event["region_url"], event["endpoint_type"] = "https://api-us.vonage.com", "phone"
	case providers.AskNext: // of the leg to the socket, or to a number, which has a uuid of its own
		event["uuid"], event["to"], event["status"] = newUUID(), "wss://socket.example/", "disconnected"
		if a.Dial != "" {
			event["to"], event["status"] = "15550100000", words[a.Dial]
		}
	case providers.AskDigit:
		delete(event, "direction")
		event["dtmf"] = map[string]any{"digits": a.Digit, "timed_out": a.Digit == ""}
	case providers.TellRoom: // to the event URL of the call; only some versions say the type
		event = map[string]any{"uuid": a.Call.ID, "conversation_uuid_from": "CON-" + a.Call.ID,
			"conversation_uuid_to": "CON-" + a.Room,
			"timestamp":            event["timestamp"]}
		if a.Sequence%2 == 0 {
			event["type"] = "transfer"
		}
	case providers.TellStatus:
		event["status"] = words[a.Call.Status]
		if a.Call.Status == providers.StatusCompleted && a.Call.Answered {
			event["start_time"], event["end_time"], event["duration"] = event["timestamp"], event["timestamp"], "2"
		}
	case providers.TellDetection:
		event["call_uuid"], event["status"] = a.Call.ID, string(a.AnsweredBy)
		delete(event, "uuid")
		delete(event, "direction")
	}
	return event
}

// sign makes the JWT of a signed webhook.
func (x *exchange) sign(c jwt.MapClaims, now time.Time) (string, error) {
	c["iat"], c["jti"], c["iss"], c["api_key"], c["application_id"] = now.Unix(), rand.Text(), "Vonage", x.cfg.APIKey,
		x.cfg.ApplicationID
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, c).SignedString([]byte(x.cfg.SignatureSecret))
	if err != nil {
		return "", fmt.Errorf("vonage: sign: %w", err)
	}
	return token, nil
}

// Handshake implements providers.Exchange.
func (x *exchange) Handshake(_ string, now time.Time) (http.Header, error) {
	token, err := x.sign(jwt.MapClaims{}, now)
	return http.Header{"Authorization": {"Bearer " + token}}, err
}

// Start implements providers.Exchange: it tells neither account nor call.
func (x *exchange) Start(_ *providers.ExchangeCall, a *providers.Answer) *providers.Start {
	return &providers.Start{In: a.Format, Out: a.Format}
}

// Answer implements providers.Exchange. An empty body leaves things as they are.
func (x *exchange) Answer(kind string, body []byte) (*providers.Answer, error) {
	if len(body) == 0 {
		return &providers.Answer{}, nil
	}
	if k, _, err := mime.ParseMediaType(kind); err != nil || k != "application/json" {
		return nil, fmt.Errorf("vonage: content type %.40q", kind)
	}
	var list ncco
	if err := rest.Strict(body, &list); err != nil {
		return nil, fmt.Errorf("vonage: ncco: %w", err)
	}
	return readNCCO(list)
}

func readNCCO(list ncco) (*providers.Answer, error) {
	var a providers.Answer
	for _, act := range list {
		switch {
		case act.Action == "talk" && act.Text != "":
			a.Say, a.Language = act.Text, act.Language
			if act.Style != nil {
				a.Voice = strconv.Itoa(*act.Style)
			}
		case act.Action == "input" && slices.Equal(act.Type, []string{"dtmf"}) && act.DTMF != nil &&
			act.DTMF.Digits == 1 &&
			act.DTMF.Timeout >= 1 && act.DTMF.Timeout <= maxInput && len(act.EventURL) == 1 &&
			rest.Secure(act.EventURL[0], "https"):
			a.Ask = &providers.Question{URL: act.EventURL[0], Wait: time.Duration(act.DTMF.Timeout) * time.Second}
		case act.Action == "conversation" && act.Name != "" && len(act.EventURL) <= 1 && len(act.Hold) <= 1:
			a.Room = &providers.Room{Name: act.Name, End: act.End, Wait: act.Start != nil && !*act.Start}
			if len(act.EventURL) == 1 {
				a.Room.Events = act.EventURL[0]
			}
			if len(act.Hold) == 1 {
				a.Room.Hold = act.Hold[0]
			}
		case act.Action == "connect" && len(act.Endpoint) == 1:
			if err := connectAction(&a, &act); err != nil {
				return nil, err
			}
		default:
			return nil, fmt.Errorf("vonage: ncco: action %.40q", act.Action)
		}
	}
	return &a, nil
}

func connectAction(a *providers.Answer, act *nccoAction) (err error) {
	if act.EventType != "" && act.EventType != "synchronous" || len(act.EventURL) > 1 {
		return errors.New("vonage: ncco: eventType must be synchronous, with one eventUrl")
	}
	if e := act.Endpoint[0]; e.Type == "phone" {
		if !msisdn.MatchString(e.Number) {
			return fmt.Errorf("vonage: ncco: number %.40q", e.Number)
		}
		a.Dial, a.Caller, a.Ring = "+"+e.Number, e164(act.From), time.Duration(act.Timeout)*time.Second
		if len(act.EventURL) == 1 {
			a.Next = act.EventURL[0]
		}
		return nil
	}
	e := act.Endpoint[0]
	switch {
	case e.Type != "websocket" || !rest.Secure(e.URI, "wss"):
		return fmt.Errorf("vonage: ncco: endpoint %.40q to %.100q", e.Type, e.URI)
	case len(e.URI) >= 2048:
		return errors.New("vonage: ncco: uri of more than 2048 bytes")
	}
	a.Media = e.URI
	if len(act.EventURL) == 1 {
		a.Next = act.EventURL[0]
	}
	a.Format, err = parseContentType(e.ContentType)
	return err
}

var (
	msisdn     = regexp.MustCompile(`^[1-9][0-9]{6,14}$`)
	digitsSent = regexp.MustCompile(`^[0-9*#p]{1,50}$`)
	apiPath    = regexp.MustCompile(`^/v1/calls(?:/([^/]+)(/dtmf)?)?$`)
)

func fail(status int, title, detail string) error {
	return &providers.CallError{Kind: providers.KindOf(status), Status: status, Code: title, Detail: detail}
}

// Operation implements providers.Exchange.
func (x *exchange) Operation(r *http.Request, body []byte, now time.Time) (*providers.Operation, error) {
	if r.URL.Path == "/account/numbers" {
		user, password, _ := r.BasicAuth()
		if user != x.cfg.APIKey || password != x.cfg.APISecret {
			return nil, fail(401, "Unauthorized", "key and secret")
		}
		op := &providers.Operation{Kind: providers.OpNumbers}
		op.Page, _ = strconv.Atoi(r.URL.Query().Get("index"))
		op.Size, _ = strconv.Atoi(r.URL.Query().Get("size"))
		if op.Page < 1 || op.Size < 1 || op.Size > numbersPage {
			return nil, fail(400, "Bad Request", "index, size")
		}
		return op, nil
	}
	if err := x.authorized(r, now); err != nil {
		return nil, fail(401, "Unauthorized", err.Error())
	}
	m := apiPath.FindStringSubmatch(r.URL.Path)
	if m == nil {
		return nil, fail(404, "Not Found", "")
	}
	op := &providers.Operation{Call: m[1]}
	if r.Method == "GET" && op.Call != "" && m[2] == "" {
		op.Kind = providers.OpGet
		return op, nil
	}
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind != "application/json" {
		return nil, fail(415, "Unsupported Media Type", "")
	}
	switch {
	case r.Method == "POST" && op.Call == "":
		op.Kind = providers.OpDial
		var err error
		op.Dial, err = dialRequest(body)
		return op, err
	case r.Method == "PUT" && m[2] != "":
		var b struct {
			Digits string `json:"digits"`
		}
		if err := rest.Strict(body, &b); err != nil || !digitsSent.MatchString(b.Digits) {
			return nil, fail(400, "Bad Request", "digits")
		}
		op.Kind, op.Digits = providers.OpDigits, strings.ReplaceAll(b.Digits, "p", "w")
		return op, nil
	case r.Method == "PUT" && op.Call != "":
		return op, x.action(op, body)
	}
	return nil, fail(405, "Method Not Allowed", "")
}

func (x *exchange) action(op *providers.Operation, body []byte) error {
	var act callAction
	err := rest.Strict(body, &act)
	switch {
	case err == nil && act.Action == "hangup" && act.Destination == nil:
		op.Kind = providers.OpHangup
		return nil
	case err == nil && act.Action == "transfer" && act.Destination != nil && act.Destination.Type == "ncco":
		op.Kind = providers.OpDo
		if op.Answer, err = readNCCO(act.Destination.NCCO); err == nil {
			return nil
		}
	}
	return fail(400, "Bad Request", fmt.Sprint("action: ", err))
}

// authorized checks the application's JWT, each of which may be used until it
// expires.
func (x *exchange) authorized(r *http.Request, now time.Time) error {
	raw, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok || x.key == nil {
		return errors.New("no token")
	}
	c := jwt.MapClaims{}
	_, err := jwt.ParseWithClaims(raw, c, func(*jwt.Token) (any, error) { return x.key, nil },
		jwt.WithValidMethods([]string{"RS256"}), jwt.WithExpirationRequired(), jwt.WithIssuedAt(),
		jwt.WithTimeFunc(func() time.Time { return now }))
	switch {
	case err != nil:
		return err
	case c["application_id"] != x.cfg.ApplicationID:
		return errors.New("application_id")
	case c["jti"] == nil || c["iat"] == nil:
		return errors.New("jti and iat are required")
	}
	return nil
}

func dialRequest(body []byte) (*providers.Dial, error) {
	var r callRequest
	err := rest.Strict(body, &r)
	switch {
	case err != nil:
		return nil, fail(400, "Bad Request", err.Error())
	case len(r.To) != 1 || r.To[0].Type != "phone" || !msisdn.MatchString(r.To[0].Number):
		return nil, fail(400, "Bad Request", "to")
	case r.From.Type != "phone" || !msisdn.MatchString(r.From.Number):
		return nil, fail(400, "Bad Request", "from")
	case len(r.AnswerURL) != 1 || !rest.Secure(r.AnswerURL[0], "https"):
		return nil, fail(400, "Bad Request", "answer_url")
	case len(r.EventURL) != 1 || !rest.Secure(r.EventURL[0], "https"):
		return nil, fail(400, "Bad Request", "event_url")
	case r.AnswerMethod != "POST" || r.EventMethod != "POST":
		return nil, fail(400, "Bad Request", "only POST is simulated")
	case r.RingingTimer < 0 || r.RingingTimer > 120:
		return nil, fail(400, "Bad Request", "ringing_timer")
	case r.To[0].Digits != "" && !digitsSent.MatchString(r.To[0].Digits):
		return nil, fail(400, "Bad Request", "dtmfAnswer")
	case r.Detection != nil && (r.Detection.Behavior != "continue" && r.Detection.Behavior != "hangup" ||
		r.Detection.Mode != "detect" && r.Detection.Mode != "default" && r.Detection.Mode != "detect_beep"):
		return nil, fail(400, "Bad Request", "advanced_machine_detection")
	}
	return &providers.Dial{To: e164(r.To[0].Number), From: e164(r.From.Number), Answer: r.AnswerURL[0],
		Status: r.EventURL[0],
		Ring:   time.Duration(r.RingingTimer) * time.Second, Detect: r.Detection != nil,
		Digits: strings.ReplaceAll(r.To[0].Digits, "p", "w")}, nil
}

// conversationOf is where a call is: in the conversation of a room, or in one of its own.
func conversationOf(call *providers.ExchangeCall) string {
	if call.Room != "" {
		return "CON-" + call.Room
	}
	return fmt.Sprintf("CON-%s-%d", call.ID, call.Moves)
}

// replyNumbers lists a page of the account's numbers.
func replyNumbers(w http.ResponseWriter, op *providers.Operation) {
	list, _ := op.PageOf(op.Page - 1)
	numbers := []any{}
	for _, n := range list {
		features := []string{}
		for _, what := range n.Can {
			features = append(features, strings.ToUpper(what))
		}
		one := map[string]any{"country": "US", "msisdn": national(n.Number), "type": "mobile-lvn", "features": features}
		if n.Webhook != "" {
			one["voiceCallbackType"], one["voiceCallbackValue"] = "app", n.Webhook
		}
		numbers = append(numbers, one)
	}
	rest.WriteJSON(w, map[string]any{"count": len(op.Numbers), "numbers": numbers})
}

// Reply implements providers.Exchange.
func (x *exchange) Reply(w http.ResponseWriter, op *providers.Operation, call *providers.ExchangeCall, err error) {
	var e *providers.CallError
	if errors.As(err, &e) {
		w.Header().Set("Content-Type", "application/problem+json")
		if e.Retry > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int(e.Retry/time.Second)))
		}
		w.WriteHeader(e.Status)
		rest.WriteJSON(w, map[string]any{"type": "https://developer.vonage.com/api-errors", "title": e.Code,
			"detail": e.Detail})
		return
	}
	w.Header().Set("Content-Type", "application/json")
	switch op.Kind {
	case providers.OpNumbers:
		replyNumbers(w, op)
		return
	case providers.OpHangup, providers.OpDo:
		w.WriteHeader(http.StatusNoContent)
		return
	case providers.OpDigits:
		rest.WriteJSON(w, map[string]any{"uuid": call.ID, "message": "DTMF Sent"})
		return
	case providers.OpDial:
		w.WriteHeader(http.StatusCreated)
	}
	rest.WriteJSON(w, map[string]any{"uuid": call.ID, "conversation_uuid": conversationOf(call),
		"status": words[call.Status], "direction": "outbound"})
}
