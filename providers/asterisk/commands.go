package asterisk

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"voicebridge/providers"
	"voicebridge/providers/asterisk/ari"
	"voicebridge/providers/internal/asteriskmedia"
	"voicebridge/providers/internal/rest"
)

// commands are those of an account.
type commands struct {
	cfg     ari.Config
	rest    rest.Client
	dial    dialer
	publish func(*providers.Answer) string
	words   func(a *providers.Answer) string // the URL of a WAV file
	take    func(media string, c providers.MediaConn) error
	socket  *accepted // nil: the bridge connects

	mu     sync.Mutex
	states map[string]ari.State // of channels, as this instance has set them, until they end
}

func newCommands(cfg ari.Config, base *url.URL, transport http.RoundTripper) *commands {
	c := &commands{cfg: cfg, dial: dialer{Net: dialFunc(transport)}, states: map[string]ari.State{}}
	if cfg.Incoming {
		c.socket = newAccepted(cfg.Username, cfg.Password)
		transport = c.socket
	}
	c.rest = rest.Client{Carrier: "asterisk", Base: base, HTTP: transport,
		Fault:     fault,
		Authorize: func(r *http.Request) error { r.SetBasicAuth(cfg.Username, cfg.Password); return nil }}
	return c
}

// fault reads what ARI says of an error.
func fault(_ int, body []byte) (code, detail string) {
	var said struct{ Message, Error string }
	_ = json.Unmarshal(body, &said) // whatever it is, the status counts
	return "", said.Message + said.Error
}

// Publish implements providers.Publisher.
func (c *commands) Publish(url func(*providers.Answer) string) { c.publish = url }

// Speaks implements providers.Speaker.
func (c *commands) Speaks(url func(a *providers.Answer) string) { c.words = url }

// speakTime is how long the command may take.
const speakTime = 20 * time.Second

// Speak implements providers.Speaker.
func (c *commands) Speak(ctx context.Context, a *providers.Answer) ([]byte, error) {
	if len(c.cfg.Speech.Command) == 0 {
		return nil, errors.New("asterisk: there is no speech.command")
	}
	ctx, stop := context.WithTimeout(ctx, speakTime)
	defer stop()
	cmd := exec.CommandContext(ctx, c.cfg.Speech.Command[0], c.cfg.Speech.Command[1:]...)
	cmd.Stdin, cmd.WaitDelay = strings.NewReader(a.Say), time.Second
	cmd.Env = append(os.Environ(), "VOICEBRIDGE_LANGUAGE="+a.Language, "VOICEBRIDGE_VOICE="+a.Voice)
	file, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("asterisk: speech.command: %w", err)
	}
	return file, nil
}

// Opens implements providers.Opener.
func (c *commands) Opens(take func(media string, c providers.MediaConn) error) { c.take = take }

// keep remembers the state of a channel, and returns it as variables.
func (c *commands) keep(channel string, st ari.State) ari.Variables {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.states[channel] = st
	return ari.Variables{Variables: map[string]string{ari.Variable: st.Encode()}}
}

// forget drops the state of a channel that has ended, and returns it.
func (c *commands) forget(channel string) ari.State {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := c.states[channel]
	delete(c.states, channel)
	return st
}

// stateOf asks for the state of a channel.
func (c *commands) stateOf(ctx context.Context, channel string) (ari.State, error) {
	var v struct {
		Value string `json:"value"`
	}
	err := c.again(ctx, "state", "GET", path("channels", channel, "variable")+query("variable", ari.Variable), &v)
	var known *providers.CallError
	if errors.As(err, &known) && known.Status == http.StatusNotFound &&
		known.Detail == "Provided variable was not found" {
		return ari.State{}, nil
	}
	return ari.DecodeState(v.Value), err
}

// setState writes the state of a channel.
func (c *commands) setState(ctx context.Context, channel string, st ari.State) error {
	c.keep(channel, st)
	return c.again(ctx, "state", "POST", path("channels", channel, "variable")+query("variable", ari.Variable, "value",
		st.Encode()), nil)
}

// path joins what stands in one, query what goes with it.
func path(parts ...string) string {
	var b strings.Builder
	for _, p := range parts {
		b.WriteString("/" + url.PathEscape(p))
	}
	return b.String()
}

func query(pairs ...string) string {
	q := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	return "?" + q.Encode()
}

// Dial implements providers.Commands. The id of the channel is chosen here, so that what is
// told of it before the reply is known.
func (c *commands) Dial(ctx context.Context, d *providers.Dial) (providers.Leg, error) {
	id := "vb-" + strings.ToLower(rand.Text())
	st := ari.State{Answer: d.Answer, Status: d.Status, Digits: d.Digits}
	return providers.Leg{ID: id}, c.originate(ctx, id, d, st)
}

