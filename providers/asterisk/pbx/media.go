package pbx

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"voicebridge/codec"
	"voicebridge/providers"
	"voicebridge/providers/asterisk/ari"
	"voicebridge/providers/internal/asteriskmedia"
	"voicebridge/providers/internal/audiosocket"
	"voicebridge/ws"
)

// transportData has the options of a dial string of chan_websocket.
var transportData = regexp.MustCompile(`^f\(json\)v\(` + ari.TokenParam + `=([^),]+)\)$`)

// Media of answers whose connections are made otherwise.
const (
	incoming = "incoming:"
	packet   = "frames:"
)

// connection reads how the audio of a channel is to be connected.
func (x *exchange) connection(id string, st *ari.State, f codec.Format, q url.Values) (m *mediaChannel,
	vars map[string]string, err error) {
	how := q.Get("encapsulation") + " " + q.Get("transport") + " " + q.Get("connection_type")
	switch {
	case how == "none websocket client":
		options := transportData.FindStringSubmatch(q.Get("transport_data"))
		if q.Get("external_host") != x.cfg.Media || options == nil {
			return nil, nil, errors.New("external_host, transport_data: do not fit")
		}
		stream, fits := strings.CutSuffix(st.URL, "/"+options[1])
		if !fits {
			return nil, nil, errors.New("the token is not that of the URL")
		}
		return &mediaChannel{url: stream + "?" + ari.TokenParam + "=" + options[1]}, nil, nil
	case how == "none websocket server" && q.Get("external_host") == "INCOMING" && q.Get("transport_data") == "f(json)":
		key := rand.Text()
		m := &mediaChannel{url: incoming + key, conn: make(chan providers.PeerConn, 1)}
		x.mu.Lock()
		x.waiting[key] = m
		x.mu.Unlock()
		return m, map[string]string{ari.ConnectionVar: key}, nil
	case how == "rtp udp ":
		return x.rtp(id, f, q.Get("external_host"))
	case how == "audiosocket tcp ":
		return x.audioSocket(id, f, q.Get("external_host"), q.Get("data"))
	}
	return nil, nil, errors.New("encapsulation, transport, connection_type: do not go together")
}

// accept serves a WebSocket that the bridge opens for audio.
func (x *exchange) accept(w http.ResponseWriter, r *http.Request, key string) {
	x.mu.Lock()
	m := x.waiting[key]
	delete(x.waiting, key)
	x.mu.Unlock()
	if m == nil {
		http.NotFound(w, r)
		return
	}
	conn, err := ws.Accept(w, r, []string{"media"}, ws.Limits{Text: 1 << 20, Binary: 1 << 20, Write: sendTime})
	if err == nil {
		m.conn <- conn
	}
}

// Stream implements providers.Streamer.
func (x *exchange) Stream(ctx context.Context, media string) (providers.PeerConn, error) {
	if !strings.HasPrefix(media, incoming) && !strings.HasPrefix(media, packet) {
		return nil, nil
	}
	x.mu.Lock()
	var m *mediaChannel
	for _, one := range x.media {
		if one.url == media {
			m = one
		}
	}
	x.mu.Unlock()
	if m == nil {
		return nil, errors.New("asterisk: no such media")
	}
	select {
	case conn := <-m.conn:
		return conn, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// rtp opens a port for a channel's audio.
func (x *exchange) rtp(id string, f codec.Format, to string) (*mediaChannel, map[string]string, error) {
	remote, err := netip.ParseAddrPort(to)
	if err != nil {
		return nil, nil, err
	}
	udp, err := new(net.ListenConfig).ListenPacket(context.Background(), "udp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	m := x.framed(id, asteriskmedia.OverRTP(udp, remote, f))
	port := strconv.Itoa(udp.LocalAddr().(*net.UDPAddr).Port)
	return m, map[string]string{ari.AddressVar: "127.0.0.1", ari.PortVar: port}, nil
}

// audioSocket connects a channel's audio to a port of the bridge.
func (x *exchange) audioSocket(id string, f codec.Format, to, key string) (*mediaChannel, map[string]string, error) {
	name, err := uuid.Parse(key)
	if err != nil {
		return nil, nil, errors.New("data: must be a UUID")
	}
	conn, err := new(net.Dialer).DialContext(context.Background(), "tcp", to)
	if err != nil {
		return nil, nil, err
	}
	if _, err := conn.Write(audiosocket.Append(nil, audiosocket.UUID, name[:])); err != nil {
		return nil, nil, err
	}
	return x.framed(id, asteriskmedia.OverAudioSocket(conn, f)), nil, nil
}

// framed is a channel whose audio is in frames.
func (x *exchange) framed(id string, f asteriskmedia.Frames) *mediaChannel {
	m := &mediaChannel{url: packet + id, conn: make(chan providers.PeerConn, 1)}
	m.conn <- f.Peer()
	return m
}
