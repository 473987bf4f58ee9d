package transfer

import (
	"context"
	"errors"
	"time"
)

// stepTime is how long the carrier may take for one step, all attempts together.
const stepTime = 20 * time.Second

// joinTime is how long word of a caller's move is waited for before it is asked for
// again.
const joinTime = 3 * time.Second

// driver acts for one transfer.
type driver struct {
	*Manager
	id      string
	fence   int64
	last    *Record // as it was last seen
	told    int64   // version of the last entry that Changed was told of
	asked   int64   // when the carrier was last asked how the legs are
	asking  int64   // the time of the step
	mayDial bool    // this owner may dial: nobody has before
	dialed  bool    // this owner has dialled
	joins   int64   // when the carrier was last asked to move the caller
	joined  bool    // the caller has been moved, which could not be noted yet
	seen    func(State)
}

// drive acts for a transfer until it is over, or belongs to another instance.
func (m *Manager) drive(ctx context.Context, r *Record, told int64, seen func(State)) {
	d := m.driver(r)
	d.told, d.seen = told, seen
	woken, stop := m.listen(r.ID)
	defer stop()
	for ctx.Err() == nil {
		pause := d.step(ctx)
		if pause < 0 {
			return
		}
		select {
		case <-woken:
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

func (m *Manager) driver(r *Record) *driver {
	return &driver{Manager: m, id: r.ID, fence: r.Fence, last: r, seen: func(State) {}}
}

// step does what is due, and gives the time until there may be something else to
// do; less than 0: there never will be.
func (d *driver) step(ctx context.Context) time.Duration {
	load, stop := context.WithTimeout(ctx, storeTime)
	r, now, err := d.store.Load(load, d.id)
	stop()
	switch {
	case errors.Is(err, ErrNotFound):
		d.rescue(ctx)
		return -1
	case err != nil:
		return d.cfg.Retry
	case r.Fence != d.fence:
		if r.Leg == "" && d.last.Leg != "" { // only this one knows of it
			_, _, err = d.apply(ctx, d.id, Event{Kind: Placed, Leg: d.last.Leg}, 0)
			if err != nil {
				return d.cfg.Retry
			}
		}
		return -1
	}
	if r.Leg == "" && d.last.Leg != "" { // the store has lost what it had acknowledged
		d.tell(ctx, Event{Kind: Placed, Leg: d.last.Leg})
		r.Leg = d.last.Leg
	}
	d.last = r
	d.seen(r.State)
	d.changed(ctx, r)
	if r.State.Final() {
		return -1
	}
	duty := r.duty(now)
	if r.State == Dialing && r.Dialed && r.Leg == "" && !d.dialed {
		if d.mayDial {
			duty = DoDial // it was noted, but no word of that came back
		} else { // whoever had it before may have died amid the request
			d.dialed = true
			d.tell(ctx, Event{Kind: Unsure})
		}
	}
	if duty == DoJoin && r.At == Moving && !d.joined {
		// It was asked for, by this owner or the one before: another time would take
		// a caller out of the room again, or ring a phone twice. Word of it comes soon.
		if d.joins == 0 {
			d.joins = now
		}
		if wait := d.joins + joinTime.Milliseconds() - now; wait > 0 {
			return min(d.cfg.Look, time.Duration(wait)*time.Millisecond)
		}
	}
	if duty != Nothing {
		d.asking = now
		if d.do(ctx, r, duty) {
			return 0
		}
		return d.cfg.Retry
	}
	if r.Due > 0 && now >= r.Due {
		// The carrier knows better than a clock.
		if d.ask(ctx, r, now) || d.tell(ctx, Event{Kind: Timeout}) {
			return 0
		}
		return d.cfg.Retry
	}
	if d.asked == 0 { // what has just begun needs no question
		d.asked = now
	}
	if now-d.asked >= d.every(r).Milliseconds() {
		if d.ask(ctx, r, now) {
			return 0
		}
	}
	pause := d.cfg.Look
	if r.Due > 0 {
		pause = min(pause, time.Duration(r.Due-now)*time.Millisecond)
	}
	return max(pause, time.Millisecond)
}

// every is how often the carrier is asked how the legs are.
func (d *driver) every(r *Record) time.Duration {
	if r.State == Bridged {
		return 10 * d.cfg.Poll
	}
	return d.cfg.Poll
}

// changed tells of the entries of the log that are new.
func (d *driver) changed(ctx context.Context, r *Record) {
	if r.Version <= d.told {
		return
	}
	ctx, stop := context.WithTimeout(ctx, storeTime)
	defer stop()
	entries, err := d.store.Log(ctx, d.id, d.told)
	if err != nil { // they are told the next time
		return
	}
	for _, e := range entries {
		d.told = e.Version
		d.carrier.Changed(r, e)
	}
}

// tell lets an event happen to the transfer. It is true where it has.
func (d *driver) tell(ctx context.Context, ev Event) bool {
	r, moved, err := d.apply(ctx, d.id, ev, d.fence)
	if err != nil && !errors.Is(err, ErrConflict) && ctx.Err() == nil {
		d.log.Warn("transfer is not moved on", "transfer", d.id, "event", ev.Kind, "err", err)
	}
	if r != nil && r.Fence == d.fence {
		if r.Leg == "" && d.last.Leg != "" {
			r = r.copy()
			r.Leg = d.last.Leg
		}
		d.last = r
	}
	return moved
}

// ask asks the carrier how the legs are. It is true where that was news.
func (d *driver) ask(ctx context.Context, r *Record, now int64) (news bool) {
	d.asked = now
	ctx, stop := context.WithTimeout(ctx, stepTime)
	defer stop()
	legUp, callerUp := r.Mode == Blind, false
	if r.Leg != "" && !r.LegDown {
		ev, err := d.carrier.Leg(ctx, r)
		if err != nil {
			d.log.Warn("the carrier does not say how the destination's leg is", "transfer", d.id, "err", err)
		}
		legUp = err == nil && ev.Kind == Picked
		if ev.Kind != "" && d.tell(ctx, ev) {
			news = true
		}
	}
	if !r.CallerGone {
		ev, err := d.carrier.Caller(ctx, r)
		if err != nil {
			d.log.Warn("the carrier does not say how the caller is", "transfer", d.id, "err", err)
		}
		callerUp = err == nil && ev.Kind == ""
		if ev.Kind != "" && d.tell(ctx, ev) {
			news = true
		}
	}
	// Both live, and the caller has been sent there: no word of their meeting has come.
	if r.State == Bridging && r.At == InRoom && legUp && callerUp && d.tell(ctx, Event{Kind: Joined}) {
		news = true
	}
	return news
}

// do does a duty. It is false where that must be tried again later.
func (d *driver) do(ctx context.Context, r *Record, duty Duty) bool {
	ctx, stop := context.WithTimeout(ctx, stepTime)
	defer stop()
	switch duty {
	case DoBegin:
		if r.Mode == Blind {
			return d.tell(ctx, Event{Kind: Divert})
		}
		return d.tell(ctx, Event{Kind: Begin})
	case DoBridge:
		return d.tell(ctx, Event{Kind: Bridge})
	case DoMeet:
		return d.tell(ctx, Event{Kind: Joined})
	case DoClear:
		if r.Leg != "" && !r.LegDown || !r.Settled {
			d.log.Error("transfer ends although the carrier has not done all", "transfer", d.id, "leg_up",
				r.Leg != "" && !r.LegDown, "caller_settled", r.Settled)
		}
		return d.tell(ctx, Event{Kind: Cleared})
	case DoDial:
		return d.dial(ctx, r)
	case DoJoin:
		return d.join(ctx, r)
	case DoHangup:
		if err := d.carrier.Hangup(ctx, r); err != nil && !errors.Is(err, ErrGone) {
			d.log.Warn("the destination's leg is not ended", "transfer", d.id, "err", err)
			return false
		}
		return d.tell(ctx, Event{Kind: LegDown})
	case DoSettle:
		var err error
		if r.Disposition() != "" {
			err = d.carrier.Settle(ctx, r)
		}
		switch {
		case errors.Is(err, ErrGone):
			return d.tell(ctx, Event{Kind: CallerLeft}) // Settle will find nothing to do
		case err != nil:
			d.log.Warn("the caller is not taken care of yet", "transfer", d.id, "wants", r.Disposition(), "err", err)
			return false
		}
		return d.tell(ctx, Event{Kind: Settled})
	}
	return true
}

// dial has the destination called, once and never again.
func (d *driver) dial(ctx context.Context, r *Record) bool {
	if !d.mayDial {
		first, err := d.store.Step(ctx, r, stepDial)
		if err != nil {
			return false
		}
		if !first { // another owner has begun it, and died before it could note that
			return d.tell(ctx, Event{Kind: dialing})
		}
		d.mayDial = true
	}
	if !r.Dialed && !d.tell(ctx, Event{Kind: dialing}) {
		return d.last.State != Dialing // nothing is dialled without a record
	}
	d.dialed = true
	leg, err := d.carrier.Dial(ctx, r)
	var known *DialError
	switch {
	case err == nil:
		last := d.last.copy()
		last.Leg = leg // whatever becomes of the store: it must not be forgotten
		d.last = last
		after, _, err := d.apply(ctx, d.id, Event{Kind: Placed, Leg: leg}, 0) // also where another has taken over
		if errors.Is(err, ErrNotFound) || err == nil && after.State.Final() {
			return d.carrier.Hangup(ctx, last) == nil
		}
	case errors.As(err, &known) && !known.Unsure:
		d.log.Warn("the destination is not called", "transfer", d.id, "reason", known.Reason, "err", err)
		d.tell(ctx, Event{Kind: LegDown, Reason: known.Reason, Detail: err.Error()})
	default:
		d.log.Warn("nobody knows whether the destination is called", "transfer", d.id, "err", err)
		d.tell(ctx, Event{Kind: Unsure})
	}
	return true
}

func (d *driver) join(ctx context.Context, r *Record) bool {
	if r.At == AtAgent && !d.tell(ctx, Event{Kind: Moved, Place: Moving}) {
		return d.last.State != Bridging
	}
	var err error
	switch {
	case d.joined: // it could not be noted
	case r.At == Moving && r.Mode == Blind: // a phone would ring twice
		var ev Event
		if ev, err = d.carrier.Caller(ctx, r); err == nil && ev.Kind != "" {
			err = ErrGone
		}
	default:
		d.joins = d.asking
		err = d.carrier.Join(ctx, r)
	}
	d.joined = d.joined || err == nil
	var known *DialError
	switch {
	case err == nil && r.Mode == Blind:
		return d.tell(ctx, Event{Kind: Moved, Place: Away}) && d.tell(ctx, Event{Kind: Joined})
	case err == nil:
		d.asked = 0 // so that they have time to meet
		return d.tell(ctx, Event{Kind: Moved, Place: InRoom})
	case errors.Is(err, ErrGone):
		return d.tell(ctx, Event{Kind: CallerLeft})
	case errors.As(err, &known) && !known.Unsure:
		d.log.Warn("the caller is not moved", "transfer", d.id, "err", err)
		return d.tell(ctx, Event{Kind: Refused, Reason: ReasonCarrier, Detail: err.Error()})
	}
	d.log.Warn("nobody knows whether the caller is moved", "transfer", d.id, "err", err)
	return false // asked for again, up to the end of Bridging
}

// rescue is for a transfer that the store has lost: nobody is to be left alone.
func (d *driver) rescue(ctx context.Context) {
	r := d.last.copy()
	if r.State.Final() {
		return
	}
	d.log.Error("the store has lost a transfer: its legs are cleared", "transfer", d.id, "state", r.State)
	r.Want, r.Reason, r.State = Failed, ReasonLost, Compensating
	for try := 0; try < 10 && ctx.Err() == nil; try++ {
		one, stop := context.WithTimeout(ctx, stepTime)
		if r.Leg != "" && !r.LegDown {
			err := d.carrier.Hangup(one, r)
			r.LegDown = err == nil || errors.Is(err, ErrGone)
		}
		if !r.Settled {
			if r.Disposition() == "" {
				r.Settled = true
			} else {
				err := d.carrier.Settle(one, r)
				r.Settled = err == nil || errors.Is(err, ErrGone)
			}
		}
		stop()
		if r.Settled && (r.Leg == "" || r.LegDown) {
			break
		}
		select {
		case <-time.After(d.cfg.Retry):
		case <-ctx.Done():
		}
	}
	r.State, r.Version = Failed, max(r.Version, d.told)+1
	d.carrier.Changed(r, r.entry(Cleared))
}
