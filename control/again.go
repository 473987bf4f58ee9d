package control

import (
	"errors"
	"strings"
	"time"

	"voicebridge/control/urls"
	"voicebridge/providers"
)

// What a carrier asks that cannot be decided yet, because the store is away, say, is
// answered by a document that waits and asks again: a carrier that is answered 5xx does
// not ask another time, but apologizes to the party and ends its call. The wait is that
// for a key which nobody presses, so that every carrier has it.

// againTime is how long the party waits before the carrier asks again.
const againTime = 2 * time.Second

// noKey is said of a question that nobody has answered.
const noKey = "none"

// final reports whether it makes no sense to ask again.
func final(err error) bool {
	return errors.Is(err, ErrToken) || errors.Is(err, ErrNoTransfer) || errors.Is(err, ErrNoAccount)
}

// later answers an event that wants an answer by a document that asks again.
func (c *Controller) later(account string, ev *providers.CallEvent) *providers.Answer {
	a := c.Accounts()[account]
	fact := string(ev.Status)
	if ev.Kind == providers.CallKey {
		if fact = noKey; ev.Digit != "" {
			fact = ev.Digit
		}
	}
	return &providers.Answer{Ask: &providers.Question{Wait: againTime,
		URL: c.HookURL(a.Spec.Name, account, ev.Ref+urls.Again+strings.ReplaceAll(fact, "#", "%23"))}}
}

// asBefore makes the event of a question that is asked again what it was the first time.
func asBefore(ev *providers.CallEvent) {
	ref, fact, again := strings.Cut(ev.Ref, urls.Again)
	if !again {
		return
	}
	ev.Ref = ref
	switch urls.PurposeOf(ref) {
	case providers.ForAnswer:
		ev.Kind = providers.CallAsked
	case providers.ForNext:
		ev.Kind, ev.Status = providers.CallStepDone, providers.Status(fact)
	case providers.ForKey:
		if fact != noKey {
			ev.Digit = fact
		}
	}
}
