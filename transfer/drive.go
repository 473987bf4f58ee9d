package transfer

import (
	"cmp"
	"context"
	"errors"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// stepTime is how long the carrier may take for one step, all attempts together.
const stepTime = 20 * time.Second

// lingerTime is for how long an owner remembers a transfer that is over.
const lingerTime = 5 * time.Second

// joinTime is how long a carrier may take to move a caller after it gave no answer; only
// then is looked for where the caller is.
const joinTime = 3 * time.Second

// driver acts for one transfer. What it knows counts more than what the store has: a
// failover may lose what had been acknowledged, such as that the phone rings already.
type driver struct {
	*Manager
	id       string
	fence    int64
	last     *Record   // as it was last seen
	looked   time.Time // when that was
	told     int64     // version of the last entry that Changed was told of
	asked    int64     // when the carrier was last asked how the legs are
	doubt    bool      // nobody knows whether it is stored: it was told not to be
	mayDial  bool      // this owner may dial: nobody has before
	dialed   bool      // this owner has dialled
	joins    int64     // when the carrier was last asked to move the caller; 0: not by this owner
	joined   bool      // the caller has been moved, which could not be noted yet
	settles  int       // times that Settle has failed
	settling bool      // a number was asked for, for the caller
	seen     func(State)
	latest   atomic.Pointer[Record] // what this instance has stored last, by whatever event
	asking   atomic.Bool            // the carrier is being asked how the legs are
	// beside runs questions to the carrier beside the driver, which must not wait for
	// a slow answer.
	beside func(ask func())
}

// guarded is drive. It is false where that panicked: a fault in one transfer must not end
// the program, with the calls of all others.
func (d *driver) guarded(ctx context.Context) (whole bool) {
	defer func() {
		if v := recover(); v != nil {
			d.log.Error("panic", "in", "the transfer "+d.id, "panic", v, "stack", string(debug.Stack()))
		}
	}()
	d.drive(ctx)
	return true
}

// drive acts for a transfer until it is over, or belongs to another instance.
func (d *driver) drive(ctx context.Context) {
	var questions sync.WaitGroup
	defer questions.Wait()
	d.beside = func(ask func()) {
		if d.asking.CompareAndSwap(false, true) {
			questions.Go(func() {
				defer d.wake(d.id)
				defer d.asking.Store(false)
				ask()
			})
		}
	}
	woken, stop := d.listen(d.id)
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
	return &driver{Manager: m, id: r.ID, fence: r.Fence, last: r, looked: time.Now(), seen: func(State) {},
		beside: func(ask func()) { ask() }}
}

// step does what is due, and gives the time until there may be something else to
// do; less than 0: there never will be.
func (d *driver) step(ctx context.Context) time.Duration {
	r, pause := d.look(ctx)
	if r == nil {
		return pause
	}
	d.seen(r.State)
	d.changed(ctx, r)
	if r.State.Final() { // a store that goes back in time now would have it begin again
		linger := min(lingerTime, d.cfg.Keep/2)
		if left := r.Updated + linger.Milliseconds() - r.Now; left > 0 {
			return time.Duration(left) * time.Millisecond
		}
		return -1
	}
	if duties := d.duties(ctx, r); len(duties) > 0 {
		return d.fulfil(ctx, r, duties)
	}
	if r.Due > 0 && r.Now >= r.Due { // the carrier knows better than a clock
		if d.ask(ctx, r) || d.tell(ctx, Event{Kind: Timeout}) {
			return 0
		}
		return d.cfg.Retry
	}
	if d.asked == 0 { // what has just begun needs no question
		d.asked = r.Now
	}
	if r.Now-d.asked >= d.every(r).Milliseconds() {
		d.asked = r.Now
		d.beside(func() { d.ask(ctx, r) })
	}
	pause = d.pause(r)
	if r.Due > 0 {
		pause = min(pause, time.Duration(r.Due-r.Now)*time.Millisecond)
	}
	return max(pause, time.Millisecond)
}

// look reads the transfer, and brings a store up to date that has lost something. The
// record is nil where nothing is to be done before the pause is over, or ever.
func (d *driver) look(ctx context.Context) (*Record, time.Duration) {
	one, stop := context.WithTimeout(ctx, storeTime)
	defer stop()
	r, err := d.load(one, d.id)
	if known := d.latest.Load(); known != nil && known.Fence == d.fence && known.Version > d.last.Version {
		leg := d.last.Leg
		d.last = known.copy()
		d.last.Leg = cmp.Or(d.last.Leg, leg)
	}
	switch {
	case err != nil && !errors.Is(err, ErrNotFound):
		return nil, d.cfg.Retry
	case err != nil && (d.doubt || time.Since(d.looked) > d.cfg.Keep/2):
		return nil, -1 // another owner may have brought it to its end meanwhile
	case err == nil && (r.Fence > d.fence || r.Fence == d.fence && r.Owner != d.last.Owner): // another owner
		if r.Leg == "" && d.last.Leg != "" { // only this one knows of it
			if _, _, err = d.apply(ctx, d.id, Event{Kind: Placed, Leg: d.last.Leg}, 0); err != nil {
				return nil, d.cfg.Retry
			}
		}
		return nil, -1
	case err != nil || r.Fence < d.fence || r.behind(d.last):
		return nil, d.restore(one, r)
	}
	if r.Leg == "" && d.last.Leg != "" { // it could not be noted
		d.tell(ctx, Event{Kind: Placed, Leg: d.last.Leg})
		r.Leg = d.last.Leg
	}
	d.last, d.looked = r, time.Now()
	if d.doubt {
		d.doubt = false
		d.tell(ctx, Event{Kind: Cancel, Reason: ReasonLost})
		return nil, 0
	}
	return r, 0
}

// restore writes what the store has lost, as this owner last saw it. found is what the
// store has; nil: nothing. What has happened since it went back in time is not forgotten.
func (d *driver) restore(ctx context.Context, found *Record) time.Duration {
	r := d.last.copy()
	var since []Event
	if found != nil {
		r.Version = max(r.Version, found.Version)
		since = found.facts()
	}
	r.Version++
	err := d.store.Restore(ctx, r)
	switch {
	case errors.Is(err, ErrConflict): // it has another owner, or has been brought up to date
		return 0
	case err != nil:
		return d.cfg.Retry
	}
	d.log.Warn("the store had lost a part of a transfer: it was restored", "transfer", d.id, "state", r.State)
	d.last = r
	for _, ev := range since {
		d.tell(ctx, ev)
	}
	return 0
}

// duties are those of the record, as far as this owner may do them now.
func (d *driver) duties(ctx context.Context, r *Record) []Duty {
	duties := r.duties(r.Now)
	if r.State == Dialing && r.Dialed && r.Leg == "" && !d.dialed {
		if d.mayDial { // it was noted, but no word of that came back
			return []Duty{DoDial}
		}
		d.dialed = true // whoever had it before may have died amid the request
		d.tell(ctx, Event{Kind: Unsure})
	}
	return duties
}

// fulfil does the duties, each by itself, and gives the time until they are to be tried
// again.
func (d *driver) fulfil(ctx context.Context, r *Record, duties []Duty) time.Duration {
	pause := time.Duration(0)
	for _, duty := range duties {
		if !d.do(ctx, r, duty) {
			pause = d.cfg.Retry
		}
	}
	return pause
}

// pause is how long no change is looked for of which no word comes: where parties talk,
// little is lost by waiting.
func (d *driver) pause(r *Record) time.Duration {
	if r.State == Bridged { // but not so long that it could be over and forgotten
		return min(20*d.cfg.Look, d.cfg.Keep/4)
	}
	return min(d.cfg.Look, d.cfg.Keep/4)
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
	r, moved := d.note(ctx, ev)
	if r != nil && r.Fence == d.fence {
		if r.Leg == "" && d.last.Leg != "" {
			r = r.copy()
			r.Leg = d.last.Leg
		}
		d.last = r
	}
	return moved
}

// note is tell for what runs beside the driver.
func (d *driver) note(ctx context.Context, ev Event) (r *Record, moved bool) {
	r, moved, err := d.apply(ctx, d.id, ev, d.fence)
	if err != nil && !errors.Is(err, ErrConflict) && ctx.Err() == nil {
		d.log.Warn("transfer is not moved on", "transfer", d.id, "event", ev.Kind, "err", err)
	}
	return r, moved
}

// noted is note where the record is of no interest.
func (d *driver) noted(ctx context.Context, ev Event) bool {
	_, moved := d.note(ctx, ev)
	return moved
}

// ask asks the carrier how the legs are. It is true where that was news.
func (d *driver) ask(ctx context.Context, r *Record) (news bool) {
	ctx, stop := context.WithTimeout(ctx, stepTime)
	defer stop()
	if r.Leg != "" && !r.LegDown {
		evs, err := d.carrier.Leg(ctx, r)
		if err != nil {
			d.log.Warn("the carrier does not say how the destination's leg is", "transfer", d.id, "err", err)
		}
		for _, ev := range evs {
			news = d.noted(ctx, ev) || news
		}
	}
	if !r.CallerGone {
		ev, err := d.carrier.Caller(ctx, r)
		if err != nil {
			d.log.Warn("the carrier does not say how the caller is", "transfer", d.id, "err", err)
		}
		news = ev.Kind != "" && d.noted(ctx, ev) || news
	}
	if r.State == Bridging && r.Mode != Blind && (r.At == InRoom || r.At == Moving) {
		news = d.meet(ctx, r) || news
	}
	return news
}

// meet looks for caller and destination, of whose meeting no word may have come.
func (d *driver) meet(ctx context.Context, r *Record) (news bool) {
	w, err := d.carrier.Where(ctx, r)
	if err != nil {
		d.log.Warn("the carrier does not say who is in the room", "transfer", d.id, "err", err)
		return false
	}
	if w.LegIn {
		news = d.noted(ctx, Event{Kind: LegIn})
	}
	if w.Caller == InRoom {
		news = d.noted(ctx, Event{Kind: CallerIn}) || news
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
		return d.settle(ctx, r)
	}
	return true
}

// settleTries is how often the caller is tried to be taken where it should be, and
// settleTime is how long, before it is told that nothing can be done.
const (
	settleTries = 5
	settleTime  = 30 * time.Second
)

// settle takes care of the caller. Where the carrier refuses it for good, or does not do
// it in time, the caller is told so and the call ends: it must not stay alone.
func (d *driver) settle(ctx context.Context, r *Record) bool {
	if r.Disposition() == "" || d.connected(ctx, r) {
		return d.tell(ctx, Event{Kind: Settled})
	}
	err := d.carrier.Settle(ctx, r)
	if err == nil {
		return d.tell(ctx, Event{Kind: Settled})
	}
	if errors.Is(err, ErrGone) {
		return d.tell(ctx, Event{Kind: CallerLeft}) // there is nothing to settle then
	}
	d.log.Warn("the caller is not taken care of yet", "transfer", d.id, "wants", r.Disposition(), "err", err)
	d.settles++
	var known *DialError
	refused := errors.As(err, &known) && !known.Unsure && d.settles >= settleTries
	if left := r.Due - r.Now; !refused && left > (times[Compensating]-settleTime).Milliseconds() {
		return false
	}
	if err := d.carrier.GiveUp(ctx, r); err != nil && !errors.Is(err, ErrGone) {
		d.log.Warn("the caller is not told that nothing can be done", "transfer", d.id, "err", err)
		return false
	}
	d.log.Error("the caller could not be taken anywhere: the call was ended", "transfer", d.id)
	return d.tell(ctx, Event{Kind: CallerLeft})
}

// connected reports whether the caller is with a number already, that a carrier was asked for before which gave no
// answer, or whose answer could not be noted: asked again, it would take the caller away from there.
func (d *driver) connected(ctx context.Context, r *Record) bool {
	to := r.Disposition()
	if to == Resume || to == Hangup || r.Mode == Blind && r.At != AtAgent { // it may have been away before
		return false
	}
	first, err := d.store.Step(ctx, r, StepSettle)
	asked := d.settling || err == nil && !first
	if d.settling = true; !asked {
		return false
	}
	w, err := d.carrier.Where(ctx, r)
	return err == nil && w.Caller == Away
}

// dial has the destination called, once and never again.
func (d *driver) dial(ctx context.Context, r *Record) bool {
	if !d.mayDial {
		first, err := d.store.Step(ctx, r, StepDial)
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

// join has the caller moved. It is asked for once; whether it happened is looked for
// before it is asked for again: another time would take a caller out of the room again,
// or ring a phone twice.
func (d *driver) join(ctx context.Context, r *Record) bool {
	if r.At == AtAgent && !d.tell(ctx, Event{Kind: Moved, Place: Moving}) {
		return d.last.State != Bridging
	}
	var err error
	switch {
	case d.joined: // it could not be noted
	case r.At == Moving:
		done, known := d.moved(ctx, r)
		if !known {
			return false
		}
		if !done {
			d.joins = r.Now
			err = d.carrier.Join(ctx, r)
		}
	default:
		d.joins = r.Now
		err = d.carrier.Join(ctx, r)
	}
	d.joined = d.joined || err == nil
	var refused *DialError
	switch {
	case err == nil && r.Mode == Blind:
		return d.tell(ctx, Event{Kind: Moved, Place: Away}) && d.tell(ctx, Event{Kind: Joined})
	case err == nil:
		return d.tell(ctx, Event{Kind: Moved, Place: InRoom})
	case errors.Is(err, ErrGone):
		return d.tell(ctx, Event{Kind: CallerLeft})
	case errors.As(err, &refused) && !refused.Unsure:
		d.log.Warn("the caller is not moved", "transfer", d.id, "err", err)
		return d.tell(ctx, Event{Kind: Refused, Reason: ReasonCarrier, Detail: err.Error()})
	}
	d.log.Warn("nobody knows whether the caller is moved", "transfer", d.id, "err", err)
	return false // looked for, up to the end of Bridging
}

// moved finds out whether a caller has been moved that the carrier was asked to move.
// known is false where it is too early to say.
func (d *driver) moved(ctx context.Context, r *Record) (done, known bool) {
	if d.joins == 0 { // by the owner before, who may have died amid the request
		d.joins = r.Now
	}
	if r.Now < d.joins+joinTime.Milliseconds() {
		return false, false
	}
	if ev, err := d.carrier.Caller(ctx, r); err == nil && ev.Kind != "" {
		return false, !d.tell(ctx, ev)
	}
	w, err := d.carrier.Where(ctx, r)
	if err != nil {
		d.log.Warn("the carrier does not say where the caller is", "transfer", d.id, "err", err)
		return false, false
	}
	return w.Caller == InRoom || w.Caller == Away, w.Caller != ""
}
