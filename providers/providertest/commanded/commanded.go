// Package commanded is a carrier that does not exist, for tests: it is unlike those that
// answer in documents. It replies to webhooks with nothing and takes commands instead;
// everything that it tells comes in one envelope to one URL, with an id of its own and
// whatever state the command gave it; audio frames come out of order; and the id that a
// new call is given is not the one that its events carry.
package commanded

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"voicebridge/codec"
	"voicebridge/providers"
	"voicebridge/providers/internal/rest"
)

// Name of the carrier.
const Name = "commanded"

// Spec describes the carrier.
var Spec = &providers.Spec{
	Name:        Name,
	Title:       "a carrier that takes commands",
	Formats:     []codec.Format{format},
	Abilities:   abilities,
	NewStream:   func() providers.Stream { return new(stream) },
	NewPeer:     func() providers.Peer { return new(peer) },
	NewAccount:  newAccount,
	NewExchange: newExchange,
	Sample: func(baseURL string, _ codec.Format) func(any) error {
		return func(into any) error {
			*into.(*config) = config{BaseURL: baseURL, Key: "a key of the account's"}
			return nil
		}
	},
}

var (
	format    = codec.Format{Encoding: codec.PCMA, Rate: 8000}
	abilities = providers.Abilities{Marks: true, Clear: true, ClearMarks: true, Digits: true, Greets: true,
		Reorders: true, RoomLeft: true, RoomEnds: true, PressesDigits: true, Commanded: true,
		Rings: true, RoomHold: true, Detects: true, DetectsHumans: true,
		SignsBodies: true, DetectDigits: true}
)

type config struct {
	BaseURL string `yaml:"base_url"`
	Key     string `yaml:"key"`
}

// state is what the carrier gives back with every event of a call: the URLs of what it
// may ask and tell, of which the account uses the part behind its own.
type state struct {
	Answer, Status, Next, Key, Room string `json:",omitempty"`
}

func (s state) encode() string {
	b, _ := json.Marshal(s) // strings always can
	return base64.StdEncoding.EncodeToString(b)
}

func decodeState(s string) (st state, err error) {
	b, err := base64.StdEncoding.DecodeString(s)
	if err == nil && len(b) > 0 {
		err = json.Unmarshal(b, &st)
	}
	return st, err
}

// command is one thing to be done with a call.
type command struct {
	Command string `json:"command"` // answer, say, gather, stream, join, connect
	Text    string `json:"text,omitempty"`
	URL     string `json:"url,omitempty"`
	To      string `json:"to,omitempty"`
	From    string `json:"from,omitempty"`
	Seconds int    `json:"seconds,omitempty"`
	Name    string `json:"name,omitempty"`
	Hold    string `json:"hold,omitempty"`
	End     bool   `json:"end,omitempty"`
	Wait    bool   `json:"wait,omitempty"`
	State   string `json:"client_state,omitempty"`
}

// envelope holds every event.
type envelope struct {
	ID      string  `json:"id"`
	Type    string  `json:"event_type"`
	Payload payload `json:"payload"`
}

type payload struct {
	Leg     string `json:"call_control_id"`
	Session string `json:"call_session_id"`
	Request string `json:"request_id"` // the id that a new call is given
	State   string `json:"client_state,omitempty"`
	From    string `json:"from,omitempty"`
	To      string `json:"to,omitempty"`
	Status  string `json:"status,omitempty"`
	Result  string `json:"result,omitempty"`
	Digit   string `json:"digit,omitempty"`
	Room    string `json:"room,omitempty"`
}

// The types of events.
const (
	typeInitiated = "call.initiated"
	typeAnswered  = "call.answered" // of a placed call
	typeStatus    = "call.status"
	typeMachine   = "call.machine_detection"
	typeStepDone  = "call.step_ended"
	typeGathered  = "call.gather_ended"
	typeJoined    = "conference.joined"
	typeLeft      = "conference.left"
)

// webhooks implements providers.Webhooks.
type webhooks struct{ key []byte }

