package vonage

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"voicebridge/providers"
	"voicebridge/providers/internal/rest"
)

// commands is the REST API of one application, after Vonage's "Voice API" reference.
type commands struct {
	rest        rest.Client
	hooks       *webhooks
	application string
	key         *rsa.PrivateKey

	mu      sync.Mutex // guards what follows
	token   string
	expires time.Time
}

// An application's token is good for tokenTime and replaced tokenSpare before.
const (
	tokenTime  = 15 * time.Minute
	tokenSpare = time.Minute
)

func newCommands(cfg Config, base *url.URL, key *rsa.PrivateKey, w *webhooks, transport http.RoundTripper) *commands {
	c := &commands{hooks: w, application: cfg.ApplicationID, key: key}
	c.rest = rest.Client{Carrier: "vonage", Base: base, HTTP: transport, Authorize: c.authorize, Fault: fault}
	return c
}

// authorize adds the token of the application.
func (c *commands) authorize(r *http.Request) error {
	token, err := c.bearer(time.Now())
	r.Header.Set("Authorization", "Bearer "+token)
	return err
}

// bearer returns the token of the application; it is signed anew only now and then.
func (c *commands) bearer(now time.Time) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Before(c.expires.Add(-tokenSpare)) {
		return c.token, nil
	}
	expires := now.Add(tokenTime)
	token, err := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims{
		"application_id": c.application, "iat": now.Unix(), "exp": expires.Unix(), "jti": rand.Text(),
	}).SignedString(c.key)
	if err != nil {
		return "", fmt.Errorf("token: %w", err)
	}
	c.token, c.expires = token, expires
	return token, nil
}

// fault reads what the API says of an error.
func fault(_ int, body []byte) (code, detail string) {
	var said struct {
		Title      string `json:"title"`
		ErrorTitle string `json:"error_title"`
		Detail     string `json:"detail"`
		Type       string `json:"type"`
	}
	_ = json.Unmarshal(body, &said) // whatever it is, the status counts
	detail = said.Title + said.ErrorTitle
	if said.Detail != "" {
		detail += ": " + said.Detail
	}
	return said.Type, detail
}

// callRequest creates a call.
type callRequest struct {
	To           []phone       `json:"to"`
	From         phone         `json:"from"`
	AnswerURL    []string      `json:"answer_url"`
	AnswerMethod string        `json:"answer_method"`
	EventURL     []string      `json:"event_url"`
	EventMethod  string        `json:"event_method"`
	RingingTimer int           `json:"ringing_timer,omitempty"`
	Detection    *amdBehaviour `json:"advanced_machine_detection,omitempty"`
}

type phone struct {
	Type   string `json:"type"`
	Number string `json:"number"`
	Digits string `json:"dtmfAnswer,omitempty"`
}

type amdBehaviour struct {
	Behavior string `json:"behavior"`
	Mode     string `json:"mode"`
}

// callReply is a call as the API tells it.
type callReply struct {
	UUID         string `json:"uuid"`
	Conversation string `json:"conversation_uuid"`
	Status       string `json:"status"`
	Detail       word   `json:"detail"`
	Began        string `json:"start_time"`
	Duration     string `json:"duration"`
}

// callAction changes a live call.
type callAction struct {
	Action      string       `json:"action"`
	Destination *destination `json:"destination,omitempty"`
}

type destination struct {
	Type string `json:"type"`
	NCCO ncco   `json:"ncco"`
}

// Dial implements providers.Commands.
func (c *commands) Dial(ctx context.Context, d *providers.Dial) (providers.Leg, error) {
	req := callRequest{
		To:        []phone{{Type: "phone", Number: national(d.To), Digits: pauses.Replace(d.Digits)}},
		From:      phone{Type: "phone", Number: national(d.From)},
		AnswerURL: []string{d.Answer}, AnswerMethod: "POST",
		EventURL: []string{d.Status}, EventMethod: "POST",
		RingingTimer: int(d.Ring / time.Second),
	}
	if d.Detect {
		req.Detection = &amdBehaviour{Behavior: "continue", Mode: "default"} // beside the call; detect waits
	}
	var reply callReply
	if err := c.rest.Do(ctx, "dial", "POST", "/v1/calls", req, &reply); err != nil {
		return providers.Leg{}, err
	}
	if reply.UUID == "" {
		return providers.Leg{}, &providers.CallError{Op: "vonage: dial", Kind: providers.ErrUnavailable,
			Err: errors.New("the reply has no uuid")}
	}
	return providers.Leg{ID: reply.UUID}, nil
}

// pauses writes pauses as Vonage does: p is half a second.
var pauses = strings.NewReplacer("w", "p", "W", "pp")

