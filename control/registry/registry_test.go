package registry_test

import (
	"testing"

	"voicebridge/control/registry"
	"voicebridge/session"
)

// TestSessions: they are counted up to the most, and it is told once there are none.
func TestSessions(t *testing.T) {
	var r registry.Sessions
	<-r.Empty()
	a, b := &session.Session{Options: session.Options{ID: "a"}}, &session.Session{Options: session.Options{ID: "b"}}
	if !r.Add(a, 1) || r.Add(b, 1) || r.Len() != 1 || len(r.All()) != 1 {
		t.Error("the registry does not hold what it should")
	}
	empty := r.Empty()
	select {
	case <-empty:
		t.Error("it says that it is empty")
	default:
	}
	r.Remove(a)
	<-empty
}
