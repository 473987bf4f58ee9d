package telnyx

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"voicebridge/codec"
	"voicebridge/providers"
	"voicebridge/providers/internal/rest"
	"voicebridge/providers/internal/telnyxmedia"
)

// exchange is Telnyx' own end of an account.
type exchange struct {
	cfg Config

	mu     sync.Mutex
	states map[string]string // the last client_state of each leg
	spoken map[string]bool   // URLs of what follows words, not picking up
}

// NewExchange implements providers.Spec. Without the private key, which only Sample has, it
// cannot sign.
func NewExchange(setup providers.Setup) (providers.Exchange, error) {
	cfg, _, _, _, err := readConfig(setup)
	return &exchange{cfg: cfg, states: map[string]string{}, spoken: map[string]bool{}}, err
}

// Sample implements providers.Spec.
func Sample(baseURL string, f codec.Format) func(any) error {
	public, private, err := ed25519.GenerateKey(nil)
	cfg := Config{APIKey: "KEY" + rand.Text(), PublicKey: base64.StdEncoding.EncodeToString(public),
		ConnectionID: "7267000000000000001",
		Encoding:     strings.ToLower(telnyxmedia.Names[f.Encoding]), Rate: f.Rate, Voice: "female", Language: "en-US",
		BaseURL: baseURL,
		signer:  private}
	return func(c any) error {
		*c.(*Config) = cfg
		return err
	}
}

// NewCall implements providers.Exchange. The alias is the leg's other id, which all events
// tell.
func (*exchange) NewCall() providers.Leg {
	return providers.Leg{ID: "v3:" + rand.Text(), Aliases: []string{rand.Text()}}
}

// Tries is how often an event is sent that is not answered with 2xx.
func (*exchange) Tries(*providers.Ask) int { return 6 }

// Patience is how long it waits for an answer before it sends an event again.
func (*exchange) Patience() time.Duration { return 2 * time.Second }

// causesOf are the ends of calls as Telnyx tells them.
var causesOf = map[providers.Status][2]string{
	providers.StatusCompleted: {"normal_clearing", "200"}, providers.StatusBusy: {"user_busy", "486"},
	providers.StatusNoAnswer: {"no_answer", "unspecified"}, providers.StatusFailed: {"not_found", "404"},
	providers.StatusCanceled: {"originator_cancel", "487"},
}

// Ask implements providers.Exchange: all comes to one URL; what it is about is told by the
// client_state.
func (x *exchange) Ask(a *providers.Ask, now time.Time) (*http.Request, error) {
	kind, p, err := x.says(a)
	if err != nil {
		return nil, err
	}
	p["connection_id"], p["call_session_id"] = x.cfg.ConnectionID, "session"
	if _, other := p["call_control_id"]; !other {
		p["call_control_id"], p["call_leg_id"] = a.Call.ID, strings.Join(a.Call.Aliases, "")
	}
	said, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("telnyx: ask: %w", err)
	}
	sum := sha256.Sum256(fmt.Appendf(said, "%s %d %d", kind, a.Sequence, a.Call.Moves)) // the same when told again
	body, err := json.Marshal(map[string]any{"data": map[string]any{"record_type": "event", "event_type": kind,
		"id": hex.EncodeToString(sum[:16]), "occurred_at": now.UTC().Format(time.RFC3339Nano),
		"payload": json.RawMessage(said)}, "meta": map[string]any{"attempt": 1, "delivered_to": a.URL}})
	if err != nil {
		return nil, fmt.Errorf("telnyx: ask: %w", err)
	}
	u := a.URL
	if base, rest, ok := strings.Cut(u, "/hooks/telnyx/"); ok && a.Kind != providers.TellStatus {
		account, _, _ := strings.Cut(rest, "/")
		u = base + "/hooks/telnyx/" + account + "/inbound"
	}
	req, err := http.NewRequest("POST", u, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("telnyx: ask: %w", err)
	}
	at := strconv.FormatInt(now.Unix(), 10)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "telnyx-webhooks")
	req.Header.Set(timeHeader, at)
	if x.cfg.signer != nil {
		req.Header.Set(signatureHeader, base64.StdEncoding.EncodeToString(ed25519.Sign(x.cfg.signer, signed(at, body))))
	}
	return req, nil
}

