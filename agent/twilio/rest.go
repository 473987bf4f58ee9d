package twilio

import (
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"voicebridge/agent"
	"voicebridge/calls"
	"voicebridge/providers"
)

// The part of Twilio's REST API that agents use: they look a call up, end it, and give it new TwiML. Source:
// Twilio's "Call resource".

const (
	prefix = "/2010-04-01/Accounts/"
	// maxForm bounds a request, and TwiML that is fetched.
	maxForm   = 64 << 10
	fetchTime = 5 * time.Second
)

// Doors implements agent.Operator.
func (p *protocol) Doors() []string {
	return []string{"GET " + prefix + "{account}/Calls/{call}", "POST " + prefix + "{account}/Calls/{call}"}
}

// apiError is Twilio's way to say what is wrong.
type apiError struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
	More    string `json:"more_info"`
	Status  int    `json:"status"`
}

func refuse(w http.ResponseWriter, status, code int, message string) {
	reply(w, status, apiError{code, message, "https://www.twilio.com/docs/errors/" + strconv.Itoa(code), status})
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // who asked has gone
}

// Refuse implements agent.Operator.
func (p *protocol) Refuse(w http.ResponseWriter) {
	refuse(w, http.StatusUnauthorized, 20003, "Authenticate")
}

// Knows implements agent.Operator.
func (p *protocol) Knows(r *http.Request) bool {
	user, password, _ := r.BasicAuth()
	return p.token != "" && user == p.account && subtle.ConstantTimeCompare([]byte(password), []byte(p.token)) == 1
}

// Serve implements agent.Operator.
func (p *protocol) Serve(w http.ResponseWriter, r *http.Request, o agent.Operations) {
	id, isJSON := strings.CutSuffix(r.PathValue("call"), ".json")
	call, known := o.Find(func(session string) bool { return sid("CA", session) == id })
	if !known || !isJSON || r.PathValue("account") != p.account {
		refuse(w, http.StatusNotFound, 20404, "The requested resource "+r.URL.Path+" was not found")
		return
	}
	if r.Method == http.MethodGet {
		reply(w, http.StatusOK, p.resource(&call))
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		refuse(w, http.StatusBadRequest, 20001, "the body is no form")
		return
	}
	p.update(w, r, o, &call)
}

// update does to a call what is asked.
func (p *protocol) update(w http.ResponseWriter, r *http.Request, o agent.Operations, call *calls.Call) {
	if call.Status.Final() {
		if r.PostForm.Get("Status") != "" { // agents end calls that their callers have left, and look for this
			refuse(w, http.StatusNotFound, 20404, "The requested resource "+r.URL.Path+" was not found")
			return
		}
		refuse(w, http.StatusBadRequest, 21220, "Call is not in-progress. Cannot redirect.")
		return
	}
	twiml := []byte(r.PostForm.Get("Twiml"))
	var err error
	switch status := r.PostForm.Get("Status"); {
	case status == "completed", status == "canceled":
		err = o.Hangup(call.ID)
		call.Status = providers.StatusCompleted
	case status != "":
		refuse(w, http.StatusBadRequest, 21218, "Status must be completed or canceled")
		return
	case r.PostForm.Get("Url") != "":
		if twiml, err = p.fetch(r, call); err == nil {
			err = p.follow(o, call, twiml)
		}
	case len(twiml) > 0:
		err = p.follow(o, call, twiml)
	}
	var wrong *twimlError
	switch {
	case errors.As(err, &wrong):
		refuse(w, http.StatusBadRequest, 12200, wrong.Error())
	case errors.Is(err, agent.ErrRefused):
		refuse(w, http.StatusBadRequest, 13224, err.Error())
	case err != nil:
		refuse(w, http.StatusBadRequest, 21220, "Call is not in-progress. Cannot redirect.")
	default:
		reply(w, http.StatusOK, p.resource(call))
	}
}

// resource is a call as Twilio shows it.
func (p *protocol) resource(call *calls.Call) map[string]any {
	id := sid("CA", call.ID)
	stamp := func(t time.Time) any {
		if t.IsZero() {
			return nil
		}
		return t.UTC().Format("Mon, 02 Jan 2006 15:04:05 +0000")
	}
	var duration any
	if !call.EndedAt.IsZero() && !call.BeganAt.IsZero() {
		duration = strconv.Itoa(int(call.EndedAt.Sub(call.BeganAt).Seconds()))
	}
	direction := call.Direction
	if direction == calls.Outbound {
		direction = "outbound-api"
	}
	return map[string]any{"sid": id, "account_sid": p.account, "from": call.From, "to": call.To,
		"status": string(call.Status), "direction": direction, "api_version": "2010-04-01",
		"start_time": stamp(call.BeganAt), "end_time": stamp(call.EndedAt), "duration": duration,
		"date_created": stamp(call.CreatedAt), "date_updated": stamp(call.CreatedAt), "price": nil, "price_unit": "USD",
		"answered_by": nil, "parent_call_sid": nil, "uri": prefix + p.account + "/Calls/" + id + ".json",
		"subresource_uris": map[string]string{}}
}

// twimlError says what cannot be followed, or had.
type twimlError struct{ what string }

func (e *twimlError) Error() string {
	if strings.HasPrefix(e.what, "Url") {
		return e.what
	}
	return e.what + ". Followed are Hangup, Dial with a number, Play with digits, and Connect with the stream that " +
		"there is"
}

// verb is one of TwiML's.
type verb struct {
	XMLName xml.Name
	Digits  string `xml:"digits,attr"`
	URL     string `xml:"url,attr"`   // of a Stream
	Name    string `xml:"name,attr"`  // of a Parameter
	Value   string `xml:"value,attr"` // likewise
	Text    string `xml:",chardata"`
	Inner   []verb `xml:",any"`
}