// originate makes a channel to a number.
func (c *commands) originate(ctx context.Context, id string, d *providers.Dial, st ari.State) error {
	endpoint := c.cfg.EndpointOf(d.To)
	if endpoint == "" {
		return &providers.CallError{Op: "asterisk: dial", Kind: providers.ErrRejected,
			Detail: "the account has neither an endpoint for numbers nor such a dial string in dial"}
	}
	where := []string{"app", c.cfg.App}
	if d.Detect {
		if c.cfg.Detect == "" {
			return &providers.CallError{Op: "asterisk: dial", Kind: providers.ErrRejected,
				Detail: "the account has no context in detect for machine detection"}
		}
		where = []string{"context", c.cfg.Detect, "extension", "s", "priority", "1"}
	}
	var made ari.Channel
	err := c.rest.Do(ctx, "dial", "POST", path("channels")+query(append(where, "endpoint", endpoint, "channelId", id,
		"callerId", d.From, "timeout", strconv.Itoa(int(d.Ring/time.Second)))...), c.keep(id, st), &made)
	if err == nil && made.ID != id {
		err = &providers.CallError{Op: "asterisk: dial", Kind: providers.ErrUnavailable,
			Err: errors.New("the reply is not about the channel")}
	}
	if err != nil && !unanswered(err) {
		c.forget(id)
	}
	if err == nil && d.Detect { // until it comes to the application, nothing is told of it
		err = c.again(ctx, "subscribe", "POST", path("applications", c.cfg.App, "subscription")+
			query("eventSource", "channel:"+id), nil)
	}
	return err
}

// Hangup implements providers.Commands.
func (c *commands) Hangup(ctx context.Context, leg string) error {
	return c.rest.Do(ctx, "hangup", "DELETE", path("channels", leg)+query("reason_code", "16"), nil, nil)
}

// Get implements providers.Commands.
func (c *commands) Get(ctx context.Context, leg string) ([]providers.CallEvent, error) {
	var ch ari.Channel
	if err := c.rest.Do(ctx, "get", "GET", path("channels", leg), nil, &ch); err != nil {
		return nil, err
	}
	status := statuses[ch.State]
	if status == "" {
		status = providers.StatusError
	}
	ev := providers.CallEvent{Kind: providers.CallProgress, Leg: leg, Raw: ch.State, Status: status}
	st, err := c.stateOf(ctx, leg)
	if err != nil {
		return nil, err
	}
	ev.Place = st.Bridge
	return []providers.CallEvent{ev}, nil
}

// SendDigits implements providers.DigitSender: w waits half a second.
func (c *commands) SendDigits(ctx context.Context, leg, digits string) error {
	return c.rest.Do(ctx, "digits", "POST", path("channels", leg, "dtmf")+query("dtmf", digits, "between", "100",
		"duration", "100"), nil, nil)
}

// InRoom implements providers.RoomLooker.
func (c *commands) InRoom(ctx context.Context, room string, legs []string) ([]bool, error) {
	members, err := c.members(ctx, ari.RoomOf(room))
	in := make([]bool, len(legs))
	for i, leg := range legs {
		in[i] = slices.Contains(members, leg)
	}
	return in, err
}

// members are the channels in a bridge; none where there is no such bridge.
func (c *commands) members(ctx context.Context, bridge string) ([]string, error) {
	var b struct {
		Channels []string `json:"channels"`
	}
	err := c.again(ctx, "room", "GET", path("bridges", bridge), &b)
	if providers.IsNoCall(err) {
		err = nil
	}
	return b.Channels, err
}

// put makes a bridge, if it is not there, and puts a channel into it.
func (c *commands) put(ctx context.Context, bridge, channel string) error {
	if err := c.again(ctx, "bridge", "POST", path("bridges", bridge)+query("type", "mixing"), nil); err != nil {
		return err
	}
	return c.rest.Do(ctx, "join", "POST", path("bridges", bridge, "addChannel")+query("channel", channel), nil, nil)
}

// surely repeats what may be done twice while Asterisk does not answer.
func surely(ctx context.Context, do func() error) error {
	for try := 0; ; try++ {
		err := do()
		if err == nil || try == surelyTries || !unanswered(err) {
			return err
		}
		select {
		case <-time.After(surelyPause << try):
		case <-ctx.Done():
			return err
		}
	}
}

