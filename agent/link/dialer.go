package link

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"voicebridge/agent"
	"voicebridge/codec"
	"voicebridge/ws"
)

// Config says how an agent is reached that the bridge dials.
type Config struct {
	Dialect  *agent.Dialect
	Protocol agent.Protocol // of the dialect
	// URL is ws:// or wss://; the agent receives its query as it is.
	URL       string
	Bearer    string      // sent as Authorization: Bearer, if not empty
	Secret    string      // signs the handshake, if not empty; see Signature
	Header    http.Header // more headers for the handshake
	Plaintext bool        // allows ws:// to other machines
	Attempt   time.Duration
	Write     time.Duration // for a message to be taken by the agent
	Ping      time.Duration // between pings; twice without a sign of life ends the connection
	Ready     time.Duration // wait so long for the agent to say that it is ready; 0: do not
	Dialer    ws.Dialer
}

// Defaults of Config's times.
const (
	DefaultAttempt = 3 * time.Second
	DefaultWrite   = 10 * time.Second
	// DefaultPing finds an agent that hangs within 10 to 15 s, in which its caller hears nothing. One
	// that is busy for less, such as a program that waits for a model without letting anything else
	// run, is left alone.
	DefaultPing = 5 * time.Second
	attempts    = 2
	retryAfter  = 250 * time.Millisecond
)

// Dialer reaches one agent; it implements agent.Dialer.
type Dialer struct {
	cfg           Config
	url           *url.URL
	hears, speaks codec.Format
}

// New checks the configuration. Its errors name the field.
func New(cfg Config) (*Dialer, error) {
	if service, is := cfg.Protocol.(agent.Addresser); is {
		var err error
		if cfg.URL, err = service.Address(cfg.URL); err != nil {
			return nil, err
		}
	}
	u, err := checkURL(cfg.URL, cfg.Plaintext)
	if err == nil {
		err = checkHeaders(cfg)
	}
	if err != nil {
		return nil, err
	}
	d := &Dialer{cfg: cfg, url: u}
	if d.hears, d.speaks, err = cfg.Protocol.Formats(u); err != nil {
		return nil, err
	}
	d.cfg.Attempt = cmp.Or(cfg.Attempt, AttemptOf(cfg.Dialect))
	d.cfg.Write = cmp.Or(cfg.Write, DefaultWrite)
	d.cfg.Ping = cmp.Or(cfg.Ping, DefaultPing)
	d.cfg.Ready = ReadyOf(cfg.Dialect, cfg.Ready)
	return d, nil
}

// AttemptOf returns how long agents of a dialect may take to accept a connection, where nothing is
// configured.
func AttemptOf(d *agent.Dialect) time.Duration { return cmp.Or(d.Attempt, DefaultAttempt) }

// ReadyOf returns how long they may take to be ready; 0: they are not asked.
func ReadyOf(d *agent.Dialect, configured time.Duration) time.Duration {
	return cmp.Or(configured, d.Ready)
}

func checkURL(s string, plaintext bool) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, errors.New("url: is not a URL") // err would repeat it, secrets and all
	}
	if u.Scheme != "ws" && u.Scheme != "wss" || u.Host == "" {
		shown, _, _ := strings.Cut(s, "?") // what follows may be secret
		return nil, fmt.Errorf("url: %q must begin with ws:// or wss:// and name a host",
			shown[strings.LastIndex(shown, "@")+1:])
	}
	if u.User != nil {
		return nil, errors.New("url: a user and password in it are not sent: use bearer, secret or headers")
	}
	if u.Scheme == "ws" && !plaintext && !loopback(u.Hostname()) {
		return nil, fmt.Errorf("url: ws://%s sends the call's audio in the clear: use wss://, or allow it with "+
			"plaintext: true", u.Host)
	}
	return u, nil
}

// reserved are the headers that the handshake itself sets.
var reserved = []string{"Host", "Connection", "Upgrade", "Authorization", "Voicebridge-Session",
	"Voicebridge-Signature"}

