package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"voicebridge/bench/process"
	"voicebridge/providers"
)

// Target is a bridge that is measured.
type Target struct {
	Name    string
	URL     func(*providers.Spec) string // of its media socket
	PID     int                          // of its process on this machine; 0: unknown
	Metrics string                       // URL of its Prometheus metrics, with those of Go; empty: none
}

// Quantiles of a duration in milliseconds.
type Quantiles struct {
	Count int64   `json:"count"`
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
	P99   float64 `json:"p99"`
	P999  float64 `json:"p99_9"`
	Max   float64 `json:"max"`
}

// Bar is a class of a histogram.
type Bar struct {
	FromMS float64 `json:"from_ms"`
	ToMS   float64 `json:"to_ms"`
	Count  int64   `json:"count"`
}

// Transfers is what became of calls that were transferred to a human meanwhile.
type Transfers struct {
	Begun   int       `json:"begun"`
	Bridged int       `json:"bridged"`
	Failed  int       `json:"failed"`
	Talked  int       `json:"talked"`   // calls whose caller has heard the human
	Faults  int       `json:"faults"`   // calls of which the carrier has complained
	TimesMS []float64 `json:"times_ms"` // from the request to both being connected, 200 ms of ringing included
}

// Measurement is what one load did to one bridge. What could not be measured is
// missing.
type Measurement struct {
	Target  string  `json:"target"`
	Calls   int     `json:"calls"`
	Round   int     `json:"round"`
	Seconds float64 `json:"seconds"`

	CPU          *float64 `json:"cpu_ms_per_call_second,omitempty"`
	GeneratorCPU *float64 `json:"generator_cpu_ms_per_call_second,omitempty"`
	MemoryKB     *float64 `json:"memory_kb_per_call,omitempty"`
	IdleMB       *float64 `json:"memory_mb_without_calls,omitempty"`
	Allocations  *float64 `json:"allocations_per_message,omitempty"`

	Delay  Quantiles `json:"added_delay_ms"`
	Jitter Quantiles `json:"pacing_jitter_ms"`
	Clear  Quantiles `json:"clear_ms"`
	Setup  Quantiles `json:"setup_ms"`
	Late   Quantiles `json:"generator_lateness_ms"`

	FramesBack  uint64 `json:"frames_from_bridge"`
	Markers     uint64 `json:"markers_back"`
	MarkersLost uint64 `json:"markers_lost"`
	LostMS      int64  `json:"audio_lost_ms"`
	ExtraMS     int64  `json:"audio_extra_ms"`
	Gaps        uint64 `json:"gaps"`
	GapMS       int64  `json:"gap_ms"`
	Unsent      uint64 `json:"frames_not_taken"`
	Digits      uint64 `json:"digits"`
	Clears      uint64 `json:"clears"`
	Dropped     uint64 `json:"calls_dropped"`
	Refused     uint64 `json:"calls_refused"`
	Complaints  uint64 `json:"messages_refused"`

	DescriptorsLeft *int `json:"descriptors_left,omitempty"`
	GoroutinesLeft  *int `json:"goroutines_left,omitempty"`

	Transfers *Transfers `json:"transfers,omitempty"`

	Trustworthy bool     `json:"trustworthy"`
	Notes       []string `json:"notes,omitempty"`
	DelayBars   []Bar    `json:"delay_histogram,omitempty"`
	Timeline    []Second `json:"timeline,omitempty"`
}

const (
	tooLate     = 5 * time.Millisecond // lateness of the generator at the 99th percentile that spoils a measurement
	hangupTime  = 10 * time.Second
	leftoverFor = 5 * time.Second
)

// dialTime is how long a bridge may take to answer a handshake.
var dialTime = 10 * time.Second

// ErrBridge is the kind of errors for which the bridge is to blame.
var ErrBridge = errors.New("the bridge")

// CheckDescriptors reports whether so many calls fit into what this process may open.
func CheckDescriptors(calls int) error {
	_, limit, err := process.Descriptors(os.Getpid())
	if err != nil { // not on this system
		return nil
	}
	if need := 2*calls + 100; need > limit {
		return fmt.Errorf("bench: %d calls need %d descriptors, and this process may open %d: raise the limit "+
			"(ulimit -n %d), or measure fewer calls", calls, need, limit, need)
	}
	return nil
}

