package agent

import (
	"strings"
	"time"
)

// The usual length of a tone, and of the silence after it.
const (
	DefaultTone    = 100 * time.Millisecond
	DefaultToneGap = 60 * time.Millisecond
)

// maxDigits bounds those of one command.
const maxDigits = 64

// ValidDigits reports whether s may be sent: 1 to 64 of 0-9 * # A-D, and w and W,
// which wait for half a second and a second.
func ValidDigits(s string) bool {
	return s != "" && len(s) <= maxDigits && strings.Trim(s, "0123456789*#ABCDwW") == ""
}
