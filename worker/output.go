package worker

import (
	"bytes"
	"context"
	"log/slog"
	"sync"
	"time"
)

// output logs the lines that a process prints, up to rate bytes a second. More is dropped
// and counted, so that code which floods its output neither blocks nor fills the log.
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
	if len(line) == 0 || !o.admit(len(line)) {
		return
	}
	l := parseLine(line)
	attrs := []slog.Attr{slog.String("stream", stream), slog.Any("line", UserText(l.text))}
	if l.requestID != "" {
		attrs = append(attrs, slog.String("request_id", l.requestID))
	}
	o.log.LogAttrs(context.Background(), l.level, "worker output", attrs...)
}

// UserText is the value of a log attribute that holds output, log records or exceptions of
// user code. Log handlers recognise it by its type.
type UserText string

// outputLine is a line of a process with the content of its mark.
type outputLine struct {
	level     slog.Level
	requestID string
	text      []byte // several lines if it was one record
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

// admit reports whether a line is logged, and logs the number of dropped lines once a second.
func (o *output) admit(size int) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if now := time.Now(); now.Sub(o.window) >= time.Second {
		o.window, o.bytes = now, 0
		o.reportDropped()
	}
	if o.bytes+size > o.rate && o.bytes > 0 {
		o.dropped++
		return false
	}
	o.bytes += size
	return true
}

// end logs the number of lines that were dropped last; the process is gone.
func (o *output) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.reportDropped()
}

// reportDropped logs how many lines were dropped since the last report. mu is held.
func (o *output) reportDropped() {
	if o.dropped > 0 {
		o.log.Warn("worker output dropped: it prints more than is logged", "lines", o.dropped, "limit_bytes_per_second", o.rate)
		o.dropped = 0
	}
}