// Measure puts a bridge under a load. An error means that there is no measurement.
func (g *Generator) Measure(ctx context.Context, target *Target, l *Load) (*Measurement, error) {
	if err := g.check(target, l); err != nil {
		return nil, err
	}
	progress := l.Progress
	if progress == nil {
		progress = func(string, float64) {}
	}
	m := &Measurement{Target: target.Name, Calls: l.Calls, Seconds: l.Duration.Seconds(), Trustworthy: true}
	g.books.fresh(g.now())
	before := look(target)
	fleet := newFleet(ctx, g, l, target)
	err := fleet.ramp(progress)
	if err == nil {
		err = fleet.hold(l.Settle, func(float64) { progress("settling", 1) })
	}
	if err == nil {
		g.books.reset(g.now())
		from := look(target)
		own, _ := process.Time(os.Getpid()) // without it there are no shares
		begun := time.Now()
		err = fleet.hold(l.Duration, func(part float64) { progress("measuring", part) })
		m.Seconds = time.Since(begun).Seconds()
		fleet.waiting(g.now())
		g.books.fill(m) // before it is asked for its metrics, which may take long where it hangs
		to := look(target)
		if now, e := process.Time(os.Getpid()); e == nil {
			m.GeneratorCPU = new(perCall(now-own, m))
		}
		m.compare(&before, &from, &to)
	}
	progress("hanging up", 1)
	if e := fleet.hangup(); err == nil {
		err = e
	}
	if err != nil {
		return nil, err
	}
	m.leftover(target, &before)
	m.judge()
	return m, nil
}

func perCall(d time.Duration, m *Measurement) float64 {
	return float64(d) / 1e6 / m.Seconds / float64(m.Calls)
}

func (g *Generator) check(target *Target, l *Load) error {
	if err := CheckDescriptors(l.Calls); err != nil {
		return err
	}
	if target.PID != 0 {
		open, limit, err := process.Descriptors(target.PID)
		if err != nil {
			return err
		}
		if need := 2*l.Calls + open; need > limit {
			return fmt.Errorf("bench: %d calls need %d descriptors, and %s may open %d: raise its limit (ulimit -n), "+
				"or measure fewer calls", l.Calls, need, target.Name, limit)
		}
	}
	return nil
}

// usage is what a bridge uses at some time.
type usage struct {
	cpu         time.Duration
	memory      int64
	descriptors int
	known       bool
	mallocs     float64
	goroutines  float64
	metrics     bool
}

func look(t *Target) (u usage) {
	if t.PID != 0 {
		cpu, err := process.Time(t.PID)
		memory, err2 := process.Memory(t.PID)
		open, _, err3 := process.Descriptors(t.PID)
		if errors.Join(err, err2, err3) == nil {
			u.cpu, u.memory, u.descriptors, u.known = cpu, memory, open, true
		}
	}
	if t.Metrics != "" {
		u.mallocs, u.goroutines, u.metrics = scrape(t.Metrics)
	}
	return u
}

// scrape reads two of Go's own metrics.
func scrape(url string) (mallocs, goroutines float64, ok bool) {
	client := http.Client{Timeout: 5 * time.Second}
	resp, err := client.Get(url)
	if err != nil {
		return 0, 0, false
	}
	defer client.CloseIdleConnections()
	defer resp.Body.Close()
	found := 0
	for s := bufio.NewScanner(resp.Body); s.Scan(); {
		name, value, _ := strings.Cut(s.Text(), " ")
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			continue
		}
		switch name {
		case "go_memstats_mallocs_total":
			mallocs = v
			found++
		case "go_goroutines":
			goroutines = v
			found++
		}
	}
	return mallocs, goroutines, found == 2
}

// compare fills in what the bridge has used.
func (m *Measurement) compare(before, from, to *usage) {
	if before.known && from.known && to.known {
		m.CPU = new(perCall(to.cpu-from.cpu, m))
		m.IdleMB = new(float64(before.memory) / (1 << 20))
		m.MemoryKB = new(float64(to.memory-before.memory) / 1024 / float64(m.Calls))
	}
	if from.metrics && to.metrics {
		// 50 frames a second, each way, on two sockets.
		m.Allocations = new((to.mallocs - from.mallocs) / (200 * m.Seconds * float64(m.Calls)))
	}
}

