package commanded

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"voicebridge/providers"
)

// TestOrder: frames that come out of order are given in order, those that are lost are
// counted, and none is given twice.
func TestOrder(t *testing.T) {
	for _, tt := range []struct{ chunks, want string }{
		{"1 2 3", "1 2 3"},
		{"2 1 3", "1 2 3"},
		{"3 2 1 4", "1 2 3 4"},
		{"1 1 2 2 1", "1 2"},
		{"1 3 4 2", "1 2 3 4"},
		{"1 9 10 2", "1 9(-7) 10"}, // what is lost is not waited for
	} {
		var s stream
		evs, err := s.Decode(nil, providers.Message{Data: []byte(`{"event":"start","codec":"PCMA"}`)})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, chunk := range strings.Fields(tt.chunks) {
			evs, err = s.Decode(evs[:0], providers.Message{Data: fmt.Appendf(nil,
				`{"event":"media","chunk":%s,"timestamp":%s,"payload":"1dXV"}`, chunk, chunk)})
			if err != nil {
				t.Fatal(err)
			}
			for _, ev := range evs {
				name := fmt.Sprint(ev.At.Milliseconds())
				if ev.Missing > 0 {
					name += fmt.Sprintf("(-%d)", ev.Missing)
				}
				got = append(got, name)
			}
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: given %v, want %s", tt.chunks, got, tt.want)
		}
	}
}

// TestAnyOrder: whatever the order within the window, all comes once and in order.
func TestAnyOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var s stream
		evs, _ := s.Decode(nil, providers.Message{Data: []byte(`{"event":"start","codec":"PCMA"}`)})
		last := int64(0)
		for block := 1; block < 40; block += window {
			for _, i := range r.Perm(window) {
				n := block + i
				evs, _ = s.Decode(evs[:0], providers.Message{Data: fmt.Appendf(nil,
					`{"event":"media","chunk":%d,"timestamp":%d,"payload":"1dXV"}`, n, n)})
				for _, ev := range evs {
					if last++; ev.At.Milliseconds() != last {
						t.Fatalf("frame %v after %d", ev.At, last-1)
					}
				}
			}
		}
		if last != 40 {
			t.Fatalf("%d frames", last)
		}
	}
}
