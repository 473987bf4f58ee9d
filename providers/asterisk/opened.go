package asterisk

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"voicebridge/providers"
	"voicebridge/providers/asterisk/ari"
	"voicebridge/providers/internal/asteriskmedia"
	"voicebridge/providers/internal/audiosocket"
	"voicebridge/ws"
)

// openSocket has a channel wait for a WebSocket, and opens that.
func (c *commands) openSocket(ctx context.Context, id string, st ari.State) error {
	ch, err := c.external(ctx, id, st, "external_host", "INCOMING", "encapsulation", "none", "transport", "websocket",
		"connection_type", "server", "transport_data", "f(json)")
	if err != nil {
		return err
	}
	u := *c.rest.Base
	u.Scheme = strings.Replace(u.Scheme, "http", "ws", 1)
	u.Path = "/media/" + ch.Vars[ari.ConnectionVar]
	conn, _, err := c.dial.Dial(ctx, u.String(), []string{"media"}, nil, ws.Limits{Text: mediaLimit, Binary: mediaLimit,
		Idle: time.Minute, Signs: true, Write: sendTime})
	if err == nil {
		if err = c.take(st.URL, &socket{Conn: conn}); err == nil {
			return nil
		}
		conn.Close(ws.CloseNormal, "")
		conn.Release()
	}
	return c.unopened(ctx, id, err)
}

// unopened ends a channel to which there is no connection.
func (c *commands) unopened(ctx context.Context, id string, why error) error {
	_ = c.endMedia(ctx, id) // otherwise it is found by whoever looks
	return &providers.CallError{Op: "asterisk: media", Kind: providers.ErrRejected, Err: why}
}

// mediaLimit bounds a message of audio.
const mediaLimit = 64 << 10

// socket is a WebSocket that the bridge has opened.
type socket struct {
	*ws.Conn
	handler providers.MediaHandler
}

// Serve implements providers.MediaConn.
func (s *socket) Serve(h providers.MediaHandler) {
	s.handler = h
	s.Conn.Serve(nil, s)
}

// Put implements providers.MediaConn.
func (s *socket) Put(m providers.Message) (more bool, err error) { return s.Conn.Put(m.Binary, m.Data) }

// Message implements ws.Handler.
func (s *socket) Message(binary bool, data []byte) {
	s.handler.Message(providers.Message{Binary: binary, Data: data})
}

// Writable implements ws.Handler.
func (s *socket) Writable() { s.handler.Writable() }

// Closed implements ws.Handler.
func (s *socket) Closed(err error) { s.handler.Closed(err) }

// openRTP has a channel send its audio to a port of the bridge.
func (c *commands) openRTP(ctx context.Context, id string, st ari.State) error {
	udp, port, err := listen(&c.cfg, func(address string) (net.PacketConn, error) {
		return new(net.ListenConfig).ListenPacket(ctx, "udp", address)
	})
	if err != nil {
		return err
	}
	ch, err := c.external(ctx, id, st, "external_host", net.JoinHostPort(c.cfg.Address, port), "encapsulation",
		"rtp", "transport", "udp")
	if err != nil {
		udp.Close()
		return err
	}
	remote, err := netip.ParseAddrPort(net.JoinHostPort(ch.Vars[ari.AddressVar], ch.Vars[ari.PortVar]))
	if err != nil {
		udp.Close()
		return c.unopened(ctx, id, fmt.Errorf("no word of where the audio is: %w", err))
	}
	f, _ := asteriskmedia.FormatOf(c.cfg.Format)
	if err := c.take(st.URL, asteriskmedia.OverRTP(udp, remote, f).Media(id)); err != nil {
		udp.Close()
		return c.unopened(ctx, id, err)
	}
	return nil
}

// listen listens at a free port of the range, at all addresses: that of the configuration may
// be a gateway's.
func listen[T any](cfg *ari.Config, open func(address string) (T, error)) (l T, port string, err error) {
	first, last := cfg.PortRange()
	n := last - first + 1
	for i, begin := 0, rand.IntN(n); i < n; i++ {
		port = strconv.Itoa(first + (begin+i)%n)
		if l, err = open(net.JoinHostPort("", port)); err == nil {
			return l, port, nil
		}
	}
	return l, "", &providers.CallError{Op: "asterisk: media", Kind: providers.ErrRejected,
		Err: fmt.Errorf("no port of %s is free: %w", cfg.Ports, err)}
}

// acceptTime is how long Asterisk may take to connect to a port that it was told of.
const acceptTime = 5 * time.Second

// openAudioSocket has a channel connect to a port of the bridge, over TCP.
func (c *commands) openAudioSocket(ctx context.Context, id string, st ari.State) error {
	l, port, err := listen(&c.cfg, func(address string) (net.Listener, error) {
		return new(net.ListenConfig).Listen(ctx, "tcp", address)
	})
	if err != nil {
		return err
	}
	defer l.Close()
	key := uuid.New()
	if _, err := c.external(ctx, id, st, "external_host", net.JoinHostPort(c.cfg.Address, port), "encapsulation",
		"audiosocket", "transport", "tcp", "data", key.String()); err != nil {
		return err
	}
	conn, err := accept(l, key)
	if err != nil {
		return c.unopened(ctx, id, err)
	}
	f, _ := asteriskmedia.FormatOf(c.cfg.Format)
	if err := c.take(st.URL, asteriskmedia.OverAudioSocket(conn, f).Media(id)); err != nil {
		conn.Close()
		return c.unopened(ctx, id, err)
	}
	return nil
}

// accept takes the connection that has the key; whoever else connects is sent away.
func accept(l net.Listener, key uuid.UUID) (net.Conn, error) {
	limit := time.Now().Add(acceptTime)
	for {
		if err := l.(*net.TCPListener).SetDeadline(limit); err != nil {
			return nil, err
		}
		conn, err := l.Accept()
		if err != nil {
			return nil, fmt.Errorf("no connection from Asterisk: %w", err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(acceptTime / 10)) // a stranger may be silent
		if id, err := audiosocket.ReadUUID(conn); err == nil && id == key {
			_ = conn.SetReadDeadline(time.Time{})
			return conn, nil
		}
		conn.Close()
	}
}
