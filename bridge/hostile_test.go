package bridge_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"voicebridge/agent"
	"voicebridge/agent/link"
	"voicebridge/calls"
	"voicebridge/codec"
	"voicebridge/sim"
	"voicebridge/sim/ear"
	"voicebridge/sim/memnet"
	"voicebridge/sim/stream"
	"voicebridge/ws"
)

const (
	connected = `{"event":"connected","protocol":"Call","version":"1.0.0"}`
	startText = `{"event":"start","sequenceNumber":"1","streamSid":"MZ1","start":{"accountSid":"AC1","streamSid":"MZ1","callSid":"CA1","tracks":["inbound"],"customParameters":{},"mediaFormat":{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":1}}}`
)

var mediaText = fmt.Sprintf(`{"event":"media","streamSid":"MZ1","media":{"payload":"%s"}}`,
	base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{0xFF}, 160)))

// raw is a Twilio connection whose frames the test writes itself.
type raw struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
}

func (b *running) raw(t *testing.T) *raw {
	t.Helper()
	conn, err := memnet.Dial(t.Context(), "tcp", strings.TrimPrefix(b.url, "ws://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &raw{t, conn, bufio.NewReader(conn)}
}

func (c *raw) upgrade(header string) *http.Response {
	c.t.Helper()
	fmt.Fprintf(c, "GET /media/twilio HTTP/1.1\r\nHost: bridge\r\nConnection: Upgrade\r\nUpgrade: "+
		"websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s\r\n", header)
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	resp.Body.Close()
	return resp
}

// header is that of a masked frame with a mask of zeros.
func header(first byte, length uint64) []byte {
	h := []byte{first, 0x80}
	switch {
	case length < 126:
		h[1] |= byte(length)
	case length < 1<<16:
		h[1] |= 126
		h = binary.BigEndian.AppendUint16(h, uint16(length))
	default:
		h[1] |= 127
		h = binary.BigEndian.AppendUint64(h, length)
	}
	return append(h, 0, 0, 0, 0)
}

func frame(first byte, payload []byte) []byte {
	return append(header(first, uint64(len(payload))), payload...)
}

// closeCode reads up to the close message; 0 where the connection ends without.
func (c *raw) closeCode() int {
	c.t.Helper()
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	for {
		var h [2]byte
		if _, err := readFull(c.r, h[:]); err != nil {
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				c.t.Error("the connection stays open")
			}
			return 0
		}
		n := int(h[1])
		if n == 126 {
			var l [2]byte
			if _, err := readFull(c.r, l[:]); err != nil {
				return 0
			}
			n = int(binary.BigEndian.Uint16(l[:]))
		}
		payload := make([]byte, n)
		if _, err := readFull(c.r, payload); err != nil {
			return 0
		}
		if h[0] == 0x88 && n >= 2 {
			return int(binary.BigEndian.Uint16(payload))
		}
	}
}

func readFull(r *bufio.Reader, b []byte) (int, error) {
	for n := 0; n < len(b); {
		m, err := r.Read(b[n:])
		if n += m; err != nil {
			return n, err
		}
	}
	return len(b), nil
}

// TestHostileSockets: each of these is refused or closed within the limits and
// with the right code, while an honest call beside them loses nothing.
func TestHostileSockets(t *testing.T) {
	t.Parallel()
	hostile := func(name string, test func(t *testing.T, b *running)) {
		run(t, name, func(t *testing.T) {
			b := startBridge(t, startAgent(t, sim.Echo), func(o *options) {
				o.limits.Handshake = 500 * time.Millisecond
				o.limits.Idle = time.Second
				o.limits.Handshakes = 10000
				o.session.Start = 700 * time.Millisecond
			})
			wait := background(t, b.caller(t, "vonage", time.Second)) // the others are Twilio's
			test(t, b)
			b.untouched(t, "vonage", wait())
		})
	}

	hostile("headers", func(t *testing.T, b *running) {
		if resp := b.raw(t).upgrade("X-Big: " + strings.Repeat("x", 100<<10) + "\r\n"); resp.StatusCode != 431 {
			t.Errorf("100 kB of headers: %d, want 431", resp.StatusCode)
		}
		if resp := b.raw(t).upgrade("Origin: https://evil.example\r\n"); resp.StatusCode != 403 {
			t.Errorf("foreign Origin, nothing else guards: %d, want 403", resp.StatusCode)
		}
		if resp := b.raw(t).upgrade("Origin: http://bridge\r\n"); resp.StatusCode != 101 {
			t.Errorf("the own Origin: %d, want 101", resp.StatusCode)
		}
		if code, _ := get(t, "http"+strings.TrimPrefix(b.url, "ws")+"/media/twilio"); code != 426 {
			t.Errorf("no WebSocket at all: %d, want 426", code)
		}
	})
	for name, tt := range map[string]struct {
		send []byte
		want int
	}{
		"8 MiB of text":     {frame(0x81, make([]byte, 8<<20)), 1009},
		"1 GiB declared":    {header(0x81, 1<<30), 1009},
		"1 GiB of binary":   {header(0x82, 1<<30), 1009},
		"2^63 declared":     {header(0x81, 1<<63), 1009},
		"not UTF-8":         {frame(0x81, []byte("{\"event\":\"\xff\"}")), 1007},
		"reserved bit":      {frame(0xC1, []byte("{}")), 1002},
		"reserved opcode":   {frame(0x83, []byte("{}")), 1002},
		"no mask":           {[]byte{0x81, 2, '{', '}'}, 1002},
		"stray continuing":  {frame(0x80, []byte("{}")), 1002},
		"fragmented ping":   {frame(0x09, []byte("x")), 1002},
		"long ping":         {frame(0x89, make([]byte, 200)), 1002},
		"close with 1 byte": {frame(0x88, []byte{3}), 1002},
		"bad close code":    {frame(0x88, []byte{0, 1}), 1002},
		"fragments without end": {append(frame(0x01, make([]byte, 40<<10)),
			bytes.Repeat(frame(0x00, make([]byte, 40<<10)), 3)...), 1009},
	} {
		for _, begun := range []bool{false, true} {
			hostile(fmt.Sprintf("%s, started %v", name, begun), func(t *testing.T, b *running) {
				c := b.raw(t)
				if resp := c.upgrade(""); resp.StatusCode != 101 {
					t.Fatalf("handshake: %d", resp.StatusCode)
				}
				if begun {
					c.Write(frame(0x81, []byte(startText)))
				}
				go c.Write(tt.send)
				if got := c.closeCode(); got != tt.want {
					t.Errorf("closed with %d, want %d", got, tt.want)
				}
			})
		}
	}
	hostile("slow handshakes", func(t *testing.T, b *running) {
		var conns []*raw
		for range 200 {
			c := b.raw(t)
			fmt.Fprint(c, "GET /media/twilio HTTP/1.1\r\nHost: bri")
			conns = append(conns, c)
		}
		begun := time.Now()
		for _, c := range conns {
			c.SetReadDeadline(begun.Add(5 * time.Second))
			for err := error(nil); err == nil; {
				_, err = c.Read(make([]byte, 512))
				var timeout net.Error
				if errors.As(err, &timeout) && timeout.Timeout() {
					t.Fatal("a half-open handshake is held for 5 s")
				}
			}
		}
	})
	hostile("silent", func(t *testing.T, b *running) {
		for _, send := range []string{"", connected} {
			c := b.raw(t)
			c.upgrade("")
			if send != "" {
				c.Write(frame(0x81, []byte(send)))
			}
			if got := c.closeCode(); got != 4408 {
				t.Errorf("silent after %q: closed with %d, want 4408", send, got)
			}
		}
	})
	hostile("silent after start", func(t *testing.T, b *running) {
		c := b.raw(t)
		c.upgrade("")
		c.Write(frame(0x81, []byte(startText)))
		if got := c.closeCode(); got != 4408 {
			t.Errorf("closed with %d, want 4408", got)
		}
	})
	hostile("dripping", func(t *testing.T, b *running) {
		c := b.raw(t)
		c.upgrade("")
		c.Write(frame(0x81, []byte(startText)))
		c.Write(header(0x81, 4000))
		stop := make(chan struct{})
		var group sync.WaitGroup
		group.Go(func() {
			for {
				select {
				case <-time.After(20 * time.Millisecond):
					c.Write([]byte(" "))
				case <-stop:
					return
				}
			}
		})
		if got := c.closeCode(); got != 4408 {
			t.Errorf("closed with %d, want 4408", got)
		}
		close(stop)
		group.Wait()
	})
	hostile("burst after a stall", func(t *testing.T, b *running) {
		c := b.raw(t)
		c.upgrade("")
		c.Write(frame(0x81, []byte(startText)))
		go c.Write(append(bytes.Repeat(frame(0x81, []byte(mediaText)), 10000),
			frame(0x81, []byte(`{"event":"stop","streamSid":"MZ1"}`))...))
		if got := c.closeCode(); got != 1000 {
			t.Errorf("closed with %d, want 1000", got)
		}
	})
}

// twilio is a WebSocket connection that has been started.
func (b *running) twilio(t *testing.T, messages ...string) *websocket.Conn {
	t.Helper()
	conn, _, err := websocket.DefaultDialer.Dial(b.url+"/media/twilio", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	for _, m := range messages {
		if err := conn.WriteMessage(websocket.TextMessage, []byte(m)); err != nil {
			t.Fatal(err)
		}
	}
	return conn
}

// closed reads until the bridge closes.
func closed(t *testing.T, conn *websocket.Conn) int {
	t.Helper()
	conn.SetReadDeadline(time.Now().Add(15 * time.Second))
	for {
		_, _, err := conn.ReadMessage()
		var ce *websocket.CloseError
		if errors.As(err, &ce) {
			return ce.Code
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func many(n int, s string) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = s
	}
	return all
}

// TestHostileCarriers: messages that break the carrier's protocol.
func TestHostileCarriers(t *testing.T) {
	t.Parallel()
	good := []string{connected, startText, mediaText, `{"event":"stop","streamSid":"MZ1"}`}
	for _, tt := range []struct {
		name      string
		messages  []string
		code      int
		cause     calls.Cause
		malformed uint64
	}{
		{"as it should be", good, 1000, calls.CallerHangup, 0},
		{"malformed JSON between", []string{startText, `{`, mediaText, `{"event":"media"}`, good[3]}, 1000,
			calls.CallerHangup, 2},
		{"wrong base64", []string{startText, `{"event":"media","streamSid":"MZ1","media":{"payload":"?"}}`, good[3]},
			1000, calls.CallerHangup, 1},
		{"media before start", []string{connected, mediaText, startText, mediaText, good[3]}, 1000,
			calls.CallerHangup, 1},
		{"second start", []string{startText, startText, mediaText, good[3]}, 1000, calls.CallerHangup, 1},
		{"nonsense for ever", append([]string{startText}, many(50, `{"event":`)...), 4400, calls.ProtocolError, 49},
		{"nonsense instead of a start", many(50, `what?`), 4400, calls.ProtocolError, 49},
		{"unknown format", []string{strings.Replace(startText, "audio/x-mulaw", "audio/opus", 1)}, 4400,
			calls.ProtocolError, 0},
		{"unknown events", []string{startText, `{"event":"weather","streamSid":"MZ1"}`, good[3]}, 1000,
			calls.CallerHangup, 0},
	} {
		run(t, tt.name, func(t *testing.T) {
			b := startBridge(t, startAgent(t, sim.Echo), nil)
			conn := b.twilio(t, tt.messages...)
			if got := closed(t, conn); got != tt.code {
				t.Errorf("closed with %d, want %d", got, tt.code)
			}
			if attrs := b.ended(t, tt.cause); attrs["malformed"].Uint64() != tt.malformed {
				t.Errorf("%v malformed messages counted, want %d", attrs["malformed"], tt.malformed)
			}
		})
	}
	run(t, "binary where text is due", func(t *testing.T) {
		b := startBridge(t, startAgent(t, sim.Echo), nil)
		conn := b.twilio(t, startText)
		for range 50 {
			if err := conn.WriteMessage(websocket.BinaryMessage, make([]byte, 160)); err != nil {
				t.Fatal(err)
			}
		}
		if got := closed(t, conn); got != 4400 {
			t.Errorf("closed with %d, want 4400", got)
		}
		b.ended(t, calls.ProtocolError)
	})
	run(t, "gone without a word", func(t *testing.T) {
		b := startBridge(t, startAgent(t, sim.Echo), nil)
		conn := b.twilio(t, startText, mediaText)
		conn.NetConn().Close()
		b.ended(t, calls.CarrierLost)
	})
	run(t, "max duration", func(t *testing.T) {
		b := startBridge(t, startAgent(t, sim.Echo),
			func(o *options) { o.session.MaxDuration = 300 * time.Millisecond })
		if got := closed(t, b.twilio(t, startText, mediaText)); got != 1000 {
			t.Errorf("closed with %d, want 1000", got)
		}
		b.ended(t, calls.MaxDuration)
	})
}

// TestHostileAgents: each ends, or goes on, in a way that is counted and known,
// for that call alone.
func TestHostileAgents(t *testing.T) {
	t.Parallel()
	quick := link.Config{Attempt: 300 * time.Millisecond, Write: 500 * time.Millisecond}
	carry := func(t *testing.T, url string, cause calls.Cause, code int) (*stream.Result, map[string]any) {
		t.Helper()
		cfg := quick
		cfg.URL = url
		b := startBridge(t, "", func(o *options) { o.dialer = dialer(t, cfg) })
		r := call(t, b.caller(t, "twilio", 8*time.Second))
		if r.CloseCode != code {
			t.Errorf("the carrier was closed with %d, want %d", r.CloseCode, code)
		}
		attrs := map[string]any{}
		for k, v := range b.ended(t, cause) {
			attrs[k] = v.Any()
		}
		return r, attrs
	}
	run(t, "refuses", func(t *testing.T) {
		tries := 0
		srv := newServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			tries++
			http.Error(w, "no", http.StatusUnauthorized)
		}))
		defer srv.Close()
		carry(t, "ws"+srv.URL[4:], calls.AgentUnreachable, 1011)
		if tries != 1 {
			t.Errorf("a refusal was tried %d times", tries)
		}
	})
	run(t, "is not there", func(t *testing.T) {
		l := memnet.Listen()
		l.Close()
		carry(t, "ws://"+l.Addr().String(), calls.AgentUnreachable, 1011)
	})
	run(t, "never answers", func(t *testing.T) {
		l := memnet.Listen()
		defer l.Close()
		carry(t, "ws://"+l.Addr().String(), calls.AgentUnreachable, 1011)
	})
	run(t, "chooses another protocol", func(t *testing.T) {
		srv := newServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			up := websocket.Upgrader{}
			if conn, err := up.Upgrade(w, r, http.Header{"Sec-WebSocket-Protocol": {"other"}}); err == nil {
				conn.Close()
			}
		}))
		defer srv.Close()
		carry(t, "ws"+srv.URL[4:], calls.AgentUnreachable, 1011)
	})
	run(t, "closes in the middle", func(t *testing.T) {
		r, _ := carry(t, startAgent(t, func(_ context.Context, c *sim.AgentConn) error {
			return c.Audio(make([]byte, 32000)) // a second, then a proper close
		}), calls.AgentHangup, 1000)
		if n := len(r.ReceivedAt); n < 50 || n > 51 {
			t.Errorf("%d frames heard, want the whole second", n)
		}
	})
	run(t, "breaks off", func(t *testing.T) {
		srv := newServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			up := websocket.Upgrader{}
			if conn, err := up.Upgrade(w, r, nil); err == nil {
				conn.WriteMessage(websocket.BinaryMessage, make([]byte, 3200))
				conn.ReadMessage() // the start: nothing is unread when it closes
				conn.NetConn().Close()
			}
		}))
		defer srv.Close()
		carry(t, "ws"+srv.URL[4:], calls.AgentLost, 1011)
	})
	run(t, "floods", func(t *testing.T) {
		_, attrs := carry(t, startAgent(t, func(_ context.Context, c *sim.AgentConn) error {
			for {
				if err := c.Audio(make([]byte, 1<<20)); err != nil {
					return listenOn(c)
				}
				time.Sleep(codec.FrameTime) // or no time would pass
			}
		}), calls.AgentProtocol, 1011)
		if d := attrs["overflow"].(time.Duration); d < 10*time.Minute {
			t.Errorf("%v of overflow counted", d)
		}
	})
	run(t, "never reads", func(t *testing.T) {
		srv := newServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			up := websocket.Upgrader{}
			if conn, err := up.Upgrade(w, r, nil); err == nil {
				t.Cleanup(func() { conn.Close() })
			}
		}))
		defer srv.Close()
		cfg := quick
		cfg.URL = "ws" + srv.URL[4:] + "/?in_rate=48000"
		b := startBridge(t, "", func(o *options) { o.dialer = dialer(t, cfg) })
		conn := b.twilio(t, startText)
		go func() { // faster than real time, so that the socket's buffers fill
			for conn.WriteMessage(websocket.TextMessage, []byte(mediaText)) == nil {
				<-time.After(time.Millisecond / 4)
			}
		}()
		if got := closed(t, conn); got != 1011 {
			t.Errorf("closed with %d, want 1011", got)
		}
		attrs := b.ended(t, calls.AgentTimeout)
		if attrs["dropped"].Duration() == 0 {
			t.Error("no dropped audio counted")
		}
	})
	run(t, "byte by byte", func(t *testing.T) {
		r, _ := carry(t, startAgent(t, func(_ context.Context, c *sim.AgentConn) error {
			for range 6400 { // 200 ms
				if err := c.Audio([]byte{1}); err != nil {
					return err
				}
			}
			if err := c.Command(map[string]string{"type": "hangup"}); err != nil {
				return err
			}
			return listenOn(c)
		}), calls.AgentHangup, 1000)
		if n := len(r.ReceivedAt); n < 10 || n > 11 {
			t.Errorf("%d frames heard, want 10", n)
		}
	})
	run(t, "writes nonsense", func(t *testing.T) {
		_, attrs := carry(t, startAgent(t, func(_ context.Context, c *sim.AgentConn) error {
			for range 20 {
				if err := c.Command("nonsense"); err != nil {
					return err
				}
			}
			return listenOn(c)
		}), calls.AgentProtocol, 1011)
		if attrs["err"] == nil {
			t.Error("no error logged")
		}
	})
	run(t, "writes too much", func(t *testing.T) {
		carry(t, startAgent(t, func(_ context.Context, c *sim.AgentConn) error {
			if err := c.Command(strings.Repeat("x", 100<<10)); err != nil {
				return err
			}
			return listenOn(c)
		}), calls.AgentProtocol, 1011)
	})
	run(t, "commands in a torrent", func(t *testing.T) {
		limited := make(chan bool, 1)
		carry(t, startAgent(t, func(_ context.Context, c *sim.AgentConn) error {
			for range 500 {
				if err := c.Command(map[string]string{"type": "clear"}); err != nil {
					return err
				}
			}
			for {
				_, data, err := c.Read()
				if err != nil {
					return err
				}
				if bytes.Contains(data, []byte(`"rate_limited"`)) {
					limited <- true
					return nil
				}
			}
		}), calls.AgentHangup, 1000)
		if !<-limited {
			t.Error("not told")
		}
	})
	run(t, "commands without end", func(t *testing.T) {
		_, attrs := carry(t, startAgent(t, func(_ context.Context, c *sim.AgentConn) error {
			go listenOn(c)
			for {
				if err := c.Command(map[string]string{"type": "clear"}); err != nil {
					return nil
				}
			}
		}), calls.AgentProtocol, 1011)
		if !strings.Contains(fmt.Sprint(attrs["err"]), "commands a second") {
			t.Errorf("logged with %v", attrs["err"])
		}
	})
}

