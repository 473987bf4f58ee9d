package bridge_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"voicebridge/agent/link"
	"voicebridge/sim"
)

// rudeWays are how the ends of a call leave it; the last one is that of who never comes.
var rudeWays = []string{"caller resets", "caller leaves amid a frame", "caller sends nonsense", "caller never starts",
	"agent resets", "agent leaves amid a frame", "agent sends nonsense", "agent drops the handshake"}

// TestRudeEnds: calls that end rudely, in eight ways, leave nothing behind: no descriptor, no
// goroutine, no memory. VOICEBRIDGE_RUDE is how many.
func TestRudeEnds(t *testing.T) {
	calls := 400
	if s := os.Getenv("VOICEBRIDGE_RUDE"); s != "" {
		var err error
		if calls, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	b := startBridge(t, "", func(o *options) {
		o.sockets = true
		o.limits.Handshakes = 1e6
		o.dialer = dialer(t, link.Config{URL: rudeAgents(t)})
	})
	reading, done := context.WithCancel(t.Context())
	defer done()
	go func() { // nobody reads the log
		for reading.Err() == nil {
			select {
			case <-b.ends:
			case <-reading.Done():
			}
		}
	}()
	rude(t, b, 0, calls/4)
	before := settle(t, b)
	rude(t, b, calls/4, calls)
	after := settle(t, b)
	t.Logf("after %d calls %v, after %d %v", calls/4, before, calls, after)
	if after.goroutines > before.goroutines+8 || after.files > before.files+8 || after.heap > before.heap+8<<20 {
		t.Errorf("after %d calls: %v, after %d: %v", calls/4, before, calls, after)
	}
}

// connKey has the connection in a request's context.
type connKey struct{}

// rudeAgents serves agents that are as rude as the number of the call says.
func rudeAgents(t *testing.T) string {
	l := listenTCP(t)
	var handshakes atomic.Int64
	agents := &sim.Agent{Log: slog.New(slog.DiscardHandler), Talk: func(ctx context.Context, c *sim.AgentConn) error {
		var start struct{ Call struct{ ID string } }
		if err := json.Unmarshal(c.Start, &start); err != nil {
			return err
		}
		n, err := strconv.Atoi(strings.TrimPrefix(start.Call.ID, "CA"))
		if err != nil {
			return err
		}
		for heard := 0; ; heard++ {
			if _, _, err := c.Read(); err != nil {
				return nil // the call is over
			}
			if way := rudeWays[n%len(rudeWays)]; heard == 2 && strings.HasPrefix(way, "agent") {
				beRude(ctx.Value(connKey{}).(net.Conn), way, []byte{0x82})
			}
		}
	}}
	srv := &http.Server{ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, c)
		},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if handshakes.Add(1)%int64(len(rudeWays)) == 0 { // it is dialled once more
				beRude(r.Context().Value(connKey{}).(net.Conn), "agent resets", nil)
				return
			}
			agents.ServeHTTP(w, r)
		})}
	go func() { _ = srv.Serve(l) }() // ends with Close
	t.Cleanup(func() { srv.Close(); agents.Wait() })
	return "ws://" + l.Addr().String() + "/"
}

// beRude leaves a connection. header is the beginning of a frame.
func beRude(c net.Conn, way string, header []byte) {
	switch _, how, _ := strings.Cut(way, " "); how {
	case "resets":
		_ = c.(*net.TCPConn).SetLinger(0)
	case "leaves amid a frame":
		_, _ = c.Write(header)
	case "sends nonsense":
		_, _ = c.Write(bytes.Repeat([]byte{0xFF}, 20))
		return // the bridge is to end it
	}
	c.Close()
}

// rude makes calls, many at a time, until they have ended.
func rude(t *testing.T, b *running, from, to int) {
	numbers := make(chan int)
	var callers sync.WaitGroup
	for range 200 {
		callers.Go(func() {
			for n := range numbers {
				if err := rudeCall(strings.TrimPrefix(b.url, "ws://"), n); err != nil {
					t.Errorf("call %d, %s: %v", n, rudeWays[n%len(rudeWays)], err)
				}
			}
		})
	}
	for n := from; n < to && !t.Failed(); n++ {
		numbers <- n
	}
	close(numbers)
	callers.Wait()
}

// rudeCall is one call. It returns once the bridge has ended it, or the caller has.
func rudeCall(address string, n int) error {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(2 * time.Minute)) // of a connection that is there
	fmt.Fprint(conn, "GET /media/twilio HTTP/1.1\r\nHost: bridge\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return fmt.Errorf("the handshake is answered with %s", resp.Status)
	}
	way := rudeWays[n%len(rudeWays)]
	if way == "caller never starts" {
		return nil
	}
	if _, err := conn.Write(frame(0x81, []byte(strings.Replace(startText, `"CA1"`, fmt.Sprintf(`"CA%d"`, n),
		1)))); err != nil {
		return err
	}
	for range 3 {
		if _, err := conn.Write(frame(0x81, []byte(mediaText))); err != nil {
			return err
		}
	}
	if strings.HasPrefix(way, "caller") {
		beRude(conn, way, []byte{0x81, 0xFE})
	}
	if way == "agent drops the handshake" { // and is there at the second try
		time.Sleep(400 * time.Millisecond)
		return nil
	}
	_, err = io.Copy(io.Discard, r) // until the bridge ends it
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return err
	}
	return nil
}

// footprint is what the process holds.
type footprint struct {
	goroutines, files int
	heap              uint64
}

// settle waits until no call is live, and returns what the process holds then.
func settle(t *testing.T, b *running) (f footprint) {
	for range 300 {
		if _, text := get(t, b.admin+"/metrics"); !strings.Contains(text, "voicebridge_calls{") ||
			strings.Contains(text, `voicebridge_calls{provider="twilio"} 0`) {
			break
		}
		time.Sleep(100 * time.Millisecond) // of real calls
	}
	time.Sleep(2 * time.Second) // until those have been waited for that were closed
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	files, _ := os.ReadDir("/proc/self/fd") // elsewhere there are none
	return footprint{runtime.NumGoroutine(), len(files), m.HeapAlloc}
}
