package telnyx

import (
	"context"
	"crypto/rand"
	"errors"
	"net/url"
	"time"

	"voicebridge/providers"
)

// conferenceReply lists conferences, and what is in one.
type conferenceReply struct {
	Data []struct {
		ID  string `json:"id"`
		Leg string `json:"call_control_id"` // of a participant
	} `json:"data"`
}

// conference finds the conference with a name; empty: there is none.
func (c *commands) conference(ctx context.Context, name string) (id string, err error) {
	query := url.Values{"filter[name]": {name}, "filter[status]": {"in_progress"}}
	var reply conferenceReply
	if err := c.ask(ctx, "conference", "/conferences?"+query.Encode(), &reply); err != nil ||
		len(reply.Data) == 0 {
		return "", err
	}
	return reply.Data[0].ID, nil
}

// InRoom implements providers.RoomLooker.
func (c *commands) InRoom(ctx context.Context, room string, legs []string) ([]bool, error) {
	in := make([]bool, len(legs))
	id, err := c.conference(ctx, room)
	if err != nil || id == "" {
		return in, err
	}
	var reply conferenceReply
	err = c.ask(ctx, "participants", conferencePath(id)+"/participants", &reply)
	if err != nil && !providers.IsNoCall(err) {
		return in, err
	}
	for i, leg := range legs {
		for _, p := range reply.Data {
			in[i] = in[i] || p.Leg == leg
		}
	}
	return in, nil
}

func conferencePath(id string) string { return "/conferences/" + url.PathEscape(id) }

// createBody begins a conference with a leg, joinBody adds one to it. Only who joins can
// take the others with it when it leaves.
type createBody struct {
	Leg   string `json:"call_control_id"`
	Name  string `json:"name"`
	Beep  string `json:"beep_enabled"`
	Start bool   `json:"start_conference_on_create"`
	Hold  string `json:"hold_audio_url,omitempty"`
	given
}

type joinBody struct {
	Leg   string `json:"call_control_id"`
	End   bool   `json:"end_conference_on_exit"`
	Start bool   `json:"start_conference_on_enter"`
	Beep  string `json:"beep_enabled"`
	given
}

// codeExists is Telnyx' "Conference with given name already exists and it's active".
const codeExists = "90033"

// made looks a conference up that another leg has made just now, for a second.
func (c *commands) made(ctx context.Context, name string) (id string, err error) {
	for range 5 {
		if id, err = c.conference(ctx, name); err != nil || id != "" {
			return id, err
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	return "", nil
}

// join puts a leg into a room.
func (c *commands) join(ctx context.Context, leg string, a *providers.Answer) error {
	r := a.Room
	id, err := c.conference(ctx, r.Name)
	if err != nil {
		return err
	}
	st := state{Next: a.Next, Room: r.Events, Conference: r.Name}
	if id == "" {
		err := c.rest.Do(ctx, "create conference", "POST", "/conferences",
			createBody{leg, r.Name, "never", !r.Wait, r.Hold, with(st)}, nil)
		var refused *providers.CallError
		if !errors.As(err, &refused) || refused.Code != codeExists {
			return err
		}
		if id, err = c.made(ctx, r.Name); err != nil || id == "" {
			return errors.Join(refused, err)
		}
	}
	return c.rest.Do(ctx, "join", "POST", conferencePath(id)+"/actions/join",
		joinBody{leg, r.End, !r.Wait, "never", with(st)},
		nil)
}

// leaveBody takes a leg out of a conference.
type leaveBody struct {
	Leg string `json:"call_control_id"`
	ID  string `json:"command_id"`
}

// leave takes a leg out of the room that it is in, as its state tells, before it does
// something else: no command but this one does.
func (c *commands) leave(ctx context.Context, leg string, a *providers.Answer) error {
	reply, err := c.get(ctx, leg)
	if err != nil {
		return err
	}
	st, _ := decodeState(reply.Data.State)
	if st.Conference == "" || a.Room != nil && a.Room.Name == st.Conference {
		return nil
	}
	id, err := c.conference(ctx, st.Conference)
	if err != nil || id == "" {
		return err
	}
	err = c.rest.Do(ctx, "leave", "POST", conferencePath(id)+"/actions/leave", leaveBody{leg, rand.Text()}, nil)
	if providers.IsNoCall(err) { // the room is over
		return nil
	}
	return err
}
