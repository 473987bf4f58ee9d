package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"voicebridge/control"
)

const (
	// sseKeepalive keeps proxies from ending a feed on which nothing happens.
	sseKeepalive = 15 * time.Second
	// sseWrite is how long a listener may take for an event.
	sseWrite = 10 * time.Second
)

// events is the feed as server-sent events (WHATWG HTML, section 9.2). A
// listener that comes back with Last-Event-ID is told what it has missed.
func (s *Server) events(w http.ResponseWriter, a *request) {
	if !a.token.may(mayRead) {
		s.fail(w, a.Request, &apiError{http.StatusForbidden, "forbidden", "the token may not " + mayRead, 0})
		return
	}
	only := a.URL.Query().Get("call")
	if only != "" {
		call, known := s.control.Calls().Get(only)
		if !known && s.control.Cluster() == nil || known && !a.token.sees(call.Account) {
			s.fail(w, a.Request, control.ErrNoCall)
			return
		}
	}
	feed, complete, err := s.cfg.Journal.Listen(a.Context(), a.Header.Get("Last-Event-ID"))
	if err != nil {
		s.fail(w, a.Request, &apiError{http.StatusServiceUnavailable, "unavailable",
			"events cannot be read now: " + err.Error(), time.Second})
		return
	}
	defer feed.Close()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no") // nginx would hold events back
	out := http.NewResponseController(w)
	write := func(format string, args ...any) bool {
		// A failure to set the deadline shows in the write.
		_ = out.SetWriteDeadline(time.Now().Add(sseWrite))
		_, err := fmt.Fprintf(w, format, args...)
		return err == nil && out.Flush() == nil
	}
	// An id without data: from here on nothing is missed.
	if !write(": events of calls\nid: %s\n\n", feed.After) || !complete && !write("event: feed.gap\ndata: {}\n\n") {
		return
	}
	alive := time.NewTicker(sseKeepalive)
	defer alive.Stop()
	for tokens := s.tokens.Load(); ; {
		if now := s.tokens.Load(); now != tokens { // they were reloaded
			if tokens, a.token = now, s.tokenOf(a.Request); a.token == nil || !a.token.may(mayRead) {
				return
			}
		}
		select {
		case ev, ok := <-feed.Events:
			if !ok { // too slow: it may come back
				return
			}
			if only != "" && ev.Call.ID != only || !a.token.sees(ev.Call.Account) {
				continue
			}
			data, err := json.Marshal(ev)
			if err != nil || !write("id: %s\nevent: %s\ndata: %s\n\n", ev.ID, ev.Type, data) {
				return
			}
		case <-alive.C:
			if !write(": still here\n\n") {
				return
			}
		case <-a.Context().Done():
			return
		case <-s.control.Stopped(): // the server has stopped
			return
		}
	}
}
