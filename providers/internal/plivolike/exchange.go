package plivolike

import (
	"crypto/rand"
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
	"voicebridge/providers/internal/xmldoc"
)

// Exchange is the carrier's own end of an account.
type Exchange struct {
	*Dialect
	cfg Config
}

// sample implements providers.Spec.Sample.
func (d *Dialect) sample(baseURL string, f codec.Format) func(any) error {
	cfg := Config{AuthID: "MA" + rand.Text()[:18], AuthToken: rand.Text(), Encoding: mulaw, Rate: f.Rate,
		BaseURL: baseURL}
	if f.Encoding != codec.PCMU {
		cfg.Encoding = l16
	}
	return func(c any) error {
		*c.(*Config) = cfg
		return nil
	}
}

// requestMark begins the id of a request, which in this simulation is never that of its
// call.
const requestMark = "f"

func newUUID(first string) string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return first + fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])[1:]
}

// NewCall implements providers.Exchange. The alias is the id of the request.
func (*Exchange) NewCall() providers.Leg {
	return providers.Leg{ID: newUUID("0"), Aliases: []string{newUUID(requestMark)}}
}

// request is the id of a call's request.
func request(c *providers.ExchangeCall) string {
	if len(c.Aliases) > 0 {
		return c.Aliases[0]
	}
	return c.ID
}

// Tries is how often a webhook is made that is not answered: a document is fetched three
// times.
func (*Exchange) Tries(*providers.Ask) int { return 3 }

// ends are the end of a call as its webhook tells it.
var ends = map[providers.Status]struct{ status, cause, code, name string }{
	providers.StatusCompleted: {"completed", "NORMAL_CLEARING", "4000", "Normal Hangup"},
	providers.StatusBusy:      {"busy", "USER_BUSY", "3010", "Busy Line"},
	providers.StatusNoAnswer:  {"no-answer", "NO_ANSWER", "6010", "Ring Timeout Reached"},
	providers.StatusFailed:    {"failed", "UNALLOCATED_NUMBER", "3050", "Unallocated Number"},
	providers.StatusCanceled:  {"cancel", "ORIGINATOR_CANCEL", "1000", "Cancelled"},
}

// Ask implements providers.Exchange.
func (x *Exchange) Ask(a *providers.Ask, _ time.Time) (*http.Request, error) {
	form, err := x.form(a)
	if err != nil {
		return nil, err
	}
	body := form.Encode()
	req, err := http.NewRequest("POST", a.URL, strings.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("%s: ask: %w", x.Name, err)
	}
	req.Header = x.signed("POST", a.URL, body)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("User-Agent", x.Title)
	return req, nil
}

// signed are the headers of a signed request.
func (x *Exchange) signed(method, url, body string) http.Header {
	nonce := rand.Text()
	s := Sign(x.cfg.AuthToken, x.Signed(method, url, []byte(body))[0], nonce)
	h := http.Header{}
	h.Set(x.Signature+"-V3", s)
	h.Set(x.Signature+"-Ma-V3", s)
	h.Set(x.nonceHeader(), nonce)
	return h
}

// form returns the parameters of a webhook.
func (x *Exchange) form(a *providers.Ask) (url.Values, error) {
	form := url.Values{"CallUUID": {a.Call.ID}, "From": {national(a.Call.From)}, "To": {national(a.Call.To)},
		"Direction": {"inbound"}, "CallStatus": {word(a.Call.Status)}, "ParentAuthID": {x.cfg.AuthID}}
	if !a.Call.Inbound {
		form.Set("Direction", "outbound")
		form.Set("RequestUUID", request(&a.Call))
		form.Set("ALegRequestUUID", request(&a.Call))
		form.Set("ALegUUID", a.Call.ID)
	}
	set := func(pairs ...string) {
		for i := 0; i < len(pairs); i += 2 {
			form.Set(pairs[i], pairs[i+1])
		}
	}
	switch a.Kind {
	case providers.AskAnswer:
		set("Event", "StartApp")
	case providers.AskNext:
		x.next(form, a)
	case providers.AskDigit:
		if a.Digit == "" {
			set("Event", "Redirect")
			break
		}
		set("Digits", a.Digit, "InputType", "dtmf", "Speech", "")
	case providers.TellRoom:
		x.room(form, a)
	case providers.TellDetection:
		if a.AnsweredBy == providers.AnsweredByHuman { // of whom nothing is told
			return nil, providers.ErrNotAsked
		}
		set("Event", "MachineDetection", "Machine", "true")
	case providers.TellStatus:
		end, over := ends[a.Call.Status]
		switch {
		case over:
			set("Event", "Hangup", "CallStatus", end.status, "HangupCause", end.cause, "HangupCauseCode", end.code,
				"HangupCauseName", end.name, "HangupSource", "Callee", "Duration", "0", "BillDuration", "0",
				"AnswerTime", "")
		case a.Call.Status == providers.StatusRinging && !a.Call.Inbound:
			set("Event", "Ring")
		default: // that it is answered is told by asking what to do
			return nil, providers.ErrNotAsked
		}
	}
	return form, nil
}

