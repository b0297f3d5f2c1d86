package worker

import (
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
	if o.admit(len(line)) {
		o.log.Info("worker output", "stream", stream, "line", string(line))
	}
}

// admit decides about one line, and tells of those dropped in the second before.
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

// end tells of what was dropped last; the process is gone.
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
