package ws

import (
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

	"voicebridge/ws/dial"
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
	head   *dial.Head
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
	c := newConn(h.head.Conn, h.line, true, h.head.Rest(), h.limits)
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
		conn, err = dial.TCP(ctx, address, scheme)
	}
	if err == nil {
		h.stop = context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })
		h.line = newLine(conn, h.limits.Write)
		h.head = &dial.Head{Conn: h.line}
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
