package providers

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// When a request to a carrier's REST API is made again.
const (
	attemptTime = 5 * time.Second // for one attempt
	attempts    = 4
	firstPause  = 200 * time.Millisecond // before the second attempt, about; it doubles
	mostPause   = 2 * time.Second
	longestWait = 10 * time.Second // a carrier that wants to be left alone for longer is not asked again
)

// attempt carries out a request when its time has come, and again, with growing and random
// pauses, where that may help and is safe: after ErrRate and where no connection was made,
// and after other ErrUnavailable where the request may be repeated. A question that was one
// too many is not repeated: it is asked again some time anyway.
func attempt[T any](ctx context.Context, p pace, u urgency, repeats bool, do func(context.Context) (T, error)) (T,
	error) {
	var last error
	v, err := backoff.Retry(ctx, func() (T, error) {
		if err := p.wait(ctx, u); err != nil {
			var none T
			last = cmp.Or(last, err)
			return none, backoff.Permanent(err)
		}
		one, cancel := context.WithTimeout(ctx, attemptTime)
		defer cancel()
		v, err := do(one)
		last = err
		var e *CallError
		switch {
		case err == nil:
			return v, nil
		case !errors.As(err, &e), !e.again(u, repeats), e.Retry > longestWait:
			return v, backoff.Permanent(err)
		case e.Retry > 0:
			return v, errors.Join(&backoff.RetryAfterError{Duration: e.Retry}, err)
		}
		return v, err
	}, backoff.WithBackOff(&backoff.ExponentialBackOff{
		InitialInterval: firstPause, RandomizationFactor: 0.5, Multiplier: 2, MaxInterval: mostPause,
	}), backoff.WithMaxTries(attempts))
	if err != nil && last != nil {
		err = last // rather than the end of ctx, or how it was wrapped
	}
	return v, err
}

// again reports whether the request may be made again.
func (e *CallError) again(u urgency, repeats bool) bool {
	return e.Kind == ErrRate && u != question || e.Kind == ErrUnavailable && (repeats || e.Unsent())
}