// leftover looks what the bridge still holds of calls that have ended.
func (m *Measurement) leftover(t *Target, before *usage) {
	if !before.known {
		return
	}
	var now usage
	for end := time.Now().Add(leftoverFor); ; time.Sleep(100 * time.Millisecond) {
		now = look(t)
		if time.Now().After(end) || now.descriptors <= before.descriptors && now.goroutines <= before.goroutines {
			break
		}
	}
	if now.known {
		m.DescriptorsLeft = new(max(0, now.descriptors-before.descriptors))
	}
	if now.metrics && before.metrics {
		m.GoroutinesLeft = new(max(0, int(now.goroutines-before.goroutines)))
	}
}

// judge says whether the figures are of the bridge, or of a machine that is too busy.
func (m *Measurement) judge() {
	if m.Late.P99 > Milliseconds(tooLate) {
		m.Trustworthy = false
		m.Notes = append(m.Notes, fmt.Sprintf("the generator itself was late, %.1f ms at the 99th percentile: the "+
			"machine is too busy for this load", m.Late.P99))
	}
	if m.MarkersLost > m.Markers/20 {
		m.Notes = append(m.Notes, fmt.Sprintf("%d of %d markers did not come back: audio is lost, or the bridge has "+
			"stood still", m.MarkersLost, m.MarkersLost+m.Markers))
	}
	if m.Dropped > 0 {
		m.Notes = append(m.Notes, fmt.Sprintf("the bridge ended %d calls", m.Dropped))
	}
	if m.Refused > 0 {
		m.Notes = append(m.Notes, fmt.Sprintf("the bridge did not take %d calls", m.Refused))
	}
}

// Milliseconds is a duration as reports have it.
func Milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func quantiles(h *hdrhistogram.Histogram) Quantiles {
	at := func(q float64) float64 { return float64(h.ValueAtPercentile(q)) / 1000 }
	if h.TotalCount() == 0 {
		return Quantiles{}
	}
	return Quantiles{h.TotalCount(), at(50), at(90), at(99), at(99.9), float64(h.Max()) / 1000}
}

// fill takes over what was measured.
func (b *books) fill(m *Measurement) {
	b.mu.Lock()
	defer b.mu.Unlock()
	h := &b.hists
	m.Delay, m.Jitter, m.Clear, m.Setup, m.Late = quantiles(h[delays]), quantiles(h[jitters]), quantiles(h[clears]),
		quantiles(h[setups]), quantiles(h[lates])
	t := &b.tally
	m.FramesBack, m.Markers, m.MarkersLost, m.LostMS, m.ExtraMS = t.FramesBack, t.Markers, t.MarkersLost, t.LostMS,
		t.ExtraMS
	m.Gaps, m.GapMS, m.Unsent, m.Digits, m.Clears = t.Gaps, t.GapMS, t.Unsent, t.Digits, t.Clears
	m.Dropped, m.Refused, m.Complaints = t.Dropped, t.Refused, t.Complaints
	m.Notes = append(m.Notes, b.errs...)
	m.Timeline = append([]Second(nil), b.second...)
	for _, bar := range h[delays].Distribution() {
		if bar.Count > 0 {
			m.DelayBars = append(m.DelayBars, Bar{float64(bar.From) / 1000, float64(bar.To+1) / 1000, bar.Count})
		}
	}
}

// fleet is the calls of a measurement.
type fleet struct {
	g      *Generator
	load   *Load
	target *Target
	ctx    context.Context
	stop   context.CancelFunc
	next   time.Time // when the next call may begin
	begun  int

	mu    sync.Mutex
	live  map[*loadCall]struct{}
	foes  map[*loadCall]struct{} // hostile ones
	group sync.WaitGroup
}

