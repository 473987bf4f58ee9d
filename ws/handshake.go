package ws

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"golang.org/x/net/proxy"
)

var writeBuffers sync.Pool

// roots are what servers' certificates are checked with; nil: the system's.
var roots *x509.CertPool

// Accept turns a request into a connection, choosing the first of the subprotocols
// that is offered, if there is one. Requests of web pages of another host, as the Origin tells,
// are refused with 403 unless the limits say otherwise.
func Accept(w http.ResponseWriter, r *http.Request, subprotocols []string, limits Limits) (*Conn, error) {
	up := websocket.Upgrader{
		HandshakeTimeout: limits.Write,
		WriteBufferSize:  4 << 10,
		WriteBufferPool:  &writeBuffers,
		CheckOrigin:      func(r *http.Request) bool { return limits.AnyOrigin || ownOrigin(r) },
		Error: func(w http.ResponseWriter, _ *http.Request, status int, reason error) {
			http.Error(w, reason.Error(), status)
		},
	}
	up.Subprotocols = subprotocols
	conn, err := up.Upgrade(w, r, nil) // refuses a client that speaks before it is answered
	if err != nil {
		return nil, fmt.Errorf("WebSocket: upgrade: %w", err)
	}
	if err := conn.NetConn().SetDeadline(time.Time{}); err != nil {
		conn.Close()
		return nil, fmt.Errorf("WebSocket: upgrade: %w", err)
	}
	l := newLine(conn.NetConn(), limits.Write)
	c := newConn(l, l, false, nil, limits)
	c.subprotocol = conn.Subprotocol()
	return c, nil
}

// ownOrigin reports whether a request comes from no web page, or from one of the host that it
// goes to.
func ownOrigin(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && strings.EqualFold(u.Host, r.Host)
}

// Asked reports whether a request asks for a WebSocket.
func Asked(r *http.Request) bool { return websocket.IsWebSocketUpgrade(r) }

// Subprotocols returns those that a request offers.
func Subprotocols(r *http.Request) []string { return websocket.Subprotocols(r) }

// Dialer connects to servers. The zero value is ready.
type Dialer struct {
	// Net makes the connection; nil: TCP, through the proxy that the environment
	// names.
	Net func(ctx context.Context, network, address string) (net.Conn, error)
}

// Dial connects to a server with a Dialer as it comes.
func Dial(ctx context.Context, to string, subprotocols []string, header http.Header, limits Limits) (c *Conn,
	status int, err error) {
	return (&Dialer{}).Dial(ctx, to, subprotocols, header, limits)
}

// Dial connects to a server, offering the subprotocols. A server that chooses another
// one is refused. status is the HTTP status of a refused handshake, otherwise 0.
func (d *Dialer) Dial(ctx context.Context, to string, subprotocols []string, header http.Header,
	limits Limits) (c *Conn, status int, err error) {
	h := &handshake{dialer: d, limits: limits, stop: func() bool { return true }}
	c, status, err = h.do(ctx, to, subprotocols, header)
	if err != nil {
		return nil, status, fmt.Errorf("WebSocket: dial: %w", err)
	}
	return c, 0, nil
}

// handshake is a connection to a server under way.
type handshake struct {
	dialer *Dialer
	limits Limits
	line   *line
	head   *headConn
	// stop ends the watch over the context: the library heeds its deadline while it
	// waits for the server's answer, but not its cancellation.
	stop func() bool
}

func (h *handshake) do(ctx context.Context, to string, subprotocols []string, header http.Header) (_ *Conn, status int,
	err error) {
	d := websocket.Dialer{WriteBufferSize: 4 << 10, WriteBufferPool: &writeBuffers, Subprotocols: subprotocols,
		NetDialContext: h.plain, NetDialTLSContext: h.secure}
	conn, resp, err := d.DialContext(ctx, to, header)
	if !h.stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err == nil {
		err = h.line.SetDeadline(time.Time{})
	}
	if err != nil {
		if conn != nil {
			conn.Close()
		}
		if resp != nil && resp.StatusCode != http.StatusSwitchingProtocols {
			return nil, resp.StatusCode, fmt.Errorf("%w: %s", err, resp.Status)
		}
		return nil, 0, err
	}
	if err := answers(resp, subprotocols); err != nil {
		conn.Close()
		return nil, 0, err
	}
	c := newConn(h.head.Conn, h.line, true, h.head.rest, h.limits)
	c.subprotocol = conn.Subprotocol()
	return c, 0, nil
}

