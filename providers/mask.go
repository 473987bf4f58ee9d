package providers

import (
	"regexp"
	"strings"
)

// numberPart is what may be a phone number amid words, as carriers write it.
var numberPart = regexp.MustCompile(`(\+|%2B|\b)[0-9]{7,15}\b`)

// MaskNumbers returns a text in which only the last two digits of each phone number can be
// read, for logs and errors.
func MaskNumbers(s string) string {
	return numberPart.ReplaceAllStringFunc(s, func(n string) string {
		return strings.Repeat("*", len(n)-2) + n[len(n)-2:]
	})
}