// next adds what is told when something is over.
func (x *Exchange) next(form url.Values, a *providers.Ask) {
	if a.Dial == "" || a.Room != "" {
		form.Set("Event", "Redirect")
		return
	}
	if x.DialActs {
		for name := range form {
			form.Del(name)
		}
		form.Set("Event", "DialAction")
	}
	end := ends[a.Dial]
	form.Set("DialStatus", end.status)
	form.Set("DialHangupCause", end.cause)
	form.Set("DialRingStatus", "true")
	form.Set("DialALegUUID", a.Call.ID)
	form.Set("DialBLegUUID", "")
}

// room adds what is told of a conference. Who leaves it may be gone already.
func (x *Exchange) room(form url.Values, a *providers.Ask) {
	form.Set("ConferenceName", a.Room)
	form.Set("ConferenceUUID", newUUID("0"))
	form.Set("ConferenceMemberID", "17")
	form.Set("ConferenceAction", "enter")
	form.Set("Event", "ConferenceEnter")
	if a.Joined {
		return
	}
	form.Set("ConferenceAction", "exit")
	form.Set("Event", "ConferenceExit")
	for _, name := range []string{"From", "To", "Direction", "CallStatus", "RequestUUID", "ALegRequestUUID",
		"ALegUUID"} {
		form.Del(name)
	}
}

// word is a status in the carrier's words.
func word(s providers.Status) string {
	switch {
	case ends[s].status != "":
		return ends[s].status
	case s == providers.StatusInitiated:
		return "queued"
	}
	return string(s)
}

// Handshake implements providers.Exchange.
func (x *Exchange) Handshake(url string, _ time.Time) (http.Header, error) {
	if !x.Abilities.SignsHandshake {
		return http.Header{}, nil
	}
	return x.signed("GET", url, ""), nil
}

// Start implements providers.Exchange. The account's id is a number here.
func (x *Exchange) Start(c *providers.ExchangeCall, a *providers.Answer) *providers.Start {
	s := x.Media.Start(a.Format)
	s.Account, s.Call, s.Stream = "500025", c.ID, newUUID("2")
	return s
}

// maxDocument is the size of a document in bytes.
const maxDocument = 100 << 10

// schema has the elements that are simulated, and their attributes.
func (x *Exchange) schema() xmldoc.Schema {
	quiet := []string{"beep"}
	if x.Quiet.EnterSound != nil {
		quiet = []string{"enterSound", "exitSound"}
	}
	return xmldoc.Schema{
		"Response": {},
		"Speak":    {"voice", "language", "loop"},
		"Play":     {"loop"},
		x.Question: {"action", "method", "inputType", "numDigits", "executionTimeout", "digitEndTimeout",
			"finishOnKey"},
		"Stream": {"bidirectional", "audioTrack", "keepCallAlive", "contentType", "streamTimeout", "extraHeaders",
			"statusCallbackUrl", "statusCallbackMethod"},
		"Conference": append([]string{"startConferenceOnEnter", "endConferenceOnExit", "stayAlone", "waitSound",
			"callbackUrl", "callbackMethod", "muted", "timeLimit"}, quiet...),
		"Dial":     {"callerId", "timeout", "action", "method", "redirect", "timeLimit"},
		"Number":   {},
		"Redirect": {"method"},
		"Wait":     {"length"},
		"Hangup":   {"reason"},
	}
}

// Answer implements providers.Exchange.
func (x *Exchange) Answer(kind string, body []byte) (*providers.Answer, error) {
	if k, _, _ := strings.Cut(kind, ";"); k != "application/xml" && k != "text/xml" {
		return nil, fmt.Errorf("%s: 8011: content type %.40q", x.Name, kind)
	}
	root, err := xmldoc.Read(body, maxDocument, x.schema())
	if err != nil {
		return nil, fmt.Errorf("%s: 8011: %w", x.Name, err)
	}
	var a providers.Answer
	for i := range root.Children {
		if err := x.element(&a, &root.Children[i]); err != nil {
			return nil, fmt.Errorf("%s: 8011: %w", x.Name, err)
		}
	}
	if a.Ask != nil {
		if a.Next != a.Ask.URL { // its action is not asked where no key is pressed
			return nil, fmt.Errorf("%s: %s without a Redirect behind it: the call ends where no key is pressed", x.Name,
				x.Question)
		}
		a.Next = ""
	}
	return &a, nil
}

