// Package yardstick has what a bridge is compared with: the plain relay that one writes
// first, and the least that Go can do.
package yardstick

import (
	"context"
	"net"
	"net/http"
	"time"

	"github.com/gorilla/websocket"
)

// Relay is the yardstick: what one writes first to pass messages on, with no
// knowledge of them. It takes connections at the listener, connects to the agent for
// each, and copies messages both ways, until ctx ends.
func Relay(ctx context.Context, l net.Listener, agent string) error {
	return serveYardstick(ctx, l, agent, func(carrier, agent *websocket.Conn) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			relay(carrier, agent)
		}()
		relay(agent, carrier)
		<-done
	})
}

// relay copies messages until there are no more, and ends the other side.
func relay(from, to *websocket.Conn) {
	defer to.Close()
	for {
		kind, data, err := from.ReadMessage()
		if err != nil {
			return
		}
		if to.WriteMessage(kind, data) != nil {
			return
		}
	}
}

// serveYardstick answers handshakes, and has pass called with both ends of each.
func serveYardstick(ctx context.Context, l net.Listener, agent string,
	pass func(carrier, agent *websocket.Conn)) error {
	up := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
	srv := &http.Server{ReadHeaderTimeout: 10 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			carrier, err := up.Upgrade(w, r, nil)
			if err != nil {
				return // it has been answered
			}
			defer carrier.Close()
			to, _, err := websocket.DefaultDialer.DialContext(r.Context(), agent, nil)
			if err != nil {
				return
			}
			defer to.Close()
			pass(carrier, to)
		})}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.Serve(l); ctx.Err() == nil {
		return err
	}
	return nil
}
