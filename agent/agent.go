// Package agent speaks to AI agents: voicebridge.v1, raw PCM over a WebSocket,
// with the bridge dialling the agent. docs/agent-protocol.md is the reference.
package agent

import (
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

	"voicebridge/codec"
	"voicebridge/session"
	"voicebridge/ws"
)

// Protocol is the WebSocket subprotocol that the bridge offers.
const Protocol = "voicebridge.v1"

// DefaultRate is the sample rate where none is asked for.
const DefaultRate = 16000

// Limits of the connection to an agent.
const (
	MaxText   = 64 << 10
	MaxBinary = 1 << 20
)

// Config says how an agent is reached.
type Config struct {
	// URL is ws:// or wss://. Its query may choose in_rate, out_rate and
	// audio=json; the agent receives it as it is.
	URL string
	// InputRate and OutputRate are what the agent hears and speaks; 0 leaves it
	// to the URL, and then to DefaultRate.
	InputRate, OutputRate int
	Bearer                string      // sent as Authorization: Bearer, if not empty
	Secret                string      // signs the handshake, if not empty; see Signature
	Header                http.Header // more headers for the handshake
	Plaintext             bool        // allows ws:// to other machines
	Attempt               time.Duration
	Write                 time.Duration // for a message to be taken by the agent
	Ping                  time.Duration // between pings; twice without a sign of life ends the connection
	Ready                 time.Duration // wait so long for the agent's ready, which may choose the rates; 0: do not
}

// Defaults of Config's times.
const (
	DefaultAttempt = 3 * time.Second
	DefaultWrite   = 10 * time.Second
	DefaultPing    = 15 * time.Second
	attempts       = 2
	retryAfter     = 250 * time.Millisecond
)

// Dialer reaches one agent; it implements session.Dialer.
type Dialer struct {
	cfg           Config
	url           *url.URL
	json          bool
	hears, speaks codec.Format
}

// New checks the configuration. Its errors name the field.
func New(cfg Config) (*Dialer, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil {
		return nil, errors.New("url: is not a URL") // err would repeat it, secrets and all
	}
	if u.Scheme != "ws" && u.Scheme != "wss" || u.Host == "" {
		shown, _, _ := strings.Cut(cfg.URL, "?") // what follows may be secret
		return nil, fmt.Errorf("url: %q must begin with ws:// or wss:// and name a host", shown[strings.LastIndex(shown, "@")+1:])
	}
	if u.User != nil {
		return nil, errors.New("url: a user and password in it are not sent: use bearer, secret or headers")
	}
	if u.Scheme == "ws" && !cfg.Plaintext && !loopback(u.Hostname()) {
		return nil, fmt.Errorf("url: ws://%s sends the call's audio in the clear: use wss://, or allow it with plaintext: true", u.Host)
	}
	if err := checkHeaders(cfg); err != nil {
		return nil, err
	}
	d := &Dialer{cfg: cfg, url: u}
	if d.hears, err = format("in_rate", "input_rate", u, cfg.InputRate); err != nil {
		return nil, err
	}
	if d.speaks, err = format("out_rate", "output_rate", u, cfg.OutputRate); err != nil {
		return nil, err
	}
	switch a := u.Query().Get("audio"); a {
	case "", "binary":
	case "json":
		d.json = true
	default:
		return nil, fmt.Errorf("url: audio=%s must be binary or json", a)
	}
	for _, t := range []struct {
		v   *time.Duration
		def time.Duration
	}{{&d.cfg.Attempt, DefaultAttempt}, {&d.cfg.Write, DefaultWrite}, {&d.cfg.Ping, DefaultPing}} {
		if *t.v == 0 {
			*t.v = t.def
		}
	}
	return d, nil
}

// checkHeaders refuses what a request cannot carry, and what the handshake itself
// sets.
func checkHeaders(cfg Config) error {
	if !httpguts.ValidHeaderFieldValue(cfg.Bearer) {
		return errors.New("bearer: has characters that a header cannot carry")
	}
	for name, values := range cfg.Header {
		own := strings.HasPrefix(strings.ToLower(name), "sec-websocket-") ||
			slices.Contains([]string{"Host", "Connection", "Upgrade", "Authorization", "Voicebridge-Session", "Voicebridge-Signature"}, http.CanonicalHeaderKey(name))
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

func format(query, field string, u *url.URL, rate int) (codec.Format, error) {
	if rate == 0 {
		rate = DefaultRate
		if q := u.Query().Get(query); q != "" {
			n, err := strconv.Atoi(q)
			if err != nil {
				return codec.Format{}, fmt.Errorf("url: %s=%s is not a number", query, q)
			}
			field, rate = "url: "+query, n
		}
	}
	f := codec.Format{Encoding: codec.L16LE, Rate: rate}
	if !f.Valid() {
		return f, fmt.Errorf("%s: %d must be one of %v", field, rate, codec.Rates)
	}
	return f, nil
}

// Formats implements session.Dialer.
func (d *Dialer) Formats() (hears, speaks codec.Format) { return d.hears, d.speaks }

// Dial implements session.Dialer: two attempts, the second only where it may
// help.
func (d *Dialer) Dial(ctx context.Context, call *session.Call) (session.Agent, error) {
	var err error
	for i := range attempts {
		if i > 0 {
			select {
			case <-time.After(retryAfter):
			case <-ctx.Done():
				return nil, fmt.Errorf("agent: dial %s: %w", d.url.Host, errors.Join(context.Cause(ctx), err))
			}
		}
		var c *Conn
		var again bool
		if c, again, err = d.attempt(ctx, call); err == nil {
			return c, nil
		}
		if !again {
			break
		}
	}
	return nil, fmt.Errorf("agent: dial %s: %w", d.url.Host, err)
}

func (d *Dialer) attempt(ctx context.Context, call *session.Call) (_ *Conn, again bool, err error) {
	dial, cancel := context.WithTimeout(ctx, d.cfg.Attempt)
	defer cancel()
	h := d.cfg.Header.Clone()
	if h == nil {
		h = http.Header{}
	}
	h.Set("Voicebridge-Session", call.Session)
	if d.cfg.Bearer != "" {
		h.Set("Authorization", "Bearer "+d.cfg.Bearer)
	}
	if d.cfg.Secret != "" {
		h.Set("Voicebridge-Signature", Signature(d.cfg.Secret, time.Now(), call.Session, d.url.RequestURI()))
	}
	limits := ws.Limits{Text: MaxText, Binary: MaxBinary, Write: d.cfg.Write}
	if d.json {
		limits.Text = MaxBinary
	}
	conn, status, err := ws.Dial(dial, d.url.String(), Protocol, h, limits)
	if err != nil {
		return nil, status == 0 || status == http.StatusTooManyRequests || status >= 500, err
	}
	c := newConn(conn, d.hears, d.speaks, d.cfg.Ping)
	c.json = d.json
	c.awaiting.Store(d.cfg.Ready > 0)
	if err := c.start(call); err != nil {
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

// readyOr waits for ready, and frees the connection if it does not come, or the
// call ends meanwhile.
func (c *Conn) readyOr(ctx context.Context, limit time.Duration) error {
	stop := context.AfterFunc(ctx, func() { c.ws.Close(ws.CloseNormal, "the call is over") })
	err := c.awaitReady(limit)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		c.ws.Close(ws.CloseNotReady, "")
		c.Release()
	}
	return err
}

// Signature is the value of the Voicebridge-Signature header: the time, and the
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

// DialTime is how long dialling may take with the given times for an attempt and
// for ready.
func DialTime(attempt, ready time.Duration) time.Duration {
	return attempts*attempt + 2*retryAfter + ready
}
