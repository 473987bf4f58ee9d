package ws

import (
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var limits = Limits{Text: 1 << 16, Binary: 1 << 16, Idle: 10 * time.Second, Write: 3 * time.Second}

// pair gives a Conn and the client's end of it.
func pair(t *testing.T) (*Conn, *websocket.Conn) {
	t.Helper()
	conns := make(chan *Conn, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := Accept(w, r, nil, limits)
		if err != nil {
			t.Error(err)
		}
		conns <- c
	}))
	t.Cleanup(srv.Close)
	client, _, err := websocket.DefaultDialer.Dial("ws"+srv.URL[4:], nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return <-conns, client
}

// TestPingWhileWriting: pings of a peer that does not read hold up the writer,
// not the reader.
func TestPingWhileWriting(t *testing.T) {
	c, client := pair(t)
	if err := client.NetConn().(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	stuck := make(chan struct{})
	go func() {
		defer close(stuck)
		for c.Write(true, make([]byte, 1<<16)) == nil {
		}
	}()
	<-time.After(300 * time.Millisecond) // long enough to fill the buffers
	begun := time.Now()
	for range 3 {
		if err := client.WriteControl(websocket.PingMessage, nil, time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		if err := client.WriteMessage(websocket.TextMessage, []byte("now")); err != nil {
			t.Fatal(err)
		}
		if _, data, err := c.Read(); err != nil || string(data) != "now" {
			t.Fatalf("%q, %v", data, err)
		}
	}
	if d := time.Since(begun); d > 2500*time.Millisecond { // the writer is given up after limits.Write
		t.Errorf("three messages took %v to be read", d)
	}
	client.Close()
	for err := error(nil); err == nil; {
		_, _, err = c.Read()
	}
	c.Release()
	<-stuck
}

// TestClose: the other side gets the code and the reason, and its answer ends
// the connection.
func TestClose(t *testing.T) {
	c, client := pair(t)
	done := make(chan error, 1)
	go func() {
		_, _, err := client.ReadMessage()
		done <- err
	}()
	c.Close(CloseTooLarge, "why")
	c.Close(CloseNormal, "again")
	if err := <-done; !websocket.IsCloseError(err, CloseTooLarge) || err.(*websocket.CloseError).Text != "why" {
		t.Errorf("the client saw %v", err)
	}
	if err := c.Write(true, nil); err == nil {
		t.Error("a write after Close succeeded")
	}
	if _, _, err := c.Read(); err == nil {
		t.Error("a read after Close succeeded")
	}
	c.Release()
}