// again makes a request that may be made twice until it is answered.
func (c *commands) again(ctx context.Context, op, method, path string, reply any) error {
	return surely(ctx, func() error { return c.rest.Do(ctx, op, method, path, nil, reply) })
}

// end hangs a channel up, if it is there.
func (c *commands) end(ctx context.Context, channel string) {
	_ = surely(ctx, func() error { return c.gone(c.Hangup(ctx, channel)) }) // otherwise it is found by whoever looks
}

// unanswered reports whether nobody knows if what was asked for has been done.
func unanswered(err error) bool {
	known := new(providers.CallError)
	return errors.As(err, &known) && known.Kind == providers.ErrUnavailable
}

// putSurely is put for what is not tried again by others.
func (c *commands) putSurely(ctx context.Context, bridge, channel string) error {
	first := true
	return surely(ctx, func() error {
		if members, err := c.members(ctx, bridge); !first && err == nil && slices.Contains(members, channel) {
			return nil
		}
		first = false
		return c.put(ctx, bridge, channel)
	})
}

// How often, and after what time, something is tried again that Asterisk did not answer.
const (
	surelyTries = 4
	surelyPause = 100 * time.Millisecond
)

// Do implements providers.Commands. The new state is written first: it tells what comes by
// itself from what the bridge has done.
func (c *commands) Do(ctx context.Context, leg string, a *providers.Answer) error {
	before, err := c.stateOf(ctx, leg)
	if err != nil {
		return err
	}
	if a.Unanswered {
		if before != (ari.State{}) { // whoever else has been told of the call has begun
			return nil
		}
		if err := c.again(ctx, "answer", "POST", path("channels", leg, "answer"), nil); err != nil {
			return err
		}
	}
	next := ari.State{Answer: before.Answer, Status: before.Status, Left: before.Room}
	do := c.perform(&next, leg, a)
	if do == nil {
		return c.Hangup(ctx, leg)
	}
	if err := c.setState(ctx, leg, next); err != nil {
		return err
	}
	if next.Play != "" { // it is heard outside of bridges only
		if err := c.leave(ctx, leg, &before, &next); err != nil {
			return err
		}
		return do(ctx)
	}
	if err := do(ctx); err != nil {
		if !unanswered(err) {
			err = errors.Join(err, c.setState(ctx, leg, before)) // it goes on as it was
		}
		return err
	}
	// It is done: what is left of the step before is ended with the call at the latest.
	_ = surely(ctx, func() error { return c.leave(ctx, leg, &before, &next) })
	return nil
}

// perform completes the state for an answer and returns what does it; nil: there is nothing
// to be done.
func (c *commands) perform(st *ari.State, leg string, a *providers.Answer) func(context.Context) error {
	sound := ""
	if a.Say != "" {
		sound = c.cfg.Sound(a, c.words)
	}
	switch {
	case a.Ask != nil:
		st.Key = a.Ask.URL
		return c.play(st, leg, append([]string{sound}, silences(a.Ask.Wait)...)...)
	case sound != "":
		rest := *a
		rest.Say, rest.Unanswered = "", false
		if !rest.Empty() {
			st.Do = c.publish(&rest)
		}
		return c.play(st, leg, sound)
	case a.Media != "":
		st.Media, st.Next, st.Bridge = asteriskmedia.ChannelOf(leg), a.Next, ari.BridgeOf(leg)
		return func(ctx context.Context) error { return c.stream(ctx, st, leg, a.Media) }
	case a.Room != nil:
		st.Room, st.Next, st.Bridge, st.Wait = a.Room.Events, a.Next, ari.RoomOf(a.Room.Name), a.Room.Wait
		return func(ctx context.Context) error { return c.join(ctx, st, leg) }
	case a.Dial != "":
		st.Dialed, st.Next = leg+ari.DialedMark+strings.ToLower(rand.Text()[:12]), a.Next
		return func(ctx context.Context) error {
			return c.made(ctx, st.Dialed, func() error {
				return c.originate(ctx, st.Dialed, &providers.Dial{To: a.Dial, From: a.Caller,
					Ring: time.Duration(a.RingSeconds()) * time.Second}, ari.State{For: leg})
			})
		}
	}
	return nil
}

