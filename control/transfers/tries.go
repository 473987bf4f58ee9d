package transfers

import (
	"net/http"
	"sync"
	"time"

	"voicebridge/transfer"
)

// Limits bound how often transfers are begun within an hour, by this instance: a model that
// has lost its way, or a token that was stolen, rings the same phone only so often. 0: any
// number of times.
type Limits struct {
	Call    int // of one call
	Number  int // to one destination
	Account int // of one account
}

// DefaultLimits are for a desk that takes a few hundred calls an hour.
var DefaultLimits = Limits{Call: 10, Number: 300, Account: 3000}

// triesTime is how long a try counts.
const triesTime = time.Hour

// tries are those that count, by what they are of.
type tries struct {
	mu    sync.Mutex
	byKey map[string][]time.Time
	swept time.Time
}

// take counts a try, unless there are too many already; then it says of what.
func (t *tries) take(now time.Time, r *transfer.Request, l Limits) (tooMany string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sweep(now)
	keys := []struct {
		key, what string
		most      int
	}{{"call:" + r.Call, "this call", l.Call}, {"number:" + r.To, "this destination", l.Number},
		{"account:" + r.Account, "this account", l.Account}}
	for _, k := range keys {
		list := t.byKey[k.key]
		if n := len(list) - k.most; k.most > 0 && n >= 0 && now.Sub(list[n]) < triesTime {
			return k.what
		}
	}
	for _, k := range keys {
		if k.most > 0 {
			list := append(t.byKey[k.key], now)
			t.byKey[k.key] = list[max(0, len(list)-k.most):]
		}
	}
	return ""
}

// sweep forgets what does not count any more. t.mu is held.
func (t *tries) sweep(now time.Time) {
	if t.byKey == nil {
		t.byKey = map[string][]time.Time{}
	}
	if now.Sub(t.swept) < time.Minute {
		return
	}
	t.swept = now
	for key, list := range t.byKey {
		if now.Sub(list[len(list)-1]) >= triesTime {
			delete(t.byKey, key)
		}
	}
}

// tooOften refuses a transfer of which there were too many.
func tooOften(what string) *Refusal {
	return refuse(http.StatusTooManyRequests, "rate_limited", "too many transfers of %s within an hour (limits of "+
		"transfers in the configuration)", what)
}
