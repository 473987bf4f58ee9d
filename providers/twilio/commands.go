package twilio

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/twilio/twilio-go/client"
	api "github.com/twilio/twilio-go/rest/api/v2010"

	"voicebridge/providers"
	"voicebridge/providers/internal/rest"
)

// commands is the REST API of one account, by Twilio's own library.
type commands struct {
	cfg  Config
	base *url.URL // instead of Twilio's; nil: Twilio's
	http http.RoundTripper
}

// transport carries one request of the library's: with a context, which the
// library does not know, to another base URL if there is one. It keeps what the
// library forgets of the reply.
type transport struct {
	*commands
	ctx    context.Context
	status int
	retry  time.Duration
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(t.ctx)
	if t.base != nil {
		r.URL.Scheme, r.URL.Host, r.Host = t.base.Scheme, t.base.Host, t.base.Host
		r.URL.Path = strings.TrimSuffix(t.base.Path, "/") + r.URL.Path
	}
	resp, err := t.roundTripper().RoundTrip(r)
	if err != nil {
		return nil, err
	}
	t.status, t.retry = resp.StatusCode, rest.RetryAfter(resp.Header)
	if t.status >= 300 && t.status < 400 { // the library takes it for a success
		resp.Body.Close()
		return nil, fmt.Errorf("redirect to %.100q is not followed", resp.Header.Get("Location"))
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, rest.MaxReply), resp.Body}
	return resp, nil
}

// gone are the codes that mean that there is no such live call, whatever the HTTP
// status.
var gone = map[int]bool{20404: true, 21220: true}

// request makes one request of the library's.
func request[T any](ctx context.Context, c *commands, op string, do func(*api.ApiService) (T, error)) (T, error) {
	t := &transport{commands: c, ctx: ctx}
	user, password := c.cfg.AccountSID, c.cfg.AuthToken
	if c.cfg.APIKey != "" {
		user, password = c.cfg.APIKey, c.cfg.APISecret
	}
	base := &client.Client{Credentials: client.NewCredentials(user, password), HTTPClient: &http.Client{Transport: t}}
	base.SetAccountSid(c.cfg.AccountSID)
	handler := client.NewRequestHandler(base)
	handler.Edge, handler.Region = c.cfg.Edge, c.cfg.Region
	v, err := do(api.NewApiService(handler))
	if err == nil {
		return v, nil
	}
	return v, t.fault(op, err)
}

// fault returns the library's error in the contract's words.
func (t *transport) fault(op string, err error) error {
	e := &providers.CallError{Op: "twilio: " + op, Status: t.status, Kind: providers.KindOf(t.status), Retry: t.retry,
		Err: err}
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
	return e
}

// Dial implements providers.Commands.
func (c *commands) Dial(ctx context.Context, d *providers.Dial) (providers.Leg, error) {
	p := &api.CreateCallParams{}
	p.SetTo(d.To).SetFrom(d.From).SetUrl(retried(d.Answer)).SetMethod("POST")
	p.SetStatusCallback(retried(d.Status)).SetStatusCallbackMethod("POST")
	p.SetStatusCallbackEvent([]string{"initiated", "ringing", "answered", "completed"})
	if d.Forward != "" {
		p.SetCallToken(d.Forward)
	}
	if d.Ring > 0 {
		p.SetTimeout(int(d.Ring / time.Second))
	}
	if d.Digits != "" {
		p.SetSendDigits(d.Digits)
	}
	if d.Detect { // beside the call: it goes on while Twilio listens
		p.SetMachineDetection("Enable").SetAsyncAmd("true")
		p.SetAsyncAmdStatusCallback(retried(d.Status)).SetAsyncAmdStatusCallbackMethod("POST")
	}
	return request(ctx, c, "dial", func(s *api.ApiService) (providers.Leg, error) {
		call, err := s.CreateCall(p)
		if err == nil && (call.Sid == nil || *call.Sid == "") {
			err = errors.New("the reply has no sid")
		}
		if err != nil {
			return providers.Leg{}, err
		}
		return providers.Leg{ID: *call.Sid}, nil
	})
}

func (c *commands) update(ctx context.Context, op, id string, p *api.UpdateCallParams) error {
	_, err := request(ctx, c, op, func(s *api.ApiService) (*api.ApiV2010Call, error) { return s.UpdateCall(id, p) })
	return err
}

// Hangup implements providers.Commands. Completed ends calls that still ring, too.
func (c *commands) Hangup(ctx context.Context, id string) error {
	return c.update(ctx, "hang up", id, (&api.UpdateCallParams{}).SetStatus("completed"))
}

// Do implements providers.Commands.
func (c *commands) Do(ctx context.Context, id string, a *providers.Answer) error {
	doc, err := marshal(a)
	if err != nil {
		return err
	}
	return c.update(ctx, "redirect", id, (&api.UpdateCallParams{}).SetTwiml(string(doc)))
}

// Get implements providers.Commands.
func (c *commands) Get(ctx context.Context, id string) ([]providers.CallEvent, error) {
	return request(ctx, c, "get", func(s *api.ApiService) ([]providers.CallEvent, error) {
		call, err := s.FetchCall(id, &api.FetchCallParams{})
		if err == nil && call.Status == nil {
			err = errors.New("the reply has no status")
		}
		if err != nil {
			return nil, err
		}
		by := ""
		if call.AnsweredBy != nil {
			by = *call.AnsweredBy
		}
		return progress(id, *call.Status, by), nil
	})
}

// InRoom implements providers.RoomLooker: by the conference of that name, and whether each
// leg is one of its participants.
func (c *commands) InRoom(ctx context.Context, room string, legs []string) ([]bool, error) {
	in := make([]bool, len(legs))
	sid, err := request(ctx, c, "conference", func(s *api.ApiService) (string, error) {
		p := (&api.ListConferenceParams{}).SetFriendlyName(room).SetStatus("in-progress").SetLimit(1)
		list, err := s.ListConference(p)
		if err != nil || len(list) == 0 || list[0].Sid == nil {
			return "", err
		}
		return *list[0].Sid, nil
	})
	if err != nil || sid == "" {
		return in, err
	}
	for i, leg := range legs {
		_, err := request(ctx, c, "participant", func(s *api.ApiService) (*api.ApiV2010Participant, error) {
			return s.FetchParticipant(sid, leg, &api.FetchParticipantParams{})
		})
		if err != nil && !providers.IsNoCall(err) {
			return in, err
		}
		in[i] = err == nil
	}
	return in, nil
}

// Numbers implements providers.NumberLister.
func (c *commands) Numbers(ctx context.Context) ([]providers.Number, error) {
	list, err := request(ctx, c, "numbers", func(s *api.ApiService) ([]api.ApiV2010IncomingPhoneNumber, error) {
		return s.ListIncomingPhoneNumber((&api.ListIncomingPhoneNumberParams{}).SetPageSize(numbersPage))
	})
	numbers := []providers.Number{}
	for _, n := range list {
		one := providers.Number{Number: deref(n.PhoneNumber), Can: []string{},
			Webhook: cmp.Or(deref(n.VoiceApplicationSid), deref(n.VoiceUrl))}
		if can := n.Capabilities; can != nil {
			one.Can = providers.Can(can.Voice, can.Sms, can.Mms, can.Fax)
		}
		numbers = append(numbers, one)
	}
	return numbers, err
}

// numbersPage is how many numbers are asked for at once.
const numbersPage = 100

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func (c *commands) roundTripper() http.RoundTripper {
	if c.http == nil {
		return http.DefaultTransport
	}
	return c.http
}
