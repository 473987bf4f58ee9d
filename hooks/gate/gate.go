// Package gate checks who a request comes from: that it was signed by the carrier of
// the account it is for, and is the first with its signature where that counts. It
// keeps those that were refused, for an operator who wants to know why.
package gate

import (
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"voicebridge/providers"
)

// onceTime is for how long what may be used once is remembered: longer than any
// carrier's signature is good.
const onceTime = 10 * time.Minute

// keepRefused is how many refused requests are kept for each account.
const keepRefused = 8

// Gate checks requests, and is the one measure of what strangers may cost: of all doors
// together. Its methods may be called at the same time.
type Gate struct {
	others     Others
	once       providers.Once
	strangers  *rate.Limiter // of those who are told that they are wrong
	complaints *rate.Limiter // of refused requests, in the log

	mu      sync.Mutex
	refused map[string][]Refused // by account
}

// Others are the instances that know what was used together.
type Others interface {
	// First reports whether a name is used for the first time, as far as that is known.
	First(name string, until time.Time) bool
	// Unused takes that back.
	Unused(name string)
}

// New makes a gate. others may be nil.
func New(others Others) *Gate {
	if others == nil {
		others = nobody{}
	}
	return &Gate{others: others, strangers: rate.NewLimiter(10, 20), complaints: rate.NewLimiter(1, 1)}
}

type nobody struct{}

func (nobody) First(string, time.Time) bool { return true }
func (nobody) Unused(string)                {}

// Stranger reports whether one more who shows no good signature or token is told so; the
// others are told to wait.
func (g *Gate) Stranger() bool { return g.strangers.Allow() }

// Complain reports whether one more refused request is told of in the log.
func (g *Gate) Complain() bool { return g.complaints.Allow() }

// Refused is a request that was refused.
type Refused struct {
	Hook *providers.Hook
	At   time.Time
	Err  error
	// Mend is what can be done about it; empty: the carrier's Explain knows.
	Mend string
}

// Note keeps a request of an account that was refused although it was the carrier's.
func (g *Gate) Note(account string, h *providers.Hook, err error, mend string) {
	g.refuse(account, Refused{h, time.Now(), err, mend})
}

// Check reports whether a request is the carrier's: its error is providers.ErrSignature
// where it is not. forget takes back that it has come: what it was for has not been
// done, and the carrier may send it again.
func (g *Gate) Check(account string, w providers.Webhooks, h *providers.Hook) (forget func(), err error) {
	now := time.Now()
	id, err := w.Authenticate(h, now)
	key := account + "\x00" + id
	if err == nil && id != "" && !g.first(key, now) {
		err = providers.ErrReplayed
	}
	if err != nil {
		g.refuse(account, Refused{h, now, err, ""})
		return nil, err
	}
	return func() {
		if id != "" {
			g.once.Forget(key)
			g.others.Unused(key)
		}
	}, nil
}

// first reports whether a key is used for the first time, here and elsewhere.
func (g *Gate) first(key string, now time.Time) bool {
	return g.others.First(key, now.Add(onceTime)) && g.once.First(key, now, now.Add(onceTime))
}

func (g *Gate) refuse(account string, r Refused) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.refused == nil {
		g.refused = map[string][]Refused{}
	}
	list := g.refused[account]
	if len(list) == keepRefused {
		list = slices.Delete(list, 0, 1)
	}
	r.Hook.Header = r.Hook.Header.Clone()
	g.refused[account] = append(list, r)
}

// Refused returns the last requests of an account that were refused, the newest first.
func (g *Gate) Refused(account string) []Refused {
	g.mu.Lock()
	defer g.mu.Unlock()
	list := slices.Clone(g.refused[account])
	slices.Reverse(list)
	return list
}