// checkHeaders refuses what a request cannot carry, and what the handshake itself
// sets.
func checkHeaders(cfg Config) error {
	if !httpguts.ValidHeaderFieldValue(cfg.Bearer) {
		return errors.New("bearer: has characters that a header cannot carry")
	}
	for name, values := range cfg.Header {
		own := strings.HasPrefix(strings.ToLower(name), "sec-websocket-") ||
			slices.Contains(reserved, http.CanonicalHeaderKey(name))
		if own || !httpguts.ValidHeaderFieldName(name) {
			return fmt.Errorf("headers: %q is not a name that may be set", name)
		}
		for _, v := range values {
			if !httpguts.ValidHeaderFieldValue(v) {
				return fmt.Errorf("headers: the value of %s has characters that a header cannot carry", name)
			}
		}
	}
	return nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Protocol is how the agent is spoken to.
func (d *Dialer) Protocol() agent.Protocol { return d.cfg.Protocol }

// Formats implements agent.Dialer.
func (d *Dialer) Formats() (hears, speaks codec.Format) { return d.hears, d.speaks }

// Dial implements agent.Dialer: two attempts, the second only where it may
// help.
func (d *Dialer) Dial(ctx context.Context, call *agent.Call) (agent.Conn, error) {
	c, again, err := d.attempt(ctx, call)
	for i := 1; i < attempts && err != nil && again; i++ {
		select {
		case <-time.After(retryAfter):
		case <-ctx.Done():
			return nil, fmt.Errorf("agent: dial %s: %w", d.url.Host, errors.Join(context.Cause(ctx), err))
		}
		c, again, err = d.attempt(ctx, call)
	}
	if err != nil {
		return nil, fmt.Errorf("agent: dial %s: %w", d.url.Host, err)
	}
	return c, nil
}

// header returns that of a handshake at a URL for a call.
func (d *Dialer) header(call *agent.Call, at *url.URL) (http.Header, error) {
	h := d.cfg.Header.Clone()
	if h == nil {
		h = http.Header{}
	}
	if d.cfg.Bearer != "" {
		h.Set("Authorization", "Bearer "+d.cfg.Bearer)
	}
	if own, has := d.cfg.Protocol.(agent.Handshaker); has {
		return h, own.Handshake(at, h)
	}
	h.Set("Voicebridge-Session", call.Session)
	if d.cfg.Secret != "" {
		h.Set("Voicebridge-Signature", Signature(d.cfg.Secret, time.Now(), call.Session, d.url.RequestURI()))
	}
	return h, nil
}

// locate returns the URL of the agent of a call.
func (d *Dialer) locate(ctx context.Context, call *agent.Call) (*url.URL, error) {
	locator, is := d.cfg.Protocol.(agent.Locator)
	if !is {
		return d.url, nil
	}
	located, err := locator.Locate(ctx, d.url, call)
	if err != nil {
		return nil, fmt.Errorf("where the agent is: %w", err)
	}
	at, err := checkURL(located, d.cfg.Plaintext)
	if err != nil { // it would repeat the URL, which is secret
		return nil, errors.New("where the agent is: what was told is no URL of a WebSocket that may be dialled")
	}
	return at, nil
}

func (d *Dialer) attempt(ctx context.Context, call *agent.Call) (_ *Conn, again bool, err error) {
	dial, cancel := context.WithTimeout(ctx, d.cfg.Attempt)
	defer cancel()
	limits := ws.Limits{Write: d.cfg.Write, Fresh: true}
	limits.Text, limits.Binary = d.cfg.Protocol.Limits(d.url)
	limits.Pieces = d.cfg.Dialect.Samples
	own := *call
	call = &own
	at, err := d.locate(dial, call)
	if err != nil {
		return nil, true, err
	}
	header, err := d.header(call, at)
	if err != nil {
		return nil, false, err
	}
	conn, status, err := d.cfg.Dialer.Dial(dial, at.String(), d.cfg.Dialect.Subprotocols, header, limits)
	if err != nil {
		return nil, status == 0 || status == http.StatusTooManyRequests || status >= 500, err
	}
	c := newConn(conn, d.cfg.Protocol.NewTalk(d.url), d.cfg.Ping)
	c.loop, c.stays = ws.LoopOf(ctx), d.cfg.Dialect.Stays
	if err := c.start(call, d.cfg.Ready > 0); err != nil {
		c.ws.Close(ws.CloseInternal, "start failed")
		c.Release()
		return nil, true, err
	}
	if d.cfg.Ready > 0 {
		if err := c.readyOr(ctx, d.cfg.Ready); err != nil {
			return nil, false, err
		}
	}
	return c, false, nil
}

// Signature returns the value of the Voicebridge-Signature header: the time, and the
// HMAC-SHA256 of time, session and request target under the shared secret.
func Signature(secret string, t time.Time, session, target string) string {
	unix := strconv.FormatInt(t.Unix(), 10)
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(unix + "." + session + "." + target))
	return "t=" + unix + ",v1=" + hex.EncodeToString(mac.Sum(nil))
}

// VerifySignature checks a Voicebridge-Signature header as an agent should, but
// for the repetition of a (time, session) pair, which only the agent can know.
func VerifySignature(secret, header string, now time.Time, session, target string) error {
	first, rest, _ := strings.Cut(header, ",")
	unix, err := strconv.ParseInt(strings.TrimPrefix(first, "t="), 10, 64)
	if err != nil || !strings.HasPrefix(first, "t=") {
		return errors.New("agent: signature without a time")
	}
	t := time.Unix(unix, 0)
	if d := now.Sub(t); d > time.Minute || d < -time.Minute {
		return fmt.Errorf("agent: signature is of %v ago", d.Round(time.Second))
	}
	_, want, _ := strings.Cut(Signature(secret, t, session, target), ",")
	for v := range strings.SplitSeq(rest, ",") { // two while the secret changes
		if hmac.Equal([]byte(v), []byte(want)) {
			return nil
		}
	}
	return errors.New("agent: signature is wrong")
}

// DialTime returns how long dialling may take with the given times for an attempt and
// for ready.
func DialTime(attempt, ready time.Duration) time.Duration {
	return attempts*attempt + 2*retryAfter + ready
}