// listenOn reads until the bridge closes.
func listenOn(c *sim.AgentConn) error {
	for {
		if _, _, err := c.Read(); err != nil {
			return nil
		}
	}
}

// turns dials the frozen agent until it is told otherwise.
type turns struct {
	agent.Dialer // the honest one
	frozen       agent.Dialer
	thawed       atomic.Bool
}

func (d *turns) Dial(ctx context.Context, c *agent.Call) (agent.Conn, error) {
	if d.thawed.Load() {
		return d.Dialer.Dial(ctx, c)
	}
	return d.frozen.Dial(ctx, c)
}

// TestFrozenPeers: twenty calls whose callers read nothing and whose agents read
// nothing and talk on do not delay the one beside them by a frame.
func TestFrozenPeers(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T) {
		var group sync.WaitGroup
		defer group.Wait()
		answered := make(chan struct{}, 20)
		agents := newServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			up := websocket.Upgrader{}
			conn, err := up.Upgrade(w, r, nil)
			if err != nil {
				return
			}
			group.Go(func() {
				defer conn.Close()
				for conn.WriteMessage(websocket.BinaryMessage, make([]byte, 1280)) == nil {
					<-time.After(codec.FrameTime)
				}
			})
			answered <- struct{}{}
		}))
		defer agents.Close()
		d := &turns{
			Dialer: dialer(t, link.Config{URL: startAgent(t, sim.Echo)}),
			frozen: dialer(t, link.Config{URL: "ws" + agents.URL[4:]}),
		}
		b := startBridge(t, "", func(o *options) { o.dialer = d })
		for range 20 {
			conn := b.twilio(t, startText)
			group.Go(func() {
				for conn.WriteMessage(websocket.TextMessage, []byte(mediaText)) == nil {
					<-time.After(codec.FrameTime)
				}
			})
			<-answered
		}
		d.thawed.Store(true)
		r := call(t, b.caller(t, "vonage", 2*time.Second)) // the others are Twilio's
		b.untouched(t, "vonage", r)
		if d := ear.Quantile(r.AddedDelay(), 0.5); d >= codec.FrameTime {
			t.Errorf("half of the frames took %v or longer", d)
		}
		waitFor(t, func() bool { return b.Control().Sessions().Len() == 20 }) // the frozen ones
		if err := b.stop(); err != nil {
			t.Error(err)
		}
	})
}

// TestOrigin: WebSocket libraries that send an Origin are let in where a token guards.
func TestOrigin(t *testing.T) {
	run(t, "token", func(t *testing.T) {
		b := startBridge(t, startAgent(t, sim.Echo), func(o *options) { o.token = "secret" })
		for token, want := range map[string]int{"secret": 101, "other": 403} {
			c := b.caller(t, "twilio", time.Second)
			_, status, err := c.Dialer.Dial(t.Context(), c.URL+"/"+token, nil,
				http.Header{"Origin": {"https://library.example"}}, ws.Limits{Write: time.Second})
			if (err == nil) != (want == 101) || err != nil && status != want {
				t.Errorf("%s: %d, %v", token, status, err)
			}
		}
	})
}
