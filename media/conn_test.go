package media

import (
	"errors"
	"testing"

	"go.uber.org/goleak"

	"voicebridge/session"
	"voicebridge/ws"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestEnds: what the end of a connection means for its call.
func TestEnds(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want session.Cause
	}{
		{&ws.CloseError{Code: ws.CloseNormal}, session.CallerHangup},
		{&ws.CloseError{Code: ws.CloseGoingAway}, session.CallerHangup},
		{&ws.CloseError{Code: 1005}, session.CallerHangup},
		{&ws.CloseError{Code: 1006}, session.CarrierLost},
		{&ws.CloseError{Code: ws.CloseInternal}, session.CarrierLost},
		{ws.ErrSlow, session.CarrierTimeout},
		{ws.ErrTooLarge, session.ProtocolError},
		{errors.New("reserved bit"), session.ProtocolError},
	} {
		if end := endOf(tt.err); end.Cause != tt.want {
			t.Errorf("%v: %s, want %s", tt.err, end.Cause, tt.want)
		}
	}
}

// TestCloseCodes: a carrier is told that a call without an agent has not ended well.
func TestCloseCodes(t *testing.T) {
	for _, cause := range session.Causes {
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
