// Package operators answers agents that ask for things over HTTP, as they would of their carrier.
package operators

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"

	"voicebridge/agent"
	"voicebridge/calls"
	"voicebridge/cluster"
	"voicebridge/control"
	"voicebridge/hooks/gate"
)

// Desk takes the requests.
type Desk struct {
	c *control.Controller
	g *gate.Gate
}

// kind names what other instances ask.
const kind = "operator"

// maxBody bounds a request.
const maxBody = 64 << 10

// New makes a desk, which also answers what other instances pass on.
func New(c *control.Controller, g *gate.Gate) *Desk {
	d := &Desk{c, g}
	c.OnRemote(kind, d.remote)
	return d
}

// Doors are what is public, of the agents that there are now.
func (d *Desk) Doors() map[string]http.HandlerFunc {
	doors := map[string]http.HandlerFunc{}
	for _, a := range d.c.Agents() {
		if o := operator(a); o != nil {
			for _, pattern := range o.Doors() {
				doors[pattern] = func(w http.ResponseWriter, r *http.Request) { d.serve(o, w, r) }
			}
		}
	}
	return doors
}

// operator is how an agent asks for things; nil: it does not.
func operator(a control.Agent) agent.Operator {
	d, has := a.Dialer.(interface{ Protocol() agent.Protocol })
	if !has {
		return nil
	}
	o, _ := d.Protocol().(agent.Operator)
	return o
}

// serve gives a request to the agents whose it is: several may have the same credentials.
func (d *Desk) serve(any agent.Operator, w http.ResponseWriter, r *http.Request) {
	var names []string
	for name, a := range d.c.Agents() {
		if o := operator(a); o != nil && o.Knows(r) {
			names, any = append(names, name), o
		}
	}
	switch {
	case len(names) > 0:
		d.answer(any, names, w, r)
	case !d.g.Stranger():
		http.Error(w, "too many", http.StatusTooManyRequests)
	default:
		any.Refuse(w)
	}
}

// answer has a request carried out where the call's stream is: here, or at another instance.
func (d *Desk) answer(o agent.Operator, names []string, w http.ResponseWriter, r *http.Request) {
	if d.c.Cluster() == nil {
		o.Serve(w, r, &operations{ctx: r.Context(), c: d.c, agents: names})
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		http.Error(w, "the request is too long", http.StatusRequestEntityTooLarge)
		return
	}
	ask := request{Agents: names, Method: r.Method, URL: r.URL.String(), Type: r.Header.Get("Content-Type"), Body: body}
	got, err := d.carryOut(r.Context(), o, &ask)
	if err == nil && !got.Found {
		got, err = d.elsewhere(r.Context(), &ask)
	}
	switch {
	case err != nil: // not that there is no such call: agents would take it for over
		http.Error(w, "not all instances answer", http.StatusServiceUnavailable)
		return
	case got.Found:
		w.Header().Set("Content-Type", got.Type)
		w.WriteHeader(got.Status)
		_, _ = w.Write(got.Body) // who asked has gone
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	o.Serve(w, r, &operations{ctx: r.Context(), c: d.c, agents: names})
}

// request is one as other instances are asked.
type request struct {
	Agents            []string
	Method, URL, Type string
	Body              []byte
}

// reply is an answer to one. Found tells that the call's stream is there.
type reply struct {
	Found  bool
	Status int
	Type   string
	Body   []byte
}

// remote carries out what has come to another instance.
func (d *Desk) remote(ctx context.Context, _ string, body json.RawMessage) (any, error) {
	var ask request
	if err := json.Unmarshal(body, &ask); err != nil {
		return nil, err
	}
	for _, name := range ask.Agents {
		if o := operator(d.c.Agent(name)); o != nil {
			return d.carryOut(ctx, o, &ask)
		}
	}
	return &reply{}, nil
}

// carryOut answers a request about a call whose stream is here.
func (d *Desk) carryOut(ctx context.Context, o agent.Operator, ask *request) (*reply, error) {
	r, err := http.NewRequestWithContext(ctx, ask.Method, ask.URL, bytes.NewReader(ask.Body))
	if err != nil {
		return nil, fmt.Errorf("operators: request: %w", err)
	}
	r.Header.Set("Content-Type", ask.Type)
	does := &operations{ctx: ctx, c: d.c, agents: ask.Agents, live: true}
	mux := http.NewServeMux() // knows what is in the path
	for _, pattern := range o.Doors() {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { o.Serve(w, r, does) })
	}
	w := answered{header: http.Header{}, status: http.StatusOK}
	mux.ServeHTTP(&w, r)
	return &reply{Found: does.found, Status: w.status, Type: w.header.Get("Content-Type"), Body: w.body.Bytes()}, nil
}

// elsewhere asks all other instances. The error tells that one has not answered, and none has found the call.
func (d *Desk) elsewhere(ctx context.Context, ask *request) (*reply, error) {
	if err := d.c.Cluster().Renew(ctx); err != nil { // there may be new ones
		return nil, fmt.Errorf("operators: %w", err)
	}
	var mu sync.Mutex
	var group sync.WaitGroup
	var failed error
	found := &reply{}
	for _, name := range d.c.Cluster().Others() {
		group.Go(func() {
			var got reply
			err := d.c.Cluster().Ask(ctx, name, kind, ask, &got)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil && got.Found:
				found = &got
			case err != nil && !errors.Is(err, cluster.ErrNobody):
				failed = err
			}
		})
	}
	group.Wait()
	if found.Found {
		return found, nil
	}
	return found, failed
}

// answered is a response as it is passed on; it implements http.ResponseWriter.
type answered struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answered) Header() http.Header { return a.header }

func (a *answered) WriteHeader(status int) { a.status = status }

func (a *answered) Write(b []byte) (int, error) { return a.body.Write(b) }

// operations are what agents may do to their calls.
type operations struct {
	ctx    context.Context
	c      *control.Controller
	agents []string
	live   bool // only those whose stream is here
	found  bool // a call was
}

// Find implements agent.Operations.
func (o *operations) Find(is func(id string) bool) (calls.Call, bool) {
	list := o.c.Calls().List(1, func(c *calls.Call) bool {
		return slices.Contains(o.agents, c.Agent) && is(c.ID) && (!o.live || o.c.Session(c.ID) != nil)
	})
	if len(list) == 0 {
		return calls.Call{}, false
	}
	o.found = true
	return list[0], true
}

// Hangup implements agent.Operations.
func (o *operations) Hangup(id string) error { return o.c.Hangup(o.ctx, id, true) }

// Digits implements agent.Operations.
func (o *operations) Digits(id, digits string) error { return o.c.Digits(o.ctx, id, digits) }

// Transfer implements agent.Operations.
func (o *operations) Transfer(id string, t *calls.TransferRequest) error {
	err := o.c.Transfers().Ask(o.ctx, id, t)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, control.ErrOver), errors.Is(err, control.ErrNotStarted), errors.Is(err, control.ErrNoCall):
		return err
	}
	return fmt.Errorf("%w: %w", agent.ErrRefused, err)
}
