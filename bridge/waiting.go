package bridge

import (
	"container/list"
	"net"
	"net/http"
	"sync"
)

// waiting bounds the connections of a listener from which no request has come, or none lately: each
// costs a descriptor, whoever opens them. The one that has waited longest goes when there are too
// many, so that the newest always get their turn.
type waiting struct {
	most int

	mu    sync.Mutex
	queue list.List // of net.Conn, the oldest first
	at    map[net.Conn]*list.Element
}

// state is an http.Server's ConnState.
func (w *waiting) state(c net.Conn, s http.ConnState) {
	if oldest := w.note(c, s); oldest != nil {
		_ = oldest.Close() // it has said nothing, and is told nothing
	}
}

// note takes note of how a connection is, and returns the one that has to go; nil: none.
func (w *waiting) note(c net.Conn, s http.ConnState) (oldest net.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if e := w.at[c]; e != nil {
		w.queue.Remove(e)
		delete(w.at, c)
	}
	if s != http.StateNew && s != http.StateIdle {
		return nil
	}
	if w.at == nil {
		w.at = map[net.Conn]*list.Element{}
	}
	w.at[c] = w.queue.PushBack(c)
	if w.queue.Len() <= w.most {
		return nil
	}
	oldest = w.queue.Remove(w.queue.Front()).(net.Conn)
	delete(w.at, oldest)
	return oldest
}

const (
	// spare are the descriptors that are kept from calls: for listeners, the admin's connections,
	// Redis, requests to carriers and to the user's application.
	spare = 32
	// waitingMost are the most connections that may wait with a request, whatever there is.
	waitingMost = 1024
	// waitingLeast are the least.
	waitingLeast = 8
)

// mayWait is how many connections may wait where there are so many descriptors; 0: any number.
func mayWait(files int) int {
	if files == 0 {
		return waitingMost
	}
	return max(waitingLeast, min(waitingMost, files/8))
}

// callsFor is how many calls there are descriptors for, two each; 0: any number.
func callsFor(files int) int {
	if files == 0 {
		return 0
	}
	return max(1, (files-spare-mayWait(files))/2)
}
