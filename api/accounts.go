package api

import (
	"errors"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"voicebridge/calls"
	"voicebridge/control"
	"voicebridge/providers"
)

// providerInfo describes a carrier.
type providerInfo struct {
	Name     string   `json:"name"`
	Title    string   `json:"title"`
	Formats  []string `json:"formats"`
	Marks    bool     `json:"marks"`
	Clear    bool     `json:"clear"`
	DTMFIn   bool     `json:"dtmf_in"`
	Accounts bool     `json:"accounts"`
}

// providers lists the carriers and what they can do.
func (s *Server) providers(*request) (reply, error) {
	list := []providerInfo{}
	for _, p := range s.cfg.Providers {
		can := p.Abilities
		info := providerInfo{Name: p.Name, Title: p.Title, Marks: can.Marks, Clear: can.Clear, DTMFIn: can.Digits,
			Accounts: p.NewAccount != nil}
		for _, f := range p.Formats {
			info.Formats = append(info.Formats, f.String())
		}
		list = append(list, info)
	}
	return reply{http.StatusOK, map[string]any{"providers": list}}, nil
}

type accountInfo struct {
	Name     string   `json:"name"`
	Provider string   `json:"provider"`
	From     string   `json:"from,omitempty"`
	Numbers  []string `json:"numbers"`
	Calls    bool     `json:"calls"`
	DTMFOut  string   `json:"dtmf_out"`
	Inbound  string   `json:"inbound_url"`
	Status   string   `json:"status_url"`
}

// accounts lists the accounts, without secrets.
func (s *Server) accounts(r *request) (reply, error) {
	list := []accountInfo{}
	for name, a := range s.control.Accounts() {
		if !r.token.sees(name) {
			continue
		}
		info := accountInfo{Name: name, Provider: a.Spec.Name, From: firstNumber(a),
			Numbers: append([]string{}, a.Numbers...),
			Calls:   a.HasCommands(), DTMFOut: "inband", Inbound: s.control.HookURL(a.Spec.Name, name, "inbound"),
			Status: s.control.HookURL(a.Spec.Name, name, "status")}
		if a.Spec.Abilities.SendDigits || a.SendsDigits() {
			info.DTMFOut = "native"
		}
		list = append(list, info)
	}
	slices.SortFunc(list, func(x, y accountInfo) int { return strings.Compare(x.Name, y.Name) })
	return reply{http.StatusOK, map[string]any{"accounts": list}}, nil
}

// firstNumber is what calls show that name no caller id; empty: there is none.
func firstNumber(a control.Account) string {
	if a.From == "" && len(a.Numbers) > 0 {
		return a.Numbers[0]
	}
	return a.From
}

// numbers lists the numbers that an account has at its carrier.
func (s *Server) numbers(a *request) (reply, error) {
	account, known := s.control.Account(a.PathValue("account"))
	if !known {
		return reply{}, &apiError{http.StatusNotFound, "not_found", "no such account", 0}
	}
	list, err := account.Account.Numbers(a.Context())
	if errors.Is(err, errors.ErrUnsupported) {
		return reply{}, &apiError{http.StatusConflict, "unsupported", err.Error(), 0}
	}
	return reply{http.StatusOK, map[string]any{"numbers": list}}, err
}

type refusedInfo struct {
	Time        calls.Stamp `json:"time"`
	Method      string      `json:"method"`
	Path        string      `json:"path"` // without what may be a token
	Error       string      `json:"error"`
	Explanation []string    `json:"explanation"`
}

// refused explains the last webhooks of an account that were refused.
func (s *Server) refused(a *request) (reply, error) {
	account, known := s.control.Account(a.PathValue("account"))
	if !known {
		return reply{}, &apiError{http.StatusNotFound, "not_found", "no such account", 0}
	}
	list := []refusedInfo{}
	for _, r := range s.cfg.Gate.Refused(a.PathValue("account")) {
		info := refusedInfo{Time: calls.Stamp{Time: r.At}, Method: r.Hook.Method, Path: hookPath(r.Hook.URL),
			Error: hide(r.Err.Error())}
		if errors.Is(r.Err, providers.ErrReplayed) { // its signature is good
			info.Explanation = append(info.Explanation,
				"The signature is good, but has been used before: the request was sent twice, or somebody repeats it.")
		}
		lines := []string{r.Mend}
		if r.Mend == "" {
			lines = account.Webhooks.Explain(r.Hook, r.At)
		}
		for _, line := range lines {
			info.Explanation = append(info.Explanation, hide(line))
		}
		list = append(list, info)
	}
	return reply{http.StatusOK, map[string]any{"refused": list}}, nil
}

// secretParts are the parts of paths that hold tokens, and the nonce of a transfer.
var secretParts = regexp.MustCompile(`(/media/[a-z]+/|/hooks/[a-z]+/[A-Za-z0-9_-]+/(?:(?:answer|next|do|words)/|` +
	`transfer/[A-Za-z0-9_{}]+/))[A-Za-z0-9_-]{10,}`)

// hide replaces tokens in URLs, and most of numbers.
func hide(s string) string {
	return providers.MaskNumbers(secretParts.ReplaceAllString(s, "${1}TOKEN"))
}

// hookPath is the path of a URL, without tokens.
func hookPath(u string) string {
	if _, rest, ok := strings.Cut(u, "://"); ok {
		if i := strings.IndexByte(rest, '/'); i >= 0 {
			u = rest[i:]
		}
	}
	return hide(u)
}
