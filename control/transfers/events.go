package transfers

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"strings"
	"time"

	"voicebridge/agent"
	"voicebridge/calls"
	"voicebridge/control"
	"voicebridge/control/urls"
	"voicebridge/providers"
	"voicebridge/session"
	"voicebridge/ticket"
	"voicebridge/transfer"
)

// What the carrier tells about the legs of a transfer. It may come to any instance, and
// does nothing but make moves; an event whose move is not stored is an error, so that
// the carrier sends it again.

// questionTime is how long a destination may take to press a key once it has been
// told.
const questionTime = 10 * time.Second

// unknown is the outcome of an event without meaning.
var unknown = control.Outcome{Result: control.ResultUnknown}

// refused ends the leg that has asked.
var refused = control.Outcome{Answer: &providers.Answer{}, Result: control.ResultRefused}

func done(a *providers.Answer) control.Outcome {
	return control.Outcome{Answer: a, Result: control.ResultOK}
}

// Handle implements control.Transfers. ref is ID/NONCE/WHAT.
func (t *Transfers) Handle(ctx context.Context, account, ref string, ev *providers.CallEvent) (control.Outcome, error) {
	id, rest, _ := strings.Cut(ref, "/")
	nonce, what, _ := strings.Cut(rest, "/")
	r, err := t.manager.Get(ctx, id)
	if err != nil && !errors.Is(err, transfer.ErrNotFound) {
		return control.Outcome{}, fmt.Errorf("transfer: %w", err)
	}
	if err != nil || subtle.ConstantTimeCompare([]byte(nonce), []byte(r.Nonce)) != 1 || r.Account != account {
		return control.Outcome{}, control.ErrNoTransfer
	}
	switch ev.Kind {
	case providers.CallAsked:
		return t.answered(ctx, r, ev)
	case providers.CallProgress, providers.CallDetected:
		return t.progress(ctx, r, ev)
	case providers.CallKey:
		return t.pressed(ctx, r, ev.Digit)
	case providers.CallRoom:
		return done(nil), t.meeting(ctx, r, ev)
	}
	switch what {
	case "briefed":
		return t.briefed(ctx, r)
	case "party":
		return t.partyOver(ctx, r)
	}
	return unknown, nil
}

// happen lets events happen, one after the other, and returns the record then.
func (t *Transfers) happen(ctx context.Context, r *transfer.Record, evs ...transfer.Event) (*transfer.Record, error) {
	for _, ev := range evs {
		var err error
		if r, _, err = t.manager.HandleEvent(ctx, r.ID, ev); err != nil {
			return nil, fmt.Errorf("transfer: %s: %w", ev.Kind, err)
		}
	}
	return r, nil
}

// answered says what to do with a destination that has picked up.
func (t *Transfers) answered(ctx context.Context, r *transfer.Record, ev *providers.CallEvent) (control.Outcome,
	error) {
	evs := []transfer.Event{{Kind: transfer.Picked, Leg: ev.Leg, Aliases: ev.Aliases}}
	if r.Mode == transfer.Attended {
		evs = append(evs, transfer.Event{Kind: transfer.Brief})
	}
	r, err := t.happen(ctx, r, evs...)
	if err == nil {
		r, err = t.meets(ctx, r)
	}
	switch {
	case err != nil:
		return control.Outcome{}, err
	case over(r):
		return refused, nil
	case r.Mode != transfer.Attended:
		return done(t.meetingPlace(r)), nil
	case r.Brief != "":
		return done(t.briefing(r)), nil
	}
	wait := questionTime
	if r.Accept == transfer.AcceptStay {
		wait = time.Second
	}
	a := t.control.Say(r.Whisper, r.Language, r.Voice)
	a.Ask = &providers.Question{URL: t.hookURL(r, "digit"), Wait: wait}
	return done(a), nil
}

// briefing streams the destination to the agent that tells it what the call is about.
func (t *Transfers) briefing(r *transfer.Record) *providers.Answer {
	path := t.control.MediaPath(ticket.Ticket{Provider: r.Provider, Account: r.Account, ID: legID("br_", r),
		Agent: r.Brief, Call: r.Leg,
		From: r.From, To: r.To, Outbound: true, Brief: true, Metadata: r.Context})
	return &providers.Answer{Media: t.control.SocketURL(path), Next: t.hookURL(r, "briefed")}
}

