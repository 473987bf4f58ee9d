package meter

import (
	"math"
	"testing"
	"time"
)

const ms = time.Millisecond

// TestMeter: a loop that works 3 of 10 ms, in one round for 40.
func TestMeter(t *testing.T) {
	var m Meter
	now := time.Duration(0)
	round := func(took time.Duration, conns int) {
		m.Begin(now)
		m.End(now+took, conns)
		now += 10 * ms
	}
	if load := m.Load(2048); load != 0.5 {
		t.Errorf("%v before anything is known", load)
	}
	for range 1000 {
		round(3*ms, 100)
	}
	for conns, want := range map[int]float64{100: 0.3, 200: 0.6, 50: 0.15, 0: 0} {
		if got := m.Load(conns); math.Abs(got-want) > 0.01 {
			t.Errorf("%v with %d connections, want %v", got, conns, want)
		}
	}
	if lag := m.Lag(now); lag != 3*ms {
		t.Errorf("the lag is %v", lag)
	}
	m.Begin(now)
	if now += 40 * ms; m.Lag(now) != 40*ms || m.Stuck(now) != 40*ms {
		t.Errorf("%v, and stuck for %v, 40 ms after the round has begun", m.Lag(now), m.Stuck(now))
	}
	m.End(now, 100)
	if m.Lag(now) != 40*ms || m.Stuck(now) != 0 {
		t.Errorf("%v, and stuck for %v, after it", m.Lag(now), m.Stuck(now))
	}
	for range 1001 {
		round(3*ms, 100)
	}
	if lag := m.Lag(now); lag != 3*ms {
		t.Errorf("the lag is still %v after 10 s", lag)
	}
}
