package asteriskmedia

import (
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"voicebridge/codec"
	"voicebridge/providers"
	"voicebridge/ws"
)

// count counts frames.
type count struct{ frames atomic.Int64 }

func (c *count) Message(m providers.Message) {
	if m.Binary {
		c.frames.Add(1)
	}
}
func (c *count) Writable()    {}
func (c *count) Closed(error) {}

// socket is a WebSocket as a media connection.
type socket struct {
	*ws.Conn
	h providers.MediaHandler
}

func (s *socket) Serve(h providers.MediaHandler)        { s.h = h; s.Conn.Serve(nil, s) }
func (s *socket) Put(m providers.Message) (bool, error) { return s.Conn.Put(m.Binary, m.Data) }
func (s *socket) Message(binary bool, data []byte) {
	s.h.Message(providers.Message{Binary: binary, Data: data})
}
func (s *socket) Writable()        { s.h.Writable() }
func (s *socket) Closed(err error) { s.h.Closed(err) }

// ends makes a connection over loopback: the bridge's end, and Asterisk's.
type ends func(b *testing.B, f codec.Format) (providers.MediaConn, providers.PeerConn)

func overRTP(b *testing.B, f codec.Format) (providers.MediaConn, providers.PeerConn) {
	var udp [2]net.PacketConn
	var at [2]netip.AddrPort
	for i := range udp {
		conn, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		udp[i], at[i] = conn, conn.LocalAddr().(*net.UDPAddr).AddrPort()
	}
	return OverRTP(udp[0], at[1], f).Media("leg.media-x"), OverRTP(udp[1], at[0], f).Peer()
}

func overAudioSocket(b *testing.B, f codec.Format) (providers.MediaConn, providers.PeerConn) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	out, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	in, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	return OverAudioSocket(in, f).Media("leg.media-x"), OverAudioSocket(out, f).Peer()
}

func overWebSocket(b *testing.B, _ codec.Format) (providers.MediaConn, providers.PeerConn) {
	limits := ws.Limits{Text: 1 << 16, Binary: 1 << 16, Write: time.Second}
	came := make(chan *ws.Conn, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if conn, err := ws.Accept(w, r, nil, limits); err == nil {
			came <- conn
		}
	}))
	defer srv.Close()
	peer, _, err := ws.Dial(b.Context(), "ws"+strings.TrimPrefix(srv.URL, "http"), nil, nil, limits)
	if err != nil {
		b.Fatal(err)
	}
	return &socket{Conn: <-came}, peer
}

// BenchmarkTransports: what a second of a call costs both ends together, for 100 calls at once
// with audio both ways.
func BenchmarkTransports(b *testing.B) {
	const calls, length = 100, 2 * time.Second
	f := codec.Format{Encoding: codec.L16LE, Rate: 16000}
	for name, make := range map[string]ends{"rtp": overRTP, "audiosocket": overAudioSocket, "websocket": overWebSocket} {
		b.Run(name, func(b *testing.B) {
			for range b.N {
				var group sync.WaitGroup
				var bridge, pbx count
				before := cpu(b)
				for range calls {
					conn, peer := make(b, f)
					conn.Serve(&bridge)
					group.Go(func() { // Asterisk listens
						for {
							if _, _, err := peer.Read(); err != nil {
								return
							}
							pbx.frames.Add(1)
						}
					})
					group.Go(func() { talk(conn, peer, f, length) })
				}
				group.Wait()
				used := cpu(b) - before
				want := float64(calls * int(length/codec.FrameTime))
				if in, out := float64(bridge.frames.Load()), float64(pbx.frames.Load()); in < want*0.98 || out < want*0.9 {
					b.Errorf("of %v frames each way %v and %v came", want, in, out)
				}
				b.ReportMetric(used.Seconds()*1e6/(calls*length.Seconds()), "cpu-µs/call-s")
			}
		})
	}
}

// talk sends a frame each way every 20 ms.
func talk(conn providers.MediaConn, peer providers.PeerConn, f codec.Format, length time.Duration) {
	frame, begin := make([]byte, f.FrameBytes()), time.Now()
	for at := time.Duration(0); at < length; at += codec.FrameTime {
		time.Sleep(time.Until(begin.Add(at)))
		_, _ = conn.Put(providers.Message{Binary: true, Data: frame})
		_ = peer.Write(true, frame)
	}
	time.Sleep(5 * codec.FrameTime)
	conn.Close(ws.CloseNormal, "")
	peer.Close(ws.CloseNormal, "")
	conn.Release()
	peer.Release()
}

func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
