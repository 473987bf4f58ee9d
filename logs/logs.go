// Package logs writes the log, for people or for programs. Nobody who logs waits for it.
package logs

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"voicebridge/codec"
)

// Logger is a log for which nothing waits that logs.
type Logger struct {
	*slog.Logger
	Level *slog.LevelVar // may change
	lines *lines
}

// New logs to w, as JSON or for people.
func New(w io.Writer, level slog.Level, json bool) *Logger {
	l := &Logger{Level: new(slog.LevelVar), lines: newLines(w)}
	l.Level.Set(level)
	l.Logger = Direct(l.lines, l.Level, json)
	return l
}

// Lost is how many lines were lost because w did not take them in time.
func (l *Logger) Lost() uint64 { return l.lines.lost.Load() }

// Close waits, for a moment, until all has been written.
func (l *Logger) Close() { l.lines.close() }

// Direct logs to w, and waits for it.
func Direct(w io.Writer, level slog.Leveler, json bool) *slog.Logger {
	if json {
		return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: forPrograms}))
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}

// forPrograms has durations as seconds, and what has a name by it.
func forPrograms(_ []string, a slog.Attr) slog.Attr {
	switch v := a.Value.Any().(type) {
	case time.Duration:
		a.Value = slog.Float64Value(v.Seconds())
	case time.Time, error: // as they are
	case fmt.Stringer:
		a.Value = slog.StringValue(v.String())
	case []codec.Format:
		names := make([]string, len(v))
		for i, f := range v {
			names[i] = f.String()
		}
		a.Value = slog.AnyValue(names)
	}
	return a
}

const (
	// linesMost is how many lines wait to be written; more are lost, and counted.
	linesMost = 4096
	// linesEnd is how long is waited for them at the end.
	linesEnd = time.Second
)

// lines writes each line from a goroutine of its own, so that a writer that blocks,
// such as a pipe that nobody reads, holds up no call: an event loop serves many.
type lines struct {
	queue chan []byte
	lost  atomic.Uint64 // lines
	done  chan struct{}
	stop  context.CancelFunc
}

func newLines(w io.Writer) *lines {
	ctx, stop := context.WithCancel(context.Background())
	l := &lines{queue: make(chan []byte, linesMost), done: make(chan struct{}), stop: stop}
	go l.run(ctx, w)
	return l
}

// Write implements io.Writer. It never waits.
func (l *lines) Write(line []byte) (int, error) {
	select {
	case l.queue <- append([]byte(nil), line...):
	default:
		l.lost.Add(1)
	}
	return len(line), nil
}

func (l *lines) run(ctx context.Context, w io.Writer) {
	defer close(l.done)
	said := uint64(0) // of those that were lost
	write := func(line []byte) {
		_, _ = w.Write(line) // there is nowhere to tell of it
		if n := l.lost.Load(); n > said {
			Direct(w, slog.LevelWarn, false).Warn("the log could not keep up", "lost_lines", n-said)
			said = n
		}
	}
	for {
		select {
		case line := <-l.queue:
			write(line)
		case <-ctx.Done():
			for {
				select {
				case line := <-l.queue:
					write(line)
				default:
					return
				}
			}
		}
	}
}

func (l *lines) close() {
	l.stop()
	late := time.NewTimer(linesEnd)
	defer late.Stop()
	select {
	case <-l.done:
	case <-late.C: // whoever reads the log does not
	}
}
