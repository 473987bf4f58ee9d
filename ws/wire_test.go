package ws

// What a bad peer may cost: nothing but its own connection.

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"voicebridge/ws/dial"
	"voicebridge/ws/frame"
)

// answering listens, and has each connection served once its request has been read.
func answering(t *testing.T, secure bool, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if secure {
		l = tls.NewListener(l, &tls.Config{Certificates: tlsServer().TLS.Certificates})
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer conn.Close()
				if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
					serve(conn)
				}
			})
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	return address
}

// TestEndlessHeader: an answer whose header has no end is given up, by whoever it comes from.
func TestEndlessHeader(t *testing.T) {
	var written atomic.Int64
	endless := func(status string) func(net.Conn) {
		return func(conn net.Conn) {
			b := []byte("HTTP/1.1 " + status + "\r\nX-Long: " + strings.Repeat("x", 32<<10))
			for err := error(nil); err == nil; b = bytes.Repeat([]byte("x"), 32<<10) {
				var n int
				n, err = conn.Write(b)
				written.Add(int64(n))
			}
		}
	}
	for _, secure := range []bool{false, true} {
		address := answering(t, secure, endless("101 Switching Protocols"))
		scheme := map[bool]string{false: "ws://", true: "wss://"}[secure]
		_, _, err := Dial(t.Context(), scheme+address, nil, nil, limits)
		if !errors.Is(err, dial.ErrHead) {
			t.Errorf("TLS %v: %v", secure, err)
		}
	}
	if n := written.Load(); n > 64<<20 { // what the system's buffers take, not for ever
		t.Errorf("%d bytes were taken", n)
	}
}

// TestAnswers: an answer that chooses what was not offered is refused, and says why.
func TestAnswers(t *testing.T) {
	var answer string
	address := answering(t, false, func(conn net.Conn) {
		_, _ = io.WriteString(conn, answer)
		_, _ = io.Copy(io.Discard, conn)
	})
	for name, c := range map[string]struct{ answer, err string }{
		"an extension": {"HTTP/1.1 101 x\r\nSec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; " +
			"client_no_context_takeover\r\n", "extension"},
		"no subprotocol of ours": {"HTTP/1.1 101 x\r\nSec-WebSocket-Protocol: b\r\n", "subprotocol"},
		"two subprotocols":       {"HTTP/1.1 101 x\r\nSec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol: a\r\n", "subprotocol"},
		"two accepts":            {"HTTP/1.1 101 x\r\nSec-WebSocket-Accept: KEY\r\n", "more than once"},
		"HTTP/1.0":               {"HTTP/1.0 101 x\r\n", "HTTP/1.0"},
	} {
		t.Run(name, func(t *testing.T) {
			d := Dialer{Net: func(ctx context.Context, network, _ string) (net.Conn, error) {
				conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
				return &keyed{Conn: conn, answer: &answer, head: c.answer}, err
			}}
			_, _, err := d.Dial(t.Context(), "ws://agent.example/", []string{"a"}, nil, limits)
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%v, want %q", err, c.err)
			}
		})
	}
}

// keyed makes the server's answer, with the accept of the request's key.
type keyed struct {
	net.Conn
	answer *string
	head   string
}

func (k *keyed) Write(b []byte) (int, error) {
	if r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(b))); err == nil {
		rec := &recorded{}
		if _, err := (&websocket.Upgrader{}).Upgrade(rec, r, nil); err != nil {
			return 0, err
		}
		_, key, _ := strings.Cut(rec.b.String(), "Sec-WebSocket-Accept: ")
		key, _, _ = strings.Cut(key, "\r\n")
		*k.answer = strings.ReplaceAll(k.head, "KEY", key) + "Upgrade: websocket\r\nConnection: Upgrade\r\n" +
			"Sec-WebSocket-Accept: " + key + "\r\n\r\n"
	}
	return k.Conn.Write(b)
}

