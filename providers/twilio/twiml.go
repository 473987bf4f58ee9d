package twilio

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"maps"
	"slices"

	"voicebridge/providers"
)

// TwiML, as far as answers need it. The order of the verbs is that of the fields.
type (
	twiml struct {
		XMLName  xml.Name      `xml:"Response"`
		Connect  *connectVerb  `xml:"Connect"`
		Redirect *redirectVerb `xml:"Redirect"`
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
	dialVerb struct {
		CallerID string `xml:"callerId,attr,omitempty"`
		Timeout  int    `xml:"timeout,attr"`
		Number   string `xml:"Number"`
	}
)

// dialTimeout is how long the number of an answer rings, in seconds.
const dialTimeout = 30

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
	if a.Next != "" {
		t.Redirect = &redirectVerb{"POST", a.Next}
	}
	if a.Dial != "" {
		t.Dial = &dialVerb{CallerID: a.Caller, Timeout: dialTimeout, Number: a.Dial}
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
