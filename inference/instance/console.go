package instance

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
)

// Console is a log handler that forwards records and keeps the last lines for
// the instance's task. Their number is bounded: the oldest are dropped, and counted.
type Console struct {
	next  slog.Handler
	write slog.Handler // renders into lines
	lines *consoleLines
}

type consoleLines struct {
	mu      sync.Mutex // guards the fields below
	lines   []string
	dropped int
}

// maxConsoleLines bounds the lines between two flushes.
const maxConsoleLines = 1000

// NewConsole wraps the handler of a log. render creates a handler that formats records for
// readers, with one Write per record.
func NewConsole(next slog.Handler, render func(io.Writer) slog.Handler) *Console {
	lines := &consoleLines{}
	return &Console{next: next, lines: lines, write: render(lines)}
}

// Enabled implements slog.Handler.
func (c *Console) Enabled(ctx context.Context, level slog.Level) bool {
	return c.next.Enabled(ctx, level) || level >= slog.LevelInfo
}

// Handle implements slog.Handler.
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

// WithAttrs implements slog.Handler.
func (c *Console) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &Console{c.next.WithAttrs(attrs), c.write.WithAttrs(attrs), c.lines}
}

// WithGroup implements slog.Handler.
func (c *Console) WithGroup(name string) slog.Handler {
	return &Console{c.next.WithGroup(name), c.write.WithGroup(name), c.lines}
}

// Write stores one rendered record.
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
