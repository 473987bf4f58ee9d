package calls

import "strings"

// Mask returns a number of which only the last two digits can be read, for logs.
func Mask(number string) string {
	if len(number) <= 2 {
		return number
	}
	return strings.Repeat("*", len(number)-2) + number[len(number)-2:]
}
