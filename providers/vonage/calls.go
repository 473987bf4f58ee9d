package vonage

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"voicebridge/providers"
)

// calls is the REST API of one application, after Vonage's "Voice API" reference.
type calls struct {
	hooks       *webhooks
	base        *url.URL
	application string
	key         *rsa.PrivateKey

	mu      sync.Mutex
	token   string
	expires time.Time
}

// An application's token is good for tokenTime and replaced tokenSpare before.
const (
	tokenTime  = 15 * time.Minute
	tokenSpare = time.Minute
)

// client follows no redirects: requests carry a token.
var client = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

// bearer gives the token of the application; it is signed anew only now and then.
func (c *calls) bearer(now time.Time) (string, error) {
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
		return "", fmt.Errorf("vonage: token: %w", err)
	}
	c.token, c.expires = token, expires
	return token, nil
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
	UUID   string `json:"uuid"`
	Status string `json:"status"`
	Detail string `json:"detail"`
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

// do makes one request, again where that is safe, and reads the reply into reply
// if it is not nil.
func (c *calls) do(ctx context.Context, op string, repeat bool, method, path string, body, reply any) error {
	var b []byte
	if body != nil {
		var err error
		if b, err = json.Marshal(body); err != nil {
			return fmt.Errorf("vonage: %s: %w", op, err)
		}
	}
	_, err := providers.Attempt(ctx, repeat, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, c.once(ctx, op, method, path, b, reply)
	})
	return err
}

func (c *calls) once(ctx context.Context, op, method, path string, body []byte, reply any) error {
	fail := func(e providers.CallError) error {
		e.Op = "vonage: " + op
		return &e
	}
	token, err := c.bearer(time.Now())
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base.JoinPath(path).String(), bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("vonage: %s: %w", op, err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := client.Do(req)
	if err != nil {
		return fail(providers.CallError{Kind: providers.ErrUnavailable, Err: err})
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, providers.MaxReply))
	kind := providers.KindOf(resp.StatusCode)
	switch {
	case kind != "":
		var said struct {
			Title      string `json:"title"`
			ErrorTitle string `json:"error_title"`
			Detail     string `json:"detail"`
			Type       string `json:"type"`
		}
		_ = json.Unmarshal(data, &said) // whatever it is, the status counts
		detail := said.Title + said.ErrorTitle
		if said.Detail != "" {
			detail += ": " + said.Detail
		}
		return fail(providers.CallError{Kind: kind, Status: resp.StatusCode, Code: clip(said.Type), Detail: clip(detail), Retry: providers.RetryAfter(resp.Header)})
	case err == nil && reply != nil:
		err = json.Unmarshal(data, reply)
	}
	if err != nil {
		return fail(providers.CallError{Kind: providers.ErrUnavailable, Status: resp.StatusCode, Err: fmt.Errorf("reply: %w", err)})
	}
	return nil
}

func clip(s string) string { return s[:min(len(s), 200)] }

// Dial implements providers.Calls.
func (c *calls) Dial(ctx context.Context, d *providers.Dial) (string, error) {
	req := callRequest{
		To:        []phone{{Type: "phone", Number: national(d.To), Digits: pauses.Replace(d.Digits)}},
		From:      phone{Type: "phone", Number: national(d.From)},
		AnswerURL: []string{d.Answer}, AnswerMethod: "POST",
		EventURL: []string{d.Status}, EventMethod: "POST",
		RingingTimer: int(d.Ring / time.Second),
	}
	if d.Detect {
		req.Detection = &amdBehaviour{Behavior: "continue", Mode: "detect"}
	}
	var reply callReply
	if err := c.do(ctx, "dial", false, "POST", "/v1/calls", req, &reply); err != nil {
		return "", err
	}
	if reply.UUID == "" {
		return "", &providers.CallError{Op: "vonage: dial", Kind: providers.ErrUnavailable, Err: errors.New("the reply has no uuid")}
	}
	return reply.UUID, nil
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

// Hangup implements providers.Calls.
func (c *calls) Hangup(ctx context.Context, id string) error {
	err := c.do(ctx, "hang up", true, "PUT", callPath(id), callAction{Action: "hangup"}, nil)
	if providers.IsNoCall(err) {
		return nil
	}
	return err
}

// Redirect implements providers.Calls.
func (c *calls) Redirect(ctx context.Context, id string, a *providers.Answer) error {
	list := c.hooks.ncco(a)
	if len(list) == 0 {
		return c.Hangup(ctx, id)
	}
	return c.do(ctx, "redirect", true, "PUT", callPath(id), callAction{"transfer", &destination{"ncco", list}}, nil)
}

// Get implements providers.Calls.
func (c *calls) Get(ctx context.Context, id string) (*providers.StatusReport, error) {
	var reply callReply
	if err := c.do(ctx, "get", true, "GET", callPath(id), nil, &reply); err != nil {
		return nil, err
	}
	return &providers.StatusReport{Call: id, Raw: reply.Status, Status: status(reply.Status, reply.Detail)}, nil
}

// maxDigits is how many digits and pauses a request takes.
const maxDigits = 50

// Digits implements providers.Calls. Vonage does not know A to D.
func (c *calls) Digits(ctx context.Context, id, digits string) error {
	if strings.ContainsAny(digits, "ABCD") {
		return fmt.Errorf("vonage: digits A to D: %w", errors.ErrUnsupported)
	}
	for rest := pauses.Replace(digits); rest != ""; {
		n := min(len(rest), maxDigits)
		if err := c.do(ctx, "digits", false, "PUT", callPath(id, "dtmf"), map[string]string{"digits": rest[:n]}, nil); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

// SendsDigits implements providers.Calls.
func (c *calls) SendsDigits() bool { return true }
