package worker

import (
	"bytes"
	"context"
	"log/slog"
	"sync"
	"time"
)

// output logs the lines that a process prints, no more than so many bytes a
// second. What is more is dropped and counted, so that code which floods its
// output is neither held up nor a danger to the log.
type output struct {
	log  *slog.Logger
	rate int

	mu      sync.Mutex // guards the rest
	window  time.Time
	bytes   int
	dropped int
}

func newOutput(log *slog.Logger, rate int) *output { return &output{log: log, rate: rate} }

// line logs one line; it may be called from any goroutine.
func (o *output) line(stream string, line []byte) {
	if len(line) == 0 {
		return
	}
	if !o.admit(len(line)) {
		return
	}
	l := parseLine(line)
	attrs := []slog.Attr{slog.String("stream", stream), slog.Any("line", UserText(l.text))}
	if l.requestID != "" {
		attrs = append(attrs, slog.String("request_id", l.requestID))
	}
	o.log.LogAttrs(context.Background(), l.level, "worker output", attrs...)
}

// UserText is the value of a log attribute that holds what user code has printed or
// logged, or what became of its exceptions. A log handler tells it by its type.
type UserText string

// outputLine is a line of a process with what its mark says.
type outputLine struct {
	level     slog.Level
	requestID string
	text      []byte // of several lines where it was one record
}

// The parts of a mark; see output.py.
const (
	markStart = 0x1e
	markEnd   = 0x1f
	lineBreak = 0x1d
)

var levels = [...]slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError}

// parseLine reads the mark of a line. A line without one is information.
func parseLine(line []byte) outputLine {
	l := outputLine{level: slog.LevelInfo, text: line}
	if len(line) == 0 || line[0] != markStart {
		return l
	}
	end := bytes.IndexByte(line, markEnd)
	if end < 2 || line[1] < '0' || int(line[1]-'0') >= len(levels) {
		return l
	}
	l.level, l.requestID = levels[line[1]-'0'], string(line[2:end])
	l.text = bytes.ReplaceAll(line[end+1:], []byte{lineBreak}, []byte{'\n'})
	return l
}

// admit decides about one line, and logs how many were dropped in the second before.
func (o *output) admit(size int) bool {
	o.mu.Lock()
	now, dropped := time.Now(), 0
	if now.Sub(o.window) >= time.Second {
		o.window, o.bytes = now, 0
		dropped, o.dropped = o.dropped, 0
	}
	ok := o.bytes+size <= o.rate || o.bytes == 0
	if ok {
		o.bytes += size
	} else {
		o.dropped++
	}
	o.mu.Unlock()
	if dropped > 0 {
		o.tellDropped(dropped)
	}
	return ok
}

// end logs what was dropped last; the process is gone.
func (o *output) end() {
	o.mu.Lock()
	dropped := o.dropped
	o.dropped = 0
	o.mu.Unlock()
	if dropped > 0 {
		o.tellDropped(dropped)
	}
}

func (o *output) tellDropped(n int) {
	o.log.Warn("worker output dropped: it prints more than is logged", "lines", n, "limit_bytes_per_second", o.rate)
}
