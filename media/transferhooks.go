package media

import (
	"context"
	"crypto/subtle"
	"errors"
	"net/http"
	"strings"
	"time"

	"voicebridge/providers"
	"voicebridge/session"
	"voicebridge/transfer"
)

// The carrier's webhooks about the destination's leg of a transfer. They may land
// on any instance, and do nothing but make moves; one whose move is not stored is
// answered with 503, so that the carrier sends it again.

// questionTime is how long a destination may take to press a key once it has been
// told.
const questionTime = 10 * time.Second

// transferHooks takes all of them.
func (s *Server) transferHooks(w http.ResponseWriter, h *accountHook) string {
	if s.transfers == nil {
		return s.noTransfer(w)
	}
	ctx := h.request.Context()
	r, err := s.transfers.manager.Get(ctx, h.request.PathValue("transfer"))
	if err != nil && !errors.Is(err, transfer.ErrNotFound) {
		return unstored(w, h, err)
	}
	if err != nil || subtle.ConstantTimeCompare([]byte(h.request.PathValue("nonce")), []byte(r.Nonce)) != 1 || r.Account != h.name {
		return s.noTransfer(w)
	}
	switch h.request.PathValue("what") {
	case "answer":
		return s.destinationAnswered(w, h, r)
	case "status":
		return s.destinationStatus(w, h, r)
	case "digit":
		return s.destinationDecides(w, h, r)
	case "briefed":
		return s.destinationBriefed(w, h, r)
	case "room":
		return s.roomChanged(w, h, r)
	case "party":
		return s.partyOver(w, h, r)
	}
	return s.noTransfer(w)
}

func (s *Server) noTransfer(w http.ResponseWriter) string {
	http.Error(w, "transfer", http.StatusNotFound)
	return "unknown"
}

// unstored asks the carrier to send a webhook again.
func unstored(w http.ResponseWriter, h *accountHook, err error) string {
	h.log.Warn("a transfer's webhook cannot be stored: the carrier is to send it again", "err", err)
	w.Header().Set("Retry-After", "1")
	http.Error(w, "store", http.StatusServiceUnavailable)
	return "error"
}