// leave ends what a channel was doing.
func (c *commands) leave(ctx context.Context, leg string, before, next *ari.State) error {
	if before.Play != "" {
		if err := c.gone(c.again(ctx, "stop", "DELETE", path("playbacks", before.Play), nil)); err != nil {
			return err
		}
	}
	if before.Media != "" {
		if err := c.endMedia(ctx, before.Media); err != nil {
			return err
		}
	}
	if before.Dialed != "" {
		if err := c.gone(c.Hangup(ctx, before.Dialed)); err != nil {
			return err
		}
	}
	if before.Bridge == "" || next.Bridge != "" { // which takes it out of the one before
		return nil
	}
	err := c.again(ctx, "leave", "POST", path("bridges", before.Bridge, "removeChannel")+query("channel", leg), nil)
	var known *providers.CallError
	if errors.As(err, &known) && known.Status == http.StatusUnprocessableEntity { // it is not there any more
		err = nil
	}
	return c.gone(err)
}

// gone drops the error of what is not there any more.
func (c *commands) gone(err error) error {
	if providers.IsNoCall(err) {
		return nil
	}
	return err
}

// endMedia ends the channel with a leg's audio. Nobody is to be told of that.
func (c *commands) endMedia(ctx context.Context, media string) error {
	err := c.setState(ctx, media, ari.State{})
	if err == nil {
		err = c.Hangup(ctx, media)
	}
	if providers.IsNoCall(err) { // its end was told before
		c.forget(media)
	}
	return c.gone(err)
}

// silences are sounds of Asterisk's that last as long, in whole seconds.
func silences(wait time.Duration) (list []string) {
	for left := max(1, int(wait/time.Second)); left > 0; left -= 10 {
		list = append(list, ari.Silence+strconv.Itoa(min(left, 10)))
	}
	return list
}

// play plays sounds, one after the other; their end is told.
func (c *commands) play(st *ari.State, leg string, sounds ...string) func(context.Context) error {
	st.Play = "vb-" + strings.ToLower(rand.Text())
	var list []string
	for _, s := range sounds {
		if s != "" {
			list = append(list, s)
		}
	}
	return func(ctx context.Context) error {
		first := true
		return surely(ctx, func() error {
			if !first && c.rest.Do(ctx, "playback", "GET", path("playbacks", st.Play), nil, nil) == nil {
				return nil // it plays
			}
			first = false
			return c.rest.Do(ctx, "play", "POST", path("channels", leg, "play", st.Play)+query("media",
				strings.Join(list, ",")), nil, nil)
		})
	}
}

// stream makes a channel with the audio of a leg, which Asterisk connects to the bridge. It
// comes into the leg's bridge once it is up.
func (c *commands) stream(ctx context.Context, st *ari.State, leg, media string) error {
	if err := c.putSurely(ctx, st.Bridge, leg); err != nil {
		return err
	}
	of := ari.State{For: leg, Next: st.Next, Bridge: st.Bridge, URL: media}
	switch c.cfg.Transport {
	case ari.OverDialed:
		return c.openSocket(ctx, st.Media, of)
	case ari.OverRTP:
		return c.openRTP(ctx, st.Media, of)
	case ari.OverAudioSocket:
		return c.openAudioSocket(ctx, st.Media, of)
	}
	token := media[strings.LastIndexByte(media, '/')+1:]
	return c.made(ctx, st.Media, func() error {
		_, err := c.external(ctx, st.Media, of, "external_host", c.cfg.Media, "encapsulation", "none", "transport",
			"websocket", "connection_type", "client", "transport_data", "f(json)v("+ari.TokenParam+"="+token+")")
		return err
	})
}

// external makes a channel with audio.
func (c *commands) external(ctx context.Context, id string, st ari.State, how ...string) (ch ari.Channel, err error) {
	how = append(how, "app", c.cfg.App, "channelId", id, "format", c.cfg.Format)
	err = c.rest.Do(ctx, "stream", "POST", path("channels", "externalMedia")+query(how...), c.keep(id, st), &ch)
	if err != nil && !unanswered(err) {
		c.forget(id)
	}
	return ch, err
}

// made makes a channel with an id. Where Asterisk does not answer, it is asked whether there
// is one.
func (c *commands) made(ctx context.Context, id string, do func() error) error {
	err := do()
	if !unanswered(err) {
		return err
	}
	if c.again(ctx, "look", "GET", path("channels", id), nil) == nil {
		return nil
	}
	return err
}

// join puts a channel into a room. Who is alone there, and waits, hears music.
func (c *commands) join(ctx context.Context, st *ari.State, leg string) error {
	if err := c.putSurely(ctx, st.Bridge, leg); err != nil {
		return err
	}
	method := "DELETE"
	if members, err := c.members(ctx, st.Bridge); err == nil && len(members) < 2 && st.Wait {
		method = "POST"
	}
	_ = c.rest.Do(ctx, "music", method, path("bridges", st.Bridge, "moh"), nil, nil) // the call goes on without, too
	return nil
}
