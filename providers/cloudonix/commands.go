package cloudonix

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"time"

	"voicebridge/providers"
	"voicebridge/providers/internal/rest"
)

// commands is the REST API of one domain.
type commands struct {
	cfg  Config
	rest rest.Client
}

func newCommands(cfg Config, base *url.URL, transport http.RoundTripper) *commands {
	return &commands{cfg, rest.Client{Carrier: "cloudonix", Base: base, HTTP: transport, Fault: fault,
		Authorize: func(r *http.Request) error {
			r.Header.Set("Authorization", "Bearer "+cfg.APIKey)
			return nil
		}}}
}

// fault reads what the API says of an error.
func fault(_ int, body []byte) (code, detail string) {
	var said struct {
		Error   string `json:"error"`
		Message string `json:"message"`
	}
	_ = json.Unmarshal(body, &said) // whatever it is, the status counts
	return "", said.Error + said.Message
}

func (c *commands) calls() string { return "/calls/" + url.PathEscape(c.cfg.Domain) }

// session is the path of a session, by its token.
func session(token string) string { return "/sessions/" + url.PathEscape(token) }

// dialBody places a call.
type dialBody struct {
	To       string `json:"destination"`
	From     string `json:"caller-id"`
	URL      string `json:"url"` // asked for CXML once the call is answered
	Callback string `json:"callback"`
	Ring     int    `json:"timeout,omitempty"`
	Digits   string `json:"send-digits,omitempty"`
	Trunk    string `json:"trunk,omitempty"`
}

// sessionReply is a session as the API tells it.
type sessionReply struct {
	Token  string          `json:"token"`
	Status string          `json:"status"`
	Ended  json.RawMessage `json:"callEndTime"`
}

// Dial implements providers.Commands.
func (c *commands) Dial(ctx context.Context, d *providers.Dial) (providers.Leg, error) {
	body := dialBody{To: d.To, From: d.From, URL: d.Answer, Callback: d.Status, Ring: int(d.Ring / time.Second),
		Digits: d.Digits, Trunk: c.cfg.Trunk}
	var reply sessionReply
	err := c.rest.Do(ctx, "dial", "POST", c.calls()+"/application", &body, &reply)
	if err == nil && reply.Token == "" {
		err = &providers.CallError{Op: "cloudonix: dial", Kind: providers.ErrUnavailable,
			Err: errors.New("the reply has no token")}
	}
	return providers.Leg{ID: reply.Token}, err
}

// Hangup implements providers.Commands.
func (c *commands) Hangup(ctx context.Context, leg string) error {
	path := "/customers/self/domains/" + url.PathEscape(c.cfg.Domain) + session(leg)
	return c.rest.Do(ctx, "hang up", "DELETE", path, nil, nil)
}

// switchBody is what a session does from now on.
type switchBody struct {
	CXML string `json:"cxml"`
}

// Do implements providers.Commands.
func (c *commands) Do(ctx context.Context, leg string, a *providers.Answer) error {
	doc, err := marshal(a)
	if err != nil {
		return err
	}
	return c.rest.Do(ctx, "switch application", "POST", c.calls()+session(leg)+"/application", switchBody{string(doc)},
		nil)
}

// Numbers implements providers.NumberLister: all come at once.
func (c *commands) Numbers(ctx context.Context) ([]providers.Number, error) {
	var reply []struct {
		Number      string `json:"dnid"`
		Source      string `json:"source"`
		Application struct {
			URL  string `json:"url"`
			Name string `json:"name"`
		} `json:"application"`
	}
	path := "/customers/self/domains/" + url.PathEscape(c.cfg.Domain) + "/dnids"
	if err := c.rest.Do(ctx, "numbers", "GET", path, nil, &reply); err != nil {
		return nil, err
	}
	numbers := []providers.Number{}
	for _, n := range reply {
		numbers = append(numbers, providers.Number{Number: e164(cmp.Or(n.Number, n.Source)),
			Can: providers.Can(true, false, false, false), Webhook: cmp.Or(n.Application.URL, n.Application.Name)})
	}
	return numbers, nil
}

// Get implements providers.Commands.
func (c *commands) Get(ctx context.Context, leg string) ([]providers.CallEvent, error) {
	var reply sessionReply
	if err := c.rest.Do(ctx, "get", "GET", c.calls()+session(leg), nil, &reply); err != nil {
		return nil, err
	}
	b := hook{Status: reply.Status, Ended: reply.Ended}
	return []providers.CallEvent{{Kind: providers.CallProgress, Leg: leg, Raw: reply.Status, Status: b.status()}}, nil
}
