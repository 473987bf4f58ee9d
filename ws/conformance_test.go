package ws

// One suite for every kind of connection: with an event loop and without, with TLS
// and without, as a server and as a client. The other side is a library that is not
// ours, or bytes written by hand.

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"voicebridge/ws/frame"
)

// kind is a kind of connection.
type kind struct {
	loop, secure, client bool
	limits               Limits
}

func (k kind) String() string {
	s := "goroutines"
	if k.loop {
		s = "event loop"
	}
	if k.secure {
		s += ", TLS"
	}
	if k.client {
		return s + ", client"
	}
	return s + ", server"
}

// everyKind runs a test for each.
func everyKind(t *testing.T, limits Limits, test func(*testing.T, kind)) {
	for _, loop := range []bool{false, true} {
		for _, secure := range []bool{false, true} {
			for _, client := range []bool{false, true} {
				k := kind{loop, secure, client, limits}
				t.Run(k.String(), func(t *testing.T) {
					t.Parallel()
					test(t, k)
				})
			}
		}
	}
}

// inbox is a Handler that keeps what it is given.
type inbox struct {
	messages chan string
	writable chan struct{}
	closed   chan error
}

func newInbox() *inbox {
	return &inbox{make(chan string, 10000), make(chan struct{}, 10000), make(chan error, 2)}
}

func (i *inbox) Message(binary bool, data []byte) {
	i.messages <- fmt.Sprintf("%t %s", binary, data)
}
func (i *inbox) Writable()        { i.writable <- struct{}{} }
func (i *inbox) Closed(err error) { i.closed <- err }

// get waits for something.
func get[T any](t *testing.T, from <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(10 * time.Second):
		t.Fatalf("no %s within 10 s", what)
		panic("not reached")
	}
}

// tlsServer has a certificate that Dial of this package accepts.
var tlsServer = sync.OnceValue(func() *httptest.Server {
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS()
	s.Close()
	roots = x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return s
})

// open makes a connection that is not served yet, and gives the other side's bytes
// once the handshake is over.
func (k kind) open(t *testing.T) (*Conn, net.Conn) {
	t.Helper()
	config := &tls.Config{Certificates: tlsServer().TLS.Certificates, RootCAs: roots, ServerName: "127.0.0.1"}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	scheme := "ws"
	if k.secure {
		l, scheme = tls.NewListener(l, config), "wss"
	}
	address := l.Addr().String()
	conns, theirs := make(chan *Conn, 1), make(chan net.Conn, 1)
	srv := &http.Server{ErrorLog: nil, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !k.client {
			c, err := Accept(w, r, nil, k.limits)
			if err != nil {
				t.Error(err)
			}
			conns <- c
			return
		}
		c, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		theirs <- c.NetConn()
	})}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	if k.client {
		c, _, err := Dial(t.Context(), scheme+"://"+address, nil, nil, k.limits)
		if err != nil {
			t.Fatal(err)
		}
		conns <- c
	} else {
		d := websocket.Dialer{TLSClientConfig: config}
		c, _, err := d.Dial(scheme+"://"+address, nil)
		if err != nil {
			t.Fatal(err)
		}
		theirs <- c.NetConn()
	}
	c, other := get(t, conns, "connection"), get(t, theirs, "other side")
	t.Cleanup(func() { other.Close() })
	return c, other
}

// start opens a connection and serves it.
func (k kind) start(t *testing.T) (*Conn, *inbox, net.Conn) {
	t.Helper()
	c, other := k.open(t)
	in := newInbox()
	k.serve(t, c, in)
	return c, in, other
}

// serve serves a connection, and checks in the end that nothing is left of it.
func (k kind) serve(t *testing.T, c *Conn, in *inbox) {
	t.Helper()
	var loop *Loop
	if k.loop {
		var err error
		if loop, err = NewLoop(); errors.Is(err, errors.ErrUnsupported) {
			t.Skip(err)
		} else if err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		c.line.Cut(net.ErrClosed) // the other side need not be waited for
		released := make(chan struct{})
		go func() {
			c.Release()
			close(released)
		}()
		get(t, released, "release")
		if loop != nil {
			if n := loop.Len(); n != 0 {
				t.Errorf("%d connections are left in the loop", n)
			}
			loop.Close()
		}
	})
	c.Serve(loop, in)
}

