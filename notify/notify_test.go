package notify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"voicebridge/sim/memnet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secret = "a secret of some length"

// In the tests the network is one in memory. No connection is kept: those of one bubble
// of virtual time are no other's.
func init() {
	transport := http.DefaultTransport.(*http.Transport)
	transport.DialContext, transport.DisableKeepAlives = memnet.Dial, true
}

// virtual runs a test in virtual time.
func virtual(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, test)
}

func serve(t *testing.T, h http.HandlerFunc) *Target {
	t.Helper()
	url, stop := memnet.Serve(h)
	t.Cleanup(stop)
	return &Target{URL: url + "/hook?key=hush", Secret: secret, Timeout: time.Second}
}

func TestVerify(t *testing.T) {
	now := time.Unix(1760000000, 0)
	body := []byte(`{"a":1}`)
	good := Signature(secret, now, body)
	// Computed by another program: printf '1760000000.{"a":1}' | openssl dgst -sha256 -hmac 'a secret of some length'
	if want := "t=1760000000,v1=" + vector; good != want {
		t.Errorf("%s, want %s", good, want)
	}
	for name, tt := range map[string]struct {
		header string
		body   string
		after  time.Duration
		good   bool
	}{
		"good":       {good, `{"a":1}`, 4 * time.Minute, true},
		"two":        {good[:len("t=1760000000,")] + "v1=00," + good[len("t=1760000000,"):], `{"a":1}`, 0, true},
		"old":        {good, `{"a":1}`, 6 * time.Minute, false},
		"early":      {good, `{"a":1}`, -6 * time.Minute, false},
		"other body": {good, `{"a":2}`, 0, false},
		"none":       {"", `{"a":1}`, 0, false},
		"no time":    {strings.TrimPrefix(good, "t="), `{"a":1}`, 0, false},
		"other time": {strings.Replace(good, "1760000000", "1760000001", 1), `{"a":1}`, 0, false},
	} {
		if err := Verify(secret, tt.header, now.Add(tt.after), []byte(tt.body)); (err == nil) != tt.good {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzVerify(f *testing.F) {
	now := time.Unix(1760000000, 0)
	good := Signature(secret, now, nil)
	f.Add(good[:20])
	f.Add("t=1,v1=")
	f.Fuzz(func(t *testing.T, header string) {
		if Verify(secret, header, now, nil) == nil && !strings.Contains(header, good[len("t=1760000000,"):]) {
			t.Fatalf("%q was taken", header)
		}
	})
}

func TestCheck(t *testing.T) {
	for url, want := range map[string]string{
		"https://app.example/hook": "", "http://127.0.0.1:8080/": "", "http://localhost/": "",
		"http://app.example/": "url", "": "url", "https://u:p@app.example/": "url", "ws://app.example": "url",
	} {
		err := (&Target{URL: url, Secret: secret}).Check()
		if (err == nil) != (want == "") || err != nil && !strings.HasPrefix(err.Error(), want+":") {
			t.Errorf("%s: %v", url, err)
		}
	}
	if err := (&Target{URL: "https://app.example/", Secret: "short"}).Check(); err == nil ||
		!strings.HasPrefix(err.Error(), "secret:") {
		t.Errorf("%v", err)
	}
}

// TestPost: what the application answers is read, or told from a good answer.
func TestPost(t *testing.T) {
	virtual(t, func(t *testing.T) {
		for name, tt := range map[string]struct {
			status int
			body   string
			want   string
		}{
			"good": {200, `{"agent":"a"}`, ""}, "no JSON": {200, "hello", "reply of"}, "500": {500, "", "HTTP 500"},
			"redirect": {302, "", "HTTP 302"},
			"endless":  {200, `{"agent":"` + strings.Repeat("x", 2*maxReply), "reply of"},
		} {
			target := serve(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Location", "/else")
				w.WriteHeader(tt.status)
				_, _ = io.WriteString(w, tt.body)
			})
			var reply struct{ Agent string }
			err := target.Post(t.Context(), map[string]int{"a": 1}, &reply)
			if (err == nil) != (tt.want == "") || err != nil &&
				(!strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "hush")) {
				t.Errorf("%s: %v", name, err)
			}
			if err == nil && reply.Agent != "a" {
				t.Errorf("%s: %+v", name, reply)
			}
		}
		gone := serve(t, nil)
		gone.URL = "http://127.0.0.1:1/?key=hush"
		if err := gone.Post(t.Context(), 1, nil); err == nil || strings.Contains(err.Error(), "hush") {
			t.Errorf("%v", err)
		}
		stop := make(chan struct{})
		slow := serve(t, func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-r.Context().Done():
			case <-stop:
			}
		})
		slow.Timeout = 50 * time.Millisecond
		if err := slow.Post(t.Context(), 1, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		close(stop)
	})
}

