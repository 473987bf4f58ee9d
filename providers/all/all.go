// Package all is the list of carriers. A new carrier adds one line.
package all

import (
	"voicebridge/providers"
	"voicebridge/providers/twilio"
	"voicebridge/providers/vonage"
)

// Specs lists every carrier, in the order in which they are shown.
var Specs = []*providers.Spec{
	twilio.Spec,
	vonage.Spec,
}

// Lookup finds a carrier by its name; nil if there is none.
func Lookup(name string) *providers.Spec {
	for _, s := range Specs {
		if s.Name == name {
			return s
		}
	}
	return nil
}
