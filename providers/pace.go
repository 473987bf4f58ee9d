package providers

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/time/rate"
)

// pace holds an account's requests to what its carrier takes in a second, so that none is
// refused. A question how a call is waits behind what people wait for: questions are given
// a third, and are asked again some time anyway.
type pace struct {
	calls, all, questions *rate.Limiter // nil: as many as come
}

// urgency is what a request waits for.
type urgency uint8

const (
	command urgency = iota // changes a call
	newCall
	question
)

// Limit holds the account to so many new calls and so many other requests in a second; 0:
// any number. It is called before the account is used.
func (a *Account) Limit(calls, others int) {
	a.pace = pace{limiter(calls), limiter(others), limiter((others + 2) / 3)}
}

// LimitAll holds the account to so many requests of all kinds in a time, wherever in it
// they come; 0: any number.
func (a *Account) LimitAll(n int, in time.Duration) {
	if n <= 0 {
		return
	}
	// A bucket that is full at first, and fills again: half of each.
	rates := func(n int) *rate.Limiter {
		return rate.NewLimiter(rate.Limit(float64(n)/2/in.Seconds()), max(1, n/2))
	}
	all := rates(n)
	a.pace = pace{all, all, rates((n + 2) / 3)}
}

func limiter(n int) *rate.Limiter {
	if n <= 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(n), n)
}

// wait waits until a request may be made. It does not wait for what would come too late.
func (p *pace) wait(ctx context.Context, u urgency) error {
	waits := []*rate.Limiter{p.all}
	switch u {
	case newCall:
		waits = []*rate.Limiter{p.calls}
	case question:
		waits = []*rate.Limiter{p.questions, p.all}
	}
	for _, l := range waits {
		if l == nil {
			continue
		}
		if err := l.Wait(ctx); err != nil {
			return &CallError{Op: "request", Kind: ErrRate, Err: fmt.Errorf("as many as the account may make: %w", err)}
		}
	}
	return nil
}