func newFleet(ctx context.Context, g *Generator, l *Load, t *Target) *fleet {
	f := &fleet{g: g, load: l, target: t, live: map[*loadCall]struct{}{},
		foes: map[*loadCall]struct{}{}, next: time.Now()}
	f.ctx, f.stop = context.WithCancel(ctx)
	return f
}

func (f *fleet) size() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.live)
}

// begin has another call begun.
func (f *fleet) begin() {
	i := f.begun
	f.begun++
	f.group.Go(func() {
		dial, cancel := context.WithTimeout(f.ctx, dialTime)
		c, err := f.g.dial(dial, f.load, i, f.target.URL)
		cancel()
		if err != nil {
			if f.ctx.Err() == nil {
				f.g.books.refused(err)
			}
			return
		}
		f.mu.Lock()
		f.live[c] = struct{}{}
		f.mu.Unlock()
		c.wait()
		f.mu.Lock()
		delete(f.live, c)
		f.mu.Unlock()
	})
}

// ramp begins all calls, by their arrival rate.
func (f *fleet) ramp(progress func(string, float64)) error {
	gap := time.Duration(float64(time.Second) / f.load.Arrivals)
	for i := range f.load.Calls {
		f.next = f.next.Add(gap)
		if err := sleep(f.ctx, time.Until(f.next)); err != nil {
			return err
		}
		f.begin()
		if i%10 == 0 {
			progress("calls begin", float64(i)/float64(f.load.Calls))
		}
		if r := f.refused(); r > 20 && r > uint64(i)/2 {
			return f.blame("takes no calls")
		}
	}
	for end := time.Now().Add(dialTime + 2*time.Second); f.size()+int(f.refused()) < f.load.Calls &&
		f.load.Length == 0; {
		if time.Now().After(end) {
			return f.blame("does not take its calls in time")
		}
		if err := sleep(f.ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
	if f.size() == 0 && f.load.Length == 0 {
		return f.blame("takes no calls")
	}
	f.hostility()
	return nil
}

func (f *fleet) refused() (n uint64) {
	f.g.books.count(func(t *tally) { n = t.Refused })
	return n
}

// blame is an error of the bridge's, with what is known of it.
func (f *fleet) blame(what string) error {
	f.g.books.mu.Lock()
	said := strings.Join(f.g.books.errs, "; ")
	f.g.books.mu.Unlock()
	if said != "" {
		said = ": " + said
	}
	return fmt.Errorf("bench: %s: %w %s%s", f.target.Name, ErrBridge, what, said)
}

// hold keeps the calls up for some time.
func (f *fleet) hold(d time.Duration, progress func(float64)) error {
	begun := time.Now()
	for shown := begun; time.Since(begun) < d; {
		if err := sleep(f.ctx, min(20*time.Millisecond, d-time.Since(begun))); err != nil {
			return err
		}
		live := f.size()
		if f.load.Length > 0 { // those that have ended are replaced, at their rate
			for n := f.load.Calls - live; n > 0 && time.Now().After(f.next); n-- {
				f.next = f.next.Add(time.Duration(float64(time.Second) / f.load.Arrivals))
				f.begin()
			}
		} else if live < f.load.Calls/2 {
			return f.blame(fmt.Sprintf("has ended or refused %d of %d calls", f.load.Calls-live, f.load.Calls))
		}
		if time.Since(shown) > 200*time.Millisecond {
			shown = time.Now()
			progress(time.Since(begun).Seconds() / d.Seconds())
		}
	}
	return nil
}

// waiting counts the holes that callers are hearing now.
func (f *fleet) waiting(now time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.live {
		c.mu.Lock()
		if c.dry > 0 {
			c.g.books.gap(now, now-c.dry)
		}
		c.mu.Unlock()
	}
}

// hangup ends all calls, and waits until they have.
func (f *fleet) hangup() error {
	f.mu.Lock()
	live := make([]*loadCall, 0, len(f.live))
	for c := range f.live {
		live = append(live, c)
	}
	f.stop() // no hostile one begins any more
	for c := range f.foes {
		c.cutOff()
	}
	f.mu.Unlock()
	for _, c := range live {
		c.hangup()
	}
	ended := make(chan struct{})
	go func() {
		f.group.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-time.After(hangupTime):
		return f.blame("does not let its calls end")
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
