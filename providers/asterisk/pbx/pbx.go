// Package pbx is a simulated Asterisk, as far as ARI and the audio of channels tell of it.
package pbx

import (
	"cmp"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"voicebridge/codec"
	"voicebridge/providers"
	"voicebridge/providers/asterisk/ari"
	"voicebridge/providers/internal/asteriskmedia"
	"voicebridge/providers/internal/rest"
	"voicebridge/ws"
)

// exchange is a simulated Asterisk with one Stasis application: its channels and bridges, as
// far as ARI tells of them.
type exchange struct {
	cfg ari.Config

	mu      sync.Mutex
	vars    map[string]string // the variable of each channel
	media   map[string]*mediaChannel
	waiting map[string]*mediaChannel // for a connection of the bridge's, by its id
	bridges map[string]map[string]bool
	plays   map[string]bool // playbacks
	feed    *ws.Conn        // of the application's events; nil: nobody listens
	born    int             // channels
}

// mediaChannel is a channel with the audio of a leg.
type mediaChannel struct {
	leg, url string
	over     bool
	// conn is the connection that is not made to the bridge's media server, once it is there.
	conn chan providers.PeerConn
}

// New implements providers.Spec.
func New(setup providers.Setup) (providers.Exchange, error) {
	cfg, _, err := ari.ReadConfig(setup)
	return &exchange{cfg: cfg, vars: map[string]string{},
		media: map[string]*mediaChannel{}, waiting: map[string]*mediaChannel{}, bridges: map[string]map[string]bool{},
		plays: map[string]bool{}}, err
}

// Sample implements providers.Spec.
func Sample(baseURL string, f codec.Format) func(config any) error {
	cfg := ari.Config{URL: strings.TrimSuffix(baseURL, "/") + "/ari", Username: "asterisk", Password: rand.Text(),
		App: "voicebridge", Media: "bridge", Format: asteriskmedia.NameOf(f), Endpoint: "PJSIP/{number}@trunk",
		Speech: ari.Speech{URL: "https://tts.example.com/say.wav?text={text}&language={language}&voice={voice}"},
		Detect: "amd",
		Dial:   []string{"Local/*@desk"}}
	return func(config any) error {
		*config.(*ari.Config) = cfg
		return nil
	}
}

// NewCall implements providers.Exchange.
func (x *exchange) NewCall() providers.Leg {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.born++
	return providers.Leg{ID: "1795376166." + strconv.Itoa(x.born)}
}

// Ask implements providers.Exchange: Asterisk has no webhooks, Tell says everything.
func (x *exchange) Ask(*providers.Ask, time.Time) (*http.Request, error) {
	return nil, providers.ErrNotAsked
}

// Answer implements providers.Exchange.
func (x *exchange) Answer(string, []byte) (*providers.Answer, error) {
	return nil, errors.New("asterisk: nothing is answered")
}

// Handshake implements providers.Exchange: nothing is signed.
func (x *exchange) Handshake(string, time.Time) (http.Header, error) { return http.Header{}, nil }

// Start implements providers.Exchange.
func (x *exchange) Start(c *providers.ExchangeCall, a *providers.Answer) *providers.Start {
	x.mu.Lock()
	defer x.mu.Unlock()
	return &providers.Start{Call: c.ID, Stream: ari.DecodeState(x.vars[c.ID]).Media, In: a.Format, Out: a.Format}
}

// Feed serves the application's connection for events, and reports whether a request is for
// it. A second one takes the first one's place.
func (x *exchange) Feed(w http.ResponseWriter, r *http.Request) bool {
	if key, media := strings.CutPrefix(r.URL.Path, "/media/"); media {
		x.accept(w, r, key)
		return true
	}
	if r.URL.Path != "/ari/events" {
		return false
	}
	switch user, password, _ := r.BasicAuth(); {
	case user != x.cfg.Username || password != x.cfg.Password:
		http.Error(w, `{"error":"Authentication required"}`, http.StatusUnauthorized)
		return true
	case r.URL.Query().Get("app") != x.cfg.App:
		http.Error(w, `{"message":"no such app"}`, http.StatusBadRequest)
		return true
	}
	conn, err := ws.Accept(w, r, nil, ws.Limits{Text: eventLimit, Binary: eventLimit, Write: sendTime})
	if err != nil {
		return true
	}
	x.mu.Lock()
	before := x.feed
	x.feed = conn
	x.mu.Unlock()
	if before != nil {
		x.write(before, map[string]any{"type": "ApplicationReplaced"})
		before.Close(ws.CloseNormal, "")
	}
	for err == nil {
		_, _, err = conn.Read()
	}
	x.mu.Lock()
	if x.feed == conn {
		x.feed = nil
	}
	x.mu.Unlock()
	conn.Close(ws.CloseNormal, "")
	conn.Release()
	return true
}

