package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"time"

	"voicebridge/codec"
	"voicebridge/providers"
	"voicebridge/sim/stream"
	"voicebridge/ws"
)

// Exchange is a simulated carrier with one account: it answers the REST API, rings
// phones that the test describes, asks and tells the webhooks, and streams the
// calls. It is an http.Handler, which serves the REST API.
type Exchange struct {
	Spec *providers.Spec
	// Office is the carrier's own end of the account; Open makes it.
	Office providers.Exchange
	// Phone describes the other party of a call that the bridge places.
	Phone func(call providers.ExchangeCall) Phone
	// Status is the webhook that is told of calls that come in; it may be empty.
	Status string
	// Reach turns the URLs that the carrier is given, which are public ones, into
	// those at which they are reached here; nil leaves them.
	Reach  func(url string) string
	Faults Faults
	// Numbers are the account's.
	Numbers []providers.Number
	Dialer  ws.Dialer    // of media connections
	Log     *slog.Logger // may be nil
	// Progress, if not nil, is told how far the audio of a call is.
	Progress func(at time.Duration)

	format codec.Format // of the streams; that of Open
	mu     sync.Mutex
	calls  map[string]*SimCall // by each of their ids
	rooms  map[string]*room
	told   map[providers.AskKind]int       // webhooks so far
	asked  map[providers.OperationKind]int // requests so far
	placed []time.Time                     // calls taken within the last second
	once   providers.Once                  // ids of requests that have been carried out
	live   tasks
}

// tasks are what goes on. Unlike those of a sync.WaitGroup, more may begin while somebody
// waits: calls come when they like.
type tasks struct {
	mu    sync.Mutex
	n     int
	ended *sync.Cond // made when it is waited for
}

// Go begins one.
func (t *tasks) Go(do func()) {
	t.mu.Lock()
	t.n++
	t.mu.Unlock()
	go func() {
		defer func() {
			t.mu.Lock()
			defer t.mu.Unlock()
			if t.n--; t.ended != nil {
				t.ended.Broadcast()
			}
		}()
		do()
	}()
}

// Wait returns once nothing goes on.
func (t *tasks) Wait() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended == nil {
		t.ended = sync.NewCond(&t.mu)
	}
	for t.n > 0 {
		t.ended.Wait()
	}
}

// Phone is a simulated party.
type Phone struct {
	Ring   time.Duration    // until something happens
	Reject providers.Status // busy, no-answer, failed: what happens; otherwise the call is answered
	// AnsweredBy is what machine detection finds, if it was asked for.
	AnsweredBy providers.AnsweredBy
	Voice      []int16        // what it says, at the format's rate
	Length     time.Duration  // until it hangs up; 0: as long as Voice
	Digits     []stream.Digit // pressed while it is streamed
	// Press is the key with which it answers a question, After the question; 0: none.
	Press byte
	After time.Duration
}

// Faults are what a carrier does to those who rely on it.
type Faults struct {
	Duplicate bool // tells everything twice
	Reorder   bool // tells things in any order
	// Fail replies an error to the n-th request (from 1) of a kind.
	Fail func(kind providers.OperationKind, n int) error
	// Rate is how many calls are taken in a second; 0: any.
	Rate int
	// Lose carries the n-th request (from 1) of a kind out, but replies with an error of
	// the server.
	Lose func(kind providers.OperationKind, n int) bool
	// Delay holds each report back for up to this time.
	Delay time.Duration
	// Drop loses the n-th webhook (from 1) of a kind.
	Drop func(kind providers.AskKind, n int) bool
}

// SimCall is a call at a simulated carrier.
type SimCall struct {
	x      *Exchange
	dial   *providers.Dial
	phone  Phone
	cancel context.CancelCauseFunc
	done   chan struct{}

	mu        sync.Mutex
	call      providers.ExchangeCall
	redirect  *providers.Answer // instead of what is going on
	interrupt context.CancelFunc
	streams   []*stream.Result
	heard     []int16 // in streams and rooms
	spoken    int     // samples of its voice so far
	hangAt    time.Time
	strays    sync.WaitGroup // streams that the call has left
	said      []string
	dialled   []string
	digits    string
	next      string
	told      []providers.Status
	fault     error
	inRooms   int // times that it has come into a room, or left one

	reports chan report
	sender  sync.WaitGroup
}

