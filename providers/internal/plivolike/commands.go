package plivolike

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"voicebridge/providers"
	"voicebridge/providers/internal/rest"
)

// Commands are the REST API of one account. Answers are taken by URL only.
type Commands struct {
	*Dialect
	rest    rest.Client
	account string // the path of the account
	publish func(*providers.Answer) string
}

func (d *Dialect) newCommands(cfg Config, base *url.URL, transport http.RoundTripper) *Commands {
	return &Commands{Dialect: d, account: "/Account/" + url.PathEscape(cfg.AuthID) + "/", rest: rest.Client{
		Carrier: d.Name, Base: base, HTTP: transport, Fault: fault,
		Authorize: func(r *http.Request) error {
			d.Authorize(r, cfg.AuthID, cfg.AuthToken)
			return nil
		},
	}}
}

// Publish implements providers.Publisher.
func (c *Commands) Publish(url func(*providers.Answer) string) { c.publish = url }

// fault reads what the API says of an error. It may be anything: some are HTML.
func fault(_ int, body []byte) (code, detail string) {
	var said struct {
		Error   string `json:"error"`
		Message string `json:"message"`
	}
	_ = json.Unmarshal(body, &said)
	return "", strings.TrimSpace(said.Error + " " + said.Message)
}

// do makes a request about a call, or about all of them.
func (c *Commands) do(ctx context.Context, op, method, path string, body, reply any) error {
	return c.rest.Do(ctx, op, method, c.account+path, body, reply)
}

func call(id string) string { return "Call/" + url.PathEscape(id) + "/" }

// dialBody places a call.
type dialBody struct {
	From         string `json:"from"`
	To           string `json:"to"`
	AnswerURL    string `json:"answer_url"`
	AnswerMethod string `json:"answer_method"`
	RingURL      string `json:"ring_url"`
	RingMethod   string `json:"ring_method"`
	HangupURL    string `json:"hangup_url"`
	HangupMethod string `json:"hangup_method"`
	Ring         int    `json:"ring_timeout,omitempty"`
	SendDigits   string `json:"send_digits,omitempty"`
	Detect       string `json:"machine_detection,omitempty"`
	DetectURL    string `json:"machine_detection_url,omitempty"` // beside the call
	DetectMethod string `json:"machine_detection_method,omitempty"`
}

// Dial implements providers.Commands. The id that it returns is that of the request: the
// call may have another one, which comes with its first webhook.
func (c *Commands) Dial(ctx context.Context, d *providers.Dial) (providers.Leg, error) {
	body := dialBody{From: national(d.From), To: national(d.To), AnswerURL: d.Answer, AnswerMethod: "POST",
		RingURL: d.Status, RingMethod: "POST", HangupURL: d.Status, HangupMethod: "POST", Ring: seconds(d.Ring),
		SendDigits: d.Digits}
	if d.Detect {
		body.Detect, body.DetectURL, body.DetectMethod = "true", d.Status, "POST"
	}
	var reply struct {
		ID string `json:"request_uuid"`
	}
	err := c.do(ctx, "dial", "POST", "Call/", &body, &reply)
	if err == nil && reply.ID == "" {
		err = &providers.CallError{Op: c.Name + ": dial", Kind: providers.ErrUnavailable,
			Err: errors.New("the reply has no request_uuid")}
	}
	return providers.Leg{ID: reply.ID}, err
}

// redirectBody has the call ask for a document.
type redirectBody struct {
	Legs   string `json:"legs"`
	URL    string `json:"aleg_url"`
	Method string `json:"aleg_method"`
}

// Do implements providers.Commands.
func (c *Commands) Do(ctx context.Context, leg string, a *providers.Answer) error {
	if c.publish == nil {
		return fmt.Errorf("%s: redirect: there is no place for answers", c.Name)
	}
	return c.do(ctx, "redirect", "POST", call(leg), redirectBody{"aleg", c.publish(a), "POST"}, nil)
}

// Hangup implements providers.Commands. A call that still rings may be known by the id of
// its request only.
func (c *Commands) Hangup(ctx context.Context, leg string) error {
	err := c.do(ctx, "hang up", "DELETE", call(leg), nil, nil)
	if providers.IsNoCall(err) {
		err = c.do(ctx, "cancel", "DELETE", "Request/"+url.PathEscape(leg)+"/", nil, nil)
	}
	return err
}