// Heard implements providers.Teller.
func (x *exchange) Heard() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.feed != nil
}

// write sends an event.
func (x *exchange) write(conn *ws.Conn, ev map[string]any) {
	ev["timestamp"], ev["asterisk_id"], ev["application"] = "2026-11-22T19:42:18.446+0000", "02:fc:00:00:00:01",
		x.cfg.App
	if b, err := json.Marshal(ev); err == nil {
		_ = conn.Write(false, b) // whoever is gone hears nothing
	}
}

// The limits of the connection for events.
const (
	eventLimit = 1 << 20 // bytes of one
	sendTime   = 5 * time.Second
)

// errNobody is the error of a call to an application that nobody serves.
var errNobody = errors.New("asterisk: the Stasis application is not registered")

// emit sends an event to the application.
func (x *exchange) emit(kind string, ev map[string]any) error {
	x.mu.Lock()
	conn := x.feed
	x.mu.Unlock()
	if conn == nil {
		return errNobody
	}
	ev["type"] = kind
	x.write(conn, ev)
	return nil
}

// Tell says as events what others tell by webhooks. A call for an application that nobody
// serves is refused; events that nobody hears are lost.
func (x *exchange) Tell(a *providers.Ask) error {
	err := x.tell(a)
	if errors.Is(err, errNobody) && !(a.Kind == providers.AskAnswer && a.Call.Inbound) {
		return nil
	}
	return err
}

func (x *exchange) tell(a *providers.Ask) error {
	text, _ := x.known(a.Call.ID)
	st := ari.DecodeState(text)
	switch a.Kind {
	case providers.AskAnswer:
		state := "Up"
		if a.Call.Inbound {
			state = "Ring"
		}
		ch := x.channel(&a.Call, state)
		if word := detected[a.Call.AnsweredBy]; word != "" && !a.Call.Inbound { // AMD comes before Stasis
			ch["channelvars"].(map[string]string)[ari.Detected] = word
		}
		return x.emit("StasisStart", map[string]any{"args": []string{}, "channel": ch})
	case providers.AskNext:
		return x.over(a, &st)
	case providers.AskDigit:
		if a.Digit != "" {
			return x.emit("ChannelDtmfReceived", map[string]any{"digit": a.Digit, "duration_ms": 110,
				"channel": x.channel(&a.Call, "Up")})
		}
		return x.played(a.Call.ID, &st)
	case providers.TellStatus:
		return x.progress(a)
	case providers.TellRoom:
		kind := "ChannelLeftBridge"
		if a.Joined {
			kind = "ChannelEnteredBridge"
		}
		return x.inBridge(kind, a)
	}
	return nil
}

// detected are the values of AMDSTATUS.
var detected = map[providers.AnsweredBy]string{providers.AnsweredByHuman: "HUMAN",
	providers.AnsweredByMachine: "MACHINE", providers.AnsweredByUnknown: "NOTSURE"}

func (x *exchange) inBridge(kind string, a *providers.Ask) error {
	return x.emit(kind, map[string]any{"bridge": x.bridge(bridgeID(a.Room), slices.DeleteFunc(a.Call.Members,
		func(id string) bool { return id == a.Call.ID && !a.Joined })), "channel": x.channel(&a.Call, "Up")})
}

// over tells that what a channel did is over.
func (x *exchange) over(a *providers.Ask, st *ari.State) error {
	switch {
	case a.Room != "" && st.Room == "": // otherwise it has been told already
		return x.inBridge("ChannelLeftBridge", a)
	case a.Room != "":
		return nil
	case st.Media != "":
		return x.endMedia(st.Media)
	}
	return x.played(a.Call.ID, st)
}

// playing reports whether something is played.
func (x *exchange) playing(playback string) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.plays[playback]
}

