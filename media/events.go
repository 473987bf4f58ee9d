package media

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"voicebridge/calls"
	"voicebridge/notify"
)

const (
	// sseKeepalive keeps proxies from ending a feed on which nothing happens.
	sseKeepalive = 15 * time.Second
	// sseWrite is how long a listener may take for an event.
	sseWrite = 10 * time.Second
	// eventsEnd is how long events still wait to be taken when the server stops.
	eventsEnd = 5 * time.Second
)

// apiEvents is the feed as server-sent events (WHATWG HTML, section 9.2). A
// listener that comes back with Last-Event-ID is told what it has missed.
func (s *Server) apiEvents(w http.ResponseWriter, a *apiCall) {
	only := a.URL.Query().Get("call")
	if only != "" {
		if _, known := s.book.Get(only); !known {
			s.fail(w, a.Request, errNoCall)
			return
		}
	}
	feed, complete := s.book.Listen(a.Header.Get("Last-Event-ID"))
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
	for {
		select {
		case ev, ok := <-feed.Events():
			if !ok { // too slow: it may come back
				return
			}
			if only != "" && ev.Call.ID != only {
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
		case <-s.ctx.Done(): // the server has stopped
			return
		}
	}
}

// tell sends the events to the user's application, if it wants them. The function
// that it returns ends that.
func (s *Server) tell(group *sync.WaitGroup) (stop func()) {
	if s.cfg.Events == nil {
		return func() {}
	}
	queue := notify.NewQueue(s.cfg.Events, s.cfg.Log)
	s.totals.mu.Lock()
	s.totals.events = queue.Counts
	s.totals.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	feed, _ := s.book.Listen("")
	group.Go(func() {
		defer close(ended)
		s.passOn(ctx, feed, queue)
	})
	return func() {
		cancel()
		<-ended
		queue.Close(eventsEnd)
	}
}

// passOn moves events from a feed to a queue, up to the last one before the end.
func (s *Server) passOn(ctx context.Context, feed *calls.Feed, queue *notify.Queue) {
	last := ""
	for {
		select {
		case ev, ok := <-feed.Events():
			if !ok { // it could not keep up: begin where it was
				feed, _ = s.book.Listen(last)
				continue
			}
			queue.Send(ev.Call.ID, ev.ID, ev)
			last = ev.ID
		case <-ctx.Done():
			feed.Close()
			for ev := range feed.Events() {
				queue.Send(ev.Call.ID, ev.ID, ev)
			}
			return
		}
	}
}

// sweepEvery is how often calls that nobody has heard of are given up.
const sweepEvery = 15 * time.Second

// sweep gives up lost calls from time to time.
func (s *Server) sweep(group *sync.WaitGroup) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	group.Go(func() {
		tick := time.NewTicker(sweepEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				s.reconcile()
				s.book.Sweep(answerTime, mostTime)
			case <-ctx.Done():
				return
			}
		}
	})
	return cancel
}

// mostTime is the longest that a call lasts of which only the carrier knows, as
// after a fallback.
const mostTime = 24 * time.Hour
