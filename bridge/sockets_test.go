package bridge_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"voicebridge/agent/link"
	"voicebridge/calls"
	"voicebridge/codec"
	"voicebridge/control"
	"voicebridge/providers/asterisk"
	"voicebridge/providers/asterisk/ari"
	"voicebridge/sim"
	"voicebridge/sim/ear"
	"voicebridge/ws"
)

// mostOfIt is how much must come back in real time: a machine that does other things for more than 200 ms makes holes.
const mostOfIt = 0.6

// TestSockets: what all other tests do in memory and in virtual time works over TCP,
// with event loops. It is judged by what was said, not by when.
func TestSockets(t *testing.T) {
	for _, spec := range specs {
		t.Run(spec.Name, func(t *testing.T) {
			t.Parallel()
			agents := &sim.Agent{Talk: sim.Echo, Log: slog.New(slog.DiscardHandler)}
			l := listenTCP(t)
			srv := &http.Server{Handler: agents, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
			go func() { _ = srv.Serve(l) }() // ends with Close
			t.Cleanup(func() { srv.Close(); agents.Wait() })
			b := startBridge(t, "", func(o *options) {
				o.sockets = true
				o.dialer = dialer(t, link.Config{URL: "ws://" + l.Addr().String() + "/"})
				o.session.Prebuffer = 700 * time.Millisecond // whatever else the machine does
			})
			r := call(t, b.caller(t, spec.Name, 3*time.Second))
			b.ended(t, calls.CallerHangup)
			said := r.Said[:len(r.Said)/2]
			if r.Complaints != 0 || len(r.Received) < len(said) {
				t.Fatalf("%d complaints %v, %d samples of %d came back", r.Complaints, r.Warnings, len(r.Received),
					len(r.Said))
			}
			if whole := ear.Whole(said, r.Received, r.Format.Rate, 25); whole < mostOfIt {
				t.Errorf("%.2f of the echo came back", whole)
			}
			resp, err := http.Get(b.admin + "/metrics")
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			text, err := io.ReadAll(resp.Body)
			want := `voicebridge_calls_ended_total{cause="caller_hangup",provider="` + spec.Name + `"} 1`
			if err != nil || !strings.Contains(string(text), want) {
				t.Errorf("metrics do not say %s: %v", want, err)
			}
		})
	}
}

// TestAsteriskTransports: the audio of an Asterisk comes over a WebSocket that the bridge opens,
// and over RTP, as it comes over one that Asterisk opens.
func TestAsteriskTransports(t *testing.T) {
	for _, tt := range []struct {
		transport string
		format    codec.Format
		incoming  bool
	}{
		{"dial", asterisk.Spec.Formats[0], false},
		{"rtp", asterisk.Spec.Formats[0], false},
		{"rtp", asterisk.Spec.Formats[1], true},
		{"audiosocket", asterisk.Spec.Formats[0], false},
	} {
		t.Run(tt.transport+" "+tt.format.String(), func(t *testing.T) {
			t.Parallel()
			var user, password string
			spec := *asterisk.Spec
			spec.Sample = func(base string, f codec.Format) func(any) error {
				decode := asterisk.Spec.Sample(base, f)
				return func(c any) error {
					cfg := c.(*ari.Config)
					err := decode(c)
					cfg.Transport, cfg.Address = tt.transport, "127.0.0.1"
					if cfg.Incoming = tt.incoming; cfg.Incoming {
						user, password, cfg.URL = cfg.Username, cfg.Password, ""
					}
					return err
				}
			}
			voice, err := ear.Speech(tt.format.Rate)
			if err != nil {
				t.Fatal(err)
			}
			x := &sim.Exchange{Spec: &spec}
			rest := httptest.NewServer(x)
			account, err := x.Open(rest.URL, tt.format)
			if err != nil {
				t.Fatal(err)
			}
			agents := &sim.Agent{Talk: echoFor(3 * time.Second), Log: slog.New(slog.DiscardHandler)}
			srv := httptest.NewServer(agents)
			b := startBridge(t, "", func(o *options) {
				o.sockets, o.public = true, publicURL
				o.dialer = dialer(t, link.Config{URL: "ws" + strings.TrimPrefix(srv.URL, "http") + "/"})
				o.session.Prebuffer = 400 * time.Millisecond
				o.accounts = map[string]control.Account{"main": {Spec: &spec, Account: account}}
			})
			t.Cleanup(func() {
				x.Wait()
				rest.Close()
				agents.Wait()
				srv.Close()
			})
			if tt.incoming {
				connects(t, b, rest.URL, user, password)
			}
			if err := x.Ready(t.Context()); err != nil {
				t.Fatal(err)
			}
			said := voice[:2*tt.format.Rate]
			out := x.Call("+15550001111", "+15550002222", "",
				sim.Phone{Voice: said, Length: time.Minute}).Wait()
			b.ended(t, calls.AgentHangup)
			if out.Fault != nil || len(out.Streams) != 1 || out.Streams[0].Complaints > 0 ||
				len(out.Streams[0].Said) < 2*tt.format.Rate {
				t.Fatalf("%d streams, %v", len(out.Streams), out.Fault)
			}
			r := out.Streams[0]
			if whole := ear.Whole(r.Said[:tt.format.Rate], r.Received, tt.format.Rate, 20); whole < mostOfIt {
				t.Errorf("%.2f of the echo came back", whole)
			}
		})
	}
}

// echoFor is an agent that says what it hears, and hangs up when it has heard so much: however
// long the machine takes for the call.
func echoFor(length time.Duration) func(context.Context, *sim.AgentConn) error {
	return func(_ context.Context, c *sim.AgentConn) error {
		left := int(length.Seconds() * 2 * float64(c.Hears.Rate))
		for {
			binary, data, err := c.Read()
			if err != nil {
				return nil
			}
			if !binary {
				continue
			}
			if left -= len(data); left < 0 {
				return c.Command(map[string]any{"type": "hangup"})
			}
			if err := c.Audio(data); err != nil {
				return nil
			}
		}
	}
}

// connects is an Asterisk that connects to the bridge to tell of calls, and takes requests over
// that connection: both ends of it are those of one that is connected to.
func connects(t *testing.T, b *running, rest, user, password string) {
	t.Helper()
	header := http.Header{"Authorization": {"Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))}}
	limits := ws.Limits{Text: 1 << 20, Binary: 1 << 20, Write: time.Second}
	dial := func(url string) *ws.Conn {
		for {
			conn, status, err := ws.Dial(t.Context(), url, []string{"ari"}, header, limits)
			if status == http.StatusServiceUnavailable { // nobody listens yet
				time.Sleep(10 * time.Millisecond)
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			return conn
		}
	}
	if _, status, err := ws.Dial(t.Context(), b.url+"/media/asterisk/events/main", nil, nil, limits); status !=
		http.StatusForbidden {
		t.Errorf("without credentials: %d, %v", status, err)
	}
	conn := dial(b.url + "/media/asterisk/events/main")
	feed := dial("ws" + strings.TrimPrefix(rest, "http") + "/ari/events?app=voicebridge")
	var group sync.WaitGroup
	t.Cleanup(func() {
		feed.Close(ws.CloseNormal, "")
		conn.Close(ws.CloseNormal, "")
		group.Wait()
		feed.Release()
		conn.Release()
	})
	group.Go(func() {
		for {
			_, event, err := feed.Read()
			if err != nil || conn.Write(false, event) != nil {
				return
			}
		}
	})
	group.Go(func() {
		for {
			_, message, err := conn.Read()
			if err != nil {
				return
			}
			reply := replyOf(t, rest, user, password, message)
			if conn.Write(false, reply) != nil {
				return
			}
		}
	})
}

// replyOf makes a request that came as a message.
func replyOf(t *testing.T, rest, user, password string, message []byte) []byte {
	t.Helper()
	var req struct {
		Type, Method, URI string
		ID                string                         `json:"request_id"`
		Query             []struct{ Name, Value string } `json:"query_strings"`
		Body              string                         `json:"message_body"`
	}
	if err := json.Unmarshal(message, &req); err != nil || req.Type != "RESTRequest" {
		t.Errorf("%s: %v", message, err)
	}
	q := url.Values{}
	for _, one := range req.Query {
		q.Add(one.Name, one.Value)
	}
	r, err := http.NewRequest(req.Method, rest+"/ari/"+req.URI+"?"+q.Encode(), strings.NewReader(req.Body))
	if err != nil {
		t.Error(err)
		return nil
	}
	r.SetBasicAuth(user, password)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Error(err)
		return nil
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	reply, _ := json.Marshal(map[string]any{"type": "RESTResponse", "request_id": req.ID,
		"status_code":   resp.StatusCode,
		"reason_phrase": "", "uri": req.URI, "content_type": "application/json", "message_body": string(body)})
	return reply
}