// answers checks what the library leaves open of the server's answer (RFC 6455, section 4.1).
func answers(resp *http.Response, subprotocols []string) error {
	chosen := resp.Header.Values("Sec-Websocket-Protocol")
	switch extensions := resp.Header.Values("Sec-Websocket-Extensions"); {
	case !resp.ProtoAtLeast(1, 1):
		return fmt.Errorf("the server answers with %.10s", resp.Proto)
	case len(resp.Header.Values("Sec-Websocket-Accept")) != 1:
		return errors.New("the server has Sec-WebSocket-Accept more than once")
	case len(extensions) > 0:
		return fmt.Errorf("the server chose the extension %.40q, which was not offered", extensions[0])
	case len(chosen) > 1 || len(chosen) == 1 && !slices.Contains(subprotocols, chosen[0]):
		return fmt.Errorf("the server chose subprotocol %.40q", strings.Join(chosen, ", "))
	}
	return nil
}

// connect makes the connection for URLs of a scheme.
func (h *handshake) connect(ctx context.Context, network, address, scheme string) (err error) {
	var conn net.Conn
	if h.dialer.Net != nil {
		conn, err = h.dialer.Net(ctx, network, address)
	} else {
		conn, err = dialTCP(ctx, address, scheme)
	}
	if err == nil {
		h.stop = context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })
		h.line = newLine(conn, h.limits.Write)
		h.head = &headConn{Conn: h.line}
	}
	return err
}

func (h *handshake) plain(ctx context.Context, network, address string) (net.Conn, error) {
	if err := h.connect(ctx, network, address, "http"); err != nil {
		return nil, err
	}
	return h.head, nil
}

func (h *handshake) secure(ctx context.Context, network, address string) (net.Conn, error) {
	if err := h.connect(ctx, network, address, "https"); err != nil {
		return nil, err
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(h.line, &tls.Config{ServerName: host, RootCAs: roots})
	if err := conn.HandshakeContext(ctx); err != nil {
		h.line.Close()
		return nil, err
	}
	h.head.Conn = conn
	return h.head, nil
}

// dialTCP connects to an address, through the proxy that the environment names for
// URLs of the scheme.
func dialTCP(ctx context.Context, address, scheme string) (net.Conn, error) {
	direct := &net.Dialer{}
	via, err := http.ProxyFromEnvironment(&http.Request{URL: &url.URL{Scheme: scheme, Host: address}})
	switch {
	case err != nil:
		return nil, err
	case via == nil:
		return direct.DialContext(ctx, "tcp", address)
	case via.Scheme == "http":
		return dialThrough(ctx, direct, via, address)
	}
	conn, err := dialSocks(ctx, direct, via, address)
	if err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	return conn, nil
}

// dialSocks has a SOCKS proxy connect to an address. The connection is a plain one from then on,
// which an event loop can serve.
func dialSocks(ctx context.Context, d *net.Dialer, via *url.URL, address string) (net.Conn, error) {
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
	at := via.Host
	if via.Port() == "" {
		at = net.JoinHostPort(via.Hostname(), "1080")
	}
	conn, err := d.DialContext(ctx, "tcp", at)
	if err != nil {
		return nil, err
	}
	if _, err := over.DialWithConn(ctx, conn, "tcp", address); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// dialThrough has an HTTP proxy connect to an address (RFC 9110, section 9.3.6).
func dialThrough(ctx context.Context, d *net.Dialer, via *url.URL, address string) (net.Conn, error) {
	at := via.Host
	if via.Port() == "" {
		at = net.JoinHostPort(via.Hostname(), "80")
	}
	conn, err := d.DialContext(ctx, "tcp", at)
	if err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
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
		if resp, err = http.ReadResponse(bufio.NewReader(&headConn{Conn: conn}), req); err == nil &&
			resp.StatusCode/100 != 2 {
			err = fmt.Errorf("says %s", resp.Status)
		}
	}
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("proxy: %w", err)
	}
	return conn, nil
}

// maxHead bounds the header of an answer, in bytes.
const maxHead = 64 << 10

var errHead = fmt.Errorf("the header of the answer is larger than %d bytes", maxHead)

// headConn gives out what it reads up to the end of an HTTP header in one call, and
// what follows it in the next ones: the first messages of a server that speaks
// right after its answer stay in rest.
type headConn struct {
	net.Conn
	read int    // bytes of the header
	seen []byte // the end of what was given out; nil: the header is over
	rest []byte
	over bool
}

// Read implements net.Conn.
func (c *headConn) Read(b []byte) (int, error) {
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
		return 0, errHead
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
