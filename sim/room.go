package sim

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"voicebridge/codec"
	"voicebridge/providers"
	"voicebridge/sim/ear"
)

// room is a conference at a simulated carrier. It mixes: each phone in it hears all
// others, and one that is alone hears the hold tone.
type room struct {
	members map[*SimCall]context.CancelFunc // which takes one out
	stop    chan struct{}                   // ends the mixing
}

// holdTone is what a phone hears that is alone in a room, Hz.
const holdTone = 300

// meet puts the phone into a room until it leaves.
func (c *SimCall) meet(ctx context.Context, r *providers.Room) {
	in, out := context.WithDeadline(ctx, c.hangAt)
	defer out()
	c.setRoom(r.Name)
	c.x.enter(c, r.Name, out)
	c.tellRoom(r, true)
	<-in.Done()
	c.setRoom("")
	c.x.leave(c, r.Name, r.End)
	c.tellRoom(r, false)
	if errors.Is(in.Err(), context.DeadlineExceeded) {
		c.end(providers.StatusCompleted)
	}
}

func (c *SimCall) setRoom(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.call.Room = name
}

// inRoom returns a call that is in a room; nil: there is none.
func (x *Exchange) inRoom(name string) *providers.ExchangeCall {
	x.mu.Lock()
	var members []*SimCall
	if r := x.rooms[name]; r != nil {
		members = slices.Collect(maps.Keys(r.members))
	}
	x.mu.Unlock()
	if len(members) == 0 {
		return nil
	}
	call := members[0].Call()
	for _, c := range members {
		call.Members = append(call.Members, c.call.ID)
	}
	return &call
}

func (c *SimCall) tellRoom(r *providers.Room, joined bool) {
	url := r.Events
	if c.x.Spec.Abilities.RoomAtLeg && url != "" {
		if url = c.x.Status; c.dial != nil {
			url = c.dial.Status
		}
	}
	if url != "" || c.x.tells() {
		n := c.inRooms
		c.inRooms++
		c.reports <- report{providers.Ask{Kind: providers.TellRoom, URL: url, Call: c.Call(), Sequence: n,
			Room: r.Name, Joined: joined}}
	}
}

// enter puts a phone into a room, which begins with the first one.
func (x *Exchange) enter(c *SimCall, name string, out context.CancelFunc) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.rooms == nil {
		x.rooms = map[string]*room{}
	}
	r := x.rooms[name]
	if r == nil {
		r = &room{members: map[*SimCall]context.CancelFunc{}, stop: make(chan struct{})}
		x.rooms[name] = r
		x.live.Go(func() { x.mix(r) })
	}
	r.members[c] = out
}

// leave takes a phone out of a room, and with end all others, too.
func (x *Exchange) leave(c *SimCall, name string, end bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	r := x.rooms[name]
	if r == nil {
		return
	}
	delete(r.members, c)
	if end {
		for _, out := range r.members {
			out()
		}
	}
	if len(r.members) == 0 {
		delete(x.rooms, name)
		close(r.stop)
	}
}

// Rooms are the names of the rooms in which somebody is, and how many are there.
func (x *Exchange) Rooms() map[string]int {
	x.mu.Lock()
	defer x.mu.Unlock()
	m := map[string]int{}
	for name, r := range x.rooms {
		m[name] = len(r.members)
	}
	return m
}

// mix moves a room on, frame by frame.
func (x *Exchange) mix(r *room) {
	size := x.format.FrameSamples()
	hold := ear.Sine(x.format.Rate, holdTone, time.Second)
	tick := time.NewTicker(codec.FrameTime)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-tick.C:
		case <-r.stop:
			return
		}
		x.mu.Lock()
		sum := make([]int32, size)
		voices := map[*SimCall][]int16{}
		for c := range r.members {
			voices[c] = c.speak(size)
			for i, s := range voices[c] {
				sum[i] += int32(s)
			}
		}
		for c, own := range voices {
			mixed := make([]int16, size)
			for i := range mixed {
				mixed[i] = int16(min(max(sum[i]-int32(own[i]), -32768), 32767))
			}
			if len(voices) == 1 {
				copy(mixed, hold[n*size%len(hold):])
			}
			c.mu.Lock()
			c.heard = append(c.heard, mixed...)
			c.mu.Unlock()
		}
		x.mu.Unlock()
	}
}

// speak returns the next samples of the phone's voice.
func (c *SimCall) speak(n int) []int16 {
	c.mu.Lock()
	defer c.mu.Unlock()
	frame := make([]int16, n)
	if c.spoken < len(c.phone.Voice) {
		copy(frame, c.phone.Voice[c.spoken:])
	}
	c.spoken += n
	return frame
}

// connect calls a number and connects the phone to it until one of them hangs up.
func (c *SimCall) connect(ctx context.Context, a *providers.Answer) providers.Status {
	c.mu.Lock()
	c.dialled = append(c.dialled, a.Dial)
	c.mu.Unlock()
	from := a.Caller
	if from == "" {
		from = c.Call().From
	}
	other := c.x.newCall(providers.ExchangeCall{From: from, To: a.Dial, Status: providers.StatusRinging})
	other.phone = Phone{Length: time.Minute}
	if c.x.Phone != nil {
		other.phone = c.x.Phone(other.call)
	}
	left := time.NewTimer(time.Until(c.hangAt))
	defer left.Stop()
	ring := other.phone.Ring
	if most := time.Duration(a.RingSeconds()) * time.Second; ring > most {
		ring, other.phone.Reject = most, providers.StatusNoAnswer
	}
	select {
	case <-time.After(ring):
	case <-left.C:
		c.end(providers.StatusCompleted)
		return providers.StatusCanceled
	case <-ctx.Done():
		return providers.StatusCanceled
	}
	if other.phone.Reject != "" {
		return other.phone.Reject
	}
	name := "dial-" + other.call.ID
	done := make(chan struct{})
	c.x.begin(other, func(octx context.Context) {
		defer close(done)
		length := other.phone.Length
		if length == 0 {
			speech := time.Duration(len(other.phone.Voice)) * time.Second / time.Duration(c.x.format.Rate)
			length = max(codec.FrameTime, speech)
		}
		other.hangAt = time.Now().Add(length)
		other.become(providers.StatusInProgress)
		other.meet(octx, &providers.Room{Name: name, End: true})
	})
	in, out := context.WithDeadline(ctx, c.hangAt)
	defer out()
	c.x.enter(c, name, out)
	select {
	case <-in.Done():
	case <-done:
	}
	c.x.leave(c, name, true)
	other.Hangup()
	<-done
	if errors.Is(in.Err(), context.DeadlineExceeded) {
		c.end(providers.StatusCompleted)
	}
	return providers.StatusCompleted
}
