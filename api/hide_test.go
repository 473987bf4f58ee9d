package api

import "testing"

// TestHide: what explains a refused webhook tells neither tokens nor a transfer's nonce, nor
// numbers.
func TestHide(t *testing.T) {
	for in, want := range map[string]string{
		"/hooks/twilio/main/next/AAAAAAAAAAAAAAAAAAAAAAAAAAAA":   "/hooks/twilio/main/next/TOKEN",
		"/hooks/twilio/main/answer/AAAAAAAAAAAAAAAAAAAAAAAAAAAA": "/hooks/twilio/main/answer/TOKEN",
		"/media/twilio/AAAAAAAAAAAAAAAAAAAAAAAAAAAA":             "/media/twilio/TOKEN",
		"/hooks/twilio/main/transfer/tr_1_X/AAAAAAAAAAAAAA/leg":  "/hooks/twilio/main/transfer/tr_1_X/TOKEN/leg",
		"/hooks/twilio/main/status":                              "/hooks/twilio/main/status",
		"From=+15550100123":                                      "From=**********23",
	} {
		if got := hide(in); got != want {
			t.Errorf("%s becomes %s, want %s", in, got, want)
		}
	}
}