// happen lets events happen, one after the other, and gives the record then.
func (s *Server) happen(ctx context.Context, r *transfer.Record, evs ...transfer.Event) (*transfer.Record, error) {
	for _, ev := range evs {
		var err error
		if r, _, err = s.transfers.manager.HandleEvent(ctx, r.ID, ev); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// over tells whether nobody wants the destination any more.
func over(r *transfer.Record) bool { return r.State.Final() || r.State == transfer.Compensating }

// destinationAnswered tells the carrier what to do with a destination that has
// picked up.
func (s *Server) destinationAnswered(w http.ResponseWriter, h *accountHook, r *transfer.Record) string {
	in, err := h.Webhooks.Inbound(h.Hook)
	if err != nil {
		return malformed(w, h, err)
	}
	evs := []transfer.Event{{Kind: transfer.Picked, Leg: in.ID}}
	if r.Mode == transfer.Attended {
		evs = append(evs, transfer.Event{Kind: transfer.Brief})
	}
	if r, err = s.happen(h.request.Context(), r, evs...); err == nil {
		r, err = s.meets(h.request.Context(), r)
	}
	if err != nil {
		return unstored(w, h, err)
	}
	switch {
	case over(r):
		return s.write(w, h, &providers.Answer{}, "refused")
	case r.Mode != transfer.Attended:
		return s.write(w, h, s.meetingPlace(r), "ok")
	case r.Brief != "":
		return s.write(w, h, s.briefing(r), "ok")
	}
	wait := questionTime
	if r.Accept == transfer.AcceptStay {
		wait = time.Second
	}
	return s.write(w, h, &providers.Answer{Say: r.Whisper, Ask: &providers.Question{URL: s.transferHook(r, "digit"), Wait: wait}}, "ok")
}

// briefingID is our id of the destination's leg while an agent tells it what the
// call is about.
func briefingID(r *transfer.Record) string { return "br_" + strings.TrimPrefix(r.ID, "tr_") }

// briefing streams the destination to the agent that tells it what the call is
// about.
func (s *Server) briefing(r *transfer.Record) *providers.Answer {
	tk := ticket{Use: useMedia, Provider: r.Provider, Account: r.Account, ID: briefingID(r), Agent: r.Brief, Call: r.Leg,
		From: r.From, To: r.To, Outbound: true, Brief: true}
	return &providers.Answer{
		Media:  s.socketURL("/media/" + r.Provider + "/" + s.tokens.make(tk, time.Now())),
		Params: r.Context,
		Next:   s.transferHook(r, "briefed"),
	}
}

// destinationStatus takes a report on the destination's leg.
func (s *Server) destinationStatus(w http.ResponseWriter, h *accountHook, r *transfer.Record) string {
	report, err := h.Webhooks.Status(h.Hook)
	if err != nil {
		return malformed(w, h, err)
	}
	if r.Leg != "" && r.Leg != report.Call {
		w.WriteHeader(http.StatusNoContent)
		return "unknown"
	}
	if ev := legEvent(report); ev.Kind != "" {
		if r, err = s.happen(h.request.Context(), r, ev); err != nil {
			return unstored(w, h, err)
		}
	}
	if r.State.Final() && report.Status != "" && !report.Status.Final() && h.Calls != nil {
		s.endAtCarrier(h.Account, r.Call, report.Call) // too late: nobody waits for it
	}
	w.WriteHeader(http.StatusNoContent)
	return "ok"
}

// destinationDecides takes the key that the destination has pressed, or has not.
func (s *Server) destinationDecides(w http.ResponseWriter, h *accountHook, r *transfer.Record) string {
	digit, err := h.Webhooks.Digit(h.Hook)
	if err != nil {
		return malformed(w, h, err)
	}
	return s.decided(w, h, r, digit == "1" || digit == "" && r.Accept == transfer.AcceptStay)
}

// destinationBriefed is asked when the agent has told the destination what it had
// to: by staying it takes the call.
func (s *Server) destinationBriefed(w http.ResponseWriter, h *accountHook, r *transfer.Record) string {
	report, err := h.Webhooks.Next(h.Hook)
	if err != nil {
		return malformed(w, h, err)
	}
	if !report.Ended {
		w.WriteHeader(http.StatusNoContent)
		return "ok"
	}
	// An agent that has failed has told nothing.
	told, _ := s.streamEnded(h.request.Context(), briefingID(r), 0)
	cause := session.Cause(told)
	return s.decided(w, h, r, cause == session.AgentHangup || cause == session.APIHangup)
}

func (s *Server) decided(w http.ResponseWriter, h *accountHook, r *transfer.Record, takes bool) string {
	ev := transfer.Event{Kind: transfer.Decline}
	if takes {
		ev.Kind = transfer.Accept
	}
	r, err := s.happen(h.request.Context(), r, ev)
	if err == nil {
		r, err = s.meets(h.request.Context(), r)
	}
	switch {
	case err != nil:
		return unstored(w, h, err)
	case over(r) || !takes:
		return s.write(w, h, &providers.Answer{}, "refused")
	}
	return s.write(w, h, s.meetingPlace(r), "ok")
}

// roomChanged takes word of who comes into the conference, and who leaves it.
func (s *Server) roomChanged(w http.ResponseWriter, h *accountHook, r *transfer.Record) string {
	report, err := h.Webhooks.Room(h.Hook)
	if err != nil {
		return malformed(w, h, err)
	}
	if err := s.meeting(h.request.Context(), r, report); err != nil {
		return unstored(w, h, err)
	}
	w.WriteHeader(http.StatusNoContent)
	return "ok"
}

// meeting notes that the caller has met the destination, or that this has left. A
// caller who leaves the room may have been taken out of it: the end of its call is
// what counts.
func (s *Server) meeting(ctx context.Context, r *transfer.Record, report *providers.RoomReport) error {
	var err error
	switch {
	// Where nobody has taken it to the room, it has come into another one.
	case report.Joined && report.Call == r.Caller && r.At != transfer.AtAgent && r.At != transfer.Here:
		if r, err = s.happen(ctx, r, transfer.Event{Kind: transfer.CallerIn}); err == nil {
			_, err = s.meets(ctx, r)
		}
	case report.Left && report.Call == r.Leg:
		_, err = s.happen(ctx, r, transfer.Event{Kind: transfer.LegDown, Reason: transfer.ReasonDestination})
	}
	return err
}

// meets tells of the meeting of caller and destination, if it has come about.
func (s *Server) meets(ctx context.Context, r *transfer.Record) (*transfer.Record, error) {
	if !r.Meets() {
		return r, nil
	}
	return s.happen(ctx, r, transfer.Event{Kind: transfer.Bridge}, transfer.Event{Kind: transfer.Joined})
}

// meetingPlace is where a destination that takes the call meets the caller: in the
// carrier's conference, or here, where the agent stays.
func (s *Server) meetingPlace(r *transfer.Record) *providers.Answer {
	if r.Agent == "" {
		return s.room(r, false)
	}
	tk := ticket{Use: useMedia, Provider: r.Provider, Account: r.Account, ID: "pa_" + strings.TrimPrefix(r.ID, "tr_"), Call: r.Leg, From: r.From, To: r.To,
		Outbound: true, Brief: true, Party: r.Call, Listen: r.Agent == transfer.AgentListens, Transfer: r.ID, Own: r.Host != s.cfg.PublicURL}
	return &providers.Answer{
		Media: socketURL(r.Host, "/media/"+r.Provider+"/"+s.tokens.make(tk, time.Now())),
		Next:  s.transferHook(r, "party"),
	}
}

// partyLine is a party whose coming is told to its transfer.
type partyLine struct {
	*session.Party
	server   *Server
	transfer string
}

// Dial implements session.Dialer.
func (p *partyLine) Dial(ctx context.Context, call *session.Call) (session.Agent, error) {
	a, err := p.Party.Dial(ctx, call)
	if err != nil {
		return nil, err
	}
	p.server.later(func(ctx context.Context) {
		for ctx.Err() == nil {
			_, err := p.server.happen(ctx, &transfer.Record{ID: p.transfer}, transfer.Event{Kind: transfer.Bridge},
				transfer.Event{Kind: transfer.Moved, Place: transfer.Here}, transfer.Event{Kind: transfer.Joined})
			if err == nil || errors.Is(err, transfer.ErrNotFound) {
				return
			}
			p.server.cfg.Log.Warn("a meeting is not noted yet", "transfer", p.transfer, "err", err)
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
		}
	})
	return a, nil
}

// partyLeft tells a transfer that its destination has hung up.
func (s *Server) partyLeft(id string) {
	s.later(func(ctx context.Context) {
		_, err := s.happen(ctx, &transfer.Record{ID: id}, transfer.Event{Kind: transfer.LegDown, Reason: transfer.ReasonDestination})
		if err != nil {
			s.cfg.Log.Debug("the destination's end is not noted", "transfer", id, "err", err) // its status tells, too
		}
	})
}

// partyOver is asked when the stream of a destination is over that was with caller
// and agent, and it is still there: its instance has gone, or it could not join.
func (s *Server) partyOver(w http.ResponseWriter, h *accountHook, r *transfer.Record) string {
	report, err := h.Webhooks.Next(h.Hook)
	if err != nil {
		return malformed(w, h, err)
	}
	ctx := h.request.Context()
	switch {
	case !report.Ended:
		w.WriteHeader(http.StatusNoContent)
		return "ok"
	case over(r):
		return s.write(w, h, &providers.Answer{}, "ok")
	case !s.streams(ctx, r.Call): // the caller will wait in the room
		return s.write(w, h, s.room(r, false), "ok")
	}
	if _, err := s.happen(ctx, r, transfer.Event{Kind: transfer.Refused, Reason: transfer.ReasonCarrier, Detail: "the destination's audio did not reach the call"}); err != nil {
		return unstored(w, h, err)
	}
	return s.write(w, h, &providers.Answer{}, "refused")
}

// afterStream says what a call with a live transfer does once its stream, its room
// or the number is over, where that is not the transfer's own doing.
func (s *Server) afterStream(ctx context.Context, r *transfer.Record, report *providers.NextReport) (*providers.Answer, error) {
	if report.Dial != "" && r.Mode == transfer.Blind {
		ev := transfer.Event{Kind: transfer.LegDown, Reason: legReasons[report.Dial], Settled: true}
		if report.Dial == providers.StatusCanceled {
			ev = transfer.Event{Kind: transfer.CallerLeft}
		}
		r, err := s.happen(ctx, r, ev)
		if err != nil {
			return nil, err
		}
		return s.disposed(r), nil
	}
	if over(r) {
		if !r.State.Final() {
			var err error
			if r, err = s.happen(ctx, r, transfer.Event{Kind: transfer.Settled}); err != nil {
				return nil, err
			}
		}
		return s.disposed(r), nil
	}
	// It has lost its agent, or its instance: it waits for the destination.
	if r.Mode == transfer.Blind {
		return &providers.Answer{Dial: r.To, Caller: r.From, Ring: r.Ring, Next: s.nextURL(s.recordOf(r))}, nil
	}
	r, err := s.happen(ctx, r, transfer.Event{Kind: transfer.Moved, Place: transfer.InRoom})
	switch {
	case err != nil:
		return nil, err
	case over(r): // meanwhile
		return s.afterStream(ctx, r, report)
	}
	return s.room(r, true), nil
}

// disposed is an answer that does with the caller what the end of its transfer
// wants.
func (s *Server) disposed(r *transfer.Record) *providers.Answer {
	switch d := r.Disposition(); d {
	case "", transfer.Resume: // it has no stream any more
		if r.CallerGone {
			return &providers.Answer{}
		}
		return s.returned(r)
	case transfer.Hangup:
		return &providers.Answer{}
	default:
		return &providers.Answer{Dial: d, Caller: r.From}
	}
}