// report is something to be told.
type report struct{ ask providers.Ask }

// Call is how the call is now.
func (c *SimCall) Call() providers.ExchangeCall {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.call
}

// Outcome is what a call was like, once it is over.
type Outcome struct {
	Call    providers.ExchangeCall
	Streams []*stream.Result
	Heard   []int16  // all that the phone heard
	Said    []string // words that the other party was told
	Dialled []string // numbers that it was connected to
	Digits  string   // sent to it outside of the stream
	// Fault is what the carrier did not take from the bridge: a document that makes
	// no sense, a webhook that was not answered.
	Fault error
}

// Wait returns the outcome.
func (c *SimCall) Wait() *Outcome {
	<-c.done
	c.mu.Lock()
	defer c.mu.Unlock()
	return &Outcome{c.call, c.streams, c.heard, c.said, c.dialled, c.digits, c.fault}
}

// Heard is what the phone has heard so far, but for a stream that is going on.
func (c *SimCall) Heard() []int16 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.heard)
}

// Digits are those sent so far outside of the stream.
func (c *SimCall) Digits() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.digits
}

// Next is the URL that is asked once what is going on is over.
func (c *SimCall) Next() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.next
}

// Hangup hangs the phone up.
func (c *SimCall) Hangup() { c.end(providers.StatusCompleted) }

func (c *SimCall) end(s providers.Status) { c.cancel(ended(s)) }

// ended is why a call's context ends.
type ended providers.Status

func (e ended) Error() string { return string(e) }

// Open makes the account with made-up credentials whose REST API, which x serves,
// is at the URL.
func (x *Exchange) Open(baseURL string, f codec.Format) (*providers.Account, error) {
	x.format = f
	setup := providers.Setup{Decode: x.Spec.Sample(baseURL, f)}
	var err error
	if x.Office, err = x.Spec.NewExchange(setup); err != nil {
		return nil, fmt.Errorf("simulated carrier: %s: %w", x.Spec.Name, err)
	}
	return x.Spec.NewAccount(setup)
}

// Wait returns once no call is live.
func (x *Exchange) Wait() { x.live.Wait() }

// Calls are all calls so far, in no order.
func (x *Exchange) Calls() []*SimCall {
	x.mu.Lock()
	defer x.mu.Unlock()
	var all []*SimCall
	for id, c := range x.calls {
		if id == c.call.ID {
			all = append(all, c)
		}
	}
	return all
}

// Find returns a call by one of its ids.
func (x *Exchange) Find(id string) *SimCall {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.calls[id]
}

func (x *Exchange) reach(url string) string {
	if x.Reach == nil {
		return url
	}
	return x.Reach(url)
}

// ServeHTTP is the REST API.
func (x *Exchange) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if t, is := x.Office.(providers.Teller); is && t.Feed(w, r) {
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err != nil {
		http.Error(w, "too large", http.StatusRequestEntityTooLarge)
		return
	}
	op, err := x.Office.Operation(r, body, time.Now())
	if err != nil {
		x.Office.Reply(w, op, nil, err)
		return
	}
	if err := x.fail(op); err != nil {
		var e *providers.CallError
		if !errors.As(err, &e) { // not in the carrier's own words
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		x.Office.Reply(w, op, nil, err)
		return
	}
	if x.loses(kindOf(op)) {
		lost := httptest.NewRecorder()
		x.carryOut(lost, op)
		http.Error(w, "lost", http.StatusInternalServerError)
		return
	}
	x.carryOut(w, op)
}

// kindOf is what a request is as to faults: connecting a call to a number is something done
// with the call, also where the number is dialled for that by itself.
func kindOf(op *providers.Operation) providers.OperationKind {
	if op.Kind == providers.OpDial && op.Call != "" {
		return providers.OpDo
	}
	return op.Kind
}

// loses reports whether the reply to a request is to be lost.
func (x *Exchange) loses(kind providers.OperationKind) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.Faults.Lose != nil && x.Faults.Lose(kind, x.asked[kind])
}