// follow does what TwiML says. What would be spoken is not: the call has an agent that speaks.
func (p *protocol) follow(o agent.Operations, call *calls.Call, twiml []byte) error {
	var response verb
	if err := xml.Unmarshal(twiml, &response); err != nil || response.XMLName.Local != "Response" {
		return &twimlError{"Document parse failure"}
	}
	for _, v := range response.Inner {
		switch v.XMLName.Local {
		case "Say", "Pause":
		case "Hangup":
			return o.Hangup(call.ID)
		case "Dial":
			return p.dial(o, call, &v)
		case "Play":
			digits := strings.TrimLeft(v.Digits, "wW")
			if !agent.ValidDigits(digits) {
				return &twimlError{"Play has no digits"}
			}
			if err := o.Digits(call.ID, v.Digits); err != nil {
				return fmt.Errorf("twilio: digits: %w", err)
			}
		case "Connect": // the stream goes on
			return nil
		default:
			return &twimlError{"the verb " + v.XMLName.Local}
		}
	}
	return o.Hangup(call.ID) // as Twilio does at the end of a document
}

// dial moves a call to a number.
func (p *protocol) dial(o agent.Operations, call *calls.Call, v *verb) error {
	number := strings.TrimSpace(v.Text)
	if len(v.Inner) == 1 && v.Inner[0].XMLName.Local == "Number" {
		number = strings.TrimSpace(v.Inner[0].Text)
	} else if len(v.Inner) > 0 {
		return &twimlError{"Dial with " + v.Inner[0].XMLName.Local}
	}
	if !providers.ValidNumber(number) {
		return &twimlError{"Dial without a number in E.164"}
	}
	return o.Transfer(call.ID, &calls.TransferRequest{To: number, Mode: "blind"})
}

// fetch gets the TwiML of a URL, which must be on the agent's own host.
func (p *protocol) fetch(r *http.Request, call *calls.Call) ([]byte, error) {
	at, err := url.Parse(r.PostForm.Get("Url"))
	if err != nil || p.host == "" || at.Host != p.host || at.User != nil || at.Scheme != "https" &&
		at.Scheme != "http" {
		return nil, &twimlError{"Url must be on the agent's own host"}
	}
	method := http.MethodPost
	if strings.EqualFold(r.PostForm.Get("Method"), http.MethodGet) {
		method = http.MethodGet
	}
	return p.webhook(r.Context(), method, at, url.Values{"CallSid": {sid("CA", call.ID)}, "From": {call.From},
		"To": {call.To}, "CallStatus": {string(call.Status)}, "Direction": {call.Direction}})
}

// webhook asks for TwiML with a request signed as Twilio signs.
func (p *protocol) webhook(ctx context.Context, method string, u *url.URL, form url.Values) ([]byte, error) {
	form.Set("AccountSid", p.account)
	form.Set("ApiVersion", "2010-04-01")
	at := *u
	var body io.Reader
	signed := at.String()
	if method == http.MethodGet {
		q := at.Query()
		maps.Copy(q, form)
		at.RawQuery = q.Encode()
		signed = at.String()
	} else {
		body = strings.NewReader(form.Encode())
		for _, name := range slices.Sorted(maps.Keys(form)) {
			signed += name + form.Get(name)
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, at.String(), body)
	if err != nil {
		return nil, &twimlError{"Url is none"}
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	mac := hmac.New(sha1.New, []byte(p.token))
	mac.Write([]byte(signed))
	req.Header.Set("X-Twilio-Signature", base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	client := p.http
	if client == nil {
		client = &http.Client{Timeout: fetchTime,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, &twimlError{"Url does not answer"}
	}
	defer resp.Body.Close()
	twiml, err := io.ReadAll(io.LimitReader(resp.Body, maxForm))
	if err != nil || resp.StatusCode != http.StatusOK {
		return nil, &twimlError{"Url answers with HTTP " + strconv.Itoa(resp.StatusCode)}
	}
	return twiml, nil
}

// Locate implements agent.Locator: the agent's webhook is asked about the call, as Twilio asks, and tells the stream.
func (p *protocol) Locate(ctx context.Context, configured *url.URL, call *agent.Call) (string, error) {
	if p.voice == "" {
		return configured.String(), nil
	}
	u, err := url.Parse(p.voice)
	if err != nil {
		return "", err
	}
	twiml, err := p.webhook(ctx, http.MethodPost, u, url.Values{"CallSid": {sid("CA", call.Session)},
		"From": {call.Known.From}, "To": {call.Known.To}, "Caller": {call.Known.From}, "Called": {call.Known.To},
		"CallStatus": {"ringing"}, "Direction": {call.Known.Direction}})
	if err != nil {
		return "", fmt.Errorf("twilio: voice_url: %w", err)
	}
	var response verb
	if err := xml.Unmarshal(twiml, &response); err != nil {
		return "", fmt.Errorf("twilio: voice_url: %w", err)
	}
	for _, v := range response.Inner {
		if v.XMLName.Local == "Connect" && len(v.Inner) == 1 && v.Inner[0].XMLName.Local == "Stream" {
			call.Told = map[string]string{}
			for _, param := range v.Inner[0].Inner {
				if param.XMLName.Local == "Parameter" {
					call.Told[param.Name] = param.Value
				}
			}
			return v.Inner[0].URL, nil
		}
	}
	return "", errors.New("twilio: voice_url: its TwiML has no Connect with a Stream")
}