func (x *exchange) played(leg string, st *ari.State) error {
	x.mu.Lock()
	delete(x.plays, st.Play)
	x.mu.Unlock()
	return x.emit("PlaybackFinished", map[string]any{"playback": map[string]any{"id": st.Play,
		"media_uri": ari.Silence + "1", "target_uri": "channel:" + leg, "language": "en", "state": "done"}})
}

// endings are the causes of ITU-T Q.850 with which calls end.
var endings = map[providers.Status]int{providers.StatusCompleted: 16, providers.StatusBusy: 17,
	providers.StatusNoAnswer: 19, providers.StatusFailed: 34, providers.StatusCanceled: 16}

func (x *exchange) progress(a *providers.Ask) error {
	cause, over := endings[a.Call.Status]
	switch {
	case over:
		return x.destroyed(x.channel(&a.Call, "Down"), cause)
	case a.Call.Status == providers.StatusRinging && !a.Call.Inbound:
		return x.emit("ChannelStateChange", map[string]any{"channel": x.channel(&a.Call, "Ringing")})
	case a.Call.Status == providers.StatusInProgress:
		return x.emit("ChannelStateChange", map[string]any{"channel": x.channel(&a.Call, "Up")})
	}
	return nil
}

func (x *exchange) destroyed(channel map[string]any, cause int) error {
	return x.emit("ChannelDestroyed", map[string]any{"cause": cause, "cause_txt": "", "channel": channel})
}

// endMedia ends a channel with media, once.
func (x *exchange) endMedia(id string) error {
	x.mu.Lock()
	m := x.media[id]
	first := m != nil && !m.over
	if first {
		m.over = true
	}
	x.mu.Unlock()
	if !first {
		return nil
	}
	return x.destroyed(x.channel(&providers.ExchangeCall{ID: id}, "Up"), 16)
}

// channel is one as events and replies have it.
func (x *exchange) channel(c *providers.ExchangeCall, state string) map[string]any {
	number := func(n string) map[string]any { return map[string]any{"name": "", "number": n} }
	ch := map[string]any{"id": c.ID, "name": "PJSIP/trunk-" + c.ID, "state": state, "protocol_id": "",
		"accountcode": "",
		"caller":      number(c.From), "connected": number(""), "creationtime": "2026-11-22T19:42:18.441+0000",
		"language": "en", "dialplan": map[string]any{"context": "from-trunk", "exten": c.To, "priority": 1,
			"app_name": "Stasis", "app_data": x.cfg.App}}
	x.mu.Lock()
	defer x.mu.Unlock()
	if v, has := x.vars[c.ID]; has {
		ch["channelvars"] = map[string]string{ari.Variable: v}
	}
	return ch
}

// channelWith is one with variables of its own.
func (x *exchange) channelWith(id, state string, vars map[string]string) map[string]any {
	ch := x.channel(&providers.ExchangeCall{ID: id}, state)
	if vars != nil {
		ch["channelvars"] = vars
	}
	return ch
}

func (x *exchange) bridge(id string, members []string) map[string]any {
	if members == nil {
		members = []string{}
	}
	return map[string]any{"id": id, "technology": "softmix", "bridge_type": "mixing", "bridge_class": "stasis",
		"creator": "Stasis", "name": "", "channels": members, "creationtime": "2026-11-22T19:42:18.464+0000",
		"video_mode": "talker"}
}

// bridgeID is the bridge that is a room here.
func bridgeID(room string) string {
	if strings.HasSuffix(room, ari.BridgeOf("")) {
		return room
	}
	return ari.RoomOf(room)
}

func fail(status int, message string) error {
	return &providers.CallError{Kind: providers.KindOf(status), Status: status, Detail: message}
}

var apiPath = regexp.MustCompile(`^/ari/(channels|bridges|playbacks|applications)(?:/([^/]+))?(?:/([a-zA-Z]+))?(?:/([^/]+))?$`)

