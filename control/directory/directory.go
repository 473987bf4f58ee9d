// Package directory knows who is there: accounts at carriers, agents, and who answers which
// call. All of it may be replaced while calls are live.
package directory

import (
	"context"
	"slices"
	"sync/atomic"

	"voicebridge/agent"
	"voicebridge/notify"
	"voicebridge/providers"
	"voicebridge/session"
)

// Account is one account at a carrier.
type Account struct {
	Spec *providers.Spec
	*providers.Account
	// From is the caller id of placed calls for which none is asked for; without
	// it the Numbers take turns.
	From    string
	Numbers []string
	// UnsignedMedia takes media connections whose handshake the carrier has not
	// signed: their token alone must do.
	UnsignedMedia bool
}

// Owns reports whether a number is one of the account's: what it may show as caller id.
func (a *Account) Owns(number string) bool {
	return number == a.From || slices.Contains(a.Numbers, number)
}

// State asks the carrier how a leg is. One that is not there has ended.
func (a Account) State(ctx context.Context, leg string) ([]providers.CallEvent, error) {
	evs, err := a.Get(ctx, leg)
	if providers.IsNoCall(err) {
		return []providers.CallEvent{{Kind: providers.CallProgress, Leg: leg, Status: providers.StatusCompleted}}, nil
	}
	return evs, err
}

// Agent is who answers a call, and how the call is carried.
type Agent struct {
	Dialer  agent.Dialer
	Session session.Config
	// Fallback is what is done with a call whose agent cannot be reached, or
	// fails.
	Fallback Fallback
}

// Fallback is what a caller gets instead of an agent: another one, by its name, or words, then another number.
// All may be empty.
type Fallback struct {
	Agent           string
	Say, Dial       string
	Language, Voice string // of Say
}

// Route is what is done with an inbound call.
type Route struct {
	Agent    string            // its name
	Metadata map[string]string // told to the agent; see providers.CheckMetadata
}

// Entries are what is known at one time. They do not change.
type Entries struct {
	Accounts map[string]Account // by name
	// Agents answer the calls, by name; the one named "" those that no route
	// names one for.
	Agents map[string]Agent
	// Route chooses what is done with an inbound call. False means that nobody
	// answers there. nil chooses the agent "".
	Route func(account, from, to string) (Route, bool)
	// Router, if not nil, is asked instead; Route decides where it does not answer.
	Router *notify.Target
	// Words are what is said; those that are empty are DefaultWords.
	Words Words
}

// Directory has the entries of now. Its methods may be called at the same time.
type Directory struct {
	now  atomic.Pointer[Entries]
	turn atomic.Uint64 // of the numbers of accounts, as caller ids
}

// New makes a directory.
func New(e Entries) *Directory {
	d := new(Directory)
	d.Replace(e)
	return d
}

// Replace puts other entries into the place of those that there are.
func (d *Directory) Replace(e Entries) {
	e.Words = e.Words.or(DefaultWords)
	d.now.Store(&e)
}

// Entries returns all that is known.
func (d *Directory) Entries() *Entries { return d.now.Load() }

// Account returns an account by its name.
func (d *Directory) Account(name string) (Account, bool) {
	a, known := d.now.Load().Accounts[name]
	return a, known
}

// Accounts returns all accounts, by name.
func (d *Directory) Accounts() map[string]Account { return d.now.Load().Accounts }

// Agent returns an agent by its name; the zero Agent: there is none.
func (d *Directory) Agent(name string) Agent { return d.now.Load().Agents[name] }

// Agents returns all agents, by name.
func (d *Directory) Agents() map[string]Agent { return d.now.Load().Agents }

// CallerID chooses the number that a call seems to come from; empty: there is none.
func (d *Directory) CallerID(a *Account) string {
	switch {
	case a.From != "":
		return a.From
	case len(a.Numbers) > 0:
		return a.Numbers[int((d.turn.Add(1)-1)%uint64(len(a.Numbers)))]
	}
	return ""
}
