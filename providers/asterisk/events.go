package asterisk

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"voicebridge/providers"
	"voicebridge/providers/asterisk/ari"
	"voicebridge/providers/internal/asteriskmedia"
	"voicebridge/ws"
)

// dialer makes the connection for events.
type dialer = ws.Dialer

// event is one of ARI's, as far as it matters.
type event struct {
	Type        string      `json:"type"`
	Application string      `json:"application"`
	Timestamp   string      `json:"timestamp"`
	Channel     ari.Channel `json:"channel"`
	Bridge      struct {
		ID       string   `json:"id"`
		Channels []string `json:"channels"`
	} `json:"bridge"`
	Playback struct {
		ID     string `json:"id"`
		Target string `json:"target_uri"`
	} `json:"playback"`
	Args     []string `json:"args"`
	Cause    int      `json:"cause"`
	CauseTxt string   `json:"cause_txt"`
	Digit    string   `json:"digit"`
}

// statuses are the states of a channel.
var statuses = map[string]providers.Status{
	"Down": providers.StatusInitiated, "Rsrved": providers.StatusInitiated, "OffHook": providers.StatusInitiated,
	"Dialing": providers.StatusInitiated, "Ring": providers.StatusRinging, "Ringing": providers.StatusRinging,
	"Up": providers.StatusInProgress, "Busy": providers.StatusBusy, "Dialing Offhook": providers.StatusInitiated,
	"Pre-ring": providers.StatusInitiated,
}

// causes are those of ITU-T Q.850 with which a channel that was never answered ends; all
// others have failed.
var causes = map[int]providers.Status{
	16: providers.StatusCanceled, 17: providers.StatusBusy, 18: providers.StatusNoAnswer, 19: providers.StatusNoAnswer,
	21: providers.StatusBusy, 127: providers.StatusNoAnswer,
}

// The times of the connection for events.
const (
	eventLimit = 1 << 20 // bytes of one
	sendTime   = 5 * time.Second
	retryFirst = 250 * time.Millisecond
	retryMost  = 10 * time.Second
	actTime    = 15 * time.Second
)