func (x *Exchange) element(a *providers.Answer, e *xmldoc.Element) (err error) {
	text := strings.TrimSpace(e.Text)
	switch e.Name() {
	case "Speak":
		if a.Say, a.Language, a.Voice = text, e.Attr("language"), e.Attr("voice"); text == "" {
			return errors.New("a Speak without text")
		}
	case x.Question:
		return x.question(a, e)
	case "Stream":
		return x.stream(a, e, text)
	case "Conference":
		return conferenceOf(a, e, text)
	case "Dial":
		return x.dial(a, e)
	case "Redirect":
		a.Next, err = hook(text)
	case "Hangup", "Wait", "Play":
	default:
		return fmt.Errorf("%s may not stand there", e.Name())
	}
	return err
}

// hook checks the URL of a webhook.
func hook(s string) (string, error) {
	if !rest.Secure(s, "https") {
		return "", fmt.Errorf("%.100q is no URL of a webhook", s)
	}
	return s, nil
}

func (x *Exchange) question(a *providers.Answer, e *xmldoc.Element) (err error) {
	wait, err := strconv.Atoi(e.Attr("executionTimeout"))
	if err != nil || wait < 5 || wait > 60 || e.Attr("numDigits") != "1" || e.Attr("inputType") != "dtmf" {
		return fmt.Errorf("%s for one digit within 5 to 60 seconds is all that is simulated", x.Question)
	}
	a.Ask = &providers.Question{Wait: time.Duration(wait) * time.Second}
	if a.Ask.URL, err = hook(e.Attr("action")); err != nil {
		return err
	}
	for i := range e.Children {
		if e.Children[i].Name() != "Speak" {
			return fmt.Errorf("%s may hold Speak", x.Question)
		}
		if err := x.element(a, &e.Children[i]); err != nil {
			return err
		}
	}
	return nil
}

func (x *Exchange) stream(a *providers.Answer, e *xmldoc.Element, url string) error {
	encoding, params, _ := strings.Cut(e.Attr("contentType"), ";rate=")
	rate, _ := strconv.Atoi(params)
	f, err := x.Media.FormatOf(encoding, rate)
	switch {
	case err != nil:
		return err
	case !rest.Secure(url, "wss"):
		return fmt.Errorf("a Stream to %.100q must be wss://", url)
	case e.Attr("bidirectional") != "true" || e.Attr("keepCallAlive") != "true":
		return errors.New("a Stream that does not go both ways and keep the call is not simulated")
	case e.Attr("audioTrack") != "" && e.Attr("audioTrack") != "inbound":
		return errors.New("audioTrack: must be inbound where a Stream goes both ways")
	}
	a.Media, a.Format = url, f
	return nil
}

func conferenceOf(a *providers.Answer, e *xmldoc.Element, name string) (err error) {
	r := &providers.Room{Name: name, End: e.Attr("endConferenceOnExit") == "true",
		Wait: e.Attr("startConferenceOnEnter") == "false", Hold: e.Attr("waitSound")}
	if u := e.Attr("callbackUrl"); u != "" {
		r.Events, err = hook(u)
	}
	switch {
	case err != nil:
		return err
	case name == "" || strings.ContainsAny(name, " ;/?&"):
		return errors.New("a Conference without a good name")
	case r.Hold != "" && !rest.Secure(r.Hold, "https"):
		return fmt.Errorf("waitSound %.100q", r.Hold)
	case e.Attr("stayAlone") != "true": // a lone member would be thrown out
		return errors.New("a Conference without stayAlone is not simulated")
	}
	a.Room = r
	return nil
}

func (x *Exchange) dial(a *providers.Answer, e *xmldoc.Element) (err error) {
	if len(e.Children) != 1 || e.Children[0].Name() != "Number" {
		return errors.New("Dial must hold one Number")
	}
	number := e164(strings.TrimSpace(e.Children[0].Text))
	ring, err := strconv.Atoi(e.Attr("timeout"))
	if err != nil || ring < 1 || !providers.ValidNumber(number) {
		return fmt.Errorf("Dial to %.40q, timeout %.10q", number, e.Attr("timeout"))
	}
	a.Dial, a.Caller, a.Ring = number, e164(e.Attr("callerId")), time.Duration(ring)*time.Second
	if u := e.Attr("action"); u != "" {
		a.Next, err = hook(u)
	}
	return err
}