// TestNothingAfterClose: nothing follows the close message, however many write (RFC 6455, 5.5.1).
func TestNothingAfterClose(t *testing.T) {
	everyKind(t, limits, func(t *testing.T, k kind) {
		for range 5 {
			c, _, other := k.start(t)
			var writers sync.WaitGroup
			for range 3 {
				writers.Go(func() {
					for err := error(nil); err == nil; _, err = c.Put(true, []byte("data")) {
					}
				})
			}
			writers.Go(func() { // pings, to be answered
				for err := error(nil); err == nil; _, err = other.Write(k.frame(final|frame.Ping, "x")) {
				}
			})
			time.AfterFunc(2*time.Millisecond, func() { c.Close(CloseNormal, "") })
			r := frame.Reader{Server: k.client, Text: 1 << 20, Binary: 1 << 20}
			buf, closed := make([]byte, 4096), false
			for {
				n, err := other.Read(buf)
				for b := buf[:n]; len(b) > 0; {
					took, op, _, err := r.Take(b)
					if b = b[took:]; err != nil {
						t.Fatal(err)
					}
					if closed && op != 0 {
						t.Errorf("opcode %d after the close", op)
					}
					closed = closed || op == frame.Close
				}
				if closed || err != nil {
					_ = other.SetReadDeadline(time.Now().Add(20 * time.Millisecond)) // for what still comes
				}
				if err != nil {
					break
				}
			}
			other.Close()
			writers.Wait()
			if !closed {
				t.Error("no close came")
			}
		}
	})
}

// TestPingBeforeServe: a ping that comes before the connection is served is answered, though
// nothing comes after it, and what was written before was not taken yet.
func TestPingBeforeServe(t *testing.T) {
	everyKind(t, limits, func(t *testing.T, k kind) {
		c, other := k.open(t)
		sent := 0
		for more := true; more || sent < 8; sent++ {
			var err error
			if more, err = c.Put(true, make([]byte, 32<<10)); err != nil {
				t.Fatal(err)
			}
		}
		reading := make(chan struct{})
		go func() {
			defer close(reading)
			_, _, _ = c.Read()
		}()
		if _, err := other.Write(k.frame(final|frame.Ping, "early")); err != nil {
			t.Fatal(err)
		}
		lib := k.library(t, other)
		pongs := make(chan string, 1)
		lib.SetPongHandler(func(data string) error { pongs <- data; return nil })
		go func() {
			for {
				if _, _, err := lib.ReadMessage(); err != nil {
					return
				}
			}
		}()
		if got := get(t, pongs, "pong"); got != "early" {
			t.Errorf("%q is answered", got)
		}
		c.line.Cut(net.ErrClosed)
		<-reading
		c.Release()
	})
}

// panicky is a Handler that panics.
type panicky struct {
	inbox
	at string
}

func (p *panicky) Message(binary bool, data []byte) {
	if p.at == "message" {
		panic("oops")
	}
	p.inbox.Message(binary, data)
}

func (p *panicky) Closed(err error) {
	p.inbox.Closed(err)
	if p.at == "closed" {
		panic("oops")
	}
}

func (p *panicky) Writable() {
	if p.at == "writable" {
		panic("oops")
	}
}

// TestPanic: a Handler that panics loses its own connection, with 1011, and no other is touched.
func TestPanic(t *testing.T) {
	everyKind(t, limits, func(t *testing.T, k kind) {
		loop := (*Loop)(nil)
		if k.loop {
			loop = newTestLoop(t)
		}
		sane, there := k.open(t)
		in := newInbox()
		sane.Serve(loop, in)
		for _, at := range []string{"message", "closed", "writable"} {
			c, other := k.open(t)
			p := &panicky{*newInbox(), at}
			c.Serve(loop, p)
			switch at {
			case "message":
				if _, err := other.Write(append(k.frame(final|frame.Text, "x"), k.frame(final|frame.Text, "y")...)); err != nil {
					t.Fatal(err)
				}
				if _, _, err := k.library(t, other).ReadMessage(); !websocket.IsCloseError(err, CloseInternal) {
					t.Errorf("the other side sees %v", err)
				}
			case "writable":
				for more, n := true, 0; more && n < 1000; n++ {
					more, _ = c.Put(true, make([]byte, 32<<10))
				}
				go io.Copy(io.Discard, other)
			case "closed":
				other.Close()
			}
			err := get(t, p.closed, "end")
			var panicked *PanicError
			if at != "closed" && (!errors.As(err, &panicked) || panicked.Value != "oops" ||
				!strings.Contains(string(panicked.Stack), "panicky")) {
				t.Errorf("%s: ended with %v", at, err)
			}
			other.Close()
			c.Release()
			if len(p.messages)+len(p.closed) > 0 {
				t.Errorf("%s: %d messages and %d ends more", at, len(p.messages), len(p.closed))
			}
		}
		if _, err := there.Write(k.frame(final|frame.Text, "on")); err != nil {
			t.Fatal(err)
		}
		if got := get(t, in.messages, "message"); got != "false on" {
			t.Errorf("the other connection gets %q", got)
		}
		there.Close()
		sane.Release()
	})
}

