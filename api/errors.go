package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"voicebridge/control"
	"voicebridge/control/transfers"
	"voicebridge/providers"
)

// apiError is an error as the API tells it.
type apiError struct {
	status int
	code   string
	detail string
	retry  time.Duration
}

func (e *apiError) Error() string { return e.detail }

// problem is RFC 9457.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
	Code   string `json:"code"`
	// Carrier is what the carrier said, where it is to blame.
	Carrier *carrierProblem `json:"carrier,omitempty"`
}

type carrierProblem struct {
	Kind   providers.CallErrorKind `json:"kind"`
	Status int                     `json:"status,omitempty"`
	Code   string                  `json:"code,omitempty"`
	Detail string                  `json:"detail,omitempty"`
}

// carrierStatus is what a carrier's error is answered with.
var carrierStatus = map[providers.CallErrorKind]int{
	providers.ErrCredentials: http.StatusBadGateway,
	providers.ErrNoCall:      http.StatusConflict,
	providers.ErrRejected:    http.StatusUnprocessableEntity,
	providers.ErrRate:        http.StatusTooManyRequests,
	providers.ErrUnavailable: http.StatusBadGateway,
}

// problemOf says how an error is answered.
func problemOf(err error) (p problem, retry time.Duration) {
	var api *apiError
	var carrier *providers.CallError
	var no *transfers.Refusal
	switch {
	case errors.As(err, &api):
		p.Status, p.Code, p.Detail, retry = api.status, api.code, api.detail, api.retry
	case errors.As(err, &carrier):
		p.Status, p.Code, p.Detail, retry = carrierStatus[carrier.Kind], "carrier_"+string(carrier.Kind),
			carrier.Error(), carrier.Retry
		if carrier.Kind == providers.ErrRate {
			retry = max(retry, time.Second)
		}
		p.Carrier = &carrierProblem{carrier.Kind, carrier.Status, carrier.Code, carrier.Detail}
	case errors.As(err, &no):
		p.Status, p.Code, p.Detail = no.Status, no.Code, no.Words
		if p.Code == "bad_field" {
			p.Code = "invalid"
		}
		if p.Status == http.StatusServiceUnavailable {
			retry = time.Second
		}
	case errors.Is(err, control.ErrNoCall):
		p.Status, p.Code, p.Detail = http.StatusNotFound, "not_found", err.Error()
	case errors.Is(err, control.ErrOver), errors.Is(err, control.ErrNotStarted):
		p.Status, p.Code, p.Detail = http.StatusConflict, "wrong_state", err.Error()
	case errors.Is(err, control.ErrBusy):
		p.Status, p.Code, p.Detail = http.StatusConflict, "busy", err.Error()
	case errors.Is(err, control.ErrNoCommands):
		p.Status, p.Code, p.Detail = http.StatusConflict, "no_credentials", err.Error()
	default:
		p.Status, p.Code, p.Detail = http.StatusInternalServerError, "internal", "something went wrong: see the log"
	}
	p.Type, p.Title = "urn:voicebridge:error:"+p.Code, http.StatusText(p.Status)
	return p, retry
}

func wrong(detail string, args ...any) error {
	return &apiError{http.StatusUnprocessableEntity, "invalid", fmt.Sprintf(detail, args...), 0}
}

// fail answers with an error.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	p, retry := problemOf(err)
	if p.Status == http.StatusInternalServerError {
		s.cfg.Log.Error("API", "method", r.Method, "pattern", r.Pattern, "err", err)
	}
	retryAfter(w, retry)
	writeJSON(w, p.Status, "application/problem+json", p)
}

func retryAfter(w http.ResponseWriter, d time.Duration) {
	if d > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(d.Seconds()))))
	}
}

func writeJSON(w http.ResponseWriter, status int, kind string, v any) {
	if v == nil {
		w.WriteHeader(status)
		return
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // a client that is gone needs no answer
}
