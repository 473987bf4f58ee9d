package logs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"voicebridge/providers/all"
)

// blocked is a writer that takes nothing until it is let.
type blocked struct {
	mu  sync.Mutex
	let chan struct{}
	got bytes.Buffer
}

// Write implements io.Writer.
func (b *blocked) Write(p []byte) (int, error) {
	<-b.let
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.got.Write(p)
}

// TestBlockedLog: nobody who logs waits for a writer that blocks; what is lost is
// counted, and the end waits for a moment only.
func TestBlockedLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &blocked{let: make(chan struct{})}
		log := New(w, slog.LevelInfo, false)
		began := time.Now()
		for range linesMost + 100 {
			log.Info("a call")
		}
		if d := time.Since(began); d != 0 {
			t.Errorf("the log held its users up for %v", d)
		}
		log.Close()
		if d := time.Since(began); d != linesEnd {
			t.Errorf("the end took %v, want %v", d, linesEnd)
		}
		close(w.let)
		synctest.Wait()
		text := w.got.String()
		if n := strings.Count(text, "a call"); n < linesMost || n > linesMost+1 ||
			!strings.Contains(text, "lost_lines=") {
			t.Errorf("%d lines written, want those that fit and a word of the rest", n)
		}
		if n := log.Lost(); n < 99 || n > 100 {
			t.Errorf("%d lines are counted as lost, of 100", n)
		}
	})
}

// TestLogFlushed: what was logged last is written before the end.
func TestLogFlushed(t *testing.T) {
	var w bytes.Buffer
	log := New(&w, slog.LevelInfo, false)
	log.Info("the last words")
	log.Close()
	if !strings.Contains(w.String(), "the last words") {
		t.Errorf("%q", w.String())
	}
}

// TestLogForPrograms: durations are seconds, and formats and abilities names.
func TestLogForPrograms(t *testing.T) {
	var b bytes.Buffer
	spec := all.Specs[0]
	Direct(&b, slog.LevelInfo, true).Info("x", "took", 1500*time.Millisecond, "format", spec.Formats[0], "formats",
		spec.Formats, "abilities", spec.Abilities, "err", io.EOF, "n", 3)
	var got map[string]any
	if err := json.Unmarshal(b.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if at, err := time.Parse(time.RFC3339Nano, fmt.Sprint(got["time"])); err != nil || time.Since(at) > time.Hour {
		t.Errorf("time %v, %v", got["time"], err)
	}
	for name, want := range map[string]any{"took": 1.5, "format": "pcmu/8000", "formats": []any{"pcmu/8000"},
		"abilities": "marks,clear,digits", "err": "EOF", "n": 3.0, "level": "INFO", "msg": "x"} {
		if !reflect.DeepEqual(got[name], want) {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
}
