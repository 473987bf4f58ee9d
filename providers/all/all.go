// Package all is the list of carriers. A new carrier adds one line.
package all

import (
	"fmt"
	"strings"

	"voicebridge/providers"
	"voicebridge/providers/cloudonix"
	"voicebridge/providers/plivo"
	"voicebridge/providers/telnyx"
	"voicebridge/providers/twilio"
	"voicebridge/providers/vobiz"
	"voicebridge/providers/vonage"
)

// Specs lists every carrier, in the order in which they are shown.
var Specs = []*providers.Spec{
	twilio.Spec,
	vonage.Spec,
	telnyx.Spec,
	plivo.Spec,
	vobiz.Spec,
	cloudonix.Spec,
}

// Table is what the carriers can do, in Markdown: a row for each ability.
func Table() string {
	var b strings.Builder
	head, line := "|", "| --- |"
	for _, s := range Specs {
		head += " | " + s.Title
		line += " --- |"
	}
	fmt.Fprintf(&b, "%s |\n%s\n| audio |", head, line)
	for _, s := range Specs {
		var formats []string
		for _, f := range s.Formats {
			formats = append(formats, f.String())
		}
		fmt.Fprintf(&b, " %s |", strings.Join(formats, ", "))
	}
	b.WriteByte('\n')
	for i, a := range Specs[0].Abilities.List() {
		fmt.Fprintf(&b, "| %s (`%s`) |", a.Means, a.Name)
		for _, s := range Specs {
			fmt.Fprintf(&b, " %s |", s.Abilities.List()[i].Has)
		}
		b.WriteByte('\n')
	}
	return b.String()
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
