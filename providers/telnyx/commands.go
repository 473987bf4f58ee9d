package telnyx

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"voicebridge/codec"
	"voicebridge/providers"
	"voicebridge/providers/internal/rest"
	"voicebridge/providers/internal/telnyxmedia"
)

// commands is the REST API of one Call Control application. What a call is to do is one
// command after the other: where one has to wait for the end of another, the rest of the
// answer is published, and asked for when the event of that end comes.
type commands struct {
	cfg     Config
	format  codec.Format
	rest    rest.Client
	publish func(*providers.Answer) string
}

func newCommands(cfg Config, f codec.Format, base *url.URL, transport http.RoundTripper) *commands {
	return &commands{cfg: cfg, format: f, rest: rest.Client{Carrier: "telnyx", Base: base, HTTP: transport,
		Fault: fault,
		Gone:  func(code string) bool { return code == "90018" || code == "90015" },
		Authorize: func(r *http.Request) error {
			r.Header.Set("Authorization", "Bearer "+cfg.APIKey)
			r.Header.Set("Accept", "application/json")
			return nil
		}}}
}

// Publish implements providers.Publisher.
func (c *commands) Publish(url func(*providers.Answer) string) { c.publish = url }

// fault reads what the API says of an error.
func fault(_ int, body []byte) (code, detail string) {
	var said struct {
		Errors []struct {
			Code   string `json:"code"`
			Title  string `json:"title"`
			Detail string `json:"detail"`
		} `json:"errors"`
	}
	_ = json.Unmarshal(body, &said) // whatever it is, the status counts
	if len(said.Errors) == 0 {
		return "", ""
	}
	e := said.Errors[0]
	return e.Code, e.Title + ": " + e.Detail
}

// given goes with each command: what Telnyx gives back with later events, and an id with
// which it carries the command out once.
type given struct {
	State string `json:"client_state,omitempty"`
	ID    string `json:"command_id"`
}

func with(st state) given { return given{st.encode(), rand.Text()} }

// streaming begins a stream.
type streaming struct {
	URL   string `json:"stream_url,omitempty"`
	Track string `json:"stream_track,omitempty"`
	Codec string `json:"stream_codec,omitempty"` // of what the caller says; empty: its phone's
	Mode  string `json:"stream_bidirectional_mode,omitempty"`
	Out   string `json:"stream_bidirectional_codec,omitempty"`
	Rate  int    `json:"stream_bidirectional_sampling_rate,omitempty"`
}

// stream is the one to a URL. Of L16 both directions are the same.
func (c *commands) stream(a *providers.Answer) streaming {
	s := streaming{URL: streamURL(a.Media, a.Next), Track: "inbound_track", Mode: "rtp",
		Out: telnyxmedia.Names[c.format.Encoding]}
	if c.format.Encoding == codec.L16BE {
		s.Codec, s.Rate = s.Out, c.format.Rate
	}
	return s
}

// dialBody places a call.
type dialBody struct {
	Connection string `json:"connection_id"`
	To         string `json:"to"`
	From       string `json:"from"`
	Ring       int    `json:"timeout_secs,omitempty"`
	Detect     string `json:"answering_machine_detection,omitempty"`
	Digits     string `json:"send_digits_on_answer,omitempty"`
	Webhook    string `json:"webhook_url"`
	Method     string `json:"webhook_url_method"`
	Silence    bool   `json:"send_silence_when_idle"`
	given
}

// legReply is a leg as the API tells it.
type legReply struct {
	Data struct {
		Leg      string `json:"call_control_id"`
		LegID    string `json:"call_leg_id"`
		Alive    bool   `json:"is_alive"`
		Duration int    `json:"call_duration"`
		Ended    string `json:"end_time"`
		State    string `json:"client_state"`
	} `json:"data"`
}