// Operation implements providers.Exchange.
func (x *exchange) Operation(r *http.Request, body []byte, _ time.Time) (op *providers.Operation, err error) {
	user, password, _ := r.BasicAuth()
	m := apiPath.FindStringSubmatch(r.URL.Path)
	switch {
	case user != x.cfg.Username || password != x.cfg.Password:
		return nil, fail(401, "Authentication required")
	case m == nil:
		return nil, fail(404, "Invalid URI")
	}
	q := r.URL.Query()
	op = &providers.Operation{Kind: providers.OpOther, Call: m[2]}
	switch what := strings.TrimSpace(r.Method + " " + m[1] + " " + m[3]); {
	case what == "POST channels" && m[2] == "":
		err = x.originate(op, q, body)
	case what == "GET channels" && m[2] == "":
		op.Kind, op.Note = providers.OpCalls, listing(x.channels)
	case what == "POST channels" && m[2] == "externalMedia": // its reply is the channel of the audio
		err = x.externalMedia(op, q, body)
	case m[1] == "channels" && asteriskmedia.IsChannel(m[2]):
		err = x.mediaOperation(op, what, m[2], q)
	case m[1] == "channels":
		err = x.channelOperation(op, what, m[4], q)
	case m[1] == "bridges":
		err = x.bridgeOperation(op, what, m[2], q)
	case what == "POST applications subscription" && m[2] == x.cfg.App:
		op.Call = ""
		if _, there := x.known(strings.TrimPrefix(q.Get("eventSource"), "channel:")); !there {
			err = fail(422, "Event source does not exist")
		}
	case what == "DELETE playbacks":
		op.Call = ""
	case what == "GET playbacks":
		op.Call, op.Note = "", fail(404, "Playback not found")
		if x.playing(m[2]) {
			op.Note = map[string]string{"id": m[2], "state": "playing"}
		}
	default:
		return nil, fail(404, "Resource not found")
	}
	var known *providers.CallError
	if err != nil && !errors.As(err, &known) {
		err = fail(400, err.Error())
	}
	return op, err
}

// channels are those that there are.
func (x *exchange) channels(calls []providers.ExchangeCall) any {
	all := []any{}
	for _, c := range calls {
		if !c.Status.Final() {
			all = append(all, x.channel(&c, stateNames[c.Status]))
		}
	}
	x.mu.Lock()
	var media []string
	for id, m := range x.media {
		if !m.over {
			media = append(media, id)
		}
	}
	x.mu.Unlock()
	for _, id := range media {
		all = append(all, x.channel(&providers.ExchangeCall{ID: id}, "Up"))
	}
	return all
}

// rooms are the bridges, with those who are in rooms.
func (x *exchange) rooms(calls []providers.ExchangeCall) any {
	members := map[string][]string{}
	for _, c := range calls {
		if c.Room != "" && !c.Status.Final() {
			members[bridgeID(c.Room)] = append(members[bridgeID(c.Room)], c.ID)
		}
	}
	x.mu.Lock()
	ids := slices.Collect(maps.Keys(x.bridges))
	x.mu.Unlock()
	all := []any{}
	for _, id := range ids {
		all = append(all, x.bridge(id, members[id]))
	}
	return all
}

// listing makes the reply to a question for all that there is.
type listing func(calls []providers.ExchangeCall) any

// given reads the variables of a new channel.
func given(body []byte) (string, error) {
	v, err := rest.Read[ari.Variables](body)
	return v.Variables[ari.Variable], err
}