func signature(key, body []byte) string {
	mac := hmac.New(sha256.New, key)
	mac.Write(body)
	return hex.EncodeToString(mac.Sum(nil))
}

// Authenticate implements providers.Webhooks.
func (w *webhooks) Authenticate(h *providers.Hook, _ time.Time) (once string, err error) {
	if !hmac.Equal([]byte(signature(w.key, h.Body)), []byte(h.Header.Get("X-Signature"))) {
		return "", fmt.Errorf("commanded: %w: it is not that of the body", providers.ErrSignature)
	}
	return "", nil
}

// Explain implements providers.Webhooks.
func (w *webhooks) Explain(*providers.Hook, time.Time) []string {
	return []string{"X-Signature is not that of the body: is key the account's?"}
}

// Document implements providers.Webhooks: replies are empty.
func (w *webhooks) Document(*providers.Answer) (providers.Document, error) {
	return providers.Document{}, nil
}

// Read implements providers.Webhooks.
func (w *webhooks) Read(h *providers.Hook) ([]providers.CallEvent, error) {
	var e envelope
	if err := json.Unmarshal(h.Body, &e); err != nil {
		return nil, fmt.Errorf("commanded: %w", err)
	}
	st, err := decodeState(e.Payload.State)
	if err != nil {
		return nil, fmt.Errorf("commanded: client_state: %w", err)
	}
	ev := providers.CallEvent{ID: e.ID, Leg: e.Payload.Leg, Aliases: []string{e.Payload.Session, e.Payload.Request},
		From: e.Payload.From, To: e.Payload.To, Status: providers.Status(e.Payload.Status), Raw: e.Type}
	switch e.Type {
	case typeInitiated, typeAnswered:
		ev.Kind, ev.Ref = providers.CallAsked, refOf(st.Answer)
	case typeStatus:
		ev.Kind, ev.Ref = providers.CallProgress, refOf(st.Status)
	case typeMachine:
		ev.Kind, ev.Ref, ev.AnsweredBy = providers.CallDetected, refOf(st.Status),
			providers.AnsweredBy(e.Payload.Result)
	case typeStepDone:
		ev.Kind, ev.Ref = providers.CallStepDone, refOf(st.Next)
	case typeGathered:
		ev.Kind, ev.Ref, ev.Digit = providers.CallKey, refOf(st.Key), e.Payload.Digit
	case typeJoined, typeLeft:
		ev.Kind, ev.Ref, ev.Joined = providers.CallRoom, refOf(st.Room), e.Type == typeJoined
	default:
		return nil, nil
	}
	return []providers.CallEvent{ev}, nil
}

// refOf is the part of a URL behind the account's own; see providers.CallEvent.
func refOf(u string) string {
	_, rest, _ := strings.Cut(u, "/hooks/"+Name+"/")
	_, ref, _ := strings.Cut(rest, "/")
	return ref
}

// commands implements providers.Commands.
type commands struct{ rest *rest.Client }

func newAccount(s providers.Setup) (*providers.Account, error) {
	cfg, base, err := read(s)
	if err != nil {
		return nil, err
	}
	c := &commands{&rest.Client{Carrier: Name, Base: base, HTTP: s.HTTP,
		Authorize: func(r *http.Request) error { r.Header.Set("Authorization", "Bearer "+cfg.Key); return nil },
		Fault: func(_ int, body []byte) (code, detail string) {
			var fault struct{ Code, Detail string }
			_ = json.Unmarshal(body, &fault) // it may be anything
			return fault.Code, fault.Detail
		}}}
	return providers.NewAccount("", abilities, &webhooks{[]byte(cfg.Key)}, c), nil
}

func read(s providers.Setup) (cfg config, base *url.URL, err error) {
	if err = s.Decode(&cfg); err != nil {
		return cfg, nil, err
	}
	if cfg.Key == "" {
		return cfg, nil, errors.New("key: must be set")
	}
	base, err = rest.CheckBaseURL(cfg.BaseURL)
	return cfg, base, err
}