// carryOut does what a request asks for, and replies.
func (x *Exchange) carryOut(w http.ResponseWriter, op *providers.Operation) {
	switch op.Kind {
	case providers.OpDial:
		if op.Done != nil {
			op.Done()
		}
		call := x.place(op).Call()
		x.Office.Reply(w, op, &call, nil)
		return
	case providers.OpNumbers:
		op.Numbers = x.Numbers
		x.Office.Reply(w, op, nil, nil)
		return
	case providers.OpRoom:
		x.Office.Reply(w, op, x.inRoom(op.Room), nil)
		return
	case providers.OpCalls:
		for _, c := range x.Calls() {
			op.Calls = append(op.Calls, c.Call())
		}
		x.Office.Reply(w, op, nil, nil)
		return
	case providers.OpOther:
		if op.Call == "" {
			x.firstTime(op)
			x.Office.Reply(w, op, nil, nil)
			return
		}
	}
	c := x.Find(op.Call)
	if c == nil {
		x.Office.Reply(w, op, nil, &providers.CallError{Kind: providers.ErrNoCall, Status: 404, Detail: "not found"})
		return
	}
	call := c.Call()
	if op.Kind != providers.OpGet && op.Kind != providers.OpMember && call.Status.Final() {
		x.Office.Reply(w, op, &call, &providers.CallError{Kind: providers.ErrNoCall, Status: 404,
			Detail: "the call is not in progress"})
		return
	}
	if x.firstTime(op) {
		c.do(op)
	}
	call = c.Call()
	x.Office.Reply(w, op, &call, nil)
}

// onceTime is how long the ids of requests are kept.
const onceTime = time.Minute

// firstTime reports whether a request is to be carried out, and has its carrier note that it is.
func (x *Exchange) firstTime(op *providers.Operation) bool {
	if now := time.Now(); op.Once != "" && !x.once.First(op.Call+" "+op.Once, now, now.Add(onceTime)) {
		return false
	}
	if op.Done != nil {
		op.Done()
	}
	return true
}

// fail is the fault that is due.
func (x *Exchange) fail(op *providers.Operation) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.asked == nil {
		x.asked = map[providers.OperationKind]int{}
	}
	kind := kindOf(op)
	x.asked[kind]++
	if x.Faults.Fail != nil {
		if err := x.Faults.Fail(kind, x.asked[kind]); err != nil {
			return err
		}
	}
	if op.Kind != providers.OpDial || x.Faults.Rate == 0 {
		return nil
	}
	now := time.Now()
	x.placed = slices.DeleteFunc(x.placed, func(t time.Time) bool { return now.Sub(t) >= time.Second })
	if len(x.placed) >= x.Faults.Rate {
		return &providers.CallError{Kind: providers.ErrRate, Status: 429, Detail: "too many requests",
			Retry: time.Second}
	}
	x.placed = append(x.placed, now)
	return nil
}

func (c *SimCall) do(op *providers.Operation) {
	switch op.Kind {
	case providers.OpHangup:
		if c.Call().Status == providers.StatusInProgress {
			c.end(providers.StatusCompleted)
		} else {
			c.end(providers.StatusCanceled)
		}
	case providers.OpDo:
		c.mu.Lock()
		c.redirect = op.Answer
		c.call.Moves++
		if c.interrupt != nil {
			c.interrupt()
		}
		c.mu.Unlock()
	case providers.OpDigits:
		c.dials(op.Digits)
	}
}

// dials notes the digits that the bridge sends to the other party.
func (c *SimCall) dials(digits string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.digits += digits
}