func callPath(id string, more ...string) string {
	path := "/v1/calls/" + url.PathEscape(id)
	for _, m := range more {
		path += "/" + m
	}
	return path
}

// Hangup implements providers.Commands.
func (c *commands) Hangup(ctx context.Context, id string) error {
	return c.rest.Do(ctx, "hang up", "PUT", callPath(id), callAction{Action: "hangup"}, nil)
}

// Do implements providers.Commands.
func (c *commands) Do(ctx context.Context, id string, a *providers.Answer) error {
	return c.rest.Do(ctx, "redirect", "PUT", callPath(id),
		callAction{"transfer", &destination{"ncco", c.hooks.ncco(a)}}, nil)
}

// Get implements providers.Commands.
func (c *commands) Get(ctx context.Context, id string) ([]providers.CallEvent, error) {
	var reply callReply
	if err := c.rest.Do(ctx, "get", "GET", callPath(id), nil, &reply); err != nil {
		return nil, err
	}
	return []providers.CallEvent{{Kind: providers.CallProgress, Leg: id, Raw: reply.Status,
		Status:     status(reply.Status, string(reply.Detail)),
		Unanswered: unanswered(reply.Status, reply.Began, reply.Duration),
		Place:      reply.Conversation}}, nil
}

// InRoom implements providers.RoomLooker. Vonage does not name the conversation that a leg
// is in as the NCCO has: legs that are in the same one have met there.
func (c *commands) InRoom(ctx context.Context, _ string, legs []string) ([]bool, error) {
	in := make([]bool, len(legs))
	where := make([]string, len(legs))
	for i, leg := range legs {
		var reply callReply
		if err := c.rest.Do(ctx, "get", "GET", callPath(leg), nil, &reply); err != nil {
			return in, err
		}
		where[i] = reply.Conversation
	}
	for i := range legs {
		for j := range legs {
			in[i] = in[i] || i != j && where[i] != "" && where[i] == where[j]
		}
	}
	return in, nil
}

// numbersHost has the numbers of accounts; where base_url is not Vonage's, that has them, too.
const numbersHost = "rest.nexmo.com"

// numbersPage is how many numbers are asked for at once: no more are given.
const numbersPage = 100

// Numbers implements providers.NumberLister, after Vonage's "Numbers API": it takes the
// account's key and secret, not the application's token.
func (c *commands) Numbers(ctx context.Context) ([]providers.Number, error) {
	if c.hooks.cfg.APISecret == "" {
		return nil, fmt.Errorf("vonage: numbers: api_secret must be set: %w", errors.ErrUnsupported)
	}
	client, base := c.rest, *c.rest.Base
	if base.Host == vonageHost {
		base.Host = numbersHost
	}
	client.Base = &base
	client.Authorize = func(r *http.Request) error {
		r.SetBasicAuth(c.hooks.cfg.APIKey, c.hooks.cfg.APISecret)
		return nil
	}
	numbers := []providers.Number{}
	err := providers.Pages(1, func(n int) (bool, error) {
		var reply struct {
			Count   int `json:"count"`
			Numbers []struct {
				Number   string   `json:"msisdn"`
				Features []string `json:"features"`
				Kind     string   `json:"voiceCallbackType"`
				Where    string   `json:"voiceCallbackValue"`
				App      string   `json:"app_id"`
			} `json:"numbers"`
		}
		path := fmt.Sprintf("/account/numbers?size=%d&index=%d", numbersPage, n)
		if err := client.Do(ctx, "numbers", "GET", path, nil, &reply); err != nil {
			return false, err
		}
		for _, one := range reply.Numbers {
			where := cmp.Or(one.App, one.Where)
			if where != "" {
				where = strings.TrimSpace(cmp.Or(one.Kind, "app") + " " + where)
			}
			has := func(what string) bool { return slices.Contains(one.Features, what) }
			numbers = append(numbers, providers.Number{Number: e164(one.Number), Webhook: where,
				Can: providers.Can(has("VOICE"), has("SMS"), has("MMS"), false)})
		}
		return len(reply.Numbers) < numbersPage || len(numbers) >= reply.Count, nil
	})
	return numbers, err
}

// digitsAtOnce is how many digits and pauses a request takes for sure: a long pause
// is two of at most 50.
const digitsAtOnce = 25

// SendDigits implements providers.DigitSender. Vonage does not know A to D.
func (c *commands) SendDigits(ctx context.Context, id, digits string) error {
	if strings.ContainsAny(digits, "ABCD") {
		return fmt.Errorf("vonage: digits A to D: %w", errors.ErrUnsupported)
	}
	return c.rest.Do(ctx, "digits", "PUT", callPath(id, "dtmf"), map[string]string{"digits": pauses.Replace(digits)},
		nil)
}