// dialBody places a call.
type dialBody struct {
	To     string `json:"to"`
	From   string `json:"from"`
	Ring   int    `json:"ring"`
	Detect bool   `json:"detect,omitempty"`
	Digits string `json:"digits,omitempty"`
	State  string `json:"client_state"`
}

// callReply tells of a call.
type callReply struct {
	Leg     string `json:"call_control_id"`
	Session string `json:"call_session_id"`
	Status  string `json:"status"`
	Room    string `json:"room,omitempty"`
	Result  string `json:"result,omitempty"` // of machine detection
}

// Dial implements providers.Commands.
func (c *commands) Dial(ctx context.Context, d *providers.Dial) (providers.Leg, error) {
	body := dialBody{d.To, d.From, int(d.Ring / time.Second), d.Detect, d.Digits,
		state{Answer: d.Answer, Status: d.Status}.encode()}
	var reply callReply
	err := c.rest.Do(ctx, "dial", "POST", "/calls", &body, &reply)
	return providers.Leg{ID: reply.Leg}, err
}

// Do implements providers.Commands.
func (c *commands) Do(ctx context.Context, leg string, a *providers.Answer) error {
	var body struct {
		Commands []command `json:"commands"`
	}
	body.Commands = commandsOf(a)
	return c.rest.Do(ctx, "redirect", "POST", "/calls/"+leg+"/do", &body, nil)
}

// commandsOf says an answer in the carrier's language.
func commandsOf(a *providers.Answer) (all []command) {
	if a.Unanswered {
		all = append(all, command{Command: "answer"})
	}
	if a.Say != "" {
		all = append(all, command{Command: "say", Text: a.Say})
	}
	next := state{Next: a.Next}
	switch {
	case a.Media != "":
		all = append(all, command{Command: "stream", URL: a.Media, State: next.encode()})
	case a.Ask != nil:
		all = append(all, command{Command: "gather", Seconds: int(a.Ask.Wait / time.Second),
			State: state{Key: a.Ask.URL}.encode()})
	case a.Room != nil:
		all = append(all, command{Command: "join", Name: a.Room.Name, End: a.Room.End, Wait: a.Room.Wait,
			Hold:  a.Room.Hold,
			State: state{Next: a.Next, Room: a.Room.Events}.encode()})
	case a.Dial != "":
		all = append(all, command{Command: "connect", To: a.Dial, From: a.Caller, Seconds: a.RingSeconds(),
			State: next.encode()})
	}
	return all
}

// Hangup implements providers.Commands.
func (c *commands) Hangup(ctx context.Context, leg string) error {
	return c.rest.Do(ctx, "hang up", "POST", "/calls/"+leg+"/hangup", struct{}{}, nil)
}

// Get implements providers.Commands.
func (c *commands) Get(ctx context.Context, leg string) ([]providers.CallEvent, error) {
	var reply callReply
	if err := c.rest.Do(ctx, "get", "GET", "/calls/"+leg, nil, &reply); err != nil {
		return nil, err
	}
	aliases := []string{reply.Session}
	evs := []providers.CallEvent{{Kind: providers.CallProgress, Leg: reply.Leg, Aliases: aliases,
		Status: providers.Status(reply.Status)}}
	if reply.Result != "" {
		evs = append(evs, providers.CallEvent{Kind: providers.CallDetected, Leg: reply.Leg, Aliases: aliases,
			AnsweredBy: providers.AnsweredBy(reply.Result)})
	}
	return evs, nil
}

// InRoom implements providers.RoomLooker.
func (c *commands) InRoom(ctx context.Context, room string, legs []string) ([]bool, error) {
	in := make([]bool, len(legs))
	for i, leg := range legs {
		var reply callReply
		if err := c.rest.Do(ctx, "get", "GET", "/calls/"+leg, nil, &reply); err != nil && !providers.IsNoCall(err) {
			return in, err
		}
		in[i] = reply.Room == room
	}
	return in, nil
}

// SendDigits implements providers.DigitSender.
func (c *commands) SendDigits(ctx context.Context, leg, digits string) error {
	return c.rest.Do(ctx, "digits", "POST", "/calls/"+leg+"/digits", map[string]string{"digits": digits}, nil)
}