var (
	digitsSent = regexp.MustCompile(`^[0-9*#wW]{1,64}$`)
	apiPath    = regexp.MustCompile(`^/Account/([^/]+)/(Call|Request|Conference|Application|Number)/(?:([^/]+)/(DTMF/)?)?$`)
)

func fail(status int, detail string) error {
	return &providers.CallError{Kind: providers.KindOf(status), Status: status, Detail: detail}
}

// Operation implements providers.Exchange.
func (x *Exchange) Operation(r *http.Request, body []byte, _ time.Time) (op *providers.Operation, err error) {
	path := r.URL.Path
	if strings.HasSuffix(path, "/numbers") { // the one that has no slash
		path = strings.TrimSuffix(path, "numbers") + "Number/"
	}
	m := apiPath.FindStringSubmatch(path)
	switch {
	case !x.Authorized(r, x.cfg.AuthID, x.cfg.AuthToken) || m == nil: // a path in another form is as bad
		return nil, fail(401, "unauthorized")
	case m[1] != x.cfg.AuthID:
		return nil, fail(404, "not found")
	}
	if op := x.listing(r, m[2], m[3]); op != nil {
		return op, nil
	}
	op = &providers.Operation{Call: m[3]}
	isRequest := strings.HasPrefix(op.Call, requestMark)
	switch what := r.Method + " " + m[2]; {
	case what == "POST Call" && op.Call == "":
		op.Kind = providers.OpDial
		op.Dial, err = x.dialled(body)
	case what == "GET Call" && m[4] == "" && r.URL.Query().Get("status") != "":
		op.Kind = providers.OpGet
	case what == "DELETE Call" && isRequest, what == "DELETE Request" && !isRequest && op.Call[0] == '0':
		return nil, fail(404, "not found")
	case (what == "DELETE Call" || what == "DELETE Request") && m[4] == "":
		op.Kind = providers.OpHangup
	case what == "POST Call" && m[4] != "":
		var b digitsBody
		if err := rest.Strict(body, &b); err != nil || !digitsSent.MatchString(b.Digits) || b.Leg != "aleg" {
			return nil, fail(400, "digits parameter is invalid")
		}
		op.Kind, op.Digits = providers.OpDigits, b.Digits
	case what == "POST Call":
		var b redirectBody
		if err := rest.Strict(body, &b); err != nil || b.Legs != "aleg" || b.Method != "POST" ||
			!rest.Secure(b.URL, "https") {
			return nil, fail(400, "aleg_url parameter is invalid")
		}
		op.Kind, op.Answer = providers.OpDo, &providers.Answer{Next: b.URL}
	case what == "GET Conference" && op.Call != "":
		op.Kind, op.Room, op.Call = providers.OpRoom, op.Call, ""
	default:
		return nil, fail(405, "method not allowed")
	}
	return op, err
}

// listing reads a request for the account's numbers, or for an application; nil: it is for
// something else.
func (x *Exchange) listing(r *http.Request, what, id string) *providers.Operation {
	op := &providers.Operation{Kind: providers.OpNumbers, Call: id, Page: -1}
	switch list := x.Dialect.Numbers; {
	case r.Method != "GET":
		return nil
	case what == "Application" && id != "":
		return op
	case !strings.HasSuffix(r.URL.Path, list.Path) || id != "":
		return nil
	default:
		q := r.URL.Query()
		op.Page, _ = strconv.Atoi(q.Get(list.Page))
		op.Size, _ = strconv.Atoi(q.Get(list.Size))
		if op.Size < 1 || op.Size > numbersPage {
			op.Size = numbersPage
		}
		if list.Offset {
			op.Page /= op.Size
		} else {
			op.Page--
		}
	}
	return op
}

