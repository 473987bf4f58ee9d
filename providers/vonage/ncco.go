package vonage

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"voicebridge/providers"
)

// An NCCO is a list of actions. These are as far as answers need them.
type (
	ncco []nccoAction

	nccoAction struct {
		Action      string     `json:"action"`
		Text        string     `json:"text,omitempty"` // talk
		From        string     `json:"from,omitempty"` // connect
		Timeout     int        `json:"timeout,omitempty"`
		EventType   string     `json:"eventType,omitempty"`
		EventURL    []string   `json:"eventUrl,omitempty"`
		EventMethod string     `json:"eventMethod,omitempty"`
		Endpoint    []endpoint `json:"endpoint,omitempty"`
		BargeIn     bool       `json:"bargeIn,omitempty"` // talk: a key ends it
		Language    string     `json:"language,omitempty"`
		Style       *int       `json:"style,omitempty"` // the voice: one of the language's, by number
		Type        []string   `json:"type,omitempty"`  // input
		DTMF        *dtmfInput `json:"dtmf,omitempty"`
		Name        string     `json:"name,omitempty"`         // conversation
		Start       *bool      `json:"startOnEnter,omitempty"` // Vonage's default is true
		End         bool       `json:"endOnExit,omitempty"`
		Hold        []string   `json:"musicOnHoldUrl,omitempty"`
	}

	dtmfInput struct {
		Digits       int  `json:"maxDigits"`
		Timeout      int  `json:"timeOut"`
		SubmitOnHash bool `json:"submitOnHash,omitempty"`
	}

	endpoint struct {
		Type          string         `json:"type"`
		Number        string         `json:"number,omitempty"` // phone
		URI           string         `json:"uri,omitempty"`    // websocket
		ContentType   string         `json:"content-type,omitempty"`
		Authorization *authorization `json:"authorization,omitempty"`
	}

	// authorization asks for the JWT of signed webhooks in the handshake.
	authorization struct {
		Type string `json:"type"`
	}
)

// maxInput is how long an input waits for a key at most, in seconds.
const maxInput = 10

// Document implements providers.Webhooks.
func (w *webhooks) Document(a *providers.Answer) (providers.Document, error) {
	list := w.ncco(a)
	if len(list) == 0 { // the call ends when nothing is left to do
		return providers.Document{}, nil
	}
	b, err := json.Marshal(list)
	if err != nil {
		return providers.Document{}, fmt.Errorf("vonage: ncco: %w", err)
	}
	return providers.Document{ContentType: "application/json", Body: b}, nil
}

func (w *webhooks) ncco(a *providers.Answer) ncco {
	var list ncco
	if a.Media != "" {
		list = append(list, connect(a, endpoint{
			Type: "websocket", URI: a.Media, ContentType: contentType(w.format),
			Authorization: &authorization{"vonage"},
		}))
	}
	if a.Say != "" {
		talk := nccoAction{Action: "talk", Text: a.Say, BargeIn: a.Ask != nil, Language: a.Language}
		if style, err := strconv.Atoi(a.Voice); err == nil {
			talk.Style = &style
		}
		list = append(list, talk)
	}
	if q := a.Ask; q != nil {
		list = append(list, nccoAction{Action: "input", Type: []string{"dtmf"},
			DTMF:     &dtmfInput{Digits: 1, Timeout: min(maxInput, int(q.Wait/time.Second))},
			EventURL: []string{q.URL}, EventMethod: "POST"})
	}
	if a.Room != nil {
		list = append(list, conversation(a.Room))
	}
	if a.Dial != "" {
		c := connect(a, endpoint{Type: "phone", Number: national(a.Dial)})
		c.From, c.Timeout = national(a.Caller), a.RingSeconds()
		list = append(list, c)
	}
	return list
}

// connect is the action that connects the call to an endpoint; synchronous ones ask
// what comes next.
func connect(a *providers.Answer, to endpoint) nccoAction {
	c := nccoAction{Action: "connect", Endpoint: []endpoint{to}}
	if a.Next != "" {
		c.EventType, c.EventURL, c.EventMethod = "synchronous", []string{a.Next}, "POST"
	}
	return c
}

func conversation(r *providers.Room) nccoAction {
	c := nccoAction{Action: "conversation", Name: r.Name, Start: new(bool), End: r.End}
	*c.Start = !r.Wait
	if r.Events != "" {
		c.EventURL, c.EventMethod = []string{r.Events}, "POST"
	}
	if r.Hold != "" {
		c.Hold = []string{r.Hold}
	}
	return c
}

// national leaves the plus of a number out, as Vonage does.
func national(number string) string { return strings.TrimPrefix(number, "+") }
