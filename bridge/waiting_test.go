package bridge_test

import (
	"net/http"
	"testing"
	"time"

	"voicebridge/sim/memnet"
)

// TestSilentConnections: however many connect and say nothing, whoever asks is answered at once, and
// those go that have waited longest.
func TestSilentConnections(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T) {
		b := startBridge(t, startAgent(t, nil), nil)
		var silent []interface{ Close() error }
		for range 3000 {
			c, err := memnet.Dial(t.Context(), "tcp", b.url[len("ws://"):])
			if err != nil {
				t.Fatal(err)
			}
			silent = append(silent, c)
		}
		began := time.Now()
		resp, err := http.Get("http" + b.url[len("ws"):] + "/healthz")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if d := time.Since(began); d > time.Second || resp.StatusCode != 200 {
			t.Errorf("answered %s after %v", resp.Status, d)
		}
		gone := 0
		for _, c := range silent {
			r := c.(interface {
				SetReadDeadline(time.Time) error
				Read([]byte) (int, error)
			})
			_ = r.SetReadDeadline(time.Now().Add(time.Millisecond))
			if _, err := r.Read(make([]byte, 1)); err != nil && err.Error() == "EOF" {
				gone++
			}
			c.Close()
		}
		if gone < 1976 { // 1,024 may wait
			t.Errorf("%d of 3000 silent connections were ended", gone)
		}
	})
}