// TestQueue: events of a key come in order, each until it is taken, and a key that
// is held up holds up no other.
func TestQueue(t *testing.T) {
	virtual(t, func(t *testing.T) {
		var mu sync.Mutex
		got := map[string][]string{}
		failed := map[string]bool{}
		blocked := make(chan struct{})
		all := make(chan struct{})
		const keys, each = 5, 8
		n := 0
		target := serve(t, func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil || Verify(secret, r.Header.Get("Voicebridge-Signature"), time.Now(), body) != nil {
				t.Errorf("%s, %v", body, err)
			}
			key, number, _ := strings.Cut(r.Header.Get("Voicebridge-Event"), ".")
			if key == "held" {
				<-blocked
			}
			mu.Lock()
			defer mu.Unlock()
			if id := key + number; number == "3" && !failed[id] {
				failed[id] = true
				http.Error(w, "", 500)
				return
			}
			got[key] = append(got[key], number)
			if n++; n == keys*each {
				close(all)
			}
		})
		q := NewQueue(target, slog.New(slog.DiscardHandler))
		q.Send("held", "held.0", 1, taken)
		for i := range each {
			for k := range keys {
				key := fmt.Sprint("k", k)
				q.Send(key, fmt.Sprintf("%s.%d", key, i), map[string]int{"i": i}, taken)
			}
		}
		select {
		case <-all:
		case <-time.After(20 * time.Second):
			t.Fatal("not all came")
		}
		close(blocked)
		q.Close(10 * time.Second)
		for k := range keys {
			if s := strings.Join(got[fmt.Sprint("k", k)], ""); s != "01234567" {
				t.Errorf("k%d: %s", k, s)
			}
		}
		if sent, lost, _ := q.Counts(); sent != keys*each+1 || lost != 0 {
			t.Errorf("%d sent, %d lost", sent, lost)
		}
		q.Send("late", "late.0", 1, taken)
		if _, lost, _ := q.Counts(); lost != 1 {
			t.Error("an event after the end was taken")
		}
	})
}

// TestQueueGivesUp: an application that never answers costs its events, and the end
// is not waited for without end.
// TestQueueTells: the first event that is not taken is told of, and that they are again.
func TestQueueTells(t *testing.T) {
	virtual(t, func(t *testing.T) {
		var broken atomic.Bool
		broken.Store(true)
		target := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			if broken.Load() {
				http.NotFound(w, nil)
			}
		})
		var log bytes.Buffer
		q := NewQueue(target, slog.New(slog.NewTextHandler(&log, nil)))
		for i := range 3 {
			q.Send(strconv.Itoa(i), "id", i, taken)
		}
		time.Sleep(30 * time.Second)
		broken.Store(false)
		time.Sleep(2 * time.Minute)
		q.Close(time.Second)
		if n := strings.Count(log.String(), "level=WARN"); n != 1 || !strings.Contains(log.String(), "HTTP 404") ||
			!strings.Contains(log.String(), "taken again") {
			t.Errorf("%d warnings: %s", n, log.String())
		}
		if sent, lost, again := q.Counts(); sent != 3 || lost != 0 || again < 6 {
			t.Errorf("%d taken, %d lost, %d not taken", sent, lost, again)
		}
	})
}

func TestQueueGivesUp(t *testing.T) {
	virtual(t, func(t *testing.T) {
		target := serve(t, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "", 500) })
		q := NewQueue(target, slog.New(slog.DiscardHandler))
		for i := range maxWaiting + 5 {
			q.Send("k", fmt.Sprint(i), i, taken)
		}
		if _, lost, _ := q.Counts(); lost != 5 {
			t.Errorf("%d lost, want those beyond the bound", lost)
		}
		began := time.Now()
		q.Close(50 * time.Millisecond)
		if d := time.Since(began); d > 5*time.Second {
			t.Errorf("the end took %v", d)
		}
		if sent, lost, _ := q.Counts(); sent != 0 || lost != maxWaiting+5 {
			t.Errorf("%d sent, %d lost", sent, lost)
		}
	})
}

// vector is a signature that another program has made.
const vector = "2f5ab7dbed8e51809333011946462fc5cb876dd240c9f1f20609766a4a26e711"

// taken is for events of which nobody needs to know that they were.
func taken() {}
