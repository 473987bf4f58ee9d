package plivolike

import (
	"encoding/xml"
	"fmt"
	"time"

	"voicebridge/providers"
	"voicebridge/providers/internal/plivomedia"
	"voicebridge/providers/internal/xmldoc"
)

// An answer document: elements in the order in which they are carried out.
type (
	response struct {
		XMLName  xml.Name       `xml:"Response"`
		Speak    *xmldoc.Words  `xml:"Speak"`
		Play     *playElement   `xml:"Play"`
		Question *question      // named by the dialect
		Stream   *streamElement `xml:"Stream"`
		Room     *conference    `xml:"Conference"`
		Dial     *dialElement   `xml:"Dial"`
		Redirect *redirect      `xml:"Redirect"`
		Hangup   *struct{}      `xml:"Hangup"`
	}
	playElement struct {
		Loop int    `xml:"loop,attr"` // 0: until the call goes on
		URL  string `xml:",chardata"`
	}
	question struct {
		XMLName xml.Name
		Action  string        `xml:"action,attr"`
		Method  string        `xml:"method,attr"`
		Input   string        `xml:"inputType,attr"`
		Digits  int           `xml:"numDigits,attr"`
		Wait    int           `xml:"executionTimeout,attr"`
		Speak   *xmldoc.Words `xml:"Speak"`
	}
	// streamElement with keepCallAlive is carried out alone; what follows it comes once it
	// has ended.
	streamElement struct {
		Both  bool   `xml:"bidirectional,attr"`
		Alive bool   `xml:"keepCallAlive,attr"`
		Type  string `xml:"contentType,attr"`
		URL   string `xml:",chardata"`
	}
	conference struct {
		Start     bool `xml:"startConferenceOnEnter,attr"`
		End       bool `xml:"endConferenceOnExit,attr"`
		StayAlone bool `xml:"stayAlone,attr"`
		Quiet
		Hold   string `xml:"waitSound,attr,omitempty"`
		Events string `xml:"callbackUrl,attr,omitempty"`
		Method string `xml:"callbackMethod,attr,omitempty"`
		Name   string `xml:",chardata"`
	}
	// dialElement asks at Action once the call is alone again.
	dialElement struct {
		CallerID string `xml:"callerId,attr,omitempty"`
		Timeout  int    `xml:"timeout,attr"`
		Action   string `xml:"action,attr,omitempty"`
		Method   string `xml:"method,attr,omitempty"`
		Number   string `xml:"Number"`
	}
	redirect struct {
		Method string `xml:"method,attr"`
		URL    string `xml:",chardata"`
	}
)

// KeyWait is the least time that is waited for a key.
const KeyWait = 5 * time.Second

// Document implements providers.Webhooks.
func (w *Webhooks) Document(a *providers.Answer) (providers.Document, error) {
	r := response{Speak: xmldoc.WordsOf(a.Say, a.Language, a.Voice)}
	if q := a.Ask; q != nil {
		wait := max(q.Wait, w.Abilities.KeyWait)
		r.Question = &question{XMLName: xml.Name{Local: w.Question}, Action: q.URL, Method: "POST", Input: "dtmf",
			Digits: 1, Wait: seconds(wait), Speak: r.Speak}
		r.Speak = nil
	}
	switch {
	case a.Media != "":
		r.Stream = &streamElement{Both: true, Alive: true, Type: plivomedia.ContentType(w.format), URL: a.Media}
	case a.Room != nil:
		r.Room = w.room(a.Room)
	case a.Dial != "":
		r.Dial = &dialElement{CallerID: w.written(a.Caller), Timeout: a.RingSeconds(), Number: w.written(a.Dial)}
	}
	switch {
	case a.Ask != nil: // what stands behind a question is done where no key is pressed
		r.Redirect = &redirect{"POST", a.Ask.URL}
	case a.Next == "":
		r.Hangup = &struct{}{}
	case r.Dial != nil:
		r.Dial.Action, r.Dial.Method = a.Next, "POST"
	default:
		r.Redirect = &redirect{"POST", a.Next}
	}
	return w.write(&r)
}

func (w *Webhooks) write(r *response) (providers.Document, error) {
	b, err := xmldoc.Marshal(r)
	if err != nil {
		return providers.Document{}, fmt.Errorf("%s: document: %w", w.Name, err)
	}
	return providers.Document{ContentType: "application/xml", Body: b}, nil
}

func (w *Webhooks) room(r *providers.Room) *conference {
	c := &conference{Start: !r.Wait, End: r.End, StayAlone: true, Quiet: w.Quiet, Hold: r.Hold, Events: r.Events,
		Name: r.Name}
	if r.Events != "" {
		c.Method = "POST"
	}
	return c
}

// HoldDocument implements providers.Holder: it is what waitSound fetches.
func (w *Webhooks) HoldDocument(audioURL string) (providers.Document, error) {
	return w.write(&response{Play: &playElement{URL: audioURL}})
}
