package link

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"voicebridge/agent"
	"voicebridge/notify"
	"voicebridge/ws"
)

// Attended are agents that connect for a call they are told of. It implements
// agent.Dialer.
type Attended struct {
	incoming
	announce  notify.Target
	publicURL string

	posts sync.WaitGroup // announcements under way, each bounded by its time-out

	mu      sync.Mutex
	waiting map[string]*appointment // by session
}

// Join waits for the announcements that are under way, once nothing dials any more.
func (a *Attended) Join() { a.posts.Wait() }

// appointment is a call that waits for its agent.
type appointment struct {
	token string
	taken bool
	conn  chan *Conn // of size 1
}

// NewAttended makes agents that are told of calls at the target, and connect to
// the bridge at publicURL. Errors name the field.
func NewAttended(cfg Incoming, announce notify.Target, publicURL string) (*Attended, error) {
	in, err := newIncoming(cfg)
	if err != nil {
		return nil, err
	}
	if err := announce.Check(); err != nil {
		return nil, fmt.Errorf("announce.%w", err)
	}
	return &Attended{incoming: in, announce: announce, publicURL: strings.TrimSuffix(publicURL, "/"),
		waiting: map[string]*appointment{}}, nil
}

// announcement tells an application of a call that waits.
type announcement struct {
	SessionID string         `json:"session_id"`
	URL       string         `json:"url"`
	Token     string         `json:"token"`
	Call      agent.CallInfo `json:"call"`
}

// Dial implements agent.Dialer: it tells the application, and waits for its
// agent.
func (a *Attended) Dial(ctx context.Context, call *agent.Call) (agent.Conn, error) {
	ctx, stop := context.WithTimeout(ctx, a.Wait)
	defer stop()
	ap := &appointment{token: rand.Text(), conn: make(chan *Conn, 1)}
	a.mu.Lock()
	a.waiting[call.Session] = ap
	a.mu.Unlock()
	defer a.cancel(call.Session, ap)
	// The agent may come before the application has answered, and that may have to
	// do with the agent as long as it likes.
	told := make(chan error, 1)
	a.posts.Go(func() { told <- a.tell(context.WithoutCancel(ctx), call, ap) })
	for {
		select {
		case c := <-ap.conn:
			c.loop = ws.LoopOf(ctx)
			if err := c.start(call, false); err != nil {
				c.ws.Close(ws.CloseInternal, "start failed")
				c.Release()
				return nil, err
			}
			return c, nil
		case err := <-told:
			if err != nil && !a.coming(ap) {
				return nil, fmt.Errorf("agent: announce: %w", err)
			}
		case <-ctx.Done():
			return nil, fmt.Errorf("agent: none came within %v", a.Wait)
		}
	}
}

// tell tells the application of a call.
func (a *Attended) tell(ctx context.Context, call *agent.Call, ap *appointment) error {
	base, _ := strings.CutPrefix(a.publicURL, "http") // https becomes wss
	return a.announce.Post(ctx, &announcement{
		SessionID: call.Session, URL: "ws" + base + "/v1/calls/" + call.Session + "/agent", Token: ap.token,
		Call: agent.Info(call),
	}, nil)
}

// cancel ends the wait for an agent, and sends one away that came too late.
func (a *Attended) cancel(session string, ap *appointment) {
	a.mu.Lock()
	delete(a.waiting, session)
	a.mu.Unlock()
	select {
	case c := <-ap.conn:
		c.ws.Close(ws.CloseNotReady, "too late")
		c.Release()
	default:
	}
}

// coming reports whether an agent is being let in.
func (a *Attended) coming(ap *appointment) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return ap.taken
}

func (a *Attended) appointment(session string) *appointment {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.waiting[session]
}

// Waits reports whether a call waits for its agent.
func (a *Attended) Waits(session string) bool { return a.appointment(session) != nil }

// Admits reports whether a request shows the token of a call that waits.
func (a *Attended) Admits(r *http.Request, session string) bool {
	ap := a.appointment(session)
	return ap != nil && same(ap.token, token(r))
}

// Attend takes the agent of a call that is admitted.
func (a *Attended) Attend(w http.ResponseWriter, r *http.Request, session string) {
	a.mu.Lock()
	ap := a.waiting[session]
	taken := ap == nil || ap.taken
	if !taken {
		ap.taken = true
	}
	a.mu.Unlock()
	if taken {
		http.Error(w, "the call has an agent", http.StatusConflict)
		return
	}
	c, err := a.accept(w, r)
	if late := a.deliver(session, ap, c, err); late {
		c.ws.Close(ws.CloseNotReady, "too late")
		c.Release()
	}
}

// deliver hands a connection, or the failure to make one, to the call that waits.
// It is too late where none does.
func (a *Attended) deliver(session string, ap *appointment, c *Conn, err error) (late bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case err != nil: // the agent may try again
		ap.taken = false
	case a.waiting[session] != ap:
		return true
	default:
		ap.conn <- c
	}
	return false
}
