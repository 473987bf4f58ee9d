package twilio

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"voicebridge/codec"
	"voicebridge/providers"
)

// exchange is Twilio's own end of an account.
type exchange struct{ cfg Config }

// NewExchange implements providers.Spec.
func NewExchange(decode func(any) error) (providers.Exchange, error) {
	a, err := NewAccount(decode)
	if err != nil {
		return nil, err
	}
	return &exchange{a.Webhooks.(*webhooks).cfg}, nil
}

// Sample implements providers.Spec.
func Sample(baseURL string, _ codec.Format) func(any) error {
	cfg := Config{AccountSID: newSID("AC"), AuthToken: newSID(""), BaseURL: baseURL}
	return func(c any) error {
		*c.(*Config) = cfg
		return nil
	}
}

func newSID(prefix string) string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return prefix + hex.EncodeToString(b[:])
}

// NewCall implements providers.Exchange.
func (*exchange) NewCall() string { return newSID("CA") }

// rawStatus is a status in Twilio's words.
func rawStatus(s providers.Status) string {
	if s == providers.StatusInitiated {
		return "initiated"
	}
	return string(s) // the rest are the same
}

func direction(c *providers.ExchangeCall) string {
	if c.Inbound {
		return "inbound"
	}
	return "outbound-api"
}

