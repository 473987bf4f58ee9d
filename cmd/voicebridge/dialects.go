package main

import (
	"encoding/json"
	"fmt"
	"text/tabwriter"

	"voicebridge/agent"
	dialects "voicebridge/agent/all"
)

type dialectsCmd struct {
	JSON bool `help:"As JSON." name:"json"`
}

// Run lists what agents may speak.
func (c *dialectsCmd) Run(out output) error {
	if c.JSON {
		type dialect struct {
			Name  string `json:"name"`
			Title string `json:"title"`
			agent.Features
		}
		list := []dialect{}
		for _, d := range dialects.Dialects {
			list = append(list, dialect{d.Name, d.Title, d.Can})
		}
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(list)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	yes := map[bool]string{true: "yes", false: "no"}
	fmt.Fprintln(w, "PROTOCOL\tWHAT IT IS\tHANG-UP\tDIGITS\tTRANSFERS\tYOUR TOOLS\tTRANSCRIPT\tCONNECTS ITSELF\tAUDIO")
	for _, d := range dialects.Dialects {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", d.Name, d.Title, yes[d.Can.Hangup], yes[d.Can.Digits],
			yes[d.Can.Transfers], yes[d.Can.Tools], yes[d.Can.Words], yes[d.Can.Incoming], d.Can.Formats)
	}
	return w.Flush()
}
