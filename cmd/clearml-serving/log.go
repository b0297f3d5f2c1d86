package main

import (
	"context"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
)

// The rules of the log for people, on a terminal and on the instance's console: one
// line per event, the time first, then the level, the event, and its facts as
// key=value. Texts with blanks are quoted, so that a line can be split again. Texts
// of several lines, such as tracebacks, follow below, each line behind blockPrefix: a
// line that begins with a time is an event, whatever user code has written. With
// --log-format json the standard library's handler is used instead.

// blockPrefix is what a line of a fact of several lines begins with.
const blockPrefix = "    | "

// logHandler writes log records for people.
type logHandler struct {
	level  slog.Level
	color  bool
	prefix string // the open groups, "a.b."
	facts  string // of With, written once
	blocks string // of With, those of several lines
	out    *lockedWriter
}

// lockedWriter keeps the lines of different goroutines apart.
type lockedWriter struct {
	mu sync.Mutex // guards w
	w  io.Writer
}

func newLogHandler(w io.Writer, level slog.Level, color bool) *logHandler {
	return &logHandler{level: level, color: color, out: &lockedWriter{w: w}}
}

// Enabled tells whether the level is written.
func (h *logHandler) Enabled(_ context.Context, level slog.Level) bool { return level >= h.level }

// Handle writes one record.
func (h *logHandler) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	if !r.Time.IsZero() {
		b.WriteString(paint(h.color, faint, r.Time.Format("2006-01-02 15:04:05.000")))
		b.WriteByte(' ')
	}
	b.WriteString(h.levelWord(r.Level))
	b.WriteByte(' ')
	writePlain(&b, r.Message)
	b.WriteString(h.facts)
	var blocks strings.Builder
	r.Attrs(func(a slog.Attr) bool {
		h.fact(&b, &blocks, h.prefix, a)
		return true
	})
	b.WriteByte('\n')
	b.WriteString(h.blocks)
	b.WriteString(blocks.String())
	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	_, err := io.WriteString(h.out.w, b.String())
	return err
}

// WithAttrs returns a handler that writes the facts in every record.
func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *h
	var b, blocks strings.Builder
	for _, a := range attrs {
		h.fact(&b, &blocks, h.prefix, a)
	}
	next.facts += b.String()
	next.blocks += blocks.String()
	return &next
}

// WithGroup returns a handler that puts the name before the keys that follow.
func (h *logHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	next := *h
	next.prefix += name + "."
	return &next
}

func (h *logHandler) levelWord(level slog.Level) string {
	switch {
	case level >= slog.LevelError:
		return paint(h.color, red, "ERROR")
	case level >= slog.LevelWarn:
		return paint(h.color, yellow, "WARN ")
	case level >= slog.LevelInfo:
		return paint(h.color, green, "INFO ")
	default:
		return paint(h.color, faint, "DEBUG")
	}
}

// fact writes a fact into the event's line, or below it when it has several lines.
func (h *logHandler) fact(b, blocks *strings.Builder, prefix string, a slog.Attr) {
	value := a.Value.Resolve()
	if value.Kind() == slog.KindGroup {
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, inner := range value.Group() {
			h.fact(b, blocks, prefix, inner)
		}
		return
	}
	if a.Key == "" {
		return
	}
	text := factText(value)
	if lines := strings.Split(strings.TrimRight(text, "\r\n"), "\n"); len(lines) > 1 {
		blocks.WriteString("  " + paint(h.color, faint, prefix+a.Key+":") + "\n")
		for _, line := range lines {
			blocks.WriteString(blockPrefix)
			writePlain(blocks, strings.TrimSuffix(line, "\r"))
			blocks.WriteByte('\n')
		}
		return
	}
	b.WriteByte(' ')
	b.WriteString(paint(h.color, faint, prefix+a.Key+"="))
	b.WriteString(oneWord(text))
}

// writePlain writes a text without anything that could begin a line or move a
// terminal's cursor.
func writePlain(b *strings.Builder, text string) {
	for _, r := range text {
		switch {
		case unicode.IsPrint(r):
			b.WriteRune(r)
		case r == '\t':
			b.WriteString("    ")
		default:
			q := strconv.QuoteRune(r)
			b.WriteString(q[1 : len(q)-1])
		}
	}
}

func factText(v slog.Value) string {
	switch v.Kind() {
	case slog.KindTime:
		return v.Time().Format(time.RFC3339Nano)
	case slog.KindDuration:
		return roundDuration(v.Duration()).String()
	default:
		return v.String()
	}
}

func oneWord(text string) string {
	plain := strings.IndexFunc(text, func(r rune) bool { return r == ' ' || r == '"' || r == '=' || !unicode.IsPrint(r) }) < 0
	if text != "" && plain {
		return text
	}
	return strconv.Quote(text)
}

// roundDuration keeps three or four digits: more is noise to people.
func roundDuration(d time.Duration) time.Duration {
	switch abs := d.Abs(); {
	case abs >= time.Minute:
		return d.Round(time.Second)
	case abs >= time.Second:
		return d.Round(10 * time.Millisecond)
	case abs >= time.Millisecond:
		return d.Round(10 * time.Microsecond)
	default:
		return d
	}
}