func (x *exchange) originate(op *providers.Operation, q url.Values, body []byte) error {
	text, err := given(body)
	if err != nil {
		return err
	}
	id, st := q.Get("channelId"), ari.DecodeState(text)
	before, after, _ := strings.Cut(x.cfg.Endpoint, "{number}")
	number, a := strings.CutPrefix(q.Get("endpoint"), before)
	number, b := strings.CutSuffix(number, after)
	if !a || !b {
		number = q.Get("endpoint")
	}
	seconds, bad := strconv.Atoi(q.Get("timeout"))
	detect := q.Get("context") == x.cfg.Detect && q.Get("extension") == "s" && q.Get("priority") == "1"
	switch {
	case x.cfg.EndpointOf(number) != q.Get("endpoint"):
		return errors.New("no endpoint of the trunk")
	case !detect && q.Get("app") != x.cfg.App || detect && q.Has("app") || bad != nil:
		return errors.New("app, context, timeout: do not fit")
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if _, there := x.vars[id]; there || id == "" {
		return fail(409, "Channel with given unique ID already exists")
	}
	op.Kind, op.Call, op.Leg = providers.OpDial, st.For, id
	op.Dial = &providers.Dial{To: number, From: q.Get("callerId"), Ring: time.Duration(seconds) * time.Second,
		Answer: st.Answer, Status: st.Status, Digits: st.Digits, Detect: detect}
	if st.For != "" {
		op.Answer = &providers.Answer{Dial: number, Caller: op.Dial.From, Ring: op.Dial.Ring,
			Next: ari.DecodeState(x.vars[st.For]).Next}
	}
	op.Done = func() { x.set(id, text) }
	return nil
}

// known returns the variable of a channel.
func (x *exchange) known(channel string) (string, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	v, there := x.vars[channel]
	return v, there
}

func (x *exchange) set(channel, state string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.vars[channel] = state
}

// externalMedia makes a channel with the audio of a leg, which is connected at once.
func (x *exchange) externalMedia(op *providers.Operation, q url.Values, body []byte) error {
	text, err := given(body)
	if err != nil {
		return err
	}
	id, st := q.Get("channelId"), ari.DecodeState(text)
	f, known := asteriskmedia.FormatOf(q.Get("format"))
	if q.Get("app") != x.cfg.App || !known {
		return errors.New("app, format: do not fit")
	}
	m, vars, err := x.connection(id, &st, f, q)
	if err != nil {
		return err
	}
	op.Note = x.channelWith(id, "Down", vars)
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.media[id] != nil {
		return fail(409, "Channel with given unique ID already exists")
	}
	m.leg = asteriskmedia.LegOf(id)
	op.Kind, op.Call = providers.OpDo, m.leg
	op.Answer = &providers.Answer{Media: m.url, Next: st.Next, Format: f}
	op.Done = func() {
		x.mu.Lock()
		x.media[id], x.vars[id] = m, text
		x.mu.Unlock()
		ch := x.channel(&providers.ExchangeCall{ID: id}, "Up")
		_ = x.emit("StasisStart", map[string]any{"args": []string{}, "channel": ch}) // nobody may listen just now
	}
	return nil
}

// mediaOperation is one with a channel of a leg's audio.
func (x *exchange) mediaOperation(op *providers.Operation, what, id string, q url.Values) error {
	x.mu.Lock()
	m := x.media[id]
	x.mu.Unlock()
	if m == nil || m.over {
		return fail(404, "Channel not found")
	}
	op.Call = ""
	switch what {
	case "GET channels":
		op.Note = x.channel(&providers.ExchangeCall{ID: id}, "Up")
	case "GET channels variable":
		op.Note = x.variable(id)
	case "POST channels variable":
		op.Done = func() { x.set(id, q.Get("value")) }
	case "DELETE channels":
		op.Done = func() { _ = x.endMedia(id) }
	default:
		return errors.New("not simulated: " + what)
	}
	return nil
}

// value is the reply to a question for a variable.
type value struct {
	Value string `json:"value"`
}

func (x *exchange) variable(channel string) any {
	if v, has := x.known(channel); has {
		return value{v}
	}
	return fail(404, "Provided variable was not found")
}

// channelOperation is one with a leg.
func (x *exchange) channelOperation(op *providers.Operation, what, playback string, q url.Values) error {
	id := op.Call
	switch what {
	case "GET channels":
		op.Kind = providers.OpGet
	case "DELETE channels":
		op.Kind = providers.OpHangup
	case "GET channels variable":
		op.Note = x.variable(id)
	case "POST channels variable":
		if q.Get("variable") != ari.Variable {
			return errors.New("variable")
		}
		op.Done = func() { x.set(id, q.Get("value")) }
	case "POST channels answer":
	case "POST channels dtmf":
		op.Kind, op.Digits = providers.OpDigits, q.Get("dtmf")
	case "POST channels play":
		return x.play(op, playback, q.Get("media"))
	default:
		return errors.New("not simulated: " + what)
	}
	return nil
}

// play reads what is played: words, then silence for as long as a key is waited for.
func (x *exchange) play(op *providers.Operation, playback, media string) error {
	text, _ := x.known(op.Call)
	st := ari.DecodeState(text)
	op.Kind, op.Answer = providers.OpDo, &providers.Answer{Next: st.Do}
	before, _, _ := strings.Cut(x.cfg.Speech.URL, "?")
	wait := 0
	for m := range strings.SplitSeq(media, ",") {
		seconds, quiet := strings.CutPrefix(m, ari.Silence)
		n, err := strconv.Atoi(seconds)
		text, speech := strings.CutPrefix(m, "sound:"+before)
		switch {
		case quiet && err == nil && n >= 1 && n <= 10:
			wait += n
		case speech:
			said, err := url.ParseQuery(strings.TrimPrefix(text, "?"))
			if err != nil {
				return err
			}
			op.Answer.Say, op.Answer.Language, op.Answer.Voice = said.Get("text"), said.Get("language"),
				said.Get("voice")
		default:
			return fmt.Errorf("no media %.60s", m)
		}
	}
	if playback == "" || playback != st.Play {
		return errors.New("the playback is not that of the channel's state")
	}
	op.Done = func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.plays[playback] = true
	}
	if wait > 0 {
		op.Answer.Ask = &providers.Question{URL: st.Key, Wait: time.Duration(wait) * time.Second}
	}
	return nil
}