// Get implements providers.Commands. Calls are live, or still queued.
func (c *Commands) Get(ctx context.Context, leg string) ([]providers.CallEvent, error) {
	var reply struct {
		Status  string `json:"call_status"`
		ID      string `json:"call_uuid"`
		Request string `json:"request_uuid"`
	}
	err := c.do(ctx, "get", "GET", call(leg)+"?status=live", nil, &reply)
	if providers.IsNoCall(err) {
		err = c.do(ctx, "get", "GET", call(leg)+"?status=queued", nil, &reply)
	}
	if err != nil {
		return nil, err
	}
	ev := providers.CallEvent{Kind: providers.CallProgress, Leg: leg, Raw: reply.Status, Status: statusOf(reply.Status)}
	for _, id := range []string{reply.ID, reply.Request} {
		if id != "" && !ev.Is(id) {
			ev.Aliases = append(ev.Aliases, id)
		}
	}
	return []providers.CallEvent{ev}, nil
}

// InRoom implements providers.RoomLooker. Some tell of a running conference no more than
// that it could not be looked at.
func (c *Commands) InRoom(ctx context.Context, room string, legs []string) ([]bool, error) {
	in := make([]bool, len(legs))
	var reply struct {
		Error   string `json:"error"`
		Members []struct {
			Call string `json:"call_uuid"`
		} `json:"members"`
	}
	err := c.do(ctx, "conference", "GET", "Conference/"+url.PathEscape(room)+"/", nil, &reply)
	switch {
	case providers.IsNoCall(err):
		return in, nil
	case err != nil:
		return in, err
	case reply.Error == notFound:
		return in, nil
	case reply.Error != "":
		return in, fmt.Errorf("%s: conference: %.40q: %w", c.Name, reply.Error, errors.ErrUnsupported)
	}
	for i, leg := range legs {
		for _, m := range reply.Members {
			in[i] = in[i] || m.Call == leg
		}
	}
	return in, nil
}

// notFound is said of a conference that nobody is in.
const notFound = "conference not found"

// number is one of the account's, in the words of all carriers of this kind.
type number struct {
	Number      string `json:"number"`
	E164        string `json:"e164"`
	Voice       *bool  `json:"voice_enabled"`
	SMS         bool   `json:"sms_enabled"`
	MMS         bool   `json:"mms_enabled"`
	Application string `json:"application"`
	AppID       string `json:"application_id"`
}

// numbersPage is how many numbers are asked for at once: no more are given.
const numbersPage = 20

// Numbers implements providers.NumberLister. Of the application that a number has, the
// answer URL is looked up.
func (c *Commands) Numbers(ctx context.Context) ([]providers.Number, error) {
	numbers, webhooks := []providers.Number{}, map[string]string{"": ""}
	err := providers.Pages(0, func(n int) (bool, error) {
		page := n * numbersPage
		if !c.Dialect.Numbers.Offset {
			page = n + 1
		}
		var reply struct {
			Objects []number `json:"objects"`
			Items   []number `json:"items"`
		}
		path := fmt.Sprintf("%s?%s=%d&%s=%d", c.Dialect.Numbers.Path, c.Dialect.Numbers.Size, numbersPage,
			c.Dialect.Numbers.Page, page)
		if err := c.do(ctx, "numbers", "GET", path, nil, &reply); err != nil {
			return false, err
		}
		list := append(reply.Objects, reply.Items...)
		for _, n := range list {
			u, err := c.webhook(ctx, cmp.Or(lastPart(n.Application), n.AppID), webhooks)
			if err != nil {
				return false, err
			}
			numbers = append(numbers, providers.Number{Number: e164(cmp.Or(n.Number, n.E164)), Webhook: u,
				Can: providers.Can(n.Voice == nil || *n.Voice, n.SMS, n.MMS, false)})
		}
		return len(list) < numbersPage, nil
	})
	return numbers, err
}

// lastPart is the id at the end of a path.
func lastPart(path string) string {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	return parts[len(parts)-1]
}

// webhook returns the answer URL of an application; the id where it has gone.
func (c *Commands) webhook(ctx context.Context, id string, known map[string]string) (string, error) {
	if u, is := known[id]; is {
		return u, nil
	}
	var reply struct {
		URL string `json:"answer_url"`
	}
	err := c.do(ctx, "application", "GET", "Application/"+url.PathEscape(id)+"/", nil, &reply)
	if err != nil && !providers.IsNoCall(err) {
		return "", err
	}
	known[id] = cmp.Or(reply.URL, "application "+id)
	return known[id], nil
}

// SendDigits implements providers.DigitSender: 0-9 * #, w and W for pauses.
func (c *Commands) SendDigits(ctx context.Context, leg, digits string) error {
	if strings.ContainsAny(digits, "ABCD") {
		return fmt.Errorf("%s: digits A to D: %w", c.Name, errors.ErrUnsupported)
	}
	return c.do(ctx, "digits", "POST", call(leg)+"DTMF/", digitsBody{digits, "aleg"}, nil)
}

type digitsBody struct {
	Digits string `json:"digits"`
	Leg    string `json:"leg"` // singular
}
