package bridge_test

import (
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"

	"voicebridge/providers/all"
	"voicebridge/providers/providertest/commanded"
	"voicebridge/sim/memnet"
	"voicebridge/ws"
)

// In the tests all clients reach servers in memory. None keeps a connection: those of
// one bubble of virtual time are no other's.
func init() {
	transport := http.DefaultTransport.(*http.Transport)
	transport.DialContext, transport.DisableKeepAlives = memnet.Dial, true
	websocket.DefaultDialer.NetDialContext = memnet.Dial
}

// network is that of the tests' own connections.
var network = ws.Dialer{Net: memnet.Dial}

// specs are all carriers, and one that is unlike them.
var specs = append(slices.Clone(all.Specs), commanded.Spec)

// virtual runs a test in virtual time.
func virtual(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		t.Cleanup(func() { time.Sleep(time.Minute) }) // for what lingers: later no time passes any more
		test(t)
	})
}

// run runs a part of a test in virtual time.
func run(t *testing.T, name string, test func(t *testing.T)) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		virtual(t, test)
	})
}

// server answers requests in memory.
type server struct {
	URL   string
	Close func()
}

func newServer(h http.Handler) *server {
	url, stop := memnet.Serve(h)
	return &server{url, stop}
}
