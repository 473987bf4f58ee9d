package router

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"voicebridge/notify"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func application(t *testing.T, h http.HandlerFunc) *Router {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(func() {
		srv.Close()
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	})
	return New(&notify.Target{URL: srv.URL, Timeout: 10 * time.Second}, slog.New(slog.DiscardHandler))
}

// TestOnce: however often the carrier asks, also because it did not wait, the application is
// asked once.
func TestOnce(t *testing.T) {
	var asked atomic.Int32
	answer := make(chan struct{})
	r := application(t, func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		<-answer
		_, _ = io.WriteString(w, `{"agent":"sales"}`)
	})
	impatient, stop := context.WithCancel(t.Context())
	stop()
	if _, err := r.Ask(impatient, &Call{Account: "a", Carrier: "1"}); !errors.Is(err, context.Canceled) {
		t.Errorf("who did not wait: %v", err)
	}
	close(answer)
	for range 3 {
		if reply, err := r.Ask(t.Context(), &Call{Account: "a", Carrier: "1"}); err != nil || reply.Agent != "sales" {
			t.Errorf("%+v, %v", reply, err)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
	if _, err := r.Ask(t.Context(), &Call{Account: "b", Carrier: "1"}); err != nil || asked.Load() != 2 {
		t.Errorf("another call: asked %d times, %v", asked.Load(), err)
	}
}

// TestReplies: what can be used of an answer is used.
func TestReplies(t *testing.T) {
	for body, want := range map[string]*Reply{
		`{}`:                      {Metadata: map[string]string{}},
		`{"refuse":"no"}`:         {Refuse: "no", Metadata: map[string]string{}},
		`{"agent":"x","more":[]}`: {Agent: "x", Metadata: map[string]string{}},
		`{"agent":"x","metadata":{"a":"b","n":42,"t":true,"o":{},"l":[1],"z":null,"c":"a\u0000b","":"x"}}`: {Agent: "x",
			Metadata: map[string]string{"a": "b", "n": "42", "t": "true"}},
		`{"agent":"x","metadata":{"a":"` + strings.Repeat("x", 300) + `","b":"` + strings.Repeat("x", 300) + `","c":"` +
			strings.Repeat("x", 300) + `"}}`: {Agent: "x"},
		`<html>`:      nil,
		`{"agent":5}`: nil,
	} {
		r := application(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) })
		got, err := r.Ask(t.Context(), &Call{Carrier: "1"})
		if !reflect.DeepEqual(got, want) || (err == nil) != (want != nil) {
			t.Errorf("%.60s: %+v, %v", body, got, err)
		}
	}
}
