package cloudonix

import (
	"encoding/xml"
	"fmt"
	"time"

	"voicebridge/providers"
	"voicebridge/providers/internal/xmldoc"
)

// A CXML document: verbs in the order in which they are carried out.
type (
	cxml struct {
		XMLName  xml.Name      `xml:"Response"`
		Say      *xmldoc.Words `xml:"Say"`
		Gather   *gatherVerb   `xml:"Gather"`
		Connect  *connectVerb  `xml:"Connect"`
		Dial     *dialVerb     `xml:"Dial"`
		Redirect *redirectVerb `xml:"Redirect"`
		Hangup   *struct{}     `xml:"Hangup"`
	}
	gatherVerb struct {
		Digits  int           `xml:"numDigits,attr"`
		Timeout int           `xml:"timeout,attr"`
		Action  string        `xml:"action,attr"`
		Say     *xmldoc.Words `xml:"Say"`
	}
	// connectVerb is over when the stream is.
	connectVerb struct {
		Stream struct {
			URL string `xml:"url,attr"`
		} `xml:"Stream"`
	}
	dialVerb struct {
		CallerID   string          `xml:"callerId,attr,omitempty"`
		Timeout    int             `xml:"timeout,attr,omitempty"`
		Action     string          `xml:"action,attr,omitempty"`
		Number     string          `xml:"Number,omitempty"`
		Conference *conferenceNoun `xml:"Conference"`
	}
	// conferenceNoun takes no hold audio of others: the conference's own is on or off.
	conferenceNoun struct {
		Beep      bool   `xml:"beep,attr"`
		HoldMusic bool   `xml:"holdMusic,attr"`
		Start     bool   `xml:"startConferenceOnEnter,attr"`
		End       bool   `xml:"endConferenceOnExit,attr"`
		Events    string `xml:"statusCallback,attr,omitempty"`
		Method    string `xml:"statusCallbackMethod,attr,omitempty"`
		Names     string `xml:"statusCallbackEvent,attr,omitempty"`
		Name      string `xml:",chardata"`
	}
	redirectVerb struct {
		Method string `xml:"method,attr"`
		URL    string `xml:",chardata"`
	}
)

// Document implements providers.Webhooks.
func (*webhooks) Document(a *providers.Answer) (providers.Document, error) {
	b, err := marshal(a)
	return providers.Document{ContentType: "application/xml", Body: b}, err
}

func marshal(a *providers.Answer) ([]byte, error) {
	d := cxml{Say: xmldoc.WordsOf(a.Say, a.Language, a.Voice)}
	next := a.Next
	if q := a.Ask; q != nil {
		d.Gather = &gatherVerb{Digits: 1, Timeout: int(q.Wait / time.Second), Action: q.URL, Say: d.Say}
		d.Say, next = nil, q.URL // also where no key is pressed
	}
	switch {
	case a.Media != "":
		d.Connect = &connectVerb{}
		d.Connect.Stream.URL = a.Media
	case a.Room != nil:
		d.Dial = &dialVerb{Conference: conference(a.Room)}
	case a.Dial != "":
		d.Dial = &dialVerb{CallerID: a.Caller, Timeout: a.RingSeconds(), Action: a.Next, Number: a.Dial}
		next = ""
	}
	if next != "" {
		d.Redirect = &redirectVerb{"POST", next}
	} else {
		d.Hangup = &struct{}{}
	}
	b, err := xmldoc.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("cloudonix: cxml: %w", err)
	}
	return b, nil
}

func conference(r *providers.Room) *conferenceNoun {
	c := &conferenceNoun{Name: r.Name, Start: !r.Wait, End: r.End, HoldMusic: r.Hold != ""}
	if r.Events != "" {
		c.Events, c.Method, c.Names = r.Events, "POST", "join leave"
	}
	return c
}
