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
	once       providers.Once
	strangers  *rate.Limiter // of those who are told that they are wrong
	complaints *rate.Limiter // of refused requests, in the log

	mu      sync.Mutex
	refused map[string][]Refused // by account
}

// New makes a gate.
func New() *Gate {
	return &Gate{strangers: rate.NewLimiter(10, 20), complaints: rate.NewLimiter(1, 1)}
}

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
}

// Check reports whether a request is the carrier's: its error is providers.ErrSignature
// where it is not. forget takes back that it has come: what it was for has not been
// done, and the carrier may send it again.
func (g *Gate) Check(account string, w providers.Webhooks, h *providers.Hook) (forget func(), err error) {
	now := time.Now()
	id, err := w.Authenticate(h, now)
	key := account + "\x00" + id
	if err == nil && id != "" && !g.once.First(key, now, now.Add(onceTime)) {
		err = providers.ErrReplayed
	}
	if err != nil {
		g.refuse(account, h, now, err)
		return nil, err
	}
	return func() {
		if id != "" {
			g.once.Forget(key)
		}
	}, nil
}

func (g *Gate) refuse(account string, h *providers.Hook, at time.Time, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.refused == nil {
		g.refused = map[string][]Refused{}
	}
	list := g.refused[account]
	if len(list) == keepRefused {
		list = slices.Delete(list, 0, 1)
	}
	h.Header = h.Header.Clone()
	g.refused[account] = append(list, Refused{h, at, err})
}

// Refused returns the last requests of an account that were refused, the newest first.
func (g *Gate) Refused(account string) []Refused {
	g.mu.Lock()
	defer g.mu.Unlock()
	list := slices.Clone(g.refused[account])
	slices.Reverse(list)
	return list
}
