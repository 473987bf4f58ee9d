package dial

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// accepting is a proxy that has one connection served.
func accepting(t *testing.T, scheme string, serve func(net.Conn)) *url.URL {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		serve(conn)
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	return &url.URL{Scheme: scheme, Host: l.Addr().String()}
}

// answering is a proxy whose connection is served once its request has been read.
func answering(t *testing.T, serve func(net.Conn)) *url.URL {
	t.Helper()
	return accepting(t, "http", func(conn net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
			serve(conn)
		}
	})
}

// TestEndlessHeader: a proxy whose answer has no end is given up.
func TestEndlessHeader(t *testing.T) {
	via := answering(t, func(conn net.Conn) {
		_, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\nX-Long: ")
		for err == nil {
			_, err = conn.Write(bytes.Repeat([]byte("x"), 32<<10))
		}
	})
	if _, err := through(t.Context(), &net.Dialer{}, via, "agent.example:443"); !errors.Is(err, ErrHead) {
		t.Errorf("%v", err)
	}
}

// TestProxy: connections go through the proxy of the environment.
func TestProxy(t *testing.T) {
	asked := make(chan string, 2)
	via := accepting(t, "http", func(conn net.Conn) {
		b := make([]byte, 4096)
		n, _ := conn.Read(b)
		asked <- string(b[:n])
		io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
		n, _ = conn.Read(b)
		asked <- string(b[:n])
	})
	via.User = url.UserPassword("user", "pass")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	conn, err := through(ctx, &net.Dialer{}, via, "agent.example:443")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	first := <-asked
	if !strings.HasPrefix(first, "CONNECT agent.example:443 HTTP/1.1\r\nHost: agent.example:443\r\n") ||
		!strings.Contains(first, "Proxy-Authorization: Basic dXNlcjpwYXNz\r\n") ||
		strings.Contains(first, "\r\nAuthorization:") {
		t.Errorf("the proxy was asked %q", first)
	}
	if _, err := io.WriteString(conn, "through"); err != nil {
		t.Fatal(err)
	}
	if got := <-asked; got != "through" {
		t.Errorf("then came %q", got)
	}
}

// TestConnectStatus: a proxy that connects may say so with any 2xx (RFC 9110, section 9.3.6).
func TestConnectStatus(t *testing.T) {
	for status, good := range map[string]bool{"200 OK": true, "204 x": true, "302 Found": false, "407 x": false} {
		proxy := answering(t, func(conn net.Conn) {
			_, _ = io.WriteString(conn, "HTTP/1.1 "+status+"\r\n\r\n")
		})
		conn, err := through(t.Context(), &net.Dialer{}, proxy, "agent.example:443")
		if (err == nil) != good {
			t.Errorf("%s: %v", status, err)
		}
		if err == nil {
			conn.Close()
		}
	}
}

// TestSocks: a connection through a SOCKS proxy (RFC 1928) is a plain one, that a loop serves.
func TestSocks(t *testing.T) {
	asked := make(chan string, 1)
	via := accepting(t, "socks5", func(conn net.Conn) {
		b := make([]byte, 3)
		_, _ = io.ReadFull(conn, b) // version, one method: none
		_, _ = conn.Write([]byte{5, 0})
		b = make([]byte, 5)
		_, _ = io.ReadFull(conn, b)
		b = make([]byte, b[4]+2)
		_, _ = io.ReadFull(conn, b)
		asked <- fmt.Sprintf("%s:%d", b[:len(b)-2], binary.BigEndian.Uint16(b[len(b)-2:]))
		_, _ = conn.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
		_, _ = io.Copy(conn, conn)
	})
	conn, err := bySocks(t.Context(), &net.Dialer{}, via, "agent.example:443")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := <-asked; got != "agent.example:443" {
		t.Errorf("asked for %s", got)
	}
	if _, plain := conn.(*net.TCPConn); !plain {
		t.Errorf("an event loop cannot serve a %T", conn)
	}
	if _, err := bySocks(t.Context(), &net.Dialer{}, &url.URL{Scheme: "gopher", Host: "x"}, "y:1"); err == nil {
		t.Error("any scheme is taken")
	}
}

// TestEndOfHead: a header may end its lines with line feeds alone.
func TestEndOfHead(t *testing.T) {
	for text, want := range map[string]int{
		"HTTP/1.1 101 x\r\na: b\r\n\r\nrest": 24, "HTTP/1.1 101 x\na: b\n\nrest": 21,
		"HTTP/1.1 101 x\na: b\n\r\nrest": 22,
		"HTTP/1.1 101 x\r\na: b\r\n\r":   -1, "HTTP/1.1 101 x\r\na: b\r\n": -1, "": -1,
	} {
		if got := endOfHead([]byte(text)); got != want {
			t.Errorf("%q ends at %d, want %d", text, got, want)
		}
	}
	// However it comes, no byte behind the header is given out with it.
	text := "HTTP/1.1 101 x\r\na: b\r\n\r\nrest"
	for cut := 1; cut < len(text); cut++ {
		a, b := net.Pipe()
		go func() {
			io.WriteString(b, text[:cut])
			io.WriteString(b, text[cut:])
			b.Close()
		}()
		c := &Head{Conn: a}
		head := ""
		for !c.over {
			buf := make([]byte, 100)
			n, err := c.Read(buf)
			if head += string(buf[:n]); err != nil {
				t.Fatal(err)
			}
		}
		rest, err := io.ReadAll(io.MultiReader(strings.NewReader(string(c.rest)), a))
		if head != text[:24] || string(rest) != "rest" || err != nil {
			t.Errorf("cut at %d: head %q, rest %q, %v", cut, head, rest, err)
		}
		a.Close()
	}
}
