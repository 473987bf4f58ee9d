package link

import (
	"cmp"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"voicebridge/agent"
	"voicebridge/codec"
	"voicebridge/ws"
)

// Incoming says how agents connect to the bridge.
type Incoming struct {
	Dialect  *agent.Dialect
	Protocol agent.Protocol // of the dialect
	Write    time.Duration  // for a message to be taken by the agent
	Ping     time.Duration  // between pings
	Wait     time.Duration  // of a call, for an agent
	Ready    time.Duration  // for a parked agent to say that it is ready
}

// Defaults of Incoming's times.
const (
	DefaultWait  = 10 * time.Second
	DefaultReady = 2 * time.Second
)

// incoming is a checked Incoming.
type incoming struct {
	Incoming
	hears, speaks codec.Format
}

func newIncoming(cfg Incoming) (incoming, error) {
	in := incoming{Incoming: cfg}
	in.Write = cmp.Or(cfg.Write, DefaultWrite)
	in.Ping = cmp.Or(cfg.Ping, DefaultPing)
	in.Wait = cmp.Or(cfg.Wait, DefaultWait)
	in.Ready = cmp.Or(cfg.Ready, DefaultReady)
	var err error
	in.hears, in.speaks, err = cfg.Protocol.Formats(&url.URL{})
	return in, err
}

// Formats implements agent.Dialer.
func (in *incoming) Formats() (hears, speaks codec.Format) { return in.hears, in.speaks }

// accept takes a connection whose token is good. Refusals are answered.
func (in *incoming) accept(w http.ResponseWriter, r *http.Request) (*Conn, error) {
	if _, _, err := in.Protocol.Formats(r.URL); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return nil, err
	}
	common := func(p string) bool { return slices.Contains(in.Dialect.Subprotocols, p) }
	if offered := ws.Subprotocols(r); len(offered) > 0 && !slices.ContainsFunc(offered, common) {
		http.Error(w, "no common subprotocol: offer "+strings.Join(in.Dialect.Subprotocols, " or "),
			http.StatusUpgradeRequired)
		return nil, errors.New("agent: no common subprotocol")
	}
	limits := ws.Limits{Write: in.Write, AnyOrigin: true, Fresh: true, Pieces: in.Dialect.Samples}
	limits.Text, limits.Binary = in.Protocol.Limits(r.URL)
	conn, err := ws.Accept(w, r, in.Dialect.Subprotocols, limits)
	if err != nil {
		return nil, err
	}
	return newConn(conn, in.Protocol.NewTalk(r.URL), in.Ping), nil
}

// token returns what a request shows: as a bearer token, in the query, or as a
// subprotocol, for clients that can set no headers.
func token(r *http.Request) string {
	if t, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		return t
	}
	for _, p := range ws.Subprotocols(r) {
		if t, ok := strings.CutPrefix(p, "bearer."); ok {
			return t
		}
	}
	return r.URL.Query().Get("token")
}

// same compares tokens in constant time; an empty one is never the same.
func same(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return a != "" && subtle.ConstantTimeCompare(x[:], y[:]) == 1
}
