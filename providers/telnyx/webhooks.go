package telnyx

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"voicebridge/providers"
)

// webhooks are those of one account, which has one key for all of them.
type webhooks struct{ key ed25519.PublicKey }

// The headers of a signed webhook.
const (
	signatureHeader = "Telnyx-Signature-Ed25519"
	timeHeader      = "Telnyx-Timestamp"
)

// maxAge is how old, or how far in the future, a signed webhook may be.
const maxAge = 5 * time.Minute

// signed is what a signature is of.
func signed(at string, body []byte) []byte { return append([]byte(at+"|"), body...) }

// Authenticate implements providers.Webhooks, after Telnyx' "Webhook fundamentals". An
// event may come several times; it is known by its id.
func (w *webhooks) Authenticate(h *providers.Hook, now time.Time) (once string, err error) {
	signature, err := base64.StdEncoding.DecodeString(h.Header.Get(signatureHeader))
	at := h.Header.Get(timeHeader)
	unix, bad := strconv.ParseInt(at, 10, 64)
	wrong := func(why string) (string, error) {
		return "", fmt.Errorf("telnyx: %w: %s", providers.ErrSignature, why)
	}
	switch {
	case h.Header.Get(signatureHeader) == "" || at == "":
		return wrong("no " + signatureHeader + " or " + timeHeader + " header")
	case err != nil || len(signature) != ed25519.SignatureSize:
		return wrong("the signature is not the base64 of 64 bytes")
	case bad != nil || now.Sub(time.Unix(unix, 0)).Abs() > maxAge:
		return wrong(fmt.Sprintf("it is older than %v, or from the future", maxAge))
	case !ed25519.Verify(w.key, signed(at, h.Body), signature):
		return wrong("does not fit the body: is public_url reached directly, and public_key this account's?")
	}
	return "", nil
}

// Explain implements providers.Webhooks.
func (w *webhooks) Explain(h *providers.Hook, now time.Time) []string {
	_, err := w.Authenticate(h, now)
	if err == nil {
		return []string{"The signature is good."}
	}
	lines := []string{"Refused: " + err.Error()}
	at := h.Header.Get(timeHeader)
	if h.Header.Get(signatureHeader) == "" || at == "" {
		return append(lines, "Telnyx signs every webhook of API version 2. Set the application's webhook_api_version "+
			"to 2; otherwise the request is not Telnyx', or a proxy has removed the headers.")
	}
	unix, bad := strconv.ParseInt(at, 10, 64)
	if bad == nil && now.Sub(time.Unix(unix, 0)).Abs() > maxAge {
		return append(lines, fmt.Sprintf("It was signed at %v, but here it is %v: is this machine's clock right?",
			time.Unix(unix, 0).UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339)))
	}
	lines = append(lines, fmt.Sprintf("Expected: Ed25519 by public_key %s over %q and the %d bytes of the body.",
		base64.StdEncoding.EncodeToString(w.key), at+"|", len(h.Body)))
	if signature, err := base64.StdEncoding.DecodeString(h.Header.Get(signatureHeader)); err == nil &&
		ed25519.Verify(w.key, signed(at, []byte(strings.TrimSpace(string(h.Body)))), signature) {
		return append(lines, "Without white space around the body it fits: a proxy, or a framework, rewrites bodies.")
	}
	return append(lines, "Either public_key is not that of the account (portal: Account, Public key), or something "+
		"changes the body on its way; or the request is not Telnyx'.")
}

// envelope holds every event. Version 1 of it has no data.
type envelope struct {
	Data struct {
		Type    string  `json:"event_type"`
		ID      string  `json:"id"`
		Payload payload `json:"payload"`
	} `json:"data"`
}

// payload is that of any event.
type payload struct {
	Leg       string `json:"call_control_id"`
	LegID     string `json:"call_leg_id"`
	State     string `json:"client_state"`
	From      string `json:"from"`
	To        string `json:"to"`
	Direction string `json:"direction"`
	Cause     string `json:"hangup_cause"`
	SIPCause  string `json:"sip_hangup_cause"`
	Result    string `json:"result"` // of machine detection
	Digits    string `json:"digits"`
	Gathered  string `json:"status"` // of a gather
	StreamURL string `json:"stream_url"`
	Params    struct {
		StreamURL string `json:"stream_url"`
	} `json:"stream_params"`
}

