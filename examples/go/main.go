// An agent in Go that says what it hears. Run: go run ./examples/go [ADDRESS]
package main

import (
	"fmt"
	"log"
	"net/http"
	"os"

	"github.com/gorilla/websocket"
)

var upgrader = websocket.Upgrader{Subprotocols: []string{"voicebridge.v1"}}

func call(w http.ResponseWriter, r *http.Request) {
	conn, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return // Upgrade has answered
	}
	defer conn.Close()
	for {
		kind, data, err := conn.ReadMessage()
		if err != nil {
			return // the call is over
		}
		if kind == websocket.TextMessage {
			fmt.Println(string(data)) // start, dtmf, mark, cleared, playback, stop, ...
		} else if conn.WriteMessage(kind, data) != nil { // 20 ms of 16-bit PCM; any length may go back
			return
		}
	}
}

func main() {
	address := "127.0.0.1:9100"
	if len(os.Args) > 1 {
		address = os.Args[1]
	}
	fmt.Printf("waiting for the bridge on ws://%s/\n", address)
	log.Fatal(http.ListenAndServe(address, http.HandlerFunc(call)))
}