// says returns the type and the payload of an event.
func (x *exchange) says(a *providers.Ask) (kind string, p map[string]any, err error) {
	p = map[string]any{"from": a.Call.From, "to": a.Call.To}
	switch a.Kind {
	case providers.AskAnswer:
		if a.Call.Inbound {
			p["direction"], p["state"], p["client_state"] = "incoming", "parked", ""
			return "call.initiated", p, nil
		}
		p["client_state"] = state{Answer: a.URL}.encode()
		return "call.answered", p, nil
	case providers.AskNext:
		return x.next(a, p)
	case providers.AskDigit:
		p["client_state"], p["digits"], p["status"] = state{Key: a.URL}.encode(), a.Digit, "valid"
		if a.Digit == "" {
			p["status"] = "timeout"
		}
		return "call.gather.ended", p, nil
	case providers.TellDetection:
		p["client_state"], p["result"] = state{Status: a.URL}.encode(), string(a.AnsweredBy)
		return "call.machine.detection.ended", p, nil
	case providers.TellRoom:
		sum := conferenceID(a.Room)
		p = map[string]any{"conference_id": sum, "client_state": state{Room: a.URL}.encode()}
		if a.Joined {
			return "conference.participant.joined", p, nil
		}
		return "conference.participant.left", p, nil
	}
	return x.status(a, p)
}

// next says that something is over: words, a stream, or the call to a number, which is
// told of the number's own leg.
func (x *exchange) next(a *providers.Ask, p map[string]any) (string, map[string]any, error) {
	x.mu.Lock()
	spoken := x.spoken[a.URL]
	x.mu.Unlock()
	switch {
	case a.Room != "":
		return "", nil, providers.ErrNotAsked
	case a.Dial != "":
		p["call_control_id"] = "v3:" + rand.Text()
		p["client_state"] = state{Next: a.URL, Number: a.Call.ID}.encode()
		p["hangup_cause"], p["sip_hangup_cause"] = causesOf[a.Dial][0], causesOf[a.Dial][1]
		return "call.hangup", p, nil
	case spoken:
		return "call.speak.ended", map[string]any{"client_state": state{Do: a.URL}.encode(), "status": "completed"}, nil
	case strings.Contains(a.URL, "/do/"):
		p["client_state"] = state{Do: a.URL}.encode()
		return "call.answered", p, nil
	}
	return "streaming.stopped", map[string]any{"stream_url": streamURL("wss://bridge.example.com/media", a.URL)}, nil
}

// status is a report on a call. That a placed one is answered asks what to do, too.
func (x *exchange) status(a *providers.Ask, p map[string]any) (string, map[string]any, error) {
	p["client_state"] = ""
	if !a.Call.Inbound {
		p["client_state"] = state{Status: a.URL}.encode()
	}
	if end, over := causesOf[a.Call.Status]; over {
		p["hangup_cause"], p["sip_hangup_cause"], p["hangup_source"] = end[0], end[1], "callee"
		return "call.hangup", p, nil
	}
	switch {
	case a.Call.Status == providers.StatusInitiated:
		p["direction"], p["state"] = "outgoing", "bridging"
		return "call.initiated", p, nil
	case a.Call.Status == providers.StatusInProgress && a.Call.Inbound:
		return "call.answered", p, nil
	}
	return "", nil, providers.ErrNotAsked
}

// conferenceID is the id of a conference in this simulation, nameOf its name again.
func conferenceID(name string) string { return "conf-" + hex.EncodeToString([]byte(name)) }

func nameOf(id string) string {
	b, _ := hex.DecodeString(strings.TrimPrefix(id, "conf-")) // another id is no conference's
	return string(b)
}

// Answer implements providers.Exchange: replies say nothing.
func (*exchange) Answer(_ string, body []byte) (*providers.Answer, error) {
	if len(body) > 0 {
		return nil, fmt.Errorf("telnyx: a reply that is not empty: %.100q", body)
	}
	return nil, nil
}

// Handshake implements providers.Exchange.
func (*exchange) Handshake(string, time.Time) (http.Header, error) { return http.Header{}, nil }

// Start implements providers.Exchange. The caller's phone speaks A-law where the agent's
// audio is mu-law: the two have nothing to do with each other.
func (x *exchange) Start(c *providers.ExchangeCall, a *providers.Answer) *providers.Start {
	in := a.Format
	if in.Encoding == codec.PCMU {
		in.Encoding = codec.PCMA
	}
	return &providers.Start{Account: rand.Text(), Call: c.ID, Stream: rand.Text(), In: in, Out: a.Format}
}