// Read implements providers.Webhooks. All comes to one URL; what an event belongs to is
// told by the state that the bridge has given the leg.
func (w *webhooks) Read(h *providers.Hook) ([]providers.CallEvent, error) {
	var e envelope
	if err := json.Unmarshal(h.Body, &e); err != nil {
		return nil, fmt.Errorf("telnyx: body: %w", err)
	}
	p := &e.Data.Payload
	kind := strings.TrimPrefix(strings.ReplaceAll(e.Data.Type, "_", "."), "call.")
	switch {
	case kind == "":
		return nil, errors.New("telnyx: no event: set the application's webhook_api_version to 2")
	case p.Leg == "" && kind == "recording.saved":
		return nil, nil
	case p.Leg == "":
		return nil, errors.New("telnyx: no call_control_id")
	}
	st, _ := decodeState(p.State) // it may be somebody else's
	ev := providers.CallEvent{ID: e.Data.ID, Leg: p.Leg, Raw: kind}
	if p.LegID != "" {
		ev.Aliases = []string{p.LegID}
	}
	if st.Number != "" {
		return numberOver(ev, &st, kind, p), nil
	}
	return read(ev, &st, kind, p), nil
}

// read returns the events of a leg that the bridge knows.
func read(ev providers.CallEvent, st *state, kind string, p *payload) []providers.CallEvent {
	progress := func(s providers.Status) providers.CallEvent {
		e := ev
		e.Kind, e.Status, e.Ref = providers.CallProgress, s, refOf(st.Status)
		return e
	}
	asks := func(u string) providers.CallEvent {
		e := ev
		e.Kind, e.Ref, e.From, e.To = providers.CallAsked, refOf(u), p.From, p.To
		if e.ID != "" {
			e.ID += "/asks" // beside what else the event tells
		}
		return e
	}
	switch kind {
	case "initiated":
		if p.Direction == "incoming" {
			ev.Kind, ev.From, ev.To = providers.CallAsked, p.From, p.To
			return []providers.CallEvent{ev}
		}
		return []providers.CallEvent{progress(providers.StatusInitiated)}
	case "answered":
		evs := []providers.CallEvent{progress(providers.StatusInProgress)}
		for _, u := range []string{st.Answer, st.Do} {
			if u != "" {
				evs = append(evs, asks(u))
			}
		}
		return evs
	case "hangup":
		e := progress(cause(p))
		e.Raw = p.Cause
		return []providers.CallEvent{e}
	case "machine.detection.ended", "machine.premium.detection.ended":
		ev.Kind, ev.Ref, ev.Raw, ev.AnsweredBy = providers.CallDetected, refOf(st.Status), p.Result,
			answeredBy(p.Result)
	case "speak.ended":
		if st.Do == "" {
			return nil
		}
		return []providers.CallEvent{asks(st.Do)}
	case "gather.ended":
		if p.Gathered == "call_hangup" || st.Key == "" {
			return nil
		}
		ev.Kind, ev.Ref, ev.Digit = providers.CallKey, refOf(st.Key), p.Digits
	case "streaming.stopped", "streaming.failed":
		_, next := nextOf(p.StreamURL + p.Params.StreamURL)
		if next == "" {
			return nil
		}
		ev.Kind, ev.Ref = providers.CallStepDone, refOf(next)
	case "conference.participant.joined", "conference.participant.left":
		ev.Kind, ev.Ref, ev.Joined = providers.CallRoom, refOf(st.Room), kind == "conference.participant.joined"
	default:
		return nil
	}
	return []providers.CallEvent{ev}
}

// numberOver returns the event of a number's own leg: how the call to it went, of the leg
// that was connected to it.
func numberOver(ev providers.CallEvent, st *state, kind string, p *payload) []providers.CallEvent {
	if kind != "hangup" {
		return nil
	}
	ev.Kind, ev.Leg, ev.Aliases, ev.Ref = providers.CallStepDone, st.Number, nil, refOf(st.Next)
	ev.Status, ev.Raw = cause(p), p.Cause
	return []providers.CallEvent{ev}
}

// causes are the values of hangup_cause.
var causes = map[string]providers.Status{
	"normal_clearing":   providers.StatusCompleted,
	"time_limit":        providers.StatusCompleted,
	"user_busy":         providers.StatusBusy,
	"no_answer":         providers.StatusNoAnswer,
	"timeout":           providers.StatusNoAnswer,
	"originator_cancel": providers.StatusCanceled,
}

// cause is why a leg has ended. Whatever it is, it has.
func cause(p *payload) providers.Status {
	switch {
	case p.Cause == "call_rejected" && (p.SIPCause == "486" || p.SIPCause == "600"):
		return providers.StatusBusy
	case causes[p.Cause] != "":
		return causes[p.Cause]
	}
	return providers.StatusFailed
}

// answeredBy are the results of machine detection, the premium one, too.
func answeredBy(result string) providers.AnsweredBy {
	switch {
	case strings.HasPrefix(result, "human"):
		return providers.AnsweredByHuman
	case result == "machine":
		return providers.AnsweredByMachine
	case result == "fax_detected":
		return providers.AnsweredByFax
	}
	return providers.AnsweredByUnknown
}

// Document implements providers.Webhooks: replies say nothing.
func (*webhooks) Document(*providers.Answer) (providers.Document, error) {
	return providers.Document{}, nil
}
