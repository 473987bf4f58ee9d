package providers

import (
	"testing"
	"time"
)

func TestOnce(t *testing.T) {
	var o Once
	now := time.Now()
	if !o.First("a", now, now.Add(time.Minute)) || o.First("a", now, now.Add(time.Minute)) ||
		!o.First("b", now, now.Add(time.Hour)) {
		t.Error("an id is not taken just once")
	}
	later := now.Add(2 * time.Minute)
	if o.First("b", later, later) || !o.First("c", later, later.Add(time.Minute)) {
		t.Error("an id that is still valid was forgotten")
	}
	if len(o.until) != 2 {
		t.Errorf("%d ids are remembered, the expired one among them", len(o.until))
	}
}