func fail(status int, code, title string) error {
	return &providers.CallError{Kind: providers.KindOf(status), Status: status, Code: code, Detail: title}
}

// Operation implements providers.Exchange.
func (x *exchange) Operation(r *http.Request, body []byte, _ time.Time) (op *providers.Operation, err error) {
	if r.Header.Get("Authorization") != "Bearer "+x.cfg.APIKey {
		return nil, fail(401, "10009", "Authentication failed")
	}
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	for len(parts) < 4 {
		parts = append(parts, "")
	}
	op = &providers.Operation{Call: parts[1]}
	switch what := r.Method + " " + parts[0]; {
	case what == "GET phone_numbers":
		q := r.URL.Query()
		op.Kind = providers.OpNumbers
		op.Page, _ = strconv.Atoi(q.Get("page[number]"))
		op.Size, _ = strconv.Atoi(q.Get("page[size]"))
		if op.Page < 1 || op.Size < 1 || op.Size > 250 {
			err = errors.New("page")
		}
	case what == "GET call_control_applications":
		op.Kind, op.Page = providers.OpNumbers, -1
	case what == "POST calls" && parts[1] == "":
		op.Kind = providers.OpDial
		op.Dial, err = x.dialled(body)
	case what == "GET calls" && parts[2] == "":
		op.Kind = providers.OpGet
	case what == "POST calls" && parts[2] == "actions":
		err = x.action(op, parts[3], body)
	case what == "GET conferences" && parts[1] == "":
		q := r.URL.Query()
		op.Kind, op.Room = providers.OpRoom, q.Get("filter[name]")
		if q.Get("filter[status]") != "in_progress" {
			err = errors.New("only those in progress are simulated")
		}
	case what == "GET conferences" && parts[2] == "participants":
		op.Kind, op.Room, op.Call = providers.OpRoom, nameOf(parts[1]), "participants"
	case what == "POST conferences":
		err = x.conference(op, parts[1], parts[3], body)
	default:
		return nil, fail(404, "10005", "Resource not found")
	}
	if err != nil {
		return nil, fail(422, "10015", err.Error())
	}
	return op, nil
}

// remember reads the state that a command gives a leg, which is kept once it is carried out.
func (x *exchange) remember(op *providers.Operation, leg string, g given) (state, error) {
	st, err := decodeState(g.State)
	if err == nil && g.ID == "" {
		err = errors.New("command_id: must be there")
	}
	op.Once = g.ID
	op.Done = func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.states[leg] = g.State
	}
	return st, err
}

func (x *exchange) dialled(body []byte) (*providers.Dial, error) {
	var b dialBody
	if err := rest.Strict(body, &b); err != nil {
		return nil, err
	}
	st, err := decodeState(b.State)
	switch {
	case err != nil:
		return nil, err
	case b.Connection != x.cfg.ConnectionID:
		return nil, errors.New("connection_id: is not this account's")
	case !providers.ValidNumber(b.To) || !providers.ValidNumber(b.From):
		return nil, errors.New("to, from: must be in +E.164 format")
	case b.Ring != 0 && (b.Ring < 5 || b.Ring > 600):
		return nil, errors.New("timeout_secs: must be 5 to 600")
	case b.Detect != "" && b.Detect != "detect":
		return nil, errors.New("answering_machine_detection: only detect is simulated")
	case b.Webhook != st.Status || b.Method != "POST" || !rest.Secure(b.Webhook, "https"):
		return nil, errors.New("webhook_url: must be that of the state")
	}
	return &providers.Dial{To: b.To, From: b.From, Ring: time.Duration(b.Ring) * time.Second, Detect: b.Detect != "",
		Digits: b.Digits, Answer: st.Answer, Status: st.Status}, nil
}

// action reads a command for a leg.
func (x *exchange) action(op *providers.Operation, what string, body []byte) error {
	op.Kind = providers.OpDo
	switch what {
	case "hangup":
		op.Kind = providers.OpHangup
		return rest.Strict(body, &given{})
	case "send_dtmf":
		var d digitsBody
		err := rest.Strict(body, &d)
		if strings.Trim(d.Digits, "0123456789ABCD*#wW") != "" || d.Digits == "" {
			err = errors.New("digits")
		}
		op.Kind, op.Digits = providers.OpDigits, d.Digits
		return err
	case "answer":
		return x.pickedUp(op, body)
	case "speak":
		return x.speak(op, body)
	case "gather", "gather_using_speak":
		return x.gather(op, body)
	case "streaming_start":
		var s struct {
			streaming
			given
		}
		if err := rest.Strict(body, &s); err != nil {
			return err
		}
		return x.stream(op, &s.streaming, s.given)
	case "transfer":
		return x.transfer(op, body)
	}
	return fmt.Errorf("action %.40q is not simulated", what)
}

