package commanded

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"voicebridge/providers"
	"voicebridge/providers/internal/rest"
)

// exchange implements providers.Exchange.
type exchange struct{ key string }

func newExchange(s providers.Setup) (providers.Exchange, error) {
	cfg, _, err := read(s)
	return &exchange{cfg.Key}, err
}

// NewCall implements providers.Exchange. The last alias is what a new call is given.
func (x *exchange) NewCall() providers.Leg {
	n := rand.Text()
	return providers.Leg{ID: "leg-" + n, Aliases: []string{"session-" + n, "request-" + n}}
}

// Ask implements providers.Exchange: all goes to one URL, and says in its state what it
// is about.
func (x *exchange) Ask(a *providers.Ask, _ time.Time) (*http.Request, error) {
	base, rest, ok := strings.Cut(a.URL, "/hooks/"+Name+"/")
	account, ref, _ := strings.Cut(rest, "/")
	if !ok {
		return nil, fmt.Errorf("commanded: %.100q is no URL of an account", a.URL)
	}
	st := state{}
	e := envelope{Payload: payload{Leg: a.Call.ID, Session: a.Call.Aliases[0], Request: a.Call.Aliases[1],
		From: a.Call.From, To: a.Call.To}}
	switch a.Kind {
	case providers.AskAnswer:
		if st.Answer, e.Type = a.URL, typeAnswered; a.Call.Inbound {
			st.Answer, e.Type = "", typeInitiated
		}
	case providers.AskNext:
		st.Next, e.Type, e.Payload.Status = a.URL, typeStepDone, string(a.Dial)
	case providers.AskDigit:
		st.Key, e.Type, e.Payload.Digit = a.URL, typeGathered, a.Digit
	case providers.TellStatus:
		if st.Status, e.Type, e.Payload.Status = a.URL, typeStatus, string(a.Call.Status); ref == "status" {
			st.Status = "" // of a call that no command has given a state
		}
	case providers.TellDetection:
		st.Status, e.Type, e.Payload.Result = a.URL, typeMachine, string(a.AnsweredBy)
	case providers.TellRoom:
		st.Room, e.Type, e.Payload.Room = a.URL, typeLeft, a.Room
		if a.Joined {
			e.Type = typeJoined
		}
	}
	if st != (state{}) {
		e.Payload.State = st.encode()
	}
	b, err := json.Marshal(e.Payload)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(fmt.Appendf(b, "%s %d", e.Type, a.Sequence))
	e.ID = "event-" + hex.EncodeToString(sum[:8]) // the same when it is told again
	if b, err = json.Marshal(e); err != nil {
		return nil, err
	}
	req, err := http.NewRequest("POST", base+"/hooks/"+Name+"/"+account+"/inbound", bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Signature", signature([]byte(x.key), b))
	return req, nil
}

// Tries is how often an event is sent that is answered 5xx: all are told again.
func (x *exchange) Tries(*providers.Ask) int { return 6 }

// Answer implements providers.Exchange: replies say nothing.
func (x *exchange) Answer(_ string, body []byte) (*providers.Answer, error) {
	if len(body) > 0 {
		return nil, fmt.Errorf("commanded: a reply that is not empty: %.100q", body)
	}
	return nil, nil
}

// Handshake implements providers.Exchange.
func (x *exchange) Handshake(string, time.Time) (http.Header, error) { return http.Header{}, nil }

// Start implements providers.Exchange.
func (x *exchange) Start(call *providers.ExchangeCall, _ *providers.Answer) *providers.Start {
	return &providers.Start{Call: call.ID, Stream: "stream-" + call.ID, In: format, Out: format}
}

func refuse(status int, detail string) error {
	return &providers.CallError{Kind: providers.KindOf(status), Status: status, Code: fmt.Sprint(status),
		Detail: detail}
}

// Operation implements providers.Exchange.
func (x *exchange) Operation(r *http.Request, body []byte, _ time.Time) (*providers.Operation, error) {
	if r.Header.Get("Authorization") != "Bearer "+x.key {
		return nil, refuse(401, "wrong key")
	}
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	op := &providers.Operation{}
	if len(parts) > 1 {
		op.Call = parts[1]
	}
	var err error
	switch what := r.Method + " " + parts[len(parts)-1]; {
	case parts[0] != "calls":
		return nil, refuse(404, "no such path")
	case what == "POST calls":
		op.Kind = providers.OpDial
		op.Dial, err = readDial(body)
	case len(parts) == 2 && r.Method == "GET":
		op.Kind = providers.OpGet
	case what == "POST hangup":
		op.Kind = providers.OpHangup
	case what == "POST digits":
		var digits struct {
			Digits string `json:"digits"`
		}
		err = rest.Strict(body, &digits)
		op.Kind, op.Digits = providers.OpDigits, digits.Digits
	case what == "POST do":
		op.Kind = providers.OpDo
		if op.Answer, err = readCommands(body); err == nil && op.Answer.Unanswered {
			op.Once = "answer" // a call is picked up once
		}
	default:
		return nil, refuse(404, "no such path")
	}
	if err != nil {
		return nil, refuse(422, err.Error())
	}
	return op, nil
}

func readDial(body []byte) (*providers.Dial, error) {
	var b dialBody
	if err := rest.Strict(body, &b); err != nil {
		return nil, err
	}
	st, err := decodeState(b.State)
	if err == nil && !(providers.ValidNumber(b.To) && providers.ValidNumber(b.From)) {
		err = errors.New("to, from: must be numbers")
	}
	return &providers.Dial{To: b.To, From: b.From, Ring: time.Duration(b.Ring) * time.Second, Detect: b.Detect,
		Digits: b.Digits,
		Answer: st.Answer, Status: st.Status}, err
}

func readCommands(body []byte) (*providers.Answer, error) {
	var b struct {
		Commands []command `json:"commands"`
	}
	if err := rest.Strict(body, &b); err != nil {
		return nil, err
	}
	a := &providers.Answer{}
	for _, c := range b.Commands {
		if err := read1(a, &c); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// read1 adds a command to an answer.
func read1(a *providers.Answer, c *command) error {
	st, err := decodeState(c.State)
	if err != nil {
		return fmt.Errorf("client_state: %w", err)
	}
	if st.Next != "" {
		a.Next = st.Next
	}
	switch c.Command {
	case "answer":
		a.Unanswered = true
	case "say":
		a.Say = c.Text
	case "gather":
		a.Ask = &providers.Question{URL: st.Key, Wait: time.Duration(c.Seconds) * time.Second}
	case "stream":
		a.Media, a.Format = c.URL, format
		if !rest.Secure(c.URL, "wss") {
			return fmt.Errorf("url: %.100q must be wss://", c.URL)
		}
	case "join":
		a.Room = &providers.Room{Name: c.Name, End: c.End, Wait: c.Wait, Hold: c.Hold, Events: st.Room}
	case "connect":
		a.Dial, a.Caller, a.Ring = c.To, c.From, time.Duration(c.Seconds)*time.Second
	default:
		return fmt.Errorf("command: %.40q is none", c.Command)
	}
	return nil
}

// Reply implements providers.Exchange. A new call is told the id of the request only.
func (x *exchange) Reply(w http.ResponseWriter, op *providers.Operation, call *providers.ExchangeCall, err error) {
	var e *providers.CallError
	if errors.As(err, &e) {
		if e.Retry > 0 {
			w.Header().Set("Retry-After", fmt.Sprint(int(e.Retry/time.Second)))
		}
		w.WriteHeader(e.Status)
		rest.WriteJSON(w, map[string]string{"code": e.Code, "detail": e.Detail})
		return
	}
	reply := callReply{Leg: call.ID, Session: call.Aliases[0], Status: string(call.Status), Room: call.Room,
		Result: string(call.AnsweredBy)}
	if op.Kind == providers.OpDial {
		reply = callReply{Leg: call.Aliases[1], Status: string(call.Status)}
	}
	rest.WriteJSON(w, reply)
}