// progress takes word of the destination's leg.
func (t *Transfers) progress(ctx context.Context, r *transfer.Record, ev *providers.CallEvent) (control.Outcome,
	error) {
	if r.Leg != "" && !ev.Is(r.Leg) {
		return unknown, nil
	}
	if control.Unanswered(ev, r.Picked == 0) && !r.State.Final() {
		t.settle(r.ID, ev)
		return done(nil), nil
	}
	r, err := t.happen(ctx, r, legEvents(ev)...)
	if err != nil {
		return control.Outcome{}, err
	}
	account, _ := t.control.Account(r.Account)
	if r.State.Final() && ev.Status != "" && !ev.Status.Final() && account.HasCommands() {
		t.control.EndAtCarrier(account, r.Call, ev.Leg) // too late: nobody waits for it
	}
	return done(nil), nil
}

// settle takes the end of a destination's leg after a while: by then there may be a better word,
// or it has been answered after all. Where this instance does not live so long, the carrier is
// asked.
func (t *Transfers) settle(id string, ev *providers.CallEvent) {
	later := *ev
	t.control.Later(func(ctx context.Context) {
		select {
		case <-time.After(control.SettleTime):
		case <-ctx.Done():
		}
		r, err := t.manager.Get(ctx, id)
		if err == nil && r.Picked == 0 {
			later.Unanswered = true
		}
		if err == nil {
			_, err = t.happen(ctx, r, legEvents(&later)...)
		}
		if err != nil {
			t.log.Warn("the end of a destination", "transfer", id, "err", err)
		}
	})
}

// briefed is asked when the agent has told the destination what it had to: by staying
// it takes the call.
func (t *Transfers) briefed(ctx context.Context, r *transfer.Record) (control.Outcome, error) {
	// An agent that has failed has told nothing.
	cause, _ := t.control.StreamEnded(ctx, legID("br_", r), 0)
	return t.decides(ctx, r, cause == calls.AgentHangup || cause == calls.APIHangup)
}

// pressed takes the answer to the question whether the destination takes the call. By
// pressing a key it shows that it is no machine; where it need not press one, it is waited
// for what machine detection says.
func (t *Transfers) pressed(ctx context.Context, r *transfer.Record, digit string) (control.Outcome, error) {
	stays := digit == "" && r.Accept == transfer.AcceptStay
	if stays && r.Undetected() {
		return done(&providers.Answer{Ask: &providers.Question{URL: t.hookURL(r, "digit"), Wait: time.Second}}), nil
	}
	if digit == "1" && r.Detect {
		var err error
		if r, err = t.happen(ctx, r, transfer.Event{Kind: transfer.Human}); err != nil {
			return control.Outcome{}, err
		}
	}
	return t.decides(ctx, r, digit == "1" || stays)
}

// decides is for a destination that takes the call, or does not.
func (t *Transfers) decides(ctx context.Context, r *transfer.Record, takes bool) (control.Outcome, error) {
	ev := transfer.Event{Kind: transfer.Decline}
	if takes {
		ev.Kind = transfer.Accept
	}
	r, err := t.happen(ctx, r, ev)
	if err == nil {
		r, err = t.meets(ctx, r)
	}
	switch {
	case err != nil:
		return control.Outcome{}, err
	case over(r) || !takes:
		return refused, nil
	}
	return done(t.meetingPlace(r)), nil
}

// InRoom implements control.Transfers.
func (t *Transfers) InRoom(ctx context.Context, call string, ev *providers.CallEvent) error {
	r, err := t.manager.ByCall(ctx, call)
	if err != nil || r == nil {
		return err
	}
	return t.meeting(ctx, r, ev)
}

// meeting notes that the caller has met the destination, or that this has left. A
// caller who leaves the room may have been taken out of it: the end of its call is
// what counts. Who leaves has been there, whatever comes late.
func (t *Transfers) meeting(ctx context.Context, r *transfer.Record, ev *providers.CallEvent) error {
	in := transfer.Event{Kind: transfer.LegIn}
	switch {
	// Where nobody has taken it to the room, it has come into another one.
	case ev.Is(r.Caller) && r.At != transfer.AtAgent && r.At != transfer.Here:
		in.Kind = transfer.CallerIn
	case !ev.Is(r.Leg):
		return nil
	}
	r, err := t.happen(ctx, r, in)
	if err == nil {
		r, err = t.meets(ctx, r)
	}
	if err == nil && !ev.Joined && in.Kind == transfer.LegIn {
		_, err = t.happen(ctx, r, transfer.Event{Kind: transfer.LegDown, Reason: transfer.ReasonDestination})
	}
	return err
}