// bridgeOperation is one with a bridge.
func (x *exchange) bridgeOperation(op *providers.Operation, what, id string, q url.Values) error {
	op.Call = ""
	if what == "GET bridges" && id == "" {
		op.Kind, op.Note = providers.OpCalls, listing(x.rooms)
		return nil
	}
	x.mu.Lock()
	_, there := x.bridges[id]
	x.mu.Unlock()
	if !there && what == "GET bridges" {
		op.Note = fail(404, "Bridge not found")
		return nil
	}
	if !there && what != "POST bridges" {
		return fail(404, "Bridge not found")
	}
	switch what {
	case "POST bridges":
		if q.Get("type") != "mixing" {
			return errors.New("type")
		}
		op.Note = x.bridge(id, nil)
		op.Done = func() {
			x.mu.Lock()
			defer x.mu.Unlock()
			if x.bridges[id] == nil {
				x.bridges[id] = map[string]bool{}
			}
		}
	case "GET bridges":
		op.Kind, op.Room = providers.OpRoom, ari.RoomName(id)
	case "DELETE bridges":
		op.Done = func() {
			x.mu.Lock()
			defer x.mu.Unlock()
			delete(x.bridges, id)
		}
	case "POST bridges addChannel":
		return x.addChannel(op, id, q.Get("channel"))
	case "POST bridges removeChannel", "POST bridges moh", "DELETE bridges moh":
	default:
		return errors.New("not simulated: " + what)
	}
	return nil
}

// addChannel puts a channel into a bridge: into a room, or to its own audio, which it is
// connected to already.
func (x *exchange) addChannel(op *providers.Operation, bridge, channel string) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if m := x.media[channel]; asteriskmedia.IsChannel(channel) {
		if m == nil || m.over {
			return fail(400, "Channel not found")
		}
		return nil
	}
	op.Call = channel
	if bridge == ari.BridgeOf(channel) && !strings.Contains(channel, ari.DialedMark) {
		return nil
	}
	st := ari.DecodeState(x.vars[channel])
	op.Kind, op.Answer = providers.OpDo, &providers.Answer{Next: st.Next,
		Room: &providers.Room{Name: ari.RoomName(bridge), Events: st.Room, Wait: st.Wait}}
	return nil
}

// Reply implements providers.Exchange.
func (x *exchange) Reply(w http.ResponseWriter, op *providers.Operation, c *providers.ExchangeCall, err error) {
	w.Header().Set("Content-Type", "application/json")
	var e *providers.CallError
	if err == nil && op != nil {
		err, _ = op.Note.(error)
	}
	if errors.As(err, &e) {
		if e.Retry > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int(e.Retry/time.Second)))
		}
		w.WriteHeader(e.Status)
		rest.WriteJSON(w, map[string]string{"message": cmp.Or(e.Detail, "Channel not found")})
		return
	}
	list, all := op.Note.(listing)
	switch {
	case all:
		rest.WriteJSON(w, list(op.Calls))
	case op.Note != nil:
		rest.WriteJSON(w, op.Note)
	case op.Kind == providers.OpRoom:
		var members []string
		if c != nil {
			members = c.Members
		}
		rest.WriteJSON(w, x.bridge(bridgeID(op.Room), members))
	case op.Kind == providers.OpGet, op.Kind == providers.OpDial:
		id := *c
		if op.Leg != "" {
			id.ID = op.Leg
		}
		rest.WriteJSON(w, x.channel(&id, stateNames[c.Status]))
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

// stateNames are the states of live channels.
var stateNames = map[providers.Status]string{providers.StatusInitiated: "Down", providers.StatusRinging: "Ringing",
	providers.StatusInProgress: "Up"}
