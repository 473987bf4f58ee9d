package providers

import (
	"context"
	"errors"
	"fmt"
)

// Number is a phone number of an account.
type Number struct {
	Number string   `json:"number"` // E.164
	Can    []string `json:"can"`    // what the carrier says that it can do: voice, sms, mms, fax
	// Webhook is where its calls are told of: a URL, or what the carrier calls the
	// application that has one; empty: nowhere.
	Webhook string `json:"webhook"`
}

// Can lists the names of what is so.
func Can(voice, sms, mms, fax bool) []string {
	can := []string{}
	for i, is := range []bool{voice, sms, mms, fax} {
		if is {
			can = append(can, []string{"voice", "sms", "mms", "fax"}[i])
		}
	}
	return can
}

// NumberLister is a carrier that tells which numbers an account has.
type NumberLister interface {
	// Numbers lists all of them, page after page.
	Numbers(ctx context.Context) ([]Number, error)
}

// Numbers lists the account's numbers. It is errors.ErrUnsupported where the carrier does
// not tell.
func (a *Account) Numbers(ctx context.Context) ([]Number, error) {
	if a.HasCommands() {
		if l, ok := a.commands.(NumberLister); ok {
			list, err := l.Numbers(ctx)
			return list, err
		}
	}
	return nil, fmt.Errorf("numbers: %w", errors.ErrUnsupported)
}

// maxPages bounds the pages that are read of a list.
const maxPages = 1000

// Pages reads a list page after page, from first on, until one is the last.
func Pages(first int, page func(n int) (last bool, err error)) error {
	for n := first; n < first+maxPages; n++ {
		if last, err := page(n); last || err != nil {
			return err
		}
	}
	return fmt.Errorf("a list of more than %d pages", maxPages)
}