// meets tells of the meeting of caller and destination, if it has come about.
func (t *Transfers) meets(ctx context.Context, r *transfer.Record) (*transfer.Record, error) {
	if !r.Meets() {
		return r, nil
	}
	return t.happen(ctx, r, transfer.Event{Kind: transfer.Bridge}, transfer.Event{Kind: transfer.Joined})
}

// meetingPlace is where a destination that takes the call meets the caller: in the
// carrier's conference, or here, where the agent stays.
func (t *Transfers) meetingPlace(r *transfer.Record) *providers.Answer {
	if r.Agent == "" {
		return t.room(r, false)
	}
	tk := ticket.Ticket{Provider: r.Provider, Account: r.Account, ID: legID("pa_", r), Call: r.Leg, From: r.From,
		To:       r.To,
		Outbound: true, Brief: true, Party: r.Call, Listen: r.Agent == transfer.AgentListens, Transfer: r.ID,
		Own: !t.control.IsPublic(r.Host)}
	return &providers.Answer{Media: urls.SocketURL(r.Host, t.control.MediaPath(tk)), Next: t.hookURL(r, "party")}
}

// partyLate is how late a third party may hear the others.
const partyLate = 200 * time.Millisecond

// Party implements control.Transfers.
func (t *Transfers) Party(tk *ticket.Ticket) control.Agent {
	main := t.control.Session(tk.Party)
	if main == nil {
		return control.Agent{}
	}
	live := session.Defaults
	live.Live = partyLate
	return control.Agent{Dialer: &partyLine{main.NewParty(tk.Listen), t, tk.Transfer}, Session: live}
}

// partyLine is a party whose coming is told to its transfer.
type partyLine struct {
	*session.Party
	transfers *Transfers
	transfer  string
}

// Dial implements agent.Dialer.
func (p *partyLine) Dial(ctx context.Context, call *agent.Call) (agent.Conn, error) {
	a, err := p.Party.Dial(ctx, call)
	if err != nil {
		return nil, err
	}
	t := p.transfers
	t.control.Later(func(ctx context.Context) {
		err := again(ctx, func() error {
			_, err := t.happen(ctx, &transfer.Record{ID: p.transfer}, transfer.Event{Kind: transfer.Bridge},
				transfer.Event{Kind: transfer.Moved, Place: transfer.Here}, transfer.Event{Kind: transfer.Joined})
			if errors.Is(err, transfer.ErrNotFound) {
				return nil
			}
			return err
		})
		if err != nil {
			t.log.Warn("a meeting is not noted", "transfer", p.transfer, "err", err)
		}
	})
	return a, nil
}

// PartyLeft implements control.Transfers.
func (t *Transfers) PartyLeft(id string) {
	t.control.Later(func(ctx context.Context) {
		_, err := t.happen(ctx, &transfer.Record{ID: id},
			transfer.Event{Kind: transfer.LegDown, Reason: transfer.ReasonDestination})
		if err != nil {
			t.log.Debug("the destination's end is not noted", "transfer", id, "err", err) // its status tells, too
		}
	})
}

// partyOver is asked when the stream of a destination is over that was with caller
// and agent, and it is still there: its instance has gone, or it could not join.
func (t *Transfers) partyOver(ctx context.Context, r *transfer.Record) (control.Outcome, error) {
	switch {
	case over(r):
		return done(&providers.Answer{}), nil
	case !t.control.Streams(ctx, r.Call): // the caller will wait in the room
		return done(t.room(r, false)), nil
	}
	ev := transfer.Event{Kind: transfer.Refused, Reason: transfer.ReasonCarrier,
		Detail: "the destination's audio did not reach the call"}
	if _, err := t.happen(ctx, r, ev); err != nil {
		return control.Outcome{}, err
	}
	return refused, nil
}

// byCallTime is how long a call waits for word of its transfers.
const byCallTime = 500 * time.Millisecond

// Next implements control.Transfers.
func (t *Transfers) Next(ctx context.Context, step *control.Step) (*providers.Answer, error) {
	call := step.Call
	wait, stop := context.WithTimeout(ctx, clearTime)
	has := t.decided(wait, call.ID) // known where the stream was, without asking anybody
	stop()
	if !has && step.Here || step.Cause == calls.CallerHangup || step.Cause == calls.APIHangup {
		return nil, nil
	}
	look, stop := context.WithTimeout(ctx, byCallTime)
	r, err := t.manager.ByCall(look, call.ID)
	stop()
	if err != nil {
		t.log.Warn("transfers cannot be looked for: the call goes on without", "session", call.ID, "err", err)
		if step.Number != "" { // it was connected to a number, and is alone again
			call.Returned, call.Returns = transfer.ReasonLost, step.Returns+1
			return t.control.Stream(call), nil
		}
		return nil, nil
	}
	if r == nil {
		return nil, nil
	}
	return t.afterStep(ctx, r, step)
}

