package providers

import (
	"errors"
	"strings"
	"testing"
)

// TestMaskNumbers: no number can be read in an error, while codes and ids can.
func TestMaskNumbers(t *testing.T) {
	for in, want := range map[string]string{
		"The 'To' number +15550100123 is not valid":        "The 'To' number **********23 is not valid",
		"to 15550100123, from 15550100999":                 "to *********23, from *********99",
		"To=%2B15550100123&From=":                          "To=************23&From=",
		"code 21211 of CA0123456789012345678901234567890f": "code 21211 of CA0123456789012345678901234567890f",
		"63f61863-4a51-4f6b-86e1-46edebcf9356":             "63f61863-4a51-4f6b-86e1-46edebcf9356",
	} {
		if got := MaskNumbers(in); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
	err := &CallError{Op: "dial", Kind: ErrRejected, Detail: "no route to +15550100123",
		Err: errors.New("of 15550100123")}
	if strings.Contains(err.Error(), "5550100") {
		t.Error(err)
	}
}
