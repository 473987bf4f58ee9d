package main

import (
	"fmt"
	"text/tabwriter"

	"voicebridge/providers/all"
)

type providersCmd struct{}

// Run lists the carriers.
func (providersCmd) Run(out output) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tCARRIER\tAUDIO\tMEDIA\tWEBHOOKS")
	for _, s := range all.Specs {
		hooks := "no"
		if s.NewAccount != nil {
			hooks = "inbound,status"
		}
		fmt.Fprintf(w, "%s\t%s\t%v\t%v\t%s\n", s.Name, s.Title, s.Formats, s.Abilities, hooks)
	}
	return w.Flush()
}