// replyNumbers lists a page of the account's numbers, each with an application of its own,
// or tells where one has its webhooks.
func (x *Exchange) replyNumbers(w http.ResponseWriter, op *providers.Operation) {
	if op.Page < 0 {
		n, err := strconv.Atoi(op.Call)
		if err != nil || n >= len(op.Numbers) {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		rest.WriteJSON(w, map[string]any{"app_id": op.Call, "answer_url": op.Numbers[n].Webhook})
		return
	}
	list, _ := op.PageOf(op.Page)
	objects := []any{}
	for i, n := range list {
		one := map[string]any{"number": national(n.Number), "sms_enabled": slices.Contains(n.Can, "sms")}
		if n.Webhook != "" {
			one["application"] = fmt.Sprintf("/v1/Account/%s/Application/%d/", x.cfg.AuthID, op.Page*op.Size+i)
		}
		if !x.Dialect.Numbers.Offset {
			one["e164"], one["application_id"] = n.Number, lastPart(fmt.Sprint(one["application"]))
			if delete(one, "number"); n.Webhook == "" {
				delete(one, "application_id")
			}
			delete(one, "application")
		}
		objects = append(objects, one)
	}
	name := "items"
	if x.Dialect.Numbers.Offset {
		name = "objects"
	}
	rest.WriteJSON(w, map[string]any{name: objects})
}

func (x *Exchange) dialled(body []byte) (*providers.Dial, error) {
	var b dialBody
	if err := rest.Strict(body, &b); err != nil {
		return nil, fail(400, err.Error())
	}
	d := &providers.Dial{To: e164(b.To), From: e164(b.From), Answer: b.AnswerURL, Status: b.HangupURL,
		Ring: time.Duration(b.Ring) * time.Second, Digits: b.SendDigits, Detect: b.Detect == "true"}
	for name, bad := range map[string]bool{
		"from":        !providers.ValidNumber(d.From),
		"to":          !providers.ValidNumber(d.To),
		"answer_url":  !rest.Secure(b.AnswerURL, "https") || b.AnswerMethod != "POST",
		"hangup_url":  !rest.Secure(b.HangupURL, "https") || b.HangupMethod != "POST",
		"ring_url":    b.RingURL != b.HangupURL || b.RingMethod != "POST",
		"send_digits": b.SendDigits != "" && !digitsSent.MatchString(b.SendDigits),
		"machine_detection": b.Detect != "" && (b.Detect != "true" || b.DetectURL != b.HangupURL ||
			b.DetectMethod != "POST"),
	} {
		if bad {
			return nil, fail(400, name+" parameter is invalid.")
		}
	}
	return d, nil
}

// Reply implements providers.Exchange.
func (x *Exchange) Reply(w http.ResponseWriter, op *providers.Operation, c *providers.ExchangeCall, err error) {
	var e *providers.CallError
	if errors.As(err, &e) {
		if e.Retry > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int(e.Retry/time.Second)))
		}
		if e.Status == 401 { // no JSON
			http.Error(w, "Could not verify your access level for that URL.", e.Status)
			return
		}
		w.WriteHeader(e.Status)
		rest.WriteJSON(w, map[string]any{"api_id": newUUID("0"), "error": e.Detail})
		return
	}
	w.Header().Set("Content-Type", "application/json")
	reply := map[string]any{"api_id": newUUID("0")}
	switch op.Kind {
	case providers.OpNumbers:
		x.replyNumbers(w, op)
		return
	case providers.OpDial:
		w.WriteHeader(http.StatusCreated)
		reply["message"], reply["request_uuid"] = "call fired", request(c)
	case providers.OpHangup:
		w.WriteHeader(http.StatusNoContent)
		return
	case providers.OpDo:
		w.WriteHeader(http.StatusAccepted)
		reply["message"] = "call transfered"
	case providers.OpDigits:
		w.WriteHeader(http.StatusAccepted)
		reply["message"] = "digits sent"
	case providers.OpRoom:
		x.replyRoom(w, op, c, reply)
		return
	case providers.OpGet:
		reply["call_status"], reply["call_uuid"], reply["request_uuid"] = word(c.Status), c.ID, request(c)
		reply["from"], reply["to"], reply["direction"] = c.From, national(c.To), "outbound"
	}
	rest.WriteJSON(w, reply)
}

// replyRoom tells of a conference. Some do not tell of one that is running.
func (x *Exchange) replyRoom(w http.ResponseWriter, op *providers.Operation, c *providers.ExchangeCall,
	reply map[string]any) {
	switch {
	case c == nil:
		w.WriteHeader(http.StatusNotFound)
		reply["error"] = notFound
	case x.HidesRooms:
		reply = map[string]any{"error": "failed"}
	default:
		reply["conference_name"], reply["conference_member_count"] = op.Room, "1"
		var members []map[string]any
		for i, id := range c.Members {
			members = append(members, map[string]any{"member_id": strconv.Itoa(i), "call_uuid": id, "muted": false})
		}
		reply["members"] = members
	}
	rest.WriteJSON(w, reply)
}