// Dial implements providers.Commands. The leg's events go to its status URL.
func (c *commands) Dial(ctx context.Context, d *providers.Dial) (providers.Leg, error) {
	body := dialBody{Connection: c.cfg.ConnectionID, To: d.To, From: d.From, Ring: int(d.Ring / time.Second),
		Digits: d.Digits, Webhook: d.Status, Method: "POST", Silence: true,
		given: with(state{Answer: d.Answer, Status: d.Status})}
	if d.Detect {
		body.Detect = "detect"
	}
	var reply legReply
	err := c.rest.Do(ctx, "dial", "POST", "/calls", &body, &reply)
	if err == nil && reply.Data.Leg == "" {
		err = &providers.CallError{Op: "telnyx: dial", Kind: providers.ErrUnavailable,
			Err: errors.New("the reply has no call_control_id")}
	}
	if err != nil {
		return providers.Leg{}, err
	}
	leg := providers.Leg{ID: reply.Data.Leg}
	if reply.Data.LegID != "" {
		leg.Aliases = []string{reply.Data.LegID}
	}
	return leg, nil
}

// action has something done with a leg.
func (c *commands) action(ctx context.Context, leg, what string, body any) error {
	return c.rest.Do(ctx, what, "POST", "/calls/"+url.PathEscape(leg)+"/actions/"+what, body, nil)
}

// Hangup implements providers.Commands.
func (c *commands) Hangup(ctx context.Context, leg string) error {
	return c.action(ctx, leg, "hangup", with(state{}))
}

// then is the state of a command after which the rest of an answer is due.
func (c *commands) then(rest providers.Answer) (given, error) {
	if c.publish == nil {
		return given{}, errors.New("telnyx: there is no place for answers")
	}
	return with(state{Do: c.publish(&rest)}), nil
}

// Do implements providers.Commands: by the first command of the answer.
func (c *commands) Do(ctx context.Context, leg string, a *providers.Answer) error {
	if a.Unanswered {
		return c.pickUp(ctx, leg, a)
	}
	if err := c.leave(ctx, leg, a); err != nil {
		return err
	}
	switch rest := *a; {
	case a.Ask != nil:
		return c.gather(ctx, leg, a)
	case a.Say != "":
		rest.Say = ""
		g, err := c.then(rest)
		if err != nil {
			return err
		}
		return c.action(ctx, leg, "speak", speakBody{a.Say, cmp.Or(a.Voice, c.cfg.Voice),
			cmp.Or(a.Language, c.cfg.Language), g})
	case a.Media != "":
		st := stateOf(c.format)
		st.Next = a.Next
		return c.action(ctx, leg, "streaming_start", struct {
			streaming
			given
		}{c.stream(a), with(st)})
	case a.Room != nil:
		return c.join(ctx, leg, a)
	case a.Dial != "":
		return c.transfer(ctx, leg, a)
	case a.Next != "":
		return fmt.Errorf("telnyx: nothing to do before %.20q is asked: %w", refOf(a.Next), errors.ErrUnsupported)
	}
	return c.Hangup(ctx, leg)
}

// answerBody picks a call up. A stream of a format that needs more than its name is begun
// afterwards.
type answerBody struct {
	streaming
	Silence bool `json:"send_silence_when_idle"`
	given
}

func (c *commands) pickUp(ctx context.Context, leg string, a *providers.Answer) error {
	body := answerBody{Silence: true}
	if a.Media != "" && a.Say == "" && c.format.Encoding != codec.L16BE {
		st := stateOf(c.format)
		st.Next = a.Next
		body.streaming, body.given = c.stream(a), with(st)
	} else {
		rest := *a
		rest.Unanswered = false
		var err error
		if body.given, err = c.then(rest); err != nil {
			return err
		}
	}
	// Whoever else has been told of the call, or is told again, must not begin another stream.
	sum := sha256.Sum256([]byte(leg))
	body.ID = "answer-" + hex.EncodeToString(sum[:16])
	return c.action(ctx, leg, "answer", body)
}

type speakBody struct {
	Text     string `json:"payload"`
	Voice    string `json:"voice"`
	Language string `json:"language"`
	given
}

