// Package all is the list of carriers. A new carrier adds one line.
package all

import (
	"fmt"
	"strings"

	"voicebridge/providers"
	"voicebridge/providers/asterisk"
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
	asterisk.Spec,
}

// Matrix is what the carriers can do: a row for each ability, with its name and its meaning,
// and a column for each carrier. The first row has the carriers' titles, the second the
// formats of their audio.
func Matrix() (rows [][]string) {
	head, audio := []string{"", ""}, []string{"formats", "audio"}
	for _, s := range Specs {
		var formats []string
		for _, f := range s.Formats {
			formats = append(formats, f.String())
		}
		head, audio = append(head, s.Title), append(audio, strings.Join(formats, ", "))
	}
	rows = append(rows, head, audio)
	for i, a := range Specs[0].Abilities.List() {
		row := []string{a.Name, a.Means}
		for _, s := range Specs {
			row = append(row, s.Abilities.List()[i].Has)
		}
		rows = append(rows, row)
	}
	return rows
}

// Table is the matrix in Markdown.
func Table() string {
	var b strings.Builder
	for i, row := range Matrix() {
		what := row[1]
		if i > 1 {
			what += " (`" + row[0] + "`)"
		}
		fmt.Fprintf(&b, "| %s | %s |\n", what, strings.Join(row[2:], " | "))
		if i == 0 {
			b.WriteString("|" + strings.Repeat(" --- |", len(row)-1) + "\n")
		}
	}
	return b.String()
}

// Summary is what most people want to know first, in Markdown: a row for each carrier.
func Summary() string {
	var b strings.Builder
	b.WriteString("| | audio | marks | clear | DTMF in | DTMF out | webhooks | machine detection | transfers |\n" +
		"|" + strings.Repeat(" --- |", 9) + "\n")
	yes := map[bool]string{true: "yes", false: "no"}
	for _, s := range Specs {
		var formats []string
		for _, f := range s.Formats {
			formats = append(formats, f.String())
		}
		a := s.Abilities
		out := "by the carrier"
		if !a.SendDigits && !a.PressesDigits {
			out = "tones"
		}
		hooks := "signed"
		if !a.SignsBodies {
			hooks = "their bodies are not signed"
		}
		fmt.Fprintf(&b, "| [%s](providers/%s) | %s | %s | %s | %s | %s | %s | %s | blind, conference, attended |\n",
			s.Title, s.Name, strings.Join(formats, ", "), yes[a.Marks], yes[a.Clear], yes[a.Digits], out, hooks,
			yes[a.Detects])
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