// Ask implements providers.Exchange.
func (x *exchange) Ask(a *providers.Ask, now time.Time) (*http.Request, error) {
	form := url.Values{"CallSid": {a.Call.ID}, "AccountSid": {x.cfg.AccountSID}}
	if a.Kind != providers.TellDetection {
		form.Set("From", a.Call.From)
		form.Set("To", a.Call.To)
		form.Set("CallStatus", rawStatus(a.Call.Status))
		form.Set("ApiVersion", "2010-04-01")
		form.Set("Direction", direction(&a.Call))
	}
	switch a.Kind {
	case providers.AskNext:
		if a.Dial != "" {
			form.Set("DialCallStatus", string(a.Dial))
		}
	case providers.AskDigit:
		form.Set("Digits", a.Digit)
		form.Set("msg", "Gather End")
		if a.Digit == "" {
			form.Del("Digits")
		}
	case providers.TellRoom:
		form = url.Values{"CallSid": {a.Call.ID}, "AccountSid": {x.cfg.AccountSID}, "ConferenceSid": {newSID("CF")}, "FriendlyName": {a.Room},
			"StatusCallbackEvent": {"participant-leave"}, "SequenceNumber": {strconv.Itoa(a.Sequence)}, "Timestamp": {now.UTC().Format(time.RFC1123Z)},
			"Muted": {"false"}, "Hold": {"false"}, "Coaching": {"false"}}
		if a.Joined {
			form.Set("StatusCallbackEvent", "participant-join")
		}
	case providers.TellStatus:
		form.Set("CallbackSource", "call-progress-events")
		form.Set("SequenceNumber", strconv.Itoa(a.Sequence))
		form.Set("Timestamp", now.UTC().Format(time.RFC1123Z))
		if a.Call.Status.Final() {
			form.Set("CallDuration", "0")
		}
	case providers.TellDetection:
		by := map[providers.AnsweredBy]string{providers.AnsweredByMachine: "machine_start"}[a.AnsweredBy]
		if by == "" {
			by = string(a.AnsweredBy)
		}
		form.Set("AnsweredBy", by)
		form.Set("MachineDetectionDuration", "2100")
	}
	req, err := http.NewRequest("POST", a.URL, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, fmt.Errorf("twilio: ask: %w", err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=UTF-8")
	req.Header.Set("User-Agent", "TwilioProxy/1.1")
	req.Header.Set("I-Twilio-Idempotency-Token", rand.Text())
	req.Header.Set("X-Twilio-Signature", x.sign(a.URL+formData(form)))
	return req, nil
}

func (x *exchange) sign(data string) string {
	mac := hmac.New(sha1.New, []byte(x.cfg.AuthToken))
	mac.Write([]byte(data))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// Handshake implements providers.Exchange.
func (x *exchange) Handshake(url string, _ time.Time) (http.Header, error) {
	return http.Header{"X-Twilio-Signature": {x.sign(url)}}, nil
}

// Start implements providers.Exchange.
func (x *exchange) Start(call *providers.ExchangeCall, a *providers.Answer) *providers.Start {
	return &providers.Start{Account: x.cfg.AccountSID, Call: call.ID, Stream: newSID("MZ"), In: format, Out: format, Params: a.Params}
}

// element is any XML element.
type element struct {
	XMLName  xml.Name
	Attrs    []xml.Attr `xml:",any,attr"`
	Children []element  `xml:",any"`
	Text     string     `xml:",chardata"`
}

// attributes are those that each element of TwiML may have here.
var attributes = map[string][]string{
	"Response":  {},
	"Connect":   {"action", "method"},
	"Stream":    {"url", "name", "track", "connectorName", "statusCallback", "statusCallbackMethod"},
	"Parameter": {"name", "value"},
	"Redirect":  {"method"},
	"Say":       {"voice", "language", "loop"},
	"Dial":      {"callerId", "timeout", "action", "method", "timeLimit", "answerOnBridge"},
	"Number":    {},
	"Conference": {"endConferenceOnExit", "startConferenceOnEnter", "beep", "waitUrl", "waitMethod", "statusCallback", "statusCallbackEvent",
		"statusCallbackMethod", "muted", "maxParticipants", "participantLabel"},
	"Gather": {"input", "numDigits", "timeout", "action", "method", "actionOnEmptyResult", "finishOnKey"},
	"Pause":  {"length"},
	"Hangup": {},
}

func (e *element) attr(name string) string {
	for _, a := range e.Attrs {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

// valid checks elements and attributes against the schema.
func (e *element) valid() error {
	allowed, known := attributes[e.XMLName.Local]
	if !known {
		return fmt.Errorf("twilio: 12200: element %.40q", e.XMLName.Local)
	}
	for _, a := range e.Attrs {
		if !slices.Contains(allowed, a.Name.Local) {
			return fmt.Errorf("twilio: 12200: attribute %.40q of %s", a.Name.Local, e.XMLName.Local)
		}
	}
	for i := range e.Children {
		if err := e.Children[i].valid(); err != nil {
			return err
		}
	}
	return nil
}

// Answer implements providers.Exchange.
func (x *exchange) Answer(kind string, body []byte) (*providers.Answer, error) {
	if k, _, _ := strings.Cut(kind, ";"); k != "application/xml" && k != "text/xml" {
		return nil, fmt.Errorf("twilio: 12300: content type %.40q", kind)
	}
	if len(body) > 64<<10 {
		return nil, errors.New("twilio: 11750: the document is larger than 64 KB")
	}
	var root element
	if err := xml.Unmarshal(body, &root); err != nil {
		return nil, fmt.Errorf("twilio: 12100: %w", err)
	}
	if root.XMLName.Local != "Response" {
		return nil, errors.New("twilio: 12100: the root is not Response")
	}
	if err := root.valid(); err != nil {
		return nil, err
	}
	var a providers.Answer
	for i := range root.Children {
		if err := verb(&a, &root.Children[i]); err != nil {
			return nil, err
		}
	}
	return &a, nil
}

func verb(a *providers.Answer, e *element) error {
	text := strings.TrimSpace(e.Text)
	switch e.XMLName.Local {
	case "Connect":
		if len(e.Children) != 1 || e.Children[0].XMLName.Local != "Stream" || a.Media != "" {
			return errors.New("twilio: 12200: Connect must hold one Stream")
		}
		return stream(a, &e.Children[0])
	case "Redirect":
		if !providers.Secure(text, "https") {
			return fmt.Errorf("twilio: 11100: Redirect to %.100q", text)
		}
		a.Next = text
	case "Say":
		if text == "" {
			return errors.New("twilio: 13520: Say without text")
		}
		a.Say = text
	case "Gather":
		return gather(a, e)
	case "Dial":
		return dial(a, e, text)
	case "Hangup", "Pause":
	default:
		return fmt.Errorf("twilio: 12200: %s is no verb", e.XMLName.Local)
	}
	return nil
}

func gather(a *providers.Answer, e *element) error {
	wait, err := strconv.Atoi(e.attr("timeout"))
	switch {
	case err != nil || wait < 1 || e.attr("numDigits") != "1" || e.attr("input") != "dtmf" || e.attr("actionOnEmptyResult") != "true":
		return errors.New("twilio: 13321: Gather for one digit with a timeout and an action for none is all that is simulated")
	case !providers.Secure(e.attr("action"), "https"):
		return fmt.Errorf("twilio: 11100: Gather action %.100q", e.attr("action"))
	}
	a.Ask = &providers.Question{URL: e.attr("action"), Wait: time.Duration(wait) * time.Second}
	for i := range e.Children {
		if e.Children[i].XMLName.Local != "Say" {
			return errors.New("twilio: 12200: Gather may hold Say")
		}
		if err := verb(a, &e.Children[i]); err != nil {
			return err
		}
	}
	return nil
}

func dial(a *providers.Answer, e *element, number string) error {
	if a.Next = e.attr("action"); a.Next != "" && !providers.Secure(a.Next, "https") {
		return fmt.Errorf("twilio: 11100: Dial action %.100q", a.Next)
	}
	for i := range e.Children {
		n := &e.Children[i]
		if number = strings.TrimSpace(n.Text); n.XMLName.Local != "Conference" {
			continue
		}
		room := &providers.Room{Name: number, End: n.attr("endConferenceOnExit") == "true", Wait: n.attr("startConferenceOnEnter") == "false", Events: n.attr("statusCallback"), Hold: n.attr("waitUrl")}
		switch {
		case room.Name == "" || len(room.Name) > 128:
			return errors.New("twilio: 13233: the conference must have a name of at most 128 characters")
		case room.Events != "" && (!providers.Secure(room.Events, "https") || n.attr("statusCallbackEvent") != "join leave"):
			return fmt.Errorf("twilio: 13234: statusCallback %.100q for %q", room.Events, n.attr("statusCallbackEvent"))
		case room.Hold != "" && !providers.Secure(room.Hold, "https"):
			return fmt.Errorf("twilio: 13236: waitUrl %.100q", room.Hold)
		}
		a.Room = room
		return nil
	}
	if !providers.ValidNumber(number) {
		return fmt.Errorf("twilio: 13223: Dial to %.40q", number)
	}
	ring, err := strconv.Atoi(e.attr("timeout"))
	if err != nil || ring < 5 || ring > 600 {
		return errors.New("twilio: 13212: Dial timeout")
	}
	a.Dial, a.Caller, a.Ring = number, e.attr("callerId"), time.Duration(ring)*time.Second
	return nil
}

func stream(a *providers.Answer, e *element) error {
	a.Media, a.Format = e.attr("url"), format
	if !providers.Secure(a.Media, "wss") || strings.Contains(a.Media, "?") {
		return fmt.Errorf("twilio: 31920: Stream url %.100q must be wss:// without query", a.Media)
	}
	for _, p := range e.Children {
		name, value := p.attr("name"), p.attr("value")
		if p.XMLName.Local != "Parameter" || name == "" || len(name)+len(value) >= 500 {
			return errors.New("twilio: 12200: Stream takes Parameters with a name, of less than 500 characters")
		}
		if a.Params == nil {
			a.Params = map[string]string{}
		}
		a.Params[name] = value
	}
	return nil
}

var (
	sendDigits = regexp.MustCompile(`^[0-9A-D*#wW]{0,32}$`)
	callPath   = regexp.MustCompile(`^/2010-04-01/Accounts/([^/]+)/Calls(?:/([^/]+))?\.json$`)
)

// fail is an error as Twilio's API tells it.
func fail(status, code int, detail string) error {
	kind := providers.KindOf(status)
	if gone[code] {
		kind = providers.ErrNoCall
	}
	return &providers.CallError{Kind: kind, Status: status, Code: strconv.Itoa(code), Detail: detail}
}

// Operation implements providers.Exchange.
func (x *exchange) Operation(r *http.Request, body []byte, _ time.Time) (*providers.Operation, error) {
	user, password, _ := r.BasicAuth()
	if subtle.ConstantTimeCompare([]byte(user+":"+password), []byte(x.cfg.AccountSID+":"+x.cfg.AuthToken)) != 1 {
		return nil, fail(401, 20003, "Authenticate")
	}
	m := callPath.FindStringSubmatch(r.URL.Path)
	if m == nil || m[1] != x.cfg.AccountSID {
		return nil, fail(404, 20404, "The requested resource "+r.URL.Path+" was not found")
	}
	op := &providers.Operation{Call: m[2]}
	if r.Method == "GET" && op.Call != "" {
		op.Kind = providers.OpGet
		return op, nil
	}
	if r.Method != "POST" {
		return nil, fail(405, 20004, "Method not allowed")
	}
	if kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";"); kind != "application/x-www-form-urlencoded" {
		return nil, fail(415, 20001, "Unsupported content type")
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, fail(400, 20001, "Bad request")
	}
	if op.Call == "" {
		op.Kind = providers.OpDial
		op.Dial, err = dialForm(form)
		return op, err
	}
	switch doc := form.Get("Twiml"); {
	case len(form) == 1 && (form.Get("Status") == "completed" || form.Get("Status") == "canceled"):
		op.Kind = providers.OpHangup
	case len(form) == 1 && doc != "" && len(doc) <= 4000:
		op.Kind = providers.OpRedirect
		if op.Answer, err = x.Answer("application/xml", []byte(doc)); err != nil {
			return nil, fail(400, 12100, err.Error())
		}
	default:
		return nil, fail(400, 20001, "Invalid parameters")
	}
	return op, nil
}

// dialParams are the parameters of a new call that are known here.
var dialParams = []string{"To", "From", "Url", "Method", "StatusCallback", "StatusCallbackMethod", "StatusCallbackEvent", "Timeout",
	"SendDigits", "MachineDetection", "AsyncAmd", "AsyncAmdStatusCallback", "AsyncAmdStatusCallbackMethod"}

// statusEvents are those that may be asked for; busy and the like come as
// completed.
var statusEvents = []string{"initiated", "ringing", "answered", "completed"}

func dialForm(form url.Values) (*providers.Dial, error) {
	for name := range form {
		if !slices.Contains(dialParams, name) {
			return nil, fail(400, 20001, "Unknown parameter "+name)
		}
	}
	d := &providers.Dial{To: form.Get("To"), From: form.Get("From"), Answer: form.Get("Url"), Status: form.Get("StatusCallback"), Digits: form.Get("SendDigits")}
	switch {
	case !providers.ValidNumber(d.To):
		return nil, fail(400, 21211, "The 'To' number is not a valid phone number")
	case !providers.ValidNumber(d.From):
		return nil, fail(400, 21212, "The 'From' number is not a valid phone number")
	case !providers.Secure(d.Answer, "https"):
		return nil, fail(400, 21205, "Url is not a valid URL")
	case d.Status != "" && !providers.Secure(d.Status, "https"):
		return nil, fail(400, 21609, "StatusCallback is not a valid URL")
	case !sendDigits.MatchString(d.Digits):
		return nil, fail(400, 20001, "SendDigits is not valid")
	}
	for _, e := range form["StatusCallbackEvent"] {
		if !slices.Contains(statusEvents, e) {
			return nil, fail(400, 21626, "Invalid StatusCallbackEvent "+e)
		}
	}
	if t := form.Get("Timeout"); t != "" {
		n, err := strconv.Atoi(t)
		if err != nil || n < 1 || n > 600 {
			return nil, fail(400, 21213, "Timeout must be 1 to 600")
		}
		d.Ring = time.Duration(n) * time.Second
	}
	switch form.Get("MachineDetection") {
	case "":
	case "Enable", "DetectMessageEnd":
		if form.Get("AsyncAmd") != "true" || form.Get("AsyncAmdStatusCallback") == "" {
			return nil, fail(400, 20001, "only asynchronous detection is simulated")
		}
		d.Detect = true
	default:
		return nil, fail(400, 20001, "MachineDetection is not valid")
	}
	return d, nil
}

// Reply implements providers.Exchange.
func (x *exchange) Reply(w http.ResponseWriter, op *providers.Operation, call *providers.ExchangeCall, err error) {
	w.Header().Set("Content-Type", "application/json")
	var e *providers.CallError
	if errors.As(err, &e) {
		code, _ := strconv.Atoi(e.Code)
		if code == 0 {
			code = map[providers.CallErrorKind]int{providers.ErrNoCall: 20404, providers.ErrRate: 20429}[e.Kind]
		}
		if e.Kind == providers.ErrNoCall && op != nil && call != nil { // known, but over
			code, e.Status = 21220, 400
		}
		if e.Retry > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int(e.Retry/time.Second)))
		}
		w.WriteHeader(e.Status)
		writeJSON(w, map[string]any{"code": code, "message": e.Detail, "more_info": "https://www.twilio.com/docs/errors/" + strconv.Itoa(code), "status": e.Status})
		return
	}
	status := rawStatus(call.Status)
	if op.Kind == providers.OpDial {
		status = "queued"
		w.WriteHeader(http.StatusCreated)
	}
	writeJSON(w, map[string]any{
		"sid": call.ID, "account_sid": x.cfg.AccountSID, "status": status, "direction": direction(call),
		"from": call.From, "to": call.To, "api_version": "2010-04-01", "price": nil, "duration": nil,
	})
}

func writeJSON(w http.ResponseWriter, v any) {
	_ = json.NewEncoder(w).Encode(v) // a client that is gone needs no reply
}
