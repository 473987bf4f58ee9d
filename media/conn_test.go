package media

import (
	"errors"
	"fmt"
	"testing"

	"go.uber.org/goleak"

	"voicebridge/calls"
	"voicebridge/ws"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestEnds: what the end of a connection means for its call.
func TestEnds(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want calls.Cause
	}{
		{&ws.CloseError{Code: ws.CloseNormal}, calls.CallerHangup},
		{&ws.CloseError{Code: ws.CloseGoingAway}, calls.CallerHangup},
		{&ws.CloseError{Code: 1005}, calls.CallerHangup},
		{&ws.CloseError{Code: 1006}, calls.CarrierLost},
		{&ws.CloseError{Code: ws.CloseInternal}, calls.CarrierLost},
		{ws.ErrSlow, calls.CarrierTimeout},
		{ws.ErrTooLarge, calls.ProtocolError},
		{fmt.Errorf("read: %w", &ws.PanicError{Value: "oops"}), calls.BridgeFault},
		{errors.New("reserved bit"), calls.ProtocolError},
	} {
		if end := endOf(tt.err); end.Cause != tt.want {
			t.Errorf("%v: %s, want %s", tt.err, end.Cause, tt.want)
		}
	}
}

// TestCloseCodes: a carrier is told that a call without an agent has not ended well.
func TestCloseCodes(t *testing.T) {
	for _, cause := range calls.Causes {
		code, special := closeCodes[cause]
		if cause.AgentFailed() != (code == ws.CloseInternal) {
			t.Errorf("%s: %d", cause, code)
		}
		if special && code == ws.CloseNormal {
			t.Errorf("%s has an entry that says nothing", cause)
		}
	}
}

// TestSameToken: an empty token lets nobody in.
func TestSameToken(t *testing.T) {
	for _, tt := range []struct {
		shown, wanted string
		want          bool
	}{{"", "", false}, {"x", "", false}, {"", "x", false}, {"x", "x", true}, {"xx", "x", false}} {
		if got := sameToken(tt.shown, tt.wanted); got != tt.want {
			t.Errorf("%q for %q: %v", tt.shown, tt.wanted, got)
		}
	}
}
