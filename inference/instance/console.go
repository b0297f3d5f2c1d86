package instance

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
)

// Console is a log handler that passes records on and keeps the last lines for
// the instance's task, bounded: a flood of lines drops the oldest and says so.
type Console struct {
	next  slog.Handler
	write slog.Handler // renders into lines
	lines *consoleLines
}

type consoleLines struct {
	mu      sync.Mutex // guards what follows
	lines   []string
	dropped int
}

// maxConsoleLines bounds what waits for the next flush.
const maxConsoleLines = 1000

// NewConsole wraps the handler of a log. What render makes writes records in the form
// that people shall read, each by one call.
func NewConsole(next slog.Handler, render func(io.Writer) slog.Handler) *Console {
	lines := &consoleLines{}
	return &Console{next: next, lines: lines, write: render(lines)}
}

// Enabled fulfils slog.Handler.
func (c *Console) Enabled(ctx context.Context, level slog.Level) bool {
	return c.next.Enabled(ctx, level) || level >= slog.LevelInfo
}

// Handle fulfils slog.Handler.
func (c *Console) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelInfo {
		if err := c.write.Handle(ctx, r); err != nil {
			return err
		}
	}
	if !c.next.Enabled(ctx, r.Level) {
		return nil
	}
	return c.next.Handle(ctx, r)
}

// WithAttrs fulfils slog.Handler.
func (c *Console) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &Console{c.next.WithAttrs(attrs), c.write.WithAttrs(attrs), c.lines}
}

// WithGroup fulfils slog.Handler.
func (c *Console) WithGroup(name string) slog.Handler {
	return &Console{c.next.WithGroup(name), c.write.WithGroup(name), c.lines}
}

// Write takes one rendered record.
func (l *consoleLines) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.lines) == maxConsoleLines {
		l.lines = append(l.lines[:0], l.lines[1:]...)
		l.dropped++
	}
	l.lines = append(l.lines, string(bytes.TrimRight(line, "\n")))
	return len(line), nil
}

// take returns the lines since the last call.
func (c *Console) take() []string {
	c.lines.mu.Lock()
	defer c.lines.mu.Unlock()
	lines := c.lines.lines
	if c.lines.dropped > 0 {
		lines = append([]string{fmt.Sprintf("(%d earlier lines were dropped)", c.lines.dropped)}, lines...)
	}
	c.lines.lines, c.lines.dropped = nil, 0
	return lines
}
