package twilio

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/twilio/twilio-go/client"
	api "github.com/twilio/twilio-go/rest/api/v2010"

	"voicebridge/providers"
)

// calls is the REST API of one account.
type calls struct {
	cfg  Config
	base *url.URL // instead of Twilio's; nil: Twilio's
}

// transport carries one request of the library's: with a context, which the
// library does not know, to another base URL if there is one. It keeps what the
// library forgets of the reply.
type transport struct {
	ctx    context.Context
	base   *url.URL
	status int
	retry  time.Duration
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(t.ctx)
	if t.base != nil {
		r.URL.Scheme, r.URL.Host, r.Host = t.base.Scheme, t.base.Host, t.base.Host
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	t.status, t.retry = resp.StatusCode, providers.RetryAfter(resp.Header)
	if t.status >= 300 && t.status < 400 { // the library takes it for a success
		resp.Body.Close()
		return nil, fmt.Errorf("redirect to %.100q is not followed", resp.Header.Get("Location"))
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, providers.MaxReply), resp.Body}
	return resp, nil
}

// codes that mean that there is no such live call, whatever the HTTP status.
var gone = map[int]bool{20404: true, 21220: true}

// request makes one request of the library's, again where that is safe.
func request[T any](ctx context.Context, c *calls, op string, repeat bool, do func(*api.ApiService) (T, error)) (T, error) {
	return providers.Attempt(ctx, repeat, func(ctx context.Context) (T, error) {
		t := &transport{ctx: ctx, base: c.base}
		user, password := c.cfg.AccountSID, c.cfg.AuthToken
		if c.cfg.APIKey != "" {
			user, password = c.cfg.APIKey, c.cfg.APISecret
		}
		rest := &client.Client{Credentials: client.NewCredentials(user, password), HTTPClient: &http.Client{Transport: t}}
		rest.SetAccountSid(c.cfg.AccountSID)
		handler := client.NewRequestHandler(rest)
		handler.Edge, handler.Region = c.cfg.Edge, c.cfg.Region
		v, err := do(api.NewApiService(handler))
		if err == nil {
			return v, nil
		}
		e := &providers.CallError{Op: "twilio: " + op, Status: t.status, Kind: providers.KindOf(t.status), Retry: t.retry, Err: err}
		var said *client.TwilioRestError
		if errors.As(err, &said) {
			e.Code, e.Detail, e.Err = strconv.Itoa(said.Code), said.Message, nil
			if t.status == 0 { // the library has refused it: characters in the credentials
				e.Kind = providers.ErrCredentials
			}
			if gone[said.Code] {
				e.Kind = providers.ErrNoCall
			}
		}
		if e.Kind == "" { // 2xx, but nonsense
			e.Kind = providers.ErrUnavailable
		}
		return v, e
	})
}

// Dial implements providers.Calls.
func (c *calls) Dial(ctx context.Context, d *providers.Dial) (string, error) {
	p := &api.CreateCallParams{}
	p.SetTo(d.To).SetFrom(d.From).SetUrl(d.Answer).SetMethod("POST")
	p.SetStatusCallback(d.Status).SetStatusCallbackMethod("POST")
	p.SetStatusCallbackEvent([]string{"initiated", "ringing", "answered", "completed"})
	if d.Ring > 0 {
		p.SetTimeout(int(d.Ring / time.Second))
	}
	if d.Digits != "" {
		p.SetSendDigits(d.Digits)
	}
	if d.Detect { // beside the call: it goes on while Twilio listens
		p.SetMachineDetection("Enable").SetAsyncAmd("true").SetAsyncAmdStatusCallback(d.Status).SetAsyncAmdStatusCallbackMethod("POST")
	}
	return request(ctx, c, "dial", false, func(s *api.ApiService) (string, error) {
		call, err := s.CreateCall(p)
		if err == nil && (call.Sid == nil || *call.Sid == "") {
			err = errors.New("the reply has no sid")
		}
		if err != nil {
			return "", err
		}
		return *call.Sid, nil
	})
}

func (c *calls) update(ctx context.Context, op, id string, p *api.UpdateCallParams) error {
	_, err := request(ctx, c, op, true, func(s *api.ApiService) (*api.ApiV2010Call, error) { return s.UpdateCall(id, p) })
	return err
}

// Hangup implements providers.Calls. Completed ends calls that still ring, too.
func (c *calls) Hangup(ctx context.Context, id string) error {
	err := c.update(ctx, "hang up", id, (&api.UpdateCallParams{}).SetStatus("completed"))
	if providers.IsNoCall(err) {
		return nil
	}
	return err
}

// Redirect implements providers.Calls.
func (c *calls) Redirect(ctx context.Context, id string, a *providers.Answer) error {
	doc, err := marshal(a)
	if err != nil {
		return err
	}
	return c.update(ctx, "redirect", id, (&api.UpdateCallParams{}).SetTwiml(string(doc)))
}

// Get implements providers.Calls.
func (c *calls) Get(ctx context.Context, id string) (*providers.StatusReport, error) {
	return request(ctx, c, "get", true, func(s *api.ApiService) (*providers.StatusReport, error) {
		call, err := s.FetchCall(id, &api.FetchCallParams{})
		if err == nil && call.Status == nil {
			err = errors.New("the reply has no status")
		}
		if err != nil {
			return nil, err
		}
		r := &providers.StatusReport{Call: id, Raw: *call.Status, Status: status(*call.Status)}
		if call.AnsweredBy != nil {
			r.AnsweredBy = answeredBy[*call.AnsweredBy]
		}
		return r, nil
	})
}

// Digits implements providers.Calls: Twilio would have to leave the media stream.
func (c *calls) Digits(context.Context, string, string) error {
	return fmt.Errorf("twilio: digits: %w", errors.ErrUnsupported)
}

// SendsDigits implements providers.Calls.
func (c *calls) SendsDigits() bool { return false }
