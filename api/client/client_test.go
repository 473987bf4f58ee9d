package client

import (
	"strings"
	"testing"

	"voicebridge/calls"
)

// TestFeedCut: wherever the connection breaks, no event is passed over, and none is
// an error.
func TestFeedCut(t *testing.T) {
	const feed = ": hello\nid: b-0\n\nid: b-1\nevent: call.created\ndata: " +
		"{\"id\":\"b-1\",\"type\":\"call.created\"}\n\n" +
		"event: feed.gap\ndata: {}\n\nid: b-2\nevent: call.ended\ndata: {\"id\":\"b-2\",\"type\":\"call.ended\"}\n\n"
	for cut := range len(feed) + 1 {
		last, seen := "", ""
		each := func(ev *calls.Event) (bool, error) { seen = ev.ID; return false, nil }
		if _, err := read(strings.NewReader(feed[:cut]), &last, each); err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		if seen != "" && last != seen || seen == "" && last != "" && last != "b-0" {
			t.Errorf("cut at %d: saw %q, goes on after %q", cut, seen, last)
		}
	}
}
