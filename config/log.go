package config

import (
	"io"
	"log/slog"
)

// Logger logs to w as configured.
func (c *Config) Logger(w io.Writer) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.Log.Level)) // checked
	return NewLogger(w, level, c.Log.Format == "json")
}

// NewLogger logs to w, as JSON or for people.
func NewLogger(w io.Writer, level slog.Level, json bool) *slog.Logger {
	opt := &slog.HandlerOptions{Level: level}
	if json {
		return slog.New(slog.NewJSONHandler(w, opt))
	}
	return slog.New(slog.NewTextHandler(w, opt))
}