// Listen implements providers.EventSource. What goes on at Asterisk while nothing is heard is
// looked for each time that the connection is made.
func (c *commands) Listen(ctx context.Context, handle func(context.Context, *providers.CallEvent)) error {
	l := &listener{commands: c, handle: handle, live: map[string]ari.State{}, up: map[string]bool{}}
	defer l.group.Wait()
	if l.socket != nil {
		l.socket.want(true)
		defer l.socket.want(false)
	}
	for pause := retryFirst; ; pause = min(2*pause, retryMost) {
		began := time.Now()
		err := l.listen(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, errCredentials) || errors.Is(err, errReplaced) {
			return err
		}
		if time.Since(began) > retryMost {
			pause = retryFirst
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

var (
	errCredentials = errors.New("asterisk: ARI does not take username and password")
	errReplaced    = errors.New("asterisk: another program has taken the Stasis application: give each bridge an app")
)

// listener is the connection for events.
type listener struct {
	*commands
	handle func(context.Context, *providers.CallEvent)
	group  sync.WaitGroup // what is done about events

	mu   sync.Mutex
	live map[string]ari.State // channels that have been heard of, with what they did last
	up   map[string]bool      // that have been answered
}

// connection makes the connection, or waits for it.
func (l *listener) connection(ctx context.Context) (*ws.Conn, error) {
	if l.socket != nil {
		return l.socket.wait(ctx)
	}
	u := *l.rest.Base.JoinPath("events")
	u.Scheme = strings.Replace(u.Scheme, "http", "ws", 1)
	u.RawQuery = url.Values{"app": {l.cfg.App}}.Encode()
	header := http.Header{"Authorization": {"Basic " +
		base64.StdEncoding.EncodeToString([]byte(l.cfg.Username+":"+l.cfg.Password))}}
	conn, status, err := l.dial.Dial(ctx, u.String(), nil, header, ws.Limits{Text: eventLimit, Binary: eventLimit,
		Write: sendTime})
	if status == http.StatusUnauthorized || status == http.StatusForbidden {
		return nil, errCredentials
	}
	return conn, err
}

// listen gives events until the connection ends.
func (l *listener) listen(ctx context.Context) error {
	conn, err := l.connection(ctx)
	if err != nil {
		return err
	}
	if l.socket != nil {
		defer l.socket.over()
	}
	stop := context.AfterFunc(ctx, func() { conn.Close(ws.CloseNormal, "") })
	defer conn.Release()
	defer stop()
	looking, end := context.WithCancel(ctx)
	defer end()
	l.group.Go(func() { l.watch(looking) })
	for {
		_, data, err := conn.Read()
		if err != nil {
			conn.Close(ws.CloseNormal, "")
			return err
		}
		var ev event
		if json.Unmarshal(data, &ev) != nil {
			continue // whatever it is, it is no event of ARI's
		}
		if ev.Type == "ApplicationReplaced" {
			conn.Close(ws.CloseNormal, "")
			return errReplaced
		}
		if ev.Type == "RESTResponse" && l.socket != nil {
			l.socket.replied(data)
			continue
		}
		l.take(ctx, &ev)
	}
}

// act does something about an event beside the reading of others.
func (l *listener) act(ctx context.Context, do func(context.Context)) {
	l.group.Go(func() {
		ctx, stop := context.WithTimeout(ctx, actTime)
		defer stop()
		do(ctx)
	})
}

// known returns the state of an event's channel: as the event has it, as this instance has
// set it, or as it was last.
func (l *listener) known(ch *ari.Channel) ari.State {
	st, told := ari.State{}, false
	if v, has := ch.Vars[ari.Variable]; has {
		st, told = ari.DecodeState(v), true
	}
	if !told {
		l.commands.mu.Lock()
		st, told = l.states[ch.ID]
		l.commands.mu.Unlock()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !told {
		return l.live[ch.ID]
	}
	l.live[ch.ID] = st
	return st
}

// take tells what an event means, and does what Asterisk leaves to its applications.
func (l *listener) take(ctx context.Context, ev *event) {
	if ev.Type == "PlaybackFinished" {
		l.played(ctx, ev)
		return
	}
	if ev.Channel.ID == "" {
		return
	}
	st := l.known(&ev.Channel)
	switch ev.Type {
	case "StasisStart":
		l.started(ctx, ev, &st)
	case "ChannelStateChange":
		l.changed(ctx, ev, &st)
	case "ChannelDtmfReceived":
		if st.Key != "" {
			l.handle(ctx, &providers.CallEvent{Kind: providers.CallKey, ID: st.Play, Ref: ari.RefOf(st.Key),
				Leg: ev.Channel.ID, Raw: ev.Type, Digit: ev.Digit})
		}
	case "ChannelEnteredBridge":
		if ari.IsRoom(ev.Bridge.ID) && st.Room != "" {
			l.handle(ctx, &providers.CallEvent{Kind: providers.CallRoom, Ref: ari.RefOf(st.Room), Leg: ev.Channel.ID,
				Raw: ev.Type, Joined: true})
		}
	case "ChannelLeftBridge":
		l.left(ctx, ev, &st)
	case "ChannelDestroyed":
		l.destroyed(ctx, ev, &st)
	}
}

// started: a channel has come to the application.
func (l *listener) started(ctx context.Context, ev *event, st *ari.State) {
	id := ev.Channel.ID
	l.mu.Lock()
	l.live[id], l.up[id] = *st, ev.Channel.State == "Up"
	l.mu.Unlock()
	asked := &providers.CallEvent{Kind: providers.CallAsked, ID: "start-" + id, Leg: id, Raw: ev.Channel.State,
		From: ev.Channel.Caller.Number, To: ev.Channel.Dialplan.Exten}
	switch {
	case asteriskmedia.IsChannel(id):
		l.act(ctx, func(ctx context.Context) { l.joinMedia(ctx, id, st) })
	case st.For != "":
		l.act(ctx, func(ctx context.Context) { l.connect(ctx, id, st.For) })
	case st.Answer != "":
		if st.Digits != "" {
			l.act(ctx, func(ctx context.Context) { _ = l.SendDigits(ctx, id, st.Digits) })
		}
		l.handle(ctx, &providers.CallEvent{Kind: providers.CallProgress, Ref: ari.RefOf(st.Status), Leg: id,
			Raw: ev.Channel.State, Status: providers.StatusInProgress})
		if by := detections[ev.Channel.Vars[ari.Detected]]; by != "" {
			l.handle(ctx, &providers.CallEvent{Kind: providers.CallDetected, Ref: ari.RefOf(st.Status), Leg: id,
				Raw: ev.Channel.Vars[ari.Detected], AnsweredBy: by})
		}
		asked.Ref = ari.RefOf(st.Answer)
		l.handle(ctx, asked)
	default:
		asked.Metadata = metadata(ev)
		l.handle(ctx, asked)
	}
}

// detections are the values of AMDSTATUS.
var detections = map[string]providers.AnsweredBy{"HUMAN": providers.AnsweredByHuman,
	"MACHINE": providers.AnsweredByMachine, "NOTSURE": providers.AnsweredByUnknown}

// metadata is what comes along with a call: the arguments of Stasis, by their names or, without
// one, by their numbers, and the channel variables that events tell.
func metadata(ev *event) map[string]string {
	all := map[string]string{}
	for i, arg := range ev.Args {
		name, value, named := strings.Cut(arg, "=")
		if !named {
			name, value = "arg"+strconv.Itoa(i+1), arg
		}
		all[name] = value
	}
	for name, value := range ev.Channel.Vars {
		if name != ari.Variable && value != "" {
			all[name] = value
		}
	}
	if len(all) == 0 {
		return nil
	}
	return all
}

// joinMedia puts the channel with a leg's audio into the leg's bridge.
func (l *listener) joinMedia(ctx context.Context, id string, st *ari.State) {
	if st.Bridge == "" { // of another instance, or ended meanwhile
		var err error
		if *st, err = l.stateOf(ctx, id); err != nil || st.Bridge == "" {
			l.end(ctx, id)
			return
		}
	}
	if l.putSurely(ctx, st.Bridge, id) != nil {
		l.end(ctx, id) // the end of it is told
	}
}

// connect connects a leg to the number that has answered.
func (l *listener) connect(ctx context.Context, id, leg string) {
	bridge := ari.BridgeOf(id)
	err := l.putSurely(ctx, bridge, leg)
	if err == nil {
		err = l.putSurely(ctx, bridge, id)
	}
	if err != nil {
		l.end(ctx, id)
	}
}

// changed: a channel rings, or is up.
func (l *listener) changed(ctx context.Context, ev *event, st *ari.State) {
	if ev.Channel.State == "Up" {
		l.mu.Lock()
		l.up[ev.Channel.ID] = true
		l.mu.Unlock()
	}
	if st.Status != "" && ev.Channel.State == "Ringing" {
		l.handle(ctx, &providers.CallEvent{Kind: providers.CallProgress, Ref: ari.RefOf(st.Status), Leg: ev.Channel.ID,
			Raw: ev.Channel.State, Status: providers.StatusRinging})
	}
}

// played: what was played is over: what was said, or the time to press a key.
func (l *listener) played(ctx context.Context, ev *event) {
	leg, is := strings.CutPrefix(ev.Playback.Target, "channel:")
	if !is {
		return
	}
	l.act(ctx, func(ctx context.Context) {
		st, err := l.stateOf(ctx, leg)
		switch {
		case err != nil || st.Play != ev.Playback.ID: // the channel does something else now
		case st.Key != "":
			l.handle(ctx, &providers.CallEvent{Kind: providers.CallKey, ID: st.Play, Ref: ari.RefOf(st.Key), Leg: leg,
				Raw: ev.Type})
		case st.Do != "":
			l.handle(ctx, &providers.CallEvent{Kind: providers.CallAsked, ID: st.Play, Ref: ari.RefOf(st.Do), Leg: leg,
				Raw: ev.Type})
		default:
			l.end(ctx, leg)
		}
	})
}

// left: a channel has left a bridge: it has been taken out, or the room is over.
func (l *listener) left(ctx context.Context, ev *event, st *ari.State) {
	id := ev.Channel.ID
	if !ari.IsRoom(ev.Bridge.ID) {
		return
	}
	room, byItself := st.Room, st.Bridge == ev.Bridge.ID
	if !byItself {
		room = st.Left
	}
	if room != "" {
		l.handle(ctx, &providers.CallEvent{Kind: providers.CallRoom, Ref: ari.RefOf(room), Leg: id, Raw: ev.Type})
	}
	next := st.Next
	l.act(ctx, func(ctx context.Context) {
		if len(ev.Bridge.Channels) == 0 {
			_ = l.again(ctx, "end room", "DELETE", path("bridges", ev.Bridge.ID), nil)
		}
		if !byItself {
			return
		}
		if now, err := l.stateOf(ctx, id); err != nil || now.Bridge != ev.Bridge.ID { // it has gone, or goes on
			return
		}
		l.over(ctx, id, next, "")
	})
}

// over tells that the step of a leg is over; without next, the call ends.
func (l *listener) over(ctx context.Context, leg, next string, status providers.Status) {
	if next == "" {
		l.end(ctx, leg)
		return
	}
	l.handle(ctx, &providers.CallEvent{Kind: providers.CallStepDone, Ref: ari.RefOf(next), Leg: leg,
		Raw:    string(status),
		Status: status})
}

// destroyed: a channel has ended.
func (l *listener) destroyed(ctx context.Context, ev *event, st *ari.State) {
	id := ev.Channel.ID
	l.forget(id)
	l.mu.Lock()
	// A Local channel is Up although nobody has answered.
	up := l.up[id] || ev.Channel.State == "Up" && ev.Cause == 16
	delete(l.live, id)
	delete(l.up, id)
	l.mu.Unlock()
	status := providers.StatusCompleted
	if !up {
		if status = causes[ev.Cause]; status == "" {
			status = providers.StatusFailed
		}
	}
	switch {
	case asteriskmedia.IsChannel(id) && st.For != "":
		l.act(ctx, func(ctx context.Context) {
			if now, err := l.stateOf(ctx, st.For); err == nil && now.Media == id {
				l.over(ctx, st.For, st.Next, "")
			}
		})
		return
	case asteriskmedia.IsChannel(id):
		return
	case st.For != "":
		l.act(ctx, func(ctx context.Context) {
			_ = l.again(ctx, "end", "DELETE", path("bridges", ari.BridgeOf(id)), nil)
			if now, err := l.stateOf(ctx, st.For); err == nil && now.Dialed == id {
				l.over(ctx, st.For, now.Next, status)
			}
		})
		return
	}
	l.handle(ctx, &providers.CallEvent{Kind: providers.CallProgress, Ref: ari.RefOf(st.Status), Leg: id,
		Raw:    ev.CauseTxt,
		Status: status})
	l.act(ctx, func(ctx context.Context) { l.tidy(ctx, id, st) })
}

// tidy ends what belonged to a call: Asterisk leaves it.
func (l *listener) tidy(ctx context.Context, leg string, st *ari.State) {
	media := map[string]bool{st.Media: st.Media != ""}
	members, _ := l.members(ctx, ari.BridgeOf(leg))
	for _, m := range members {
		media[m] = asteriskmedia.IsChannel(m)
	}
	for id, is := range media {
		if is {
			_ = surely(ctx, func() error { return l.endMedia(ctx, id) })
		}
	}
	if st.Dialed != "" {
		l.end(ctx, st.Dialed)
	}
	_ = l.again(ctx, "end", "DELETE", path("bridges", ari.BridgeOf(leg)), nil)
}
