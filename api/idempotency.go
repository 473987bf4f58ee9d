package api

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"voicebridge/providers"
)

// A request with an Idempotency-Key is carried out once; see "The Idempotency-Key
// HTTP Header Field" of the IETF's HTTP API group.
const (
	keepKeys = 24 * time.Hour
	maxKeys  = 10000
	maxKey   = 255
)

// answers are what requests with keys were answered.
type answers struct {
	mu    sync.Mutex
	byKey map[string]*answer
	order []string // the oldest first
}

type answer struct {
	request [sha256.Size]byte
	at      time.Time
	done    bool
	reply   reply
	err     error
}

// once carries a request out, unless one with its key has been. Where the carrier
// has surely done nothing, the key may be used again.
func (s *Server) once(a *request, do func() (reply, error)) (reply, error) {
	key := a.Header.Get("Idempotency-Key")
	switch {
	case key == "":
		return do()
	case len(key) > maxKey:
		return reply{}, wrong("Idempotency-Key: must have at most %d bytes", maxKey)
	}
	if other, r, err := s.elsewhere(a, key); other || err != nil {
		return r, err
	}
	mine := &answer{request: sha256.Sum256(a.body), at: time.Now()}
	before, err := s.answers.begin(a.token.Name+"\x00"+key, mine)
	if err != nil {
		return reply{}, err
	}
	if before != nil {
		return before.reply, before.err
	}
	r, err := do()
	s.answers.end(a.token.Name+"\x00"+key, mine, r, err)
	return r, err
}

// elsewhere has a request carried out by the instance that took the first one with its key,
// if that was another.
func (s *Server) elsewhere(a *request, key string) (other bool, r reply, err error) {
	c := s.control.Cluster()
	if c == nil {
		return false, reply{}, nil
	}
	sum := sha256.Sum256([]byte(a.token.Name + "\x00" + key))
	where, err := c.Take(a.Context(), "key:"+hex.EncodeToString(sum[:]), keepKeys)
	if err != nil { // whether it is the first one is not known
		return false, reply{}, &apiError{http.StatusServiceUnavailable, "unavailable",
			"whether the Idempotency-Key has been used is not known now: " + err.Error(), time.Second}
	}
	if where == c.Self() {
		return false, reply{}, nil
	}
	if !c.Alive(a.Context(), where) {
		return true, reply{}, &apiError{http.StatusConflict, "lost",
			"the instance that took the first request with this " +
				"Idempotency-Key is gone: see whether the call was placed, and use another key", 0}
	}
	answer, err := s.askOther(a, where, remoteRequest{Pattern: "POST /v1/calls", Key: key})
	if err != nil {
		return true, reply{}, err
	}
	if answer.Status >= 300 {
		var p problem
		if err := json.Unmarshal(answer.Body, &p); err != nil {
			return true, reply{}, fmt.Errorf("answer of another instance: %w", err)
		}
		return true, reply{}, &apiError{p.Status, p.Code, p.Detail, answer.Retry}
	}
	return true, reply{answer.Status, answer.Body}, nil
}

// begin takes a key. It gives what the request was answered before, if it was.
func (m *answers) begin(key string, mine *answer) (*answer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(m.order) > 0 && mine.at.Sub(m.byKey[m.order[0]].at) > keepKeys {
		m.forget(0)
	}
	before := m.byKey[key]
	switch {
	case before == nil && len(m.order) >= maxKeys: // a request that is under way stays
		oldest := slices.IndexFunc(m.order, func(k string) bool { return m.byKey[k].done })
		if oldest < 0 {
			return nil, &apiError{http.StatusServiceUnavailable, "busy",
				"too many requests with an Idempotency-Key are being carried out", time.Second}
		}
		m.forget(oldest)
	case before == nil:
	case before.request != mine.request:
		return nil, wrong("Idempotency-Key: has been used for another request")
	case !before.done:
		return nil, &apiError{http.StatusConflict, "in_progress",
			"the first request with this Idempotency-Key is still being carried out", time.Second}
	default:
		return before, nil
	}
	if m.byKey == nil {
		m.byKey = map[string]*answer{}
	}
	m.byKey[key] = mine
	m.order = append(m.order, key)
	return nil, nil
}

func (m *answers) end(key string, mine *answer, r reply, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	mine.done, mine.reply, mine.err = true, r, err
	var carrier *providers.CallError
	var own *apiError
	if errors.As(err, &own) || errors.As(err, &carrier) &&
		(carrier.Kind != providers.ErrUnavailable || carrier.Unsent()) {
		m.forget(slices.Index(m.order, key))
	}
}

// forget removes a key by its place.
func (m *answers) forget(i int) {
	delete(m.byKey, m.order[i])
	m.order = slices.Delete(m.order, i, i+1)
}
