package twilio

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"maps"
	"slices"
	"time"

	"voicebridge/providers"
)

// TwiML, as far as answers need it. The order of the verbs is that of the fields.
type (
	twiml struct {
		XMLName  xml.Name      `xml:"Response"`
		Connect  *connectVerb  `xml:"Connect"`
		Redirect *redirectVerb `xml:"Redirect"`
		Gather   *gatherVerb   `xml:"Gather"`
		Say      string        `xml:"Say,omitempty"`
		Dial     *dialVerb     `xml:"Dial"`
		Hangup   *struct{}     `xml:"Hangup"`
	}
	connectVerb struct {
		Stream streamNoun `xml:"Stream"`
	}
	// streamNoun has no query in its URL: Twilio drops it.
	streamNoun struct {
		URL        string      `xml:"url,attr"`
		Parameters []parameter `xml:"Parameter"`
	}
	parameter struct {
		Name  string `xml:"name,attr"`
		Value string `xml:"value,attr"`
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
		Input   string `xml:"input,attr"`
		Digits  int    `xml:"numDigits,attr"`
		Timeout int    `xml:"timeout,attr"`
		Action  string `xml:"action,attr"`
		Method  string `xml:"method,attr"`
		Empty   bool   `xml:"actionOnEmptyResult,attr"`
		Say     string `xml:"Say,omitempty"`
	}
)

// Document implements providers.Webhooks.
func (*webhooks) Document(a *providers.Answer) (providers.Document, error) {
	b, err := marshal(a)
	return providers.Document{ContentType: "application/xml", Body: b}, err
}

func marshal(a *providers.Answer) ([]byte, error) {
	t := twiml{Say: a.Say}
	if a.Media != "" {
		t.Connect = &connectVerb{Stream: streamNoun{URL: a.Media}}
		for _, name := range slices.Sorted(maps.Keys(a.Params)) {
			t.Connect.Stream.Parameters = append(t.Connect.Stream.Parameters, parameter{name, a.Params[name]})
		}
	}
	if q := a.Ask; q != nil {
		t.Gather = &gatherVerb{Input: "dtmf", Digits: 1, Timeout: int(q.Wait / time.Second), Action: q.URL, Method: "POST", Empty: true, Say: a.Say}
		t.Say = ""
	}
	switch r := a.Room; {
	case r != nil:
		c := &conferenceNoun{Name: r.Name, Start: !r.Wait, End: r.End}
		if r.Events != "" {
			c.Events, c.EventNames, c.EventsMethod = r.Events, "join leave", "POST"
		}
		if r.Hold != "" {
			c.WaitURL, c.WaitMethod = r.Hold, "GET"
		}
		t.Dial = &dialVerb{Conference: c}
	case a.Dial != "":
		t.Dial = &dialVerb{CallerID: a.Caller, Timeout: a.RingTime(), Number: a.Dial}
	}
	switch {
	case a.Next == "":
	case t.Dial != nil:
		t.Dial.Action, t.Dial.Method = a.Next, "POST"
	default:
		t.Redirect = &redirectVerb{"POST", a.Next}
	}
	if a.Media == "" {
		t.Hangup = &struct{}{}
	}
	var b bytes.Buffer
	b.WriteString(xml.Header)
	if err := xml.NewEncoder(&b).Encode(t); err != nil {
		return nil, fmt.Errorf("twilio: twiml: %w", err)
	}
	return b.Bytes(), nil
}
