package transfers

import (
	"fmt"
	"testing"
	"time"

	"voicebridge/transfer"
)

// TestTries: transfers are counted by call, destination and account within an hour, those that
// are refused do not count, and what does not count any more is forgotten.
func TestTries(t *testing.T) {
	var tr tries
	now := time.Unix(1e9, 0)
	l := Limits{Call: 2, Number: 3, Account: 5}
	take := func(call, to, account, want string) {
		t.Helper()
		r := &transfer.Request{Call: call, To: to, Account: account}
		if got := tr.take(now, r, l); got != want {
			t.Errorf("%s to %s of %s: %q, want %q", call, to, account, got, want)
		}
	}
	take("a", "1", "main", "")
	take("a", "1", "main", "")
	take("a", "2", "main", "this call")
	take("b", "1", "main", "")
	take("c", "1", "main", "this destination")
	take("c", "2", "main", "")
	take("d", "3", "main", "")
	take("e", "4", "main", "this account")
	take("e", "4", "other", "")
	now = now.Add(triesTime - time.Second)
	take("a", "5", "third", "this call")
	now = now.Add(time.Minute)
	take("a", "1", "main", "")
	if n := len(tr.byKey); n != 3 {
		t.Errorf("%d kinds are remembered, want those of the last only: %v", n, tr.byKey)
	}
	for i := range 1000 {
		if got := tr.take(now, &transfer.Request{Call: fmt.Sprint(i), To: "9"}, Limits{}); got != "" {
			t.Fatalf("without limits: %q", got)
		}
	}
}