func (x *exchange) pickedUp(op *providers.Operation, body []byte) error {
	b, err := rest.Read[answerBody](body)
	if err != nil {
		return err
	}
	if b.URL != "" {
		if b.Rate != 0 {
			return errors.New("stream_bidirectional_sampling_rate: not on answer")
		}
		err := x.stream(op, &b.streaming, b.given)
		if err == nil {
			op.Answer.Unanswered = true
		}
		return err
	}
	st, err := x.remember(op, op.Call, b.given)
	op.Answer = &providers.Answer{Unanswered: true, Next: st.Do}
	return err
}

func (x *exchange) speak(op *providers.Operation, body []byte) error {
	b, err := rest.Read[speakBody](body)
	if err != nil {
		return err
	}
	if b.Text == "" || b.Voice == "" {
		return errors.New("payload, voice: must be there")
	}
	st, err := x.remember(op, op.Call, b.given)
	op.Answer = &providers.Answer{Say: b.Text, Language: x.other(b.Language, x.cfg.Language),
		Voice: x.other(b.Voice, x.cfg.Voice), Next: st.Do}
	x.mu.Lock()
	x.spoken[st.Do] = true
	x.mu.Unlock()
	return err
}

// other is what is not the account's own.
func (x *exchange) other(said, usual string) string {
	if said == usual {
		return ""
	}
	return said
}

func (x *exchange) gather(op *providers.Operation, body []byte) error {
	b, err := rest.Read[gatherBody](body)
	if err != nil {
		return err
	}
	if b.Least != 1 || b.Most != 1 || b.Wait < 1000 {
		return errors.New("only one digit is simulated")
	}
	st, err := x.remember(op, op.Call, b.given)
	op.Answer = &providers.Answer{Say: b.Text, Language: x.other(b.Language, x.cfg.Language),
		Voice: x.other(b.Voice, x.cfg.Voice),
		Ask:   &providers.Question{URL: st.Key, Wait: time.Duration(b.Wait) * time.Millisecond}}
	return err
}

func (x *exchange) stream(op *providers.Operation, s *streaming, g given) error {
	f, err := telnyxmedia.FormatOf(s.Out, max(s.Rate, 8000), 1)
	switch {
	case err != nil:
		return err
	case s.Mode != "rtp" || s.Track != "inbound_track": // others want MP3, or bring our own audio
		return errors.New("stream_bidirectional_mode, stream_track: only rtp and inbound_track are simulated")
	case !rest.Secure(s.URL, "wss"):
		return fmt.Errorf("stream_url: %.100q must be wss://", s.URL)
	}
	if _, err := x.remember(op, op.Call, g); err != nil {
		return err
	}
	op.Answer = &providers.Answer{Format: f}
	op.Answer.Media, op.Answer.Next = nextOf(s.URL)
	return nil
}

func (x *exchange) transfer(op *providers.Operation, body []byte) error {
	b, err := rest.Read[transferBody](body)
	if err != nil {
		return err
	}
	st, err := x.remember(op, op.Call, b.given)
	target, bad := decodeState(b.Target)
	if err = errors.Join(err, bad); err != nil {
		return err
	}
	if !providers.ValidNumber(b.To) || st.Next != "" && (b.Park != "self" || target.Next != st.Next ||
		target.Number != op.Call) {
		return errors.New("to, park_after_unbridge, target_leg_client_state")
	}
	op.Answer = &providers.Answer{Dial: b.To, Caller: b.From, Ring: time.Duration(b.Ring) * time.Second, Next: st.Next}
	return nil
}

