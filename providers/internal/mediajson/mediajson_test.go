package mediajson

import (
	"encoding/base64"
	"encoding/json"
	"testing"
)

var keys = &Keys{Event: "media", Media: "media", Sequence: "seq", Stream: "id", Track: "track", Chunk: "chunk",
	At: "at", Payload: "payload", Ignored: "extra"}

// slow is the same message as encoding/json reads it.
type slow struct {
	Event string  `json:"event"`
	Seq   Counter `json:"seq"`
	ID    string  `json:"id"`
	Extra string  `json:"extra"`
	Media *struct {
		Track   string  `json:"track"`
		Chunk   Counter `json:"chunk"`
		At      Counter `json:"at"`
		Payload string  `json:"payload"`
	} `json:"media"`
}

// TestScan: what is sure is read right, and what is not is left to a slower reader.
func TestScan(t *testing.T) {
	for text, sure := range map[string]bool{
		`{"event":"media","seq":"3","id":"S","media":{"track":"in","chunk":"1","at":"5","payload":"AAAA"}}`: true,
		` { "media" : {"payload":"AAAA"} , "event" : "media" } `:                                            true,
		`{"event":"media","seq":3,"id":"S","media":{"chunk":7,"payload":""}}`:                               true,
		`{"event":"media","extra":"x","media":{"payload":"AAAA"}}`:                                          true,
		`{"event":"stop"}`:  false,
		`{"event":"media"}`: false,
		`{"event":"media","media":{"payload":"A\/AA"}}`:        false,
		`{"event":"media","event":"media","media":{}}`:         false,
		`{"event":"media","new":1,"media":{"payload":"AAAA"}}`: false,
		`{"event":"media","media":{"payload":"AAAA"}}x`:        false,
		`{"event":"media","media":{"payload":"AAAA"}`:          false,
		``: false,
	} {
		var f Fields
		if got := keys.Scan([]byte(text), &f); got != sure {
			t.Errorf("%s: sure %v, want %v", text, got, sure)
		} else if sure {
			agree(t, text, &f)
		}
	}
}

// agree compares with encoding/json. A payload that is no base64 fails when it is
// decoded: the scanner need not look for bytes in it that no JSON may have.
func agree(t *testing.T, text string, f *Fields) {
	t.Helper()
	if _, err := base64.StdEncoding.DecodeString(string(f.Payload)); err != nil {
		return
	}
	var s slow
	if err := json.Unmarshal([]byte(text), &s); err != nil || s.Media == nil {
		t.Errorf("%q is sure, but no JSON: %v", text, err)
		return
	}
	if s.Event != "media" || string(f.Stream) != s.ID || string(f.Track) != s.Media.Track ||
		string(f.Payload) != s.Media.Payload ||
		f.Chunk != s.Media.Chunk || f.At != s.Media.At {
		t.Errorf("%q: %+v, want %+v", text, f, s)
	}
}

// FuzzScan: where the scanner is sure, encoding/json reads the same.
func FuzzScan(f *testing.F) {
	f.Add([]byte(`{"event":"media","seq":"3","id":"S","media":{"track":"in","chunk":"1","at":"5","payload":"AAAA"}}`))
	f.Add([]byte(`{"event":"media","media":{"chunk":0}}`))
	f.Add([]byte("{\"event\":\"media\",\"media\":{\"payload\":\"\xcd\"}}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var got Fields
		if keys.Scan(b, &got) {
			agree(t, string(b), &got)
		}
	})
}

// TestLost: a jump in the numbers is loss, a number that comes again or wraps is not.
func TestLost(t *testing.T) {
	var l Lost
	for _, tt := range []struct {
		n    Counter
		want int
	}{{Count(1), 0}, {Count(2), 0}, {Count(5), 2}, {Count(4), 0}, {Count(5), 0}, {Counter{}, 0}, {Count(6), 0},
		{Count(6 + maxLost + 1), 0}, {Count(6 + maxLost + 3), 1}} {
		if got := l.Missing(tt.n); got != tt.want {
			t.Errorf("at %d: %d missing, want %d", tt.n.N, got, tt.want)
		}
	}
}

// TestAppendAudio: what is written is base64 between its prefix and suffix.
func TestAppendAudio(t *testing.T) {
	got := AppendAudio([]byte("a"), []byte("b"), []byte{1, 2, 3}, "c")
	if want := "ab" + base64.StdEncoding.EncodeToString([]byte{1, 2, 3}) + "c"; string(got) != want {
		t.Errorf("%s, want %s", got, want)
	}
	if b, err := json.Marshal(Count(7)); err != nil || string(b) != `"7"` {
		t.Errorf("%s, %v", b, err)
	}
}
