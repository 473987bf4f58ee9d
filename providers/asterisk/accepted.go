package asterisk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"voicebridge/providers"
	"voicebridge/ws"
)

// accepted are connections that Asterisk makes to the bridge (type=outbound_websocket in
// ari.conf). One at a time counts: the last one. Requests go over it, too, so that it carries
// them as an http.RoundTripper.
type accepted struct {
	user, password string

	mu      sync.Mutex
	wanted  bool          // somebody listens
	conn    *ws.Conn      // nil: there is none
	came    chan *ws.Conn // for who listens
	asked   int
	waiting map[string]chan<- *restResponse // by request
}

func newAccepted(user, password string) *accepted {
	return &accepted{user: user, password: password, came: make(chan *ws.Conn),
		waiting: map[string]chan<- *restResponse{}}
}

// Accept implements providers.Accepter.
func (c *commands) Accept(w http.ResponseWriter, r *http.Request) error {
	if c.socket == nil {
		return fmt.Errorf("%w: the account's Asterisk does not connect to the bridge", providers.ErrSignature)
	}
	return c.socket.accept(w, r)
}

// accept takes a connection that shows the account's credentials.
func (a *accepted) accept(w http.ResponseWriter, r *http.Request) error {
	user, password, _ := r.BasicAuth()
	shown, wanted := sha256.Sum256([]byte(user+"\x00"+password)), sha256.Sum256([]byte(a.user+"\x00"+a.password))
	if subtle.ConstantTimeCompare(shown[:], wanted[:]) != 1 {
		return fmt.Errorf("%w: username and password are not those of the account", providers.ErrSignature)
	}
	a.mu.Lock()
	heard, before := a.wanted, a.conn
	a.mu.Unlock()
	if !heard { // another instance listens, or this one stops
		http.Error(w, "nobody listens here", http.StatusServiceUnavailable)
		return nil
	}
	conn, err := ws.Accept(w, r, []string{"ari"}, ws.Limits{Text: eventLimit, Binary: eventLimit, Write: sendTime})
	if err != nil {
		return nil // it has been answered
	}
	if before != nil { // it may be one that has ended without a word
		before.Close(ws.CloseNormal, "replaced")
	}
	select {
	case a.came <- conn:
	case <-time.After(sendTime):
		conn.Close(ws.CloseGoingAway, "")
		conn.Release()
	}
	return nil
}

// want tells whether somebody listens.
func (a *accepted) want(heard bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.wanted = heard
}

// wait waits for a connection to listen to.
func (a *accepted) wait(ctx context.Context) (*ws.Conn, error) {
	select {
	case conn := <-a.came:
		a.mu.Lock()
		a.conn = conn
		a.mu.Unlock()
		return conn, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// over ends what waits for replies on a connection that has ended.
func (a *accepted) over() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.conn = nil
	for id, w := range a.waiting {
		close(w)
		delete(a.waiting, id)
	}
}

// restRequest and restResponse are a request of ARI's and its reply as messages.
type restRequest struct {
	Type        string      `json:"type"`
	Transaction string      `json:"transaction_id"`
	Request     string      `json:"request_id"`
	Method      string      `json:"method"`
	URI         string      `json:"uri"`
	Query       []restQuery `json:"query_strings,omitempty"`
	ContentType string      `json:"content_type,omitempty"`
	Body        string      `json:"message_body,omitempty"`
}

type restQuery struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type restResponse struct {
	Request string `json:"request_id"`
	Status  int    `json:"status_code"`
	Reason  string `json:"reason_phrase"`
	Type    string `json:"content_type"`
	Body    string `json:"message_body"`
}

// errNoConnection is the error of requests while there is no connection.
var errNoConnection = errors.New("asterisk: Asterisk has not connected")

// RoundTrip implements http.RoundTripper.
func (a *accepted) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		defer r.Body.Close()
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
	}
	req := restRequest{Type: "RESTRequest", Method: r.Method, URI: strings.TrimPrefix(r.URL.EscapedPath(), "/"),
		ContentType: r.Header.Get("Content-Type"), Body: string(body)}
	for name, values := range r.URL.Query() {
		for _, v := range values {
			req.Query = append(req.Query, restQuery{name, v})
		}
	}
	reply := make(chan *restResponse, 1)
	a.mu.Lock()
	conn := a.conn
	a.asked++
	req.Request = "r" + strconv.Itoa(a.asked)
	if conn != nil {
		a.waiting[req.Request] = reply
	}
	a.mu.Unlock()
	if conn == nil {
		return nil, errNoConnection
	}
	defer func() {
		a.mu.Lock()
		delete(a.waiting, req.Request)
		a.mu.Unlock()
	}()
	message, err := json.Marshal(req)
	if err == nil {
		err = conn.Write(false, message)
	}
	if err != nil {
		return nil, err
	}
	select {
	case said := <-reply:
		if said == nil {
			return nil, errNoConnection
		}
		return &http.Response{Status: strconv.Itoa(said.Status) + " " + said.Reason, StatusCode: said.Status,
				Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{"Content-Type": {said.Type}},
				Body: io.NopCloser(bytes.NewReader([]byte(said.Body))), ContentLength: int64(len(said.Body)),
				Request: r},
			nil
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

// replied takes a message that is a reply.
func (a *accepted) replied(message []byte) {
	var said restResponse
	if json.Unmarshal(message, &said) != nil || said.Status < 100 || said.Status > 599 {
		return // who waits gives up some time
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if w := a.waiting[said.Request]; w != nil {
		w <- &said // it has room for one
		delete(a.waiting, said.Request)
	}
}