// library is the other side as gorilla's.
func (k kind) library(t *testing.T, other net.Conn) *websocket.Conn {
	t.Helper()
	// gorilla makes a connection from a handshake only: it gets one that is none.
	if k.client {
		ours := make(chan *websocket.Conn, 1)
		srv := &hijacked{conn: other}
		r := httptest.NewRequest("GET", "/", nil)
		for name, value := range map[string]string{"Connection": "Upgrade", "Upgrade": "websocket",
			"Sec-Websocket-Version": "13", "Sec-Websocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="} {
			r.Header.Set(name, value)
		}
		c, err := (&websocket.Upgrader{}).Upgrade(srv, r, nil)
		if err != nil {
			t.Fatal(err)
		}
		ours <- c
		return <-ours
	}
	d := websocket.Dialer{NetDial: func(string, string) (net.Conn, error) { return &answered{Conn: other}, nil }}
	c, _, err := d.Dial("ws://other/", nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// hijacked keeps a handshake's answer to itself.
type hijacked struct {
	httptest.ResponseRecorder
	conn net.Conn
}

func (h *hijacked) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c := &mute{Conn: h.conn}
	return c, bufio.NewReadWriter(bufio.NewReader(c), bufio.NewWriter(c)), nil
}

// mute swallows the first thing that is written.
type mute struct {
	net.Conn
	spoken bool
}

func (m *mute) Write(b []byte) (int, error) {
	if !m.spoken {
		m.spoken = true
		return len(b), nil
	}
	return m.Conn.Write(b)
}

// answered swallows a handshake's request and answers it.
type answered struct {
	net.Conn
	answer []byte
	asked  bool
}

func (a *answered) Write(b []byte) (int, error) {
	if a.asked {
		return a.Conn.Write(b)
	}
	a.asked = true
	r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(b)))
	if err != nil {
		return 0, err
	}
	rec := &recorded{}
	if _, err := (&websocket.Upgrader{}).Upgrade(rec, r, nil); err != nil {
		return 0, err
	}
	a.answer = rec.b.Bytes()
	return len(b), nil
}

func (a *answered) Read(b []byte) (int, error) {
	if len(a.answer) > 0 {
		n := copy(b, a.answer)
		a.answer = a.answer[n:]
		return n, nil
	}
	return a.Conn.Read(b)
}

// recorded keeps an upgrade's answer.
type recorded struct {
	httptest.ResponseRecorder
	b bytes.Buffer
}

func (r *recorded) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c := recordedConn{&r.b}
	return c, bufio.NewReadWriter(bufio.NewReader(c), bufio.NewWriter(c)), nil
}

type recordedConn struct{ b *bytes.Buffer }

func (c recordedConn) Read([]byte) (int, error)         { return 0, io.EOF }
func (c recordedConn) Write(b []byte) (int, error)      { return c.b.Write(b) }
func (c recordedConn) Close() error                     { return nil }
func (c recordedConn) LocalAddr() net.Addr              { return nil }
func (c recordedConn) RemoteAddr() net.Addr             { return nil }
func (c recordedConn) SetDeadline(time.Time) error      { return nil }
func (c recordedConn) SetReadDeadline(time.Time) error  { return nil }
func (c recordedConn) SetWriteDeadline(time.Time) error { return nil }

// frame is a frame of the other side's, by hand: with a mask where the connection
// is a server's.
func (k kind) frame(first byte, payload string) []byte {
	b := []byte{first}
	n, m := len(payload), byte(0x80)
	if k.client {
		m = 0
	}
	switch {
	case n <= 125:
		b = append(b, m|byte(n))
	case n <= 65535:
		b = binary.BigEndian.AppendUint16(append(b, m|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, m|127), uint64(n))
	}
	if k.client {
		return append(b, payload...)
	}
	key := []byte{1, 2, 3, 4}
	b = append(b, key...)
	for i := range n {
		b = append(b, payload[i]^key[i%4])
	}
	return b
}

