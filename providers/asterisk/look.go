package asterisk

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"voicebridge/providers"
	"voicebridge/providers/asterisk/ari"
	"voicebridge/providers/internal/asteriskmedia"
)

// Asterisk tells each event once, to whoever listens just then. So it is looked at, too: when
// somebody begins to listen, and from time to time.
const (
	lookEvery = 15 * time.Second
	lookAgain = time.Second // after something that does not fit
)

// scene is what there is at Asterisk.
type scene struct {
	channels []ari.Channel
	there    map[string]bool     // channels by id
	members  map[string][]string // of bridges
}

// watch looks until ctx ends. What does not fit may be under way: only what is still so a
// little later is acted on.
func (l *listener) watch(ctx context.Context) {
	suspects := map[string]bool{}
	for {
		suspects = l.look(ctx, suspects)
		pause := lookEvery
		if len(suspects) > 0 {
			pause = lookAgain
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

// look acts on what does not fit, and did not before, and returns what else does not.
func (l *listener) look(ctx context.Context, before map[string]bool) map[string]bool {
	now := map[string]bool{}
	l.mu.Lock()
	live := slices.Collect(maps.Keys(l.live)) // those that come while it is looked are not there
	l.mu.Unlock()
	s, err := l.scene(ctx)
	if err != nil { // the connection will tell
		return before
	}
	for _, id := range live {
		if !s.there[id] {
			l.take(ctx, &event{Type: "ChannelDestroyed", Channel: ari.Channel{ID: id}, Cause: 16})
		}
	}
	for i := range s.channels {
		ch := &s.channels[i]
		st := l.known(ch)
		if !l.asked(ch) && st == (ari.State{}) {
			continue // somebody else's
		}
		what, do := l.unfit(ch, &st, s)
		key := ch.ID + " " + what
		switch {
		case do == nil:
		case before[key]:
			l.act(ctx, do)
		default:
			now[key] = true
		}
	}
	return now
}

func (l *listener) scene(ctx context.Context) (*scene, error) {
	s := &scene{there: map[string]bool{}, members: map[string][]string{}}
	if err := l.rest.Do(ctx, "channels", "GET", "/channels", nil, &s.channels); err != nil {
		return nil, err
	}
	var bridges []struct {
		ID       string   `json:"id"`
		Channels []string `json:"channels"`
	}
	if err := l.rest.Do(ctx, "bridges", "GET", "/bridges", nil, &bridges); err != nil {
		return nil, err
	}
	for _, ch := range s.channels {
		s.there[ch.ID] = true
	}
	for _, b := range bridges {
		s.members[b.ID] = b.Channels
	}
	return s, nil
}

// asked reports whether a channel is in the application.
func (l *listener) asked(ch *ari.Channel) bool {
	app, _, _ := strings.Cut(ch.Dialplan.Data, ",")
	return ch.Dialplan.App == "Stasis" && app == l.cfg.App
}

// unfit returns what does not fit about a channel, and what is to be done about it.
func (l *listener) unfit(ch *ari.Channel, st *ari.State, s *scene) (what string, do func(context.Context)) {
	id, next := ch.ID, st.Next
	over := func(status providers.Status) func(context.Context) {
		return func(ctx context.Context) { l.over(ctx, id, next, status) }
	}
	idle := st.Media == "" && st.Dialed == "" && st.Bridge == "" && st.Play == "" && st.For == ""
	switch {
	case asteriskmedia.IsChannel(id) && !s.there[asteriskmedia.LegOf(id)]:
		return "its call has ended", func(ctx context.Context) { _ = l.endMedia(ctx, id) }
	case asteriskmedia.IsChannel(id):
		return "", nil
	case st.For != "" && !s.there[st.For]:
		return "its caller has gone", func(ctx context.Context) { l.end(ctx, id) }
	case st.Media != "" && !s.there[st.Media]:
		return st.Media + " has ended", over("")
	case st.Dialed != "" && !s.there[st.Dialed]:
		return st.Dialed + " has ended", over(providers.StatusFailed)
	case ari.IsRoom(st.Bridge) && !slices.Contains(s.members[st.Bridge], id):
		return st.Bridge + " is left", over("")
	case st.Play != "":
		return st.Play + " has ended", func(ctx context.Context) {
			err := l.rest.Do(ctx, "playback", "GET", path("playbacks", st.Play), nil, nil)
			if providers.IsNoCall(err) {
				ev := &event{Type: "PlaybackFinished"}
				ev.Playback.ID, ev.Playback.Target = st.Play, "channel:"+id
				l.played(ctx, ev)
			}
		}
	case idle && l.asked(ch) && (st.Answer == "" || ch.State == "Up"):
		return "nobody has said what to do", func(ctx context.Context) {
			l.started(ctx, &event{Type: "StasisStart", Channel: *ch}, st)
		}
	}
	return "", nil
}
