// Package dial makes connections to servers: through the proxy that the environment names, and
// with a bound to what they answer first.
package dial

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/net/proxy"
)

// TCP connects to an address, through the proxy that the environment names for
// URLs of the scheme.
func TCP(ctx context.Context, address, scheme string) (net.Conn, error) {
	direct := &net.Dialer{}
	via, err := http.ProxyFromEnvironment(&http.Request{URL: &url.URL{Scheme: scheme, Host: address}})
	switch {
	case err != nil:
		return nil, err
	case via == nil:
		return direct.DialContext(ctx, "tcp", address)
	}
	by := bySocks
	if via.Scheme == "http" {
		by = through
	}
	conn, err := by(ctx, direct, via, address)
	if err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	return conn, nil
}

// reach connects to a proxy, at a port where its URL names none.
func reach(ctx context.Context, d *net.Dialer, via *url.URL, port string) (net.Conn, error) {
	at := via.Host
	if via.Port() == "" {
		at = net.JoinHostPort(via.Hostname(), port)
	}
	return d.DialContext(ctx, "tcp", at)
}

// bySocks has a SOCKS proxy connect to an address. The connection is a plain one from then on,
// which an event loop can serve.
func bySocks(ctx context.Context, d *net.Dialer, via *url.URL, address string) (net.Conn, error) {
	socks, err := proxy.FromURL(via, d)
	if err != nil {
		return nil, err
	}
	over, can := socks.(interface {
		DialWithConn(ctx context.Context, c net.Conn, network, address string) (net.Addr, error)
	})
	if !can {
		return nil, fmt.Errorf("%s is not supported", via.Scheme)
	}
	conn, err := reach(ctx, d, via, "1080")
	if err != nil {
		return nil, err
	}
	if _, err := over.DialWithConn(ctx, conn, "tcp", address); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// through has an HTTP proxy connect to an address (RFC 9110, section 9.3.6).
func through(ctx context.Context, d *net.Dialer, via *url.URL, address string) (net.Conn, error) {
	conn, err := reach(ctx, d, via, "80")
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: address}, Host: address,
		Header: http.Header{}}
	if u := via.User; u != nil {
		password, _ := u.Password()
		(&http.Request{Header: req.Header}).SetBasicAuth(u.Username(), password)
		req.Header.Set("Proxy-Authorization", req.Header.Get("Authorization"))
		req.Header.Del("Authorization")
	}
	err = req.Write(conn)
	if err == nil {
		var resp *http.Response // nothing follows it before this side has spoken
		if resp, err = http.ReadResponse(bufio.NewReader(&Head{Conn: conn}), req); err == nil &&
			resp.StatusCode/100 != 2 {
			err = fmt.Errorf("says %s", resp.Status)
		}
	}
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// maxHead bounds the header of an answer, in bytes.
const maxHead = 64 << 10

// ErrHead is the error of an answer whose header is too large.
var ErrHead = fmt.Errorf("the header of the answer is larger than %d bytes", maxHead)

// Head gives out what it reads up to the end of an HTTP header in one call, and
// what follows it in the next ones: the first messages of a server that speaks
// right after its answer stay in rest.
type Head struct {
	net.Conn
	read int    // bytes of the header
	seen []byte // the end of what was given out; nil: the header is over
	rest []byte
	over bool
}

// Rest returns what came behind the header and was not read: the other side's first messages.
func (c *Head) Rest() []byte { return c.rest }

// Read implements net.Conn.
func (c *Head) Read(b []byte) (int, error) {
	if len(c.rest) > 0 {
		n := copy(b, c.rest)
		c.rest = c.rest[n:]
		return n, nil
	}
	n, err := c.Conn.Read(b)
	if c.over || n == 0 {
		return n, err
	}
	if c.read += n; c.read > maxHead {
		return 0, ErrHead
	}
	before := len(c.seen)
	c.seen = append(c.seen, b[:n]...)
	if i := endOfHead(c.seen); i >= 0 {
		end := i - before
		c.rest = append([]byte(nil), b[end:n]...)
		c.over, c.seen = true, nil
		return end, nil
	}
	c.seen = c.seen[max(0, len(c.seen)-3):]
	return n, err
}

// endOfHead is where an HTTP header ends, with an empty line; -1: it does not. Lines
// may end in a line feed alone (RFC 9112, section 2.2).
func endOfHead(b []byte) int {
	for i, c := range b {
		if c != '\n' {
			continue
		}
		switch rest := b[i+1:]; {
		case len(rest) > 0 && rest[0] == '\n':
			return i + 2
		case len(rest) > 1 && rest[0] == '\r' && rest[1] == '\n':
			return i + 3
		}
	}
	return -1
}
