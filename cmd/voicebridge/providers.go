package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strings"
	"text/tabwriter"

	"voicebridge/api/client"
	"voicebridge/providers"
	"voicebridge/providers/all"
)

type providersCmd struct {
	client.Client
	Accounts bool `help:"List the accounts of a running bridge instead, with what they can do and the URLs that the carrier needs."`
	JSON     bool `help:"As JSON." name:"json"`
}

// carriers lists the names of the carriers.
func carriers() string {
	var names []string
	for _, s := range all.Specs {
		names = append(names, s.Name)
	}
	return strings.Join(names, ",")
}

// Run lists the carriers.
func (c *providersCmd) Run(ctx context.Context, out output) error {
	if c.Accounts {
		return c.accounts(ctx, out)
	}
	if c.JSON {
		return listJSON(out)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tCARRIER\tAUDIO")
	for _, s := range all.Specs {
		fmt.Fprintf(w, "%s\t%s\t%v\n", s.Name, s.Title, s.Formats)
	}
	fmt.Fprintln(w)
	if err := w.Flush(); err != nil {
		return err
	}
	w = tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for i, row := range all.Matrix() {
		switch {
		case i == 0:
			fmt.Fprintf(w, "ABILITY\t%s\tMEANING\n", strings.ReplaceAll(strings.ToUpper(carriers()), ",", "\t"))
		case i > 1: // the formats are above
			fmt.Fprintf(w, "%s\t%s\t%s\n", row[0], strings.Join(row[2:], "\t"), row[1])
		}
	}
	return w.Flush()
}

// listJSON lists the carriers with all their abilities.
func listJSON(out io.Writer) error {
	type carrier struct {
		Name      string              `json:"name"`
		Title     string              `json:"title"`
		Formats   []string            `json:"formats"`
		Control   bool                `json:"control"` // it has webhooks and places calls
		Abilities providers.Abilities `json:"abilities"`
	}
	list := []carrier{}
	for _, s := range all.Specs {
		c := carrier{Name: s.Name, Title: s.Title, Control: s.NewAccount != nil, Abilities: s.Abilities}
		for _, f := range s.Formats {
			c.Formats = append(c.Formats, f.String())
		}
		list = append(list, c)
	}
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(list)
}

type numbersCmd struct {
	client.Client
	Account string `arg:"" help:"Account: a name of accounts in the bridge's configuration."`
	JSON    bool   `help:"As JSON." name:"json"`
}

// Run lists the numbers that an account has at its carrier.
func (c *numbersCmd) Run(ctx context.Context, out output) error {
	var list struct {
		Numbers []providers.Number `json:"numbers"`
	}
	if err := c.Do(ctx, "GET", "/v1/accounts/"+url.PathEscape(c.Account)+"/numbers", nil, &list); err != nil {
		return err
	}
	if c.JSON {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(list.Numbers)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NUMBER\tCAN\tITS CALLS ARE TOLD OF AT")
	for _, n := range list.Numbers {
		fmt.Fprintf(w, "%s\t%s\t%s\n", n.Number, strings.Join(n.Can, ","), cmp.Or(n.Webhook, "nowhere"))
	}
	return w.Flush()
}

// accounts lists those of a running bridge.
func (c *providersCmd) accounts(ctx context.Context, out output) error {
	var list struct {
		Accounts []struct {
			Name     string `json:"name"`
			Provider string `json:"provider"`
			From     string `json:"from"`
			Calls    bool   `json:"calls"`
			DTMFOut  string `json:"dtmf_out"`
			Inbound  string `json:"inbound_url"`
			Status   string `json:"status_url"`
		}
	}
	if err := c.Do(ctx, "GET", "/v1/accounts", nil, &list); err != nil {
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ACCOUNT\tCARRIER\tPLACES CALLS\tFROM\tDTMF OUT\tURLS FOR THE CARRIER")
	for _, a := range list.Accounts {
		fmt.Fprintf(w, "%s\t%s\t%v\t%s\t%s\t%s %s\n", a.Name, a.Provider, a.Calls, a.From, a.DTMFOut, a.Inbound,
			a.Status)
	}
	return w.Flush()
}