// gatherBody asks for a key, with words or without.
type gatherBody struct {
	Text     string `json:"payload,omitempty"`
	Voice    string `json:"voice,omitempty"`
	Language string `json:"language,omitempty"`
	Least    int    `json:"minimum_digits"`
	Most     int    `json:"maximum_digits"`
	Tries    int    `json:"maximum_tries,omitempty"`
	Wait     int    `json:"timeout_millis"`
	given
}

func (c *commands) gather(ctx context.Context, leg string, a *providers.Answer) error {
	body := gatherBody{Least: 1, Most: 1, Wait: int(a.Ask.Wait / time.Millisecond), given: with(state{Key: a.Ask.URL})}
	if a.Say == "" {
		return c.action(ctx, leg, "gather", body)
	}
	body.Text, body.Tries = a.Say, 1
	body.Voice, body.Language = cmp.Or(a.Voice, c.cfg.Voice), cmp.Or(a.Language, c.cfg.Language)
	return c.action(ctx, leg, "gather_using_speak", body)
}

// transferBody connects a leg to a number, whose own leg has a state of its own.
type transferBody struct {
	To     string `json:"to"`
	From   string `json:"from,omitempty"`
	Ring   int    `json:"timeout_secs"`
	Target string `json:"target_leg_client_state,omitempty"`
	Park   string `json:"park_after_unbridge,omitempty"`
	given
}

func (c *commands) transfer(ctx context.Context, leg string, a *providers.Answer) error {
	body := transferBody{To: a.Dial, From: a.Caller, Ring: a.RingSeconds(), given: with(state{Next: a.Next})}
	if a.Next != "" { // it stays when the number hangs up
		body.Target, body.Park = state{Next: a.Next, Number: leg}.encode(), "self"
	}
	return c.action(ctx, leg, "transfer", body)
}

// Get implements providers.Commands. Whether a leg that is alive has been answered shows
// by its duration; one that has just been dialled is not alive yet.
func (c *commands) Get(ctx context.Context, leg string) ([]providers.CallEvent, error) {
	reply, err := c.get(ctx, leg)
	if err != nil {
		return nil, err
	}
	ev := providers.CallEvent{Kind: providers.CallProgress, Leg: leg, Status: providers.StatusInitiated,
		Raw: "is_alive", Place: reply.Data.State}
	switch {
	case reply.Data.Alive && reply.Data.Duration > 0:
		ev.Status = providers.StatusInProgress
	case reply.Data.Alive:
		ev.Status = providers.StatusRinging
	case reply.Data.Ended != "" && reply.Data.Duration > 0:
		ev.Status = providers.StatusCompleted
	case reply.Data.Ended != "": // why it was not answered is told by its event only
		ev.Status = providers.StatusNoAnswer
	}
	return []providers.CallEvent{ev}, nil
}

func (c *commands) get(ctx context.Context, leg string) (*legReply, error) {
	var reply legReply
	err := c.ask(ctx, "get", "/calls/"+url.PathEscape(leg), &reply)
	return &reply, err
}

// asks is how often a question is asked that is not answered, askPause how long is waited
// in between: a command may hang on it.
const (
	asks     = 3
	askPause = 200 * time.Millisecond
)

// ask asks the API something, which changes nothing: it may be asked again.
func (c *commands) ask(ctx context.Context, op, path string, reply any) (err error) {
	for try := 1; ; try++ {
		err = c.rest.Do(ctx, op, "GET", path, nil, reply)
		var e *providers.CallError
		if try == asks || !errors.As(err, &e) || e.Kind != providers.ErrUnavailable {
			return err
		}
		select {
		case <-time.After(askPause):
		case <-ctx.Done():
			return err
		}
	}
}

// SendDigits implements providers.DigitSender.
func (c *commands) SendDigits(ctx context.Context, leg, digits string) error {
	return c.action(ctx, leg, "send_dtmf", digitsBody{digits, rand.Text()})
}

type digitsBody struct {
	Digits string `json:"digits"`
	ID     string `json:"command_id"` // and no state: that of the step stays
}
