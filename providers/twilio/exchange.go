package twilio

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
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
	"voicebridge/providers/internal/rest"
	"voicebridge/providers/internal/twiliomedia"
	"voicebridge/providers/internal/xmldoc"
)

// exchange is Twilio's own end of an account.
type exchange struct{ cfg Config }

// NewExchange implements providers.Spec.
func NewExchange(setup providers.Setup) (providers.Exchange, error) {
	cfg, _, err := readConfig(setup)
	if err != nil {
		return nil, err
	}
	return &exchange{cfg}, nil
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
func (*exchange) NewCall() providers.Leg { return providers.Leg{ID: newSID("CA")} }

func direction(c *providers.ExchangeCall) string {
	if c.Inbound {
		return "inbound"
	}
	return "outbound-api"
}

// Ask implements providers.Exchange.
func (x *exchange) Ask(a *providers.Ask, now time.Time) (*http.Request, error) {
	form := x.form(a)
	switch a.Kind {
	case providers.AskNext:
		x.nextForm(form, a)
	case providers.AskDigit:
		form.Set("msg", "Gather End")
		form.Set("FinishedOnKey", "")
		if a.Digit != "" {
			form.Set("Digits", a.Digit)
		}
	case providers.TellRoom:
		form = x.roomForm(a, now)
	case providers.TellStatus:
		form.Set("CallbackSource", "call-progress-events")
		form.Set("SequenceNumber", strconv.Itoa(a.Sequence))
		form.Set("Timestamp", now.UTC().Format(time.RFC1123Z))
		if a.Call.Status.Final() {
			form.Set("CallDuration", "0")
			form.Set("Duration", "0")
		}
	case providers.TellDetection:
		form = url.Values{"CallSid": {a.Call.ID}, "AccountSid": {x.cfg.AccountSID},
			"AnsweredBy":               {answeredWord(a.AnsweredBy)},
			"MachineDetectionDuration": {"2100"}}
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

// form returns the parameters of most requests.
func (x *exchange) form(a *providers.Ask) url.Values {
	return url.Values{
		"CallSid": {a.Call.ID}, "AccountSid": {x.cfg.AccountSID}, "ApiVersion": {"2010-04-01"},
		"Direction": {direction(&a.Call)},
		"From":      {a.Call.From}, "To": {a.Call.To}, "Caller": {a.Call.From}, "Called": {a.Call.To},
		"CallStatus":  {string(a.Call.Status)},
		"FromCountry": {"US"}, "ToCountry": {"US"}, "FromCity": {""}, "ToCity": {""},
	}
}

// nextForm adds what the action of a Dial is told.
func (x *exchange) nextForm(form url.Values, a *providers.Ask) {
	switch {
	case a.Room != "": // of a conference
		form.Set("DialCallStatus", "answered")
	case a.Dial != "":
		form.Set("DialCallStatus", string(a.Dial))
		form.Set("DialCallSid", newSID("CA"))
		form.Set("DialBridged", strconv.FormatBool(a.Dial == providers.StatusCompleted))
	}
}

// conferenceSID is the id of a conference.
func conferenceSID(room string) string {
	sum := sha1.Sum([]byte(room))
	return "CF" + hex.EncodeToString(sum[:16])
}

// roomForm returns a report on who comes and goes.
func (x *exchange) roomForm(a *providers.Ask, now time.Time) url.Values {
	form := url.Values{"CallSid": {a.Call.ID}, "AccountSid": {x.cfg.AccountSID},
		"ConferenceSid": {conferenceSID(a.Room)}, "FriendlyName": {a.Room},
		"SequenceNumber": {strconv.Itoa(a.Sequence)}, "Timestamp": {now.UTC().Format(time.RFC1123Z)},
		"Muted": {"false"}, "Hold": {"false"}, "Coaching": {"false"}}
	if a.Joined {
		form.Set("StatusCallbackEvent", "participant-join")
		return form
	}
	form.Set("StatusCallbackEvent", "participant-leave")
	form.Set("ReasonParticipantLeft", "participant_hung_up")
	form.Set("ParticipantCallStatus", "completed")
	return form
}

func (x *exchange) sign(data string) string {
	mac := hmac.New(sha1.New, []byte(x.cfg.AuthToken))
	mac.Write([]byte(data))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// Handshake implements providers.Exchange.
func (x *exchange) Handshake(url string, _ time.Time) (http.Header, error) {
	return http.Header{"X-Twilio-Signature": {x.sign(url)}, "User-Agent": {"Twilio.TmeWs/1.0"}}, nil
}

// Start implements providers.Exchange.
func (x *exchange) Start(call *providers.ExchangeCall, _ *providers.Answer) *providers.Start {
	f := twiliomedia.Format
	return &providers.Start{Account: x.cfg.AccountSID, Call: call.ID, Stream: newSID("MZ"), In: f, Out: f}
}

// schema has the elements of TwiML that are simulated, and their attributes.
var schema = xmldoc.Schema{
	"Response":  {},
	"Connect":   {"action", "method"},
	"Stream":    {"url", "name", "track", "connectorName", "statusCallback", "statusCallbackMethod"},
	"Parameter": {"name", "value"},
	"Redirect":  {"method"},
	"Say":       {"voice", "language", "loop"},
	"Dial":      {"callerId", "timeout", "action", "method", "timeLimit", "answerOnBridge"},
	"Number":    {"statusCallback", "statusCallbackEvent", "statusCallbackMethod"},
	"Conference": {"endConferenceOnExit", "startConferenceOnEnter", "beep", "waitUrl", "waitMethod", "statusCallback",
		"statusCallbackEvent",
		"statusCallbackMethod", "muted", "maxParticipants", "participantLabel"},
	"Gather": {"input", "numDigits", "timeout", "action", "method", "actionOnEmptyResult", "finishOnKey"},
	"Pause":  {"length"},
	"Hangup": {},
}

// maxDocument is the size of a document in bytes, maxTwiml that of one in a request.
const (
	maxDocument = 64 << 10
	maxTwiml    = 4000
)

// Answer implements providers.Exchange.
func (x *exchange) Answer(kind string, body []byte) (*providers.Answer, error) {
	if k, _, _ := strings.Cut(kind, ";"); k != "application/xml" && k != "text/xml" {
		return nil, fmt.Errorf("twilio: 12300: content type %.40q", kind)
	}
	root, err := xmldoc.Read(body, maxDocument, schema)
	switch {
	case errors.Is(err, xmldoc.ErrSchema):
		return nil, fmt.Errorf("twilio: 12200: %w", err)
	case err != nil:
		return nil, fmt.Errorf("twilio: 12100: %w", err)
	}
	var a providers.Answer
	for i := range root.Children {
		if err := verb(&a, &root.Children[i]); err != nil {
			return nil, err
		}
	}
	return &a, nil
}

func verb(a *providers.Answer, e *xmldoc.Element) error {
	text := strings.TrimSpace(e.Text)
	switch e.Name() {
	case "Connect":
		if len(e.Children) != 1 || e.Children[0].Name() != "Stream" || a.Media != "" {
			return errors.New("twilio: 12200: Connect must hold one Stream")
		}
		return stream(a, &e.Children[0])
	case "Redirect":
		var ok bool
		if a.Next, ok = webhook(text); !ok {
			return fmt.Errorf("twilio: 11100: Redirect to %.100q", text)
		}
	case "Say":
		if text == "" {
			return errors.New("twilio: 13520: Say without text")
		}
		a.Say, a.Language, a.Voice = text, e.Attr("language"), e.Attr("voice")
	case "Gather":
		return gather(a, e)
	case "Dial":
		return dial(a, e, text)
	case "Hangup", "Pause":
	default:
		return fmt.Errorf("twilio: 12200: %s is no verb", e.Name())
	}
	return nil
}

func gather(a *providers.Answer, e *xmldoc.Element) error {
	wait, err := strconv.Atoi(e.Attr("timeout"))
	switch {
	case err != nil || wait < 1 || e.Attr("numDigits") != "1" || e.Attr("input") != "dtmf" ||
		e.Attr("actionOnEmptyResult") != "true":
		return errors.New("twilio: 13321: Gather for one digit with a timeout and an action for none is all that is " +
			"simulated")
	}
	action, ok := webhook(e.Attr("action"))
	if !ok {
		return fmt.Errorf("twilio: 11100: Gather action %.100q", e.Attr("action"))
	}
	a.Ask = &providers.Question{URL: action, Wait: time.Duration(wait) * time.Second}
	for i := range e.Children {
		if e.Children[i].Name() != "Say" {
			return errors.New("twilio: 12200: Gather may hold Say")
		}
		if err := verb(a, &e.Children[i]); err != nil {
			return err
		}
	}
	return nil
}

func dial(a *providers.Answer, e *xmldoc.Element, number string) error {
	var ok bool
	if a.Next, ok = webhook(e.Attr("action")); a.Next != "" && !ok {
		return fmt.Errorf("twilio: 11100: Dial action %.100q", a.Next)
	}
	for i := range e.Children {
		n := &e.Children[i]
		if number = strings.TrimSpace(n.Text); n.Name() != "Conference" {
			continue
		}
		room := &providers.Room{Name: number, End: n.Attr("endConferenceOnExit") == "true",
			Wait: n.Attr("startConferenceOnEnter") == "false", Hold: n.Attr("waitUrl")}
		room.Events, ok = webhook(n.Attr("statusCallback"))
		switch {
		case room.Name == "" || len(room.Name) > 128:
			return errors.New("twilio: 13233: the conference must have a name of at most 128 characters")
		case room.Events != "" && (!ok || n.Attr("statusCallbackEvent") != "join leave"):
			return fmt.Errorf("twilio: 13234: statusCallback %.100q for %q", room.Events, n.Attr("statusCallbackEvent"))
		case room.Hold != "" && !rest.Secure(room.Hold, "https"):
			return fmt.Errorf("twilio: 13236: waitUrl %.100q", room.Hold)
		}
		a.Room = room
		return nil
	}
	if !providers.ValidNumber(number) {
		return fmt.Errorf("twilio: 13223: Dial to %.40q", number)
	}
	ring, err := strconv.Atoi(e.Attr("timeout"))
	if err != nil || ring < 5 || ring > 600 {
		return errors.New("twilio: 13212: Dial timeout")
	}
	a.Dial, a.Caller, a.Ring = number, e.Attr("callerId"), time.Duration(ring)*time.Second
	return nil
}

func stream(a *providers.Answer, e *xmldoc.Element) error {
	a.Media, a.Format = e.Attr("url"), twiliomedia.Format
	if !rest.Secure(a.Media, "wss") || strings.Contains(a.Media, "?") {
		return fmt.Errorf("twilio: 31920: Stream url %.100q must be wss:// without query", a.Media)
	}
	return nil
}

var (
	sendDigits = regexp.MustCompile(`^[0-9A-D*#wW]{0,32}$`)
	roomPath   = regexp.MustCompile(`^/2010-04-01/Accounts/([^/]+)/Conferences(?:/(CF[^/]+)/Participants/([^/]+))?\.json$`)
	numberPath = regexp.MustCompile(`^/2010-04-01/Accounts/([^/]+)/IncomingPhoneNumbers\.json$`)
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
	if op := x.conference(r); op != nil {
		return op, nil
	}
	if m := numberPath.FindStringSubmatch(r.URL.Path); m != nil && m[1] == x.cfg.AccountSID && r.Method == "GET" {
		op := &providers.Operation{Kind: providers.OpNumbers}
		op.Page, _ = strconv.Atoi(r.URL.Query().Get("Page"))
		op.Size, _ = strconv.Atoi(r.URL.Query().Get("PageSize"))
		return op, nil
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
	switch {
	case err != nil:
		return nil, fail(400, 20001, "Bad request")
	case op.Call != "":
		return op, x.change(op, form)
	}
	op.Kind = providers.OpDial
	op.Dial, err = dialForm(form)
	return op, err
}

// conference reads a request about a conference; nil: it is about something else.
func (x *exchange) conference(r *http.Request) *providers.Operation {
	m := roomPath.FindStringSubmatch(r.URL.Path)
	switch {
	case m == nil || m[1] != x.cfg.AccountSID || r.Method != "GET":
		return nil
	case m[2] != "":
		return &providers.Operation{Kind: providers.OpMember, Room: m[2], Call: m[3]}
	}
	q := r.URL.Query()
	if q.Get("Status") != "in-progress" {
		return nil
	}
	return &providers.Operation{Kind: providers.OpRoom, Room: q.Get("FriendlyName")}
}

// change reads a request that changes a live call.
func (x *exchange) change(op *providers.Operation, form url.Values) (err error) {
	switch doc := form.Get("Twiml"); {
	case len(form) == 1 && (form.Get("Status") == "completed" || form.Get("Status") == "canceled"):
		op.Kind = providers.OpHangup
	case len(form) == 1 && doc != "" && len(doc) <= maxTwiml:
		op.Kind = providers.OpDo
		if op.Answer, err = x.Answer("application/xml", []byte(doc)); err != nil {
			return fail(400, 12100, err.Error())
		}
	default:
		return fail(400, 20001, "Invalid parameters")
	}
	return nil
}

// dialParams are the parameters of a new call that are known here.
// connection is how requests to a webhook are made, behind its '#'.
var connection = regexp.MustCompile(`^rc=[0-5]&rp=(4xx|5xx|ct|rt|all)(,(4xx|5xx|ct|rt|all))*$`)

// webhook is the URL of one without what follows '#'. It is not ok if Twilio would not take
// it (11100, 11243).
func webhook(s string) (u string, ok bool) {
	u, how, has := strings.Cut(s, "#")
	return u, rest.Secure(u, "https") && (!has || connection.MatchString(how))
}

var dialParams = []string{"To", "From", "Url", "Method", "StatusCallback", "StatusCallbackMethod",
	"StatusCallbackEvent", "Timeout", "TimeLimit", "SendDigits", "CallToken", "MachineDetection", "AsyncAmd",
	"AsyncAmdStatusCallback", "AsyncAmdStatusCallbackMethod"}

// statusEvents are those that may be asked for; busy and the like come as
// completed.
var statusEvents = []string{"initiated", "ringing", "answered", "completed"}

func dialForm(form url.Values) (*providers.Dial, error) {
	for name := range form {
		if !slices.Contains(dialParams, name) {
			return nil, fail(400, 20001, "Unknown parameter "+name)
		}
	}
	d := &providers.Dial{To: form.Get("To"), From: form.Get("From"), Digits: form.Get("SendDigits"),
		Forward: form.Get("CallToken")}
	var answers, reports bool
	d.Answer, answers = webhook(form.Get("Url"))
	d.Status, reports = webhook(form.Get("StatusCallback"))
	switch {
	case !providers.ValidNumber(d.To):
		return nil, fail(400, 21211, "The 'To' number "+d.To+" is not a valid phone number.")
	case !providers.ValidNumber(d.From):
		return nil, fail(400, 21212, "The 'From' number "+d.From+" is not a valid phone number.")
	case !answers:
		return nil, fail(400, 21205, "Url is not a valid URL: "+d.Answer)
	case d.Status != "" && !reports:
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
	return d, detection(d, form)
}

// detection reads what is asked for about answering machines.
func detection(d *providers.Dial, form url.Values) error {
	switch form.Get("MachineDetection") {
	case "":
	case "Enable", "DetectMessageEnd":
		if form.Get("AsyncAmd") != "true" || form.Get("AsyncAmdStatusCallback") == "" {
			return fail(400, 20001, "only asynchronous detection is simulated")
		}
		d.Detect = true
	default:
		return fail(400, 20001, "MachineDetection is not valid")
	}
	return nil
}

// texts are what errors say, by their code.
var texts = map[int]string{21220: "Call is not in-progress. Cannot redirect.", 20429: "Too Many Requests"}

// Reply implements providers.Exchange.
func (x *exchange) Reply(w http.ResponseWriter, op *providers.Operation, call *providers.ExchangeCall, err error) {
	w.Header().Set("Content-Type", "application/json")
	var e *providers.CallError
	if errors.As(err, &e) {
		x.replyError(w, e, op != nil && call != nil)
		return
	}
	switch op.Kind {
	case providers.OpNumbers:
		x.replyNumbers(w, op)
		return
	case providers.OpRoom:
		x.replyConferences(w, call)
		return
	case providers.OpMember:
		if conferenceSID(call.Room) != op.Room {
			x.replyError(w, &providers.CallError{Kind: providers.ErrNoCall, Status: 404}, false)
			return
		}
		rest.WriteJSON(w, map[string]any{"call_sid": call.ID, "conference_sid": op.Room, "status": "connected"})
		return
	}
	var by any
	if call.AnsweredBy != "" {
		by = answeredWord(call.AnsweredBy)
	}
	status := string(call.Status)
	if op.Kind == providers.OpDial {
		status = "queued"
		w.WriteHeader(http.StatusCreated)
	}
	rest.WriteJSON(w, map[string]any{
		"sid": call.ID, "account_sid": x.cfg.AccountSID, "status": status, "direction": direction(call),
		"from": call.From, "to": call.To, "api_version": "2010-04-01", "price": nil, "price_unit": "USD",
		"duration": nil, "answered_by": by,
		"uri": "/2010-04-01/Accounts/" + x.cfg.AccountSID + "/Calls/" + call.ID + ".json",
	})
}

// replyNumbers lists a page of the account's numbers.
func (x *exchange) replyNumbers(w http.ResponseWriter, op *providers.Operation) {
	list, more := op.PageOf(op.Page)
	numbers := []any{}
	for _, n := range list {
		can := map[string]bool{}
		for _, what := range []string{"voice", "sms", "mms", "fax"} {
			can[what] = slices.Contains(n.Can, what)
		}
		numbers = append(numbers, map[string]any{"phone_number": n.Number, "voice_url": n.Webhook, "capabilities": can})
	}
	reply := map[string]any{"incoming_phone_numbers": numbers, "page": op.Page, "page_size": op.Size}
	if more {
		reply["next_page_uri"] = fmt.Sprintf("/2010-04-01/Accounts/%s/IncomingPhoneNumbers.json?Page=%d&PageSize=%d",
			x.cfg.AccountSID, op.Page+1, op.Size)
	}
	rest.WriteJSON(w, reply)
}

// answeredWord is who has answered, in Twilio's words.
func answeredWord(by providers.AnsweredBy) string {
	if by == providers.AnsweredByMachine {
		return "machine_start"
	}
	return string(by)
}

// replyConferences lists the conference that a call is in; nil: there is none.
func (x *exchange) replyConferences(w http.ResponseWriter, call *providers.ExchangeCall) {
	list := []any{}
	if call != nil {
		list = append(list, map[string]any{"sid": conferenceSID(call.Room), "friendly_name": call.Room,
			"status": "in-progress", "account_sid": x.cfg.AccountSID})
	}
	rest.WriteJSON(w, map[string]any{"conferences": list, "page": 0, "page_size": 50, "next_page_uri": nil})
}

// replyError answers with an error. over tells that the call is known, but has ended.
func (x *exchange) replyError(w http.ResponseWriter, e *providers.CallError, over bool) {
	code, _ := strconv.Atoi(e.Code)
	status := e.Status
	if code == 0 {
		code = map[providers.CallErrorKind]int{providers.ErrNoCall: 20404, providers.ErrRate: 20429}[e.Kind]
	}
	if e.Kind == providers.ErrNoCall && over {
		code, status = 21220, 400
	}
	detail := e.Detail
	if text, known := texts[code]; known {
		detail = text
	}
	if e.Retry > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(e.Retry/time.Second)))
	}
	w.WriteHeader(status)
	rest.WriteJSON(w, map[string]any{"code": code, "message": detail,
		"more_info": "https://www.twilio.com/docs/errors/" + strconv.Itoa(code), "status": status})
}
