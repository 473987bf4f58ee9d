package providers

import (
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

// attempt carries out a request, and again, with growing and random pauses, where
// that may help and is safe: always after ErrRate and where no connection was made,
// and after other ErrUnavailable where the request may be repeated.
func attempt[T any](ctx context.Context, repeats bool, do func(context.Context) (T, error)) (T, error) {
	var last error
	v, err := backoff.Retry(ctx, func() (T, error) {
		one, cancel := context.WithTimeout(ctx, attemptTime)
		defer cancel()
		v, err := do(one)
		last = err
		var e *CallError
		switch {
		case err == nil:
			return v, nil
		case !errors.As(err, &e), !e.again(repeats), e.Retry > longestWait:
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

// repeat is attempt for a request that may be repeated and has no result.
func repeat(ctx context.Context, do func(context.Context) error) error {
	_, err := attempt(ctx, true, func(ctx context.Context) (struct{}, error) { return struct{}{}, do(ctx) })
	return err
}

// again reports whether the request may be made again.
func (e *CallError) again(repeats bool) bool {
	return e.Kind == ErrRate || e.Kind == ErrUnavailable && (repeats || e.Unsent())
}