// afterStep says what a call with a live transfer does once its stream, its room or
// the number is over, where that is not the transfer's own doing.
func (t *Transfers) afterStep(ctx context.Context, r *transfer.Record, step *control.Step) (*providers.Answer, error) {
	if step.Number != "" && r.Mode == transfer.Blind {
		ev := transfer.Event{Kind: transfer.LegDown, Reason: legReasons[step.Number], Settled: true}
		if step.Number == providers.StatusCanceled {
			ev = transfer.Event{Kind: transfer.CallerLeft}
		}
		r, err := t.happen(ctx, r, ev)
		if err != nil {
			return nil, err
		}
		return t.disposed(r), nil
	}
	if over(r) {
		return t.afterEnd(ctx, r)
	}
	// It has lost its agent, or its instance: it waits for the destination.
	if r.Mode == transfer.Blind {
		return t.diverted(ctx, r)
	}
	r, err := t.happen(ctx, r, transfer.Event{Kind: transfer.Moved, Place: transfer.InRoom})
	switch {
	case err != nil:
		return nil, err
	case over(r): // meanwhile
		return t.afterEnd(ctx, r)
	}
	return t.room(r, true), nil
}

// diverted connects the caller of a blind transfer whose stream is over, unless its owner
// is asking the carrier to do that just now: the phone would ring twice.
func (t *Transfers) diverted(ctx context.Context, r *transfer.Record) (*providers.Answer, error) {
	switch r.At {
	case transfer.Moving: // whatever is answered before that is done counts for nothing
		return nil, errMoving
	case transfer.AtAgent:
		_, mine, err := t.manager.HandleEvent(ctx, r.ID, transfer.Event{Kind: transfer.Moved, Place: transfer.Moving})
		if err != nil {
			return nil, fmt.Errorf("transfer: %w", err)
		}
		if !mine { // its owner was quicker
			return nil, errMoving
		}
		r, err = t.happen(ctx, r, transfer.Event{Kind: transfer.Divert},
			transfer.Event{Kind: transfer.Moved, Place: transfer.Away}, transfer.Event{Kind: transfer.Joined})
		if err != nil {
			return nil, err
		}
		if over(r) {
			return t.afterEnd(ctx, r)
		}
	}
	return t.number(r), nil
}

// errMoving has the carrier ask again what a call is to do that it is asked to move.
var errMoving = errors.New("the call is being moved")

// afterEnd is afterStep for a transfer that is over, or all but.
func (t *Transfers) afterEnd(ctx context.Context, r *transfer.Record) (*providers.Answer, error) {
	if !r.State.Final() {
		var err error
		if r, err = t.happen(ctx, r, transfer.Event{Kind: transfer.Settled}); err != nil {
			return nil, err
		}
	}
	return t.disposed(r), nil
}

// disposed is an answer that does with the caller what the end of its transfer wants.
func (t *Transfers) disposed(r *transfer.Record) *providers.Answer {
	switch d := r.Disposition(); d {
	case "", transfer.Resume: // it has no stream any more
		if r.CallerGone {
			return &providers.Answer{}
		}
		return t.returned(r)
	case transfer.Hangup:
		return &providers.Answer{}
	default:
		return &providers.Answer{Dial: d, Caller: r.From}
	}
}

// leftTries is how often the end of a call is told to its transfer: the owner asks the
// carrier, too.
const leftTries = 6

// Left implements control.Transfers. Where only the stream has ended, the carrier is
// asked first: another instance may have had the caller moved.
func (t *Transfers) Left(call string, sure bool) {
	t.control.Later(func(ctx context.Context) {
		tries := 0
		_ = again(ctx, func() error { // what is not told here, the owner finds out
			r, err := t.manager.ByCall(ctx, call)
			if err == nil && r != nil {
				err = t.left(ctx, r, sure)
			}
			if tries++; tries == leftTries {
				return nil
			}
			return err
		})
	})
}

func (t *Transfers) left(ctx context.Context, r *transfer.Record, sure bool) error {
	if !sure && r.At != transfer.AtAgent && r.At != transfer.Here {
		ev, err := carrier{t}.Caller(ctx, r)
		if err != nil || ev.Kind == "" {
			return err
		}
	}
	_, err := t.happen(ctx, r, transfer.Event{Kind: transfer.CallerLeft})
	return err
}