// place begins a call that the bridge has asked for.
func (x *Exchange) place(op *providers.Operation) *SimCall {
	d := op.Dial
	c := x.newCall(providers.ExchangeCall{From: d.From, To: d.To, Status: providers.StatusInitiated})
	if op.Leg != "" {
		c.call.ID = op.Leg
	}
	if other := x.Find(op.Call); other != nil {
		other.mu.Lock()
		other.dialled = append(other.dialled, d.To)
		other.mu.Unlock()
	}
	c.dial = d
	c.phone = x.Phone(c.call)
	x.begin(c, c.ring)
	return c
}

// Ready returns once calls can be made: where the carrier tells of them over a connection of
// the bridge's, once it is there.
func (x *Exchange) Ready(ctx context.Context) error {
	t, is := x.Office.(providers.Teller)
	for is && !t.Heard() {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("simulated carrier: nobody listens for calls: %w", ctx.Err())
		}
	}
	return nil
}

// Call makes a call to the bridge, whose inbound webhook is given.
func (x *Exchange) Call(from, to, hook string, phone Phone) *SimCall {
	c := x.newCall(providers.ExchangeCall{From: from, To: to, Inbound: true, Status: providers.StatusRinging})
	c.phone = phone
	x.begin(c, func(ctx context.Context) { c.converse(ctx, hook) })
	return c
}

func (x *Exchange) newCall(call providers.ExchangeCall) *SimCall {
	leg := x.Office.NewCall()
	call.ID, call.Aliases = leg.ID, leg.Aliases
	return &SimCall{x: x, call: call, done: make(chan struct{}), reports: make(chan report, 64)}
}

func (x *Exchange) begin(c *SimCall, run func(context.Context)) {
	ctx, cancel := context.WithCancelCause(context.Background())
	c.cancel = cancel
	x.mu.Lock()
	if x.calls == nil {
		x.calls = map[string]*SimCall{}
	}
	for _, id := range append([]string{c.call.ID}, c.call.Aliases...) {
		x.calls[id] = c
	}
	x.mu.Unlock()
	c.sender.Go(c.send)
	x.live.Go(func() {
		defer close(c.done)
		run(ctx)
		status := providers.StatusCompleted
		var e ended
		if errors.As(context.Cause(ctx), &e) {
			status = providers.Status(e)
		}
		cancel(nil)
		c.strays.Wait()
		c.become(status)
		close(c.reports)
		c.sender.Wait()
	})
}

// become moves the call to a status and tells it.
func (c *SimCall) become(s providers.Status) {
	c.mu.Lock()
	if c.call.Status.Final() {
		c.mu.Unlock()
		return
	}
	c.call.Status = s
	c.call.Answered = c.call.Answered || s == providers.StatusInProgress
	call, n := c.call, len(c.told)
	c.told = append(c.told, s)
	c.mu.Unlock()
	url, tell := c.x.Status, []providers.Status{s}
	if c.dial != nil {
		if url = c.dial.Status; c.x.Spec.Abilities.CompletesFirst && s.Final() && !call.Answered {
			tell = []providers.Status{providers.StatusCompleted, s}
		}
	}
	for _, call.Status = range tell {
		if url != "" || c.x.tells() {
			c.reports <- report{providers.Ask{Kind: providers.TellStatus, URL: url, Call: call, Sequence: n}}
		}
	}
}