// TestReasonIsText: a reason that is too long is cut between two runes.
func TestReasonIsText(t *testing.T) {
	k := kind{limits: limits}
	c, _, other := k.start(t)
	c.Close(CloseNormal, strings.Repeat("ä", 100))
	_, _, err := k.library(t, other).ReadMessage()
	if ce := (*websocket.CloseError)(nil); !errors.As(err, &ce) || ce.Text != strings.Repeat("ä", 61) {
		t.Errorf("the other side sees %v", err)
	}
}

// TestTurns: of what one connection sends only so much is worked off before the others have
// their turn.
func TestTurns(t *testing.T) {
	for _, secure := range []bool{false, true} {
		k := kind{loop: true, secure: secure, client: secure, limits: limits}
		loop := newTestLoop(t)
		c, other := k.open(t)
		messages := 0 // owned by the loop
		done := make(chan struct{})
		const all = 3000
		c.Serve(loop, &heard{message: func() {
			for end := time.Now().Add(turn / 4); time.Now().Before(end); { // works
			}
			messages++
		}, closed: func(error) {}})
		var wire []byte
		for range all {
			wire = append(wire, k.frame(final|frame.Text, "{}")...)
		}
		last, worst := 0, 0
		var look func([]byte)
		look = func([]byte) { // once each time that the loop goes round
			worst = max(worst, messages-last)
			if last = messages; last < all {
				loop.post(look)
				return
			}
			close(done)
		}
		loop.post(look)
		if _, err := other.Write(wire); err != nil {
			t.Fatal(err)
		}
		<-done
		if worst > 20 { // a buffer holds thousands
			t.Errorf("TLS %v: %d messages in one turn", secure, worst)
		}
		other.Close()
		c.Release()
	}
}

// TestFresh: of what the other side does not read the system takes no more than that side's own
// buffer holds, so that the rest is here, to be dropped.
func TestFresh(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the system has no such bound")
	}
	taken := map[bool]int{}
	for _, fresh := range []bool{false, true} {
		for _, loop := range []bool{false, true} {
			set := limits
			set.Fresh = fresh
			k := kind{loop: loop, client: true, limits: set}
			c, in, other := k.start(t)
			if err := other.(*net.TCPConn).SetReadBuffer(32 << 10); err != nil {
				t.Fatal(err)
			}
			n := fill(t, c, in, func(int) []byte { return make([]byte, 640) })
			taken[fresh] = max(taken[fresh], n*640)
		}
	}
	t.Logf("%d bytes, fresh %d", taken[false], taken[true])
	if taken[true] > taken[false]/4 {
		t.Errorf("%d bytes are taken, %d without", taken[true], taken[false])
	}
}

// TestEarly: what a server says in one go with its answer to the handshake is heard.
func TestEarly(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		a := &answered{Conn: conn}
		b := make([]byte, 4096)
		n, err := conn.Read(b)
		if err != nil {
			t.Error(err)
			return
		}
		if _, err := a.Write(b[:n]); err != nil {
			t.Error(err)
		}
		conn.Write(append(a.answer, frame.Append(nil, frame.Text, []byte("early"), false)...))
		io.Copy(io.Discard, conn)
	}()
	c, _, err := Dial(t.Context(), "ws://"+l.Addr().String(), nil, nil, limits)
	if err != nil {
		t.Fatal(err)
	}
	if _, data, err := c.Read(); err != nil || string(data) != "early" {
		t.Errorf("%q, %v", data, err)
	}
	c.Close(CloseNormal, "")
	for err := error(nil); err == nil; {
		_, _, err = c.Read()
	}
	c.Release()
}
