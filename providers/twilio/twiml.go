package twilio

import (
	"encoding/xml"
	"fmt"
	"time"

	"voicebridge/providers"
	"voicebridge/providers/internal/xmldoc"
)

// TwiML, as far as answers need it. The order of the verbs is that of the fields.
type (
	twiml struct {
		XMLName  xml.Name      `xml:"Response"`
		Connect  *connectVerb  `xml:"Connect"`
		Redirect *redirectVerb `xml:"Redirect"`
		Gather   *gatherVerb   `xml:"Gather"`
		Say      *xmldoc.Words `xml:"Say"`
		Dial     *dialVerb     `xml:"Dial"`
		Hangup   *struct{}     `xml:"Hangup"`
	}
	connectVerb struct {
		Stream streamNoun `xml:"Stream"`
	}
	// streamNoun has no query in its URL: Twilio drops it.
	streamNoun struct {
		URL string `xml:"url,attr"`
	}
	redirectVerb struct {
		Method string `xml:"method,attr"`
		URL    string `xml:",chardata"`
	}
	// dialVerb asks at Action once the call is alone again.
	dialVerb struct {
		CallerID   string          `xml:"callerId,attr,omitempty"`
		Timeout    int             `xml:"timeout,attr,omitempty"`
		Action     string          `xml:"action,attr,omitempty"`
		Method     string          `xml:"method,attr,omitempty"`
		Number     string          `xml:"Number,omitempty"`
		Conference *conferenceNoun `xml:"Conference"`
	}
	conferenceNoun struct {
		Start        bool   `xml:"startConferenceOnEnter,attr"`
		End          bool   `xml:"endConferenceOnExit,attr"`
		Beep         bool   `xml:"beep,attr"`
		WaitURL      string `xml:"waitUrl,attr,omitempty"`
		WaitMethod   string `xml:"waitMethod,attr,omitempty"`
		Events       string `xml:"statusCallback,attr,omitempty"`
		EventNames   string `xml:"statusCallbackEvent,attr,omitempty"`
		EventsMethod string `xml:"statusCallbackMethod,attr,omitempty"`
		Name         string `xml:",chardata"`
	}
	gatherVerb struct {
		Input   string        `xml:"input,attr"`
		Digits  int           `xml:"numDigits,attr"`
		Timeout int           `xml:"timeout,attr"`
		Action  string        `xml:"action,attr"`
		Method  string        `xml:"method,attr"`
		Empty   bool          `xml:"actionOnEmptyResult,attr"`
		Say     *xmldoc.Words `xml:"Say"`
	}
)

// retries asks Twilio to make a request again that could not be made, or was answered with
// 5xx, as by a proxy whose bridge is started anew: up to three times. By itself it makes it
// again once, and after failures to connect only (Twilio, "Webhook connection overrides").
const retries = "#rc=3&rp=5xx,ct"

// retried is the URL of a webhook as Twilio is given it.
func retried(u string) string {
	if u == "" {
		return ""
	}
	return u + retries
}

// Document implements providers.Webhooks.
func (*webhooks) Document(a *providers.Answer) (providers.Document, error) {
	b, err := marshal(a)
	return providers.Document{ContentType: "application/xml", Body: b}, err
}

func marshal(a *providers.Answer) ([]byte, error) {
	t := twiml{Say: xmldoc.WordsOf(a.Say, a.Language, a.Voice)}
	if a.Media != "" {
		t.Connect = &connectVerb{Stream: streamNoun{URL: a.Media}}
	}
	if q := a.Ask; q != nil {
		t.Gather = &gatherVerb{Input: "dtmf", Digits: 1, Timeout: int(q.Wait / time.Second), Action: retried(q.URL),
			Method: "POST", Empty: true, Say: t.Say}
		t.Say = nil
	}
	switch {
	case a.Room != nil:
		t.Dial = &dialVerb{Conference: conference(a.Room)}
	case a.Dial != "":
		t.Dial = &dialVerb{CallerID: a.Caller, Timeout: a.RingSeconds(), Number: a.Dial}
	}
	switch {
	case a.Next == "":
	case t.Dial != nil:
		t.Dial.Action, t.Dial.Method = retried(a.Next), "POST"
	default:
		t.Redirect = &redirectVerb{"POST", retried(a.Next)}
	}
	if a.Media == "" {
		t.Hangup = &struct{}{}
	}
	b, err := xmldoc.Marshal(t)
	if err != nil {
		return nil, fmt.Errorf("twilio: twiml: %w", err)
	}
	return b, nil
}

func conference(r *providers.Room) *conferenceNoun {
	c := &conferenceNoun{Name: r.Name, Start: !r.Wait, End: r.End}
	if r.Events != "" {
		c.Events, c.EventNames, c.EventsMethod = retried(r.Events), "join leave", "POST"
	}
	if r.Hold != "" {
		c.WaitURL, c.WaitMethod = r.Hold, "GET"
	}
	return c
}