// send delivers the reports, in the disorder that was asked for.
func (c *SimCall) send() {
	var held []report
	deliver := func(r report) {
		if d := c.x.Faults.Delay; d > 0 {
			time.Sleep(rand.N(d))
		}
		for range 1 + btoi(c.x.Faults.Duplicate) {
			if _, err := c.ask(context.Background(), &r.ask); err != nil {
				c.wrong(err)
			}
		}
	}
	for r := range c.reports {
		if !c.x.Faults.Reorder {
			deliver(r)
			continue
		}
		held = append(held, r)
		if len(held) == 3 {
			rand.Shuffle(len(held), func(i, j int) { held[i], held[j] = held[j], held[i] })
			for _, r := range held {
				deliver(r)
			}
			held = nil
		}
	}
	rand.Shuffle(len(held), func(i, j int) { held[i], held[j] = held[j], held[i] })
	for _, r := range held {
		deliver(r)
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (c *SimCall) wrong(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fault = errors.Join(c.fault, err)
	if c.x.Log != nil {
		c.x.Log.Warn("the carrier complains", "err", err)
	}
}

// hookTime is how long a carrier waits for an answer. A report is told again after 5xx or
// silence, reportTries times in all. What to do with a call is asked once, and a second
// time only where no connection was made: then the call ends, with an apology.
const (
	hookTime    = 15 * time.Second
	reportTries = 3
)

// document reports whether what is asked is what to do with the call.
func document(kind providers.AskKind) bool {
	return kind == providers.AskAnswer || kind == providers.AskNext || kind == providers.AskDigit
}

// ask sends a webhook.
func (c *SimCall) ask(ctx context.Context, a *providers.Ask) (answer *providers.Answer, err error) {
	if c.x.lost(a.Kind) {
		if document(a.Kind) {
			return nil, errors.New("simulated carrier: the document could not be fetched")
		}
		return &providers.Answer{}, nil
	}
	tries := reportTries
	if r, ok := c.x.Office.(interface{ Tries(*providers.Ask) int }); ok {
		tries = r.Tries(a)
	} else if document(a.Kind) {
		tries = 1
	}
	for try := 0; ; try++ {
		var again, unsent bool
		answer, again, unsent, err = c.askOnce(ctx, a)
		if !again || ctx.Err() != nil || try+1 >= tries && !(unsent && try == 0) {
			return answer, err
		}
		time.Sleep(100 * time.Millisecond << try)
	}
}

// askOnce sends a webhook. again tells that it may be sent another time, unsent that the
// other side has not got it.
func (c *SimCall) askOnce(ctx context.Context, a *providers.Ask) (answer *providers.Answer, again, unsent bool,
	err error) {
	patience := hookTime
	if p, ok := c.x.Office.(interface{ Patience() time.Duration }); ok {
		patience = p.Patience()
	}
	ctx, stop := context.WithTimeout(ctx, patience)
	defer stop()
	if t, is := c.x.Office.(providers.Teller); is {
		return nil, false, false, t.Tell(a)
	}
	signed, err := c.x.Office.Ask(a, time.Now())
	if errors.Is(err, providers.ErrNotAsked) {
		return &providers.Answer{}, false, false, nil
	}
	if err != nil {
		return nil, false, false, err
	}
	req, err := http.NewRequestWithContext(ctx, signed.Method, c.x.reach(signed.URL.String()), signed.Body)
	if err != nil {
		return nil, false, false, fmt.Errorf("simulated carrier: webhook: %w", err)
	}
	req.Header = signed.Header
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, true, true, fmt.Errorf("simulated carrier: webhook: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	switch {
	case err != nil:
		return nil, true, false, fmt.Errorf("simulated carrier: webhook: %w", err)
	case resp.StatusCode < 200 || resp.StatusCode > 299:
		return nil, resp.StatusCode >= 500, false,
			fmt.Errorf("simulated carrier: webhook %s: %s: %.200s", req.URL.Path, resp.Status, body)
	case !document(a.Kind):
		return nil, false, false, nil
	}
	answer, err = c.x.Office.Answer(resp.Header.Get("Content-Type"), body)
	return answer, false, false, err
}

// tells reports whether the carrier tells by itself what others tell at URLs.
func (x *Exchange) tells() bool {
	_, is := x.Office.(providers.Teller)
	return is
}

// lost reports whether a webhook is to be lost.
func (x *Exchange) lost(kind providers.AskKind) bool {
	if x.Faults.Drop == nil {
		return false
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.told == nil {
		x.told = map[providers.AskKind]int{}
	}
	x.told[kind]++
	return x.Faults.Drop(kind, x.told[kind])
}

// ring is a placed call up to its answer.
func (c *SimCall) ring(ctx context.Context) {
	c.become(providers.StatusInitiated)
	c.become(providers.StatusRinging)
	ring, missed := c.phone.Ring, false
	if c.dial.Ring > 0 && ring >= c.dial.Ring {
		ring, missed = c.dial.Ring, true
	}
	select {
	case <-time.After(ring):
	case <-ctx.Done():
		return
	}
	switch {
	case missed:
		c.end(providers.StatusNoAnswer)
		return
	case c.phone.Reject != "":
		c.end(c.phone.Reject)
		return
	}
	c.become(providers.StatusInProgress)
	if c.dial.Detect && c.phone.AnsweredBy != "" {
		c.mu.Lock()
		c.call.AnsweredBy = c.phone.AnsweredBy
		c.mu.Unlock()
		c.reports <- report{providers.Ask{Kind: providers.TellDetection, URL: c.dial.Status, Call: c.Call(),
			AnsweredBy: c.phone.AnsweredBy}}
	}
	c.converse(ctx, c.dial.Answer)
}

// converse does what the bridge says, until the call is over.
func (c *SimCall) converse(ctx context.Context, hook string) {
	length := c.phone.Length
	if length == 0 {
		length = max(codec.FrameTime, time.Duration(len(c.phone.Voice))*time.Second/time.Duration(c.x.format.Rate))
	}
	c.hangAt = time.Now().Add(length)
	ask := &providers.Ask{Kind: providers.AskAnswer, URL: hook}
	for ask != nil && (ask.URL != "" || c.x.tells()) && ctx.Err() == nil {
		ask.Call = c.Call()
		answer, err := c.ask(ctx, ask)
		if err != nil {
			if ctx.Err() == nil {
				c.wrong(err)
			}
			return
		}
		if answer == nil { // the reply says nothing: a command does
			answer = c.command(ctx)
		}
		if answer == nil {
			return
		}
		ask = c.perform(ctx, answer)
	}
}

// command waits for what a command wants done with the call; nil: the call is over
// before.
func (c *SimCall) command(ctx context.Context) *providers.Answer {
	waiting, stop := context.WithDeadline(ctx, c.hangAt)
	defer stop()
	c.mu.Lock()
	c.interrupt = stop
	if c.redirect != nil {
		stop()
	}
	c.mu.Unlock()
	<-waiting.Done()
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.redirect
	c.redirect, c.interrupt = nil, nil
	if a == nil && ctx.Err() == nil { // nobody has said anything: the phone hangs up
		c.end(providers.StatusCompleted)
	}
	return a
}

// perform carries out an answer, and those that replace it, and returns what is
// asked next; nil: nothing, the call ends.
func (c *SimCall) perform(ctx context.Context, a *providers.Answer) *providers.Ask {
	if !a.Empty() {
		c.become(providers.StatusInProgress)
	}
	interrupted, stop := context.WithCancel(ctx)
	defer stop()
	c.mu.Lock()
	c.interrupt = stop
	if c.redirect != nil { // it has come in between
		stop()
	}
	if a.Say != "" {
		c.said = append(c.said, a.Say)
	}
	c.next = a.Next
	c.mu.Unlock()
	var next *providers.Ask
	switch {
	case interrupted.Err() != nil:
	case a.Media != "":
		if hung := c.stream(ctx, interrupted, a); hung {
			c.end(providers.StatusCompleted)
			return nil
		}
		next = &providers.Ask{Kind: providers.AskNext, URL: a.Next}
	case a.Ask != nil:
		next = c.question(interrupted, a.Ask)
	case a.Room != nil:
		c.meet(interrupted, a.Room)
		next = &providers.Ask{Kind: providers.AskNext, URL: a.Next, Dial: providers.StatusCompleted, Room: a.Room.Name}
	case a.Dial != "":
		next = &providers.Ask{Kind: providers.AskNext, URL: a.Next, Dial: c.connect(interrupted, a)}
	case a.Next != "":
		next = &providers.Ask{Kind: providers.AskNext, URL: a.Next}
	}
	c.mu.Lock()
	redirect := c.redirect
	c.redirect, c.interrupt = nil, nil
	c.mu.Unlock()
	if redirect != nil && ctx.Err() == nil {
		return c.perform(ctx, redirect)
	}
	return next
}

// question waits for a key.
func (c *SimCall) question(ctx context.Context, q *providers.Question) *providers.Ask {
	ask := &providers.Ask{Kind: providers.AskDigit, URL: q.URL}
	wait := q.Wait
	if c.phone.Press != 0 && c.phone.After < wait {
		wait, ask.Digit = c.phone.After, string(c.phone.Press)
	}
	left := time.NewTimer(time.Until(c.hangAt))
	defer left.Stop()
	select {
	case <-time.After(wait):
	case <-left.C:
		c.end(providers.StatusCompleted)
	case <-ctx.Done():
	}
	return ask
}

// stream connects the phone to the bridge until the stream ends, the phone hangs
// up, or the call is taken elsewhere.
func (c *SimCall) stream(ctx, interrupted context.Context, a *providers.Answer) (hung bool) {
	header, err := c.x.Office.Handshake(a.Media, time.Now())
	if err != nil {
		c.wrong(err)
		return false
	}
	call := c.Call()
	caller := &stream.Caller{
		Spec: c.x.Spec, URL: c.x.reach(a.Media), Header: header, Start: *c.x.Office.Start(&call, a),
		Dialer: c.x.Dialer, Voice: c.phone.Voice[min(c.spoken, len(c.phone.Voice)):],
		Length: max(codec.FrameTime, time.Until(c.hangAt)), Digits: c.phone.Digits, Progress: c.x.Progress,
		Dials: c.dials,
	}
	if st, is := c.x.Office.(providers.Streamer); is {
		caller.Open = func(ctx context.Context) (providers.PeerConn, error) { return st.Stream(ctx, a.Media) }
	}
	over, began := make(chan struct{}), time.Now()
	streaming := interrupted
	if c.x.Spec.Abilities.StreamStays {
		streaming = ctx
	}
	var result *stream.Result
	c.strays.Go(func() {
		defer close(over)
		result, err = caller.Run(streaming)
	})
	select {
	case <-over:
	case <-interrupted.Done():
		if ctx.Err() == nil && c.x.Spec.Abilities.StreamStays {
			// The phone hears and says nothing more there.
			samples := int(time.Since(began) * time.Duration(c.x.format.Rate) / time.Second)
			c.mu.Lock()
			at := len(c.heard)
			c.spoken += samples
			c.mu.Unlock()
			c.strays.Go(func() { // its end is asked about, but changes nothing
				<-over
				c.strayed(result, at, samples)
				if _, err := c.ask(ctx, &providers.Ask{Kind: providers.AskNext, URL: a.Next,
					Call: c.Call()}); err != nil && ctx.Err() == nil {
					c.wrong(err)
				}
			})
			return false
		}
		<-over
	}
	c.streamed(result)
	if err != nil {
		if ctx.Err() == nil && interrupted.Err() == nil {
			c.wrong(err)
		}
		return false
	}
	return !result.Lost
}

// strayed puts the part of a stream that the phone took part in to its place.
func (c *SimCall) strayed(r *stream.Result, at, samples int) {
	if r == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.streams = append(c.streams, r)
	c.heard = slices.Insert(c.heard, at, r.Heard[:min(samples, len(r.Heard))]...)
}

// streamed adds a stream to what the phone has been through.
func (c *SimCall) streamed(r *stream.Result) {
	if r == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.streams = append(c.streams, r)
	c.heard = append(c.heard, r.Heard...)
	c.spoken += len(r.Said)
}