// conference reads a command about a conference.
func (x *exchange) conference(op *providers.Operation, id, what string, body []byte) error {
	op.Kind = providers.OpDo
	switch {
	case id == "":
		var b createBody
		if err := rest.Strict(body, &b); err != nil {
			return err
		}
		st, err := x.remember(op, b.Leg, b.given)
		op.Call = b.Leg
		op.Answer = &providers.Answer{Next: st.Next, Room: &providers.Room{Name: b.Name, Wait: !b.Start, Hold: b.Hold,
			Events: st.Room}}
		return err
	case what == "join":
		var b joinBody
		if err := rest.Strict(body, &b); err != nil {
			return err
		}
		st, err := x.remember(op, b.Leg, b.given)
		op.Call = b.Leg
		op.Answer = &providers.Answer{Next: st.Next, Room: &providers.Room{Name: nameOf(id), End: b.End, Wait: !b.Start,
			Events: st.Room}}
		return err
	case what == "leave": // the next command takes the leg out of it here
		var b leaveBody
		err := rest.Strict(body, &b)
		op.Kind, op.Call = providers.OpGet, b.Leg
		return err
	}
	return fmt.Errorf("action %.40q is not simulated", what)
}

// Reply implements providers.Exchange.
func (x *exchange) Reply(w http.ResponseWriter, op *providers.Operation, c *providers.ExchangeCall, err error) {
	w.Header().Set("Content-Type", "application/json")
	var e *providers.CallError
	if errors.As(err, &e) {
		status, code := e.Status, e.Code
		if e.Kind == providers.ErrNoCall && c != nil { // it is known, but has ended
			status, code = 422, "90018"
		}
		if e.Retry > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int(e.Retry/time.Second)))
		}
		w.WriteHeader(status)
		rest.WriteJSON(w, map[string]any{"errors": []any{map[string]any{"code": code, "title": e.Detail,
			"detail": e.Detail}}})
		return
	}
	switch op.Kind {
	case providers.OpNumbers:
		replyNumbers(w, op)
	case providers.OpRoom:
		rest.WriteJSON(w, map[string]any{"data": x.room(op, c)})
	case providers.OpDial, providers.OpGet:
		rest.WriteJSON(w, map[string]any{"data": x.leg(op, c)})
	default:
		rest.WriteJSON(w, map[string]any{"data": map[string]any{"result": "ok"}})
	}
}

// leg is a leg, for JSON.
func (x *exchange) leg(op *providers.Operation, c *providers.ExchangeCall) map[string]any {
	leg := map[string]any{"record_type": "call", "call_control_id": c.ID, "is_alive": false, "call_duration": 0}
	if len(c.Aliases) > 0 {
		leg["call_leg_id"] = c.Aliases[0]
	}
	if op.Kind == providers.OpDial {
		return leg
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	leg["client_state"] = x.states[op.Call]
	switch {
	case c.Status.Final():
		if leg["end_time"] = "2026-01-01T00:00:50.521992Z"; c.Status == providers.StatusCompleted {
			leg["call_duration"] = 50
		}
	case c.Status == providers.StatusInProgress:
		leg["is_alive"], leg["call_duration"] = true, 1
	case c.Status == providers.StatusRinging:
		leg["is_alive"] = true
	}
	return leg
}

// replyNumbers lists a page of the account's numbers, each with an application of its own,
// or tells where one has its webhooks.
func replyNumbers(w http.ResponseWriter, op *providers.Operation) {
	if op.Page < 0 {
		n, err := strconv.Atoi(op.Call)
		if err != nil || n >= len(op.Numbers) {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		rest.WriteJSON(w, map[string]any{"data": map[string]any{"webhook_event_url": op.Numbers[n].Webhook}})
		return
	}
	list, more := op.PageOf(op.Page - 1)
	data := []any{}
	for i, n := range list {
		one := map[string]any{"phone_number": n.Number, "status": "active"}
		if n.Webhook != "" {
			one["connection_id"] = strconv.Itoa((op.Page-1)*op.Size + i)
		}
		data = append(data, one)
	}
	pages := op.Page
	if more {
		pages++
	}
	rest.WriteJSON(w, map[string]any{"data": data,
		"meta": map[string]any{"total_pages": pages, "page_number": op.Page}})
}

// room lists the conference that a call is in, or who is in it.
func (x *exchange) room(op *providers.Operation, c *providers.ExchangeCall) []map[string]any {
	list := []map[string]any{}
	switch {
	case c == nil || c.Room == "":
	case op.Call != "participants":
		list = append(list, map[string]any{"id": conferenceID(op.Room), "name": op.Room, "status": "in_progress"})
	default:
		for _, id := range c.Members {
			list = append(list, map[string]any{"call_control_id": id, "status": "joined"})
		}
	}
	return list
}
