package media

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

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

// blocking is a Handler whose first message takes until it is let go.
type blocking struct{ begun, let chan struct{} }

func (b blocking) Message(bool, []byte) {
	close(b.begun)
	<-b.let
}
func (b blocking) Writable()    {}
func (b blocking) Closed(error) {}

// TestHealthy: an instance one of whose event loops does not come round says so.
func TestHealthy(t *testing.T) {
	loop, err := ws.NewLoop()
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	defer loop.Close()
	defer func(d time.Duration) { stuckLoop = d }(stuckLoop)
	stuckLoop = 0
	s := &Server{loops: []*ws.Loop{loop}}
	if err := s.Healthy(); err != nil {
		t.Errorf("at rest: %v", err)
	}
	handler := blocking{make(chan struct{}), make(chan struct{})}
	served := make(chan *ws.Conn, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := ws.Accept(w, r, nil, ws.Limits{Text: 100, Binary: 100, Write: time.Second})
		if err != nil {
			t.Error(err)
			return
		}
		c.Serve(loop, handler)
		served <- c
	}))
	defer srv.Close()
	c, _, err := ws.Dial(t.Context(), "ws"+strings.TrimPrefix(srv.URL, "http"), nil, nil,
		ws.Limits{Text: 100, Binary: 100, Write: time.Second})
	if err == nil {
		err = c.Write(false, []byte("x"))
	}
	if err != nil {
		t.Fatal(err)
	}
	<-handler.begun
	if err := s.Healthy(); err == nil {
		t.Error("a loop that waits for a handler is said to be well")
	}
	close(handler.let)
	c.Close(ws.CloseNormal, "")
	_, _, _ = c.Read()
	c.Release()
	(<-served).Release()
}