// TestMessages: messages of all sizes, in both directions.
func TestMessages(t *testing.T) {
	everyKind(t, Limits{Text: 1 << 20, Binary: 1 << 20, Write: 5 * time.Second}, func(t *testing.T, k kind) {
		c, in, other := k.start(t)
		lib := k.library(t, other)
		for _, n := range []int{0, 1, 125, 126, 127, 4095, 65535, 65536, 1 << 20} {
			for _, binary := range []bool{false, true} {
				want := strings.Repeat("a", n)
				kind := websocket.TextMessage
				if binary {
					kind = websocket.BinaryMessage
				}
				if err := lib.WriteMessage(kind, []byte(want)); err != nil {
					t.Fatal(err)
				}
				if got := get(t, in.messages, "message"); got != fmt.Sprintf("%t %s", binary, want) {
					t.Fatalf("a message of %d bytes came as one of %d", n, len(got))
				}
				sent := make(chan error, 1)
				go func() { sent <- c.Write(binary, []byte(want)) }()
				got, data, err := lib.ReadMessage()
				if err != nil || got != kind || string(data) != want {
					t.Fatalf("%d bytes: the other side got kind %d, %d bytes, %v", n, got, len(data), err)
				}
				if err := <-sent; err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

// TestPieces: a message in fragments, with a ping between them, byte by byte and in
// one go.
func TestPieces(t *testing.T) {
	everyKind(t, limits, func(t *testing.T, k kind) {
		_, in, other := k.start(t)
		var all []byte
		all = append(all, k.frame(frame.Text, "Hä")...)
		all = append(all, k.frame(0x80|frame.Ping, "are you there")...)
		all = append(all, k.frame(frame.Continue, "")...)
		all = append(all, k.frame(frame.Continue, "h!\xC3")...)
		all = append(all, k.frame(0x80|frame.Continue, "\xA4")...)
		all = append(all, k.frame(0x80|frame.Binary, strings.Repeat("b", 300))...)
		pieces := make([][]byte, len(all))
		for i := range all {
			pieces[i] = all[i : i+1]
		}
		for _, pieces := range [][][]byte{pieces, {all}} {
			for _, b := range pieces {
				if _, err := other.Write(b); err != nil {
					t.Fatal(err)
				}
			}
			if got := get(t, in.messages, "message"); got != "false Häh!ä" {
				t.Errorf("got %q", got)
			}
			if got := get(t, in.messages, "message"); got != "true "+strings.Repeat("b", 300) {
				t.Errorf("got %q", got)
			}
		}
		lib := k.library(t, other)
		pongs := make(chan string, 2)
		lib.SetPongHandler(func(s string) error { pongs <- s; return nil })
		go lib.ReadMessage()
		for range 2 {
			if p := get(t, pongs, "pong"); p != "are you there" {
				t.Errorf("pong %q", p)
			}
		}
	})
}

// TestBroken: what breaks the rules is answered with the right code, and nothing
// more is heard of it.
func TestBroken(t *testing.T) {
	long := strings.Repeat("x", 1<<16+1)
	everyKind(t, limits, func(t *testing.T, k kind) {
		swapped := k
		swapped.client = !k.client
		for name, c := range map[string]struct {
			bytes []byte
			code  int
		}{
			"reserved bits":             {k.frame(0xC0|frame.Text, "x"), closeBroken},
			"unknown opcode":            {k.frame(0x83, "x"), closeBroken},
			"unknown control":           {k.frame(0x8B, "x"), closeBroken},
			"masked the wrong way":      {swapped.frame(0x80|frame.Text, "x"), closeBroken},
			"long ping":                 {k.frame(0x80|frame.Ping, strings.Repeat("x", 126)), closeBroken},
			"ping in fragments":         {k.frame(frame.Ping, "x"), closeBroken},
			"fragment of nothing":       {k.frame(0x80|frame.Continue, "x"), closeBroken},
			"message within a message":  {append(k.frame(frame.Text, "x"), k.frame(0x80|frame.Text, "x")...), closeBroken},
			"close code of one byte":    {k.frame(0x80|frame.Close, "x"), closeBroken},
			"close code not to be sent": {k.frame(0x80|frame.Close, "\x03\xEE"), closeBroken},
			"close reason not UTF-8":    {k.frame(0x80|frame.Close, "\x03\xE8\xFF"), closeBroken},
			"text not UTF-8":            {k.frame(0x80|frame.Text, "x\xFF"), CloseBadText},
			"too long":                  {k.frame(0x80|frame.Binary, long), CloseTooLarge},
			"too long by its header":    {k.frame(0x80|frame.Text, long)[:14], CloseTooLarge},
			"too long in fragments": {append(k.frame(frame.Text, long[:1<<16]), k.frame(0x80|frame.Continue, "x")...),
				CloseTooLarge},
			"a length of two bytes too long": {append([]byte{0x82, k.frame(0, "")[1] | 126, 0, 125}, make([]byte, 129)...),
				closeBroken},
			"a length of eight bytes too long": {append([]byte{0x82, k.frame(0, "")[1] | 127, 0, 0, 0, 0, 0, 0, 0xFF,
				0xFF}, make([]byte, 4)...), closeBroken},
			"endless": {[]byte{0x82, k.frame(0, "")[1] | 127, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1, 2, 3,
				4}, CloseTooLarge},
		} {
			t.Run(name, func(t *testing.T) {
				_, in, other := k.start(t)
				if _, err := other.Write(c.bytes); err != nil {
					t.Fatal(err)
				}
				_, _ = other.Write(k.frame(0x80|frame.Text, "later")) // it may be refused
				if err := get(t, in.closed, "end"); CloseCode(err) != 0 || IsTimeout(err) {
					t.Errorf("ended with %v", err)
				}
				_, _, err := k.library(t, other).ReadMessage()
				if !websocket.IsCloseError(err, c.code) {
					t.Errorf("the other side saw %v, want %d", err, c.code)
				}
				other.Close()
				if len(in.messages) != 0 || len(in.closed) != 0 {
					t.Errorf("%d messages and %d ends were told after the end", len(in.messages), len(in.closed))
				}
			})
		}
	})
}

// TestTheirClose: how the other side ends the connection is told, and its close is
// answered.
func TestTheirClose(t *testing.T) {
	everyKind(t, limits, func(t *testing.T, k kind) {
		for payload, want := range map[string]int{"": closeNone, "\x03\xE8bye": CloseNormal, "\x0F\xA0": 4000} {
			_, in, other := k.start(t)
			if _, err := other.Write(append(k.frame(0x80|frame.Text, "last"),
				k.frame(0x80|frame.Close, payload)...)); err != nil {
				t.Fatal(err)
			}
			if err := get(t, in.closed, "end"); CloseCode(err) != want {
				t.Errorf("ended with %v, want %d", err, want)
			}
			if got := get(t, in.messages, "message"); got != "false last" {
				t.Errorf("got %q", got)
			}
			if _, _, err := k.library(t, other).ReadMessage(); !websocket.IsCloseError(err, want) {
				t.Errorf("answered with %v, want %d", err, want)
			}
		}
		_, in, other := k.start(t)
		other.Close()
		if err := get(t, in.closed, "end"); CloseCode(err) != closeLost {
			t.Errorf("ended with %v, want %d", err, closeLost)
		}
	})
}

// TestOurClose: the other side hears why, what it says up to its answer is heard,
// and one that does not answer is not waited for long.
func TestOurClose(t *testing.T) {
	everyKind(t, limits, func(t *testing.T, k kind) {
		c, in, other := k.start(t)
		c.Close(ClosePolicy, "why")
		c.Close(CloseNormal, "again")
		if _, err := c.Put(true, nil); !errors.Is(err, net.ErrClosed) {
			t.Errorf("a message after Close: %v", err)
		}
		lib := k.library(t, other)
		lib.SetCloseHandler(func(code int, text string) error {
			if err := lib.WriteMessage(websocket.TextMessage, []byte("wait")); err != nil {
				t.Error(err)
			}
			return lib.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, ""),
				time.Now().Add(time.Second))
		})
		_, _, err := lib.ReadMessage()
		if ce := (*websocket.CloseError)(nil); !errors.As(err, &ce) || ce.Code != ClosePolicy || ce.Text != "why" {
			t.Errorf("the other side saw %v", err)
		}
		if got := get(t, in.messages, "message"); got != "false wait" {
			t.Errorf("got %q", got)
		}
		if err := get(t, in.closed, "end"); CloseCode(err) != ClosePolicy {
			t.Errorf("ended with %v", err)
		}

		c, in, _ = k.start(t)
		c.Close(ClosePolicy, "why")
		if err := get(t, in.closed, "end"); !IsTimeout(err) || errors.Is(err, ErrSlow) {
			t.Errorf("ended with %v", err)
		}
	})
}

// fill sends until the other side takes no more, and tells how many messages that
// were.
func fill(t *testing.T, c *Conn, in *inbox, message func(n int) []byte) (sent int) {
	t.Helper()
	for ; sent < 100000; sent++ {
		more, err := c.Put(true, message(sent))
		if err != nil {
			t.Fatal(err)
		}
		if more {
			continue
		}
		select { // where a goroutine writes, it may only be on its way
		case <-in.writable:
		case <-time.After(500 * time.Millisecond):
			return sent + 1
		}
	}
	t.Fatal("everything is taken although nobody reads")
	return 0
}

// TestSlowPeer: what the other side does not take is kept, its rest is sent when it
// does, and Writable tells. Reading goes on meanwhile.
func TestSlowPeer(t *testing.T) {
	everyKind(t, limits, func(t *testing.T, k kind) {
		c, in, other := k.start(t)
		message := bytes.Repeat([]byte("0123456789abcdef"), 1<<10)
		sent := fill(t, c, in, func(n int) []byte {
			copy(message, fmt.Sprintf("%08d", n))
			return message
		})
		if _, err := other.Write(append(k.frame(0x80|frame.Ping, ""), k.frame(0x80|frame.Text, "hello")...)); err != nil {
			t.Fatal(err)
		}
		if got := get(t, in.messages, "message"); got != "false hello" {
			t.Errorf("got %q", got)
		}
		lib := k.library(t, other)
		for i := range sent {
			_, data, err := lib.ReadMessage()
			if err != nil || len(data) != len(message) || string(data[:8]) != fmt.Sprintf("%08d", i) {
				t.Fatalf("message %d: %d bytes, %v", i, len(data), err)
			}
		}
		get(t, in.writable, "word that it is writable")
		if _, err := c.Put(false, []byte("on")); err != nil {
			t.Errorf("afterwards: %v", err)
		}
		if _, data, err := lib.ReadMessage(); err != nil || string(data) != "on" {
			t.Errorf("afterwards: %q, %v", data, err)
		}
	})
}

// TestTooSlow: one that takes nothing at all is given up.
func TestTooSlow(t *testing.T) {
	quick := limits
	quick.Write = 200 * time.Millisecond
	everyKind(t, quick, func(t *testing.T, k kind) {
		c, in, _ := k.start(t)
		var ended error
		for begun := time.Now(); ended == nil && time.Since(begun) < time.Minute; {
			// A goroutine that writes may have had no time, so that more is taken later.
			if more, err := c.Put(true, make([]byte, 1<<14)); more && err == nil {
				continue
			}
			select {
			case ended = <-in.closed:
			case <-in.writable:
			}
		}
		if !errors.Is(ended, ErrSlow) || CloseCode(ended) != 0 {
			t.Errorf("ended with %v", ended)
		}
		if _, err := c.Put(true, nil); err == nil {
			t.Error("afterwards messages are taken")
		}
	})
}

// TestIdle: one from which no message comes is told why it is ended; pings are no
// messages.
func TestIdle(t *testing.T) {
	quick := limits
	quick.Idle = 300 * time.Millisecond
	everyKind(t, quick, func(t *testing.T, k kind) {
		begun := time.Now()
		c, in, other := k.start(t)
		<-time.After(150 * time.Millisecond)
		if _, err := other.Write(k.frame(0x80|frame.Text, "x")); err != nil {
			t.Fatal(err)
		}
		<-time.After(200 * time.Millisecond)
		if _, err := other.Write(k.frame(0x80|frame.Ping, "")); err != nil {
			t.Fatal(err)
		}
		err := get(t, in.closed, "end")
		if !IsTimeout(err) || errors.Is(err, ErrSlow) {
			t.Errorf("ended with %v", err)
		}
		if d := time.Since(begun); d < 450*time.Millisecond || d > 3*time.Second {
			t.Errorf("ended after %v", d)
		}
		c.Close(CloseTimeout, "nothing came")
		if _, _, err := k.library(t, other).ReadMessage(); !websocket.IsCloseError(err, CloseTimeout) {
			t.Errorf("the other side saw %v", err)
		}
	})
}

// TestHandover: what was read before the connection is served is not lost.
func TestHandover(t *testing.T) {
	everyKind(t, limits, func(t *testing.T, k kind) {
		c, other := k.open(t)
		var all []byte
		for i := range 20 {
			all = append(all, k.frame(0x80|frame.Text, fmt.Sprint(i))...)
		}
		part := len(all) - 1 // the last one is not whole
		if _, err := other.Write(all[:part]); err != nil {
			t.Fatal(err)
		}
		if _, data, err := c.Read(); err != nil || string(data) != "0" {
			t.Fatalf("%q, %v", data, err)
		}
		in := newInbox()
		k.serve(t, c, in)
		if _, err := other.Write(all[part:]); err != nil {
			t.Fatal(err)
		}
		for i := 1; i < 20; i++ {
			if got := get(t, in.messages, "message"); got != fmt.Sprintf("false %d", i) {
				t.Fatalf("got %q, want %d", got, i)
			}
		}
	})
}

// TestManyWriters: messages of many goroutines come whole.
func TestManyWriters(t *testing.T) {
	everyKind(t, limits, func(t *testing.T, k kind) {
		c, _, other := k.start(t)
		var group sync.WaitGroup
		for i := range 8 {
			group.Go(func() {
				b := bytes.Repeat([]byte{'a' + byte(i)}, 1000+i)
				for range 200 {
					if err := c.Write(true, b); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		group.Go(func() {
			for range 50 {
				if err := c.Ping(); err != nil {
					t.Error(err)
				}
			}
		})
		lib := k.library(t, other)
		lib.SetPingHandler(func(string) error { return nil })
		for range 8 * 200 {
			_, data, err := lib.ReadMessage()
			if err != nil {
				t.Fatal(err)
			}
			if len(data) != 1000+int(data[0]-'a') || !bytes.Equal(data, bytes.Repeat(data[:1], len(data))) {
				t.Fatalf("a message of %d bytes is not whole", len(data))
			}
		}
		group.Wait()
	})
}

// echo says what it hears.
type echo struct {
	inbox
	c *Conn
}

func (e *echo) Message(binary bool, data []byte) { _, _ = e.c.Put(binary, data) }

// exchange sends a message to an echo and reads the answer.
func (k kind) exchange(t *testing.T, other net.Conn, frame, buf []byte) {
	if _, err := other.Write(frame); err != nil {
		t.Error(err)
	}
	for n := 0; n < len(frame)-4; { // the answer of a server has no mask
		m, err := other.Read(buf)
		if err != nil {
			t.Error(err)
			return
		}
		n += m
	}
}

// TestConnAllocations: no message costs an allocation, however it is served.
func TestConnAllocations(t *testing.T) {
	for _, loop := range []bool{false, true} {
		k := kind{loop: loop, limits: limits}
		t.Run(k.String(), func(t *testing.T) {
			c, other := k.open(t)
			e := &echo{*newInbox(), c}
			var l *Loop
			if loop {
				var err error
				if l, err = NewLoop(); err != nil {
					t.Skip(err)
				}
				defer l.Close()
			}
			c.Serve(l, e)
			frame, buf := k.frame(0x80|frame.Binary, strings.Repeat("x", 400)), make([]byte, 1024)
			for range 10 {
				k.exchange(t, other, frame, buf)
			}
			if n := testing.AllocsPerRun(200, func() { k.exchange(t, other, frame, buf) }); n > 0 {
				t.Errorf("%g allocations a message", n)
			}
			c.Close(CloseNormal, "")
			other.Close()
			c.Release()
		})
	}
}
