// Package urls makes the URLs that carriers are given: of webhooks, media connections and files,
// with tokens that say what each is for.
package urls

import (
	"strings"
	"time"

	"voicebridge/providers"
	"voicebridge/ticket"
)

// The parts of a path behind /hooks/PROVIDER/ACCOUNT/, which are also the Ref of call
// events. Behind some of them a call's id, a token, or a transfer follows.
const (
	Inbound  = "inbound"
	Status   = "status"
	Answer   = "answer"
	Next     = "next"
	Transfer = "transfer" // the rest is read by Transfers
	Hold     = "hold"     // what is heard by who waits
	Do       = "do"       // an answer that was decided before
	Words    = "words"    // where a carrier that plays files fetches words
)

// PurposeOf returns what the URL with a ref was given to the carrier for.
func PurposeOf(ref string) providers.Purpose {
	if strings.Contains(ref, Again) {
		return providers.ForKey
	}
	kind, rest, _ := strings.Cut(ref, "/")
	if kind == Transfer {
		kind = rest[strings.LastIndexByte(rest, '/')+1:]
	}
	switch kind {
	case Status:
		return providers.ForStatus
	case Next, "briefed", "party":
		return providers.ForNext
	case "digit":
		return providers.ForKey
	case "room":
		return providers.ForRoom
	}
	return providers.ForAnswer
}

// Again follows a ref that is asked for again; what the carrier said the first time, and does
// not say again, follows it.
const Again = "~"

// URLs are those of an instance.
type URLs struct {
	Public   string // of all instances
	Instance string // of this very one; empty: there is none
	Alone    bool   // there is one instance
	Office   *ticket.Office
}

// PublicURL returns the public URL of a path.
func (u *URLs) PublicURL(path string) string {
	return strings.TrimSuffix(u.Public, "/") + path
}

// Host returns the URL at which carriers reach this very instance; empty: they cannot.
func (u *URLs) Host() string {
	if u.Instance == "" && u.Alone { // it is alone
		return u.Public
	}
	return u.Instance
}

// IsPublic reports whether a Host is the URL of all instances.
func (u *URLs) IsPublic(host string) bool { return host == u.Public }

// SocketURL returns the public URL of a path for WebSockets: https becomes wss.
func (u *URLs) SocketURL(path string) string { return SocketURL(u.Public, path) }

// InstanceSocketURL is SocketURL of this very instance.
func (u *URLs) InstanceSocketURL(path string) string {
	return SocketURL(u.Instance, path)
}

// SocketURL returns the URL of a path for WebSockets below a base: https becomes wss.
func SocketURL(base, path string) string {
	return "ws" + strings.TrimPrefix(strings.TrimSuffix(base, "/"), "http") + path
}

// HookURL returns the URL of a webhook of an account's; ref is what follows the account.
func (u *URLs) HookURL(provider, account, ref string) string {
	return u.PublicURL("/hooks/" + provider + "/" + account + "/" + ref)
}

// AnswerURL is where an account's carrier can ask for an answer that has been decided.
func (u *URLs) AnswerURL(provider, account string, a *providers.Answer) string {
	tk := ticket.Ticket{Use: ticket.Do, Provider: provider, Account: account, Do: a}
	return u.HookURL(provider, account, Do+"/"+u.Office.Make(tk, time.Now()))
}

// WordsURL is where an account's carrier fetches words as a file.
func (u *URLs) WordsURL(provider, account string, a *providers.Answer) string {
	said := &providers.Answer{Say: a.Say, Language: a.Language, Voice: a.Voice}
	tk := ticket.Ticket{Use: ticket.Do, Provider: provider, Account: account, Do: said}
	return u.HookURL(provider, account, Words+"/"+u.Office.Make(tk, time.Now())+".wav")
}

// MediaPath is the path of the media connection that a ticket is for.
func (u *URLs) MediaPath(tk ticket.Ticket) string {
	tk.Use = ticket.Media
	return "/media/" + tk.Provider + "/" + u.Office.Make(tk, time.Now())
}
